"""Turn the authors' published PyTorch weights into a checkpoint of ours.

    python -m sspd_jax convert ubfc.pth --output=DIR

The file is read without PyTorch and without running anything in it. PyTorch's network takes BGR frames
and ours RGB: the first layers' channels are turned about.
"""

from __future__ import annotations

import argparse

from sspd_jax.checkpoints.convert import convert
from sspd_jax.cli import common


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax convert",
        description=__doc__.split("\n")[0],
        epilog="The way back: python -m sspd_jax export --checkpoint=DIR --format=pytorch --output=FILE.pth",
    )
    parser.add_argument("weights", metavar="WEIGHTS.pth", help="PyTorch state dict of the published network")
    parser.add_argument("--output", required=True, metavar="DIR", help="checkpoint directory to make")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        count = convert(args.weights, args.output)
        print(f"{args.output}: {count:,} parameters from {args.weights}")

    return common.run(work, debug=args.debug)

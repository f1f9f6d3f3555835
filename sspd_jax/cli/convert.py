"""Turn the authors' published PyTorch weights into a checkpoint of ours.

    sspd_jax convert ubfc.pth --output=DIR

The file is read without PyTorch and without running anything in it. PyTorch's network takes BGR frames
and ours RGB: the first layers' channels are turned about. The way back:

    sspd_jax export --checkpoint=DIR --format=pytorch --output=FILE.pth
"""

from __future__ import annotations

import argparse

from sspd_jax.checkpoints.convert import convert
from sspd_jax.cli import common


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    parser.add_argument("weights", metavar="WEIGHTS.pth", help="PyTorch state dict of the published network")
    parser.add_argument("--output", required=True, metavar="DIR", help="checkpoint directory to make")
    return common.start(parser, _convert, argv)


def _convert(args: argparse.Namespace) -> None:
    count = convert(args.weights, args.output)
    print(f"{args.output}: {count:,} parameters from {args.weights}")

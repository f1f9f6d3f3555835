"""Write a trained network for use elsewhere: small, without this package, or in PyTorch.

    python -m sspd_jax export --checkpoint=DIR --format=stablehlo --output=FILE

What the formats are for: `orbax` is a checkpoint of what reading needs, without the parts that only training
uses; `stablehlo` is one file that runs with JAX alone (`examples/run_stablehlo.py`) on CPU, GPU and TPU, with
the JAX that wrote it and, as JAX promises, those of the six months after it, but not with an older one; and
`pytorch` is a state dict in the published network's layout, which the authors' scripts load.
"""

from __future__ import annotations

import argparse

from sspd_jax.checkpoints.export import FORMATS, export
from sspd_jax.cli import common


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax export",
        description=__doc__.split("\n")[0],
        epilog="Example: python -m sspd_jax export --checkpoint=checkpoints/ubfc --format=stablehlo "
        "--output=ubfc.stablehlo",
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="of a network")
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="orbax: a checkpoint of what reading needs; stablehlo: a file that runs with JAX alone; "
        "pytorch: a state dict in the published network's layout",
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="file (orbax: directory) to make")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        exported = export(args.checkpoint, args.output, args.format)
        print("; ".join([f"{args.output}: {exported.n_parameters:,} parameters", *exported.notes]))

    return common.run(work, debug=args.debug)

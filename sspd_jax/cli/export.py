"""Write a trained network for use elsewhere: small, without this package, or in PyTorch.

    sspd_jax export --checkpoint=DIR --format=stablehlo --output=FILE

What the formats are for: `orbax` is a checkpoint of what inference needs, without what only training uses;
`stablehlo` is one file that runs with JAX alone (`examples/run_stablehlo.py`) on CPU, GPU and TPU, with
the JAX that wrote it and, as JAX promises, those of the six months after it, but not with an older one; and
`pytorch` is a state dict in the published network's layout, which the authors' scripts load.
"""

from __future__ import annotations

import argparse

from sspd_jax.checkpoints.export import FORMATS, export
from sspd_jax.cli import common


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="of a network")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of what is written, see above")
    parser.add_argument("--output", required=True, metavar="PATH", help="file (orbax: directory) to make")
    return common.start(parser, _export, argv)


def _export(args: argparse.Namespace) -> None:
    exported = export(args.checkpoint, args.output, args.format)
    print("; ".join([f"{args.output}: {exported.n_parameters:,} parameters", *exported.notes]))

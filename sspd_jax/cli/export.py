"""Write a trained network for use elsewhere: small, without this package, or in PyTorch.

    sspd_jax export --checkpoint=DIR --format=stablehlo --output=FILE
    sspd_jax export --format=onnx --form=stream --output=pulse.onnx

What the formats are for: `orbax` is a checkpoint of what inference needs, without what only training uses;
`stablehlo` is one file that runs with JAX alone (`examples/run_stablehlo.py`) on CPU, GPU and TPU, with
the JAX that wrote it and, as JAX promises, those of the six months after it, but not with an older one;
`pytorch` is a state dict in the published network's layout, which the authors' scripts load; and `onnx` and
`tflite` are for servers, browsers and phones, read by ONNX Runtime and LiteRT (docs/phone.md). These two need
`pip install 'sspd_jax[export]'`; they also write the network that ships with the package, where no checkpoint
is named.
"""

from __future__ import annotations

import argparse

from sspd_jax.checkpoints.export import FORMATS, PORTABLE, export
from sspd_jax.checkpoints.portable_graph import FORMS
from sspd_jax.cli import common


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="of a network; onnx and tflite: by default the shipped network"
    )
    formats = (*FORMATS, *PORTABLE)
    parser.add_argument("--format", required=True, choices=formats, help="of what is written, see above")
    parser.add_argument("--output", required=True, metavar="PATH", help="file (orbax: directory) to make")
    parser.add_argument(
        "--form",
        choices=FORMS,
        default=FORMS[0],
        help="of onnx and tflite: reads a whole clip, or a stream block by block (default: %(default)s)",
    )
    parser.add_argument(
        "--licence",
        metavar="TEXT",
        help="of onnx and tflite: the terms that the network may be used under, for the file's metadata",
    )
    return common.start(parser, _export, argv)


def _export(args: argparse.Namespace) -> None:
    exported = export(args.checkpoint, args.output, args.format, form=args.form, licence=args.licence)
    print("; ".join([f"{args.output}: {exported.n_parameters:,} parameters", *exported.notes]))

"""Put several evaluations side by side, with differences on the windows they share.

sspd_jax compare workdir/a workdir/b workdir/c [--methods=target,pos] [--output=DIR]
"""

from __future__ import annotations

import argparse

from etils import epath

from sspd_jax.cli import common
from sspd_jax.errors import ConfigError
from sspd_jax.evaluation.compare import as_text, compare, read_columns, write


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="work directories or reports; the first is compared with"
    )
    parser.add_argument("--methods", metavar="A,B", default="", help="of each (default: its primary one)")
    parser.add_argument("--output", metavar="DIR", help="write compare.html, .csv, .tex and .json there")
    return common.start(parser, _compare, argv)


def _compare(args: argparse.Namespace) -> None:
    methods = [name.strip() for name in args.methods.split(",") if name.strip()]
    columns, words, settings = read_columns(args.folders, methods)
    if len(columns) < 2:
        raise ConfigError("one run alone compares with nothing; name two or more, or several --methods")
    result = compare(columns, words, settings)
    if args.output:
        write(result, epath.Path(args.output))
    print(as_text(result))
    if args.output:
        print(f"page: {epath.Path(args.output) / 'compare.html'}")

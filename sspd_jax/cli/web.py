"""Write a web page that reads a pulse in the browser, from a camera or a file; no picture leaves the device.

    sspd_jax web OUT
    python -m http.server --directory OUT

OUT is a folder of static files that any web server serves; a browser gives a page its camera from
https://… and from http://localhost only. Needs `pip install 'sspd_jax[export]'`, and npm, which fetches the
runtime of the networks by a lock file with hashes.
"""

from __future__ import annotations

import argparse

from sspd_jax.cli import common
from sspd_jax.inference import site


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    parser.add_argument("output", metavar="OUT", help="folder to make")
    return common.start(parser, _write, argv)


def _write(args: argparse.Namespace) -> None:
    size = site.write(args.output)
    print(f"{args.output}: {size / 1e6:.0f} MB; serve it by: python -m http.server --directory {args.output}")

"""Train and test over several seeds, within a dataset, across datasets and in folds, from one file.

sspd_jax study --config=configs/simulated_study.toml --workdir=workdir/study

What is finished is not run again: killed and started again, a study goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from etils import epath

from sspd_jax.cli import common
from sspd_jax.evaluation import evaluate, protocol
from sspd_jax.experiments.study import as_text, load, run


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    parser.add_argument(
        "--config", required=True, metavar="FILE.toml", help="the study: a file, or a shipped one's name"
    )
    parser.add_argument("--workdir", metavar="DIR", help="of the study (default: workdir/<name of the file>)")
    parser.add_argument("--no_progress", action="store_true", help="draw no progress bar")
    return common.start(parser, _run, argv, goes_on="what is finished stays, and the same command goes on")


def _run(args: argparse.Namespace) -> None:
    study = load(args.config)
    workdir = epath.Path(args.workdir or f"workdir/{Path(args.config).stem}")
    for name, summary in run(study, workdir, progress=not args.no_progress).items():
        print(as_text(summary))
        print(f"\nreport: {workdir / 'report' / evaluate.folder_name(protocol.load(name)) / 'index.html'}\n")

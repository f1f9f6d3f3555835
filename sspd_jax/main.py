"""Train, test and report an experiment.

python -m sspd_jax.main --config=configs/ubfc.py --config.data.source=/path/to/UBFC-rPPG
python -m sspd_jax.main --config=configs/ubfc.py:released --workdir=runs/released --config.seed=1
"""

from __future__ import annotations

import argparse
import sys

from sspd_jax import command, processes
from sspd_jax import config as experiments
from sspd_jax.command import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax.main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Any value of the configuration is overridden by --config.KEY=VALUE.",
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:VARIANTS]",
        help="the experiment: a file, or a shipped one's name",
    )
    parser.add_argument("--workdir", metavar="DIR", help="of the run (default: workdir/<experiment>)")
    several = parser.add_argument_group(
        "several processes",
        "with --config.distributed=auto, where the machine does not say it (docs/pods.md)",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
    parser.add_argument("--no_progress", action="store_true", help="draw no progress bar")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args, rest = parser.parse_known_args(argv)

    def work():
        for argument in rest:
            if not argument.startswith("--config.") or "=" not in argument:
                raise ConfigError(f"argument {argument!r} is unknown; overrides look like --config.seed=1")
        config = experiments.load(args.config, [argument.removeprefix("--config.") for argument in rest])
        experiments.validate(config)
        processes.start(
            config.distributed,
            coordinator=args.coordinator,
            count=args.num_processes,
            index=args.process_id,
        )
        # The checks above answer before the heavy imports.
        from sspd_jax import evaluate, interruption, score_sheet, train

        workdir = args.workdir or f"workdir/{experiments.name_of(args.config)}"
        try:
            result = train.train_and_evaluate(config, workdir, progress=not args.no_progress)
        except interruption.Stopped as stopped:
            if processes.is_first():
                print(stopped, file=sys.stderr)
            return
        if not processes.is_first():
            return
        if not result:
            print(f"trained on everyone, nobody was tested; the network: {workdir}/{train.NETWORK}/target")
            return
        print(score_sheet.as_text(result))
        print(f"report: {workdir}/{evaluate.REPORT}/index.html")

    return command.run(work, debug=args.debug)


if __name__ == "__main__":
    sys.exit(main())

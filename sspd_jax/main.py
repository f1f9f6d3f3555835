"""Train, test and report an experiment.

python -m sspd_jax.main --config=configs/ubfc.py --config.data.source=/path/to/UBFC-rPPG
python -m sspd_jax.main --config=configs/ubfc.py:released --workdir=runs/released --config.seed=1
python -m sspd_jax.main --config=configs/ubfc.py --config.data.source=/path/to/UBFC-rPPG --check_only

Started again in the same work directory, it goes on where it was. With --check_only nothing is written:
people, lengths, truths, disk and work directory are checked, and a step is measured.
"""

from __future__ import annotations

import argparse
import sys

from sspd_jax.cli import common
from sspd_jax.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(
        __name__,
        __doc__,
        prog="python -m sspd_jax.main",
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
    parser.add_argument(
        "--check_only",
        action="store_true",
        help="check everything that can be known beforehand, print the plan and what it takes, do nothing",
    )
    parser.add_argument("--no_progress", action="store_true", help="draw no progress bar")
    goes_on = "what is prepared and the last checkpoint stay, and the same command goes on from them"
    return common.start(parser, _train, argv, allow_unknown=True, goes_on=goes_on)


def _train(args: argparse.Namespace) -> None:
    # Not before arguments are parsed: help is there at once, and says nothing of what is not installed.
    from sspd_jax.runtime import distributed
    from sspd_jax.training import config as experiments

    for argument in args.unknown:
        if not argument.startswith("--config.") or "=" not in argument:
            name, equals, value = argument.removeprefix("--").partition("=")
            keys = experiments.keys_named(name.removeprefix("config."))
            like = f"--config.{keys[0]}{equals or '='}{value or 'VALUE'}" if keys else "--config.seed=1"
            if name == "dataset":
                raise ConfigError(
                    f"argument {argument!r} is unknown; a dataset's experiment is --config={value or 'NAME'}"
                )
            raise ConfigError(f"argument {argument!r} is unknown; overrides look like {like}")
    config = experiments.load(args.config, [argument.removeprefix("--config.") for argument in args.unknown])
    experiments.validate(config)
    distributed.start(
        config.distributed,
        coordinator=args.coordinator,
        count=args.num_processes,
        index=args.process_id,
    )
    # The checks above answer before the heavy imports.
    from sspd_jax.evaluation import evaluate, render
    from sspd_jax.experiments import run
    from sspd_jax.runtime import preemption
    from sspd_jax.training.workdir import NETWORK

    workdir = args.workdir or f"workdir/{experiments.name_of(args.config)}"
    if args.check_only:
        from sspd_jax.experiments import plan

        planned = plan.check(config, workdir)
        print(planned, flush=True)
        print(plan.cost(planned, plan.measure_step(config, planned.sizes)))
        return
    try:
        result = run.train_and_evaluate(config, workdir, progress=not args.no_progress)
    except preemption.Stopped as stopped:
        if distributed.is_first():
            print(stopped, file=sys.stderr)
        return
    if not distributed.is_first():
        return
    if not result:
        print(f"trained on everyone, nobody was tested; the network: {workdir}/{NETWORK}/target")
        return
    print(render.as_text(result))
    print(f"report: {workdir}/{evaluate.REPORT}/index.html")


if __name__ == "__main__":
    sys.exit(main())

"""Write simulated recordings: face videos with a known pulse, laid out on disk as UBFC-rPPG's DATASET_2.

    sspd_jax simulate OUT --preset=default --people=12 --seconds=30 --seed=0

writes OUT/subject1 … subject12, each with vid.avi and ground_truth.txt (three lines: PPG, heart rate in bpm,
time in s; one value per frame). Run again, it adds the subjects that are missing and keeps the others. Each
subject depends on the seed and its own number only.

All people are made from one portrait (`sspd_jax/simulation/portrait.png`), so they differ less than real
ones: a method that reads them has been shown to work on them, not on people.
"""

from __future__ import annotations

import argparse
import os

from sspd_jax.cli import common
from sspd_jax.simulation.person import SIZE
from sspd_jax.simulation.presets import PRESETS
from sspd_jax.simulation.recordings import write_recordings


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add("output", metavar="OUT", help="folder to write subject1, subject2, … into")
    add("--preset", default="default", help=f"how hard: {', '.join(PRESETS)} (default: %(default)s)")
    add("--people", type=int, default=12, help="how many, one recording each (default: %(default)d)")
    add("--seconds", type=float, default=30.0, help="length of a recording (default: %(default)g)")
    add("--seed", type=int, default=0, help="of the list of people (default: %(default)d)")
    size = "x".join(map(str, SIZE))
    add("--size", type=_size, default=size, help="of the pictures, WxH (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count(), help="processes that film (default: %(default)s)")
    return common.start(parser, _write, argv)


def _write(args: argparse.Namespace) -> None:
    folders = write_recordings(
        args.output,
        preset=args.preset,
        people=args.people,
        seconds=args.seconds,
        seed=args.seed,
        size=args.size,
        workers=args.workers,
        on_written=lambda line: print(line, flush=True),
    )
    print(f"{args.output}: {len(folders)} recordings")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)

"""Write simulated recordings: face videos with a known pulse, laid out on disk as UBFC-rPPG's DATASET_2.

    python -m sspd_jax simulate OUT --preset=default --people=12 --seconds=30 --seed=0

writes OUT/subject1 … subject12, each with vid.avi and ground_truth.txt (three lines: PPG, heart rate in bpm,
time in s; one value per frame). Run again, it adds the subjects that are missing and keeps the others. Each
subject depends on the seed and its own number only.

Every picture is made in the order in which a camera would see it: a person's texture, changed by blood and
by shading; highlights; the head's motion; the background; the room's light; the sensor's noise; 8 bits; a
codec. All people are made from one portrait (`sspd_jax/simulation/portrait.png`), so they differ less than real
ones: a method that reads them has been shown to work on them, not on people.
"""

from __future__ import annotations

import argparse
import os

from sspd_jax.cli.common import run
from sspd_jax.simulation.person import SIZE
from sspd_jax.simulation.presets import PRESETS
from sspd_jax.simulation.recordings import write_recordings


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
      argv: arguments without the program's name; by default the process's own.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser(
        "python -m sspd_jax simulate",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("output", metavar="OUT", help="folder to write subject1, subject2, … into")
    parser.add_argument("--preset", default="default", help=f"how hard: {', '.join(PRESETS)}")
    parser.add_argument("--people", type=int, default=12, help="how many, one recording each")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a recording")
    parser.add_argument("--seed", type=int, default=0, help="of the list of people")
    parser.add_argument("--size", type=_size, default="x".join(map(str, SIZE)), help="of the pictures, WxH")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that film")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
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

    return run(work, debug=args.debug)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)

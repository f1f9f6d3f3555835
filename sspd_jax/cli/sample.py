"""Write a video of a face with a known pulse: one portrait, animated, through a real codec.

It is what `make demo` and the tests look at. It is one still picture with an even pulse, a slight sway and
sensor noise; a method that reads it has shown that it runs, not that it works on people.

    python -m sspd_jax sample OUT.mp4 --bpm 72 --seconds 12 --seed 0

writes OUT.mp4 and, beside it, the truth: OUT.csv with the columns time_s,ppg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sspd_jax.cli.common import run
from sspd_jax.simulation.sample_video import write_face_video


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
      argv: arguments without the program's name; by default the process's own.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser("python -m sspd_jax sample", description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="video to write, such as sample.mp4")
    parser.add_argument("--bpm", type=float, default=72.0, help="heart rate (default: %(default)g)")
    parser.add_argument("--seconds", type=float, default=12.0, help="length (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of the sensor noise (default: %(default)d)")
    arguments = parser.parse_args(argv)

    def work():
        write_face_video(arguments.output, seconds=arguments.seconds, bpm=arguments.bpm, seed=arguments.seed)
        print(f"{arguments.output}: {arguments.seconds:g} s at {arguments.bpm:g} bpm")

    return run(work)

"""Write a video of a face with a known pulse: one portrait, animated, through a real codec.

    sspd_jax sample OUT.mp4 --bpm=72 --seconds=12 --seed=0

writes OUT.mp4 and, beside it, the truth: OUT.csv with the columns time_s,ppg. It is what `make demo` and the
tests look at: one still picture with an even pulse, a slight sway and sensor noise. A method that finds this
pulse has shown that it runs, not that it works on people.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sspd_jax.cli import common
from sspd_jax.simulation.sample_video import write_face_video


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    parser.add_argument("output", type=Path, help="video to write, such as sample.mp4")
    parser.add_argument("--bpm", type=float, default=72.0, help="heart rate (default: %(default)g)")
    parser.add_argument("--seconds", type=float, default=12.0, help="length (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of the sensor noise (default: %(default)d)")
    return common.start(parser, _write, argv)


def _write(args: argparse.Namespace) -> None:
    write_face_video(args.output, seconds=args.seconds, bpm=args.bpm, seed=args.seed)
    print(f"{args.output}: {args.seconds:g} s at {args.bpm:g} bpm")

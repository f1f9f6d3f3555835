"""Write recordings with a known pulse, laid out on disk as UBFC-rPPG's DATASET_2.

Of simulated people:

    sspd_jax simulate OUT --preset=default --people=12 --seconds=30 --seed=0

writes OUT/subject1 … subject12, each with vid.avi and ground_truth.txt (three lines: PPG, heart rate in bpm,
time in s; one value per frame). All people are made from one portrait (`sspd_jax/simulation/portrait.png`),
so they differ less than real ones: a method that reads them has been shown to work on them, not on people.

Of your own footage, with a pulse of a known rate put in:

    sspd_jax simulate OUT --from=my_own_clip.mp4 --bpm=84

finds the skin, weakens the clip's own pulse where one is found, puts the new one in and encodes anew: what a
reader makes of your camera, light and room. Several --from and --bpm give a recording each. Short clips are
played to and fro. subjectN/footage.json says what was put in, taken out and left by the codec.

Of the same footage without any pulse, while something else beats or moves, to test what a reader refuses:

    sspd_jax simulate OUT --from=my_own_clip.mp4 --pulse_free=nod

--pulse_free=all gives every kind. Rates and strengths are drawn by the seed. The PPG of ground_truth.txt is
0, its heart rate nan.

Run again, it adds the subjects that are missing and keeps the others. Each subject depends on the seed, its
own number and its clip only.
"""

from __future__ import annotations

import argparse
import os

from sspd_jax.cli import common
from sspd_jax.errors import ConfigError
from sspd_jax.simulation.footage_recordings import ALL_KINDS, CODECS, CRF, Encoding, write_footage_recordings
from sspd_jax.simulation.person import SIZE
from sspd_jax.simulation.presets import PRESETS
from sspd_jax.simulation.pulse_free import KINDS
from sspd_jax.simulation.recordings import write_recordings

OF_PEOPLE = {"preset": "default", "people": 12, "size": SIZE}
OF_FOOTAGE = {"bpm": None, "pulse_free": None, "strength": 0.6, "codec": "h264", "crf": None, "bitrate": None}
BPM = 72.0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add("output", metavar="OUT", help="folder to write subject1, subject2, … into")
    add("--seconds", type=float, default=30.0, help="length of a recording (default: %(default)g)")
    add("--seed", type=int, default=0, help="of what is drawn (default: %(default)d)")
    add("--workers", type=int, default=os.cpu_count(), help="processes that film (default: %(default)s)")
    add = parser.add_argument_group("simulated people").add_argument
    add("--preset", help=f"how hard: {', '.join(PRESETS)} (default: {OF_PEOPLE['preset']})")
    add("--people", type=int, help=f"how many, one recording each (default: {OF_PEOPLE['people']})")
    size = "x".join(map(str, SIZE))
    add("--size", type=_size, help=f"of the pictures, WxH (default: {size})")
    add = parser.add_argument_group("your own footage").add_argument
    add("--from", dest="clips", action="append", metavar="CLIP", help="a video of a face; may be given again")
    add(
        "--bpm",
        type=float,
        action="append",
        help=f"mean rate to put in, 40 to 180; may be given again (default: {BPM:g})",
    )
    add("--strength", type=float, help="of it, per cent of green in linear light (default: 0.6)")
    add("--codec", help=f"{', '.join(CODECS)} (default: h264)")
    add("--crf", type=int, help=f"quality, smaller is better (default: {CRF})")
    add("--bitrate", type=float, help="instead, kbit/s")
    add(
        "--pulse_free",
        action="append",
        metavar="KIND",
        help=f"no pulse; may be given again: {', '.join(KINDS)}, or {ALL_KINDS}",
    )
    return common.start(parser, _write, argv)


def _write(args: argparse.Namespace) -> None:
    common_settings = {
        "seconds": args.seconds,
        "seed": args.seed,
        "workers": args.workers,
        "on_written": lambda line: print(line, flush=True),
    }
    _refuse(args, OF_PEOPLE if args.clips else OF_FOOTAGE, with_clips=bool(args.clips))
    if args.clips:
        folders = write_footage_recordings(
            args.output,
            args.clips,
            bpm=args.bpm or ([] if args.pulse_free else [BPM]),
            kinds=args.pulse_free or [],
            strength=OF_FOOTAGE["strength"] if args.strength is None else args.strength,
            encoding=Encoding(args.codec or OF_FOOTAGE["codec"], args.crf, args.bitrate),
            **common_settings,
        )
    else:
        chosen = {
            name: default if getattr(args, name) is None else getattr(args, name)
            for name, default in OF_PEOPLE.items()
        }
        folders = write_recordings(args.output, **chosen, **common_settings)
    print(f"{args.output}: {len(folders)} recordings")


def _refuse(args: argparse.Namespace, names: dict, *, with_clips: bool) -> None:
    """Refuse what says nothing here: a setting that is silently dropped would be believed."""
    for name in names:
        if getattr(args, name) is not None:
            why = "does not go with --from" if with_clips else "needs --from=CLIP"
            raise ConfigError(f"--{name} {why}; leave it out{'' if with_clips else ' or name a clip'}")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)

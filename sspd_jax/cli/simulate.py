"""Write recordings with a known pulse, laid out on disk as UBFC-rPPG's DATASET_2.

Of simulated people:

    sspd_jax simulate OUT --preset=phone --people=40 --seconds=30 --seed=0

films the first 40 of an endless list of people who differ in face, skin, hair, beard and glasses, as phones
film them: OUT/subject1 …, each with vid.*, ground_truth.txt (three lines: PPG, heart rate in bpm, time in
s; one value per frame) and recording.json. Other presets: studio, webcam, browser, talking, walking, dark,
screen_light, lamp. --split=fit, choose or test takes the people of one part of the list, so that nobody is
learned from and tested on.

    sspd_jax simulate OUT --preset=phone --people=40 --pulse_free=photograph

films the same with everything but a pulse. --pulse_free=all gives every kind.

The presets easy, default and hard are small and quick, nearly without a codec, all people made from one
portrait (`sspd_jax/simulation/portrait.png`): a method that reads them has been shown to work on them, not
on people.

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
from collections.abc import Iterable
from pathlib import Path

from sspd_jax.cli import common
from sspd_jax.errors import ConfigError
from sspd_jax.simulation.footage_recordings import ALL_KINDS, CODECS, CRF, Encoding, write_footage_recordings
from sspd_jax.simulation.people.film import PULSE_FREE
from sspd_jax.simulation.people.looks import ALL, SPLITS
from sspd_jax.simulation.people.presets import PRESETS as AS_FILMED
from sspd_jax.simulation.people.recordings import write_people_recordings
from sspd_jax.simulation.person import SIZE
from sspd_jax.simulation.presets import PRESETS
from sspd_jax.simulation.pulse_free import KINDS
from sspd_jax.simulation.recordings import write_recordings

OF_PEOPLE = {"preset": "default", "people": 12, "size": None, "split": ALL}
OF_FOOTAGE = ("bpm", "strength")
ENCODED = ("codec", "crf", "bitrate")
BPM, STRENGTH = 72.0, 0.6


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add("output", metavar="OUT", help="folder to write subject1, subject2, … into")
    add("--seconds", type=float, default=30.0, help="length of a recording (default: %(default)g)")
    add("--seed", type=int, default=0, help="of what is drawn (default: %(default)d)")
    add("--workers", type=int, default=os.cpu_count(), help="processes that film (default: %(default)s)")
    add = parser.add_argument_group("simulated people").add_argument
    names = f"{', '.join(AS_FILMED)}; small and quick: {', '.join(PRESETS)}"
    add("--preset", help=f"how they are filmed: {names} (default: {OF_PEOPLE['preset']})")
    add("--people", type=int, help=f"how many, one recording each (default: {OF_PEOPLE['people']})")
    add("--split", help=f"of the list of people: {', '.join(SPLITS)}, {ALL} (default: {ALL})")
    add(
        "--size", type=_size, help=f"of the pictures, WxH (default: the preset's; {'x'.join(map(str, SIZE))})"
    )
    add = parser.add_argument_group("your own footage").add_argument
    add("--from", dest="clips", action="append", metavar="CLIP", help="a video of a face; may be given again")
    add(
        "--bpm",
        type=float,
        action="append",
        help=f"mean rate to put in, 40 to 180; may be given again (default: {BPM:g})",
    )
    add("--strength", type=float, help=f"of it, per cent of green in linear light (default: {STRENGTH:g})")
    add = parser.add_argument_group("both").add_argument
    add("--codec", help=f"{', '.join(CODECS)} (default: h264, or the preset's)")
    add("--crf", type=int, help=f"quality, smaller is better (default: {CRF})")
    add("--bitrate", type=float, help="instead, kbit/s")
    add(
        "--pulse_free",
        action="append",
        metavar="KIND",
        help=f"no pulse; may be given again: {ALL_KINDS}; of people: {', '.join(PULSE_FREE)}; of footage: "
        f"{', '.join(KINDS)}",
    )
    return common.start(parser, _write, argv)


def _write(args: argparse.Namespace) -> None:
    run = {
        "seconds": args.seconds,
        "seed": args.seed,
        "workers": args.workers,
        "on_written": lambda line: print(line, flush=True),
    }
    folders = _of_footage(args, run) if args.clips else _of_people(args, run)
    print(f"{args.output}: {len(folders)} recordings")


def _of_footage(args: argparse.Namespace, run: dict) -> list[Path]:
    _refuse(args, OF_PEOPLE, "does not go with --from; leave it out")
    return write_footage_recordings(
        args.output,
        args.clips,
        bpm=args.bpm or ([] if args.pulse_free else [BPM]),
        kinds=args.pulse_free or [],
        strength=STRENGTH if args.strength is None else args.strength,
        encoding=Encoding(args.codec or "h264", args.crf, args.bitrate),
        **run,
    )


def _of_people(args: argparse.Namespace, run: dict) -> list[Path]:
    _refuse(args, OF_FOOTAGE, "needs --from=CLIP; leave it out or name a clip")
    chosen = {
        name: default if getattr(args, name) is None else getattr(args, name)
        for name, default in OF_PEOPLE.items()
    }
    if chosen["preset"] in AS_FILMED:
        kinds = list(PULSE_FREE) if ALL_KINDS in (args.pulse_free or []) else args.pulse_free or []
        encoding = None
        if any(getattr(args, name) is not None for name in ENCODED):
            encoding = Encoding(args.codec or AS_FILMED[chosen["preset"]].codec, args.crf, args.bitrate)
        return write_people_recordings(args.output, kinds=kinds, encoding=encoding, **chosen, **run)
    if chosen["preset"] not in PRESETS:
        raise ConfigError(f"preset {chosen['preset']!r} is none of {', '.join([*AS_FILMED, *PRESETS])}")
    others = f"name a clip by --from, or choose {', '.join(AS_FILMED)}"
    why = f"does not go with the preset {chosen['preset']}; leave it out, {others}"
    _refuse(args, (*ENCODED, "pulse_free", "split"), why)
    preset, people, size = chosen["preset"], chosen["people"], chosen["size"] or SIZE
    return write_recordings(args.output, preset=preset, people=people, size=size, **run)


def _refuse(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Refuse what says nothing here: a setting that is silently dropped would be believed."""
    for name in names:
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} {why}")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)

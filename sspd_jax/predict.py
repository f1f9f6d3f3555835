"""Read a heart rate from a face video.

python -m sspd_jax.predict face.mp4 --checkpoint=DIR
python -m sspd_jax.predict face.mp4 --method=pos
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sspd_jax import command, storage
from sspd_jax.command import ConfigError, UserError
from sspd_jax.heart_rate import classical, rate
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.video import face_clip
from sspd_jax.video.decode import ASSUMED_FPS, read_facts

if TYPE_CHECKING:  # JAX takes seconds to import, and the classical methods do without it
    from sspd_jax.reader import Reader

METHODS = ("sspd", *sorted(classical.METHODS))
MIN_DURATION_S = 4.0
"""Shorter waves hold too few beats: at 45 bpm, three."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """A heart rate and what it was read from.

    Attributes:
      file: the video.
      method: 'sspd' or the name of a classical method.
      read_out: how the rate was read from the wave: 'spectrum' or 'wavelet'.
      heart_rate_bpm: beats per minute, over the whole wave.
      wave: the pulse wave. Its sign and phase mean nothing for 'sspd'.
      face_box: left, top, right, bottom of the crop in pixels of the video's frames.
      checkpoint: of the network, or None.
      notes: what was left out or done to the video, a sentence each.
    """

    file: str
    method: str
    read_out: str
    heart_rate_bpm: float
    wave: Wave
    face_box: tuple[int, int, int, int]
    checkpoint: str | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; times are seconds since the video's first frame."""
        return {
            "file": self.file,
            "method": self.method,
            "checkpoint": self.checkpoint,
            "heart_rate_bpm": self.heart_rate_bpm,
            "read_out": self.read_out,
            "fps": self.wave.fps,
            "start_s": self.wave.start_s,
            "duration_s": self.wave.duration_s,
            "face_box": list(self.face_box),
            "notes": list(self.notes),
            "times_s": [round(float(t), 6) for t in self.wave.times_s],
            "wave": [float(v) for v in self.wave.values],
        }


def predict(
    path: str | Path, *, reader: Reader | None = None, method: str = "sspd", read_out: str = "spectrum"
) -> Prediction:
    """Read the heart rate of the face in a video.

    The longest stretch without a gap in time counts; the others are named in the notes.

    Args:
      path: a file that FFmpeg can decode.
      reader: the network, for the method 'sspd'.
      method: 'sspd', 'green', 'chrom' or 'pos'.
      read_out: from the wave to its rate: 'spectrum' (interpolated peak) or 'wavelet' (as published).

    Returns:
      The prediction.

    Raises:
      UserError: the video cannot be read, shows no face, is too short or holds no pulse wave.
      ConfigError: an unknown method or read-out, or 'sspd' without a network.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is none of {', '.join(METHODS)}")
    if read_out not in rate.READ_OUTS:
        raise ConfigError(f"read-out {read_out!r} is none of {', '.join(rate.READ_OUTS)}")
    if method == "sspd" and reader is None:
        raise ConfigError(
            "the method sspd needs --checkpoint=DIR (`python -m sspd_jax.convert` makes one); "
            "green, chrom and pos need none"
        )
    stated = read_facts(path).fps or ASSUMED_FPS
    fps = reader.clock_rate(stated) if method == "sspd" else stated
    size = reader.crop_size if method == "sspd" else face_clip.SIZE
    clip = face_clip.open_face_clip(path, size=size)

    def read(crops: Iterable[np.ndarray], start_s: float) -> Wave:
        if method == "sspd":
            return reader.read(crops, fps, start_s)
        trace = np.array([crop.mean(axis=(0, 1), dtype=np.float64) for crop in crops])
        return Wave(classical.METHODS[method](trace, fps), fps, start_s)

    notes = [f"no face before {clip.start_s:.1f} s"] if clip.start_s > 0 else []
    wave: Wave | None = None
    seen_s = 0.0
    for _, segment in groupby(clip.on_clock(fps), key=itemgetter(0)):
        stretch, duration_s, start_s = _read_stretch(segment, fps, read)
        seen_s = max(seen_s, duration_s)
        shorter = stretch
        if stretch is not None and (wave is None or stretch.duration_s > wave.duration_s):
            shorter, wave = wave, stretch
        if shorter is not None:
            start_s, duration_s = shorter.start_s, shorter.duration_s
        if stretch is None or shorter is not None:
            notes.append(f"left out {start_s:.1f}–{start_s + duration_s:.1f} s, cut off by a gap in time")
    if wave is None:
        raise UserError(
            f"{path}: has only {seen_s:.1f} s of unbroken video with a face; "
            f"film for {MIN_DURATION_S:g} s or more, better 10"
        )
    try:
        bpm = rate.READ_OUTS[read_out](wave.values, wave.fps)
    except ValueError as error:
        raise UserError(f"{path}: at {wave.fps:g} frames/s no pulse can be read ({error})") from error
    if not math.isfinite(bpm):
        raise UserError(f"{path}: shows no pulse (its wave is flat); film a living face, well lit")
    checkpoint = reader.name if method == "sspd" else None
    box = dataclasses.astuple(clip.box)
    return Prediction(str(path), method, read_out, bpm, wave, box, checkpoint, tuple(notes))


def _read_stretch(
    segment: Iterator[tuple[int, float, np.ndarray]],
    fps: float,
    read: Callable[[Iterable[np.ndarray], float], Wave],
) -> tuple[Wave | None, float, float]:
    """Read one unbroken stretch: its wave (None if it is too short), duration and start in s."""
    head = list(islice(segment, math.ceil(MIN_DURATION_S * fps)))
    start_s = head[0][1]
    if len(head) < MIN_DURATION_S * fps:
        return None, len(head) / fps, start_s
    wave = read((image for _, _, image in chain(head, segment)), start_s)
    return wave, wave.duration_s, start_s


def write_json(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as JSON: one object for one video, a list of objects for several.

    Args:
      path: of the file; written aside, then renamed.
      predictions: what to write.

    Raises:
      UserError: it cannot be written.
    """
    rows = [prediction.to_json() for prediction in predictions]
    storage.write_text(path, json.dumps(rows[0] if len(rows) == 1 else rows, allow_nan=False) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m sspd_jax.predict", description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files that FFmpeg can decode")
    parser.add_argument("--checkpoint", metavar="DIR", help="network to read with (for --method=sspd)")
    parser.add_argument("--method", default="sspd", choices=METHODS, help="how to read (default: sspd)")
    parser.add_argument(
        "--read-out",
        default="spectrum",
        choices=tuple(rate.READ_OUTS),
        help="from wave to rate: its interpolated spectral peak (default), or wavelet selection and mean "
        "beat-to-beat rate as published",
    )
    parser.add_argument("--json", metavar="FILE", help="write heart rate, wave and times to FILE")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        if args.json and not Path(args.json).absolute().parent.is_dir():
            raise UserError(f"{args.json}: cannot be written (no such folder); choose another place")
        reader = None
        if args.method == "sspd" and args.checkpoint:
            from sspd_jax.reader import load

            reader = load(args.checkpoint)
        done: list[Prediction] = []

        def read(video: str) -> None:
            prediction = predict(video, reader=reader, method=args.method, read_out=args.read_out)
            done.append(prediction)
            wave = prediction.wave
            print(
                f"{video}: {prediction.heart_rate_bpm:.1f} bpm "
                f"({args.method}, {wave.duration_s:.1f} s at {wave.fps:.2f} Hz)",
                flush=True,
            )
            for note in prediction.notes:
                print(f"  note: {note}", flush=True)

        # A video that cannot be read is said, and the others are read all the same.
        codes = [command.run(functools.partial(read, video), debug=args.debug) for video in args.videos]
        if args.json and done:
            write_json(args.json, done)
        return max(codes)

    return command.run(work, debug=args.debug)


if __name__ == "__main__":
    sys.exit(main())

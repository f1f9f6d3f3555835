"""Read heart rates from face videos, each with its confidence, or say that there is no reading.

    python -m sspd_jax.predict face.mp4 --checkpoint=DIR
    python -m sspd_jax.predict face.mp4 --method=pos --json=face.json --plot=face.png
    python -m sspd_jax.predict recordings/ --checkpoint=DIR --csv=rates.csv

Each window of 10 s gets a rate and the chance that it is within 3 bpm of the truth; below --min_confidence
there is no reading. The rate of the whole video is the median of its windows'.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import io
import json
import queue
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sspd_jax import command, reading, storage
from sspd_jax.command import UserError
from sspd_jax.heart_rate.beats import Variability
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.reading import Settings, Stretch, Window
from sspd_jax.video import decode, face_clip
from sspd_jax.video.face import FaceBox, FaceDetector, overlap
from sspd_jax.video.follow import SAME_FACE, SEARCH_EVERY_S

if TYPE_CHECKING:  # JAX takes seconds to import: what is wrong with the arguments is said before
    from sspd_jax.reader import Reader

FACES_WITHIN_S = 3.0  # of the first face, the others are searched
RATE_OFF = 0.2  # a header that is that far from the timestamps is wrong, or an average of an uneven rate
MOST_FPS = 60.0  # a pulse needs no more: denser frames are averaged
TEXT_WINDOWS = 24  # of a long video, so many lines are printed; files hold all


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Heart rates of one face, and what they were read from.

    Attributes:
      file: the video.
      method: 'sspd' or the name of a classical method.
      read_out: how a rate was read from a window's wave.
      heart_rate_bpm: median of the windows that have a reading, bpm; None where none has.
      confidence: median of theirs; the highest of all windows where there is no reading.
      stretches: unbroken parts of the recording with their windows, in time.
      variability: heart-rate variability, where 60 s or more of good signal allow it.
      face_box: left, top, right, bottom of the last crop in pixels of the video's frames.
      checkpoint: of the network, or None.
      notes: what was left out or done to the video, a sentence each.
    """

    file: str
    method: str
    read_out: str
    heart_rate_bpm: float | None
    confidence: float
    stretches: tuple[Stretch, ...]
    variability: Variability | None
    face_box: tuple[int, int, int, int]
    checkpoint: str | None
    notes: tuple[str, ...]

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows, in time."""
        return tuple(window for stretch in self.stretches for window in stretch.windows)

    @property
    def wave(self) -> Wave:
        """The pulse wave of the longest unbroken stretch."""
        return max(self.stretches, key=lambda stretch: stretch.wave.duration_s).wave

    @property
    def why(self) -> str:
        """Why there is no reading; '' where there is one."""
        if self.heart_rate_bpm is not None:
            return ""
        return max(self.windows, key=lambda window: window.confidence).why

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; times are seconds since the video's first frame."""
        wave = self.wave
        return {
            "file": self.file,
            "method": self.method,
            "checkpoint": self.checkpoint,
            "heart_rate_bpm": self.heart_rate_bpm,
            "confidence": round(self.confidence, 4),
            "why": self.why,
            "read_out": self.read_out,
            "windows": [reading.as_json(window) for window in self.windows],
            "variability": self.variability and dataclasses.asdict(self.variability),
            "beats_s": [round(float(t), 4) for stretch in self.stretches for t in stretch.beats_s],
            "face_box": list(self.face_box),
            "notes": list(self.notes),
            "fps": wave.fps,
            "start_s": wave.start_s,
            "duration_s": wave.duration_s,
            "times_s": [round(float(t), 6) for t in wave.times_s],
            "wave": [float(v) for v in wave.values],
        }


def predict(
    path: str | Path,
    *,
    reader: Reader | None = None,
    method: str = "sspd",
    settings: Settings | None = None,
    near: FaceBox | None = None,
) -> Prediction:
    """Read the heart rate of a face in a video file.

    Args:
      path: a file that FFmpeg can decode.
      reader: the network, for the method 'sspd'.
      method: 'sspd' or a classical one, see `reading.METHODS`.
      settings: windows, read-out and least confidence.
      near: which face, by where it is in the first frame with faces; by default the largest, central one.

    Returns:
      The prediction.

    Raises:
      UserError: the video cannot be read, shows no face, or is too short.
      ConfigError: an unknown method, or 'sspd' without a network.
    """
    reading.wave_reader(method, reader, 30.0)  # what is wrong with the arguments comes first
    stated = _rate(path)
    damage = decode.Damage()
    frames = decode.frames(path, damage)
    read = _predict(frames, Path(path), stated, reader, method, settings or Settings(), near)
    return dataclasses.replace(read, notes=(*read.notes, str(damage))) if str(damage) else read


def _rate(path: str | Path) -> float:
    """Say at what rate to read a file, Hz: as stated, where its timestamps do not say otherwise."""
    stated, measured = decode.read_facts(path).fps, decode.measured_rate(path)
    if stated is None or (measured is not None and abs(stated / measured - 1) > RATE_OFF):
        stated = measured or decode.ASSUMED_FPS
    return min(stated, MOST_FPS)


def predict_frames(
    frames: np.ndarray | Iterable[tuple[float, np.ndarray]],
    fps: float,
    *,
    reader: Reader | None = None,
    method: str = "sspd",
    settings: Settings | None = None,
    name: str = "frames",
) -> Prediction:
    """Read the heart rate of a face in pictures that are at hand.

    Args:
      frames: uint8 [t, h, w, 3] RGB, whole pictures with a face in them; or any iterable of (time in s, uint8
        [h, w, 3] RGB), times increasing.
      fps: their rate, Hz; of an iterable, about.
      reader: see `predict`.
      method: see `predict`.
      settings: see `predict`.
      name: for messages.

    Returns:
      The prediction.

    Raises:
      ValueError: an array of another shape or dtype.
      UserError: see `predict`.
      ConfigError: see `predict`.
    """
    if isinstance(frames, np.ndarray):
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 [t, h, w, 3], got {frames.dtype} {list(frames.shape)}")
        frames = ((number / fps, picture) for number, picture in enumerate(frames))
    return _predict(frames, Path(name), fps, reader, method, settings or Settings(), None)


def _predict(
    frames: Iterable[tuple[float, np.ndarray]],
    file: Path,
    stated_fps: float,
    reader: Reader | None,
    method: str,
    settings: Settings,
    near: FaceBox | None,
) -> Prediction:
    fps = reader.clock_rate(stated_fps) if method == "sspd" and reader else stated_fps
    read = reading.wave_reader(method, reader, fps)
    size = reader.crop_size if method == "sspd" else face_clip.SIZE
    clip = face_clip.cut_face(frames, file, size=size, follow=True, near=near, watch_background=True)
    stretches, notes = reading.read_clip(clip, fps, read, settings)
    bpm, sure = reading.summary(stretches)
    return Prediction(
        file=str(file),
        method=method,
        read_out=settings.read_out,
        heart_rate_bpm=bpm,
        confidence=sure,
        stretches=tuple(stretches),
        variability=reading.variability(stretches),
        face_box=dataclasses.astuple(clip.box),
        checkpoint=reader.name if method == "sspd" else None,
        notes=tuple(notes),
    )


def find_faces(path: str | Path, *, search_s: float = 30.0) -> list[FaceBox]:
    """Find everybody in a video's beginning.

    Args:
      path: a file that FFmpeg can decode.
      search_s: how far into the video the first face is searched, s.

    Returns:
      A box for each face seen at least twice within 3 s of the first, left to right.

    Raises:
      UserError: the video cannot be read or shows no face.
    """
    detector = FaceDetector()
    seen: list[list[FaceBox]] = []
    first_s, last_look = None, -1
    for time_s, rgb in decode.frames(path):
        if time_s > (search_s if first_s is None else first_s + FACES_WITHIN_S):
            break
        look = int((time_s + 0.001) / SEARCH_EVERY_S)
        if look == last_look:
            continue
        last_look = look
        for face in detector.detect_all(rgb):
            first_s = time_s if first_s is None else first_s
            for same in seen:
                if overlap(face, same[0]) >= SAME_FACE:
                    same.append(face)
                    break
            else:
                seen.append([face])
    faces = [same[0] for same in seen if len(same) > 1] or [same[0] for same in seen]
    if not faces:
        raise UserError(
            f"{path}: no face found in the first {search_s:g} s; film faces from the front, well lit"
        )
    return sorted(faces, key=lambda face: face.left)


def write_json(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as JSON: one object for one, a list of objects for several.

    Args:
      path: of the file; written aside, then renamed.
      predictions: what to write.

    Raises:
      StorageError: it cannot be written.
    """
    rows = [prediction.to_json() for prediction in predictions]
    storage.write_text(path, json.dumps(rows[0] if len(rows) == 1 else rows, allow_nan=False) + "\n")


def write_csv(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as CSV: a row for each window, the rate empty where there is no reading.

    Args:
      path: of the file; written aside, then renamed.
      predictions: what to write.

    Raises:
      StorageError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "face", "method", *(field.name for field in dataclasses.fields(Window))])
    numbers: dict[str, int] = {}
    for prediction in predictions:
        face = numbers[prediction.file] = numbers.get(prediction.file, 0) + 1
        for window in prediction.windows:
            values = reading.as_json(window).values()
            row = ["" if value is None else value for value in values]
            writer.writerow([prediction.file, face, prediction.method, *row])
    storage.write_text(path, text.getvalue())


def describe(prediction: Prediction, label: str) -> Iterator[str]:
    """Say in lines what was read.

    Args:
      prediction: of a face.
      label: what it is called.

    Yields:
      The rate of the whole, then, where there are several, the windows.
    """
    wave, windows = prediction.wave, prediction.windows
    trusted = sum(window.heart_rate_bpm is not None for window in windows)
    seen_s = sum(stretch.wave.duration_s for stretch in prediction.stretches)
    how = f"{prediction.method}, {seen_s:.1f} s at {wave.fps:.2f} Hz"
    if len(windows) > 1:
        how += f", {trusted} of {len(windows)} windows"
    if prediction.heart_rate_bpm is None:
        yield f"{label}: no reading, {prediction.why} ({how})"
    else:
        yield f"{label}: {prediction.heart_rate_bpm:.1f} bpm, {prediction.confidence:.0%} sure ({how})"
    if len(windows) > 1:
        for window in windows[:TEXT_WINDOWS]:
            end_s = window.start_s + window.duration_s
            rate = f"{window.heart_rate_bpm:6.1f} bpm" if window.heart_rate_bpm else "no reading"
            span = f"{window.start_s:7.1f}–{end_s:.1f} s"
            yield f"  {span} {rate}  {window.confidence:4.0%}  {window.why}".rstrip()
        if len(windows) > TEXT_WINDOWS:
            yield f"  … {len(windows) - TEXT_WINDOWS} more; --csv=FILE or --json=FILE writes them all"
    if hrv := prediction.variability:
        yield (
            f"  variability: mean NN {hrv.mean_nn_ms:.0f} ms, SDNN {hrv.sdnn_ms:.0f} ms, "
            f"RMSSD {hrv.rmssd_ms:.0f} ms ({hrv.beats} beats in {hrv.duration_s:.0f} s)"
        )
    for note in prediction.notes:
        yield f"  note: {note}"


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="files that FFmpeg can decode, or folders of them"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="network to read with (for --method=sspd)")
    parser.add_argument(
        "--method", default="sspd", choices=reading.METHODS, help="how to read (default: sspd)"
    )
    parser.add_argument(
        "--read_out",
        "--read-out",
        default=default.read_out,
        choices=tuple(reading.READ_OUTS),
        help="from wave to rate: spectral peak with harmonics handled (default), mean interval between "
        "beats, plain spectral peak, or wavelet selection and mean beat-to-beat rate as published",
    )
    parser.add_argument("--window", type=float, default=default.window_s, help="s (default: %(default)g)")
    parser.add_argument("--stride", type=float, default=default.stride_s, help="s (default: %(default)g)")
    parser.add_argument(
        "--min_confidence",
        type=float,
        default=default.min_confidence,
        help="least chance of being within 3 bpm; below it there is no reading (default: %(default)g)",
    )
    parser.add_argument("--all_faces", action="store_true", help="read everybody, left to right")
    parser.add_argument("--json", metavar="FILE", help="write rates, wave, beats and times")
    parser.add_argument("--csv", metavar="FILE", help="write a row for each window")
    parser.add_argument("--plot", metavar="FILE", help="draw rates, confidence and wave (.png, .svg, .pdf)")
    parser.add_argument(
        "--no_cache",
        action="store_true",
        help="compile the network anew, and do not keep it in the user's cache folder (SSPD_JAX_CACHE names "
        "another; empty: none)",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        for path in filter(None, (args.json, args.csv, args.plot)):
            if not Path(path).absolute().parent.is_dir():
                raise UserError(f"{path}: cannot be written (no such folder); choose another place")
        settings = Settings(args.window, args.stride, args.read_out, args.min_confidence)
        reader = None
        if args.method == "sspd" and args.checkpoint:
            from sspd_jax import compilation_cache
            from sspd_jax.reader import load

            if not args.no_cache:
                compilation_cache.enable()
            reader = load(args.checkpoint)
        read = functools.partial(predict, reader=reader, method=args.method, settings=settings)
        reading.wave_reader(args.method, reader, 30.0)
        done: list[Prediction] = []
        codes = []
        with _each_on_a_device(reader) as each:
            for code, predictions, lines in each(
                functools.partial(_read_faces, read, all_faces=args.all_faces, debug=args.debug),
                _find_videos(args.videos, codes, debug=args.debug),
            ):
                codes.append(code)
                done += predictions
                for line in lines:
                    print(line, flush=True)
        if done:
            for path, write in ((args.json, write_json), (args.csv, write_csv), (args.plot, write_plot)):
                if path:
                    write(path, done)
        return max(codes)

    return command.run(work, debug=args.debug)


def _find_videos(paths: Sequence[str], codes: list[int], *, debug: bool) -> list[str]:
    """List files as they are given and the videos of folders; a folder without any is said, with a code."""
    from sspd_jax.datasets import folder

    found: list[str] = []

    def look(path: str) -> None:
        videos, unreadable = folder.find_videos(Path(path))
        found.extend(str(video) for video in videos)
        if unreadable:
            inner, reason = unreadable[0]
            raise UserError(f"{inner}: cannot be looked into ({reason}); make it readable, or move it")
        if not videos:
            raise UserError(f"{path}: holds no video; give a folder of videos, or a video")

    for path in paths:
        if Path(path).is_dir():
            codes.append(command.run(functools.partial(look, path), debug=debug))
        else:
            found.append(path)
    return found


def _read_faces(
    read: Callable[..., Prediction], video: str, *, all_faces: bool, debug: bool
) -> tuple[int, list[Prediction], list[str]]:
    """Read a video's faces; one that cannot be read is said, and the others are read all the same.

    Returns:
      The worst exit code, what was read, and the lines that say it.
    """
    faces: list[FaceBox | None] = []
    predictions: list[Prediction] = []
    lines: list[str] = []

    def find() -> None:
        faces.extend(find_faces(video) if all_faces else [None])

    def read_one(face: FaceBox | None, label: str) -> None:
        predictions.append(read(video, near=face))
        lines.extend(describe(predictions[-1], label))

    codes = [command.run(find, debug=debug)]
    for number, face in enumerate(faces, 1):
        label = video if face is None else f"{video} face {number} of {len(faces)}"
        codes.append(command.run(functools.partial(read_one, face, label), debug=debug))
    return max(codes), predictions, lines


@contextlib.contextmanager
def _each_on_a_device(reader: Reader | None) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` that has a network read as many videos at once as there are devices, each on its own.

    What goes in first comes out first. Without a network, or with one device, it is `map` itself.
    """
    if reader is None:
        yield map
        return
    import jax

    devices = queue.SimpleQueue()
    for device in jax.local_devices():
        devices.put(device)
    if devices.qsize() == 1:
        yield map
        return

    def on_a_device(work: Callable[[Any], Any], item: Any) -> Any:
        device = devices.get()
        try:
            with jax.default_device(device):
                return work(item)
        finally:
            devices.put(device)

    with concurrent.futures.ThreadPoolExecutor(devices.qsize()) as pool:
        try:
            yield lambda work, items: pool.map(functools.partial(on_a_device, work), items)
        finally:
            pool.shutdown(cancel_futures=True)


def write_plot(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Draw predictions: rates over time with their confidence, and the wave with its beats.

    Args:
      path: of the picture; its suffix chooses the format.
      predictions: what to draw, one below the other.

    Raises:
      ConfigError: a format that cannot be drawn.
      StorageError: it cannot be written.
    """
    from sspd_jax import reading_plot  # matplotlib takes a second to import

    reading_plot.write(path, predictions)


if __name__ == "__main__":
    sys.exit(main())

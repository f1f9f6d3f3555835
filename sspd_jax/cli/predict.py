"""Read heart rates from face videos, each with its confidence, or say that there is no reading.

    python -m sspd_jax predict face.mp4 --checkpoint=DIR
    python -m sspd_jax predict face.mp4 --method=pos --json=face.json --plot=face.png
    python -m sspd_jax predict recordings/ --checkpoint=DIR --csv=rates.csv

Each window of 10 s gets a rate and the chance that it is within 3 bpm of the truth; below --min_confidence
there is no reading. The rate of the whole video is the median of its windows'.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import queue
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sspd_jax.cli import common
from sspd_jax.errors import UserError
from sspd_jax.heart_rate import estimators
from sspd_jax.inference import windows
from sspd_jax.inference.predict import find_faces, predict
from sspd_jax.inference.prediction import Prediction, describe, write_csv, write_json, write_plot
from sspd_jax.inference.windows import Settings
from sspd_jax.video.face_detection import FaceBox

if TYPE_CHECKING:
    from sspd_jax.inference.model import RppgModel


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="files that FFmpeg can decode, or folders of them"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="network to read with (for --method=sspd)")
    parser.add_argument(
        "--method", default="sspd", choices=windows.METHODS, help="how to read (default: sspd)"
    )
    parser.add_argument(
        "--read_out",
        "--read-out",
        default=default.read_out,
        choices=estimators.OF_RAW_WAVES,
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
            from sspd_jax.inference.model import load_model
            from sspd_jax.runtime import compilation_cache

            if not args.no_cache:
                compilation_cache.enable()
            reader = load_model(args.checkpoint)
        read = functools.partial(predict, reader=reader, method=args.method, settings=settings)
        windows.wave_reader(args.method, reader, 30.0)
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

    return common.run(work, debug=args.debug)


def _find_videos(paths: Sequence[str], codes: list[int], *, debug: bool) -> list[str]:
    """List files as they are given and the videos of folders; a folder without any is said, with a code."""
    from sspd_jax.datasets.readers import folder

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
            codes.append(common.run(functools.partial(look, path), debug=debug))
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

    codes = [common.run(find, debug=debug)]
    for number, face in enumerate(faces, 1):
        label = video if face is None else f"{video} face {number} of {len(faces)}"
        codes.append(common.run(functools.partial(read_one, face, label), debug=debug))
    return max(codes), predictions, lines


@contextlib.contextmanager
def _each_on_a_device(reader: RppgModel | None) -> Iterator[Callable[..., Iterator[Any]]]:
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

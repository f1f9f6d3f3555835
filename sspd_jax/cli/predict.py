"""Estimate heart rates in face videos, each with its confidence, or say that there is no reading.

    sspd_jax predict face.mp4
    sspd_jax predict face.mp4 --checkpoint=DIR --json=face.json --plot=face.png
    sspd_jax predict recordings/ --csv=rates.csv
    sspd_jax predict face.mp4 --method=pos --region=crop
    sspd_jax predict face.mp4 --explain=face.html --overlay=with_rate.mp4
    sspd_jax predict mask.mp4 --box=200,80,160,60

The face's skin is read by classical methods and by the network that travels with the package, side by side;
--checkpoint asks another network in its place, --no_network none.
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

from sspd_jax.cli import common, estimation
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.inference.methods import AUTO, check_method
from sspd_jax.inference.overlay import check as check_overlay
from sspd_jax.inference.overlay import write as write_overlay
from sspd_jax.inference.predict import find_faces, predict
from sspd_jax.inference.prediction import Failure, Prediction, describe
from sspd_jax.inference.windows import Settings
from sspd_jax.inference.writing import write_csv, write_explanation, write_json, write_plot
from sspd_jax.runtime import storage, text
from sspd_jax.video import decode
from sspd_jax.video.face_detection import DETECTORS, FaceBox, FaceDetector, make_detector
from sspd_jax.video.files import find_videos

if TYPE_CHECKING:
    from sspd_jax.inference.model import RppgModel


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="files that FFmpeg can decode, or folders of them")
    estimation.add_arguments(parser)
    stride_s = estimation.DEFAULT.stride_s
    add("--stride", type=float, default=stride_s, help="of the windows, s (default: %(default)g)")
    add("--fps", type=float, help="frame rate, Hz, whatever the file says (default: its own)")
    add(
        "--max_hours",
        type=float,
        default=decode.Limits.hours,
        help="of a video, what comes later is left out (default: %(default)g)",
    )
    add(
        "--max_megapixels",
        type=float,
        default=decode.Limits.megapixels,
        help="of a picture, larger ones are refused (default: %(default)g)",
    )
    add(
        "--allow_playlist",
        action="store_true",
        help="open a list of other files (.m3u8, ffconcat) and what it names: lists of your own alone",
    )
    add("--all_faces", action="store_true", help="everybody in the picture, left to right")
    add("--face_detector", choices=DETECTORS, help="what finds the face for --region=crop (default: haar)")
    add("--face_model", default="", metavar="FILE", help="YuNet's model file, for --face_detector=yunet")
    add("--json", metavar="FILE", help="write rates, wave, beats and times")
    add("--csv", metavar="FILE", help="write a row for each window")
    add(
        "--plot",
        metavar="FILE",
        help="draw face, rates, confidence, wave and spectrum (.png, .svg, .pdf)",
    )
    add("--explain", metavar="FILE", help="write a page that shows why there is a reading, or none (.html)")
    add("--overlay", metavar="FILE", help="write the video with face box, wave and rate in it (.mp4)")
    add(
        "--no_cache",
        action="store_true",
        help="compile the network anew, and do not keep it in the user's cache folder (SSPD_JAX_CACHE names "
        "another; empty: none)",
    )
    return common.start(parser, _predict, argv)


def _predict(args: argparse.Namespace) -> int:
    for path in filter(None, (args.json, args.csv, args.plot, args.explain, args.overlay)):
        if not Path(path).absolute().parent.is_dir():
            raise UserError(f"{path}: cannot be written (no such folder); choose another place")
        storage.check_name(path)
    if args.explain and Path(args.explain).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{args.explain}: the page is HTML; give a name that ends in .html")
    decode.use_limits(decode.Limits(args.max_megapixels, args.max_hours, args.allow_playlist))
    box = estimation.box_of(args)
    if box and args.all_faces:
        raise ConfigError("--box is one place and --all_faces looks for all; give one of them")
    shows_skin = "--explain" if args.explain else "--overlay"
    if (args.explain or args.overlay) and args.region != "skin":
        raise ConfigError(f"{shows_skin} shows how skin is read; leave --region={args.region} out")
    settings = Settings(
        *(args.window, args.stride, args.hr_estimator, args.min_confidence, args.region),
        network=not args.no_network,
    )
    model = None
    if args.method in (AUTO, "sspd") and args.checkpoint:
        model = estimation.load_model(args.checkpoint, use_cache=not args.no_cache)
    check_method(args.method, model, ships=settings.asks_shipped(args.method, model, box))
    detector = None
    if args.face_detector or args.face_model:
        if args.region == "skin":
            raise ConfigError("--face_detector is for --region=crop: the skin is found by landmarks")
        detector = functools.partial(make_detector, args.face_detector or "yunet", args.face_model)
        detector()  # what is wrong with it is said before the work
    estimate = functools.partial(
        predict,
        model=model,
        method=args.method,
        settings=settings,
        fps=args.fps,
        box=box,
        keep=bool(args.explain or args.overlay),
        photograph=bool(args.plot),
    )
    done: list[Prediction | Failure] = []
    codes = []
    videos = _list_videos(args.videos, codes, debug=args.debug)
    if args.overlay:
        check_overlay(args.overlay, videos)
    with _each_on_a_device(model) as each:
        for number, (code, results, lines) in enumerate(
            each(
                functools.partial(
                    _predict_faces, estimate, all_faces=args.all_faces, detector=detector, debug=args.debug
                ),
                videos,
            ),
            1,
        ):
            codes.append(code)
            done += results
            _write(args, done, is_last=number == len(videos), as_list=len(videos) > 1)
            for line in lines:  # after the files: what was said is kept, whatever happens next
                print(text.printable(line), flush=True)
    predictions = [result for result in done if isinstance(result, Prediction)]
    if predictions:
        if args.plot:
            write_plot(args.plot, predictions)
        if args.explain:
            write_explanation(args.explain, predictions)
        if args.overlay:
            write_overlay(args.overlay, predictions, fps=args.fps, box=box)
    return max(codes)


def _write(
    args: argparse.Namespace, done: Sequence[Prediction | Failure], *, is_last: bool, as_list: bool
) -> None:
    """Write all results so far, whole: whatever happens to the next video, they are there.

    Devices, pipes and links to them get theirs once, at the end.
    """
    if args.json and (is_last or not storage.is_stream(args.json)):
        write_json(args.json, done, as_list=as_list)
    if args.csv and (is_last or not storage.is_stream(args.csv)):
        write_csv(args.csv, done)


def _list_videos(paths: Sequence[str], codes: list[int], *, debug: bool) -> list[str]:
    """List files as they are given and the videos of folders; a folder without any adds its exit code."""
    found: list[str] = []

    def search(folder: str) -> None:
        videos, unreadable = find_videos(Path(folder))
        found.extend(str(video) for video in videos)
        if unreadable:
            inner, reason = unreadable[0]
            raise UserError(f"{inner}: cannot be looked into ({reason}); make it readable, or move it")
        if not videos:
            raise UserError(f"{folder}: holds no video; give a folder of videos, or a video")

    def refuse() -> None:
        raise UserError("'': is no path; name a video, or a folder of videos")

    for path in paths:
        if not path:  # of a variable that is not set: not everything that lies here
            codes.append(common.run(refuse, debug=debug))
        elif Path(path).is_dir():
            codes.append(common.run(functools.partial(search, path), debug=debug))
        else:
            found.append(path)
    return found


def _predict_faces(
    estimate: Callable[..., Prediction],
    video: str,
    *,
    all_faces: bool,
    detector: Callable[[], FaceDetector] | None,
    debug: bool,
) -> tuple[int, list[Prediction | Failure], list[str]]:
    """Predict for a video's faces; one that fails gets its sentence, and the others go on all the same.

    Returns:
      The worst exit code, what was found in the order of the faces, and the lines that describe it.
    """
    faces: list[FaceBox | None] = []
    results: list[Prediction | Failure] = []
    lines: list[str] = []

    def find() -> None:
        faces.extend(find_faces(video, detector=detector and detector()) if all_faces else [None])

    def predict_one(face: FaceBox | None, label: str) -> None:
        prediction = estimate(video, near=face, detector=detector and detector())
        lines.extend(describe(prediction, label))
        results.append(prediction)

    def attempt(work: Callable[[], None]) -> int:
        failures: list[str] = []
        code = common.run(work, debug=debug, failures=failures)
        results.extend(Failure(video, error) for error in failures)
        return code

    codes = [attempt(find)]
    for number, face in enumerate(faces, 1):
        label = video if face is None else f"{video} face {number} of {len(faces)}"
        codes.append(attempt(functools.partial(predict_one, face, label)))
    return max(codes), results, lines


@contextlib.contextmanager
def _each_on_a_device(model: RppgModel | None) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` that has a network work on as many videos at once as there are devices, each on its own.

    What goes in first comes out first. Without a network, or with one device, it is `map` itself.
    """
    if model is None:
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

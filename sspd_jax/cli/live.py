"""Read the heart rate of whoever sits before a camera, as it happens, and show it in a page on this computer.

    python -m sspd_jax live                                       the first camera, by POS
    python -m sspd_jax live --checkpoint=DIR                      by a trained network
    python -m sspd_jax live face.mp4                              a file, as if it were live
    python -m sspd_jax live face.mp4 --no_page --speed=4          a line of text for each update

The page is at http://127.0.0.1:8000 and cannot be reached from other computers; /state.json holds the newest
update for programs. No picture is stored or sent anywhere. From Python:

    from sspd_jax import live
    for update in live.watch(live.camera(0), 30):
        print(update.window.heart_rate_bpm, update.window.confidence)
"""

from __future__ import annotations

import argparse
import threading

from sspd_jax.cli import common
from sspd_jax.heart_rate import estimators
from sspd_jax.inference import windows
from sspd_jax.inference.live import UPDATE_S, as_json, describe, watch
from sspd_jax.inference.server import PORT, Page
from sspd_jax.inference.windows import Settings
from sspd_jax.video.camera import CAMERA_FPS, as_live, camera


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("video", nargs="?", metavar="VIDEO", help="a file to play; by default the camera")
    parser.add_argument("--camera", default="0", metavar="NUMBER", help="which camera (default: %(default)s)")
    parser.add_argument(
        "--method",
        choices=windows.METHODS,
        help="how to read (default: sspd where there is a checkpoint, else pos)",
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="network to read with (for --method=sspd)")
    parser.add_argument(
        "--read_out",
        "--read-out",
        default=default.read_out,
        choices=estimators.OF_RAW_WAVES,
        help="from wave to rate (default: %(default)s)",
    )
    parser.add_argument("--window", type=float, default=default.window_s, help="s (default: %(default)g)")
    parser.add_argument(
        "--min_confidence",
        type=float,
        default=default.min_confidence,
        help="least chance of being within 3 bpm; below it there is no reading (default: %(default)g)",
    )
    parser.add_argument(
        "--every",
        type=float,
        default=UPDATE_S,
        help="s between updates (default: %(default)g)",
    )
    parser.add_argument("--port", type=int, default=PORT, help="of the page (default: %(default)d; 0: any)")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="of a file, times life (default: %(default)g)"
    )
    parser.add_argument("--no_page", action="store_true", help="print a line for each update instead")
    parser.add_argument("--exit", action="store_true", help="end when the file does, page or not")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        method = args.method or ("sspd" if args.checkpoint else "pos")
        settings = Settings(args.window, default.stride_s, args.read_out, args.min_confidence)
        if method != "sspd" or not args.checkpoint:
            windows.wave_reader(method, None, CAMERA_FPS)  # says that a network is missing
        if args.video:
            feed = as_live(args.video, speed=args.speed)
        else:
            feed = camera(int(args.camera) if args.camera.isdecimal() else args.camera)
        page = None
        try:
            if not args.no_page:
                about = {
                    "source": feed.name,
                    "method": method,
                    "window_s": settings.window_s,
                    "min_confidence": settings.min_confidence,
                    "every_s": args.every,
                    "speed": args.speed if args.video else 1.0,
                }
                page = Page(args.port, about, lambda: feed.newest)
                print(f"{feed.name}, {method}: {page.url} (Ctrl-C ends)", flush=True)
            reader = None
            if method == "sspd":
                from sspd_jax.inference.model import load_model  # restoring a network takes seconds to import
                from sspd_jax.runtime import compilation_cache

                compilation_cache.enable()
                reader = load_model(args.checkpoint)
            for update in watch(
                feed, feed.fps, reader=reader, method=method, settings=settings, every_s=args.every
            ):
                if page:
                    page.publish(as_json(update))
                else:
                    print(describe(update), flush=True)
            if page and not args.exit:
                page.end()
                print("the video has ended; the page stays until Ctrl-C", flush=True)
                threading.Event().wait()
        finally:
            feed.close()
            if page:
                page.close()

    return common.run(work, debug=args.debug)

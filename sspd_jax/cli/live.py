"""Estimate the heart rate of whoever sits before a camera, and show it in a page on this computer.

    sspd_jax live                                       the first camera
    sspd_jax live --checkpoint=DIR                      another network than the one that ships
    sspd_jax live face.mp4                              a file, as if it were live
    sspd_jax live face.mp4 --no_page --speed=4          a line of text for each update

Method, region and confidence are those of `sspd_jax predict`. The page is at http://127.0.0.1:8000 and cannot
be reached from other computers; /state.json holds the newest update for programs. No picture is stored or
sent anywhere. From Python:

    import sspd_jax
    from sspd_jax.video.camera import camera

    for update in sspd_jax.watch(camera(0), 30):
        print(update.window.heart_rate_bpm, update.window.confidence)
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Iterator

from sspd_jax.cli import common, estimation
from sspd_jax.inference.live import UPDATE_S, as_json, describe, watch
from sspd_jax.inference.methods import AUTO, check_method
from sspd_jax.inference.server import PORT, Page
from sspd_jax.inference.windows import Settings
from sspd_jax.video.camera import Feed, as_live, camera


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add("video", nargs="?", metavar="VIDEO", help="a file to play; by default the camera")
    add("--camera", default="0", metavar="NUMBER", help="which camera (default: %(default)s)")
    estimation.add_arguments(parser)
    add("--every", type=float, default=UPDATE_S, help="s between updates (default: %(default)g)")
    add("--port", type=int, default=PORT, help="of the page (default: %(default)d; 0: any)")
    add("--speed", type=float, default=1.0, help="of a file, times life (default: %(default)g)")
    add("--no_page", action="store_true", help="print a line for each update instead")
    add("--exit", action="store_true", help="end when the file does, page or not")
    return common.start(parser, _watch, argv)


def _watch(args: argparse.Namespace) -> None:
    settings = Settings(
        args.window,
        hr_estimator=args.hr_estimator,
        min_confidence=args.min_confidence,
        region=args.region,
        network=not args.no_network,
    )
    box = estimation.box_of(args)
    if not args.checkpoint:
        check_method(args.method, None, ships=settings.asks_shipped(args.method, None, box))
    if args.video:
        feed = as_live(args.video, speed=args.speed)
    else:
        feed = camera(int(args.camera) if args.camera.isdecimal() else args.camera)
    with contextlib.closing(feed), _page(args, feed, settings) as page:
        wanted = args.checkpoint and args.method in (AUTO, "sspd")
        model = estimation.load_model(args.checkpoint) if wanted else None
        for update in watch(
            feed,
            feed.fps,
            model=model,
            method=args.method,
            settings=settings,
            every_s=args.every,
            box=box,
        ):
            if page:
                page.publish(as_json(update))
            else:
                print(describe(update), flush=True)
        if page and not args.exit:
            page.end()
            print("the video has ended; the page stays until Ctrl-C", flush=True)
            threading.Event().wait()


@contextlib.contextmanager
def _page(args: argparse.Namespace, feed: Feed, settings: Settings) -> Iterator[Page | None]:
    """Serve the page while the block runs; None with --no_page."""
    if args.no_page:
        yield None
        return
    about = {
        "source": feed.name,
        "method": args.method,
        "window_s": settings.window_s,
        "min_confidence": settings.least_confidence,
        "every_s": args.every,
        "speed": args.speed if args.video else 1.0,
    }
    page = Page(args.port, about, lambda: feed.newest)
    with contextlib.closing(page):
        print(f"{feed.name}, {args.method}: {page.url} (Ctrl-C ends)", flush=True)
        yield page

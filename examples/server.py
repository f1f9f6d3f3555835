"""A small page of heart rates: videos are uploaded, processes of their own read them, JSON comes back.

    python examples/server.py --port=8000
    curl --data-binary @my.mp4 http://127.0.0.1:8000/

It needs nothing beyond sspd_jax. Uploads are bounded, a reading that takes too long is given up on, what is
no video gets a sentence, and workers that died are replaced. It speaks to this computer alone: put a server
that knows users and TLS before it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import signal
import tempfile
import threading
from concurrent import futures
from concurrent.futures import process
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import sspd_jax
from sspd_jax.errors import UserError

MOST_BYTES = 200_000_000
MOST_SECONDS = 120
DIED = f"a worker died, or took more than {MOST_SECONDS} s; try again"
BUSY = "too much is being read; try again"
HOW = "send the video itself: curl --data-binary @my.mp4 URL"
PATIENCE_S = 30  # with a client that sends nothing


def read(path: str) -> dict:
    """Read a video, in a worker; one that takes too long ends it, so that nobody waits behind it for ever."""
    signal.alarm(MOST_SECONDS)
    try:
        prediction = sspd_jax.read(path, method="pos")
    finally:
        signal.alarm(0)
    windows = [
        {"start_s": window.start_s, "heart_rate_bpm": window.heart_rate_bpm, "why": window.why}
        for window in prediction.windows
    ]
    return {
        "heart_rate_bpm": prediction.heart_rate_bpm,
        "confidence": prediction.confidence,
        "windows": windows,
        "notes": list(prediction.notes),
    }


class Workers:
    """Processes that read; all are started anew when one of them dies."""

    def __init__(self, count: int):
        """Start them when they are first needed."""
        self._count, self._lock, self._pool = count, threading.Lock(), None

    def read(self, path: str) -> dict:
        """Read a video in a worker; raises what `read` raises, and TimeoutError."""
        with self._lock:
            if self._pool is None:
                context = multiprocessing.get_context("spawn")  # not fork: JAX's threads do not survive one
                self._pool = futures.ProcessPoolExecutor(self._count, context)
            pool = self._pool
        try:
            return pool.submit(read, path).result(2 * MOST_SECONDS)  # others may be before it
        except process.BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise

    def close(self) -> None:
        """End them."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class Page(BaseHTTPRequestHandler):
    """Answers an upload."""

    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Say what to do instead."""
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": HOW})

    do_PUT = do_GET

    def do_POST(self) -> None:
        """Read what was uploaded."""
        if self.headers.get_content_type().startswith("multipart/"):
            return self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": f"a form is not read; {HOW}"})
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            return self._answer(HTTPStatus.LENGTH_REQUIRED, {"error": "send the video with its length"})
        if not 0 < length <= MOST_BYTES:
            return self._answer(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"1 to {MOST_BYTES} bytes, please"}
            )
        with tempfile.NamedTemporaryFile(suffix=".upload") as file:
            while length > 0 and (piece := self.rfile.read(min(length, 1 << 20))):
                file.write(piece)
                length -= len(piece)
            file.flush()
            name = Path(file.name).name
            try:
                result = self.server.workers.read(file.name)
            except UserError as error:
                return self._answer(
                    HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error).replace(file.name, name)}
                )
            except process.BrokenProcessPool:
                return self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": DIED})
            except futures.TimeoutError:
                return self._answer(HTTPStatus.GATEWAY_TIMEOUT, {"error": BUSY})
        return self._answer(HTTPStatus.OK, result)

    def _answer(self, status: HTTPStatus, table: dict) -> None:
        data = json.dumps(table).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True


def main() -> None:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    args = parser.parse_args()
    workers = Workers(args.workers)
    with contextlib.closing(workers), ThreadingHTTPServer(("127.0.0.1", args.port), Page) as server:
        server.workers = workers
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()

"""The page that `sspd_jax live` shows: a server on this computer alone, of Python's own library.

GET /              the page of `web_page` beside this module, and its files: nothing comes from elsewhere
GET /state.json    the newest update, the rates of the last minutes, whether it has ended
GET /events        the same as Server-Sent Events, one for each update
GET /picture.jpg   the newest picture, small; encoded when it is asked for, never stored
"""

from __future__ import annotations

import io
import json
import socket
import socketserver
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from sspd_jax.errors import UserError

_PAGE = Path(__file__).with_name("web_page")
_SCRIPT = "text/javascript; charset=utf-8"
# The same page as `site` writes. What is served as source.mjs says where its numbers come from.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/source.mjs": ("live_stream.mjs", _SCRIPT),
    "/view.mjs": ("view.mjs", _SCRIPT),
    "/drawing.mjs": ("drawing.mjs", _SCRIPT),
    "/offline.js": ("forget.js", _SCRIPT),
}
HOST, PORT = "127.0.0.1", 8000
PICTURE_WIDTH = 480  # pixels
QUALITY = 80
HISTORY = 600  # updates: ten minutes
CONNECTIONS = 64  # at once: each has a thread; more are told to come again
STALLED_S = 15.0  # a browser that has not asked by then, or does not take an answer, is let go
PAUSE_S = 0.2  # before the next connection is taken where the system has none to give
SILENCE_S = 10.0  # then a word is sent, or a browser that has gone would not be noticed

HEADERS = {
    "Cache-Control": "no-store",
    # A page from elsewhere shall neither show the picture nor be loaded by this one.
    "Cross-Origin-Resource-Policy": "same-origin",
    # Stricter than the page's own policy: nothing is computed here.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Page:
    """A running server and what it shows.

    Attributes:
      url: Address of the page.
    """

    def __init__(
        self, port: int, about: dict[str, Any], picture: Callable[[], tuple[float, np.ndarray] | None]
    ):
        """Start it.

        Args:
          port: Where to listen, on this computer alone; 0 takes a free one.
          about: What does not change, in JSON's types.
          picture: Returns the newest frame, (time in s, uint8 [h, w, 3] RGB), or None while there is none.

        Raises:
          UserError: The port is in use or forbidden.
        """
        self._picture = picture
        self._state = {**about, "update": None, "ended": False}
        self._history: deque[tuple[float, float | None, float]] = deque(maxlen=HISTORY)
        self._version = 0
        self._closed = False
        self._changed = threading.Condition()
        try:
            self._server = _Server((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror.lower() if isinstance(error, OSError) else "no such port"
            raise UserError(
                f"port {port}: cannot be used ({reason}); choose another with --port, or --port=0 for any"
            ) from error
        self._server.page = self
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def publish(self, update: dict[str, Any]) -> None:
        """Show an update, see `live.as_json`."""
        window = update["window"]
        with self._changed:
            self._state["update"] = update
            self._history.append((update["time_s"], window["heart_rate_bpm"], window["confidence"]))
            self._notify()

    def end(self) -> None:
        """Say that nothing more will come; the last update stays."""
        with self._changed:
            self._state["ended"] = True
            self._notify()

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def state(self) -> bytes:
        """Return what is shown as JSON."""
        newest = self._picture()
        height, width = newest[1].shape[:2] if newest else (0, 0)
        with self._changed:
            state = {**self._state, "frame_size": [width, height], "history": list(self._history)}
            return json.dumps(state, allow_nan=False).encode()

    def wait(self, version: int) -> int | None:
        """Wait for news since a version; returns the version now, or None when the page has closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version or self._closed, timeout=SILENCE_S)
            return None if self._closed else self._version

    def jpeg(self) -> bytes | None:
        """Return the newest picture, small."""
        newest = self._picture()
        if newest is None:
            return None
        _, rgb = newest
        height, width = rgb.shape[:2]
        if width > PICTURE_WIDTH:
            size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()

    def close(self) -> None:
        """Stop the server."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"


class _Server(ThreadingHTTPServer):
    page: Page

    def __init__(self, *args: Any):
        self._free = threading.Semaphore(CONNECTIONS)
        super().__init__(*args)

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # Out of descriptors, say: whoever waits still waits, and asking again at once would take a core.
            time.sleep(PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            try:
                request.setblocking(False)
                request.sendall(BUSY)
            except OSError:
                pass  # it has gone
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away is no error."""


class _InTime(io.RawIOBase):
    """What a connection sends until a deadline: who sends a letter now and then is no longer waited for."""

    def __init__(self, connection: socket.socket, within_s: float):
        self._connection, self._end_s = connection, time.monotonic() + within_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("too slow")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = STALLED_S

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_InTime(self.connection, self.timeout))

    def do_GET(self) -> None:
        self.connection.settimeout(self.timeout)  # of each answer, as a whole
        # A page from elsewhere can give its own name to this address: it is not answered.
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        page, path = self.server.page, self.path.split("?")[0]
        if path in FILES:
            name, kind = FILES[path]
            self._answer(kind, (_PAGE / name).read_bytes())
        elif path == "/state.json":
            self._answer("application/json", page.state())
        elif path == "/picture.jpg" and (picture := page.jpeg()):
            self._answer("image/jpeg", picture)
        elif path == "/events":
            self._send_events(page)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, kind: str, data: bytes) -> None:
        self._begin(kind, {"Content-Length": str(len(data))})
        self.wfile.write(data)

    def _begin(self, kind: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {"Content-Type": kind, **HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_events(self, page: Page) -> None:
        self._begin("text/event-stream")
        version = -1
        while (now := page.wait(version)) is not None:
            message = b"data: " + page.state() + b"\n\n" if now != version else b": nothing new\n\n"
            version = now
            self.wfile.write(message)
            self.wfile.flush()

    def log_message(self, *_args: Any) -> None:
        """Say nothing: the terminal is for what matters."""

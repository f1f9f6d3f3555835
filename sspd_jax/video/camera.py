"""A camera's newest frames, and files as if they were filmed now."""

from __future__ import annotations

import atexit
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.video import decode

FPS_OVER_S = 3.0
CAMERA_FPS = 30.0  # of a camera that does not state its rate
HOLD_S = 2.0
"""So much of a feed waits while whoever takes its frames is busy; what is older is dropped."""
HOLD_BYTES = 2**28
STRAYED_S = 0.5  # a driver's clock that is this far from ours is no clock
SETTLE_FRAMES = 5  # a camera's first pictures are dark, or old: its driver keeps four


class Feed(Iterator):
    """Frames that come in their own time: yields (time in s, uint8 [h, w, 3] RGB).

    A thread takes them from their source; the newest wait, older ones are dropped and counted, so that a
    reader that is too slow is late by `HOLD_S` and not more and more. It starts with the first frame that is
    asked for.

    Attributes:
      name: Name of the source, for people.
      fps: Frame rate that the source states, in Hz.
      dropped: How many frames were dropped so far.
      newest: The last frame that came, (time in s, picture); None before.
      arrived_s: When the frame that was yielded last came, in s of `time.monotonic`.
      speed: How much faster than life it comes.
    """

    def __init__(
        self, source: Iterable[tuple[float, np.ndarray]], fps: float, name: str, *, speed: float = 1
    ):
        """Wrap a source.

        Args:
          source: (time in s, uint8 [h, w, 3] RGB), times increasing, which waits until a frame is there.
          fps: Frame rate that it states, in Hz.
          name: Its name, for people.
          speed: How much faster than life it comes.
        """
        self.name, self.fps, self.speed = name, fps, speed
        self.dropped, self.newest, self.arrived_s = 0, None, 0.0
        self._source = iter(source)
        self._most = max(2, round(HOLD_S * fps * speed))
        self._waiting: deque[tuple[float, float, np.ndarray]] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __next__(self) -> tuple[float, np.ndarray]:
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._take, name=f"feed {self.name}", daemon=True)
                self._thread.start()
                # A generator that is forgotten ends too late to wait for a thread.
                atexit.register(self.close)
            self._changed.wait_for(lambda: self._waiting or self._ended or self._closed)
            if self._waiting and not self._closed:
                self.arrived_s, time_s, rgb = self._waiting.popleft()
                return time_s, rgb
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def _take(self) -> None:
        try:
            for time_s, rgb in self._source:
                with self._changed:
                    if self._closed:
                        break
                    self._waiting.append((time.monotonic(), time_s, rgb))
                    self.newest = time_s, rgb
                    while len(self._waiting) > max(2, min(self._most, HOLD_BYTES // rgb.nbytes)):
                        self._waiting.popleft()
                        self.dropped += 1
                    self._changed.notify()
        except Exception as error:  # the reader's thread is where it belongs
            self._error = error
        finally:
            if hasattr(self._source, "close"):
                self._source.close()
            with self._changed:
                self._ended = True
                self._changed.notify()

    def close(self) -> None:
        """End it: the source is closed once it has given the frame that it waits for."""
        if self._closed:
            return
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=1)
        elif hasattr(self._source, "close"):
            self._source.close()


def camera(device: int | str = 0) -> Feed:
    """Open a camera.

    Args:
      device: Its number, or the address of a stream that OpenCV can open.

    Returns:
      Its frames, with the driver's time where it has one and else the time they came, in s since the first.

    Raises:
      UserError: It cannot be opened; while frames are taken: it gives no pictures any more.

    Example:
      A file stands for a stream here:

      >>> import contextlib, tempfile
      >>> from sspd_jax.simulation import sample_video
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     sample_video.write_face_video(f"{folder}/face.mp4", seconds=2)
      ...     with contextlib.closing(camera(f"{folder}/face.mp4")) as feed:
      ...         time_s, picture = next(feed)
      >>> time_s, picture.shape
      (0.0, (256, 256, 3))
    """
    log = getattr(cv2.utils, "logging", cv2)  # before OpenCV 4.13 the level is set in `cv2` itself
    level = log.getLogLevel()
    log.setLogLevel(0)  # silent: the error below is enough
    try:
        capture = cv2.VideoCapture(device)
    finally:
        log.setLogLevel(level)
    if not capture.isOpened():
        capture.release()
        raise UserError(
            f"camera {device}: cannot be opened; plug one in, close what else uses it, choose another with "
            "--camera=NUMBER, or name a video file"
        )
    fps = capture.get(cv2.CAP_PROP_FPS)
    return Feed(_filmed(capture, device), fps if 1 <= fps <= 1000 else CAMERA_FPS, f"camera {device}")


def _filmed(capture: cv2.VideoCapture, device: int | str) -> Iterator[tuple[float, np.ndarray]]:
    try:
        for _ in range(SETTLE_FRAMES):
            capture.grab()
        time_s, start_s, last_stamp_s = None, 0.0, 0.0
        strayed = False
        while True:
            ok, bgr = capture.read()
            now_s, stamp_s = time.monotonic(), capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not ok:
                raise UserError(f"camera {device}: gives no pictures any more; plug it in again")
            if time_s is None:
                time_s, start_s = 0.0, now_s
            else:
                # When a frame came says how busy this computer was, too; the driver knows when it was taken.
                driver_s, came_s = time_s + stamp_s - last_stamp_s, now_s - start_s
                strayed = strayed or not time_s < driver_s or abs(driver_s - came_s) > STRAYED_S
                time_s = max(came_s, time_s + 1e-3) if strayed else driver_s
            last_stamp_s = stamp_s
            yield time_s, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def as_live(path: str | Path, *, speed: float = 1.0) -> Feed:
    """Open a file as if it were filmed now: its frames come when their timestamps say.

    Args:
      path: A file that FFmpeg can decode.
      speed: How much faster than life.

    Raises:
      UserError: It cannot be decoded, see `decode.frames`.
      ConfigError: A speed that is not positive.
    """
    if not 0 < speed < math.inf:
        raise ConfigError(f"speed {speed:g} is not above 0")
    fps = decode.read_facts(path).fps or decode.ASSUMED_FPS

    def paced():
        start_s = None
        for time_s, rgb in decode.frames(path):
            start_s = time.monotonic() if start_s is None else start_s
            time.sleep(max(0.0, start_s + time_s / speed - time.monotonic()))
            yield time_s, rgb

    return Feed(paced(), fps, str(path), speed=speed)

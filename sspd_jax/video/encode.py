"""Write a video, frame by frame: H.264, which every player plays."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.runtime import storage

SUFFIXES = (".mp4", ".mov", ".mkv")
TICKS_PER_S = 90_000  # of the timestamps
OPTIONS = {"crf": "20", "preset": "veryfast"}
RATE = 30  # Hz, for a header; the frames have their own times


def check_name(path: str | Path) -> None:
    """Check that a video can be called so.

    Raises:
      ConfigError: its suffix is none of `SUFFIXES`.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: no such kind of video is written; end its name in {', '.join(SUFFIXES)}")


def write_video(path: str | Path, frames: Iterable[tuple[float, np.ndarray]]) -> int:
    """Write frames with their times; memory does not grow with their number.

    The file appears under its name when it is complete. A side with an odd number of pixels is drawn out by
    one: H.264 halves the colours' sides.

    Args:
      path: ends in one of `SUFFIXES`.
      frames: (time in s, uint8 [h, w, 3] RGB), times increasing, all of one size.

    Returns:
      How many frames were written.

    Raises:
      ConfigError: another suffix.
      StorageError: it cannot be written.
    """
    check_name(path)
    path = storage.file_behind(path)
    aside = storage.aside(path, path.suffix)
    count, last = 0, -1
    try:
        with storage.storing(path, errors=(OSError, av.FFmpegError)), av.open(str(aside), "w") as container:
            stream = container.add_stream("libx264", rate=RATE)
            stream.options, stream.pix_fmt = OPTIONS, "yuv420p"
            stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
            for time_s, rgb in frames:
                rgb = cv2.copyMakeBorder(rgb, 0, rgb.shape[0] % 2, 0, rgb.shape[1] % 2, cv2.BORDER_REPLICATE)
                if not count:
                    stream.height, stream.width = rgb.shape[:2]
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                last = max(round(time_s * TICKS_PER_S), last + 1)
                frame.pts, frame.time_base = last, Fraction(1, TICKS_PER_S)
                container.mux(stream.encode(frame))
                count += 1
            container.mux(stream.encode())
        with storage.storing(path):
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return count

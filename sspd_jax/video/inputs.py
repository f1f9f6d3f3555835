"""What programs hand in, made one thing: a path of any file, bytes or upload, a stream of any pictures.

Pictures come as NumPy, PyTorch or PIL hold them, in lists, arrays or streams, as integers or fractions.
What cannot be meant is refused in a sentence that says what to give.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import numbers
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sspd_jax.errors import ConfigError, UserError

PIECE_BYTES = 1 << 20
BLUER = 1.1  # skin of any colour is redder than blue, unless the light is blue or the channels are exchanged
SWAPPED = (
    "the skin is bluer than red: if the pictures are BGR, as OpenCV gives them, exchange their channels "
    "(picture[..., ::-1])"
)
WANTED = "give pictures [h, w, 3], RGB, 0 to 255 or 0 to 1"


def is_file(video: Any) -> bool:
    """Tell whether it is a file: its path, its content, or something that it can be read from."""
    content = isinstance(video, str | os.PathLike | bytes | bytearray)
    content = content or (isinstance(video, memoryview) and video.ndim == 1)
    return content or _source(video) is not None


@contextlib.contextmanager
def as_path(video: Any) -> Iterator[tuple[Path, str]]:
    """Lend a file's path: its own, or that of a copy on disk, which is gone afterwards.

    Args:
      video: See `is_file`. What can be read from is read from where it stands to its end.

    Yields:
      The path, and what messages call it. In a `UserError` of the block the copy is called that, too.

    Raises:
      ConfigError: It gives text instead of bytes.
      UserError: It gives nothing, or there is no room for the copy.
    """
    if isinstance(video, str | os.PathLike):
        yield Path(video), str(Path(video))
        return
    source = _source(video)
    named = getattr(video, "filename", None) or getattr(source, "name", None)
    name = Path(named).name if isinstance(named, str) and named else "the upload"
    # The suffix stays: a stream without a container is known by it.
    with tempfile.NamedTemporaryFile(prefix="sspd_jax-", suffix=Path(name).suffix) as copy:
        try:
            _copy(video if source is None else source, copy, name)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"{name}: cannot be copied to {tempfile.gettempdir()} ({reason})") from error
        try:
            yield Path(copy.name), name
        except UserError as error:
            told = str(error).replace(copy.name, name)
            raise type(error)(told) from error


def _source(video: Any) -> Any:
    """Return what has `read`: the object, or the file inside an upload (whose own `read` may be async)."""
    inside = getattr(video, "file", None)
    for one in (inside, video):
        if callable(getattr(one, "read", None)) and not isinstance(one, type):
            return one
    return None


def _copy(content: Any, copy: Any, name: str) -> None:
    if not hasattr(content, "read"):
        copy.write(content)
    else:
        first = content.read(PIECE_BYTES)
        if not isinstance(first, bytes | bytearray | memoryview):
            raise ConfigError(f'{name}: gives text instead of bytes; open it by open(path, "rb")')
        copy.write(first)
        shutil.copyfileobj(content, copy, PIECE_BYTES)
    if copy.tell() == 0:
        raise UserError(f"{name}: has no byte left to read; if it was read before, .seek(0) goes back")
    copy.flush()


def rate_of(fps: Any) -> float:
    """Return a frame rate, in Hz; raises ConfigError for what is none."""
    if isinstance(fps, bool) or not isinstance(fps, numbers.Real) or not 0 < fps < math.inf:
        raise ConfigError(f"fps={fps!r} is no frame rate; give a number of pictures a second, such as 30")
    return float(fps)


def timed_pictures(video: Any, fps: float) -> Iterator[tuple[float, np.ndarray]]:
    """Make one stream of pictures of any kind.

    Args:
      video: Pictures in one array, a list or any stream; or pairs (time in s, picture), times increasing. A
        picture is [h, w, 3], [h, w, 4] or [3, h, w], RGB, as whole numbers from 0 to 255, in 16 bits from 0
        to 65535, or as fractions from 0 to 1 or 0 to 255. Which of them is seen in the first that is not
        black.
      fps: Rate at which pictures without a time are counted, Hz.

    Returns:
      Iterator of (time in s, uint8 [h, w, 3] RGB). The stream is closed with it, where it has `close`.

    Raises:
      ConfigError: It is no stream of pictures; also on the way, at the picture that is none.
    """
    if isinstance(video, memoryview) or (hasattr(video, "__array__") and not isinstance(video, np.ndarray)):
        video = _as_array(video, "the video")
    if isinstance(video, list | tuple) and video and isinstance(video[0], str | os.PathLike | bytes):
        raise ConfigError(f"the video is a list of files ({str(video[0])[:40]!r}, …); give one at a time")
    if isinstance(video, np.ndarray):
        if video.ndim == 3 and video.shape[-1] in (3, 4):
            raise ConfigError(f"the video is one picture, {_kind(video)}; give all of them, [t, h, w, 3]")
        if video.ndim != 4:
            raise ConfigError(f"the video is {_kind(video)}; give [t, h, w, 3], RGB: a pulse is colour")
    elif isinstance(video, dict) or not isinstance(video, Iterable):
        raise ConfigError(
            f"a video cannot be {type(video).__name__}; give a path, the file's bytes, an open file, or "
            "pictures with their fps"
        )
    return _timed(video, fps)


def _timed(video: Iterable[Any], fps: float) -> Iterator[tuple[float, np.ndarray]]:
    largest, shape, last_s = None, None, -math.inf
    frames = iter(video)
    try:
        for number in itertools.count():
            frame = next(frames, None)
            if frame is None:
                break
            time_s, picture = frame if _is_pair(frame) else (number / fps, frame)
            if not time_s > last_s:
                raise ConfigError(
                    f"picture {number} is of {time_s:g} s, the one before of {last_s:g}; times must increase"
                )
            last_s = time_s
            picture = _upright(_as_array(picture, f"picture {number}"), number)
            if shape not in (None, picture.shape):
                raise ConfigError(
                    f"picture {number} has {picture.shape[1]} × {picture.shape[0]} pixels, the first "
                    f"{shape[1]} × {shape[0]}; make them equally large"
                )
            shape = picture.shape
            if picture.dtype != np.uint8:
                largest = largest or _full_scale(picture, number)
                picture = _as_bytes(picture, largest, number)
            yield time_s, picture
    finally:
        if hasattr(frames, "close"):
            frames.close()
    if shape is None:
        raise ConfigError("the video holds no picture; give at least some seconds of them")


def _is_pair(frame: Any) -> bool:
    return isinstance(frame, tuple | list) and len(frame) == 2 and np.ndim(frame[0]) == 0


def _as_array(picture: Any, name: str) -> np.ndarray:
    try:
        picture = np.asarray(picture)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors on another device
        raise ConfigError(f"{name} is no array ({str(error).splitlines()[0]}); {WANTED}") from error
    if picture.dtype.kind not in "uif":
        raise ConfigError(f"{name} is {_kind(picture)}; {WANTED}")
    return picture


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _upright(picture: np.ndarray, number: int) -> np.ndarray:
    """Put the channels last and leave out a fourth."""
    if picture.ndim == 3 and picture.shape[-1] not in (3, 4) and picture.shape[0] in (3, 4):
        picture = np.moveaxis(picture, 0, -1)
    if picture.ndim == 2 or (picture.ndim == 3 and picture.shape[-1] == 1):
        raise ConfigError(f"picture {number} is {_kind(picture)}: it has no colours; {WANTED}")
    if picture.ndim != 3 or picture.shape[-1] not in (3, 4):
        raise ConfigError(f"picture {number} is {_kind(picture)}; {WANTED}")
    return np.ascontiguousarray(picture[..., :3])


def _full_scale(picture: np.ndarray, number: int) -> float | None:
    """Say which number is white, by a picture that is not black; None for a black one."""
    highest = float(picture.max())
    if not highest > 0:
        return None
    if picture.dtype.kind == "f" and highest <= 1:
        return 1.0
    if highest <= 255:
        return 255.0
    if picture.dtype == np.uint16 and highest >= 1 << 12:
        return 65535.0
    raise ConfigError(
        f"picture {number} is {_kind(picture)} up to {highest:g}, and what is white is not known; {WANTED}"
    )


def _as_bytes(picture: np.ndarray, largest: float | None, number: int) -> np.ndarray:
    white = largest or 255
    low, high = float(picture.min()), float(picture.max())
    if not (low >= 0 and high <= white):  # NaN fails it, too
        kind = f"{_kind(picture)} from {low:g} to {high:g}"
        raise ConfigError(f"picture {number} is {kind}, not 0 to {white:g}; {WANTED}")
    return np.rint(picture.astype(np.float64) * (255 / white)).astype(np.uint8)


def looks_swapped(colours: np.ndarray) -> bool:
    """Tell whether skin is so blue that red and blue may be exchanged; float [t, 3], RGB, NaN: not seen."""
    seen = colours[np.isfinite(colours).all(-1)]
    if not len(seen):
        return False
    red, _, blue = np.median(seen, 0)
    return bool(blue > BLUER * red)

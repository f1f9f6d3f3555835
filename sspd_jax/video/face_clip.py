"""The one road from video to the network's input: training, evaluation and prediction share it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np

from sspd_jax.command import UserError
from sspd_jax.video import clock
from sspd_jax.video.crop import Resize, crop
from sspd_jax.video.decode import frames
from sspd_jax.video.face import FaceBox, FaceDetector, widen

SIZE = 151  # pixels, as the reference implementation stores its crops
LOOKS_PER_S = 5  # while searching: a face stays longer than that, and a search costs more than a frame


class FaceClip(Iterator):
    """A stream of face crops: yields (time in s on the file's axis, uint8 [size, size, 3] RGB), once.

    Attributes:
      file: the video.
      box: what is cut out of every frame, in pixels: one box, widened, for the whole video.
      start_s: time of the clip's first frame, s since the video's first.
      max_gap_s: longest gap between two frames that `on_clock` bridges, s.
    """

    def __init__(
        self,
        file: Path,
        box: FaceBox,
        start_s: float,
        crops: Generator[tuple[float, np.ndarray], None, None],
        max_gap_s: float,
    ):
        self.file, self.box, self.start_s, self.max_gap_s = file, box, start_s, max_gap_s
        self._crops = crops

    def __next__(self) -> tuple[float, np.ndarray]:
        return next(self._crops)

    def on_clock(self, fps: float) -> Iterator[tuple[int, float, np.ndarray]]:
        """Put the crops that are left on a uniform clock, see `clock.uniform`.

        Args:
          fps: of the clock, Hz.

        Returns:
          Iterator of (segment, time in s, crop): uint8 where a frame passed through, else float32.
        """
        return clock.uniform(self, fps, max_gap_s=self.max_gap_s)

    def close(self) -> None:
        """Close the file before its end; a clip read to its end, or forgotten, closes itself."""
        self._crops.close()


def open_face_clip(
    path: str | Path,
    *,
    size: int = SIZE,
    resize: Resize = "linear",
    face_search_s: float = 30.0,
    max_gap_s: float = 0.5,
    detector: FaceDetector | None = None,
) -> FaceClip:
    """Open a video, find the face and stream its crops.

    The first face found fixes the box for the whole video, and the clip starts there. One frame in 0.2 s is
    searched. Memory does not grow with the video.

    Args:
      path: a file that FFmpeg can decode.
      size: side of the crops, pixels.
      resize: 'linear' or 'area', see `crop`.
      face_search_s: how far into the video to search, s.
      max_gap_s: longest gap between two frames that `FaceClip.on_clock` bridges, s.
      detector: to share one among videos; by default a new one.

    Returns:
      The clip.

    Raises:
      UserError: the file cannot be read (see `decode.frames`), no face is found, or fewer than 2 frames
        are left from there on.
    """
    return cut_face(
        frames(path),
        Path(path),
        size=size,
        resize=resize,
        face_search_s=face_search_s,
        max_gap_s=max_gap_s,
        detector=detector,
    )


def cut_face(
    video: Iterable[tuple[float, np.ndarray]],
    file: Path,
    *,
    size: int = SIZE,
    resize: Resize = "linear",
    face_search_s: float = 30.0,
    max_gap_s: float = 0.5,
    detector: FaceDetector | None = None,
) -> FaceClip:
    """Find the face in a stream of frames and stream its crops, as `open_face_clip` does for a file.

    Args:
      video: (time in s, uint8 [h, w, 3] RGB), times increasing, such as a `Recording` yields.
      file: where the frames come from, for messages and `FaceClip.file`.
      size: side of the crops, pixels.
      resize: 'linear' or 'area', see `crop`.
      face_search_s: how far into the video to search, s.
      max_gap_s: longest gap between two frames that `FaceClip.on_clock` bridges, s.
      detector: to share one among videos; by default a new one.

    Returns:
      The clip. It closes the stream, if it is a generator, when it ends or is closed.

    Raises:
      UserError: no face is found, or fewer than 2 frames are left from there on.
    """
    detector = detector or FaceDetector()
    video = _closable(video)
    found = _search(video, detector, face_search_s)
    if found is None:
        video.close()
        raise UserError(
            f"{file}: no face found in the first {face_search_s:g} s; film one face from the front, "
            "upright, well lit and at least a tenth of the picture wide"
        )
    start_s, first, marked = found
    second = next(video, None)
    if second is None:
        raise UserError(f"{file}: has fewer than 2 frames with a face; a pulse needs a video of seconds")
    box = widen(marked, first.shape[1], first.shape[0])
    return FaceClip(
        file, box, start_s, _crops([(start_s, first), second], video, box, size, resize), max_gap_s
    )


def _closable(video: Iterable) -> Generator:
    """Make a generator of any stream; closing it closes the stream, if that is one too."""
    yield from video


def _search(video, detector, face_search_s) -> tuple[float, np.ndarray, FaceBox] | None:
    last_look = None
    for time_s, rgb in video:
        if time_s > face_search_s:
            break
        look = int((time_s + 0.001) * LOOKS_PER_S)  # timestamps are rounded, to 1 ms at worst
        if look != last_look:
            last_look = look
            if marked := detector.detect(rgb):
                return time_s, rgb, marked
    return None


def _crops(ahead, video, box, size, resize) -> Generator[tuple[float, np.ndarray], None, None]:
    with closing(video):
        for time_s, rgb in chain(ahead, video):
            yield time_s, crop(rgb, box, size, resize)

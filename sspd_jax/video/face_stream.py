"""The one road from video to the network's input: training, evaluation and prediction share it."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import numpy as np

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.video import resample
from sspd_jax.video.crop import Resize, crop
from sspd_jax.video.face_detection import FaceBox, FaceDetector, HaarDetector, widen
from sspd_jax.video.face_tracking import DETECT_EVERY_S, FaceFollower
from sspd_jax.video.skin_box import SkinBox

UNREAD_SIZE = 8  # pixels, of crops that no network reads
SIZE = 151  # pixels, as the reference implementation stores its crops
BACKGROUND_STEP = 120  # of a picture's rows and columns about that many are averaged
LEAST_BACKGROUND = 0.05  # of the picture


class FaceClip(Iterator):
    """A stream of face crops: yields (time in s on the file's axis, uint8 [size, size, 3] RGB), once.

    Attributes:
      file: The video.
      box: What is cut out of the present frame, widened, in pixels; where the face is not followed, of every
        frame.
      start_s: Time of the clip's first frame in s since the video's first.
      in_view: How many faces there were in it.
      max_gap_s: Longest gap between two frames that `on_clock` bridges, in s.
      detections: (time in s, whether the face was found), every search for it, where it is followed.
      background: What lies around the box in every frame so far, where it is watched.
      crops: The stream itself.
    """

    def __init__(self, file: Path, max_gap_s: float, detections: list[tuple[float, bool]]):
        self.file, self.max_gap_s, self.detections = file, max_gap_s, detections
        self.background = Trace(3)
        self.box: FaceBox | None = None
        self.start_s, self.in_view = 0.0, 0
        self.crops: Generator[tuple[float, np.ndarray], None, None] | None = None

    def __next__(self) -> tuple[float, np.ndarray]:
        return next(self.crops)

    def on_clock(self, fps: float) -> Iterator[tuple[int, float, np.ndarray]]:
        """Put the crops that are left on a uniform clock, see `resample.uniform`.

        Args:
          fps: Frame rate of the clock in Hz.

        Returns:
          Iterator of (segment, time in s, crop): uint8 where a frame passed through, else float32.
        """
        return resample.uniform(self, fps, max_gap_s=self.max_gap_s)

    def close(self) -> None:
        """Close the file before its end; a clip read to its end, or forgotten, closes itself."""
        self.crops.close()


class Trace:
    """Values that are noted frame by frame, packed: 4 bytes a value and 8 a time, no more."""

    def __init__(self, width: int):
        """Begin with none; each frame has `width` values."""
        self._width = width
        self._times, self._values = array("d"), array("f")

    def note(self, time_s: float, values: Iterable[float]) -> None:
        """Note a frame's values."""
        self._times.append(time_s)
        self._values.extend(values)

    @property
    def times_s(self) -> np.ndarray:
        """Times, float64 [t], s."""
        return np.array(self._times)

    @property
    def values(self) -> np.ndarray:
        """Values, float32 [t, width]."""
        return np.array(self._values).reshape(-1, self._width)


def cut_face(
    video: Iterable[tuple[float, np.ndarray]],
    file: Path,
    *,
    size: int = SIZE,
    resize: Resize = "linear",
    face_search_s: float = 30.0,
    max_gap_s: float = 0.5,
    detector: FaceDetector | None = None,
    follow: bool = False,
    near: FaceBox | None = None,
    watch_background: bool = False,
    detect_every_s: float = DETECT_EVERY_S,
) -> FaceClip:
    """Find the face in a stream of frames and stream its crops.

    The first face found fixes the box for the whole video, and the clip starts there. One frame in 0.2 s is
    searched. Memory does not grow with the video, but for what is kept of detections and background: 30 bytes
    a frame.

    Args:
      video: (time in s, uint8 [h, w, 3] RGB), times increasing, such as `decode.frames` yields.
      file: Where the frames come from, for messages and `FaceClip.file`.
      size: Side of the crops in pixels.
      resize: 'linear' or 'area', see `crop`.
      face_search_s: How far into the video to search, in s.
      max_gap_s: Longest gap between two frames that `FaceClip.on_clock` bridges, in s.
      detector: A detector to share among videos; by default a new `HaarDetector`.
      follow: Let the box follow the face, and leave out what was filmed while it is out of view, see
        `face_tracking.FaceFollower`; the box of training, one for all frames, is the published one.
      near: Which face, by where it is in the first frame with a face.
      watch_background: Keep the mean colour around the box in every frame.
      detect_every_s: Time from one detection of a face that is followed to the next, in s.

    Returns:
      The clip. It closes the stream, if it is a generator, when it ends or is closed.

    Raises:
      UserError: No face is found, or fewer than 2 frames are left from there on; as the stream itself says.

    Example:
      >>> import tempfile
      >>> from sspd_jax.simulation import sample_video
      >>> from sspd_jax.video import decode
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "face.mp4")
      ...     sample_video.write_face_video(file, seconds=0.5)
      ...     crops = list(cut_face(decode.frames(file), file, size=36))
      >>> len(crops), crops[0][1].shape
      (15, (36, 36, 3))
    """
    follower = FaceFollower(detector or HaarDetector(), near, detect_every_s)
    clip = FaceClip(file, max_gap_s, follower.detections)
    video = _closable(video)
    marked, time_s = None, 0.0
    for time_s, rgb in video:
        if time_s > face_search_s or (marked := follower.see(time_s, rgb)):
            break
    if marked is None:
        video.close()
        raise UserError(
            f"{file}: no face found in {searched(face_search_s, time_s)}; film one face from the front, "
            "upright, well lit and at least a tenth of the picture wide, or say where its skin is (--box)"
        )
    second = next(video, None)
    if second is None:
        raise UserError(f"{file}: has fewer than 2 frames with a face; a pulse needs a video of seconds")
    clip.in_view = follower.in_view
    clip.start_s, clip.box = time_s, widen(marked, rgb.shape[1], rgb.shape[0])
    ahead = [(time_s, rgb), second]

    def crops():
        with closing(video):
            for time_s, rgb in chain(_emptied(ahead), video):
                if follow:
                    marked = follower.see(time_s, rgb)
                    if marked is None:
                        continue
                    clip.box = widen(marked, rgb.shape[1], rgb.shape[0])
                if watch_background:
                    clip.background.note(time_s, mean_around(rgb, clip.box))
                yield time_s, crop(rgb, clip.box, size, resize)

    clip.crops = crops()
    return clip


def searched(search_s: float, last_s: float) -> str:
    """Say how much of a video was searched, s: what was asked for, or all of a shorter one."""
    return f"the first {search_s:g} s" if last_s > search_s else f"any of its {last_s:.1f} s"


def cut_box(
    video: Iterable[tuple[float, np.ndarray]],
    file: Path,
    given: SkinBox,
    *,
    size: int = SIZE,
    resize: Resize = "linear",
    max_gap_s: float = 0.5,
    watch_background: bool = False,
) -> FaceClip:
    """Stream the same box of every frame, whatever is in it; see `cut_face`, which looks for a face.

    Raises:
      ConfigError: The box is not inside the picture.
      UserError: There are fewer than 2 frames; as the stream itself says.
    """
    clip = FaceClip(file, max_gap_s, [])
    video = _closable(video)
    try:
        ahead = list(islice(video, 2))
        if len(ahead) < 2:
            raise UserError(f"{file}: has fewer than 2 frames; a pulse needs a video of seconds")
        time_s, rgb = ahead[0]
        clip.in_view, clip.start_s = 1, time_s
        clip.box = given.inside(rgb.shape[1], rgb.shape[0])
    except ConfigError as error:  # of the box, also where somebody reads the frames on their way here
        video.close()
        raise ConfigError(f"{file}: {error}") from error

    def crops():
        with closing(video):
            for time_s, rgb in chain(_emptied(ahead), video):
                clip.box = given.inside(rgb.shape[1], rgb.shape[0])
                if watch_background:
                    clip.background.note(time_s, mean_around(rgb, clip.box))
                yield time_s, crop(rgb, clip.box, size, resize)

    clip.crops = crops()
    return clip


def _emptied(frames: list) -> Iterator:
    """Yield what is in a list and let go of it: at 8K a picture is 100 MB."""
    while frames:
        yield frames.pop(0)


def _closable(video: Iterable) -> Generator:
    """Make a generator of any stream; closing it closes the stream, if that is one too."""
    yield from video


def mean_around(rgb: np.ndarray, box: FaceBox) -> np.ndarray:
    """Average the picture around a box.

    Args:
      rgb: uint8 [h, w, 3].
      box: inside the picture, as `FaceClip.box`.

    Returns:
      float64 [3]; NaN where hardly anything is left around it.
    """
    step = max(1, min(rgb.shape[:2]) // BACKGROUND_STEP)
    coarse = rgb[::step, ::step]
    face = coarse[-(-box.top // step) : -(-box.bottom // step), -(-box.left // step) : -(-box.right // step)]
    pixels, inside = (part.shape[0] * part.shape[1] for part in (coarse, face))
    if pixels - inside < LEAST_BACKGROUND * pixels:
        return np.full(3, np.nan)
    total = coarse.sum((0, 1), np.float64) - face.sum((0, 1), np.float64)
    return total / (pixels - inside)

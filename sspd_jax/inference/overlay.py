"""A video with what was read drawn into it: the box of each face, its rate and its wave."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate.wave import without_drift
from sspd_jax.inference.prediction import Prediction
from sspd_jax.inference.windows import Segment, Window
from sspd_jax.runtime.text import percent
from sspd_jax.video import decode, encode, face_track
from sspd_jax.video.skin_box import SkinBox

SHOWN_S = 6.0  # of the wave, up to the present frame
STRIP = 0.16  # of the picture's height, for the wave
GIVEN, REFUSED, INK = (86, 180, 233), (200, 200, 200), (255, 255, 255)  # Okabe and Ito's sky blue; RGB
SHADE = 0.35  # what is left of the picture under the strip
FONT = cv2.FONT_HERSHEY_DUPLEX


def check(path: str | Path, videos: Sequence[str | Path]) -> None:
    """Check that an overlay can be written, before anything is read.

    Args:
      path: the video to make.
      videos: those to read.

    Raises:
      ConfigError: it would overwrite the video that is read, there is more than one, or the name's suffix is
        none that is written.
    """
    encode.check_name(path)
    if len(videos) != 1:
        raise ConfigError(f"--overlay={path} is one video, and {len(videos)} are to be read; give one")
    if Path(path).exists() and Path(videos[0]).exists() and Path(path).samefile(videos[0]):
        raise ConfigError(f"{path}: is the video that is read; give the overlay another name")


def write(
    path: str | Path,
    predictions: Sequence[Prediction],
    *,
    fps: float | None = None,
    box: SkinBox | None = None,
) -> None:
    """Decode a video once more and write it with its faces, rates and waves; memory stays flat.

    Args:
      path: the video to make, without sound.
      predictions: of the faces of one file, of the region `skin` and made with `keep=True`.
      fps: as it was given to `predict`.
      box: likewise.

    Raises:
      ConfigError: see `check`; or they are of a crop, or were made without `keep`.
      StorageError: it cannot be written.
    """
    files = list(dict.fromkeys(prediction.file for prediction in predictions))
    check(path, files)
    if any(segment.skin is None for p in predictions for segment in p.segments):
        raise ConfigError(f"{files[0]}: what its rates were read from was not kept, or is no skin")
    encode.write_video(path, draw(decode.frames(files[0], fps=fps), predictions, box=box))


def draw(
    frames: Iterator[tuple[float, np.ndarray]],
    predictions: Sequence[Prediction],
    *,
    box: SkinBox | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Draw predictions into frames.

    Args:
      frames: (time in s, uint8 [h, w, 3] RGB), as the predictions were read from.
      predictions: of the faces in them.
      box: where the skin is, if it was given.

    Yields:
      The times, and the pictures with a strip at the lower edge for each face.
    """
    faces = [
        [_Drawn(segment, prediction, box) for segment in prediction.segments] for prediction in predictions
    ]
    for time_s, rgb in frames:
        picture = rgb.copy()
        for number, segments in enumerate(faces):
            _draw_face(picture, time_s, segments, number, len(faces))
        yield time_s, picture


@dataclasses.dataclass(eq=False)
class _Drawn:
    """A segment, prepared to be drawn."""

    segment: Segment
    prediction: Prediction
    box: SkinBox | None

    def __post_init__(self):
        wave = self.segment.wave
        values = without_drift(wave.values, wave.fps)
        # Motion makes spikes; the scale is that of most samples.
        self.values = np.clip(values / (np.quantile(np.abs(values), 0.97) + 1e-12), -1, 1)
        self.times_s = wave.times_s

    def holds(self, time_s: float) -> bool:
        spare_s = 0.5 / self.segment.wave.fps
        return self.times_s[0] - spare_s <= time_s <= self.times_s[-1] + spare_s

    def window(self, time_s: float) -> Window:
        """Return the window whose middle is nearest."""
        return min(self.segment.windows, key=lambda w: abs(w.start_s + w.duration_s / 2 - time_s))

    def place(self, time_s: float, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of the face, pixels."""
        if self.box:
            return dataclasses.astuple(self.box.inside(width, height))
        traces = self.segment.skin.traces
        x, y, spread = (np.interp(time_s, traces.time_s, values) for values in traces.geometry.T[:3])
        side = 2 * face_track.MARKED * spread
        left, top = x - side / 2, y - face_track.MARKED_ABOVE * side
        return tuple(round(float(edge)) for edge in (left, top, left + side, top + side))


def rate_text(window: Window | None) -> str:
    """Say a window's rate in a few words."""
    if window is None:
        return "no face"
    if window.heart_rate_bpm is None:
        return "no reading"
    return f"{window.heart_rate_bpm:.0f} bpm, {percent(window.confidence)} sure"


def _draw_face(picture: np.ndarray, time_s: float, segments: list[_Drawn], number: int, faces: int) -> None:
    height, width = picture.shape[:2]
    rows = max(8, round(STRIP * height / max(1, faces / 2)))
    bottom = height - number * rows
    if bottom - rows < 0:
        return
    strip = picture[bottom - rows : bottom]
    strip[:] = (strip * SHADE).astype(np.uint8)
    drawn = next((one for one in segments if one.holds(time_s)), None)
    window = drawn and drawn.window(time_s)
    colour = GIVEN if window and window.heart_rate_bpm is not None else REFUSED
    text = rate_text(window)
    if faces > 1:
        text = f"{number + 1}: {text}"
    across = min(round(0.42 * width), round(5.2 * rows))
    scale = _fitting(text, across - 0.3 * rows, 0.42 * rows)
    thick = max(1, round(1.4 * scale))
    _, base = cv2.getTextSize(text, FONT, scale, thick)
    cv2.putText(
        strip, text, (round(0.15 * rows), round(0.5 * rows) + base), FONT, scale, INK, thick, cv2.LINE_AA
    )
    if drawn is None:
        return
    thick = max(1, round(height / 300))
    left, top, right, low = drawn.place(time_s, width, height)
    cv2.rectangle(picture, (left, top), (right - 1, low - 1), colour, thick, cv2.LINE_AA)
    if faces > 1:
        where = (left, max(top - 2 * thick, round(30 * scale)))
        cv2.putText(picture, str(number + 1), where, FONT, scale, colour, thick, cv2.LINE_AA)
    shown = (drawn.times_s > time_s - SHOWN_S) & (drawn.times_s <= time_s + 1e-6)
    x = width - 1 - (time_s - drawn.times_s[shown]) / SHOWN_S * (width - 1 - across)
    y = (0.5 - 0.4 * drawn.values[shown]) * rows
    points = np.rint(np.column_stack([x, y]) * 16).astype(np.int32)
    cv2.polylines(strip, [points], False, colour, thick, cv2.LINE_AA, shift=4)


def _fitting(text: str, width: float, height: float) -> float:
    """Return the scale at which a text fits, its longest form given."""
    (across, up), _ = cv2.getTextSize(max(text, "100 bpm, 100% sure", key=len), FONT, 1.0, 1)
    return max(0.2, min(width / across, height / up))

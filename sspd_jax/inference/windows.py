"""From a stream of face crops to heart rates over time, each with its confidence, or to no reading.

Files, arrays and cameras, learned and classical methods end here. Everything is in memory but the pictures: a
wave and the mean colours of 16 cells of the face and of what lies around it, half a kilobyte a frame.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate import beats, classical, confidence, estimators, signal_quality
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import cell_colors
from sspd_jax.inference.cell_colors import FaceCells
from sspd_jax.video import face_tracking
from sspd_jax.video.face_stream import FaceClip, Trace

if TYPE_CHECKING:
    from sspd_jax.inference.model import RppgModel

METHODS = ("sspd", *classical.METHODS)
MIN_DURATION_S = 4.0
"""Shorter waves hold too few beats: at 45 bpm, three."""

OUT_OF_VIEW = "the face is out of view"
IN_VIEW = 0.5  # least share of the looks in a window that saw the face
FLAT = "the wave is flat"
NO_COLOUR = "the picture is black and white, and a pulse shows in colour"
GREY_LEVELS = 0.5  # colours that differ by less are rounding
ENOUGH_S = (
    0.9 * signal_quality.PART_S
)  # the confidence was fitted on 10 s; a shorter window has to be clearer


@dataclasses.dataclass(frozen=True)
class Settings:
    """How waves become readings.

    Attributes:
      window_s: length of a window, s.
      stride_s: from one window's start to the next's, s.
      read_out: a name in `estimators.OF_RAW_WAVES`.
      min_confidence: below it a window has no reading.
    """

    window_s: float = 10.0
    stride_s: float = 5.0
    read_out: str = "harmonic"
    min_confidence: float = confidence.THRESHOLD

    def __post_init__(self):
        if self.read_out not in estimators.OF_RAW_WAVES:
            raise ConfigError(f"read-out {self.read_out!r} is none of {', '.join(estimators.OF_RAW_WAVES)}")
        if not MIN_DURATION_S <= self.window_s < math.inf:
            raise ConfigError(f"window_s {self.window_s:g} is not {MIN_DURATION_S:g} s or more")
        if not 0 < self.stride_s < math.inf:
            raise ConfigError(f"stride_s {self.stride_s:g} is not above 0 s")
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence {self.min_confidence:g} is not 0 to 1")


@dataclasses.dataclass(frozen=True)
class Window:
    """What is known of one window.

    Attributes:
      start_s: s on the video's clock.
      duration_s: s.
      heart_rate_bpm: bpm; None where there is no reading.
      confidence: chance that the rate is within 3 bpm of the truth, 0 to 1.
      why: why there is no reading; '' where there is one.
      candidate_bpm: what would have been read; None where there is not even that.
    """

    start_s: float
    duration_s: float
    heart_rate_bpm: float | None
    confidence: float
    why: str
    candidate_bpm: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """An unbroken part of a recording.

    Attributes:
      wave: the pulse wave; its sign is such that it rises when the skin turns in the direction in which more
        blood colours it. Its phase means nothing for a learned method.
      beats_s: float64 [beats], of the windows that have a reading, s on the video's clock.
      windows: in time.
    """

    wave: Wave
    beats_s: np.ndarray
    windows: tuple[Window, ...]


def wave_reader(
    method: str, reader: RppgModel | None, fps: float
) -> Callable[[Iterable, float], tuple[Wave, Trace]]:
    """Return what turns a stream of crops into a wave, while noting the colours of their cells.

    Args:
      method: a name in `METHODS`.
      reader: the network, for 'sspd'.
      fps: of the clock, Hz.

    Returns:
      Function of (crops, start in s) → the wave, and what `FaceCells` noted of the crops.

    Raises:
      ConfigError: an unknown method, or 'sspd' without a network.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is none of {', '.join(METHODS)}")
    if method == "sspd" and reader is None:
        raise ConfigError(
            "the method sspd needs --checkpoint=DIR (`python -m sspd_jax convert` makes one); "
            f"{', '.join(classical.METHODS)} need none"
        )

    change = reader.network.change if method == "sspd" else "difference"

    def noted(crops: Iterable[np.ndarray], start_s: float, cells: Trace) -> Iterator[np.ndarray]:
        face = FaceCells(change)
        for number, crop in enumerate(crops):
            cells.note(start_s + number / fps, face.read(crop))
            yield crop

    def read(crops: Iterable[np.ndarray], start_s: float) -> tuple[Wave, Trace]:
        cells = Trace(FaceCells(change).width)
        crops = noted(crops, start_s, cells)
        if method == "sspd":
            return reader.read(crops, fps, start_s), cells
        for _ in crops:
            pass
        trace = cell_colors.cell_traces(cells.values)[0].mean(axis=1, dtype=np.float64)
        return Wave(classical.read_trace(method, trace, fps), fps, start_s), cells

    return read


def read_clip(
    clip: FaceClip, fps: float, read: Callable[..., tuple[Wave, Trace]], settings: Settings
) -> tuple[list[Segment], list[str]]:
    """Read a clip to its end.

    Args:
      clip: of a face.
      fps: of the clock, Hz.
      read: from `wave_reader`, for the same fps.
      settings: how waves become readings.

    Returns:
      The stretches, and notes on what was left out, a sentence each.

    Raises:
      UserError: no stretch is long enough.
    """
    stretches: list[Segment] = []
    notes = [f"no face before {clip.start_s:.1f} s"] if clip.start_s > 0 else []
    longest_s = 0.0
    end_s = None
    for _, segment in groupby(clip.on_clock(fps), key=itemgetter(0)):
        head = list(islice(segment, math.ceil(MIN_DURATION_S * fps)))
        start_s = head[0][1]
        if end_s is not None:
            notes.append(f"{_gap(clip, end_s, start_s)}, {end_s:.1f}–{start_s:.1f} s")
        if len(head) < MIN_DURATION_S * fps:
            longest_s, end_s = max(longest_s, len(head) / fps), head[-1][1]
            notes.append(f"left out {start_s:.1f}–{end_s:.1f} s: too short to hold a few beats")
            continue
        try:
            wave, cells = read((image for _, _, image in chain(head, segment)), start_s)
        except ValueError as error:
            raise UserError(
                f"{clip.file}: cannot be read by this method at {fps:g} frames/s ({error}); choose another"
            ) from error
        end_s = float(cells.times_s[-1])
        stretches.append(_judge(wave, cells, clip, settings))
    if not stretches:
        raise UserError(
            f"{clip.file}: has only {longest_s:.1f} s of unbroken video with a face; "
            f"film for {MIN_DURATION_S:g} s or more, better 10"
        )
    return stretches, notes


def _gap(clip: FaceClip, start_s: float, end_s: float) -> str:
    unseen = any(not seen and start_s - 0.5 <= time_s <= end_s for time_s, seen in clip.looks)
    return "the face is out of view" if unseen else "a gap in time"


def _judge(wave: Wave, cells: Trace, clip: FaceClip, settings: Settings) -> Segment:
    """Read the windows of a stretch, turn its wave the right way up and find its beats."""
    fps, times_s = wave.fps, cells.times_s
    noted = cells.values
    around = _on_clock(clip.background, times_s)
    windows, upright = [], 0.0
    for start, end in spans(len(times_s), fps, settings):
        part = wave.values[start:end]
        window, turn = judge_window(
            part,
            fps,
            settings,
            start_s=float(times_s[start]),
            cells=noted[start:end],
            background=None if around is None else around[start:end],
            in_view=face_tracking.seen_share(clip.looks, times_s[start], times_s[end - 1]),
        )
        windows.append(window)
        upright += turn
    if upright < 0:
        wave = dataclasses.replace(wave, values=-wave.values)
    return Segment(wave, _beats(wave, windows), tuple(windows))


def spans(frames: int, fps: float, settings: Settings) -> list[tuple[int, int]]:
    """Lay windows over a stretch: every stride, and one that ends where it ends.

    Args:
      frames: in the stretch.
      fps: Hz.
      settings: window and stride.

    Returns:
      (first frame, last + 1) of each; one window, shorter, where the stretch is.
    """
    length, stride = round(settings.window_s * fps), max(1, round(settings.stride_s * fps))
    if frames <= length:
        return [(0, frames)]
    starts = list(range(0, frames - length + 1, stride))
    if frames - (starts[-1] + length) >= stride / 2:
        starts.append(frames - length)
    return [(start, start + length) for start in starts]


def judge_window(
    wave: np.ndarray,
    fps: float,
    settings: Settings,
    *,
    start_s: float = 0.0,
    cells: np.ndarray | None = None,
    background: np.ndarray | None = None,
    in_view: float = 1.0,
) -> tuple[Window, float]:
    """Read the rate of one window and judge it.

    Args:
      wave: [t], the pulse wave in the window.
      fps: Hz.
      settings: read-out and least confidence.
      start_s: of the window, s.
      cells: [t, width], what `FaceCells` noted of the face; None where there is no picture.
      background: [t, 3], mean colour around it; None where there is none.
      in_view: share of the looks that saw the face.

    Returns:
      The window, and a number whose sign says which way up the wave is (0: cannot be told); its size says how
      clearly.
    """
    frames = len(wave) if cells is None else len(cells)
    looks = (None,) if cells is None else cell_colors.cell_traces(cells)
    blank = functools.partial(Window, start_s, frames / fps, None, 0.0)
    if in_view < IN_VIEW:
        return blank(OUT_OF_VIEW, None), 0.0
    # CHROM's wave can end early: a window that lacks more than a tenth has no rate.
    wave = np.asarray(wave, np.float64)
    if len(wave) < 0.9 * frames or not np.isfinite(wave).all():
        return blank("the wave ends before the window does", None), 0.0
    try:
        bpm = estimators.estimate(settings.read_out, wave, fps)
    except ValueError as error:
        return blank(f"at {fps:g} frames/s no pulse can be read ({error})", None), 0.0
    if not np.isfinite(bpm):
        return blank(NO_COLOUR if _is_grey(looks[0]) else FLAT, None), 0.0
    sure, why = confidence.max_confidence(
        signal_quality.extract(wave, fps, bpm, look, background) for look in looks
    )
    trusted = sure >= settings.min_confidence
    if trusted:
        why = ""
    elif _is_grey(looks[0]):
        why = NO_COLOUR
    elif frames / fps < ENOUGH_S:
        why += (
            f", and {frames / fps:.1f} s are too short to be sure: take {signal_quality.PART_S:g} s or more"
        )
    window = Window(start_s, frames / fps, bpm if trusted else None, sure, why, bpm)
    turn = 0.0 if cells is None else signal_quality.upright(wave, fps, bpm, looks[-1])
    return window, turn


def _is_grey(cells: np.ndarray | None) -> bool:
    return cells is not None and bool(np.ptp(cells, axis=-1).max() < GREY_LEVELS)


def judge_wave(wave: Wave, settings: Settings) -> Segment:
    """Read the windows of a wave that comes without a picture, such as a finger's on a lens.

    Args:
      wave: on a uniform clock; its sign stays.
      settings: how waves become readings; `confidence.WAVE_THRESHOLD` is the least confidence meant for
        these.

    Returns:
      The wave with its windows and beats.
    """
    windows = [
        judge_window(wave.values[start:end], wave.fps, settings, start_s=wave.start_s + start / wave.fps)[0]
        for start, end in spans(len(wave.values), wave.fps, settings)
    ]
    return Segment(wave, _beats(wave, windows), tuple(windows))


def _on_clock(trace: Trace, times_s: np.ndarray) -> np.ndarray | None:
    """Read a trace at other times, float64 [t, width]; None where it has nothing to tell."""
    if len(trace.times_s) < 2:
        return None
    near = (trace.times_s >= times_s[0] - 1) & (trace.times_s <= times_s[-1] + 1)
    at, values = trace.times_s[near], trace.values[near].astype(np.float64)
    if len(at) < 2 or not np.isfinite(values).any():
        return None
    inside = np.clip(times_s, at[0], at[-1])
    return np.stack([np.interp(inside, at, column) for column in values.T], axis=1)


def _beats(wave: Wave, windows: list[Window]) -> np.ndarray:
    """Find the beats in every run of windows that have a reading."""
    found: list[np.ndarray] = []
    for good, run in groupby(windows, key=lambda w: w.heart_rate_bpm is not None):
        run = list(run)
        if good:
            first = round((run[0].start_s - wave.start_s) * wave.fps)
            last = round((run[-1].start_s + run[-1].duration_s - wave.start_s) * wave.fps)
            part = wave.values[max(0, first) : last]
            times = beats.beat_times(part, wave.fps, start_s=wave.start_s + max(0, first) / wave.fps)
            found.append(times[times > found[-1][-1] + 0.25] if found and len(found[-1]) else times)
    return np.concatenate(found) if found else np.zeros(0)


def summary(stretches: Iterable[Segment]) -> tuple[float | None, float]:
    """Sum up a recording: the median rate of its trusted windows and their median confidence.

    Returns:
      bpm and confidence; None and the highest confidence of any window where none is trusted.
    """
    windows = [window for stretch in stretches for window in stretch.windows]
    trusted = [window for window in windows if window.heart_rate_bpm is not None]
    if not trusted:
        return None, max((window.confidence for window in windows), default=0.0)
    bpm = float(np.median([window.heart_rate_bpm for window in trusted]))
    return bpm, float(np.median([window.confidence for window in trusted]))


def variability(stretches: Iterable[Segment]) -> beats.Variability | None:
    """Measure heart-rate variability over the longest run of trusted windows of 60 s or more."""
    best: tuple[float, Segment, float, float] | None = None
    for stretch in stretches:
        for good, run in groupby(stretch.windows, key=lambda w: w.heart_rate_bpm is not None):
            run = list(run)
            start_s, end_s = run[0].start_s, run[-1].start_s + run[-1].duration_s
            if good and (best is None or end_s - start_s > best[0]):
                best = (end_s - start_s, stretch, start_s, end_s)
    if best is None:
        return None
    duration_s, stretch, start_s, end_s = best
    inside = (stretch.beats_s >= start_s) & (stretch.beats_s <= end_s)
    return beats.variability(stretch.beats_s[inside], duration_s)


def as_json(window: Window) -> dict[str, Any]:
    """Return a window as JSON's types, times to the millisecond."""
    table = dataclasses.asdict(window)
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in table.items()}

"""Windows over a pulse wave: each gets a heart rate with its confidence, or a reason why there is none.

Files, arrays and cameras, learned and classical methods end here. What is judged here is the region `crop`:
everything is in memory but the pictures, a wave and the mean colours of 16 cells of the face and of what lies
around it, half a kilobyte a frame. `skin_reading` judges the skin.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import beats, confidence, estimators, signal_quality
from sspd_jax.heart_rate.wave import LEAST_S, Wave
from sspd_jax.inference import cell_colors
from sspd_jax.inference.methods import AUTO
from sspd_jax.video import face_tracking
from sspd_jax.video.face_stream import FaceClip, Trace

if TYPE_CHECKING:
    from sspd_jax.inference.model import RppgModel
    from sspd_jax.inference.skin_segment import SkinSegment
    from sspd_jax.video.skin_box import SkinBox

MIN_DURATION_S = LEAST_S

OUT_OF_VIEW = "the face is out of view"
IN_VIEW = 0.5  # least share of a window's detections that found the face
FLAT = "the wave is flat"
NO_CLOCK = "the file holds neither times nor a frame rate: give it with --fps"
NO_COLOUR = "the picture is black and white, and a pulse shows in colour"
LEAST_FILLED = 0.9  # of a window's frames
GREY_LEVELS = 0.5  # colours that differ by less are rounding
PART_S = signal_quality.PART_S
ENOUGH_S = 0.9 * PART_S
"""The confidence was fitted on windows of 10 s; a shorter one has to be clearer."""

REGIONS = ("skin", "crop")
"""What of the picture is read: the skin of a face that is followed by its landmarks, or a box around it."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How waves become heart rates.

    Attributes:
      window_s: Length of a window in s.
      stride_s: Time from one window's start to the next's in s.
      hr_estimator: How a rate is estimated from a window's wave, a name in `estimators.OF_RAW_WAVES`; None
        for what suits the method and the region.
      min_confidence: Least confidence of a reading; a window below it has none. None for what was chosen for
        the region, see `least_confidence`.
      region: What of the picture is read, a name in `REGIONS`.
      network: Whether 'auto' asks the network that travels with the package, too, where none is given.

    Raises:
      ConfigError: A value is out of its range.
    """

    window_s: float = 10.0
    stride_s: float = 5.0
    hr_estimator: str | None = None
    min_confidence: float | None = None
    region: str = "skin"
    network: bool = True

    def __post_init__(self):
        if self.region not in REGIONS:
            raise ConfigError(f"region {self.region!r} is none of {', '.join(REGIONS)}")
        if self.hr_estimator not in (None, *estimators.OF_RAW_WAVES):
            known = ", ".join(estimators.OF_RAW_WAVES)
            raise ConfigError(f"heart-rate estimator {self.hr_estimator!r} is none of {known}")
        if not MIN_DURATION_S <= self.window_s < math.inf:
            raise ConfigError(f"window_s {self.window_s:g} is not {MIN_DURATION_S:g} s or more")
        if not 0 < self.stride_s < math.inf:
            raise ConfigError(f"stride_s {self.stride_s:g} is not above 0 s")
        if not 0 <= self.least_confidence <= 1:
            raise ConfigError(f"min_confidence {self.min_confidence:g} is not 0 to 1")

    @property
    def least_confidence(self) -> float:
        """Least confidence of a reading, of the region's own where none was asked for."""
        if self.min_confidence is not None:
            return self.min_confidence
        return confidence.SKIN_THRESHOLD if self.region == "skin" else confidence.THRESHOLD

    def asks_shipped(self, method: str, model: RppgModel | None, box: SkinBox | None) -> bool:
        """Say whether the network that ships is asked: it learned from skin, found by landmarks."""
        reads_skin = self.region == "skin" and box is None
        return method in (AUTO, "sspd") and model is None and self.network and reads_skin


@dataclasses.dataclass(frozen=True)
class Window:
    """What is known of one window.

    Attributes:
      start_s: Its start in s on the video's clock.
      duration_s: Its length in s.
      heart_rate_bpm: The heart rate in bpm; None where there is no reading.
      confidence: Chance that the rate is within 3 bpm of the truth, 0 to 1.
      why: Why there is no reading; '' where there is one.
      candidate_bpm: The rate in bpm that was estimated, trusted or not; None where there is not even that.
      estimates_bpm: What each method says by itself, where several were asked.
      interval_bpm: Lowest and highest heart rate in bpm that nine of ten readings allow, see
        `confidence.interval_of_skin`; None without a reading, and of the region `crop`.
      smoothed_bpm: The rate in bpm by what all windows of an unbroken part say together, see
        `heart_rate.rate_track`; None far from any reading, in a part of fewer than three windows, and of
        single methods.
      smoothed_interval_bpm: The range in bpm that holds it with nine of ten chances; None without one.
    """

    start_s: float
    duration_s: float
    heart_rate_bpm: float | None
    confidence: float
    why: str
    candidate_bpm: float | None
    estimates_bpm: Mapping[str, float] = dataclasses.field(default_factory=dict)
    interval_bpm: tuple[float, float] | None = None
    smoothed_bpm: float | None = None
    smoothed_interval_bpm: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """An unbroken part of a recording.

    Attributes:
      wave: The pulse wave; its sign is such that it rises when the skin turns in the direction in which more
        blood colours it. Its phase means nothing for a learned method.
      beats_s: Times of the beats in the windows that have a reading, float64 [beats], s on the video's clock.
      windows: Its windows, in time.
      judge: Judges the samples of the wave from the first number to before the second anew, where what it was
        read from was kept; else None.
      skin: What it was read from, where that is skin and was kept; else None.
    """

    wave: Wave
    beats_s: np.ndarray
    windows: tuple[Window, ...]
    judge: Callable[[int, int], Window] | None = None
    skin: SkinSegment | None = None

    def span_of(self, start_s: float, end_s: float) -> tuple[int, int] | None:
        """Return the samples, first and last + 1, from one moment to another, s; None where some lack."""
        wave = self.wave
        start, end = (round((at_s - wave.start_s) * wave.fps) for at_s in (start_s, end_s))
        # A container's length counts a frame more than there is, and times are rounded.
        if start < -1 or end > len(wave.values) + 1:
            return None
        return max(start, 0), min(end, len(wave.values))


def judge_segment(wave: Wave, cells: Trace, clip: FaceClip, settings: Settings) -> Segment:
    """Judge the windows of a segment, turn its wave the right way up and find its beats.

    Args:
      wave: The segment's pulse wave.
      cells: What `FaceCells` measured of its crops.
      clip: Where it comes from: its detections, and what lies behind the face.
      settings: How waves become heart rates.
    """
    seen = _SeenCrop(
        wave, cells.times_s, cells.values, _on_clock(clip.background, cells.times_s), clip.detections
    )
    found = [seen.judge(start, end, settings) for start, end in spans(len(cells.times_s), wave.fps, settings)]
    if sum(turn for _, turn in found) < 0:
        wave = dataclasses.replace(wave, values=-wave.values)
    again = functools.partial(_judge_again, seen, settings)
    return with_beats(wave, [window for window, _ in found], again)


@dataclasses.dataclass(frozen=True, eq=False)
class _SeenCrop:
    """What a segment of crops was read from."""

    wave: Wave
    times_s: np.ndarray
    colours: np.ndarray
    background: np.ndarray | None
    detections: list[tuple[float, bool]]

    def judge(self, start: int, end: int, settings: Settings) -> tuple[Window, float]:
        times_s = self.times_s
        return judge_window(
            self.wave.values[start:end],
            self.wave.fps,
            settings,
            start_s=float(times_s[start]),
            cells=self.colours[start:end],
            background=None if self.background is None else self.background[start:end],
            in_view=face_tracking.share_in_view(self.detections, times_s[start], times_s[end - 1]),
        )


def _judge_again(seen: _SeenCrop, settings: Settings, start: int, end: int) -> Window:
    return seen.judge(start, end, settings)[0]


def with_beats(
    wave: Wave, windows: list[Window], judge: Callable[[int, int], Window] | None = None
) -> Segment:
    """Put a wave and its windows together, and find the beats of those that have a reading."""
    return Segment(wave, _beats(wave, windows), tuple(windows), judge)


def spans(frames: int, fps: float, settings: Settings) -> list[tuple[int, int]]:
    """Lay windows over a segment: every stride, and one that ends where it ends.

    Args:
      frames: Length of the segment in frames.
      fps: Frame rate in Hz.
      settings: Window and stride.

    Returns:
      (first frame, last + 1) of each; one window, shorter, where the segment is.
    """
    length, stride = round(settings.window_s * fps), max(1, round(settings.stride_s * fps))
    if frames <= length:
        return [(0, frames)]
    starts = list(range(0, frames - length + 1, stride))
    if frames - (starts[-1] + length) >= stride / 2:
        starts.append(frames - length)
    return [(start, start + length) for start in starts]


def fills(wave: np.ndarray, frames: int) -> bool:
    """Return whether a wave [t] fills a window: CHROM's can end early, and a tenth of the frames may lack."""
    return len(wave) >= LEAST_FILLED * frames


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
    """Estimate the rate of one window and judge it.

    Args:
      wave: The pulse wave in the window, [t].
      fps: Frame rate in Hz.
      settings: Estimator and least confidence.
      start_s: Start of the window in s.
      cells: What `FaceCells` measured of the face, [t, width]; None where there is no picture.
      background: Mean colour around the face, [t, 3]; None where there is none.
      in_view: Share of the detections that found the face.

    Returns:
      The window, and a number whose sign says which way up the wave is (0: cannot be told); its size says how
      clearly.
    """
    frames = len(wave) if cells is None else len(cells)
    traces = (None,) if cells is None else cell_colors.cell_traces(cells)
    blank = functools.partial(Window, start_s, frames / fps, None, 0.0)
    if in_view < IN_VIEW:
        return blank(OUT_OF_VIEW, None), 0.0
    wave = np.asarray(wave, np.float64)
    if not fills(wave, frames) or not np.isfinite(wave).all():
        return blank("the wave ends before the window does", None), 0.0
    try:
        bpm = estimators.estimate(settings.hr_estimator or estimators.DEFAULT, wave, fps)
    except ValueError as error:
        return blank(f"at {fps:g} frames/s no pulse can be read ({error})", None), 0.0
    is_grey = traces[0] is not None and bool(np.ptp(traces[0], axis=-1).max() < GREY_LEVELS)
    if not np.isfinite(bpm):
        return blank(NO_COLOUR if is_grey else FLAT, None), 0.0
    chance, why = confidence_of(wave, fps, bpm, traces, background)
    trusted = chance >= settings.least_confidence
    if trusted:
        why = ""
    elif is_grey:
        why = NO_COLOUR
    elif frames / fps < ENOUGH_S:
        why += f", and {frames / fps:.1f} s are too short to be sure: "
        why += f"take {signal_quality.PART_S:g} s or more"
    window = Window(start_s, frames / fps, bpm if trusted else None, chance, why, bpm)
    turn = 0.0 if cells is None else signal_quality.upright(wave, fps, bpm, traces[-1])
    return window, turn


def confidence_of(
    wave: np.ndarray,
    fps: float,
    bpm: float,
    traces: Iterable[np.ndarray | None],
    background: np.ndarray | None = None,
) -> tuple[float, str]:
    """Return the confidence of a rate, of the traces that speak for it most.

    Args:
      wave: The pulse wave that the rate was estimated from, float64 [t].
      fps: Frame rate in Hz.
      bpm: The rate in bpm.
      traces: Colours of the face's cells, of `cell_colors.cell_traces`; (None,) where there is no picture.
      background: Mean colour around the face, [t, 3]; None where it is not known.

    Returns:
      See `confidence.confidence`.
    """
    return confidence.max_confidence(
        signal_quality.extract(wave, fps, bpm, trace, background) for trace in traces
    )


def judge_wave(wave: Wave, settings: Settings) -> Segment:
    """Judge the windows of a wave that comes without a picture, such as a finger's on a lens.

    Args:
      wave: A wave on a uniform clock; its sign stays.
      settings: How waves become heart rates; `confidence.WAVE_THRESHOLD` is the least confidence meant for
        these.

    Returns:
      The wave with its windows and beats.
    """
    windows = [
        judge_window(wave.values[start:end], wave.fps, settings, start_s=wave.start_s + start / wave.fps)[0]
        for start, end in spans(len(wave.values), wave.fps, settings)
    ]
    return with_beats(wave, windows)


def doubted(segment: Segment, most: float, settings: Settings) -> Segment:
    """Lower the confidence of every window to `most` at the most; refuse those for which it is too low."""
    again = segment.judge and functools.partial(_doubt_again, segment.judge, most, settings)
    found = [_doubted(window, most, settings) for window in segment.windows]
    return dataclasses.replace(with_beats(segment.wave, found, again), skin=segment.skin)


def _doubted(window: Window, most: float, settings: Settings) -> Window:
    chance = min(window.confidence, most)
    # What these say is said of a right clock.
    window = dataclasses.replace(window, interval_bpm=None, smoothed_bpm=None, smoothed_interval_bpm=None)
    if window.heart_rate_bpm is None or chance >= settings.least_confidence:
        return dataclasses.replace(window, confidence=chance)
    return dataclasses.replace(window, heart_rate_bpm=None, confidence=chance, why=NO_CLOCK)


def _doubt_again(
    judge: Callable[[int, int], Window], most: float, settings: Settings, start: int, end: int
) -> Window:
    return _doubted(judge(start, end), most, settings)


def _on_clock(trace: Trace, times_s: np.ndarray) -> np.ndarray | None:
    """Interpolate a trace at other times, float64 [t, width]; None where it holds nothing."""
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


def summary(segments: Iterable[Segment]) -> tuple[float | None, float]:
    """Sum up a recording: the median rate of its trusted windows and their median confidence.

    Returns:
      bpm and confidence; None and the highest confidence of any window where none is trusted.
    """
    windows = [window for segment in segments for window in segment.windows]
    trusted = [window for window in windows if window.heart_rate_bpm is not None]
    if not trusted:
        return None, max((window.confidence for window in windows), default=0.0)
    bpm = float(np.median([window.heart_rate_bpm for window in trusted]))
    return bpm, float(np.median([window.confidence for window in trusted]))


def interval(segments: Iterable[Segment]) -> tuple[float, float] | None:
    """Return the median of the lowest and of the highest rates of all readings' intervals, bpm."""
    found = [w.interval_bpm for segment in segments for w in segment.windows if w.interval_bpm]
    return tuple(map(float, np.median(found, axis=0))) if found else None


def variability(segments: Iterable[Segment]) -> beats.Variability | None:
    """Measure heart-rate variability over the longest run of trusted windows of 60 s or more."""
    best: tuple[float, Segment, float, float] | None = None
    for segment in segments:
        for good, run in groupby(segment.windows, key=lambda w: w.heart_rate_bpm is not None):
            run = list(run)
            start_s, end_s = run[0].start_s, run[-1].start_s + run[-1].duration_s
            if good and (best is None or end_s - start_s > best[0]):
                best = (end_s - start_s, segment, start_s, end_s)
    if best is None:
        return None
    duration_s, segment, start_s, end_s = best
    inside = (segment.beats_s >= start_s) & (segment.beats_s <= end_s)
    return beats.variability(segment.beats_s[inside], duration_s)


def why_no_variability(segments: Iterable[Segment]) -> str:
    """Say why `variability` measured nothing."""
    longest_s = 0.0
    for segment in segments:
        for good, run in groupby(segment.windows, key=lambda w: w.heart_rate_bpm is not None):
            run = list(run)
            if good:
                longest_s = max(longest_s, run[-1].start_s + run[-1].duration_s - run[0].start_s)
    if longest_s < beats.LEAST_HRV_S:
        return (
            f"{beats.LEAST_HRV_S:g} s of readings in a row are needed, the longest run has {longest_s:.0f} s"
        )
    return "too many intervals between beats are irregular"


def as_json(window: Window) -> dict[str, Any]:
    """Return a window as JSON's types, times to the millisecond."""
    table = {key: _rounded(value) for key, value in dataclasses.asdict(window).items()}
    table["estimates_bpm"] = {name: _rounded(bpm) for name, bpm in window.estimates_bpm.items()}
    return table


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(part) for part in value]
    if not isinstance(value, float):
        return value
    return round(value, 3) if math.isfinite(value) else None

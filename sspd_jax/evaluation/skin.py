"""The skin of a prepared recording, read by the very functions that `predict` reads a video with.

The whole recording is read, at the rate of its own frames, whatever stretch of it has a contact wave: a rate
and its confidence are those of `predict` for the same seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.datasets.format import Segment
from sspd_jax.heart_rate.skin_evidence import SkinWindow
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import skin_reading, skin_segment, windows
from sspd_jax.inference.methods import AUTO
from sspd_jax.inference.skin_segment import SkinSegment
from sspd_jax.inference.windows import MIN_DURATION_S, Settings
from sspd_jax.video import resample

HEARD = f"{AUTO} and network"  # the estimators of `AUTO` and the network's waves
SETTINGS = Settings()
"""As `predict` has them; where windows lie says the protocol."""


class Judged(NamedTuple):
    """What was read of one window.

    Attributes:
      bpm: The rate; NaN where there is none.
      confidence: Chance that it is within 3 bpm of the truth, 0 to 1; NaN where nobody asked.
      why: Why it is no reading, in words; '' where it is one, or nobody asked.
    """

    bpm: float
    confidence: float = float("nan")
    why: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class SkinSource:
    """Where the skin of one segment is read from: nothing of it is in memory until it is asked for.

    Attributes:
      dataset: The prepared dataset.
      segment: A segment of it.
      methods: `AUTO` and classical methods.
    """

    dataset: PreparedDataset
    segment: Segment
    methods: tuple[str, ...]

    def read(self, learned: Mapping[str, Wave] | None = None) -> SkinReading:
        """Read the segment's recording.

        Args:
          learned: Network → its wave, on the segment's clock.

        Raises:
          UserError: The traces are missing or damaged.
        """
        return SkinReading(self, learned or {})


class SkinReading:
    """One recording's skin, read by every method.

    Attributes:
      fallback: '' where the face was followed by its landmarks; else why it was not.
    """

    def __init__(self, source: SkinSource, learned: Mapping[str, Wave]):
        """See `SkinSource.read`."""
        record = source.dataset.skin(source.segment.recording_id)
        self.fallback = record.fallback
        self._source, self._traces = source, record.traces
        self._parts: dict[str, list[SkinSegment]] = {}
        self._windows: dict[str, tuple[tuple[float, float], SkinWindow | str]] = {}
        self._why: dict[str, str] = {}
        # What the four estimators have made is shared: a method adds its own wave at most.
        self._kind = {}
        shared = skin_segment.readable_methods(record.fps)
        for method in source.methods:
            self._kind[method] = AUTO if method in shared else method
            self._add(self._kind[method], record.fps)
        # As in `predict`, the network is a voice of `AUTO` alone.
        if AUTO in source.methods and record.learned:
            self._kind[AUTO] = HEARD
            self._parts[HEARD] = [part.with_learned(record.learned) for part in self._parts[AUTO]]
            self._why[HEARD] = self._why[AUTO]
        for name, wave in learned.items():
            self._kind[name] = name
            at = dataclasses.replace(wave, start_s=source.segment.start_s + wave.start_s)
            self._add(name, source.dataset.fps, [at])

    def _add(self, kind: str, fps: float, learned: Sequence[Wave] = ()) -> None:
        if kind in self._parts:
            return
        self._parts[kind], self._why[kind] = [], windows.OUT_OF_VIEW
        method = "sspd" if learned else kind
        for part in skin_segment.on_clock(self._traces, fps):
            if len(part.time_s) < MIN_DURATION_S * fps:
                continue
            try:
                self._parts[kind].append(skin_segment.read_waves(part, fps, method, learned))
            except ValueError as error:
                self._why[kind] = f"at {fps:g} frames/s no pulse can be read ({error})"

    def wave(self, method: str, length: int) -> Wave:
        """Return a method's wave on the segment's clock, as `predict` shows it.

        Args:
          method: One of the source's.
          length: Of the segment, frames.

        Returns:
          The wave; NaN where the skin was not read.
        """
        fps, start_s = self._source.dataset.fps, self._source.segment.start_s
        values = np.full(length, np.nan)
        for part in self._parts[self._kind[method]]:
            wave = skin_reading.judge(part, method, SETTINGS).wave if method == AUTO else None
            read = part.waves[method] if wave is None else wave.values
            times_s = part.traces.time_s
            first, last = (round((t - start_s) * fps) for t in (times_s[0], times_s[-1]))
            ticks = np.arange(max(0, first), min(length, last + 1))
            if len(ticks):
                values[ticks] = resample.resample_wave(read, times_s, start_s + ticks / fps)
        return Wave(values, fps)

    def estimate(self, method: str, start_s: float, duration_s: float, *, judged: bool) -> Judged:
        """Read a window by a method, as `predict` does.

        Args:
          method: One of the source's.
          start_s: Start of the window in the segment, s.
          duration_s: Its length, s.
          judged: Whether to say how sure the rate is: it takes ten times as long.
        """
        window = self._window(method, start_s, duration_s)
        if isinstance(window, str):
            return Judged(float("nan"), 0.0 if judged else float("nan"), window if judged else "")
        if not judged:
            return Judged(skin_reading.estimate_window(window, method, SETTINGS).bpm)
        found, _, _ = skin_reading.judge_window(window, method, SETTINGS)
        bpm = float("nan") if found.candidate_bpm is None else found.candidate_bpm
        return Judged(bpm, found.confidence, found.why)

    def judge(self, name: str, start_s: float, duration_s: float, bpm: float) -> Judged:
        """Judge a rate that a protocol read from a network's wave, beside what the skin shows.

        Args:
          name: Of the network.
          start_s: Start of the window in the segment, s.
          duration_s: Its length, s.
          bpm: The rate; NaN where there is none.
        """
        window = self._window(name, start_s, duration_s)
        if isinstance(window, str):
            return Judged(bpm, 0.0, window)
        wave = window.waves["sspd"]
        if not np.isfinite(bpm) or not np.isfinite(wave).all():
            return Judged(bpm, 0.0, windows.FLAT)
        return Judged(bpm, *skin_reading.judge_rate(window, wave, bpm, SETTINGS))

    def _window(self, method: str, start_s: float, duration_s: float) -> SkinWindow | str:
        """Cut a window out of the part it lies in; says why where it lies in none."""
        kind, place = self._kind[method], (start_s, duration_s)
        if kind not in self._windows or self._windows[kind][0] != place:
            self._windows[kind] = (place, self._cut(kind, start_s, duration_s))
        return self._windows[kind][1]

    def _cut(self, kind: str, start_s: float, duration_s: float) -> SkinWindow | str:
        start_s += self._source.segment.start_s
        for part in self._parts[kind]:
            first = round((start_s - part.traces.time_s[0]) * part.fps)
            count = round(duration_s * part.fps)
            last = min(first + count, len(part.traces.time_s))
            first = max(first, 0)
            # Crop and skin may come into view, or end, a few frames apart.
            if last - first >= windows.LEAST_FILLED * count:
                return part.window(first, last)
        return self._why[kind]

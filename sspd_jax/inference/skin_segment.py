"""From the skin's traces to waves: unbroken parts on a uniform clock, and what each estimator reads there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from sspd_jax.heart_rate import fusion, host_classical, skin_evidence
from sspd_jax.heart_rate.skin_evidence import SkinWindow
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference.methods import AUTO
from sspd_jax.video import resample
from sspd_jax.video.skin_traces import SkinTraces, as_table, as_traces

MAX_GAP_S = resample.MAX_GAP_S
SAME_CLOCK = 1e-3  # of two rates, relative


def on_clock(traces: SkinTraces, fps: float, *, max_gap_s: float = MAX_GAP_S) -> Iterator[SkinTraces]:
    """Put what was seen of a face on a uniform clock, one unbroken part after the other.

    Args:
      traces: of a recording, at its frames' own times.
      fps: of the clock, Hz.
      max_gap_s: the longest time without the face that is bridged, s.

    Yields:
      Traces in which the face is in view all the time. Patches that are hidden for a while are bridged, too;
      those never seen are NaN.
    """
    table = _unwound(_bridged(as_table(traces)[traces.found]))
    rows = zip(table[:, 0], table, strict=True)
    for _, ticks in groupby(resample.uniform(rows, fps, max_gap_s=max_gap_s), key=itemgetter(0)):
        part = np.array([np.concatenate([[time_s], row[1:]]) for _, time_s, row in ticks])
        yield as_traces(part, lag_s=traces.lag_s, said=traces.said)


def _bridged(table: np.ndarray) -> np.ndarray:
    """Draw straight lines through the NaN of each column of a table whose first is time."""
    table = table.copy()
    for column in table.T[1:]:
        seen = np.isfinite(column)
        if seen.any() and not seen.all():
            column[~seen] = np.interp(table[~seen, 0], table[seen, 0], column[seen])
    return table


def _unwound(table: np.ndarray) -> np.ndarray:
    """Let the angles of a table of traces go on beyond half a turn: between 179° and −179° lies no 0°."""
    traces = as_traces(table)
    geometry = traces.geometry.copy()
    geometry[:, 3] = np.unwrap(geometry[:, 3])
    pose = np.unwrap(traces.pose, period=360, axis=0)
    return as_table(dataclasses.replace(traces, geometry=geometry, pose=pose))


@dataclasses.dataclass(frozen=True, eq=False)
class SkinSegment:
    """An unbroken part of a recording, and every wave that was read in it.

    Attributes:
      traces: on the clock, [t, ...].
      fps: of the clock, Hz.
      waves: name → wave, float64 [t], of the skin's mean by the classical estimators, and of networks.
      patch_waves: float64 [k, p, t], of the patches by those of `fusion.ESTIMATORS` that can read the rate.
    """

    traces: SkinTraces
    fps: float
    waves: Mapping[str, np.ndarray]
    patch_waves: np.ndarray

    @functools.cached_property
    def track(self) -> np.ndarray:
        """How the face moved, float64 [t, 7], see `skin_evidence.track`."""
        return skin_evidence.track(self.traces.geometry, self.traces.residual, self.traces.pose)

    def with_learned(self, learned: Sequence[Wave]) -> SkinSegment:
        """Add a network's waves, one for every part of the recording that it read."""
        # A part that is too short for the network has a wave of NaN.
        heard = {**self.waves, "sspd": _sampled(learned, self.traces.time_s)}
        return dataclasses.replace(self, waves=heard)

    def window(self, start: int, end: int) -> SkinWindow:
        """Cut the samples from `start` to before `end` out of it."""
        inside = slice(start, end)
        traces = self.traces
        return SkinWindow(
            fps=self.fps,
            skin=traces.skin[inside],
            skin_area=float(traces.skin_area[inside].mean()),
            patches=traces.patches[inside],
            patch_area=traces.patch_area[inside].mean(axis=0),
            eyes=traces.eyes[inside],
            crop=traces.crop[inside],
            behind=traces.behind[inside],
            track=self.track[inside],
            waves={name: wave[inside] for name, wave in self.waves.items()},
            patch_waves=self.patch_waves[:, :, inside],
        )


def read_waves(traces: SkinTraces, fps: float, method: str, learned: Sequence[Wave] = ()) -> SkinSegment:
    """Run the estimators over an unbroken part of a recording.

    Args:
      traces: on a uniform clock, see `on_clock`.
      fps: of the clock, Hz.
      method: `AUTO`, 'sspd' or a classical one.
      learned: a network's waves, one for every part of the recording that it read.

    Raises:
      ValueError: too short a part or too low an fps for an estimator.
    """
    # A patch that was never seen has no colour; its area is 0, and what stands here is not read.
    patches = np.where(np.isfinite(traces.patches), traces.patches, 1.0)
    every = np.concatenate([traces.skin[:, None], patches], axis=1)
    names = fusion.readable(fps)
    by_part = fusion.estimator_waves(np.moveaxis(every, 1, 0), fps, names)  # [k, 1 + p, t]
    waves = dict(zip(names, by_part[:, 0], strict=True))
    if method in host_classical.NAMES and method not in waves:
        wave = host_classical.read_trace(method, traces.skin, fps)
        waves[method] = np.pad(wave, (0, len(traces.skin) - len(wave)), "edge")
    segment = SkinSegment(traces, fps, waves, by_part[:, 1:])
    return segment.with_learned(learned) if learned or method == "sspd" else segment


def _sampled(waves: Sequence[Wave], times_s: np.ndarray) -> np.ndarray:
    """Read waves at given times; NaN where a wave has no sample within a frame.

    On a clock of a wave's own rate the nearest sample is taken as it is; else two are interpolated.
    """
    values = np.full(len(times_s), np.nan)
    period_s = (times_s[-1] - times_s[0]) / max(len(times_s) - 1, 1)
    for wave in waves:
        at = (times_s - wave.start_s) * wave.fps
        nearest = np.floor(at + 0.5).astype(int)
        inside = (nearest >= -1) & (nearest <= len(wave.values))
        if abs(period_s * wave.fps - 1) < SAME_CLOCK:
            values[inside] = wave.values[np.clip(nearest[inside], 0, len(wave.values) - 1)]
        else:
            values[inside] = np.interp(at[inside], np.arange(len(wave.values)), wave.values)
    return values


def check_rate(method: str, fps: float, frames: int) -> None:
    """Check that windows of so many frames at a rate in Hz can be read.

    Raises:
      ValueError: too few frames or too low a rate for a method.
    """
    names = fusion.readable(fps)
    fusion.power_shares(fusion.estimator_waves(np.ones((frames, 3)), fps, names), fps)
    if method in host_classical.NAMES and method not in names:
        host_classical.read_trace(method, np.ones((frames, 3)), fps)


def readable_methods(fps: float) -> tuple[str, ...]:
    """Return `AUTO` and the methods whose waves it reads anyway, so that one `read_waves` serves them all."""
    return (AUTO, *fusion.readable(fps))

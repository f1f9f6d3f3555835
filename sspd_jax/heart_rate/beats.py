"""Beats of a wave at sub-frame precision, and what their intervals say: rate and heart-rate variability."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import interpolate, signal

from sspd_jax.heart_rate.filters import bandpass
from sspd_jax.heart_rate.rate import WIDE_BAND_HZ, fundamental_rate

AROUND_RATE = (0.5, 2.5)  # band of the beats, multiples of the rate: the second harmonic is in
EDGE = 0.2  # of an interval: beats this near to an end of the wave are left out
LEAST_INTERVAL = 0.6  # of the mean one: what follows sooner is no beat
REGULAR = (0.7, 1.4)  # an interval outside these shares of the median lacks a beat or has one too many
ENVELOPE_S = 2.0  # a wave's strength changes slower than that
LEAST_HRV_S = 60.0
LEAST_REGULAR_SHARE = 0.95  # of the intervals, for HRV


def beat_times(wave: np.ndarray, fps: float, *, start_s: float = 0.0) -> np.ndarray:
    """Find the beats of a wave: the tops of its pulses, between the samples.

    Around the wave's own rate (half of it to 2.5 times it) the wave is filtered, divided by its slowly
    changing strength and joined by a cubic spline, whose maxima are the beats. The same moment of every beat
    is found, not the R wave: a constant delay stays.

    Args:
      wave: [t], finite; of the sign whose maxima are wanted.
      fps: samples per second, Hz.
      start_s: time of the first sample, s.

    Returns:
      float64 [beats], s; empty where the wave has no rate.

    Raises:
      ValueError: too few samples or too low an fps for a spectrum.
    """
    wave = np.asarray(wave, np.float64)
    rate_hz = fundamental_rate(wave, fps) / 60
    low, high = (share * rate_hz for share in AROUND_RATE)
    if not np.isfinite(rate_hz) or len(wave) < 16:
        return np.zeros(0)
    pulse = bandpass(wave, max(low, WIDE_BAND_HZ[0] / 2), min(high, 0.45 * fps), fps, order=2)
    window = np.hanning(max(3, round(ENVELOPE_S * fps) | 1))
    power = np.convolve(pulse**2, window, "same") / np.convolve(np.ones(len(pulse)), window, "same")
    pulse = pulse / np.sqrt(power + 1e-12 * power.max() + 1e-300)
    tops, _ = signal.find_peaks(pulse, distance=max(1.0, LEAST_INTERVAL * fps / rate_hz))
    slope = interpolate.CubicSpline(np.arange(len(pulse)), pulse).derivative()
    bend = slope.derivative()
    at = tops.astype(np.float64)
    for _ in range(4):  # Newton's steps to where the slope is 0, within a sample
        at = np.clip(at - slope(at) / np.minimum(bend(at), -1e-9), tops - 1, tops + 1)
    # Nearer to an end the filter's padding moves a maximum by more than a beat may be off.
    at = at[(at >= EDGE * fps / rate_hz) & (at <= len(pulse) - 1 - EDGE * fps / rate_hz)]
    return start_s + at / fps


def regular_intervals(beats_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals between beats and which of them are regular.

    Args:
      beats_s: [beats], s.

    Returns:
      Intervals, float64 [beats − 1], s, and bool [beats − 1]: near enough to their median to have no beat
      missing or doubled.
    """
    intervals = np.diff(np.asarray(beats_s, np.float64))
    if len(intervals) == 0:
        return intervals, np.zeros(0, bool)
    low, high = (share * np.median(intervals) for share in REGULAR)
    return intervals, (intervals > low) & (intervals < high)


def beat_rate(wave: np.ndarray, fps: float) -> float:
    """Estimate one heart rate from a wave: 60 ÷ the mean interval between its beats.

    Args:
      wave: [t], any unit; offset, scale and slope do not matter.
      fps: samples per second, Hz.

    Returns:
      bpm; NaN where there are fewer than two regular intervals.

    Raises:
      ValueError: see `beat_times`.

    Example:
      >>> time_s = np.arange(300) / 30
      >>> round(beat_rate(np.sin(2 * np.pi * 1.2 * time_s), fps=30))
      72
    """
    wave = np.asarray(wave, np.float64)
    if not np.isfinite(wave).all():
        return float("nan")
    intervals, regular = regular_intervals(beat_times(wave, fps))
    return float(60 / intervals[regular].mean()) if regular.sum() >= 2 else float("nan")


@dataclasses.dataclass(frozen=True)
class Variability:
    """Heart-rate variability of an unbroken segment.

    Attributes:
      mean_nn_ms: mean interval between normal beats, ms.
      sdnn_ms: their standard deviation (ddof 1), ms.
      rmssd_ms: root of the mean squared difference of successive ones, ms.
      beats: how many intervals counted.
      duration_s: of the segment, s.
    """

    mean_nn_ms: float
    sdnn_ms: float
    rmssd_ms: float
    beats: int
    duration_s: float


def variability(beats_s: np.ndarray, duration_s: float) -> Variability | None:
    """Measure heart-rate variability, where there is enough to measure it.

    Args:
      beats_s: [beats], s, of one unbroken segment of good signal.
      duration_s: its length, s.

    Returns:
      The measures; None for less than 60 s, or where more than one interval in twenty is irregular.

    References:
      Task Force of the ESC and NASPE, Circulation 93 (1996), 1043–1065.
    """
    intervals, regular = regular_intervals(beats_s)
    if duration_s < LEAST_HRV_S or len(intervals) < 30 or regular.mean() < LEAST_REGULAR_SHARE:
        return None
    ms = 1000 * intervals
    both = regular[1:] & regular[:-1]  # across an irregular interval there is no succession
    return Variability(
        mean_nn_ms=float(ms[regular].mean()),
        sdnn_ms=float(ms[regular].std(ddof=1)),
        rmssd_ms=float(np.sqrt(np.mean(np.diff(ms)[both] ** 2))),
        beats=int(regular.sum()),
        duration_s=float(duration_s),
    )

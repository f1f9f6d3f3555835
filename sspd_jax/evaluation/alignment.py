"""How alike two pulse waves are, whatever their sign and phase: pure functions.

Neither the polarity nor the phase of a learned wave means anything, and between a face and a finger lies the
time that a pulse travels: only what survives a sign and a lag is compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import signal

from sspd_jax.heart_rate.beats import beat_times, regular_intervals

MAX_LAG_S = 0.5  # either way: half a beat at 60 bpm; further off, one beat would be laid on the next
FLAT = 1e-12  # of the largest value: deviation below it is rounding


def macc(wave: np.ndarray, truth: np.ndarray) -> float:
    """Return the maximum amplitude of the circular cross-correlation, as rPPG-Toolbox computes it.

    The largest |Pearson(wave, truth rolled by a lag)| over lags 0 … t − 2, by one Fourier transform.

    Args:
      wave: [t].
      truth: [t].

    Returns:
      0 to 1; NaN where either is constant.

    References:
      Cho et al., J. Imaging 10 (2024), and rPPG-Toolbox, evaluation/post_process.py.

    Example:
      A wave that is late by a quarter of its period, and as alike as one that is not:

      >>> phase = 2 * np.pi * np.arange(120) / 24
      >>> round(macc(np.sin(phase - np.pi / 2), np.sin(phase)), 4)
      1.0
    """
    wave, truth = np.asarray(wave, np.float64), np.asarray(truth, np.float64)
    if len(wave) != len(truth) or len(wave) < 2:
        raise ValueError(f"waves of {len(wave)} and {len(truth)} samples cannot be laid on each other")
    x, y = wave - wave.mean(), truth - truth.mean()
    size = np.linalg.norm(x) * np.linalg.norm(y)
    if np.ptp(wave) <= FLAT * np.abs(wave).max() or np.ptp(truth) <= FLAT * np.abs(truth).max():
        return float("nan")
    product = np.fft.irfft(np.fft.rfft(x) * np.conj(np.fft.rfft(y)), len(x))
    return float(min(1.0, np.abs(product[:-1]).max() / size))


class Alignment(NamedTuple):
    """Where two waves agree best.

    Attributes:
      r: |Pearson| there, 0 to 1.
      lag_s: Time by which the wave is late, s.
      sign: +1, or −1 where the wave is upside down.
    """

    r: float
    lag_s: float
    sign: int


def align(wave: np.ndarray, truth: np.ndarray, fps: float, *, max_lag_s: float = MAX_LAG_S) -> Alignment:
    """Find the sign and the lag at which a wave agrees best with the truth.

    Unlike MACC, nothing is rolled around: each lag compares the samples that overlap.

    Args:
      wave: [t], filtered.
      truth: [t], filtered.
      fps: Sampling rate, Hz.
      max_lag_s: Largest lag either way, s.

    Returns:
      The best alignment; r is NaN where either is constant.

    Example:
      A wave that is upside down and 0.2 s late:

      >>> time_s = np.arange(150) / 30
      >>> wave, truth = -np.sin(2 * np.pi * 1.1 * (time_s - 0.2)), np.sin(2 * np.pi * 1.1 * time_s)
      >>> best = align(wave, truth, 30.0)
      >>> round(best.r, 3), best.lag_s, best.sign
      (1.0, 0.2, -1)
    """
    x, y = (np.asarray(v, np.float64) for v in (wave, truth))
    if len(x) != len(y) or len(x) < 8:
        raise ValueError(f"waves of {len(x)} and {len(y)} samples cannot be laid on each other")
    if np.ptp(x) <= FLAT * np.abs(x).max() or np.ptp(y) <= FLAT * np.abs(y).max():
        return Alignment(float("nan"), 0.0, 1)
    x, y = x - x.mean(), y - y.mean()
    n = len(x)
    furthest = min(round(max_lag_s * fps), n // 2)
    lags = np.arange(-furthest, furthest + 1)  # of the wave behind the truth
    product = signal.correlate(x, y, "full", "fft")[n - 1 + lags]
    # Sums over the samples that overlap at each lag, from running sums.
    first, count = np.maximum(lags, 0), n - np.abs(lags)
    sums = [_sums(x, first, count), _sums(y, np.maximum(-lags, 0), count)]
    (sx, sxx), (sy, syy) = sums
    spread = (sxx - sx**2 / count) * (syy - sy**2 / count)
    r = (product - sx * sy / count) / np.sqrt(np.maximum(spread, 1e-300))
    best = np.abs(r).argmax()
    return Alignment(float(min(1.0, abs(r[best]))), float(lags[best] / fps), 1 if r[best] >= 0 else -1)


def _sums(x: np.ndarray, first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum x and x² over samples first … first + count − 1."""
    running = [np.concatenate([[0.0], np.cumsum(x**power)]) for power in (1, 2)]
    return tuple(total[first + count] - total[first] for total in running)


class IntervalError(NamedTuple):
    """How well the intervals between beats are read.

    Attributes:
      error_ms: Mean |interval − true interval| over the beats that were found, ms.
      found: Share of the true intervals that have both of their beats, 0 to 1.
    """

    error_ms: float
    found: float


NO_INTERVALS = IntervalError(float("nan"), float("nan"))
LEAST_INTERVALS = 3
LEAST_REGULAR = 0.8  # share of the true intervals: a contact wave below it has beats that cannot be told


def interval_error(read_s: np.ndarray, true_s: np.ndarray) -> IntervalError:
    """Compare the intervals between beats with the truth's, beat by beat.

    Each true beat is paired with the nearest one of the wave that lies within a quarter of the interval. A
    constant delay cancels in the intervals, but has to be smaller than that: see `align`.

    Args:
      read_s: [beats], of the wave, turned and moved as it agrees best, s.
      true_s: [beats], of the contact wave, s.

    Returns:
      The error, NaN where the truth's own beats are too few or too irregular to trust.

    Example:
      Beats every second, of which one is found 0.1 s late: two of four intervals are wrong by 100 ms.

      >>> error = interval_error(np.array([0.0, 1.0, 2.1, 3.0, 4.0]), np.arange(5.0))
      >>> round(error.error_ms), error.found
      (50, 1.0)
    """
    intervals, regular = regular_intervals(true_s)
    if len(intervals) < LEAST_INTERVALS or regular.mean() < LEAST_REGULAR:
        return NO_INTERVALS
    if len(read_s) == 0:
        return IntervalError(float("nan"), 0.0)
    nearest = np.abs(read_s[None] - true_s[:, None]).argmin(axis=1)
    paired = np.abs(read_s[nearest] - true_s) <= np.median(intervals) / 4
    both = paired[1:] & paired[:-1] & regular & (np.diff(nearest) == 1)
    error = np.abs(np.diff(read_s[nearest]) - intervals)[both]
    mean_ms = float(1000 * error.mean()) if len(error) else float("nan")
    return IntervalError(mean_ms, float(both.sum() / regular.sum()))


def both_ways(wave: np.ndarray, fps: float) -> dict[int, np.ndarray]:
    """Find the beats of a wave either way up: {1: its tops, −1: its bottoms}, float64 [beats], s.

    Args:
      wave: [t], filtered.
      fps: Sampling rate, Hz.

    Returns:
      Times from the first sample on; empty where there are none.
    """
    try:
        return {sign: beat_times(sign * np.asarray(wave, np.float64), fps) for sign in (1, -1)}
    except ValueError:
        return {1: np.zeros(0), -1: np.zeros(0)}

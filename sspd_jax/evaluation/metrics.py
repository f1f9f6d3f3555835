"""How well rates and waves agree with the truth: pure functions with standard errors and intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from sspd_jax.heart_rate.rate import WIDE_BAND_HZ, hann_periodogram

RATE_METRICS = ("MAE", "RMSE", "MAPE", "ME", "r")
RESAMPLES = 2000
LEVEL = 0.95  # of an interval
RANGES_BPM = (0, 60, 80, 100, 120, np.inf)  # edges, of the true rate
SUSPICIOUS = (1e-6, 0.9999)  # an MAE below the one with an r above the other is no measurement
LEAST_SUSPICIOUS = 3  # rows: two rates in the same bin happen


class Score(NamedTuple):
    """A number, its standard error as papers print it, and an interval.

    Attributes:
      value: NaN where there are too few rows.
      error: Standard error over rows.
      low: Lower end of the 95 % bootstrap interval over people; NaN where there is one person or none.
      high: Upper end of the interval.
    """

    value: float
    error: float
    low: float = float("nan")
    high: float = float("nan")


NO_SCORE = Score(float("nan"), float("nan"))


def score_rates(
    predicted_bpm: np.ndarray, true_bpm: np.ndarray, people: Sequence[str] | None = None
) -> dict[str, Score]:
    """Compare heart rates.

    Args:
      predicted_bpm: [n]; NaN where a method gave no rate. Such rows are left out and counted.
      true_bpm: [n], above 0.
      people: [n], who each row is of; the intervals draw people, with all their rows, with replacement.
        None: no intervals.

    Returns:
      'MAE', 'RMSE', 'ME' (predicted − true) in bpm, 'MAPE' in %, 'r' (Pearson), with the standard errors that
      rPPG-Toolbox prints: σ/√n, for RMSE √(σ(error²)/√n), for r √((1 − r²)/(n − 2)). They take rows for
      independent, which windows of one person are not; the intervals do not. 'rows' and 'missing' count rows.
      NaN where there are too few rows.

    Example:
      Errors of +2 and −2 bpm, and a window without a rate:

      >>> scores = score_rates(np.array([62.0, 78.0, np.nan]), np.array([60.0, 80.0, 90.0]))
      >>> [scores[name].value for name in ("MAE", "RMSE", "ME", "rows", "missing")]
      [2.0, 2.0, 0.0, 2.0, 1.0]
    """
    predicted, true = np.asarray(predicted_bpm, np.float64), np.asarray(true_bpm, np.float64)
    there = np.isfinite(predicted) & np.isfinite(true)
    missing = int((~there).sum())
    predicted, true = predicted[there], true[there]
    n = len(predicted)
    scores = dict.fromkeys(RATE_METRICS, NO_SCORE)
    if n:
        error = predicted - true
        sums = _sums(predicted, true)
        values = {name: float(v) for name, v in _from_sums(sums.sum(axis=0)).items()}
        root_n = np.sqrt(n)
        errors = {
            "MAE": np.std(np.abs(error)) / root_n,
            "RMSE": np.sqrt(np.std(error**2) / root_n),
            "MAPE": 100 * np.std(np.abs(error) / true) / root_n,
            "ME": np.std(error) / root_n,
            "r": np.sqrt(max(0.0, 1 - values["r"] ** 2) / (n - 2)) if n > 2 else np.nan,
        }
        if n < 2:  # one row does not spread: that is no error of 0
            errors = dict.fromkeys(errors, np.nan)
        if n < 3 or np.ptp(predicted) == 0 or np.ptp(true) == 0:
            values["r"] = errors["r"] = float("nan")
        drawn = {}
        if people is not None:
            drawn = _intervals(_from_sums, sums, np.asarray(people)[there])
        for name in RATE_METRICS:
            low, high = drawn.get(name, (np.nan, np.nan)) if np.isfinite(values[name]) else (np.nan, np.nan)
            scores[name] = Score(values[name], float(errors[name]), float(low), float(high))
    return {**scores, "rows": Score(float(n), 0.0), "missing": Score(float(missing), 0.0)}


def score_mean(values: np.ndarray, people: Sequence[str] | None = None) -> Score:
    """Average a number over rows, such as an SNR.

    Args:
      values: [n]; NaN is left out.
      people: Who each row is of, see `score_rates`.

    Returns:
      The mean, σ/√n and the interval.

    Example:
      >>> score_mean(np.array([1.0, 3.0, np.nan]))[:2] == (2.0, 1 / np.sqrt(2))
      True
    """
    values = np.asarray(values, np.float64)
    there = np.isfinite(values)
    values = values[there]
    if len(values) == 0:
        return NO_SCORE
    low, high = np.nan, np.nan
    if people is not None:
        sums = np.stack([values, np.ones_like(values)], axis=1)
        drawn = _intervals(lambda s: {"mean": s[..., 0] / s[..., 1]}, sums, np.asarray(people)[there])
        low, high = drawn["mean"]
    error = values.std() / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Score(float(values.mean()), float(error), float(low), float(high))


def paired_difference(first: np.ndarray, second: np.ndarray, people: Sequence[str]) -> dict[str, Score]:
    """Compare two methods on the same rows.

    Args:
      first: [n], errors |predicted − true| of one method, bpm; NaN where it gave no rate.
      second: [n], of the other, row by row the same windows.
      people: [n].

    Returns:
      'difference': mean of first − second over the rows that both have (below 0: the first is better), its
      standard error over rows and its interval over people; 'rows': how many; 'missing': those that one of
      them lacks. An interval that does not hold 0 says that other people would hardly turn the order round.

    Example:
      >>> table = paired_difference(np.array([1.0, 2.0]), np.array([4.0, 3.0]), ["anna", "ben"])
      >>> table["difference"].value
      -2.0
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    there = np.isfinite(difference)
    return {
        "difference": score_mean(difference, people),
        "rows": Score(float(there.sum()), 0.0),
        "missing": Score(float((~there).sum()), 0.0),
    }


def limits_of_agreement(predicted_bpm: np.ndarray, true_bpm: np.ndarray) -> tuple[float, float, float]:
    """Return the bias and the 95 % limits of agreement: mean error, and mean ∓ 1.96 standard deviations.

    Args:
      predicted_bpm: [n]; rows with NaN are left out.
      true_bpm: [n].

    Returns:
      bias, lower and upper limit, bpm; NaN for fewer than two rows.

    References:
      Bland & Altman, Lancet 327 (1986), 307–310.

    Example:
      >>> limits_of_agreement(np.array([61.0, 79.0]), np.array([60.0, 80.0]))[0]
      0.0
    """
    error = np.asarray(predicted_bpm, np.float64) - np.asarray(true_bpm, np.float64)
    error = error[np.isfinite(error)]
    if len(error) < 2:
        return (float("nan"),) * 3
    bias, spread = float(error.mean()), float(error.std(ddof=1))
    return bias, bias - 1.96 * spread, bias + 1.96 * spread


def is_suspicious(scores: Mapping[str, Score]) -> bool:
    """Return whether rates agree so exactly that they must be the truth itself.

    Two sensors, or a camera and a sensor, never agree to a millionth of a beat: then the truth was scored
    against itself, or both were rounded to the same wide bins.

    Example:
      >>> true = np.array([60.0, 70.0, 85.0])
      >>> is_suspicious(score_rates(true, true)), is_suspicious(score_rates(true + 0.5, true))
      (True, False)
    """
    rows, mae, r = scores["rows"].value, scores["MAE"].value, scores["r"].value
    least_error, most_r = SUSPICIOUS
    return rows >= LEAST_SUSPICIOUS and mae < least_error and not r < most_r


def rate_range(true_bpm: float) -> str:
    """Name the range that a true rate lies in: 'below 60 bpm', '60–80 bpm', …, '120 bpm and above'.

    Example:
      >>> rate_range(59.9), rate_range(60.0), rate_range(130.0)
      ('below 60 bpm', '60–80 bpm', '120 bpm and above')
    """
    at = int(np.searchsorted(RANGES_BPM, true_bpm, side="right"))
    low, high = RANGES_BPM[at - 1], RANGES_BPM[at]
    if low == 0:
        return f"below {high:g} bpm"
    return f"{low:g} bpm and above" if np.isinf(high) else f"{low:g}–{high:g} bpm"


def _sums(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return what the metrics are made of, row by row: float64 [n, 10]."""
    error = predicted - true
    # Rates about their common mean: the squares of r lose fewer digits.
    p, t = predicted - true.mean(), true - true.mean()
    parts = (np.ones_like(error), np.abs(error), error**2, 100 * np.abs(error) / true, error, p, t)
    return np.stack([*parts, p**2, t**2, p * t], axis=1)


def _from_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Turn sums over rows, [..., 10], into metrics [...]."""
    n, absolute, squared, relative, error, p, t, pp, tt, pt = np.moveaxis(sums, -1, 0)
    spread = np.maximum(pp - p**2 / n, 0) * np.maximum(tt - t**2 / n, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip((pt - p * t / n) / np.sqrt(spread), -1, 1)
    return {
        "MAE": absolute / n,
        "RMSE": np.sqrt(squared / n),
        "MAPE": relative / n,
        "ME": error / n,
        "r": np.where(np.isfinite(r), r, np.nan),
    }


def _intervals(statistic, rows: np.ndarray, people: np.ndarray) -> dict[str, tuple[float, float]]:
    """Draw people with replacement and return the middle 95 % of what the statistic becomes.

    Args:
      statistic: Function of sums [..., m] → name → [...].
      rows: [n, m], summed over the rows of whoever is drawn.
      people: [n].
    """
    names, index = np.unique(people, return_inverse=True)
    if len(names) < 2:
        return dict.fromkeys(statistic(rows.sum(axis=0)), (np.nan, np.nan))
    by_person = np.zeros((len(names), rows.shape[1]))
    np.add.at(by_person, index, rows)
    metrics = tuple(statistic(by_person.sum(axis=0)))

    def of_people(drawn: np.ndarray, axis: int) -> np.ndarray:
        values = statistic(by_person[drawn].sum(axis=axis - 1 if axis < 0 else axis))
        return np.stack([values[name] for name in metrics])

    # The same draws each time: an interval that moves from run to run invites choosing.
    with warnings.catch_warnings():
        # A metric that is the same whoever is drawn, or has no value, is no fault.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            (np.arange(len(names)),),
            of_people,
            n_resamples=RESAMPLES,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
    tails = (50 * (1 - LEVEL), 50 * (1 + LEVEL))
    result = {}
    for name, values in zip(metrics, drawn, strict=True):
        values = values[np.isfinite(values)]
        result[name] = tuple(np.percentile(values, tails)) if len(values) else (np.nan, np.nan)
    return result


def snr_db(
    wave: np.ndarray, fps: float, true_bpm: float, *, band_hz: tuple[float, float] = WIDE_BAND_HZ
) -> float:
    """Compare the wave's power near the true rate and its double with the rest of the band.

    10·log10(power within ±6 bpm of the true rate and of twice it ÷ power of the other bins in the band), Hann
    window, zero-padded to 8 times the length or more.

    Args:
      wave: [t].
      fps: Sampling rate of the wave, Hz.
      true_bpm: True rate, bpm.
      band_hz: Ends of the band, Hz.

    Returns:
      dB; NaN where the wave is constant or the rate unknown.

    References:
      de Haan & Jeanne 2013, with the widths of rPPG-Toolbox.

    Example:
      A minute of a pulse at 72 bpm and of a tenth of its amplitude, a hundredth of its power, at 120 bpm:

      >>> time_s = np.arange(1800) / 30
      >>> wave = np.sin(2 * np.pi * 1.2 * time_s) + 0.1 * np.sin(2 * np.pi * 2 * time_s)
      >>> round(snr_db(wave, 30.0, 72.0), 1)
      20.0
    """
    wave = np.asarray(wave, np.float64)
    if not (np.isfinite(wave).all() and np.isfinite(true_bpm) and np.ptp(wave) > 0):
        return float("nan")
    hz, power = hann_periodogram(wave - wave.mean(), fps)
    bpm = 60 * hz
    band = (bpm >= 60 * band_hz[0]) & (bpm <= 60 * band_hz[1])
    near = (np.abs(bpm - true_bpm) <= 6) | (np.abs(bpm - 2 * true_bpm) <= 6)
    inside, outside = power[band & near].sum(), power[band & ~near].sum()
    return float(10 * np.log10(inside / outside)) if inside > 0 and outside > 0 else float("nan")

"""How well rates and waves agree with the truth: pure functions with standard errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sspd_jax.heart_rate.rate import WIDE_BAND_HZ


class Score(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


def score_rates(predicted_bpm: np.ndarray, true_bpm: np.ndarray) -> dict[str, Score]:
    """Compare heart rates.

    Args:
      predicted_bpm: [n]; NaN where a method gave no rate. Such rows are left out and counted.
      true_bpm: [n].

    Returns:
      'MAE', 'RMSE' in bpm and 'r' (Pearson) with standard errors: σ/√n of the absolute error, that of the
      squared error carried through the root, and √((1 − r²)/(n − 2)); 'rows' and 'missing' count rows.
      NaN where there are too few rows.
    """
    predicted, true = np.asarray(predicted_bpm, np.float64), np.asarray(true_bpm, np.float64)
    there = np.isfinite(predicted) & np.isfinite(true)
    missing = int((~there).sum())
    error = predicted[there] - true[there]
    n = len(error)
    nan = Score(float("nan"), float("nan"))
    scores = {"MAE": nan, "RMSE": nan, "r": nan}
    if n:
        root = float(np.sqrt(np.mean(error**2)))
        squares_error = np.std(error**2) / np.sqrt(n)
        scores["MAE"] = Score(float(np.mean(np.abs(error))), float(np.std(np.abs(error)) / np.sqrt(n)))
        scores["RMSE"] = Score(root, float(squares_error / (2 * root)) if root else 0.0)
    if n > 2 and np.ptp(predicted[there]) > 0 and np.ptp(true[there]) > 0:
        r = float(np.corrcoef(predicted[there], true[there])[0, 1])
        scores["r"] = Score(r, float(np.sqrt(max(0.0, 1 - r**2) / (n - 2))))
    return {**scores, "rows": Score(float(n), 0.0), "missing": Score(float(missing), 0.0)}


def snr_db(
    wave: np.ndarray, fps: float, true_bpm: float, *, band_hz: tuple[float, float] = WIDE_BAND_HZ
) -> float:
    """Compare the wave's power near the true rate and its double with the rest of the band.

    10·log10(power within ±6 bpm of the true rate and of twice it ÷ power of the other bins in the band), Hann
    window, zero-padded to 8 times the length or more.

    Args:
      wave: [t].
      fps: samples per second, Hz.
      true_bpm: beats per minute.
      band_hz: ends of the band, Hz.

    Returns:
      dB; NaN where the wave is constant or the rate unknown.

    References:
      de Haan & Jeanne 2013, with the widths of rPPG-Toolbox.
    """
    wave = np.asarray(wave, np.float64)
    if not (np.isfinite(wave).all() and np.isfinite(true_bpm) and np.ptp(wave) > 0):
        return float("nan")
    padded = 8 << (len(wave) - 1).bit_length()
    power = np.abs(np.fft.rfft((wave - wave.mean()) * np.hanning(len(wave)), padded)) ** 2
    bpm = 60 * np.arange(len(power)) * fps / padded
    band = (bpm >= 60 * band_hz[0]) & (bpm <= 60 * band_hz[1])
    near = (np.abs(bpm - true_bpm) <= 6) | (np.abs(bpm - 2 * true_bpm) <= 6)
    return float(10 * np.log10(power[band & near].sum() / power[band & ~near].sum()))

"""The one registry of heart-rate estimators: from a pulse wave to a rate in bpm, by name.

Configurations, protocols and commands choose one of them by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import signal

from sspd_jax.heart_rate import beats, rate


class Estimator(NamedTuple):
    """A way from a wave to a rate.

    Attributes:
      estimate: function of (wave [t], fps in Hz, band in Hz) that returns bpm, NaN where there is no rate.
      in_words: what it does, for tables and reports.
      filters: whether it takes raw waves; if not, the wave must have been band-passed before.
    """

    estimate: Callable[[np.ndarray, float, tuple[float, float]], float]
    in_words: str
    filters: bool = True


def periodogram_peak(wave: np.ndarray, fps: float, band_hz: tuple[float, float]) -> float:
    """Return the highest bin of a periodogram, as rPPG-Toolbox does: no window, padded to a power of two.

    Args:
      wave: [t].
      fps: sampling rate in Hz.
      band_hz: ends of the band in Hz, both included.

    Returns:
      bpm, a multiple of 60·fps / (next power of two).
    """
    return _highest_bin(*padded_periodogram(wave, fps), band_hz)


def padded_periodogram(wave: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies in Hz and power of a wave that is padded to a power of two, without a window."""
    return signal.periodogram(wave, fps, nfft=1 << (len(wave) - 1).bit_length(), detrend=False)


def peak_intervals(wave: np.ndarray, fps: float, band_hz: tuple[float, float]) -> float:
    """Return 60 ÷ the mean interval between local maxima, as rPPG-Toolbox's peak detection does.

    Args:
      wave: [t], filtered: every ripple that is left counts as a beat.
      fps: sampling rate in Hz.
      band_hz: not used; the filter has it.

    Returns:
      bpm; NaN where there are fewer than two maxima.
    """
    del band_hz
    peaks, _ = signal.find_peaks(wave)
    return float(60 * fps / np.diff(peaks).mean()) if len(peaks) > 1 else float("nan")


def hamming_periodogram(wave: np.ndarray, fps: float, band_hz: tuple[float, float]) -> float:
    """Return the highest bin of a Hamming-windowed periodogram of unit-variance samples, as SiNC does.

    Args:
      wave: [t], without its mean.
      fps: sampling rate in Hz.
      band_hz: ends of the band in Hz, both included.

    Returns:
      bpm, a multiple of fps/90: 5400 points, 0.33 bpm at 30 Hz.
    """
    return _highest_bin(*signal.periodogram(wave, fps, "hamming", max(5400, len(wave))), band_hz)


def _highest_bin(hz: np.ndarray, power: np.ndarray, band_hz: tuple[float, float]) -> float:
    inside = (hz >= band_hz[0]) & (hz <= band_hz[1])
    return float(60 * hz[inside][power[inside].argmax()]) if inside.any() else float("nan")


ESTIMATORS: Mapping[str, Estimator] = {
    "harmonic": Estimator(
        lambda wave, fps, band: rate.fundamental_rate(wave, fps, band_hz=band),
        "interpolated peak of the Hann-windowed spectrum, halved where half the frequency has half the power",
    ),
    "spectrum": Estimator(
        lambda wave, fps, band: rate.spectral_peak_rate(wave, fps, band_hz=band),
        "interpolated peak of the Hann-windowed spectrum",
    ),
    "beats": Estimator(
        lambda wave, fps, _: beats.beat_rate(wave, fps), "60 ÷ the mean interval between beats"
    ),
    "wavelet": Estimator(
        lambda wave, fps, _: rate.wavelet_peak_rate(wave, fps),
        "band-pass 0.5–3 Hz, wavelet selection, mean of the beat-to-beat rates",
    ),
    "wavelet_peaks": Estimator(
        lambda wave, fps, _: rate.filtered_peak_rate(wave, fps),
        "wavelet selection, mean of the beat-to-beat rates",
        filters=False,
    ),
    "periodogram": Estimator(
        periodogram_peak, "highest bin of the periodogram, padded to a power of two", filters=False
    ),
    "peak_intervals": Estimator(peak_intervals, "60 ÷ the mean interval between local maxima", filters=False),
    "hamming_periodogram": Estimator(
        hamming_periodogram, "highest bin of the Hamming-windowed periodogram of 5400 points", filters=False
    ),
}
"""Name → estimator."""

OF_RAW_WAVES = tuple(name for name, estimator in ESTIMATORS.items() if estimator.filters)
"""Names of those that need no filter before them, the default first."""

DEFAULT = OF_RAW_WAVES[0]

EARLIER_NAMES = {"interpolated_peak": "spectrum", "interpolated_fundamental": "harmonic"}
"""Names that some had once; files that hold them are still understood."""


def estimate(
    name: str, wave: np.ndarray, fps: float, band_hz: tuple[float, float] = rate.WIDE_BAND_HZ
) -> float:
    """Estimate a heart rate.

    Args:
      name: of the estimator, in `ESTIMATORS`.
      wave: [t], any unit.
      fps: sampling rate in Hz.
      band_hz: ends of the band in Hz, where the estimator has one.

    Returns:
      bpm; NaN where there is no rate.

    Raises:
      ValueError: the wave is too short, or the sampling rate too low.

    Example:
      >>> time_s = np.arange(300) / 30
      >>> round(estimate("spectrum", np.sin(2 * np.pi * 1.2 * time_s), 30.0), 1)
      72.0
    """
    return float(ESTIMATORS[name].estimate(wave, fps, band_hz))

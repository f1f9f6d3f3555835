"""The heart rate of a whole wave: by its spectral peak, or as the method's published code estimates it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import signal

from sspd_jax.heart_rate.filters import bandpass, remove_line

BAND_HZ = (0.5, 3.0)  # of the published read-out
WIDE_BAND_HZ = (0.6, 3.6)  # of the spectral one: 36 to 216 bpm
FREQUENCIES_HZ = 3.75 - np.arange(107) * 15 / 512  # absolute: they do not move with fps
ROW_SPREAD = 0.08 * len(FREQUENCIES_HZ)  # rows, of the weights around the strongest one
MORLET_OMEGA = 6.0  # ω₀, rad at scale 1
VALUES_AT_ONCE = 2**20  # complex numbers in memory: 16 MiB, whatever the wave's length


def spectral_peak_rate(wave: np.ndarray, fps: float, *, band_hz: tuple[float, float] = WIDE_BAND_HZ) -> float:
    """Estimate one heart rate from a wave: the interpolated peak of its power spectrum.

    Linear detrending, a Hann window, zero-padding to 8 times the length or more, the highest local maximum
    in the band, and a parabola through its logarithm: no steps of a bin's width.

    Args:
      wave: [t], any unit; offset, slope and scale do not matter.
      fps: samples per second, Hz, above twice the band's upper end.
      band_hz: ends of the band, Hz.

    Returns:
      bpm; NaN where there is nothing to read: a constant wave, a value that is not finite, no maximum
      inside the band.

    Raises:
      ValueError: fewer than 8 samples, or too low an fps for the band.

    Example:
      >>> time_s = np.arange(300) / 30
      >>> round(spectral_peak_rate(np.sin(2 * np.pi * 1.2 * time_s), fps=30), 1)
      72.0
    """
    peaks = _spectral_peaks(wave, fps, band_hz)
    return float(60 * peaks.hz[peaks.power.argmax()]) if len(peaks.hz) else float("nan")


def fundamental_rate(wave: np.ndarray, fps: float, *, band_hz: tuple[float, float] = WIDE_BAND_HZ) -> float:
    """Estimate one heart rate from a wave whose second harmonic may be its strongest part.

    As `spectral_peak_rate`; but where a peak at half the strongest frequency has half of its power or more,
    the strongest one is the second harmonic, and the half is the rate. A pulse's shape, or a method that
    differentiates, can make it so.

    Args:
      wave: [t], any unit; offset, slope and scale do not matter.
      fps: samples per second, Hz, above twice the band's upper end.
      band_hz: ends of the band, Hz.

    Returns:
      bpm; NaN as in `spectral_peak_rate`.

    Raises:
      ValueError: as in `spectral_peak_rate`.

    Example:
      >>> turn = 2 * np.pi * 1.2 * np.arange(300) / 30
      >>> wave = 0.8 * np.sin(turn) + np.sin(2 * turn)
      >>> round(fundamental_rate(wave, fps=30)), round(spectral_peak_rate(wave, fps=30))
      (72, 144)
    """
    peaks = _spectral_peaks(wave, fps, band_hz)
    if len(peaks.hz) == 0:
        return float("nan")
    top = peaks.power.argmax()
    at_half = np.abs(peaks.hz - peaks.hz[top] / 2) <= HALF_WITHIN_HZ
    at_half &= peaks.power >= HALF_POWER * peaks.power[top]
    if at_half.any():
        top = np.flatnonzero(at_half)[peaks.power[at_half].argmax()]
    return float(60 * peaks.hz[top])


HALF_POWER = 0.5  # on real fingers, a wandering baseline had a third of the pulse's there
HALF_WITHIN_HZ = 0.06  # a quarter of a peak's width in 10 s


class _Peaks(NamedTuple):
    hz: np.ndarray  # interpolated
    power: np.ndarray


def _spectral_peaks(wave: np.ndarray, fps: float, band_hz: tuple[float, float]) -> _Peaks:
    """Find the local maxima of a wave's power spectrum in a band, from low to high."""
    wave = np.asarray(wave, np.float64)
    if len(wave) < 8 or fps <= 2 * band_hz[1]:
        raise ValueError(f"{len(wave)} samples at {fps:g} Hz have no spectrum up to {band_hz[1]:g} Hz")
    nothing = _Peaks(np.zeros(0), np.zeros(0))
    if not np.isfinite(wave).all():
        return nothing
    steady = remove_line(wave)
    # What rounding leaves of a constant or a slope would have a spectrum too.
    if np.abs(steady).max() <= 1e-12 * np.abs(wave).max():
        return nothing
    hz, power = hann_periodogram(steady, fps)
    padded = 2 * (len(hz) - 1)
    first, last = (round(edge * padded / fps) for edge in band_hz)
    maxima = first + _peaks(power[first : last + 1])
    left, middle, right = (np.log(power[maxima + i] + 1e-300) for i in (-1, 0, 1))
    off = 0.5 * (left - right) / (left - 2 * middle + right)
    return _Peaks(fps * (maxima + off) / padded, power[maxima])


def hann_periodogram(x: np.ndarray, fps: float, *, padding: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return the power spectrum of signals under a Hann window, zero-padded.

    Args:
      x: [t] or [t, n], without mean or trend as the caller needs it.
      fps: sampling rate in Hz.
      padding: the spectrum is of this many times the next power of two of samples.

    Returns:
      Frequencies [f] in Hz, and power [f] or [f, n].
    """
    window, padded = np.hanning(len(x)), padding << (len(x) - 1).bit_length()
    return signal.periodogram(x, fps, window, padded, detrend=False, scaling="spectrum", axis=0)


def wavelet_peak_rate(wave: np.ndarray, fps: float) -> float:
    """Estimate one heart rate from a wave: band-pass, wavelet selection, mean of the beat-to-beat rates.

    Fourth-order Butterworth 0.5–3 Hz, a Morlet transform at 107 frequencies, rows weighted around the
    strongest one and summed back to a wave, its peaks, and the mean of 60·fps/interval.

    Args:
      wave: [t], t > 27, any unit; offset and scale do not matter.
      fps: samples per second, Hz, above 6.

    Returns:
      bpm; NaN where there is nothing to read: a constant wave, a value that is not finite, fewer than
      two peaks.

    Raises:
      ValueError: too few samples or too low an fps for the band-pass.

    Example:
      >>> time_s = np.arange(300) / 30
      >>> round(wavelet_peak_rate(np.sin(2 * np.pi * 1.2 * time_s), fps=30))
      72

    References:
      Torrence & Compo, Bull. Am. Meteorol. Soc. 79 (1998), 61–78, for the transform and its scales.
    """
    wave = np.asarray(wave, np.float64)
    if not np.isfinite(wave).all():
        return float("nan")
    pulse = bandpass(wave, *BAND_HZ, fps, order=4)
    # What rounding leaves of a constant would have peaks too.
    if np.ptp(wave) == 0 or np.abs(pulse).max() <= 1e-12 * np.abs(wave).max():
        return float("nan")
    return filtered_peak_rate(pulse, fps)


def filtered_peak_rate(pulse: np.ndarray, fps: float) -> float:
    """Estimate one heart rate from a wave that is band-passed already, as `wavelet_peak_rate` goes on.

    Args:
      pulse: float64 [t], finite and not constant.
      fps: samples per second, Hz, above 6.

    Returns:
      bpm; NaN where there are fewer than two peaks.
    """
    peaks = _peaks(_select_by_wavelet(pulse, fps))
    if len(peaks) < 2:
        return float("nan")
    return float((60 * fps / np.diff(peaks)).mean())


def _select_by_wavelet(pulse: np.ndarray, fps: float) -> np.ndarray:
    """Keep what lies near the strongest row of the Morlet transform, float64 [t]."""
    samples = len(pulse)
    padded = 1 << (samples - 1).bit_length()
    omega = 2 * np.pi * np.fft.fftfreq(padded, 1 / fps)
    spectrum = np.fft.fft(pulse, padded)
    scales = (MORLET_OMEGA + np.sqrt(MORLET_OMEGA**2 + 2)) / (4 * np.pi * FREQUENCIES_HZ)

    def daughters(rows):
        s = scales[rows, None]
        size = np.sqrt(s * omega[1] * padded) * np.pi**-0.25
        return size * np.exp(-((s * omega - MORLET_OMEGA) ** 2) / 2)

    at_once = max(1, VALUES_AT_ONCE // padded)
    groups = [np.arange(len(scales))[i : i + at_once] for i in range(0, len(scales), at_once)]
    strength = np.concatenate(
        [np.abs(np.fft.ifft(spectrum * daughters(rows))[:, :samples]).mean(axis=1) for rows in groups]
    )
    distance = np.arange(len(scales)) - strength.argmax()
    weights = np.exp(-((distance / ROW_SPREAD) ** 2)) / np.sqrt(scales)
    # The transform is linear, so the weighted sum of its rows is one transform by the summed wavelets.
    summed = sum(weights[rows] @ daughters(rows) for rows in groups)
    return np.fft.ifft(spectrum * summed)[:samples].real


def _peaks(wave: np.ndarray) -> np.ndarray:
    """Find the indices i with wave[i] ≥ wave[i−1] and wave[i] > wave[i+1]."""
    middle = wave[1:-1]
    return np.flatnonzero((middle >= wave[:-2]) & (middle > wave[2:])) + 1

"""Spectra of waves, and how much of them lies where a heart can beat.

Two spectra occur. The paper's is the *power* of the mean-free wave. The released code's is the
*amplitude* of the raw wave, its mean included. Both run in float32 (half-precision FFTs lose the pulse),
and have finite gradients for constant and for zero waves.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32

PULSE_BAND_HZ = (0.5, 3.0)
"""30 to 180 bpm: where the method looks for a pulse, at every sampling rate."""

TOTAL_LIMIT_HZ = 15.0
"""Upper end of the total power: the Nyquist frequency of 30 fps video."""

_TINY = 1e-20  # inside the root of an amplitude: |0| gets gradient 0 instead of NaN
_NO_POWER = 1e-8  # far below the power of any wave that varies


def power_spectrum(wave: Float[ArrayLike, "*batch t"]) -> Float32[Array, "*batch t//2+1"]:
    """Compute the power P_k = |rfft(wave − mean)|² at the frequencies k·fps/t.

    Args:
      wave: Waves, float [..., t].

    Returns:
      float32 [..., t // 2 + 1]; bin 0 is 0 up to rounding.

    Example:
      >>> power_spectrum(jnp.array([5.0, 6.0, 5.0, 4.0])).tolist()
      [0.0, 4.0, 0.0]
    """
    wave = jnp.asarray(wave, jnp.float32)
    bins = jnp.fft.rfft(wave - jnp.mean(wave, axis=-1, keepdims=True))
    return bins.real**2 + bins.imag**2


def amplitude_spectrum(wave: Float[ArrayLike, "*batch t"], n_bins: int) -> Float32[Array, "*batch {n_bins}"]:
    """Compute the first bins of |FFT| of the raw wave, divided by their largest.

    Args:
      wave: Waves, float [..., t].
      n_bins: How many bins to keep, DC first; at most t // 2 + 1.

    Returns:
      float32 [..., n_bins] in [0, 1]. Gradients flow through the largest bin.

    References:
      The authors' released code.
    """
    bins = jnp.fft.rfft(jnp.asarray(wave, jnp.float32))[..., :n_bins]
    amplitude = jnp.sqrt(bins.real**2 + bins.imag**2 + _TINY)
    return amplitude / jnp.max(amplitude, axis=-1, keepdims=True)


def band_bins(t: int, fps: float, low_hz: float, high_hz: float) -> Bool[np.ndarray, " {t}//2+1"]:
    """Find the bins of a spectrum of `t` samples that lie in the closed band.

    Args:
      t: Samples in the wave.
      fps: Their rate in Hz.
      low_hz: Lower end, included.
      high_hz: Upper end, included.

    Returns:
      bool [t // 2 + 1], a host constant under jit.
    """
    frequency = np.arange(t // 2 + 1) * fps / t
    slack = 1e-9 * fps  # a bin on the edge stays in, whichever way its quotient was rounded
    return (frequency >= low_hz - slack) & (frequency <= high_hz + slack)


def snr(wave: Float[ArrayLike, "*batch t"], fps: float) -> Float32[Array, "*batch"]:
    """Compute the share of a wave's power that lies in the pulse band.

    SNR = power in [0.5, 3] Hz ÷ power in (0, min(15, fps/2)] Hz; the mean (DC) is never counted.

    Args:
      wave: Waves, float [..., t].
      fps: Sampling rate of the wave in Hz.

    Returns:
      float32 [...] in (0, 1]; 1 for a wave without any power.

    Raises:
      ValueError: `fps` is too low to hold the band, or the wave too short to have a bin in it.

    References:
      Zhang et al. 2024, L_SNR, which leaves the limits' handling and the mean open.

    Example:
      Ten seconds at 30 Hz of a pulse of 72 bpm, and as much power at 6 Hz:

      >>> time_s = np.arange(300, dtype=np.float32) / 30
      >>> wave = np.sin(2 * np.pi * 1.2 * time_s) + np.sin(2 * np.pi * 6 * time_s)
      >>> round(float(snr(wave.astype(np.float32), 30.0)), 3)
      0.5
    """
    power = power_spectrum(wave)
    t = jnp.shape(wave)[-1]
    in_band = _require_band(t, fps)
    in_total = band_bins(t, fps, fps / t, min(TOTAL_LIMIT_HZ, fps / 2))
    # The same small power in both keeps the quotient of an empty spectrum at 1 with gradient 0.
    return _sum_bins(power, in_band, _NO_POWER) / _sum_bins(power, in_total, _NO_POWER)


def _sum_bins(
    power: Float32[Array, "*batch bins"], mask: Bool[np.ndarray, " bins"], floor: float
) -> Float32[Array, "*batch"]:
    return jnp.sum(jnp.where(mask, power, 0), axis=-1) + floor


def _require_band(t: int, fps: float) -> Bool[np.ndarray, " {t}//2+1"]:
    low, high = PULSE_BAND_HZ
    if fps < 2 * high:
        raise ValueError(f"a wave at {fps:g} Hz cannot hold {high:g} Hz; needed: {2 * high:g} Hz")
    mask = band_bins(t, fps, low, high)
    if not mask.any():
        raise ValueError(f"{t} samples at {fps:g} Hz have no spectral bin in {low:g}–{high:g} Hz")
    return mask


def out_of_band_ratio(
    wave: Float[ArrayLike, "*batch t"], fps: float, *, n_bins: int
) -> Float32[Array, "*batch"]:
    """Compute the amplitude outside the pulse band per amplitude inside it: ΣP / ΣP[band] − 1.

    P is `amplitude_spectrum`; the band's edges are bins int(f·t/fps), the upper one excluded.

    Args:
      wave: Waves, float [..., t].
      fps: Sampling rate of the wave in Hz.
      n_bins: How many bins count, DC first.

    Returns:
      float32 [...], 0 or more.

    Raises:
      ValueError: `fps` is too low to hold the band, or no bin lies in it.

    References:
      The authors' released code.
    """
    t = jnp.shape(wave)[-1]
    low_hz, high_hz = PULSE_BAND_HZ
    low, high = (int(edge * t / fps) for edge in PULSE_BAND_HZ)
    if fps < 2 * high_hz or not low < min(high, n_bins):
        raise ValueError(f"{t} samples at {fps:g} Hz have no spectral bin in {low_hz:g}–{high_hz:g} Hz")
    spectrum = amplitude_spectrum(wave, n_bins)
    return jnp.sum(spectrum, axis=-1) / (jnp.sum(spectrum[..., low:high], axis=-1) + _TINY) - 1

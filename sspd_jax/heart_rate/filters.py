"""The field's filters on the host: Butterworth band-pass, smoothness priors (`jax_filters`: under JAX)."""

from __future__ import annotations

import functools

import numpy as np
from scipy import linalg, signal


def design_bandpass(
    low_hz: float, high_hz: float, fps: float, order: int, samples: int
) -> tuple[np.ndarray, int]:
    """Design a Butterworth band-pass for a wave of some length.

    Args:
      low_hz: lower edge, Hz, above 0.
      high_hz: upper edge, Hz, below fps / 2.
      fps: samples per second, Hz.
      order: of the prototype; the filter has twice as many poles.
      samples: of the wave that is to be filtered forwards and backwards, above 3·(2·order + 1).

    Returns:
      float64 [order, 6], second-order sections; and the samples by which both ends are to be extended, as
      `scipy.signal.filtfilt` does.

    Raises:
      ValueError: a band outside (0, fps / 2), or too few samples.
    """
    if not 0 < low_hz < high_hz < fps / 2:
        raise ValueError(f"the band {low_hz:g}–{high_hz:g} Hz does not lie inside 0–{fps / 2:g} Hz (fps / 2)")
    padding = 3 * (2 * order + 1)
    if samples <= padding:
        raise ValueError(f"a band-pass of order {order} needs more than {padding} samples, got {samples}")
    return _sections(low_hz, high_hz, fps, order).copy(), padding


@functools.lru_cache(maxsize=64)  # designing takes longer than filtering ten seconds
def _sections(low_hz: float, high_hz: float, fps: float, order: int) -> np.ndarray:
    return signal.butter(order, [low_hz, high_hz], "bandpass", output="sos", fs=fps)


def bandpass(x: np.ndarray, low_hz: float, high_hz: float, fps: float, order: int) -> np.ndarray:
    """Filter with a Butterworth band-pass forwards and backwards, so that no beat moves in time.

    Equal to `scipy.signal.filtfilt` with `butter(order, [low_hz, high_hz], 'bandpass')`, its padding
    included, but run in second-order sections: at 120 fps and more the polynomial form loses its digits.

    Args:
      x: [..., t], filtered along the last axis; t must be above 3·(2·order + 1).
      low_hz: lower edge, Hz, above 0.
      high_hz: upper edge, Hz, below fps / 2.
      fps: samples per second, Hz.
      order: of the Butterworth prototype; the filter has twice as many poles.

    Returns:
      float64 [..., t].

    Raises:
      ValueError: a band outside (0, fps / 2), or too few samples.
    """
    x = np.asarray(x, np.float64)
    sections, padding = design_bandpass(low_hz, high_hz, fps, order, x.shape[-1])
    return signal.sosfiltfilt(sections, x, padlen=padding)


def remove_line(x: np.ndarray) -> np.ndarray:
    """Take the least-squares line off: float64 [t]; `scipy.signal.detrend` in a tenth of the time."""
    x = np.asarray(x, np.float64)
    x = x - x.mean()
    time = np.arange(len(x)) - (len(x) - 1) / 2
    return x - time * (time @ x / (time @ time))


def detrend(x: np.ndarray, smoothness: float = 100.0) -> np.ndarray:
    """Take off what changes slowly: smoothness priors.

    x − (I + λ²·DᵀD)⁻¹·x, D the second difference; the matrix has five diagonals, so time is O(t).

    Args:
      x: [t], t ≥ 5.
      smoothness: λ; at 100 and 30 Hz what is below about 0.3 Hz goes.

    Returns:
      float64 [t].

    Raises:
      ValueError: fewer than 5 samples.

    References:
      Tarvainen, Ranta-aho & Karjalainen, IEEE Trans. Biomed. Eng. 49 (2002), 172–175.
    """
    x = np.asarray(x, np.float64)
    n = len(x)
    if n < 5:
        raise ValueError(f"smoothness priors need 5 samples or more, got {n}")
    bands = np.zeros((3, n))  # of DᵀD, the upper ones: [1, −4, 6, …] with fewer terms at the ends
    bands[0, 2:] = 1
    bands[1, 1:] = -4
    bands[1, [1, -1]] = -2
    bands[2] = 6
    bands[2, [0, -1]] = 1
    bands[2, [1, -2]] = 5
    bands *= smoothness**2
    bands[2] += 1
    return x - linalg.solveh_banded(bands, x)

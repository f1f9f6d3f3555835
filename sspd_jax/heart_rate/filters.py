"""The two filters of the field: Butterworth forwards and backwards, smoothness-priors detrending."""

from __future__ import annotations

import numpy as np
from scipy import linalg, signal


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
    if not 0 < low_hz < high_hz < fps / 2:
        raise ValueError(f"the band {low_hz:g}–{high_hz:g} Hz does not lie inside 0–{fps / 2:g} Hz (fps / 2)")
    padding = 3 * (2 * order + 1)
    if x.shape[-1] <= padding:
        raise ValueError(f"a band-pass of order {order} needs more than {padding} samples, got {x.shape[-1]}")
    sections = signal.butter(order, [low_hz, high_hz], "bandpass", output="sos", fs=fps)
    return signal.sosfiltfilt(sections, x, padlen=padding)


def detrend(x: np.ndarray, lam: float) -> np.ndarray:
    """Remove the slow trend by smoothness priors.

    The trend z minimises |x − z|² + λ²·|second difference of z|²: five diagonals, solved in O(t).

    Args:
      x: finite, [t] or [t, signals], t ≥ 3.
      lam: λ, in samples; a larger one keeps slower waves: λ = 100 halves 0.48 Hz at 30 fps, 0.95 Hz at 60.

    Returns:
      x − z, float64, shape of x.

    Raises:
      ValueError: fewer than 3 samples, or a value that is not finite.

    References:
      Tarvainen, Ranta-aho & Karjalainen, IEEE Trans. Biomed. Eng. 49 (2002), 172–175.
    """
    x = np.asarray(x, np.float64)
    samples = len(x)
    if samples < 3:
        raise ValueError(f"detrending needs at least 3 samples, got {samples}")
    # λ²·DᵀD + I, D the second difference: second and first upper diagonal, then the main one.
    rows = np.ones(samples - 2)
    diagonals = np.zeros((3, samples))
    diagonals[0, 2:] = rows
    diagonals[1, 1:] = np.convolve(rows, [-2, -2])
    diagonals[2] = np.convolve(rows, [1, 4, 1])
    diagonals *= lam**2
    diagonals[2] += 1
    return x - linalg.solveh_banded(diagonals, x)

"""Classical methods: from the mean colour of the skin to a pulse wave, nothing learned.

Formulas and constants as rPPG-Toolbox runs them; equal to its numbers to 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import signal

from sspd_jax.heart_rate.filters import bandpass, detrend

WINDOW_S = 1.6
WINDOWS_AT_ONCE = 2048
STILL = 1e-9  # relative to the mean colour: below it a window holds rounding, no pulse


def green(rgb: np.ndarray, fps: float) -> np.ndarray:
    """Return the green trace, unfiltered.

    Args:
      rgb: [t, 3], mean colour of every frame.
      fps: not used; every method has the same two arguments.

    Returns:
      float64 [t].

    References:
      Verkruysse, Svaasand & Nelson, Opt. Express 16 (2008), 21434–21445.
    """
    del fps
    return _trace(rgb)[:, 1]


def chrom(rgb: np.ndarray, fps: float) -> np.ndarray:
    """Combine two chrominance signals so that specular light and motion cancel.

    Half-overlapping windows of L = ceil(1.6·fps) samples (made even), third-order 0.7–2.5 Hz inside each,
    Hann-weighted and added.

    Args:
      rgb: [t, 3], mean colour of every frame, t ≥ L.
      fps: Hz, at least 14 (the filter has to fit into a window).

    Returns:
      float64 [L/2·(windows + 1)]: can be up to L/2 − 1 samples shorter than the trace, cut at its end.

    Raises:
      ValueError: too short a trace, too low an fps, or a value that is not finite.

    References:
      de Haan & Jeanne, IEEE Trans. Biomed. Eng. 60 (2013), 2878–2886.
    """
    rgb = _trace(rgb)
    half = math.ceil(math.ceil(WINDOW_S * fps) / 2)
    red, green_, blue = _normalised(_windows(rgb, 2 * half)[::half])
    x = bandpass(3 * red - 2 * green_, 0.7, 2.5, fps, order=3)
    y = bandpass(1.5 * red + green_ - 1.5 * blue, 0.7, 2.5, fps, order=3)
    pulses = _balanced(x, y, -1) * signal.windows.hann(2 * half)
    wave = np.zeros((len(pulses) + 1, half))
    wave[:-1] += pulses[:, :half]
    wave[1:] += pulses[:, half:]
    return wave.ravel()


def pos(rgb: np.ndarray, fps: float) -> np.ndarray:
    """Project the colour on the plane orthogonal to the skin tone.

    Windows of l = ceil(1.6·fps) samples, one starting at every sample but the last possible one (so the
    last sample is never covered), each without its mean, added; then detrending with λ = 100 and a
    first-order 0.75–3 Hz band-pass.

    Args:
      rgb: [t, 3], mean colour of every frame, t > l.
      fps: Hz, above 6.

    Returns:
      float64 [t].

    Raises:
      ValueError: too short a trace, too low an fps, or a value that is not finite.

    References:
      Wang, den Brinker, Stuijk & de Haan, IEEE Trans. Biomed. Eng. 64 (2017), 1479–1491.
    """
    rgb = _trace(rgb)
    length = math.ceil(WINDOW_S * fps)
    wave = np.zeros(len(rgb))
    windows = _windows(rgb[:-1], length)
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        red, green_, blue = _normalised(windows[first : first + WINDOWS_AT_ONCE])
        pulses = _balanced(green_ - blue, green_ + blue - 2 * red, 1)
        pulses -= pulses.mean(axis=1, keepdims=True)
        at = np.arange(len(pulses))[:, None] + np.arange(length)
        covered = len(pulses) + length - 1
        wave[first : first + covered] += np.bincount(at.ravel(), pulses.ravel(), covered)
    return bandpass(detrend(wave, 100), 0.75, 3, fps, order=1)


def _trace(rgb: np.ndarray) -> np.ndarray:
    rgb = np.asarray(rgb, np.float64)
    if rgb.ndim != 2 or rgb.shape[1] != 3:
        raise ValueError(f"a colour trace has the shape [t, 3], got {rgb.shape}")
    if not np.isfinite(rgb).all():
        raise ValueError(f"the colour trace holds {(~np.isfinite(rgb)).sum()} values that are not finite")
    return rgb


def _windows(rgb: np.ndarray, length: int) -> np.ndarray:
    """View every window of the trace, [windows, 3, length], without copying it."""
    if len(rgb) < length:
        raise ValueError(f"a window of {WINDOW_S} s has {length} samples, the trace only {len(rgb)}")
    return np.lib.stride_tricks.sliding_window_view(rgb, length, axis=0)


def _normalised(windows: np.ndarray) -> np.ndarray:
    """Divide every colour by its mean over the window, [3, windows, length]; no light gives 0."""
    mean = windows.mean(axis=2, keepdims=True)
    lit = (mean > 0).all(axis=1, keepdims=True)
    return np.moveaxis(np.divide(windows, mean, out=np.zeros(windows.shape), where=lit), 1, 0)


def _balanced(x: np.ndarray, y: np.ndarray, sign: int) -> np.ndarray:
    """Return x ± y·σ(x)/σ(y) per window; 0 where a signal stands still (a frozen or black picture)."""
    x_spread, y_spread = x.std(axis=1, keepdims=True), y.std(axis=1, keepdims=True)
    moves = (x_spread > STILL) & (y_spread > STILL)
    ratio = np.divide(x_spread, y_spread, out=np.zeros_like(x_spread), where=moves)
    return np.where(moves, x + sign * ratio * y, 0.0)


METHODS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {"green": green, "chrom": chrom, "pos": pos}

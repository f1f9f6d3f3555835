"""The classical methods that reading runs side by side, in NumPy: the first answer waits for no compiler.

Each is its namesake in `classical`, which is what a training or an accelerator differentiates and batches;
tests hold the two together to 1e-9. Traces here are float64 [..., t, 3], finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy import signal

from sspd_jax.heart_rate import filters

WINDOW_S = 1.6
STILL = 1e-9  # relative deviation below which there is rounding and no pulse


def green(rgb: np.ndarray, fps: float) -> np.ndarray:
    """Return the green trace, float64 [..., t]; see `classical.green`."""
    del fps
    return rgb[..., 1].copy()


def chrom(rgb: np.ndarray, fps: float) -> np.ndarray:
    """Combine two chrominance signals, float64 [..., t_out]; see `classical.chrom`."""
    half = math.ceil(_window_samples(fps) / 2)
    *batch, samples, _ = rgb.shape
    _require_window(2 * half, samples)
    blocks = rgb[..., : samples // half * half, :].reshape(*batch, samples // half, half, 3)
    windows = np.concatenate([blocks[..., :-1, :, :], blocks[..., 1:, :, :]], axis=-2)
    windows = np.moveaxis(windows, -1, 0)
    mean = windows.mean(-1, keepdims=True)
    lit = (mean > 0).all(0)
    red, green_, blue = np.where(lit, windows / np.where(lit, mean, 1), 0)
    both = np.stack([3 * red - 2 * green_, 1.5 * red + green_ - 1.5 * blue])
    x, y = both = filters.bandpass(both, 0.7, 2.5, fps, order=3)
    moves, ratio = _balance(*both.std(-1, keepdims=True))
    pulses = np.where(moves, x - ratio * y, 0) * signal.windows.hann(2 * half)
    edge = np.zeros_like(pulses[..., :1, :half])
    added = np.concatenate([pulses[..., :half], edge], -2) + np.concatenate([edge, pulses[..., half:]], -2)
    return added.reshape(*batch, -1)


def pos(rgb: np.ndarray, fps: float) -> np.ndarray:
    """Project the colour on the plane orthogonal to the skin tone, float64 [..., t]; see `classical.pos`."""
    length, samples = _window_samples(fps), rgb.shape[-2]
    _require_window(length, samples - 1)
    rgb = np.moveaxis(rgb, -1, 0)
    windows = samples - length
    # The loops run over the samples of a window, for all windows at once: see `classical.pos`.
    parts = [rgb[..., n : n + windows] for n in range(length)]
    mean = sum(parts) / length
    lit = (mean > 0).all(0)
    weight = np.where(lit, 1 / np.where(lit, mean, 1), 0)

    def project(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        red, green_, blue = part * weight
        return green_ - blue, green_ + blue - 2 * red

    squares = np.zeros((2, *mean.shape[1:]))
    for part in parts:
        for square, signal_ in zip(squares, project(part), strict=True):
            square += signal_**2
    moves, ratio = _balance(*np.sqrt(squares / length))
    wave = np.zeros(rgb.shape[1:])
    for n, part in enumerate(parts):
        x, y = project(part)
        wave[..., n : n + windows] += np.where(moves, x + ratio * y, 0)
    flat = wave.reshape(-1, samples)
    steady = np.stack([filters.detrend(one, 100) for one in flat]).reshape(wave.shape)
    return filters.bandpass(steady, 0.75, 3, fps, order=1)


def omit(rgb: np.ndarray, fps: float) -> np.ndarray:
    """Return what is left of green without the first colour, float64 [..., t]; see `classical.omit`."""
    del fps
    first = rgb[..., 0, :]
    size = np.linalg.norm(first, axis=-1, keepdims=True)
    colour = first / np.where(size > 0, size, 1)
    left = rgb[..., 1] - np.einsum("...ti,...i->...t", rgb, colour) * colour[..., 1:2]
    moves = np.abs(left).max(-1) > STILL * np.abs(rgb).max((-1, -2))
    return np.where(moves[..., None], left, 0)


METHODS: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "green": green,
    "chrom": chrom,
    "pos": pos,
    "omit": omit,
}
"""Name → function."""

NAMES = ("green", "ica", "chrom", "pos", "pbv", "lgi", "omit")
"""Every classical method; those that are not in `METHODS` are compiled."""

LEAST_FPS = {"chrom": 14.0}
"""Rate in Hz below which a method cannot filter inside its windows."""


def read_trace(name: str, rgb: np.ndarray, fps: float) -> np.ndarray:
    """Extract the pulse wave from a colour trace, compiled only where there is no other way.

    Args:
      name: in `NAMES`.
      rgb: [..., t, 3], mean colour of every frame, finite.
      fps: samples per second, Hz.

    Returns:
      float64 [..., t_out], see `classical.read_trace`.

    Raises:
      KeyError: an unknown name.
      ValueError: as `classical.read_trace`.
    """
    if name in METHODS and np.isfinite(rgb).all():
        return METHODS[name](np.asarray(rgb, np.float64), fps)
    from sspd_jax.heart_rate import classical  # JAX takes a second to import

    return classical.read_trace(name, rgb, fps)


def _window_samples(fps: float) -> int:
    return math.ceil(WINDOW_S * fps)


def _require_window(length: int, samples: int) -> None:
    if samples < length:
        raise ValueError(f"a window of {WINDOW_S} s has {length} samples, the trace only {samples}")


def _balance(x_spread: np.ndarray, y_spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say where two signals move, and return σ(x)/σ(y)."""
    moves = (x_spread > STILL) & (y_spread > STILL)
    return moves, x_spread / np.where(moves, y_spread, 1)

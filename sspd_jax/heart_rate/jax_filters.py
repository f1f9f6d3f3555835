"""The filters of the classical methods, for use under `jax.jit`: band-pass and smoothness-priors detrending.

What depends on the sampling rate and the length alone is computed on the host in float64, at trace time;
the waves pass through `lax.scan`, sample by sample, in their own dtype: time and memory are O(t).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float
from scipy import linalg

from sspd_jax.heart_rate.filters import design_bandpass


def bandpass(
    x: Float[ArrayLike, "*batch t"], low_hz: float, high_hz: float, fps: float, order: int
) -> Float[Array, "*batch t"]:
    """Filter with a Butterworth band-pass forwards and backwards, so that no beat moves in time.

    As `filters.bandpass` and `scipy.signal.sosfiltfilt`.

    Args:
      x: float [..., t], filtered along the last axis; t must be above 3·(2·order + 1).
      low_hz: lower edge, Hz, above 0; static, like all that follows.
      high_hz: upper edge, Hz, below fps / 2.
      fps: samples per second, Hz.
      order: of the Butterworth prototype; the filter has twice as many poles.

    Returns:
      float [..., t], in the dtype of `x`.

    Raises:
      ValueError: a band outside (0, fps / 2), or too few samples.
    """
    x = jnp.asarray(x)
    sections, padding = design_bandpass(low_hz, high_hz, fps, order, x.shape[-1])
    before = 2 * x[..., :1] - x[..., padding:0:-1]
    after = 2 * x[..., -1:] - x[..., -2 : -padding - 2 : -1]
    x = jnp.concatenate([before, x, after], axis=-1)
    for _ in ("forwards", "backwards"):
        # SciPy starts as if the first sample had been there for ever. A band-pass answers a constant with 0,
        # so that is the same as starting from rest without it, and float32 keeps more of the wave.
        x = jnp.flip(_filter(sections, x - x[..., :1]), axis=-1)
    return x[..., padding:-padding]


def _filter(sections: np.ndarray, x: Array) -> Array:
    """Run a cascade of second-order sections from rest along the last axis."""

    def step(states, value):
        new = []
        for (b0, b1, b2, _, a1, a2), (first, second) in zip(sections.tolist(), states, strict=True):
            out = b0 * value + first
            new.append((b1 * value - a1 * out + second, b2 * value - a2 * out))
            value = out
        return tuple(new), value

    rest = jnp.zeros_like(x[..., 0])
    _, filtered = lax.scan(step, ((rest, rest),) * len(sections), jnp.moveaxis(x, -1, 0))
    return jnp.moveaxis(filtered, 0, -1)


def detrend(x: Float[ArrayLike, "*batch t"], lam: float) -> Float[Array, "*batch t"]:
    """Remove the slow trend by smoothness priors.

    The trend z minimises |x − z|² + λ²·|second difference of z|²: five diagonals, solved in O(t).

    Args:
      x: float [..., t], t ≥ 3.
      lam: λ, in samples, static; a larger one keeps slower waves: λ = 100 halves 0.48 Hz at 30 fps, 0.95 Hz
        at 60.

    Returns:
      x − z, float [..., t], in the dtype of `x`.

    Raises:
      ValueError: fewer than 3 samples.

    References:
      Tarvainen, Ranta-aho & Karjalainen, IEEE Trans. Biomed. Eng. 49 (2002), 172–175.
    """
    x = jnp.asarray(x)
    samples = x.shape[-1]
    if samples < 3:
        raise ValueError(f"detrending needs at least 3 samples, got {samples}")
    # In float64 whatever x is: λ² would take float32's digits. Cholesky's L: its diagonal and the two below.
    main, below, below2 = _trend_factor(samples, lam).astype(x.dtype)
    left, left2 = np.roll(below, 1), np.roll(below2, 2)  # of the same row

    def substitute(found, row):
        (one, two), (value, diagonal, beside, beside2) = found, row
        value = (value - beside * one - beside2 * two) / diagonal
        return (value, one), value

    x = x - jnp.mean(x, axis=-1, keepdims=True)  # part of every trend
    rest = jnp.zeros_like(x[..., 0])
    columns = jnp.moveaxis(x, -1, 0)
    _, columns = lax.scan(substitute, (rest, rest), (columns, main, left, left2))
    _, columns = lax.scan(substitute, (rest, rest), (columns, main, below, below2), reverse=True)
    return x - jnp.moveaxis(columns, 0, -1)


def _trend_factor(samples: int, lam: float) -> np.ndarray:
    """Factor λ²·DᵀD + I = L·Lᵀ, D the second difference: L's diagonal and the two below it, [3, samples]."""
    rows = np.ones(samples - 2)
    diagonals = np.zeros((3, samples))
    diagonals[0] = np.convolve(rows, [1, 4, 1])
    diagonals[1, :-1] = np.convolve(rows, [-2, -2])
    diagonals[2, :-2] = rows
    diagonals *= lam**2
    diagonals[0] += 1
    return linalg.cholesky_banded(diagonals, lower=True)

"""Classical methods: from the mean colour of the skin to a pulse wave, nothing learned.

Pure functions `method(rgb, fps)` of colour traces, float [..., t, 3] in RGB order, for use under `jax.jit`
and `jax.vmap`. Each computes in the dtype it is given; `fps` is static. Formulas and constants as
rPPG-Toolbox runs them, and equal to its numbers to 1e-9 in float64 (PBV: see there). What stands still, such
as a frozen or a black picture, gives a wave that stands still. `read_trace` is the way to them from NumPy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Float64
from scipy import signal

from sspd_jax.heart_rate.jax_filters import bandpass, detrend

WINDOW_S = 1.6
LOADING = 1e-4  # of the variance of colour: what PBV takes for noise at the least
JADE_SWEEPS = 100  # at the most; three are common

# Directions of colour, a row each: white light, and two in the plane that it does not reach.
_WHITE_AND_CHROMA = np.array([[1, 1, 1], [0, 1, -1], [-2, 1, 1]]) / np.sqrt([[3], [2], [6]])


def green(rgb: Float[ArrayLike, "*batch t 3"], fps: float) -> Float[Array, "*batch t"]:
    """Return the green trace, unfiltered.

    Args:
      rgb: float [..., t, 3], mean colour of every frame.
      fps: not used; every method has the same two arguments.

    Returns:
      float [..., t].

    Raises:
      ValueError: another shape.

    References:
      Verkruysse, Svaasand & Nelson, Opt. Express 16 (2008), 21434–21445.
    """
    del fps
    return _trace(rgb)[..., 1]


def ica(rgb: Float[ArrayLike, "*batch t 3"], fps: float) -> Float[Array, "*batch t"]:
    """Separate the colours into independent sources and keep the most periodic one.

    Detrending with λ = 100, unit variance, JADE (symmetric whitening, the three strongest cumulant matrices,
    Jacobi rotations from the identity until all are below 0.01/√t), the source with the largest share of its
    power in one frequency, and a third-order 0.7–2.5 Hz band-pass.

    Args:
      rgb: float [..., t, 3], mean colour of every frame, t > 21.
      fps: Hz, above 5.

    Returns:
      float [..., t]; the sign means nothing.

    Raises:
      ValueError: another shape, too short a trace or too low an fps.

    References:
      Poh, McDuff & Picard, Opt. Express 18 (2010), 10762–10774;
      Cardoso & Souloumiac, IEE Proc. F 140 (1993), 362–370, for JADE.
    """
    rgb = jnp.swapaxes(_trace(rgb), -1, -2)
    colours = detrend(rgb, 100)
    spread = jnp.std(colours, axis=-1, keepdims=True)
    moves = spread > _still(rgb.dtype) * jnp.abs(jnp.mean(rgb, axis=-1, keepdims=True))
    colours = colours - jnp.mean(colours, axis=-1, keepdims=True)
    colours = jnp.where(moves, colours / jnp.where(moves, spread, 1), 0)
    source = jnp.vectorize(_most_periodic_source, signature="(c,t)->(t)")(colours)
    return bandpass(source, 0.7, 2.5, fps, order=3)


def chrom(rgb: Float[ArrayLike, "*batch t 3"], fps: float) -> Float[Array, "*batch t_out"]:
    """Combine two chrominance signals so that specular light and motion cancel.

    Half-overlapping windows of L = ceil(1.6·fps) samples (made even), third-order 0.7–2.5 Hz inside each,
    Hann-weighted and added.

    Args:
      rgb: float [..., t, 3], mean colour of every frame, t ≥ L.
      fps: Hz, at least 14 (the filter has to fit into a window).

    Returns:
      float [..., L/2·(windows + 1)]: can be up to L/2 − 1 samples shorter than the trace, cut at its end.

    Raises:
      ValueError: another shape, too short a trace or too low an fps.

    References:
      de Haan & Jeanne, IEEE Trans. Biomed. Eng. 60 (2013), 2878–2886.
    """
    red, green_, blue = _normalised(_half_overlapping(_trace(rgb), fps))
    both = jnp.stack([3 * red - 2 * green_, 1.5 * red + green_ - 1.5 * blue])
    x, y = both = bandpass(both, 0.7, 2.5, fps, order=3)
    moves, ratio = _balance(*jnp.std(both, axis=-1, keepdims=True))
    return _overlap_add(jnp.where(moves, x - ratio * y, 0))


def pos(rgb: Float[ArrayLike, "*batch t 3"], fps: float) -> Float[Array, "*batch t"]:
    """Project the colour on the plane orthogonal to the skin tone.

    Windows of l = ceil(1.6·fps) samples, one starting at every sample but the last possible one (so the
    last sample is never covered), each without its mean, added; then detrending with λ = 100 and a
    first-order 0.75–3 Hz band-pass.

    Args:
      rgb: float [..., t, 3], mean colour of every frame, t > l.
      fps: Hz, above 6.

    Returns:
      float [..., t].

    Raises:
      ValueError: another shape, too short a trace or too low an fps.

    References:
      Wang, den Brinker, Stuijk & de Haan, IEEE Trans. Biomed. Eng. 64 (2017), 1479–1491.
    """
    rgb = jnp.moveaxis(_trace(rgb), -1, 0)
    length = _window_samples(fps)
    samples = rgb.shape[-1]
    _require_window(length, samples - 1)

    # The loops run over the samples of a window, for all windows at once: an hour has 108,000 windows, which
    # side by side would fill gigabytes.
    def nth(n):
        return lax.dynamic_slice_in_dim(rgb, n, samples - length, axis=-1)

    nothing = jnp.zeros_like(rgb[0, ..., : samples - length])
    mean = lax.fori_loop(0, length, lambda n, total: total + nth(n), jnp.zeros_like(nth(0))) / length
    lit = jnp.all(mean > 0, axis=0)
    mean = jnp.where(lit, mean, 1)

    def project(n):
        red, green_, blue = jnp.where(lit, nth(n) / mean, 0)
        return green_ - blue, green_ + blue - 2 * red

    # Divided by their means, the colours have means of 1: both projections and the pulse have none.
    def add_squares(n, squares):
        x, y = project(n)
        return squares[0] + x * x, squares[1] + y * y

    squares = lax.fori_loop(0, length, add_squares, (nothing, nothing))
    moves, ratio = _balance(*(jnp.sqrt(sum_ / length) for sum_ in squares))

    def add_pulses(n, wave):
        x, y = project(n)
        pulses = jnp.where(moves, x + ratio * y, 0)
        at = lax.dynamic_slice_in_dim(wave, n, samples - length, axis=-1)
        return lax.dynamic_update_slice_in_dim(wave, at + pulses, n, axis=-1)

    wave = lax.fori_loop(0, length, add_pulses, jnp.zeros_like(rgb[0]))
    return bandpass(detrend(wave, 100), 0.75, 3, fps, order=1)


def pbv(rgb: Float[ArrayLike, "*batch t 3"], fps: float) -> Float[Array, "*batch t_out"]:
    """Weigh the colours so that a pulse of the skin's own colour passes and the rest cancels.

    The signature p holds the deviations of the normalised colours, divided by their norm. The weights
    solve Q·w = p with Q the mean product of the normalised colours, their means of 1 included, so that white
    light cancels; the pulse is the weighted colour divided by p·w. Q is solved in half-overlapping windows of
    L = ceil(1.6·fps) samples (made even), whose pulses are Hann-weighted and added, as in `chrom`; p is
    that of the whole trace, from the windows' mean variances: in one window the light and the pulse go
    together or against each other by chance, and p would turn about. (In a short trace under strong flicker
    it still can, and with it the wave's sign.) Unfiltered.

    Args:
      rgb: float [..., t, 3], mean colour of every frame, t ≥ L.
      fps: Hz.

    Returns:
      float [..., L/2·(windows + 1)]: can be up to L/2 − 1 samples shorter than the trace, cut at its end.

    Raises:
      ValueError: another shape or too short a trace.

    References:
      de Haan & van Leest, Physiol. Meas. 35 (2014), 1913–1926; Q and p as rPPG-Toolbox computes them, in one
      window as long as the trace.
    """
    rgb = _trace(rgb)
    dtype = rgb.dtype
    colours = jnp.moveaxis(_normalised(_half_overlapping(rgb, fps)), 0, -2)  # [..., windows, 3, L]
    changes = colours - jnp.mean(colours, axis=-1, keepdims=True)
    variance = jnp.mean(changes**2, axis=(-1, -3))
    total = jnp.sum(variance, axis=-1, keepdims=True)
    signature = jnp.sqrt(variance / jnp.where(total > 0, total, 1))

    # Turned so that the means lie in one component, which does not drown the others' digits.
    turn = jnp.asarray(_WHITE_AND_CHROMA, dtype)
    changes = jnp.einsum("ij,...jt->...it", turn, changes, precision="highest")
    signature = jnp.einsum("ij,...j->...i", turn, signature, precision="highest")[..., None, :]
    products = jnp.einsum("...it,...jt->...ij", changes, changes, precision="highest") / changes.shape[-1]
    chroma = products[..., 1, 1] + products[..., 2, 2]
    moves = jnp.sqrt(chroma) > _still(dtype)
    # Without noise Q is singular; where nothing moves, any matrix does.
    floor = jnp.where(moves, LOADING * chroma, 1)[..., None, None] * jnp.eye(3, dtype=dtype)
    matrix = products + floor + jnp.asarray(np.diag([3.0, 0, 0]), dtype)
    weights = jnp.linalg.solve(matrix, jnp.broadcast_to(signature, matrix.shape[:-1])[..., None])[..., 0]
    gain = jnp.sum(weights * signature, axis=-1)
    moves = moves & (gain > 0)
    pulses = jnp.einsum("...i,...it->...t", weights, changes, precision="highest")
    return _overlap_add(jnp.where(moves[..., None], pulses / jnp.where(moves, gain, 1)[..., None], 0))


def lgi(rgb: Float[ArrayLike, "*batch t 3"], fps: float) -> Float[Array, "*batch t"]:
    """Remove the trace's strongest colour from it and return what is left of green, unfiltered.

    That colour is the first left singular vector of the trace as [3, t], its means included.

    Args:
      rgb: float [..., t, 3], mean colour of every frame, t ≥ 1.
      fps: not used.

    Returns:
      float [..., t].

    Raises:
      ValueError: another shape.

    References:
      Pilz, Zaunseder, Krajewski & Blazek, CVPR Workshops (2018), 1254–1262.
    """
    del fps
    rgb = _trace(rgb)
    products = jnp.einsum("...ti,...tj->...ij", rgb, rgb, precision="highest")
    _, vectors = jnp.linalg.eigh(products)
    return _green_without(rgb, vectors[..., -1])


def omit(rgb: Float[ArrayLike, "*batch t 3"], fps: float) -> Float[Array, "*batch t"]:
    """Remove the first frame's colour from the trace and return what is left of green, unfiltered.

    That colour is the first column of Q in a QR decomposition of the trace as [3, t].

    Args:
      rgb: float [..., t, 3], mean colour of every frame, t ≥ 1.
      fps: not used.

    Returns:
      float [..., t].

    Raises:
      ValueError: another shape.

    References:
      Casado & Bordallo López, IEEE J. Biomed. Health Inform. 27 (2023), 5530–5541.
    """
    del fps
    rgb = _trace(rgb)
    first = rgb[..., 0, :]
    size = jnp.linalg.norm(first, axis=-1, keepdims=True)
    return _green_without(rgb, first / jnp.where(size > 0, size, 1))


METHODS: Mapping[str, Callable[[Array, float], Array]] = {
    "green": green,
    "ica": ica,
    "chrom": chrom,
    "pos": pos,
    "pbv": pbv,
    "lgi": lgi,
    "omit": omit,
}
"""Name → pure function."""


def read_trace(
    name: str, rgb: Float[np.ndarray, "*batch t 3"], fps: float
) -> Float64[np.ndarray, "*batch t_out"]:
    """Extract the pulse wave from a colour trace on the host: compiled, in float64, on the CPU.

    The process's configuration stays as it is. The first call for a name, fps and shape compiles.

    Args:
      name: in `METHODS`.
      rgb: [..., t, 3], mean colour of every frame, finite.
      fps: samples per second, Hz.

    Returns:
      float64 [..., t_out]; CHROM and PBV cut the end, all others keep t.

    Raises:
      KeyError: an unknown name.
      ValueError: another shape, a value that is not finite, or what the method says of length and fps.

    Example:
      A skin whose colour pulses at 1.2 Hz, most in green:

      >>> from sspd_jax.heart_rate.rate import spectral_peak_rate
      >>> pulse = np.sin(2 * np.pi * 1.2 * np.arange(300) / 30)[:, None]
      >>> rgb = np.array([180.0, 130.0, 110.0]) * (1 - 0.005 * pulse * [0.33, 0.77, 0.53])
      >>> round(spectral_peak_rate(read_trace("pos", rgb, fps=30), fps=30))
      72
    """
    rgb = np.asarray(rgb, np.float64)
    missing = np.count_nonzero(~np.isfinite(rgb))
    if missing:
        raise ValueError(f"the colour trace holds {missing} values that are not finite")
    with jax.enable_x64(True), jax.default_device(_cpu()):
        return np.array(_compiled(name, rgb, float(fps)))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _compiled(name: str, rgb: Array, fps: float) -> Array:
    return METHODS[name](rgb, fps)


def _cpu() -> jax.Device | None:
    """Find the CPU: a trace is small, the filters go sample by sample, and a TPU has no float64."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None


def _trace(rgb: ArrayLike) -> Array:
    rgb = jnp.asarray(rgb)
    if rgb.ndim < 2 or rgb.shape[-1] != 3 or rgb.shape[-2] < 1:
        raise ValueError(f"a colour trace has the shape [..., t, 3], got {rgb.shape}")
    # A pulse is less than a step of half precision.
    return rgb if rgb.dtype in (jnp.float32, jnp.float64) else rgb.astype(jnp.result_type(float))


def _still(dtype: np.dtype) -> float:
    """Return the deviation, relative to the mean, below which there is rounding and no pulse."""
    return max(1e-9, 100 * float(jnp.finfo(dtype).eps))


def _window_samples(fps: float) -> int:
    return math.ceil(WINDOW_S * fps)


def _require_window(length: int, samples: int) -> None:
    if samples < length:
        raise ValueError(f"a window of {WINDOW_S} s has {length} samples, the trace only {samples}")


def _half_overlapping(rgb: Array, fps: float) -> Array:
    """Lay half-overlapping windows of an even length side by side, [3, ..., windows, length]."""
    half = math.ceil(_window_samples(fps) / 2)
    *batch, samples, _ = rgb.shape
    _require_window(2 * half, samples)
    blocks = rgb[..., : samples // half * half, :].reshape(*batch, samples // half, half, 3)
    windows = jnp.concatenate([blocks[..., :-1, :, :], blocks[..., 1:, :, :]], axis=-2)
    return jnp.moveaxis(windows, -1, 0)


def _overlap_add(pulses: Array) -> Array:
    """Weigh half-overlapping windows [..., windows, length] by Hann's window and add them to a wave."""
    *batch, windows, length = pulses.shape
    pulses = pulses * jnp.asarray(signal.windows.hann(length), pulses.dtype)
    first, second = jnp.split(pulses, 2, axis=-1)
    edge = jnp.zeros_like(first[..., :1, :])
    blocks = jnp.concatenate([first, edge], axis=-2) + jnp.concatenate([edge, second], axis=-2)
    return blocks.reshape(*batch, (windows + 1) * (length // 2))


def _normalised(windows: Array) -> Array:
    """Divide every colour [3, ..., length] by its mean over the window; no light gives 0."""
    mean = jnp.mean(windows, axis=-1, keepdims=True)
    lit = jnp.all(mean > 0, axis=0)
    return jnp.where(lit, windows / jnp.where(lit, mean, 1), 0)


def _balance(x_spread: Array, y_spread: Array) -> tuple[Array, Array]:
    """Say where two signals move, and return σ(x)/σ(y)."""
    still = _still(x_spread.dtype)
    moves = (x_spread > still) & (y_spread > still)
    return moves, x_spread / jnp.where(moves, y_spread, 1)


def _green_without(rgb: Array, colour: Array) -> Array:
    """Return the green trace [..., t] without its part along a colour, a unit vector [..., 3]."""
    along = jnp.einsum("...ti,...i->...t", rgb, colour, precision="highest")
    left = rgb[..., 1] - along * colour[..., 1:2]
    # What rounding leaves of a constant would have a rate.
    largest = jnp.max(jnp.abs(rgb), axis=(-1, -2))
    moves = jnp.max(jnp.abs(left), axis=-1) > _still(rgb.dtype) * largest
    return jnp.where(moves[..., None], left, 0)


def _most_periodic_source(colours: Array) -> Array:
    """Separate colours [3, t] of unit variance, and return the source with the highest spectral peak."""
    samples = colours.shape[-1]
    sources = _independent_sources(colours)
    # Of the bins above 0, the lower half.
    power = jnp.abs(jnp.fft.rfft(sources, axis=-1)[:, 1 : (samples - 1) // 2 + 1]) ** 2
    total = jnp.sum(power, axis=-1)
    loud = total > _still(total.dtype) * jnp.max(
        total
    )  # where colours depend on each other, a source is empty
    share = jnp.where(loud, jnp.max(power, axis=-1) / jnp.where(loud, total, 1), 0)
    return sources[jnp.argmax(share)]


def _independent_sources(colours: Array) -> Array:
    """Unmix colours [3, t] by JADE; real, so that of the complex one's rotations two angles stay 0."""
    samples = colours.shape[-1]
    dtype = colours.dtype
    product = functools.partial(jnp.matmul, precision="highest")

    # Step 1) whiten: the symmetric inverse square root of the covariance.
    values, vectors = jnp.linalg.eigh(product(colours, colours.T) / samples)
    kept = values > _still(dtype)
    scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
    white = product(product(vectors * scale, vectors.T), colours)

    # Step 2) fourth-order cumulants as a matrix over pairs of colours, and its three strongest eigenmatrices.
    covariance = product(white, white.T) / samples
    pairs = (white[:, None] * white[None, :]).reshape(9, samples)
    cumulants = (product(pairs, pairs.T) / samples).reshape(3, 3, 3, 3)
    for order in ("ij,kl->ijkl", "ik,jl->ijkl", "il,jk->ijkl"):
        cumulants = cumulants - jnp.einsum(order, covariance, covariance, precision="highest")
    values, vectors = jnp.linalg.eigh(cumulants.reshape(9, 9))
    strongest = jnp.argsort(-jnp.abs(values))[:3]
    matrices = (vectors[:, strongest] * jnp.abs(values[strongest])).T.reshape(3, 3, 3)

    # Step 3) rotate two axes at a time until all three matrices are as diagonal as they can be together.
    limit = 0.01 / math.sqrt(samples)

    def sweep(state):
        matrices, rotation, _, sweeps = state
        turned = jnp.zeros((), bool)
        for p, q in ((0, 1), (0, 2), (1, 2)):
            on = matrices[:, p, p] - matrices[:, q, q]
            off = matrices[:, p, q] + matrices[:, q, p]
            angle = jnp.arctan2(2 * jnp.sum(on * off), jnp.sum(on**2) - jnp.sum(off**2)) / 4
            wide = jnp.abs(jnp.sin(angle)) > limit
            angle = jnp.where(wide, angle, 0)
            c, s = jnp.cos(angle), jnp.sin(angle)
            givens = jnp.eye(3, dtype=dtype)
            givens = givens.at[(p, p, q, q), (p, q, p, q)].set(jnp.stack([c, -s, s, c]))
            matrices = product(product(givens.T, matrices), givens)
            rotation = product(rotation, givens)
            turned = turned | wide
        return matrices, rotation, turned, sweeps + 1

    state = (matrices, jnp.eye(3, dtype=dtype), jnp.ones((), bool), 0)
    _, rotation, _, _ = lax.while_loop(lambda state: state[2] & (state[3] < JADE_SWEEPS), sweep, state)
    return product(rotation.T, white)

"""What follows a convolution, normalisation and tanh, with gradients that keep little.

Reverse differentiation keeps every value that a gradient needs. Of each convolution here that is its output
and, as large again, the tanh of it. A function of this module keeps the first alone and computes the second
once more when its gradient is asked for, a block of frames at a time.

`jax.checkpoint` means the same, and is used on GPU and TPU. On CPU XLA finds that the second tanh is the
first, and keeps that one after all; a loop over blocks it cannot take for the expression before. The loops go
from clip to clip, which would cost dearly where clips are spread over accelerators.

Reference: T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv 1604.06174).
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Float32

from sspd_jax.method.layers.chunked import Block, map_blocks, reduce_blocks, replace_blocks
from sspd_jax.method.layers.conv3d import conv3d

EPSILON = 1e-5
"""Added to a variance before its root is taken (PyTorch's)."""

# Values of a block: so many that the loop costs nothing, so few that a sum over a block, value by value in
# float32, loses no digit that counts.
_VALUES_PER_BLOCK = 1 << 20

_IN_BLOCKS_ON = ("cpu",)
"""Backends that are served in blocks of frames; the others by `jax.checkpoint`."""


@flax.struct.dataclass
class Norm:
    """A batch normalisation, by channel.

    Attributes:
      mean: Mean of what it normalises, float32 [c].
      var: Biased variance of that, float32 [c].
      scale: Learned factor, float32 [c].
      bias: Learned offset, float32 [c].
      batch_axis: Name of a mapped axis whose other clips are in the moments too.
    """

    mean: Float32[Array, " c"]
    var: Float32[Array, " c"]
    scale: Float32[Array, " c"]
    bias: Float32[Array, " c"]
    batch_axis: str | None = flax.struct.field(default=None, pytree_node=False)

    def with_fixed_moments(self) -> "Norm":
        """Keep gradients from passing through the moments."""
        return self.replace(mean=lax.stop_gradient(self.mean), var=lax.stop_gradient(self.var))


def normalise(x: Float[Array, "*batch c"], norm: Norm) -> Float[Array, "*batch c"]:
    """Apply a normalisation, in float32, and return the dtype of `x`."""
    factor = norm.scale * lax.rsqrt(norm.var + EPSILON)
    return ((x.astype(jnp.float32) - norm.mean) * factor + norm.bias).astype(x.dtype)


def norm_tanh(x: Float[Array, "*batch c"], norm: Norm) -> Float[Array, "*batch c"]:
    """Normalise and take the tanh."""
    return jnp.tanh(normalise(x, norm))


def variance(x: Float[Array, "n t h w c"], mean: Float32[Array, " c"]) -> Float32[Array, " c"]:
    """Average (x − mean)² by channel, in float32, without an array of these squares.

    Args:
      x: Video, float [n, t, h, w, c].
      mean: Mean of each channel, float32 [c], of `x` and of all else that the average is to be averaged with.

    Returns:
      float32 [c]. It is least at the mean, so its gradient does not pass through that.
    """
    mean = lax.stop_gradient(mean)
    if not _in_blocks():
        return jnp.mean((x.astype(jnp.float32) - mean) ** 2, axis=tuple(range(x.ndim - 1)))
    return _variance(x, mean)


@jax.custom_vjp
def _variance(x: Array, mean: Array) -> Array:
    def add(block: Block, total: Array) -> Array:
        deviation = _cut(x, block, frames).astype(jnp.float32) - mean
        return total + jnp.sum(deviation**2, axis=(0, 1, 2))

    n, t, frames = _sizes(x)
    return reduce_blocks(add, jnp.zeros_like(mean), n, t, frames) / (x.size // x.shape[-1])


def _variance_backward(residuals, cotangent: Array):
    x, mean = residuals
    nothing = jnp.zeros_like(mean)
    return _through_moments(x, mean, nothing, cotangent, x.size).astype(x.dtype), nothing


_variance.defvjp(lambda x, mean: (_variance(x, mean), (x, mean)), _variance_backward)


def _through_moments(x: Array, mean: Array, to_mean: Array, to_var: Array, size: int) -> Array:
    """Pull cotangents of the moments of `size` values back to some of them, in float32."""
    count = size // x.shape[-1]
    return to_mean / count + (x.astype(jnp.float32) - mean) * (2 / count * to_var)


def average_pool(
    x: Float[Array, "n t h w c"], window: tuple[int, int, int]
) -> Float[Array, "n t//{window[0]} h//{window[1]} w//{window[2]} c"]:
    """Average over windows of (time, height, width); what does not fill a window is dropped.

    Args:
      x: Video, float [n, t, h, w, c].
      window: Sizes and strides of the pool.

    Returns:
      float [n, t // window[0], h // window[1], w // window[2], c].
    """
    x = jnp.asarray(x)
    n, *sizes, c = x.shape
    kept = [size // step for size, step in zip(sizes, window, strict=True)]
    x = x[:, : kept[0] * window[0], : kept[1] * window[1], : kept[2] * window[2]]
    split = [length for pair in zip(kept, window, strict=True) for length in pair]
    return jnp.mean(x.reshape(n, *split, c), axis=(2, 4, 6))


def norm_tanh_conv3d(
    x: Float[Array, "n t h w c"],
    norm: Norm,
    kernel: Float[Array, "kt kh kw c c_out"],
    *,
    form: str,
    tanh: bool = True,
) -> Float[Array, "n t _ _ c_out"]:
    """Convolve what `norm_tanh` gives, and keep only `x` for the gradient.

    Args:
      x: What a convolution gave, or video, float [n, t, h, w, c].
      norm: Its normalisation by its own moments, whose share of the gradient to `x` is in that.
      kernel: Kernel of the next convolution, see `conv3d`; around the video there are as many zero frames
        as a kernel of three needs.
      form: Form of the convolution, a name in `conv3d.FORMS`.
      tanh: Whether to apply tanh; if not, what `normalise` gives is convolved.

    Returns:
      What `conv3d(norm_tanh(x, norm), kernel, form=form)` does.
    """
    function = norm_tanh if tanh else normalise
    if not _in_blocks():
        return jax.checkpoint(lambda x, norm, kernel: conv3d(function(x, norm), kernel, form=form))(
            x, norm, kernel
        )
    return _conv(x, norm.with_fixed_moments(), kernel, function, form)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _conv(x: Array, norm: Norm, kernel: Array, function, form: str) -> Array:
    return conv3d(function(x, norm), kernel, form=form)


def _conv_forward(x: Array, norm: Norm, kernel: Array, *static: Any):
    return _conv(x, norm, kernel, *static), (x, norm, kernel)


def _conv_backward(function, form: str, residuals, cotangent: Array):
    x, norm, kernel = residuals
    n, t, frames = _sizes(x)
    # Made from the cotangent, so that it cannot be computed before the gradient is asked for; from its end,
    # because the convolution's gradient may be made from its beginning, and XLA would make one and copy it.
    last = cotangent[-1:, -1:, -1:, -1:, -1:]
    again = map_blocks(lambda block: function(_cut(x, block, frames), norm), n, t, frames, source=last)
    _, pull_back = jax.vjp(lambda y, k: conv3d(y, k, form=form), again, kernel)
    to_input, to_kernel = pull_back(cotangent)
    return *_pull_back(function, x, norm, to_input), to_kernel


_conv.defvjp(_conv_forward, _conv_backward)


def norm_tanh_pool(x: Float[Array, "n t h w c"], norm: Norm) -> Float[Array, "n t h//2 w//2 c"]:
    """Average what `norm_tanh` gives over 2 × 2 pixels, and keep only `x` for the gradient.

    Args:
      x: What a convolution gave, float [n, t, h, w, c].
      norm: See `norm_tanh_conv3d`.

    Returns:
      What `average_pool(norm_tanh(x, norm), (1, 2, 2))` does.
    """
    if not _in_blocks():
        return jax.checkpoint(lambda x, norm: average_pool(norm_tanh(x, norm), (1, 2, 2)))(x, norm)
    return _pool(x, norm.with_fixed_moments())


@jax.custom_vjp
def _pool(x: Array, norm: Norm) -> Array:
    n, t, frames = _sizes(x)  # XLA on CPU would take the tanh of the whole before it averages
    return map_blocks(lambda block: _pool_block(_cut(x, block, frames), norm), n, t, frames, source=x)


def _pool_backward(residuals, cotangent: Array):
    return _pull_back(_pool_block, *residuals, cotangent)


_pool.defvjp(lambda x, norm: (_pool(x, norm), (x, norm)), _pool_backward)


def _pool_block(frames: Float[Array, "t h w c"], norm: Norm) -> Float[Array, "t h//2 w//2 c"]:
    return average_pool(norm_tanh(frames, norm)[None], (1, 2, 2))[0]


def _in_blocks() -> bool:
    return jax.default_backend() in _IN_BLOCKS_ON


def _sizes(x: Array) -> tuple[int, int, int]:
    """Return the numbers of clips, frames of a clip, and frames of a block."""
    n, t = x.shape[:2]
    most = max(1, _VALUES_PER_BLOCK * n * t // x.size)
    return n, t, max(d for d in range(1, min(most, t) + 1) if t % d == 0)


def _cut(x: Array, block: Block, frames: int) -> Array:
    return lax.dynamic_slice(x, (*block, 0, 0, 0), (1, frames, *x.shape[2:]))[0]


def _pull_back(function, x: Array, norm: Norm, cotangent: Array) -> tuple[Array, Norm]:
    """Pull the cotangent of `function(frames, norm)` back, block by block, to its two arguments.

    To `x` directly and through the moments, which takes a first pass; an array of what goes one way would be
    as large as `x`.
    """
    n, t, frames = _sizes(x)
    # What goes to `x` takes the place of what is as large and not needed again.
    takes_cotangent = cotangent.shape == x.shape

    def pull(values: Array, of_block: Array) -> tuple[Array, Norm]:
        _, pull_back = jax.vjp(function, values, norm)
        return pull_back(of_block)

    def direct_and_through_moments(replaced: Array, block: Block) -> Array:
        if takes_cotangent:
            values, of_block = _cut(x, block, frames), replaced
        else:
            values, of_block = replaced, _cut(cotangent, block, frames)
        through = _through_moments(values, norm.mean, to_mean, to_var, x.size)
        return (pull(values, of_block)[0].astype(jnp.float32) + through).astype(x.dtype)

    def add(block: Block, total: Norm) -> Norm:
        to_norm = pull(_cut(x, block, frames), _cut(cotangent, block, frames))[1]
        return jax.tree.map(jnp.add, total, to_norm)

    nothing = jax.tree.map(jnp.zeros_like, norm)
    to_norm = reduce_blocks(add, nothing, n, t, frames)
    to_mean, to_var = to_norm.mean, to_norm.var
    if norm.batch_axis is not None:
        to_mean, to_var = lax.pmean((to_mean, to_var), norm.batch_axis)
    to_x = replace_blocks(direct_and_through_moments, cotangent if takes_cotangent else x, frames)
    return to_x, to_norm.replace(mean=nothing.mean, var=nothing.var)

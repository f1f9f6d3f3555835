"""The network on video without an end: every difference goes through every layer once.

Inferring in overlapping windows would compute the overlap twice, and the halo (24 differences of the
published network) is about as long as what a second adds. Here each convolution in time keeps the two frames
that its next output needs; the wave is that of one pass over the whole video, to rounding.
"""

import functools
import operator

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, Int

from sspd_jax.method import architecture, network
from sspd_jax.method.settings import Floats, NetworkSettings

ConvState = tuple[ArrayLike, ...]
"""The last two input frames of every convolution that spans three."""

ENDLESS = np.int32(np.iinfo(np.int32).max - 1)
"""Number of differences of a video whose end has not come."""


def lag(settings: NetworkSettings) -> int:
    """Count the differences that must follow the one between whose frames a sample of the wave lies."""
    return architecture.lag(settings.layers)


def begin(settings: NetworkSettings) -> ConvState:
    """Return the state before the first difference: the zeros that pad it in time.

    Args:
      settings: Sizes and variants of the network.

    Returns:
      For each convolution that spans three frames, zeros [1, 2, h, w, c] of the network's dtype.
    """
    layers, dtype = settings.layers, jnp.dtype(settings.dtype)
    return tuple(
        np.zeros((1, 2, side, side, channels), dtype)
        for layer, (side, channels) in zip(
            layers, architecture.input_shapes(layers, settings.input_size), strict=True
        )
        if layer.time_padding
    )


def advance(
    settings: NetworkSettings,
    params: Floats,
    batch_stats: Floats,
    state: ConvState,
    video: Float[ArrayLike, "1 t h w 3"],
    start: Int[ArrayLike, ""],
    end: Int[ArrayLike, ""] = ENDLESS,
) -> tuple[ConvState, Float32[Array, "1 t"]]:
    """Infer the next samples of the wave, in evaluation mode.

    Args:
      settings: Sizes and variants of the network.
      params: Its parameters; those of the TS blocks may be absent.
      batch_stats: Its running statistics.
      state: What the call before returned, or `begin`.
      video: The next frame differences, float [1, t, h, w, 3], RGB; t even.
      start: Number of the first of them, the sum of t over the calls before.
      end: Number of differences in the whole video, even; what is given from there on counts as nothing, and
        `lag(settings)` or more of it bring out the last samples.

    Returns:
      The next state, and the samples start − lag … start − lag + t − 1 of the wave; those below 0, and
      from `end` on, mean nothing.

    Raises:
      ValueError: The number of differences t is odd.
    """
    if jnp.shape(video)[1] % 2:
        raise ValueError(
            f"an even number of difference frames must be read at once, not {jnp.shape(video)[1]}"
        )
    before, after = iter(state), []
    x, first = jnp.asarray(video, settings.dtype), start  # `first` is the number of the first frame in x

    def apply(module, part, name, x, **more):
        weights, statistics = part
        return module.apply({"params": weights[name], "batch_stats": statistics.get(name, {})}, x, **more)

    def within(x, first, end):
        # What comes before and after the video is padding for a layer: zero, not the last layer's answer to
        # zeros.
        at = jnp.arange(x.shape[1]) + first
        inside = (at >= 0) & (at < end)
        return jnp.where(inside[:, None, None, None], x, jnp.zeros((), x.dtype))

    params, batch_stats = network.fold_norms(params, batch_stats)
    backbone = (params["backbone"], batch_stats["backbone"])
    x = within(apply(network.BatchNorm(), backbone, "input_norm", x, train=False), first, end)
    for layer in settings.layers:
        part = tuple(functools.reduce(operator.getitem, layer.path, tree) for tree in (params, batch_stats))
        if layer.time_padding:  # the state takes the place of the padding; what comes out is a frame late
            x, first = jnp.concatenate([next(before), x], axis=1), first - 1
            after.append(x[:, -2:])
        x = apply(network.Conv3d(layer, settings.conv, pad_time=False), part, layer.conv, x)
        if layer.norm:
            x = jnp.tanh(apply(network.BatchNorm(), part, layer.norm, x, train=False))
            # Before a pool of pairs x is an even number of frames late: pairs stay pairs.
            x = network.resize(within(x, first, end), layer)
            first, end = (number // layer.pool[0] * layer.repeat for number in (first, end))
    return tuple(after), x[:, :, 0, 0, 0]

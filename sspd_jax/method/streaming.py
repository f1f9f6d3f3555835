"""The network on video without an end: every difference goes through every layer once.

Reading in overlapping windows computes the overlap twice, and the halo (24 differences of the published
network) is about as long as what a second adds. Here each convolution in time keeps the two frames that its
next output needs; the wave is that of one pass over the whole video, to rounding.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, Int, PyTree

from sspd_jax.method import network
from sspd_jax.method.layers.norm_tanh import average_pool
from sspd_jax.method.settings import NetworkSettings

Floats = PyTree[Float32[ArrayLike, "..."]]
ConvState = tuple[ArrayLike, ...]
"""The last two input frames of every convolution that spans three."""

ENDLESS = np.int32(np.iinfo(np.int32).max - 1)
"""Number of differences of a video whose end has not come."""


def lag(settings: NetworkSettings) -> int:
    """Say how many differences must follow the one between which two frames a sample of the wave lies.

    One for each convolution of the backbone and for the predictor's first and last, two for the one between
    them, which sees pairs.
    """
    return 2 * len(settings.stages) + 1 + 4


def begin(settings: NetworkSettings) -> ConvState:
    """Return what is held before the first difference: the zeros that pad it in time.

    Args:
      settings: of the network.

    Returns:
      For each convolution of backbone and predictor that spans three frames, [1, 2, h, w, c].
    """
    shapes, size, channels = [], settings.input_size, 3
    for first, second in settings.stages:
        shapes += [(size, channels), (size - 4, first)]
        size, channels = (size - 6) // 2, second
    shapes.append((size, channels))
    size, width = size - 2, settings.predictor_width
    shapes += [(size, settings.features), (size // 2, width), (size // 2 - 2, width)]
    return tuple(np.zeros((1, 2, side, side, depth), jnp.dtype(settings.dtype)) for side, depth in shapes)


def advance(
    settings: NetworkSettings,
    params: Floats,
    batch_stats: Floats,
    held: ConvState,
    video: Float[ArrayLike, "1 t h w 3"],
    start: Int[ArrayLike, ""],
    end: Int[ArrayLike, ""] = ENDLESS,
) -> tuple[ConvState, Float32[Array, "1 t"]]:
    """Read the next differences, in evaluation mode.

    Args:
      settings: of the network.
      params: its parameters; those of the TS blocks may be absent.
      batch_stats: its running statistics.
      held: what the call before returned, or `begin`.
      video: float [1, t, h, w, 3], the next differences, RGB; t even.
      start: number of the first of them, the sum of t over the calls before.
      end: number of differences in the whole video, even; what is given from there on counts as nothing, and
        `lag(settings)` or more of it bring out the last samples.

    Returns:
      What is held now, and the samples start − lag … start − lag + t − 1 of the wave; those below 0, and
      from `end` on, mean nothing.

    Raises:
      ValueError: t is odd.
    """
    if jnp.shape(video)[1] % 2:
        raise ValueError(
            f"an even number of difference frames must be read at once, not {jnp.shape(video)[1]}"
        )
    before, after = iter(held), []
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

    def convolve(part, conv, norm, x, first, end, features, window):
        """Convolve, normalise and squash frames `first` …: as many, from first − 1 on."""
        x = jnp.concatenate([next(before), x], axis=1)
        after.append(x[:, -2:])
        x = apply(network.Conv3d(features, (3, *window), settings.conv, time_padding=0), part, conv, x)
        x = jnp.tanh(apply(network.BatchNorm(), part, norm, x, train=False))
        return within(x, first - 1, end), first - 1

    params, batch_stats = network.fold_norms(params, batch_stats)
    backbone, predictor = ((params[name], batch_stats[name]) for name in ("backbone", "predictor"))
    x = within(apply(network.BatchNorm(), backbone, "input_norm", x, train=False), first, end)
    for number, (narrow, wide) in enumerate(settings.stages, 1):
        stage = tuple(tree[f"stage{number}"] for tree in backbone)
        x, first = convolve(stage, "conv1", "norm1", x, first, end, narrow, (5, 5))
        x, first = convolve(stage, "conv2", "norm2", x, first, end, wide, (3, 3))
        x = average_pool(x, (1, 2, 2))
    final = tuple(tree["final"] for tree in backbone)
    x, first = convolve(final, "conv", "norm", x, first, end, settings.features, (3, 3))

    width = settings.predictor_width
    x, first = convolve(predictor, "conv1", "norm1", x, first, end, width, (1, 1))
    # The convolutions so far are even in number, and x an even number of frames late: pairs stay pairs.
    x, first = average_pool(x, (2, 2, 2)), first // 2
    x, first = convolve(predictor, "conv2", "norm2", x, first, end // 2, width, (3, 3))
    x, first = jnp.repeat(x, 2, axis=1), first * 2
    x, first = convolve(predictor, "conv3", "norm3", x, first, end, width, (1, 1))
    x = jnp.mean(x.astype(jnp.float32), axis=(2, 3), keepdims=True)
    last = network.Conv3d(1, (1, 1, 1), settings.conv, time_padding=0, use_bias=True)
    return tuple(after), apply(last, predictor, "conv4", x)[:, :, 0, 0, 0]

"""The network: a 3-D convolutional backbone, a wave predictor, and temporal-similarity blocks.

Online and target network are this one module with two sets of parameters and statistics. Video is
[n, t, h, w, 3], RGB frame differences in intensity levels; the network's first BatchNorm is the only
normalisation. F2 is the backbone's last map, F1 its spatial mean. The predictor reads
stop_gradient(F2), so nothing that is asked of the wave can change the backbone; the temporal-similarity
(TS) blocks read F1 and exist in training only.

Reference: Zhang et al. 2024 (arXiv 2311.05100), and the authors' released network, whose sizes are the
defaults.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, PRNGKeyArray, PyTree

from sspd_jax.method.architecture import NO_POOL, Layer, modules
from sspd_jax.method.layers.conv3d import conv3d
from sspd_jax.method.layers.norm_tanh import (
    EPSILON,
    Norm,
    average_pool,
    norm_tanh,
    norm_tanh_conv3d,
    norm_tanh_pool,
    normalise,
    variance,
)
from sspd_jax.method.outputs import NetworkOutput, similarity_outputs
from sspd_jax.method.settings import Floats, NetworkSettings

# Kernels are Xavier-normal, untruncated, as PyTorch's.
_XAVIER_NORMAL = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


class BatchNorm(nn.Module):
    """Batch normalisation over all but the channels, with PyTorch's running statistics.

    The running variance averages the *unbiased* batch variance, which `flax.linen.BatchNorm` does not,
    and variances are computed in two passes: one pass loses digits where the mean is large. Statistics
    are float32 whatever the input's dtype.

    Attributes:
      momentum: Weight of the batch in the running average (PyTorch's convention).
      batch_axis: Name of a mapped axis (`jax.pmap`'s) that the batch is spread over in equal parts.
    """

    momentum: float = 0.1
    batch_axis: str | None = None

    def __call__(self, x: Float[Array, "n t h w c"], *, train: bool) -> Float[Array, "n t h w c"]:
        """Normalise by the batch (`train`) or by the running statistics."""
        return normalise(x, self.norm(x, train=train))

    @nn.compact
    def norm(self, x: Float[Array, "n t h w c"], *, train: bool) -> Norm:
        """Compute how `x` is normalised, and average it into the running statistics (`train`)."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = self._over_parts(jnp.mean(x.astype(jnp.float32), axis=axes))
            var = self._over_parts(variance(x, mean))
            if not self.is_initializing():
                parts = 1 if self.batch_axis is None else jax.lax.axis_size(self.batch_axis)
                count = x.size // channels * parts
                keep = 1 - self.momentum
                running_mean.value = keep * running_mean.value + self.momentum * mean
                unbiased = var * (count / (count - 1))
                running_var.value = keep * running_var.value + self.momentum * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        return Norm(mean, var, scale, bias, self.batch_axis)

    def _over_parts(self, mean: Float32[Array, " c"]) -> Float32[Array, " c"]:
        return mean if self.batch_axis is None else jax.lax.pmean(mean, self.batch_axis)


class Conv3d(nn.Module):
    """The 3-D convolution of a layer, see `conv3d`; with a bias where no normalisation follows.

    Attributes:
      layer: Its kernel and channels.
      form: How it is computed, see `conv3d`.
      pad_time: Whether zero frames are added before and after.
    """

    layer: Layer
    form: str
    pad_time: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t h w c"], norm: Norm | None = None, *, tanh: bool = True
    ) -> Float[Array, "n _ _ _ {self.layer.features}"]:
        """Convolve `x`, or what `norm_tanh_conv3d` makes of it where a norm is given."""
        shape = (*self.layer.kernel, x.shape[-1], self.layer.features)
        kernel = self.param("kernel", _XAVIER_NORMAL, shape).astype(x.dtype)
        if norm is not None:
            return norm_tanh_conv3d(x, norm, kernel, form=self.form, tanh=tanh)
        padding = self.layer.time_padding if self.pad_time else 0
        y = conv3d(x, kernel, time_padding=padding, form=self.form)
        if not self.layer.norm:
            y = y + self.param("bias", nn.initializers.zeros, shape[-1:]).astype(x.dtype)
        return y


def resize(x: Float[Array, "n t h w c"], layer: Layer) -> Float[Array, "n _ _ _ c"]:
    """Pool, repeat or average what a layer's tanh gives, as the layer asks for."""
    if layer.pool != NO_POOL:
        x = average_pool(x, layer.pool)
    if layer.repeat > 1:
        x = jnp.repeat(x, layer.repeat, axis=1)
    if layer.spatial_mean:
        x = jnp.mean(x.astype(jnp.float32), axis=(2, 3), keepdims=True)
    return x


class Stage(nn.Module):
    """Layers in a row: each convolved, normalised, taken the tanh of, and resized.

    Attributes:
      settings: Sizes and variants of the network.
      layers: Names of parameters, kernels, pools.
      batch_axis: See `BatchNorm`.
    """

    settings: NetworkSettings
    layers: tuple[Layer, ...]
    batch_axis: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t h w c"], norm: Norm | None = None, *, train: bool
    ) -> Float[Array, "n t _ _ {self.layers[-1].features}"]:
        """Pass `x` through the layers, or what a norm, without a tanh, makes of it."""
        # What keeps little for the gradient fuses a norm with the convolution or the pool that follows it.
        fuses = self.settings.rematerialise and train and self.layers[-1].pool == (1, 2, 2)
        if norm is not None and not fuses:
            x, norm = normalise(x, norm), None
        for number, layer in enumerate(self.layers):
            x = Conv3d(layer, self.settings.conv, name=layer.conv)(x, norm, tanh=number > 0)
            if not layer.norm:
                continue
            norm = BatchNorm(name=layer.norm, batch_axis=self.batch_axis).norm(x, train=train)
            if not fuses:
                x, norm = resize(norm_tanh(x, norm), layer), None
        return x if norm is None else norm_tanh_pool(x, norm)


class Backbone(nn.Module):
    """Frame differences → F2."""

    settings: NetworkSettings
    batch_axis: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[ArrayLike, "n t h w 3"], *, train: bool
    ) -> Float[Array, "n t _ _ {self.settings.features}"]:
        """Compute F2 of frame differences."""
        x = jnp.asarray(x, self.settings.dtype)
        norm = BatchNorm(name="input_norm", batch_axis=self.batch_axis).norm(x, train=train)
        for (_, name), layers in modules(self.settings.layers, "backbone"):
            x = Stage(self.settings, layers, self.batch_axis, name=name)(x, norm, train=train)
            norm = None
        return x


class Predictor(nn.Module):
    """F2 → wave: float32 [n, t]; t must be even."""

    settings: NetworkSettings
    batch_axis: str | None = None

    def setup(self):
        """Let the layers' parameters be the predictor's own."""
        ((_, layers),) = modules(self.settings.layers, "predictor")
        self.layers = Stage(self.settings, layers, self.batch_axis)
        nn.share_scope(self, self.layers)

    def __call__(self, f2: Float[Array, "n t h w c"], *, train: bool) -> Float32[Array, "n t"]:
        """Compute the wave of F2."""
        if f2.shape[1] % 2:
            raise ValueError(f"the predictor needs an even number of difference frames, not {f2.shape[1]}")
        return self.layers(f2, train=train)[:, :, 0, 0, 0]


def attend(
    query: Float[ArrayLike, "n t c"],
    key: Float[ArrayLike, "n t c"],
    value: Float[ArrayLike, "n t c"],
    *,
    heads: int,
    scale: float,
) -> Float[Array, "n t c"]:
    """Attend without a softmax: (Q Kᵀ / s) V for each head, heads concatenated.

    Without a softmax the products may be taken in the other order, Q (Kᵀ V) / s, which costs t·c²
    instead of t²·c and keeps no t × t matrix.

    Args:
      query: Queries Q, float [n, t, c].
      key: Keys K, float [n, t, c].
      value: Values V, float [n, t, c].
      heads: Number of heads; head h takes channels [h·c/heads, (h+1)·c/heads).
      scale: Divisor s of the products.

    Returns:
      float [n, t, c].
    """
    query, key, value = (jnp.reshape(x, (*jnp.shape(x)[:2], heads, -1)) for x in (query, key, value))
    memory = jnp.einsum("nthc,nthd->nhcd", key, value) / scale
    out = jnp.einsum("nthc,nhcd->nthd", query, memory)
    return out.reshape(*out.shape[:2], -1)


def _nearest_resize(x: Float[Array, "n t c"], length: int) -> Float[Array, "n {length} c"]:
    """Resize [n, t, c] in time, taking index floor(i·t/length) as PyTorch's nearest does."""
    return x[:, [i * x.shape[1] // length for i in range(length)]]


class TemporalSimilarity(nn.Module):
    """One TS block: (A, output) of an input [n, t, c]."""

    settings: NetworkSettings
    index: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t c"]
    ) -> tuple[Float[Array, "n t_out c"], Float[Array, "n t_out c"]]:
        """Compute A and the output."""
        s = self.settings
        kernel, stride, c = s.ts_kernels[self.index], s.ts_strides[self.index], s.features

        def linear(name: str, *, bias: bool = True):
            return nn.Dense(c, use_bias=bias, kernel_init=_XAVIER_NORMAL, dtype=x.dtype, name=name)

        e = nn.Conv(
            c, (kernel,), stride, padding="VALID", kernel_init=_XAVIER_NORMAL, dtype=x.dtype, name="embed"
        )(x)
        norm = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, name="norm")
        e = norm(e.astype(jnp.float32)).astype(x.dtype)
        t = e.shape[1]
        a = attend(
            linear("query")(e),
            linear("key")(e),
            linear("value")(e),
            heads=s.ts_heads,
            scale={"keys": t, "channels": c}[s.ts_attention_scale],
        )
        if s.ts_projection == "tanh":
            a = jnp.tanh(linear("proj")(a))
        else:
            a = linear("proj", bias=False)(a)
        residual = {"input": lambda: _nearest_resize(x, t), "embedding": lambda: e}[s.ts_residual]()
        return a, residual + a


class SimilarityBlocks(nn.Module):
    """F1 → the features A_i of every scale."""

    settings: NetworkSettings

    @nn.compact
    def __call__(self, f1: Float[Array, "n t c"]) -> tuple[Float[Array, "n _ c"], ...]:
        """Compute A_i of every scale of F1."""
        features = []
        x = f1
        for i in range(len(self.settings.ts_kernels)):
            a, x = TemporalSimilarity(self.settings, i, name=f"block{i + 1}")(x)
            features.append(a)
        return tuple(features)


class Network(nn.Module):
    """The whole network.

    Attributes:
      settings: Sizes and variants.
      batch_axis: See `BatchNorm`.
    """

    settings: NetworkSettings
    batch_axis: str | None = None

    def setup(self):
        """Name the three parts that `param_labels` tells apart."""
        self.backbone = Backbone(self.settings, self.batch_axis)
        self.predictor = Predictor(self.settings, self.batch_axis)
        self.ts = SimilarityBlocks(self.settings)

    def __call__(
        self, video: Float[ArrayLike, "n t h w 3"], *, train: bool
    ) -> tuple[Float32[Array, "n t"], tuple[Float[Array, "n _ {self.settings.features}"], ...]]:
        """Compute the wave and the features A_i."""
        f2 = self.backbone(video, train=train)
        features = self.ts(jnp.mean(f2, axis=(2, 3)))
        seen = jax.lax.stop_gradient(f2) if self.settings.predictor_isolated else f2
        return self.predictor(seen, train=train), features

    def wave(self, video: Float[ArrayLike, "n t h w 3"]) -> Float32[Array, "n t"]:
        """Compute the wave alone, in evaluation mode, without the TS blocks."""
        return self.predictor(self.backbone(video, train=False), train=False)


def abstract_variables(
    settings: NetworkSettings,
) -> tuple[PyTree[jax.ShapeDtypeStruct], PyTree[jax.ShapeDtypeStruct]]:
    """Compute the shapes and dtypes of a network's trees without making them.

    Args:
      settings: Sizes and variants of the network.

    Returns:
      Parameters and batch statistics, two nested dicts of `jax.ShapeDtypeStruct`.
    """
    return jax.tree.map(lambda leaf: leaf, _abstract_variables(settings))  # the caller's own dicts


@functools.cache
def _abstract_variables(settings: NetworkSettings) -> tuple[PyTree, PyTree]:
    """Trace a network once for all checkpoints of its kind: it takes longer than reading one."""
    # Long enough for every scale; no parameter depends on it.
    n_frames = 2 * sum(settings.ts_kernels) * math.prod(settings.ts_strides)
    video = jax.ShapeDtypeStruct((1, n_frames, settings.input_size, settings.input_size, 3), jnp.float32)
    network = Network(dataclasses.replace(settings, conv="direct"))  # the form that is traced fastest
    variables = jax.eval_shape(lambda v: network.init(jax.random.key(0), v, train=True), video)
    return variables["params"], variables["batch_stats"]


def init_variables(settings: NetworkSettings, key: PRNGKeyArray) -> tuple[Floats, Floats]:
    """Draw fresh parameters: Xavier-normal kernels, zero biases, norms at the identity.

    All kernels are cut out of one draw. A draw for each, as `Network.init` makes them, takes half a
    minute of compilation on a small CPU.

    Args:
      settings: Sizes and variants of the network.
      key: A JAX random key.

    Returns:
      Parameters and batch statistics, two nested dicts of float32.
    """
    params, batch_stats = abstract_variables(settings)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    drawn = jax.random.normal(key, (sum(math.prod(leaf.shape) for _, leaf in leaves),))
    values, start = [], 0
    for path, leaf in leaves:
        end = start + math.prod(leaf.shape)
        kind = path[-1].key
        if kind == "kernel":
            *window, fan_in, fan_out = leaf.shape
            deviation = math.sqrt(2 / (math.prod(window) * (fan_in + fan_out)))
            values.append(drawn[start:end].reshape(leaf.shape) * deviation)
        else:
            values.append(jnp.full(leaf.shape, {"scale": 1.0, "bias": 0.0}[kind], jnp.float32))
        start = end
    fresh = {"mean": jnp.zeros, "var": jnp.ones}
    batch_stats = jax.tree_util.tree_map_with_path(lambda p, leaf: fresh[p[-1].key](leaf.shape), batch_stats)
    return jax.tree_util.tree_unflatten(treedef, values), batch_stats


def forward(
    settings: NetworkSettings,
    params: Floats,
    batch_stats: Floats,
    video: Float[ArrayLike, "n t h w 3"],
    *,
    batch_axis: str | None = None,
) -> tuple[NetworkOutput, Floats]:
    """Infer wave and self-similarities of a view in training mode.

    Args:
      settings: Sizes and variants of the network.
      params: Its parameters.
      batch_stats: Its running statistics.
      video: Frame differences in intensity levels, float [n, t, h, w, 3], RGB; t even.
      batch_axis: Name of a mapped axis that holds the batch's other clips, whose statistics count too.

    Returns:
      The output, and the statistics after this batch.

    Example:
      Two clips of 24 differences. The first scale's kernel, 5 wide, has 20 places in them; the second's, 3
      wide, has 9 in those at stride 2:

      >>> small = {"input_size": 22, "stages": ((4, 4),), "features": 8}
      >>> settings = NetworkSettings(**small, ts_kernels=(5, 3), ts_strides=(1, 2))
      >>> video = jax.ShapeDtypeStruct((2, 24, 22, 22, 3), jnp.float32)
      >>> variables = abstract_variables(settings)
      >>> output, _ = jax.eval_shape(lambda *arrays: forward(settings, *arrays), *variables, video)
      >>> output.wave.shape, [ssm.shape for ssm in output.ssm]
      ((2, 24), [(2, 20, 20), (2, 9, 9)])
    """
    (wave, features), updated = Network(settings, batch_axis=batch_axis).apply(
        {"params": params, "batch_stats": batch_stats}, video, train=True, mutable=["batch_stats"]
    )
    return similarity_outputs(wave, features, settings.relative_rates), updated["batch_stats"]


def infer_wave(
    settings: NetworkSettings,
    params: Floats,
    batch_stats: Floats,
    video: Float[ArrayLike, "n t h w 3"],
) -> Float32[Array, "n t"]:
    """Infer the wave of a video in evaluation mode.

    Args:
      settings: Sizes and variants of the network.
      params: Its parameters; those of the TS blocks may be absent.
      batch_stats: Its running statistics.
      video: Frame differences in intensity levels, float [n, t, h, w, 3], RGB; t even.

    Returns:
      The pulse wave, float32 [n, t].
    """
    params, batch_stats = fold_norms(params, batch_stats)
    variables = {"params": params, "batch_stats": batch_stats}
    return Network(settings).apply(variables, video, method="wave")


def fold_norms(params: Floats, batch_stats: Floats) -> tuple[Floats, Floats]:
    """Fold every normalisation that follows a convolution into its kernel, for evaluation.

    Args:
      params: Parameters of a network, or of a part of it.
      batch_stats: Its running statistics.

    Returns:
      Trees of the same structure that infer the same: kernels times what their channels were scaled by, and
      normalisations that only shift.
    """
    params, batch_stats = dict(params), dict(batch_stats)
    for name in sorted(params.keys() & batch_stats.keys()):  # the order is part of what is compiled
        conv = name.replace("norm", "conv")
        if "mean" not in batch_stats[name]:
            params[name], batch_stats[name] = fold_norms(params[name], batch_stats[name])
        elif conv in params:
            norm, running = params[name], batch_stats[name]
            factor = norm["scale"] * jax.lax.rsqrt(running["var"] + EPSILON)
            params[conv] = {**params[conv], "kernel": params[conv]["kernel"] * factor}
            # Mean and bias stay apart: their difference, rounded, would lose digits of both.
            params[name] = {"scale": jnp.ones_like(factor), "bias": norm["bias"]}
            batch_stats[name] = {
                "mean": running["mean"] * factor,
                "var": jnp.full_like(factor, 1 - EPSILON),
            }
    return params, batch_stats

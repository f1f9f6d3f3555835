"""Sizes and variants of the network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jax.typing import ArrayLike
from jaxtyping import Float32, PyTree

from sspd_jax.errors import ConfigError, did_you_mean
from sspd_jax.method import architecture
from sspd_jax.method.input_transform import INPUT_TRANSFORMS
from sspd_jax.method.layers.conv3d import FORMS

Floats = PyTree[Float32[ArrayLike, "..."]]
"""Parameters or statistics: nested dicts of float32 arrays."""

_CHOICES = {
    "ts_attention_scale": ("keys", "channels"),
    "ts_projection": ("tanh", "linear"),
    "ts_residual": ("input", "embedding"),
    "conv": FORMS,
    "dtype": ("float32", "bfloat16"),
    "input_transform": (*INPUT_TRANSFORMS,),
}

FPS = 30.0
"""Frame rate in Hz of the clips that the published network learned from."""

CROP_SIZE = 151
"""Height and width in pixels of the face crops that its views were made from."""


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Sizes and variants of the network; the defaults are the released ones.

    Attributes:
      input_size: Height and width of the video in pixels.
      stages: Channels of the two convolutions (3×5×5, 3×3×3) of each stage before its pool.
      features: Number of channels of F2 and F1.
      predictor_width: Number of channels inside the predictor.
      ts_kernels: Width in samples of each TS block's embedding; their number is L.
      ts_strides: Stride of each embedding; every stride divides the rate of all later scales.
      ts_heads: Number of attention heads; it divides `features`.
      ts_attention_scale: 'keys' divides Q Kᵀ by the number of keys (released), 'channels' by C (paper).
      ts_projection: 'tanh' for tanh(Linear(A')) (released), 'linear' for A'W (paper).
      ts_residual: 'input' adds the resized block input (released), 'embedding' adds E (paper).
      input_transform: What is made of each two frames before the network sees them, a name in
        `input_transform.INPUT_TRANSFORMS`.
      predictor_isolated: Whether the wave's losses stop at the predictor, as published; if not, they move the
        backbone too.
      conv: Form of the convolutions, see `conv3d`.
      dtype: Compute dtype, 'float32' or 'bfloat16'; parameters, statistics, spectra and losses stay
        float32. With 'bfloat16' the golden wave is within 0.9 % of its largest value, and the similarity
        waves of the three scales are within 0.7, 3 and 9.5 %, the worst of four instruction sets (SSE4.2 to
        AVX512).
      rematerialise: Whether the stages keep less for their gradients and compute it again, see `norm_tanh`.
    """

    input_size: int = 128
    stages: tuple[tuple[int, int], ...] = ((8, 16), (16, 32), (32, 64))
    features: int = 256
    predictor_width: int = 64
    ts_kernels: tuple[int, ...] = (9, 7, 5)
    ts_strides: tuple[int, ...] = (1, 1, 1)
    ts_heads: int = 2
    ts_attention_scale: str = "keys"
    ts_projection: str = "tanh"
    ts_residual: str = "input"
    input_transform: str = "difference"
    predictor_isolated: bool = True
    conv: str = "auto"
    dtype: str = "float32"
    rematerialise: bool = True

    def __post_init__(self):
        object.__setattr__(self, "stages", tuple(tuple(pair) for pair in self.stages))
        object.__setattr__(self, "ts_kernels", tuple(self.ts_kernels))
        object.__setattr__(self, "ts_strides", tuple(self.ts_strides))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {allowed}")
        for name in ("predictor_isolated", "rematerialise"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be True or False")
        widths = [self.features, self.predictor_width, *self.ts_kernels, *self.ts_strides, self.ts_heads]
        for size in (self.input_size, *(c for pair in self.stages for c in pair), *widths):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{size!r} among the network's sizes is no whole number ≥ 1")
        if not self.stages or any(len(pair) != 2 for pair in self.stages):
            raise ValueError(f"stages {self.stages} must be pairs of channels, at least one")
        if len(self.ts_kernels) != len(self.ts_strides) or not self.ts_kernels:
            raise ValueError(
                f"ts_kernels {self.ts_kernels} and ts_strides {self.ts_strides} must be as many, at least one"
            )
        if self.features % self.ts_heads:
            raise ValueError(f"ts_heads {self.ts_heads} does not divide features {self.features}")
        smallest = architecture.smallest_input(self.layers)
        if self.input_size < smallest:
            raise ValueError(
                f"input_size {self.input_size} does not fit {len(self.stages)} stages: "
                f"{smallest} and every larger size do"
            )

    @property
    def relative_rates(self) -> tuple[float, ...]:
        """Sampling rate of each scale divided by the video's."""
        return tuple(1 / math.prod(self.ts_strides[: i + 1]) for i in range(len(self.ts_strides)))

    @property
    def layers(self) -> tuple[architecture.Layer, ...]:
        """The convolutions from the video to the wave."""
        return architecture.conv_layers(self.stages, self.features, self.predictor_width)

    @property
    def receptive_halo(self) -> int:
        """Difference frames on either side that an output sample can depend on."""
        return architecture.halo(self.layers)

    def scale_lengths(self, t: int) -> tuple[int, ...]:
        """T_i of each scale for `t` difference frames: floor((T_{i−1} − k_i) / r_i) + 1.

        Raises:
          ValueError: A scale would have fewer than 3 samples.
        """
        lengths = []
        last = t
        for kernel, stride in zip(self.ts_kernels, self.ts_strides, strict=True):
            last = (last - kernel) // stride + 1
            if last < 3:
                raise ValueError(
                    f"{t} difference frames are too few for TS kernels {self.ts_kernels} "
                    f"with strides {self.ts_strides}"
                )
            lengths.append(last)
        return tuple(lengths)


def network_settings(config: Any) -> NetworkSettings:
    """Build the network's settings from a configuration.

    Args:
      config: Anything with a table 'network': a dict, or a ConfigDict (which is no `Mapping`).

    Raises:
      ConfigError: A key is unknown or a value is impossible.
    """
    table = {name: as_tuple(value) for name, value in dict(config["network"]).items()}
    known = NetworkSettings.__dataclass_fields__
    for name in table:
        if name not in known:
            raise ConfigError(f"config key 'network.{name}' is unknown{did_you_mean(name, known)}")
    try:
        return NetworkSettings(**table)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config network: {error}") from error


def network_table(settings: NetworkSettings) -> dict[str, Any]:
    """Write network settings as a plain table, which `network_settings` takes back."""
    return {name: getattr(settings, name) for name in NetworkSettings.__dataclass_fields__}


def as_tuple(value: Any) -> Any:
    """Turn lists inside a configuration value into tuples, which can be compared and hashed."""
    return tuple(as_tuple(item) for item in value) if isinstance(value, list | tuple) else value

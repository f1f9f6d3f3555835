"""The convolutions of backbone and predictor, in one list.

The network, the state of a stream, how far an output sees, the smallest input and the PyTorch names are all
read from this list, so a change of the architecture is made here alone.

References:
  Zhang et al. 2024 (arXiv 2311.05100), Fig. 3, and the authors' released network for the sizes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

NO_POOL = (1, 1, 1)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One 3-D convolution, stride 1, and what follows it.

    Attributes:
      path: Names of the modules that hold its parameters, outermost first.
      conv: Name of the convolution in the last of them.
      norm: Name of the normalisation before a tanh; '' where a bias ends the network instead.
      features: Output channels.
      kernel: Width in time, height and width; padded with zeros in time, not in space.
      pool: Window of the average pool that follows, in time, height and width.
      repeat: How often each frame is repeated after that, which undoes a pool in time.
      spatial_mean: Whether height and width are averaged away at last.
    """

    path: tuple[str, ...]
    conv: str
    norm: str
    features: int
    kernel: tuple[int, int, int]
    pool: tuple[int, int, int] = NO_POOL
    repeat: int = 1
    spatial_mean: bool = False

    @property
    def time_padding(self) -> int:
        """Zero frames before and after, which keep the number of frames."""
        return self.kernel[0] // 2


def conv_layers(stages: Sequence[tuple[int, int]], features: int, predictor_width: int) -> tuple[Layer, ...]:
    """List the convolutions from the video to the wave.

    Args:
      stages: Channels of the two convolutions of each stage.
      features: Channels of F2, the backbone's output.
      predictor_width: Channels inside the predictor.

    Returns:
      The layers, first to last; those of a module follow one another.
    """
    backbone = []
    for number, (first, second) in enumerate(stages, 1):
        path = ("backbone", f"stage{number}")
        backbone.append(Layer(path, "conv1", "norm1", first, (3, 5, 5)))
        backbone.append(Layer(path, "conv2", "norm2", second, (3, 3, 3), pool=(1, 2, 2)))
    path = ("predictor",)
    return (
        *backbone,
        Layer(("backbone", "final"), "conv", "norm", features, (3, 3, 3)),
        Layer(path, "conv1", "norm1", predictor_width, (3, 1, 1), pool=(2, 2, 2)),
        Layer(path, "conv2", "norm2", predictor_width, (3, 3, 3), repeat=2),
        Layer(path, "conv3", "norm3", predictor_width, (3, 1, 1), spatial_mean=True),
        Layer(path, "conv4", "", 1, (1, 1, 1)),
    )


def modules(layers: Sequence[Layer], part: str) -> Iterator[tuple[tuple[str, ...], tuple[Layer, ...]]]:
    """Group the layers of a part, 'backbone' or 'predictor', by the module that holds them."""
    of_part = [layer for layer in layers if layer.path[0] == part]
    for path, group in itertools.groupby(of_part, key=lambda layer: layer.path):
        yield path, tuple(group)


def input_shapes(layers: Sequence[Layer], input_size: int) -> Iterator[tuple[int, int]]:
    """Compute what each layer is given: height (and width) in pixels, and channels."""
    size, channels = input_size, 3
    for layer in layers:
        yield size, channels
        size = 1 if layer.spatial_mean else (size - layer.kernel[1] + 1) // layer.pool[1]
        channels = layer.features


def lag(layers: Sequence[Layer]) -> int:
    """Count the difference frames that must follow the one whose sample of the wave is computed."""
    return sum(spacing * layer.time_padding for layer, spacing in _spacings(layers))


def halo(layers: Sequence[Layer]) -> int:
    """Count the difference frames on either side that a sample of the wave can depend on.

    More than `lag` by the other frame of the pair that a sample is pooled with.
    """
    return lag(layers) + sum(spacing * (layer.pool[0] - 1) for layer, spacing in _spacings(layers))


def _spacings(layers: Sequence[Layer]) -> Iterator[tuple[Layer, int]]:
    """Pair each layer with the number of video frames from one of its frames to the next."""
    spacing = 1
    for layer in layers:
        yield layer, spacing
        spacing = spacing * layer.pool[0] // layer.repeat


def smallest_input(layers: Sequence[Layer]) -> int:
    """Compute the smallest height and width in pixels that every kernel fits into.

    Every larger size fits too, since pools drop an odd last row.
    """
    size = 1
    for layer in reversed(layers):
        size = size * layer.pool[1] + layer.kernel[1] - 1
    return size

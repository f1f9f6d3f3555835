"""The network that ships with the package, read without JAX: its convolutions as matrix products of NumPy.

Importing JAX and compiling takes longer than reading ten seconds of a face. What is read here is the network
of `sspd_jax.method.network` in evaluation mode, from the same list of layers, and equals it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, Protocol

import cv2
import numpy as np

from sspd_jax.heart_rate.wave import LEAST_S, Wave
from sspd_jax.method import architecture
from sspd_jax.method.architecture import Layer
from sspd_jax.video import resample

SHIPPED = "skin_network.npz"
BLOCK = 128
"""Pictures that go through the network at once: memory is that of so many, however long the video."""
RATE_TOLERANCE = 0.02
"""A video whose rate is this near the network's is taken as it is: 29.97 Hz needs no resampling to 30."""
EPSILON = 1e-5  # of the normalisations, as in PyTorch


@dataclasses.dataclass(frozen=True, eq=False)
class HostModel:
    """A trained network in evaluation mode, on NumPy.

    Attributes:
      layers: Its convolutions, see `architecture.conv_layers`.
      arrays: Name with slashes → float32; kernels hold the scale of the normalisation that follows.
      input_size: Height and width of what the network sees, pixels.
      fps: Frame rate that it was trained at, Hz.
      crop_size: Side of the pictures that it is given, pixels.
      face_crop: What they show, 'box' or 'skin', see `skin_map.skin_only`.
      name: Where it came from.
    """

    layers: tuple[Layer, ...]
    arrays: Mapping[str, np.ndarray]
    input_size: int
    fps: float
    crop_size: int
    face_crop: str
    name: str

    @functools.cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell this network from another: a hash of what it computes by."""
        facts = (self.layers, self.input_size, self.fps, self.crop_size, self.face_crop)
        found = hashlib.sha256(repr(facts).encode())
        for name, array in sorted(self.arrays.items()):
            found.update(f"{name}{array.dtype}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]

    @property
    def input_transform(self) -> str:
        """What its convolutions are given of the pictures, see `method.input_transform`."""
        return "difference"

    def clock_rate(self, fps: float) -> float:
        """Choose the rate in Hz to take a video of `fps` Hz at: its own if it is near the network's."""
        return fps if abs(fps / self.fps - 1) <= RATE_TOLERANCE else self.fps

    def infer(self, images: Iterable[np.ndarray], fps: float, start_s: float) -> Wave:
        """Infer the pulse wave of a stream of pictures on a uniform clock.

        Args:
          images: uint8 or float32 [s, s, 3] RGB, at least 2.
          fps: Frame rate of the clock, Hz.
          start_s: Time of the first image, s.

        Returns:
          The wave; its first sample lies half a period after the first image.

        Raises:
          ValueError: Fewer than 2 images.
        """
        stream = self.stream(BLOCK)
        parts = [stream.push([image]) for image in images]
        return Wave(np.concatenate([*parts, stream.end()]), fps, start_s + 0.5 / fps)

    def stream(self, step: int) -> HostStream:
        """Begin a wave that grows as its pictures come.

        Args:
          step: Pictures that go through the network at once, even.

        Raises:
          ValueError: An odd step, or one that is not positive.
        """
        return HostStream(self, step)


class WaveStream:
    """A wave that grows while its pictures come; its last samples come when it ends.

    Attributes:
      step: Pictures that go through the network at once.
      lag: Differences that must follow a sample's own before it is known.
    """

    def __init__(self, step: int, lag: int):
        if step < 2 or step % 2:
            raise ValueError(f"a step must be an even number of images, got {step}")
        self.step, self.lag = step, lag
        self._images: list[np.ndarray] = []  # the last one that went through, and those that wait

    def push(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Take the next pictures.

        Args:
          images: uint8 or float32 [s, s, 3] RGB, any number, all of one size.

        Returns:
          float32 [n], what they add to the wave; sample i of the whole lies between pictures i and i + 1.
        """
        parts = [np.zeros(0, np.float32)]
        for image in images:
            self._images.append(self._kept(image))
            if len(self._images) > self.step:
                parts.append(self._advance())
        return np.concatenate(parts)

    def _kept(self, image: np.ndarray) -> np.ndarray:
        """Return what waits of a picture."""
        return image

    def _advance(self) -> np.ndarray:
        """Take the pictures that wait through the network; returns the samples that they bring."""
        raise NotImplementedError


class HostStream(WaveStream):
    """The network of `HostModel` on pictures as they come: every difference goes through every layer once.

    A convolution keeps the frames that its next output needs; before the first frame and after the last it is
    given zeros, as in one pass over the whole.
    """

    def __init__(self, model: HostModel, step: int):
        super().__init__(step, architecture.lag(model.layers))
        self._model = model
        self._given = self._known = 0  # differences that went through, samples that were returned
        shapes = architecture.input_shapes(model.layers, model.input_size)
        self._before = [
            np.zeros((layer.time_padding, side, side, channels), np.float32)
            for layer, (side, channels) in zip(model.layers, shapes, strict=True)
        ]
        self._unpooled = [np.zeros((0, 1, 1, layer.features), np.float32) for layer in model.layers]

    def _kept(self, image: np.ndarray) -> np.ndarray:
        side = (self._model.input_size, self._model.input_size)
        # As floats: a picture that is resized as bytes is rounded to them.
        return cv2.resize(image.astype(np.float32), side, interpolation=cv2.INTER_AREA)

    def end(self) -> np.ndarray:
        """Return the rest of the wave, float32 [n]: no more pictures come.

        Raises:
          ValueError: Fewer than 2 pictures were pushed.
        """
        differences = self._given + len(self._images) - 1
        if differences < 1:
            raise ValueError(f"a wave needs at least 2 images, got {len(self._images)}")
        # An odd number of differences gets one more, of zeros: the network looks at pairs.
        self._images += self._images[-1:] * (differences % 2)
        known = self._known
        return self._advance(is_last=True)[: differences - known]

    def _advance(self, *, is_last: bool = False) -> np.ndarray:
        x = np.diff(np.stack(self._images), axis=0)
        self._images = self._images[-1:]
        self._given += len(x)
        wave = self._through(x, is_last=is_last)
        self._known += len(wave)
        return wave

    def _through(self, x: np.ndarray, *, is_last: bool) -> np.ndarray:
        """Take the next differences [t, h, w, 3] through all layers; returns the samples that they bring."""
        arrays = self._model.arrays
        x = x * arrays["backbone/input_norm/scale"] + arrays["backbone/input_norm/bias"]
        for i, layer in enumerate(self._model.layers):
            path = "/".join(layer.path)
            after = np.zeros((layer.time_padding * is_last, *x.shape[1:]), np.float32)
            x = np.concatenate([self._before[i], x, after])
            self._before[i] = x[len(x) - min(len(x), layer.kernel[0] - 1) :]
            x = conv3d(x, arrays[f"{path}/{layer.conv}/kernel"])
            x += arrays[f"{path}/{layer.norm or layer.conv}/bias"]
            if layer.norm:
                x = self._resized(np.tanh(x, out=x), i)
        return x[:, 0, 0, 0]

    def _resized(self, x: np.ndarray, i: int) -> np.ndarray:
        """Pool, repeat or average as layer `i` asks for; a frame without its pair waits for it."""
        layer = self._model.layers[i]
        pt, ph, pw = layer.pool
        if layer.pool != architecture.NO_POOL:
            if pt > 1 and len(self._unpooled[i]):
                x = np.concatenate([self._unpooled[i], x])
            t, h, w = (side // pool for side, pool in zip(x.shape, layer.pool, strict=False))
            self._unpooled[i] = x[t * pt :]
            x = x[: t * pt, : h * ph, : w * pw].reshape(t, pt, h, ph, w, pw, x.shape[-1]).mean(axis=(1, 3, 5))
        if layer.repeat > 1:
            x = np.repeat(x, layer.repeat, axis=0)
        return x.mean(axis=(1, 2), keepdims=True) if layer.spatial_mean else x


class Model(Protocol):
    """What reads a stream of crops, here or in JAX."""

    def clock_rate(self, fps: float) -> float: ...  # noqa: D102

    def infer(self, images: Iterable[np.ndarray], fps: float, start_s: float) -> Wave: ...  # noqa: D102


def read(
    model: Model,
    crops: Iterable[tuple[float, np.ndarray]],
    fps: float,
    *,
    max_gap_s: float = resample.MAX_GAP_S,
    least_s: float = LEAST_S,
) -> list[Wave]:
    """Infer the waves of crops as they were filmed, one for each unbroken part that is long enough.

    Args:
      model: The network.
      crops: (time in s, uint8 [s, s, 3] RGB), times increasing.
      fps: Their rate, Hz, about.
      max_gap_s: Longest time between two of them that is interpolated, s; a longer one ends a part.
      least_s: Length of the shortest part that is read, s.
    """
    rate, waves = model.clock_rate(fps), []
    least = math.ceil(least_s * rate)
    for _, ticks in groupby(resample.uniform(crops, rate, max_gap_s=max_gap_s), key=itemgetter(0)):
        head = list(islice(ticks, least))
        if len(head) >= least:
            waves.append(model.infer((image for *_, image in chain(head, ticks)), rate, head[0][1]))
    return waves


def conv3d(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve frames with a kernel, without padding, as one matrix product over all taps in space.

    Args:
      x: float32 [t, h, w, c].
      kernel: float32 [kt, kh, kw, c, c_out].

    Returns:
      float32 [t − kt + 1, h − kh + 1, w − kw + 1, c_out]; no frame where there are fewer than kt.
    """
    kt, kh, kw, c, c_out = kernel.shape
    seen = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(1, 2))  # [t, h', w', c, kh, kw]
    t, h, w = seen.shape[:3]
    rows = seen.transpose(0, 1, 2, 4, 5, 3).reshape(t * h * w, kh * kw * c)
    taps = np.moveaxis(kernel, 0, -2).reshape(kh * kw * c, kt * c_out)
    by_tap = (rows @ taps).reshape(t, h, w, kt, c_out)
    count = max(0, t - kt + 1)
    y = by_tap[:count, :, :, 0].copy()
    for tap in range(1, kt):
        y += by_tap[tap : tap + count, :, :, tap]
    return y


def folded(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Lay out a network's trees for `HostModel`, every normalisation folded into the kernel before it.

    Args:
      params: Backbone and predictor, nested dicts of float32.
      batch_stats: Their running statistics.

    Returns:
      Name with slashes → float32.
    """
    arrays = {}
    for path, tree in _leaves(params):
        name = path.rsplit("/", 1)[-1]
        if "scale" not in tree:
            arrays.update({f"{path}/{leaf}": np.asarray(value, np.float32) for leaf, value in tree.items()})
            continue
        running = functools.reduce(lambda node, key: node[key], path.split("/"), batch_stats)
        factor = np.asarray(tree["scale"], np.float64) / np.sqrt(np.asarray(running["var"], float) + EPSILON)
        arrays[f"{path}/bias"] = np.float32(np.asarray(tree["bias"]) - np.asarray(running["mean"]) * factor)
        if name == "input_norm":
            arrays[f"{path}/scale"] = np.float32(factor)
        else:
            before = path.removesuffix(name) + name.replace("norm", "conv")
            arrays[f"{before}/factor"] = factor
    for path in [key.removesuffix("/factor") for key in arrays if key.endswith("/factor")]:
        factor = arrays.pop(f"{path}/factor")
        arrays[f"{path}/kernel"] = np.float32(arrays[f"{path}/kernel"] * factor)
    return arrays


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Walk to the dicts that hold arrays."""
    for name, node in tree.items():
        where = f"{path}/{name}" if path else name
        if all(isinstance(child, Mapping) for child in node.values()):
            yield from _leaves(node, where)
        else:
            yield where, node


def as_file(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return what `numpy.savez_compressed` writes for `load`: the arrays, and the facts as JSON."""
    return {**arrays, "facts": np.array(json.dumps(facts))}


@functools.cache
def shipped() -> HostModel:
    """Load the network that travels with the package; `docs/skin_network.md` is its card."""
    with resources.files(__package__).joinpath(SHIPPED).open("rb") as file, np.load(file) as kept:
        arrays = {name: kept[name] for name in kept.files if name != "facts"}
        facts = json.loads(str(kept["facts"]))
    stages = tuple((first, second) for first, second in facts["stages"])
    return HostModel(
        layers=architecture.conv_layers(stages, facts["features"], facts["predictor_width"]),
        arrays=arrays,
        input_size=facts["input_size"],
        fps=facts["fps"],
        crop_size=facts["crop_size"],
        face_crop=facts["face_crop"],
        name=facts["name"],
    )

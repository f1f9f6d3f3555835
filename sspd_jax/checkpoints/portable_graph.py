"""A network as a graph that runs without this package: one description, for every file format.

The layers come from `sspd_jax.method.architecture`, what is made of two frames from
`sspd_jax.method.input_transform`. `onnx_file` and `tflite_file` know how their format writes a step; this
module knows which steps there are. A convolution that spans three frames is written as one of pictures, with
the three frames side by side on the channels: phones and browsers have quick kernels for pictures, and slow
ones or none for video.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from sspd_jax.checkpoints.host_network import HostModel
from sspd_jax.method import architecture, input_transform, views
from sspd_jax.method.architecture import NO_POOL, Layer

Value = Any
"""A tensor of a graph that is being made; each format has its own handle for it."""

FORMS = ("clip", "stream")
"""What a file reads: a whole clip, or a block of frames and what is remembered of those before."""

ENDLESS = 1 << 20
"""`remaining` of a recording whose end has not come."""


class Graph(Protocol):
    """What a file format must be able to write. Axis 0 is time wherever there is one."""

    channels: int
    """Axis of the channels of pictures, 1 or 3; height and width follow one another on the others."""

    def input(self, name: str, shape: Sequence[int | str], dtype: type, example: int = 1) -> Value:
        """Add an input; a name among the sizes is one that varies, `example` one that it may have."""

    def output(self, name: str, value: Value) -> None:
        """Name a value as an output."""

    def constant(self, array: np.ndarray) -> Value:
        """Add numbers."""

    def as_float(self, x: Value) -> Value:
        """Cast to float32."""

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """Put the axes in another order."""

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Reshape; one size may be −1."""

    def cut(self, x: Value, start: int, stop: int | None) -> Value:
        """Return `x[start:stop]`."""

    def pad(self, x: Value, count: int) -> Value:
        """Put zeros before and after pictures, in time."""

    def join(self, values: Sequence[Value], axis: int) -> Value:
        """Lay values behind one another along an axis."""

    def linear(self, x: Value, matrix: np.ndarray) -> Value:
        """Multiply the last axis by a matrix [before, after]."""

    def add(self, a: Value, b: Value) -> Value:
        """Add; sizes of 1 are repeated."""

    def subtract(self, a: Value, b: Value) -> Value:
        """Subtract; sizes of 1 are repeated."""

    def multiply(self, a: Value, b: Value) -> Value:
        """Multiply; sizes of 1 are repeated."""

    def divide(self, a: Value, b: Value) -> Value:
        """Divide; sizes of 1 are repeated."""

    def clip(self, x: Value, low: float, high: float) -> Value:
        """Bound every number."""

    def tanh(self, x: Value) -> Value:
        """Take the hyperbolic tangent."""

    def convolve(self, x: Value, kernel: np.ndarray, bias: np.ndarray) -> Value:
        """Convolve pictures with a kernel [h, w, before, after], without padding; add a bias."""

    def average_pool(self, x: Value, height: int, width: int) -> Value:
        """Average windows of pictures; a last row or column that fills none is dropped."""

    def mean(self, x: Value, axes: Sequence[int], *, keep: bool = False) -> Value:
        """Average axes away, or to a size of 1."""

    def count(self, x: Value) -> Value:
        """Return 0, 1, … as float32, one number for each frame of `x`."""


class Described(NamedTuple):
    """What a graph takes and gives, for the file's metadata.

    Attributes:
      inputs: Name → dtype, shape and meaning.
      outputs: The same.
      state_size: Numbers of a stream's state; 0 of a clip.
    """

    inputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]
    state_size: int


def build(graph: Graph, model: HostModel, transform: str, form: str) -> Described:
    """Write a network into a graph.

    Args:
      graph: An empty graph of some format.
      model: The network; its normalisations folded, see `host_network.folded`.
      transform: What is made of two frames, a name in `input_transform.INPUT_TRANSFORMS`.
      form: A name in `FORMS`. 'clip': uint8 frames [t + 1, s, s, 3] → float32 wave [t], t even. 'stream': the
        same frames, of which the first is the last one of the block before, a state float32 [n], zeros at
        first, and `remaining` int32 [1] → the wave and the next state.

    Returns:
      What it takes and gives.
    """
    side = model.crop_size
    frames = graph.input("frames", ("frames", side, side, 3), np.uint8, example=9)
    state = _State(graph, model) if form == "stream" else None
    x = _differences(graph, graph.as_float(frames), side, model.input_size, transform)
    if graph.channels == 3:
        x = graph.transpose(x, (0, 2, 3, 1))
    scale, bias = (model.arrays[f"backbone/input_norm/{name}"] for name in ("scale", "bias"))
    x = graph.add(graph.multiply(x, _on_channels(graph, scale)), _on_channels(graph, bias))
    clock = _Clock.start(graph, x, state) if state else None
    if clock:
        x = clock.within(graph, x)
    shapes = architecture.input_shapes(model.layers, model.input_size)
    for layer, (height, _) in zip(model.layers, shapes, strict=True):
        path = "/".join(layer.path)
        kernel = model.arrays[f"{path}/{layer.conv}/kernel"]
        kt, kh, kw, before, after = kernel.shape
        if layer.time_padding:
            if state:
                x, clock = state.ahead_of(x), clock.later(graph)
            else:
                x = graph.pad(x, layer.time_padding)
            x = graph.join([graph.cut(x, dt, dt + 1 - kt or None) for dt in range(kt)], graph.channels)
        flat = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * before, after)
        x = graph.convolve(x, flat, model.arrays[f"{path}/{layer.norm or layer.conv}/bias"])
        if layer.norm:
            x = graph.tanh(x)
            if clock:
                x = clock.within(graph, x)
                clock = clock.resized(graph, layer)
            x = _resized(graph, x, layer, height - kh + 1)
    graph.output("wave", graph.reshape(x, (-1,)))
    if state:
        graph.output("next_state", state.after(clock))
    return _described(model, state)


def picture(graph: Graph, height: int, width: int, channels: int) -> tuple[int, int, int]:
    """Return the sizes of a picture in the order of a graph."""
    return (channels, height, width) if graph.channels == 1 else (height, width, channels)


def _on_channels(graph: Graph, numbers: np.ndarray) -> Value:
    return graph.constant(np.float32(numbers).reshape(1, *picture(graph, 1, 1, len(numbers))))


def _resized(graph: Graph, x: Value, layer: Layer, side: int) -> Value:
    """Pool, repeat or average as a layer asks for; `side` is that of its convolution's output."""
    pt, ph, pw = layer.pool
    if layer.pool != NO_POOL:
        x, side = graph.average_pool(x, ph, pw), side // ph
    shape = picture(graph, side, side, layer.features)
    if pt > 1:
        pairs = graph.reshape(x, (-1, pt, side * side * layer.features))
        x = graph.reshape(graph.mean(pairs, (1,)), (-1, *shape))
    if layer.repeat > 1:
        one = graph.reshape(x, (-1, 1, side * side * layer.features))
        x = graph.reshape(graph.join([one] * layer.repeat, 1), (-1, *shape))
    if layer.spatial_mean:
        axes = [axis for axis in (1, 2, 3) if axis != graph.channels]
        x = graph.mean(x, axes, keep=True)
    return x


class _State:
    """What a stream remembers: the number of its next difference, and two frames before each convolution.

    The number counts up to `enough` only: later than that, nothing depends on it.
    """

    def __init__(self, graph: Graph, model: HostModel):
        self._graph = graph
        self.enough = 2 * architecture.lag(model.layers)
        shapes = architecture.input_shapes(model.layers, model.input_size)
        sizes = [
            picture(graph, side, side, channels)
            for layer, (side, channels) in zip(model.layers, shapes, strict=True)
            if layer.time_padding
        ]
        self.size = 1 + sum(2 * int(np.prod(size)) for size in sizes)
        flat = graph.input("state", (self.size,), np.float32)
        remaining = graph.as_float(graph.input("remaining", (1,), np.int32))
        self.remaining = graph.clip(remaining, -ENDLESS, ENDLESS)
        self.start = graph.cut(flat, 0, 1)
        self._before, at = [], 1
        for size in sizes:
            count = 2 * int(np.prod(size))
            self._before.append(graph.reshape(graph.cut(flat, at, at + count), (2, *size)))
            at += count
        self._after: list[Value] = []

    def ahead_of(self, x: Value) -> Value:
        """Put the remembered frames ahead of new ones, and remember the last two."""
        whole = self._graph.join([self._before[len(self._after)], x], 0)
        self._after.append(self._graph.reshape(self._graph.cut(whole, -2, None), (-1,)))
        return whole

    def after(self, clock: _Clock) -> Value:
        """Return the state for the next block."""
        graph = self._graph
        taken = graph.add(graph.cut(clock.frames, -1, None), graph.constant(np.ones(1, np.float32)))
        start = graph.clip(graph.add(self.start, taken), 0, self.enough)
        return graph.join([start, *self._after], 0)


class _Clock(NamedTuple):
    """Which frames of a layer lie within the recording.

    What comes before and after it is padding for a layer: zero, not the last layer's answer to zeros.

    Attributes:
      frames: 0, 1, … for each difference of the block, float [t].
      at: Number of each frame of the layer's, float.
      end: Number of frames in the whole recording, float [1].
    """

    frames: Value
    at: Value
    end: Value

    @classmethod
    def start(cls, graph: Graph, x: Value, state: _State) -> _Clock:
        frames = graph.count(x)
        return cls(frames, graph.add(frames, state.start), graph.add(state.start, state.remaining))

    def later(self, graph: Graph) -> _Clock:
        """Follow a convolution in time: what comes out of it is a frame late."""
        return self._replace(at=graph.subtract(self.at, graph.constant(np.ones(1, np.float32))))

    def within(self, graph: Graph, x: Value) -> Value:
        """Set to zero what lies outside."""
        one = graph.constant(np.ones(1, np.float32))
        inside = graph.multiply(
            graph.clip(graph.add(self.at, one), 0, 1), graph.clip(graph.subtract(self.end, self.at), 0, 1)
        )
        return graph.multiply(x, graph.reshape(inside, (-1, 1, 1, 1)))

    def resized(self, graph: Graph, layer: Layer) -> _Clock:
        """Follow a pool or a repetition in time. Pools of pairs start at even numbers, see `streaming`."""
        at, end = self.at, self.end
        if layer.pool[0] > 1:
            by = graph.constant(np.full(1, 1 / layer.pool[0], np.float32))
            first = graph.reshape(at, (-1, layer.pool[0]))
            # The mean of numbers n … n + p − 1 is n + (p − 1) / 2.
            half = graph.constant(np.full(1, (layer.pool[0] - 1) / 2, np.float32))
            at = graph.multiply(graph.subtract(graph.mean(first, (1,)), half), by)
            end = graph.multiply(end, by)
        if layer.repeat > 1:
            by = graph.constant(np.full(1, layer.repeat, np.float32))
            steps = graph.constant(np.arange(layer.repeat, dtype=np.float32)[None])
            first = graph.reshape(graph.multiply(at, by), (-1, 1))
            at, end = graph.reshape(graph.add(first, steps), (-1,)), graph.multiply(end, by)
        return self._replace(at=at, end=end)


# What is made of two frames. Here pictures are [t, 3, h, w] in every format: matrices act on the last axis.


def _differences(graph: Graph, frames: Value, side: int, size: int, transform: str) -> Value:
    x = graph.transpose(frames, (0, 3, 1, 2))
    if side != size:
        shrink = views.area_weights(side, size).T
        x = graph.linear(x, shrink)
        x = graph.transpose(graph.linear(graph.transpose(x, (0, 1, 3, 2)), shrink), (0, 1, 3, 2))
    after, before = graph.cut(x, 1, None), graph.cut(x, 0, -1)
    change = graph.subtract(after, before)
    steps = input_transform.INPUT_TRANSFORMS[transform]
    if steps:
        mean = graph.multiply(graph.add(after, before), graph.constant(np.full(1, 0.5, np.float32)))
        for step in steps:
            change = _STEPS[step](graph, change, mean, size)
    return change


def _without_brightness(graph: Graph, change: Value, mean: Value, size: int) -> Value:
    del size
    three = graph.constant(np.full(1, 3, np.float32))  # a sum is three means
    along = graph.multiply(graph.mean(graph.multiply(change, mean), (1,), keep=True), three)
    length = graph.multiply(graph.mean(graph.multiply(mean, mean), (1,), keep=True), three)
    length = graph.add(length, graph.constant(np.full(1, input_transform.DARK**2, np.float32)))
    return graph.subtract(change, graph.divide(graph.multiply(mean, along), length))


def _without_surround(graph: Graph, change: Value, mean: Value, size: int) -> Value:
    del mean
    return graph.multiply(change, graph.constant(1 - input_transform.outside(size, size)))


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Elements of a symmetric 3 × 3 matrix, in the order that six numbers hold them."""


def _choose(rows: Sequence[int], width: int) -> np.ndarray:
    """Make the matrix that takes numbers out of `width`: float32 [width, len(rows)]."""
    return np.eye(width, dtype=np.float32)[:, list(rows)]


def _without_light(graph: Graph, change: Value, mean: Value, size: int) -> Value:
    flip = functools.partial(graph.transpose, axes=(0, 1, 3, 2))
    slope = np.gradient(np.eye(size), axis=0).T.astype(np.float32) * size
    across, down = graph.linear(mean, slope), flip(graph.linear(flip(mean), slope))
    steepness = graph.add(graph.multiply(across, across), graph.multiply(down, down))

    def number(value: float) -> Value:
        return graph.constant(np.full(1, value, np.float32))

    noise = graph.add(
        graph.multiply(steepness, number(input_transform.MOTION**2)), number(input_transform.NOISE**2)
    )
    outside = graph.constant(input_transform.outside(size, size))
    weighed = graph.multiply(graph.divide(outside, noise), mean)
    planes = input_transform.planes(size, size).reshape(-1, 3)
    products = np.stack([planes[:, i] * planes[:, j] for i, j in _PAIRS], axis=1)

    def over_pixels(x: Value, basis: np.ndarray) -> Value:
        return graph.linear(graph.reshape(x, (-1, 3, size * size)), basis)

    gram = over_pixels(graph.multiply(weighed, mean), products)  # [t, 3, 6]
    diagonal = np.array([i == j for i, j in _PAIRS], np.float32) / np.float32(input_transform.LIGHT**2)
    gram = graph.add(gram, graph.constant(diagonal))
    right = over_pixels(graph.multiply(weighed, change), planes)  # [t, 3, 3]
    # The six cofactors of a b c; b d e; c e f, each a difference of two products.
    a, b, c, d, e, f = range(6)
    factors = ((d, f, e, e), (c, e, b, f), (b, e, c, d), (a, f, c, c), (b, c, a, e), (a, d, b, b))
    p, q, r, s = (graph.linear(gram, _choose(column, 6)) for column in zip(*factors, strict=True))
    cofactors = graph.subtract(graph.multiply(p, q), graph.multiply(r, s))
    first_row = np.array([[1], [1], [1], [0], [0], [0]], np.float32)
    determinant = graph.linear(graph.multiply(gram, cofactors), first_row)
    full = [_PAIRS.index((min(i, j), max(i, j))) for i in range(3) for j in range(3)]
    one = np.eye(3, dtype=np.float32)
    terms = graph.multiply(graph.linear(cofactors, _choose(full, 6)), graph.linear(right, np.tile(one, 3)))
    solved = graph.divide(graph.linear(terms, np.repeat(one, 3, axis=0)), determinant)
    light = graph.reshape(graph.linear(solved, planes.T), (-1, 3, size, size))
    return graph.subtract(change, graph.multiply(mean, light))


_STEPS: Mapping[input_transform.Step, Callable[[Graph, Value, Value, int], Value]] = {
    input_transform.without_brightness: _without_brightness,
    input_transform.without_light: _without_light,
    input_transform.without_surround: _without_surround,
}


def _described(model: HostModel, state: _State | None) -> Described:
    side, lag = model.crop_size, architecture.lag(model.layers)
    frames = {
        "dtype": "uint8",
        "shape": ["t + 1", side, side, 3],
        "axes": "time, height, width, colour",
        "colours": "RGB",
        "meaning": "face crops, fps of them a second; t is even, at least 2",
    }
    wave = {
        "dtype": "float32",
        "shape": ["t"],
        "meaning": "pulse wave; sample i lies between frames i and i + 1; sign and phase mean nothing",
    }
    if state is None:
        return Described({"frames": frames}, {"wave": wave}, 0)
    flat = {"dtype": "float32", "shape": [state.size]}
    frames["meaning"] += "; the first is the last one of the block before"
    wave["meaning"] = (
        f"pulse wave, {lag} samples late: sample i lies between frames i − {lag} and i − {lag - 1} of the "
        f"block; the first {lag} of a recording mean nothing; sign and phase mean nothing"
    )
    inputs = {
        "frames": frames,
        "state": {**flat, "meaning": "next_state of the block before; zeros for a recording's first"},
        "remaining": {
            "dtype": "int32",
            "shape": [1],
            "meaning": "how many differences, from this block's first on, belong to the recording, even; "
            f"{ENDLESS} while its end has not come. It may fall below 0: blocks beyond the end bring out the "
            f"last {lag} samples",
        },
    }
    return Described(
        inputs, {"wave": wave, "next_state": {**flat, "meaning": "for the next block"}}, state.size
    )

"""What one accelerator makes of SSPD: correctness, speed and memory, within ten minutes, in one page.

    python benchmarks/speed/accelerator.py                      # everything, on the first device
    python benchmarks/speed/accelerator.py --only=golden        # sections with this word in their name
    python benchmarks/speed/accelerator.py --tiny --output=DIR  # seconds on any CPU, numbers that say nothing

It needs JAX, Flax, Optax, jaxtyping, SciPy and etils beside this repository, no data and no network. The
sections run one after the other, those that matter most first, in a second process that is ended when a
section takes longer than its limit; the next one then starts in a fresh process. What a section found is
written to accelerator.json at once, by the name of the card, and accelerator.md is made from that. A section
that is finished is not run again, unless `--again` asks for it; one that was stopped or failed is.

A training step here is the whole of it: clips cut out of frames that live on the device, both views drawn,
both networks forward, the losses, the online network backward, Adam, the target's average. The network has
the published size, the method is the released form, a clip has 300 frame differences. Frames are random.
A step's share of the roofline is the time it would take if every layer took the longer of its arithmetic at
the measured speed of a large matrix product and its traffic at the measured speed of a large copy, divided
by the time it takes.

Below 'Experiments' are ways to write the convolutions that the package does not have. They are measured like
its own, so that a run tells which of them is worth moving there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import functools
import json
import math
import os
import platform
import queue
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # on a bare machine nothing is installed

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from sspd_jax.checkpoints import renamed_keys
from sspd_jax.method import losses, network, target_ema, views
from sspd_jax.method.layers import conv3d, norm_tanh
from sspd_jax.method.outputs import NetworkOutput, Outputs, similarity_outputs
from sspd_jax.method.settings import NetworkSettings
from sspd_jax.runtime import compile_options
from sspd_jax.training import compiled, presets, sharding
from sspd_jax.training import state as train_state
from sspd_jax.training import step as train_step

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "simulated_faces"
FPS = 30.0
GOAL_CLIPS, GOAL_CLIPS_S, GOAL_SHARE, GOAL_TIMES = 900, 15.0, 0.2, 2.0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is that is measured.

    Attributes:
      network: settings of the network that differ from the published ones.
      crop: height and width of the frames in pixels.
      frames: frame differences in a clip.
      batch: clips in a step.
      people: whose frames live on the device.
      person_frames: frames of each of them.
      epochs: each has one clip of every person.
      inference: clips read at once.
      at_most: clips of these that the network reads together; more are read in parts.
      side: of the matrices whose product is timed.
      copied: bytes of the array whose copy is timed.
      seconds: that are spent on timing one thing, about.
      golden_networks: whether the golden numbers of the networks are compared, or those of the losses alone.
    """

    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    crop: int = 151
    frames: int = 300
    batch: int = 12
    people: int = 30
    person_frames: int = 1800
    epochs: int = 30
    inference: tuple[int, ...] = (1, 8, 32)
    at_most: int = 8
    side: int = 8192
    copied: int = 4 << 30
    seconds: float = 2.0
    golden_networks: bool = True


TINY = Sizes(
    network={
        "input_size": 24,
        "stages": ((4, 4),),
        "features": 16,
        "predictor_width": 4,
        "ts_kernels": (9,),
        "ts_strides": (1,),
    },
    crop=30,
    frames=32,
    batch=2,
    people=4,
    person_frames=60,
    epochs=1,
    inference=(1, 4),
    at_most=2,
    side=256,
    copied=1 << 20,
    seconds=0.05,
    golden_networks=False,
)

Result = dict[str, Any]


class NotRunError(Exception):
    """A section cannot be run here; the message says why."""


# What a step costs on paper.


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one layer costs for one frame difference: multiply-adds, and numbers read and written."""

    name: str
    products: float
    values: float


def layers(settings: NetworkSettings) -> list[Layer]:
    """List the convolutions of a network; the rest is small, or could be computed on the way."""
    rows = []

    def add(
        name: str, kernel: tuple[int, int, int], size: int, c: int, c_out: int, rate: float = 1.0
    ) -> None:
        t, h, w = kernel
        out = (size - h + 1) * (size - w + 1)
        values = size**2 * c + out * c_out
        rows.append(Layer(name, rate * t * h * w * c * c_out * out, rate * values))

    size, channels = settings.input_size, 3
    for number, (narrow, wide) in enumerate(settings.stages, 1):
        add(f"stage{number}.conv1", (3, 5, 5), size, channels, narrow)
        add(f"stage{number}.conv2", (3, 3, 3), size - 4, narrow, wide)
        size, channels = (size - 6) // 2, wide
    add("final.conv", (3, 3, 3), size, channels, settings.features)
    size, width = size - 2, settings.predictor_width
    add("predictor.conv1", (3, 1, 1), size, settings.features, width)
    add("predictor.conv2", (3, 3, 3), size // 2, width, width, rate=0.5)
    add("predictor.conv3", (3, 1, 1), size // 2 - 2, width, width)
    return rows


def flops(settings: NetworkSettings, frames: int, passes: int) -> float:
    """Count floating-point operations; a step is four passes: two forward, and two as large backward."""
    return 2 * passes * frames * sum(layer.products for layer in layers(settings))


def roofline_s(settings: NetworkSettings, frames: int, machine: Result | None, *, step: bool) -> float | None:
    """Say how long a step, or reading, would take on a machine that is held up by nothing else.

    Args:
      settings: of the network.
      frames: frame differences of all clips together.
      machine: what `measure_roofline` found.
      step: whether the online network goes backward and the target network forward too: another three
        times the arithmetic and another four times the traffic of one forward pass.
    """
    if machine is None:
        return None
    peak = machine[{"float32": "tf32_flops", "bfloat16": "bfloat16_flops"}[settings.dtype]]
    width = jnp.dtype(settings.dtype).itemsize
    passes = [(1, 1), (1, 1), (2, 3)] if step else [(1, 1)]
    return sum(
        max(2 * a * frames * row.products / peak, b * frames * row.values * width / machine["copy_bytes_s"])
        for a, b in passes
        for row in layers(settings)
    )


# Experiments: convolutions that are 2-D, with frames on the channels.
#
# XLA for GPU lays 3-D convolutions out with the channels first, whatever their dtype, where cuDNN has no
# quick kernels for few channels. It lays 2-D ones out with the channels last in half precision, where the
# matrix units work; they like channels in multiples of 8 and 64 outputs or more at once.

_MULTIPLE = 8
_WIDE = {"narrow": 64}
"""Outputs of one convolution, at most, when frames are put side by side on its channels: by experiment."""
_WIDEST = 128
"""The same of the experiments that are not named there."""
_way = ""


def _banded(kernel: Array, group: int) -> Array:
    """Spread a kernel over `group` outputs: [kt, kh, kw, c, o] → [kh, kw, (group + kt − 1)·c, group·o]."""
    kt, kh, kw, c, c_out = kernel.shape
    seen = group + kt - 1
    place = np.zeros((kt, seen, group), np.float32)
    for tap in range(kt):
        place[tap, np.arange(group) + tap, np.arange(group)] = 1
    wide = jnp.einsum("dhwco,dig->hwicgo", kernel, jnp.asarray(place, kernel.dtype), precision="highest")
    return wide.reshape(kh, kw, seen * c, group * c_out)


def _flat_conv(parts: list[Array], kernel: Array) -> Array:
    """Convolve arrays [n, h, w, …], side by side on their channels, with [kh, kw, channels, outputs]."""
    channels = kernel.shape[2]
    extra = -channels % _MULTIPLE if kernel.shape[:2] != (1, 1) else 0
    if extra:
        parts = [*parts, jnp.zeros((*parts[0].shape[:-1], extra), parts[0].dtype)]
        kernel = jnp.pad(kernel, [(0, 0), (0, 0), (0, extra), (0, 0)])
    stacked = jnp.concatenate(parts, axis=-1)
    if kernel.shape[:2] == (1, 1):
        return stacked @ kernel[0, 0]
    return lax.conv_general_dilated(
        stacked, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _group(frames: int, widest: int, most: int = 4) -> int:
    """Choose how many frames share a convolution: a divisor of `frames` with few enough outputs."""
    wide = _WIDE.get(_way, _WIDEST)
    return max(d for d in range(1, most + 1) if frames % d == 0 and (d == 1 or d * widest <= wide))


def grouped_conv(x: Array, kernel: Array, time_padding: int, *, most: int) -> Array:
    """Convolve like `conv3d` by 2-D convolutions that give up to `most` frames at once.

    With `most` = 1 the frames that meet in an output are side by side on the channels. With more, so are the
    frames of neighbouring outputs: less is copied and more channels share a product, some of it with zeros.
    """
    kt, _, _, _, c_out = kernel.shape
    padded = lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0), (time_padding, time_padding, 0), *[(0, 0, 0)] * 3]
    )
    n, t = x.shape[0], padded.shape[1] - kt + 1
    group = _group(t, c_out, most)
    parts = [padded[:, i : i + t - group + 1 : group] for i in range(group + kt - 1)]
    y = _flat_conv([part.reshape(-1, *part.shape[2:]) for part in parts], _banded(kernel, group))
    y = y.reshape(n, t // group, *y.shape[1:3], group, c_out)
    return jnp.moveaxis(y, 4, 2).reshape(n, t, *y.shape[2:4], c_out)


def _fold(x: Array, group: int) -> Array:
    """Put each `group` frames side by side on the channels: [n, t, h, w, c] → [n, t/group, h, w, group·c]."""
    n, t, h, w, c = x.shape
    x = jnp.moveaxis(x.reshape(n, t // group, group, h, w, c), 2, 4)
    return x.reshape(n, t // group, h, w, group * c)


def _unfold(x: Array, group: int) -> Array:
    """Undo `_fold`."""
    n, folded, h, w, channels = x.shape
    x = jnp.moveaxis(x.reshape(n, folded, h, w, group, channels // group), 4, 2)
    return x.reshape(n, folded * group, h, w, channels // group)


def _folded_conv(x: Array, kernel: Array, group: int) -> Array:
    """Convolve folded frames; kernels of three taps in time, one frame of zeros before and after."""
    n, folded, _, _, _ = x.shape
    c = kernel.shape[3]
    zero = jnp.zeros((), x.dtype)
    still = [(0, 0, 0)] * 3
    before = lax.pad(x[..., -c:], zero, [(0, 0, 0), (1, -1, 0), *still])
    after = lax.pad(x[..., :c], zero, [(0, 0, 0), (-1, 1, 0), *still])
    y = _flat_conv([a.reshape(-1, *a.shape[2:]) for a in (before, x, after)], _banded(kernel, group))
    return y.reshape(n, folded, *y.shape[1:])


class _FoldedNorm:
    """The normalisations of a folded backbone: their moments in one pass, about the running mean."""

    def __init__(self, params: Any, batch_stats: Any, *, train: bool):
        self.params, self.batch_stats, self.train = params, batch_stats, train
        self.updated: Any = {}

    def __call__(self, x: Array, group: int, *path: str) -> norm_tanh.Norm:
        """Return the norm of folded frames, by channel and not by frame."""
        params, running = self.params, self.batch_stats
        for name in path:
            params, running = params[name], running[name]
        mean, var = running["mean"], running["var"]
        if self.train:
            axes = tuple(range(x.ndim - 1))
            deviation = x.astype(jnp.float32) - jnp.tile(running["mean"], group)
            first = jnp.mean(jnp.mean(deviation, axes).reshape(group, -1), 0)
            second = jnp.mean(jnp.mean(deviation**2, axes).reshape(group, -1), 0)
            mean, var = running["mean"] + first, second - first**2
            count = x.size // len(first)
            unbiased = var * (count / (count - 1))
            updated = self.updated
            for name in path[:-1]:
                updated = updated.setdefault(name, {})
            updated[path[-1]] = {
                "mean": 0.9 * running["mean"] + 0.1 * mean,
                "var": 0.9 * running["var"] + 0.1 * unbiased,
            }
        values = (mean, var, params["scale"], params["bias"])
        return norm_tanh.Norm(*(jnp.tile(value, group) for value in values))


def folded_backbone(
    settings: NetworkSettings, params: Any, batch_stats: Any, video: Array, *, train: bool
) -> tuple[Array, Any]:
    """Compute F2 and the statistics with frames that stay folded from one convolution to the next."""
    keep = jax.checkpoint if settings.rematerialise and train else lambda function: function
    norms = _FoldedNorm(params, batch_stats, train=train)
    x, group = jnp.asarray(video, settings.dtype), 1
    before: Callable = norm_tanh.normalise

    for number, widths in enumerate(settings.stages, 1):
        name = f"stage{number}"
        wanted = _group(x.shape[1] * group, max(widths))
        x, group = (x if wanted == group else _fold(_unfold(x, group), wanted)), wanted
        convolve = functools.partial(_folded_conv, group=group)
        if number == 1:
            norm = norms(x, group, "input_norm")
            x = keep(lambda x, n, k, f=convolve: f(before(x, n), k))(x, norm, _kernel(params[name], 1, x))
        else:
            x = convolve(x, _kernel(params[name], 1, x))
        norm = norms(x, group, name, "norm1")
        x = keep(lambda x, n, k, f=convolve: f(norm_tanh.norm_tanh(x, n), k))(
            x, norm, _kernel(params[name], 2, x)
        )
        norm = norms(x, group, name, "norm2")
        x = keep(lambda x, n: norm_tanh.average_pool(norm_tanh.norm_tanh(x, n), (1, 2, 2)))(x, norm)
    wanted = _group(x.shape[1] * group, settings.features)
    x, group = _fold(_unfold(x, group), wanted), wanted
    x = _folded_conv(x, params["final"]["conv"]["kernel"].astype(x.dtype), group)
    x = norm_tanh.norm_tanh(x, norms(x, group, "final", "norm"))
    return _unfold(x, group), norms.updated


def _kernel(stage: Any, number: int, x: Array) -> Array:
    return stage[f"conv{number}"]["kernel"].astype(x.dtype)


def folded_read(
    settings: NetworkSettings,
    params: Any,
    batch_stats: Any,
    video: Array,
    *,
    batch_axis: str | None = None,
) -> tuple[NetworkOutput, Any]:
    """Do what `network.forward` does, with a folded backbone; on one device."""
    if batch_axis is not None:
        raise NotImplementedError("folded frames are read on one device")
    f2, backbone = folded_backbone(settings, params["backbone"], batch_stats["backbone"], video, train=True)
    features = network.SimilarityBlocks(settings).apply({"params": params["ts"]}, jnp.mean(f2, axis=(2, 3)))
    wave, predictor = network.Predictor(settings).apply(
        {"params": params["predictor"], "batch_stats": batch_stats["predictor"]},
        lax.stop_gradient(f2) if settings.predictor_isolated else f2,
        train=True,
        mutable=["batch_stats"],
    )
    reading = similarity_outputs(wave, features, settings.relative_rates)
    return reading, {"backbone": backbone, "predictor": predictor["batch_stats"]}


def folded_wave(settings: NetworkSettings, params: Any, batch_stats: Any, video: Array) -> Array:
    """Do what `network.infer_wave` does, with a folded backbone."""
    params, batch_stats = network.fold_norms(params, batch_stats)
    f2, _ = folded_backbone(settings, params["backbone"], batch_stats["backbone"], video, train=False)
    variables = {"params": params["predictor"], "batch_stats": batch_stats["predictor"]}
    return network.Predictor(settings).apply(variables, f2, train=False)


EXPERIMENTS = {
    "channels": "2-D convolutions of three frames side by side on the channels",
    "grouped": "2-D convolutions that give up to four frames at once, unfolded after each",
    "folded": "the same, frames folded throughout the backbone, moments in one pass",
    "narrow": "as folded, with 64 outputs of a convolution at most instead of 128",
}
_FOLDED = ("folded", "narrow")


@contextlib.contextmanager
def written(way: str) -> Iterator[None]:
    """Trace programs with the network written in one of the `EXPERIMENTS`, or in the package's own forms."""
    global _way
    kept = conv3d._direct, network.forward, network.infer_wave
    _way = way
    if way in EXPERIMENTS:
        conv3d._direct = functools.partial(grouped_conv, most=4 if way == "grouped" else 1)
    if way in _FOLDED:
        network.forward, network.infer_wave = folded_read, folded_wave
    try:
        yield
    finally:
        conv3d._direct, network.forward, network.infer_wave = kept
        _way = ""


def form_of(way: str) -> str:
    """Name the package's form that a way starts from."""
    return "direct" if way in EXPERIMENTS else way


# Measuring.


_HEURISTICS = "--xla_gpu_autotune_level=0"


def is_autotuned() -> bool:
    """Say whether the compiler measures which of a GPU's kernels is the quickest, instead of assuming it."""
    return _HEURISTICS not in os.environ.get("XLA_FLAGS", "")


def timed(run: Callable[[], Any], seconds: float, *, least: int = 1, most: int = 20) -> list[float]:
    """Time `run` again and again for about so long, after once that does not count."""
    jax.block_until_ready(run())
    times: list[float] = []
    while len(times) < least or (len(times) < most and sum(times) < seconds):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return times


def program_memory(program: Any) -> Result:
    """Say what a compiled program takes of the device, in bytes, and what the device has held at most."""
    result: Result = {}
    with contextlib.suppress(Exception):
        memory = program.memory_analysis()
        result["program_bytes"] = memory.temp_size_in_bytes
        result["arguments_bytes"] = memory.argument_size_in_bytes
    stats = jax.devices()[0].memory_stats() or {}
    result["device_peak_bytes"] = stats.get("peak_bytes_in_use")
    return result


@dataclasses.dataclass
class Program:
    """A compiled training step, its state, and what is known of it."""

    step: Any
    state: train_state.TrainState
    compile_s: float
    settings: NetworkSettings
    batch: int
    memory: Result


@dataclasses.dataclass
class Bench:
    """What the sections share in one process."""

    sizes: Sizes
    results: dict[str, Result]
    programs: dict[tuple, Program] = dataclasses.field(default_factory=dict)

    def found(self, section: str) -> Result | None:
        """Return what a finished section found."""
        record = self.results.get(section, {})
        return record.get("result") if record.get("status") == "done" else None

    @functools.cached_property
    def frames(self) -> Array:
        """Random frames of all people, on the device: uint8 [all, crop, crop, 3]."""
        s = self.sizes
        shape = (s.person_frames, s.crop, s.crop, 3)
        keys = jax.random.split(jax.random.key(0), s.people)
        draw = jax.jit(lambda keys: lax.map(lambda key: jax.random.bits(key, shape, jnp.uint8), keys))
        frames = draw(keys).reshape(-1, *shape[1:])
        return jax.device_put(frames, sharding.frame_sharding(sharding.data_mesh(jax.devices()[:1])))

    def settings(self, way: str, dtype: str, *, rematerialise: bool = True) -> NetworkSettings:
        """Say the settings of the measured network."""
        return NetworkSettings(
            **self.sizes.network, conv=form_of(way), dtype=dtype, rematerialise=rematerialise
        )

    def starts(self, generator: np.random.Generator, people: np.ndarray) -> Array:
        """Draw one clip of each of these people: the numbers of their first frames."""
        s = self.sizes
        first = generator.integers(0, s.person_frames - s.frames, len(people))
        return jnp.asarray(people * s.person_frames + first, jnp.int32)

    def program(self, way: str, dtype: str, *, batch: int, rematerialise: bool = True) -> Program:
        """Compile a training step, once."""
        key = (way, dtype, batch, rematerialise)
        if key not in self.programs:
            settings = self.settings(way, dtype, rematerialise=rematerialise)
            step_config = make_step_config(settings, steps=self.sizes.epochs * 3)
            mesh = sharding.data_mesh(jax.devices()[:1])
            state = sharding.place(train_state.init(settings, step_config.optimizer, 0), mesh)
            inputs = {"frames": self.frames, "starts": jnp.zeros(batch, jnp.int32)}
            began = time.perf_counter()
            with written(way):
                step = compiled.compile_train_step(step_config, mesh, clip_frames=self.sizes.frames)
                step = step.lower(state, inputs).compile()
            seconds = time.perf_counter() - began
            self.programs[key] = Program(step, state, seconds, settings, batch, {})
        return self.programs[key]


def make_step_config(settings: NetworkSettings, *, steps: int) -> train_step.StepConfig:
    """Build the released form of the method around a network."""
    view = {name: views.view_settings(table) for name, table in presets.RELEASED["views"].items()}
    momentum = target_ema.target_momentum(steps)
    return train_step.StepConfig(
        network=settings,
        local_view=view["online"],
        global_view=view["target"],
        terms=presets.RELEASED["terms"],
        optimizer=train_step.make_optimizer(1e-3, momentum),
        momentum=momentum,
        fps=FPS,
    )


# Sections.


def facts(bench: Bench) -> Result:
    """Say what machine this is."""
    del bench
    device = jax.devices()[0]
    result = {
        "device": device.device_kind,
        "platform": device.platform,
        "backend": getattr(device.client, "platform_version", ""),
        "memory_limit_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(ask, capture_output=True, text=True, timeout=15, check=True)
        result["driver"] = done.stdout.strip().splitlines()[0]
    return result


def measure_roofline(bench: Bench) -> Result:
    """Time large matrix products and a large copy."""
    side, result = bench.sizes.side, {}
    for name, dtype, precision in (
        ("bfloat16", jnp.bfloat16, None),
        ("tf32", jnp.float32, None),
        ("float32", jnp.float32, "highest"),
    ):
        a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
        product = jax.jit(functools.partial(jnp.matmul, precision=precision))

        def ten(product=product, a=a, b=b) -> Array:
            for _ in range(9):
                product(a, b)
            return product(a, b)

        times = timed(ten, bench.sizes.seconds, least=3)
        result[f"{name}_flops"] = 10 * 2 * side**3 / statistics.median(times)
    x = jax.random.normal(jax.random.key(2), (bench.sizes.copied // 4,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    result["copy_bytes_s"] = (
        2 * x.nbytes / statistics.median(timed(lambda: copy(x), bench.sizes.seconds, least=3))
    )
    return result


def _largest(actual: Any, expected: Any) -> float:
    """Return the largest error relative to the largest expected value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


_PARTS = {  # of the golden totals, in our terms
    "total": tuple(presets.RELEASED["terms"]),
    "pyramid": ("similarity_mse", "similarity_pearson"),
    "rppg": ("wave_pearson", "wave_amplitude_pearson", "wave_out_of_band"),
    "reg": ("similarity_deviation",),
    "freq": ("similarity_out_of_band",),
}

_EXACT = {  # float32 at the highest precision; see tests/golden/README.md
    "losses": 1e-6,
    "losses, gradients": 1e-6,
    "forward, wave": 2e-6,
    "forward, features": 2e-4,
    "forward, similarity waves": 2e-5,
    "forward, similarity matrix": 2e-5,
    "steps, losses of the first": 1e-5,
    "steps, losses of the second": 5e-4,
    "steps, losses of the third": 2e-2,
    "steps, norms of the first gradients": 2e-4,
    "steps, norms of the online network": 5e-4,
    "steps, norms of the target network": 5e-4,
    "steps, dots of the online network": 2e-2,
    "steps, dots of the target network": 1e-3,
}
_ON_GPU = 2.0
"""On a GPU so many times `_EXACT` is allowed: it was measured on CPUs, an H100 needed 1.4 times it."""
_HALF = {  # what bfloat16 is known to cost the forward pass
    "forward, wave": 0.01,
    "forward, similarity waves": 0.15,
}


def golden(bench: Bench, dtype: str, precision: str | None, way: str = "direct") -> Result:
    """Compare losses, forward pass and three steps with the published program's numbers."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    try:
        import golden_inputs

        from sspd_jax.checkpoints import torch_names
    except ImportError as error:
        raise NotRunError(f"{error}") from error
    errors: dict[str, float] = {}
    context = contextlib.nullcontext() if precision is None else jax.default_matmul_precision(precision)
    with context, written(way):
        errors |= _golden_losses(golden_inputs)
        if bench.sizes.golden_networks:
            weights = torch_names.from_torch(golden_inputs.state_dict())
            settings = NetworkSettings(conv=form_of(way), dtype=dtype)
            if way not in _FOLDED:  # they have no evaluation mode with similarity blocks
                errors |= _golden_forward(golden_inputs, settings, weights)
            errors |= _golden_steps(golden_inputs, settings, weights)
    times = _ON_GPU if jax.default_backend() == "gpu" else 1.0
    is_exact = (dtype, precision) == ("float32", "highest")
    allowed = {name: times * bound for name, bound in _EXACT.items()} if is_exact else {}
    if dtype == "bfloat16":
        allowed = _HALF
    checks = {}
    for name, error in errors.items():
        ok = math.isfinite(error) and error <= allowed.get(name, math.inf)
        checks[name] = {"error": float(error), "allowed": allowed.get(name), "ok": bool(ok)}
    result: Result = {"checks": checks, "ok": all(check["ok"] for check in checks.values())}
    result["bounds_times"] = times if is_exact else 1.0
    if not bench.sizes.golden_networks:
        result["note"] = "the losses alone: the networks' numbers are of the published size"
    return result


def _golden_losses(golden_inputs: Any) -> dict[str, float]:
    target = similarity_outputs(golden_inputs.wave("wt"), golden_inputs.features("pt"))

    def loss(wave, features):
        outputs = Outputs(similarity_outputs(wave, features), target)
        return losses.total_loss(outputs, FPS, presets.RELEASED["terms"])

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, terms), (to_wave, to_features) = run(golden_inputs.wave("wo"), golden_inputs.features("po"))
    expected = golden_inputs.load("losses")
    gradients = [_largest(to_wave, expected["grad_wave"])]
    gradients += [_largest(g, expected[f"grad_ts{i}"]) for i, g in enumerate(to_features, 1)]
    return {
        "losses": max(abs(_part(terms, part) / float(expected[part]) - 1) for part in _PARTS),
        "losses, gradients": max(gradients),
    }


def _part(terms: Any, part: str) -> float:
    return sum(float(terms[name]) for name in _PARTS[part])


def _golden_forward(golden_inputs: Any, settings: NetworkSettings, weights: Any) -> dict[str, float]:
    @jax.jit
    def evaluate(params, batch_stats, video):
        variables = {"params": params, "batch_stats": batch_stats}
        wave, features = network.Network(settings).apply(variables, video, train=False)
        return features, similarity_outputs(wave, features)

    expected = golden_inputs.load("forward")
    features, found = evaluate(*weights, golden_inputs.video("online"))
    scales = range(1, len(features) + 1)
    return {
        "forward, wave": _largest(found.wave, expected["eval/rppg"]),
        "forward, features": max(_largest(features[i - 1], expected[f"eval/ts{i}"]) for i in scales),
        "forward, similarity waves": max(
            _largest(found.ssw[i - 1], expected[f"eval/ssw{i}"]) for i in scales
        ),
        "forward, similarity matrix": _largest(found.ssm[2], expected["eval/ssm3"]),
    }


def _golden_steps(golden_inputs: Any, settings: NetworkSettings, weights: Any) -> dict[str, float]:
    import optax

    from sspd_jax.checkpoints import torch_names

    step_config = make_step_config(settings, steps=4)
    step = jax.jit(functools.partial(train_step.learn, step_config=step_config), donate_argnums=0)
    state = train_state.create(*jax.tree.map(jnp.array, weights), step_config.optimizer)
    expected = golden_inputs.load("train_steps")
    errors = {}
    for s, which in enumerate(("first", "second", "third")):
        inputs = golden_inputs.video(f"online{s}"), golden_inputs.video(f"target{s}")
        state, metrics = step(state, *inputs)
        terms = {name: metrics[f"terms/{name}"] for name in _PARTS["total"]}
        found = np.array([_part(terms, part) for part in _PARTS])
        errors[f"steps, losses of the {which}"] = float(np.abs(found / expected[f"loss/{s}"] - 1).max())
        if s == 0:
            moments: dict = {}
            for _, tree in optax.tree.get_all_with_path(state.opt_state, "mu"):
                moments |= dict(jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0])
            first = jax.tree_util.tree_map_with_path(lambda path, _, m=moments: m[path], weights[0])
            tensors = torch_names.to_torch(first, jax.device_get(state.batch_stats))
            names = [name.removeprefix("grad0/") for name in expected if name.startswith("grad0/")]
            errors["steps, norms of the first gradients"] = max(
                abs(np.linalg.norm(tensors[n].astype(np.float64)) / 0.1 / float(expected[f"grad0/{n}"]) - 1)
                for n in names
            )
    state = jax.device_get(state)
    for role, params, batch_stats in (
        ("online", state.params, state.batch_stats),
        ("target", state.target_params, state.target_batch_stats),
    ):
        tensors = torch_names.to_torch(params, batch_stats)
        norms, dots = [], []
        for key, (norm, dot) in _probes(expected, role):
            found_norm, found_dot = golden_inputs.probe(key, tensors[key])
            norms.append(abs(found_norm / norm - 1))
            dots.append(abs(found_dot - dot) / norm)
        errors[f"steps, norms of the {role} network"] = float(max(norms))
        errors[f"steps, dots of the {role} network"] = float(max(dots))
    return errors


def _probes(expected: dict[str, np.ndarray], role: str) -> list[tuple[str, np.ndarray]]:
    prefix = f"{role}/"
    return [(k.removeprefix(prefix), v) for k, v in expected.items() if k.startswith(prefix)]


def step(bench: Bench, way: str, dtype: str, *, rematerialise: bool = True, slow: bool = False) -> Result:
    """Time a training step, and 900 clips in steps of this batch where that is a matter of seconds."""
    s = bench.sizes
    program = bench.program(way, dtype, batch=s.batch, rematerialise=rematerialise)
    generator = np.random.default_rng(0)
    first_loss = None

    def run() -> Array:
        nonlocal first_loss
        people = generator.permutation(max(s.people, s.batch))[: s.batch] % s.people
        batch = {"frames": bench.frames, "starts": bench.starts(generator, people)}
        program.state, metrics = program.step(program.state, batch)
        if first_loss is None:
            first_loss = float(metrics["loss"])
        return metrics["loss"]

    times = timed(run, s.seconds, least=1 if slow else 3)
    seconds = statistics.median(times)
    flop = flops(program.settings, s.batch * s.frames, 4)
    ideal = roofline_s(program.settings, s.batch * s.frames, bench.found("roofline"), step=True)
    program.memory = program_memory(program.step)
    result = {
        "way": way,
        "dtype": dtype,
        "rematerialise": rematerialise,
        "batch": s.batch,
        "step_s": seconds,
        "fastest_s": min(times),
        "slowest_s": max(times),
        "rounds": len(times),
        "compile_s": program.compile_s,
        "flops": flop / seconds,
        "roofline_s": ideal,
        "share": None if ideal is None else ideal / seconds,
        "first_loss": first_loss,
        "autotuned": is_autotuned(),
        **program.memory,
    }
    n_steps = -(-s.people * s.epochs // s.batch)
    if not slow and n_steps * seconds < 2 * GOAL_CLIPS_S:
        began = time.perf_counter()
        for _ in range(n_steps):
            loss = run()
        loss = float(loss)
        result |= {"clips": n_steps * s.batch, "clips_s": time.perf_counter() - began, "last_loss": loss}
    return result


def fastest(bench: Bench, dtype: str) -> Result:
    """Return the fastest measured step of a dtype."""
    steps = [bench.found(name) for name in bench.results if name.startswith("step: ")]
    steps = [
        found for found in steps if found and found["dtype"] == dtype and math.isfinite(found["first_loss"])
    ]
    if not steps:
        raise NotRunError(f"no step in {dtype} has been measured")
    return min(steps, key=lambda found: found["step_s"])


def training(bench: Bench) -> Result:
    """Train for all epochs, in the published batches, with the fastest step."""
    s, best = bench.sizes, fastest(bench, "bfloat16")
    sizes = [min(s.batch, s.people - start) for start in range(0, s.people, s.batch)]
    programs = {
        size: bench.program(best["way"], best["dtype"], batch=size, rematerialise=best["rematerialise"])
        for size in sorted(set(sizes))
    }
    state = jax.tree.map(jnp.copy, programs[s.batch].state)
    generator, first = np.random.default_rng(1), None
    for size, program in programs.items():  # once, before the clock starts
        starts = bench.starts(generator, np.arange(size))
        state, metrics = program.step(state, {"frames": bench.frames, "starts": starts})
        first = float(metrics["loss"])
    began = time.perf_counter()
    for _ in range(s.epochs):
        people = generator.permutation(s.people)
        for number, size in enumerate(sizes):
            chosen = people[number * s.batch :][:size]
            batch = {"frames": bench.frames, "starts": bench.starts(generator, chosen)}
            state, metrics = programs[size].step(state, batch)
    last = float(metrics["loss"])
    seconds = time.perf_counter() - began
    return {
        "way": best["way"],
        "dtype": best["dtype"],
        "rematerialise": best["rematerialise"],
        "batches": sizes,
        "clips": s.people * s.epochs,
        "steps": s.epochs * len(sizes),
        "seconds": seconds,
        "compile_s": {str(size): program.compile_s for size, program in programs.items()},
        "frames_bytes": bench.frames.nbytes,
        "first_loss": first,
        "last_loss": last,
        **program_memory(programs[s.batch].step),
    }


def _read_clips(
    bench: Bench, settings: NetworkSettings, weights: Any, crop: int, way: str, sizes: tuple[int, ...]
) -> list[Result]:
    """Time the reading of whole clips, from their uint8 frames to their waves, at several batches."""
    s, rows = bench.sizes, []
    params, batch_stats = weights

    def wave(params: Any, batch_stats: Any, clips: Array) -> Array:
        video = views.whole_view(clips, settings.input_size, settings.input_transform)
        return network.infer_wave(settings, params, batch_stats, video)

    def in_parts(params: Any, batch_stats: Any, clips: Array) -> Array:
        parts = clips.reshape(-1, s.at_most, *clips.shape[1:])
        return lax.map(lambda part: wave(params, batch_stats, part), parts)

    for size in sizes:
        shape = (size, s.frames + 1, crop, crop, 3)
        clips = jax.random.bits(jax.random.key(size), shape, jnp.uint8)
        began = time.perf_counter()
        with written(way):
            read = jax.jit(in_parts if size > s.at_most else wave, compiler_options=compile_options.options())
            program = read.lower(params, batch_stats, clips).compile()
        compile_s = time.perf_counter() - began
        times = timed(lambda p=program, c=clips: p(params, batch_stats, c), s.seconds / 2, least=3)
        seconds = statistics.median(times)
        ideal = roofline_s(settings, size * s.frames, bench.found("roofline"), step=False)
        row = {
            "batch": size,
            "seconds": seconds,
            "frames_s": size * s.frames / seconds,
            "compile_s": compile_s,
            "flops": flops(settings, size * s.frames, 1) / seconds,
            "share": None if ideal is None else ideal / seconds,
            "program_bytes": program_memory(program).get("program_bytes"),
            "finite": bool(jnp.all(jnp.isfinite(program(params, batch_stats, clips)))),
        }
        rows.append(row)
    return rows


def inference(bench: Bench, dtype: str, way: str | None = None) -> Result:
    """Time the reading of clips by a network of the published size; the fastest way, if none is given."""
    if way is None:
        way = fastest(bench, "bfloat16")["way"]
    settings = bench.settings(way, dtype)
    weights = network.init_variables(settings, jax.random.key(0))
    rows = _read_clips(bench, settings, weights, bench.sizes.crop, way, bench.sizes.inference)
    return {"way": way, "dtype": dtype, "rows": rows}


def shipped(bench: Bench) -> Result:
    """Time the reading of clips by the network that comes with the package."""
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise NotRunError(f"the checkpoint cannot be read: {error}") from error
    config = renamed_keys.translate(json.loads((SHIPPED / "config" / "metadata").read_text()))
    table = {k: tuple(v) if isinstance(v, list) else v for k, v in config["network"].items()}
    settings = NetworkSettings(**{**table, "dtype": "float32"})
    params, batch_stats = network.abstract_variables(settings)
    wanted = {"params": {k: v for k, v in params.items() if k != "ts"}, "batch_stats": batch_stats}
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), wanted)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(SHIPPED / "network", wanted)
    weights = tree["params"], tree["batch_stats"]
    sizes = tuple(sorted({bench.sizes.inference[0], bench.sizes.inference[-1]}))
    whole = dataclasses.replace(bench, sizes=dataclasses.replace(bench.sizes, at_most=max(sizes)))
    return {
        "way": "direct",
        "dtype": settings.dtype,
        "rows": _read_clips(whole, settings, weights, config["crop_size"], "direct", sizes),
    }


def kernels(bench: Bench) -> Result:
    """Say which of the device's programs the fastest step spends its time in."""
    import tempfile

    best = fastest(bench, "bfloat16")
    key = {k: best[k] for k in ("way", "dtype", "rematerialise")}
    program = bench.program(key["way"], key["dtype"], batch=best["batch"], rematerialise=key["rematerialise"])
    starts = bench.starts(np.random.default_rng(2), np.arange(best["batch"]) % bench.sizes.people)
    batch = {"frames": bench.frames, "starts": starts}

    def run() -> None:
        program.state, metrics = program.step(program.state, batch)
        jax.block_until_ready(metrics)

    if not hasattr(jax.profiler, "ProfileData"):
        raise NotRunError("this JAX has no jax.profiler.ProfileData")
    run()
    rounds, options = 2, None
    if hasattr(jax.profiler, "ProfileOptions"):
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(rounds):
                run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
    total: dict[str, list[float]] = {}
    on_cpu = jax.default_backend() == "cpu"
    for plane in profile.planes:
        for line in plane.lines:
            if line.name.startswith("tf_XLA" if on_cpu else "Stream"):
                for event in line.events:
                    total.setdefault(event.name, []).append(event.duration_ns)
    if not total:
        raise NotRunError("the profile holds nothing of the device")
    rows = sorted(total.items(), key=lambda item: -sum(item[1]))
    return {
        **key,
        "step_s": sum(map(sum, total.values())) / rounds / 1e9,
        "rows": [
            {"kernel": name[:120], "ms": sum(ns) / rounds / 1e6, "calls": len(ns) / rounds}
            for name, ns in rows[:40]
        ],
    }


@dataclasses.dataclass(frozen=True)
class Section:
    """One part of the benchmark, and the seconds after which it is ended."""

    run: Callable[[Bench], Result]
    limit_s: float


def _sections() -> dict[str, Section]:
    def part(function: Callable, limit_s: float, *args: Any, **kwargs: Any) -> Section:
        return Section(functools.partial(_call, function, args, kwargs), limit_s)

    return {
        "facts": part(facts, 60),
        "roofline": part(measure_roofline, 60),
        "step: folded, bfloat16": part(step, 170, "folded", "bfloat16"),
        "step: direct, bfloat16": part(step, 170, "direct", "bfloat16"),
        "step: grouped, bfloat16": part(step, 170, "grouped", "bfloat16"),
        "training: 900 clips in 12, 12 and 6": part(training, 170),
        "inference: fastest way, bfloat16": part(inference, 80, "bfloat16"),
        "shipped network": part(shipped, 45),
        "golden: float32, highest precision": part(golden, 100, "float32", "highest"),
        "kernels of the fastest step": part(kernels, 170),
        "golden: bfloat16": part(golden, 80, "bfloat16", None),
        "step: direct, float32": part(step, 170, "direct", "float32"),
        "step: folded, bfloat16, everything kept": part(step, 170, "folded", "bfloat16", rematerialise=False),
        "step: narrow, bfloat16": part(step, 170, "narrow", "bfloat16"),
        "step: channels, bfloat16": part(step, 170, "channels", "bfloat16"),
        "step: planes, bfloat16": part(step, 170, "planes", "bfloat16", slow=True),
        "step: matmul, bfloat16": part(step, 170, "matmul", "bfloat16", slow=True),
        "golden: float32, default precision": part(golden, 80, "float32", None),
        "inference: direct, float32": part(inference, 60, "float32", "direct"),
        "step: planes, float32": part(step, 170, "planes", "float32", slow=True),
        "step: matmul, float32": part(step, 170, "matmul", "float32", slow=True),
        "step: folded, float32": part(step, 170, "folded", "float32"),
        "golden: folded, float32, highest precision": part(golden, 80, "float32", "highest", "folded"),
    }


def _call(function: Callable, args: tuple, kwargs: dict, bench: Bench) -> Result:
    return function(bench, *args, **kwargs)


SECTIONS = _sections()

TINY_SECTIONS = (
    "facts",
    "roofline",
    "step: folded, bfloat16",
    "step: direct, bfloat16",
    "training: 900 clips in 12, 12 and 6",
    "inference: fastest way, bfloat16",
    "shipped network",
    "golden: float32, highest precision",
    "kernels of the fastest step",
)
"""Those that the tests have time for; the other steps differ from these by a word."""


# Running.


def load(file: Path) -> dict[str, Any]:
    """Read all results: {'cards': {card: {section: record}}}."""
    return json.loads(file.read_text()) if file.exists() else {"cards": {}}


def save(file: Path, card: str, section: str, record: Result) -> None:
    """Add a section's record to the results, all or nothing, and write the page anew."""
    data = load(file)
    data["cards"].setdefault(card, {})[section] = record
    for path, text in ((file, json.dumps(data, indent=1)), (file.with_suffix(".md"), page(data))):
        aside = path.with_name(path.name + ".part")
        aside.write_text(text + "\n")
        aside.replace(path)


def work(args: argparse.Namespace, file: Path, names: list[str]) -> int:
    """Run sections in this process; the other one reads what is printed, and ends this one."""

    def watch() -> None:
        sys.stdin.read()  # ends with the process that started this one, however that ends
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if args.tiny:
        jax.config.update("jax_disable_most_optimizations", True)  # compiling takes longer than running
    card = jax.devices()[0].device_kind
    results = load(file)["cards"].get(card, {})
    print(json.dumps({"card": card}), flush=True)
    bench = Bench(TINY if args.tiny else Sizes(), results)
    done = [name for name in names if results.get(name, {}).get("status") == "done" and not args.again]
    names = [name for name in names if name not in done]
    names.sort(key=lambda name: name in results)  # what was stopped or failed before comes last
    for name in names:
        if time.time() > args.until:
            break
        print(json.dumps({"begin": name}), flush=True)
        began, record = time.perf_counter(), {"status": "done"}
        try:
            record["result"] = SECTIONS[name].run(bench)
        except NotRunError as error:
            record = {"status": "not run", "why": str(error)}
        except Exception as error:  # whatever a section meets, the others are worth having
            why = " ".join(f"{type(error).__name__}: {error}".split())
            record = {"status": "failed", "why": why[:2000]}
        record["seconds"] = time.perf_counter() - began
        record["command"] = args.command
        results[name] = record
        save(file, card, name, record)
        print(json.dumps({"end": name}), flush=True)
    return 0


def oversee(args: argparse.Namespace, file: Path, names: list[str]) -> None:
    """Run sections in other processes, one after the other; end one whose section takes too long."""
    card, tried = None, set()
    while time.time() < args.until:
        left = [name for name in names if name not in tried]
        if not left:
            return
        command = [sys.executable, __file__, "--work", f"--until={args.until}", f"--names={json.dumps(left)}"]
        command += [f"--output={args.output}", f"--command={args.command}"]
        command += [flag for flag in ("--tiny", "--again") if getattr(args, flag[2:])]
        flags = os.environ.get("XLA_FLAGS", "")
        environment = {
            **os.environ,
            "XLA_FLAGS": flags if args.autotune else f"{flags} {_HEURISTICS}".strip(),
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, env=environment, text=True, **pipes)
        lines: queue.Queue[str | None] = queue.Queue()
        reading = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
        reading.start()
        begun, running, began, limit = False, None, time.time(), 120.0  # for the start
        why = "its process ended"
        try:
            while True:
                wait = min(began + limit, args.until) - time.time()
                try:
                    line = lines.get(timeout=max(wait, 0.01))
                except queue.Empty:
                    late = time.time() >= args.until
                    why = "no time was left" if late else f"it took longer than {limit:.0f} s"
                    break
                if line is None:
                    break
                with contextlib.suppress(json.JSONDecodeError):
                    said = json.loads(line)
                    card = said.get("card", card)
                    if "begin" in said:
                        begun, running, began = True, said["begin"], time.time()
                        limit = SECTIONS[running].limit_s
                        tried.add(running)
                        print(f"{running} …", flush=True)
                    if "end" in said:
                        print(f"    {summary(load(file)['cards'][card][running])}", flush=True)
                        running = None
        finally:
            if why != "its process ended" or sys.exc_info()[0]:
                process.kill()
            code = process.wait()
            reading.join()
            process.stdin.close()
            process.stdout.close()
        if running is not None and card is not None:
            why = f"{why} (exit code {code})" if why == "its process ended" else why
            record = {"status": "stopped", "why": why, "seconds": time.time() - began}
            save(file, card, running, {**record, "command": args.command})
            print(f"    {summary(record)}", flush=True)
        elif not begun or code == 0:
            return  # nothing was left to do, or nothing can be done here


def _read_lines(stream: Any, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def summary(record: Result) -> str:
    """Say in a line what came of a section."""
    if record["status"] != "done":
        return f"{record['status']}: {record['why'][:300]}"
    found = record["result"]
    shown = {k: v for k, v in found.items() if isinstance(v, int | float | str | bool) and k != "backend"}
    text = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
    for row in found.get("rows", [])[:8]:
        text += "\n        " + ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
        )
    wrong = [name for name, check in found.get("checks", {}).items() if not check["ok"]]
    return f"{record['seconds']:.1f} s: {text}" + (f"; wrong: {', '.join(wrong)}" if wrong else "")


# The page.


def _number(value: float | None, unit: float = 1.0, digits: int = 3) -> str:
    if value is None:
        return "–"
    value = value / unit
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(r) + " |" for r in rows),
        "",
    ]


def page(data: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    lines = [
        "# SSPD on an accelerator",
        "",
        "Made by `benchmarks/speed/accelerator.py`, which says what is measured.",
    ]
    for card, results in data["cards"].items():
        lines += ["", f"## {card}", *_card(results)]
    return "\n".join(lines)


def _card(results: dict[str, Result]) -> list[str]:
    done = {name: record["result"] for name, record in results.items() if record["status"] == "done"}
    lines: list[str] = []
    if "facts" in done:
        f = done["facts"]
        about = f"{f['date']}, jax {f['jax']}, Python {f['python']}, {f['cores']} cores ({f['machine']})"
        about += f", driver {f['driver']}" if "driver" in f else ""
        about += f", {_number(f['memory_limit_bytes'], 2**30)} GiB for JAX" if f["memory_limit_bytes"] else ""
        lines += ["", about + "."]
    commands = sorted({record["command"] for record in results.values() if record.get("command")})
    lines += ["", "Commands: " + ", ".join(f"`{command}`" for command in commands) + "."]
    if "roofline" in done:
        r = done["roofline"]
        lines += [
            "",
            "Measured roofline: matrix product in bfloat16 "
            f"{_number(r['bfloat16_flops'], 1e12)} TFLOP/s, float32 at default precision "
            f"{_number(r['tf32_flops'], 1e12)}, at the highest {_number(r['float32_flops'], 1e12)}; copy "
            f"{_number(r['copy_bytes_s'], 1e12)} TB/s, read and written.",
        ]
    lines += _goals(done)
    steps = {name: found for name, found in done.items() if name.startswith("step: ")}
    if steps:
        lines += ["", f"### A training step of {next(iter(steps.values()))['batch']} clips"]
        rows = []
        for f in sorted(steps.values(), key=lambda found: found["step_s"]):
            way = f["way"] + (" (experiment)" if f["way"] in EXPERIMENTS else "")
            rows.append(
                [
                    way
                    + ("" if f["rematerialise"] else ", everything kept")
                    + (", autotuned" if f.get("autotuned") else ""),
                    f["dtype"],
                    _number(f["step_s"], 1e-3),
                    f"{_number(f['fastest_s'], 1e-3)} to {_number(f['slowest_s'], 1e-3)}",
                    _number(f["flops"], 1e12),
                    "–" if f["share"] is None else f"{f['share']:.1%}",
                    _number(f["compile_s"]),
                    _number(f.get("program_bytes"), 2**30),
                    _number(f.get("clips_s")),
                    f"{f['first_loss']:.4f}",
                ]
            )
        head = ["convolutions", "dtype", "ms", "range", "TFLOP/s", "of the roofline", "compiling, s"]
        lines += _table([*head, "program's memory, GiB", "all epochs' clips, s", "first loss"], rows)
        used = {found["way"] for found in steps.values()} & EXPERIMENTS.keys()
        lines += [f"* {way}: {EXPERIMENTS[way]}." for way in EXPERIMENTS if way in used]
    for name, f in done.items():
        if name.startswith("training"):
            peak = _number(f["device_peak_bytes"], 2**30)
            lines += [
                "",
                "### Training from frames on the device",
                "",
                f"{f['clips']} clips in {f['steps']} steps (batches of {', '.join(map(str, f['batches']))}), "
                f"{f['way']}, {f['dtype']}: **{_number(f['seconds'])} s** after compiling "
                f"({', '.join(_number(s) for s in f['compile_s'].values())} s). The frames take "
                f"{_number(f['frames_bytes'], 1e9)} GB; the device has held {peak} "
                f"GiB at most. Loss {f['first_loss']:.4f} → {f['last_loss']:.4f} (random frames).",
            ]
    rows = []
    for name, f in done.items():
        if name.startswith("inference") or name == "shipped network":
            what = "the shipped one" if name == "shipped network" else "the published size"
            for r in f["rows"]:
                share = "–" if r["share"] is None else f"{r['share']:.1%}"
                cells = [_number(r["seconds"], 1e-3), f"**{_number(r['frames_s'], digits=4)}**", share]
                rows.append([what, f["way"], f["dtype"], str(r["batch"]), *cells, _number(r["compile_s"])])
    if rows:
        head = ["network", "convolutions", "dtype", "clips at once", "ms", "frames/s", "of the roofline"]
        lines += ["", "### Reading clips, from frames to waves", *_table([*head, "compiling, s"], rows)]
    checked = {name.removeprefix("golden: "): f for name, f in done.items() if name.startswith("golden")}
    if checked:
        names = list(dict.fromkeys(check for f in checked.values() for check in f["checks"]))
        rows = []
        for check in names:
            cells = []
            for f in checked.values():
                found = f["checks"].get(check)
                cells.append(_check(found) if found else "–")
            rows.append([check, *cells])
        lines += ["", "### Golden numbers: largest relative errors", *_table(["", *checked], rows)]
        lines += ["In brackets what is allowed; without brackets nothing is demanded."]
        if any(f.get("bounds_times", 1.0) != 1.0 for f in checked.values()):
            lines += [f"In float32 at the highest precision that is {_ON_GPU:g} times what CPUs are allowed."]
    if "kernels of the fastest step" in done:
        f = done["kernels of the fastest step"]
        lines += ["", f"### Where the fastest step ({f['way']}) spends its {_number(f['step_s'], 1e-3)} ms"]
        rows = [[f"`{r['kernel']}`", _number(r["ms"]), _number(r["calls"])] for r in f["rows"][:20]]
        lines += _table(["program", "ms", "calls"], rows)
    rest = {name: record for name, record in results.items() if record["status"] != "done"}
    if rest:
        lines += ["", "### Without a result", ""]
        lines += [f"* {name}: {record['status']}: {record['why'][:300]}" for name, record in rest.items()]
    return lines


def _check(found: Result) -> str:
    if found["allowed"] is None:
        return f"{found['error']:.1e}"
    return f"{found['error']:.1e} ({found['allowed']:.0e})" + ("" if found["ok"] else " **wrong**")


def _goals(done: dict[str, Result]) -> list[str]:
    steps = [f for name, f in done.items() if name.startswith("step: ") and f["dtype"] == "bfloat16"]
    if not steps:
        return []
    best = min(steps, key=lambda f: f["step_s"])
    rows = []
    if best["share"] is not None:
        rows.append(["share of the roofline in a step", f"≥ {GOAL_SHARE:.0%}", f"{best['share']:.1%}"])
    if "step: direct, bfloat16" in done:
        times = done["step: direct, bfloat16"]["step_s"] / best["step_s"]
        rows.append(["speed beside plain convolutions, bfloat16", f"≥ {GOAL_TIMES:.0f} ×", f"{times:.2f} ×"])
    trained = [(f["seconds"], f["clips"]) for name, f in done.items() if name.startswith("training")]
    trained = trained or [(f["clips_s"], f["clips"]) for f in steps if "clips_s" in f]
    if trained:
        seconds, clips = min(trained)
        goal = f"≤ {GOAL_CLIPS_S:.0f} s" if clips == GOAL_CLIPS else "–"
        rows.append([f"{clips} clips", goal, f"{_number(seconds)} s"])
    return _table([f"with the fastest step ({best['way']})", "goal", "measured"], rows)


def main() -> int:
    """Run what is not finished, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="after which the run ends")
    parser.add_argument("--output", default=str(Path(__file__).parent), help="folder of the results")
    parser.add_argument("--only", default="", help="sections with one of these words, separated by |")
    parser.add_argument("--again", action="store_true", help="run finished sections too")
    parser.add_argument(
        "--autotune",
        action="store_true",
        help="let the compiler measure a GPU's kernels: minutes for a step",
    )
    parser.add_argument("--tiny", action="store_true", help="sizes for a test on a CPU")
    parser.add_argument("--list", action="store_true", help="name the sections")
    for hidden in ("--names", "--command"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    file = Path(args.output) / "accelerator.json"
    if args.work:
        return work(args, file, json.loads(args.names))
    names = list(TINY_SECTIONS if args.tiny else SECTIONS)
    if args.only:
        names = [name for name in names if any(word in name for word in args.only.split("|"))]
    if args.list:
        print("\n".join(f"{name} ({SECTIONS[name].limit_s:.0f} s at most)" for name in names))
        return 0
    args.until = time.time() + 60 * args.minutes
    flags = [flag for flag in sys.argv[1:] if not flag.startswith("--output=")]  # a place says nothing
    args.command = shlex.join(["python", "benchmarks/speed/accelerator.py", *flags])
    file.parent.mkdir(parents=True, exist_ok=True)
    oversee(args, file, names)
    text = file.with_suffix(".md")
    print(text.read_text() if text.exists() else "no section has been run")
    return 0


if __name__ == "__main__":
    sys.exit(main())

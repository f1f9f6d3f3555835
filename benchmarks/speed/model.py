"""The cost of the network on paper, from a configuration, and the measured points beside it.

    python benchmarks/speed/model.py [--config=configs/ubfc.py:released] [--link_gb_s=50] [--latency_us=10]

For every layer: multiply-adds, parameters, and the bytes that its input and output take, for one difference
frame. The roofline of the machine is measured at the start: a large matrix product, and a large sum of two
arrays. A layer then takes the longer of its arithmetic and its traffic; a training step is the online and the
target network forward and the online one backward (two products as large as the forward one, three times its
traffic). On several devices the gradients of all parameters are summed around a ring, and the statistics of
every normalisation wait for one exchange each, forward and backward; bandwidth and latency of the link are
assumptions, given above. Results go to model.md beside this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import platform
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from speed import our_inference, our_step, rounds

from sspd_jax.method import network
from sspd_jax.method.settings import NetworkSettings, network_settings
from sspd_jax.runtime import storage
from sspd_jax.training import config as experiments

REPORT = Path(__file__).with_suffix(".md")


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one layer costs for one difference frame.

    Attributes:
      name: of its part of the network.
      shape: what it computes, for people.
      products: multiply-adds.
      parameters: of the layer and the normalisation behind it.
      values: numbers that it reads and writes, parameters apart.
    """

    name: str
    shape: str
    products: float
    parameters: int
    values: float


def conv(
    name: str, kernel, size: int, c_in: int, c_out: int, *, rate: float = 1.0, bias: bool = False
) -> Layer:
    """Describe a convolution of `size`² pixels and what normalises it; `rate`: its frames per difference."""
    t, h, w = kernel
    out = (size - h + 1) * (size - w + 1)
    weights = t * h * w * c_in * c_out
    return Layer(
        name,
        f"{c_in}→{c_out}, {t}×{h}×{w}, {size}² → {size - h + 1}²",
        rate * weights * out,
        weights + (c_out if bias else 2 * c_out),
        rate * (size**2 * c_in + out * c_out),
    )


def layers(settings: NetworkSettings, frames: int) -> list[Layer]:
    """List the layers of backbone, predictor and TS blocks."""
    size, channels = settings.input_size, 3
    rows = [Layer("input", "normalisation of 3 channels", 0, 6, 2 * size**2 * 3)]
    for number, (narrow, wide) in enumerate(settings.stages, 1):
        rows.append(conv(f"stage{number}.conv1", (3, 5, 5), size, channels, narrow))
        rows.append(conv(f"stage{number}.conv2", (3, 3, 3), size - 4, narrow, wide))
        size, channels = (size - 6) // 2, wide
    rows.append(conv("final.conv", (3, 3, 3), size, channels, settings.features))
    size, width = size - 2, settings.predictor_width
    rows.append(conv("predictor.conv1", (3, 1, 1), size, settings.features, width))
    rows.append(conv("predictor.conv2", (3, 3, 3), size // 2, width, width, rate=0.5))
    rows.append(conv("predictor.conv3", (3, 1, 1), size // 2 - 2, width, width))
    rows.append(conv("predictor.conv4", (1, 1, 1), 1, width, 1, bias=True))
    c = settings.features
    lengths = settings.scale_lengths(frames)
    bias = 4 if settings.ts_projection == "tanh" else 3
    for number, (kernel, length) in enumerate(zip(settings.ts_kernels, lengths, strict=True), 1):
        share = length / frames
        products = share * (kernel * c * c + 4 * c * c + 2 * c * c / settings.ts_heads + c * length)
        parameters = kernel * c * c + c + 2 * c + 4 * c * c + bias * c
        rows.append(
            Layer(
                f"ts.block{number}", f"{length} × {c}, matrix {length}²", products, parameters, 12 * c * share
            )
        )
    return rows


def check_parameters(rows: list[Layer], settings: NetworkSettings) -> None:
    """Stop if the paper's network is not the program's."""
    real = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(network.abstract_variables(settings)[0]))
    counted = sum(row.parameters for row in rows)
    if counted != real:
        raise SystemExit(f"the layers on paper have {counted} parameters, the network has {real}")


def roofline(dtype: str) -> tuple[float, float]:
    """Measure multiply-adds a second in a 2048³ (accelerator: 8192³) product, and bytes a second."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    products = side**3 / min(rounds(lambda: product(a, a).block_until_ready(), 5))
    x = jnp.ones((64 << 20,), jnp.float32)
    add = jax.jit(jnp.add)
    return products, 3 * x.nbytes / min(rounds(lambda: add(x, x).block_until_ready(), 5))


def forward_s(rows: list[Layer], frames: float, peak: float, bandwidth: float, width: int) -> float:
    """Predict a forward pass: every layer by the longer of arithmetic and traffic."""
    return sum(max(frames * row.products / peak, frames * row.values * width / bandwidth) for row in rows)


def step_s(
    rows: list[Layer], clips: float, frames: int, devices: int, machine: tuple[float, float], width: int, link
) -> float:
    """Predict a training step with so many clips on each device."""
    peak, bandwidth = machine
    forward = forward_s(rows, clips * frames, peak, bandwidth, width)
    backward = sum(
        max(2 * clips * frames * r.products / peak, 3 * clips * frames * r.values * width / bandwidth)
        for r in rows
    )
    ring = 0.0
    if devices > 1:
        gigabytes, latency = link
        gradients = 4 * sum(row.parameters for row in rows)
        norms = sum("conv" in row.name and "conv4" not in row.name for row in rows) + 1
        exchanges = 3 * norms + 1  # two networks forward, one backward, and the gradients
        hops = math.ceil(math.log2(devices))
        ring = 2 * gradients * (devices - 1) / devices / (gigabytes * 1e9) + exchanges * hops * latency
    return 2 * forward + backward + ring


def main() -> int:
    """Count, measure, predict, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/ubfc.py:released")
    parser.add_argument("--batch_size", type=int, default=2, help="clips in the measured step")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--link_gb_s", type=float, default=50.0, help="assumed, GB/s of each device")
    parser.add_argument("--latency_us", type=float, default=10.0, help="assumed, µs for each hop")
    args = parser.parse_args()
    config = experiments.load(args.config)
    settings, frames = network_settings(config), config.clip_frames
    rows = layers(settings, frames)
    check_parameters(rows, settings)
    width = jnp.dtype(settings.dtype).itemsize
    machine = roofline(settings.dtype)
    link = (args.link_gb_s, args.latency_us * 1e-6)

    lines = [
        "# Cost on paper",
        "",
        f"`python benchmarks/speed/model.py --config={args.config}`, {settings.dtype}. {os.cpu_count()} "
        f"cores ({platform.machine()}), {jax.devices()[0].device_kind}, jax {jax.__version__}; load average "
        f"{os.getloadavg()[0]:.1f} before the measurements.",
        "",
        "For one difference frame:",
        "",
        "| layer | what | multiply-adds, M | parameters | in and out, kB | multiply-adds a byte |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = row.values * width
        lines.append(
            f"| {row.name} | {row.shape} | {row.products / 1e6:.2f} | {row.parameters:,} | "
            f"{size / 1e3:.0f} | {row.products / size:.0f} |"
        )
    inference = [row for row in rows if not row.name.startswith("ts.")]
    products, values = (sum(getattr(r, key) for r in inference) for key in ("products", "values"))
    kept = values / 2 * width * frames
    lines += [
        "",
        f"Inference: {products / 1e6:.0f} M multiply-adds a frame, {products * frames / 1e9:.1f} G for "
        f"{frames}; {sum(r.parameters for r in inference):,} parameters, "
        f"{sum(r.parameters for r in rows):,} in training. Every layer's output kept for "
        f"the way back: {kept / 2**30:.1f} GiB a clip.",
        "",
        f"Roofline, measured: {machine[0] / 1e9:.0f} G multiply-adds/s, {machine[1] / 1e9:.1f} GB/s.",
        "",
        "| devices | clips on each | a step, s, predicted | clips a second | batch |",
        "|---|---|---|---|---|",
    ]
    for devices, clips in [(1, 2), (1, 12), (8, 1.5), (8, 12), (64, 12), (1024, 12)]:
        seconds = step_s(rows, clips, frames, devices, machine, width, link)
        lines.append(
            f"| {devices} | {clips:g} | {seconds:.3g} | {devices * clips / seconds:.3g} | "
            f"{devices * clips:g} |"
        )
    lines += [
        "",
        f"Every device as fast as this machine; the link is assumed at {args.link_gb_s:g} GB/s and "
        f"{args.latency_us:g} µs a hop. Times for other machines: theirs in place of the roofline.",
        "",
        "| measured here | s | predicted, s | share of the roofline |",
        "|---|---|---|---|",
    ]
    common = argparse.Namespace(
        form="auto", dtype=settings.dtype, rounds=args.rounds, batch_size=args.batch_size
    )
    measured = float(np.median(our_inference(common)["seconds"]))
    expected = forward_s(inference, frames, *machine, width)
    lines.append(
        f"| inference, {frames} frames | {measured:.2f} | {expected:.2f} | {expected / measured:.2f} |"
    )
    measured = float(np.median(our_step(common)["seconds"]))
    expected = step_s(rows, args.batch_size, frames, 1, machine, width, link)
    lines.append(
        f"| training step, batch {args.batch_size} | {measured:.1f} | {expected:.1f} | "
        f"{expected / measured:.2f} |"
    )
    lines += ["", f"Load average at the end: {os.getloadavg()[0]:.1f}."]
    storage.write_text(REPORT, "\n".join(lines) + "\n")
    print(REPORT.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

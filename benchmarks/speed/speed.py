"""Speed and memory at full size, each beside what it is measured against, in one run.

    pip install torch                       # any CPU build; only this benchmark needs it
    python benchmarks/speed/speed.py              # on a CPU: about ten minutes
    python benchmarks/speed/speed.py --skip=torch --batch_size=12 --dtype=bfloat16    # on an accelerator

Every measurement runs in a process of its own, one after the other, ours and PyTorch's in turn, with all the
cores: the published network in plain PyTorch (`pytorch_network.py`) in evaluation mode on a clip of 300
frames; the online and the target network forward and the online one backward, batch 2, without losses (the
published loops over pairs of frames would add a minute); our losses with their gradients, batch 12; our
whole training step, with its peak memory; `predict` of a 10 s clip from nothing, and with its compiled
programs kept. Results go to speed.md beside this file.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPORT = Path(__file__).with_suffix(".md")
ROOT = Path(__file__).parents[2]
FRAMES, SIZE, CROP = 300, 128, 151


def rounds(run, number: int) -> list[float]:
    """Time `run` so often, after once that does not count."""
    run()
    times = []
    for _ in range(number):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def peak_mib() -> float:
    """Return the most memory that this process has held, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in status if "VmHWM" in line]
    return int(peak) / 1024


def torch_inference(args: argparse.Namespace) -> dict:
    """PyTorch: one clip in evaluation mode."""
    import torch
    from pytorch_network import Network

    network, video = Network().eval(), torch.randn(1, 3, FRAMES, SIZE, SIZE)
    with torch.inference_mode():
        return {"seconds": rounds(lambda: network(video), args.rounds), "version": torch.__version__}


def torch_step(args: argparse.Namespace) -> dict:
    """PyTorch: both networks forward, the online one backward."""
    import torch
    from pytorch_network import Whole

    online, target = Whole(), Whole()
    video = torch.randn(args.batch_size, 3, FRAMES, SIZE, SIZE)

    def run():
        with torch.no_grad():
            target(video)
        wave, features = online(video)
        (wave.square().mean() + sum(f.square().mean() for f in features)).backward()
        online.zero_grad()

    return {"seconds": rounds(run, args.rounds), "peak": peak_mib()}


def our_inference(args: argparse.Namespace) -> dict:
    """Ours: the wave of one clip, by the reader that `predict` and `live` use."""
    import jax

    from sspd_jax.inference.model import RppgModel
    from sspd_jax.method import network
    from sspd_jax.method.settings import NetworkSettings

    settings = NetworkSettings(conv=args.form, dtype=args.dtype)
    reader = RppgModel(
        settings, *network.init_variables(settings, jax.random.key(0)), 30.0, SIZE, "random weights"
    )
    images = np.random.default_rng(0).integers(0, 256, (FRAMES + 1, SIZE, SIZE, 3), np.uint8)
    return {"seconds": rounds(lambda: reader.infer_stream(images), args.rounds)}


def our_networks(args: argparse.Namespace) -> dict:
    """Ours: both networks forward, the online one backward."""
    import jax
    import jax.numpy as jnp

    from sspd_jax.method import network
    from sspd_jax.method.settings import NetworkSettings
    from sspd_jax.runtime import compile_options

    settings = NetworkSettings(conv=args.form, dtype=args.dtype)
    settings = compile_options.tuned(settings)
    params, batch_stats = network.init_variables(settings, jax.random.key(0))
    video = jax.random.normal(jax.random.key(1), (args.batch_size, FRAMES, SIZE, SIZE, 3))

    def loss(params, video):
        online, _ = network.Network(settings).apply(
            {"params": params, "batch_stats": batch_stats}, video, train=True, mutable=["batch_stats"]
        )
        wave, features = online
        return jnp.mean(wave**2) + sum(jnp.mean(f**2) for f in features)

    def both(params, video):
        target, _ = network.Network(settings).apply(
            {"params": params, "batch_stats": batch_stats}, video, train=True, mutable=["batch_stats"]
        )
        return target[0], jax.grad(loss)(params, video)

    run = jax.jit(both, compiler_options=compile_options.options())
    seconds = rounds(lambda: jax.block_until_ready(run(params, video)), args.rounds)
    return {"seconds": seconds, "peak": peak_mib()}


def our_step(args: argparse.Namespace, *, rematerialise: bool = True) -> dict:
    """Ours: the whole training step, from uint8 clips to the next state."""
    import jax

    from sspd_jax.runtime import compile_options
    from sspd_jax.training import compiled, presets, sharding
    from sspd_jax.training import config as experiments
    from sspd_jax.training import state as train_state

    compile_options.give_memory_back()
    config = experiments.default(presets.RELEASED)
    config.network.update(conv=args.form, dtype=args.dtype, rematerialise=rematerialise)
    method = experiments.method(config, 90)
    mesh = sharding.data_mesh(jax.devices()[:1])
    state = sharding.place(train_state.init(method.network, method.optimizer, 0), mesh)
    shape = (args.batch_size, FRAMES + 1, CROP, CROP, 3)
    clips = jax.device_put(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    began = time.perf_counter()
    step = compiled.compile_train_step(method, mesh)
    step = step.lower(state, {"clips": clips}).compile()
    compiling = time.perf_counter() - began

    def run():
        nonlocal state
        state, metrics = step(state, {"clips": clips})
        float(metrics["loss"])

    program = step.memory_analysis().temp_size_in_bytes / 2**20
    return {
        "seconds": rounds(run, args.rounds),
        "peak": peak_mib(),
        "compiling": compiling,
        "program": program,
    }


def our_losses(args: argparse.Namespace) -> dict:
    """Ours: all losses of the released form with their gradients, batch 12."""
    import jax

    from sspd_jax.method import losses, outputs
    from sspd_jax.training import config as experiments
    from sspd_jax.training import presets

    method = experiments.validate(experiments.default(presets.RELEASED))
    keys = jax.random.split(jax.random.key(0), 8)
    lengths = method.network.scale_lengths(FRAMES)
    wave = [jax.random.normal(key, (12, FRAMES)) for key in keys[:2]]
    features = [
        tuple(
            jax.random.normal(jax.random.fold_in(key, n), (12, n, method.network.features)) for n in lengths
        )
        for key in keys[2:4]
    ]

    def total(wave, features):
        readings = [
            outputs.similarity_outputs(w, f, method.network.relative_rates)
            for w, f in zip(wave, features, strict=True)
        ]
        return losses.total_loss(outputs.Outputs(*readings), method.fps, method.terms)[0]

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    return {"seconds": rounds(lambda: jax.block_until_ready(run(wave, features)), args.rounds)}


MEASUREMENTS = {
    "inference, 300 frames: PyTorch": torch_inference,
    "inference, 300 frames: ours": our_inference,
    "both networks forward, one backward: PyTorch": torch_step,
    "both networks forward, one backward: ours": our_networks,
    "losses and gradients, batch 12: ours": our_losses,
    "training step: ours": our_step,
    "training step without rematerialisation: ours": functools.partial(our_step, rematerialise=False),
}


def cold_start(folder: Path) -> dict[str, float]:
    """Time `predict` of a 10 s clip by a network of the published size, from nothing and again."""
    import jax

    from sspd_jax.checkpoints.network import save_network
    from sspd_jax.method import network
    from sspd_jax.method.settings import network_settings
    from sspd_jax.simulation import sample_video
    from sspd_jax.training import config as experiments
    from sspd_jax.training import presets

    config = experiments.default(presets.RELEASED)
    params, batch_stats = network.init_variables(network_settings(config), jax.random.key(0))
    save_network(folder / "network", config.to_dict(), params, batch_stats)
    times_s = np.arange(10 * 30) / 30
    sample_video.write_video(folder / "face.mp4", sample_video.face_frames(times_s, 72, 0), times_s)
    command = [sys.executable, "-m", "sspd_jax", "predict", str(folder / "face.mp4")]
    command.append(f"--checkpoint={folder / 'network'}")
    environment = {**os.environ, "SSPD_JAX_CACHE": str(folder / "cache")}
    seconds = {}
    for name in ("predict of 10 s, from nothing", "predict of 10 s, compiled programs kept"):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        seconds[name] = time.perf_counter() - began
    return seconds


def one(name: str) -> dict:
    """Run a measurement in a process of its own."""
    command = [sys.executable, __file__, f"--only={name}", *sys.argv[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: failed with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def report(results: dict[str, dict], starts: dict[str, float], args: argparse.Namespace) -> str:
    """Write the results as a page."""
    import jax

    versions = [f"Python {platform.python_version()}", f"jax {jax.__version__}"]
    versions += [f"PyTorch {result['version']}" for result in results.values() if "version" in result]
    lines = [
        "# Speed at full size",
        "",
        f"`python benchmarks/speed/speed.py`, {args.rounds} rounds after a first that does not count; batch "
        f"{args.batch_size} where none is named, convolutions '{args.form}', {args.dtype}. {os.cpu_count()} "
        f"cores ({platform.machine()}), {jax.devices()[0].device_kind}; load average at the end "
        f"{os.getloadavg()[1]:.1f}. {', '.join(versions)}.",
        "",
        "| what | best, s | median, s | worst, s | most memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, result in results.items():
        times = result["seconds"]
        peak = f"{result['peak']:.0f}" if "peak" in result else ""
        row = (min(times), float(np.median(times)), max(times))
        lines.append(f"| {name} | " + " | ".join(f"{t:.2f}" for t in row) + f" | {peak} |")
    lines += [f"| {name} | {seconds:.1f} | | | |" for name, seconds in starts.items()]
    lines.append("")
    for name in results:
        what, _, whose = name.rpartition(": ")
        if whose == "PyTorch" and f"{what}: ours" in results:
            theirs, ours = (np.median(results[f"{what}: {who}"]["seconds"]) for who in ("PyTorch", "ours"))
            lines.append(f"{what[0].upper()}{what[1:]}: ours at {theirs / ours:.2f} × PyTorch's speed.")
    for name, result in results.items():
        if "compiling" in result:
            lines.append(
                f"{name.removesuffix(': ours').capitalize()}: compiled in {result['compiling']:.0f} s; of "
                f"its most memory {result['program']:.0f} MiB are the program's arrays."
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=2, help="clips in a training step")
    parser.add_argument(
        "--form", default="auto", help="of the convolutions, see sspd_jax.method.layers.conv3d"
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--skip", default="", help="leave out measurements with this word in their name")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(MEASUREMENTS[args.only](args)))
        return 0
    results = {}
    for name in MEASUREMENTS:
        if not args.skip or args.skip.lower() not in name.lower():
            results[name] = one(name)
            print(name, results[name], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        starts = cold_start(Path(folder))
    REPORT.write_text(report(results, starts, args))
    print(REPORT.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

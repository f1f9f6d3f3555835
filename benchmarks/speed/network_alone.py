"""How fast the exported network is alone, beside the networks of open-rppg, on one core.

    python -m venv DIR
    DIR/bin/pip install open-rppg==0.1.1 ai-edge-litert onnxruntime
    python benchmarks/speed/network_alone.py --peer_python=DIR/bin/python

Exports the network that ships here as LiteRT and ONNX files, and lets that other Python, which knows nothing
of sspd_jax, measure everything in one run: one process a network, bound to one core, one thread, three rounds
in turn. open-rppg 0.1.1 has its networks as weights for JAX alone, so they run by JAX, as its `Model` calls
them. Writes network_alone.md and network_alone.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REPORT = Path(__file__).with_name("network_alone.md")
MEASURED_S = 4.0
ROUNDS = 3
SIDE = 36  # pixels, of all these networks; ours is given more and shrinks them itself
FILES = {"FacePhys": "FacePhys.rlap", "ME-flow": "ME.rlap", "ME-chunk": "ME.rlap"}
# Name: (runtime, frames that go through at once).
CASES = {
    "sspd_jax, LiteRT, 8 frames": ("litert", 8),
    "sspd_jax, LiteRT, 2 frames": ("litert", 2),
    "sspd_jax, ONNX Runtime, 8 frames": ("onnx", 8),
    "sspd_jax, ONNX Runtime, 2 frames": ("onnx", 2),
    "FacePhys, JAX, 1 frame": ("FacePhys", 1),
    "ME-flow, JAX, 1 frame": ("ME-flow", 1),
    "ME-chunk, JAX, 160 frames": ("ME-chunk", 160),
}


def make_step(runtime: str, frames: int, folder: Path) -> Callable[[], None]:
    """Return what reads the next `frames` frames and goes on with the state of those before."""
    rng = np.random.default_rng(0)
    if runtime in FILES:
        import rppg.models as peers

        load = {
            "FacePhys": peers.load_FacePhys_rlap,
            "ME-flow": peers.load_ME_rlap,
            "ME-chunk": peers.load_ME_chunk_rlap,
        }[runtime]
        call, state, about = load()
        assert about["input"] == (frames, SIDE, SIDE, 3), about
        pictures = rng.integers(0, 256, about["input"], np.uint8)
        held = {"state": state}

        def step() -> None:
            wave, held["state"] = call(pictures, held["state"])
            np.asarray(wave["bvp"])

        return step
    remaining = np.array([1 << 20], np.int32)
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "pulse.onnx", options)
        shapes = {given.name: given.shape for given in session.get_inputs()}

        def run(state: np.ndarray) -> np.ndarray:
            given = {"frames": pictures, "state": state, "remaining": remaining}
            return session.run(["wave", "next_state"], given)[1]

    else:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(folder / "pulse.tflite"), num_threads=1)
        runner = interpreter.get_signature_runner()
        shapes = {name: given["shape"] for name, given in runner.get_input_details().items()}

        def run(state: np.ndarray) -> np.ndarray:
            return runner(frames=pictures, state=state, remaining=remaining)["next_state"]

    side = shapes["frames"][1]
    pictures = rng.integers(0, 256, (frames + 1, side, side, 3), np.uint8)
    held = {"state": np.zeros(shapes["state"], np.float32)}

    def step() -> None:
        held["state"] = run(held["state"])

    return step


def measure(runtime: str, frames: int, folder: Path) -> float:
    """Return the median time of a step in s, of as many as fit in some seconds."""
    step = make_step(runtime, frames, folder)
    for _ in range(10):
        step()
    times, began = [], time.perf_counter()
    while len(times) < 20 or time.perf_counter() - began < MEASURED_S:
        since = time.perf_counter()
        step()
        times.append(time.perf_counter() - since)
    return statistics.median(times)


def measure_apart(python: str, name: str, folder: Path) -> float:
    """Measure in a process of its own, on one core."""
    # Eigen's threads are bound by the core too: there is one.
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        "OMP_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
    }
    core = str(max(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, python, __file__, "--one", name, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def report(found: dict[str, Any]) -> str:
    """Return the table."""
    frames_per_s = {name: CASES[name][1] / statistics.median(times) for name, times in found["s"].items()}
    ours = frames_per_s["sspd_jax, LiteRT, 8 frames"]
    rows = []
    for name, times in found["s"].items():
        runtime, frames = CASES[name]
        ms = ", ".join(f"{1000 * time_s / frames:.2f}" for time_s in times)
        size = f"{found['bytes'][runtime] / 1e6:.2f} MB"
        ratio = frames_per_s[name] / ours
        rows.append(f"| {name} | {size} | {ms} | {frames_per_s[name]:.0f} | {ratio:.2f} |")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"""# Networks alone, side by side

`python benchmarks/speed/network_alone.py --peer_python=DIR/bin/python`: one core of one
{found["processor"]}, one thread, {SIDE} × {SIDE} pixels, {ROUNDS} rounds in turn, at niceness
{found["niceness"]}. Load average (1 min) {found["load"][0]:.1f} before and {found["load"][1]:.1f} after.
{versions}.

| network, runtime, frames at once | file | ms a frame, each round | frames/s | beside ours by LiteRT |
|---|---|---|---|---|
{chr(10).join(rows)}

Ours is given 42 × 42 pixels and shrinks them inside; that counts. open-rppg has FacePhys and ME-rPPG as
weights for JAX, no LiteRT or ONNX file: they run by JAX, compiled, as its `Model` calls them; the file is the
weights alone. One frame at a time has JAX's cost of a call in it, which LiteRT would not have. The authors of
FacePhys state 337 frames/s on one Xeon core by LiteRT, those of ME-rPPG 9.5 ms a frame.
"""


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser("benchmarks/speed/network_alone.py", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--peer_python", metavar="PYTHON", help="a Python that has open-rppg and both runtimes"
    )
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(measure(*CASES[args.one], args.folder))
        return 0
    if not args.peer_python:
        parser.error("--peer_python is needed")

    from web_page import processor_name

    from sspd_jax.checkpoints import export
    from sspd_jax.runtime import storage

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        export.export(None, folder / "pulse.onnx", "onnx", form="stream")
        export.export(None, folder / "pulse.tflite", "tflite", form="stream")
        names = "open-rppg", "jax", "ai-edge-litert", "onnxruntime"
        code = f"import importlib.metadata as m, rppg; print(*map(m.version, {names}), rppg.__file__)"
        asked = subprocess.run([args.peer_python, "-c", code], capture_output=True, text=True, check=True)
        *versions, where = asked.stdout.split()
        sizes = {
            "onnx": (folder / "pulse.onnx").stat().st_size,
            "litert": (folder / "pulse.tflite").stat().st_size,
        }
        for name, file in FILES.items():
            sizes[name] = (Path(where).parent / "weights" / f"{file}.weights.h5").stat().st_size
        before = os.getloadavg()[0]
        rounds = [
            {name: measure_apart(args.peer_python, name, folder) for name in CASES} for _ in range(ROUNDS)
        ]
    found = {
        "processor": processor_name(),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "load": [before, os.getloadavg()[0]],
        "versions": dict(zip(names, versions, strict=True)),
        "bytes": sizes,
        "s": {name: [one[name] for one in rounds] for name in CASES},
    }
    storage.write_text(REPORT.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    storage.write_text(REPORT, report(found))
    print(REPORT.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

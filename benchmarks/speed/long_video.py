"""Half an hour of video: the memory that `predict` takes, and its time beside decoding and network alone.

    python benchmarks/speed/long_video.py [--minutes=30]

Films 20 s of a simulated person at 640×480 in H.264 and repeats their packets for half an hour (the pulse
jumps where they join; decoder and network do not care). Then, each in a process of its own on the whole
machine: decoding and conversion to RGB alone, the published-size network alone on as many frames in one
stream, and `python -m sspd_jax predict`, by the network and by POS. Results go to long_video.md beside this
file.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import jax
import numpy as np

from sspd_jax import errors
from sspd_jax.checkpoints.network import save_network
from sspd_jax.cli import common
from sspd_jax.method import settings
from sspd_jax.method.network import init_variables
from sspd_jax.runtime import storage
from sspd_jax.simulation import sample_video, scene
from sspd_jax.simulation.presets import PRESETS
from sspd_jax.simulation.recordings import draw_person
from sspd_jax.training import config as experiments
from sspd_jax.training import presets

REPORT = Path(__file__).with_suffix(".md")
ROOT = Path(__file__).parents[2]
SECONDS, FPS = 20, 30

DECODE = """
import sys
from sspd_jax.video import decode
print(sum(1 for _ in decode.frames(sys.argv[1])), "frames")
"""
NETWORK = """
import sys, itertools, numpy, sspd_jax
picture = numpy.random.default_rng(0).integers(0, 256, (151, 151, 3), numpy.uint8)
wave = sspd_jax.load(sys.argv[1]).infer_stream(itertools.repeat(picture, int(sys.argv[2])))
print(len(wave), "samples")
"""


def repeat(source: Path, path: Path, seconds: float) -> int:
    """Write a file's packets over and over, with increasing times; returns the frames."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.time_base = Fraction(1, FPS)
        packets = [packet for packet in old.demux(video=0) if packet.size]
        kept = [(bytes(packet), packet.is_keyframe) for packet in packets]
        frames = round(seconds * FPS)
        for number in range(frames):
            data, key = kept[number % len(kept)]
            packet = av.Packet(data)
            packet.stream, packet.is_keyframe = stream, key
            packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, FPS), number, number, 1
            new.mux(packet)
    return frames


MEASURED = """
import atexit, runpy, sys

@atexit.register
def say():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(int(line.split()[1]) / 1024, file=sys.stderr)

sys.argv = sys.argv[1:]
if sys.argv[0] == "-m":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    code, sys.argv = sys.argv[1], ["-c", *sys.argv[2:]]
    exec(code, {"__name__": "__main__"})
"""
"""Runs what Python's own arguments say and tells the most memory it held. What the system tells of a child
that has ended will not do: it counts what the parent held when the child was started."""


def measure(*arguments: str) -> tuple[float, float, str]:
    """Run Python with arguments; returns seconds, the most memory it held in MB, and its last line."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise errors.UserError(f"{' '.join(arguments[:3])}: failed: {done.stderr[-500:]}")
    memory = float(done.stderr.strip().splitlines()[-1])
    return time.perf_counter() - began, memory, done.stdout.strip().splitlines()[0]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser("benchmarks/speed/long_video.py", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="default: %(default)g")
    args = parser.parse_args(argv)

    def work():
        with tempfile.TemporaryDirectory() as folder:
            short, video, network = (Path(folder) / name for name in ("short.mp4", "long.mp4", "network"))
            times_s = np.arange(SECONDS * FPS) / FPS
            person = draw_person(0, 1, (640, 480))
            pictures = scene.film(person, PRESETS["default"], times_s, 0, 1)
            options = {"crf": "20", "preset": "veryfast", "bf": "0", "g": "30"}
            sample_video.write_video(short, pictures, times_s, codec="libx264", options=options)
            frames = repeat(short, video, 60 * args.minutes)
            config = experiments.default(presets.RELEASED)
            params, batch_stats = init_variables(settings.network_settings(config), jax.random.key(0))
            save_network(network, config.to_dict(), params, batch_stats)

            runs = {
                "decoding and conversion to RGB alone": ["-c", DECODE, str(video)],
                "network alone, one stream": ["-c", NETWORK, str(network), str(frames)],
                "predict, network": ["-m", "sspd_jax", "predict", str(video), f"--checkpoint={network}"],
                "predict, POS": ["-m", "sspd_jax", "predict", str(video), "--method=pos"],
            }
            rows = {}
            for name, arguments in runs.items():
                rows[name] = measure(*arguments)
                print(name, *rows[name], flush=True)
        alone = sum(rows[name][0] for name in list(runs)[:2])
        ratio = rows["predict, network"][0] / alone
        lines = [
            f"# {args.minutes:g} minutes of 640×480 H.264",
            "",
            f"`python benchmarks/speed/long_video.py`, {frames} frames at {FPS} Hz, network of the published "
            f"size with random weights. {os.cpu_count()} CPU cores, Python {platform.python_version()}, "
            f"jax {jax.__version__}.",
            "",
            "| what | time, s | most memory, MB |",
            "|---|---|---|",
            *(f"| {name} | {seconds:.0f} | {memory:.0f} |" for name, (seconds, memory, _) in rows.items()),
            "",
            f"`predict` by the network takes {ratio:.2f} × the time of decoding alone plus network alone.",
        ]
        storage.write_text(REPORT, "\n".join(lines) + "\n")
        print(REPORT.read_text())

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

"""Whether the data keeps up with the network: the share of a full-size training's time that steps take.

    python benchmarks/speed/keeping_up.py                              # batch 2, few steps: for a CPU
    python benchmarks/speed/keeping_up.py --batch_size=12 --steps=40   # for an accelerator

Simulated people of 12 s, prepared at 151 × 151 pixels, and clips of 300 frame differences from which views
of 128 × 128 are made, in the paper's form: read from disk while the steps run, and cut out of frames that
live on the devices. Prints a table: a step's time, the share of the time in which no batch was waited for
(reading and bringing it to the device), and the bytes on each device. The first step, which compiles, is
left out. Results are in keeping_up.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import jax
from etils import epath

from sspd_jax.cli import simulate
from sspd_jax.datasets import prepare
from sspd_jax.datasets.format import INDEX
from sspd_jax.experiments import run
from sspd_jax.runtime import metrics_log
from sspd_jax.training import config as experiments
from sspd_jax.training import loop

SECONDS = 12.0  # of a recording: 360 frames, 60 windows of 301


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=2, help="clips in a step")
    parser.add_argument("--steps", type=int, default=3, help="steps after the first one")
    parser.add_argument("--ways", default="never,always", help="values of data.on_device to measure")
    parser.add_argument("--data_dir", help="where the simulated people lie or land (default: a new folder)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(args.data_dir or f"{folder}/data")
        people = args.batch_size
        if not (data_dir / INDEX).exists():
            simulate.main([f"{folder}/recordings", f"--people={people}", f"--seconds={SECONDS}"])
            prepare.prepare_dataset("ubfc_rppg", f"{folder}/recordings", data_dir, progress=False)
        devices = jax.devices()
        print(
            f"{len(devices)} × {devices[0].device_kind} ({platform.machine()}), Python "
            f"{platform.python_version()}, jax {jax.__version__}, batch {args.batch_size}, {args.steps} steps"
        )
        print("\n| frames | a step, s | share of the time that is not waiting for data | on each device |")
        print("|---|---|---|---|", flush=True)
        for way in args.ways.split(","):
            began = time.perf_counter()
            overrides = [
                f"data.data_dir={data_dir}",
                f"data.train_people={tuple(f'subject{i}' for i in range(1, people + 1))}",
                "data.test_people=()",
                "data.split.kind=everyone",
                f"batch_size={args.batch_size}",
                f"epochs={args.steps + 1}",
                f"data.on_device={way}",
                "log_every=1",
                *args.overrides,
            ]
            config = experiments.load(str(Path(__file__).parents[2] / "configs" / "ubfc.py"), overrides)
            config.log_every = 1
            workdir = epath.Path(folder) / way
            workdir.mkdir()
            dataset = run.open_data(config)
            loop.train(config, dataset, workdir, progress=False)
            rows = metrics_log.read_metrics(workdir)[1:]
            times = sorted(1 / row["time/steps_per_s"] for row in rows)
            waited = sum(row["time/waiting_share"] / row["time/steps_per_s"] for row in rows)
            n_bytes = sum(s.n_frames for s in dataset.segments) * dataset.crop_size**2 * 3
            held = f"{n_bytes / len(devices) / 1e6:.0f} MB" if way == "always" else "–"
            where = {"never": "read while the steps run", "always": "on the devices"}.get(way, way)
            step = f"{times[len(times) // 2]:.3g} ({times[0]:.3g} to {times[-1]:.3g})"
            print(f"| {where} | {step} | **{1 - waited / sum(times):.2%}** | {held} |", flush=True)
            print(f"{time.perf_counter() - began:.0f} s in all", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

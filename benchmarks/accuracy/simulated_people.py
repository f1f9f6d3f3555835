"""How well SSPD, trained here without a label, reads simulated people it never saw.

    python benchmarks/accuracy/simulated_people.py [--out=workdir/simulated_people] [--jobs=2]

For each preset of the simulator and each seed: recordings of 30 people, of whom 18 are learned from and 12
are tested on; one training in the released form (on preset default in the paper's form too) with the small
network of `configs/demo.py`, at a fixed length, tested after its last step by the protocol of that file.
Nothing was tuned on these seeds.

A part that is finished is not done again: killed and started again, the study goes on where it was, a
training at its last checkpoint. The table is written to simulated_people.md beside this file, every window of
every method to simulated_people.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from sspd_jax.cli.common import run
from sspd_jax.errors import UserError
from sspd_jax.runtime import metrics_log
from sspd_jax.simulation import recordings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REPORT = HERE / "simulated_people.md"
WINDOWS = HERE / "simulated_people.csv"
CONFIG = ROOT / "configs" / "demo.py"

PRESETS = ("easy", "default", "hard")
SEEDS = (200, 201, 202)  # of people and of training alike
FORMS = {"released": PRESETS, "paper": ("default",)}  # form → presets
TRAINED_ON, TESTED_ON, SECONDS = 18, 12, 20.0
EPOCHS = 30  # of 9 steps of 2 clips
RIGHT_BPM = 3.0
BASELINES = ("untrained", "green", "chrom", "pos")
NAMES = {"green": "GREEN", "chrom": "CHROM", "pos": "POS", "untrained": "untrained network"}

Part = tuple[str, int, str]  # preset, seed, form


def main(argv: list[str] | None = None) -> int:
    """Run the study, or what is left of it."""
    parser = argparse.ArgumentParser(
        "benchmarks/accuracy/simulated_people.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("workdir/simulated_people"), help="work directory")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings at once, a core each")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="default: %(default)s")
    args = parser.parse_args(argv)

    def work():
        out = args.out.absolute()
        out.mkdir(parents=True, exist_ok=True)
        cores, lock = set(sorted(os.sched_getaffinity(0))[: args.jobs]), threading.Lock()

        def do(step, part):
            with lock:
                core = cores.pop()
            try:
                step(out, part, core)
            finally:
                cores.add(core)

        with ThreadPoolExecutor(len(cores)) as pool:
            list(pool.map(lambda p: do(prepare, p), itertools.product(PRESETS, args.seeds)))
            parts = [(p, s, f) for f, presets in FORMS.items() for p in presets for s in args.seeds]
            list(pool.map(lambda p: do(train, p), parts))
        rows = read_windows(out, parts)
        write_windows(rows)
        REPORT.write_text(report(out, parts, rows))
        print(REPORT.read_text())

    return run(work, debug=True)


def prepare(out: Path, part: tuple[str, int], core: int) -> None:
    """Film the people of a preset and a seed, prepare them, and keep what was prepared only."""
    preset, seed = part
    raw, data = out / f"{preset}-{seed}-recordings", data_dir(out, preset, seed)
    if (data / "index.json").exists():
        shutil.rmtree(raw, ignore_errors=True)
        return
    people = TRAINED_ON + TESTED_ON
    simulate = [str(raw), f"--preset={preset}", f"--people={people}", f"--seconds={SECONDS:g}"]
    run_on(core, "sspd_jax", "simulate", *simulate, f"--seed={seed}", "--workers=1")
    source = ["--dataset=ubfc_rppg", f"--source={raw}", f"--data_dir={data}", "--no_progress"]
    run_on(core, "sspd_jax", "prepare", *source, f"--crop_size={demo_config().crop_size}")
    shutil.rmtree(raw)


def train(out: Path, part: Part, core: int) -> None:
    """Train and test one form on one preset and seed."""
    preset, seed, form = part
    workdir = work_dir(out, *part)
    if (workdir / "report" / "scores.json").exists():
        return
    people = [f"subject{i}" for i in range(1, TRAINED_ON + TESTED_ON + 1)]
    began = time.monotonic()
    run_on(
        core,
        "sspd_jax.main",
        f"--config={CONFIG}:{form}",
        f"--workdir={workdir}",
        "--no_progress",
        "--config.data.source=",
        f"--config.data.data_dir={data_dir(out, preset, seed)}",
        f"--config.data.train_people={tuple(people[:TRAINED_ON])}",
        f"--config.data.test_people={tuple(people[TRAINED_ON:])}",
        f"--config.epochs={EPOCHS}",
        f"--config.seed={seed}",
        "--config.evaluation.region=crop",  # the formulas' numbers are those of published toolboxes' boxes
    )
    print(f"{preset} {seed} {form}: {time.monotonic() - began:.0f} s", flush=True)


def run_on(core: int, module: str, *arguments: str) -> None:
    """Run a command of ours in a process of its own on one core; its output goes nowhere unless it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise UserError(f"{module} {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")


def demo_config():
    """Return the configuration that every training starts from."""
    from sspd_jax.training import config as experiments

    return experiments.load(str(CONFIG))


def data_dir(out: Path, preset: str, seed: int) -> Path:
    """Say where the prepared people of a preset and seed are."""
    return out / f"{preset}-{seed}-data"


def work_dir(out: Path, preset: str, seed: int, form: str) -> Path:
    """Say where a training is."""
    return out / f"{preset}-{seed}-{form}"


def read_windows(out: Path, parts: list[Part]) -> list[dict]:
    """Collect every window of every training: what each method read, and the truth."""
    rows = []
    for preset, seed, form in parts:
        with (work_dir(out, preset, seed, form) / "report" / "windows.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["span"] == "window":
                    rows.append(
                        {
                            "preset": preset,
                            "seed": seed,
                            "form": form,
                            "person": row["person"],
                            "start_s": float(row["start_s"]),
                            "method": row["method"],
                            "true_bpm": round(float(row["true_bpm"]), 2),
                            "predicted_bpm": round(float(row["predicted_bpm"] or "nan"), 2),
                            "snr_db": round(float(row["snr_db"] or "nan"), 2),
                        }
                    )
    return rows


def write_windows(rows: list[dict]) -> None:
    """Write the windows as CSV."""
    WINDOWS.parent.mkdir(exist_ok=True)
    with WINDOWS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def report(out: Path, parts: list[Part], rows: list[dict]) -> str:
    """Write the tables in Markdown."""
    presets, seeds, forms = ([*dict.fromkeys(part[i] for part in parts)] for i in range(3))
    settings = json.loads((work_dir(out, *parts[0]) / "config.json").read_text())
    steps = EPOCHS * -(-TRAINED_ON // settings["batch_size"])
    network, evaluation = settings["network"], settings["evaluation"]
    lines = [
        "# Simulated people that the network never saw",
        "",
        "`python benchmarks/accuracy/simulated_people.py`. "
        f"Simulator version {recordings.VERSION}; for each preset "
        f"and each of the seeds {', '.join(map(str, seeds))} {TRAINED_ON} people to learn from, without "
        f"labels, and {TESTED_ON} others to test on, {SECONDS:g} s each; the seed is the training's too. "
        f"Network of `configs/demo.py` ({network['input_size']}×{network['input_size']} pixels, stages "
        f"{network['stages']}, {network['features']} features), {steps} steps of {settings['batch_size']} "
        f"clips of {settings['clip_frames']} frames, Adam at {settings['optimizer']['learning_rate']:g}, "
        "tested after the last step. Neither the presets nor these settings were tuned on these seeds.",
        "",
        f"Windows of {evaluation['window_s']:g} s without overlap; rate = interpolated spectral peak in "
        "36–216 bpm; truth = the same read-out of the PPG wave in the same window. The reader, fixed before "
        f"testing, is the {evaluation['reader']} network. Everybody is made from one portrait: these numbers "
        "say how light and motion are coped with, not how well people are read.",
        "",
        f"Python {platform.python_version()}, jax {jax.__version__}, one x86 core a training.",
        "",
        "| preset | method | MAE by seed, bpm | median | MAE ± SE over people | "
        f"windows within {RIGHT_BPM:g} bpm | SNR, dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for preset in presets:
        for form in forms:
            for method in ("target", "online"):
                name = f"SSPD, {form} form, {method}"
                if mine := _of(rows, preset, form, method):
                    lines.append(_line(preset, name, mine, seeds))
        for method in BASELINES:
            # The same in every form: but for the untrained network's variant, nothing was learned.
            lines.append(_line(preset, NAMES[method], _of(rows, preset, forms[0], method), seeds))
    lines += ["", "## Health without labels", "", _health(out, parts), ""]
    return "\n".join(lines)


def _of(rows: list[dict], preset: str, form: str, method: str) -> list[dict]:
    return [r for r in rows if (r["preset"], r["form"], r["method"]) == (preset, form, method)]


def _line(preset: str, name: str, rows: list[dict], seeds: list[int]) -> str:
    def errors(keep=lambda _: True):
        return np.array([abs(r["predicted_bpm"] - r["true_bpm"]) for r in rows if keep(r)])

    by_seed = [np.nanmean(errors(lambda r, s=s: r["seed"] == s)) for s in seeds]
    everybody = {(r["seed"], r["person"]) for r in rows}
    by_person = np.array(
        [np.nanmean(errors(lambda r, who=who: (r["seed"], r["person"]) == who)) for who in everybody]
    )
    error = by_person.std(ddof=1) / np.sqrt(len(by_person))
    right = (errors() <= RIGHT_BPM).mean()
    snr = np.nanmean([r["snr_db"] for r in rows])
    shown = ", ".join(f"{e:.2f}" for e in by_seed)
    return (
        f"| {preset} | {name} | {shown} | {np.median(by_seed):.2f} | "
        f"{by_person.mean():.2f} ± {error:.2f} | {right:.0%} | {snr:.1f} |"
    )


def _health(out: Path, parts: list[Part]) -> str:
    """Tell the label-free score of every training in its best and its last epoch, and the time it waited."""
    lines = [
        "| training | best label-free score | at step | at the end | share of time waiting for clips |",
        "|---|---|---|---|---|",
    ]
    for part in parts:
        metrics = metrics_log.read_metrics(work_dir(out, *part))
        scores = np.array([row["health/score"] for row in metrics])
        smooth = np.convolve(scores, np.ones(3) / 3, "same")
        waiting = np.mean([row["time/waiting_share"] for row in metrics])
        best = int(smooth.argmax())
        lines.append(
            f"| {' '.join(map(str, part))} | {scores[best]:.2f} | {metrics[best]['step']} | "
            f"{scores[-3:].mean():.2f} | {waiting:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

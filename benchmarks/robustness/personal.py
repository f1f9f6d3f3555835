"""Whether a network reads a person better after going on, without labels, with that person's own videos.

    python benchmarks/robustness/personal.py [--people=5] [--settings compressed hard]

Films six clips of 20 s of each person (seed 800, whom the network in data/ never saw), each under other light
and with other motion: four to learn from, two to test on. Then runs configs/personal.py as it is, and reads
the two clips with the network in data/ and with the one that went on, nothing refused. A row for each window
and network goes to personal.csv as soon as a person is done: killed and started again, the study goes
on with the next person. The table goes to personal.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sspd_jax
from sspd_jax.cli import common
from sspd_jax.heart_rate.rate import fundamental_rate
from sspd_jax.inference import predict
from sspd_jax.runtime import storage
from sspd_jax.simulation import presets, recordings, sample_video, scene
from sspd_jax.simulation.recordings import draw_person
from sspd_jax.video import resample

ROOT = Path(__file__).parents[2]
REPORT = Path(__file__).with_suffix(".md")
ROWS = Path(__file__).parent / "personal.csv"
SHIPPED = ROOT / "data" / "simulated_faces"
SEED, FPS, SECONDS = 800, 30, 20.0
LEARNED, TESTED = 4, 2  # clips
SETTINGS: Mapping[str, tuple[str, dict[str, str]]] = {  # preset of the simulator, options of the encoder
    "compressed": ("default", {"crf": "23", "preset": "veryfast"}),
    "hard": ("hard", dict(recordings.CODEC_OPTIONS)),
}
RIGHT_BPM = 3.0
COLUMNS = ("setting", "person", "network", "clip", "start_s", "true_bpm", "bpm", "confidence")


def film(path: Path, setting: str, number: int, clip: int) -> tuple[np.ndarray, np.ndarray]:
    """Film a clip of a person; returns the frames' times and the PPG."""
    preset, options = SETTINGS[setting]
    person = draw_person(SEED, number)
    times_s = np.arange(round(SECONDS * FPS)) / FPS
    later_s = times_s + 60 * clip  # the heart beats on; light, motion and noise are the clip's own
    ppg, _ = person.pulse(later_s)
    pictures = scene.film(person, presets.PRESETS[preset], later_s, SEED + 1 + clip, number)
    sample_video.write_video(path, pictures, times_s, codec="libx264", options=options)
    return times_s, ppg


def go_on(videos: Path, workdir: Path) -> list[str]:
    """Run the experiment of configs/personal.py; returns what it said of its course."""
    run = [sys.executable, "-m", "sspd_jax.main", f"--config={ROOT}/configs/personal.py", "--no_progress"]
    run += [
        f"--workdir={workdir}",
        f"--config.data.source={videos}",
        f"--config.data.data_dir={workdir}-data",
    ]
    run += [f"--config.init_from={SHIPPED}"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if re.match("note: (stopped|the networks)|warning:", line)]


def one_person(setting: str, number: int) -> list[dict[str, Any]]:
    """Film, go on, and read the clips that were kept back by both networks."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "videos" / f"person{number}"
        mine.mkdir(parents=True)
        for clip in range(LEARNED):
            film(mine / f"{clip}.mp4", setting, number, clip)
        workdir = Path(folder) / "run"
        print(f"{setting} {number}:", *go_on(mine.parent, workdir), sep="\n  ", flush=True)
        networks = {"shipped": SHIPPED, "gone on": workdir / "network" / "target"}
        for clip in range(LEARNED, LEARNED + TESTED):
            path = Path(folder) / f"{clip}.mp4"
            times_s, ppg = film(path, setting, number, clip)
            for name, checkpoint in networks.items():
                for window in predict.predict(path, model=sspd_jax.load(checkpoint)).windows:
                    ticks = window.start_s + np.arange(round(window.duration_s * FPS)) / FPS
                    true = fundamental_rate(resample.resample_wave(ppg, times_s, ticks), FPS)
                    numbers = (window.start_s, true, window.candidate_bpm, window.confidence)
                    told = ["" if number is None else f"{number:.4g}" for number in numbers]
                    rows.append(dict(zip(COLUMNS, (setting, number, name, clip, *told), strict=True)))
    return rows


def read_rows() -> list[dict[str, str]]:
    """Read the rows that are there."""
    if not ROWS.exists():
        return []
    with ROWS.open(newline="") as file:
        return list(csv.DictReader(file))


def report(rows: Sequence[Mapping[str, str]]) -> str:
    """Write the table."""
    lines = [
        "# Going on with one person's own videos",
        "",
        "`python benchmarks/robustness/personal.py`; a row per window is in "
        f"[personal.csv]({ROWS.name}). Of each simulated person (seed {SEED}) {LEARNED} "
        f"clips of {SECONDS:g} s to learn from, without labels, by `configs/personal.py`; {TESTED} others "
        "to test on, windows of 10 s every 5 s, nothing refused. "
        f"*Right*: within {RIGHT_BPM:g} bpm. *Read*: with a confidence of 0.9 or more.",
        "",
        "| setting | person | true, bpm | MAE, shipped | gone on | right, shipped | gone on | "
        "read, shipped | gone on |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def table(mine: Sequence[Mapping[str, str]], what: str) -> list[str]:
        by_network = [[row for row in mine if row["network"] == name] for name in ("shipped", "gone on")]
        errors = [
            np.array([abs(float(row["bpm"] or 97.5) - float(row["true_bpm"])) for row in part])
            for part in by_network
        ]
        read = [sum(float(row["confidence"]) >= 0.9 for row in part) for part in by_network]
        true = np.mean([float(row["true_bpm"]) for row in mine])
        cells = [what, f"{true:.0f}", *(f"{part.mean():.2f}" for part in errors)]
        cells += [f"{int((part <= RIGHT_BPM).sum())} of {len(part)}" for part in errors]
        cells += [f"{n} of {len(part)}" for n, part in zip(read, errors, strict=True)]
        return [f"| {' | '.join(cells)} |"]

    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        for person in dict.fromkeys(row["person"] for row in mine):
            lines += table([row for row in mine if row["person"] == person], f"{setting} | {person}")
        lines += table(mine, f"{setting} | **all**")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the people that are left and write the table."""
    parser = argparse.ArgumentParser("benchmarks/robustness/personal.py", description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=5, help="of each setting (default: %(default)s)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=tuple(SETTINGS))
    args = parser.parse_args(argv)

    def work():
        for setting in args.settings:
            for number in range(1, args.people + 1):
                if (setting, str(number)) in {(row["setting"], row["person"]) for row in read_rows()}:
                    continue
                new = one_person(setting, number)
                ROWS.parent.mkdir(exist_ok=True)
                is_first = not ROWS.exists()
                with ROWS.open("a", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    if is_first:
                        writer.writeheader()
                    writer.writerows(new)
        notes = REPORT.with_name("personal_notes.md")
        text = report(read_rows()) + ("\n" + notes.read_text() if notes.exists() else "")
        storage.write_text(REPORT, text)
        print(text)

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

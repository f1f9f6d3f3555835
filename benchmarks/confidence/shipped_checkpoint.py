"""Whether the network in `data/` refuses what has no pulse, and reads what has one.

    python benchmarks/confidence/shipped_checkpoint.py [--checkpoint=data/simulated_faces] [--jobs=2]

Films the held-out people of `clips.py` (seed 600): 60 clips without a pulse, 102 that a method that works
should read, 24 others with a pulse. Every clip is read as `predict` does, with the shipped weights of the
confidence and its threshold: nothing is fitted here. Face crops and readings are kept in
workdir/shipped_checkpoint: killed and started again, it goes on with the next clip, and another checkpoint of
the same crop size reads the same crops. The tables go to shipped_checkpoint.md beside this file, a row per
window to shipped_checkpoint.csv.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import clips as study
import jax
import numpy as np
import tqdm

import sspd_jax
from sspd_jax.cli.common import run
from sspd_jax.heart_rate import confidence
from sspd_jax.heart_rate.rate import fundamental_rate
from sspd_jax.inference.methods import pulse_extractor
from sspd_jax.inference.predict import segments_of
from sspd_jax.inference.windows import Settings, as_json
from sspd_jax.runtime import storage
from sspd_jax.video import decode, face_stream, resample

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "workdir" / "shipped_checkpoint"
REPORT = Path(__file__).with_suffix(".md")
ROWS = Path(__file__).parent / "shipped_checkpoint.csv"
SEED = study.HELD_OUT
MOST_REFUSED = 0.05  # of the good clips
SETTINGS = Settings()


def clips() -> list[tuple[str, int]]:
    """List what is filmed, kind and number of the person: without a pulse, then good ones, then others."""
    good, other, free = study.PEOPLE[SEED]
    kinds = sorted(study.KINDS.items(), key=lambda item: (item[1].alive, not item[1].good))
    return [
        (name, number)
        for name, kind in kinds
        for number in range(1, (good if kind.good else other if kind.alive else free) + 1)
    ]


def _file(folder: Path, name: str, number: int, suffix: str) -> Path:
    return folder / f"{'-'.join(re.findall('[a-z0-9]+', name.lower()))}-{number}{suffix}"


def film(name: str, number: int, size: int) -> Path:
    """Film a clip and keep its face crops and truth, unless they are there."""
    kept = _file(KEPT / f"crops-{size}", name, number, ".npz")
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        film_times_s, ppg = study.film(path, study.KINDS[name], SEED, number)
        clip = face_stream.cut_face(decode.frames(path), path, size=size, follow=True, watch_background=True)
        times_s, crops = zip(*clip, strict=True)
    data = io.BytesIO()
    np.savez(
        data,
        times_s=times_s,
        crops=np.stack(crops),
        looks=np.array(clip.detections),
        background=clip.background.values,
        film_times_s=film_times_s,
        ppg=ppg,
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    storage.write_bytes(kept, data.getvalue())
    return kept


class Kept(face_stream.FaceClip):
    """A face clip out of what was kept of one."""

    def __init__(self, path: Path):
        with np.load(path) as kept:
            self.arrays = dict(kept)
        detections = [(float(time_s), bool(found)) for time_s, found in self.arrays["looks"]]
        super().__init__(path, 0.5, detections)
        self.start_s = float(self.arrays["times_s"][0])
        self.crops = self._crops()

    def _crops(self) -> Iterator[tuple[float, np.ndarray]]:
        names = ("times_s", "crops", "background")
        for time_s, image, around in zip(*(self.arrays[name] for name in names), strict=True):
            self.background.note(float(time_s), around)
            yield float(time_s), image


@functools.cache
def _reader(checkpoint: str):
    return sspd_jax.load(checkpoint)


def read(name: str, number: int, size: int, checkpoint: str, folder: Path) -> None:
    """Film a clip if need be, and keep what the network says of its windows."""
    path = film(name, number, size)
    kept = _file(folder, name, number, ".json")
    network, clip = _reader(checkpoint), Kept(path)
    segments, _ = segments_of(clip, study.FPS, pulse_extractor("sspd", network, study.FPS), SETTINGS)
    rows = []
    for window in itertools.chain.from_iterable(segment.windows for segment in segments):
        ticks = window.start_s + np.arange(round(window.duration_s * study.FPS)) / study.FPS
        truth = resample.resample_wave(clip.arrays["ppg"], clip.arrays["film_times_s"], ticks)
        alive = study.KINDS[name].alive
        rows.append(as_json(window) | {"true_bpm": fundamental_rate(truth, study.FPS) if alive else None})
    storage.write_text(kept, json.dumps(rows) + "\n")


def digest(checkpoint: str) -> str:
    """Name a network by what it is: its settings and its numbers."""
    network = _reader(checkpoint)
    found = hashlib.sha256(repr((network.network, network.fps, network.crop_size)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path((network.params, network.batch_stats)):
        found.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return found.hexdigest()[:12]


def _apart(windows: list[dict], key: str) -> float:
    """How far the median rate of windows is from the truth's median, bpm."""
    return float(abs(np.median([w[key] for w in windows]) - np.median([w["true_bpm"] for w in windows])))


def report(windows: dict[tuple[str, int], list[dict]], checkpoint: str) -> str:
    """Write the tables."""
    table = [
        "| filmed | clips | with a reading | of these, right | MAE of what was read | most | "
        "right, had nothing been refused |"
    ]
    table += ["|---|---|---|---|---|---|---|"]
    false, free, refused, rescued, errors, all_good = 0, 0, 0, 0, [], []
    for name in dict.fromkeys(name for name, _ in windows):
        kind, mine = study.KINDS[name], [w for (kind_name, _), w in windows.items() if kind_name == name]
        read = [[w for w in clip if w["heart_rate_bpm"] is not None] for clip in mine]
        n_read = sum(bool(clip) for clip in read)
        if not kind.alive:
            false, free = false + n_read, free + len(mine)
            table.append(f"| {name} | {len(mine)} | {n_read} | – | – | – | – |")
            continue
        off = [_apart(clip, "heart_rate_bpm") for clip in read if clip]
        right = sum(error <= confidence.WITHIN_BPM for error in off)
        numbers = f"{np.mean(off):.2f} bpm | {max(off):.2f} bpm" if off else "– | –"
        read_at_all = [[w for w in clip if w["candidate_bpm"] is not None] for clip in mine]
        whole = [_apart(clip, "candidate_bpm") for clip in read_at_all]
        unrefused = sum(error <= confidence.WITHIN_BPM for error in whole)
        table.append(f"| {name} | {len(mine)} | {n_read} | {right} | {numbers} | {unrefused} |")
        if kind.good:
            errors += off
            all_good += whole
            silent = [error for error, clip in zip(whole, read, strict=True) if not clip]
            refused += len(silent)
            rescued += sum(error <= confidence.WITHIN_BPM for error in silent)
    n_good = refused + len(errors)
    passes = false == 0 and refused <= MOST_REFUSED * n_good
    right = sum(error <= confidence.WITHIN_BPM for error in errors)
    lines = [
        "# The refusal table of the network in `data/`",
        "",
        f"`python benchmarks/confidence/shipped_checkpoint.py --checkpoint={checkpoint}`. The held-out "
        f"people of [confidence.md](confidence.md) (seed {SEED}), {study.SECONDS:g} s each, windows of "
        f"{SETTINGS.window_s:g} s every {SETTINGS.stride_s:g} s, read as `predict` does, with the shipped "
        f"weights of the confidence and its threshold, {confidence.THRESHOLD:g}. A clip is read if any of "
        "its windows has a reading; right: the median of these is within "
        f"{confidence.WITHIN_BPM:g} bpm of the truth. "
        "Neither this network nor the weights learned from these people. One thing was decided on this "
        "table: that the surer of two looks at a face's colours counts (`sspd_jax.inference.cell_colors`).",
        "",
        f"**{'Passes' if passes else 'Does not pass'}**: it passes with no false reading on what has no "
        f"pulse and at most {MOST_REFUSED:.0%} of the good clips refused.",
        "",
        "| pulse-free clips with a reading | good clips refused | of these, would have been right | "
        "good clips read | of these, right | MAE of these |",
        "|---|---|---|---|---|---|",
        f"| {false} of {free} | {refused} of {n_good} | {rescued} | {len(errors)} | {right} | "
        f"{np.mean(errors) if errors else np.nan:.2f} bpm |",
        "",
        "Had nothing been refused, the good clips' error would be "
        f"{np.mean(all_good):.2f} ± {np.std(all_good, ddof=1) / np.sqrt(len(all_good)):.2f} bpm "
        "(mean and standard error over clips, median over each clip's windows).",
        "",
        "By what was filmed; the last three kinds are not counted above, as in confidence.md:",
        "",
        *table,
    ]
    return "\n".join(lines) + "\n"


def write_rows(windows: dict[tuple[str, int], list[dict]]) -> None:
    """Write a row for each window."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("start_s", "true_bpm", "heart_rate_bpm", "candidate_bpm", "confidence", "why")
    writer.writerow(("kind", "person", *columns))
    for (name, number), rows in windows.items():
        for row in rows:
            values = (row[column] for column in columns)
            said = (f"{v:.5g}" if isinstance(v, float) else "" if v is None else v for v in values)
            writer.writerow((name, number, *said))
    storage.write_text(ROWS, text.getvalue())


def main(argv: list[str] | None = None) -> int:
    """Film and read what is left, and write the tables."""
    parser = argparse.ArgumentParser(
        "benchmarks/confidence/shipped_checkpoint.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--checkpoint", default="data/simulated_faces", metavar="DIR", help="network to read with"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="clips at once (default: all cores)")
    args = parser.parse_args(argv)

    def work():
        size, folder = _reader(args.checkpoint).crop_size, KEPT / digest(args.checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
            todo = [
                pool.submit(read, *clip, size, args.checkpoint, folder)
                for clip in clips()
                if not _file(folder, *clip, ".json").exists()
            ]
            for clip in tqdm.tqdm(as_completed(todo), "clips", len(todo), mininterval=10):
                clip.result()
        windows = {clip: json.loads(_file(folder, *clip, ".json").read_text()) for clip in clips()}
        write_rows(windows)
        storage.write_text(REPORT, report(windows, args.checkpoint))
        print(REPORT.read_text())

    return run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

"""How hard the simulated recordings are, preset by preset, for methods whose error on real faces is known.

    python benchmarks/accuracy/simulator_realism.py [--checkpoint=DIR] [--seeds 100] [--people=12]

Films one person after the other into a temporary folder, reads the recording back by the road that training
and prediction use, and adds what every method read of it to simulator_realism.csv: killed and started
again, the study goes on with the next person. The table goes to simulator_realism.md beside this file. The
checkpoint is what `python -m sspd_jax convert` makes of the authors' published weights for UBFC-rPPG; without
it, only the classical methods are read.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import platform
import sys
import tempfile
import typing
from pathlib import Path

import av
import cv2
import numpy as np

import sspd_jax
from sspd_jax.cli import common
from sspd_jax.datasets.readers import ubfc_rppg
from sspd_jax.heart_rate import classical
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.runtime import storage
from sspd_jax.simulation import presets, recordings
from sspd_jax.simulation.person import SIZE
from sspd_jax.video import decode
from sspd_jax.video.face_stream import cut_face
from sspd_jax.video.resample import resample_wave

FPS = 30.0
WINDOW_S = 10.0
RIGHT_BPM = 3.0
HERE = Path(__file__).parent
REPORT = HERE / "simulator_realism.md"
ROWS = HERE / "simulator_realism.csv"
CLASSICAL = ("green", "chrom", "pos")
NAMES = {"green": "GREEN", "chrom": "CHROM", "pos": "POS", "weights": "published weights"}


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method read of one window, or of a whole video."""

    version: int  # of the simulator
    preset: str
    seconds: float  # of the recording
    seed: int
    person: int
    method: str
    span: str  # 'window' or 'video'
    start_s: float
    true_bpm: float
    bpm: float

    @property
    def recording(self) -> tuple:
        """What tells one recording from another."""
        return self.version, self.preset, self.seconds, self.seed, self.person

    @property
    def off(self) -> float:
        """Absolute error, bpm."""
        return abs(self.bpm - self.true_bpm)


def read_person(preset: str, seed: int, number: int, seconds: float, reader) -> list[Row]:
    """Film one person, read the recording and delete it.

    Args:
      preset: a name in `simulator.PRESETS`.
      seed: of the list of people.
      number: of the person.
      seconds: length of the recording, s.
      reader: a network (`sspd_jax.Reader`), or None.

    Returns:
      A row for each method and window, and one for the whole video. A clip starts where the face is first
      found, so a person may have a window less.
    """
    with tempfile.TemporaryDirectory() as folder:
        recordings.write_recording(Path(folder) / f"subject{number}", preset, number, seconds, seed)
        (recording,) = ubfc_rppg.recordings(folder)
        # Files say 30 frames/s and mean it, so the file's clock is the recording's.
        ticks = list(cut_face(decode.frames(recording.file), recording.file).on_clock(FPS))
    crops = np.stack([image for _, _, image in ticks])
    times_s = np.array([time_s for _, time_s, _ in ticks])
    truth = resample_wave(recording.ppg.values, recording.ppg.times_s, times_s)
    trace = crops.mean((1, 2), dtype=np.float64)
    waves = {name: classical.read_trace(name, trace, FPS) for name in CLASSICAL}
    if reader is not None:
        waves["weights"] = reader.waveform(crops, FPS)
    length = round(WINDOW_S * FPS)
    spans = [("window", start, start + length) for start in range(0, len(truth) - length + 1, length)]
    recording = (recordings.VERSION, preset, seconds, seed, number)
    return [
        Row(
            *recording,
            name,
            span,
            start / FPS,
            round(spectral_peak_rate(truth[start:end], FPS), 3),
            # CHROM cuts its wave at the end: what is left of the last window is read.
            round(spectral_peak_rate(wave[start:end], FPS), 3),
        )
        for name, wave in waves.items()
        for span, start, end in [*spans, ("video", 0, len(truth))]
    ]


def read_rows() -> list[Row]:
    """Read what earlier runs found, by this version of the simulator."""
    if not ROWS.exists():
        return []
    types = typing.get_type_hints(Row)
    with ROWS.open(newline="") as file:
        rows = [Row(**{k: types[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]
    return [row for row in rows if row.version == recordings.VERSION]


def write_rows(rows: list[Row]) -> None:
    """Write all rows, aside and renamed."""
    ROWS.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Row))
    writer.writerows(dataclasses.astuple(row) for row in rows)
    storage.write_text(ROWS, text.getvalue())


def report(rows: list[Row]) -> str:
    """Write the table in Markdown."""
    versions = f"NumPy {np.__version__}, OpenCV {cv2.__version__}, PyAV {av.__version__}"
    seeds, people = sorted({row.seed for row in rows}), len({(row.seed, row.person) for row in rows})
    options = ", ".join(f"{key} {value}" for key, value in recordings.CODEC_OPTIONS.items())
    lines = [
        "# How hard the simulated recordings are",
        "",
        f"`python benchmarks/accuracy/simulator_realism.py`. Simulator version {recordings.VERSION}, seeds "
        f"{', '.join(map(str, seeds))} (the presets were tuned on seeds 1 to 3 and then frozen), "
        f"{people} people, {rows[0].seconds:g} s each at {FPS:g} frames/s, "
        f"{SIZE[0]}×{SIZE[1]}, {recordings.CODEC} ({options}).",
        f"Face crops by the shared road (one box per video, 151×151, uniform {FPS:g} Hz clock), one wave "
        f"per recording, windows of {WINDOW_S:g} s without overlap, rate = interpolated spectral peak in "
        "36–216 bpm, truth = the same read-out of the PPG wave in the same window.",
        f"Python {platform.python_version()}, {versions}.",
        "",
        "| preset | method | MAE, bpm | ± SE over people | median over people (quartiles) | "
        f"windows right within {RIGHT_BPM:g} bpm | people right within {RIGHT_BPM:g} bpm |",
        "|---|---|---|---|---|---|---|",
    ]
    for preset, method in itertools.product(presets.PRESETS, NAMES):
        off: dict[str, dict[tuple, list[float]]] = {"window": {}, "video": {}}
        for row in rows:
            if (row.preset, row.method) == (preset, method):
                off[row.span].setdefault(row.recording, []).append(row.off)
        if not off["window"]:
            continue
        windows = np.concatenate([*off["window"].values()])
        person = np.array([np.mean(one) for one in off["window"].values()])
        low, median, high = np.percentile(person, [25, 50, 75])
        right = np.array([one[0] <= RIGHT_BPM for one in off["video"].values()])
        lines.append(
            f"| {preset} | {NAMES[method]} | {person.mean():.2f} | "
            f"{person.std(ddof=1) / np.sqrt(len(person)):.2f} | {median:.2f} ({low:.2f}–{high:.2f}) | "
            f"{(windows <= RIGHT_BPM).mean():.0%} | {right.sum()} of {len(right)} |"
        )
    lines += [
        "",
        "MAE and spread are of windows, averaged by person first; the last column is of whole recordings. "
        "Published on the real UBFC-rPPG (rPPG-Toolbox, whole videos, another read-out): "
        "GREEN 19.81, CHROM 3.98, POS 4.00 bpm.",
        "",
        "POS and CHROM err where a heart beats near 45 bpm: their filters begin at 0.75 and 0.7 Hz. "
        "All people are made from one portrait: these numbers say how hard light and motion are, not how "
        "well a method reads people.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "benchmarks/accuracy/simulator_realism.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="the converted published weights")
    parser.add_argument("--presets", nargs="+", default=list(presets.PRESETS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100], help="default: 100")
    parser.add_argument("--people", type=int, default=12, help="per seed (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=30.0, help="per recording (default: %(default)g)")
    args = parser.parse_args(argv)

    def work():
        reader = sspd_jax.load(args.checkpoint) if args.checkpoint else None
        rows = read_rows()
        done = {row.recording for row in rows}
        numbers = range(1, args.people + 1)
        for preset, seed, number in itertools.product(args.presets, args.seeds, numbers):
            if (recordings.VERSION, preset, args.seconds, seed, number) not in done:
                new = read_person(preset, seed, number, args.seconds, reader)
                rows += new
                write_rows(rows)
                off = ", ".join(f"{row.method} {row.off:.1f}" for row in new if row.span == "video")
                print(f"{preset} seed {seed} person {number}: off by {off} bpm", flush=True)
        storage.write_text(REPORT, report(rows))
        print(REPORT.read_text())

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

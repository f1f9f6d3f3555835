"""How hard the simulated recordings are, preset by preset, for methods whose error on real faces is known.

    python benchmarks/simulator_realism.py [--checkpoint=DIR] [--seeds 100] [--people=12]

Writes recordings into a temporary folder, reads them back by the road that training and prediction use, and
writes the table to simulator_realism.md beside this file. The checkpoint is what `python -m sspd_jax.convert`
makes of the authors' published weights for UBFC-rPPG; without it, only the classical methods are read.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np

import sspd_jax
from sspd_jax import command
from sspd_jax.datasets import simulator, ubfc_rppg
from sspd_jax.heart_rate import classical
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.video.clock import resample_wave
from sspd_jax.video.face_clip import open_face_clip

FPS = 30.0
WINDOW_S = 10.0
RIGHT_BPM = 3.0
REPORT = Path(__file__).with_suffix(".md")


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Errors of all methods at one preset.

    Attributes:
      windows: {method: one array [windows] per person}, predicted minus true rate of each window, bpm.
        A clip starts where the face is first found, so a person may have a window less.
      videos: {method: [people]}, the same of whole recordings, bpm.
    """

    windows: dict[str, list[np.ndarray]]
    videos: dict[str, np.ndarray]


def study(preset: str, seeds: list[int], people: int, seconds: float, reader, tell=print) -> Study:
    """Write, read and delete the recordings of one preset.

    Args:
      preset: a name in `simulator.PRESETS`.
      seeds: each is a list of `people` people.
      people: per seed.
      seconds: length of a recording, s.
      reader: a network (`sspd_jax.Reader`), or None.
      tell: gets a line about each recording.

    Returns:
      The errors.
    """
    windows: dict[str, list] = {}
    videos: dict[str, list] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            simulator.write_recordings(folder, preset=preset, people=people, seconds=seconds, seed=seed)
            for recording in ubfc_rppg.recordings(folder):
                # Files say 30 frames/s and mean it, so the file's clock is the recording's.
                ticks = list(open_face_clip(recording.file).on_clock(FPS))
                crops = np.stack([image for _, _, image in ticks])
                times_s = np.array([time_s for _, time_s, _ in ticks])
                truth = resample_wave(recording.ppg.values, recording.ppg.times_s, times_s)
                trace = crops.mean((1, 2), dtype=np.float64)
                waves = {name: method(trace, FPS) for name, method in classical.METHODS.items()}
                if reader is not None:
                    waves["weights"] = reader.waveform(crops, FPS)
                line = f"{preset} seed {seed} {recording.recording_id}: {_rate(truth):.1f} bpm;"
                for name, wave in waves.items():
                    # CHROM cuts its wave at the end: what is left of the last window is read.
                    errors = np.array([_error(wave, truth, i) for i in _starts(len(truth))])
                    windows.setdefault(name, []).append(errors)
                    videos.setdefault(name, []).append(_rate(wave) - _rate(truth))
                    line += f" {name} {np.abs(errors).mean():.1f}"
                tell(line)
    return Study(windows, {name: np.array(errors) for name, errors in videos.items()})


def _starts(samples: int) -> range:
    step = round(WINDOW_S * FPS)
    return range(0, max(1, samples - step + 1), step)


def _error(wave: np.ndarray, truth: np.ndarray, start: int) -> float:
    window = slice(start, start + round(WINDOW_S * FPS))
    return _rate(wave[window]) - _rate(truth[window])


def _rate(wave: np.ndarray) -> float:
    return spectral_peak_rate(wave, FPS)


def report(studies: dict[str, Study], seeds: list[int], people: int, seconds: float) -> str:
    """Write the table in Markdown.

    Args:
      studies: {preset: errors}.
      seeds: of the people.
      people: per seed.
      seconds: length of a recording, s.

    Returns:
      The text.
    """
    names = {"green": "GREEN", "chrom": "CHROM", "pos": "POS", "weights": "published weights"}
    versions = f"NumPy {np.__version__}, OpenCV {cv2.__version__}, PyAV {av.__version__}"
    lines = [
        "# How hard the simulated recordings are",
        "",
        f"Simulator version {simulator.VERSION}, seeds {', '.join(map(str, seeds))} (the presets were tuned "
        f"on seeds 1 to 3 and then frozen), {people} people each, {seconds:g} s at {FPS:g} frames/s, "
        f"{simulator.SIZE[0]}×{simulator.SIZE[1]}, {simulator.CODEC} ({_options()}).",
        f"Face crops by the shared road (one box per video, 151×151, uniform {FPS:g} Hz clock), one wave "
        f"per recording, windows of {WINDOW_S:g} s without overlap, rate = interpolated spectral peak in "
        "36–216 bpm, truth = the same read-out of the PPG wave in the same window.",
        f"Python {platform.python_version()}, {versions}.",
        "",
        "| preset | method | MAE, bpm | ± SE over people | median over people (quartiles) | "
        f"windows right within {RIGHT_BPM:g} bpm | people right within {RIGHT_BPM:g} bpm |",
        "|---|---|---|---|---|---|---|",
    ]
    for preset, errors in studies.items():
        for name, by_window in errors.windows.items():
            off = np.abs(np.concatenate(by_window))
            person = np.array([np.abs(one).mean() for one in by_window])
            low, median, high = np.percentile(person, [25, 50, 75])
            right = np.abs(errors.videos[name]) <= RIGHT_BPM
            lines.append(
                f"| {preset} | {names[name]} | {person.mean():.2f} | "
                f"{person.std(ddof=1) / np.sqrt(len(person)):.2f} | {median:.2f} ({low:.2f}–{high:.2f}) | "
                f"{(off <= RIGHT_BPM).mean():.0%} | {right.sum()} of {len(right)} |"
            )
    lines += [
        "",
        "MAE and spread are of windows, averaged by person first; the last column is of whole recordings. "
        "Published on the real UBFC-rPPG (rPPG-Toolbox, whole videos, another read-out): "
        "GREEN 19.81, CHROM 3.98, POS 4.00 bpm.",
        "All people are made from one portrait: these numbers say how hard light and motion are, not how "
        "well a method reads people.",
    ]
    return "\n".join(lines) + "\n"


def _options() -> str:
    return ", ".join(f"{key} {value}" for key, value in simulator.CODEC_OPTIONS.items())


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser("benchmarks/simulator_realism.py", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", metavar="DIR", help="the converted published weights")
    parser.add_argument("--presets", nargs="+", default=list(simulator.PRESETS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100], help="default: 100")
    parser.add_argument("--people", type=int, default=12, help="per seed (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=30.0, help="per recording (default: %(default)g)")
    parser.add_argument("--output", type=Path, default=REPORT, help="default: beside this file")
    args = parser.parse_args(argv)

    def work():
        reader = sspd_jax.load(args.checkpoint) if args.checkpoint else None
        studies = {
            preset: study(preset, args.seeds, args.people, args.seconds, reader) for preset in args.presets
        }
        text = report(studies, args.seeds, args.people, args.seconds)
        args.output.write_text(text)
        print(text)

    return command.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

"""Read heart rates from the skin's traces of real people and of talking heads with a known pulse.

    python benchmarks/accuracy/skin_reading.py FOLDER... [--seconds=10] [--every=5]

A FOLDER holds `subject*/vid.*` with `ground_truth.txt` (UBFC-rPPG: pulse, rate, times), or NAME.mp4 beside
NAME.csv (frame,time_s,ppg,heart_rate_bpm). Truth is the spectral peak of the pulse in each window; nothing is
refused. Prints the share of windows within 3 bpm and the mean absolute error by estimator.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import cv2
import numpy as np

from sspd_jax.heart_rate import fusion
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.video.decode import frames
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.skin_traces import SkinTraces, skin_traces

FPS = 30.0


def recordings(folder: Path):
    """Yield (name, video, times in s, pulse)."""
    for truth in sorted(folder.glob("*/ground_truth.txt")):
        pulse, _, times_s = (np.array(line.split(), float) for line in truth.read_text().splitlines()[:3])
        yield truth.parent.name, next(truth.parent.glob("vid.*")), times_s - times_s[0], pulse
    for table in sorted(folder.glob("*.csv")):
        _, times_s, pulse, _ = np.loadtxt(table, delimiter=",", skiprows=1).T
        yield table.stem, table.with_suffix(".mp4"), times_s, pulse


def on_clock(times_s: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Put values [t, ...] on a clock of `FPS`; gaps are bridged by straight lines."""
    clock = np.arange(0, times_s[-1] + 1e-6, 1 / FPS)
    flat = values.reshape(len(values), -1).astype(float)
    columns = []
    for column in flat.T:
        seen = np.isfinite(column)
        columns.append(np.interp(clock, times_s[seen], column[seen]) if seen.any() else np.ones(len(clock)))
    return np.stack(columns, 1).reshape(len(clock), *values.shape[1:])


def read(traces: SkinTraces, times_s: np.ndarray, pulse: np.ndarray, seconds: float, every: float):
    """Yield (true bpm, {estimator: bpm}) for each window."""
    skin = fusion.estimator_waves(on_clock(traces.time_s, traces.skin), FPS)
    patches = fusion.estimator_waves(np.moveaxis(on_clock(traces.time_s, traces.patches), 1, 0), FPS)
    area = on_clock(traces.time_s, traces.patch_area)
    crop = fusion.estimator_waves(on_clock(traces.time_s, traces.crop), FPS)
    end_s = min(times_s[-1], traces.time_s[-1]) + 0.05
    seconds = min(seconds, end_s)
    for start_s in np.arange(0, end_s - seconds + 1e-6, every):
        window = slice(round(start_s * FPS), round((start_s + seconds) * FPS))
        clock = start_s + np.arange(round(seconds * FPS)) / FPS
        true = spectral_peak_rate(np.interp(clock, times_s, pulse), FPS)
        both = fusion.fused_rate(
            skin[:, window], FPS, patch_waves=patches[:, :, window], patch_area=area[window].mean(0)
        )
        rates = {f"skin {name}": bpm for name, bpm in both.rates_bpm.items()}
        rates["skin fused"] = fusion.fused_rate(skin[:, window], FPS).bpm
        rates["skin and patches fused"] = both.bpm
        rates |= {
            f"crop {name}": bpm for name, bpm in fusion.fused_rate(crop[:, window], FPS).rates_bpm.items()
        }
        yield true, rates


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=5.0)
    parser.add_argument("--shortest", type=float, default=5.0, help="shorter recordings are left out, s")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    networks, sentence = load_networks()
    if sentence:
        print(sentence)
    for folder in args.folders:
        off: dict[str, list[float]] = {}
        for name, video, times_s, pulse in recordings(folder):
            if times_s[-1] < args.shortest:
                continue
            traces = skin_traces(frames(video), networks)
            one: list[bool] = []
            for true, rates in read(traces, times_s, pulse, args.seconds, args.every):
                for estimator, bpm in rates.items():
                    off.setdefault(estimator, []).append(abs(bpm - true))
                one.append(abs(rates["skin and patches fused"] - true) <= 3)
            print(
                f"  {name}: {sum(one)} of {len(one)}, found in {100 * traces.found.mean():.1f} %", flush=True
            )
        print(f"{folder.name}: {len(next(iter(off.values())))} windows")
        print("| estimator | within 3 bpm | MAE, bpm |\n|---|---|---|")
        for estimator, errors in off.items():
            print(f"| {estimator} | {100 * np.mean(np.array(errors) <= 3):.0f} % | {np.mean(errors):.1f} |")


if __name__ == "__main__":
    main()

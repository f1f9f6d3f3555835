"""What a confidence is worth: fit its weights on simulated people, and measure it on others.

    python benchmarks/confidence/confidence.py --checkpoint=workdir/demo/run/network/target [--jobs=2]

Films people with a pulse (the simulator's presets, and with stronger compression, noise and motion) and
things without one (a photograph on the wall and in a hand, a mannequin that moves its head, lamps that
flicker), reads every clip by GREEN, CHROM, POS and the given networks, and keeps the traces in
workdir/confidence: killed and started again, it goes on with the next clip. Then it collects the evidence of
every window in confidence.csv, fits the weights on the people of seeds 400 and 500, writes them to
sspd_jax/heart_rate/confidence.json, and measures them on the people of seed 600, who were not looked at
before: confidence.md beside this file, and confidence.png.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
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

import numpy as np
import tqdm
from scipy import optimize

from sspd_jax.cli import common
from sspd_jax.heart_rate import classical, confidence
from sspd_jax.heart_rate.rate import fundamental_rate
from sspd_jax.heart_rate.signal_quality import Evidence, extract
from sspd_jax.inference import cell_colors
from sspd_jax.inference.windows import Settings, spans
from sspd_jax.runtime import storage
from sspd_jax.simulation import presets, recordings, sample_video, scene
from sspd_jax.simulation.recordings import draw_person
from sspd_jax.video import decode, face_stream, resample

HERE = Path(__file__).parent
ROWS = HERE / "confidence.csv"
TRACES = HERE.parent / "workdir" / "confidence"
REPORT = HERE / "confidence.md"
PICTURE = HERE / "confidence.png"
CLASSICAL = ("green", "chrom", "pos")
FPS, SECONDS = 30.0, 20.0
FITTED, HELD_OUT = (400, 500), 600  # seeds of people
PEOPLE = {
    400: (8, 8, 6),
    500: (8, 8, 10),
    HELD_OUT: (34, 8, 10),
}  # of each kind: good, other, without a pulse
CONTACT_PEOPLE, CONTACT_WINDOWS = 150, 4  # waves without a picture
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)
RIDGE = 0.003  # per window
AGAINST = (
    "colour apart",
    "colour faint",
    "colour strong",
    "behind beats",
    "behind colour",
    "behind lit",
    "behind agrees",
)

EASY, DEFAULT, HARD = (presets.PRESETS[name] for name in ("easy", "default", "hard"))


def _times(preset: presets.Preset, factor: float, *names: str) -> presets.Preset:
    return dataclasses.replace(preset, **{name: factor * getattr(preset, name) for name in names})


MOTION = ("sway_px", "tilt_deg", "zoom", "turn_deg", "burst_px", "burst_deg", "mouth_px")
STILL = _times(EASY, 0.0, *MOTION, "slow_light", "slow_colour")
HAND_HELD = dataclasses.replace(STILL, sway_px=2.0, tilt_deg=1.0, zoom=0.01, bursts=0.5, burst_px=0.4)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is filmed.

    Attributes:
      preset: of the simulator.
      alive: whether it has a pulse.
      crf: of H.264; None for the simulator's nearly lossless one.
      lamp: relative swing of a lamp that flickers at one rate inside the pulse band, all over the picture.
      good: whether a method that works should read it.
    """

    preset: presets.Preset
    alive: bool = True
    crf: int | None = None
    lamp: float = 0.0
    good: bool = False


KINDS = {
    "easy": Kind(EASY, good=True),
    "default": Kind(DEFAULT, good=True),
    # On the people of the fit no method read more than half of these: the codec has thrown the pulse away.
    "default, H.264 crf 23": Kind(DEFAULT, crf=23),
    "default, noise × 3": Kind(_times(DEFAULT, 3, "noise"), good=True),
    "default, motion × 2": Kind(_times(DEFAULT, 2, *MOTION)),
    "hard": Kind(HARD),
    "photograph": Kind(STILL, alive=False),
    "photograph, hand-held": Kind(HAND_HELD, alive=False),
    "mannequin": Kind(DEFAULT, alive=False),
    "mannequin, motion × 2, crf 23": Kind(_times(DEFAULT, 2, *MOTION), alive=False, crf=23),
    "photograph, lamp": Kind(STILL, alive=False, lamp=0.008),
    "mannequin, coloured lamp": Kind(HARD, alive=False),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One window of one clip, read by one method."""

    kind: str
    seed: int
    person: int
    method: str
    start_s: float
    true_bpm: float  # NaN of what has no pulse
    bpm: float
    evidence: Evidence

    @property
    def right(self) -> bool:
        """Whether the rate is within 3 bpm of the truth; of what has no pulse, none is."""
        return abs(self.bpm - self.true_bpm) <= confidence.WITHIN_BPM


def film(path: Path, kind: Kind, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Film a clip; returns the frames' times and the PPG."""
    times_s = np.arange(round(SECONDS * FPS)) / FPS
    person = draw_person(seed, number)
    ppg, _ = person.pulse(times_s)
    if not kind.alive:
        person = dataclasses.replace(person, blood=np.zeros_like(person.blood))
    rng = np.random.default_rng([seed, number, 9])
    hz, phase = rng.uniform(0.8, 2.6), rng.uniform(0, 2 * np.pi)
    flicker = 1 + kind.lamp * rng.uniform(0.5, 2) * np.sin(2 * np.pi * hz * times_s + phase)

    def pictures() -> Iterator[np.ndarray]:
        film = scene.film(person, kind.preset, times_s, seed, number)
        for picture, light in zip(film, flicker, strict=True):
            dithered = picture * light + rng.random(picture.shape, np.float32) if kind.lamp else picture
            yield np.clip(dithered, 0, 255).astype(np.uint8)

    options = recordings.CODEC_OPTIONS if kind.crf is None else {"crf": str(kind.crf), "preset": "veryfast"}
    sample_video.write_video(path, pictures(), times_s, codec="libx264", options=options)
    return times_s, ppg


@functools.cache
def _reader(checkpoint: str):
    import sspd_jax

    return sspd_jax.load(checkpoint)


def trace_clip(name: str, seed: int, number: int, checkpoints: dict[str, str]) -> None:
    """Film one clip, read it by every method, and keep the traces that evidence is weighed from."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        film_times_s, ppg = film(path, KINDS[name], seed, number)
        sizes = {face_stream.SIZE, *(_reader(c).crop_size for c in checkpoints.values())}
        crops = {}
        for size in sizes:
            clip = face_stream.cut_face(
                decode.frames(path), path, size=size, follow=True, watch_background=True
            )
            ticks = list(clip.on_clock(FPS))
            crops[size] = [image for _, _, image in ticks]
    times_s = np.array([time_s for _, time_s, _ in ticks])
    cells = np.stack([cell_colors.mean_of_cells(image).reshape(-1, 3) for image in crops[face_stream.SIZE]])
    around = np.stack([np.interp(times_s, clip.background.times_s, c) for c in clip.background.values.T], 1)
    trace = cells.mean(axis=1, dtype=np.float64)
    waves = {method: classical.read_trace(method, trace, FPS) for method in CLASSICAL}
    for label, checkpoint in checkpoints.items():
        network = _reader(checkpoint)
        waves[label] = network.infer_stream(crops[network.crop_size])
    data = io.BytesIO()
    np.savez(
        data, cells=cells, around=around, truth=resample.resample_wave(ppg, film_times_s, times_s), **waves
    )
    storage.write_bytes(_traces(name, seed, number), data.getvalue())


def _traces(name: str, seed: int, number: int) -> Path:
    return TRACES / f"{seed}-{'-'.join(re.findall('[a-z0-9]+', name.lower()))}-{number}.npz"


def weigh_clip(name: str, seed: int, number: int) -> list[Row]:
    """Collect the evidence of a clip's windows."""
    with np.load(_traces(name, seed, number)) as traces:
        cells, around, truth = (traces[key] for key in ("cells", "around", "truth"))
        waves = {key: traces[key] for key in traces.files if key not in ("cells", "around", "truth")}
    rows = []
    for method, (start, end) in itertools.product(waves, spans(len(truth), FPS, Settings())):
        wave = np.asarray(waves[method][start:end], np.float64)
        bpm = fundamental_rate(wave, FPS)
        if np.isfinite(bpm):
            found = extract(wave, FPS, bpm, cells[start:end], around[start:end])
            true = fundamental_rate(truth[start:end], FPS) if KINDS[name].alive else float("nan")
            rows.append(Row(name, seed, number, method, start / FPS, true, bpm, found))
    return rows


def contact_waves(seed: int) -> list[Row]:
    """Draw waves as from a finger on a lens: pulses of people in noise of every colour, and noise alone."""
    times_s = np.arange(round(10 * FPS)) / FPS
    hz = np.fft.rfftfreq(len(times_s), 1 / FPS)
    rows = []
    for number in range(1, CONTACT_PEOPLE + 1):
        person = draw_person(seed, number)
        rng = np.random.default_rng([seed, number, 5])
        for count in range(CONTACT_WINDOWS):
            ppg, _ = person.pulse(times_s + 20 * count)
            slope = rng.choice([0.0, 1.0, 2.0])  # white, pink or brown
            size = np.where(hz > 0, np.maximum(hz, 0.1) ** (-slope / 2), 0)
            noise = np.fft.irfft(size * np.exp(2j * np.pi * rng.random(len(hz))), len(times_s))
            alive = rng.random() > 0.2
            wave = alive * ppg / ppg.std() + noise / noise.std() * 10 ** rng.uniform(-1, 1)
            bpm = fundamental_rate(wave, FPS)
            true = fundamental_rate(ppg, FPS) if alive else float("nan")
            rows.append(
                Row("contact", seed, number, "wave", 20.0 * count, true, bpm, extract(wave, FPS, bpm))
            )
    return rows


def write_rows(rows: list[Row]) -> None:
    """Write what was found of every window."""
    ROWS.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Row)][:-1]
    writer.writerow([*names, *(field.name for field in dataclasses.fields(Evidence))])
    for row in rows:
        numbers = [row.start_s, row.true_bpm, row.bpm, *dataclasses.astuple(row.evidence)]
        writer.writerow([row.kind, row.seed, row.person, row.method, *(f"{n:.5g}" for n in numbers)])
    storage.write_text(ROWS, text.getvalue())


def fit(rows: list[Row], names: list[str]) -> dict:
    """Fit a logistic regression with a small ridge, in which evidence speaks only the way it can.

    Rhythm, agreement and the colour of blood never count against a rate, what beats behind the person and
    colours that are too faint or too strong never for one (`AGAINST`): without these bounds, features that go
    together get large weights of opposite signs, and a window that is unlike all others is trusted.

    Args:
      rows: windows.
      names: of the features.

    Returns:
      A table of `confidence.json`.
    """
    x = np.array([[confidence.features(row.evidence)[name] for name in names] for row in rows])
    y = np.array([row.right for row in rows], np.float64)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    design = np.column_stack([(x - centre) / spread, np.ones(len(x))])

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        odds, ridge = design @ weight, RIDGE * np.append(weight[:-1], 0)
        slope = design.T @ (1 / (1 + np.exp(-odds)) - y) / len(y) + ridge
        return (np.logaddexp(0, odds) - y * odds).mean() + ridge @ weight / 2, slope

    bounds = [(None, 0) if name in AGAINST else (0, None) for name in names] + [(None, None)]
    weight = optimize.minimize(loss, np.zeros(len(bounds)), jac=True, bounds=bounds, method="L-BFGS-B").x
    return {
        "names": names,
        "centre": [round(float(v), 4) for v in centre],
        "weight": [round(float(v), 4) for v in weight[:-1] / spread],
        "bias": round(float(weight[-1]), 4),
    }


def fit_all(rows: list[Row]) -> None:
    """Fit both sets of weights on the people they are for, and write them."""
    fitted = [row for row in rows if row.seed in FITTED]
    table = {
        "video": fit(fitted, list(confidence.features(fitted[0].evidence))),
        "face": fit(fitted, list(confidence.features(without_background(fitted[0].evidence)))),
        "wave": fit([row for seed in FITTED for row in contact_waves(seed)], ["wave share"]),
    }
    storage.write_text(confidence.WEIGHTS, json.dumps(table, indent=1) + "\n")
    confidence.weights.cache_clear()


def without_background(evidence: Evidence) -> Evidence:
    """Forget what lies behind the person, as where a face fills the picture."""
    unknown = float("nan")
    return dataclasses.replace(evidence, behind=unknown, behind_share=unknown, behind_colour=unknown)


def weighed_by_others(rows: list[Row]) -> np.ndarray:
    """Weigh everybody by weights that were fitted to all the others: a confidence for each row."""
    names = list(confidence.features(rows[0].evidence))
    sure = np.zeros(len(rows))
    people = np.array([(row.seed, row.person) for row in rows])
    for person in np.unique(people, axis=0):
        mine = (people == person).all(axis=1)
        weights = confidence.as_weights(
            fit([row for row, out in zip(rows, mine, strict=True) if not out], names)
        )
        for number in np.flatnonzero(mine):
            sure[number], _ = confidence.weighed(rows[number].evidence, weights)
    return sure


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z = 1.96
    middle, spread = right + z * z / 2, z * np.sqrt(right * (n - right) / n + z * z / 4)
    return (middle - spread) / (n + z * z), (middle + spread) / (n + z * z)


def report(rows: list[Row]) -> str:
    """Write the tables, and draw the reliability diagram."""
    fitted = [row for row in rows if row.seed in FITTED]
    held = [row for row in rows if row.seed == HELD_OUT]
    sure = np.array([confidence.confidence(row.evidence)[0] for row in held])
    right = np.array([row.right for row in held])
    methods = list(dict.fromkeys(row.method for row in held))
    method = np.array([row.method for row in held])
    table, points = _reliability(sure, right)
    lines = [
        "# What a confidence is worth",
        "",
        "`python benchmarks/confidence/confidence.py`. "
        f"Weights fitted on simulated people of seeds 400 ({_counts(400)}) and 500 ({_counts(500)}), "
        f"measured on others, of seed {HELD_OUT} ({_counts(HELD_OUT)}); {SECONDS:g} s each, windows of "
        f"10 s every 5 s. Right: within {confidence.WITHIN_BPM:g} bpm of the truth; what has no pulse is "
        "never read right. `sspd` is the network of `make demo`.",
        "",
        f"The threshold of {confidence.THRESHOLD:g} was chosen on the people of the fit, everybody weighed "
        "by weights that were fitted to the others:",
        "",
        *_clips(fitted, weighed_by_others(fitted), methods),
        "",
        "## Reliability, held-out people, all kinds and methods",
        "",
        *table,
    ]
    lines += ["", f"## Readings and refusals, held-out people, threshold {confidence.THRESHOLD:g}", ""]
    lines += ["Share of windows with a reading (and, of these, right); of what has no pulse, false readings."]
    lines += ["", f"| filmed | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for name, kind in KINDS.items():
        cells = []
        for m in methods:
            mine = np.array([row.kind == name for row in held]) & (method == m)
            read = mine & (sure >= confidence.THRESHOLD)
            if kind.alive:
                share = right[read].mean() if read.any() else float("nan")
                cells.append(f"{read.sum() / max(mine.sum(), 1):.0%} ({share:.0%} right)")
            else:
                cells.append(f"{read.sum()} of {mine.sum()}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Clips, held-out people", "", *_clips(held, sure, methods)]
    alone = [without_background(row.evidence) for row in held]
    sure = np.array([confidence.confidence(evidence)[0] for evidence in alone])
    lines += [
        "",
        "## A face that fills the picture",
        "",
        "Weights of their own, without what lies behind the person: the same windows. A light that changes "
        "in the colour of blood cannot be told from a pulse here.",
        "",
        *_reliability(sure, right)[0],
        "",
        *_clips(held, sure, methods),
    ]
    contact = contact_waves(HELD_OUT)
    lines += [
        "",
        "## A wave without a picture",
        "",
        f"Weights and threshold ({confidence.WAVE_THRESHOLD:g}) of their own: the pulse waves of "
        f"{CONTACT_PEOPLE} people of each of those seeds in white, pink and brown noise of 0.1 to 10 times "
        f"their size, one in five without a pulse; windows of 10 s; measured on people of seed {HELD_OUT}.",
        "",
        *_reliability(
            np.array([confidence.confidence(row.evidence)[0] for row in contact]),
            np.array([row.right for row in contact]),
        )[0],
    ]
    _draw(points)
    return "\n".join(lines) + "\n"


def _reliability(sure: np.ndarray, right: np.ndarray) -> tuple[list[str], list[tuple]]:
    """Compare confidences with what became of them: lines of a table, and the points of a diagram."""
    lines = ["| confidence | windows | mean confidence | right | 95 % interval |", "|---|---|---|---|---|"]
    points = []
    for low, high in itertools.pairwise(BINS):
        inside = (sure >= low) & ((sure < high) | (high == 1))
        n = int(inside.sum())
        if n:
            low_right, high_right = wilson(int(right[inside].sum()), n)
            points.append((sure[inside].mean(), right[inside].mean(), low_right, high_right))
            lines.append(
                f"| {low:g}–{high:g} | {n} | {sure[inside].mean():.1%} | {right[inside].mean():.1%} | "
                f"{low_right:.1%}–{high_right:.1%} |"
            )
    return lines, points


def _counts(seed: int) -> str:
    return "of every kind {} clips that should be read, {} others with a pulse, {} without".format(
        *PEOPLE[seed]
    )


def _clips(rows: list[Row], sure: np.ndarray, methods: list[str]) -> list[str]:
    """Count clips without a pulse that got a reading, and good ones that got none."""
    lines = [
        "| method | pulse-free clips with a reading | good clips refused | of these, would have been right | "
        "good clips read | of these, right |",
        "|---|---|---|---|---|---|",
    ]

    def right(windows: list[Row]) -> bool:
        apart = np.median([row.bpm for row in windows]) - np.median([row.true_bpm for row in windows])
        return abs(apart) <= confidence.WITHIN_BPM

    for m in methods:
        clips: dict[tuple, list[tuple[float, Row]]] = {}
        for chance, row in zip(sure, rows, strict=True):
            if row.method == m:
                clips.setdefault((row.kind, row.seed, row.person), []).append((chance, row))
        false, free, refused, read = 0, 0, [], []
        for (kind, *_), windows in clips.items():
            trusted = [row for chance, row in windows if chance >= confidence.THRESHOLD]
            if not KINDS[kind].alive:
                free, false = free + 1, false + bool(trusted)
            elif KINDS[kind].good and trusted:
                read.append(right(trusted))
            elif KINDS[kind].good:
                refused.append(right([row for _, row in windows]))
        lines.append(
            f"| {m} | {false} of {free} | {len(refused)} of {len(refused) + len(read)} | {sum(refused)} | "
            f"{len(read)} | {sum(read)} |"
        )
    return lines


def _draw(points: list[tuple]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    x, y, low, high = (np.array(values) for values in zip(*points, strict=True))
    axis.errorbar(
        x, y, yerr=np.maximum([y - low, high - y], 0), fmt="o-", color="#0072B2", markersize=4, capsize=2
    )
    axis.set(xlabel="confidence", ylabel="share of windows right", title="held-out simulated people")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    storage.write_bytes(PICTURE, data.getvalue())


def main(argv: list[str] | None = None) -> int:
    """Run the study, or what is left of it."""
    parser = argparse.ArgumentParser(
        "benchmarks/confidence/confidence.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--checkpoint", nargs="*", default=[], metavar="NAME=DIR", help="networks to read with"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="clips at once (default: all cores)")
    args = parser.parse_args(argv)

    def work():
        checkpoints = dict(spec.split("=", 1) if "=" in spec else ("sspd", spec) for spec in args.checkpoint)
        clips = [
            (name, seed, number)
            for seed, counts in PEOPLE.items()
            for name, kind in KINDS.items()
            for number in range(1, counts[0 if kind.good else 1 if kind.alive else 2] + 1)
        ]
        TRACES.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
            todo = [pool.submit(trace_clip, *c, checkpoints) for c in clips if not _traces(*c).exists()]
            for clip in tqdm.tqdm(as_completed(todo), "films", len(todo), mininterval=10):
                clip.result()
        rows = list(itertools.chain.from_iterable(weigh_clip(*clip) for clip in clips))
        write_rows(rows)
        fit_all(rows)
        storage.write_text(REPORT, report(rows))
        print(REPORT.read_text())

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

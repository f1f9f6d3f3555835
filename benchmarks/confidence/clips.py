"""The clips that a confidence is fitted and measured on, and the evidence of their windows.

Films people with a pulse (the simulator's presets, and with stronger compression, noise and motion) and
things without one (a photograph on the wall and in a hand, a mannequin that moves its head, lamps that
flicker), reads every clip by GREEN, CHROM, POS and the given networks, and keeps the traces in
workdir/confidence: killed and started again, it goes on with the next clip. The evidence of every window is a
row of confidence.csv beside this file. `fit.py` takes the people of seeds 400 and 500, `measure.py` those of
seed 600.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import io
import itertools
import multiprocessing
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import tqdm

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
TRACES = HERE.parents[1] / "workdir" / "confidence"
CLASSICAL = ("green", "chrom", "pos")
FPS, SECONDS = 30.0, 20.0
FITTED, HELD_OUT = (400, 500), 600  # seeds of people
PEOPLE = {400: (8, 8, 6), 500: (8, 8, 10), HELD_OUT: (34, 8, 10)}  # of each kind: good, other, pulse-free
CONTACT_PEOPLE, CONTACT_WINDOWS = 150, 4  # waves without a picture
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Row)][:-1]
    writer.writerow([*names, *(field.name for field in dataclasses.fields(Evidence))])
    for row in rows:
        numbers = [row.start_s, row.true_bpm, row.bpm, *dataclasses.astuple(row.evidence)]
        writer.writerow([row.kind, row.seed, row.person, row.method, *(f"{n:.5g}" for n in numbers)])
    storage.write_text(ROWS, text.getvalue())


def read_rows() -> list[Row]:
    """Read what `write_rows` wrote."""
    names = [field.name for field in dataclasses.fields(Evidence)]
    with ROWS.open(newline="") as file:
        return [
            Row(
                line["kind"],
                int(line["seed"]),
                int(line["person"]),
                line["method"],
                *(float(line[name]) for name in ("start_s", "true_bpm", "bpm")),
                Evidence(*(float(line[name]) for name in names)),
            )
            for line in csv.DictReader(file)
        ]


def film_rows(seeds: tuple[int, ...], checkpoints: dict[str, str], jobs: int) -> None:
    """Film the clips of some seeds that are not filmed yet, and put their windows into the file of rows.

    Args:
      seeds: Seeds of people; the rows of others stay.
      checkpoints: Networks to read with, by the name of their method.
      jobs: Number of clips to film at once.
    """
    clips = [
        (name, seed, number)
        for seed in seeds
        for name, kind in KINDS.items()
        for number in range(1, PEOPLE[seed][0 if kind.good else 1 if kind.alive else 2] + 1)
    ]
    TRACES.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        todo = [pool.submit(trace_clip, *c, checkpoints) for c in clips if not _traces(*c).exists()]
        for clip in tqdm.tqdm(as_completed(todo), "films", len(todo), mininterval=10):
            clip.result()
    rows = [row for row in read_rows() if row.seed not in seeds] if ROWS.exists() else []
    rows += itertools.chain.from_iterable(weigh_clip(*clip) for clip in clips)
    write_rows(sorted(rows, key=lambda row: list(PEOPLE).index(row.seed)))


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of what both scripts take."""
    found = argparse.ArgumentParser(program, description=description.split("\n")[0])
    found.add_argument("--film", action="store_true", help="film the people; by default the rows are there")
    found.add_argument(
        "--checkpoint", nargs="*", default=[], metavar="NAME=DIR", help="networks to read with"
    )
    found.add_argument("--jobs", type=int, default=os.cpu_count(), help="clips at once (default: all cores)")
    return found


def rows_of(args: argparse.Namespace, seeds: tuple[int, ...]) -> list[Row]:
    """Return the rows of all people, those of some seeds filmed anew if the arguments ask for it."""
    if args.film:
        specs = (spec.split("=", 1) if "=" in spec else ("sspd", spec) for spec in args.checkpoint)
        film_rows(seeds, dict(specs), args.jobs)
    return read_rows()


def without_background(evidence: Evidence) -> Evidence:
    """Forget what lies behind the person, as where a face fills the picture."""
    unknown = float("nan")
    return dataclasses.replace(evidence, behind=unknown, behind_share=unknown, behind_colour=unknown)

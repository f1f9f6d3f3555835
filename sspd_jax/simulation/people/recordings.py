"""Recordings of simulated people on disk, laid out as UBFC-rPPG's DATASET_2, each with a sheet."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.simulation import footage_recordings, known_pulse, random_signals, sample_video
from sspd_jax.simulation.footage_recordings import CODECS, Encoding
from sspd_jax.simulation.known_pulse import PulseWave
from sspd_jax.simulation.people import film, heads, looks, paint
from sspd_jax.simulation.people.presets import HEART_RATES_BPM, PRESETS, VERSION, Preset
from sspd_jax.simulation.recordings import appearing, check_run, film_missing, write_truth

SHEET = "recording.json"
LEAST_SECONDS, MOST_SECONDS = 1.0, 3600.0
# Encoders in cameras and phones search little, do not look ahead, and spend as much on all blocks.
AS_CAMERAS = {
    "h264": {"preset": "veryfast", "bf": "0", "aq-mode": "0", "mbtree": "0", "weightp": "0", "qcomp": "1.0"},
    "hevc": {
        "preset": "superfast",
        "x265-params": "log-level=error:bframes=0:aq-mode=0:cutree=0:weightp=0:qcomp=1.0",
    },
}
SWELL = 0.15  # by which a pulse's strength changes in time, relative, standard deviation
SIDES = (160, 1920)  # of a picture, pixels
# Talkers, too, are kept apart between the splits.
TRACKS = {
    "fit": ("speech_1", "speech_3", "talk_d0", "talk_d10", "talk_d12", "talk_s29"),
    "choose": ("speech_2", "talk_d18"),
    "test": ("speech_5", "talk_d19", "talk_d3", "talk_s13"),
}


def write_people_recordings(
    out: str | Path,
    *,
    preset: str,
    people: int = 12,
    split: str = looks.ALL,
    seconds: float = 30.0,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    kinds: Sequence[str] = (),
    encoding: Encoding | None = None,
    workers: int = 1,
    on_written: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write subject1, subject2, …: one of each of the list's first people; those that are there are kept.

    Args:
      out: Folder to write to; it is made if it is not there.
      preset: Name in `PRESETS`.
      people: How many.
      split: 'fit', 'choose', 'test' or 'all'.
      seconds: Length of each recording, s.
      seed: Of heart rates, motion, light, camera and noise; the people are always the same.
      size: Width and height of the pictures, pixels; by default the preset's.
      kinds: Names in `film.PULSE_FREE`: instead, every person in each of these kinds, without any pulse.
      encoding: Codec and quality instead of the preset's.
      workers: Number of processes that film, about 0.5 GB each; what they write does not depend on it.
      on_written: Called with a line about each recording that was written.

    Returns:
      The recordings' folders, all of them.

    Raises:
      ConfigError: A setting is outside its range, or is another one than the folder was begun with.
      UserError: The folder holds something else, or cannot be written to.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     (one,) = write_people_recordings(folder, preset="studio", people=1, seconds=1, size=(160, 160))
      ...     sorted(file.name for file in one.iterdir())
      ['ground_truth.txt', 'recording.json', 'vid.mp4']
    """
    out, kinds = Path(out), list(kinds)
    check_run(seed, workers)
    _validate(preset, people, split, seconds, size, kinds)
    if encoding is not None:
        footage_recordings.validate_encoding(encoding)
    size = size or PRESETS[preset].scene.size
    settings = {
        "version": VERSION,
        "preset": preset,
        "split": split,
        "seconds": seconds,
        "seed": seed,
        "size": list(size),
        "pulse_free": kinds,
        "encoding": encoding and dataclasses.asdict(encoding),
    }
    numbers = looks.people_of(split, people)
    films = [(number, kind) for number in numbers for kind in kinds or [None]]
    folders = [out / f"subject{place}" for place in range(1, len(films) + 1)]
    one = functools.partial(
        write_people_recording,
        films=films,
        preset=preset,
        seconds=seconds,
        seed=seed,
        size=size,
        encoding=encoding,
    )
    film_missing(out, settings, folders, one, _told, workers=workers, on_written=on_written)
    return folders


def write_people_recording(
    folder: Path,
    *,
    number: int,
    films: Sequence[tuple[int, str | None]],
    preset: str,
    seconds: float,
    seed: int,
    size: tuple[int, int],
    encoding: Encoding | None,
) -> None:
    """Write one recording: vid.*, ground_truth.txt and recording.json; it appears when it is complete.

    Args:
      folder: Folder to write; it must not exist yet.
      number: Place in `films`, from 1.
      films: Number of the person and pulse-free kind, or None, of every recording.
      preset: Name in `PRESETS`.
      seconds: Length, s.
      seed: Of what differs from one recording of a person to another.
      size: Width and height of the pictures, pixels.
      encoding: Codec and quality, or None for the preset's.
    """
    person, kind = films[number - 1]
    chosen = PRESETS[preset]
    seeds = [
        seed,
        list(PRESETS).index(preset),
        person,
        0 if kind is None else 1 + film.PULSE_FREE.index(kind),
    ]
    rng = np.random.default_rng([*seeds, 10])
    bpm = draw_rate(seed, person)
    encoded = encoding or _encoding(rng, chosen, size)
    pictures_s = float(rng.uniform(*chosen.pictures_s))
    times_s = _times(rng, chosen, seconds)
    wave = _swelling(rng, known_pulse.draw_wave([*seeds, 11], bpm, seconds))
    who = _figure(person)
    tracks = TRACKS[looks.split_of(person)]
    scene = dataclasses.replace(chosen.scene, size=size)
    codec = CODECS[encoded.codec]
    options = encoded.options()
    options |= AS_CAMERAS.get(encoded.codec, {})
    if encoded.codec not in ("mjpeg", "lossless"):
        options["g"] = str(max(1, round(pictures_s * chosen.fps)))
    with appearing(folder) as aside:
        video = aside / f"vid{codec.suffix}"
        pictures = film.film(who, scene, wave, tracks, times_s, seeds, pulse_free=kind)
        sample_video.write_video(video, pictures, times_s, codec=codec.encoder, options=options)
        if kind is None:
            ppg, rate = wave.at(times_s), wave.rate_at(times_s)
        else:
            ppg, rate = np.zeros(len(times_s)), np.full(len(times_s), np.nan)
        sheet = {
            "version": VERSION,
            "preset": preset,
            "person": _person_told(person),
            "seed": seed,
            "pulse": None if kind else {"bpm": round(bpm, 3), "green_percent": _strength(person)},
            "pulse_free": kind,
            "frames": len(times_s),
            "size": list(size),
            "encoding": {
                **dataclasses.asdict(encoded),
                "kbit_per_s": round(8 * video.stat().st_size / times_s[-1] / 1000, 1),
                "bits_per_pixel": round(8 * video.stat().st_size / len(times_s) / (size[0] * size[1]), 4),
                "group_of_pictures_s": round(pictures_s, 2),
            },
        }
        write_truth(aside, ppg, rate, times_s)
        (aside / SHEET).write_text(json.dumps(sheet, indent=1) + "\n")


def draw_rate(seed: int, person: int) -> float:
    """Return a person's mean heart rate in the recordings of a seed, bpm: evenly spread over the people."""
    low, high = HEART_RATES_BPM
    start = np.random.default_rng([seed, 12]).random()
    return low + (high - low) * ((start + (math.sqrt(5) - 1) / 2 * person) % 1)


def _swelling(rng: np.random.Generator, wave: PulseWave) -> PulseWave:
    """Let a pulse grow and shrink slowly, as vessels open and close and with breath."""
    times_s = wave.start_s + np.arange(len(wave.ppg)) / known_pulse.GRID_HZ
    swell = 1 + SWELL * random_signals.wander(rng, 0.03, 0.3, slope=-0.5)(times_s)
    ppg = wave.ppg * np.clip(swell, 0.4, 1.6)
    return dataclasses.replace(wave, ppg=ppg / max(1.0, np.abs(ppg).max()))


def _encoding(rng: np.random.Generator, preset: Preset, size: tuple[int, int]) -> Encoding:
    low, high = np.log(preset.kbps)
    area = size[0] * size[1] / (640 * 480)
    return Encoding(preset.codec, bitrate_kbps=round(max(50.0, area * math.exp(rng.uniform(low, high)))))


def _times(rng: np.random.Generator, preset: Preset, seconds: float) -> np.ndarray:
    """Return the frames' times, s, float64 [t], increasing: some late, some lost."""
    even = np.arange(round(seconds * preset.fps)) / preset.fps
    late = preset.late * np.clip(rng.standard_normal(len(even)), -2, 2) / preset.fps
    kept = rng.random(len(even)) >= preset.dropped
    kept[[0, 1, -1]] = True
    times_s = (even + late)[kept]
    return np.maximum(times_s - times_s[0], 0)


def _told(folder: Path) -> str:
    sheet = json.loads((folder / SHEET).read_text())
    what = sheet["pulse_free"] or f"{sheet['pulse']['bpm']:.0f} bpm"
    coded = sheet["encoding"]
    how = f"{coded['codec']} at {coded['kbit_per_s']:.0f} kbit/s"
    return f"{folder}: person {sheet['person']['number']}, {what}, {how}"


def _person_told(number: int) -> dict:
    who = looks.draw_looks(number)
    return {
        "number": number,
        "split": who.split,
        "melanin": round(who.melanin, 4),
        "blood": round(who.blood, 4),
        "age": round(who.age, 2),
        "hair": who.hair,
        "beard": round(who.beard, 2),
        "glasses": who.glasses,
        "make_up": round(who.make_up, 2),
    }


def _strength(number: int) -> float:
    """Return the amplitude of the pulse in the bare skin's green, per cent, mean over the face."""
    beats = _figure(number).beats[:, : heads.ISLAND, 1]
    return round(float(100 * -beats[beats < -1e-4].mean()), 4)


@functools.lru_cache(maxsize=2)
def _figure(number: int) -> paint.Figure:
    return paint.draw_figure(looks.draw_looks(number))


def _validate(preset, people, split, seconds, size, kinds) -> None:
    if preset not in PRESETS:
        raise ConfigError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
    if people < 1:
        raise ConfigError(f"{people} people cannot be filmed; ask for 1 or more")
    if split not in (*looks.SPLITS, looks.ALL):
        raise ConfigError(f"split {split!r} is none of {', '.join(looks.SPLITS)}, {looks.ALL}")
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise ConfigError(
            f"{seconds:g} s are outside {LEAST_SECONDS:g} to {MOST_SECONDS:g}; give a length inside"
        )
    low, high = SIDES
    if size and (any(not low <= side <= high or side % 2 for side in size) or max(size) > 2 * min(size)):
        raise ConfigError(
            f"pictures of {size[0]}x{size[1]} cannot be written; both sides must be even, from {low} to "
            f"{high}, and neither more than twice the other"
        )
    for kind in kinds:
        if kind not in film.PULSE_FREE:
            raise ConfigError(f"pulse-free kind {kind!r} is none of {', '.join(film.PULSE_FREE)}")

"""Simulated recordings: face videos with a known pulse, laid out on disk as UBFC-rPPG's DATASET_2.

All people are made from one portrait (`portrait.png` beside this file), so they differ less than real ones: a
method that works on them has been shown to work on them, not on people.
"""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.runtime import storage
from sspd_jax.runtime.crew import crew
from sspd_jax.simulation import sample_video
from sspd_jax.simulation.person import FPS, SIZE, Person, draw_appearance, draw_pulse
from sspd_jax.simulation.presets import HEART_RATES_BPM, PRESETS
from sspd_jax.simulation.scene import POSE, Camera, film
from sspd_jax.video.face_detection import HaarDetector

VERSION = 1  # of the drawing: raise it whenever the same seed gives other recordings
SMALLEST_SIZE = 120  # pixels: on fewer rows the detector no longer finds every face
LEAST_SECONDS = 1.0
SETTINGS_FILE = "simulation.json"

# Nearly lossless, all frames predicted from earlier ones only (AVI keeps no order of display): the pulse
# outlives it, and a minute takes 50 MB where raw pictures would take 400.
CODEC = "libx264"
CODEC_OPTIONS = {"qp": "4", "preset": "ultrafast", "bf": "0", "g": "30"}


def write_recording(
    folder: Path, preset: str, number: int, seconds: float, seed: int, size: tuple[int, int] = SIZE
) -> None:
    """Write one subject's folder: vid.avi and ground_truth.txt; it appears when it is complete.

    Args:
      folder: Folder to write, such as OUT/subject7; it must not exist yet.
      preset: Name in `PRESETS`.
      number: Number of the person.
      seconds: Length, s.
      seed: Seed of the list of people.
      size: Width and height of the pictures, pixels.
    """
    times_s = np.arange(round(seconds * FPS)) / FPS
    with appearing(folder) as aside:
        person = draw_person(seed, number, size)
        ppg, rate = person.pulse(times_s)
        pictures = film(person, PRESETS[preset], times_s, seed, number)
        sample_video.write_video(aside / "vid.avi", pictures, times_s, codec=CODEC, options=CODEC_OPTIONS)
        write_truth(aside, ppg, rate, times_s)


def write_recordings(
    out: str | Path,
    *,
    preset: str = "default",
    people: int = 12,
    seconds: float = 30.0,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    workers: int = 1,
    on_written: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write recordings of subjects 1 … `people`; those that are there already are kept.

    Args:
      out: Folder to write to; it is made if it is not there.
      preset: Name in `PRESETS`.
      people: Number of people.
      seconds: Length of each recording, s.
      seed: Seed of the list of people.
      size: Width and height of the pictures, pixels.
      workers: Number of processes that film, 100 MB each; what they write does not depend on it.
      on_written: Called with a line about each subject that was written.

    Returns:
      The subjects' folders, all of them.

    Raises:
      ConfigError: A setting is outside its range, or is another one than the folder was begun with.
      UserError: The folder holds something else, or cannot be written to.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     (subject,) = write_recordings(folder, people=1, seconds=1, size=(160, 120))
      ...     subject.name, sorted(file.name for file in subject.iterdir())
      ('subject1', ['ground_truth.txt', 'vid.avi'])
    """
    out = Path(out)
    check_run(seed, workers)
    _validate(preset, people, seconds, size)
    settings = {"version": VERSION, "preset": preset, "seconds": seconds, "seed": seed, "size": list(size)}
    folders = [out / f"subject{number}" for number in range(1, people + 1)]
    one = functools.partial(write_recording, preset=preset, seconds=seconds, seed=seed, size=size)

    def told(folder: Path) -> str:
        return f"{folder}: {seconds:g} s, {preset}"

    film_missing(out, settings, folders, one, told, workers=workers, on_written=on_written)
    return folders


def film_missing(
    out: Path,
    settings: dict,
    folders: Sequence[Path],
    one: Callable[..., None],
    told: Callable[[Path], str],
    *,
    workers: int,
    on_written: Callable[[str], None] | None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write the recordings of a folder that are not there yet.

    Args:
      out: The folder; it is made if it is not there.
      settings: What all recordings in it have in common, as JSON has it.
      folders: The recordings' folders.
      one: Called as one(folder, number=…) with the number of a folder in `folders`, from 1: writes it.
      told: Returns a line about a recording that was written.
      workers: Number of processes that film.
      on_written: Called with each of these lines.
      check: Called with each folder that is there; raises ConfigError where it is another recording.

    Raises:
      ConfigError: The folder was begun with other settings.
      UserError: The folder holds something else, or cannot be written to.
    """
    try:
        begin(out, settings)
        missing = {}
        for number, folder in enumerate(folders, 1):
            if not folder.exists():
                missing[folder] = number
            elif check:
                check(folder)
        with film_crew(min(workers, len(missing))) as film_all:
            for folder in film_all(one, missing):
                if on_written:
                    on_written(told(folder))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{out}: cannot be written ({why}); free space or choose another folder") from error


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yield a folder to write a recording into; it takes its name when it is complete.

    Args:
      folder: The name; it must not exist yet.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    aside.mkdir()
    try:
        yield aside
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_truth(folder: Path, ppg: np.ndarray, rate: np.ndarray, times_s: np.ndarray) -> None:
    """Write ground_truth.txt: PPG, heart rate in bpm and time in s, each float64 [t], a line each."""
    lines = (" ".join(f"{value:.7e}" for value in line) for line in (ppg, rate, times_s))
    (folder / "ground_truth.txt").write_text("\n".join(lines) + "\n")


@contextmanager
def film_crew(workers: int) -> Iterator[Callable[..., Iterator[Path]]]:
    """Keep processes that film.

    Args:
      workers: How many; below 2 this process films.

    Yields:
      What calls `one(folder, number=…)` for every item of `missing` and yields each folder that is written.
    """
    if workers < 2:

        def in_turn(one, missing):
            for folder, number in missing.items():
                one(folder, number=number)
                yield folder

        yield in_turn
        return
    with crew(workers) as pool:

        def side_by_side(one, missing):
            filmed = {pool.submit(one, folder, number=number): folder for folder, number in missing.items()}
            for future in as_completed(filmed):
                future.result()
                yield filmed[future]

        yield side_by_side


def check_run(seed: int, workers: int) -> None:
    """Check what every writer of recordings is asked.

    Raises:
      ConfigError: The seed is negative, or nobody is to film.
    """
    if seed < 0:
        raise ConfigError(f"the seed {seed} is negative; give 0 or more")
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot film; ask for 1 or more")


def _validate(preset, people, seconds, size) -> None:
    if preset not in PRESETS:
        raise ConfigError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
    if people < 1:
        raise ConfigError(f"{people} people cannot be filmed; ask for 1 or more")
    if not LEAST_SECONDS <= seconds < math.inf:
        raise ConfigError(f"{seconds:g} s are too short a recording; ask for {LEAST_SECONDS:g} or more")
    if min(size) < SMALLEST_SIZE or any(side % 2 for side in size) or not 1 <= size[0] / size[1] <= 2:
        raise ConfigError(
            f"pictures of {size[0]}x{size[1]} cannot be written; both sides must be even and at least "
            f"{SMALLEST_SIZE}, the width once to twice the height"
        )


def begin(out: Path, settings: dict) -> None:
    """Make a folder of recordings and note what it is for, or check that it was begun for the same.

    Args:
      out: Folder.
      settings: What all recordings in it have in common, as JSON has it.

    Raises:
      ConfigError: It was begun for something else.
      UserError: It holds something else than simulated recordings.
    """
    out.mkdir(parents=True, exist_ok=True)
    note = out / SETTINGS_FILE
    if note.exists():
        try:
            found = json.loads(note.read_text())
        except (ValueError, RecursionError):
            found = None
        if found != settings:
            said = note.read_bytes().decode(errors="replace").strip()[:200]
            raise ConfigError(
                f"{out}: holds recordings made with other settings ({said}); "
                "use those, or choose another folder"
            )
    elif any(path for path in out.iterdir() if not path.name.startswith(".")):
        raise UserError(f"{out}: holds something else than simulated recordings; choose an empty folder")
    else:
        storage.write_text(note, json.dumps(settings) + "\n")


def draw_person(seed: int, number: int, size: tuple[int, int] = SIZE) -> Person:
    """Draw one person of a seeded, endless list; the detector finds the face of each.

    Heart rates are spread evenly over 45–150 bpm: few people cover the range as well as many.

    Args:
      seed: Seed of the list.
      number: Number of the person, from 1.
      size: Width and height of the pictures, pixels.

    Returns:
      The person.
    """
    start = np.random.default_rng([seed, 0]).random()
    low, high = HEART_RATES_BPM
    golden = (math.sqrt(5) - 1) / 2
    bpm = low + (high - low) * ((start + golden * number) % 1)
    pulse = draw_pulse(np.random.default_rng([seed, number, 0]), bpm)
    detector = HaarDetector()
    for attempt in range(1, 100):
        person = draw_appearance(np.random.default_rng([seed, number, attempt]), bpm, pulse, size)
        if detector.detect(_neutral_picture(person)):
            return person
    raise AssertionError(f"no face of subject {number} (seed {seed}) is found at {size}")


def _neutral_picture(person: Person) -> np.ndarray:
    """Draw the person at rest under even light, uint8 [h, w, 3]."""
    seen, matte = Camera(person).see(person.texture.copy(), dict.fromkeys(POSE, 0.0))
    return (seen + person.background * (1 - matte[..., None])).clip(0, 255).astype(np.uint8)

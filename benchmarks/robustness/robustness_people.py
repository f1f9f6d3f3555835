"""The people of `robustness.py`: filmed once for a setting and a seed, kept as crops of their faces."""

from __future__ import annotations

import dataclasses
import itertools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sspd_jax.runtime import storage
from sspd_jax.simulation import presets, scene
from sspd_jax.simulation.recordings import draw_person
from sspd_jax.video.crop import crop
from sspd_jax.video.face_detection import HaarDetector, widen

FPS = 15.0
CROP = 42  # pixels
TRAINED_ON, TRAIN_FRAMES = 12, 121
TESTED_ON, TEST_FRAMES = 12, 151

EASY, DEFAULT, HARD = (presets.PRESETS[name] for name in ("easy", "default", "hard"))
SETTINGS: Mapping[str, presets.Preset] = {
    "easy": EASY,
    "default": DEFAULT,
    "hard": HARD,
    # All light changes inside the pulse band, about as strong as the pulse; the head is still.
    "light": dataclasses.replace(EASY, band_light=0.004),
    # The light is steady, the head moves twice as much as in 'default'.
    "motion": dataclasses.replace(
        DEFAULT,
        **{
            name: 2 * getattr(DEFAULT, name)
            for name in ("sway_px", "tilt_deg", "zoom", "turn_deg", "burst_px", "burst_deg", "mouth_px")
        },
        slow_light=0.3 * DEFAULT.slow_light,
        slow_colour=0.3 * DEFAULT.slow_colour,
        band_light=0.3 * DEFAULT.band_light,
    ),
    # One coloured lamp at one side beats at a rate of its own; the head is still.
    "lamp": dataclasses.replace(EASY, band_colour=0.008),
    # The same lamp in every recording, as in one room under one mains: one answer fits all faces.
    "one lamp": dataclasses.replace(EASY, band_colour=0.008, lamp_hz=1.6),
    # Twelve times the sensor's noise.
    "dark": dataclasses.replace(EASY, noise=12.0),
}
"""What disturbs: the simulator's presets, and five in which one disturbance rules."""


def people(folder: Path, setting: str, seed: int) -> dict[str, np.ndarray]:
    """Film the people of a setting and a seed, or read what was filmed.

    The first `TRAINED_ON` are learned from, the next `TESTED_ON` are tested on. Pictures go from the
    simulated camera straight to the crop, without a codec; the box is the detector's on the first picture,
    as in `sspd_jax.datasets.prepare`.

    Args:
      folder: where they are kept.
      setting: a name in `SETTINGS`.
      seed: of the simulator's list of people.

    Returns:
      'train' uint8 [people, TRAIN_FRAMES, CROP, CROP, 3], 'test' uint8 [people, TEST_FRAMES, …], 'truth'
      float64 [people, TEST_FRAMES], the tested people's PPG.
    """
    path = folder / f"{setting}-{seed}.npz"
    if path.exists():
        try:
            with np.load(path) as held:
                return dict(held)
        except (OSError, ValueError, zipfile.BadZipFile):
            path.unlink()  # damaged: film again
    found = {"train": [], "test": [], "truth": []}
    for number in itertools.count(1):
        tested = len(found["train"]) == TRAINED_ON
        times_s = np.arange(TEST_FRAMES if tested else TRAIN_FRAMES) / FPS
        person = draw_person(seed, number)
        pictures = scene.film(person, SETTINGS[setting], times_s, seed, number)
        first = next(pictures)
        marked = HaarDetector().detect(first)
        if marked is None:  # sensor noise, or a turned head: the next one
            continue
        box = widen(marked, first.shape[1], first.shape[0])
        frames = [crop(picture, box, CROP) for picture in itertools.chain([first], pictures)]
        found["test" if tested else "train"].append(np.stack(frames))
        if tested:
            found["truth"].append(person.pulse(times_s)[0])
        if len(found["test"]) == TESTED_ON:
            break
    found = {name: np.stack(values) for name, values in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    partial = storage.aside(path).with_suffix(".npz")
    np.savez(partial, **found)
    partial.rename(path)
    return found

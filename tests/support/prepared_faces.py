"""Recordings made by hand, for tests of what prepares and reads them."""

import functools
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.datasets.recording import Ppg, Recording
from sspd_jax.simulation.sample_video import PORTRAIT

FLAT = np.full((256, 256, 3), 120, np.uint8)


def portrait(times_s, shade=0):
    """Yield (time, picture): the portrait, another brightness at every time, so that no two are alike."""
    still = cv2.cvtColor(cv2.imread(str(PORTRAIT)), cv2.COLOR_BGR2RGB).astype(np.int16)
    for number, time_s in enumerate(times_s):
        yield float(time_s), np.clip(still + number % 40 + shade, 0, 255).astype(np.uint8)


def recording(name, times_s=None, *, seconds=3.0, shade=0, person=None, ppg=None, frames=None, **meta):
    """Make a recording; by default 3 s at 30 fps with a pulse wave of 60 Hz."""
    if times_s is None:
        times_s = np.arange(round(30 * seconds)) / 30
    if ppg is None:
        beats = np.arange(round(60 * seconds)) / 60
        ppg = Ppg(beats, np.sin(2 * np.pi * 1.2 * beats))
    return Recording(
        recording_id=name,
        person_id=person or name,
        frames=frames or functools.partial(portrait, times_s, shade),
        ppg=ppg or None,
        file=Path(f"{name}.avi"),
        meta=meta,
    )


def three():
    """Return three recordings of 3, 5 and 7 s."""
    return [recording(f"subject{n}", seconds=2 * n + 1, shade=n, device_bpm=70 + n) for n in (1, 2, 3)]


def content(folder):
    """Return every file's bytes by its path in the folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

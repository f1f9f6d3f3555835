"""Write simulated recordings: face videos with a known pulse, laid out on disk as UBFC-rPPG's DATASET_2.

    python -m sspd_jax.datasets.simulator OUT --preset=default --people=12 --seconds=30 --seed=0

writes OUT/subject1 … subject12, each with vid.avi and ground_truth.txt (three lines: PPG, heart rate in bpm,
time in s; one value per frame). Run again, it adds the subjects that are missing and keeps the others. Each
subject depends on the seed and its own number only.

Every picture is made in the order in which a camera would see it: a person's texture, changed by blood and
by shading; highlights; the head's motion; the background; the room's light; the sensor's noise; 8 bits; a
codec. All people are made from one portrait (`sspd_jax/video/portrait.png`), so they differ less than real
ones: a method that reads them has been shown to work on them, not on people.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from sspd_jax import storage
from sspd_jax.command import ConfigError, UserError, run
from sspd_jax.video import sample
from sspd_jax.video.face import FaceDetector

VERSION = 1  # of the drawing: raise it whenever the same seed gives other recordings
FPS = 30.0
SIZE = (320, 240)  # width, height, pixels
SMALLEST_SIZE = 120  # pixels: on fewer rows the detector no longer finds every face
LEAST_SECONDS = 1.0
HEART_RATES_BPM = (45.0, 150.0)
SETTINGS_FILE = "simulation.json"

# Nearly lossless, all frames predicted from earlier ones only (AVI keeps no order of display): the pulse
# outlives it, and a minute takes 50 MB where raw pictures would take 400.
CODEC = "libx264"
CODEC_OPTIONS = {"qp": "4", "preset": "ultrafast", "bf": "0", "g": "30"}

# Relative pulse in red, green and blue light, green = 1: the signature 0.33 : 0.77 : 0.53 of skin under
# white light (de Haan & van Leest, Physiol. Meas. 35 (2014), 1913–1926).
PULSE_COLOUR = np.array([0.33, 0.77, 0.53], np.float32) / 0.77
PULSE_RANGE = (0.002, 0.008)  # of the skin's intensity in green, from one place of the skin to another

# In the portrait, pixels.
CANVAS = 256
FACE = (133.0, 130.0)  # its centre
HEAD_AXES = (62.0, 84.0)  # half width and half height of the ellipsoid that stands for the head
MOUTH = (133.0, 168.0)
FOREHEAD_NOSE_CHEEKS = ((136.0, 101.0), (132.0, 133.0), (108.0, 143.0), (160.0, 143.0))
DEPTH = 70.0  # by how much the nose moves when the head turns by 1 rad
FACE_SHARE = 1.07  # canvas pixels per picture row at scale 1: the face is about half as high as the picture

MOTION_BAND_HZ = (0.7, 2.5)  # of bursts and in-band light: where a pulse could be
LIGHT_FROM_PULSE_HZ = 0.25  # least distance of in-band light from the pulse: on it, no method could tell


@dataclasses.dataclass(frozen=True)
class Preset:
    """How hard a recording is. Amplitudes are standard deviations unless said otherwise.

    Attributes:
      sway_px: slow translation of the head, below 0.35 Hz, pixels of the portrait.
      tilt_deg: slow rotation in the picture's plane, degrees.
      zoom: slow change of scale, relative.
      turn_deg: slow turning (left and right) and nodding, degrees.
      bursts: how often the head moves as in talking, nodding or rocking: while a random signal of standard
        deviation 1 lies above −bursts; 0.8 is four fifths of the time.
      burst_px: translation in such bursts, 0.7–2.5 Hz, amplitude, pixels of the portrait.
      burst_deg: turning and nodding in them, amplitude, degrees.
      mouth_px: opening of the mouth in them, amplitude, pixels of the portrait.
      shading: relative change of the skin's brightness when a cheek turns by 1 rad.
      unevenness: of the room's light across the picture, relative: what moves through it changes.
      slow_light: change of all light below 0.2 Hz, relative.
      slow_colour: change of the light's colour below 0.2 Hz, relative.
      band_light: change of all light inside the pulse band, relative.
      band_colour: coloured light inside the pulse band, uneven in space, amplitude where it is strongest,
        relative.
      highlight: brightness of the specular highlights, grey levels.
      noise: of the sensor, grey levels.
      lamp_hz: frequency of that coloured light in every recording, Hz: one lamp in one room; 0: each
        recording has its own, away from the pulse.
    """

    sway_px: float
    tilt_deg: float
    zoom: float
    turn_deg: float
    bursts: float
    burst_px: float
    burst_deg: float
    mouth_px: float
    shading: float
    unevenness: float
    slow_light: float
    slow_colour: float
    band_light: float
    band_colour: float
    highlight: float
    noise: float
    lamp_hz: float = 0.0


_DEFAULT = Preset(
    sway_px=1.5,
    tilt_deg=0.5,
    zoom=0.004,
    turn_deg=0.8,
    bursts=0.8,
    burst_px=0.5,
    burst_deg=0.5,
    mouth_px=0.8,
    shading=0.5,
    unevenness=0.1,
    slow_light=0.005,
    slow_colour=0.001,
    band_light=0.0005,
    band_colour=0.0,
    highlight=8.0,
    noise=1.0,
)

PRESETS: dict[str, Preset] = {
    "easy": Preset(
        sway_px=0.15,
        tilt_deg=0.05,
        zoom=0.0005,
        turn_deg=0.05,
        bursts=0.0,
        burst_px=0.0,
        burst_deg=0.0,
        mouth_px=0.0,
        shading=0.5,
        unevenness=0.05,
        slow_light=0.002,
        slow_colour=0.0005,
        band_light=0.0,
        band_colour=0.0,
        highlight=8.0,
        noise=1.0,
    ),
    "default": _DEFAULT,
    "hard": dataclasses.replace(_DEFAULT, band_light=0.002, band_colour=0.004),
}
"""Frozen: results name a preset, so its numbers do not change."""


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """Who is seen: the same in every preset.

    Attributes:
      heart_rate_bpm: mean rate, bpm.
      pulse: of the times, float64 [t] in s: (PPG float64 [t] from −1 to 1, momentary rate float64 [t], bpm).
      texture: float32 [256, 256, 3] RGB, 0–255: the person without pulse, in the neutral pose.
      matte: float32 [256, 256], 1 on the person, 0 on what is behind.
      skin: float32 [256, 256], 0–1.
      blood: float32 [256, 256], relative change of green light with one unit of PPG.
      background: float32 [h, w, 3] RGB of the picture's size, 0–255.
      scale: pixels of the picture per pixel of the portrait.
      centre: of the face in the picture, column and row.
    """

    heart_rate_bpm: float
    pulse: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    texture: np.ndarray
    matte: np.ndarray
    skin: np.ndarray
    blood: np.ndarray
    background: np.ndarray
    scale: float
    centre: tuple[float, float]


def draw_person(seed: int, number: int, size: tuple[int, int] = SIZE) -> Person:
    """Draw one person of a seeded, endless list; the detector finds the face of each.

    Heart rates are spread evenly over 45–150 bpm: few people cover the range as well as many.

    Args:
      seed: of the list.
      number: of the person, from 1.
      size: of the pictures, width and height, pixels.

    Returns:
      The person.
    """
    start = np.random.default_rng([seed, 0]).random()
    low, high = HEART_RATES_BPM
    golden = (math.sqrt(5) - 1) / 2
    bpm = low + (high - low) * ((start + golden * number) % 1)
    pulse = _draw_pulse(np.random.default_rng([seed, number, 0]), bpm)
    detector = FaceDetector()
    for attempt in range(1, 100):
        person = _draw_looks(np.random.default_rng([seed, number, attempt]), bpm, pulse, size)
        if detector.detect(_neutral_picture(person)):
            return person
    raise AssertionError(f"no face of subject {number} (seed {seed}) is found at {size}")


def film(person: Person, preset: Preset, times_s: np.ndarray, seed: int, number: int) -> Iterator[np.ndarray]:
    """Film a person.

    Args:
      person: who.
      preset: how hard.
      times_s: [t], s, of the frames.
      seed: of the list the person is from.
      number: of the person.

    Yields:
      uint8 [h, w, 3] RGB.
    """
    rngs = [np.random.default_rng([seed, number, 0, part]) for part in range(4)]
    ppg, _ = person.pulse(times_s)
    motion = _draw_motion(rngs[0], preset, times_s)
    surface, highlights = _Surface(rngs[1], person, preset), _Highlights(rngs[1], person, preset)
    camera, light = _Camera(person), _Light(rngs[2], person, preset, times_s)
    height, width = person.background.shape[:2]
    for i, blood in enumerate(ppg):
        pose = {name: values[i] for name, values in motion.items()}
        seen = surface.at(blood, pose)
        highlights.add(seen, pose)
        seen, matte = camera.see(seen, pose)
        seen += person.background * (1 - matte[..., None])
        seen *= light.at(i)
        seen += np.float32(preset.noise) * rngs[3].standard_normal((height, width, 3), np.float32)
        yield np.clip(np.rint(seen, out=seen), 0, 255, out=seen).astype(np.uint8)


def write_recording(
    folder: Path, preset: str, number: int, seconds: float, seed: int, size: tuple[int, int] = SIZE
) -> None:
    """Write one subject's folder: vid.avi and ground_truth.txt; it appears when it is complete.

    Args:
      folder: to write, such as OUT/subject7; not there yet.
      preset: a name in `PRESETS`.
      number: of the person.
      seconds: length, s.
      seed: of the list of people.
      size: of the pictures, width and height, pixels.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    aside.mkdir()
    try:
        times_s = np.arange(round(seconds * FPS)) / FPS
        person = draw_person(seed, number, size)
        ppg, rate = person.pulse(times_s)
        pictures = film(person, PRESETS[preset], times_s, seed, number)
        sample.write_video(aside / "vid.avi", pictures, times_s, codec=CODEC, options=CODEC_OPTIONS)
        lines = (" ".join(f"{value:.7e}" for value in line) for line in (ppg, rate, times_s))
        (aside / "ground_truth.txt").write_text("\n".join(lines) + "\n")
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_recordings(
    out: str | Path,
    *,
    preset: str = "default",
    people: int = 12,
    seconds: float = 30.0,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    workers: int = 1,
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write recordings of subjects 1 … `people`; those that are there already are kept.

    Args:
      out: folder; made if it is not there.
      preset: a name in `PRESETS`.
      people: how many.
      seconds: length of each recording, s.
      seed: of the list of people.
      size: of the pictures, width and height, pixels.
      workers: processes that film side by side, 100 MB each; what they write does not depend on them.
      tell: gets a line about each subject that was written.

    Returns:
      The subjects' folders, all of them.

    Raises:
      ConfigError: settings outside their range, or other ones than the folder was begun with.
      UserError: the folder holds something else, or cannot be written to.
    """
    out = Path(out)
    _check(preset, people, seconds, seed, size)
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot film; ask for 1 or more")
    settings = {"version": VERSION, "preset": preset, "seconds": seconds, "seed": seed, "size": list(size)}
    folders = [out / f"subject{number}" for number in range(1, people + 1)]
    try:
        _begin(out, settings)
        missing = {folder: number for number, folder in enumerate(folders, 1) if not folder.exists()}
        one = functools.partial(write_recording, preset=preset, seconds=seconds, seed=seed, size=size)
        with _film_crew(min(workers, len(missing))) as film_all:
            for folder in film_all(one, missing):
                if tell:
                    tell(f"{folder}: {seconds:g} s, {preset}")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{out}: cannot be written ({why}); free space or choose another folder") from error
    return folders


@contextmanager
def _film_crew(workers: int) -> Iterator[Callable[..., Iterator[Path]]]:
    """Yield what calls `one(folder, number=…)` for every folder, and yields each that is written."""
    if workers < 2:

        def in_turn(one, missing):
            for folder, number in missing.items():
                one(folder, number=number)
                yield folder

        yield in_turn
        return
    # Fresh processes: a forked one could inherit a lock that a thread of ours holds.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def side_by_side(one, missing):
            filmed = {pool.submit(one, folder, number=number): folder for folder, number in missing.items()}
            for future in as_completed(filmed):
                future.result()
                yield filmed[future]

        try:
            yield side_by_side
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check(preset, people, seconds, seed, size) -> None:
    if preset not in PRESETS:
        raise ConfigError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
    if people < 1:
        raise ConfigError(f"{people} people cannot be filmed; ask for 1 or more")
    if not LEAST_SECONDS <= seconds < math.inf:
        raise ConfigError(f"{seconds:g} s are too short a recording; ask for {LEAST_SECONDS:g} or more")
    if seed < 0:
        raise ConfigError(f"the seed {seed} is negative; give 0 or more")
    if min(size) < SMALLEST_SIZE or any(side % 2 for side in size) or not 1 <= size[0] / size[1] <= 2:
        raise ConfigError(
            f"pictures of {size[0]}x{size[1]} cannot be written; both sides must be even and at least "
            f"{SMALLEST_SIZE}, the width once to twice the height"
        )


def _begin(out: Path, settings: dict) -> None:
    """Make the folder and note what it is for, or check that it was begun for the same."""
    out.mkdir(parents=True, exist_ok=True)
    note = out / SETTINGS_FILE
    if note.exists():
        try:
            found = json.loads(note.read_text())
        except ValueError:
            found = None
        if found != settings:
            raise ConfigError(
                f"{out}: holds recordings made with other settings ({note.read_text().strip()[:200]}); "
                "use those, or choose another folder"
            )
    elif any(path for path in out.iterdir() if not path.name.startswith(".")):
        raise UserError(f"{out}: holds something else than simulated recordings; choose an empty folder")
    else:
        storage.write_text(note, json.dumps(settings) + "\n")


# The person.


def _draw_pulse(rng: np.random.Generator, bpm: float):
    """Draw a heart: a beat's shape and a rate that varies with breath and, slower, like 1/f noise."""
    angle = np.linspace(-np.pi, np.pi, 512, endpoint=False)
    width, wave, lag = rng.uniform(0.78, 0.88), rng.uniform(0.2, 0.35), rng.uniform(1.8, 2.05)

    def hump(centre, before, after):
        away = (angle - centre + np.pi) % (2 * np.pi) - np.pi
        return np.exp(-0.5 * (away / np.where(away < 0, before, after)) ** 2)

    # Systolic peak, steeper before than after it, and behind the dicrotic notch the reflected wave. Smoother
    # than a finger's pulse: light comes back from many vessels of a face.
    beat = hump(0, 0.8 * width, 1.1 * width) + wave * hump(lag, 0.5 * width, 0.6 * width)
    beat -= beat.mean()
    beat /= np.abs(beat).max()
    breath_hz, breath = rng.uniform(0.18, 0.32), rng.uniform(0.01, 0.03)
    breath_phase, phase = rng.uniform(0, 2 * np.pi, 2)
    drift, slow = rng.uniform(0.008, 0.018), _wander(rng, 0.01, 0.15, slope=-1)

    def pulse(times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        times_s = np.asarray(times_s, np.float64)
        breathing = np.sin(2 * np.pi * breath_hz * times_s + breath_phase)
        rate = bpm * (1 + breath * breathing + drift * slow(times_s))
        turns = phase + 2 * np.pi * _integral(rate / 60, times_s)
        return np.interp(turns, angle, beat, period=2 * np.pi), rate

    return pulse


def _draw_looks(rng: np.random.Generator, bpm: float, pulse, size: tuple[int, int]) -> Person:
    """Make a person from the portrait: other proportions, skin, hair, clothes, sharpness, background."""
    portrait, skin = sample.read_portrait()
    matte = _matte(portrait)
    across, down = np.meshgrid(np.arange(CANVAS, dtype=np.float32), np.arange(CANVAS, dtype=np.float32))
    hair = matte * (1 - skin) * (down < 165)
    clothes = matte * (1 - skin) * (down >= 165)
    texture = portrait.astype(np.float32)

    # Skin from light to dark, dark skin redder: melanin absorbs blue most.
    dark = rng.uniform(0, 1) ** 1.3
    tone = np.array([1 - 0.42 * dark, 1 - 0.52 * dark, 1 - 0.58 * dark]) * rng.uniform(0.94, 1.04, 3)
    mottling = 1 + 0.025 * _field(rng, CANVAS, 2) + 0.02 * _field(rng, CANVAS, 9)
    for mask, gain in (
        (skin, tone * mottling[..., None]),
        (hair, rng.uniform(0.25, 1.15) * rng.uniform(0.94, 1.06, 3) * np.ones((1, 1, 3))),
        (clothes, rng.uniform(0.4, 1.6) * rng.uniform(0.5, 1.5, 3) * np.ones((1, 1, 3))),
    ):
        texture *= 1 + mask[..., None] * (gain.astype(np.float32) - 1)
    texture = np.clip(texture, 0, 250)

    # Proportions: stretched, and bent smoothly by a few pixels.
    stretch = 1 + rng.uniform(-0.07, 0.07, 2)
    bend = [rng.uniform(1.5, 3.5) * _field(rng, CANVAS, 40) for _ in range(2)]
    map_x = FACE[0] + (across - FACE[0]) * np.float32(stretch[0]) + bend[0]
    map_y = FACE[1] + (down - FACE[1]) * np.float32(stretch[1]) + bend[1]
    flip = -1 if rng.random() < 0.5 else 1
    blur = rng.uniform(0.3, 1.1)

    def reshape(picture):
        picture = cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(picture[:, ::flip])

    texture, matte, skin = reshape(cv2.GaussianBlur(texture, (0, 0), blur)), reshape(matte), reshape(skin)
    low, high = PULSE_RANGE
    middle = rng.uniform(0.004, 0.006)
    blood = np.clip(middle * (1 + 0.35 * _field(rng, CANVAS, 22)), low, high) * skin
    width, height = size
    scale = height / 240 * FACE_SHARE * rng.uniform(0.92, 1.05)
    wall = rng.uniform(90, 215) * rng.uniform(0.9, 1.1, 3)
    pattern = 1 + 0.05 * _field(rng, (height, width), height / 8) + 0.02 * _field(rng, (height, width), 2)
    return Person(
        heart_rate_bpm=bpm,
        pulse=pulse,
        texture=texture,
        matte=matte,
        skin=skin,
        blood=blood.astype(np.float32),
        background=np.clip(pattern[..., None] * wall, 0, 250).astype(np.float32),
        scale=scale,
        centre=(width / 2 + rng.uniform(-0.05, 0.05) * height, height * rng.uniform(0.53, 0.56)),
    )


def _matte(portrait: np.ndarray) -> np.ndarray:
    """Mark the person in the portrait, float32 [256, 256]: what does not join the grey backdrop."""
    hsv = cv2.cvtColor(portrait, cv2.COLOR_RGB2HSV)
    backdrop = ((hsv[..., 1] < 60) & (hsv[..., 2] > 150)).astype(np.uint8)
    backdrop = cv2.morphologyEx(backdrop, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, parts = cv2.connectedComponents(backdrop)
    behind = [part for part in {parts[2, 2], parts[2, -3], parts[2, CANVAS // 2]} if part]
    person = (~np.isin(parts, behind)).astype(np.float32)
    # Bright hair that the backdrop's colours run into.
    person = cv2.morphologyEx(person, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17)))
    # Narrower by a pixel: the portrait's own backdrop must not shine along the edge.
    return cv2.GaussianBlur(cv2.erode(person, np.ones((3, 3), np.uint8)), (0, 0), 1)


def _neutral_picture(person: Person) -> np.ndarray:
    """Draw the person at rest under even light, uint8 [h, w, 3]."""
    seen, matte = _Camera(person).see(person.texture.copy(), dict.fromkeys(POSE, 0.0))
    return (seen + person.background * (1 - matte[..., None])).clip(0, 255).astype(np.uint8)


# What moves and what shines.

POSE = ("across", "down", "tilt", "zoom", "yaw", "pitch", "mouth")
"""Translation in pixels of the portrait; tilt, yaw (left and right) and pitch (nod) in rad; zoom, relative;
opening of the mouth in pixels of the portrait."""


def _draw_motion(rng: np.random.Generator, preset: Preset, times_s: np.ndarray) -> dict[str, np.ndarray]:
    """Draw how the head moves: {name in POSE: float64 [t]}. Slow swaying, and bursts as in talking."""

    def slow():
        return _wander(rng, 0.02, 0.35, slope=-0.5)(times_s)

    degree = np.pi / 180
    motion = {
        "across": preset.sway_px * slow(),
        "down": 0.6 * preset.sway_px * slow(),
        "tilt": preset.tilt_deg * degree * slow(),
        "zoom": preset.zoom * slow(),
        "yaw": preset.turn_deg * degree * slow(),
        "pitch": 0.7 * preset.turn_deg * degree * slow(),
        "mouth": np.zeros(len(times_s)),
    }
    # Bursts: each movement has its own, rhythmic, at a rate that wanders through the pulse band.
    low, high = MOTION_BAND_HZ
    for name, amplitude in (
        ("across", preset.burst_px),
        ("down", preset.burst_px),
        ("yaw", preset.burst_deg * degree),
        ("pitch", preset.burst_deg * degree),
        ("mouth", preset.mouth_px),
    ):
        often, rate = _wander(rng, 0.03, 0.25), _wander(rng, 0.02, 0.12)
        middle, phase = rng.uniform(low + 0.2, high - 0.4), rng.uniform(0, 2 * np.pi)
        strength = np.clip(often(times_s) + preset.bursts, 0, 1)
        rhythm_hz = np.clip(middle + 0.25 * rate(times_s), low, high)
        motion[name] += amplitude * strength * np.sin(phase + 2 * np.pi * _integral(rhythm_hz, times_s))
    motion["mouth"] = np.abs(motion["mouth"])
    return motion


def _head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the normal of the ellipsoid that stands for the head: x, y and z, float32 [256, 256]."""
    across, down = np.meshgrid(np.arange(CANVAS, dtype=np.float32), np.arange(CANVAS, dtype=np.float32))
    x, y = (across - FACE[0]) / HEAD_AXES[0], (down - FACE[1]) / HEAD_AXES[1]
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    inside = cv2.GaussianBlur((z > 0.1).astype(np.float32), (0, 0), 3)
    length = np.maximum(np.sqrt(x**2 + y**2 + z**2), 1e-6)
    return tuple((part / length * inside).astype(np.float32) for part in (x, y, z))


class _Surface:
    """The person's texture, darkened by blood and shaded as the head turns under the room's lamp.

    Every change of brightness is a sum of maps times colours, one small matrix product at each pixel.
    """

    def __init__(self, rng: np.random.Generator, person: Person, preset: Preset):
        lamp = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.8, -0.1), 0.7])
        lamp /= np.linalg.norm(lamp)
        x, y, z = _head()
        by_yaw, by_pitch = z * lamp[0] - x * lamp[2], z * lamp[1] - y * lamp[2]
        maps = (person.blood, preset.shading * by_yaw, preset.shading * by_pitch)
        self._maps = np.dstack(maps).astype(np.float32)
        self._texture = person.texture

    def at(self, blood: float, pose: dict[str, float]) -> np.ndarray:
        """Return the texture at one moment, float32 [256, 256, 3]."""
        white = np.ones(3)
        # More blood, darker skin. The last column stands alone, without a map: it is what does not change.
        colours = [-blood * PULSE_COLOUR, pose["yaw"] * white, pose["pitch"] * white, white]
        return self._texture * cv2.transform(self._maps, np.stack(colours, axis=1).astype(np.float32))


class _Highlights:
    """Whitish specular spots on forehead, nose and cheeks; they run against the head's turning."""

    def __init__(self, rng: np.random.Generator, person: Person, preset: Preset):
        self._brightness = preset.highlight
        self._colour = rng.uniform(0.9, 1.0, 3).astype(np.float32)
        self._skin = person.skin
        self._spots = [
            (x + rng.uniform(-4, 4), y + rng.uniform(-4, 4), rng.uniform(3, 7), rng.uniform(0.4, 1))
            for x, y in FOREHEAD_NOSE_CHEEKS
        ]

    def add(self, seen: np.ndarray, pose: dict[str, float]) -> None:
        """Add the spots to the texture, in place."""
        for x, y, spread, strength in self._spots:
            # A mirror turned by an angle turns what it reflects by twice as much.
            x, y = x - DEPTH * pose["yaw"], y - DEPTH * pose["pitch"]
            left, top, reach = round(x), round(y), math.ceil(3 * spread)
            rows, columns = slice(top - reach, top + reach + 1), slice(left - reach, left + reach + 1)
            at = np.arange(-reach, reach + 1)
            down = np.exp(-0.5 * ((at + top - y) / spread) ** 2)
            across = np.exp(-0.5 * ((at + left - x) / spread) ** 2)
            spot = self._brightness * strength * np.outer(down, across).astype(np.float32)
            seen[rows, columns] += (spot * self._skin[rows, columns])[..., None] * self._colour


class _Camera:
    """Sees the moving person: a rigid motion in the plane, parallax of the turning head, the mouth."""

    def __init__(self, person: Person):
        self._matte = person.matte
        height, width = person.background.shape[:2]
        across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        # Place in the portrait of every pixel at rest, from the face's centre; the maps move with that.
        self._x = (across - np.float32(person.centre[0])) / np.float32(person.scale)
        self._y = (down - np.float32(person.centre[1])) / np.float32(person.scale)
        x, y = self._x + FACE[0], self._y + FACE[1]
        depth = np.exp(-0.5 * ((x - FACE[0]) ** 2 / 45**2 + (y - FACE[1]) ** 2 / 60**2))
        mouth = np.exp(-0.5 * ((x - MOUTH[0]) ** 2 / 14**2 + (y - MOUTH[1]) ** 2 / 9**2))
        self._depth, self._mouth = (DEPTH * depth).astype(np.float32), mouth.astype(np.float32)

    def see(self, texture: np.ndarray, pose: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return the person on black, float32 [h, w, 3], and where it is, float32 [h, w]."""
        cos = np.float32(np.cos(pose["tilt"]) / (1 + pose["zoom"]))
        sin = np.float32(np.sin(pose["tilt"]) / (1 + pose["zoom"]))
        map_x = cos * self._x + sin * self._y + np.float32(FACE[0] - pose["across"])
        map_y = cos * self._y - sin * self._x + np.float32(FACE[1] - pose["down"])
        map_x -= np.float32(np.sin(pose["yaw"])) * self._depth
        map_y -= np.float32(np.sin(pose["pitch"])) * self._depth + np.float32(pose["mouth"]) * self._mouth
        layers = np.dstack([texture, self._matte])
        seen = cv2.remap(layers, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        matte = seen[..., 3]
        return seen[..., :3] * matte[..., None], matte


class _Light:
    """The room's light: uneven, slowly changing, and inside the pulse band if the preset says so."""

    def __init__(self, rng: np.random.Generator, person: Person, preset: Preset, times_s: np.ndarray):
        height, width = person.background.shape[:2]
        across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        direction = rng.uniform(0, 2 * np.pi)
        lamp = preset.unevenness * (np.cos(direction) * across + np.sin(direction) * down)
        self._still = (1 + lamp + 0.5 * preset.unevenness * _field(rng, (height, width), height / 5)).astype(
            np.float32
        )[..., None]
        even = np.ones((height, width))
        # A screen or a lamp at one side: it reaches from nothing to its full strength across the picture.
        side = rng.uniform(0, 2 * np.pi)
        uneven = 1 / (1 + np.exp(-3 * (np.cos(side) * across + np.sin(side) * down)))
        white, tint = np.ones(3), _tint(rng)
        self._maps = np.dstack([even, uneven]).astype(np.float32)
        slow = preset.slow_light * _wander(rng, 0.01, 0.2, slope=-0.5)(times_s)
        colour = preset.slow_colour * _wander(rng, 0.01, 0.2, slope=-0.5)(times_s)
        band = preset.band_light * _wander(rng, *MOTION_BAND_HZ)(times_s)
        apart = LIGHT_FROM_PULSE_HZ + 0.1
        own_hz = rng.uniform(0.8, 2.4)
        while abs(own_hz - person.heart_rate_bpm / 60) < apart:
            own_hz = rng.uniform(0.8, 2.4)
        flicker_hz = own_hz + 0.04 * _wander(rng, 0.02, 0.1)(times_s)
        if preset.lamp_hz:
            flicker_hz = np.full_like(times_s, preset.lamp_hz)
        flicker = np.sin(rng.uniform(0, 2 * np.pi) + 2 * np.pi * _integral(flicker_hz, times_s))
        warmth = np.array([1.0, 0.0, -1.0])
        self._colours = np.stack(
            [
                1 + np.outer(slow + band, white) + np.outer(colour, warmth),
                np.outer(preset.band_colour * flicker, tint),
            ],
            axis=2,
        ).astype(np.float32)

    def at(self, frame: int) -> np.ndarray:
        """Return the factor by which the light of frame number `frame` scales each pixel, [h, w, 3]."""
        return self._still * cv2.transform(self._maps, self._colours[frame])


def _tint(rng: np.random.Generator) -> np.ndarray:
    """Draw the colour of a lamp: strong in one or two of red, green and blue, 1 where it is strongest."""
    return rng.permutation([1.0, rng.uniform(0.1, 0.8), rng.uniform(0, 0.3)])


# Noise in time and space.


def _wander(rng: np.random.Generator, low_hz: float, high_hz: float, *, slope: float = 0.0):
    """Draw a random signal: 24 sines with random phases and frequencies in a band, standard deviation 1.

    Args:
      rng: draws it.
      low_hz: of the band, Hz.
      high_hz: of the band, Hz.
      slope: of the power over the frequency: −1 falls like 1/f.

    Returns:
      Function of times, float64 [t] in s: float64 [t]; a longer recording begins like a shorter one.
    """
    hz = np.exp(rng.uniform(np.log(low_hz), np.log(high_hz), 24))
    phase = rng.uniform(0, 2 * np.pi, 24)
    weight = np.sqrt(hz ** (slope + 1))  # + 1: the frequencies lie denser where they are low
    weight *= np.sqrt(2 / (weight**2).sum())
    return lambda times_s: np.sin(2 * np.pi * np.multiply.outer(times_s, hz) + phase) @ weight


def _field(rng: np.random.Generator, shape: int | tuple[int, int], smooth_px: float) -> np.ndarray:
    """Draw a random map, float32 [h, w]: smooth over `smooth_px` pixels, mean 0, standard deviation 1."""
    shape = (shape, shape) if isinstance(shape, int) else shape
    # Of wide ones a coarse version is drawn and enlarged: the blur costs by its width.
    step = max(1.0, smooth_px / 3)
    coarse = tuple(max(4, math.ceil(side / step)) for side in shape)
    field = cv2.GaussianBlur(rng.standard_normal(coarse, np.float32), (0, 0), smooth_px / step)
    field = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def _integral(rate: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Integrate a rate over time by trapezoids, from 0 at the first time, float64 [t]."""
    steps = np.diff(times_s) * (rate[1:] + rate[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
      argv: arguments without the program's name; by default the process's own.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser(
        "python -m sspd_jax.datasets.simulator",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("output", metavar="OUT", help="folder to write subject1, subject2, … into")
    parser.add_argument("--preset", default="default", help=f"how hard: {', '.join(PRESETS)}")
    parser.add_argument("--people", type=int, default=12, help="how many, one recording each")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a recording")
    parser.add_argument("--seed", type=int, default=0, help="of the list of people")
    parser.add_argument("--size", type=_size, default="x".join(map(str, SIZE)), help="of the pictures, WxH")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that film")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        folders = write_recordings(
            args.output,
            preset=args.preset,
            people=args.people,
            seconds=args.seconds,
            seed=args.seed,
            size=args.size,
            workers=args.workers,
            tell=lambda line: print(line, flush=True),
        )
        print(f"{args.output}: {len(folders)} recordings")

    return run(work, debug=args.debug)


if __name__ == "__main__":
    sys.exit(main())

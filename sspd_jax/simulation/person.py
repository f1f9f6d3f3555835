"""Simulated people: a heart, skin, a face and how it moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from sspd_jax.simulation import sample_video
from sspd_jax.simulation.random_signals import integral, smooth_field, wander

FPS = 30.0
SIZE = (320, 240)  # width, height, pixels
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


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """Who is seen: the same in every preset.

    Attributes:
      heart_rate_bpm: Mean heart rate, bpm.
      pulse: Function of times in s: PPG from −1 to 1 and momentary heart rate in bpm, all float64 [t].
      texture: The person without pulse, in the neutral pose, float32 [256, 256, 3] RGB, 0–255.
      matte: 1 on the person, 0 on what is behind, float32 [256, 256].
      skin: Where the skin is, float32 [256, 256], 0–1.
      blood: Relative change of green light with one unit of PPG, float32 [256, 256].
      background: What is behind, of the picture's size, float32 [h, w, 3] RGB, 0–255.
      scale: Pixels of the picture per pixel of the portrait.
      centre: Centre of the face in the picture, column and row.
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


def draw_pulse(rng: np.random.Generator, bpm: float):
    """Draw `Person.pulse`: a beat's shape, and a rate that varies with breath and, slower, like 1/f noise."""
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
    drift, slow = rng.uniform(0.008, 0.018), wander(rng, 0.01, 0.15, slope=-1)

    def pulse(times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        times_s = np.asarray(times_s, np.float64)
        breathing = np.sin(2 * np.pi * breath_hz * times_s + breath_phase)
        rate = bpm * (1 + breath * breathing + drift * slow(times_s))
        turns = phase + 2 * np.pi * integral(rate / 60, times_s)
        return np.interp(turns, angle, beat, period=2 * np.pi), rate

    return pulse


def draw_appearance(rng: np.random.Generator, bpm: float, pulse, size: tuple[int, int]) -> Person:
    """Make a person from the portrait: other proportions, skin, hair, clothes, sharpness, background."""
    portrait, skin = sample_video.read_portrait()
    matte = _matte(portrait)
    across, down = np.meshgrid(np.arange(CANVAS, dtype=np.float32), np.arange(CANVAS, dtype=np.float32))
    hair = matte * (1 - skin) * (down < 165)
    clothes = matte * (1 - skin) * (down >= 165)
    texture = portrait.astype(np.float32)

    # Skin from light to dark, dark skin redder: melanin absorbs blue most.
    dark = rng.uniform(0, 1) ** 1.3
    tone = np.array([1 - 0.42 * dark, 1 - 0.52 * dark, 1 - 0.58 * dark]) * rng.uniform(0.94, 1.04, 3)
    mottling = 1 + 0.025 * smooth_field(rng, CANVAS, 2) + 0.02 * smooth_field(rng, CANVAS, 9)
    for mask, gain in (
        (skin, tone * mottling[..., None]),
        (hair, rng.uniform(0.25, 1.15) * rng.uniform(0.94, 1.06, 3) * np.ones((1, 1, 3))),
        (clothes, rng.uniform(0.4, 1.6) * rng.uniform(0.5, 1.5, 3) * np.ones((1, 1, 3))),
    ):
        texture *= 1 + mask[..., None] * (gain.astype(np.float32) - 1)
    texture = np.clip(texture, 0, 250)

    # Proportions: stretched, and bent smoothly by a few pixels.
    stretch = 1 + rng.uniform(-0.07, 0.07, 2)
    bend = [rng.uniform(1.5, 3.5) * smooth_field(rng, CANVAS, 40) for _ in range(2)]
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
    blood = np.clip(middle * (1 + 0.35 * smooth_field(rng, CANVAS, 22)), low, high) * skin
    width, height = size
    scale = height / 240 * FACE_SHARE * rng.uniform(0.92, 1.05)
    wall = rng.uniform(90, 215) * rng.uniform(0.9, 1.1, 3)
    pattern = (
        1
        + 0.05 * smooth_field(rng, (height, width), height / 8)
        + 0.02 * smooth_field(rng, (height, width), 2)
    )
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

"""What a camera sees of a person: the surface, highlights, light, the camera itself.

A picture is made in the order in which a camera would see it: the person's texture, changed by blood and by
shading; highlights; the head's motion; the background; the room's light; the sensor's noise; 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from sspd_jax.simulation.person import (
    CANVAS,
    DEPTH,
    FACE,
    FOREHEAD_NOSE_CHEEKS,
    HEAD_AXES,
    MOUTH,
    PULSE_COLOUR,
    Person,
)
from sspd_jax.simulation.presets import Preset
from sspd_jax.simulation.random_signals import integral, smooth_field, wander

MOTION_BAND_HZ = (0.7, 2.5)  # of bursts and in-band light: where a pulse could be
POSE = ("across", "down", "tilt", "zoom", "yaw", "pitch", "mouth")
"""Translation in pixels of the portrait; tilt, yaw (left and right) and pitch (nod) in rad; zoom, relative;
opening of the mouth in pixels of the portrait."""
LIGHT_FROM_PULSE_HZ = 0.25  # least distance of in-band light from the pulse: on it, no method could tell


def film(person: Person, preset: Preset, times_s: np.ndarray, seed: int, number: int) -> Iterator[np.ndarray]:
    """Film a person.

    Args:
      person: Person to film.
      preset: How hard the recording is.
      times_s: Times of the frames, s, [t].
      seed: Seed of the list the person is from.
      number: Number of the person.

    Yields:
      One picture after the other, uint8 [h, w, 3] RGB.
    """
    rngs = [np.random.default_rng([seed, number, 0, part]) for part in range(4)]
    ppg, _ = person.pulse(times_s)
    motion = _draw_motion(rngs[0], preset, times_s)
    surface, highlights = _Surface(rngs[1], person, preset), _Highlights(rngs[1], person, preset)
    camera, light = Camera(person), _Light(rngs[2], person, preset, times_s)
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


class Camera:
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
        self._still = (
            1 + lamp + 0.5 * preset.unevenness * smooth_field(rng, (height, width), height / 5)
        ).astype(np.float32)[..., None]
        even = np.ones((height, width))
        # A screen or a lamp at one side: it reaches from nothing to its full strength across the picture.
        side = rng.uniform(0, 2 * np.pi)
        uneven = 1 / (1 + np.exp(-3 * (np.cos(side) * across + np.sin(side) * down)))
        white, tint = np.ones(3), _tint(rng)
        self._maps = np.dstack([even, uneven]).astype(np.float32)
        slow = preset.slow_light * wander(rng, 0.01, 0.2, slope=-0.5)(times_s)
        colour = preset.slow_colour * wander(rng, 0.01, 0.2, slope=-0.5)(times_s)
        band = preset.band_light * wander(rng, *MOTION_BAND_HZ)(times_s)
        apart = LIGHT_FROM_PULSE_HZ + 0.1
        own_hz = rng.uniform(0.8, 2.4)
        while abs(own_hz - person.heart_rate_bpm / 60) < apart:
            own_hz = rng.uniform(0.8, 2.4)
        flicker_hz = own_hz + 0.04 * wander(rng, 0.02, 0.1)(times_s)
        if preset.lamp_hz:
            flicker_hz = np.full_like(times_s, preset.lamp_hz)
        flicker = np.sin(rng.uniform(0, 2 * np.pi) + 2 * np.pi * integral(flicker_hz, times_s))
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


def _draw_motion(rng: np.random.Generator, preset: Preset, times_s: np.ndarray) -> dict[str, np.ndarray]:
    """Draw how the head moves: {name in POSE: float64 [t]}. Slow swaying, and bursts as in talking."""

    def slow():
        return wander(rng, 0.02, 0.35, slope=-0.5)(times_s)

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
        often, rate = wander(rng, 0.03, 0.25), wander(rng, 0.02, 0.12)
        middle, phase = rng.uniform(low + 0.2, high - 0.4), rng.uniform(0, 2 * np.pi)
        strength = np.clip(often(times_s) + preset.bursts, 0, 1)
        rhythm_hz = np.clip(middle + 0.25 * rate(times_s), low, high)
        motion[name] += amplitude * strength * np.sin(phase + 2 * np.pi * integral(rhythm_hz, times_s))
    motion["mouth"] = np.abs(motion["mouth"])
    return motion

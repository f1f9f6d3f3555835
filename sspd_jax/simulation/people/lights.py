"""Light that falls on a head and on what is behind it: lamps, screens, windows, flicker.

Every lamp has a direction and a colour that changes in time. Daylight is 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sspd_jax.simulation.random_signals import integral, wander

PULSE_BAND_HZ = (0.75, 2.4)
APART_HZ = 0.15  # least distance of a lamp's rate from the pulse: on it, no method could tell
WRAP = 0.25  # by which light reaches around a surface: skin scatters it
LAMP = 0.15  # light of a coloured lamp, of the room's
SCENE_CHANGE = 0.03  # of a screen's light within a scene, relative, standard deviation
READOUT = 0.7  # of the time between frames, in which a rolling shutter reads a picture


@dataclasses.dataclass(frozen=True)
class LightSettings:
    """Light in a recording. Changes are relative, standard deviations unless said otherwise.

    Attributes:
      level: Brightness; 1 is a bright room.
      key: Share of a lamp from one side, 0 to 1; the rest comes from everywhere.
      warmth: How yellow the lamps may be, 0 to 1.
      slow: Change of all light below 0.2 Hz.
      in_band: Change of all light at rates of a pulse.
      screen: Brightness of a screen before the face, of `level`: it falls on the person alone.
      lamp: Change of a coloured lamp at one side, at a rate of a pulse, amplitude, of `level`.
      back: Brightness of a window behind; every third person sits before one.
      mains: Change of the lamps with the mains, 100 or 120 Hz, amplitude.
      steps: Change of all light with steps, as of who walks under lamps.
    """

    level: float = 0.6
    key: float = 0.4
    warmth: float = 0.3
    slow: float = 0.004
    in_band: float = 0.0
    screen: float = 0.0
    lamp: float = 0.0
    back: float = 0.0
    mains: float = 0.0
    steps: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Lights:
    """The light of a recording.

    Attributes:
      directions: Where each lamp is, unit vectors, float32 [k, 3]: to the picture's right, up, to the camera.
      wrap: How far around a surface it reaches, float32 [k]; 1 for light from everywhere.
      colours: Of each lamp at each frame, float32 [t, k, 3].
      behind: Light on what is behind, at each frame, float32 [t, 3].
      rows: Share by which the mains change each row's light, function of (frame, rows) that gives
        float32 [rows], or None.
    """

    directions: np.ndarray
    wrap: np.ndarray
    colours: np.ndarray
    behind: np.ndarray
    rows: object


def draw_lights(rng: np.random.Generator, settings: LightSettings, times_s: np.ndarray, bpm: float) -> Lights:
    """Draw the light of a recording.

    Args:
      rng: Random generator.
      settings: What there is.
      times_s: Times of the frames, s, float64 [t].
      bpm: Mean rate of the pulse, bpm, or NaN: lamps keep away from it.
    """
    n = len(times_s)
    warm = rng.uniform(0, settings.warmth)
    white = np.array([1 + 0.25 * warm, 1.0, 1 - 0.4 * warm])
    all_light = 1 + settings.slow * wander(rng, 0.01, 0.2, slope=-0.5)(times_s)
    all_light = all_light + settings.in_band * wander(rng, *PULSE_BAND_HZ)(times_s)
    if settings.steps:
        all_light = all_light + settings.steps * wander(rng, 0.1, 0.6)(times_s)
    side = rng.choice((-1.0, 1.0))
    room = np.outer(settings.level * (1 - settings.key) * all_light, white)
    key = np.outer(1.3 * settings.level * settings.key * all_light, white)
    lamps = [
        ((0.0, 0.7, 0.4), 1.0, room),
        ((side * rng.uniform(0.5, 1.0), rng.uniform(0.2, 0.8), rng.uniform(0.4, 0.9)), WRAP, key),
    ]
    behind = room + 0.5 * key
    if settings.screen:
        colour = _screen(rng, times_s)
        lamps.append(((rng.uniform(-0.2, 0.2), -0.15, 1.0), WRAP, settings.level * settings.screen * colour))
    if settings.lamp:
        hz = _away_from(rng, bpm)
        beat = np.sin(2 * np.pi * integral(hz + 0.02 * wander(rng, 0.02, 0.1)(times_s), times_s))
        tint = rng.permutation([1.0, rng.uniform(0.1, 0.7), rng.uniform(0, 0.3)])
        shine = np.outer(settings.level * (LAMP + settings.lamp * beat), tint)
        lamps.append(((-side * 0.9, rng.uniform(-0.1, 0.5), 0.4), WRAP, shine))
        behind = behind + 0.3 * shine
    directions = np.array([at for at, _, _ in lamps])
    rows = _mains(rng, settings.mains, times_s) if settings.mains else None
    return Lights(
        (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32),
        np.array([wrap for _, wrap, _ in lamps], np.float32),
        np.stack([np.broadcast_to(colour, (n, 3)) for _, _, colour in lamps], axis=1).astype(np.float32),
        behind.astype(np.float32),
        rows,
    )


def shares(lights: Lights, normals: np.ndarray) -> np.ndarray:
    """Return how much of each lamp's light each vertex gets, float32 [v, k].

    Args:
      lights: The lamps.
      normals: Unit normals, float32 [v, 3].
    """
    facing = normals @ lights.directions.T
    return np.maximum((facing + lights.wrap) / (1 + lights.wrap), 0)


def _screen(rng: np.random.Generator, times_s: np.ndarray) -> np.ndarray:
    """Return a screen's light, float64 [t, 3]: scenes that are cut, and within them slow and quick change."""
    colour = np.zeros((len(times_s), 3))
    at, now = 0.0, rng.uniform(0.3, 1, 3)
    while at < times_s[-1] + 1e-9:
        ends = at + rng.exponential(2.5) + 0.4
        colour[(times_s >= at) & (times_s < ends)] = now
        at, now = ends, rng.uniform(0.15, 1) * rng.uniform(0.4, 1, 3)
    return colour * (1 + SCENE_CHANGE * wander(rng, 0.5, 3)(times_s)[:, None])


def _away_from(rng: np.random.Generator, bpm: float) -> float:
    while True:
        hz = rng.uniform(*PULSE_BAND_HZ)
        if not abs(hz - bpm / 60) < APART_HZ:
            return hz


def _mains(rng: np.random.Generator, strength: float, times_s: np.ndarray):
    hz = rng.choice((100.0, 120.0)) * (1 + rng.uniform(-3e-4, 3e-4))
    readout_s = READOUT * float(np.median(np.diff(times_s)))

    def rows(frame: int, height: int) -> np.ndarray:
        at = times_s[frame] + readout_s * np.arange(height) / height
        return (1 + strength * np.sin(2 * np.pi * hz * at)).astype(np.float32)

    return rows

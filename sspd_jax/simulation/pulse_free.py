"""Footage of a face without a pulse, in which something else beats or moves: for tests of trust.

Every kind is a pure function of a scene (a picture and where the face in it is), a time and the numbers that
were drawn for the recording; noise and codec come after it. All show one frozen frame of a clip, so that no
pulse of its person can be in it. A reading of any of them is a false one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from sspd_jax.simulation.footage import Footage, onto_picture
from sspd_jax.simulation.person import PULSE_COLOUR
from sspd_jax.simulation.random_signals import wander

RATES_HZ = (0.75, 2.4)  # of what beats: 45 to 144 bpm
STRENGTH = (0.6, 1.6)  # times what each kind states
NOISE = (0.5, 2.0)  # grey levels of the sensor's noise
WANDER_RAD = 1.2  # by which the phase of what beats wanders slowly, at the most
READOUT = 0.6  # of the time between frames, in which a rolling shutter reads a picture
GREY_SKIN = np.array([168.0, 164.0, 160.0], np.float32)  # of a mannequin


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A picture and the face in it.

    Attributes:
      picture: float32 [h, w, 3] RGB, 0 to 255.
      face: float32 [h, w], 1 on the face, with a wide soft edge: where light on the face falls.
      oval: float32 [h, w], 1 on the face, with a narrow edge.
      head: float32 [h, w], the same of the head with its hair.
      skin: float32 [h, w], 1 on skin.
      centre: Column and row of the face's centre, pixels.
      unit: Root mean square distance of the landmarks from it, pixels; a face is 3.5 wide.
      across: float32 [h, w], columns from the centre, in units.
      down: float32 [h, w], rows from the centre, in units.
      track: How the clip's face moves: times in s and, from the first frame, columns and rows in units, the
        scale's logarithm and the turn in radians; float64 [n, 5].
      rate_hz: Frames a second, Hz.
    """

    picture: np.ndarray
    face: np.ndarray
    oval: np.ndarray
    head: np.ndarray
    skin: np.ndarray
    centre: tuple[float, float]
    unit: float
    across: np.ndarray
    down: np.ndarray
    track: np.ndarray
    rate_hz: float


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What chance decides of a recording.

    Attributes:
      hz: How often it beats, Hz.
      strength: Times what the kind states.
      phase: Of what beats, rad.
      sway: By how much its phase wanders, rad; 0 for a lamp or a metronome.
      angle: From where light comes, rad.
      colour: Of a lamp: red, green and blue, the largest 1; far from the colour of blood.
      noise: Of the sensor, grey levels.
      seed: For what needs more numbers.
    """

    hz: float
    strength: float
    phase: float
    sway: float
    angle: float
    colour: tuple[float, float, float]
    noise: float
    seed: int

    def beat(self, time_s: float, times: float = 1.0, later: float = 0.0) -> np.float32:
        """Return what beats, −1 to 1.

        Args:
          time_s: The moment, s.
          times: Of the rate.
          later: Phase to subtract, rad.
        """
        slow = self.sway * np.sin(2 * np.pi * 0.07 * time_s + self.angle)
        return np.float32(np.sin(times * (2 * np.pi * self.hz * time_s + slow) + self.phase - later))


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of footage without a pulse.

    Attributes:
      says: What is seen, in words.
      show: Function of (scene, time in s, drawn numbers): float32 [h, w, 3], not rounded.
      noise: Times the drawn noise of the sensor.
      options: Of the encoder for (drawn numbers, frames/s), by FFmpeg's names, over the usual ones.
    """

    says: str
    show: Callable[[Scene, float, Drawn], np.ndarray]
    noise: float = 1.0
    options: Callable[[Drawn, float], Mapping[str, str]] = lambda _drawn, _fps: {}


def draw(rng: np.random.Generator) -> Drawn:
    """Draw the numbers of a recording."""
    low, high = RATES_HZ
    sway = rng.uniform(0.3, WANDER_RAD) if rng.random() < 0.5 else 0.0
    colour = rng.permutation([1.0, rng.uniform(0.1, 0.6), rng.uniform(0.0, 0.3)])
    while _alike(colour, PULSE_COLOUR) > 0.8:
        colour = rng.permutation(colour)
    return Drawn(
        hz=float(rng.uniform(low, high)),
        strength=float(rng.uniform(*STRENGTH)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        sway=float(sway),
        angle=float(rng.uniform(0, 2 * np.pi)),
        colour=tuple(map(float, colour)),
        noise=float(rng.uniform(*NOISE)),
        seed=int(rng.integers(2**31)),
    )


def look_at(footage: Footage, frame: int, picture: np.ndarray) -> Scene:
    """Make a scene of a frame of a clip.

    Args:
      footage: The clip.
      frame: Number of a frame in which the face is found.
      picture: The frame, uint8 [h, w, 3], of the clip's `size`.

    Returns:
      The scene.
    """
    height, width = picture.shape[:2]
    region = footage.region(frame)
    x, y, unit, angle = map(float, footage.traces.geometry[frame])
    down, across = np.mgrid[:height, :width].astype(np.float32)
    across, down = (across - np.float32(x)) / np.float32(unit), (down - np.float32(y)) / np.float32(unit)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    upright = cos * across + sin * down, cos * down - sin * across
    skin = np.zeros((height, width), np.float32)
    laid = onto_picture(footage.skin(frame)[..., None], region, (width, height))
    if laid is not None:
        skin[laid[1], laid[2]] = laid[0][..., 0]
    geometry = footage.traces.geometry.astype(np.float64)
    found = np.isfinite(geometry[:, 0])
    first = geometry[found][0]
    track = np.column_stack(
        [
            footage.times_s[found],
            (geometry[found, :2] - first[:2]) / first[2],
            np.log(geometry[found, 2] / first[2]),
            np.unwrap(geometry[found, 3]) - first[3],
        ]
    )
    return Scene(
        picture=picture.astype(np.float32),
        face=np.exp(-((upright[0] / 1.75) ** 4) - ((upright[1] / 2.1) ** 4)),
        oval=np.exp(-(((upright[0] / 1.6) ** 2 + (upright[1] / 2.05) ** 2) ** 6)),
        head=np.exp(-((upright[0] / 2.3) ** 6) - (((upright[1] + 0.5) / 2.9) ** 6)),
        skin=skin,
        centre=(x, y),
        unit=unit,
        across=across,
        down=down,
        track=track,
        rate_hz=footage.fps,
    )


def film(kind: Kind, scene: Scene, time_s: float, drawn: Drawn, rng: np.random.Generator) -> np.ndarray:
    """Show a kind at a moment as the sensor sees it.

    Args:
      kind: The kind.
      scene: The scene.
      time_s: The moment, s.
      drawn: The recording's numbers.
      rng: Draws the sensor's noise; where there is none, nothing is drawn.

    Returns:
      uint8 [h, w, 3].
    """
    seen = kind.show(scene, time_s, drawn)
    noise = np.float32(kind.noise * drawn.noise)
    if noise:
        seen = seen + noise * rng.standard_normal(seen.shape, np.float32)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


# How pictures move.


def _moved(s: Scene, across=0.0, down=0.0, zoom=1.0, tilt=0.0, stretch=0.0) -> np.ndarray:
    """Move the whole picture, in units of the face; tilt in degrees about the face's centre."""
    matrix = cv2.getRotationMatrix2D(s.centre, float(tilt), float(zoom))
    matrix[1] *= 1 + stretch
    matrix[1, 2] -= stretch * s.centre[1]
    matrix[:, 2] += np.array([across, down], float) * s.unit
    size = s.picture.shape[1::-1]
    return cv2.warpAffine(s.picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _head_moved(s: Scene, **motion: float) -> np.ndarray:
    """Move the head alone; between it and what is behind, both are mixed."""
    near = s.head[..., None]
    return _moved(s, **motion) * near + s.picture * (1 - near)


def _bent(s: Scene, across: np.ndarray | float, down: np.ndarray | float) -> np.ndarray:
    """Move every pixel by its own way, float32 [h, w] or a number, units of the face."""
    height, width = s.face.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    map_x, map_y = (x - np.float32(s.unit) * across), (y - np.float32(s.unit) * down)
    maps = map_x.astype(np.float32), map_y.astype(np.float32)
    return cv2.remap(s.picture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _tracked(s: Scene, t: float, _d: Drawn) -> np.ndarray:
    """Move the frozen frame as the clip's head moves, played to and fro."""
    length = max(s.track[-1, 0] - s.track[0, 0], 1e-3)
    at = s.track[0, 0] + length - abs(t % (2 * length) - length)
    across, down, grown, turn = (np.interp(at, s.track[:, 0], c) for c in s.track[:, 1:].T)
    return _moved(s, across, down, np.exp(grown), -np.degrees(turn))


def _shaken(s: Scene, t: float, d: Drawn) -> np.ndarray:
    rng = np.random.default_rng(d.seed)
    across, down, tilt = (wander(rng, 0.3, 6.0, slope=-1)(t) for _ in range(3))
    return _moved(s, 0.03 * d.strength * across, 0.03 * d.strength * down, tilt=0.4 * d.strength * tilt)


def _held_photo(s: Scene, t: float, d: Drawn) -> np.ndarray:
    rng = np.random.default_rng(d.seed)
    across, down, tilt, light = (wander(rng, 0.1, 1.5, slope=-1)(t) for _ in range(4))
    k = d.strength
    moved = _moved(s, 0.05 * k * across, 0.05 * k * (down + d.beat(t)), tilt=0.8 * k * tilt)
    return moved * np.float32(1 + 0.01 * k * light)


# How light falls.


def _lit(s: Scene, change: np.ndarray | float) -> np.ndarray:
    """Scale the picture by 1 + a relative change, [h, w, 3], [h, w, 1] or [3]."""
    return s.picture * (1 + np.asarray(change, np.float32))


def _colour(*rgb: float) -> np.ndarray:
    return np.array(rgb, np.float32)


def _from_side(s: Scene, d: Drawn) -> np.ndarray:
    """Return a light that grows from one side of the face to the other, float32 [h, w, 1], 0 to 1."""
    side = 1 if np.cos(d.angle) >= 0 else -1
    return (1 / (1 + np.exp(-2.5 * side * s.across)))[..., None]


def _half(s: Scene, d: Drawn) -> np.ndarray:
    side = 1 if np.cos(d.angle) >= 0 else -1
    return (1 / (1 + np.exp(-12 * side * s.across)))[..., None]


def _hue(d: Drawn, t: float) -> np.ndarray:
    """Return a colour whose hue turns once a beat, float32 [3], −1 to 1."""
    return np.array([d.beat(t, later=2 * np.pi * k / 3) for k in range(3)], np.float32)


def _scenes(d: Drawn, t: float) -> np.ndarray:
    """Return the colour of a screen whose picture is cut now and then, float32 [3], −1 to 1."""
    return np.random.default_rng([d.seed, int(t * d.hz)]).uniform(-1, 1, 3).astype(np.float32)


def _flicker(s: Scene, d: Drawn, t: float, mains_hz: float) -> np.ndarray:
    """Return a lamp on the mains as a rolling shutter samples it, float32 [h, 1, 1], −1 to 1.

    The mains are off by so much that the frame rate folds them to where a pulse could be.
    """
    lamp_hz = round(mains_hz / s.rate_hz) * s.rate_hz + d.hz
    height = len(s.face)
    read_s = t + READOUT / s.rate_hz * np.arange(height) / height
    return np.sin(2 * np.pi * lamp_hz * read_s + d.phase).astype(np.float32)[:, None, None]


def _exposed(s: Scene, t: float, d: Drawn) -> np.ndarray:
    gamma = 1 + 0.03 * d.strength * d.beat(t)
    return np.float32(255) * (np.clip(s.picture, 0, 255) / np.float32(255)) ** np.float32(gamma)


def _shadow(s: Scene, t: float, d: Drawn) -> np.ndarray:
    """Let a soft shadow go to and fro over the face."""
    at = np.float32(1.2) * d.beat(t)
    return _lit(s, -0.06 * d.strength * np.exp(-(((s.across - at) / 0.8) ** 2))[..., None])


# What is no skin.


def _cartoon(s: Scene) -> np.ndarray:
    flat = cv2.bilateralFilter(np.clip(s.picture, 0, 255).astype(np.uint8), 9, 60, 9)
    return cv2.GaussianBlur(flat // 32 * 32 + 16, (0, 0), 1).astype(np.float32)


def _mannequin(s: Scene) -> np.ndarray:
    """Turn skin grey, its mean brightness the same whatever the person's was."""
    luma = s.picture @ _colour(0.299, 0.587, 0.114)
    weight = s.skin.sum()
    mean = (luma * s.skin).sum() / weight if weight > 0 else luma.mean()
    grey = (luma / max(float(mean), 1.0))[..., None] * GREY_SKIN
    face = np.maximum(s.skin, s.oval)[..., None]
    return s.picture * (1 - face) + grey * face


def _mask(s: Scene) -> np.ndarray:
    """Lay a cloth over all of the face."""
    weave = 1 + 0.04 * np.sin(s.across * 60) * np.sin(s.down * 60)
    cloth = weave[..., None] * _colour(92, 128, 168) * (1 - 0.12 * s.across**2)[..., None].clip(0.5, 1)
    face = s.oval[..., None]
    return s.picture * (1 - face) + cloth.astype(np.float32) * face


def _empty_chair(s: Scene) -> np.ndarray:
    """Paint the head over with what lies around it."""
    height, width = s.face.shape
    step = max(1, min(height, width) // 96)
    size = (max(8, width // step), max(8, height // step))
    small = cv2.resize(np.clip(s.picture, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    hole = cv2.resize((s.head > 0.02).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    filled = cv2.inpaint(small, cv2.dilate(hole, np.ones((3, 3), np.uint8)), 5, cv2.INPAINT_TELEA)
    filled = cv2.resize(cv2.GaussianBlur(filled, (0, 0), 1.5), (width, height), interpolation=cv2.INTER_CUBIC)
    head = np.clip(s.head * 4, 0, 1)[..., None]
    return s.picture * (1 - head) + filled.astype(np.float32) * head


def _of(s: Scene, picture: np.ndarray) -> Scene:
    return dataclasses.replace(s, picture=picture)


def _groups(d: Drawn, fps: float) -> dict[str, str]:
    """Let one picture stand alone in every beat, so that the codec refreshes in step with it."""
    return {"g": str(max(2, round(fps / d.hz))), "keyint_min": "2", "sc_threshold": "0"}


KINDS: dict[str, Kind] = {
    # Nothing beats.
    "frozen": Kind("a frozen frame", lambda s, _t, _d: s.picture),
    "camera_noise": Kind("a frozen frame, much noise of the sensor", lambda s, _t, _d: s.picture, noise=4.0),
    "codec": Kind(
        "a frozen frame, refreshed by the codec at a pulse's rate",
        lambda s, _t, _d: s.picture,
        noise=0.5,
        options=_groups,
    ),
    # Motion of a frozen frame.
    "nod": Kind(
        "all nods",
        lambda s, t, d: _moved(s, down=0.05 * d.strength * d.beat(t), stretch=0.008 * d.strength * d.beat(t)),
    ),
    "head_nod": Kind(
        "the head alone nods", lambda s, t, d: _head_moved(s, down=0.035 * d.strength * d.beat(t))
    ),
    "head_turn": Kind(
        "the head alone turns left and right",
        lambda s, t, d: _bent(
            s, 0.05 * d.strength * d.beat(t) * np.exp(-(s.across**2) / 2 - s.down**2 / 4) * s.head, 0.0
        ),
    ),
    "sway": Kind(
        "all sways",
        lambda s, t, d: _moved(s, 0.07 * d.strength * d.beat(t), tilt=0.8 * d.strength * d.beat(t)),
    ),
    "tilt": Kind("all tilts", lambda s, t, d: _moved(s, tilt=d.strength * d.beat(t))),
    "zoom": Kind("all comes and goes", lambda s, t, d: _moved(s, zoom=1 + 0.012 * d.strength * d.beat(t))),
    "shake": Kind("a camera in the hand", _shaken),
    "vibration": Kind(
        "a camera on a table that shakes",
        lambda s, t, d: _moved(s, 0.01 * d.strength * d.beat(t, 2.0, 0.7), 0.015 * d.strength * d.beat(t)),
    ),
    "chewing": Kind(
        "the lower face moves as in chewing",
        lambda s, t, d: _bent(
            s, 0.0, 0.06 * d.strength * d.beat(t) * np.exp(-(s.across**2) / 1.2 - (s.down - 1.1) ** 2 / 0.5)
        ),
    ),
    "nod_shaded": Kind(
        "the head nods, and light falls on it otherwise",
        lambda s, t, d: (
            _head_moved(s, down=0.04 * d.strength * d.beat(t))
            * (1 + 0.02 * d.strength * d.beat(t) * np.clip(s.down / 2, -1, 1) * s.face)[..., None]
        ),
    ),
    "talking_track": Kind("a frozen frame moves as the clip's head did", _tracked),
    "photograph": Kind("a photograph held in the hand", _held_photo),
    # White light.
    "white_all": Kind("white light on everything", lambda s, t, d: _lit(s, 0.015 * d.strength * d.beat(t))),
    "white_face": Kind(
        "white light on the face alone",
        lambda s, t, d: _lit(s, 0.012 * d.strength * d.beat(t) * s.face[..., None]),
    ),
    "exposure": Kind("an exposure that hunts", _exposed),
    "shadow": Kind("a shadow that goes to and fro over the face", _shadow),
    # Coloured light.
    "warm_all": Kind(
        "a warm lamp on everything",
        lambda s, t, d: _lit(s, 0.02 * d.strength * d.beat(t) * _colour(1, 0.6, 0.15)),
    ),
    "white_balance": Kind(
        "a white balance that hunts",
        lambda s, t, d: _lit(s, 0.02 * d.strength * d.beat(t) * _colour(1, 0, -1)),
    ),
    "green_all": Kind(
        "everything greener and less green",
        lambda s, t, d: _lit(s, 0.01 * d.strength * d.beat(t) * _colour(0, 1, 0)),
    ),
    "green_face": Kind(
        "the face alone greener and less green",
        lambda s, t, d: _lit(s, 0.008 * d.strength * d.beat(t) * s.face[..., None] * _colour(0, 1, 0)),
    ),
    "coloured_face": Kind(
        "a coloured lamp on the face alone",
        lambda s, t, d: _lit(s, 0.012 * d.strength * d.beat(t) * s.face[..., None] * _colour(*d.colour)),
    ),
    "screen_hue": Kind(
        "a screen whose hue turns, on the face alone",
        lambda s, t, d: s.picture + 2.5 * d.strength * s.face[..., None] * _hue(d, t),
    ),
    "screen_video": Kind(
        "a screen whose picture is cut, on the face alone",
        lambda s, t, d: s.picture + 2.5 * d.strength * s.face[..., None] * _scenes(d, t),
    ),
    "lamp_one_side": Kind(
        "a coloured lamp at one side",
        lambda s, t, d: _lit(s, 0.015 * d.strength * d.beat(t) * _from_side(s, d) * _colour(*d.colour)),
    ),
    "half_face": Kind(
        "light of blood's colour on half of the face",
        lambda s, t, d: _lit(
            s, -0.01 * d.strength * d.beat(t) * _half(s, d) * s.face[..., None] * PULSE_COLOUR
        ),
    ),
    "blood_all": Kind(
        "light of blood's colour on everything",
        lambda s, t, d: _lit(s, -0.008 * d.strength * d.beat(t) * PULSE_COLOUR),
    ),
    "flicker_50": Kind(
        "a lamp on 50 Hz, folded by the frame rate",
        lambda s, t, d: _lit(s, 0.02 * d.strength * _flicker(s, d, t, 100.0) * _colour(0.5, 1, 0.7)),
    ),
    "flicker_60": Kind(
        "a lamp on 60 Hz, folded by the frame rate, on the face alone",
        lambda s, t, d: _lit(
            s, 0.02 * d.strength * _flicker(s, d, t, 120.0) * s.face[..., None] * _colour(1, 0.8, 0.6)
        ),
    ),
    # No skin, and on it what would be a pulse on skin.
    "cartoon": Kind(
        "a cartoon of the face that beats",
        lambda s, t, d: _lit(
            _of(s, _cartoon(s)), -0.01 * d.strength * d.beat(t) * s.face[..., None] * PULSE_COLOUR
        ),
    ),
    "mannequin": Kind(
        "grey skin on a frozen head that moves as the clip's did, under a white lamp that beats",
        lambda s, t, d: _lit(_of(s, _tracked(_of(s, _mannequin(s)), t, d)), 0.006 * d.strength * d.beat(t)),
    ),
    "mask": Kind(
        "cloth over the face, which nods",
        lambda s, t, d: _head_moved(_of(s, _mask(s)), down=0.03 * d.strength * d.beat(t)),
    ),
    "empty_chair": Kind(
        "nobody, under a lamp that beats",
        lambda s, t, d: _lit(_of(s, _empty_chair(s)), 0.01 * d.strength * d.beat(t) * _colour(*d.colour)),
    ),
}
"""Name → kind."""


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))

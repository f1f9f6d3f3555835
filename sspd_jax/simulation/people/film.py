"""Film a person: mesh, paint, motion, light and camera, one picture after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np

from sspd_jax.simulation.known_pulse import PulseWave
from sspd_jax.simulation.people import heads, lights, raster
from sspd_jax.simulation.people.camera import Camera, Sensor
from sspd_jax.simulation.people.head_motion import MOVES, POSE, Habits, Motion, draw_motion
from sspd_jax.simulation.people.lights import Lights, LightSettings
from sspd_jax.simulation.people.paint import Figure
from sspd_jax.simulation.random_signals import smooth_field

FOCAL = 1.15  # of the lens, in heights of the picture
FACE_DM = 1.9  # height of a face, brows to chin
MARGIN_PX = 48  # of what is behind, around the picture
LANES = 512  # columns of the sheet on which samples of the paintings are laid out
LEAST_BLUR_PX = 0.5  # of a movement while the shutter is open: less is not seen
GLOSS = 22.0  # exponent of the lobe in which skin shines
PULSE_FREE = ("photograph", "mannequin", "mask", "cartoon", "frozen", "empty_chair")
"""What is filmed in a pulse-free twin: a printed photograph that is held, a mannequin, a person under a mask,
a drawn person, a person in a video that stands still, nobody."""
PLASTIC = np.array([0.48, 0.42, 0.37], np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """How a person is filmed.

    Attributes:
      size: Width and height of the pictures, pixels.
      face: Height of the face, brows to chin, of the picture's height; drawn between the two.
      habits: How much the person moves.
      light: What light there is.
      camera: What films.
      busy: How much there is to see behind the person, 0 to 1.
    """

    size: tuple[int, int] = (640, 480)
    face: tuple[float, float] = (0.28, 0.42)
    habits: Habits = dataclasses.field(default_factory=Habits)
    light: LightSettings = dataclasses.field(default_factory=LightSettings)
    camera: Camera = dataclasses.field(default_factory=Camera)
    busy: float = 0.5


def film(
    figure: Figure,
    scene: Scene,
    wave: PulseWave,
    tracks: tuple[str, ...],
    times_s: np.ndarray,
    seed: list[int],
    *,
    pulse_free: str | None = None,
) -> Iterator[np.ndarray]:
    """Film a person.

    Args:
      figure: The person.
      scene: How they are filmed.
      wave: Their pulse.
      tracks: Names of real heads' tracks to move like.
      times_s: Times of the frames, s, float64 [t].
      seed: Numbers that decide all that is drawn.
      pulse_free: Name in `PULSE_FREE`: what is filmed instead, without any pulse.

    Yields:
      One picture after the other, uint8 [h, w, 3] RGB.
    """
    rngs = [np.random.default_rng([*seed, part]) for part in range(4)]
    ppg = np.zeros(len(times_s)) if pulse_free else wave.at(times_s)
    late = np.zeros(len(times_s)) if pulse_free else np.gradient(wave.at(times_s), times_s)
    motion = draw_motion(rngs[0], scene.habits, tracks, times_s, ppg)
    light = lights.draw_lights(
        rngs[1], scene.light, times_s, np.nan if pulse_free else float(wave.rate_bpm.mean())
    )
    stage = _Stage(rngs[2], figure, scene, light, pulse_free)
    sensor = Sensor(rngs[3], scene.camera, scene.size, times_s)
    still: np.ndarray | None = None
    frozen: np.ndarray | None = None
    for frame in range(len(times_s)):
        if pulse_free == "frozen" and frozen is not None:
            yield frozen
            continue
        if pulse_free == "photograph":
            if still is None:
                still = stage.show(0, _at(motion, 0), np.zeros(2), 0.0, 0.0)
                still = still / max(float(np.quantile(still, 0.98)), 1e-3) * 0.8
            picture = _held(still, motion, frame, light, stage.behind(frame, motion.shake_px[:, frame]))
        else:
            picture = stage.show(
                frame, _at(motion, frame), motion.shake_px[:, frame], ppg[frame], late[frame]
            )
        if light.rows:
            picture *= light.rows(frame, len(picture))[:, None, None]
        shot = sensor.shoot(picture, frame)
        frozen = shot
        yield shot


def _at(motion: Motion, frame: int) -> dict[str, float]:
    return {name: float(values[frame]) for name, values in {**motion.pose, **motion.moves}.items()}


class _Stage:
    """A person before a wall, as a lens sees them."""

    def __init__(
        self, rng: np.random.Generator, figure: Figure, scene: Scene, light: Lights, kind: str | None
    ):
        self._figure, self._scene, self._light, self._kind = figure, scene, light, kind
        width, height = scene.size
        self._pixels_per_dm = height * rng.uniform(*scene.face) / FACE_DM
        self._distance = FOCAL * height / self._pixels_per_dm
        self._centre = np.array([width * rng.uniform(0.44, 0.56), height * rng.uniform(0.42, 0.5)])
        self._faces = figure.corners[figure.triangles]
        self._behind = _room(rng, scene)
        halfway = light.directions + np.array([0, 0, 1])  # between a lamp and the camera: there skin shines
        halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
        self._halfway = halfway.astype(np.float32)
        colour, beats = figure.colour, figure.beats
        skin = (np.abs(beats).max(axis=2) > 1e-5)[..., None]
        if kind == "mannequin":
            colour = np.where(skin, PLASTIC, colour)
        elif kind == "mask":
            tint = np.array([0.55, 0.5, 0.45]) * rng.uniform(0.3, 1.2, 3)
            colour = np.where(skin, 0.5 * colour + 0.5 * tint, colour)
        elif kind == "cartoon":
            colour = np.round(np.sqrt(colour) * 5) ** 2 / 25
        self._colour, self._beats = (np.ascontiguousarray(map_, np.float32) for map_ in (colour, beats))
        self._late_s, self._shine = figure.late_s, figure.shine
        model = heads.load_heads()
        self._moves = {name: model.moves[name] for name in MOVES}
        self._pivot = figure.rest[figure.turns > 0.99].mean(0) * [0, 1, 1] - [0, 1.0, 0.5]
        # What lies under the chin gets less light from above.
        low = figure.rest[:, 1] - (figure.rest[figure.turns > 0.99, 1].min() + 0.1)
        self._open = np.clip(0.75 + 0.25 * np.clip(low / 0.4, 0, 1), 0, 1).astype(np.float32)
        self._head = figure.turns[figure.corners] > 0.99
        self._before: np.ndarray | None = None

    def behind(self, frame: int, shake_px: np.ndarray) -> np.ndarray:
        """Return what is behind the person, in its light, float32 [h, w, 3]."""
        width, height = self._scene.size
        if np.any(shake_px):
            limit = MARGIN_PX - 2
            dx, dy = np.clip(shake_px * height / 480, -limit, limit) + MARGIN_PX
            shift = np.array([[1, 0, -dx], [0, 1, -dy]])
            seen = cv2.warpAffine(self._behind, shift, (width, height), flags=cv2.INTER_LINEAR)
        else:
            seen = self._behind[MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width]
        return cv2.multiply(seen, (*self._light.behind[frame].tolist(), 0))

    def show(
        self, frame: int, pose: dict[str, float], shake_px: np.ndarray, blood: float, rising: float
    ) -> np.ndarray:
        """Return the light that a moment sends to the camera, float32 [h, w, 3]."""
        picture = self.behind(frame, shake_px)
        if self._kind == "empty_chair":
            return picture
        figure, scene = self._figure, self._scene
        if self._kind == "mannequin":
            pose = dict.fromkeys(pose, 0.0) | {"yaw": 0.1}
        points, normal = self._placed(pose)
        away = self._distance - points[:, 2]
        columns = self._centre[0] + self._pixels_per_dm * self._distance * points[:, 0] / away
        rows = self._centre[1] - self._pixels_per_dm * self._distance * points[:, 1] / away
        shift = shake_px * scene.size[1] / 480
        at = np.column_stack([columns - shift[0], rows - shift[1], away])
        middle = at[figure.corners][self._head, :2].mean(axis=0)
        moved = np.zeros(2) if self._before is None else (middle - self._before) * scene.camera.shutter
        self._before = middle
        seen = raster.rasterise(at[figure.corners], figure.triangles, scene.size)
        lit = lights.shares(self._light, normal) * self._open[:, None]
        glint = np.maximum(normal @ self._halfway.T, 0) ** GLOSS * 0.25
        glint[:, self._light.wrap == 1] *= 0.3
        known = np.hstack([figure.atlas, lit[figure.corners], glint[figure.corners]]).astype(np.float32)
        known = seen.of(known, figure.triangles)
        lamps = len(self._light.directions)
        if self._kind == "cartoon":
            known[:, 2 : 2 + lamps] = np.round(known[:, 2 : 2 + lamps] * 3) / 3
        places = np.zeros((-(-len(known) // LANES) * LANES, 2), np.float32)
        places[: len(known)] = known[:, :2]
        places = places.reshape(-1, LANES, 2)

        def painted(what: np.ndarray) -> np.ndarray:
            """Return a painting where each pixel lies on the atlas, float32 [n, 3 or 1]."""
            laid = cv2.remap(what, places, None, cv2.INTER_LINEAR)
            return laid.reshape(places.shape[0] * LANES, -1)[: len(known)]

        colours = self._light.colours[frame]
        light = _mixed(known[:, 2 : 2 + lamps], colours)
        light *= painted(self._colour)
        if not self._kind:
            # A later pulse is the wave as it was before, by its slope.
            beat = painted(self._beats)
            beat *= np.float32(blood) - np.float32(rising) * painted(self._late_s)
            beat += 1
            light *= beat
        if self._kind != "cartoon":
            gloss = _mixed(known[:, 2 + lamps :], colours)
            gloss *= painted(self._shine)
            light += gloss
        picture.reshape(-1, 3)[seen.pixels] = light
        if np.hypot(*moved) > LEAST_BLUR_PX:
            person = np.zeros(picture.shape[:2], np.float32)
            person.reshape(-1)[seen.pixels] = 1
            along = streak(moved)
            touched = cv2.filter2D(person, -1, along) > 1e-3  # what lies behind stays sharp
            blurred = cv2.filter2D(picture, -1, along, borderType=cv2.BORDER_REPLICATE)
            picture[touched] = blurred[touched]
        return picture

    def _placed(self, pose: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vertices before the camera, dm, and their normals, float32 [v, 3]."""
        figure = self._figure
        shape = figure.rest.copy()
        for name, way in self._moves.items():
            if pose[name] > 1e-3:
                shape[: len(way)] += np.float32(pose[name]) * way
        turned = (shape - self._pivot) @ heads.rotation(*(pose[name] for name in POSE[:3])).T + self._pivot
        shape += figure.turns[:, None] * (turned - shape)
        away = np.array([pose[name] for name in POSE[3:]])
        shape += (0.35 + 0.65 * figure.turns[:, None]) * away
        shape = shape.astype(np.float32)
        return shape, heads.normals(shape, self._faces).astype(np.float32)


def _mixed(shares: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return `shares @ colours`, float32 [n, 3] of [n, k] and [k, 3]: quicker where both are so narrow."""
    return cv2.transform(np.ascontiguousarray(shares)[:, None], colours.T)[:, 0]


def streak(moved_px: np.ndarray) -> np.ndarray:
    """Return the kernel by which what moves is blurred while the shutter is open.

    Args:
      moved_px: Columns and rows by which it moves in that time, float64 [2].

    Returns:
      float32 [k, k], k odd, sum 1: a line of that length and direction.
    """
    reach = int(np.ceil(np.abs(moved_px).max() / 2)) + 1
    at = np.linspace(-0.5, 0.5, 4 * reach + 1)[:, None] * moved_px + reach
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    low = np.floor(at).astype(int)
    part = at - low
    for down in (0, 1):
        for across in (0, 1):
            share = np.abs(1 - across - part[:, 0]) * np.abs(1 - down - part[:, 1])
            np.add.at(kernel, (low[:, 1] + down, low[:, 0] + across), share)
    return kernel / kernel.sum()


def _held(still: np.ndarray, motion: Motion, frame: int, light: Lights, behind: np.ndarray) -> np.ndarray:
    """Return a printed photograph, held by a hand that moves as the person would, in the room's light."""
    height, width = still.shape[:2]
    pose = {name: values[frame] for name, values in motion.pose.items()}
    scale = 0.85 * (1 + 0.05 * pose["z"])
    dx, dy = height * 0.12 * np.array([pose["x"], -pose["y"]]) + motion.shake_px[:, frame]
    dx += 0.6 * width * 0.2 * np.sin(pose["yaw"])
    dy += 0.6 * height * 0.2 * np.sin(pose["pitch"])
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -np.degrees(pose["roll"]), scale)
    matrix[:, 2] += dx, dy
    # Turned paper gets more or less of the lamps' light.
    normal = heads.rotation(pose["yaw"], pose["pitch"], pose["roll"])[:, 2:].T
    lit = lights.shares(light, normal)[0] @ light.colours[frame]
    layers = np.dstack([still * lit.astype(np.float32), np.ones((height, width), np.float32)])
    laid = cv2.warpAffine(layers, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return laid[..., :3] + behind * (1 - laid[..., 3:])


def _room(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Draw what is behind: a wall, things on it, perhaps a window; float32 [h, w, 3], with a margin."""
    width, height = (side + 2 * MARGIN_PX for side in scene.size)
    wall = rng.uniform(0.15, 0.6) * rng.uniform(0.8, 1.1, 3)
    across, down = np.linspace(-1, 1, width)[None, :], np.linspace(1, -1, height)[:, None]
    fall = 1 + 0.25 * rng.uniform(-1, 1) * across + 0.1 * down
    room = (wall * fall[..., None]).astype(np.float32)
    for _ in range(round(scene.busy * rng.integers(4, 16))):
        left, top = rng.uniform(-0.1, 1, 2) * [width, height]
        wide, high = rng.uniform(0.04, 0.3, 2) * [width, height]
        colour = rng.uniform(0.02, 0.8) * rng.uniform(0.3, 1, 3)
        corners = np.array([[left, top], [left + wide, top + high]]).astype(int).tolist()
        if rng.random() < 0.8:
            cv2.rectangle(room, *corners, colour.tolist(), cv2.FILLED)
        else:
            cv2.ellipse(
                room, corners[0], (int(wide / 2), int(high / 2)), 0, 0, 360, colour.tolist(), cv2.FILLED
            )
    if scene.light.back and rng.random() < 1 / 3:
        left = int(rng.uniform(0.05, 0.6) * width)
        corner = (left + int(0.35 * width), int(0.7 * height))
        cv2.rectangle(room, (left, 0), corner, [2.0 + scene.light.back * 3] * 3, cv2.FILLED)
    blur = rng.uniform(0.8, 4) * height / 480
    room = cv2.GaussianBlur(room, (0, 0), blur)
    grain = 1 + 0.02 * smooth_field(rng, (height, width), 1.2) + 0.03 * smooth_field(rng, (height, width), 12)
    return np.clip(room * grain[..., None], 0.003, None).astype(np.float32)

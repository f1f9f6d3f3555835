"""Follow faces by their landmarks, each as one smooth track: where it is, how large, how it is turned.

A `MeshTracker` looks ten times a second and keeps faces apart; `smooth_points` turns one face's looks into
its landmarks at any moment: with looks from before and after that moment it shifts nothing in time, with
those from before alone it lags by what `LAG_S` states.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from sspd_jax.video.face_detection import FaceBox, FaceDetector, HaarDetector
from sspd_jax.video.face_mesh import FaceNetworks, FaceRegion, overlap, region_of

LOOK_EVERY_S = 0.1
DETECT_EVERY_S = 1.0  # for faces that came into view
SEARCH_EVERY_S = 0.2  # while there is none
FORGET_AFTER_S = 5.0  # a lost face that comes back after that is a new one
SAME_FACE = 0.2  # overlap with where it was, from which a found face is the same
ONE_FACE = 0.45  # overlap from which two tracks follow one face

FAST_S, SLOW_S = 0.1, 0.5  # standard deviations of the two smoothings
STILL = 0.02  # of a face's size: motion below it is taken for the landmarks' noise
REACH_S = 1.0  # looks farther away say nothing
LAG_S = 0.4  # at the most, of a track from looks before the moment alone: 0.8·SLOW_S; 0.08 while it moves
HELD_S = 0.5  # after the last look that found the face it still counts as found

# A region that follows every tremble of the landmarks lends them its own: it stays until it is this far off.
REGION_OFF = 0.03  # of its side
REGION_TURN = 0.035  # radians

CROP_SIDE = 4.4  # of an aligned crop, in units of the landmarks' spread: face, forehead and some hair

MARKED = 1.75  # half the width of what the Haar cascade marks, in units of the landmarks' spread
MARKED_ABOVE = 0.56  # of its height lies above the landmarks' mean

# Points left and right of the face's middle; their differences turn with the head, not with its expression.
RIGHT_POINTS = (33, 133, 234, 127, 93, 132, 58, 61, 70, 105, 50, 205, 172, 21, 54, 103)
LEFT_POINTS = (263, 362, 454, 356, 323, 361, 288, 291, 300, 334, 280, 425, 397, 251, 284, 332)

TEMPLATE = np.loadtxt(Path(__file__).parent / "face_template.csv", delimiter=",", skiprows=1)
"""A frontal face, float64 [468, 3]: mean 0, spread 1, y down, z to the back. The landmarks of the portrait in
`simulation`, made symmetric."""


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """What one look saw of one face.

    Attributes:
      time_s: of the frame, s.
      points: float32 [468, 3], pixels of the picture, or None where the face was not found.
    """

    time_s: float
    points: np.ndarray | None


@dataclasses.dataclass
class Face:
    """One person's track so far.

    Attributes:
      number: counts the people from 0 in the order in which they came.
      looks: the last looks, as many as the tracker was told to keep.
      region: where the last look looked.
    """

    number: int
    looks: list[Look] = dataclasses.field(default_factory=list)
    region: FaceRegion | None = None

    @property
    def last(self) -> Look | None:
        """The last look that found it."""
        return next((look for look in reversed(self.looks) if look.points is not None), None)

    def expected(self, time_s: float) -> np.ndarray | None:
        """Return where its points would be if it went on as it moved, float32 [468, 3]."""
        seen = [look for look in self.looks if look.points is not None][-3:]
        if not seen:
            return None
        if len(seen) < 2 or time_s - seen[-1].time_s > HELD_S:
            return seen[-1].points
        speed = (seen[-1].points - seen[0].points).mean(0) / (seen[-1].time_s - seen[0].time_s)
        return (seen[-1].points + speed * (time_s - seen[-1].time_s)).astype(np.float32)


class MeshTracker:
    """Follows every face of a video by its landmarks, or by the Haar cascade where the models are absent.

    Attributes:
      faces: every face that is in view or was within the last seconds.
      said: what there is to tell: (time in s, sentence).
    """

    def __init__(
        self,
        networks: FaceNetworks | None,
        *,
        most_faces: int = 1,
        near: tuple[float, float, float, float] | None = None,
        keep_s: float = 3.0,
    ):
        """Begin with no face.

        Args:
          networks: the face networks, or None for the Haar cascade: its box then carries `TEMPLATE`.
          most_faces: how many are followed; the largest that come first.
          near: left, top, right, bottom of the face to follow, pixels; by default the largest.
          keep_s: how long looks are kept, s.
        """
        self._networks, self._most, self._near, self._keep_s = networks, most_faces, near, keep_s
        self._haar = None if networks else HaarDetector()
        self._looked_s = self._detected_s = -np.inf
        self._count = 0
        self.faces: list[Face] = []
        self.said: list[tuple[float, str]] = []

    def see(self, time_s: float, rgb: np.ndarray) -> bool:
        """Take the next frame; return whether it was looked at.

        Args:
          time_s: of the frame, increasing, s.
          rgb: uint8 [h, w, 3].
        """
        if time_s - self._looked_s < LOOK_EVERY_S - 0.002:  # timestamps are rounded, to 1 ms at worst
            return False
        self._looked_s = time_s
        before = {face.number: _in_view(face) for face in self.faces}
        found = self._follow(time_s, rgb)
        open_places = sum(points is None for points in found.values()) + self._most - len(self.faces)
        every_s = SEARCH_EVERY_S if not any(p is not None for p in found.values()) else DETECT_EVERY_S
        if open_places > 0 and time_s - self._detected_s >= every_s - 0.002:
            self._detected_s = time_s
            self._admit(time_s, rgb, found)
        for face in self.faces:
            points = found.get(face.number)
            face.looks.append(Look(time_s, points))
            face.looks = [look for look in face.looks if look.time_s >= time_s - self._keep_s]
            seen, was = points is not None, before.get(face.number, False)
            if seen != was:
                again = "found" if seen else "lost"
                self.said.append((time_s, f"face {face.number} is {again} at {time_s:.1f} s"))
        self.faces = [face for face in self.faces if self._remembered(face, time_s)]
        return True

    def _remembered(self, face: Face, time_s: float) -> bool:
        # Who was there first stays known: with one person to follow there is nobody to mistake them for.
        return face.last is not None or time_s - face.looks[0].time_s < FORGET_AFTER_S

    def _follow(self, time_s: float, rgb: np.ndarray) -> dict[int, np.ndarray | None]:
        found: dict[int, np.ndarray | None] = {}
        if self._networks is None:
            boxes = (
                [(b.left, b.top, b.right, b.bottom) for b in self._haar.detect_all(rgb)] if self.faces else []
            )
            for face in self.faces:
                where = face.expected(time_s)
                known = boxes if where is not None else []  # one away for long is found as a new one is
                best = max(known, key=lambda box: overlap(box, box_of(where)), default=None)
                near = best is not None and overlap(best, box_of(where)) >= SAME_FACE
                found[face.number] = _placed(best) if near else None
            return found
        for face in self.faces:
            where = face.expected(time_s)
            mesh = None
            if where is not None and _in_view(face):
                face.region = _steady(face.region, region_of(where))
                mesh = self._networks.landmarks(rgb, face.region)
            found[face.number] = None if mesh is None else mesh.points
        # Where two tracks fell on one face, it belongs to the one that moved as it was expected to.
        for one, other in itertools.combinations(self.faces, 2):
            pair = [found[face.number] for face in (one, other)]
            if any(points is None for points in pair) or overlap(*map(box_of, pair)) <= ONE_FACE:
                continue
            off = [
                np.abs(points - face.expected(time_s))[:, :2].mean()
                for points, face in zip(pair, (one, other), strict=True)
            ]
            found[(one, other)[int(off[0] <= off[1])].number] = None
        return found

    def _admit(self, time_s: float, rgb: np.ndarray, found: dict[int, np.ndarray | None]) -> None:
        """Look for faces that no track holds: lost ones first, then new ones."""
        if self._networks is None:
            boxes = [(b.left, b.top, b.right, b.bottom) for b in self._haar.detect_all(rgb)]
            candidates = [_placed(box) for box in boxes]
        else:
            faces = self._networks.detect(rgb)
            meshes = [self._networks.landmarks(rgb, face.region) for face in faces[: 2 * self._most]]
            # A second look, at the region that the following ones will have: a region shifts what it shows.
            again = [self._networks.landmarks(rgb, mesh.region) for mesh in meshes if mesh is not None]
            candidates = [mesh.points for mesh in again if mesh is not None]
        held = [box_of(points) for points in found.values() if points is not None]
        candidates = [c for c in candidates if all(overlap(box_of(c), box) < SAME_FACE for box in held)]
        if self._near is not None and not self.faces:
            candidates = [c for c in candidates if overlap(box_of(c), self._near) > 0]
            candidates.sort(key=lambda c: -overlap(box_of(c), self._near))
        for points in candidates:
            lost = [face for face in self.faces if found.get(face.number) is None]
            same = max(lost, key=lambda face: _overlap_with_last(face, points), default=None)
            # A face that was away for long may come back anywhere.
            if same is not None and (
                same.last is None
                or _overlap_with_last(same, points) >= SAME_FACE / 2
                or len(self.faces) == self._most == 1
                or time_s - same.last.time_s > FORGET_AFTER_S
            ):
                found[same.number] = points
            elif len(self.faces) < self._most:
                face = Face(self._count)
                self._count += 1
                self.faces.append(face)
                found[face.number] = points


def marked_box(points: np.ndarray) -> FaceBox:
    """Return the box that the Haar cascade would mark of a face: brows to chin and as much across.

    Args:
      points: [468, 2 or 3], pixels. All of them decide, as in `aligned_region`.
    """
    x, y = points[:, :2].mean(0)
    side = 2 * MARKED * spread(points)
    left, top = x - side / 2, y - MARKED_ABOVE * side
    return FaceBox(*(round(float(edge)) for edge in (left, top, left + side, top + side)))


class MeshDetector(FaceDetector):
    """Finds faces by the face networks, and marks them as the Haar cascade would."""

    def __init__(self, networks: FaceNetworks):
        """Use these networks."""
        self._networks = networks

    def detect_all(self, rgb: np.ndarray) -> list[FaceBox]:
        """Find every face, the largest first."""
        meshes = (self._networks.landmarks(rgb, face.region) for face in self._networks.detect(rgb))
        return [marked_box(mesh.points) for mesh in meshes if mesh is not None]


class TrackedFace(FaceDetector):
    """Stands in for a detector where a `MeshTracker` has looked at the frames already."""

    def __init__(self, tracker: MeshTracker, number: int = 0):
        """Mark the face `number` of a tracker."""
        self._tracker, self._number = tracker, number

    def detect_all(self, rgb: np.ndarray) -> list[FaceBox]:  # noqa: ARG002, a detector's signature
        """Return the face's box in the frame that the tracker saw last, none where it is out of view."""
        face = next((face for face in self._tracker.faces if face.number == self._number), None)
        return [marked_box(face.last.points)] if face is not None and _in_view(face) else []


def box_of(points: np.ndarray) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of points [n, 2 or 3], pixels."""
    return (*map(float, points[:, :2].min(0)), *map(float, points[:, :2].max(0)))


def smooth_points(looks: list[Look], at_s: float, *, ahead: bool = True) -> np.ndarray | None:
    """Return a face's landmarks at a moment, from the looks around it.

    Two Gaussian means over the looks, a fast and a slow one, are mixed: the farther apart they are, as
    measured by `STILL` of the face's size, the more the fast one counts. A face that holds still does not
    tremble, and one that moves is followed at once.

    Args:
      looks: of one face, in the order of time.
      at_s: the moment, s.
      ahead: whether looks after the moment are used too.

    Returns:
      float64 [468, 3], pixels of the picture; None where no look within `HELD_S` found the face.
    """
    near = [
        look
        for look in looks
        if look.points is not None
        and abs(look.time_s - at_s) <= REACH_S + 0.002  # timestamps are rounded
        and (ahead or look.time_s <= at_s + 1e-6)
    ]
    if not near:
        return None
    off = np.array([look.time_s for look in near]) - at_s
    # Before the first and after the last look of a stretch, the face is where it was then.
    if np.abs(off).min() > HELD_S:
        return None
    weights = np.exp(-0.5 * (off[None] / np.array([[FAST_S], [SLOW_S]])) ** 2) + 1e-12
    weights /= weights.sum(1, keepdims=True)
    points = np.stack([look.points for look in near]).reshape(len(near), -1)
    fast, slow = (weights @ points).reshape(2, *near[0].points.shape)
    apart = ((fast - slow)[:, :2] ** 2).sum(1).mean()
    noise = (STILL * spread(slow)) ** 2
    share = apart / (apart + noise)
    return share * fast + (1 - share) * slow


def spread(points: np.ndarray) -> float:
    """Return the root mean square distance of points [n, 2 or 3] from their middle in the picture, pixels."""
    flat = points[:, :2]
    return float(np.sqrt(((flat - flat.mean(0)) ** 2).sum(1).mean()))


def aligned_region(points: np.ndarray) -> FaceRegion:
    """Return the square in which a face stands upright, centred and always equally large.

    Args:
      points: [468, 2 or 3], pixels.

    Returns:
      The square, `CROP_SIDE` times as wide as the landmarks' spread; all 468 points decide, so that none of
      them can make it tremble.
    """
    x, y = points[:, :2].mean(0)
    across = (points[list(LEFT_POINTS), :2] - points[list(RIGHT_POINTS), :2]).sum(0)
    return FaceRegion(float(x), float(y), CROP_SIDE * spread(points), float(np.arctan2(across[1], across[0])))


def head_pose(points: np.ndarray) -> np.ndarray:
    """Return how a head is turned, from the rotation that lays `TEMPLATE` on it best (Kabsch's).

    Args:
      points: [468, 3], pixels, y down, z to the back.

    Returns:
      float64 [3], degrees: yaw (positive: the face looks to the picture's right), pitch (positive: down),
      roll (positive: clockwise in the picture). Zero for a face that looks into the camera.
    """
    centred = points - points.mean(0)
    left, _, right = np.linalg.svd(TEMPLATE.T @ centred)
    sign = np.sign(np.linalg.det(left @ right))
    rotation = (left * [1, 1, sign]) @ right  # rows: TEMPLATE's axes in the picture
    forward = -rotation[2]  # the nose's way
    yaw = np.arctan2(forward[0], -forward[2])
    pitch = np.arctan2(forward[1], np.hypot(forward[0], forward[2]))
    roll = np.arctan2(rotation[0, 1], rotation[0, 0])
    return np.degrees([yaw, pitch, roll])


def _steady(old: FaceRegion | None, new: FaceRegion) -> FaceRegion:
    """Return the old region as long as the new one is about the same."""
    if old is None:
        return new
    off = max(abs(new.x - old.x), abs(new.y - old.y), abs(new.side - old.side))
    turn = abs((new.angle - old.angle + np.pi) % (2 * np.pi) - np.pi)
    return old if off < REGION_OFF * old.side and turn < REGION_TURN else new


def _overlap_with_last(face: Face, points: np.ndarray) -> float:
    return 0.0 if face.last is None else overlap(box_of(face.last.points), box_of(points))


def _in_view(face: Face) -> bool:
    return bool(face.looks) and face.looks[-1].points is not None


def _placed(box: tuple[float, float, float, float]) -> np.ndarray:
    """Lay the template into a box of the Haar cascade, which marks brows to chin and as much across."""
    left, top, right, bottom = box
    scale = (right - left) / 2 / MARKED
    points = TEMPLATE * scale + [(left + right) / 2, top + MARKED_ABOVE * (bottom - top), 0]
    return points.astype(np.float32)

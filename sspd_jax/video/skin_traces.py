"""One pass over a video, and everything that any method reads of a face is recorded.

Frames are pushed through two stages, each of which holds back what it needs of the future: `FaceAligner` cuts
each frame so that the face stands still in it, `SkinWeigher` weighs the pixels and sums them up. Memory does
not grow with the video, but for the traces: some 600 bytes a frame.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sspd_jax.video import face_track, skin_box, skin_map
from sspd_jax.video.face_detection import FaceBox
from sspd_jax.video.face_mesh import FaceNetworks, FaceRegion
from sspd_jax.video.registration import Registration
from sspd_jax.video.skin_box import SkinBox

LOOK_AHEAD_S = 1.0  # of each of the two stages
MAP_EVERY_S = 0.2
MAP_SMOOTH_S = 1.0  # standard deviation over which a map is averaged
ROUNDING_S = 0.002  # of timestamps: whether a frame is due must not hang on their last digit
LINK_S = 20.0  # time in which what the chained means have drifted returns
COLOUR_EVERY_S = 1.0  # how often pixels are added to what the skin's colour is learned from
COLOUR_LOOKS = 10  # how many times' pixels are kept
MOVED_S = 0.13  # between two crops whose difference tells what moves
SIZES = (64, 96, 128, 160, 192, 256)  # of aligned crops, pixels: the one nearest above the face's own
MAP_SIZE = 96  # at the most: maps are smooth, crops need not be
BEHIND_STEP = 120  # of a picture's rows and columns about that many are looked at
SNAPSHOT_S = 2.0  # after which the first is taken; the next each time the video is twice as long
SNAPSHOT_SIDE = 640  # pixels, at the most
BEHIND_REACH = 1.25  # of an aligned crop's side: what lies outside is behind


FIELDS = {
    "time_s": (),
    "skin": (3,),
    "skin_area": (),
    "patches": (len(skin_map.PATCHES), 3),
    "patch_area": (len(skin_map.PATCHES),),
    "eyes": (3,),
    "crop": (3,),
    "behind": (3,),
    "pose": (3,),
    "geometry": (4,),
    "residual": (4,),
}
"""What `SkinTraces` holds of each frame, and the shape of each; a table of traces has them in this order."""

_ENDS = np.cumsum([math.prod(shape) for shape in FIELDS.values()])
WIDTH = int(_ENDS[-1])
_SLICES = {
    name: slice(int(end) - math.prod(shape), int(end))
    for (name, shape), end in zip(FIELDS.items(), _ENDS, strict=True)
}


@dataclass(frozen=True, eq=False)
class SkinTraces:
    """What was seen of one face, frame by frame; NaN where it was out of view.

    Attributes:
      time_s: float64 [t], of the frames, s.
      skin: float64 [t, 3], mean RGB of the skin, 0 to 255.
      skin_area: float64 [t], how many pixels of the picture that mean weighs.
      patches: float64 [t, p, 3], mean RGB of each of `skin_map.PATCHES`.
      patch_area: float64 [t, p], how many pixels each weighs; 0 where a patch is hidden.
      eyes: float64 [t, 3], mean RGB of eyes and brows: of the face, moved and lit as it is, but not skin.
      crop: float64 [t, 3], mean RGB of the whole aligned crop, hair and wall included.
      behind: float64 [t, 3], mean RGB of what lies around the face.
      pose: float64 [t, 3], yaw, pitch, roll in degrees, see `face_track.head_pose`.
      geometry: float64 [t, 4], the face's x, y and spread in pixels, and its turn in radians.
      residual: float64 [t, 4], how the face moves inside the aligned crop, which follows it smoothly: shift
        in units of its spread along its own axes, growth as a share, turn in radians, see `registration`.
      lag_s: by how much the geometry may lag, s; 0 where frames from after each moment were used.
      said: what there is to tell, (time in s, sentence).
    """

    time_s: np.ndarray
    skin: np.ndarray
    skin_area: np.ndarray
    patches: np.ndarray
    patch_area: np.ndarray
    eyes: np.ndarray
    crop: np.ndarray
    behind: np.ndarray
    pose: np.ndarray
    geometry: np.ndarray
    residual: np.ndarray
    lag_s: float = 0.0
    said: tuple[tuple[float, str], ...] = ()

    @property
    def found(self) -> np.ndarray:
        """Bool [t]: whether the face was in view."""
        return np.isfinite(self.skin[:, 0])

    def between(self, start_s: float, end_s: float) -> SkinTraces:
        """Return the traces of the frames from one moment to another, s."""
        inside = (self.time_s >= start_s) & (self.time_s <= end_s)
        return as_traces(as_table(self)[inside], lag_s=self.lag_s, said=self.said)


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """One face in one frame.

    Attributes:
      time_s: of the frame, s.
      crop: uint8 [size, size, 3] RGB, or None where the face is out of view.
      points: float32 [468, 2], landmarks in pixels of the crop; None in a box, which has none.
      landmarks: float32 [468, 3], the same in pixels of the picture.
      region: what of the picture the crop shows.
      behind: float32 [3], mean RGB of what lies around the face.
      box: what the crop shows, where a person gave it.
    """

    time_s: float
    crop: np.ndarray | None
    points: np.ndarray | None
    landmarks: np.ndarray | None
    region: FaceRegion | None
    behind: np.ndarray
    box: FaceBox | None = None

    def to_picture(self, size: int) -> np.ndarray:
        """Return the matrix, float64 [2, 3], from pixels of the crop drawn at size² to the picture's."""
        if self.box is None:
            return self.region.to_picture(size)
        across, down = self.box.width / size, self.box.height / size
        left, top = self.box.left + (across - 1) / 2, self.box.top + (down - 1) / 2
        return np.array([[across, 0, left], [0, down, top]])


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One frame, and what of it was read: for people to look at.

    Attributes:
      time_s: of the frame, s.
      picture: uint8 [h, w, 3] RGB, `SNAPSHOT_SIDE` pixels at the most.
      skin: float32 [h, w], 0 to 1, where in it the skin is.
    """

    time_s: float
    picture: np.ndarray
    skin: np.ndarray


@dataclass(eq=False)
class _Held:
    """A frame's surroundings of the face, until its place in it is known."""

    time_s: float
    cut: np.ndarray | None
    left: int
    top: int
    shrink: int
    behind: np.ndarray


class FaceAligner:
    """Cuts every frame so that one face stands upright, still and equally large."""

    def __init__(
        self,
        tracker: face_track.MeshTracker,
        *,
        number: int = 0,
        size: int | None = None,
        look_ahead_s: float = LOOK_AHEAD_S,
    ):
        """Begin with no frame.

        Args:
          tracker: looks at the frames.
          number: which of its faces.
          size: of the crops, pixels; by default near the face's own size when it is first seen, out of
            `SIZES`.
          look_ahead_s: how long a frame waits for the looks after it, s; 0 for a live picture.
        """
        self._tracker, self._number = tracker, number
        self._size, self._ahead_s = size, look_ahead_s
        self._held: deque[_Held] = deque()

    @property
    def face(self) -> face_track.Face | None:
        """The face that is cut, None before it came."""
        return next((face for face in self._tracker.faces if face.number == self._number), None)

    def see(self, time_s: float, rgb: np.ndarray) -> Iterator[AlignedFace]:
        """Take the next frame, uint8 [h, w, 3] RGB; yield those that have waited long enough, in order."""
        self._tracker.see(time_s, rgb)
        last = self.face.last if self.face is not None else None
        self._held.append(_hold(time_s, rgb, None if last is None else last.points))
        while self._held and self._held[0].time_s <= time_s - self._ahead_s + ROUNDING_S:
            yield self._cut(self._held.popleft())

    def finish(self) -> Iterator[AlignedFace]:
        """Yield the frames that still wait."""
        while self._held:
            yield self._cut(self._held.popleft())

    def _cut(self, frame: _Held) -> AlignedFace:
        face = self.face
        points = None
        if face is not None and frame.cut is not None:
            points = face_track.smooth_points(face.looks, frame.time_s, ahead=self._ahead_s > 0)
        if points is None:
            return AlignedFace(frame.time_s, None, None, None, None, frame.behind)
        region = face_track.aligned_region(points)
        if self._size is None:
            self._size = next((size for size in SIZES if size >= region.side / frame.shrink), SIZES[-1])
        matrix = region.to_picture(self._size)
        inverse = np.linalg.inv(matrix[:, :2])
        placed = ((points[:, :2] - matrix[:, 2]) @ inverse.T).astype(np.float32)
        matrix[:, 2] = (matrix[:, 2] - [frame.left, frame.top] - (frame.shrink - 1) / 2) / frame.shrink
        matrix[:, :2] /= frame.shrink
        crop = cv2.warpAffine(
            frame.cut,
            matrix,
            (self._size, self._size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return AlignedFace(frame.time_s, crop, placed, points.astype(np.float32), region, frame.behind)


class BoxAligner:
    """Cuts the same box out of every frame: nobody looks for a face, and no frame has to wait.

    What lies outside the box may be skin as well, so that nothing is known to lie behind.
    """

    face = None

    def __init__(self, box: SkinBox):
        """Cut this box."""
        self._box = box

    def see(self, time_s: float, rgb: np.ndarray) -> Iterator[AlignedFace]:
        """Take the next frame, uint8 [h, w, 3] RGB, and yield it."""
        box = self._box.inside(rgb.shape[1], rgb.shape[0])
        side = math.sqrt(box.width * box.height)  # of the square with as many pixels
        size = next((size for size in SIZES if size >= side), SIZES[-1])
        region = FaceRegion((box.left + box.right) / 2, (box.top + box.bottom) / 2, side, 0.0)
        behind = np.full(3, np.nan, np.float32)
        yield AlignedFace(time_s, skin_box.cut(rgb, box, size), None, None, region, behind, box)

    def finish(self) -> Iterator[AlignedFace]:
        """Yield nothing: no frame waits."""
        return iter(())


def _hold(time_s: float, rgb: np.ndarray, points: np.ndarray | None) -> _Held:
    """Keep of a frame the face, averaged down where it is large, and the mean of what lies around it."""
    height, width = rgb.shape[:2]
    step = max(1, min(height, width) // BEHIND_STEP)
    sparse = np.ascontiguousarray(rgb[::step, ::step])
    total = np.array(cv2.sumElems(sparse)[:3])
    if points is None:
        behind = total / (sparse.shape[0] * sparse.shape[1])
        return _Held(time_s, None, 0, 0, 1, behind.astype(np.float32))
    region = face_track.aligned_region(points)
    reach = BEHIND_REACH * region.side / 2
    left, right = (int(np.clip(region.x + k * reach, 0, width)) for k in (-1, 1))
    top, bottom = (int(np.clip(region.y + k * reach, 0, height)) for k in (-1, 1))
    inner = sparse[-(-top // step) : -(-bottom // step), -(-left // step) : -(-right // step)]
    outside = sparse.shape[0] * sparse.shape[1] - inner.shape[0] * inner.shape[1]
    # A face that fills the picture leaves nothing behind it.
    of_face = np.array(cv2.sumElems(inner)[:3] if inner.size else (0.0, 0.0, 0.0))
    behind = (total - of_face) / outside if outside else np.full(3, np.nan)
    shrink = max(1, int(region.side // SIZES[-1]))
    rows, columns = (bottom - top) // shrink, (right - left) // shrink
    if rows < 2 or columns < 2:
        return _Held(time_s, None, 0, 0, 1, behind.astype(np.float32))
    cut = rgb[top : top + rows * shrink, left : left + columns * shrink]
    cut = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA) if shrink > 1 else cut.copy()
    return _Held(time_s, cut, left, top, shrink, behind.astype(np.float32))


class SkinMapper:
    """Learns one face's skin and keeps its map: weights for the crop, a row for the skin and one a patch."""

    def __init__(self, *, look_ahead_s: float = LOOK_AHEAD_S):
        """Begin without any knowledge of the skin."""
        self._ahead_s = look_ahead_s
        self._pixels: deque[np.ndarray] = deque(maxlen=COLOUR_LOOKS)
        self._learned_s = -np.inf
        self._colour: skin_map.SkinColour | None = None
        self._maps: deque[tuple[float, np.ndarray]] = deque()
        self._recent: deque[tuple[float, np.ndarray]] = deque()

    def see(self, face: AlignedFace) -> None:
        """Take the next aligned face; its map is drawn where one is due."""
        if face.crop is None:
            return
        size = min(MAP_SIZE, len(face.crop))
        due = not self._maps or face.time_s - self._maps[-1][0] >= MAP_EVERY_S - 0.002
        before_due = not self._maps or face.time_s - self._maps[-1][0] >= MAP_EVERY_S - MOVED_S - 0.035
        if not (due or before_due):
            return
        rgb = cv2.resize(face.crop, (size, size), interpolation=cv2.INTER_AREA)
        ycc = skin_map.to_ycc(rgb)
        luma = cv2.GaussianBlur(ycc[..., 0], (0, 0), 1.0)
        if due:
            self._maps.append((face.time_s, self._draw(face, rgb, ycc, luma, size)))
            while self._maps[0][0] < face.time_s - 4 * MAP_SMOOTH_S - 2 * self._ahead_s - ROUNDING_S:
                self._maps.popleft()
        self._recent.append((face.time_s, luma))
        while self._recent[0][0] < face.time_s - 2 * MAP_EVERY_S - ROUNDING_S:
            self._recent.popleft()

    def _draw(self, face, rgb, ycc, luma, size) -> np.ndarray:
        scale = size / len(face.crop)
        points = None if face.points is None else (face.points + 0.5) * scale - 0.5
        if face.time_s - self._learned_s >= COLOUR_EVERY_S - ROUNDING_S or self._colour is None:
            pixels = skin_map.box_core(ycc) if points is None else skin_map.core_pixels(ycc, points)
            self._pixels.append(pixels[:: max(1, len(pixels) // 200)])
            self._colour = skin_map.fit_skin(np.concatenate(self._pixels)) or self._colour
            self._learned_s = face.time_s
        skin, parts, eyes = skin_map.box_maps(size) if points is None else skin_map.maps(points, size)
        if self._colour is not None:
            skin = skin * skin_map.skin_likeness(rgb, ycc, self._colour)
        before = next((y for t, y in self._recent if t <= face.time_s - MOVED_S + 0.02), None)
        if before is None and self._recent:
            before = self._recent[0][1]
        moved = np.zeros_like(luma) if before is None else (luma - before) ** 2
        return np.concatenate([skin[None], moved[None], parts, eyes[None]])

    def weights(self, at_s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the weights at a moment.

        Args:
          at_s: the moment, s.

        Returns:
          float32 [3 + p, n], n the map's pixels, each row's sum 1 (or 0 where nothing of it is seen): the
          skin, every patch, the eyes, the whole crop; and float32 [2 + p], how many pixels of the map all but
          the last weigh. None before any face was seen.
        """
        mean = self._mean(at_s)
        if mean is None:
            return None
        skin, patches, eyes = mean[0], mean[2:-1], mean[-1:]
        # What moves is known from all maps held: a weight that changes by itself draws a wave of its own.
        moved = sum(drawn[1] for _, drawn in self._maps) / len(self._maps)
        seen = moved[skin > 0.3]
        usual = float(np.median(seen)) if len(seen) else 0.0
        # Each pixel counts by what it can be trusted: half where it moves as much again as the middle one.
        if usual > 0:
            skin = skin / (1 + moved / usual)
        weights = np.concatenate([skin[None], patches * skin, eyes])
        weights = weights.reshape(len(weights), -1)
        area = weights.sum(1)
        # A patch of less than a hundredth of a pixel is hidden; its mean would be rounding.
        weights = weights / np.where(area > 0.01, area, np.inf)[:, None]
        whole = np.full((1, weights.shape[1]), 1 / weights.shape[1], np.float32)
        return np.concatenate([weights, whole]).astype(np.float32), area

    def skin(self, at_s: float) -> np.ndarray | None:
        """Return where the skin is at a moment, whatever it can be trusted.

        Args:
          at_s: the moment, s.

        Returns:
          float32 [size, size], 0 to 1, over the crop. None before any face was seen.
        """
        return self._mean(at_s, 0)

    def _mean(self, at_s: float, rows: int | slice = slice(None)) -> np.ndarray | None:
        """Average the drawn maps around a moment, float32 [2 + p, size, size] or some rows of it."""
        if not self._maps:
            return None
        off = np.array([time_s for time_s, _ in self._maps]) - at_s
        kernel = np.exp(-0.5 * (off / MAP_SMOOTH_S) ** 2)
        kernel[off > self._ahead_s + 0.01] = 0
        if kernel.sum() < 1e-6:
            return None
        kernel = (kernel / kernel.sum()).astype(np.float32)
        return sum(k * drawn[rows] for k, (_, drawn) in zip(kernel, self._maps, strict=True))


class SkinWeigher:
    """Weighs the pixels of aligned faces and sums them up."""

    def __init__(self, *, look_ahead_s: float = LOOK_AHEAD_S, crop_sizes: Sequence[int] = ()):
        """Begin without a face.

        Args:
          look_ahead_s: how long a face waits for the maps after it, s; 0 for a live picture.
          crop_sizes: sides of pictures of the skin alone that are kept in `crops`, pixels, each in its own.
        """
        self._ahead_s, self._crop_sizes = look_ahead_s, crop_sizes
        self.crops: list[deque[tuple[float, np.ndarray]]] = [deque() for _ in crop_sizes]
        self.mapper = SkinMapper(look_ahead_s=look_ahead_s)
        self._held: deque[AlignedFace] = deque()
        self._weights, self._until_s, self._last_s = None, -np.inf, -np.inf
        self._link = np.ones((3 + len(skin_map.PATCHES), 3), np.float32)
        self._registration = Registration()

    def see(self, face: AlignedFace) -> Iterator[np.ndarray]:
        """Take the next aligned face; yield the rows of `FIELDS` of those that have waited long enough."""
        self.mapper.see(face)
        self._held.append(face)
        while self._held and self._held[0].time_s <= face.time_s - self._ahead_s + ROUNDING_S:
            yield self._weigh(self._held.popleft())

    def finish(self) -> Iterator[np.ndarray]:
        """Yield the rows of the faces that still wait."""
        while self._held:
            yield self._weigh(self._held.popleft())

    def _weigh(self, face: AlignedFace) -> np.ndarray:
        if face.crop is None:
            self._weights, self._until_s = None, -np.inf
            self._registration.forget()
            return _row(face, None, self._link)
        # Where the map changes, so does the mean, though no colour did: each map's means are scaled to go on
        # where the last one's ended, as a price index is chained; what has drifted so returns slowly.
        since_s = min(max(face.time_s - self._last_s, 0), 1)
        self._link = self._link ** np.float32(np.exp(-since_s / LINK_S))
        self._last_s = face.time_s
        if face.time_s >= self._until_s:
            old, self._weights = self._weights, self.mapper.weights(face.time_s)
            self._until_s = face.time_s + MAP_EVERY_S - 0.002
            if old is None or self._weights is None:
                self._link = np.ones_like(self._link)
            else:
                pixels = _on_map(face.crop)
                ratio = (old[0] @ pixels) / np.maximum(self._weights[0] @ pixels, 1e-3)
                # A patch that comes into view has nothing to go on from.
                usable = (ratio > 0.5) & (ratio < 2)
                self._link = np.where(usable, self._link * ratio, 1).astype(np.float32)
        row = _row(face, self._weights, self._link)
        if self._weights is not None:
            size = min(MAP_SIZE, len(face.crop))
            skin = self._weights[0][0].reshape(size, size)
            moved = self._registration.see(face.time_s, face.crop, skin)
            row[_SLICES["residual"]] = moved * [face_track.CROP_SIDE, face_track.CROP_SIDE, 1, 1]
            where = self.mapper.skin(face.time_s) if self._crop_sizes else None
            for crop_size, crops in zip(self._crop_sizes, self.crops, strict=True):
                crops.append((face.time_s, skin_map.skin_only(face.crop, where, crop_size)))
        return row


def _on_map(crop: np.ndarray) -> np.ndarray:
    """Average a crop down to the map's pixels, float32 [n, 3]: every pixel counts, none is rounded."""
    pixels = crop.astype(np.float32)
    if len(crop) > MAP_SIZE:
        pixels = cv2.resize(pixels, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
    return pixels.reshape(-1, 3)


def _row(face: AlignedFace, weights: tuple[np.ndarray, np.ndarray] | None, link: np.ndarray) -> np.ndarray:
    """Lay out one frame as `FIELDS` says, float64 [width]."""
    row = np.full(WIDTH, np.nan)
    row[_SLICES["time_s"]] = face.time_s
    row[_SLICES["behind"]] = face.behind
    row[_SLICES["skin_area"]] = row[_SLICES["patch_area"]] = 0
    if face.crop is None or weights is None:
        return row
    pixels = _on_map(face.crop)
    shares, area = weights
    means = (shares @ pixels) * link
    means[:-1][area <= 0.01] = np.nan
    region = face.region
    area = area * (region.side**2 / len(pixels))  # pixels of the picture, not of the map
    row[_SLICES["skin"]] = means[0]
    row[_SLICES["skin_area"]] = area[0]
    row[_SLICES["patches"]] = means[1:-2].reshape(-1)
    row[_SLICES["patch_area"]] = area[1:-1]
    row[_SLICES["eyes"]] = means[-2]
    row[_SLICES["crop"]] = means[-1]
    # How a head is turned in a box nobody knows: it counts as one that does not turn.
    row[_SLICES["pose"]] = 0 if face.landmarks is None else face_track.head_pose(face.landmarks)
    row[_SLICES["geometry"]] = region.x, region.y, region.side / face_track.CROP_SIDE, region.angle
    return row


class _Album:
    """Takes a frame now and then, and draws the skin into it when it is known where it is."""

    def __init__(self, mapper: SkinMapper):
        self._mapper, self._due_s = mapper, SNAPSHOT_S
        self._taken: tuple[float, np.ndarray, float] | None = None
        self._placed: tuple[float, np.ndarray, np.ndarray] | None = None
        self.snapshot: Snapshot | None = None

    def take(self, time_s: float, rgb: np.ndarray) -> None:
        if time_s < self._due_s or self._taken or self._placed:
            return
        scale = min(1.0, SNAPSHOT_SIDE / max(rgb.shape[:2]))
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        picture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb.copy()
        self._taken = (time_s, picture, size[0] / rgb.shape[1])

    def place(self, face: AlignedFace, rows: list[np.ndarray]) -> None:
        if self._taken and face.time_s >= self._taken[0]:
            time_s, picture, scale = self._taken
            self._taken = None
            if face.crop is None or face.time_s > time_s:
                return  # the face is out of view: the next frame
            size = min(MAP_SIZE, len(face.crop))
            matrix = face.to_picture(size)
            matrix[:, 2] = (matrix[:, 2] + 0.5) * scale - 0.5
            matrix[:, :2] *= scale
            self._placed = (time_s, picture, matrix)
        if self._placed and any(row[0] >= self._placed[0] for row in rows):
            time_s, picture, matrix = self._placed
            self._placed = None
            skin = self._mapper.skin(time_s)
            if skin is not None:
                drawn = cv2.warpAffine(skin, matrix, picture.shape[1::-1], flags=cv2.INTER_LINEAR)
                self.snapshot, self._due_s = Snapshot(time_s, picture, drawn), 2 * time_s


class SkinRecorder:
    """Takes a video frame by frame and records everything of one face."""

    def __init__(
        self,
        networks: FaceNetworks | None,
        *,
        near: tuple[float, float, float, float] | None = None,
        look_ahead_s: float = LOOK_AHEAD_S,
        crop_size: int | Sequence[int] | None = None,
        box: SkinBox | None = None,
        photograph: bool = False,
    ):
        """Begin with no frame.

        Args:
          networks: the face networks, or None for the Haar cascade.
          near: left, top, right, bottom of the face to follow, pixels; by default the largest.
          look_ahead_s: of each of the two stages, s; 0 for a live picture.
          crop_size: side of the pictures of the skin alone that `take_crops` hands out, pixels; or several
            sides, one for each who takes some; by default there are none.
          box: where the skin is; nothing looks for a face then, and there is no tracker.
          photograph: whether to keep one frame, see `snapshot`.
        """
        crop_sizes = [crop_size] if isinstance(crop_size, int) else crop_size or ()
        self.tracker = None
        if box is None:
            keep_s = 2 * face_track.REACH_S + look_ahead_s
            self.tracker = face_track.MeshTracker(networks, near=near, keep_s=keep_s)
            self._aligner = FaceAligner(self.tracker, look_ahead_s=look_ahead_s)
        else:
            self._aligner = BoxAligner(box)
        self._weigher = SkinWeigher(look_ahead_s=look_ahead_s, crop_sizes=crop_sizes)
        self._lag_s = 0.0 if look_ahead_s or box else face_track.LAG_S
        self._rows: deque[np.ndarray] = deque()
        self._album = _Album(self._weigher.mapper) if photograph else None

    @property
    def snapshot(self) -> Snapshot | None:
        """A frame from the video's second half, or near it; None where none was asked for, or was due."""
        return self._album and self._album.snapshot

    @property
    def face(self) -> face_track.Face | None:
        """The face that is recorded, None before it came, and where a box was given."""
        return self._aligner.face

    def see(self, time_s: float, rgb: np.ndarray) -> list[float]:
        """Take the next frame: its time in s, increasing, and uint8 [h, w, 3] RGB.

        Returns:
          Times in s of the frames that are recorded now and in which the face is in view.
        """
        if self._album:
            self._album.take(time_s, rgb)
        rows = self._weigh_all(self._aligner.see(time_s, rgb))
        placed = _SLICES["geometry"].start
        return [float(row[0]) for row in rows if np.isfinite(row[placed])]

    def skin_at(self, at_s: float) -> np.ndarray | None:
        """Return where in the aligned crop the skin is at a moment near the last ones, see `SkinMapper`."""
        return self._weigher.mapper.skin(at_s)

    def watch(self, frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
        """Pass frames on, (time in s, uint8 [h, w, 3] RGB), each recorded before it is passed."""
        for time_s, rgb in frames:
            self.see(time_s, rgb)
            yield time_s, rgb

    def take_crops(self, number: int = 0) -> Iterator[tuple[float, np.ndarray]]:
        """Hand out the pictures of the skin that are ready, see `skin_map.skin_only`, each once.

        Args:
          number: which of the sizes, where there are several.

        Yields:
          (time in s, uint8 [crop_size, crop_size, 3] RGB) of every frame with the face in view, in order.
        """
        crops = self._weigher.crops[number] if self._weigher.crops else ()
        while crops:
            yield crops.popleft()

    def crops_beside(self, frames: Iterable[object], number: int = 0) -> Iterator[tuple[float, np.ndarray]]:
        """Hand out all of them while frames pass that are recorded before they are passed, see `watch`."""
        for _ in frames:
            yield from self.take_crops(number)
        self.finish()
        yield from self.take_crops(number)

    def finish(self) -> SkinTraces:
        """Record the frames that still wait, and return the traces of all, one sample a frame."""
        self._weigh_all(self._aligner.finish())
        self._rows.extend(self._weigher.finish())
        return self.traces()

    def _weigh_all(self, faces: Iterable[AlignedFace]) -> list[np.ndarray]:
        rows = []
        for face in faces:
            new = list(self._weigher.see(face))
            if self._album:
                self._album.place(face, new)
            rows += new
        self._rows.extend(rows)
        return rows

    def traces(self) -> SkinTraces:
        """Return the traces so far; with a look-ahead they end before the last frame."""
        said = tuple(self.tracker.said) if self.tracker else ()
        return as_traces(np.array(self._rows), lag_s=self._lag_s, said=said)

    def take(self) -> np.ndarray:
        """Hand over what is recorded so far, float64 [t, `WIDTH`], and let go of it."""
        rows = np.array(self._rows, np.float64).reshape(-1, WIDTH)
        self._rows.clear()
        return rows

    def forget(self, before_s: float) -> None:
        """Let go of what was recorded before a moment, s."""
        while self._rows and self._rows[0][0] < before_s:
            self._rows.popleft()


def skin_traces(
    frames: Iterable[tuple[float, np.ndarray]],
    networks: FaceNetworks | None,
    *,
    near: tuple[float, float, float, float] | None = None,
    look_ahead_s: float = LOOK_AHEAD_S,
) -> SkinTraces:
    """Record everything of the largest face of a video.

    Args:
      frames: (time in s, uint8 [h, w, 3] RGB) with increasing times.
      networks: the face networks, or None for the Haar cascade.
      near: left, top, right, bottom of the face to follow, pixels; by default the largest.
      look_ahead_s: of each stage, s; 0 for a live picture.

    Returns:
      The traces, one sample a frame.
    """
    recorder = SkinRecorder(networks, near=near, look_ahead_s=look_ahead_s)
    for time_s, rgb in frames:
        recorder.see(time_s, rgb)
    return recorder.finish()


def as_traces(
    table: np.ndarray, *, lag_s: float = 0.0, said: tuple[tuple[float, str], ...] = ()
) -> SkinTraces:
    """Make traces of a table, [t, `WIDTH`], a row a frame laid out as `FIELDS` says."""
    table = np.asarray(table, np.float64).reshape(-1, WIDTH)
    fields = {name: table[:, _SLICES[name]].reshape(-1, *shape) for name, shape in FIELDS.items()}
    return SkinTraces(**fields, lag_s=lag_s, said=said)


def as_table(traces: SkinTraces) -> np.ndarray:
    """Lay traces out as a table, float64 [t, `WIDTH`]: what `as_traces` takes."""
    rows = len(traces.time_s)
    columns = [getattr(traces, name).reshape(rows, math.prod(shape)) for name, shape in FIELDS.items()]
    return np.concatenate(columns, axis=1)

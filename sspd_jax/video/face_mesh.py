"""Find faces and their 468 landmarks: MediaPipe's BlazeFace and face mesh, run by OpenCV itself.

OpenCV reads the TensorFlow Lite files itself; its outputs equal those of Google's interpreter to 2e-4 of a
unit that is a pixel of the network's input.

References:
  Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", arXiv 1907.05047;
  Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", arXiv 1907.06724.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.video.models import FaceModelError, load_model

LANDMARKS = 468
LEAST_SCORE = 0.5  # of a detection, MediaPipe's own; the full-range network is asked for more, it errs more
LEAST_SCORE_FULL = 0.6
LEAST_PRESENCE = 0.5  # that a region holds a face, as the mesh says
SAME_FACE = 0.3  # overlap from which detections are one face, MediaPipe's own
REGION_SCALE = 1.5  # of a face's box, MediaPipe's own
LEAST_SIDE = 24  # pixels of a region: below it there is no face to be read
RIGHT_EYE, LEFT_EYE = 33, 263  # outer corners in the mesh; left and right are the person's


@dataclass(frozen=True)
class FaceRegion:
    """A square of the picture, turned with the face.

    Attributes:
      x: of the centre, pixels from the left edge.
      y: of the centre, pixels from the upper edge.
      side: length of a side, pixels.
      angle: by which the square is turned clockwise in the picture, radians.
    """

    x: float
    y: float
    side: float
    angle: float

    def to_picture(self, size: int) -> np.ndarray:
        """Return the matrix, float64 [2, 3], from pixels of the square drawn at size² to the picture's."""
        scale = self.side / size
        c, s = scale * np.cos(self.angle), scale * np.sin(self.angle)
        middle = (size - 1) / 2
        return np.array([[c, -s, self.x - middle * (c - s)], [s, c, self.y - middle * (c + s)]])


@dataclass(frozen=True)
class FaceFound:
    """One detected face.

    Attributes:
      box: left, top, right, bottom in pixels, brows to chin about; may lie partly outside the picture.
      region: where the mesh is to look.
      score: certainty, 0 to 1.
    """

    box: tuple[float, float, float, float]
    region: FaceRegion
    score: float


@dataclass(frozen=True, eq=False)
class Mesh:
    """The landmarks of one face in one frame.

    Attributes:
      points: float32 [468, 3]: x and y in pixels of the picture, z (towards the back) in the same unit.
      presence: certainty that there is a face, 0 to 1.
    """

    points: np.ndarray
    presence: float

    @property
    def region(self) -> FaceRegion:
        """Where to look for this face in the next frame."""
        return region_of(self.points)


class FaceNetworks:
    """The three networks in memory. Not to be shared between threads: OpenCV's networks hold their inputs."""

    def __init__(self, folder: Path | None = None):
        """Load the models.

        Args:
          folder: where the model files lie; by default inside the package.

        Raises:
          FaceModelError: a file is missing, damaged or of another version, or this OpenCV cannot run it.
        """
        self._short = _network("face_detection_short_range.tflite", folder)
        self._full = _network("face_detection_full_range.tflite", folder)
        self._mesh = _network("face_landmark.tflite", folder)

    def detect(self, rgb: np.ndarray, *, thorough: bool = False) -> list[FaceFound]:
        """Find every face of a picture.

        Args:
          rgb: uint8 [h, w, 3].
          thorough: whether to look for small faces too although large ones were found. Where none was found,
            small ones are always looked for.

        Returns:
          The faces, the widest first; empty for a picture that holds none or is smaller than a face can be.
        """
        if min(rgb.shape[:2]) < LEAST_SIDE:
            return []
        found = _detect(self._short, rgb, 128, _SHORT_ANCHORS, LEAST_SCORE)
        if thorough or not found:
            found = _merge(found + _detect(self._full, rgb, 192, _FULL_ANCHORS, LEAST_SCORE_FULL))
        return sorted(found, key=lambda face: face.box[0] - face.box[2])

    def landmarks(self, rgb: np.ndarray, region: FaceRegion) -> Mesh | None:
        """Find the landmarks of the face in a region.

        Args:
          rgb: uint8 [h, w, 3].
          region: a detection's, or the last frame's mesh's.

        Returns:
          The mesh, or None where there is no face in the region.
        """
        height, width = rgb.shape[:2]
        inside = -0.25 * region.side < region.x < width + 0.25 * region.side
        inside &= -0.25 * region.side < region.y < height + 0.25 * region.side
        if not inside or region.side < LEAST_SIDE:
            return None
        size = 192
        patch = warp_region(rgb, region, size)
        blob = np.ascontiguousarray(patch.transpose(2, 0, 1)[None], np.float32)
        blob *= 1 / 255
        self._mesh.setInput(blob)
        raw, score = self._mesh.forward(("conv2d_20", "conv2d_30"))
        presence = float(_sigmoid(score.ravel()[-1]))
        if presence < LEAST_PRESENCE:
            return None
        # The networks count from pixels' edges, the picture's coordinates from pixels' centres.
        points = raw.reshape(LANDMARKS, 3).astype(np.float64) - [0.5, 0.5, 0]
        matrix = region.to_picture(size)
        points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        points[:, 2] *= region.side / size
        return Mesh(points.astype(np.float32), presence)


def load_networks(folder: Path | None = None) -> tuple[FaceNetworks | None, str]:
    """Load the face networks, or say why faces are found by the Haar cascade instead.

    Args:
      folder: where the model files lie; by default inside the package.

    Returns:
      The networks and an empty sentence; or None, which `face_track.MeshTracker` takes for the cascade, and
      the sentence to show.
    """
    try:
        return FaceNetworks(folder), ""
    except FaceModelError as error:
        return None, str(error)


def warp_region(rgb: np.ndarray, region: FaceRegion, size: int) -> np.ndarray:
    """Draw a region upright, uint8 [size, size, 3]; outside the picture it is black.

    A region of more than twice the size is averaged down first, so that no pixel of it is skipped.
    """
    matrix = region.to_picture(size)
    shrink = int(region.side / size)
    if shrink >= 2:
        height, width = rgb.shape[:2]
        reach = region.side * 0.75
        left, right = (int(np.clip(region.x + k * reach, 0, width)) for k in (-1, 1))
        top, bottom = (int(np.clip(region.y + k * reach, 0, height)) for k in (-1, 1))
        columns, rows = (right - left) // shrink, (bottom - top) // shrink
        if columns > 0 and rows > 0:
            rgb = rgb[top : top + rows * shrink, left : left + columns * shrink]
            rgb = cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_AREA)
            matrix[:, 2] = (matrix[:, 2] - [left, top] - (shrink - 1) / 2) / shrink
            matrix[:, :2] /= shrink
    return cv2.warpAffine(rgb, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def region_of(points: np.ndarray) -> FaceRegion:
    """Return the region around landmarks [468, 2 or 3], turned so that the eyes lie level."""
    across = points[LEFT_EYE, :2] - points[RIGHT_EYE, :2]
    angle = float(np.arctan2(across[1], across[0]))
    c, s = np.cos(angle), np.sin(angle)
    turned = points[:, :2] @ np.array([[c, -s], [s, c]])
    low, high = turned.min(0), turned.max(0)
    x, y = np.array([[c, -s], [s, c]]) @ ((low + high) / 2)
    return FaceRegion(float(x), float(y), float(REGION_SCALE * (high - low).max()), angle)


def _network(name: str, folder: Path | None) -> cv2.dnn.Net:
    data = load_model(name, folder)
    try:
        return cv2.dnn.readNetFromTFLite(np.frombuffer(data, np.uint8))
    except (cv2.error, AttributeError) as error:
        raise FaceModelError(
            f"{name}: OpenCV {cv2.__version__} cannot run this face model; install opencv-python-headless "
            "4.10 or newer, or go on with the Haar cascade, which knows no landmarks"
        ) from error


def _anchors(size: int, strides: dict[int, int]) -> np.ndarray:
    """Lay an SSD's anchors, float32 [n, 2] as shares of the input: {stride: anchors at each place}."""
    grids = []
    for stride, repeats in strides.items():
        cells = size // stride
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells
        grids.append(np.repeat(centres, repeats, 0))
    return np.concatenate(grids).astype(np.float32)


_SHORT_ANCHORS = _anchors(128, {8: 2, 16: 6})
_FULL_ANCHORS = _anchors(192, {4: 1})


def _detect(network, rgb: np.ndarray, size: int, anchors: np.ndarray, least_score: float) -> list[FaceFound]:
    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    small = cv2.resize(
        rgb,
        (max(1, round(width * scale)), max(1, round(height * scale))),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    # Beside the picture lies black, as where the networks learned.
    blob = np.full((1, 3, size, size), -1, np.float32)
    left, top = (size - small.shape[1]) // 2, (size - small.shape[0]) // 2
    blob[0, :, top : top + small.shape[0], left : left + small.shape[1]] = (
        small.transpose(2, 0, 1) * np.float32(2 / 255) - 1
    )
    network.setInput(blob)
    outputs = network.forward(network.getUnconnectedOutLayersNames())
    raw = next(o for o in outputs if o.shape[-1] == 16)[0]
    score = _sigmoid(next(o for o in outputs if o.shape[-1] == 1).ravel())
    kept = score > least_score
    if not kept.any():
        return []
    raw, score = raw[kept].reshape(-1, 8, 2) / size, score[kept]
    raw[:, [0, 2, 3, 4, 5, 6, 7]] += anchors[kept, None]
    raw[:, [0, 2, 3, 4, 5, 6, 7]] = (raw[:, [0, 2, 3, 4, 5, 6, 7]] * size - [left, top]) / scale
    raw[:, 1] *= size / scale
    faces = []
    order = np.argsort(-score)
    for certainty, (centre, extent, *keys) in zip(score[order], raw[order], strict=True):
        across = keys[1] - keys[0]
        box = (*(centre - extent / 2), *(centre + extent / 2))
        region = FaceRegion(
            float(centre[0]),
            float(centre[1]),
            float(REGION_SCALE * extent.max()),
            float(np.arctan2(across[1], across[0])),
        )
        faces.append(FaceFound(tuple(map(float, box)), region, float(certainty)))
    return _merge(faces)


def _merge(faces: list[FaceFound]) -> list[FaceFound]:
    """Keep the surest of those that overlap."""
    kept: list[FaceFound] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(overlap(face.box, other.box) < SAME_FACE for other in kept):
            kept.append(face)
    return kept


def overlap(one: tuple, other: tuple) -> float:
    """Return the area that two boxes (left, top, right, bottom) share, as a share of what both cover."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return across * down / (areas - across * down)


def _sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))

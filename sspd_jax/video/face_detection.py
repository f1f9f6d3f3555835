"""Find the face: OpenCV's Haar cascade, which comes with the library and needs no download, or YuNet.

YuNet, a small network, needs its model file (`face_detection_yunet_2023mar.onnx` of OpenCV's model zoo),
which is not shipped here.

References:
  Wu, Peng & Yu, "YuNet: A Tiny Millisecond-level Face Detector", Mach. Intell. Res. 20 (2023), 656–665.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from sspd_jax.errors import ConfigError

# Of OpenCV's frontal cascades the one that saw no face in noise, textures and black pictures.
CASCADE = "haarcascade_frontalface_alt.xml"
LONG_SIDE = 480  # pixels of the picture that is searched
SMALLEST = 0.1  # of the long side: a smaller face has too few pixels to read a pulse from
SCALE_STEP = 1.15
NEIGHBOURS = 5
ALIKE = 0.8  # faces of at least this share of the widest one count as equally large

MARGIN = 1 / 3
LEAST_MARGIN = 40  # pixels
TOP_MARGIN = 1.4  # of the margin at the bottom: the forehead lies above what a detector marks


@dataclass(frozen=True)
class FaceBox:
    """A box in pixels of the picture: columns left … right − 1, rows top … bottom − 1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns, pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows, pixels."""
        return self.bottom - self.top


class FaceDetector(Protocol):
    """Whatever finds faces in a picture."""

    def detect_all(self, rgb: np.ndarray) -> list[FaceBox]:
        """Find every face.

        Args:
          rgb: The picture, uint8 [h, w, 3].

        Returns:
          Boxes from the brows to the chin, about: the largest first, and of those about as large as the
          largest the one nearest to the picture's centre.
        """

    def detect(self, rgb: np.ndarray) -> FaceBox | None:
        """Find the face to follow: the first of `detect_all`, or None."""
        return next(iter(self.detect_all(rgb)), None)


class HaarDetector(FaceDetector):
    """Finds a frontal face, upright within some ten degrees, at least a tenth as wide as the picture."""

    def __init__(self):
        self._cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / CASCADE))

    def detect_all(self, rgb: np.ndarray) -> list[FaceBox]:
        """Find every face, see `FaceDetector`."""
        height, width = rgb.shape[:2]
        scale = min(1.0, LONG_SIDE / max(height, width))
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        # The cascade skips dim regions outright; equalised, a face in the dark is found as well.
        grey = cv2.equalizeHist(grey)
        smallest = max(1, round(SMALLEST * max(grey.shape)))
        found = self._cascade.detectMultiScale(
            grey, scaleFactor=SCALE_STEP, minNeighbors=NEIGHBOURS, minSize=(smallest, smallest)
        )
        if len(found) == 0:
            return []
        return _in_order(np.asarray(found) / scale, width, height)


def _in_order(found: np.ndarray, width: int, height: int) -> list[FaceBox]:
    """Make boxes of [n, (left, top, width, height)], in the order of `FaceDetector.detect_all`."""
    centre = np.array([width, height]) / 2
    distance = np.hypot(*(found[:, :2] + found[:, 2:] / 2 - centre).T)
    small = found[:, 2] < ALIKE * found[:, 2].max()
    order = np.lexsort((np.where(small, -found[:, 2], distance), small))
    return [
        FaceBox(
            max(0, round(left)),
            max(0, round(top)),
            min(width, round(left + box_width)),
            min(height, round(top + box_height)),
        )
        for left, top, box_width, box_height in found[order]
    ]


class YuNetDetector(FaceDetector):
    """Finds faces by OpenCV's YuNet, whose model file the user gives."""

    def __init__(self, model: str | Path):
        """Load the model.

        Args:
          model: Path of the .onnx file.

        Raises:
          ConfigError: There is no such file, or it is not YuNet's.
        """
        if not Path(model).is_file():
            raise ConfigError(
                f"{model or 'YuNet'}: no such model file; download face_detection_yunet_2023mar.onnx from "
                "OpenCV's model zoo and name it, or use the detector haar"
            )
        try:
            self._network = cv2.FaceDetectorYN.create(str(model), "", (LONG_SIDE, LONG_SIDE))
        except cv2.error as error:
            raise ConfigError(
                f"{model}: is no YuNet model; download it again, or use the detector haar"
            ) from error

    def detect_all(self, rgb: np.ndarray) -> list[FaceBox]:
        """Find every face, see `FaceDetector`."""
        height, width = rgb.shape[:2]
        scale = min(1.0, LONG_SIDE / max(height, width))
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if scale < 1:
            bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._network.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, found = self._network.detect(bgr)
        if found is None:
            return []
        found = found[found[:, 2] >= SMALLEST * max(bgr.shape[:2]), :4]
        return _in_order(found / scale, width, height) if len(found) else []


DETECTORS = ("haar", "yunet")


def make_detector(kind: str = "haar", model: str | Path = "") -> FaceDetector:
    """Make a face detector.

    Args:
      kind: A name in `DETECTORS`.
      model: Path of YuNet's model file; the cascade needs none.

    Raises:
      ConfigError: An unknown kind, or no model file.
    """
    if kind not in DETECTORS:
        raise ConfigError(f"face detector {kind!r} is none of {', '.join(DETECTORS)}")
    return HaarDetector() if kind == "haar" else YuNetDetector(model)


def overlap(one: FaceBox, other: FaceBox) -> float:
    """Return the area that two boxes share, as a share of what they cover together."""
    across = min(one.right, other.right) - max(one.left, other.left)
    down = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(0, across) * max(0, down)
    return shared / (one.width * one.height + other.width * other.height - shared)


def widen(box: FaceBox, width: int, height: int) -> FaceBox:
    """Widen a face box to the whole head, as the reference implementation does.

    By a third of the box's width on the left and right, a third of its height at the bottom and 1.4 times
    that at the top (each third at least 40 pixels), clipped to the picture.

    Args:
      box: The face as a detector marks it.
      width: Width of the picture in pixels.
      height: Height of the picture in pixels.

    Returns:
      The wider box, inside the picture.
    """
    across = max(LEAST_MARGIN, round(MARGIN * box.width))
    down = max(LEAST_MARGIN, round(MARGIN * box.height))
    return FaceBox(
        max(0, box.left - across),
        max(0, box.top - round(TOP_MARGIN * down)),
        min(width, box.right + across),
        min(height, box.bottom + down),
    )

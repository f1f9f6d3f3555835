"""Cut the face out of a frame."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from sspd_jax.video.face_detection import FaceBox

Resize = Literal["linear", "area"]
BOX, SKIN = FACE_CROPS = ("box", "skin")
"""What crops show: the face in its box, or its skin alone, see `skin_map.skin_only`."""
INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


def crop(rgb: np.ndarray, box: FaceBox, size: int, resize: Resize = "linear") -> np.ndarray:
    """Cut a box out of a picture and scale it to a square; its sides are scaled each on its own.

    Args:
      rgb: uint8 [h, w, 3].
      box: inside the picture.
      size: side of the result, pixels.
      resize: 'linear' is bilinear without anti-aliasing, as the reference implementation stores its crops;
        'area' averages all pixels, which leaves less noise of a large face.

    Returns:
      uint8 [size, size, 3].
    """
    face = rgb[box.top : box.bottom, box.left : box.right]
    return cv2.resize(face, (size, size), interpolation=INTERPOLATION[resize])

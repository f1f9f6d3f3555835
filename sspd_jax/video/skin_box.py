"""A box in which a person says that there is skin: it is read as it is, and nothing looks for a face.

It is for pictures in which no detector finds the face: cut close by another tool, masked, turned away. The
box holds still; what moves inside it is measured by `registration`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.video.face_detection import FaceBox

WHOLE = "picture"
LEAST_SIDE = 8  # pixels: below it there is no mean to speak of
FORM = f"give LEFT,TOP,WIDTH,HEIGHT in pixels, such as 200,80,160,200, or {WHOLE}"
NOTE = "only the box that was given is read, as skin by its colour: no landmarks, eyes or brows are known"


@dataclasses.dataclass(frozen=True)
class SkinBox:
    """Where the skin is, in the upright picture.

    Attributes:
      box: left, top, width, height in pixels; None for the whole picture.
    """

    box: tuple[int, int, int, int] | None = None

    @classmethod
    def of(cls, given: SkinBox | str | Sequence[int]) -> SkinBox:
        """Make a box of what a person gives.

        Args:
          given: 'picture', four whole numbers, or a text of them, parted by commas.

        Raises:
          ConfigError: it is none of these, or has no area.

        Example:
          >>> SkinBox.of("200, 80, 160, 200").box
          (200, 80, 160, 200)
        """
        if isinstance(given, SkinBox):
            return given
        if isinstance(given, str):
            if given.strip() == WHOLE:
                return cls()
            numbers = given.split(",")
            valid = all(re.fullmatch(r"\s*-?\d+\s*", number, re.ASCII) for number in numbers)
        else:
            numbers = list(given)
            valid = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in numbers)
        if not valid or len(numbers) != 4:
            text = given if isinstance(given, str) else ",".join(map(str, numbers))
            raise ConfigError(f"box {text!r} is not a box; {FORM}")
        left, top, width, height = map(int, numbers)
        if min(width, height) < LEAST_SIDE:
            raise ConfigError(
                f"box {left},{top},{width},{height}: {width} × {height} pixels hold too little skin to be "
                f"read; give {LEAST_SIDE} × {LEAST_SIDE} or more"
            )
        return cls((left, top, width, height))

    def inside(self, width: int, height: int) -> FaceBox:
        """Place it in a picture.

        Args:
          width: of the picture, pixels.
          height: likewise.

        Raises:
          ConfigError: it is not inside the picture.
        """
        if self.box is None:
            return FaceBox(0, 0, width, height)
        left, top, across, down = self.box
        if left < 0 or top < 0 or left + across > width or top + down > height:
            raise ConfigError(
                f"box {left},{top},{across},{down} is not inside the picture, which is {width} × {height} "
                f"pixels; give a smaller one, or {WHOLE}"
            )
        return FaceBox(left, top, left + across, top + down)


def cut(rgb: np.ndarray, box: FaceBox, size: int) -> np.ndarray:
    """Cut a box out of a picture and draw it as a square, every pixel counted.

    Args:
      rgb: uint8 [h, w, 3].
      box: inside it.
      size: side of the square, pixels.

    Returns:
      uint8 [size, size, 3].
    """
    part = rgb[box.top : box.bottom, box.left : box.right]
    shrinks = min(part.shape[:2]) > size
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def grid(size: int) -> Iterator[tuple[slice, slice]]:
    """Part a square box as `skin_map.PATCHES` part a face: 13 cells, in their order.

    Three columns of four, five and four cells; the picture's left stands for the person's right, as `SIDES`
    of the evidence has it.

    Args:
      size: side of the square, pixels.

    Yields:
      Rows and columns of each cell.
    """
    edges = [round(size * k / 3) for k in range(4)]
    columns = {side: slice(edges[k], edges[k + 1]) for k, side in enumerate("rcl")}
    taken = dict.fromkeys("rcl", 0)
    for side in "rclccrlrlrlcc":
        cells = 5 if side == "c" else 4
        row = taken[side]
        taken[side] += 1
        yield slice(round(size * row / cells), round(size * (row + 1) / cells)), columns[side]

"""Which point of a mesh each pixel shows: triangles drawn from the farthest to the nearest."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What the pixels of a picture show of a mesh.

    Attributes:
      pixels: Places in the flattened picture, int64 [n], increasing.
      triangle: The triangle that each shows, int32 [n].
      second: Weight of the triangle's second corner, float32 [n].
      third: Weight of its third corner, float32 [n].
    """

    pixels: np.ndarray
    triangle: np.ndarray
    second: np.ndarray
    third: np.ndarray

    def of(self, values: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """Interpolate what is known at the corners.

        Args:
          values: float32 [c, k], contiguous.
          triangles: Corners of each triangle, int [t, 3].

        Returns:
          float32 [n, k], one row a pixel.
        """
        first = values[triangles[:, 0]]
        to_second, to_third = values[triangles[:, 1]] - first, values[triangles[:, 2]] - first
        at = first.take(self.triangle, axis=0)
        for way, weight in ((to_second, self.second), (to_third, self.third)):
            way = way.take(self.triangle, axis=0)
            way *= weight[:, None]
            at += way
        return at


def rasterise(points: np.ndarray, triangles: np.ndarray, size: tuple[int, int]) -> Seen:
    """Draw triangles.

    Triangles that show their back are left out. Of two that cover a pixel the one whose middle is nearer is
    seen, which is right where triangles are small and do not run through each other.

    Args:
      points: Column, row and distance from the camera of each corner, float32 [c, 3].
      triangles: Corners of each triangle, counter-clockwise for who looks at its front, int [t, 3].
      size: Width and height of the picture, pixels.

    Returns:
      What is seen; pixels without a triangle are left out.
    """
    width, height = size
    x, y, z = np.ascontiguousarray(points.T, np.float32)
    ax, bx, cx = (x.take(corner) for corner in triangles.T)
    ay, by, cy = (y.take(corner) for corner in triangles.T)
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)  # negative in front: rows go down
    top = np.maximum(np.ceil(np.minimum(np.minimum(ay, by), cy)), 0).astype(np.int32)
    bottom = np.minimum(np.floor(np.maximum(np.maximum(ay, by), cy)), height - 1).astype(np.int32)
    aside = (np.maximum(np.maximum(ax, bx), cx) < 0) | (np.minimum(np.minimum(ax, bx), cx) > width - 1)
    drawn = np.flatnonzero((area < -1e-6) & (bottom >= top) & ~aside)
    drawn = drawn[np.argsort(-z[triangles[drawn]].sum(1), kind="stable")]
    ax, ay, bx, by, cx, cy, area, top = (v[drawn] for v in (ax, ay, bx, by, cx, cy, area, top))
    # The weights of the second and third corner: linear in column and row.
    second_x, second_y = (cy - ay) / area, -(cx - ax) / area
    third_x, third_y = -(by - ay) / area, (bx - ax) / area
    # One line for each row of each triangle, and on it the columns where no weight is negative.
    which, row = _counted(bottom[drawn] - top + 1)
    row += top[which]
    down = row - ay[which]
    step = np.stack([second_x, third_x, -second_x - third_x])[:, which]
    at_corner = np.stack([second_y[which] * down, third_y[which] * down])
    at_corner = np.concatenate(
        [at_corner, 1 - at_corner.sum(0, keepdims=True)]
    )  # at the first corner's column
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = -at_corner / step
    begin = np.where(step > 0, zero, -np.inf).max(0)
    end = np.where(step < 0, zero, np.inf).min(0)
    never = ((step == 0) & (at_corner < 0)).any(0)
    first_x = ax[which]
    begin = np.ceil(np.clip(begin + first_x, 0, width)).astype(np.int32)
    end = np.floor(np.clip(end + first_x, -1, width - 1)).astype(np.int32)
    lines, column = _counted(np.where(never, 0, np.maximum(end - begin + 1, 0)))
    column += begin.take(lines)
    pixel = (row * width).take(lines) + column
    shown = np.full(width * height, -1, np.int32)
    shown[pixel] = np.arange(len(pixel), dtype=np.int32)  # the last, the nearest, stays
    pixels = np.flatnonzero(shown >= 0)
    last = shown.take(pixels)
    lines, column = lines.take(last), column.take(last)
    across = column - first_x.take(lines)
    return Seen(
        pixels,
        drawn.astype(np.int32).take(which).take(lines),
        at_corner[0].take(lines) + step[0].take(lines) * across,
        at_corner[1].take(lines) + step[1].take(lines) * across,
    )


def _counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for counts such as 2, 1, the numbers 0, 0, 1 and, within each, 0, 1, 0; int32."""
    which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    before = (np.cumsum(counts) - counts).astype(np.int32)
    return which, np.arange(len(which), dtype=np.int32) - before.take(which)

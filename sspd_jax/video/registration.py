"""How a face moves inside a crop that follows it: shift, size and turn, to a hundredth of a pixel.

A picture that has moved by little differs from where it was by its own gradient times the motion. Shift,
zoom, turn and a change of light are the least-squares solution of that, all pixels of the face together.

References:
  Lucas & Kanade, "An iterative image registration technique", IJCAI 1981, 674–679.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 48  # pixels of the luma that is compared
BLUR = 1.2  # pixels: gradients of a blurred picture hold for motions of a pixel and more
FOLLOW_S = 1.0  # time constant with which the picture that is compared with follows
REFRESH_S = 0.2
RIDGE = 1e-3  # of the mean diagonal: what a face without texture cannot tell stays 0


class Registration:
    """Compares every crop of a face with the mean of those before it."""

    def __init__(self):
        """Begin without a picture."""
        self._mean: np.ndarray | None = None
        self._solve: np.ndarray | None = None
        self._mask: np.ndarray | None = None
        self._solved_s = self._last_s = -np.inf

    def forget(self) -> None:
        """Begin anew: the face was out of view."""
        self.__init__()

    def see(self, time_s: float, crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Compare the next crop.

        Args:
          time_s: its time, s.
          crop: uint8 [size, size, 3] RGB.
          mask: float32 [n, n], how much each part of the crop belongs to the face, any n.

        Returns:
          float64 [4]: shift to the right and down as shares of the crop's side, growth as a share of the
          face's size, and turn in radians, clockwise, since the mean of the last second. Zero for the first.
        """
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
        luma = cv2.GaussianBlur(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), (0, 0), BLUR)
        if self._mean is None:
            self._mean, self._last_s = luma, time_s
            return np.zeros(4)
        if time_s - self._solved_s >= REFRESH_S - 0.002:
            self._mask = cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(-1)
            self._solve = _solver(self._mean, self._mask)
            self._solved_s = time_s
        moved = self._solve @ (luma - self._mean).reshape(-1)
        keep = np.float32(np.exp(-(time_s - self._last_s) / FOLLOW_S))
        self._mean, self._last_s = keep * self._mean + (1 - keep) * luma, time_s
        return np.array([moved[0] / SIDE, moved[1] / SIDE, moved[2], moved[3]], np.float64)


def _solver(luma: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return what takes a difference of pictures to shift, growth, turn, gain and offset, [6, n]."""
    across = cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=1 / 8)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2
    # A picture that moves by d shows at x what was at x − d.
    growth, turn = -(x * across + y * down), y * across - x * down
    columns = (
        np.stack([-across, -down, growth, turn, luma, np.ones_like(luma)]).reshape(6, -1).astype(np.float64)
    )
    weighted = columns * weight
    normal = weighted @ columns.T
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-12))
    normal = normal / np.outer(scale, scale) + RIDGE * np.eye(6)
    return np.linalg.solve(normal, weighted / scale[:, None]) / scale[:, None]

"""The mean colours of the cells of a face, frame by frame: what the evidence for a rate is taken from.

They are taken as they are and, for a network that is given a video without light (see
`method.input_transform`), without the light, too: such a network can be right where a lamp rules the colours
of the face, which would then speak against it. Where there is no such lamp the colours as they are have less
noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sspd_jax.heart_rate import signal_quality

if TYPE_CHECKING:
    import jax

_SIDE = 32  # pixels: the light is smooth, the means of cells need no more
_DARKEST = 1.0  # grey level: what is darker has no colour to change
_WIDTH = 3 * signal_quality.GRID**2


PLAIN = "difference"
"""What every method but a network of its own is given of a video."""


def mean_of_cells(crop: np.ndarray) -> np.ndarray:
    """Average a crop in 4 × 4 cells: uint8 or float32 [s, s, 3] → float32 [4, 4, 3]."""
    size = (signal_quality.GRID, signal_quality.GRID)
    return cv2.resize(crop.astype(np.float32, copy=False), size, interpolation=cv2.INTER_AREA)


class FaceCells:
    """Measures the colours of the cells of one unbroken segment of face crops.

    Attributes:
      width: How many numbers a frame has.
    """

    def __init__(self, transform: str = PLAIN):
        """Begin a segment.

        Args:
          transform: What the method is given of the video, a name in `input_transform.INPUT_TRANSFORMS`.
        """
        self._is_steady = transform != PLAIN and _takes_light_out(transform)
        self._last: np.ndarray | None = None
        self._course = np.zeros((signal_quality.GRID, signal_quality.GRID, 3))
        self.width = 2 * _WIDTH if self._is_steady else _WIDTH

    def measure(self, crop: np.ndarray) -> np.ndarray:
        """Measure the next crop.

        Args:
          crop: A crop of the face, uint8 or float32 [s, s, 3] RGB.

        Returns:
          float32 [width], for `cell_traces`.
        """
        means = mean_of_cells(crop)
        if not self._is_steady:
            return means.ravel()
        small = cv2.resize(crop.astype(np.float32, copy=False), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        if self._last is not None:
            self._course += np.asarray(_steady_step()(self._last, small), np.float64)
        self._last = small
        return np.concatenate([means.ravel(), self._course.ravel()]).astype(np.float32)


def cell_traces(measured: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the colours of the cells in a window.

    Args:
      measured: What `FaceCells` measured of its frames, [t, width].

    Returns:
      float [t, 16, 3] each, grey levels: as they were filmed and, where the light is taken out as well, the
      mean of that times what else changed it.
    """
    filmed = measured[:, :_WIDTH].reshape(len(measured), signal_quality.GRID**2, 3)
    if measured.shape[1] == _WIDTH:
        return (filmed,)
    course = measured[:, _WIDTH:].reshape(filmed.shape).astype(np.float64)
    mean = filmed.mean(axis=0, dtype=np.float64) if len(filmed) else 0.0
    return filmed, mean * np.exp(course - (course.mean(axis=0) if len(filmed) else 0.0))


def _takes_light_out(transform: str) -> bool:
    from sspd_jax.method import input_transform  # JAX takes a second to import

    return input_transform.without_light in input_transform.INPUT_TRANSFORMS[transform]


@functools.cache
def _steady_step() -> Callable[[np.ndarray, np.ndarray], jax.Array]:
    """How much a frame's cells changed since the one before, relative, without the light: [4, 4, 3]."""
    import jax
    import jax.numpy as jnp

    from sspd_jax.method import input_transform

    def means(frame: jax.Array) -> jax.Array:
        part = _SIDE // signal_quality.GRID
        return frame.reshape(signal_quality.GRID, part, signal_quality.GRID, part, 3).mean(axis=(1, 3))

    @jax.jit
    def step(before: jax.Array, after: jax.Array) -> jax.Array:
        mean = (before + after) / 2
        change = input_transform.without_light((after - before)[None], mean[None])[0]
        return means(change) / jnp.maximum(means(mean), _DARKEST)

    return step

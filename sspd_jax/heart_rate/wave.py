"""The contract of every method, learned or classical: what it returns is a `Wave`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

DRIFT_S = 1.5  # what changes more slowly is no beat

LEAST_S = 4.0
"""Shorter waves hold too few beats: at 45 bpm, three."""


@dataclass(frozen=True, eq=False)
class Wave:
    """A pulse wave on a uniform clock.

    Attributes:
      values: float32 or float64 [t], arbitrary unit.
      fps: samples per second, Hz.
      start_s: time of the first sample on the recording's clock, s.
    """

    values: np.ndarray
    fps: float
    start_s: float = 0.0

    def __post_init__(self):
        if self.values.ndim != 1:
            raise ValueError(f"a wave is one-dimensional, got the shape {self.values.shape}")
        if not self.fps > 0:
            raise ValueError(f"fps must be above 0 Hz, got {self.fps}")

    @property
    def times_s(self) -> np.ndarray:
        """Time of every sample, float64 [t], s."""
        return self.start_s + np.arange(len(self.values)) / self.fps

    @property
    def duration_s(self) -> float:
        """Length in s; each sample lasts one period."""
        return len(self.values) / self.fps


def without_drift(values: np.ndarray, fps: float) -> np.ndarray:
    """Take off what changes more slowly than in `DRIFT_S`, so that people see the beats.

    Args:
      values: float [t].
      fps: samples per second, Hz.

    Returns:
      float [t], less their mean of the `DRIFT_S` around each.
    """
    return values - ndimage.uniform_filter1d(values, max(1, round(DRIFT_S * fps)), mode="nearest")

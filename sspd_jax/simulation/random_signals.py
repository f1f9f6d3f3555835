"""Random signals and fields that a simulation is drawn with: smooth, seeded, of any length."""

from __future__ import annotations

import math

import cv2
import numpy as np


def wander(rng: np.random.Generator, low_hz: float, high_hz: float, *, slope: float = 0.0):
    """Draw a random signal: 24 sines with random phases and frequencies in a band, standard deviation 1.

    Args:
      rng: Random generator.
      low_hz: Lower end of the band, Hz.
      high_hz: Upper end of the band, Hz.
      slope: Slope of the power over the frequency; −1 falls like 1/f.

    Returns:
      Function of times, float64 [t] in s: float64 [t]; a longer recording begins like a shorter one.
    """
    hz = np.exp(rng.uniform(np.log(low_hz), np.log(high_hz), 24))
    phase = rng.uniform(0, 2 * np.pi, 24)
    weight = np.sqrt(hz ** (slope + 1))  # + 1: the frequencies lie denser where they are low
    weight *= np.sqrt(2 / (weight**2).sum())
    return lambda times_s: np.sin(2 * np.pi * np.multiply.outer(times_s, hz) + phase) @ weight


def smooth_field(rng: np.random.Generator, shape: int | tuple[int, int], smooth_px: float) -> np.ndarray:
    """Draw a random map, float32 [h, w]: smooth over `smooth_px` pixels, mean 0, standard deviation 1."""
    shape = (shape, shape) if isinstance(shape, int) else shape
    # Of wide ones a coarse version is drawn and enlarged: the blur costs by its width.
    step = max(1.0, smooth_px / 3)
    coarse = tuple(max(4, math.ceil(side / step)) for side in shape)
    field = cv2.GaussianBlur(rng.standard_normal(coarse, np.float32), (0, 0), smooth_px / step)
    field = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def integral(rate: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Integrate a rate over time by trapezoids, from 0 at the first time, float64 [t]."""
    steps = np.diff(times_s) * (rate[1:] + rate[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])

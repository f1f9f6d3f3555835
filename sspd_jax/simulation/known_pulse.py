"""A known pulse on the skin of real pictures, in linear light; and the clip's own pulse taken out before.

More blood absorbs more light: linear light, not the pixel's value, is what it scales. Values are decoded by
sRGB's curve, scaled, encoded again and dithered, so that a change of half a grey level is not rounded away.

References:
  de Haan & van Leest, Physiol. Meas. 35 (2014), 1913–1926, for the pulse's colour; Kamshilin et al., Sci.
  Rep. 5 (2015), 10494, for its uneven strength and delay over a face.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from sspd_jax.simulation.person import PULSE_COLOUR, draw_pulse
from sspd_jax.simulation.random_signals import smooth_field

HEART_RATES_BPM = (40.0, 180.0)
STRENGTHS = (0.05, 5.0)  # per cent of linear green light
GRID_HZ = 500.0  # on which a wave is kept
MARGIN_S = 1.0  # before the first and after the last frame, for delays
UNEVENNESS = 0.25  # standard deviation of the strength over a face, relative
LEAST_SHARE, MOST_SHARE = 0.4, 1.8  # of the mean strength, anywhere
DELAY_S = 0.012  # standard deviation of the delay over a face
MOST_DELAY_S = 0.03
SMOOTH = 0.09  # of the aligned crop's side: how smoothly both vary
# sRGB: above TOE a value is OFFSET-shifted power of light, below it a multiple.
GAMMA, OFFSET, TOE = 2.4, 0.055, 0.04045


@dataclasses.dataclass(frozen=True, eq=False)
class PulseWave:
    """A pulse over time, on a fine grid.

    Attributes:
      start_s: Time of the first value, s.
      ppg: float64 [g], −1 to 1; high where there is much blood.
      rate_bpm: float64 [g], momentary heart rate, bpm.
    """

    start_s: float
    ppg: np.ndarray
    rate_bpm: np.ndarray

    def at(self, times_s: np.ndarray) -> np.ndarray:
        """Return the pulse at times of any shape, s: float64 of the same shape."""
        return np.interp(times_s, self.start_s + np.arange(len(self.ppg)) / GRID_HZ, self.ppg)

    def rate_at(self, times_s: np.ndarray) -> np.ndarray:
        """Return the momentary heart rate at times of any shape, s: float64 of the same shape, bpm."""
        return np.interp(times_s, self.start_s + np.arange(len(self.ppg)) / GRID_HZ, self.rate_bpm)


@dataclasses.dataclass(frozen=True, eq=False)
class PulseMaps:
    """How a pulse differs over a face, in its aligned crop.

    Attributes:
      strength: float32 [s, s], relative: 1 is what the mean over the skin, soft edges and all, is to show.
      delay_s: float32 [s, s], s; its mean over the skin is 0.
    """

    strength: np.ndarray
    delay_s: np.ndarray


def draw_wave(seed: int | list[int], bpm: float, seconds: float) -> PulseWave:
    """Draw a pulse with a dicrotic notch whose rate varies with breath and, slower, like 1/f noise.

    Args:
      seed: Seed, or a list of numbers that are one.
      bpm: Mean heart rate over the recording, bpm.
      seconds: Length of the recording, s.

    Returns:
      The wave; its mean rate from 0 s to `seconds` is `bpm`.

    Example:
      >>> wave = draw_wave(1, 84.0, 30.0)
      >>> round(float(wave.rate_at(np.arange(900) / 30).mean()), 1)
      84.0
    """
    grid_s = np.arange(-MARGIN_S, seconds + MARGIN_S, 1 / GRID_HZ)
    within = (grid_s >= 0) & (grid_s < seconds)
    _, rate = draw_pulse(np.random.default_rng(seed), bpm)(grid_s)
    ppg, rate = draw_pulse(np.random.default_rng(seed), bpm**2 / rate[within].mean())(grid_s)
    return PulseWave(-MARGIN_S, ppg, rate)


def draw_maps(rng: np.random.Generator, skin: np.ndarray) -> PulseMaps:
    """Draw how strength and delay vary smoothly over a face.

    Args:
      rng: Random generator.
      skin: Where the skin is in the aligned crop, float32 [s, s], 0 to 1.

    Returns:
      The maps.
    """
    side = len(skin)
    share = skin / skin.sum()

    def field():
        drawn = smooth_field(rng, side, SMOOTH * side)
        drawn = drawn - (share * drawn).sum()
        return drawn / np.sqrt((share * drawn**2).sum())

    strength = np.clip(1 + UNEVENNESS * field(), LEAST_SHARE, MOST_SHARE)
    delay_s = np.clip(DELAY_S * field(), -MOST_DELAY_S, MOST_DELAY_S)
    strength /= (share * skin * strength).sum()  # at its soft edge skin beats less
    return PulseMaps(strength.astype(np.float32), (delay_s - (share * delay_s).sum()).astype(np.float32))


def darkening(
    wave: PulseWave, maps: PulseMaps, skin: np.ndarray, strength: float, time_s: float
) -> np.ndarray:
    """Return by how much the pulse changes green light over the aligned crop at a moment.

    Args:
      wave: The pulse.
      maps: How it differs over the face.
      skin: Where the skin is, float32 [s, s], 0 to 1.
      strength: Relative change of linear green light with one unit of the wave, mean over the skin.
      time_s: The moment, s.

    Returns:
      float32 [s, s], relative: negative where there is more blood than on average.
    """
    return (-strength * skin * maps.strength * wave.at(time_s - maps.delay_s)).astype(np.float32)


def change_light(
    picture: np.ndarray, light: np.ndarray, own: np.ndarray | None = None, colour: np.ndarray = PULSE_COLOUR
) -> np.ndarray:
    """Scale the linear light of pixels.

    Args:
      picture: uint8 or float32 [h, w, 3] RGB, 0 to 255.
      light: float32 [h, w], relative change of green light, far below 1.
      own: float32 [h, w, 3] or None: a relative change of the pixels' values that is divided out first.
      colour: float [3], the change of red, green and blue light where green's is 1.

    Returns:
      float32 [h, w, 3], 0 to 255 but for what left that range; not rounded.
    """
    value = picture.astype(np.float32) / np.float32(255)
    if own is not None:
        value /= 1 + own
    change = 1 + light[..., None] * np.asarray(colour, np.float32)
    # (L·k)^(1/γ) = L^(1/γ)·k^(1/γ): the light itself need not be computed.
    bright = (value + np.float32(OFFSET)) * cv2.pow(change, 1 / GAMMA) - np.float32(OFFSET)
    return np.where(value > TOE, bright, value * change) * np.float32(255)


def to_light(picture: np.ndarray) -> np.ndarray:
    """Decode values to linear light by sRGB's curve.

    Args:
      picture: uint8 [h, w, 3].

    Returns:
      float32 [h, w, 3], 0 to 1.
    """
    return cv2.LUT(picture, _LIGHT)


def dithered(values: np.ndarray, touched: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round to 8 bits so that the mean is kept.

    Args:
      values: float32 [h, w, 3], 0 to 255 but for what is cut off.
      touched: bool [h, w]: where values are dithered; elsewhere they are whole numbers and stay as they are.
      rng: Random generator.

    Returns:
      uint8 [h, w, 3].
    """
    values = values + (rng.random(values.shape, np.float32) - np.float32(0.5)) * touched[..., None]
    return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)


def _light() -> np.ndarray:
    value = np.arange(256) / 255
    return np.where(value > TOE, ((value + OFFSET) / (1 + OFFSET)) ** GAMMA, value / 12.92).astype(np.float32)


_LIGHT = _light()

"""What kinds of recordings can be simulated."""

from __future__ import annotations

import dataclasses

HEART_RATES_BPM = (45.0, 150.0)


@dataclasses.dataclass(frozen=True)
class Preset:
    """How hard a recording is. Amplitudes are standard deviations unless said otherwise.

    Attributes:
      sway_px: Slow translation of the head, below 0.35 Hz, pixels of the portrait.
      tilt_deg: Slow rotation in the picture's plane, degrees.
      zoom: Slow change of scale, relative.
      turn_deg: Slow turning (left and right) and nodding, degrees.
      bursts: How often the head moves as in talking, nodding or rocking: while a random signal of standard
        deviation 1 lies above −bursts; 0.8 is four fifths of the time.
      burst_px: Translation in such bursts, 0.7–2.5 Hz, amplitude, pixels of the portrait.
      burst_deg: Turning and nodding in them, amplitude, degrees.
      mouth_px: Opening of the mouth in them, amplitude, pixels of the portrait.
      shading: Relative change of the skin's brightness when a cheek turns by 1 rad.
      unevenness: Unevenness of the room's light across the picture, relative: what moves through it changes.
      slow_light: Change of all light below 0.2 Hz, relative.
      slow_colour: Change of the light's colour below 0.2 Hz, relative.
      band_light: Change of all light inside the pulse band, relative.
      band_colour: Coloured light inside the pulse band, uneven in space, amplitude where it is strongest,
        relative.
      highlight: Brightness of the specular highlights, grey levels.
      noise: Noise of the sensor, grey levels.
      lamp_hz: Frequency of that coloured light in every recording, Hz: one lamp in one room; 0: each
        recording has its own, away from the pulse.
    """

    sway_px: float
    tilt_deg: float
    zoom: float
    turn_deg: float
    bursts: float
    burst_px: float
    burst_deg: float
    mouth_px: float
    shading: float
    unevenness: float
    slow_light: float
    slow_colour: float
    band_light: float
    band_colour: float
    highlight: float
    noise: float
    lamp_hz: float = 0.0


_DEFAULT = Preset(
    sway_px=1.5,
    tilt_deg=0.5,
    zoom=0.004,
    turn_deg=0.8,
    bursts=0.8,
    burst_px=0.5,
    burst_deg=0.5,
    mouth_px=0.8,
    shading=0.5,
    unevenness=0.1,
    slow_light=0.005,
    slow_colour=0.001,
    band_light=0.0005,
    band_colour=0.0,
    highlight=8.0,
    noise=1.0,
)
PRESETS: dict[str, Preset] = {
    "easy": dataclasses.replace(
        _DEFAULT,
        sway_px=0.15,
        tilt_deg=0.05,
        zoom=0.0005,
        turn_deg=0.05,
        bursts=0.0,
        burst_px=0.0,
        burst_deg=0.0,
        mouth_px=0.0,
        unevenness=0.05,
        slow_light=0.002,
        slow_colour=0.0005,
        band_light=0.0,
    ),
    "default": _DEFAULT,
    "hard": dataclasses.replace(_DEFAULT, band_light=0.002, band_colour=0.004),
}
"""Frozen: results name a preset, so its numbers do not change."""

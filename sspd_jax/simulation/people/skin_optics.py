"""The colour of skin, and by how much blood changes it, from melanin and haemoglobin.

Light enters through an epidermis that holds melanin, is scattered in a dermis that holds blood, and leaves
through the epidermis again; the surface reflects a part of it at once. The part from the surface knows no
blood: the darker the skin, the larger its share, and the weaker the pulse.

References:
  Jacques, Phys. Med. Biol. 58 (2013), R37–R61, for absorption by melanosomes and bloodless tissue and for
  scattering in skin; Prahl's tabulation of haemoglobin (Oregon Medical Laser Center, 1998), every 10 nm;
  Flock et al., IEEE Trans. Biomed. Eng. 36 (1989), 1162–1168, for the diffuse reflectance of a deep medium;
  Wang et al., IEEE Trans. Biomed. Eng. 64 (2017), 1479–1491, for the two reflections of skin; Nowara et al.,
  CVPR Workshops (2020), for pulses that are weaker in darker skin; de Haan & van Leest, Physiol. Meas. 35
  (2014), 1913–1926, for the pulse's colour.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from sspd_jax.simulation.person import PULSE_COLOUR

WAVELENGTHS_NM = np.arange(400.0, 701.0, 10.0)
# Molar extinction of haemoglobin with and without oxygen, 1/(cm·M).
OXY = np.array([
    266232, 466840, 480360, 246072, 102580, 62816, 44480, 33209, 26629, 23684, 20933, 20035, 24202, 39957,
    53236, 43016, 32613, 44496, 50104, 14401, 3200, 1506, 942, 610, 442, 368, 320, 294, 278, 276, 290,
])  # fmt: skip
DEOXY = np.array([
    223296, 303956, 407560, 528600, 413280, 103292, 23389, 16156, 14550, 16684, 20862, 25774, 31590, 39036,
    46592, 53412, 53788, 45072, 37020, 28324, 14677, 9444, 6510, 5149, 4345, 3750, 3227, 2795, 2408, 2052,
    1794,
])  # fmt: skip
MOLAR_BLOOD = 150.0 / 64_500.0  # of haemoglobin in whole blood, mol/l
SATURATION = 0.8  # of the dermis' mixed blood with oxygen; what pulses is arterial: 0.97
ARTERIAL = 0.97
EPIDERMIS_CM = 0.006
PATH = 2.0  # diffuse light crosses a layer on twice its thickness, on average
INDEX = 1.4  # of refraction
SURFACE = 0.025  # of the light, that the skin's surface reflects to all sides
MELANIN = (0.015, 0.24)  # volume of melanosomes in the epidermis, lightest to darkest
BLOOD = (0.008, 0.03)  # volume of blood in the dermis, least to most
LIGHT_SKIN = (0.03, 0.015)  # melanin and blood of those whose pulse's colour was measured
# What a camera's red, green and blue see: middle and standard deviation, nm.
SENSORS = ((600.0, 30.0), (540.0, 36.0), (460.0, 26.0))
# From the sensor's colours to sRGB's; each row sums to 1, so that white stays white.
TO_SRGB = np.array([[1.30, -0.25, -0.05], [-0.10, 1.20, -0.10], [0.0, -0.10, 1.10]])


@dataclasses.dataclass(frozen=True, eq=False)
class Skin:
    """How skin answers white light.

    Attributes:
      colour: Linear red, green and blue, white = 1, float64 [3].
      pulse: Relative change of each with a relative change of the blood by 1, float64 [3]; below 0.
    """

    colour: np.ndarray
    pulse: np.ndarray


def skin(melanin: float, blood: float) -> Skin:
    """Return how skin answers white light.

    Args:
      melanin: Volume of melanosomes in the epidermis, 0 to 1; `MELANIN` is the range of people.
      blood: Volume of blood in the dermis, 0 to 1; `BLOOD` is its range.

    Returns:
      Its colour and what blood changes of it.

    Example:
      >>> light, dark = skin(0.02, 0.01), skin(0.35, 0.01)
      >>> bool((light.colour > dark.colour).all()), bool(-light.pulse[1] > -dark.pulse[1])
      (True, True)
    """
    colour, pulse = _seen(melanin, blood)
    return Skin(colour, pulse * _as_measured())


@functools.cache
def _as_measured() -> np.ndarray:
    """Return by what red, green and blue pulses are scaled: light skin then beats in the measured colour.

    The vessels that pulse do not lie at one depth, and each colour sees to another one. The dermis is one
    layer here, which makes blue beat nearly as much as green.
    """
    _, pulse = _seen(*LIGHT_SKIN)
    return PULSE_COLOUR * pulse[1] / pulse


def _seen(melanin: float, blood: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour of skin, float64 [3], and what the blood of one layer changes of it, relative."""
    through = _epidermis(melanin) ** 2
    deep = through * _dermis(blood, 0.0)
    step = 0.01
    change = through * (_dermis(blood, step) - _dermis(blood, -step)) / (2 * step)
    colour = TO_SRGB @ (_sensors() @ (SURFACE + (1 - SURFACE) * deep))
    changed = TO_SRGB @ (_sensors() @ ((1 - SURFACE) * change))
    colour = np.maximum(colour, 1e-3)
    return colour, changed / colour


def _epidermis(melanin: float) -> np.ndarray:
    """Return the share of light that the epidermis lets through once."""
    melanosomes = 6.6e11 * WAVELENGTHS_NM**-3.33  # 1/cm
    absorption = melanin * melanosomes + (1 - melanin) * _bloodless()
    return np.exp(-absorption * EPIDERMIS_CM * PATH)


def _bloodless() -> np.ndarray:
    return 0.244 + 85.3 * np.exp(-(WAVELENGTHS_NM - 154) / 66.2)


def _dermis(blood: float, more: float) -> np.ndarray:
    """Return the diffuse reflectance of a dermis with `more` of its blood, arterial, above the mean."""
    resting = SATURATION * OXY + (1 - SATURATION) * DEOXY
    arterial = ARTERIAL * OXY + (1 - ARTERIAL) * DEOXY
    whole = np.log(10) * MOLAR_BLOOD * (resting + more * arterial)
    absorption = blood * whole + (1 - blood) * _bloodless()
    scattering = 46.0 * (WAVELENGTHS_NM / 500) ** -1.421
    albedo = scattering / (scattering + absorption)
    inner = -1.440 / INDEX**2 + 0.710 / INDEX + 0.668 + 0.0636 * INDEX  # reflection from within
    k = (1 + inner) / (1 - inner)
    return albedo / (1 + 2 * k * (1 - albedo) + (1 + 2 * k / 3) * np.sqrt(3 * (1 - albedo)))


@functools.cache
def _sensors() -> np.ndarray:
    seen = np.array([np.exp(-0.5 * ((WAVELENGTHS_NM - middle) / width) ** 2) for middle, width in SENSORS])
    return seen / seen.sum(axis=1, keepdims=True)

"""What speaks for a heart rate and what against it, from the recording alone.

A peak in a spectrum is no pulse yet: noise has peaks, a lamp flickers, a head nods in time. A pulse beats in
every part of the skin at once, in the colour of blood, and not in what lies behind the person. Each of these
is a number here, for one window; `confidence` weighs them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import signal

from sspd_jax.heart_rate.rate import WIDE_BAND_HZ, fundamental_rate, hann_periodogram, spectral_peak_rate

GRID = 4
"""A crop is looked at in 4 × 4 cells."""

PART_S = 10.0  # what the weights of `confidence` were fitted on
SWAY = 0.2  # relative: how far a heart rate may wander within a longer window
NEAR_HZ = 0.12  # half width of a peak: 7 bpm, the main lobe of a 10 s window
AGREE_BPM = 3.0
# Relative pulse in red, green and blue under white light (de Haan & van Leest 2014), and what white light or
# shading does.
BLOOD = np.array([0.33, 0.77, 0.53])
GREY = np.ones(3)
FAINTEST = 1e-6  # relative change of colour: a tenth of what 8 bits leave of a whole face


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Of one window, at the rate that was read in it. NaN: cannot be told from this recording.

    Attributes:
      wave_share: share of the wave's power in 0.6–3.6 Hz that lies near the rate or its double.
      colour_share: the same of the chrominance of the whole face.
      cells_agree: share of the face's cells whose own chrominance has its strongest peak at the rate.
      cells_share: mean over the cells of the share of chrominance power near the rate.
      in_step: how much the cells beat in step at the rate, 0 (at random) to 1.
      rates_apart_bpm: between the rate and the chrominance's own, bpm.
      blood: cosine between the change of colour at the rate and that of blood, less the cosine with white.
      strength: log10 of the relative change of colour at the rate.
      behind: log10 of the change behind the person at the rate over that of the face, in green light.
      behind_share: share of the background's power that lies near the rate.
      behind_colour: log10 of the change of colour behind the person at the rate, without what is white in it,
        over that of the face: shadows of a moving head are white, the light of a screen is not.
    """

    wave_share: float
    colour_share: float
    cells_agree: float
    cells_share: float
    in_step: float
    rates_apart_bpm: float
    blood: float
    strength: float
    behind: float
    behind_share: float
    behind_colour: float


def extract(
    wave: np.ndarray,
    fps: float,
    bpm: float,
    cells: np.ndarray | None = None,
    background: np.ndarray | None = None,
) -> Evidence:
    """Collect the evidence of one window.

    A heart speeds up and slows down within a long window, which smears its peak and says nothing against it:
    a window of more than 15 s is weighed in parts of 10 s, each at its own rate, and the mean returned.

    Args:
      wave: [t], the pulse wave that the rate was read from.
      fps: samples per second of everything, Hz.
      bpm: the rate that was read.
      cells: [t, cells, 3], mean RGB of the cells of the face crop; None where there is no picture.
      background: [t, 3], mean RGB of what lies around the face; None or NaN where there is none.

    Returns:
      The evidence.
    """
    parts = _parts(len(wave), fps)
    if len(parts) == 1:
        return _weigh(wave, fps, bpm, cells, background)
    found = []
    for part in parts:
        own = fundamental_rate(wave[part], fps)
        near = own if abs(own / bpm - 1) <= SWAY else bpm
        inside = (None if x is None else x[part] for x in (cells, background))
        found.append(dataclasses.astuple(_weigh(wave[part], fps, near, *inside)))
    return Evidence(*np.mean(found, axis=0).tolist())


def _parts(length: int, fps: float) -> list[slice]:
    """Lay parts of 10 s, half over one another, over a window of more than 15 s."""
    part = round(PART_S * fps)
    if length <= 1.5 * part:
        return [slice(0, length)]
    starts = np.linspace(0, length - part, 1 + int(np.ceil(2 * (length - part) / part)))
    return [slice(start, start + part) for start in starts.round().astype(int)]


def _weigh(
    wave: np.ndarray, fps: float, bpm: float, cells: np.ndarray | None, background: np.ndarray | None
) -> Evidence:
    hz = bpm / 60
    nan = float("nan")
    found = dict.fromkeys((field.name for field in dataclasses.fields(Evidence)), nan)
    found["wave_share"] = float(share_near(wave[:, None], fps, hz)[0])
    if cells is not None:
        change = relative_change(cells)
        pulse = chrominance(change, fps)  # [t, cells]
        whole = relative_change(cells.mean(axis=1))
        whole_pulse = chrominance(whole, fps)
        own = np.array([spectral_peak_rate(one, fps) for one in pulse.T])
        at_rate = amplitude_at(pulse, fps, hz)
        size = np.abs(at_rate)
        found["colour_share"] = float(share_near(whole_pulse[:, None], fps, hz)[0])
        found["cells_agree"] = float((np.abs(own - bpm) <= AGREE_BPM).mean())
        found["cells_share"] = float(share_near(pulse, fps, hz).mean())
        found["in_step"] = float(np.abs(at_rate.sum()) / max(size.sum(), FAINTEST * len(size)))
        apart = abs(spectral_peak_rate(whole_pulse, fps) - bpm)
        found["rates_apart_bpm"] = float(apart) if np.isfinite(apart) else 60.0
        colour = amplitude_at(whole, fps, hz)
        found["blood"] = _cosine(colour, BLOOD) - _cosine(colour, GREY)
        found["strength"] = float(np.log10(max(np.linalg.norm(colour), FAINTEST)))
        if background is not None and np.isfinite(background).all():
            behind = relative_change(background)
            ratio = max(abs(amplitude_at(behind, fps, hz)[1]), FAINTEST) / max(abs(colour[1]), FAINTEST)
            found["behind"] = float(np.log10(ratio))
            tints = [np.linalg.norm(at - at.mean()) for at in (amplitude_at(behind, fps, hz), colour)]
            found["behind_colour"] = float(np.log10(max(tints[0], FAINTEST) / max(tints[1], FAINTEST)))
            found["behind_share"] = float(share_near(behind[:, 1:2], fps, hz)[0])
    return Evidence(**found)


def relative_change(rgb: np.ndarray) -> np.ndarray:
    """Divide colours by their mean over the window and take 1 and the trend off: [t, …, 3] likewise.

    Where there is no light, there is no change.
    """
    rgb = np.asarray(rgb, np.float64)
    mean = rgb.mean(axis=0)
    change = np.divide(rgb, mean, out=np.ones_like(rgb), where=mean > 0) - 1
    return signal.detrend(change, axis=0)


def chrominance(change: np.ndarray, fps: float) -> np.ndarray:
    """Project relative changes of colour on the plane orthogonal to the skin tone, one window at once.

    POS with a single window: S₁ + S₂·σ(S₁)/σ(S₂) of S₁ = G − B and S₂ = G + B − 2R, in 0.6–3.6 Hz.

    Args:
      change: [t, …, 3], see `relative_change`.
      fps: Hz.

    Returns:
      float64 [t, …].

    References:
      Wang, den Brinker, Stuijk & de Haan, IEEE Trans. Biomed. Eng. 64 (2017), 1479–1491.
    """
    red, green, blue = np.moveaxis(change, -1, 0)
    x, y = in_band(green - blue, fps), in_band(green + blue - 2 * red, fps)
    spread = y.std(axis=0)
    ratio = np.divide(x.std(axis=0), spread, out=np.zeros_like(spread), where=spread > FAINTEST * 1e-3)
    return x + ratio * y


def in_band(x: np.ndarray, fps: float) -> np.ndarray:
    """Keep what lies in 0.6–3.6 Hz, by its Fourier bins."""
    hz = np.fft.rfftfreq(len(x), 1 / fps)
    bins = np.fft.rfft(x, axis=0)
    bins[(hz < WIDE_BAND_HZ[0]) | (hz > WIDE_BAND_HZ[1])] = 0
    return np.fft.irfft(bins, len(x), axis=0)


def amplitude_at(x: np.ndarray, fps: float, hz: float) -> np.ndarray:
    """Return the complex amplitude at a frequency, Hann-weighted, over the first axis."""
    window = 2 * np.hanning(len(x)) / np.hanning(len(x)).sum()  # a sine of amplitude 1 has 1
    turn = window * np.exp(-2j * np.pi * hz * np.arange(len(x)) / fps)
    return np.tensordot(turn, x, axes=(0, 0))


def share_near(x: np.ndarray, fps: float, hz: float) -> np.ndarray:
    """Return the share of the power in 0.6–3.6 Hz near a frequency or its double: [t, n] → [n]."""
    at, power = hann_periodogram(signal.detrend(np.asarray(x, np.float64), axis=0), fps, padding=4)
    band = (at >= WIDE_BAND_HZ[0]) & (at <= WIDE_BAND_HZ[1])
    near = band & ((np.abs(at - hz) <= NEAR_HZ) | (np.abs(at - 2 * hz) <= NEAR_HZ))
    total = power[band].sum(axis=0)
    return np.divide(power[near].sum(axis=0), total, out=np.zeros_like(total), where=total > 0)


def _cosine(colour: np.ndarray, direction: np.ndarray) -> float:
    size = np.linalg.norm(colour)
    return float(np.abs(colour @ direction) / (size * np.linalg.norm(direction))) if size > 0 else 0.0


def upright(wave: np.ndarray, fps: float, bpm: float, cells: np.ndarray) -> float:
    """Tell which way up a wave is: positive where it rises as blood darkens the green of the skin.

    The part of the wave at its rate is compared with that of the chrominance of the whole face, which falls
    with more blood. Neither phase nor sign of a learned wave means anything by itself.

    Args:
      wave: [t].
      fps: Hz.
      bpm: the wave's rate.
      cells: [t, cells, 3], mean RGB of the cells of the face.

    Returns:
      −1 to 1: the cosine of the phase between them.
    """
    n = min(len(wave), len(cells))
    pulse = -chrominance(relative_change(cells[:n].mean(axis=1)), fps)
    turn = amplitude_at(signal.detrend(np.asarray(wave[:n], np.float64)), fps, bpm / 60) * np.conj(
        amplitude_at(pulse, fps, bpm / 60)
    )
    return float(turn.real / max(abs(turn), 1e-300))

"""One heart rate from several estimators and several patches of skin: their spectra, fused.

What moves a face's colour without being its pulse is strongest at low frequencies: breathing, swaying, light
that drifts, the codec's way of refreshing its blocks. Power falls off there as frequency to the power of
about −1.5, so each spectrum is multiplied by the opposite before peaks are compared.

Where the skin's brightness changes by more than a pulse can, a head moves or light does. GREEN and OMIT
follow brightness, and patches slide over the face: they count for less then, and what POS and CHROM say of
the whole skin for more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sspd_jax.heart_rate import host_classical
from sspd_jax.heart_rate.filters import remove_line

ESTIMATORS = ("green", "pos", "chrom", "omit")
BAND_HZ = (0.65, 3.6)
NOISE_TILT = 1.5  # 1 to 2 serve about as well
FLOOR = 0.15  # of an even spectrum's share: what an estimator may say against a rate has an end
PEAK_HZ = 0.1  # half the width of a peak in 10 s
LOBE = 0.5 / (np.pi**2 / 3 - 2)  # variance of the Hann window's main lobe where it lasts 1 s, Hz²
LEAST_AREA = 20.0  # pixels of a patch; a smaller one is rounding
FOLLOW_BRIGHTNESS = ("green", "omit")
LEAST_OF_PATCHES = 0.2  # of what they say, that counts where everything moves


@dataclass(frozen=True, eq=False)
class FusedRate:
    """What several estimators say of one window together.

    Attributes:
      bpm: the fused heart rate; NaN where there is nothing to read.
      share: float64 [f], the fused spectrum as shares of its sum, at the frequencies `hz`.
      hz: float64 [f], Hz.
      rates_bpm: the rate by each estimator alone.
    """

    bpm: float
    share: np.ndarray
    hz: np.ndarray
    rates_bpm: dict[str, float]


def power_shares(waves: np.ndarray, fps: float, *, tilt: float = NOISE_TILT) -> tuple[np.ndarray, np.ndarray]:
    """Return the spectra of waves with the slope of their noise taken off.

    Args:
      waves: [..., t], t ≥ 8, any unit, equally long parts of estimators' waves.
      fps: samples per second, Hz, above 7.2.
      tilt: power of the frequency by which power is multiplied.

    Returns:
      float64 [f], frequencies in Hz inside `BAND_HZ`, finer than 0.01 Hz; and float64 [..., f], each
      spectrum's shares of its sum, even where a wave is constant or not finite.

    Raises:
      ValueError: fewer than 8 samples, or too low an fps for the band.
    """
    waves = np.asarray(waves, np.float64)
    samples = waves.shape[-1]
    if samples < 8 or fps <= 2 * BAND_HZ[1]:
        raise ValueError(f"{samples} samples at {fps:g} Hz have no spectrum up to {BAND_HZ[1]:g} Hz")
    padded = 1 << int(np.ceil(np.log2(max(8 * samples, fps / 0.01))))
    hz = np.fft.rfftfreq(padded, 1 / fps)
    band = (hz >= BAND_HZ[0]) & (hz <= BAND_HZ[1])
    usable = np.isfinite(waves).all(-1)
    flat = np.where(usable[..., None], waves, 0.0).reshape(-1, samples)
    steady = np.stack([remove_line(wave) for wave in flat])
    # What rounding leaves of a constant or a slope would have a spectrum too.
    steady[np.abs(steady).max(-1) <= 1e-12 * np.abs(flat).max(-1)] = 0
    power = np.abs(np.fft.rfft(steady * np.hanning(samples), padded)[:, band]) ** 2 * hz[band] ** tilt
    total = power.sum(-1, keepdims=True)
    shares = np.where(total > 0, power / np.where(total > 0, total, 1), 1 / band.sum())
    return hz[band], shares.reshape(*waves.shape[:-1], -1)


def fuse_shares(shares: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted mean of the logarithms of spectra above a floor, float64 [..., f].

    Args:
      shares: [k, ..., f], as from `power_shares`.
      weights: [k, ...], at least 0; by default all count alike. Where all are 0, the result is even.
    """
    logs = np.log(shares + FLOOR / shares.shape[-1])
    weights = np.ones(shares.shape[:-1]) if weights is None else np.asarray(weights, np.float64)
    total = weights.sum(0)[..., None]
    return (weights[..., None] * logs).sum(0) / np.where(total > 0, total, 1)


def concentration(shares: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """Return which share of each spectrum [..., f] lies within `PEAK_HZ` of its peak, float64 [...]."""
    peak = hz[shares.argmax(-1)][..., None]
    return np.where(np.abs(hz - peak) <= PEAK_HZ, shares, 0).sum(-1)


def readable(fps: float) -> tuple[str, ...]:
    """Return which of `ESTIMATORS` can read so many samples per second."""
    return tuple(name for name in ESTIMATORS if fps >= host_classical.LEAST_FPS.get(name, 0))


def estimator_waves(rgb: np.ndarray, fps: float, names: tuple[str, ...] = ESTIMATORS) -> np.ndarray:
    """Run the classical estimators over a whole recording.

    Args:
      rgb: [..., t, 3], colour traces on a uniform clock, finite.
      fps: samples per second, Hz.
      names: out of `host_classical.METHODS`.

    Returns:
      float64 [k, ..., t]; where an estimator cuts the end, its last value stands there.

    Raises:
      ValueError: too short a trace or too low an fps for one of them.
    """
    samples = rgb.shape[-2]
    waves = [host_classical.METHODS[name](np.asarray(rgb, np.float64), fps) for name in names]
    pads = [[(0, 0)] * (wave.ndim - 1) + [(0, samples - wave.shape[-1])] for wave in waves]
    return np.stack([np.pad(wave, pad, "edge") for wave, pad in zip(waves, pads, strict=True)])


def fused_rate(
    skin_waves: np.ndarray,
    fps: float,
    *,
    patch_waves: np.ndarray | None = None,
    patch_area: np.ndarray | None = None,
    network: np.ndarray | None = None,
    names: tuple[str, ...] = ESTIMATORS,
    without_motion: np.ndarray | None = None,
    steady: float = 1.0,
) -> FusedRate:
    """Estimate one heart rate from all that was seen in a window.

    The skin's spectra, the patches' and the network's count alike where light and head hold still; else as
    `steady` says. A patch counts by how much of its spectrum lies in one peak, estimator by estimator: where
    the codec leaves little, patches see and say little.

    Args:
      skin_waves: float [k, t], the estimators' waves of the skin's mean.
      fps: samples per second, Hz.
      patch_waves: float [k, p, t], the same of each patch, or None.
      network: float [t], a network's wave, or None.
      patch_area: float [p], pixels that each patch had in the window; below `LEAST_AREA` it is left out.
      names: of the k estimators.
      without_motion: float [k, t], the skin's waves once more, motion taken out: they are fused in place of
        `skin_waves`, which give each estimator's own rate. None: nothing moved.
      steady: 1 where brightness changes no more than a pulse makes it, towards 0 where it does.

    Returns:
      The fused rate, its spectrum and what each estimator says alone.

    Raises:
      ValueError: as `power_shares`.
    """
    hz, shares = power_shares(skin_waves, fps)
    duration_s = skin_waves.shape[-1] / fps
    heard = shares if without_motion is None else power_shares(without_motion, fps)[1]
    trusted = np.array([steady if name in FOLLOW_BRIGHTNESS else 1.0 for name in names])
    groups, counts = [fuse_shares(heard, trusted)], [2 - steady]
    if patch_waves is not None and patch_waves.shape[1]:
        _, parts = power_shares(patch_waves, fps)
        weights = concentration(parts, hz)
        if patch_area is not None:
            weights = weights * (np.asarray(patch_area) >= LEAST_AREA)
        by_estimator = fuse_shares(np.moveaxis(parts, 1, 0), np.moveaxis(weights, 1, 0))
        if (weights > 0).any():
            groups.append(trusted @ by_estimator / trusted.sum())
            counts.append(LEAST_OF_PATCHES + (1 - LEAST_OF_PATCHES) * steady)
    rates = {name: peak_bpm(hz, one, duration_s) for name, one in zip(names, shares, strict=True)}
    if network is not None:
        _, learned = power_shares(network, fps, tilt=0)
        groups.append(fuse_shares(learned[None]))
        counts.append(1.0)
        rates["sspd"] = peak_bpm(hz, learned, duration_s, tilt=0)
    fused = np.average(groups, axis=0, weights=counts)
    share = np.exp(fused - fused.max())
    return FusedRate(peak_bpm(hz, share, duration_s), share / share.sum(), hz, rates)


def peak_bpm(hz: np.ndarray, share: np.ndarray, duration_s: float, tilt: float = NOISE_TILT) -> float:
    """Return the rate of a spectrum's highest value in bpm; NaN where it is even.

    The peak is chosen with the noise's slope taken off and placed without: the slope pushes the Hann window's
    main lobe up, at 72 bpm by a quarter of a beat in ten seconds and by one in five.

    Args:
      hz: float [f], frequencies in Hz.
      share: float [f], the spectrum, multiplied by the frequency to the power of `tilt`.
      duration_s: length of what it is the spectrum of, s.
      tilt: that power.

    Example:
      >>> hz, share = power_shares(np.sin(2 * np.pi * 1.2 * np.arange(150) / 30), 30.0)
      >>> round(60 * hz[share.argmax()]), round(peak_bpm(hz, share, 5.0))
      (73, 72)
    """
    if np.ptp(share) <= 1e-9 * share.max():
        return float("nan")
    top = hz[share.argmax()]
    return float(60 * (top - tilt * LOBE / (duration_s**2 * top)))

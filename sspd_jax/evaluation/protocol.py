"""Protocols: how a wave becomes a rate, an SNR and a shape that may be compared with the truth's.

Each preset is a file in `protocols/`, and a file of the same form can be given in its place. What is not the
same protocol is not the same number: windows, bands and bins move a MAE by more than methods differ.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.evaluation import metrics
from sspd_jax.heart_rate import estimators, filters
from sspd_jax.heart_rate.estimators import ESTIMATORS

PRESETS = Path(__file__).with_name("protocols")
NEAR_BPM = 6.0  # what counts as the rate and its double in an SNR, to either side


DETRENDING: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda wave: wave,
    "constant": lambda wave: wave - wave.mean(),
    "linear": filters.remove_line,
    "smoothness-100": filters.detrend,
}
SPECTRA = ("hann", "periodogram")  # of an SNR
OVER_SKIN = "skin, where rates of auto and of classical methods are those of predict"
OVER_CROP = "crop, the mean of a box around the face"


@dataclasses.dataclass(frozen=True)
class Filter:
    """What is taken off a wave before anything is read from it.

    Attributes:
      detrend: Name in `DETRENDING`.
      order: Order of the Butterworth band-pass, forwards and backwards; 0 for none.
      band_hz: Edges of the band-pass, Hz.
    """

    detrend: str
    order: int
    band_hz: tuple[float, float]

    def __call__(self, wave: np.ndarray, fps: float) -> np.ndarray:
        """Filter a wave [t]: float64 [t]. Raises ValueError where it is too short or fps too low."""
        wave = DETRENDING[self.detrend](np.asarray(wave, np.float64))
        return filters.bandpass(wave, *self.band_hz, fps, self.order) if self.order else wave

    def __str__(self) -> str:
        low, high = self.band_hz
        band = f"Butterworth order {self.order}, {low:g}–{high:g} Hz" if self.order else "no band-pass"
        return f"detrending {self.detrend}, {band}"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How waves are scored.

    Attributes:
      name: Name of the preset, or of the file.
      title: Title for tables.
      source: Where the protocol is written down.
      compare_with: Which published numbers may stand beside one made so.
      window_s: Length of a window, s; 0: the whole video.
      stride_s: Time from one window's start to the next's, s; 0: one frame.
      filter: Filter before the rate and the SNR are estimated.
      hr_estimator: Name in `estimators.ESTIMATORS`.
      band_hz: Band in which a rate is looked for, Hz.
      snr_spectrum: 'hann' or 'periodogram'.
      shape: Filter before MACC and correlation; None: `filter` does.
      region: What of the face is read, a name in `inference.windows.REGIONS`. Over the skin, the rates of
        `auto` and of classical methods are those of `predict`, and so is every confidence.
    """

    name: str
    title: str
    source: str
    compare_with: str
    window_s: float
    stride_s: float
    filter: Filter
    hr_estimator: str
    band_hz: tuple[float, float]
    snr_spectrum: str
    shape: Filter | None = None
    region: str = "crop"

    @property
    def facts(self) -> dict[str, str | float]:
        """What stands beside every score: protocol, window, stride, filter, read-out and band as columns."""
        return {
            "protocol": self.name,
            "window_s": self.window_s,
            "stride_s": self.stride_s,
            "detrend": self.filter.detrend,
            "filter_order": self.filter.order,
            "filter_low_hz": self.filter.band_hz[0] if self.filter.order else "",
            "filter_high_hz": self.filter.band_hz[1] if self.filter.order else "",
            "read_out": self.hr_estimator,
            "band_low_hz": self.band_hz[0],
            "band_high_hz": self.band_hz[1],
            "region": self.region,
        }

    def __str__(self) -> str:
        if self.window_s:
            every = f"every {self.stride_s:g} s" if self.stride_s else "at every frame"
            spans = f"windows of {self.window_s:g} s {every}"
        else:
            spans = "whole videos, one window each"
        low, high = self.band_hz
        rate = ESTIMATORS[self.hr_estimator].in_words
        path = f"{self.filter}; rate: {rate}, {low:g}–{high:g} Hz"
        truth = "truth: the contact pulse wave of the same window by the same path"
        if self.region == "skin":
            # One word has to do where tables are narrow: the page on evaluation says the rest.
            return f"{self.title}: {spans}; {path}; {truth}; region: {OVER_SKIN}"
        return f"{self.title}: {spans}; {path}; {truth}; region: {OVER_CROP}"


def names() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load(name: str, **changes: float) -> Protocol:
    """Load a protocol.

    Args:
      name: Name of a preset (see `names`), or a path to a file of the same form that ends with '.toml'.
      changes: Fields to change, such as window_s.

    Returns:
      The protocol; one that was changed says so in its name.

    Raises:
      ConfigError: There is no such preset or file, or a value is impossible.

    Example:
      >>> load("toolbox").name, load("toolbox", window_s=10).name
      ('toolbox', 'toolbox(window_s=10)')
    """
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"protocol {name!r} is none of {', '.join(names())}, nor a file ending with .toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise ConfigError(
            f"protocol {path}: cannot be read ({error}); compare it with the presets"
        ) from error
    protocol = _build(path, table)
    changed = {key: value for key, value in changes.items() if getattr(protocol, key) != value}
    if changed:
        changes = ",".join(f"{key}={value:g}" for key, value in changed.items())
        protocol = dataclasses.replace(protocol, name=f"{protocol.name}({changes})", **changed)
    _check(path, protocol)
    return protocol


def _build(path: Path, table: Mapping[str, Any]) -> Protocol:
    try:
        table = {key: dict(part) if isinstance(part, dict) else part for key, part in table.items()}
        parts = {key: table.pop(key) for key in ("filter", "rate", "snr")}
        shape = table.pop("shape", None)
        return Protocol(
            name=path.stem,
            filter=_filter(parts["filter"]),
            hr_estimator=_estimator_of(parts["rate"]),
            band_hz=tuple(map(float, parts["rate"]["band_hz"])),
            snr_spectrum=parts["snr"]["spectrum"],
            shape=_filter(shape) if shape else None,
            **table,
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"protocol {path}: {what}; compare it with the presets in {PRESETS}") from error


def _estimator_of(table: Mapping[str, Any]) -> str:
    """Return the estimator's name; files of earlier versions have the key `read_out`."""
    name = table["hr_estimator"] if "hr_estimator" in table else table["read_out"]
    return estimators.EARLIER_NAMES.get(name, name)


def _filter(table: Mapping[str, Any]) -> Filter:
    return Filter(table["detrend"], table["order"], tuple(map(float, table["band_hz"])))


def _check(path: Path, protocol: Protocol) -> None:
    """Raise a ConfigError for the first value that cannot be."""
    known = [
        ("rate.hr_estimator", protocol.hr_estimator, ESTIMATORS),
        ("snr.spectrum", protocol.snr_spectrum, SPECTRA),
    ]
    stages = {"filter": protocol.filter} | ({"shape": protocol.shape} if protocol.shape else {})
    known += [(f"{key}.detrend", stage.detrend, DETRENDING) for key, stage in stages.items()]
    for key, value, allowed in known:
        if value not in allowed:
            raise ConfigError(f"protocol {path}: {key} is {value!r}; it must be one of {', '.join(allowed)}")
    bands = [("rate.band_hz", protocol.band_hz), *((f"{k}.band_hz", s.band_hz) for k, s in stages.items())]
    for key, band in bands:
        if len(band) != 2 or not 0 < band[0] < band[1]:
            raise ConfigError(
                f"protocol {path}: {key} is {list(band)}; it must be two rising values above 0 Hz"
            )
    for key, stage in stages.items():
        if not (isinstance(stage.order, int) and 0 <= stage.order <= 10):
            raise ConfigError(f"protocol {path}: {key}.order is {stage.order!r}; it must be 0 to 10")
    if protocol.window_s != 0 and not 4 <= protocol.window_s < float("inf"):
        raise ConfigError(
            f"protocol {path}: window_s is {protocol.window_s:g}; it must be 4 s or more, or 0 (videos)"
        )
    if not 0 <= protocol.stride_s < float("inf"):
        raise ConfigError(f"protocol {path}: stride_s is {protocol.stride_s:g}; it must be 0 s or more")


def filtered(
    wave: np.ndarray, fps: float, protocol: Protocol, *, difference: bool = False
) -> np.ndarray | None:
    """Filter a wave as the protocol does before it reads a rate.

    Args:
      wave: [t], any unit.
      fps: Sampling rate, Hz.
      protocol: Protocol whose filter is used.
      difference: Whether the wave is the difference of a pulse wave: it is summed up first, in its own
        dtype, as rPPG-Toolbox does. The truth then takes the same path.

    Returns:
      float64 [t]; None where there is nothing to read: a value that is not finite, a constant, or a wave too
      short for the filter.

    Example:
      >>> filtered(np.ones(300), 30.0, load("ours")) is None
      True
    """
    wave = np.cumsum(wave) if difference else np.asarray(wave)
    if len(wave) < 8 or not np.isfinite(wave).all():
        return None
    try:
        clean = protocol.filter(wave, fps)
    except ValueError:
        return None
    # What rounding leaves of a constant would have a rate.
    return clean if np.ptp(clean) > 1e-12 * np.abs(wave).max() else None


def read_rate(clean: np.ndarray, fps: float, protocol: Protocol) -> float:
    """Estimate the rate of a wave.

    Args:
      clean: What `filtered` returned, [t].
      fps: Sampling rate, Hz.
      protocol: Protocol whose estimator and band are used.

    Returns:
      The rate in bpm; NaN where there is none.

    Example:
      >>> pulse = np.sin(2 * np.pi * 1.2 * np.arange(300) / 30)
      >>> round(read_rate(filtered(pulse, 30.0, load("ours")), 30.0, load("ours")))
      72
    """
    try:
        return estimators.estimate(protocol.hr_estimator, clean, fps, protocol.band_hz)
    except ValueError:  # too short, or too low an fps
        return float("nan")


def read_snr(clean: np.ndarray, fps: float, true_bpm: float, protocol: Protocol) -> float:
    """Compare the power near the true rate and its double with the rest of the protocol's band.

    Args:
      clean: [t], what `filtered` returned.
      fps: Sampling rate, Hz.
      true_bpm: True rate by the same protocol, bpm.
      protocol: 'periodogram' is rPPG-Toolbox's SNR: its bins, and the harmonics count outside the band too;
        'hann' is `metrics.snr_db`.

    Returns:
      dB; NaN where it has no value.
    """
    if protocol.snr_spectrum == "hann":
        return metrics.snr_db(clean, fps, true_bpm, band_hz=protocol.band_hz)
    if not np.isfinite(true_bpm):
        return float("nan")
    hz, power = estimators.padded_periodogram(clean, fps)
    near = [np.abs(hz - harmonic * true_bpm / 60) <= NEAR_BPM / 60 for harmonic in (1, 2)]
    rest = (hz >= protocol.band_hz[0]) & (hz <= protocol.band_hz[1]) & ~near[0] & ~near[1]
    inside, outside = sum(power[part].sum() for part in near), power[rest].sum()
    return float(10 * np.log10(inside / outside)) if inside > 0 and outside > 0 else float("nan")


def shaped(wave: np.ndarray, clean: np.ndarray, fps: float, protocol: Protocol) -> np.ndarray:
    """Return the wave whose shape is compared: `clean`, or filtered by `protocol.shape` where it has one."""
    return clean if protocol.shape is None else protocol.shape(wave, fps)


@functools.cache
def default() -> Protocol:
    """Return the preset that is used unless another is named."""
    return load("ours")

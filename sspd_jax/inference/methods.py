"""The methods by name; and, for the region `crop`, from a stream of face crops to a pulse wave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import host_classical
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import cell_colors
from sspd_jax.inference.cell_colors import FaceCells
from sspd_jax.video.face_stream import Trace

if TYPE_CHECKING:
    from sspd_jax.checkpoints.host_network import HostModel
    from sspd_jax.inference.model import RppgModel

AUTO = "auto"
METHODS = (AUTO, "sspd", *host_classical.NAMES)
"""All side by side, the network's, and the classical ones."""

PulseExtractor = Callable[[Iterable[np.ndarray], float], tuple[Wave, Trace]]
"""From (crops on a uniform clock, time of the first in s) to the pulse wave and what `FaceCells` measured."""


def check_method(method: str, model: RppgModel | None, *, ships: bool = False) -> None:
    """Check that a method is known and has what it needs.

    Args:
      method: a name in `METHODS`.
      model: the network that was given.
      ships: whether the network that ships with the package can be asked instead.

    Raises:
      ConfigError: an unknown method, or 'sspd' without a network.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is none of {', '.join(METHODS)}")
    if method == "sspd" and model is None and not ships:
        raise ConfigError(
            "the method sspd needs --checkpoint=DIR (`python -m sspd_jax convert` makes one): the network "
            "that ships with the package is not asked with --no_network, --box or --region=crop; "
            f"{', '.join(host_classical.NAMES)} need none"
        )


def input_transform_of(model: RppgModel | HostModel | None) -> str:
    """Return what a method is given of the video: a network's own transform, else 'difference'."""
    return "difference" if model is None else model.input_transform


def pulse_extractor(method: str, model: RppgModel | None, fps: float) -> PulseExtractor:
    """Return what turns a stream of crops into a pulse wave, while it measures the colours of their cells.

    Args:
      method: a name in `METHODS`.
      model: the network, for 'sspd'.
      fps: frame rate of the crops in Hz.

    Raises:
      ConfigError: see `check_method`.
    """
    check_method(method, model)
    transform = input_transform_of(model if method == "sspd" else None)

    def measured(crops: Iterable[np.ndarray], start_s: float, cells: Trace) -> Iterator[np.ndarray]:
        face = FaceCells(transform)
        for number, crop in enumerate(crops):
            cells.note(start_s + number / fps, face.measure(crop))
            yield crop

    def extract(crops: Iterable[np.ndarray], start_s: float) -> tuple[Wave, Trace]:
        cells = Trace(FaceCells(transform).width)
        crops = measured(crops, start_s, cells)
        if method == "sspd":
            return model.infer(crops, fps, start_s), cells
        for _ in crops:
            pass
        return Wave(classical_wave(method, cells.values, fps), fps, start_s), cells

    return extract


def classical_wave(method: str, cells: np.ndarray, fps: float) -> np.ndarray:
    """Extract the pulse wave of a classical method from the colours of a face's cells.

    Args:
      method: a name in `host_classical.NAMES`.
      cells: float32 [t, width], what `FaceCells` measured.
      fps: frame rate in Hz.

    Returns:
      float64 [t_out], see `host_classical.read_trace`.
    """
    mean = cell_colors.cell_traces(cells)[0].mean(axis=1, dtype=np.float64)
    return host_classical.read_trace(method, mean, fps)

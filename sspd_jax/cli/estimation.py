"""Arguments that `predict` and `live` share: method, network, windows, and what counts as a reading."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sspd_jax.heart_rate import estimators
from sspd_jax.inference.methods import METHODS
from sspd_jax.inference.windows import Settings

if TYPE_CHECKING:
    from sspd_jax.inference.model import RppgModel

DEFAULT = Settings()


def add_arguments(parser: argparse.ArgumentParser, method: str | None) -> None:
    """Add the arguments.

    Args:
      parser: Parser of the command.
      method: Default of --method; None leaves the choice to whether there is a checkpoint.
    """
    parser.add_argument("--checkpoint", metavar="DIR", help="network to use (for --method=sspd)")
    parser.add_argument(
        "--method",
        default=method,
        choices=METHODS,
        help=f"how to find the pulse (default: {method or 'sspd where there is a checkpoint, else pos'})",
    )
    parser.add_argument(
        "--hr_estimator",
        default=DEFAULT.hr_estimator,
        choices=estimators.OF_RAW_WAVES,
        help="from wave to rate: spectral peak with harmonics handled (default), mean interval between "
        "beats, plain spectral peak, or wavelet selection and mean beat-to-beat rate as published",
    )
    parser.add_argument(  # its earlier name
        *("--read_out", "--read-out"),
        dest="hr_estimator",
        default=argparse.SUPPRESS,
        choices=estimators.OF_RAW_WAVES,
        help=argparse.SUPPRESS,
    )
    parser.add_argument("--window", type=float, default=DEFAULT.window_s, help="s (default: %(default)g)")
    parser.add_argument(
        "--min_confidence",
        type=float,
        default=DEFAULT.min_confidence,
        help="least chance of being within 3 bpm; below it there is no reading (default: %(default)g)",
    )


def load_model(checkpoint: str, *, use_cache: bool = True) -> RppgModel:
    """Load a network, and let what is compiled for it be kept in the user's cache folder."""
    from sspd_jax.inference.model import load_model  # restoring a network takes seconds to import
    from sspd_jax.runtime import compilation_cache

    if use_cache:
        compilation_cache.enable()
    return load_model(checkpoint)

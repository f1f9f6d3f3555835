"""Arguments that `predict` and `live` share: method, network, windows, and what counts as a reading."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sspd_jax.cli import common
from sspd_jax.heart_rate import confidence, estimators
from sspd_jax.inference.methods import AUTO, METHODS
from sspd_jax.inference.windows import REGIONS, Settings
from sspd_jax.video.skin_box import SkinBox

if TYPE_CHECKING:
    from sspd_jax.inference.model import RppgModel

DEFAULT = Settings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="network to use in place of the one that ships with it"
    )
    parser.add_argument(
        "--no_network",
        action="store_true",
        help="classical methods alone: auto does not ask the network that travels with the package",
    )
    parser.add_argument(
        "--method",
        default=AUTO,
        choices=METHODS,
        help="how to find the pulse: all estimators side by side, the network among them where there is one "
        "(auto, the default), the network alone (sspd), or one classical method",
    )
    parser.add_argument(
        "--hr_estimator",
        default=DEFAULT.hr_estimator,
        choices=estimators.OF_RAW_WAVES,
        help="from wave to rate: spectral peak with harmonics handled (harmonic), mean interval between "
        "beats, plain spectral peak, or wavelet selection and mean beat-to-beat rate as published (default: "
        "what suits the method; auto fuses spectra)",
    )
    parser.add_argument(
        *("--read_out", "--read-out"),
        action=common.Renamed,
        dest="hr_estimator",
        default=argparse.SUPPRESS,
        choices=estimators.OF_RAW_WAVES,
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--region",
        default=DEFAULT.region,
        choices=REGIONS,
        help="what of the picture is read: the skin of a face followed by its landmarks (default), or the "
        "mean of a box around it, as published toolboxes do",
    )
    parser.add_argument(
        "--box",
        metavar="LEFT,TOP,WIDTH,HEIGHT",
        help="where the skin is, pixels of the upright picture, or 'picture' for all of it; nothing looks "
        "for a face then: for a mask, a turned head, a face that fills the picture",
    )
    parser.add_argument("--window", type=float, default=DEFAULT.window_s, help="s (default: %(default)g)")
    parser.add_argument(
        "--min_confidence",
        type=float,
        help="least chance of being within 3 bpm; below it there is no reading (default: "
        f"{confidence.SKIN_THRESHOLD:g} for skin, {confidence.THRESHOLD:g} for a crop)",
    )


def box_of(args: argparse.Namespace) -> SkinBox | None:
    """Return the box that was asked for.

    Raises:
      ConfigError: It is no box.
    """
    return None if args.box is None else SkinBox.of(args.box)


def load_model(checkpoint: str, *, use_cache: bool = True) -> RppgModel:
    """Load a network, and let what is compiled for it be kept in the user's cache folder."""
    from sspd_jax.inference.model import load_model  # restoring a network takes seconds to import
    from sspd_jax.runtime import compilation_cache

    if use_cache:
        compilation_cache.enable()
    return load_model(checkpoint)

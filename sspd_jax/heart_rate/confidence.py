"""How sure a heart rate is: the evidence of a window, weighed.

The weights of the skin come from real people with an oximeter, real footage with a pulse put in or without
any, and simulated people (`benchmarks/confidence/fit_skin.py` fits them and measures what they are worth on
people left out). Those of a crop come from simulated people alone (`fit.py` fits them, `measure.py` measures
them on others). No label of the recording itself is involved. A confidence of 0.9 means that of such windows
nine in ten were within 3 bpm of the truth, on the people of the fit.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sspd_jax.heart_rate.signal_quality import Evidence
from sspd_jax.heart_rate.skin_evidence import SkinEvidence

WEIGHTS = Path(__file__).with_name("confidence.json")
WITHIN_BPM = 3.0
THRESHOLD = 0.9
"""Below it there is no reading. Chosen on the people whom the weights were fitted to."""
SKIN_THRESHOLD = 0.75
"""The same where the skin is read, see `benchmarks/confidence/skin_confidence.md`."""
WAVE_THRESHOLD = 0.5
"""The same of a wave without a picture, such as a finger's on a lens: nothing there passes for a pulse, and
what can go wrong is noise."""

INTERVAL_COVERAGE = 0.9
"""Share of the windows with a reading whose interval holds the true rate, on the people of the fit."""

FAINT, STRONG = -3.3, -2.7  # log10 of a relative change of colour: of blood, about 0.05 % and 0.2 %

REASONS = {
    "wave": "the wave has no clear rhythm",
    "colour": "the colour of the face does not beat",
    "cells": "the parts of the face do not beat together",
    "blood": "what beats does not have the colour of blood",
    "behind": "what lies behind the face beats as it does: that is light",
}


def features(evidence: Evidence) -> dict[str, float]:
    """Turn evidence into the numbers that are weighed, named after what they speak of.

    Shares become log odds, so that the difference between 0.98 and 0.99 counts. A colour that changes less
    than blood can (`FAINT`) is noise, one that changes more (`STRONG`) motion or light.
    """
    e = evidence
    numbers = {"wave share": _odds(e.wave_share)}
    if np.isfinite(e.colour_share):
        numbers |= {
            "colour share": _odds(e.colour_share),
            "colour apart": min(e.rates_apart_bpm, 20.0) / 10,
            "colour faint": max(0.0, FAINT - e.strength),
            "colour strong": max(0.0, e.strength - STRONG),
            "cells agree": e.cells_agree,
            "cells share": _odds(e.cells_share),
            "cells in step": _odds(e.in_step),
            "blood": 10 * float(np.clip(e.blood, -0.1, 0.1)),
        }
    if np.isfinite(e.behind):
        lit = max(0.0, min(e.behind_colour, 0.3) + 0.5)
        numbers |= {
            "behind beats": max(0.0, min(e.behind + 1, 2.0)) * e.behind_share,
            "behind colour": float(np.clip(e.behind_colour, -1.2, 0.3)),
            "behind lit": lit,
            "behind agrees": lit * e.cells_agree,  # the same light on every part of the face and on the wall
        }
    return numbers


def _odds(share: float) -> float:
    if np.isnan(share):
        return share
    share = min(max(share, 0.005), 0.995)
    return float(np.log(share / (1 - share)))


@dataclasses.dataclass(frozen=True)
class Weights:
    """Of a logistic regression.

    Attributes:
      names: of the features.
      centre: mean of each where it was fitted. # float64 [n]
      weight: of each. # float64 [n]
      bias: where all are at their centre.
    """

    names: tuple[str, ...]
    centre: np.ndarray
    weight: np.ndarray
    bias: float


@functools.cache
def weights(kind: str) -> Weights:
    """Load the weights.

    Args:
      kind: 'skin'; of a crop 'video' or 'face' (one that fills the picture: nothing is known of what lies
        behind); or 'wave' (a wave alone, as of a finger on a lens).
    """
    return as_weights(json.loads(WEIGHTS.read_text())[kind])


def as_weights(table: Mapping[str, Any]) -> Weights:
    """Return the weights that a table of `confidence.json` holds."""
    return Weights(
        tuple(table["names"]), np.array(table["centre"]), np.array(table["weight"]), float(table["bias"])
    )


def confidence(evidence: Evidence) -> tuple[float, str]:
    """Weigh the evidence of a window by the weights that fit it.

    Args:
      evidence: of the window.

    Returns:
      The chance that its rate is within 3 bpm of the truth, 0 to 1, and in words what speaks against it most.
    """
    kind = "wave" if not np.isfinite(evidence.colour_share) else "video"
    if kind == "video" and not np.isfinite(evidence.behind):
        kind = "face"
    return weighed(evidence, weights(kind))


SKIN_REASONS = {
    "rhythm": "the wave has no clear rhythm",
    "agreement": "what looks at the skin in different ways finds different rates",
    "patches": "the parts of the face do not beat together",
    "blood": "what beats does not have the colour of blood",
    "faint": "the skin's colour changes too little: it is too dark, too small or compressed too much",
    "motion": "the head moves at this rate",
    "light": "light on the face changes at this rate",
    "time": "the rate does not hold through the window",
}
BLOOD_RED_GREEN, BLOOD_BLUE_GREEN = 0.43, 0.69  # of `signal_quality.BLOOD`
STEADY = -1.7  # log10: a heart's momentary rate wanders by 2 % and more, a lamp's does not
UNSTEADY = -1.3
ABRUPT = -2.2  # log10 of a relative change of colour: a pulse of 0.6 % is a strong one


def skin_features(evidence: SkinEvidence) -> dict[str, float]:
    """Turn the evidence of a face's skin into the numbers that are weighed, named after what they speak of.

    Args:
      evidence: of one window.

    Returns:
      Name → number; NaN where the recording cannot tell. The first word of a name is the sort of reason.
    """
    e = evidence
    return {
        "rhythm wave": _odds(e.wave_share),
        "rhythm fused": _odds(e.fused_share),
        "rhythm rival": float(np.clip(e.rival, -3, 3)),
        "agreement share": e.estimators_agree,
        "agreement off": e.estimators_off / 10,
        "agreement power": _odds(e.estimators_share),
        "agreement network": e.network_off / 10,
        "agreement learned": _odds(e.network_share),
        "patches agree": e.patches_agree,
        "patches share": _odds(e.patches_share),
        "patches step": _odds(e.in_step),
        "patches green": _odds(e.green_in_step),
        "patches spread": float(np.clip(e.spread, 0, 1.5)),
        "blood cosine": float(np.log10(max(1 - e.blood, 1e-3))),
        "blood grey": float(np.clip(e.blood - e.grey, -0.2, 0.2)) * 10,
        "blood red": min(abs(e.red_green - BLOOD_RED_GREEN), 1.5),
        "blood blue": min(abs(e.blue_green - BLOOD_BLUE_GREEN), 1.5),
        "blood patches": float(np.log10(np.clip(1 - e.patches_blood, 1e-3, 1))),
        "blood same": _odds(e.same_colour),
        "blood halves": _odds(e.halves_colour),
        "faint colour": max(0.0, FAINT - e.strength),
        "faint area": min(e.area, 4.0),
        "faint light": min(e.brightness, 2.2),
        "light strong": max(0.0, e.strength - ABRUPT),
        "light eyes": float(np.clip(e.eyes_in_step, 0, 1.5)),
        "light behind": float(np.clip(e.behind + 1, 0, 2)) * e.behind_share,
        "light behind colour": float(np.clip(e.behind_colour + 1, 0, 1.5)),
        "light sides": e.sides,
        "light steady": max(0.0, STEADY - e.wander),
        "motion size": max(0.0, e.moved) * e.moved_share,
        "motion share": e.moved_share,
        "motion pose": max(0.0, e.posed),
        "motion green": min(e.green_left, 1.0),
        "motion wave": min(e.wave_left, 1.0),
        "motion off": e.left_off / 10,
        "time halves": e.halves_off / 10,
        "time wander": max(0.0, e.wander - UNSTEADY),
    }


SKIN_AGAINST = (
    *(
        "agreement off",
        "agreement network",
        "patches spread",
        "blood cosine",
        "blood red",
        "blood blue",
        "blood patches",
    ),
    *("faint colour", "light strong", "light eyes", "light behind", "light behind colour", "light sides"),
    *("light steady", "motion size", "motion share", "motion pose", "motion off", "time halves"),
    "time wander",
)
"""Features that can only speak against a rate; all others can only speak for it."""


def of_skin(evidence: SkinEvidence) -> tuple[float, str]:
    """Weigh the evidence of a window of a face's skin; see `confidence`."""
    table = weights("skin")
    return _sum_up(skin_features(evidence), table, SKIN_REASONS)


def interval_of_skin(evidence: SkinEvidence, bpm: float) -> tuple[float, float]:
    """Return the range that holds the true rate in nine of ten windows that are given a number.

    Its half width goes with the power of the fused spectrum that lies elsewhere over that near the rate, as
    a peak's place in noise does. The factor comes from the readings of the people of the fit.

    Args:
      evidence: of one window.
      bpm: its rate.

    Returns:
      Lowest and highest rate, bpm.
    """
    half = interval_factor() * elsewhere(evidence)
    return bpm - half, bpm + half


def elsewhere(evidence: SkinEvidence) -> float:
    """Return the fused spectrum's power away from the rate over that near it; the interval is as wide."""
    share = min(max(evidence.fused_share, 0.02), 0.98)
    return (1 - share) / share


@functools.cache
def interval_factor() -> float:
    """Load what the interval's half width is, bpm, where half of the power lies elsewhere."""
    return float(json.loads(WEIGHTS.read_text())["interval"]["bpm"])


def max_confidence(evidence: Iterable[Evidence]) -> tuple[float, str]:
    """Return the highest confidence of a window for which there is more than one sort of evidence."""
    return max(map(confidence, evidence), key=lambda weighed: weighed[0])


def weighed(evidence: Evidence, weights: Weights) -> tuple[float, str]:
    """Weigh the evidence of a window.

    Args:
      evidence: of the window.
      weights: of features that it has.

    Returns:
      See `confidence`.
    """
    return _sum_up(features(evidence), weights, REASONS)


@dataclasses.dataclass(frozen=True)
class Part:
    """What one number adds to the confidence of a window.

    Attributes:
      name: of the feature; its first word is the sort of reason.
      value: of this window; NaN where it cannot be told, which speaks neither way.
      centre: its mean where the weights were fitted.
      weight: of the difference of both.
      log_odds: the product: above 0 it speaks for the rate.
    """

    name: str
    value: float
    centre: float
    weight: float
    log_odds: float

    @property
    def kind(self) -> str:
        """Sort of reason, a key of `SKIN_REASONS` or `REASONS`."""
        return self.name.split()[0]


def parts_of_skin(evidence: SkinEvidence) -> tuple[float, list[Part]]:
    """Take the confidence of a window of skin apart.

    Args:
      evidence: of the window.

    Returns:
      The bias, and every part: their log odds and the bias add up to those of `of_skin`.
    """
    table = weights("skin")
    return table.bias, _parts(skin_features(evidence), table)


def _parts(numbers: Mapping[str, float], weights: Weights) -> list[Part]:
    rows = zip(weights.names, weights.centre, weights.weight, strict=True)
    parts = []
    for name, centre, weight in rows:
        value = numbers[name]
        # What cannot be told speaks neither way.
        log_odds = weight * (value - centre) if np.isfinite(value) else 0.0
        parts.append(Part(name, float(value), float(centre), float(weight), float(log_odds)))
    return parts


def by_kind(parts: Iterable[Part]) -> dict[str, float]:
    """Sum up the log odds of each sort of reason."""
    sums: dict[str, float] = {}
    for part in parts:
        sums[part.kind] = sums.get(part.kind, 0.0) + part.log_odds
    return sums


def _sum_up(numbers: Mapping[str, float], weights: Weights, reasons: Mapping[str, str]) -> tuple[float, str]:
    sums = by_kind(_parts(numbers, weights))
    worst = min(sums, key=sums.get)
    return float(1 / (1 + np.exp(-(weights.bias + sum(sums.values()))))), reasons[worst]

"""How sure a heart rate is: the evidence of a window, weighed.

The weights come from simulated people (`benchmarks/confidence/fit.py` fits them, `measure.py` beside it
measures what they are worth on others); no label of the recording itself is involved. A confidence of
0.9 means that of such windows nine in ten were within 3 bpm of the truth, on simulated people.
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

WEIGHTS = Path(__file__).with_name("confidence.json")
WITHIN_BPM = 3.0
THRESHOLD = 0.9
"""Below it there is no reading. Chosen on the people whom the weights were fitted to."""
WAVE_THRESHOLD = 0.5
"""The same of a wave without a picture, such as a finger's on a lens: nothing there passes for a pulse, and
what can go wrong is noise."""

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
      kind: 'video', 'face' (one that fills the picture: nothing is known of what lies behind) or 'wave' (a
        wave alone, as of a finger on a lens).
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
    numbers = features(evidence)
    x = np.array([numbers[name] for name in weights.names])
    pull = weights.weight * (x - weights.centre)
    by_kind: dict[str, float] = {}
    for name, part in zip(weights.names, pull, strict=True):
        kind = name.split()[0]
        by_kind[kind] = by_kind.get(kind, 0.0) + part
    worst = min(by_kind, key=by_kind.get)
    return float(1 / (1 + np.exp(-(weights.bias + pull.sum())))), REASONS[worst]

"""How sure a heart rate is: the evidence of a window, weighed.

The weights come from simulated people (`benchmarks/confidence.py` fits them and measures what they are worth
on others); no label of the recording that is read is involved. A confidence of 0.9 means that of such windows
nine in ten were within 3 bpm of the truth, on simulated people.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from sspd_jax.heart_rate.evidence import Evidence

WEIGHTS = Path(__file__).with_name("confidence.json")
WITHIN_BPM = 3.0
THRESHOLD = 0.5
"""Below it there is no reading."""

REASONS = {
    "wave": "the wave has no clear rhythm",
    "colour": "the colour of the face does not beat",
    "cells": "the parts of the face do not beat together",
    "blood": "what beats does not have the colour of blood",
    "behind": "what lies behind the face beats as it does: that is light",
}


def features(evidence: Evidence) -> dict[str, float]:
    """Turn evidence into the numbers that are weighed, named after what they speak of.

    Shares become log odds, so that the difference between 0.98 and 0.99 counts; what cannot be told is 0,
    and says so in a feature of its own.
    """
    e = evidence
    numbers = {"wave share": _odds(e.wave_share)}
    if np.isfinite(e.colour_share):
        numbers |= {
            "colour share": _odds(e.colour_share),
            "colour apart": min(e.rates_apart_bpm, 20.0) / 10,
            "colour strength": e.strength + 3,
            "cells agree": e.cells_agree,
            "cells share": _odds(e.cells_share),
            "cells in step": _odds(e.in_step),
            "blood": 4 * e.blood,
        }
        told = np.isfinite(e.behind)
        numbers |= {
            "behind told": float(told),
            "behind": float(np.clip(e.behind + 1, -1, 2)) if told else 0.0,
            "behind beats": float(np.clip(e.behind + 1, 0, 2)) * e.behind_share if told else 0.0,
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
      kind: 'video' (wave, colour, cells, background) or 'wave' (a wave alone).
    """
    table = json.loads(WEIGHTS.read_text())[kind]
    return Weights(
        tuple(table["names"]), np.array(table["centre"]), np.array(table["weight"]), float(table["bias"])
    )


def confidence(evidence: Evidence) -> tuple[float, str]:
    """Weigh the evidence of a window.

    Args:
      evidence: of the window.

    Returns:
      The chance that its rate is within 3 bpm of the truth, 0 to 1, and in words what speaks against it most.
    """
    numbers = features(evidence)
    w = weights("video" if "blood" in numbers else "wave")
    x = np.array([numbers[name] for name in w.names])
    pull = w.weight * (x - w.centre)
    by_kind: dict[str, float] = {}
    for name, part in zip(w.names, pull, strict=True):
        kind = name.split()[0]
        by_kind[kind] = by_kind.get(kind, 0.0) + part
    worst = min(by_kind, key=by_kind.get)
    return float(1 / (1 + np.exp(-(w.bias + pull.sum())))), REASONS[worst]

"""The forms of the method, as tables.

Each form says how views are made, which variant of the network reads them and which terms are summed.
Code never asks which form it serves; a new form is a new table.

* `PAPER`: what the paper's text describes (Zhang et al. 2024, arXiv 2311.05100), its open points settled.
* `ROBUST`: ours, not published: the released form, given a video that light has been taken out of, the online
  network's in slow motion; `docs/robust.md` says why, `benchmarks/robustness/robustness.md` what it is worth.
* `RELEASED`: what the authors' public PyTorch code computes, except its defects (the crop that never
  moves, frames rounded to uint8 between steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _views(mask_unit: str) -> Mapping[str, Any]:
    """Both views of a clip; the forms differ in what the online network's mask drops."""
    flip = {"horizontal": 0.5, "vertical": 0.5}
    # A table of its own for each: one that both share would be changed in both by a key of either.
    return {
        "online": {"crop": "random", "flip": {**flip}, "mask": {"unit": mask_unit, "keep": 0.7}},
        "target": {"crop": "whole", "flip": {**flip}, "mask": {"unit": "none", "keep": 0.7}},
    }


PAPER: Mapping[str, Any] = {
    "views": _views("frame"),
    "network": {
        "input_transform": "difference",
        "ts_heads": 1,
        "ts_attention_scale": "channels",
        "ts_projection": "linear",
        "ts_residual": "embedding",
    },
    "terms": {
        # L_RPD
        "wave_pearson": {"weight": 1.0},
        "wave_power_mse": {"weight": 1.0},
        # L_TSPD = L_MSE + α L_SD + β L_SNR
        "similarity_mse": {"weight": 1.0},
        "similarity_deviation": {"weight": 0.04, "weight_by_length": False, "ddof": 0},
        "similarity_inverse_snr": {"weight": 0.6},
    },
}

RELEASED: Mapping[str, Any] = {
    "views": _views("pixel"),
    "network": {
        "input_transform": "difference",
        "ts_heads": 2,
        "ts_attention_scale": "keys",
        "ts_projection": "tanh",
        "ts_residual": "input",
    },
    "terms": {
        "wave_pearson": {"weight": 0.5},
        "wave_amplitude_pearson": {"weight": 0.5},
        "wave_out_of_band": {"weight": 0.5},
        "similarity_mse": {"weight": 0.5},
        "similarity_pearson": {"weight": 0.5},
        "similarity_deviation": {"weight": 0.5, "weight_by_length": True, "ddof": 1},
        "similarity_out_of_band": {"weight": 0.2},
    },
}

ROBUST: Mapping[str, Any] = {
    **RELEASED,
    "network": {**RELEASED["network"], "input_transform": "steady_chrominance"},
    "time_stretch": {"min_speed": 0.7},
    "health": {"clips": 8},
}

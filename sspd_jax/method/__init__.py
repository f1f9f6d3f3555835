"""SSPD as pure functions: views, network, self-similarity, spectra, losses, target, routing, health.

Nothing in here reads a file, keeps state or knows a configuration; everything runs under `jax.jit`.
"""

from sspd_jax.method import (
    changes,
    conv3d,
    disturb,
    health,
    losses,
    model,
    routing,
    self_similarity,
    spectrum,
    target_ema,
    views,
)

__all__ = [
    "changes",
    "conv3d",
    "disturb",
    "health",
    "losses",
    "model",
    "routing",
    "self_similarity",
    "spectrum",
    "target_ema",
    "views",
]

"""Run health without labels: is the answer a pulse, and a different one to each face.

Nothing in the losses forbids a network that answers the same wave to every face, or sits at the edge of the
pulse band. These numbers are computed from the waves of one batch, inside the step, and cost
nothing beside it.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Float32

from sspd_jax.method import spectrum

PEAK_HALF_WIDTH_HZ = 0.15
"""9 bpm: about the main lobe of a 10 s window, and the variation of a resting heart within it."""

ALIKE = 0.95
"""Waves of different people whose spectra are more alike than this, on average, are one wave."""

AT_EDGE = 0.5
"""A larger share of waves whose strongest frequency is the first or last of the band is no pulse."""


def wave_health(wave: Float[ArrayLike, "n t"], fps: float) -> dict[str, Float32[Array, ""]]:
    """Describe the waves of a batch of different clips.

    Args:
      wave: float [n, t], the predicted waves.
      fps: their sampling rate in Hz.

    Returns:
      float32 scalars:

      - 'concentration': mean share of the in-band power within ±9 bpm of the strongest frequency; noise
        gives little, a pulse near 1;
      - 'alike': mean cosine similarity of the in-band power spectra of two different clips, 0 where there
        is one clip; 1 means one answer to every face;
      - 'at_edge': share of clips whose strongest frequency is the band's first or last;
      - 'score': concentration · (1 − alike) · (1 − at_edge), higher is healthier; the label-free score by
        which the best checkpoint is kept.
    """
    wave = jnp.asarray(wave, jnp.float32)
    n, t = wave.shape
    low, high = spectrum.PULSE_BAND_HZ
    bins = np.flatnonzero(spectrum.band_bins(t, fps, low, high))
    power = spectrum.power_spectrum(wave)[:, bins]
    total = jnp.sum(power, axis=-1, keepdims=True) + 1e-12

    top = jnp.argmax(power, axis=-1)
    half_width = max(1, round(PEAK_HALF_WIDTH_HZ * t / fps))
    near = jnp.abs(jnp.arange(len(bins)) - top[:, None]) <= half_width
    concentration = jnp.mean(jnp.sum(jnp.where(near, power, 0), axis=-1, keepdims=True) / total)

    unit = power / (jnp.linalg.norm(power, axis=-1, keepdims=True) + 1e-12)
    pairs = jnp.einsum("if,jf->ij", unit, unit)
    alike = (jnp.sum(pairs) - jnp.trace(pairs)) / max(n * (n - 1), 1)

    at_edge = jnp.mean(jnp.logical_or(top == 0, top == len(bins) - 1).astype(jnp.float32))
    score = concentration * (1 - alike) * (1 - at_edge)
    return {"concentration": concentration, "alike": alike, "at_edge": at_edge, "score": score}


def complaint(health: dict[str, float]) -> str | None:
    """Say in a sentence what looks wrong with an epoch's mean health, or None.

    Args:
      health: means of `wave_health` over an epoch, host floats.
    """
    if health["alike"] > ALIKE:
        return (
            f"the waves of different clips are {health['alike']:.2f} alike: the network may have collapsed "
            "to one answer for every face"
        )
    if health["at_edge"] > AT_EDGE:
        return (
            f"{health['at_edge']:.0%} of the waves are strongest at an edge of the pulse band: the network "
            "may follow drift or noise"
        )
    return None

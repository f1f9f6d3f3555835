"""A heart rate that goes on from window to window: a state-space model over a recording's spectra.

A heart changes its rate by some beats per minute in some seconds; what is mistaken for it (a harmonic, a nod,
noise) jumps. The rate is a hidden state on a grid; every window says by its spectrum how likely each state
is, the more decidedly the surer the window is; and forwards and backwards over the recording these are put
together.

References:
  Rabiner 1989, "A tutorial on hidden Markov models", section III, for the forward-backward procedure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sspd_jax.heart_rate import fusion

GRID_BPM = np.arange(40.0, 215.5, 0.5)
STEP_BPM = 24.0  # a heart's change in `STEP_S`, the scale of a Laplace distribution
STEP_S = 5.0
JUMP = 0.02  # chance that what was followed was not the heart
SHARPNESS = 4.0  # power of a spectrum that is taken for a likelihood
BAND = 0.9  # share of the probability between the band's edges
WIDEST_BPM = 30.0  # a wider band is no rate
REACH_S = 5.5  # how far from a reading the track is shown: what is between two that overlap it, no more


@dataclass(frozen=True, eq=False)
class RateTrack:
    """The smoothed heart rate of an unbroken part of a recording, a value a window.

    Attributes:
      times_s: float64 [w], the windows' middles, s.
      bpm: float64 [w], the likeliest rates, each by what all windows say.
      low_bpm: float64 [w], below which a twentieth of it lies.
      high_bpm: float64 [w], above which a twentieth of it lies.
    """

    times_s: np.ndarray
    bpm: np.ndarray
    low_bpm: np.ndarray
    high_bpm: np.ndarray


def likelihood(share: np.ndarray, hz: np.ndarray, duration_s: float, chance: float) -> np.ndarray:
    """Say how likely a window is at every rate of the grid.

    Args:
      share: float [f], its fused spectrum, see `fusion.FusedRate`.
      hz: float [f], the spectrum's frequencies, Hz.
      duration_s: the window's length, s.
      chance: 0 to 1, that the window's rate is right; at 0 it says nothing.

    Returns:
      float64 [grid], its mean 1.
    """
    # What the noise's slope pushed up is put back, see `fusion.peak_bpm`.
    bpm = 60 * (hz - fusion.NOISE_TILT * fusion.LOBE / (duration_s**2 * hz))
    peaked = np.interp(GRID_BPM, bpm, share, left=share.min(), right=share.min()) ** SHARPNESS
    return chance * peaked / peaked.mean() + (1 - chance)


def transition(seconds: float) -> np.ndarray:
    """Return the chance of every rate [from, to] after so many seconds, float64 [grid, grid]."""
    scale = STEP_BPM * max(seconds, 1e-3) / STEP_S
    near = np.exp(-np.abs(GRID_BPM[:, None] - GRID_BPM) / scale)
    near /= near.sum(1, keepdims=True)
    return (1 - JUMP) * near + JUMP / len(GRID_BPM)


def smooth(likelihoods: np.ndarray, times_s: np.ndarray, duration_s: float) -> RateTrack:
    """Put windows together, forwards and backwards.

    Args:
      likelihoods: float [w, grid], from `likelihood`, w ≥ 1.
      times_s: float [w], the windows' middles, increasing, s.
      duration_s: the windows' length, s; where they overlap by more than half, each counts for less.

    Returns:
      The rate of each window by what all of them say.

    Example:
      Two sure windows of 60 bpm, and between them a doubtful one that is strongest at 120:

      >>> hz = np.arange(0.7, 3.5, 0.01)
      >>> peaks = [1 / (1 + ((hz - at) / 0.05) ** 2) + 0.01 for at in (1.0, 2.0, 1.0)]
      >>> shares = [(peak / peak.sum(), hz, 10.0) for peak in peaks]
      >>> likely = [likelihood(*share, chance) for share, chance in zip(shares, (0.9, 0.3, 0.9))]
      >>> [round(bpm) for bpm in smooth(np.array(likely), np.arange(3) * 5.0, 10.0).bpm]
      [60, 60, 60]
    """
    times_s = np.asarray(times_s, np.float64)
    between_s = np.diff(times_s)
    if len(between_s):  # what many windows share was seen once
        likelihoods = likelihoods ** min(1.0, 2 * float(np.median(between_s)) / duration_s)
    steps = [transition(seconds) for seconds in between_s]
    forward, backward = np.ones_like(likelihoods), np.ones_like(likelihoods)
    for i, step in enumerate(steps, 1):
        forward[i] = _normalised((forward[i - 1] * likelihoods[i - 1]) @ step)
    for i, step in reversed(list(enumerate(steps))):
        backward[i] = _normalised(step @ (backward[i + 1] * likelihoods[i + 1]))
    chance = forward * likelihoods * backward
    total = np.cumsum(chance, axis=1)
    total /= total[:, -1:]
    low, high = (
        np.array([np.interp(level, row, GRID_BPM) for row in total])
        for level in ((1 - BAND) / 2, (1 + BAND) / 2)
    )
    return RateTrack(times_s, GRID_BPM[chance.argmax(1)], low, high)


def _normalised(values: np.ndarray) -> np.ndarray:
    return values / values.mean()

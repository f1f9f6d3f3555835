"""The pulse that a clip holds already: found where several estimators agree, and measured, to be divided out.

What several estimators see as one line in the skin's colours may be motion as well; taken out, it does no
harm, and a pulse that stayed would make the truth of what is put in wrong. A line is taken out as a narrow
band of the skin's own colours, patch by patch as strong as it is there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import fft

from sspd_jax.heart_rate import fusion
from sspd_jax.video import face_track, skin_map
from sspd_jax.video.skin_traces import SkinTraces

FPS = 30.0  # of the clock on which lines are looked for, Hz
LEAST_S = 4.0  # of a clip in which a line can be told from chance
COMMON = 1.4  # times an even spectrum's power around a line, geometric mean over the estimators
MOST_LINES = 3
BAND_HZ, EDGE_HZ = 0.2, 0.1  # to either side of a line: taken out whole, and softly
MOST_CHANGE = 0.1  # relative: more is a face that comes and goes
MOST_GAIN = 2.5  # of a patch against the whole skin
REACH = 0.12  # of the aligned crop's side: how far a patch speaks for its surroundings


@dataclasses.dataclass(frozen=True, eq=False)
class OwnPulse:
    """What is taken out of a clip.

    Attributes:
      lines_bpm: Rates of the lines, the strongest first, bpm; empty where none was found.
      change: float64 [n, 3], relative change of the skin's red, green and blue at each frame.
      gains: float64 [p, 3], by how much more or less each of `skin_map.PATCHES` changes in each colour.
    """

    lines_bpm: tuple[float, ...]
    change: np.ndarray
    gains: np.ndarray

    def over_face(self, side: int) -> np.ndarray:
        """Return the gains over an aligned crop, float32 [side, side, 3]."""
        points = face_track.TEMPLATE[:, :2] / face_track.CROP_SIDE + 0.5
        middles = np.array([points[list(corners)].mean(0) for corners in skin_map.PATCHES.values()])
        at = (np.arange(side) + 0.5) / side
        across, down = (
            np.exp(-0.5 * ((at[:, None] - middles[:, axis]) / REACH) ** 2) + 1e-6 for axis in (0, 1)
        )
        by_colour = [(down * gains) @ across.T / (down @ across.T) for gains in self.gains.T]
        return np.dstack(by_colour).astype(np.float32)


def find_lines(traces: SkinTraces) -> tuple[float, ...]:
    """Find the lines that several estimators see in the skin's colours.

    Args:
      traces: Of a clip.

    Returns:
      Rates, bpm, the strongest first; none where the clip is shorter than `LEAST_S`.
    """
    seen = traces.found
    if not seen.any() or traces.time_s[-1] < LEAST_S:
        return ()
    clock = np.arange(0, traces.time_s[-1], 1 / FPS)
    colours = np.stack([np.interp(clock, traces.time_s[seen], c[seen]) for c in traces.skin.T], 1)
    hz, shares = fusion.power_shares(fusion.estimator_waves(colours, FPS), FPS)
    fused = fusion.fuse_shares(shares)
    reach_hz = max(fusion.PEAK_HZ, 1 / clock[-1])
    even = 2 * reach_hz / np.ptp(hz)
    lines: list[float] = []
    while len(lines) < MOST_LINES and np.isfinite(fused).any():
        line = hz[fused.argmax()]
        around = np.abs(hz - line) <= reach_hz
        power = shares[:, around].sum(1) / even
        if np.exp(np.log(power + 1e-3).mean()) < COMMON:
            break
        lines.append(float(60 * line))
        fused = np.where(np.abs(hz - line) <= 2 * reach_hz, -np.inf, fused)
    return tuple(lines)


def measure_own_pulse(traces: SkinTraces) -> OwnPulse:
    """Find and measure a clip's own pulse.

    Args:
      traces: Of the clip.

    Returns:
      What is to be taken out; nothing where no line is found.
    """
    lines = find_lines(traces)
    parts = traces.patches.shape[1]
    if not lines:
        return OwnPulse((), np.zeros((len(traces.time_s), 3)), np.ones((parts, 3)))
    hidden = np.median(traces.patch_area, 0) <= 0
    changes, all_gains = [], []
    for colour in range(3):
        change = in_bands(traces.skin[:, colour], traces.time_s, lines)
        patches = np.stack([in_bands(c, traces.time_s, lines) for c in traces.patches[:, :, colour].T], 1)
        power, together = (change**2).sum(), change @ patches
        gains = np.clip(together / max(power, 1e-12), 0, MOST_GAIN)
        # A patch that goes its own way says nothing of how strongly it goes with the others.
        trusted = together**2 / np.maximum(power * (patches**2).sum(0), 1e-12)
        changes.append(np.clip(change, -MOST_CHANGE, MOST_CHANGE))
        all_gains.append(np.where(hidden, 1, 1 + trusted * (gains - 1)))
    return OwnPulse(lines, np.stack(changes, 1), np.stack(all_gains, 1))


def in_bands(values: np.ndarray, times_s: np.ndarray, lines_bpm: tuple[float, ...]) -> np.ndarray:
    """Return what of a colour's relative change lies around some lines.

    Played to and fro, a clip is exactly periodic, and its spectrum is a cosine transform of the clip: no end
    rings, and a band that is taken out of the clip is out of what is played.

    Args:
      values: float [n], a colour's mean, above 0, NaN where the face is out of view.
      times_s: float64 [n], s.
      lines_bpm: The lines, bpm.

    Returns:
      float64 [n], relative.
    """
    seen = np.isfinite(values)
    if seen.sum() < 2:
        return np.zeros(len(values))
    clock = np.linspace(times_s[0], times_s[-1], len(times_s))
    even = np.interp(clock, times_s[seen], np.asarray(values, np.float64)[seen])
    step_s = clock[1] - clock[0]
    hz = np.arange(len(even)) / (2 * (len(even) - 1) * step_s)
    away = np.min([np.abs(hz - line / 60) for line in lines_bpm], axis=0)
    kept = np.clip((BAND_HZ + EDGE_HZ - away) / EDGE_HZ, 0, 1)
    slow = fft.idct(np.where(hz < 0.3, fft.dct(even, 1), 0), 1)
    band = fft.idct(kept * fft.dct(even, 1), 1) / np.maximum(slow, 1.0)
    return np.interp(times_s, clock, band)

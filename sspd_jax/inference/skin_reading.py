"""From the skin's waves to heart rates: their spectra fused, window by window, given or refused.

`auto` is the fused rate of GREEN, POS, CHROM and OMIT over the skin and over thirteen patches of it, and of a
network where there is one; a method by name is that method alone. Whichever read the rate, the evidence for
it is looked for in all that was recorded of the face, see `heart_rate.skin_evidence`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sspd_jax.heart_rate import confidence, estimators, fusion, rate_track, skin_evidence
from sspd_jax.heart_rate.fusion import FusedRate
from sspd_jax.heart_rate.skin_evidence import SkinEvidence, SkinWindow
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import windows
from sspd_jax.inference.methods import AUTO
from sspd_jax.inference.skin_segment import SkinSegment
from sspd_jax.inference.windows import Segment, Settings, Window

LEAST_WINDOWS = 3  # that are smoothed
STILL = 1e-5  # relative: what rounding leaves of skin that does not change


def estimator_of(method: str, settings: Settings) -> str:
    """Say how a rate is estimated: what was asked for by name, else what suits method and region."""
    if settings.hr_estimator is not None or settings.region == "crop" or method == "sspd":
        return settings.hr_estimator or estimators.DEFAULT
    return "fused_spectra" if method == AUTO else "levelled_spectrum"


def judge(segment: SkinSegment, method: str, settings: Settings) -> Segment:
    """Read and judge every window of a segment, turn its wave the right way up and find its beats.

    Args:
      segment: from `read_waves`.
      method: `AUTO`, 'sspd' or a classical one.
      settings: how waves become heart rates.
    """
    traces, fps = segment.traces, segment.fps
    found, spectra, turns = [], [], {}
    for start, end in windows.spans(len(traces.time_s), fps, settings):
        window = segment.window(start, end)
        judged, wave_name, turn = judge_window(window, method, settings, start_s=float(traces.time_s[start]))
        found.append(judged)
        spectra.append(window.fused if judged.estimates_bpm else None)
        turns.setdefault(wave_name, []).append(turn)
    # The wave that is shown is the one that most windows were read from.
    name = max(turns, key=lambda key: len(turns[key]))
    values = np.nan_to_num(segment.waves[name])
    wave = Wave(values if sum(turns[name]) >= 0 else -values, fps, float(traces.time_s[0]))
    if method == AUTO and settings.hr_estimator is None:
        found = smoothed(found, spectra)
    judged = windows.with_beats(wave, found, functools.partial(_judge_again, segment, method, settings))
    return dataclasses.replace(judged, skin=segment)


def smoothed(found: Sequence[Window], spectra: Sequence[FusedRate | None]) -> list[Window]:
    """Add to each window the rate by what all of them say together, where one near by has a reading.

    Args:
      found: the windows of an unbroken part, in time.
      spectra: what was fused in each; None where there was nothing.
    """
    given_s = np.array([window.start_s for window in found if window.heart_rate_bpm is not None])
    if len(found) < LEAST_WINDOWS or not len(given_s):
        return list(found)
    likely = np.ones((len(found), len(rate_track.GRID_BPM)))
    for i, (window, fused) in enumerate(zip(found, spectra, strict=True)):
        if fused is not None:
            likely[i] = rate_track.likelihood(fused.share, fused.hz, window.duration_s, window.confidence)
    duration_s = found[0].duration_s
    track = rate_track.smooth(likely, np.array([w.start_s + w.duration_s / 2 for w in found]), duration_s)
    rows = zip(found, track.bpm, track.low_bpm, track.high_bpm, strict=True)
    return [
        dataclasses.replace(window, smoothed_bpm=float(bpm), smoothed_interval_bpm=(float(low), float(high)))
        if np.abs(given_s - window.start_s).min() <= rate_track.REACH_S
        and high - low <= rate_track.WIDEST_BPM
        else window
        for window, bpm, low, high in rows
    ]


def _judge_again(segment: SkinSegment, method: str, settings: Settings, start: int, end: int) -> Window:
    window, start_s = segment.window(start, end), float(segment.traces.time_s[start])
    return judge_window(window, method, settings, start_s=start_s)[0]


def judge_window(
    window: SkinWindow, method: str, settings: Settings, *, start_s: float = 0.0
) -> tuple[Window, str, float]:
    """Estimate the rate of one window and judge it.

    Args:
      window: what was seen in it.
      method: `AUTO`, 'sspd' or a classical one.
      settings: estimator and least confidence.
      start_s: start of the window, s.

    Returns:
      The window; the name of the wave that shows its pulse best; and a number whose sign says which way up
      that wave is (0: cannot be told).
    """
    duration_s = len(window.skin) / window.fps
    found = weigh(window, method, settings)
    if isinstance(found, str):
        return Window(start_s, duration_s, None, 0.0, found, None), _named(method), 0.0
    chance, why = _judged(window, found.evidence, settings)
    bpm = found.bpm
    given, interval = (None, None) if why else (bpm, confidence.interval_of_skin(found.evidence, bpm))
    judged = Window(start_s, duration_s, given, chance, why, bpm, found.estimates_bpm, interval)
    return judged, found.wave, skin_evidence.upright(window, window.waves[found.wave], bpm)


class Estimate(NamedTuple):
    """The rate of one window, not yet judged.

    Attributes:
      bpm: the rate; NaN where there is none.
      wave_name: the wave that it was read from.
      estimates_bpm: what each method says by itself.
      why: why there is no rate, '' where there is one.
    """

    bpm: float
    wave_name: str
    estimates_bpm: dict[str, float]
    why: str


def estimate_window(window: SkinWindow, method: str, settings: Settings) -> Estimate:
    """Estimate the rate of one window.

    Args:
      window: what was seen in it.
      method: `AUTO`, 'sspd' or a classical one.
      settings: the estimator.
    """

    def blank(why: str) -> Estimate:
        return Estimate(float("nan"), _named(method), {}, why)

    none = windows.NO_COLOUR if _is_grey(window) else windows.FLAT
    if (np.ptp(window.skin, axis=0) <= STILL * window.skin.mean(axis=0)).all():
        return blank(none)
    try:
        fused = window.fused
        bpm, estimates, name = fused.bpm, dict(fused.rates_bpm), method
        if method != AUTO:
            wave = window.waves.get(method)
            if wave is None or not np.isfinite(wave).all():
                return blank("the wave ends before the window does")
            bpm = estimates[method] = rate_of(wave, window.fps, method, settings)
        elif np.isfinite(bpm):
            name = skin_evidence.clearest(window, bpm)
            if settings.hr_estimator:
                bpm = rate_of(window.waves[name], window.fps, method, settings)
    except ValueError as error:
        return blank(f"at {window.fps:g} frames/s no pulse can be read ({error})")
    return Estimate(bpm, name, estimates, "") if np.isfinite(bpm) else blank(none)


def judge_rate(window: SkinWindow, wave: np.ndarray, bpm: float, settings: Settings) -> tuple[float, str]:
    """Weigh what speaks for a rate of one window.

    Args:
      window: what was seen in it.
      wave: float [t], the wave that the rate was read from, finite.
      bpm: the rate.
      settings: the least confidence.

    Returns:
      The chance that the rate is within 3 bpm of the truth, and why it is no reading; '' where it is one.
    """
    return _judged(window, skin_evidence.extract(window, wave, bpm, window.fused), settings)


def _judged(window: SkinWindow, evidence: SkinEvidence, settings: Settings) -> tuple[float, str]:
    chance, why = confidence.of_skin(evidence)
    duration_s = len(window.skin) / window.fps
    if _is_grey(window):
        return chance, windows.NO_COLOUR
    if chance >= settings.least_confidence:
        return chance, ""
    if duration_s < windows.ENOUGH_S:
        why += f", and {duration_s:.1f} s are too short to be sure: take {windows.PART_S:g} s or more"
    return chance, why


@dataclasses.dataclass(frozen=True, eq=False)
class Weighed:
    """What a window's rate was read from.

    Attributes:
      bpm: the rate, trusted or not.
      estimates_bpm: what each estimator says alone.
      wave: name of the wave that shows its pulse best.
      fused: all spectra together.
      evidence: for the rate and against it.
    """

    bpm: float
    estimates_bpm: Mapping[str, float]
    wave: str
    fused: FusedRate
    evidence: SkinEvidence


def weigh(window: SkinWindow, method: str, settings: Settings) -> Weighed | str:
    """Estimate the rate of one window and collect the evidence for it.

    Args:
      window: what was seen in it.
      method: `AUTO`, 'sspd' or a classical one.
      settings: estimator.

    Returns:
      What was found; or why there is not even a rate to doubt.
    """
    estimate = estimate_window(window, method, settings)
    if not np.isfinite(estimate.bpm):
        return estimate.why
    wave = window.waves[estimate.wave_name]
    evidence = skin_evidence.extract(window, wave, estimate.bpm, window.fused)
    return Weighed(estimate.bpm, estimate.estimates_bpm, estimate.wave_name, window.fused, evidence)


def _is_grey(window: SkinWindow) -> bool:
    return bool(np.ptp(window.skin, axis=-1).max() < windows.GREY_LEVELS)


def rate_of(wave: np.ndarray, fps: float, method: str, settings: Settings) -> float:
    """Estimate the rate of one method's wave in bpm; NaN where there is none.

    A classical wave's spectrum is freed of its noise's slope first, see `fusion.power_shares`, unless an
    estimator was asked for by name; a network's has no such slope.
    """
    name = settings.hr_estimator
    if name is None and method != "sspd":
        hz, share = fusion.power_shares(wave, fps)
        return fusion.peak_bpm(hz, share, len(wave) / fps)
    return estimators.estimate(name or estimators.DEFAULT, wave, fps)


def _named(method: str) -> str:
    return "pos" if method == AUTO else method

"""What speaks for a heart rate and what against it, from everything that was recorded of a face.

A pulse has the colour of blood, in every part of the skin at once and in step, and neither in the eyes nor
behind the head; its rate wanders a little; whatever looks at it in another way finds the same rate. A head
that nods is in its own track, a light is on what is not skin, too, or on one side, or of another colour, or
too steady. Each of these is a number here, for one window; `confidence` weighs them.

References:
  de Haan & van Leest, Physiol. Meas. 35 (2014), 1913–1926, for the colour of blood;
  Wang et al., IEEE Trans. Biomed. Eng. 64 (2017), 1479–1491, for the plane of chrominance.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from scipy import signal

from sspd_jax.heart_rate import fusion
from sspd_jax.heart_rate.fusion import FusedRate
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.heart_rate.signal_quality import (
    BLOOD,
    FAINTEST,
    GREY,
    amplitude_at,
    chrominance,
    in_band,
    relative_change,
    share_near,
)
from sspd_jax.heart_rate.signal_quality import upright as upright_of_cells

AGREE_BPM = 3.0
FAR_BPM = 20.0  # rates that are farther apart are as bad as these
PEAK_HZ = 0.1
RIVAL_HZ = 0.2  # what is nearer belongs to the same peak
# By how much a track trembles where a head holds still: shift and growth in units of the face's spread, turn
# and pose in radians. A regression is held back by it: a head moves with its own pulse by some hundredths of
# a pixel, and a track scaled to unit variance would take the pulse out.
TREMBLE = np.array([0.004, 0.004, 0.004, 0.004, 0.01, 0.01, 0.01])
PULSE_CHANGE = 0.004  # of green, relative, standard deviation in 0.6–3.6 Hz: more is motion or light
SLOW_S = 1.0  # over which the momentary rate is averaged


@dataclasses.dataclass(frozen=True, eq=False)
class SkinWindow:
    """Everything that was seen of a face in one window, on a uniform clock.

    Attributes:
      fps: samples per second, Hz.
      skin: float [t, 3], mean RGB of the skin, 0 to 255.
      skin_area: pixels of the picture that it weighs.
      patches: float [t, p, 3], the same of parts of the skin; NaN where one was never seen.
      patch_area: float [p], pixels.
      eyes: float [t, 3], of eyes and brows.
      crop: float [t, 3], of the face with hair and surroundings.
      behind: float [t, 3], of what lies around the face; NaN where nothing does.
      track: float [t, 7], see `track`.
      waves: name → float [t], pulse waves of the skin by estimators and networks.
      patch_waves: float [k, p, t], of the patches by `names`.
    """

    fps: float
    skin: np.ndarray
    skin_area: float
    patches: np.ndarray
    patch_area: np.ndarray
    eyes: np.ndarray
    crop: np.ndarray
    behind: np.ndarray
    track: np.ndarray
    waves: Mapping[str, np.ndarray]
    patch_waves: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `fusion.ESTIMATORS` that can read this rate."""
        return fusion.readable(self.fps)

    @functools.cached_property
    def fused(self) -> FusedRate:
        """What all estimators, all patches and the network say together, see `fuse`."""
        return fuse(self)


def track(geometry: np.ndarray, residual: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Put together how a face moved: what the aligned crop followed and what it left.

    Args:
      geometry: [t, 4], x, y and spread in pixels, turn in radians.
      residual: [t, 4], see `SkinTraces.residual`.
      pose: [t, 3], yaw, pitch and roll in degrees.

    Returns:
      float64 [t, 7]: shift right and down in units of the face's mean spread, logarithm of its size, turn,
      yaw, pitch and roll in radians.
    """
    turn = np.unwrap(geometry[:, 3])
    cosine, sine = np.cos(turn), np.sin(turn)
    right = cosine * residual[:, 0] - sine * residual[:, 1]
    down = sine * residual[:, 0] + cosine * residual[:, 1]
    spread = np.maximum(geometry[:, 2], 1e-6)
    moved = [geometry[:, 0] / spread.mean() + right, geometry[:, 1] / spread.mean() + down]
    turned = np.unwrap(np.radians(pose), axis=0)
    return np.column_stack([*moved, np.log(spread) + residual[:, 2], turn + residual[:, 3], turned])


def fuse(window: SkinWindow) -> FusedRate:
    """Estimate one rate from all estimators, all patches and the network; see `fusion.fused_rate`.

    What goes with the head's motion is taken out of the estimators' waves first.
    """
    waves = np.stack([window.waves[name] for name in window.names])
    network = window.waves.get("sspd")
    return fusion.fused_rate(
        waves,
        window.fps,
        patch_waves=window.patch_waves,
        patch_area=window.patch_area,
        network=network if network is not None and np.isfinite(network).all() else None,
        names=window.names,
        without_motion=without_motion(waves.T, window.track, window.fps).T,
        steady=steadiness(window.skin, window.fps),
    )


def steadiness(skin: np.ndarray, fps: float) -> float:
    """Tell how far a skin's brightness changes as a pulse can change it.

    Args:
      skin: float [t, 3], mean RGB, 0 to 255.
      fps: samples per second, Hz.

    Returns:
      1 for a change that is far below `PULSE_CHANGE`, 0.5 at it, towards 0 above: a squared Lorentzian.
    """
    change = in_band(relative_change(skin)[:, 1:2], fps).std()
    return float(1 / (1 + (change / PULSE_CHANGE) ** 2))


def clearest(window: SkinWindow, bpm: float) -> str:
    """Return which wave has the largest share of its power at a rate."""
    usable = {name: wave for name, wave in window.waves.items() if np.isfinite(wave).all()}
    shares = share_near(np.stack(list(usable.values()), axis=1), window.fps, bpm / 60)
    return list(usable)[int(shares.argmax())]


def upright(window: SkinWindow, wave: np.ndarray, bpm: float) -> float:
    """Tell which way up a wave is, see `signal_quality.upright`."""
    return upright_of_cells(wave, window.fps, bpm, window.skin[:, None])


@dataclasses.dataclass(frozen=True)
class SkinEvidence:
    """Of one window, at the rate that was read in it. NaN: cannot be told from this recording.

    Attributes:
      wave_share: share of the wave's power in 0.6–3.6 Hz that lies near the rate or its double.
      fused_share: share of the fused spectrum near the rate.
      rival: logarithm of the fused spectrum at the rate over its highest value elsewhere.
      estimators_agree: share of GREEN, POS, CHROM and OMIT with the rate, within 3 bpm.
      estimators_off: how far they are from it on average, bpm, each at the most `FAR_BPM`.
      estimators_share: mean over them of the share of power near the rate.
      patches_agree: share of the patches whose own chrominance has its strongest peak at the rate.
      patches_share: mean over them of the share of chrominance power near the rate.
      in_step: how much the patches' chrominance is in step at the rate, 0 (at random) to 1.
      green_in_step: the same of their green.
      spread: how unlike the patches' green amplitudes are: standard deviation over mean.
      sides: logarithm (base 10) of the green amplitude of one side over the other, without its sign.
      blood: cosine between the change of colour at the rate and that of blood, 0 to 1.
      grey: the same with white.
      red_green, blue_green: change of red and of blue in step with green, over green's.
      patches_blood: cosine with blood that four fifths of the patches surpass.
      same_colour: mean cosine between a patch's change of colour and the whole skin's.
      strength: log10 of the relative change of colour at the rate.
      eyes: log10 of the green amplitude at the rate of eyes and brows over that of the skin.
      eyes_in_step: the part of it in step with the skin, over the skin's.
      behind: log10 of the green amplitude behind the head over that of the skin.
      behind_share: share of the power behind the head that lies near the rate.
      behind_colour: log10 of the coloured change behind the head over that of the skin.
      moved: log10 of the track's amplitude at the rate, in units of its tremble, its largest part.
      posed: the same of the head's pose.
      moved_share: share of the track's power in 0.6–3.6 Hz near the rate, its largest part.
      green_left: share of green's power at the rate that is left without what goes with the track.
      wave_left: the same of the wave.
      left_off: how far the strongest chrominance is from the rate without what goes with the track, bpm.
      wander: log10 of the relative standard deviation of the momentary rate.
      halves_off: how far the rates of both halves are from the rate on average, bpm.
      halves_colour: cosine between the changes of colour in both halves.
      brightness: log10 of the skin's mean green, 0 to 255.
      area: log10 of the skin's pixels.
      network_off: how far the rate of the network alone is from the rate, bpm, at the most `FAR_BPM`.
      network_share: share of the power of the network's wave that lies near the rate or its double.
    """

    wave_share: float
    fused_share: float
    rival: float
    estimators_agree: float
    estimators_off: float
    estimators_share: float
    patches_agree: float
    patches_share: float
    in_step: float
    green_in_step: float
    spread: float
    sides: float
    blood: float
    grey: float
    red_green: float
    blue_green: float
    patches_blood: float
    same_colour: float
    strength: float
    eyes: float
    eyes_in_step: float
    behind: float
    behind_share: float
    behind_colour: float
    moved: float
    posed: float
    moved_share: float
    green_left: float
    wave_left: float
    left_off: float
    wander: float
    halves_off: float
    halves_colour: float
    brightness: float
    area: float
    network_off: float = float("nan")
    network_share: float = float("nan")


def extract(window: SkinWindow, wave: np.ndarray, bpm: float, fused: FusedRate) -> SkinEvidence:
    """Collect the evidence of one window.

    Args:
      window: what was seen in it.
      wave: float [t], that the rate was read from, finite.
      bpm: the rate.
      fused: of the same window, see `fuse`.
    """
    hz, fps = bpm / 60, window.fps
    skin = relative_change(window.skin)
    colour = amplitude_at(skin, fps, hz)
    return SkinEvidence(
        **_of_spectra(window, wave, hz, fused),
        **_of_patches(window, colour, hz),
        **_of_colour(colour),
        **_of_surroundings(window, colour, hz),
        **_of_motion(window, skin, wave, bpm),
        **_of_time(window, skin, bpm),
        brightness=float(np.log10(max(window.skin[:, 1].mean(), 1))),
        area=float(np.log10(max(window.skin_area, 1))),
        **_of_network(window, hz, fused),
    )


def _of_network(window: SkinWindow, hz: float, fused: FusedRate) -> dict[str, float]:
    if "sspd" not in fused.rates_bpm:
        return {}
    share = share_near(window.waves["sspd"][:, None], window.fps, hz)
    return {"network_off": _apart(fused.rates_bpm["sspd"], 60 * hz), "network_share": float(share[0])}


def _of_spectra(window: SkinWindow, wave: np.ndarray, hz: float, fused: FusedRate) -> dict[str, float]:
    near = np.abs(fused.hz - hz) <= PEAK_HZ
    elsewhere = (np.abs(fused.hz - hz) > RIVAL_HZ) & (np.abs(fused.hz - 2 * hz) > RIVAL_HZ)
    height = np.log(fused.share + 1e-12)
    off = np.array([_apart(fused.rates_bpm[name], 60 * hz) for name in window.names])
    waves = np.stack([window.waves[name] for name in window.names], axis=1)
    return {
        "wave_share": float(share_near(wave[:, None], window.fps, hz)[0]),
        "fused_share": float(fused.share[near].sum()),
        "rival": float(height[near].max(initial=-28) - height[elsewhere].max(initial=-28)),
        "estimators_agree": float((off <= AGREE_BPM).mean()),
        "estimators_off": float(off.mean()),
        "estimators_share": float(share_near(waves, window.fps, hz).mean()),
    }


def _of_patches(window: SkinWindow, colour: np.ndarray, hz: float) -> dict[str, float]:
    fps = window.fps
    seen = (window.patch_area >= fusion.LEAST_AREA) & np.isfinite(window.patches).all((0, 2))
    names = ("patches_agree", "patches_share", "in_step", "green_in_step", "spread", "sides")
    if seen.sum() < 3:
        return dict.fromkeys((*names, "patches_blood", "same_colour"), float("nan"))
    change = relative_change(window.patches[:, seen])  # [t, p, 3]
    weight = np.sqrt(window.patch_area[seen])
    weight = weight / weight.sum()
    pulse = chrominance(change, fps)
    rates = np.array([spectral_peak_rate(one, fps) for one in pulse.T])
    agree = np.abs(rates - 60 * hz) <= AGREE_BPM
    beats = amplitude_at(pulse, fps, hz)
    colours = amplitude_at(change, fps, hz)  # [p, 3]
    green = colours[:, 1]
    size = np.abs(green)
    mean = weight @ size
    side = SIDES[: len(window.patch_area)][seen]
    one, other = (size[side == s].mean() if (side == s).any() else np.nan for s in (-1, 1))
    sides = abs(np.log10((one + FAINTEST) / (other + FAINTEST)))
    length = np.linalg.norm(colours, axis=-1) + FAINTEST
    like_blood = np.abs(colours @ BLOOD) / (length * np.linalg.norm(BLOOD))
    same = np.abs(colours @ np.conj(colour)) / (length * (np.linalg.norm(colour) + FAINTEST))
    return {
        "patches_agree": float(weight @ agree),
        "patches_share": float(weight @ share_near(pulse, fps, hz)),
        "in_step": _in_step(weight * beats),
        "green_in_step": _in_step(weight * green),
        "spread": float(np.sqrt(weight @ (size - mean) ** 2) / (mean + FAINTEST)),
        "sides": float(min(sides, 1.0)) if np.isfinite(sides) else 0.0,
        "patches_blood": float(np.quantile(like_blood, 0.2)),
        "same_colour": float(weight @ same),
    }


SIDES = np.array([-1, 0, 1, 0, 0, -1, 1, -1, 1, -1, 1, 0, 0])
"""On which side of the face each of the patches lies: the person's right −1, the left 1."""


def _in_step(beats: np.ndarray) -> float:
    return float(np.abs(beats.sum()) / (np.abs(beats).sum() + FAINTEST))


def _of_colour(colour: np.ndarray) -> dict[str, float]:
    length = np.linalg.norm(colour) + FAINTEST
    power = np.abs(colour[1]) ** 2 + FAINTEST**2
    red, blue = ((colour[i] * np.conj(colour[1])).real / power for i in (0, 2))
    return {
        "blood": float(np.abs(colour @ BLOOD) / (length * np.linalg.norm(BLOOD))),
        "grey": float(np.abs(colour @ GREY) / (length * np.linalg.norm(GREY))),
        "red_green": float(np.clip(red, -2, 3)),
        "blue_green": float(np.clip(blue, -2, 3)),
        "strength": float(np.log10(length)),
    }


def _of_surroundings(window: SkinWindow, colour: np.ndarray, hz: float) -> dict[str, float]:
    fps = window.fps
    green = np.abs(colour[1]) + FAINTEST
    tint = np.linalg.norm(colour - colour.mean()) + FAINTEST
    nan = float("nan")
    found = dict.fromkeys(("eyes", "eyes_in_step", "behind", "behind_share", "behind_colour"), nan)
    if np.isfinite(window.eyes).all():
        eyes = amplitude_at(relative_change(window.eyes), fps, hz)
        found["eyes"] = float(np.log10((np.abs(eyes[1]) + FAINTEST) / green))
        found["eyes_in_step"] = float((eyes[1] * np.conj(colour[1])).real / green**2)
    if np.isfinite(window.behind).all():
        change = relative_change(window.behind)
        behind = amplitude_at(change, fps, hz)
        found["behind"] = float(np.log10((np.abs(behind[1]) + FAINTEST) / green))
        found["behind_share"] = float(share_near(change[:, 1:2], fps, hz)[0])
        found["behind_colour"] = float(np.log10((np.linalg.norm(behind - behind.mean()) + FAINTEST) / tint))
    return found


def _of_motion(window: SkinWindow, skin: np.ndarray, wave: np.ndarray, bpm: float) -> dict[str, float]:
    hz, fps = bpm / 60, window.fps
    steady = signal.detrend(window.track, axis=0)
    size = np.abs(amplitude_at(steady, fps, hz)) / TREMBLE
    moved, posed = (np.log10(max(part.max(), 0.03)) for part in (size[:4], size[4:]))
    # A raw wave lies far from 0, which would leak into its amplitude at the rate.
    wave = signal.detrend(wave)
    signals = np.column_stack([skin, wave / (wave.std() + 1e-12)])
    left = without_motion(signals, window.track, fps)
    before = np.abs(amplitude_at(signals, fps, hz)) ** 2
    share = np.abs(amplitude_at(left, fps, hz)) ** 2 / np.maximum(before, 1e-30)
    rate = spectral_peak_rate(chrominance(left[:, :3], fps), fps)
    return {
        "moved": float(moved),
        "posed": float(posed),
        "moved_share": float(share_near(steady[:, :4], fps, hz).max()),
        "green_left": float(min(share[1], 1.5)),
        "wave_left": float(min(share[3], 1.5)),
        "left_off": _apart(rate, bpm),
    }


def without_motion(signals: np.ndarray, moved: np.ndarray, fps: float) -> np.ndarray:
    """Take out of signals what goes with a head's motion, by least squares in 0.6–3.6 Hz.

    Args:
      signals: float [t, n].
      moved: float [t, 7], a track in the units of `TREMBLE`; its squares are taken as well: a nod changes the
        light at twice its rate, too.
      fps: samples per second, Hz.

    Returns:
      float64 [t, n], what is left in the band. The fit is held back by how much a still head's track
      trembles.
    """
    steady = signal.detrend(moved / TREMBLE, axis=0)
    squares = signal.detrend(steady**2, axis=0) / 10
    design = in_band(np.concatenate([steady, squares], axis=1), fps)
    wanted = in_band(signals - signals.mean(axis=0), fps)
    normal = design.T @ design + len(design) * np.eye(design.shape[1])
    return wanted - design @ np.linalg.solve(normal, design.T @ wanted)


def _of_time(window: SkinWindow, skin: np.ndarray, bpm: float) -> dict[str, float]:
    hz, fps = bpm / 60, window.fps
    half = len(skin) // 2
    waves = np.stack([window.waves[name] for name in window.names])
    halves = (waves[:, :half], waves[:, half:])
    rates = [fusion.fused_rate(part, fps, names=window.names).bpm for part in halves]
    one, other = (amplitude_at(part, fps, hz) for part in (skin[:half], skin[half:]))
    sizes = np.linalg.norm(one) * np.linalg.norm(other)
    return {
        "wander": _wander(window.waves["pos"], fps, hz),
        "halves_off": float(np.mean([_apart(rate, bpm) for rate in rates])),
        "halves_colour": float(np.abs(np.vdot(one, other)) / (sizes + FAINTEST**2)),
    }


def _wander(wave: np.ndarray, fps: float, hz: float) -> float:
    """Return log10 of the relative standard deviation of the momentary rate near a rate."""
    at = np.fft.fftfreq(len(wave), 1 / fps)
    bins = np.fft.fft(wave - wave.mean())
    bins[np.abs(at - hz) > 0.3] = 0  # without negative frequencies what is left is an analytic signal
    momentary = np.diff(np.unwrap(np.angle(np.fft.ifft(bins)))) * fps / (2 * np.pi)
    length = max(1, min(round(SLOW_S * fps), len(momentary) // 3))
    slow = np.convolve(momentary, np.ones(length) / length, "valid")[length // 2 : -(length // 2) or None]
    return float(np.log10(max(slow.std() / hz, 0.002)))


def _apart(rate: float, bpm: float) -> float:
    return float(min(abs(rate - bpm), FAR_BPM)) if np.isfinite(rate) else FAR_BPM

"""Run health without labels: is the answer a pulse, and a different one to each face.

Nothing in the losses forbids a network that answers the same wave to every face, sits at the edge of the
pulse band, or follows the light. `wave_health` is computed from the waves of one batch, inside the step, and
costs nothing beside it. `probe` has the network read a few fixed clips again and again, changed in ways that
leave their pulse alone; `docs/robust.md` says what each number is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Float32, PRNGKeyArray, Real

from sspd_jax.heart_rate import classical
from sspd_jax.method import input_transform, spectrum, views

PEAK_HALF_WIDTH_HZ = 0.15
"""9 bpm: about the main lobe of a 10 s window, and the variation of a resting heart within it."""

ALIKE = 0.95
"""Waves of different people whose spectra are more alike than this, on average, are one wave."""

AT_EDGE = 0.5
"""A larger share of waves whose strongest frequency is the first or last of the band is no pulse."""


def wave_health(wave: Float[ArrayLike, "n t"], fps: float) -> dict[str, Float32[Array, ""]]:
    """Describe the waves of a batch of different clips.

    Args:
      wave: Predicted waves, float [n, t].
      fps: Their sampling rate in Hz.

    Returns:
      float32 scalars:

      - 'concentration': mean share of the in-band power within ±9 bpm of the strongest frequency; noise
        gives little, a pulse near 1;
      - 'alike': mean cosine similarity of the in-band power spectra of two different clips, 0 where there
        is one clip; 1 means one answer to every face;
      - 'at_edge': share of clips whose strongest frequency is the band's first or last;
      - 'score': concentration · (1 − alike) · (1 − at_edge), higher is healthier; the label-free score by
        which the best checkpoint is kept.

    Example:
      Two clips with one answer, 72 bpm:

      >>> wave = np.sin(2 * np.pi * 1.2 * np.arange(300, dtype=np.float32) / 30)
      >>> health = wave_health(np.stack([wave, wave]), 30.0)
      >>> {name: round(float(value), 2) for name, value in health.items()}
      {'concentration': 1.0, 'alike': 1.0, 'at_edge': 0.0, 'score': 0.0}
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


LOGGED_AS = "probe/"
"""What the names of a probe's measures begin with in a run's log."""

TRUSTED = 0.4
"""Less 'trust' raises the alarm; `benchmarks/robustness/robustness.md` says how it was chosen."""

PROBE_LIGHT = 0.005
"""Amplitude of the synthetic light change, relative: about a pulse's."""

PROBE_LIGHT_HZ = (0.6, 3.0)
"""Its frequency: where a lamp's beat would be taken for a pulse."""

PROBE_CROP = 0.85
"""Side of the crop of the other view, as a share of the face's."""


def probe(
    read: Callable[[Float32[Array, "n t s s 3"]], Float32[Array, "n t"]],
    clips: Real[ArrayLike, "n frames h h 3"],
    size: int,
    fps: float,
    key: PRNGKeyArray,
    transform: str = "difference",
    people: Sequence[str] | None = None,
    online: Callable[[Float32[Array, "n t s s 3"]], Float32[Array, "n t"]] | None = None,
) -> dict[str, Float32[Array, ""]]:
    """Have a network infer clips changed in ways that leave their pulse alone, and describe its waves.

    Args:
      read: The network: frame differences [n, t, size, size, 3] → waves [n, t].
      clips: Video, uint8 or float [n, t + 1, h, h, 3], RGB.
      size: Height and width of the network's input in pixels.
      fps: Frame rate of the clips in Hz, above 6.
      key: Random key of the other view and the synthetic light.
      transform: What the network is given of a video, a name in `input_transform.INPUT_TRANSFORMS`.
      people: Who is seen in each clip; everybody is another one, if not given.
      online: The other network, if there is one; it is given the whole faces.

    Returns:
      float32 scalars, those of `wave_health` of the whole faces, and

      * 'repeated': mean over pairs of people of the largest cross-correlation at any lag, without its sign:
        1 is one answer; 0 where there is one person, whose clips may well beat alike;
      * 'in_band': mean share of the power that lies in the pulse band;
      * 'views_agree': mean correlation with the wave of another view, cropped and flipped;
      * 'regions_agree': mean correlation of the waves of the left and the right half of the face;
      * 'pos_agrees', 'green_agrees': mean cosine of the in-band power spectrum with that of POS and of GREEN
        on the mean colour of the clip;
      * 'steady_pos_agrees': that with POS on the mean colour of the face without the light that its surround
        shows (`input_transform`), which is right where POS is led astray by coloured light;
      * 'trust': steady_pos_agrees − repeated: how much more the waves resemble what POS finds in their own
        face than each other, from −1 to 1;
      * 'surround_agrees': that with the brightness of what is around the face, where no pulse is;
      * 'light_moves': 1 − mean correlation with the wave under light that changes as a sine;
      * 'networks_agree': mean correlation with the wave of the other network, if there is one.
    """
    crop_key, light_key = jax.random.split(key)
    clips = jnp.asarray(clips)
    n, t = clips.shape[0], clips.shape[1] - 1
    inner = round(PROBE_CROP * clips.shape[2])
    is_left = jnp.arange(size)[:, None] < size // 2
    hz = jax.random.uniform(light_key, (n, 1), minval=PROBE_LIGHT_HZ[0], maxval=PROBE_LIGHT_HZ[1])
    light = 1 + PROBE_LIGHT * jnp.sin(2 * jnp.pi * hz * jnp.arange(t + 1, dtype=jnp.float32) / fps)

    def one(clip, key, light):
        """Read one clip in five ways: a probe's memory does not grow with the number of clips."""
        frames = views.resize_area(clip, size)
        other = views.random_crop(clip, key, inner)[:, :, ::-1]
        whole = input_transform.apply(frames, transform)
        ways = [
            whole,
            input_transform.apply(_resize_to(other, size), transform),
            jnp.where(is_left, whole, 0),  # a difference of 0 is a still picture
            jnp.where(is_left, 0, whole),
            input_transform.apply(frames * light[:, None, None, None], transform),
        ]
        traces = (jnp.mean(frames, axis=(1, 2))[1:], _steady_trace(frames), _surround_trace(frames))
        return read(jnp.stack(ways)), None if online is None else online(whole[None])[0], traces

    waves, others, (trace, steady, surround) = jax.lax.map(
        lambda each: one(*each), (clips, jax.random.split(crop_key, n), light)
    )
    wave, cropped, left, right, lit = waves.swapaxes(0, 1)
    found = {
        "repeated": repetition(wave, people),
        "in_band": jnp.mean(spectrum.snr(wave, fps)),
        "views_agree": correlation(wave, cropped),
        "regions_agree": correlation(left, right),
        "pos_agrees": spectral_likeness(wave, classical.pos(trace, fps), fps),
        "green_agrees": spectral_likeness(wave, classical.green(trace, fps), fps),
        "steady_pos_agrees": spectral_likeness(wave, classical.pos(steady, fps), fps),
        "surround_agrees": spectral_likeness(wave, classical.green(surround, fps), fps),
        "light_moves": 1 - correlation(wave, lit),
    }
    if others is not None:
        found["networks_agree"] = correlation(others, wave)
    found["trust"] = found["steady_pos_agrees"] - found["repeated"]
    return {**wave_health(wave, fps), **found}


def _steady_trace(frames: Float32[Array, "frames s s 3"]) -> Float32[Array, "frames-1 3"]:
    """Mean colour of the face, without what light does by `input_transform.without_light`."""
    face = 1 - input_transform.outside(*frames.shape[1:3])
    face = face / face.sum()
    first = jnp.einsum("hwc,hw->c", frames[0], face)
    return first + jnp.cumsum(
        jnp.einsum("thwc,hw->tc", input_transform.apply(frames, "steady"), face), axis=0
    )


def _surround_trace(frames: Float32[Array, "frames s s 3"]) -> Float32[Array, "frames-1 3"]:
    """Mean colour of what is around the face."""
    around = input_transform.outside(*frames.shape[1:3])
    return jnp.einsum("thwc,hw->tc", frames[1:], around / around.sum())


def _resize_to(frames: Real[Array, "t h h 3"], size: int) -> Float32[Array, "t {size} {size} 3"]:
    """Resize a crop, which may be smaller than the network's input, bilinearly where it has to grow."""
    if frames.shape[1] >= size:
        return views.resize_area(frames, size)
    shape = (len(frames), size, size, 3)
    return jax.image.resize(frames.astype(jnp.float32), shape, "linear")


def correlation(one: Float[ArrayLike, "n t"], other: Float[ArrayLike, "n t"]) -> Float32[Array, ""]:
    """Compute the mean Pearson correlation of waves: float32 scalar; a constant wave counts 0."""
    return jnp.mean(jnp.sum(_unit(one) * _unit(other), axis=-1))


def repetition(wave: Float[ArrayLike, "n t"], people: Sequence[str] | None = None) -> Float32[Array, ""]:
    """Compute how far the waves of different people are one wave, whatever its lag and sign.

    Args:
      wave: Waves of different clips, float [n, t].
      people: Who is seen in each clip; everybody is another one, if not given.

    Returns:
      float32 scalar: the mean over pairs of different people's waves of the largest absolute circular
      cross-correlation; 0 where there is one person.
    """
    unit = _unit(wave)
    n, t = unit.shape
    bins = jnp.fft.rfft(unit)
    pairs = jnp.fft.irfft(bins[:, None] * jnp.conj(bins[None]), t)
    largest = jnp.max(jnp.abs(pairs), axis=-1)
    whose = np.arange(n) if people is None else np.unique(people, return_inverse=True)[1]
    differ = (whose[:, None] != whose[None]).astype(np.float32)
    return jnp.sum(largest * differ) / max(float(differ.sum()), 1.0)


def spectral_likeness(
    one: Float[ArrayLike, "n t"], other: Float[ArrayLike, "n t"], fps: float
) -> Float32[Array, ""]:
    """Compute the mean cosine of the in-band power spectra of waves: float32 scalar in [0, 1]."""

    def spectra(wave):
        bins = np.flatnonzero(spectrum.band_bins(jnp.shape(wave)[-1], fps, *spectrum.PULSE_BAND_HZ))
        power = spectrum.power_spectrum(_unit(wave))[:, bins]
        return power / (jnp.linalg.norm(power, axis=-1, keepdims=True) + 1e-12)

    return jnp.mean(jnp.sum(spectra(one) * spectra(other), axis=-1))


def _unit(wave: Float[ArrayLike, "n t"]) -> Float32[Array, "n t"]:
    """Centre and scale to length 1; a constant stays 0."""
    wave = jnp.asarray(wave, jnp.float32)
    wave = wave - jnp.mean(wave, axis=-1, keepdims=True)
    return wave / (jnp.linalg.norm(wave, axis=-1, keepdims=True) + 1e-12)


def collapse_warning(health: dict[str, float], *, one_person: bool = False) -> str | None:
    """Describe in a sentence what looks wrong with an epoch's mean health, or None.

    Args:
      health: Means of `wave_health` over an epoch, host floats.
      one_person: Whether all clips show the same person, whose heart may well beat alike in all.

    Example:
      >>> collapse_warning({"alike": 0.97, "at_edge": 0.0})
      'the waves of different clips are 0.97 alike: the network may have collapsed ...'
      >>> collapse_warning({"alike": 0.3, "at_edge": 0.1})
    """
    if health["alike"] > ALIKE and not one_person:
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


def probed(metrics: dict[str, Any]) -> dict[str, float]:
    """Pick what a probe measured out of a line of a run's log; {} where there was none."""
    names = [name for name, value in metrics.items() if name.startswith(LOGGED_AS) and value is not None]
    return {name.removeprefix(LOGGED_AS): float(metrics[name]) for name in names}


def confounder_warning(probed: dict[str, float]) -> str | None:
    """Describe in a sentence what a probe found wrong and what to do, or None.

    Args:
      probed: What `probe` returned, host floats; {} where nothing was probed.
    """
    if not probed or probed.get("trust", 1.0) >= TRUSTED:  # logs of older runs have none
        return None
    if probed["repeated"] > ALIKE:
        return (
            f"the waves of different people are one wave ({probed['repeated']:.2f} correlated at some lag): "
            "do not trust its rates; use the robust variant, with more recordings in a batch"
        )
    return (
        "the waves resemble what POS finds in their own face without the light around it by "
        f"{probed['steady_pos_agrees']:.2f}, and each other by {probed['repeated']:.2f}: the network may "
        "follow light, motion or noise and not the pulse, do not trust its rates; train longer, or use the "
        "robust variant"
    )

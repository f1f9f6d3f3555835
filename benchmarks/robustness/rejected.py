"""What was tried to keep SSPD with the pulse and did nothing: disturbed views, and losses over the batch.

*Disturbances.* SSPD distils whatever is periodic in both views of a clip. Here each view gets changes of
light of its own, drawn independently, inside and around the pulse band, before it is differenced: a network
that followed light would disagree with itself. Every strength is a share of what it changes, its course over
time a smooth random signal plus a sine; each clip draws a strength from 0 to the one asked for.

*Losses over the batch.* All of SSPD's losses are small for a network that answers one wave to every face.
`wave_spread` and `wave_negatives`, and the same on similarity waves, ask for different answers to different
clips. They compare all clips of a batch, so they need `parallel='jit'`.

`robustness.md` has what came of it: added to the robust form nothing, once harm; alone, none of them kept the
released form from collapsing under one lamp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, PRNGKeyArray, Real

from sspd_jax.method import input_transform, losses, spectrum, views
from sspd_jax.method.outputs import Outputs
from sspd_jax.training import step as train_step
from sspd_jax.training.state import TrainState

BAND_HZ = (0.3, 3.0)
"""Of the smooth random part: the pulse band and, below it, the sway of a head."""

SINE_HZ = (0.6, 3.0)
"""Of the sine: where a lamp's beat would be taken for a pulse."""

STRENGTHS = ("light", "lamp", "shading", "tint")
"""What is disturbed. A strength is the standard deviation over time where the disturbance is strongest:

* light: of the brightness of the whole picture, relative;
* lamp: of the light of a coloured lamp that reaches from nothing at one side of the picture to its full
  strength at the other, relative;
* shading: of the brightness at the picture's edges when one side brightens and the other darkens, as when a
  head turns under a lamp, relative;
* tint: of each colour's brightness, the three independent, relative.
"""

Strengths = Mapping[str, "float | Array"]

_SINES = 12  # that make up the random part
_DISTURB = 7  # folded into a clip's key: what else is drawn stays what it is without a disturbance

# --- disturbed views -----------------------------------------------------------------------------------


def disturbed_step(
    state: TrainState,
    clips: Real[ArrayLike, "n frames s s 3"],
    strengths: Strengths,
    *,
    step_config: train_step.StepConfig,
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """Do what `train_step.train_step` does, at the clips' own speed, with both views disturbed."""
    key = jax.random.fold_in(jax.random.key(step_config.seed), state.step)
    settings = step_config.local_view, step_config.global_view
    local, whole = (
        disturbed_view(clips, k, view, strengths, step_config)
        for k, view in zip(jax.random.split(key), settings, strict=True)
    )
    return train_step.learn(state, local, whole, step_config=step_config)


def disturbed_view(
    clips: Real[ArrayLike, "n frames s s 3"],
    key: PRNGKeyArray,
    view: views.ViewSettings,
    strengths: Strengths,
    method: train_step.StepConfig,
) -> Float32[Array, "n frames-1 _ _ 3"]:
    """Do what `views.make_view` does, with a disturbance before the difference is taken.

    Args:
      clips: Video, uint8 or float [n, t + 1, s, s, 3], RGB.
      key: Random key.
      view: Crop, flips and mask.
      strengths: Of what `STRENGTHS` names.
      method: Its network's input and the frame rate.

    Returns:
      float32 [n, t, size, size, 3].
    """
    size, transform = method.network.input_size, method.network.input_transform

    def one(clip, key):
        crop_key, flip_key, mask_key = jax.random.split(key, 3)
        clip = (
            views.random_crop(clip, crop_key, size)
            if view.crop == "random"
            else views.resize_area(clip, size)
        )
        clip = views.random_flip(clip.astype(jnp.float32), flip_key, view.flip_horizontal, view.flip_vertical)
        _, light_key = jax.random.split(jax.random.fold_in(key, _DISTURB))
        change = input_transform.apply(brighten(clip, light_key, strengths, method.fps), transform)
        if view.mask_unit == "none":
            return change
        return change * views.keep_mask(mask_key, change.shape, view.mask_unit, view.mask_keep)

    clips = jnp.asarray(clips)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(clips)))
    return jax.vmap(one)(clips, keys)


def course(key: PRNGKeyArray, n: int, t: int, fps: float) -> Float32[Array, "{n} {t}"]:
    """Draw how `n` disturbances run over time: smooth noise in `BAND_HZ` plus a sine in `SINE_HZ`.

    Args:
      key: random key.
      n: how many, independent.
      t: samples.
      fps: their rate in Hz.

    Returns:
      float32 [n, t], expected standard deviation 1, half of the power in the sine.
    """
    noise_key, sine_key, phase_key = jax.random.split(key, 3)
    noise_hz = jax.random.uniform(noise_key, (n, _SINES), minval=BAND_HZ[0], maxval=BAND_HZ[1])
    sine_hz = jax.random.uniform(sine_key, (n, 1), minval=SINE_HZ[0], maxval=SINE_HZ[1])
    hz = jnp.concatenate([noise_hz, sine_hz], axis=1)
    phase = jax.random.uniform(phase_key, hz.shape, maxval=2 * jnp.pi)
    time_s = jnp.arange(t, dtype=jnp.float32) / fps
    waves = jnp.sin(2 * jnp.pi * hz[..., None] * time_s + phase[..., None])
    return jnp.mean(waves[:, :-1], axis=1) * jnp.sqrt(_SINES).astype(jnp.float32) + waves[:, -1]


def brighten(
    clip: Float32[Array, "t h w 3"], key: PRNGKeyArray, strengths: Strengths, fps: float
) -> Float32[Array, "t h w 3"]:
    """Multiply a clip by changing light.

    Args:
      clip: float32 [t, h, w, 3].
      key: random key.
      strengths: Of what `STRENGTHS` names; 0 where not given.
      fps: frame rate in Hz.

    Returns:
      float32 [t, h, w, 3].
    """
    t, h, w, _ = clip.shape
    course_key, strength_key, place_key, colour_key = jax.random.split(key, 4)
    strength = jax.random.uniform(strength_key, (4,))
    limits = [jnp.asarray(strengths.get(name, 0.0), jnp.float32) for name in STRENGTHS]
    strength = strength * jnp.stack(limits)
    angle = jax.random.uniform(place_key, (2,), maxval=2 * jnp.pi)
    lamp, shading = jax.vmap(lambda a: _ramp(a, h, w))(angle)[..., None]
    colour = jax.random.uniform(colour_key, (3,))
    colour = colour / jnp.maximum(jnp.max(colour), 1e-3)
    white = jnp.ones(3, jnp.float32)
    maps = [white, (1 + lamp) / 2 * colour, shading * white, *jnp.eye(3, dtype=jnp.float32)]
    maps = jnp.stack([jnp.broadcast_to(m, (h, w, 3)) for m in maps])
    # A product of matrices: written as sums, XLA on CPU would draw the course anew for every pixel.
    courses = course(course_key, 6, t, fps) * strength[jnp.array([0, 1, 2, 3, 3, 3])][:, None]
    gain = jnp.einsum("kt,khwc->thwc", courses, maps, precision="highest")
    return clip * (1 + gain)


def _ramp(angle: Float32[Array, ""], h: int, w: int) -> Float32[Array, "{h} {w}"]:
    """Lay a plane over a picture, from −1 at one edge or corner to 1 at the one across."""
    down, across = jnp.linspace(-1, 1, h)[:, None], jnp.linspace(-1, 1, w)[None, :]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return (cos * across + sin * down) / (jnp.abs(cos) + jnp.abs(sin))


# --- losses over the batch -----------------------------------------------------------------------------


def _band_shares(wave: Float[ArrayLike, "*batch t"], fps: float) -> Float32[Array, "*batch bins"]:
    """Share of the in-band power in each bin of the pulse band: float32 [..., bins], sums of 1."""
    wave, _ = losses.standardise(
        wave
    )  # its scale means nothing, and the floor below is to be small beside it
    power = spectrum.power_spectrum(wave)
    t = wave.shape[-1]
    power = power[..., np.flatnonzero(spectrum.band_bins(t, fps, *spectrum.PULSE_BAND_HZ))] + 1e-6
    return power / jnp.sum(power, axis=-1, keepdims=True)


def _spread(shares: Float32[Array, "n bins"]) -> Float32[Array, ""]:
    mean = jnp.mean(shares, axis=0)
    even = jnp.full_like(mean, 1 / len(mean))
    return jnp.mean((jnp.cumsum(mean) - jnp.cumsum(even)) ** 2)


def _likeness(online: Float32[Array, "n bins"], target: Float32[Array, "n bins"]) -> Float32[Array, ""]:
    n = len(online)
    if n < 2:
        return jnp.sum(0 * online)  # there is no other clip
    squares = jnp.sum((online[:, None] - target[None]) ** 2, axis=-1)  # 2 for two lines apart
    # The pairs of a clip with itself are left out.
    return 1 - jnp.sum(jnp.where(np.eye(n, dtype=bool), 0, squares)) / (2 * n * (n - 1))


def wave_spread(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Spread the waves' spectra over the pulse band: the batch's mean spectrum against an even one.

    Mean squared difference of the two cumulative distributions over the bins in 0.5–3 Hz: people's hearts
    beat at different rates, one answer to every face does not.

    References:
      Speth et al., "Non-Contrastive Unsupervised Learning of Physiological Signals from Video" (SiNC), CVPR
      2023, the variance loss.
    """
    return _spread(_band_shares(outputs.online.wave, fps))


def wave_negatives(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Push the spectra of different clips apart: 1 − ½ mean over i ≠ j of ‖S_i − S_j‖².

    S is the share of the in-band power in each bin, i the online network's clip and j another of the
    target's. 0 for lines apart, 1 for one answer to all; 0 where there is one clip. Two people of the same
    rate are pushed too: keep the weight small.

    References:
      Sun & Li, "Contrast-Phys: Unsupervised Video-based Remote Physiological Measurement via Spatiotemporal
      Contrast", ECCV 2022, the negative pairs.
    """
    return _likeness(_band_shares(outputs.online.wave, fps), _band_shares(outputs.target.wave, fps))


def similarity_spread(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Spread the similarity waves' spectra over the pulse band, mean over scales; see `wave_spread`."""
    o = outputs.online
    rates = zip(o.ssw, o.relative_rates, strict=True)
    return sum(_spread(_band_shares(wave, fps * rate)) for wave, rate in rates) / len(o.ssw)


def similarity_negatives(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Push the similarity waves' spectra of different clips apart, mean over scales; see `wave_negatives`."""
    o, t = outputs.online, outputs.target
    scales = zip(o.ssw, t.ssw, o.relative_rates, strict=True)
    terms = [_likeness(_band_shares(a, fps * rate), _band_shares(b, fps * rate)) for a, b, rate in scales]
    return sum(terms) / len(terms)


TERMS: Mapping[str, Callable[..., Float32[Array, ""]]] = {
    "wave_spread": wave_spread,
    "wave_negatives": wave_negatives,
    "similarity_spread": similarity_spread,
    "similarity_negatives": similarity_negatives,
}
"""Terms that are no mean over clips, by the name that a configuration uses."""

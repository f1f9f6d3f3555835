"""What may change in a face video besides the pulse: light, lamps, shading, tint, motion; added to a view.

SSPD distils whatever is periodic in both views of a clip. Each view gets disturbances of its own, drawn
independently, inside and around the pulse band: only what both views share can be distilled from one to the
other, and a network that followed light or motion would disagree with itself. What is disturbed is the
video, before it is differenced; every strength is a share of what it disturbs, its course over time a
smooth random signal plus a sine. Same key, same disturbance. Strength 0 changes nothing.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, PRNGKeyArray, Real

BAND_HZ = (0.3, 3.0)
"""Of the smooth random part: the pulse band and, below it, the sway of a head."""

SINE_HZ = (0.6, 3.0)
"""Of the sine: where a lamp's beat would be taken for a pulse."""

_SINES = 12  # that make up the random part


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """How strongly a view may be disturbed: each clip draws a strength from 0 to these.

    A strength is the standard deviation over time where the disturbance is strongest.

    Attributes:
      light: of the brightness of the whole picture, relative.
      lamp: of the light of a coloured lamp that reaches from nothing at one side of the picture to its full
        strength at the other, relative.
      shading: of the brightness at the picture's edges when one side brightens and the other darkens, as
        when a head turns under a lamp, relative.
      tint: of each colour's brightness, the three independent, relative.
      motion: of the picture's place, across and down, as a share of its side.
    """

    light: float | Array = 0.0
    lamp: float | Array = 0.0
    shading: float | Array = 0.0
    tint: float | Array = 0.0
    motion: float | Array = 0.0

    def is_off(self) -> bool:
        """Say whether nothing is disturbed."""
        return all(isinstance(s, int | float) and s == 0 for s in dataclasses.astuple(self))


UNDISTURBED = Disturbance()
"""What the published forms do."""


def disturb(
    clip: Real[ArrayLike, "t h w 3"], key: PRNGKeyArray, settings: Disturbance, fps: float
) -> Float32[Array, "t h w 3"]:
    """Disturb one clip: move it, then change its light.

    Args:
      clip: [t, h, w, 3], intensity levels, RGB.
      key: random key.
      settings: strengths.
      fps: frame rate in Hz.

    Returns:
      float32 [t, h, w, 3].
    """
    clip = jnp.asarray(clip, jnp.float32)
    motion_key, light_key = jax.random.split(key)
    return brighten(move(clip, motion_key, settings.motion, fps), light_key, settings, fps)


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
    clip: Float32[Array, "t h w 3"], key: PRNGKeyArray, settings: Disturbance, fps: float
) -> Float32[Array, "t h w 3"]:
    """Multiply a clip by changing light; see `disturb`.

    Args:
      clip: float32 [t, h, w, 3].
      key: random key.
      settings: strengths of light, lamp, shading and tint.
      fps: frame rate in Hz.

    Returns:
      float32 [t, h, w, 3].
    """
    t, h, w, _ = clip.shape
    course_key, strength_key, place_key, colour_key = jax.random.split(key, 4)
    strength = jax.random.uniform(strength_key, (4,))
    limits = (settings.light, settings.lamp, settings.shading, settings.tint)
    strength = strength * jnp.stack([jnp.asarray(limit, jnp.float32) for limit in limits])
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


def move(
    clip: Float32[Array, "t h w 3"], key: PRNGKeyArray, strength: float | Array, fps: float
) -> Float32[Array, "t h w 3"]:
    """Move a clip about by fractions of a pixel; what comes into view repeats the edge.

    Args:
      clip: float32 [t, h, w, 3].
      key: random key.
      strength: largest standard deviation of the place, as a share of the side.
      fps: frame rate in Hz.

    Returns:
      float32 [t, h, w, 3].
    """
    if isinstance(strength, int | float) and strength == 0:
        return clip
    t, h, w, _ = clip.shape
    course_key, strength_key = jax.random.split(key)
    places = course(course_key, 2, t, fps) * jax.random.uniform(strength_key, (2, 1)) * strength
    return shift(clip, places[0] * h, places[1] * w)


def shift(
    clip: Float32[Array, "t h w 3"], down: Float32[ArrayLike, " t"], across: Float32[ArrayLike, " t"]
) -> Float32[Array, "t h w 3"]:
    """Shift every frame by its own number of pixels, bilinearly, repeating the edges.

    Args:
      clip: float32 [t, h, w, 3].
      down: pixels by which each frame moves down, float32 [t].
      across: pixels to the right, float32 [t].

    Returns:
      float32 [t, h, w, 3].
    """
    _, h, w, _ = clip.shape
    clip = jnp.einsum("tuh,thwc->tuwc", _shift_weights(jnp.asarray(down), h), clip, precision="highest")
    return jnp.einsum("tvw,thwc->thvc", _shift_weights(jnp.asarray(across), w), clip, precision="highest")


def _shift_weights(pixels: Float32[Array, " t"], size: int) -> Float32[Array, "t {size} {size}"]:
    """Share of each old pixel in each new one, [t, new, old]: a matrix product suits every accelerator."""
    at = jnp.arange(size, dtype=jnp.float32)
    source = jnp.clip(at[None, :] - pixels[:, None], 0, size - 1)
    return jnp.maximum(0, 1 - jnp.abs(source[:, :, None] - at))

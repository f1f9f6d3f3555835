"""What a network is given of a video: how each frame changes to the next, with or without what light does.

Light multiplies. Where a lamp grows by a share, what a pixel shows in the lamp's colours grows by that share
of itself, on the face and behind it; the pulse is on the face alone, and strongest in green. `without_light`
takes out what the surround of the face shows the light to do, `without_brightness` what all colours of a
pixel do alike, as under white light and shading, and `without_surround` what is not face. None of them
learns, so none can be led astray.

Both fits are least squares on the change in intensity levels, where a camera's noise is about even: nothing
is divided by a dark pixel. All look at two frames only, so they read a stream as they read a recording.

Sources: colour at right angles to the skin's, here for every pixel: W. Wang et al., "Algorithmic principles
of remote PPG", IEEE Trans. Biomed. Eng. 64 (2017). The surround as a reference for the light, here for every
frame and colour and across the picture: X. Li et al., "Remote heart rate measurement from face videos under
realistic situations", CVPR 2014.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, Real

Frames = Float32[Array, "*batch t h w 3"]

DARK = 4.0
"""Levels: a pixel's colour below this says little."""

# Standard deviations that the light is fitted by. Much more noise than there is, or less, changes little.
LIGHT = 0.003
"""Of a light's relative change from one frame to the next."""
NOISE = 0.35
"""Of a pixel's change, levels."""
MOTION = 0.002
"""Of what a pixel shows, from one frame to the next, as a share of the picture's side."""


def difference(frames: Real[ArrayLike, "..."], *, axis: int) -> Float32[Array, "..."]:
    """Subtract each frame from the next along `axis`: float32, one frame fewer."""
    return jnp.diff(jnp.asarray(frames, jnp.float32), axis=axis)


def without_brightness(change: Frames, mean: Frames) -> Frames:
    """Take out of every pixel's change its part along the pixel's colour.

    Args:
      change: Change of every pixel from one frame to the next, float32 [..., t, h, w, 3], intensity levels.
      mean: The pixel's colour while it changes, float32 [..., t, h, w, 3], intensity levels.

    Returns:
      float32 [..., t, h, w, 3], at right angles to `mean`.
    """
    along = jnp.sum(change * mean, axis=-1, keepdims=True)
    return change - mean * along / (jnp.sum(mean * mean, axis=-1, keepdims=True) + DARK**2)


def without_light(change: Frames, mean: Frames) -> Frames:
    """Take out what light does that is smooth across the picture, as the surround of the face shows it.

    For each frame and colour the relative change of light is a plane a + b·x + c·y. It is fitted to the
    pixels outside the ellipse that fills the picture, where a face crop shows what is behind: the most
    probable light, where a pixel's change has a camera's noise and, at edges, what a small motion does.

    Args:
      change: Change of every pixel from one frame to the next, float32 [..., t, h, w, 3], intensity levels.
      mean: The pixel's colour while it changes, float32 [..., t, h, w, 3], intensity levels.

    Returns:
      float32 [..., t, h, w, 3].
    """
    h, w = change.shape[-3:-1]
    smooth = planes(h, w)
    steepness = jnp.gradient(mean, axis=-3) ** 2 * h**2 + jnp.gradient(mean, axis=-2) ** 2 * w**2
    weight = outside(h, w)[..., None] / (NOISE**2 + MOTION**2 * steepness)
    gram = jnp.einsum("...thwc,hwk,hwl->...tckl", weight * mean * mean, smooth, smooth)
    right = jnp.einsum("...thwc,hwk->...tck", weight * mean * change, smooth)
    gram = gram + jnp.eye(smooth.shape[-1]) / LIGHT**2
    light = jnp.einsum("...tck,hwk->...thwc", _solve3(gram, right), smooth)
    return change - mean * light


def without_surround(change: Frames, mean: Frames) -> Frames:
    """Keep what lies in the ellipse that fills the picture: the face, and little of its moving outline.

    Args:
      change: Change of every pixel, float32 [..., t, h, w, 3].
      mean: Not used.

    Returns:
      float32 [..., t, h, w, 3], 0 outside.
    """
    del mean
    return change * (1 - outside(*change.shape[-3:-1]))[..., None]


def _coordinates(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of a picture's pixels, from −1 to 1, [h, w] each."""
    down, across = ((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1 for n in (h, w))
    return np.meshgrid(across, down)


def planes(h: int, w: int) -> Float32[np.ndarray, "{h} {w} 3"]:
    """1, x and y over a picture."""
    x, y = _coordinates(h, w)
    return np.stack([np.ones_like(x), x, y], axis=-1)


def outside(h: int, w: int) -> Float32[np.ndarray, "{h} {w}"]:
    """1 outside the ellipse that fills a picture, 0 within."""
    x, y = _coordinates(h, w)
    return (x**2 + y**2 > 1).astype(np.float32)


def _solve3(a: Float32[Array, "*batch 3 3"], b: Float32[Array, "*batch 3"]) -> Float32[Array, "*batch 3"]:
    """Solve symmetric 3 × 3 systems by cross products: no library call, so that it can be exported."""
    first, second, third = a[..., 0, :], a[..., 1, :], a[..., 2, :]
    cofactors = jnp.stack([jnp.cross(second, third), jnp.cross(third, first), jnp.cross(first, second)], -2)
    determinant = jnp.sum(first * cofactors[..., 0, :], axis=-1, keepdims=True)
    return jnp.einsum("...kl,...k->...l", cofactors, b) / determinant


Step = Callable[[Frames, Frames], Frames]

INPUT_TRANSFORMS: Mapping[str, tuple[Step, ...]] = {
    "difference": (),
    "chrominance": (without_surround, without_brightness),
    "steady": (without_light, without_surround),
    "steady_chrominance": (without_light, without_surround, without_brightness),
}
"""What can be made of a video before a network sees it: nothing but the difference, as published, or more."""


def apply(
    frames: Real[ArrayLike, "*batch t h w 3"], transform: str = "difference"
) -> Float32[Array, "*batch t-1 h w 3"]:
    """Compute how each frame changes to the next, less what the transform takes out.

    Args:
      frames: Video, uint8 or float [..., t, h, w, 3], RGB, intensity levels.
      transform: A name in `INPUT_TRANSFORMS`.

    Returns:
      float32 [..., t - 1, h, w, 3], intensity levels.
    """
    changed = difference(frames, axis=-4)
    if not INPUT_TRANSFORMS[transform]:
        return changed
    frames = jnp.asarray(frames, jnp.float32)
    mean = (frames[..., 1:, :, :, :] + frames[..., :-1, :, :, :]) / 2
    for step in INPUT_TRANSFORMS[transform]:
        changed = step(changed, mean)
    return changed

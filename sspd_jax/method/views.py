"""The two views of a clip, made on the device from uint8 frames and a random key.

A view is: crop or resize the whole face to the network's input, flip, difference in time, and,
for the online network, a mask that drops frames or pixels. Same key, same view. Frames stay floats
between the steps (the released code rounds to uint8 after each).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, Int32, PRNGKeyArray, Real

from sspd_jax.method import input_transform


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How a view is made.

    Attributes:
      crop: 'random' cuts a window of the network's input size at a random place of each clip; 'whole'
        resizes the whole face to it.
      flip_horizontal: Probability of a left-right flip of a clip.
      flip_vertical: Probability of an upside-down flip of a clip.
      mask_unit: 'none', 'frame' (a difference frame is kept or dropped whole) or 'pixel' (each pixel of
        each difference frame is, its three colours together).
      mask_keep: Probability of being kept.
    """

    crop: str = "whole"
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.5
    mask_unit: str = "none"
    mask_keep: float = 0.7

    def __post_init__(self):
        if self.crop not in ("random", "whole"):
            raise ValueError(f"crop is 'random' or 'whole', not {self.crop!r}")
        if self.mask_unit not in ("none", "frame", "pixel"):
            raise ValueError(f"mask.unit is 'none', 'frame' or 'pixel', not {self.mask_unit!r}")
        for name in ("flip_horizontal", "flip_vertical", "mask_keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, not {getattr(self, name)}")


def view_settings(table: Any) -> ViewSettings:
    """Read a view of a form's table, see `sspd_jax.training.presets`.

    Args:
      table: 'crop', 'flip' with 'horizontal' and 'vertical', 'mask' with 'unit' and 'keep'; anything with
        these items: a dict, or a ConfigDict (which is no `Mapping`).

    Raises:
      ValueError: A value is impossible.
    """
    flip, mask = table["flip"], table["mask"]
    return ViewSettings(table["crop"], flip["horizontal"], flip["vertical"], mask["unit"], mask["keep"])


def make_view(
    clips: Real[ArrayLike, "n frames s s 3"],
    key: PRNGKeyArray,
    settings: ViewSettings,
    size: int,
    first: Int32[ArrayLike, ""] | int = 0,
    transform: str = "difference",
) -> Float32[Array, "n frames-1 {size} {size} 3"]:
    """Make one random view of each clip.

    Args:
      clips: Video, uint8 or float [n, t + 1, s, s, 3], RGB.
      key: Random key; each clip draws from a key of its own folded out of it.
      settings: How the view is made.
      size: Height and width of the view, at most s for a random crop.
      first: Number of the first clip in its batch, where these are a part of one.
      transform: What is made of two frames, a name in `input_transform.INPUT_TRANSFORMS`.

    Returns:
      float32 [n, t, size, size, 3] masked frame differences, in intensity levels.

    Raises:
      ValueError: A random crop of `size` does not fit.

    Example:
      A clip that grows brighter by one level a frame:

      >>> clip = np.ones((1, 4, 8, 8, 3), np.uint8) * np.arange(4, dtype=np.uint8)[:, None, None, None]
      >>> view = make_view(clip, jax.random.key(0), ViewSettings(), size=4)
      >>> view.shape, float(view.min()), float(view.max())
      ((1, 3, 4, 4, 3), 1.0, 1.0)
    """
    clips = jnp.asarray(clips)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(clips.shape[0]))
    return jax.vmap(lambda clip, k: _view(clip, k, settings, size, transform))(clips, keys)


def whole_view(
    clips: Real[ArrayLike, "n frames s s 3"], size: int, transform: str = "difference"
) -> Float32[Array, "n frames-1 {size} {size} 3"]:
    """Make the view that inference is given: the whole face, resized, not flipped, not masked.

    Args:
      clips: Video, uint8 or float [n, t + 1, s, s, 3], RGB.
      size: Height and width of the view.
      transform: What is made of two frames, a name in `input_transform.INPUT_TRANSFORMS`.

    Returns:
      float32 [n, t, size, size, 3] frame differences, in intensity levels.
    """
    return input_transform.apply(resize_area(clips, size), transform)


def _view(
    clip: Real[Array, "frames s s 3"], key: PRNGKeyArray, settings: ViewSettings, size: int, transform: str
) -> Float32[Array, "frames-1 {size} {size} 3"]:
    crop_key, flip_key, mask_key = jax.random.split(key, 3)
    if settings.crop == "random":
        clip = random_crop(clip, crop_key, size)
    else:
        clip = resize_area(clip, size)
    clip = random_flip(clip.astype(jnp.float32), flip_key, settings.flip_horizontal, settings.flip_vertical)
    seen = input_transform.apply(clip, transform)
    if settings.mask_unit == "none":
        return seen
    return seen * keep_mask(mask_key, seen.shape, settings.mask_unit, settings.mask_keep)


def random_crop(
    clip: Real[ArrayLike, "t h w 3"], key: PRNGKeyArray, size: int
) -> Real[Array, "t {size} {size} 3"]:
    """Cut one window of `size` × `size`, the same in every frame, at a place drawn uniformly.

    Args:
      clip: [t, h, w, 3].
      key: Random key.
      size: Pixels.

    Returns:
      [t, size, size, 3], of the clip's dtype.

    Raises:
      ValueError: The window is larger than the frames.
    """
    clip = jnp.asarray(clip)
    t, h, w, c = clip.shape
    if size > min(h, w):
        raise ValueError(f"a crop of {size} pixels does not fit into frames of {h}×{w}")
    corner = jax.random.randint(key, (2,), 0, jnp.array([h - size + 1, w - size + 1]))
    return jax.lax.dynamic_slice(clip, (0, corner[0], corner[1], 0), (t, size, size, c))


def random_flip(
    clip: Real[ArrayLike, "t h w 3"], key: PRNGKeyArray, horizontal: float, vertical: float
) -> Real[Array, "t h w 3"]:
    """Flip a clip left-right and upside-down, each with its probability.

    Args:
      clip: [t, h, w, 3].
      key: Random key.
      horizontal: Probability of a left-right flip.
      vertical: Probability of an upside-down flip.

    Returns:
      [t, h, w, 3].
    """
    clip = jnp.asarray(clip)
    draw = jax.random.uniform(key, (2,))
    clip = jnp.where(draw[0] < horizontal, clip[:, :, ::-1], clip)
    return jnp.where(draw[1] < vertical, clip[:, ::-1], clip)


def keep_mask(
    key: PRNGKeyArray, shape: tuple[int, int, int, int], unit: str, keep: float
) -> Float32[Array, "t _ _ 1"]:
    """Draw which differences are kept.

    Args:
      key: Random key.
      shape: [t, h, w, c] of the differences.
      unit: 'frame' or 'pixel'.
      keep: Probability of being kept.

    Returns:
      float32 of 0 and 1: [t, 1, 1, 1] by frame, [t, h, w, 1] by pixel.
    """
    t, h, w, _ = shape
    drawn = (t, 1, 1, 1) if unit == "frame" else (t, h, w, 1)
    return jax.random.bernoulli(key, keep, drawn).astype(jnp.float32)


def resize_area(
    frames: Real[ArrayLike, "*batch h w 3"], size: int
) -> Float32[Array, "*batch {size} {size} 3"]:
    """Resize frames so that each new pixel averages the area it covers (OpenCV's INTER_AREA).

    Args:
      frames: [..., h, w, 3].
      size: New height and width, at most the old ones for the equality with OpenCV to hold.

    Returns:
      float32 [..., size, size, 3], not rounded.
    """
    frames = jnp.asarray(frames, jnp.float32)
    h, w = frames.shape[-3:-1]
    if (h, w) == (size, size):
        return frames
    across = jnp.einsum("...hwc,vw->...hvc", frames, area_weights(w, size))
    return jnp.einsum("...hvc,uh->...uvc", across, area_weights(h, size))


def area_weights(old: int, new: int) -> Float32[np.ndarray, "{new} {old}"]:
    """Share of each old pixel in each new one: float32 [new, old], rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    start, end = edges[:-1, None], edges[1:, None]
    pixel = np.arange(old)[None, :]
    overlap = np.clip(np.minimum(end, pixel + 1) - np.maximum(start, pixel), 0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)

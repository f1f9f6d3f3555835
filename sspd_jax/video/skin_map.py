"""Which pixels of an aligned face are skin: by where they lie and by this face's own colour.

Nothing here knows what colour skin has: it is learned from the middle of each face. Pictures are aligned
crops (`face_track.aligned_region`), uint8 [size, size, 3] RGB, and landmarks are in their pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from sspd_jax.video import skin_box

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
HOLES = {
    "right_eye": (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    "left_eye": (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    "right_brow": (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    "left_brow": (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
    "lips": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
}
PATCHES = {
    "forehead_right": (54, 103, 67, 109, 107, 66, 105, 63, 70),
    "forehead_centre": (109, 10, 338, 336, 9, 107),
    "forehead_left": (284, 332, 297, 338, 336, 296, 334, 293, 300),
    "glabella": (55, 107, 9, 336, 285, 417, 168, 193),
    "nose": (168, 122, 236, 198, 131, 48, 4, 278, 360, 420, 456, 351),
    "cheek_right": (116, 117, 118, 119, 100, 142, 36, 205, 187, 123),
    "cheek_left": (345, 346, 347, 348, 329, 371, 266, 425, 411, 352),
    "lower_cheek_right": (123, 187, 205, 206, 212, 214, 192, 213, 147),
    "lower_cheek_left": (352, 411, 425, 426, 432, 434, 416, 433, 376),
    "jaw_right": (58, 213, 192, 214, 210, 169, 136, 172),
    "jaw_left": (288, 433, 416, 434, 430, 394, 365, 397),
    "upper_lip": (98, 97, 2, 326, 327, 391, 269, 267, 0, 37, 39, 165),
    "chin": (182, 83, 18, 313, 406, 431, 395, 400, 377, 152, 148, 176, 170, 211),
}
"""Parts of the skin by their landmarks; left and right are the person's."""

CORE = ("forehead_centre", "glabella", "nose", "cheek_right", "cheek_left")  # where skin's colour is learned
LEAST_VARIANCES = (60.0, 2.0, 2.0)  # of luma, Cr, Cb: below them is noise, not colour
OUTLIER = 3.0  # standard deviations
SURE = 1.0  # standard deviations up to which a pixel counts fully
GLARE = 250  # a channel at this value or above has lost what beats in it
SOFT = 0.03  # of the crop's side: how soft the borders are, so that a tremble of a pixel changes little
LEAST_PIXELS = 30  # to learn a colour from
CERTAIN = 1.5  # what is skin for two thirds counts as skin
BOX_EDGE = 1 / 6  # of a box's sides, where hair and wall are likelier than in its middle


@dataclass(frozen=True, eq=False)
class SkinColour:
    """A Gaussian in YCrCb.

    Attributes:
      mean: float64 [3], 0 to 255.
      precision: float64 [3, 3], inverse of the covariance.
    """

    mean: np.ndarray
    precision: np.ndarray


def to_ycc(rgb: np.ndarray) -> np.ndarray:
    """Return luma, Cr, Cb of uint8 RGB [h, w, 3] as float32 [h, w, 3], 0 to 255."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb).astype(np.float32)


def fit_skin(pixels: np.ndarray) -> SkinColour | None:
    """Learn a face's skin colour: a Gaussian, fitted three times, what lies far off left out.

    Args:
      pixels: float [n, 3], luma, Cr, Cb of pixels that are skin for the most part.

    Returns:
      The colour; None for fewer than `LEAST_PIXELS` pixels.
    """
    pixels = np.asarray(pixels, np.float64)
    if len(pixels) < LEAST_PIXELS:
        return None
    # The median first: half of a face may lie under a mask, hair or a hand.
    middle = np.median(pixels, 0)
    off = np.abs(pixels - middle)
    width = np.maximum(1.48 * np.median(off, 0), np.sqrt(LEAST_VARIANCES))
    kept = (off < OUTLIER * width).all(1)
    for _ in range(3):
        if kept.sum() < LEAST_PIXELS:
            return None
        mean = pixels[kept].mean(0)
        covariance = np.cov(pixels[kept].T)
        # Raised by what is missing, not cut off: the covariance stays one.
        covariance += np.diag(np.maximum(0, np.array(LEAST_VARIANCES) - np.diag(covariance)))
        colour = SkinColour(mean, np.linalg.inv(covariance))
        kept = distance(pixels, colour) < OUTLIER
    return colour


def distance(ycc: np.ndarray, colour: SkinColour) -> np.ndarray:
    """Return how many standard deviations colours [..., 3] lie from a skin's, float [...]."""
    root = np.linalg.cholesky(colour.precision).astype(ycc.dtype)
    off = (ycc - colour.mean.astype(ycc.dtype)) @ root
    return np.sqrt(np.einsum("...i,...i->...", off, off))


def skin_likeness(rgb: np.ndarray, ycc: np.ndarray, colour: SkinColour) -> np.ndarray:
    """Return how much each pixel's colour is this skin's.

    Args:
      rgb: uint8 [h, w, 3].
      ycc: float32 [h, w, 3], the same in luma, Cr, Cb.
      colour: of this face.

    Returns:
      float32 [h, w]: 1 within `SURE` standard deviations, a Gaussian's flank beyond, 0 for glare.
    """
    like = np.exp(-0.5 * np.maximum(distance(ycc, colour) - SURE, 0) ** 2)
    like[rgb.max(-1) >= GLARE] = 0
    return like.astype(np.float32)


def face_map(points: np.ndarray, size: int) -> np.ndarray:
    """Draw where skin can be: the face's oval without eyes, brows and lips, with soft borders.

    Args:
      points: [468, 2 or more], landmarks in pixels of the crop.
      size: of the crop, pixels.

    Returns:
      float32 [size, size], 0 to 1.
    """
    drawn = np.zeros((size, size), np.uint8)
    _fill(drawn, points, OVAL, 255)
    for hole in HOLES.values():
        _fill(drawn, points, hole, 0)
    return cv2.GaussianBlur(drawn, (0, 0), max(SOFT * size, 0.5)).astype(np.float32) / 255


def patch_maps(points: np.ndarray, size: int) -> np.ndarray:
    """Draw the parts of the skin, float32 [p, size, size] in the order of `PATCHES`, with soft borders."""
    maps = np.zeros((len(PATCHES), size, size), np.uint8)
    for drawn, corners in zip(maps, PATCHES.values(), strict=True):
        _fill(drawn, points, corners, 255)
    soft = max(SOFT * size / 2, 0.5)
    return np.stack([cv2.GaussianBlur(drawn, (0, 0), soft) for drawn in maps]).astype(np.float32) / 255


def eyes_map(points: np.ndarray, size: int) -> np.ndarray:
    """Draw eyes and brows, float32 [size, size] from 0 to 1: of the face, but not skin."""
    drawn = np.zeros((size, size), np.uint8)
    for name, hole in HOLES.items():
        if name != "lips":
            _fill(drawn, points, hole, 255)
    return cv2.GaussianBlur(drawn, (0, 0), max(SOFT * size / 4, 0.5)).astype(np.float32) / 255


def maps(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw `face_map`, `patch_maps` and `eyes_map` of a face's landmarks."""
    return face_map(points, size), patch_maps(points, size), eyes_map(points, size)


def box_maps(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the same of a box that is called skin: all of it, cells of it, and no eyes.

    Args:
      size: of the box drawn as a square, pixels.

    Returns:
      float32 [size, size], [p, size, size] and [size, size], 0 to 1.
    """
    parts = np.zeros((len(PATCHES), size, size), np.float32)
    for drawn, (rows, columns) in zip(parts, skin_box.grid(size), strict=True):
        drawn[rows, columns] = 1
    return np.ones((size, size), np.float32), parts, np.zeros((size, size), np.float32)


def box_core(ycc: np.ndarray) -> np.ndarray:
    """Return the colours of a box's middle, where it shows skin if it does anywhere, float32 [n, 3]."""
    height, width = ycc.shape[:2]
    top, left = round(BOX_EDGE * height), round(BOX_EDGE * width)
    return ycc[top : height - top, left : width - left].reshape(-1, 3)


def core_pixels(ycc: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the colours where every face that is not covered shows skin, float32 [n, 3]."""
    drawn = np.zeros(ycc.shape[:2], np.uint8)
    for name in CORE:
        _fill(drawn, points, PATCHES[name], 255)
    for hole in HOLES.values():
        _fill(drawn, points, hole, 0)
    return ycc[drawn > 0]


def _fill(drawn: np.ndarray, points: np.ndarray, corners: tuple[int, ...], value: int) -> None:
    # Corners to a sixteenth of a pixel: a face that glides must not move in steps.
    polygon = np.rint(points[list(corners), :2] * 16).astype(np.int32)
    cv2.fillPoly(drawn, [polygon], value, lineType=cv2.LINE_AA, shift=4)


def skin_only(crop: np.ndarray, skin: np.ndarray, size: int) -> np.ndarray:
    """Leave nothing but the skin in an aligned face, for a network: elsewhere stands the skin's mean colour.

    Hair, eyes, mouth, clothes and wall differ from person to person and move with the codec; what is left
    looks alike whoever is seen.

    Args:
      crop: uint8 [s, s, 3] RGB, an aligned face.
      skin: float32 [m, m], 0 to 1, where its skin is; m at most s.
      size: side of the result in pixels, at most m.

    Returns:
      uint8 [size, size, 3]. Rounding to whole levels is spread over the pixels by a fixed pattern: a mean
      that is the same everywhere would jump from level to level.
    """
    pixels = crop.astype(np.float32)
    if len(pixels) != len(skin):
        pixels = cv2.resize(pixels, skin.shape[::-1], interpolation=cv2.INTER_AREA)
    weight = np.clip(CERTAIN * skin, 0, 1)[..., None]
    mean = (pixels * weight).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-3)
    only = cv2.resize(mean + (pixels - mean) * weight, (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(only + dither(size)), 0, 255).astype(np.uint8)


@functools.cache
def dither(size: int) -> np.ndarray:
    """Return what `skin_only` adds before it rounds, float32 [size, size, 3] from −0.5 to 0.5."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (size, size, 3)).astype(np.float32)

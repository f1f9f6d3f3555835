"""Real talking heads with a known pulse put in: motion, expressions and light stay real.

The pulse is put on what has the colour of skin, in the colour of blood, and the clip is written with the
codec that people's cameras use. Short clips are played to and fro until they last long enough. Where a head's
own pulse has survived its codec, the narrow band around it is taken out of the skin first: or the truth would
be wrong.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from sspd_jax.heart_rate import filters
from sspd_jax.runtime import storage

SECONDS = 20.0  # three windows of 10 s
BLOOD = np.array([0.33, 0.77, 0.53], np.float32) / 0.77  # relative pulse in red, green and blue
WANDER = 0.03  # share by which breathing moves the rate
NOISE = 0.5  # grey levels, so that the pulse is not lost between two of them
OWN_PULSE_BPM = {"talk_d10": 66.0, "talk_d18": 68.0}  # found by several estimators that see different things
OWN_BAND_HZ = 0.2  # to either side
SKIN = (0, 136, 86), (255, 179, 134)  # darkest and brightest, least and most chroma, in YCrCb
SUFFIX = ".mp4"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a pulse is put in.

    Attributes:
      name: of the recipe.
      bpm: mean rate, bpm.
      amplitude: of the green of skin, share.
      crf: of H.264.
      seed: of the phases of breathing and of the noise.
    """

    name: str
    bpm: float
    amplitude: float
    crf: int
    seed: int


def recipes(head: str, seed: int) -> tuple[Recipe, Recipe]:
    """Draw the pulses of a head; which other heads there are does not matter.

    Args:
      head: its name.
      seed: of the draw.

    Returns:
      'drawn' at 55–120 bpm, 0.6–0.8 % and crf 20–26; 'fixed' at 96 bpm, 0.8 % and crf 23.
    """
    rng = np.random.default_rng([seed, zlib.crc32(head.encode())])
    bpm, amplitude, crf = rng.uniform(55, 120), rng.uniform(0.006, 0.008), rng.integers(20, 27)
    drawn = Recipe("drawn", round(float(bpm), 1), round(float(amplitude), 4), int(crf), seed)
    return drawn, Recipe("fixed", 96.0, 0.008, 23, seed)


def pulse(bpm: float, times_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a pulse wave whose rate breathing moves, float64 [t], −1 to 1.

    Args:
      bpm: mean rate, bpm.
      times_s: float64 [t], s, increasing.
      rng: draws the rate and phase of breathing.
    """
    breathing = np.sin(2 * np.pi * rng.uniform(0.08, 0.3) * times_s + rng.uniform(0, 2 * np.pi))
    hz = bpm * (1 + WANDER * breathing) / 60
    phase = 2 * np.pi * np.concatenate([[0], np.cumsum(np.diff(times_s) * (hz[1:] + hz[:-1]) / 2)])
    wave = np.cos(phase) + 0.4 * np.cos(2 * phase - 0.9)
    return wave / np.abs(wave).max()


def to_and_fro(frames: int, length: int) -> np.ndarray:
    """Return which frame of a clip is shown when, forwards and backwards in turn, int [length]."""
    period = np.concatenate([np.arange(frames), np.arange(frames - 2, 0, -1)])
    return np.resize(period, length)


def make(source: Path, recipe: Recipe, output: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write a talking head with a pulse, unless it is there already.

    Args:
      source: the clip of a head, with a constant frame rate.
      recipe: of the pulse.
      output: the video to write.

    Returns:
      Times (float64 [t], s) and values (float64 [t]) of the pulse that was put in.
    """
    with av.open(str(source)) as container:
        rate = Fraction(container.streams.video[0].average_rate).limit_denominator(1001)
        if not output.exists():
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    times_s = np.arange(round(SECONDS * float(rate))) / float(rate)
    rng = np.random.default_rng(recipe.seed)
    ppg = pulse(recipe.bpm, times_s, rng)
    if not output.exists():
        own = _own_pulse(pictures, source.stem, len(times_s), float(rate))
        _write(output, _seen(pictures, ppg, own, recipe, rng), rate, recipe.crf)
    return times_s, ppg


def _skin(rgb: np.ndarray) -> np.ndarray:
    """Return how much of every pixel is skin, float32 [h, w, 1], 0 to 1."""
    inside = cv2.inRange(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb), *SKIN)
    return cv2.GaussianBlur(inside.astype(np.float32) / 255, (0, 0), 4)[..., None]


def _own_pulse(pictures: Sequence[np.ndarray], head: str, length: int, fps: float) -> np.ndarray:
    """Measure the head's own pulse as it is played, float64 [length, 3], a share of the skin's colour."""
    if head not in OWN_PULSE_BPM:
        return np.zeros((length, 3))
    skins = [_skin(picture) for picture in pictures]
    means = [(p * s).sum(axis=(0, 1)) / s.sum() for p, s in zip(pictures, skins, strict=True)]
    trace = np.array(means)[to_and_fro(len(pictures), length)]
    hz = OWN_PULSE_BPM[head] / 60
    relative = trace / trace.mean(axis=0) - 1
    return np.stack([filters.bandpass(c, hz - OWN_BAND_HZ, hz + OWN_BAND_HZ, fps, 2) for c in relative.T], 1)


def _seen(
    pictures: Sequence[np.ndarray],
    ppg: np.ndarray,
    own: np.ndarray,
    recipe: Recipe,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Yield the pictures with the pulse, uint8 [h, w, 3] RGB, sides even."""
    height, width = (side // 2 * 2 for side in pictures[0].shape[:2])
    for shown, now, native in zip(to_and_fro(len(pictures), len(ppg)), ppg, own, strict=True):
        picture = pictures[shown][:height, :width]
        change = (recipe.amplitude * now * BLOOD + native).astype(np.float32)
        seen = picture * (1 - change * _skin(picture))
        seen += NOISE * rng.standard_normal(picture.shape, np.float32)
        yield np.ascontiguousarray(np.clip(np.rint(seen), 0, 255).astype(np.uint8))


def _write(output: Path, pictures: Iterator[np.ndarray], rate: Fraction, crf: int) -> None:
    """Encode pictures as H.264; the file appears under its name when it is complete."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = storage.aside(output).with_suffix(SUFFIX)
    try:
        with av.open(str(partial), "w") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf)}
            for picture in pictures:
                if not stream.codec_context.is_open:
                    stream.height, stream.width = picture.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)

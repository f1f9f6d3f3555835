"""What a camera makes of light: exposure and white balance that hunt, noise, a tone curve, sharpening.

All happens in the order in which a camera does it; the codec comes after it.

References:
  Foi et al., IEEE Trans. Image Process. 17 (2008), 1737–1754, for noise that grows with light; Brooks et al.,
  CVPR (2019), 11036–11045, for how a camera's gains, demosaicking and colour matrix shape it.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from sspd_jax.simulation.random_signals import wander

GREY = 0.30  # linear light that the middle of a well exposed picture has
LEVELS = 4096  # of the tone curve's table
MOST_GAIN = 12.0  # of the sensor, over daylight
NOISE_PLANES = 5  # of noise that are drawn once; each frame shifts and mixes two of them
# Red and blue sites see less of the light, and are amplified for it; what a site sees is no pure colour, and
# a matrix, each of whose rows sums to 1, makes the colours purer. Both make noise coloured.
WHITE_GAINS = np.array([1.9, 1.0, 1.7], np.float32)
COLOUR_MATRIX = np.array([[1.75, -0.60, -0.15], [-0.30, 1.55, -0.25], [0.0, -0.55, 1.55]], np.float32)


@dataclasses.dataclass(frozen=True)
class Camera:
    """A camera and its settings.

    Attributes:
      electrons: In a green site that is white under daylight: the more, the less noise.
      read_noise: Electrons, standard deviation.
      softness_px: Standard deviation of its blur, pixels.
      sharpening: Share of the detail that is added again.
      denoise: Share of the frame before that is kept where nothing moves, 0 to 1.
      contrast: Of the tone curve, 0 for sRGB's.
      exposure_step: By which exposure is corrected at a time, relative; 0: exposure is fixed.
      white_wander: By which the white balance wanders, relative, standard deviation.
      least_mean: Mean of the picture below which no exposure can lift it, times `GREY`; of dark rooms.
      shutter: Share of the time between frames in which the shutter is open.
    """

    electrons: float = 20_000.0
    read_noise: float = 6.0
    softness_px: float = 0.6
    sharpening: float = 0.3
    denoise: float = 0.0
    contrast: float = 0.15
    exposure_step: float = 0.0
    white_wander: float = 0.0
    least_mean: float = 1.0
    shutter: float = 0.4


class Sensor:
    """A camera while it films: it remembers its exposure and the frame before."""

    def __init__(self, rng: np.random.Generator, camera: Camera, size: tuple[int, int], times_s: np.ndarray):
        self._rng, self._camera = rng, camera
        width, height = size
        self._gain: float | None = None
        self._before: np.ndarray | None = None
        self._hunting = wander(rng, 0.02, 0.2, slope=-0.5)(times_s)
        self._warmth = camera.white_wander * wander(rng, 0.01, 0.15, slope=-0.5)(times_s)
        self._planes = [sensor_noise(rng, width + 64, height + 64) for _ in range(NOISE_PLANES)]
        self._tone = _tone_curve(camera.contrast)

    def shoot(self, light: np.ndarray, frame: int) -> np.ndarray:
        """Take a picture.

        Args:
          light: Linear light, float32 [h, w, 3], 1 for a white sheet in daylight; it is changed.
          frame: Number of the frame.

        Returns:
          uint8 [h, w, 3] RGB.
        """
        camera = self._camera
        gain = self._expose(light, frame)
        cv2.multiply(light, (1 + self._warmth[frame], 1, 1 - self._warmth[frame], 0), dst=light)
        if camera.softness_px:
            light = cv2.GaussianBlur(light, (0, 0), camera.softness_px)
        # Electrons: a Poisson number is nearly normal; its variance is its mean.
        noise = self._noise(light.shape)
        noise *= np.sqrt(
            np.maximum(light, 0) / camera.electrons + (camera.read_noise / camera.electrons) ** 2
        )
        light += noise
        light *= np.float32(gain * (LEVELS - 1))
        np.clip(light, 0, LEVELS - 1, out=light)
        picture = self._tone.take(light.astype(np.int16))
        if camera.denoise:
            picture = self._calm(picture)
        if camera.sharpening:
            soft = cv2.GaussianBlur(picture, (0, 0), 1.2)
            picture = cv2.addWeighted(picture, 1 + camera.sharpening, soft, -camera.sharpening, 0)
        return np.clip(np.rint(picture, out=picture), 0, 255, out=picture).astype(np.uint8)

    def _expose(self, light: np.ndarray, frame: int) -> float:
        """Return the gain, after the camera looked at the picture's middle."""
        camera = self._camera
        height, width = light.shape[:2]
        middle = light[height // 6 : -height // 6 : 8, width // 5 : -width // 5 : 8]
        wanted = min(GREY / max(float(middle.mean()), 1e-5), MOST_GAIN) * min(1.0, camera.least_mean)
        if self._gain is None:
            self._gain = wanted
        elif camera.exposure_step:
            # It corrects in steps, once it is wrong by more than two of them, and is seldom quite certain.
            wrong = np.log(wanted / self._gain) + 1.5 * camera.exposure_step * self._hunting[frame]
            if abs(wrong) > 2 * camera.exposure_step and frame % 4 == 0:
                most = camera.exposure_step
                self._gain *= float(np.exp(np.clip(0.5 * wrong, -most, most)))
        return self._gain

    def _noise(self, shape) -> np.ndarray:
        """Return noise as `sensor_noise` draws it, float32 [h, w, 3]."""
        height, width = shape[:2]
        first, second = self._rng.choice(NOISE_PLANES, 2, replace=False)
        angle = self._rng.uniform(0, 2 * np.pi)
        parts = []
        for plane in (first, second):
            top, left = self._rng.integers(0, 64, 2)
            parts.append(self._planes[plane][top : top + height, left : left + width])
        return cv2.addWeighted(parts[0], np.cos(angle), parts[1], np.sin(angle), 0)

    def _calm(self, picture: np.ndarray) -> np.ndarray:
        """Mix in the frame before where nothing moves, as cameras in the dark do."""
        if self._before is not None:
            change = picture - self._before
            red, green, blue = cv2.split(np.abs(change))
            moved = cv2.GaussianBlur(cv2.max(cv2.max(red, green), blue), (0, 0), 2.0)
            usual = max(float(np.median(moved[::8, ::8])), 0.5)  # mostly noise
            share = np.clip(3 - moved / usual, 0, 1) * np.float32(self._camera.denoise)
            change *= cv2.merge([share, share, share])
            picture = picture - change
        self._before = picture
        return picture


def sensor_noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draw the noise of a picture, as colour filters, demosaicking, gains and colour matrix leave it.

    A codec keeps a small change of colour only where noise carries it over the steps of its quantiser. Noise
    that is white in space and colour carries too little: pulses would lose the colour that real ones keep.

    Args:
      rng: Random generator.
      width: Of the picture, pixels.
      height: Of the picture, pixels.

    Returns:
      float32 [height, width, 3] red, green and blue, for sites whose noise has standard deviation 1.
    """
    rows, columns = -(-height // 2), -(-width // 2)
    green = rng.standard_normal((2 * rows, 2 * columns), np.float32)
    beside = cv2.filter2D(green, -1, np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4)
    for first in (0, 1):  # every other site is green; between them stands the mean of the four around
        green[first::2, 1 - first :: 2] = beside[first::2, 1 - first :: 2]
    # One site in four is red, one is blue.
    quarter = rng.standard_normal((rows, columns, 2), np.float32)
    red, blue = cv2.split(cv2.resize(quarter, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR))
    sites = cv2.merge([red, green, blue])[:height, :width] * np.sqrt(WHITE_GAINS)
    return sites @ COLOUR_MATRIX.T


def _tone_curve(contrast: float) -> np.ndarray:
    """Return grey levels of linear light, float32 [LEVELS], sRGB's curve, a soft shoulder, contrast."""
    light = np.linspace(0, 1, LEVELS)
    light = np.where(light < 0.6, light, 0.6 + 0.4 * np.tanh((light - 0.6) / 0.4) / np.tanh(1))
    value = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    bent = value * value * (3 - 2 * value)
    return (255 * ((1 - contrast) * value + contrast * bent)).astype(np.float32)

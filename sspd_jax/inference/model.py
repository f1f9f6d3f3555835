"""A network ready to use: pulse waves from face crops, of any length and frame rate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from sspd_jax.checkpoints import host_network
from sspd_jax.checkpoints.host_network import WaveStream
from sspd_jax.checkpoints.network import load_network
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.method import streaming, views
from sspd_jax.method.settings import NetworkSettings, network_settings
from sspd_jax.runtime import compile_options
from sspd_jax.video import resample
from sspd_jax.video.crop import BOX

FRAMES_AT_ONCE = 32
"""Differences that go through the network at once: memory is that of so many, however long the video."""

MIN_RESAMPLED_S = 0.2
"""A shorter clip has too few ticks of the network's clock to resample by."""


def load_model(directory: str | Path) -> RppgModel:
    """Load a network from a checkpoint.

    Args:
      directory: What `sspd_jax.checkpoints.convert` or a training wrote.

    Raises:
      UserError: The checkpoint is missing, damaged, or holds another network than it says.
    """
    config, params, batch_stats = load_network(directory)
    params = {part: tree for part, tree in params.items() if part != "ts"}  # they exist in training only
    return RppgModel(
        network=network_settings(config),
        params=params,
        batch_stats=batch_stats,
        fps=float(config["fps"]),
        crop_size=int(config["crop_size"]),
        face_crop=str(config.get("face_crop", BOX)),
        name=str(directory),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class RppgModel:
    """A trained network in evaluation mode.

    Attributes:
      network: Its settings.
      params: Backbone and predictor.
      batch_stats: Running statistics.
      fps: Frame rate that it was trained at, in Hz.
      crop_size: Side of the face crops that its training views were made from, in pixels.
      name: Where it came from.
      face_crop: What the crops show: the face in its 'box', or its 'skin' alone, see `skin_map.skin_only`.
    """

    network: NetworkSettings
    params: Any
    batch_stats: Any
    fps: float
    crop_size: int
    name: str
    face_crop: str = BOX

    @property
    def input_transform(self) -> str:
        """What its convolutions are given of the pictures, see `method.input_transform`."""
        return self.network.input_transform

    def waveform(self, frames: ArrayLike, fps: float) -> np.ndarray:
        """Infer the pulse wave of a face.

        Frames at another rate than the network's are resampled to it and the wave back; an odd number of
        differences is padded by one and cut.

        Args:
          frames: Pictures that are cropped to the face already, uint8 [t, h, w, 3] RGB, t ≥ 2.
          fps: Their rate in Hz.

        Returns:
          float32 [t − 1]; sample i lies between frames i and i + 1. Its sign and phase mean nothing.

        Raises:
          ValueError: An array of another shape or dtype, an fps that is not positive, or too few frames to
            resample.
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < 2:
            raise ValueError(
                f"frames must be uint8 [t ≥ 2, h, w, 3], got {frames.dtype} {list(frames.shape)}"
            )
        if not fps > 0:
            raise ValueError(f"fps must be above 0 Hz, got {fps}")
        rate = self.clock_rate(fps)
        if rate == fps:
            return self.infer_stream(frames)
        if len(frames) / fps < MIN_RESAMPLED_S:
            raise ValueError(
                f"{len(frames)} frames at {fps:g} Hz are too few to resample to {rate:g} Hz; "
                f"{MIN_RESAMPLED_S:g} s are needed"
            )
        times = np.arange(len(frames)) / fps
        ticks = resample.uniform(zip(times, frames, strict=True), rate, max_gap_s=float("inf"))
        wave = self.infer_stream(image for _, _, image in ticks)
        between = (times[:-1] + times[1:]) / 2
        resampled = resample.resample_wave(wave, (np.arange(len(wave)) + 0.5) / rate, between)
        return resampled.astype(np.float32)

    def clock_rate(self, fps: float) -> float:
        """Choose the rate in Hz to take a video of `fps` Hz at: its own if it is near the network's."""
        return fps if abs(fps / self.fps - 1) <= host_network.RATE_TOLERANCE else self.fps

    def infer(self, images: Iterable[np.ndarray], fps: float, start_s: float) -> Wave:
        """Infer the pulse wave of a stream of face crops on a uniform clock.

        Args:
          images: Face crops, uint8 or float32 [s, s, 3] RGB, at least 2.
          fps: Frame rate of the clock in Hz.
          start_s: Time of the first image in s.

        Returns:
          The wave; its first sample lies half a period after the first image.

        Raises:
          ValueError: Fewer than 2 images.
        """
        return Wave(self.infer_stream(images), fps, start_s + 0.5 / fps)

    def infer_stream(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Infer the values of `infer`'s wave, float32 [number of images − 1].

        It is the wave of one pass over the whole stream, whose length no program is compiled for.
        """
        stream = self.stream(FRAMES_AT_ONCE)
        parts = [stream.push([image]) for image in images]
        return np.concatenate([*parts, stream.end()])

    def stream(self, step: int) -> Stream:
        """Begin a wave that grows as its images come.

        Args:
          step: Images that go through the network at once, even: the wave grows by as many samples at a time.

        Raises:
          ValueError: An odd step, or one that is not positive.
        """
        return Stream(self, step)


class Stream(WaveStream):
    """The network in JAX on pictures as they come, see `streaming`; memory is that of a step."""

    def __init__(self, model: RppgModel, step: int):
        super().__init__(step, streaming.lag(model.network))
        self._model = model
        self._state = streaming.begin(model.network)
        self._start = 0  # differences that went through

    def end(self) -> np.ndarray:
        """Return the rest of the wave, float32 [n]: no more images come.

        Raises:
          ValueError: Fewer than 2 images were pushed.
        """
        last = self._start + len(self._images) - 1
        if last < 1:
            raise ValueError(f"a wave needs at least 2 images, got {len(self._images)}")
        known = max(0, self._start - self.lag)
        parts = []
        # An odd number of differences gets one more, of zeros: the network looks at pairs.
        while self._start < last + self.lag:
            self._images += self._images[-1:] * (self.step + 1 - len(self._images))
            parts.append(self._advance(np.int32(last + last % 2)))
        return np.concatenate(parts)[: last - known]

    def _advance(self, end: np.int32 = streaming.ENDLESS) -> np.ndarray:
        # A resampled image is float32, an untouched one uint8: one dtype, one compilation.
        window = np.stack(self._images).astype(np.float32)
        model, start = self._model, self._start
        state, wave = _compiled_step()(
            model.params,
            model.batch_stats,
            self._state,
            window,
            np.int32(start),
            end,
            settings=dataclasses.replace(model.network, conv=compile_options.conv_form(model.network.conv)),
        )
        # On the host: what a call returns can be bound to a device as the zeros at the beginning are not, and
        # for each of the two there would be a compilation.
        self._state, wave = jax.device_get((state, wave))
        self._images, self._start = self._images[-1:], start + self.step
        return wave[max(0, self.lag - start) :]


@functools.cache
def _compiled_step() -> Callable[..., tuple[streaming.ConvState, jax.Array]]:
    # When it is first needed: what the compiler is told depends on the backend.
    return jax.jit(_step, static_argnames="settings", compiler_options=compile_options.options())


def _step(
    params: Any,
    batch_stats: Any,
    state: streaming.ConvState,
    window: jax.Array,
    start: jax.Array,
    end: jax.Array,
    *,
    settings: NetworkSettings,
) -> tuple[streaming.ConvState, jax.Array]:
    """Take the next images [t + 1, s, s, 3], the first of them known before, t even: float32 [t]."""
    video = views.whole_view(window[None], settings.input_size, settings.input_transform)
    state, wave = streaming.advance(settings, params, batch_stats, state, video, start, end)
    return state, wave[0]

"""A sample video with a known pulse: one portrait, animated, through a real codec.

It is what `make demo` and the tests look at. It is one still picture with an even pulse, a slight sway and
sensor noise; a method that works on it has shown that it runs, not that it works on people.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.runtime import storage

PORTRAIT = Path(__file__).with_name("portrait.png")
OUTLINE = ((133, 138), (104, 144), 0)  # of the face in the portrait: centre, axes, angle
# Relative change of the skin's red, green and blue with one unit of PPG: blood absorbs green most.
PULSE_COLOUR = 0.01 * np.array([0.45, 1.0, 0.7], np.float32)
NOISE = 1.5  # grey levels, standard deviation: without it 8 bits would round the pulse away
SWAY_PX = 1.5
SWAY_HZ = (0.13, 0.09)  # across, down: slower than any pulse
TICKS_PER_S = 90_000  # of the timestamps
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
UNTIMED = (".avi", ".h264")  # hold a rate, no timestamps
PIXEL_FORMATS = {"mjpeg": "yuvj420p", "rawvideo": "bgr24", "ffv1": "bgr0"}
CODEC_OPTIONS = {"libx264": {"crf": "12", "preset": "veryfast"}, "mjpeg": {"qmin": "2", "qmax": "3"}}


def ppg(times_s: np.ndarray, bpm: float) -> np.ndarray:
    """Return a photoplethysmogram of constant rate: a steep rise, a slower fall with a shoulder.

    Args:
      times_s: Times, s, [t].
      bpm: Heart rate, bpm.

    Returns:
      The wave, float64 [t], between −1 and 1.
    """
    phase = 2 * np.pi * bpm / 60 * np.asarray(times_s, np.float64)
    return (np.sin(phase) + 0.3 * np.sin(2 * phase - 0.5)) / 1.25


def read_portrait() -> tuple[np.ndarray, np.ndarray]:
    """Read the portrait and mark its skin.

    Returns:
      The picture, uint8 [256, 256, 3] RGB, and its skin, float32 [256, 256] from 0 to 1, soft at the edges.
    """
    portrait = cv2.cvtColor(cv2.imread(str(PORTRAIT)), cv2.COLOR_BGR2RGB)
    return portrait, _skin(portrait)


def face_frames(times_s: np.ndarray, bpm: float, seed: int) -> Iterator[np.ndarray]:
    """Draw the portrait at every time: pulse on the skin, sway, sensor noise.

    Args:
      times_s: Times, s, [t].
      bpm: Heart rate, bpm.
      seed: Seed of the sensor noise.

    Yields:
      One picture after the other, uint8 [256, 256, 3] RGB.
    """
    rng = np.random.default_rng(seed)
    portrait, skin = read_portrait()
    height, width = portrait.shape[:2]
    skin = skin[..., None] * PULSE_COLOUR
    portrait = portrait.astype(np.float32)
    for time_s, blood in zip(times_s, ppg(times_s, bpm), strict=True):
        # More blood, darker skin.
        picture = portrait * (1 - np.float32(blood) * skin)
        across, down = SWAY_PX * np.sin(2 * np.pi * np.array(SWAY_HZ) * time_s)
        shift = np.array([[1, 0, across], [0, 1, down]])
        picture = cv2.warpAffine(picture, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        picture += NOISE * rng.standard_normal(picture.shape, np.float32)
        yield np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray],
    times_s: np.ndarray,
    *,
    codec: str = "libx264",
    rotation: int = 0,
    options: Mapping[str, str] | None = None,
) -> None:
    """Encode pictures with their timestamps; the file appears under its name when it is complete.

    Args:
      path: Path of the video. Its suffix chooses the container; where that holds a rate only (AVI), the
        times must be even.
      pictures: Pictures with even sides, uint8 [h, w, 3] RGB.
      times_s: Increasing times, s, [t].
      codec: FFmpeg's name of an encoder, such as 'libx264', 'mjpeg' or 'rawvideo'.
      rotation: Angle by which players turn the picture, degrees counter-clockwise.
      options: Options of the encoder, by FFmpeg's names; by default those of the sample video.

    Raises:
      StorageError: It cannot be written, for want of room say.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder) / "grey.mp4"
      ...     write_video(path, np.full((3, 16, 16, 3), 128, np.uint8), np.arange(3) / 30)
      ...     with av.open(str(path)) as container:
      ...         len(list(container.decode(video=0)))
      3
    """
    times_s = np.asarray(times_s, np.float64)
    rate = Fraction((len(times_s) - 1) / (times_s[-1] - times_s[0])).limit_denominator(1001)
    ticks = 1 / rate if path.suffix in UNTIMED else Fraction(1, TICKS_PER_S)
    path = storage.file_behind(path)
    aside = storage.aside(path, path.suffix)
    try:
        # Bit-exact: Matroska and WebM would carry a number drawn at random.
        exact = {"fflags": "+bitexact"}
        with (
            storage.storing(path, errors=(OSError,)),
            av.open(str(aside), "w", container_options=exact) as container,
        ):
            stream = container.add_stream(codec, rate=rate)
            stream.options = dict(CODEC_OPTIONS.get(codec, {}) if options is None else options)
            stream.pix_fmt = PIXEL_FORMATS.get(codec, "yuv420p")
            stream.codec_context.time_base = ticks
            if rotation:
                stream.set_display_rotation(rotation)
            stamps = np.rint(times_s / float(ticks)).astype(int).tolist()
            for stamp, picture in zip(stamps, pictures, strict=True):
                if not stream.codec_context.is_open:
                    stream.height, stream.width = picture.shape[:2]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = stamp, ticks
                container.mux(_lasting(stream.encode(frame), stamps[-1] - stamps[-2]))
            container.mux(_lasting(stream.encode(), stamps[-1] - stamps[-2]))
        with storage.storing(path):
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_face_video(
    path: str | Path,
    *,
    seconds: float = 12.0,
    fps: float = 30.0,
    bpm: float = 72.0,
    seed: int = 0,
    codec: str = "libx264",
    rotation: int = 0,
    times_s: np.ndarray | None = None,
) -> None:
    """Write a video of a face with a known pulse and the truth beside it.

    Args:
      path: Path of the video; the truth is written to <stem>.csv, columns time_s,ppg.
      seconds: Length, s.
      fps: Frame rate, Hz.
      bpm: Heart rate, bpm.
      seed: Seed of the sensor noise.
      codec: FFmpeg's name of an encoder.
      rotation: Angle by which players turn it, degrees counter-clockwise; the face then looks upright.
      times_s: Times of the frames, s, [t], t ≥ 2, instead of `seconds` and `fps`: a variable rate, gaps.

    Raises:
      UserError: The folder does not exist or cannot be written to.
      ConfigError: The suffix is unknown, the heart rate is not above 0, the seed is negative, or there are
        fewer than 2 frames.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_face_video(Path(folder) / "face.mp4", seconds=0.5, fps=10, bpm=60)
      ...     (Path(folder) / "face.csv").read_text().splitlines()[0]
      'time_s,ppg'
    """
    path = Path(path)
    if times_s is None:
        if not 2 <= seconds * fps < np.inf:
            raise ConfigError(f"{path}: {seconds:g} s at {fps:g} fps are fewer than 2 frames; ask for more")
        times_s = np.arange(round(seconds * fps)) / fps
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: unknown kind of video; give a name that ends in {', '.join(SUFFIXES)}")
    if seed < 0:
        raise ConfigError(f"{path}: the seed {seed} is negative; give 0 or more")
    if not bpm > 0:
        raise ConfigError(f"{path}: a heart rate of {bpm:g} bpm cannot be drawn; give one above 0")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"{path}: cannot be written; give a path in a folder that exists and is yours")
    pictures = (np.rot90(p, -rotation // 90) for p in face_frames(times_s, bpm, seed))
    write_video(path, pictures, times_s, codec=codec, rotation=rotation)
    truth = io.StringIO()
    rows = csv.writer(truth)
    rows.writerow(["time_s", "ppg"])
    rows.writerows([f"{t:.6f}", f"{p:.6f}"] for t, p in zip(times_s, ppg(times_s, bpm), strict=True))
    storage.write_text(path.with_suffix(".csv"), truth.getvalue())


def _lasting(packets: list[av.Packet], ticks: int) -> list[av.Packet]:
    """Give packets a duration: the container takes the last frame's from it, all others from the times."""
    for packet in packets:
        packet.duration = ticks
    return packets


def _skin(rgb: np.ndarray) -> np.ndarray:
    """Mark the portrait's skin, float32 [h, w] from 0 to 1 with soft edges: its colour inside its outline."""
    ycrcb = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)
    marked = cv2.inRange(ycrcb, (90, 138, 90), (255, 175, 127))
    marked &= cv2.ellipse(np.zeros_like(marked), OUTLINE, 255, cv2.FILLED)
    marked = cv2.morphologyEx(marked, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return cv2.GaussianBlur(marked, (0, 0), 2).astype(np.float32) / 255

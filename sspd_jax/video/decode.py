"""Decode a video file frame by frame with its own timestamps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from sspd_jax.errors import UserError

ASSUMED_FPS = 30.0  # of a stream that states neither timestamps nor a rate
RAW = (
    ".h264",
    ".264",
    ".h265",
    ".265",
    ".hevc",
    ".m4v",
    ".m2v",
    ".m1v",
    ".mpv",
    ".ivf",
    ".obu",
    ".mjpeg",
    ".mjpg",
)
"""Suffixes of streams without a container: their frames have no times."""
MANY_PIXELS = 3840 * 2160
"""Of larger pictures few are decoded at once: each thread of FFmpeg's holds some, 50 MB each at 8K."""
PLAY_IT = "check that it plays, or record or copy it again"

_threads = 0  # for a decoder; 0: FFmpeg decides


def use_threads(count: int) -> None:
    """Let every file opened from now on be decoded by so many threads; 0: by as many as there are cores.

    It is for processes that share a machine. What is decoded does not depend on it.
    """
    global _threads
    _threads = count


@dataclass(frozen=True)
class Video:
    """What a video file says about itself.

    Attributes:
      file: its path.
      width: of a frame as it is to be looked at (rotation applied), pixels.
      height: likewise, pixels.
      fps: average rate the file states, Hz; None if it states none. Phones vary it: trust the times.
      duration_s: length the container states, s; None if it states none.
      codec: FFmpeg's name, such as "h264".
      rotation: degrees counter-clockwise (0, 90, 180, 270) that the recording asked for.
    """

    file: Path
    width: int
    height: int
    fps: float | None
    duration_s: float | None
    codec: str
    rotation: int


def read_facts(path: str | Path) -> Video:
    """Read what a video file says about itself and decode one frame to be sure that it can be read.

    Args:
      path: a file that FFmpeg can decode.

    Returns:
      The facts.

    Raises:
      UserError: see `frames`.
    """
    with _opened(path) as (container, stream):
        first = next(_decoded(container, stream, Damage()), None)
        if first is None:
            raise _no_frame(path)
        turns = _quarter_turns(first)
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        rate = _stated_rate(stream, first)
        length = None
        if stream.duration is not None and stream.time_base is not None:
            length = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            length = container.duration / av.time_base
        return Video(Path(path), width, height, rate, length, stream.codec_context.name, 90 * turns)


def measured_rate(path: str | Path, *, packets: int = 300) -> float | None:
    """Measure the rate of a video's first frames by their timestamps, without decoding them.

    A header can say anything; a phone's average is that of a whole, uneven recording.

    Args:
      path: a file that FFmpeg can decode.
      packets: how many to look at.

    Returns:
      1 ÷ the median time between frames, Hz; None where the timestamps do not tell.

    Raises:
      UserError: see `frames`.
    """
    times: list[float] = []
    with _opened(path) as (container, stream):
        try:
            for packet in islice(container.demux(stream), packets):
                if packet.pts is not None and packet.size:
                    times.append(float(packet.pts * packet.time_base))
        except av.FFmpegError:
            pass  # what was read so far tells as well
    steps = np.diff(np.unique(times))  # frames are stored in the order of decoding
    return float(1 / np.median(steps)) if len(steps) >= 10 else None


@dataclass
class Damage:
    """What of a video could not be read.

    Attributes:
      packets: pieces of the file that held nothing that could be decoded.
      frames: pictures that were damaged.
      cut_off: whether the file ends before it says, or cannot be read to its end.
    """

    packets: int = 0
    frames: int = 0
    cut_off: bool = False

    def __str__(self) -> str:
        lost = self.packets + self.frames
        parts = [f"{lost} damaged frame{'s' * (lost != 1)} left out"] * bool(lost)
        parts += ["the file breaks off before its end"] * self.cut_off
        return ", ".join(parts)


def frames(path: str | Path, damage: Damage | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a video file, one frame at a time.

    Corrupt packets and frames are skipped, and so is a frame whose time does not advance. A stream without
    timestamps (raw H.264, say) gets a clock of its stated rate. A picture whose size changes on the way is
    scaled to the size of the first. Memory does not grow with the video.

    Args:
      path: a file that FFmpeg can decode.
      damage: is told what could not be read.

    Yields:
      Time in s since the first frame, and the picture, uint8 [h, w, 3] RGB, turned as the recording asks.

    Raises:
      UserError: on the first frame asked for: no such file, a directory, not a video, no video stream (only
        sound, say), not one frame that can be decoded, or a container whose header is lost: what FFmpeg still
        finds in it has no times, and a pulse without time has no rate.
    """
    with _opened(path) as (container, stream):
        first_s = last_s = width = height = turns = period_s = None
        to_rgb = VideoReformatter()  # one for all frames: setting up the conversion is what costs
        for frame in _decoded(container, stream, damage or Damage()):
            if first_s is None:
                width, height, turns = frame.width, frame.height, _quarter_turns(frame)
                if frame.time is None and Path(path).suffix.lower() not in RAW:
                    raise UserError(
                        f"{path}: is damaged at its beginning, and with it the times of its frames are lost; "
                        "copy it again, or record again"
                    )
                period_s = 1 / (_stated_rate(stream, frame) or ASSUMED_FPS)
                first_s = time_s = 0.0 if frame.time is None else frame.time
            else:
                time_s = last_s + period_s if frame.time is None else frame.time
                if time_s <= last_s:
                    continue
            last_s = time_s
            rgb = to_rgb.reformat(frame, width, height, "rgb24").to_ndarray()
            yield time_s - first_s, np.ascontiguousarray(np.rot90(rgb, turns))
        if first_s is None:
            raise _no_frame(path)


@contextmanager
def _opened(path: str | Path):
    """Open a file and choose its video stream; closes it however the block ends."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror.lower()}; give the path of a video file") from error
    if empty:
        raise UserError(f"{path}: the file is empty; {PLAY_IT}")
    try:
        container = av.open(str(path.absolute()))
    except (av.FFmpegError, ValueError) as error:
        raise UserError(f"{path}: not a video that FFmpeg can read; {PLAY_IT}") from error
    with container:
        # The cover picture of a sound file is a "video" stream too.
        streams = [
            s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            raise UserError(f"{path}: no video stream found in it; give a video file that plays")
        context = streams[0].codec_context
        if context is None:  # the stream names a codec that there is no decoder for
            raise UserError(f"{path}: FFmpeg has no decoder for its video; {PLAY_IT}")
        streams[0].thread_type, streams[0].thread_count = "AUTO", _threads
        if context.width * context.height > MANY_PIXELS:
            context.thread_count = min(_threads, 2) or 2
        yield container, streams[0]


def _decoded(container, stream, damage: Damage) -> Iterator[av.VideoFrame]:
    """Yield every frame that can be decoded; damage costs the frames it hit, not the video."""

    def packets():
        try:
            yield from container.demux(stream)
        except av.FFmpegError:
            damage.cut_off = True
            yield None  # the rest of the file cannot be read: ask the decoder for what it still holds

    for packet in packets():
        try:
            decoded = stream.decode(packet)
        except av.FFmpegError:
            damage.packets += 1
            continue
        for frame in decoded:
            if frame.is_corrupt:
                damage.frames += 1
            else:
                yield frame


def _stated_rate(stream, first: av.VideoFrame) -> float | None:
    # Without timestamps the average is FFmpeg's default of 25; the guess reads the stream's own header.
    rate = stream.guessed_rate if first.pts is None else stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


def _no_frame(path) -> UserError:
    return UserError(f"{path}: not one frame of it can be decoded; {PLAY_IT}")

"""Decode a video file frame by frame with its own timestamps, upright, in square pixels.

Where a file has no times its clock is the rate that it states or, where it states none, one that is assumed
or given; `Video.clock` and `Damage` say which.
"""

from __future__ import annotations

import functools
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from sspd_jax.errors import ConfigError, UserError

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
PIPE = "_pipe"  # how FFmpeg's names of pictures one after the other end, such as `jpeg_pipe`
RAW_FORMATS = frozenset(
    {
        *("h264", "hevc", "vvc", "evc", "obu", "mjpeg", "m4v", "mpegvideo", "h261", "h263", "vc1", "dirac"),
        *("cavsvideo", "avs2", "avs3"),
    }
)
"""FFmpeg's names of such streams. It counts their frames at 25 Hz where they state no rate."""
NOMINAL = frozenset({"avi", "yuv4mpegpipe"})
"""Containers that hold a rate and no times."""
TIMES, STATED, ASSUMED, GIVEN = "times", "stated", "assumed", "given"
RESTART_S = 0.5  # by which a time must fall back for the clock to start again: less is a slip of one frame
BREAK_S = 1.0  # that is put between two clocks: more than any gap that is interpolated
MOST_FPS = 10_000.0  # a higher one is no camera's
MOST_READING_FPS = 60.0  # a pulse needs no more: denser frames are averaged
RATE_OFF = 0.2  # a header that is that far from the timestamps is wrong, or an average of an uneven rate
LEAST_STEP_S = 0.9e-3  # between frames: what is denser is no film, and would all be held for one tick
OPENS_OTHERS = frozenset(
    {
        *("concat", "hls", "applehttp", "dash", "webm_dash_manifest", "imf", "image2", "vobsub", "lavfi"),
        *("sdp", "sap", "rtp", "rtsp", "avisynth", "vapoursynth"),
        *("v4l2", "video4linux2", "fbdev", "kmsgrab", "x11grab", "xcbgrab", "alsa", "oss", "pulse", "jack"),
        *("gdigrab", "dshow", "vfwcap", "avfoundation", "android_camera", "libcdio", "iec61883", "decklink"),
    }
)
"""FFmpeg's names of texts that name other files, addresses or devices, and of devices: none is opened."""
PLAYLISTS = ("ffconcat", "#EXTM3U", "<MPD", "<?xml", "v=0")
"""How such texts begin."""
ALLOWED_PLAYLISTS = ("hls", "applehttp", "concat")
"""What is opened besides where lists are allowed: HLS and FFmpeg's own."""
PLAYLIST_OPTIONS = {"protocol_whitelist": "file,crypto,data", "max_reload": "1", "live_start_index": "0"}
"""A list names files of this computer, never an address, and one without an end is not waited for."""
ADDRESS = re.compile(r"(https?|rtsp|rtmp|ftp|gs|s3):/")
SQUEEZED = (0.1, 10.0)  # the shape of a pixel, beyond which it is a mistake
MANY_PIXELS = 3840 * 2160
"""Of larger pictures few are decoded at once: each thread of FFmpeg's holds some, 50 MB each at 8K."""
PLAY_IT = "check that it plays, or record or copy it again"


@dataclass(frozen=True)
class Limits:
    """What a video file may ask for: a small one can claim any size and any length.

    Attributes:
      megapixels: of a picture; a larger one is refused.
      hours: of a video; what comes after them is left out, and said.
      playlists: whether a list of other files (HLS, `ffconcat`) is opened and they with it.

    Raises:
      ConfigError: one is not above 0.
    """

    megapixels: float = 70.0
    hours: float = 12.0
    playlists: bool = False

    def __post_init__(self):
        if not (self.megapixels > 0 and self.hours > 0):
            raise ConfigError(
                f"{self.megapixels:g} megapixels and {self.hours:g} hours at the most are not both above 0"
            )

    @property
    def pixels(self) -> int:
        """Pixels of a picture, at the most what FFmpeg counts."""
        return int(min(self.megapixels * 1e6, 2**31 - 1))


_threads = 0  # for a decoder; 0: FFmpeg decides
_limits = Limits()


def use_limits(limits: Limits) -> None:
    """Let every file opened from now on be held to other limits."""
    global _limits
    _limits = limits


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
      mirrored: whether it also asked to be mirrored, left for right, after that.
      clock: 'times' of the frames; 'stated' where the file holds a rate and no times (AVI, many raw streams);
        'assumed' where it holds neither; 'given' by the caller.
    """

    file: Path
    width: int
    height: int
    fps: float | None
    duration_s: float | None
    codec: str
    rotation: int
    mirrored: bool = False
    clock: str = TIMES

    @property
    def clock_note(self) -> str:
        """Say what the times rest on where they are not the file's own; '' where they are."""
        return _clock_note(self.clock, self.fps)


def _clock_note(clock: str, fps: float | None) -> str:
    if clock == ASSUMED:
        return (
            f"{fps:g} frames/s are assumed, the file holds neither times nor a rate: all rates scale with it"
        )
    if clock == STATED:
        return f"the file holds no times: they are counted at the {fps:g} frames/s that it states"
    return ""


def read_facts(path: str | Path, *, fps: float | None = None) -> Video:
    """Read what a video file says about itself and decode one frame to be sure that it can be read.

    Args:
      path: a file that FFmpeg can decode.
      fps: rate that is known from elsewhere, Hz, see `frames`.

    Returns:
      The facts.

    Raises:
      UserError: see `frames`.
    """
    with _opened(path) as (container, stream):
        first = next(_decoded(container, stream, Damage()), None)
        if first is None:
            raise _no_frame(path)
        turn = _turn(first)
        width, height = _square_size(first, stream)
        if turn.transposed:
            width, height = height, width
        clock, rate = _clock(path, container, stream, first, fps)
        length = None
        if stream.duration is not None and stream.time_base is not None:
            length = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            length = container.duration / av.time_base
        codec = stream.codec_context.name
        rotation = 90 * turn.quarters
        return Video(Path(path), width, height, rate, length, codec, rotation, turn.mirrored, clock)


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
        if container.format.name in RAW_FORMATS:
            return None  # FFmpeg counts their frames at a rate of its own
        try:
            for packet in islice(container.demux(stream), packets):
                if packet.pts is not None and packet.size:
                    times.append(float(packet.pts * packet.time_base))
        except av.FFmpegError:
            pass  # what was read so far tells as well
    steps = np.diff(np.unique(times))  # frames are stored in the order of decoding
    return float(1 / np.median(steps)) if len(steps) >= 10 else None


def reading_rate(path: str | Path) -> float:
    """Choose the frame rate at which a pulse is read in a file: as stated, unless its timestamps differ.

    Args:
      path: a file that FFmpeg can decode.

    Returns:
      Hz, `MOST_READING_FPS` at the most.

    Raises:
      UserError: see `frames`.
    """
    stated, measured = read_facts(path).fps, measured_rate(path)
    if stated is None or (measured is not None and abs(stated / measured - 1) > RATE_OFF):
        stated = measured or ASSUMED_FPS
    return min(stated, MOST_READING_FPS)


@dataclass
class Damage:
    """What of a video could not be read.

    Attributes:
      packets: pieces of the file that held nothing that could be decoded.
      frames: pictures that were damaged.
      cut_off: whether the file ends before it says, or cannot be read to its end.
      repeated: frames that were left out because their time does not advance, or by less than 0.9 ms.
      after_hours: how many hours were read, where that is not all; 0 where it is.
      restarts: how often the clock started again: what comes after is a stretch of its own.
      clock: sentence on a clock that is assumed; '' for any other.
    """

    packets: int = 0
    frames: int = 0
    cut_off: bool = False
    repeated: int = 0
    restarts: int = 0
    clock: str = ""
    after_hours: float = 0.0

    def __str__(self) -> str:
        lost = self.packets + self.frames
        parts = [f"{lost} damaged frame{'s' * (lost != 1)} left out"] * bool(lost)
        parts += ["the file breaks off before its end"] * self.cut_off
        if self.restarts:
            times = "once" if self.restarts == 1 else f"{self.restarts} times"
            parts.append(
                f"its clock starts again {times}: what comes after is read on its own, from where it was"
            )
        if self.repeated:
            parts.append(
                f"{self.repeated} frame{'s' * (self.repeated != 1)} left out whose time does not advance"
            )
        if self.after_hours:
            parts.append(f"only the first {self.after_hours:g} hours are read: --max_hours allows more")
        parts += [self.clock] * bool(self.clock)
        return ", ".join(parts)


def frames(
    path: str | Path, damage: Damage | None = None, *, fps: float | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a video file, one frame at a time.

    Corrupt packets and frames are skipped, and so is a frame whose time does not advance. Where the clock
    starts again (recordings that were joined, a stream that was picked up again) it goes on 1 s after what
    was before: a gap. A stream without timestamps (raw H.264, say) gets a clock of its stated rate, or of 30
    Hz. A picture whose size changes on the way is scaled to the size of the first. Memory does not grow with
    the video.

    Args:
      path: a file that FFmpeg can decode.
      damage: is told what could not be read, and whether the clock is assumed.
      fps: rate that is known from elsewhere, Hz: the frames are counted at it, whatever times the file has.

    Yields:
      Time in s since the first frame, and the picture, uint8 [h, w, 3] RGB, turned and mirrored as the
      recording asks, in square pixels.

    Raises:
      ConfigError: `fps` is no rate.
      UserError: on the first frame asked for: no such file, a directory, not a video, no video stream (only
        sound, say), not one frame that can be decoded, or a container whose header is lost: what FFmpeg still
        finds in it has no times, and a pulse without time has no rate.

    Example:
      >>> import tempfile
      >>> from sspd_jax.simulation import sample_video
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "face.mp4")
      ...     sample_video.write_face_video(file, seconds=0.5)
      ...     [(round(time_s, 2), picture.shape) for time_s, picture in frames(file)][:2]
      [(0.0, (256, 256, 3)), (0.03, (256, 256, 3))]
    """
    with _opened(path) as (container, stream):
        damage = Damage() if damage is None else damage
        decoded = _decoded(container, stream, damage)
        first = next(decoded, None)
        if first is None:
            raise _no_frame(path)
        clock, rate = _clock(path, container, stream, first, fps)
        if clock == ASSUMED:
            damage.clock = _clock_note(clock, rate)
        if clock == TIMES and first.time is None:
            raise UserError(
                f"{path}: is damaged at its beginning, and with it the times of its frames are lost; "
                "copy it again, or record again"
            )
        turn, size = _turn(first), _square_size(first, stream)
        to_rgb = VideoReformatter()  # one for all frames: setting up the conversion is what costs
        counted = clock in (ASSUMED, GIVEN)
        first_s = None
        for time_s, frame in _timed(chain([first], decoded), 1 / (rate or ASSUMED_FPS), counted, damage):
            first_s = time_s if first_s is None else first_s
            if time_s - first_s > 3600 * _limits.hours:
                damage.after_hours = _limits.hours
                return
            rgb = to_rgb.reformat(frame, *size, "rgb24").to_ndarray()
            yield time_s - first_s, np.ascontiguousarray(turn.apply(rgb))


def _timed(
    decoded: Iterable[av.VideoFrame], period_s: float, counted: bool, damage: Damage
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Give frames times that increase, s; `counted` at their rate, or their own."""
    last_s, shift_s = None, 0.0
    least_s = 0.0 if counted else LEAST_STEP_S
    behind: tuple[float, av.VideoFrame] | None = None  # one whose time fell back: the next tells why
    for frame in decoded:
        if counted or frame.time is None:
            time_s = 0.0 if last_s is None else last_s + period_s
        else:
            time_s = frame.time + shift_s
        if behind is not None:
            held_s, held = behind
            behind = None
            if held_s < time_s <= held_s + RESTART_S:
                damage.restarts += 1
                shift_s += last_s + BREAK_S - held_s
                time_s += last_s + BREAK_S - held_s
                last_s += BREAK_S
                yield last_s, held
            else:
                damage.repeated += 1
        if last_s is not None and (time_s <= last_s or time_s - last_s < least_s):
            if time_s < last_s - RESTART_S:
                behind = (time_s, frame)
            else:
                damage.repeated += 1
            continue
        last_s = time_s
        yield time_s, frame
    damage.repeated += behind is not None


@contextmanager
def _opened(path: str | Path):
    """Open a file and choose its video stream; closes it however the block ends."""
    path = Path(path)
    with open_media(path) as container:
        stream = _main_stream(container)
        if stream is None:
            raise UserError(f"{path}: no video stream found in it; give a video file that plays")
        context = stream.codec_context
        if context is None:  # the stream names a codec that there is no decoder for
            raise UserError(f"{path}: FFmpeg has no decoder for its video; {PLAY_IT}")
        if context.width * context.height > _limits.pixels:
            raise UserError(
                f"{path}: its pictures of {context.width} × {context.height} pixels are larger than "
                f"{_limits.megapixels:g} megapixels; make them smaller, or allow them with --max_megapixels"
            )
        context.options = {"max_pixels": str(_limits.pixels)}  # also where they grow on the way
        stream.thread_type, stream.thread_count = "AUTO", _threads
        if context.width * context.height > MANY_PIXELS:
            context.thread_count = min(_threads, 2) or 2
        yield container, stream


def open_media(path: str | Path):
    """Open a file for FFmpeg: that file alone, whatever it says.

    A playlist that is called a video could name any other file of this computer, or an address. Where they
    are allowed (`Limits.playlists`) the files are opened, and no address is.

    Args:
      path: a file.

    Returns:
      PyAV's container; it is to be closed.

    Raises:
      UserError: no such file, a directory, a pipe or a device, an empty file, a playlist, or nothing that
        FFmpeg can read.
    """
    path = Path(path)
    if ADDRESS.match(str(path)) and not path.exists():
        raise UserError(f"{path}: is an address, and no address is opened; download it and give the file")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a pipe would wait, perhaps for ever
            raise UserError(f"{path}: is a pipe or a device; give the path of a video file")
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror.lower()}; give the path of a video file") from error
    except ValueError as error:  # NUL in a name
        raise UserError(f"{path}: is no name that a file can have; give the path of a video file") from error
    if not head:
        raise UserError(f"{path}: the file is empty; {PLAY_IT}")
    try:
        options = {"format_whitelist": _formats()}
        if _limits.playlists:
            options = {"format_whitelist": ",".join((_formats(), *ALLOWED_PLAYLISTS)), **PLAYLIST_OPTIONS}
        return av.open(str(path.absolute()), options=options)
    except (av.FFmpegError, ValueError) as error:
        if head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").startswith(PLAYLISTS):
            if _limits.playlists:
                raise UserError(
                    f"{path}: is a list, and what it names cannot be read; files beside it are, no addresses"
                ) from error
            raise UserError(
                f"{path}: is a list of other files, and what a list names is not opened; give those files, "
                "or allow it with --allow_playlist"
            ) from error
        raise UserError(f"{path}: not a video that FFmpeg can read; {PLAY_IT}") from error


@functools.cache
def _formats() -> str:
    """Name every format that FFmpeg can read here, but those that open something else."""
    return ",".join(sorted(av.formats_available - OPENS_OTHERS))


def _main_stream(container):
    """Choose the stream that players show: by FFmpeg's rule, but never a sound file's cover picture."""
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    best = container.streams.best("video")
    if best is not None and any(s.index == best.index for s in pictures):
        return best
    return max(pictures, key=lambda s: (s.width or 0) * (s.height or 0), default=None)


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


def _clock(path, container, stream, first: av.VideoFrame, given: float | None) -> tuple[str, float | None]:
    """Say what the times of the frames rest on, and their rate, Hz (None: not stated, and not needed)."""
    if given is not None:
        if not 0 < given <= MOST_FPS:
            raise ConfigError(f"fps {given:g} is not above 0 and {MOST_FPS:g} Hz at most")
        return GIVEN, float(given)
    if container.format.name in RAW_FORMATS:
        if Path(path).suffix.lower() not in RAW:
            # What FFmpeg finds in a container whose header is lost has no times, or invented ones.
            raise UserError(
                f"{path}: is damaged at its beginning, and with it the times of its frames are lost; copy it "
                f"again, record again, or call it {Path(path).stem}.{container.format.name} if it is a "
                "stream without a container"
            )
        stated = stream.codec_context.framerate
        return (STATED, float(stated)) if stated else (ASSUMED, ASSUMED_FPS)
    if container.format.name.endswith(PIPE):
        return ASSUMED, ASSUMED_FPS
    # Without timestamps the average is FFmpeg's default of 25; the guess reads the stream's own header.
    rate = stream.guessed_rate if first.pts is None else stream.average_rate or stream.guessed_rate
    nominal = container.format.name in NOMINAL and rate
    return STATED if nominal else TIMES, float(rate) if rate else None


class _Turn(NamedTuple):
    """How a picture is laid upright: its axes exchanged, then mirrored."""

    transposed: bool
    left_for_right: bool
    upside_down: bool

    @property
    def mirrored(self) -> bool:
        return (self.transposed + self.left_for_right + self.upside_down) % 2 == 1

    @property
    def quarters(self) -> int:
        """Turns counter-clockwise, before a mirror that exchanges left and right."""
        left_for_right = self.left_for_right != self.mirrored
        if not self.transposed:
            return 2 if left_for_right else 0
        return 3 if left_for_right else 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.upside_down else 1, :: -1 if self.left_for_right else 1]


def _turn(frame: av.VideoFrame) -> _Turn:
    """Read the display matrix: column and row of the picture → those of what is to be looked at."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None or len(bytes(matrix)) < 36:
        return _Turn(False, False, False)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return _Turn(True, c < 0, b < 0)
    return _Turn(False, a < 0, d < 0)


def _square_size(frame: av.VideoFrame, stream) -> tuple[int, int]:
    """Return width and height in square pixels: the short side of a pixel is drawn out."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    shape = float(ratio) if ratio else 1.0
    drawn_out = frame.width * frame.height * max(shape, 1 / shape if shape else 1.0)
    if not SQUEEZED[0] <= shape <= SQUEEZED[1] or abs(shape - 1) < 0.01 or drawn_out > _limits.pixels:
        return frame.width, frame.height
    if shape > 1:
        return round(frame.width * shape), frame.height
    return frame.width, round(frame.height / shape)


def _no_frame(path) -> UserError:
    return UserError(f"{path}: not one frame of it can be decoded; {PLAY_IT}")

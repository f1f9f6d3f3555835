"""Read the heart rate of whoever sits before a camera, as it happens, and show it in a page on this computer.

    python -m sspd_jax live                                       the first camera, by POS
    python -m sspd_jax live --checkpoint=DIR                      by a trained network
    python -m sspd_jax live face.mp4                              a file, as if it were live
    python -m sspd_jax live face.mp4 --no_page --speed=4          a line of text for each update

The page is at http://127.0.0.1:8000 and cannot be reached from other computers; /state.json holds the newest
update for programs. No picture is stored or sent anywhere. From Python:

    from sspd_jax import live
    for update in live.watch(live.camera(0), 30):
        print(update.window.heart_rate_bpm, update.window.confidence)
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import classical
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import cell_colors, windows
from sspd_jax.inference.cell_colors import FaceCells
from sspd_jax.inference.windows import Settings, Window
from sspd_jax.method import streaming
from sspd_jax.video import face_stream, face_tracking, resample
from sspd_jax.video.camera import FPS_OVER_S, Feed
from sspd_jax.video.crop import crop
from sspd_jax.video.face_detection import FaceBox, FaceDetector, widen

if TYPE_CHECKING:
    from sspd_jax.inference.model import RppgModel, Stream

UPDATE_S = 1.0
READ_AT_ONCE = 8  # images, by the network: fewer would cost more, and more would make the wave wait
MAX_GAP_S = 0.5  # as for files

NO_FACE_YET = "no face found yet"
GAP = "a gap in time"
TOO_SLOW = "frames were dropped: this computer is too slow for it"


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """What is known now.

    Attributes:
      time_s: of the newest frame, s on the frames' own clock.
      window: the last `window_s` seconds of the wave; where they have no reading, `why` says why not.
      wave: the same seconds of the pulse wave, or as much as there is since the last restart; upright where
        that can be told, see `evidence.upright`.
      face_box: what is cut out of the frames, pixels; None while no face is in view.
      latency_s: from the moment the wave's newest sample was filmed to this update, s: what the method waits
        for, and what the computer needed. Where there is no wave, of the newest frame.
      fps: of the frames that came in the last seconds, Hz; 0 where that cannot be told yet.
      dropped: frames so far that this computer had no time for.
    """

    time_s: float
    window: Window
    wave: Wave
    face_box: FaceBox | None
    latency_s: float
    fps: float
    dropped: int


def as_json(update: Update) -> dict[str, Any]:
    """Return an update as JSON's types, times to the millisecond, the wave to 4 digits."""
    box, wave = update.face_box, update.wave
    return {
        "time_s": round(update.time_s, 3),
        "window": windows.as_json(update.window),
        "wave": {
            "start_s": round(wave.start_s, 3),
            "fps": wave.fps,
            "values": [float(f"{value:.4g}") for value in wave.values],
        },
        "face_box": None if box is None else list(dataclasses.astuple(box)),
        "latency_s": round(update.latency_s, 3),
        "fps": round(update.fps, 2),
        "dropped": update.dropped,
    }


def watch(
    frames: Iterable[tuple[float, np.ndarray]],
    fps: float,
    *,
    reader: RppgModel | None = None,
    method: str = "pos",
    settings: Settings | None = None,
    every_s: float = UPDATE_S,
) -> Iterator[Update]:
    """Read the heart rate from frames as they come, in bounded memory.

    The window slides: each update judges the last `settings.window_s` seconds. A gap in time of more than
    0.5 s, and a face that is lost (see `follow.FaceFollower`), begin it anew; until it is full there is no
    reading, and `Update.window.why` says so.

    Args:
      frames: (time in s, uint8 [h, w, 3] RGB), times increasing: a `Feed`, or anything else. Where they have
        `close`, it is called at the end.
      fps: their rate, Hz, about.
      reader: the network, for 'sspd'.
      method: 'sspd' or a classical one, see `reading.METHODS`.
      settings: windows, read-out and least confidence; the stride is not used.
      every_s: s from one update to the next, about.

    Returns:
      Iterator of updates, about one every `every_s`, and one when the face is lost or found. What has to be
      compiled is compiled before this returns.

    Raises:
      ConfigError: an unknown method, 'sspd' without a network, a rate too low for the method, or an
        `every_s` that is not positive.
      ValueError: while it is read: times that do not increase.
    """
    settings = settings or Settings()
    if not 0 < fps < math.inf or not 0 < every_s < math.inf:
        raise ConfigError(f"a rate of {fps:g} Hz or an update every {every_s:g} s is not above 0")
    windows.wave_reader(method, reader, fps)  # says what is wrong with method and reader
    if method == "sspd":
        rate, size = reader.clock_rate(fps), reader.crop_size
    else:
        rate, size = fps, face_stream.SIZE
    plan = _Plan(
        method=method,
        reader=reader if method == "sspd" else None,
        settings=settings,
        rate=rate,
        frames=round(settings.window_s * rate),
        step=max(1, round(every_s * rate)),
    )
    try:
        plan.compile(size)
    except ValueError as error:
        raise ConfigError(f"{method} cannot read {rate:g} frames/s ({error})") from error
    return _updates(_View(frames, size, plan.held / rate + 1), plan)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What stays the same while one watches: rates in Hz, lengths in frames of the clock."""

    method: str
    reader: RppgModel | None  # for 'sspd' alone
    settings: Settings
    rate: float
    frames: int  # in a window
    step: int  # from update to update

    @property
    def held(self) -> int:
        """Frames whose cells are kept: a window's, and those that the wave does not reach yet."""
        if self.reader is None:
            return self.frames
        return self.frames + READ_AT_ONCE + streaming.lag(self.reader.network) + 1

    def stream(self) -> Stream | None:
        return None if self.reader is None else self.reader.stream(READ_AT_ONCE)

    def compile(self, size: int) -> None:
        """Compile before the first frame comes: a camera does not wait."""
        if stream := self.stream():
            nothing = np.zeros((size, size, 3), np.uint8)
            stream.push([nothing] * (READ_AT_ONCE + 1))
        else:
            classical.read_trace(self.method, np.zeros((self.frames, 3)), self.rate)


class _View:
    """What is known of the picture: where the face is, what lies around it, how fast frames come."""

    def __init__(self, frames: Iterable[tuple[float, np.ndarray]], size: int, keep_s: float):
        self.frames, self._whole = iter(frames), frames
        self._size, self._keep_s = size, keep_s
        self._follower = face_tracking.FaceFollower(FaceDetector())
        self.looks = self._follower.looks
        self.around: deque[tuple[float, np.ndarray]] = deque()
        self.box: FaceBox | None = None
        self.time_s, self._arrived_s = -math.inf, 0.0
        self.gap, self._dropped = "", 0  # what the last gap in time came from

    def look(self, time_s: float, rgb: np.ndarray) -> np.ndarray | None:
        """Take the next frame; returns the face, uint8 [size, size, 3], or None while it is out of view."""
        if not time_s > self.time_s:
            raise ValueError(f"time must increase, got {time_s} s after {self.time_s} s")
        if time_s > self.time_s + MAX_GAP_S:
            self.gap = TOO_SLOW if self.dropped > self._dropped else GAP
        self.time_s, self._dropped = time_s, self.dropped
        self._arrived_s = self._whole.arrived_s if isinstance(self._whole, Feed) else time.monotonic()
        marked = self._follower.see(time_s, rgb)
        self.box = None if marked is None else widen(marked, rgb.shape[1], rgb.shape[0])
        around = np.full(3, np.nan) if self.box is None else face_stream.mean_around(rgb, self.box)
        self.around.append((time_s, around))
        # Twice as many frames as the clock has ticks, or ten times, may come: they are let go by their time.
        while self.around[0][0] < time_s - self._keep_s:
            self.around.popleft()
        while len(self.looks) > 1 and self.looks[0][0] < time_s - self._keep_s:
            del self.looks[0]
        return None if self.box is None else crop(rgb, self.box, self._size)

    def crops(self) -> Iterator[tuple[float, np.ndarray]]:
        """Take frames until the face is lost."""
        for time_s, rgb in self.frames:
            face = self.look(time_s, rgb)
            if face is None:
                return
            yield time_s, face

    @property
    def dropped(self) -> int:
        return self._whole.dropped if isinstance(self._whole, Feed) else 0

    @property
    def fps(self) -> float:
        late = [time_s for time_s, _ in self.around if time_s > self.time_s - FPS_OVER_S]
        return (len(late) - 1) / (late[-1] - late[0]) if len(late) > 1 else 0.0

    def background(self, times_s: np.ndarray) -> np.ndarray:
        """Read the colour around the face at other times, float64 [t, 3]; NaN where it is not known."""
        at, colours = zip(*self.around, strict=True)
        return np.stack([np.interp(times_s, at, column) for column in np.array(colours).T], axis=1)

    def update(self, window: Window, wave: Wave) -> Update:
        wait_s = time.monotonic() - self._arrived_s
        if len(wave.values):
            wait_s += self.time_s - float(wave.times_s[-1])
        return Update(self.time_s, window, wave, self.box, wait_s, self.fps, self.dropped)

    def blank(self, why: str, rate: float) -> Update:
        window = Window(self.time_s, 0.0, None, 0.0, why, None)
        return self.update(window, Wave(np.zeros(0), rate, self.time_s))

    def close(self) -> None:
        if hasattr(self._whole, "close"):
            self._whole.close()


def _updates(view: _View, plan: _Plan) -> Iterator[Update]:
    cause, why, told_s = "", NO_FACE_YET, -math.inf
    try:
        while True:
            # Step 1) wait for a face.
            for time_s, rgb in view.frames:
                face = view.look(time_s, rgb)
                if face is not None:
                    break
                if time_s >= told_s + plan.step / plan.rate:
                    told_s = time_s
                    yield view.blank(why, plan.rate)
            else:
                return
            # Step 2) read it until it is lost; a gap in time begins a stretch of its own.
            stretch, number = _Stretch(plan, cause), 0
            yield stretch.update(view)
            faces = chain([(time_s, face)], view.crops())
            for segment, tick_s, image in resample.uniform(faces, plan.rate, max_gap_s=MAX_GAP_S):
                if segment != number:
                    cause = view.gap
                    stretch, number = _Stretch(plan, cause), segment
                # The clock's last tick comes when the face is lost already: that is said below.
                if stretch.take(tick_s, image) and view.box is not None:
                    yield stretch.update(view)
            if view.box is not None:
                return
            cause, why, told_s = "the face was out of view", windows.OUT_OF_VIEW, view.time_s
            yield view.blank(why, plan.rate)
    finally:
        view.close()


class _Stretch:
    """An unbroken time with a face: the last window of its wave and of its colours."""

    def __init__(self, plan: _Plan, cause: str):
        self._plan, self._cause = plan, cause
        self._stream = plan.stream()
        self._face = FaceCells("difference" if plan.reader is None else plan.reader.network.change)
        self._cells: deque[tuple[float, np.ndarray]] = deque(maxlen=plan.held)
        self._wave: deque[float] = deque(maxlen=plan.frames)
        self._taken = self._known = 0  # frames; those whose sample of the wave is known
        self._upright = 0.0

    def take(self, tick_s: float, image: np.ndarray) -> bool:
        """Take the next image on the clock; returns whether there is news."""
        self._cells.append((tick_s, self._face.read(image)))
        self._taken += 1
        known = self._known
        if self._stream is None:
            self._known += 1
        else:
            new = self._stream.push([image])
            self._wave.extend(new.tolist())
            self._known += len(new)
        return self._known // self._plan.step > known // self._plan.step

    def update(self, view: _View) -> Update:
        plan, settings = self._plan, self._plan.settings
        if self._known < plan.frames:
            why = f"watched for {self._known / plan.rate:.0f} of {settings.window_s:g} s"
            why += f", anew since {self._cause}" if self._cause else ""
            start_s = self._cells[0][0] if self._cells else view.time_s
            window = Window(start_s, self._known / plan.rate, None, 0.0, why, None)
            return view.update(window, self._as_wave(np.array(self._wave), start_s))
        # Where the wave lags behind the frames, the window ends with the wave.
        first = len(self._cells) - (self._taken - self._known) - plan.frames
        held = list(islice(self._cells, first, first + plan.frames))
        times_s = np.array([time_s for time_s, _ in held])
        cells = np.array([values for _, values in held])
        if self._stream is None:
            trace = cell_colors.cell_traces(cells)[0].mean(axis=1, dtype=np.float64)
            values = classical.read_trace(plan.method, trace, plan.rate)
            self._upright = 0.0  # every window is a wave of its own
        else:
            values = np.array(self._wave)
        window, turn = windows.judge_window(
            values,
            plan.rate,
            settings,
            start_s=float(times_s[0]),
            cells=cells,
            background=view.background(times_s),
            in_view=face_tracking.seen_share(view.looks, times_s[0], times_s[-1]),
        )
        self._upright += turn
        return view.update(window, self._as_wave(-values if self._upright < 0 else values, times_s[0]))

    def _as_wave(self, values: np.ndarray, start_s: float) -> Wave:
        # A learned sample lies between two frames.
        return Wave(values, self._plan.rate, start_s + (0.5 / self._plan.rate if self._stream else 0))


def describe(update: Update) -> str:
    """Say an update in a line."""
    window = update.window
    if window.heart_rate_bpm is None:
        what = f"no reading: {window.why}"
    else:
        what = f"{window.heart_rate_bpm:5.1f} bpm, {window.confidence:.0%} sure"
    dropped = f", {update.dropped} frames dropped" if update.dropped else ""
    return (
        f"{update.time_s:7.1f} s  {what} ({update.fps:.0f} frames/s, {update.latency_s:.2f} s ago{dropped})"
    )

"""Heart rates from frames as they come: a window that slides, an update a second, bounded memory."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from sspd_jax.checkpoints import host_network
from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import host_classical
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import skin_reading, skin_segment, windows
from sspd_jax.inference.cell_colors import FaceCells
from sspd_jax.inference.methods import (
    AUTO,
    check_method,
    classical_wave,
    input_transform_of,
)
from sspd_jax.inference.windows import Settings, Window
from sspd_jax.runtime.text import percent
from sspd_jax.video import face_stream, face_tracking, resample
from sspd_jax.video.camera import FPS_OVER_S, Feed
from sspd_jax.video.crop import SKIN, crop
from sspd_jax.video.face_detection import FaceBox, HaarDetector, widen
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.face_track import TrackedFace
from sspd_jax.video.skin_box import SkinBox
from sspd_jax.video.skin_traces import SkinRecorder

if TYPE_CHECKING:
    from sspd_jax.checkpoints.host_network import HostModel, HostStream
    from sspd_jax.inference.model import RppgModel, Stream

UPDATE_S = 1.0
IMAGES_AT_ONCE = 8  # through the network: fewer would cost more, and more would make the wave wait
MAX_GAP_S = resample.MAX_GAP_S
BEFORE = 2  # windows of the skin's traces that are kept: estimators are unsure of both ends

NO_FACE_YET = "no face found yet"
GAP = "a gap in time"
TOO_SLOW = "frames were dropped: this computer is too slow for it"
TOO_FAST = "frames were dropped: --speed={:g} is more than this computer can follow, give a lower one"


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """What is known now.

    Attributes:
      time_s: Time of the newest frame, in s on the frames' own clock.
      window: The last `window_s` seconds of the wave; where they have no reading, `why` says why not.
      wave: The same seconds of the pulse wave, or as much as there is since the last restart; upright where
        that is known, see `signal_quality.upright`.
      face_box: What is cut out of the frames, in pixels; None while no face is in view.
      latency_s: Time from when the wave's newest sample was filmed to this update, in s: what the method
        waits for, and what the computer needed. Where there is no wave, that of the newest frame.
      fps: Rate of the frames that came in the last seconds, in Hz; 0 where it is not known yet.
      dropped: How many frames so far this computer had no time for.
    """

    time_s: float
    window: Window
    wave: Wave
    face_box: FaceBox | None
    latency_s: float
    fps: float
    dropped: int


def as_json(update: Update) -> dict[str, Any]:
    """Return an update as JSON's types: times to the millisecond, the wave around 0, to 4 digits."""
    box, wave = update.face_box, update.wave
    # A raw colour lies far from 0: four digits of it would leave steps.
    values = wave.values - wave.values.mean() if len(wave.values) else wave.values
    return {
        "time_s": round(update.time_s, 3),
        "window": windows.as_json(update.window),
        "wave": {
            "start_s": round(wave.start_s, 3),
            "fps": wave.fps,
            "values": [float(f"{value:.4g}") for value in values],
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
    model: RppgModel | None = None,
    method: str = AUTO,
    settings: Settings | None = None,
    every_s: float = UPDATE_S,
    box: SkinBox | None = None,
) -> Iterator[Update]:
    """Estimate the heart rate from frames as they come, in bounded memory.

    The window slides: each update judges the last `settings.window_s` seconds. A gap in time of more than
    0.5 s, and a face that is lost (see `face_tracking.FaceFollower`), begin it anew; until it is full there
    is no reading, and `Update.window.why` says so.

    Args:
      frames: (time in s, uint8 [h, w, 3] RGB), times increasing: a `Feed`, or anything else. Where they have
        `close`, it is called at the end.
      fps: Their rate in Hz, about.
      model: The network, for 'sspd' and 'auto'; without one 'auto' asks the shipped network, unless
        `settings.network` says not to.
      method: 'auto' for all estimators side by side, 'sspd' or a classical one, see `methods.METHODS`.
      settings: Windows, estimator and least confidence; the stride is not used.
      every_s: Time from one update to the next in s, about.
      box: Where the skin is, in pixels of the pictures; nothing looks for a face then.

    Returns:
      Iterator of updates, about one every `every_s`, and one when the face is lost or found. What has to be
      compiled is compiled before this returns.

    Raises:
      ConfigError: An unknown method, 'sspd' where no network can be asked, a rate too low for the method, or
        an `every_s` that is not positive.
      ValueError: While the updates are taken: times that do not increase.
      ConfigError: While the updates are taken: a box that is not inside a picture.
    """
    settings = settings or Settings()
    if not 0 < fps < math.inf or not 0 < every_s < math.inf:
        raise ConfigError(f"a rate of {fps:g} Hz or an update every {every_s:g} s is not above 0")
    ships = settings.asks_shipped(method, model, box)
    check_method(method, model, ships=ships)
    if method not in ("sspd", AUTO):
        model = None
    is_skin = settings.region == "skin"
    if method == AUTO and not is_skin:
        method = "sspd" if model else "pos"
    networks = load_networks()[0] if is_skin and not box else None
    if ships and networks:
        model = host_network.shipped()
    elif ships and method == "sspd":
        raise ConfigError("the network that ships with the package needs the face models; give --checkpoint")
    of_skin = model is not None and model.face_crop == SKIN
    if of_skin and not is_skin:
        raise ConfigError(f"{model.name}: reads pictures of the skin alone; leave --region=crop away")
    size = face_stream.UNREAD_SIZE if is_skin else face_stream.SIZE
    rate, size = (model.clock_rate(fps), model.crop_size) if model else (fps, size)
    plan = _Plan(
        method=method,
        model=model,
        settings=settings,
        rate=rate,
        frames=round(settings.window_s * rate),
        step=max(1, round(every_s * rate)),
    )
    try:
        plan.compile(size)
    except ValueError as error:
        raise ConfigError(f"{method} cannot read {rate:g} frames/s ({error})") from error
    recorder = None
    if is_skin:
        recorder = SkinRecorder(networks, look_ahead_s=0, crop_size=size if of_skin else None, box=box)
    kept_s = BEFORE * plan.kept / rate + 1
    return _updates(_View(frames, size, kept_s, recorder, box, of_skin=of_skin), plan)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What stays the same while one watches: rates in Hz, lengths in frames of the clock."""

    method: str
    model: RppgModel | HostModel | None  # for 'sspd' and 'auto' alone
    settings: Settings
    rate: float
    frames: int  # in a window
    step: int  # from update to update

    @property
    def kept(self) -> int:
        """Frames whose cells are kept: a window's, and those that the wave does not reach yet."""
        if self.model is None:
            return self.frames
        return self.frames + IMAGES_AT_ONCE + self.stream().lag + 1

    def stream(self) -> Stream | HostStream | None:
        return None if self.model is None else self.model.stream(IMAGES_AT_ONCE)

    def compile(self, size: int) -> None:
        """Compile before the first frame comes: a camera does not wait."""
        if stream := self.stream():
            black = np.zeros((size, size, 3), np.uint8)
            stream.push([black] * (IMAGES_AT_ONCE + 1))
        elif self.settings.region == "skin":
            skin_segment.check_rate(self.method, self.rate, self.frames)
        else:
            host_classical.read_trace(self.method, np.zeros((self.frames, 3)), self.rate)


class _View:
    """What is known of the picture: where the face is, what lies around it, how fast frames come."""

    def __init__(
        self,
        frames: Iterable[tuple[float, np.ndarray]],
        size: int,
        keep_s: float,
        recorder: SkinRecorder | None = None,
        given: SkinBox | None = None,
        *,
        of_skin: bool = False,
    ):
        self.frames, self._source = iter(frames), frames
        self._size, self._keep_s = size, keep_s
        self.recorder, self._given, self._of_skin = recorder, given, of_skin
        tracker = recorder.tracker if recorder else None
        self._follower = face_tracking.FaceFollower(TrackedFace(tracker) if tracker else HaarDetector())
        self.detections = self._follower.detections
        self.around: deque[tuple[float, np.ndarray]] = deque()
        self.box: FaceBox | None = None
        self.time_s, self._arrived_s = -math.inf, 0.0
        self.gap, self._dropped = "", 0  # what the last gap in time came from

    def take(self, time_s: float, rgb: np.ndarray) -> np.ndarray | None:
        """Take the next frame; returns the face, uint8 [size, size, 3], or None where there is none in it.

        `box` is None while the face is out of view. One that is lost for a moment only keeps its box, and has
        no picture of its skin.
        """
        if not time_s > self.time_s:
            raise ValueError(f"time must increase, got {time_s} s after {self.time_s} s")
        if time_s > self.time_s + MAX_GAP_S:
            self.gap = self._why_dropped() if self.dropped > self._dropped else GAP
        self.time_s, self._dropped = time_s, self.dropped
        self._arrived_s = self._source.arrived_s if isinstance(self._source, Feed) else time.monotonic()
        if self.recorder:
            self.recorder.see(time_s, rgb)
            self.recorder.forget(time_s - self._keep_s)
        if self._given:
            self.box = self._given.inside(rgb.shape[1], rgb.shape[0])
        else:
            marked = self._follower.see(time_s, rgb)
            self.box = None if marked is None else widen(marked, rgb.shape[1], rgb.shape[0])
        around = np.full(3, np.nan) if self.box is None else face_stream.mean_around(rgb, self.box)
        self.around.append((time_s, around))
        # Twice as many frames as the clock has ticks, or ten times, may come: they are let go by their time.
        while self.around[0][0] < time_s - self._keep_s:
            self.around.popleft()
        while len(self.detections) > 1 and self.detections[0][0] < time_s - self._keep_s:
            del self.detections[0]
        if self._of_skin:
            only = [picture for _, picture in self.recorder.take_crops()]
            return only[-1] if only and self.box is not None else None
        return None if self.box is None else crop(rgb, self.box, self._size)

    def _why_dropped(self) -> str:
        return TOO_FAST.format(self._source.speed) if self._source.speed > 1 else TOO_SLOW

    def crops(self) -> Iterator[tuple[float, np.ndarray]]:
        """Take frames until the face is lost."""
        for time_s, rgb in self.frames:
            face = self.take(time_s, rgb)
            if self.box is None:
                return
            if face is not None:
                yield time_s, face

    @property
    def dropped(self) -> int:
        return self._source.dropped if isinstance(self._source, Feed) else 0

    @property
    def fps(self) -> float:
        late = [time_s for time_s, _ in self.around if time_s > self.time_s - FPS_OVER_S]
        return (len(late) - 1) / (late[-1] - late[0]) if len(late) > 1 else 0.0

    def background(self, times_s: np.ndarray) -> np.ndarray:
        """Interpolate the colour around the face, float64 [t, 3]; NaN where it is not known."""
        known_s, colours = zip(*self.around, strict=True)
        return np.stack([np.interp(times_s, known_s, column) for column in np.array(colours).T], axis=1)

    def update(self, window: Window, wave: Wave) -> Update:
        wait_s = time.monotonic() - self._arrived_s
        if len(wave.values):
            wait_s += self.time_s - float(wave.times_s[-1])
        return Update(self.time_s, window, wave, self.box, wait_s, self.fps, self.dropped)

    def blank(self, why: str, rate: float) -> Update:
        window = Window(self.time_s, 0.0, None, 0.0, why, None)
        return self.update(window, Wave(np.zeros(0), rate, self.time_s))

    def close(self) -> None:
        if hasattr(self._source, "close"):
            self._source.close()


def _updates(view: _View, plan: _Plan) -> Iterator[Update]:
    cause, why, last_s = "", NO_FACE_YET, -math.inf
    try:
        while True:
            # Step 1) wait for a face.
            for time_s, rgb in view.frames:
                face = view.take(time_s, rgb)
                if face is not None:
                    break
                if time_s >= last_s + plan.step / plan.rate:
                    last_s = time_s
                    yield view.blank(why, plan.rate)
            else:
                return
            # Step 2) follow its pulse until it is lost; a gap in time begins a segment of its own.
            segment, number = _GrowingSegment(plan, cause), 0
            yield segment.update(view)
            faces = chain([(time_s, face)], view.crops())
            for part, tick_s, image in resample.uniform(faces, plan.rate, max_gap_s=MAX_GAP_S):
                if part != number:
                    cause = view.gap
                    segment, number = _GrowingSegment(plan, cause), part
                # The clock's last tick comes when the face is lost already: that update comes below.
                if segment.take(tick_s, image) and view.box is not None:
                    yield segment.update(view)
            if view.box is not None:
                return
            cause, why, last_s = "the face was out of view", windows.OUT_OF_VIEW, view.time_s
            yield view.blank(why, plan.rate)
    finally:
        view.close()


class _GrowingSegment:
    """An unbroken time with a face: the last window of its wave and of its colours."""

    def __init__(self, plan: _Plan, cause: str):
        self._plan, self._cause = plan, cause
        self._stream = plan.stream()
        self._face = FaceCells(input_transform_of(plan.model))
        self._cells: deque[tuple[float, np.ndarray]] = deque(maxlen=plan.kept)
        self._wave: deque[float] = deque(maxlen=plan.frames)
        self._taken = self._known = 0  # frames; those whose sample of the wave is known
        self._start_s = math.nan
        self._upright = 0.0

    def take(self, tick_s: float, image: np.ndarray) -> bool:
        """Take the next image on the clock; returns whether an update is due."""
        if not self._taken:
            self._start_s = tick_s
        self._cells.append((tick_s, self._face.measure(image)))
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
            start_s = self._cells[0][0] if self._cells else view.time_s
            wave = self._as_wave(np.array(self._wave), start_s)
            return view.update(self._too_short(start_s, self._known / plan.rate, self._cause), wave)
        if view.recorder:
            return self._update_skin(view)
        # Where the wave lags behind the frames, the window ends with the wave.
        first = len(self._cells) - (self._taken - self._known) - plan.frames
        inside = list(islice(self._cells, first, first + plan.frames))
        times_s = np.array([time_s for time_s, _ in inside])
        cells = np.array([values for _, values in inside])
        if self._stream is None:
            values = classical_wave(plan.method, cells, plan.rate)
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
            in_view=face_tracking.share_in_view(view.detections, times_s[0], times_s[-1]),
        )
        self._upright += turn
        return view.update(window, self._as_wave(-values if self._upright < 0 else values, times_s[0]))

    def _too_short(self, start_s: float, known_s: float, cause: str) -> Window:
        why = f"watched for {known_s:.0f} of {self._plan.settings.window_s:g} s"
        why += f", anew since {cause}" if cause else ""
        return Window(start_s, known_s, None, 0.0, why, None)

    def _update_skin(self, view: _View) -> Update:
        """Read the skin in the last window; what is kept from before it steadies the estimators."""
        plan = self._plan
        seen = view.recorder.traces()
        # The wave of a network lags behind the frames: the window ends with it.
        end_s = self._start_s + (self._known - 0.5) / plan.rate
        seen = seen.between(self._start_s - 0.5 / plan.rate, end_s)
        parts = list(skin_segment.on_clock(seen, plan.rate, max_gap_s=MAX_GAP_S))
        if not parts or len(parts[-1].time_s) < plan.frames - 1:
            start_s = float(parts[-1].time_s[0]) if parts else view.time_s
            known_s = len(parts[-1].time_s) / plan.rate if parts else 0.0
            return view.update(
                self._too_short(start_s, known_s, "the face was out of view"),
                Wave(np.zeros(0), plan.rate, start_s),
            )
        part = parts[-1]
        learned = [self._as_wave(np.array(self._wave), self._wave_start_s())] if self._stream else []
        segment = skin_segment.read_waves(part, plan.rate, plan.method, learned)
        start = max(0, len(part.time_s) - plan.frames)
        start_s = float(part.time_s[start])
        window, name, turn = skin_reading.judge_window(
            segment.window(start, len(part.time_s)), plan.method, plan.settings, start_s=start_s
        )
        values = np.nan_to_num(segment.waves[name][start:])
        return view.update(window, Wave(-values if turn < 0 else values, plan.rate, start_s))

    def _wave_start_s(self) -> float:
        """Return the time of the first sample of the wave that is kept, on the frames' clock, s."""
        return self._start_s + (self._known - len(self._wave)) / self._plan.rate

    def _as_wave(self, values: np.ndarray, start_s: float) -> Wave:
        # A learned sample lies between two frames.
        return Wave(values, self._plan.rate, start_s + (0.5 / self._plan.rate if self._stream else 0))


def describe(update: Update) -> str:
    """Describe an update in a line for people."""
    window = update.window
    if window.heart_rate_bpm is None:
        rate = f"no reading: {window.why}"
    else:
        rate = f"{window.heart_rate_bpm:5.1f} bpm, {percent(window.confidence)} sure"
    dropped = f", {update.dropped} frames dropped" if update.dropped else ""
    return (
        f"{update.time_s:7.1f} s  {rate} ({update.fps:.0f} frames/s, {update.latency_s:.2f} s ago{dropped})"
    )

"""From a video file or frames to a `Prediction`: one road for the command, Python and the notebooks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sspd_jax.checkpoints import host_network
from sspd_jax.checkpoints.host_network import HostModel
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import skin_reading, skin_segment, windows
from sspd_jax.inference.methods import AUTO, PulseExtractor, check_method, pulse_extractor
from sspd_jax.inference.prediction import UNREAD_S, Prediction
from sspd_jax.inference.windows import MIN_DURATION_S, Segment, Settings
from sspd_jax.video import decode, face_stream, inputs, skin_box
from sspd_jax.video.crop import SKIN
from sspd_jax.video.face_detection import FaceBox, FaceDetector, HaarDetector, overlap
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.face_stream import FaceClip, searched
from sspd_jax.video.face_track import MeshDetector, TrackedFace
from sspd_jax.video.face_tracking import SAME_FACE, SEARCH_EVERY_S
from sspd_jax.video.skin_box import SkinBox
from sspd_jax.video.skin_traces import SkinRecorder, Snapshot

if TYPE_CHECKING:  # restoring a network takes seconds to import
    from sspd_jax.inference.model import RppgModel

FACES_WITHIN_S = 3.0  # of the first face, the others are searched
SURE_OF_A_GUESS = 0.5  # at the most, where the frame rate is assumed
LEAST_FPS = 6.0  # twice the fastest pulse that the estimators look for
MOST_NOTES = 20  # a video in a thousand pieces has two thousand


def predict(
    path: str | Path,
    *,
    model: RppgModel | None = None,
    method: str = AUTO,
    settings: Settings | None = None,
    near: FaceBox | None = None,
    fps: float | None = None,
    detector: FaceDetector | None = None,
    box: SkinBox | None = None,
    keep: bool = False,
    photograph: bool = False,
) -> Prediction:
    """Estimate the heart rate of a face in a video file.

    Args:
      path: A file that FFmpeg can decode.
      model: The network, for the methods 'sspd' and 'auto'; by default the one that ships with the package.
      method: 'auto' for all estimators side by side, 'sspd' or a classical one, see `methods.METHODS`.
      settings: Windows, estimator, least confidence, and what of the picture is read.
      near: Which face, by where it is in the first frame with faces; by default the largest, central one.
      fps: Rate of the frames in Hz, where it is known from elsewhere: they are counted at it, whatever the
        file says.
      detector: What finds the face where the crop is read; by default OpenCV's cascade.
      box: Where the skin is, in pixels of the upright picture; nothing looks for a face then.
      keep: Keep what the rates are read from, about 1 kB a frame, and one picture, for `Prediction.hr` and
        `explain.write`.
      photograph: Keep the picture alone, so that `writing.write_plot` shows whose rate it is.

    Raises:
      UserError: The video cannot be decoded, shows no face, or is too short.
      ConfigError: An unknown method, 'sspd' where no network can be asked, an fps that is no rate, or a box
        that is not inside the picture.
    """
    settings = settings or Settings()
    # What is wrong with the arguments comes first.
    check_method(method, model, ships=settings.asks_shipped(method, model, box))
    damage = decode.Damage()
    frames = decode.frames(path, damage, fps=fps)
    if fps is None:
        rate = decode.reading_rate(path)
    else:
        rate = min(decode.read_facts(path, fps=fps).fps, decode.MOST_READING_FPS)
    _require_rate(path, rate)
    options = (model, method, settings, near, box, keep, detector)
    prediction = _predict(frames, Path(path), rate, *options, photograph=photograph or keep)
    if damage.clock:
        prediction = _of_assumed_clock(prediction, settings)
    if not str(damage):
        return prediction
    return dataclasses.replace(prediction, notes=(*prediction.notes, str(damage)))


def _require_rate(file: str | Path, rate: float) -> None:
    if rate <= LEAST_FPS:
        raise UserError(
            f"{file}: has {rate:.3g} frames/s, a pulse needs more than {LEAST_FPS:g}; film at 15 or more, "
            "or give the rate (--fps) if this one is wrong"
        )


def _of_assumed_clock(prediction: Prediction, settings: Settings) -> Prediction:
    """Doubt every rate: all scale with a clock that the file does not hold."""
    segments = tuple(windows.doubted(segment, SURE_OF_A_GUESS, settings) for segment in prediction.segments)
    bpm, confidence = windows.summary(segments)
    return dataclasses.replace(
        prediction,
        heart_rate_bpm=bpm,
        confidence=confidence,
        segments=segments,
        variability=windows.variability(segments),
    )


def predict_frames(
    frames: np.ndarray | Iterable[Any],
    fps: float,
    *,
    model: RppgModel | None = None,
    method: str = AUTO,
    settings: Settings | None = None,
    name: str = "frames",
    box: SkinBox | None = None,
    keep: bool = False,
) -> Prediction:
    """Estimate the heart rate of a face in frames that are at hand.

    Args:
      frames: Whole pictures with a face in them, [t, h, w, 3] RGB, or any iterable of them or of (time in s,
        picture), times increasing; see `sspd_jax.video.inputs.timed_pictures`.
      fps: Their rate in Hz; where they have times, about.
      model: See `predict`.
      method: See `predict`.
      settings: See `predict`.
      name: What messages call them.
      box: See `predict`.
      keep: See `predict`.

    Raises:
      UserError: See `predict`.
      ConfigError: See `predict`; or what is given are no pictures.
    """
    fps = inputs.rate_of(fps)
    _require_rate(name, fps)
    frames = inputs.timed_pictures(frames, fps)
    settings = settings or Settings()
    return _predict(frames, Path(name), fps, model, method, settings, None, box, keep, photograph=keep)


def _predict(
    frames: Iterable[tuple[float, np.ndarray]],
    file: Path,
    fps: float,
    model: RppgModel | None,
    method: str,
    settings: Settings,
    near: FaceBox | None,
    given: SkinBox | None,
    keep: bool,
    detector: FaceDetector | None = None,
    *,
    photograph: bool,
) -> Prediction:
    ships = settings.asks_shipped(method, model, given)
    check_method(method, model, ships=ships)
    if detector is not None and settings.region == "skin":
        raise ConfigError(
            "a face detector can be chosen for --region=crop only: the skin is found by the face's landmarks"
        )
    watched = _Watched(frames)
    if method not in ("sspd", AUTO):
        model = None
    if model:
        fps = model.clock_rate(fps)
        if model.face_crop == SKIN and settings.region == "crop":
            raise ConfigError(f"{model.name}: reads pictures of the skin alone; leave --region=crop away")
    snapshot = None
    read_by = host_network.shipped() if ships else model
    if settings.region == "skin":
        segments, notes, box, snapshot = _read_skin(
            watched, file, fps, read_by, method, settings, near, given, photograph
        )
    else:
        if method == AUTO:
            method = "sspd" if model else "pos"
        size = model.crop_size if model else face_stream.SIZE
        if given:
            clip = face_stream.cut_box(watched, file, given, size=size, watch_background=True)
        else:
            clip = face_stream.cut_face(
                watched, file, size=size, follow=True, near=near, watch_background=True, detector=detector
            )
        segments, notes = segments_of(clip, fps, pulse_extractor(method, model, fps), settings)
        box = clip.box
    if not keep:
        segments = [dataclasses.replace(segment, judge=None, skin=None) for segment in segments]
    notes += _unread(segments, watched.last_s, notes, settings)
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"{len(notes) - MOST_NOTES} more such notes are left out"]
    bpm, confidence = windows.summary(segments)
    return Prediction(
        file=str(file),
        method=method,
        hr_estimator=skin_reading.estimator_of(method, settings),
        heart_rate_bpm=bpm,
        confidence=confidence,
        segments=tuple(segments),
        variability=windows.variability(segments),
        face_box=dataclasses.astuple(box),
        checkpoint=read_by.name if read_by and (model or method == "sspd") else None,
        notes=tuple(notes),
        watched_s=watched.last_s + 1 / fps,
        settings=settings,
        snapshot=snapshot,
    )


class _Watched(Iterator):
    """Frames as they are, and the time of the last one that was taken, in s."""

    def __init__(self, frames: Iterable[tuple[float, np.ndarray]]):
        self._frames, self.last_s = iter(frames), 0.0

    def __next__(self) -> tuple[float, np.ndarray]:
        frame = next(self._frames)
        self.last_s = frame[0]
        return frame

    def close(self) -> None:
        if hasattr(self._frames, "close"):
            self._frames.close()


def _unread(segments: list[Segment], last_s: float, notes: list[str], settings: Settings) -> Iterator[str]:
    """Say what was not read at the end, and that no window is as long as it was asked for."""
    end_s = max(float(segment.wave.times_s[-1]) for segment in segments)
    if last_s - end_s > UNREAD_S:
        is_told = any(note.startswith("left out") for note in notes)
        cause = "" if is_told else f": {windows.OUT_OF_VIEW}"
        yield f"nothing is read after {end_s:.1f} s of {last_s:.1f} s{cause}"
    longest_s = max(window.duration_s for segment in segments for window in segment.windows)
    if settings.window_s > max(Settings.window_s, longest_s + UNREAD_S):
        yield (
            f"windows of {settings.window_s:g} s were asked for, and nothing that long is there: the longest "
            f"has {longest_s:.1f} s"
        )


def _read_skin(
    frames: Iterable[tuple[float, np.ndarray]],
    file: Path,
    fps: float,
    model: RppgModel | HostModel | None,
    method: str,
    settings: Settings,
    near: FaceBox | None,
    given: SkinBox | None,
    photograph: bool,
) -> tuple[list[Segment], list[str], FaceBox, Snapshot | None]:
    """Read the skin of a face in one pass over the frames: segments, notes, the last box, and a picture."""
    networks, note = (None, skin_box.NOTE) if given else load_networks()
    if note and isinstance(model, HostModel):
        if method == "sspd":
            raise UserError(f"{file}: {model.name} cannot be asked: {note}; name another with --checkpoint")
        model = None  # it learned from skin that landmarks found
    size = model.crop_size if model else face_stream.UNREAD_SIZE
    of_skin = model is not None and model.face_crop == SKIN
    recorder = SkinRecorder(
        networks,
        near=near and dataclasses.astuple(near),
        crop_size=size if of_skin else None,
        box=given,
        photograph=photograph,
    )
    if of_skin:
        size = face_stream.UNREAD_SIZE
    if given:
        clip = face_stream.cut_box(recorder.watch(frames), file, given, size=size)
    else:
        detector = TrackedFace(recorder.tracker)
        clip = face_stream.cut_face(recorder.watch(frames), file, size=size, follow=True, detector=detector)
    crops = recorder.crops_beside(clip) if of_skin else clip
    learned = _waves_of(crops, file, fps, model) if model else []
    for _ in crops:  # what no network asked for
        pass
    traces = recorder.finish()
    segments: list[Segment] = []
    notes = [note] if note else []
    if inputs.looks_swapped(traces.skin):
        notes.append(inputs.SWAPPED)
    if clip.start_s > 0 and not given:
        notes.append(f"no face before {clip.start_s:.1f} s")
    longest_s, end_s = 0.0, None
    for part in skin_segment.on_clock(traces, fps):
        start_s, duration_s = part.time_s[0], len(part.time_s) / fps
        if end_s is not None:
            between = (traces.time_s > end_s) & (traces.time_s < start_s)
            away = (between & ~traces.found).any()
            cause = windows.OUT_OF_VIEW if away else "a gap in time"
            notes.append(f"{cause}, {end_s:.1f}–{start_s:.1f} s")
        end_s, longest_s = part.time_s[-1], max(longest_s, duration_s)
        if duration_s < MIN_DURATION_S:
            notes.append(f"left out {start_s:.1f}–{end_s:.1f} s: too short to hold a few beats")
            continue
        try:
            waves = skin_segment.read_waves(part, fps, method, learned)
        except ValueError as error:
            raise _unreadable(file, fps, error) from error
        segments.append(skin_reading.judge(waves, method, settings))
    if not segments:
        raise _too_short(file, longest_s)
    return segments, notes, clip.box, recorder.snapshot


def _waves_of(
    crops: Iterable[tuple[float, np.ndarray]], file: Path, fps: float, model: RppgModel | HostModel
) -> list[Wave]:
    """Let a network go through crops: a wave for each part that is long enough."""
    try:
        return host_network.read(model, crops, fps)
    except ValueError as error:
        raise _unreadable(file, fps, error) from error


def _unreadable(file: Path, fps: float, error: ValueError) -> UserError:
    return UserError(f"{file}: cannot be read by this method at {fps:g} frames/s ({error}); choose another")


def _too_short(file: Path, longest_s: float) -> UserError:
    return UserError(
        f"{file}: has only {longest_s:.1f} s of unbroken video with a face in view; "
        f"film for {MIN_DURATION_S:g} s or more, better 10"
    )


def segments_of(
    clip: FaceClip, fps: float, extract: PulseExtractor, settings: Settings
) -> tuple[list[Segment], list[str]]:
    """Go through a clip to its end, one unbroken segment after the other.

    Args:
      clip: Crops of a face.
      fps: Frame rate of the clock that they are put on, in Hz.
      extract: From `methods.pulse_extractor`, for the same fps.
      settings: How waves become heart rates.

    Returns:
      The segments, and notes on what was left out, a sentence each.

    Raises:
      UserError: No segment is long enough.
    """
    segments: list[Segment] = []
    notes = [f"no face before {clip.start_s:.1f} s"] if clip.start_s > 0 else []
    longest_s = 0.0
    end_s = None
    for _, ticks in groupby(clip.on_clock(fps), key=itemgetter(0)):
        head = list(islice(ticks, math.ceil(MIN_DURATION_S * fps)))
        start_s = head[0][1]
        if end_s is not None:
            notes.append(f"{_cause_of_gap(clip, end_s, start_s)}, {end_s:.1f}–{start_s:.1f} s")
        if len(head) < MIN_DURATION_S * fps:
            longest_s, end_s = max(longest_s, len(head) / fps), head[-1][1]
            notes.append(f"left out {start_s:.1f}–{end_s:.1f} s: too short to hold a few beats")
            continue
        try:
            wave, cells = extract((image for _, _, image in chain(head, ticks)), start_s)
        except ValueError as error:
            raise _unreadable(clip.file, fps, error) from error
        end_s = float(cells.times_s[-1])
        segments.append(windows.judge_segment(wave, cells, clip, settings))
    if not segments:
        raise _too_short(clip.file, longest_s)
    return segments, notes


def _cause_of_gap(clip: FaceClip, start_s: float, end_s: float) -> str:
    lost = any(not found and start_s - 0.5 <= time_s <= end_s for time_s, found in clip.detections)
    return windows.OUT_OF_VIEW if lost else "a gap in time"


def find_faces(
    path: str | Path, *, search_s: float = 30.0, detector: FaceDetector | None = None
) -> list[FaceBox]:
    """Find everybody in a video's beginning.

    Args:
      path: A file that FFmpeg can decode.
      search_s: How far into the video the first face is searched, in s.
      detector: What finds faces; by default that of the skin, or OpenCV's cascade where it is absent.

    Returns:
      A box for each face found at least twice within 3 s of the first, left to right.

    Raises:
      UserError: The video cannot be decoded or shows no face.
    """
    if detector is None:
        networks, _ = load_networks()
        detector = MeshDetector(networks) if networks else HaarDetector()
    people: list[list[FaceBox]] = []
    first_s, last_search, time_s = None, -1, 0.0
    for time_s, rgb in decode.frames(path):
        if time_s > (search_s if first_s is None else first_s + FACES_WITHIN_S):
            break
        search = int((time_s + 0.001) / SEARCH_EVERY_S)
        if search == last_search:
            continue
        last_search = search
        for face in detector.detect_all(rgb):
            first_s = time_s if first_s is None else first_s
            for boxes in people:
                if overlap(face, boxes[0]) >= SAME_FACE:
                    boxes.append(face)
                    break
            else:
                people.append([face])
    faces = [boxes[0] for boxes in people if len(boxes) > 1] or [boxes[0] for boxes in people]
    if not faces:
        raise UserError(
            f"{path}: no face found in {searched(search_s, time_s)}; film faces from the front, well lit"
        )
    return sorted(faces, key=lambda face: face.left)

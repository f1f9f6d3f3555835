"""From a recording to its shard: what every worker does, on this machine or on another.

`Job.run` is the one function that prepares. `sspd_jax.datasets.prepare` calls it for one recording after
another, `sspd_jax.datasets.workers` in several processes and `sspd_jax.datasets.beam` on Apache Beam: the
same recordings become the same bytes whoever does the work. A job is plain data and travels by pickle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from sspd_jax import errors
from sspd_jax.datasets import format, skin_file
from sspd_jax.datasets.recording import Broken, Ppg, Recording
from sspd_jax.datasets.writer import ShardWriter
from sspd_jax.errors import UserError
from sspd_jax.video import face_stream, resample
from sspd_jax.video.crop import SKIN
from sspd_jax.video.face_detection import FaceDetector
from sspd_jax.video.face_tracking import DETECT_EVERY_S

MIN_SEGMENT_S = 1.0
"""Shorter stretches between two gaps are left out: not one beat is sure to be in them."""

SAMPLES, SAMPLE_BYTES = 16, 1 << 16  # of a video file, to notice that it is another one
MOST_THREADS = 4
"""Of a decoder: each holds frames of its own. 3840×2160 pixels take 700 MB with 16 of them, 420 MB with 4."""
FAILED = "failed"  # why a recording could not be prepared; it is tried again


class Job:
    """One recording on its way to its shard. A small file of facts, written last, says that it is done."""

    def __init__(self, recording: Recording | Broken, data_dir: epath.Path, shard: str):
        """Make the job of a recording; `shard` is the name of its file in `data_dir`."""
        self.recording, self.recording_id = recording, recording.recording_id
        self._shard = data_dir / shard
        self._facts = data_dir / format.PARTS / f"{self.recording_id}.json"
        self._fingerprint = fingerprint(recording)

    def finished(self) -> dict[str, Any] | None:
        """Return the recording's facts if its shard is there (or it was left out), else None.

        Raises:
          UserError: The shard was made from another recording than this. (One that broke since then is
            kept as it was.)
        """
        facts = format.read_json(self._facts)
        if facts is None:
            return None
        same = facts.get("fingerprint") == self._fingerprint
        if FAILED in facts:
            return None
        if "left_out" in facts:
            return facts if same else None
        try:
            whole = self._shard.stat().length == facts.get("shard_bytes")
        except OSError:
            whole = False
        if "skin" in facts:
            whole = whole and skin_file.is_whole(self._shard.parent, facts["skin"])
        if whole and not same and isinstance(self.recording, Recording):
            raise UserError(
                f"{self.recording.file}: is not the recording that {self._shard} was prepared from; "
                "choose another --data_dir, or delete that shard to prepare it anew"
            )
        return facts if whole else None

    def leave_out(self, why: str) -> dict[str, Any]:
        """Write down that the recording is not in the dataset, and return that."""
        facts = {"recording_id": self.recording_id, "fingerprint": self._fingerprint, "left_out": why}
        format.write_json(self._facts, facts)
        return facts

    def note_failure(self, why: str) -> None:
        """Write down why the recording cannot be prepared, for the process that waits elsewhere."""
        format.write_json(self._facts, {"recording_id": self.recording_id, FAILED: why})

    def take_failure(self) -> str | None:
        """Return what `note_failure` wrote down, if it did, and delete that."""
        facts = format.read_json(self._facts)
        if facts is None or FAILED not in facts:
            return None
        self._facts.unlink(missing_ok=True)
        return facts[FAILED]

    def run(
        self, settings: format.Settings, detector: FaceDetector, on_progress: Callable[[float], None]
    ) -> dict[str, Any]:
        """Prepare the recording.

        Args:
          settings: Settings of the dataset.
          detector: Face detector.
          on_progress: Called with the time that was reached, s.

        Returns:
          The recording's facts, as they stand in the index.

        Raises:
          UserError: The recording cannot be prepared.
          StorageError: The shard cannot be written.
        """
        recording = self.recording
        with ExitStack() as stack:
            skin, frames = None, recording.frames()
            if settings.skin:
                folder = self._shard.parent
                size = settings.crop_size if settings.face_crop == SKIN else None
                skin = skin_file.SkinWriter(folder, self.recording_id, recording.file, size)
                stack.enter_context(skin)
                frames = skin.watch(frames)
            return self._cut(frames, skin, settings, detector, on_progress)

    def _cut(
        self,
        frames: Iterable[tuple[float, np.ndarray]],
        skin: skin_file.SkinWriter | None,
        settings: format.Settings,
        detector: FaceDetector,
        on_progress: Callable[[float], None],
    ) -> dict[str, Any]:
        """Cut the face out of frames, write the shard and the facts; `skin` has watched them by then."""
        recording = self.recording
        of_skin = settings.face_crop == SKIN
        clip = face_stream.cut_face(
            frames,
            recording.file,
            size=face_stream.UNREAD_SIZE if of_skin else settings.crop_size,
            resize=settings.resize,
            face_search_s=settings.face_search_s,
            max_gap_s=settings.max_gap_s,
            detector=skin.face() if of_skin else detector,
            follow=of_skin or settings.follow_every_s > 0,
            detect_every_s=settings.follow_every_s or DETECT_EVERY_S,
        )
        crops = skin.crops_beside(clip) if of_skin else clip
        notes = [f"no face before {clip.start_s:.1f} s"] if clip.start_s > 0 else []
        if clip.in_view > 1:
            notes.append(f"{clip.in_view} faces in view: of the large ones the most central one was taken")
        with closing(clip), ShardWriter(self._shard) as writer:
            ticks = resample.uniform(crops, settings.fps, max_gap_s=settings.max_gap_s)
            segments, more_notes = _write_segments(recording, ticks, settings, writer, on_progress)
            if not segments:
                raise UserError(too_short(recording))
            traced = {}
            if skin is not None:
                traced = {"skin": skin.commit()}
                notes += [skin.fallback] if skin.fallback else []
            size = writer.commit()
        facts = {
            "recording_id": recording.recording_id,
            "person_id": recording.person_id,
            "fingerprint": self._fingerprint,
            "file": recording.file.name,
            "shard": self._shard.name,
            "shard_bytes": size,
            "face_box": list(dataclasses.astuple(clip.box)),
            "segments": segments,
            "notes": notes + more_notes,
            "meta": dict(recording.meta),
            **traced,
        }
        format.write_json(self._facts, facts)
        return facts


def _write_segments(
    recording: Recording,
    ticks: Iterator[tuple[int, float, np.ndarray]],
    settings: format.Settings,
    writer: ShardWriter,
    on_progress: Callable[[float], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the segments that are long enough; returns their facts, and notes on what is missing."""
    wave = PpgOnClock(recording.ppg, settings.fps, settings.max_gap_s)
    segments: list[dict[str, Any]] = []
    notes: list[str] = []
    end_s = None  # of the segment before
    for _, of_segment in groupby(ticks, key=itemgetter(0)):
        chunks = _chunks(of_segment, settings.chunk_frames)
        head = next(chunks)
        start_s = float(head.times_s[0])
        if end_s is not None:
            follows = settings.follow_every_s or settings.face_crop == SKIN
            what = "no face, or a gap in time" if follows else "a gap in time"
            notes.append(f"{what}, {end_s:.1f}–{start_s:.1f} s")
        end_s = float(head.times_s[-1])
        # A whole chunk may be a little shorter than that, where a second is no whole number of frames.
        if len(head.frames) < min(settings.chunk_frames, MIN_SEGMENT_S * settings.fps):
            notes.append(f"left out {start_s:.1f}–{end_s:.1f} s, cut off by a gap in time")
            continue
        first, n_frames, there = writer.count, 0, []
        for chunk in chain([head], chunks):
            ppg = wave.at(chunk.times_s)
            writer.write(
                recording_id=recording.recording_id,
                person_id=recording.person_id,
                segment=len(segments),
                start=n_frames,
                frames=chunk.frames,
                ppg=ppg,
                times_s=chunk.times_s,
            )
            n_frames += len(ppg)
            there.append(np.isfinite(ppg))
            end_s = float(chunk.times_s[-1])
            on_progress(end_s)
        has_ppg = np.concatenate(there)
        segments.append(
            {
                "start_s": start_s,
                "n_frames": n_frames,
                "first_record": first,
                "n_records": writer.count - first,
                "has_ppg": bool(has_ppg.any()),
                "truth": stretches(has_ppg),
            }
        )
        if recording.ppg is not None and not has_ppg.all():
            absent = in_words(stretches(~has_ppg), settings.fps, start_s)
            notes.append(f"no contact pulse wave at {absent}")
    return segments, notes


def stretches(there: np.ndarray) -> list[list[int]]:
    """Return first place and last + 1 of every run of True in bool [n]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(there, np.int8), [0]])))
    return [[int(first), int(last)] for first, last in edges.reshape(-1, 2)]


def in_words(spans: Iterable[Sequence[int]], fps: float, start_s: float = 0.0) -> str:
    """Say stretches of frames in seconds: '0.00–0.07 s, 24.70–25.00 s'."""
    return ", ".join(f"{start_s + first / fps:.2f}–{start_s + last / fps:.2f} s" for first, last in spans)


class Outcome(NamedTuple):
    """What came of a job.

    Attributes:
      facts: Facts of the recording; None if it cannot be prepared.
      why: Why it cannot be prepared, in a sentence.
    """

    facts: dict[str, Any] | None
    why: str = ""


def build(
    job: Job,
    settings: format.Settings,
    detector: FaceDetector,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Prepare a recording, or return why it cannot be prepared; see `Job.run`.

    Raises:
      StorageError: Something cannot be written; the recording is not to blame.
    """
    try:
        return Outcome(job.run(settings, detector, on_progress))
    except errors.StorageError:
        raise
    except Exception as error:  # one recording that is damaged, however, does not end the others' work
        return Outcome(None, failure(job.recording, error))


class _Chunk(NamedTuple):
    times_s: np.ndarray  # float64 [n]
    frames: np.ndarray  # uint8 [n, s, s, 3]


def _chunks(ticks: Iterator[tuple[int, float, np.ndarray]], length: int) -> Iterator[_Chunk]:
    """Cut a segment into chunks of `length` frames, the last one shorter; each is good until the next."""
    room = None  # one for all: new memory costs more than the copy into it
    while taken := list(islice(ticks, length)):
        if room is None:
            room = np.empty((length, *taken[0][2].shape), np.uint8)
        frames = room[: len(taken)]
        for row, (_, _, image) in zip(frames, taken, strict=True):
            # Those that were averaged or interpolated on the clock are rounded.
            row[...] = image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255)
        yield _Chunk(np.array([time_s for _, time_s, _ in taken]), frames)


class PpgOnClock:
    """A contact pulse wave, interpolated at a video's ticks; what is missing in it stays missing."""

    def __init__(self, ppg: Ppg | None, fps: float, max_gap_s: float):
        """Split the wave where it is broken.

        Args:
          ppg: The wave or None; samples that are not finite count as missing.
          fps: Frame rate of the video's clock, Hz.
          max_gap_s: Longest time between two samples that is interpolated, s.

        Raises:
          ValueError: Times and values differ in length, or the times do not increase.
        """
        self._period_s = 1 / fps
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []
        if ppg is None:
            return
        times_s, values = np.asarray(ppg.times_s, np.float64), np.asarray(ppg.values, np.float64)
        if times_s.shape != values.shape or times_s.ndim != 1:
            raise ValueError(f"the contact pulse wave has {values.size} values at {times_s.size} times")
        if not (np.diff(times_s) > 0).all():
            raise ValueError("the times of the contact pulse wave do not increase")
        there = np.isfinite(values)
        times_s, values = times_s[there], values[there]
        breaks = np.flatnonzero(np.diff(times_s) > max_gap_s) + 1
        runs = zip(np.split(times_s, breaks), np.split(values, breaks), strict=True)
        self._runs = [run for run in runs if len(run[0]) > 1]

    def at(self, ticks_s: np.ndarray) -> np.ndarray:
        """Interpolate the wave at consecutive ticks of the clock.

        Args:
          ticks_s: Times of the ticks since the video's first frame, s, float64 [n].

        Returns:
          The wave, float32 [n], NaN where it is missing.
        """
        found = np.full(len(ticks_s), np.nan, np.float32)
        # With the ticks around them, or a lone tick at a segment's end would not tell its own period.
        around = np.concatenate([[ticks_s[0] - self._period_s], ticks_s, [ticks_s[-1] + self._period_s]])
        for times_s, values in self._runs:
            # A device's last sample is often a little earlier than the camera's last frame: half a frame
            # beyond its ends the wave is held.
            slack = (0.5 + resample.JITTER) * self._period_s
            inside = (around >= times_s[0] - slack) & (around <= times_s[-1] + slack)
            if inside.any():
                wave = np.full(len(around), np.nan)
                wave[inside] = resample.resample_wave(values, times_s, around[inside])
                found = np.where(inside[1:-1], wave[1:-1], found).astype(np.float32)
        return found


def fingerprint(recording: Recording | Broken) -> str:
    """Return a hash that tells a recording from another of the same name, without reading all of it.

    It covers the pulse wave, the facts, the video file's size and 16 pieces of 64 KiB of the file; where the
    file lies does not matter. For a broken recording it covers what is wrong with it.
    """
    if isinstance(recording, Broken):
        return hashlib.sha256(recording.why.encode()).hexdigest()
    facts = [recording.person_id, json.dumps(dict(recording.meta), sort_keys=True, default=str)]
    digest = hashlib.sha256("\n".join(facts).encode())
    if recording.ppg is not None:
        for values in (recording.ppg.times_s, recording.ppg.values):
            digest.update(np.asarray(values, np.float64).tobytes())
    path = epath.Path(recording.file)
    try:
        size = path.stat().length
        digest.update(str(size).encode())
        with path.open("rb") as file:
            for start in np.linspace(0, max(0, size - SAMPLE_BYTES), SAMPLES).astype(int):
                file.seek(int(start))
                digest.update(file.read(SAMPLE_BYTES))
    except OSError:
        digest.update(b"no file")  # whether that is a fault comes out when its frames are asked for
    return digest.hexdigest()


def failure(recording: Recording, error: Exception) -> str:
    """Return a sentence that says why a recording cannot be prepared."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return f"{recording.file}: {text or type(error).__name__}; check that it plays, or copy it again"


def too_short(recording: Recording) -> str:
    """Return a sentence that says that no segment of a recording is long enough."""
    return (
        f"{recording.file}: has no {MIN_SEGMENT_S:g} s of unbroken video with a face; "
        "check that it plays, or record or copy it again"
    )

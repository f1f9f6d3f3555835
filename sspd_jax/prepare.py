"""Prepare recordings for training: decode, find the face, crop, put on a uniform clock, store in chunks.

python -m sspd_jax.prepare --dataset=ubfc_rppg --source=RAW --check_only
python -m sspd_jax.prepare --dataset=ubfc_rppg --source=RAW --data_dir=OUT

With --check_only everything is read and nothing written: what is broken, doubtful or missing is listed.

Killed and started again, it continues at the recording it was at. Run once more, it does nothing. A
recording that cannot be prepared is named in a sentence and the others go on; the run then ends with exit
code 1, and the dataset is not finished until the recording is mended. With --keep_going the dataset is
finished without it; the exit code is 1 all the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import tqdm
from etils import epath

from sspd_jax import command, storage
from sspd_jax.command import ConfigError, UserError
from sspd_jax.datasets import prepared, readers
from sspd_jax.datasets.recording import Broken, Ppg, Recording
from sspd_jax.video import clock, decode, face_clip
from sspd_jax.video.crop import INTERPOLATION, Resize
from sspd_jax.video.face import DETECTORS, FaceDetector, make_detector
from sspd_jax.video.follow import LOOK_EVERY_S

MIN_SEGMENT_S = 1.0
"""Shorter stretches between two gaps are left out: not one beat is sure to be in them."""

SAMPLES, SAMPLE_BYTES = 16, 1 << 16  # of a video file, to notice that it is another one


@dataclasses.dataclass(frozen=True)
class Report:
    """What a preparation came to.

    Attributes:
      recordings: in the dataset now.
      people: likewise.
      made: recordings that this run prepared.
      seconds: of video in the dataset.
      size_bytes: of its shards.
      left_out: recording id → why it is not in the dataset.
    """

    recordings: int
    people: int
    made: int
    seconds: float
    size_bytes: int
    left_out: dict[str, str]


def prepare_dataset(name: str, source: epath.PathLike, data_dir: epath.PathLike, **settings: Any) -> Report:
    """Prepare a dataset that there is a reader for.

    Args:
      name: out of `sspd_jax.datasets.readers.READERS`.
      source: where its recordings are.
      data_dir: to write to.
      **settings: see `prepare`.

    Returns:
      What it came to.

    Raises:
      ConfigError: there is no such reader.
      UserError: see `prepare`; or the recordings are not found.
    """
    return prepare(readers.read(name, source), data_dir, name=name, **settings)


def prepare(
    recordings: Sequence[Recording | Broken],
    data_dir: epath.PathLike,
    *,
    name: str = "faces",
    fps: float = 30.0,
    crop_size: int = face_clip.SIZE,
    resize: Resize = "linear",
    max_gap_s: float = 0.5,
    face_search_s: float = 30.0,
    face_detector: str = "haar",
    face_model: str = "",
    follow_every_s: float = 0.0,
    keep_going: bool = False,
    progress: bool = True,
) -> Report:
    """Prepare recordings, see `sspd_jax.datasets.prepared` for what is written.

    What was finished before, by the same settings and from the same recordings, stays as it is. Memory is
    that of a few chunks, however long the recordings.

    Args:
      recordings: of the dataset, always the same ones in the same order; broken ones count as those that
        cannot be prepared, and are named before any work begins.
      data_dir: to write to; the folder it lies in must exist.
      name: of the dataset, a Python name.
      fps: of the clock, Hz.
      crop_size: side of the face crops, pixels.
      resize: 'linear' or 'area', see `sspd_jax.video.crop`.
      max_gap_s: longest gap between two frames that is interpolated, s; a longer one ends a segment.
      face_search_s: how far into a recording the face is searched, s.
      face_detector: 'haar' or 'yunet', see `sspd_jax.video.face`.
      face_model: path of YuNet's model file.
      follow_every_s: how often the face is looked for, s: the box follows it smoothly, and where it is lost
        for longer than `follow.LOST_AFTER_S` is a gap; 0: the first face found fixes the box, as published.
      keep_going: finish the dataset without the recordings that cannot be prepared. Later runs do not try
        them again, unless their files have changed.
      progress: whether to draw a progress bar on stderr.

    Returns:
      What it came to.

    Raises:
      ConfigError: an impossible setting.
      UserError: recordings that cannot be prepared (each was named on stderr), other settings or recordings
        than those of the directory, or a directory that cannot be written.
    """
    settings = prepared.Settings(
        float(fps), crop_size, resize, max_gap_s, face_search_s, face_detector, float(follow_every_s)
    )
    _check(settings, name, recordings)
    detector = make_detector(face_detector, face_model)
    data_dir = epath.Path(data_dir)
    with _claimed(data_dir, name, settings, [r.recording_id for r in recordings]):
        jobs = [
            _Job(r, data_dir, prepared.shard_name(name, number, len(recordings)))
            for number, r in enumerate(recordings)
        ]
        facts = {job.recording_id: found for job in jobs if (found := job.finished())}
        todo = [job for job in jobs if job.recording_id not in facts]
        bad: dict[str, str] = {}

        with _Bar(len(facts), len(jobs), progress) as bar:

            def is_bad(job: _Job, sentence: str) -> None:
                bad[job.recording_id] = sentence
                bar.say(f"{job.recording_id}: {sentence}")
                if keep_going:
                    facts[job.recording_id] = job.leave_out(sentence)

            for job in (job for job in todo if isinstance(job.recording, Broken)):
                is_bad(job, job.recording.why)
                bar.end()
            for job in (job for job in todo if isinstance(job.recording, Recording)):
                bar.begin(job.recording)
                try:
                    facts[job.recording_id] = job.run(settings, detector, bar.at)
                except storage.StorageError:
                    raise
                except (UserError, ValueError, OSError) as error:
                    is_bad(job, sentence(job.recording, error))
                bar.end()
        if bad and not keep_going:
            raise UserError(
                f"{len(bad)} of {len(jobs)} recordings cannot be prepared ({', '.join(bad)}: see above); "
                f"mend them and run again, or leave them out by `{prepared.PREPARE} … --keep_going`; "
                f"{len(facts)} are done and stay"
            )
        return _finish(
            data_dir, name, settings, [facts[job.recording_id] for job in jobs], len(todo) - len(bad)
        )


def _check(settings: prepared.Settings, name: str, recordings: Sequence[Recording | Broken]) -> None:
    if not 6 <= settings.fps <= 1000:
        raise ConfigError(f"fps {settings.fps:g} is not 6 to 1000 Hz")
    if not 8 <= settings.crop_size <= 4096:
        raise ConfigError(f"crop_size {settings.crop_size} is not 8 to 4096 pixels")
    if settings.resize not in INTERPOLATION:
        raise ConfigError(f"resize {settings.resize!r} is none of {', '.join(INTERPOLATION)}")
    if not settings.max_gap_s > 0:
        raise ConfigError(f"max_gap_s {settings.max_gap_s:g} is not above 0 s")
    if not settings.follow_every_s >= 0:
        raise ConfigError(f"follow_every_s {settings.follow_every_s:g} is not 0 s or more")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"dataset name {name!r} is not made of lower-case letters, digits and _")
    if not recordings:
        raise UserError("there are no recordings to prepare; check --source")
    ids = [recording.recording_id for recording in recordings]
    for recording_id in ids:
        if not re.fullmatch(r"\w[\w.-]*", recording_id) or ids.count(recording_id) > 1:
            raise ValueError(f"recording id {recording_id!r} is not unique or no plain file name")


@contextmanager
def _claimed(data_dir: epath.Path, name: str, settings: prepared.Settings, ids: list[str]) -> Iterator[None]:
    """Make the directory or check that it is of this preparation; keep a second process out meanwhile."""
    plan = {
        "format": prepared.FORMAT,
        "name": name,
        "settings": dataclasses.asdict(settings),
        "recordings": ids,
    }
    remote = storage.is_remote(data_dir)
    if not remote and not data_dir.parent.is_dir():
        raise UserError(f"{data_dir}: {data_dir.parent} is no folder; make it, or choose another --data_dir")
    with storage.storing(data_dir, prepared.ELSEWHERE):
        data_dir.mkdir(exist_ok=True)
        lock = None if remote else os.open(data_dir, os.O_RDONLY)
    try:
        if lock is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{data_dir}: is being prepared by another process; wait until it is done"
                ) from error
            except OSError:
                pass  # a file system without locks: then nobody is kept out
        _match_plan(data_dir, plan)
        with storage.storing(data_dir, prepared.ELSEWHERE):
            (data_dir / prepared.PARTS).mkdir(exist_ok=True)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _match_plan(data_dir: epath.Path, plan: dict[str, Any]) -> None:
    path = data_dir / prepared.PLAN
    before = prepared.read_json(path)
    if before is None:
        strangers = {p.name for p in data_dir.iterdir() if not p.name.startswith(".")} - {prepared.PARTS}
        if strangers:
            raise UserError(
                f"{data_dir}: holds other files ({min(strangers)}, …); choose another --data_dir, a new one"
            )
        prepared.write_json(path, plan)
        return
    remedy = "choose another --data_dir, or delete this one"
    # What is not in an older plan had the value that is the default now.
    usual = {f.name: f.default for f in dataclasses.fields(prepared.Settings)}
    flat = [
        {"format": p.get("format"), "dataset": p.get("name"), **usual, **(p.get("settings") or {})}
        for p in (before, plan)
    ]
    for key, value in flat[1].items():
        if flat[0].get(key) != value:
            raise UserError(f"{data_dir}: was prepared with {key} {flat[0].get(key)}, not {value}; {remedy}")
    theirs, ours = before.get("recordings", []), plan["recordings"]
    if theirs != ours:
        one = next(iter(sorted(set(theirs) ^ set(ours))), "their order")
        raise UserError(
            f"{data_dir}: was prepared from {len(theirs)} recordings that are not these {len(ours)} "
            f"(the first difference: {one}); {remedy}"
        )


class _Job:
    """One recording on its way to its shard. A small file of facts, written last, says that it is done."""

    def __init__(self, recording: Recording | Broken, data_dir: epath.Path, shard: str):
        self.recording, self.recording_id = recording, recording.recording_id
        self._shard = data_dir / shard
        self._facts = data_dir / prepared.PARTS / f"{self.recording_id}.json"
        self._fingerprint = fingerprint(recording)

    def finished(self) -> dict[str, Any] | None:
        """Return the recording's facts if its shard is there (or it was left out), else None.

        Raises:
          UserError: the shard was made from another recording than this. (One that broke since then is
            kept as it was.)
        """
        facts = prepared.read_json(self._facts)
        if facts is None:
            return None
        same = facts.get("fingerprint") == self._fingerprint
        if "left_out" in facts:
            return facts if same else None
        try:
            whole = self._shard.stat().length == facts.get("shard_bytes")
        except OSError:
            whole = False
        if whole and not same and isinstance(self.recording, Recording):
            raise UserError(
                f"{self.recording.file}: is not the recording that {self._shard} was prepared from; "
                "choose another --data_dir, or delete that shard to prepare it anew"
            )
        return facts if whole else None

    def leave_out(self, why: str) -> dict[str, Any]:
        facts = {"recording_id": self.recording_id, "fingerprint": self._fingerprint, "left_out": why}
        prepared.write_json(self._facts, facts)
        return facts

    def run(
        self, settings: prepared.Settings, detector: FaceDetector, at: Callable[[float], None]
    ) -> dict[str, Any]:
        """Prepare the recording.

        Args:
          settings: of the dataset.
          detector: of faces.
          at: is told the time that was reached, s.

        Returns:
          The recording's facts.
        """
        recording = self.recording
        clip = face_clip.cut_face(
            recording.frames(),
            recording.file,
            size=settings.crop_size,
            resize=settings.resize,
            face_search_s=settings.face_search_s,
            max_gap_s=settings.max_gap_s,
            detector=detector,
            follow=settings.follow_every_s > 0,
            look_every_s=settings.follow_every_s or LOOK_EVERY_S,
        )
        wave = PpgOnClock(recording.ppg, settings.fps, settings.max_gap_s)
        notes = [f"no face before {clip.start_s:.1f} s"] if clip.start_s > 0 else []
        if clip.in_view > 1:
            notes.append(f"{clip.in_view} faces in view: of the large ones the most central one was taken")
        segments: list[dict[str, Any]] = []
        end_s = None  # of the segment before
        with closing(clip), prepared.ShardWriter(self._shard, settings.crop_size) as writer:
            for _, ticks in groupby(clip.on_clock(settings.fps), key=itemgetter(0)):
                chunks = _chunks(ticks, settings.chunk_frames)
                head = next(chunks)
                start_s = float(head.times_s[0])
                if end_s is not None:
                    what = "no face, or a gap in time" if settings.follow_every_s else "a gap in time"
                    notes.append(f"{what}, {end_s:.1f}–{start_s:.1f} s")
                end_s = float(head.times_s[-1])
                if len(head.frames) < MIN_SEGMENT_S * settings.fps:
                    notes.append(f"left out {start_s:.1f}–{end_s:.1f} s, cut off by a gap in time")
                    continue
                first, n_frames, n_read = writer.count, 0, 0
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
                    n_read += int(np.isfinite(ppg).sum())
                    end_s = float(chunk.times_s[-1])
                    at(end_s)
                segments.append(
                    {
                        "start_s": start_s,
                        "n_frames": n_frames,
                        "first_record": first,
                        "n_records": writer.count - first,
                        "has_ppg": n_read > 0,
                    }
                )
                if recording.ppg is not None and n_read < n_frames:
                    missing_s = (n_frames - n_read) / settings.fps
                    notes.append(f"no contact pulse wave for {missing_s:.1f} s from {start_s:.1f} s on")
            if not segments:
                raise UserError(too_broken(recording))
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
            "notes": notes,
            "meta": dict(recording.meta),
        }
        prepared.write_json(self._facts, facts)
        return facts


class _Chunk(NamedTuple):
    times_s: np.ndarray  # float64 [n]
    frames: np.ndarray  # uint8 [n, s, s, 3]


def _chunks(ticks: Iterator[tuple[int, float, np.ndarray]], length: int) -> Iterator[_Chunk]:
    """Cut a segment into chunks of `length` frames, the last one shorter."""
    while taken := list(islice(ticks, length)):
        frames = np.empty((len(taken), *taken[0][2].shape), np.uint8)
        for row, (_, _, image) in zip(frames, taken, strict=True):
            # Those that were averaged or interpolated on the clock are rounded.
            row[...] = image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255)
        yield _Chunk(np.array([time_s for _, time_s, _ in taken]), frames)


class PpgOnClock:
    """A contact pulse wave, read at a video's ticks by timestamps; what is missing in it stays missing."""

    def __init__(self, ppg: Ppg | None, fps: float, max_gap_s: float):
        """Split the wave where it is broken.

        Args:
          ppg: the wave or None; samples that are not finite count as missing.
          fps: of the video's clock, Hz.
          max_gap_s: longest time between two samples that is interpolated, s.

        Raises:
          ValueError: times and values of different lengths, or times that do not increase.
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
        """Read the wave at consecutive ticks of the clock.

        Args:
          ticks_s: float64 [n], s since the video's first frame.

        Returns:
          float32 [n], NaN where the wave is missing.
        """
        read = np.full(len(ticks_s), np.nan, np.float32)
        # With the ticks around them, or a lone tick at a segment's end would not tell its own period.
        around = np.concatenate([[ticks_s[0] - self._period_s], ticks_s, [ticks_s[-1] + self._period_s]])
        for times_s, values in self._runs:
            # A device's last sample is often a little earlier than the camera's last frame: half a frame
            # beyond its ends the wave is held.
            slack = (0.5 + clock.JITTER) * self._period_s
            inside = (around >= times_s[0] - slack) & (around <= times_s[-1] + slack)
            if inside.any():
                wave = np.full(len(around), np.nan)
                wave[inside] = clock.resample_wave(values, times_s, around[inside])
                read = np.where(inside[1:-1], wave[1:-1], read).astype(np.float32)
        return read


def fingerprint(recording: Recording | Broken) -> str:
    """Return what tells a recording from another of the same name, without reading all of it.

    From its pulse wave, its facts, and the video file's size and 16 pieces of 64 KiB; the file's place does
    not matter. Of a broken one, from what is wrong with it.
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


def sentence(recording: Recording, error: Exception) -> str:
    """Say in a sentence why a recording cannot be prepared."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return f"{recording.file}: {text or type(error).__name__}; check that it plays, or copy it again"


def too_broken(recording: Recording) -> str:
    """Say in a sentence that nothing of a recording is long enough."""
    return (
        f"{recording.file}: has no {MIN_SEGMENT_S:g} s of unbroken video with a face; "
        "check that it plays, or record or copy it again"
    )


def _finish(
    data_dir: epath.Path, name: str, settings: prepared.Settings, facts: list[dict[str, Any]], made: int
) -> Report:
    """Write the index, unless it is there and right, and sum up."""
    good = [f for f in facts if "segments" in f]
    left_out = {f["recording_id"]: f["left_out"] for f in facts if "left_out" in f}
    if not good:
        raise UserError(f"{data_dir}: not one of the {len(facts)} recordings can be prepared: see above")
    index = _read_index(data_dir) if (data_dir / "dataset_info.json").exists() else None
    if made or index is None or index["recordings"] != good or index["left_out"] != left_out:
        prepared.write_index(data_dir, name, settings, facts, left_out)
    if not storage.is_remote(data_dir):
        for path in data_dir.glob(".*.partial"):  # of runs that were killed
            path.unlink(missing_ok=True)
    frames = sum(s["n_frames"] for f in good for s in f["segments"])
    return Report(
        recordings=len(good),
        people=len({f["person_id"] for f in good}),
        made=made,
        seconds=frames / settings.fps,
        size_bytes=sum(f["shard_bytes"] for f in good),
        left_out=left_out,
    )


def _read_index(data_dir: epath.Path) -> dict[str, Any] | None:
    try:
        index = prepared.read_json(data_dir / prepared.INDEX)
    except UserError:  # damaged: it is made anew from the facts of the recordings
        return None
    return index if index and {"recordings", "left_out"} <= set(index) else None


class _Bar:
    """A progress bar in recordings and parts of them, with the time left."""

    FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} recordings, {elapsed}, {remaining} left"

    def __init__(self, done: int, total: int, shown: bool):
        self._bar = tqdm.tqdm(
            desc="preparing",
            total=total,
            initial=done,
            disable=not shown or done == total,
            file=sys.stderr,
            bar_format=self.FORMAT,
            mininterval=0.1 if sys.stderr.isatty() else 10,  # s: a log file needs fewer lines
        )
        self._done = float(done)
        self._length_s: float | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, recording: Recording) -> None:
        """Show a recording's name, and find out how long it is."""
        self._bar.set_description_str(f"preparing {recording.recording_id}", refresh=False)
        self._length_s = None
        if recording.ppg is not None and len(recording.ppg.times_s):
            self._length_s = float(recording.ppg.times_s[-1])
        elif not self._bar.disable:
            try:
                self._length_s = decode.read_facts(recording.file).duration_s
            except UserError:  # no plain file, or a damaged one: its own frames will tell
                self._length_s = None

    def at(self, time_s: float) -> None:
        """Move to a time in the recording, s."""
        if self._length_s:
            self._move_to(self._done + min(0.99, time_s / self._length_s))

    def end(self) -> None:
        """Move to the end of the recording."""
        self._done += 1
        self._move_to(self._done)

    def _move_to(self, n: float) -> None:
        if n > self._bar.n:
            self._bar.update(n - self._bar.n)

    def say(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            print(sentence, file=sys.stderr, flush=True)


def _check_only(name: str, source: epath.PathLike, detector: FaceDetector, *, progress: bool) -> int:
    """Read everything, print what is found, and return the exit code."""
    from sspd_jax.datasets import checker  # it needs this module

    recordings = readers.read(name, source)
    counts = dict.fromkeys((checker.BROKEN, checker.DOUBTFUL, checker.NOTE), 0)
    bad: set[str] = set()
    with _Bar(0, len(recordings), progress) as bar:

        def say(finding: checker.Finding) -> None:
            counts[finding.kind] += 1
            bad.update([finding.recording_id] * (finding.kind == checker.BROKEN))
            with tqdm.tqdm.external_write_mode(file=sys.stdout):
                print(finding, flush=True)

        for finding in checker.check_dataset(name, recordings):
            say(finding)
        for recording in recordings:
            if isinstance(recording, Recording):
                bar.begin(recording)
            for finding in checker.check_recording(recording, detector=detector, at=bar.at):
                say(finding)
            bar.end()
    people = len({r.person_id for r in recordings if isinstance(r, Recording)})
    print(
        f"{source}: {len(recordings)} recordings, {people} people: {len(bad)} broken, "
        f"{counts[checker.DOUBTFUL]} doubtful, {counts[checker.NOTE]} notes"
    )
    return command.FAILED if bad else command.DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dataset", required=True, choices=sorted(readers.READERS), help="whose layout it has"
    )
    parser.add_argument("--source", required=True, metavar="RAW", help="folder of the recordings")
    parser.add_argument("--data_dir", metavar="OUT", help="folder to make; gs://… too")
    parser.add_argument("--check_only", action="store_true", help="read everything, list what is wrong")
    parser.add_argument("--fps", type=float, default=30.0, help="of the clock, Hz (default: %(default)g)")
    parser.add_argument(
        "--crop_size", type=int, default=face_clip.SIZE, help="of the face, pixels (default: %(default)d)"
    )
    parser.add_argument("--face_detector", choices=DETECTORS, default="haar", help="what finds the face")
    parser.add_argument("--face_model", default="", metavar="ONNX", help="YuNet's model file")
    parser.add_argument(
        "--follow_every_s",
        type=float,
        default=0.0,
        metavar="S",
        help="look for the face again (default: never)",
    )
    parser.add_argument("--resize", choices=sorted(INTERPOLATION), default="linear", help="how it is scaled")
    parser.add_argument(
        "--keep_going", action="store_true", help="finish without the recordings that cannot be prepared"
    )
    parser.add_argument("--no_progress", action="store_true", help="draw no progress bar")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        if args.check_only:
            detector = make_detector(args.face_detector, args.face_model)
            return _check_only(args.dataset, args.source, detector, progress=not args.no_progress)
        if args.data_dir is None:
            raise ConfigError("--data_dir is missing; name the folder to make, or ask for --check_only")
        report = prepare_dataset(
            args.dataset,
            args.source,
            args.data_dir,
            fps=args.fps,
            crop_size=args.crop_size,
            resize=args.resize,
            face_detector=args.face_detector,
            face_model=args.face_model,
            follow_every_s=args.follow_every_s,
            keep_going=args.keep_going,
            progress=not args.no_progress,
        )
        without = f", without {', '.join(report.left_out)}" if report.left_out else ""
        print(
            f"{args.data_dir}: {report.recordings} recordings of {report.people} people, "
            f"{report.seconds / 60:.1f} min, {report.size_bytes / 1e9:.2f} GB ({report.made} new{without})"
        )
        return command.FAILED if report.left_out else command.DONE

    return command.run(work, debug=args.debug)


if __name__ == "__main__":
    sys.exit(main())

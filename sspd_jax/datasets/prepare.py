"""Prepare recordings for training: decode, find the face, crop, put on a uniform clock, store in chunks."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from etils import epath

from sspd_jax.datasets import format, preparation, skin_file
from sspd_jax.datasets.preparation import Job, Outcome
from sspd_jax.datasets.progress import ProgressBar
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import LONGEST_ID, Broken, Recording
from sspd_jax.datasets.workers import build_in_processes, decoder_threads, worker_count
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.runtime import processes, storage
from sspd_jax.video import decode, face_stream
from sspd_jax.video.crop import BOX, FACE_CROPS, INTERPOLATION, SKIN, Resize
from sspd_jax.video.face_detection import FaceDetector, make_detector
from sspd_jax.video.skin_traces import MAP_SIZE


@dataclasses.dataclass(frozen=True)
class Report:
    """What a preparation came to.

    Attributes:
      recordings: Number of recordings in the dataset now.
      people: Number of people in the dataset now.
      made: Number of recordings that this run prepared.
      seconds: Length of the dataset's video, s.
      size_bytes: Size of its shards, bytes.
      left_out: For every recording that is not in the dataset, its id and the reason.
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
      name: Key of the reader in `sspd_jax.datasets.readers.registry.READERS`.
      source: Folder of the recordings.
      data_dir: Folder to write to.
      **settings: Passed on to `prepare`.

    Returns:
      What it came to.

    Raises:
      ConfigError: There is no such reader, or see `prepare`.
      UserError: The recordings are not found, or see `prepare`.
    """
    recordings = registry.read(name, source)
    return prepare(recordings, data_dir, name=registry.EXPERIMENTS.get(name, name), **settings)


def prepare(
    recordings: Sequence[Recording | Broken],
    data_dir: epath.PathLike,
    *,
    name: str = "faces",
    fps: float = 30.0,
    crop_size: int = face_stream.SIZE,
    resize: Resize = "linear",
    max_gap_s: float = 0.5,
    face_search_s: float = 30.0,
    face_detector: str = "haar",
    face_model: str = "",
    follow_every_s: float = 0.0,
    skin: bool = True,
    face_crop: str = BOX,
    keep_going: bool = False,
    workers: int = 1,
    beam_options: Sequence[str] | None = None,
    progress: bool = True,
    leave_out_by: str = f"`{format.PREPARE} … --keep_going`",
) -> Report:
    """Prepare recordings; `sspd_jax.datasets.format` says what is written.

    What was finished before, by the same settings and from the same recordings, stays as it is. Memory is
    that of a few chunks for each worker, however long the recordings. How many workers there are, and where,
    changes no byte of what is written.

    Args:
      recordings: All recordings of the dataset, always the same ones in the same order. Broken ones count as
        those that cannot be prepared, and are named before any work begins.
      data_dir: Folder to write to; the folder it lies in must exist.
      name: Name of the dataset, made of lower-case letters, digits and _.
      fps: Frame rate of the clock, Hz.
      crop_size: Side of the face crops, pixels.
      resize: 'linear' or 'area', see `sspd_jax.video.crop`.
      max_gap_s: Longest gap between two frames that is interpolated, s; a longer one ends a segment.
      face_search_s: How far into a recording the face is searched, s.
      face_detector: 'haar' or 'yunet', see `sspd_jax.video.face_detection`.
      face_model: Path of YuNet's model file.
      follow_every_s: Time between two searches for the face, s: the box follows it smoothly, and where it is
        lost for longer than `face_tracking.LOST_AFTER_S` is a gap. With 0 the first face found fixes the
        box, as published.
      skin: Whether to record the skin's traces beside the crops, which `evaluate` reads. A directory that was
        begun without them, or with them, goes on as it was begun.
      face_crop: What the crops show: 'box', the face in its box, or 'skin', its skin alone, of a face that is
        followed by its landmarks, at most `MAP_SIZE` pixels large.
      keep_going: Finish the dataset without the recordings that cannot be prepared. Later runs do not try
        them again, unless their files have changed.
      workers: How many recordings to prepare at once; 0 takes one for each core, 8 at most. More than 1 are
        processes of their own: recordings must be picklable, and a script that calls this needs
        `if __name__ == "__main__":`.
      beam_options: Options of the Apache Beam pipeline that does the work instead; None uses no Beam.
      progress: Whether to draw a progress bar on stderr.
      leave_out_by: How the caller's user asks for `keep_going`, for messages.

    Returns:
      What it came to.

    Raises:
      ConfigError: A setting is impossible, or a recording cannot be sent to another process.
      UserError: Recordings cannot be prepared (each was named on stderr), the directory was made with other
        settings or from other recordings, or it cannot be written.
    """
    settings = settings_of(
        fps=fps,
        crop_size=crop_size,
        resize=resize,
        max_gap_s=max_gap_s,
        face_search_s=face_search_s,
        face_detector=face_detector,
        follow_every_s=follow_every_s,
        skin=skin,
        face_crop=face_crop,
    )
    _validate(settings, name, recordings)
    detector = make_detector(face_detector, face_model)
    data_dir = epath.Path(data_dir)
    with _claimed(data_dir, name, settings, [r.recording_id for r in recordings]) as settings:
        if skin and not settings.skin:
            print(f"note: {NO_SKIN.format(data_dir)}", file=sys.stderr)
        jobs = [
            Job(r, data_dir, format.shard_name(name, number, len(recordings)))
            for number, r in enumerate(recordings)
        ]
        facts = {job.recording_id: found for job in jobs if (found := job.finished())}
        todo = [job for job in jobs if job.recording_id not in facts]
        failures: dict[str, str] = {}
        with (
            ProgressBar(len(facts), len(jobs), progress) as bar,
            closing(_run_jobs(todo, settings, detector, face_model, workers, beam_options, bar)) as outcomes,
        ):
            for job, outcome in outcomes:
                if outcome.facts is not None:
                    facts[job.recording_id] = outcome.facts
                else:
                    failures[job.recording_id] = outcome.why
                    bar.print(f"{job.recording_id}: {outcome.why}")
                    if keep_going:
                        facts[job.recording_id] = job.leave_out(outcome.why)
                bar.end()
        if failures and not keep_going:
            raise UserError(
                f"{len(failures)} of {len(jobs)} recordings cannot be prepared ({', '.join(failures)}: see "
                f"above); mend them and run again, or leave them out by {leave_out_by}; "
                f"{len(facts)} are done and stay"
            )
        made = len(todo) - len(failures)
        return _finish(data_dir, name, settings, [facts[job.recording_id] for job in jobs], made)


NO_SKIN = (
    "{}: was begun without the skin's traces and goes on so: `evaluate` reads the crop; prepare into another "
    "--data_dir to have them"
)


def _as_begun(data_dir: epath.Path, settings: format.Settings) -> format.Settings:
    """Return the settings with or without the skin's traces as the directory was begun, if it was."""
    plan = format.read_json(data_dir / format.PLAN)
    if plan is None:
        return settings
    return dataclasses.replace(settings, skin=bool((plan.get("settings") or {}).get("skin", False)))


def settings_of(
    *,
    fps: float = 30.0,
    crop_size: int = face_stream.SIZE,
    resize: Resize = "linear",
    max_gap_s: float = 0.5,
    face_search_s: float = 30.0,
    face_detector: str = "haar",
    follow_every_s: float = 0.0,
    skin: bool = True,
    face_crop: str = BOX,
) -> format.Settings:
    """Return settings as they are written; those that are not given have the defaults of `prepare`."""
    return format.Settings(
        fps=float(fps),
        crop_size=crop_size,
        resize=resize,
        max_gap_s=max_gap_s,
        face_search_s=face_search_s,
        face_detector=face_detector,
        follow_every_s=float(follow_every_s),
        skin=skin,
        face_crop=face_crop,
    )


def require_place(
    data_dir: epath.PathLike,
    name: str,
    settings: format.Settings,
    recordings: Sequence[Recording | Broken],
) -> None:
    """Check that `prepare` will accept its directory and these recordings; writes nothing.

    Raises:
      ConfigError: A setting is impossible.
      UserError: The directory was made with other settings or from other recordings, or cannot be.
    """
    _validate(settings, name, recordings)
    data_dir = epath.Path(data_dir)
    _require_parent(data_dir)
    if data_dir.exists():
        settings = _as_begun(data_dir, settings)
        _match_plan(data_dir, _plan(name, settings, [r.recording_id for r in recordings]), write=False)


def _plan(name: str, settings: format.Settings, ids: list[str]) -> dict[str, Any]:
    return {
        "format": format.FORMAT,
        "name": name,
        "settings": dataclasses.asdict(settings),
        "recordings": ids,
    }


def _require_parent(data_dir: epath.Path) -> None:
    # Folders are made below where one works; elsewhere a missing one is a disk that is not there.
    remote, below = storage.is_remote(data_dir), not data_dir.is_absolute()
    if not remote and not below and not data_dir.parent.is_dir():
        raise UserError(f"{data_dir}: {data_dir.parent} is no folder; make it, or choose another --data_dir")


def _run_jobs(
    jobs: Sequence[Job],
    settings: format.Settings,
    detector: FaceDetector,
    face_model: str,
    workers: int,
    beam_options: Sequence[str] | None,
    bar: ProgressBar,
) -> Iterator[tuple[Job, Outcome]]:
    """Do all jobs: broken recordings at once, the others by Beam, in several processes or in this one."""
    whole = [job for job in jobs if isinstance(job.recording, Recording)]
    count = worker_count(workers, len(whole))
    if count > 1 and beam_options is None and (script := processes.script_without_guard()):
        bar.print(
            f'note: {script} has no `if __name__ == "__main__":` around what it does, and each process '
            "would run all of it again: one recording is prepared at a time"
        )
        count = 1
    for job in jobs:
        if isinstance(job.recording, Broken):
            yield job, Outcome(None, job.recording.why)
    if beam_options is not None:
        from sspd_jax.datasets import beam  # it is an extra

        yield from beam.build_all(whole, settings, face_model, beam_options)
    elif count > 1:
        yield from build_in_processes(whole, settings, face_model, count, bar.advance)
    else:
        decode.use_threads(decoder_threads(1))
        try:
            for job in whole:
                bar.begin(job.recording)
                yield job, preparation.build(job, settings, detector, bar.reach)
        finally:
            decode.use_threads(0)


def _validate(settings: format.Settings, name: str, recordings: Sequence[Recording | Broken]) -> None:
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
    if settings.face_crop not in FACE_CROPS:
        raise ConfigError(f"face_crop {settings.face_crop!r} is none of {', '.join(FACE_CROPS)}")
    if settings.face_crop == SKIN:
        _validate_skin(settings)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"dataset name {name!r} is not made of lower-case letters, digits and _")
    if not recordings:
        raise UserError("there are no recordings to prepare; check --source")
    ids = [recording.recording_id for recording in recordings]
    often = {recording_id for recording_id, count in Counter(ids).items() if count > 1}
    for recording_id in ids:
        if len(recording_id.encode(errors="replace")) > LONGEST_ID:
            raise UserError(
                f"{recording_id}: is longer than {LONGEST_ID} bytes, and files are named after it; give the "
                "recording a shorter name"
            )
        if not re.fullmatch(r"\w[\w.-]*", recording_id) or recording_id in often:
            raise ValueError(f"recording id {recording_id!r} is not unique or no plain file name")


def _validate_skin(settings: format.Settings) -> None:
    """Check what goes with crops that show the skin alone."""
    if not settings.skin:
        raise ConfigError("face_crop 'skin' is cut while the skin is recorded; leave --no_skin away")
    if settings.crop_size > MAP_SIZE:
        raise ConfigError(
            f"crop_size {settings.crop_size} is too large for face_crop 'skin'; choose 8 to {MAP_SIZE} pixels"
        )
    if settings.face_detector != "haar" or settings.follow_every_s:
        raise ConfigError(
            "face_detector and follow_every_s are for face_crop 'box'; with 'skin' the face is followed by "
            "its landmarks"
        )


@contextmanager
def _claimed(
    data_dir: epath.Path, name: str, settings: format.Settings, ids: list[str]
) -> Iterator[format.Settings]:
    """Make the directory or check that it is of this preparation; keep a second process out meanwhile.

    Yields:
      The settings, with or without the skin's traces as the directory was begun.
    """
    below = not data_dir.is_absolute()
    _require_parent(data_dir)
    with storage.storing(data_dir, format.ELSEWHERE):
        data_dir.mkdir(parents=below, exist_ok=True)
    taken = "is being prepared by another process; wait until it is done"
    with storage.alone_in(data_dir, format.ELSEWHERE, taken):
        settings = _as_begun(data_dir, settings)
        _match_plan(data_dir, _plan(name, settings, ids))
        with storage.storing(data_dir, format.ELSEWHERE):
            (data_dir / format.PARTS).mkdir(exist_ok=True)
        yield settings


def _match_plan(data_dir: epath.Path, plan: dict[str, Any], *, write: bool = True) -> None:
    path = data_dir / format.PLAN
    before = format.read_json(path)
    if before is None:
        strangers = {p.name for p in data_dir.iterdir() if not p.name.startswith(".")} - {format.PARTS}
        if strangers:
            raise UserError(
                f"{data_dir}: holds other files ({min(strangers)}, …); choose another --data_dir, a new one"
            )
        if write:
            format.write_json(path, plan)
        return
    remedy = "choose another --data_dir, or delete this one"
    # What is not in an older plan had the value that is the default now.
    usual = {f.name: f.default for f in dataclasses.fields(format.Settings)}
    flat = [
        {
            "format": _known(p.get("format")),
            "dataset": p.get("name"),
            **usual,
            **(p.get("settings") or {}),
        }
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


def _known(number: Any) -> Any:
    """Return today's format for every format that this version goes on with."""
    return format.FORMAT if number in format.READABLE else number


def _finish(
    data_dir: epath.Path, name: str, settings: format.Settings, facts: list[dict[str, Any]], made: int
) -> Report:
    """Write the index, unless it is there and right, and sum up."""
    good = [f for f in facts if "segments" in f]
    left_out = {f["recording_id"]: f["left_out"] for f in facts if "left_out" in f}
    if not good:
        raise UserError(f"{data_dir}: not one of the {len(facts)} recordings can be prepared: see above")
    index = _read_index(data_dir) if (data_dir / "dataset_info.json").exists() else None
    if made or index is None or index["recordings"] != good or index["left_out"] != left_out:
        format.write_index(data_dir, name, settings, facts, left_out)
    if not storage.is_remote(data_dir):
        for pattern in (".*.partial", f"{skin_file.FOLDER}/.*.partial"):  # of runs that were killed
            for path in data_dir.glob(pattern):
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
        index = format.read_json(data_dir / format.INDEX)
    except UserError:  # damaged: it is made anew from the facts of the recordings
        return None
    return index if index and {"recordings", "left_out"} <= set(index) else None

"""A prepared dataset's layout on disk: settings, segments, records and the index.

    data_dir/
      ubfc_rppg-recordings.array_record-00000-of-00042  one shard for each recording
      dataset_info.json, features.json                  of tensorflow-datasets, which reads the dataset too
      skin/*.npy, skin/*.npz                            ours: the skin, see `datasets.skin_file`
      index.json                                        ours, written last: which record holds what
      preparation.json, recordings/*.json               ours: the settings, and what is finished

A recording is one or several unbroken *segments*, a segment is cut into *chunks* of 1 s, and a chunk is one
record: a clip is read without reading its video. The frames are stored as plain bytes: what compressing them
without loss would save, and cost, is in `benchmarks/speed/storage.md`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from sspd_jax.errors import UserError
from sspd_jax.runtime import storage
from sspd_jax.video.crop import BOX

FORMAT = 3
READABLE = (2, 3)  # 2 knew no skin; all else is the same
SPLIT = "recordings"  # the only one: people are split by the experiment. TFDS reserves the name 'all'
INDEX = "index.json"
PLAN = "preparation.json"
PARTS = "recordings"
CHUNK_S = 1.0  # of a record: a 10 s clip reads 11 s at most; benchmarks/speed/storage.md compares others
PREPARE = "python -m sspd_jax prepare"
ELSEWHERE = "choose another --data_dir, one in a folder that exists and is yours"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How recordings are prepared.

    Attributes:
      fps: Frame rate of the clock, Hz.
      crop_size: Side of the face crops, pixels.
      resize: 'linear' or 'area', see `sspd_jax.video.crop`.
      max_gap_s: Longest gap between two frames that is interpolated, s; a longer one ends the segment.
      face_search_s: How far into a recording the face is searched, s.
      face_detector: 'haar' or 'yunet', see `sspd_jax.video.face_detection`.
      follow_every_s: Time between two searches for the face, s, the box following it smoothly. With 0 the
        first face found fixes the box, as published.
      skin: Whether the skin's traces lie beside the crops; an earlier version wrote none.
      face_crop: What the crops show, a name in `sspd_jax.video.crop.FACE_CROPS`.
    """

    fps: float
    crop_size: int
    resize: str
    max_gap_s: float
    face_search_s: float
    face_detector: str = "haar"
    follow_every_s: float = 0.0
    skin: bool = False
    face_crop: str = BOX

    @property
    def chunk_frames(self) -> int:
        """Frames in a record (fewer in a segment's last one)."""
        return round(CHUNK_S * self.fps)


@dataclasses.dataclass(frozen=True)
class Segment:
    """An unbroken stretch of a recording, on a uniform clock.

    Attributes:
      segment_id: The recording's id and the segment's number: 'subject1/0'.
      recording_id: Id of the recording, unique in the dataset.
      person_id: Id of the person who is seen.
      number: Number of the segment in its recording, from 0.
      start_s: Time of its first frame since the video's first, s.
      n_frames: Its length, frames.
      has_ppg: Whether there is a contact pulse wave for any of it.
      shard: Name of the file it lies in.
      first_record: Number of its first record in the shard.
      face_box: Left, top, right, bottom of the crop, pixels of the video's frames; in the last frame where
        the face was followed.
      notes: What was left out of the recording or is missing in it, a sentence each.
      meta: Whatever else the dataset has on the recording (device heart rate, …).
      truth: First frame and last + 1 of every unbroken stretch of its contact pulse wave; None where an
        earlier version prepared it and did not say.
    """

    segment_id: str
    recording_id: str
    person_id: str
    number: int
    start_s: float
    n_frames: int
    has_ppg: bool
    shard: str
    first_record: int
    face_box: tuple[int, int, int, int]
    notes: tuple[str, ...]
    meta: Mapping[str, Any] = dataclasses.field(compare=False)
    truth: tuple[tuple[int, int], ...] | None = dataclasses.field(default=None, compare=False)


def shard_name(name: str, number: int, count: int) -> str:
    """Return the file name of a recording's shard, as tensorflow-datasets has it.

    Args:
      name: Name of the dataset.
      number: Number of the recording, from 0.
      count: Number of all recordings.
    """
    return f"{name}-{SPLIT}.array_record-{number:05d}-of-{count:05d}"


@functools.cache
def features(crop_size: int) -> tfds.features.FeaturesDict:
    """Return the description of a record for tensorflow-datasets.

    Arrays are stored as raw bytes: as TFDS's integers every pixel would become a 64-bit number in Python, and
    its floats know 32 bits only.
    """
    tensor = functools.partial(tfds.features.Tensor, encoding="bytes")
    return tfds.features.FeaturesDict(
        {
            "recording_id": tfds.features.Text(),
            "person_id": tfds.features.Text(),
            "segment": tfds.features.Scalar(np.int32),
            "start": tfds.features.Scalar(np.int32),
            "frames": tensor(shape=(None, crop_size, crop_size, 3), dtype=np.uint8),
            "ppg": tensor(shape=(None,), dtype=np.float32),
            "times_s": tensor(shape=(None,), dtype=np.float64),
        }
    )


def write_json(path: epath.Path, table: Mapping[str, Any]) -> None:
    """Write a table as JSON, aside and renamed.

    Raises:
      StorageError: It cannot be written.
    """
    storage.write_text(path, json.dumps(table, ensure_ascii=False) + "\n", otherwise=ELSEWHERE)


def read_json(path: epath.Path) -> dict[str, Any] | None:
    """Read a table from JSON; returns None if there is no such file.

    Raises:
      UserError: It is damaged or cannot be read.
    """
    try:
        table = json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: is damaged or cannot be read; delete it and prepare again") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: is damaged; delete it and prepare again")
    return table


def segments_of(recording: Mapping[str, Any]) -> list[Segment]:
    """Return the segments of a recording, as the index has its facts.

    Raises:
      KeyError, TypeError: The index is damaged.
    """
    return [
        Segment(
            segment_id=f"{recording['recording_id']}/{number}",
            recording_id=recording["recording_id"],
            person_id=recording["person_id"],
            number=number,
            start_s=facts["start_s"],
            n_frames=facts["n_frames"],
            has_ppg=facts["has_ppg"],
            shard=recording["shard"],
            first_record=facts["first_record"],
            face_box=tuple(recording["face_box"]),
            notes=tuple(recording["notes"]),
            meta=recording["meta"],
            truth=tuple((a, b) for a, b in facts["truth"]) if "truth" in facts else None,
        )
        for number, facts in enumerate(recording["segments"])
    ]


def write_index(
    data_dir: epath.Path,
    name: str,
    settings: Settings,
    recordings: list[dict[str, Any]],
    left_out: Mapping[str, str],
) -> None:
    """Make a dataset of finished shards: tensorflow-datasets' metadata first, then our index.

    Args:
      data_dir: Folder of the shards.
      name: Name of the dataset.
      settings: Settings it was prepared with.
      recordings: Facts of every recording, those left out included, in the order of their shards, as
        `sspd_jax.datasets.preparation.Job` writes them.
      left_out: Id of every recording that is not in the dataset, and why.

    Raises:
      StorageError: Something cannot be written.
    """
    template = tfds.core.ShardedFileTemplate(
        data_dir=data_dir, dataset_name=name, split=SPLIT, filetype_suffix="array_record"
    )
    whole = tfds.core.SplitInfo(
        name=SPLIT,
        # TFDS passes over shards of length 0: those of recordings that were left out need not exist.
        shard_lengths=[sum(s["n_records"] for s in r.get("segments", ())) for r in recordings],
        num_bytes=sum(r.get("shard_bytes", 0) for r in recordings),
        filename_template=template,
    )
    with storage.storing(data_dir, ELSEWHERE):
        tfds.folder_dataset.write_metadata(
            data_dir=data_dir,
            features=features(settings.crop_size),
            split_infos=[whole],
            version="1.0.0",
            check_data=False,
            description="Face crops on a uniform clock, prepared by sspd_jax.",
        )
    write_json(
        data_dir / INDEX,
        {
            "format": FORMAT,
            "name": name,
            "settings": dataclasses.asdict(settings),
            "recordings": [r for r in recordings if "segments" in r],
            "left_out": dict(left_out),
        },
    )

"""A prepared dataset's layout on disk: settings, segments, records and the index."""

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

FORMAT = 2
SPLIT = "recordings"  # the only one: people are split by the experiment. TFDS reserves the name 'all'
INDEX = "index.json"
PLAN = "preparation.json"
PARTS = "recordings"
CHUNK_S = 1.0
"""Length of a record, s: a 10 s clip reads at most 11 s of video; `benchmarks/speed/storage.md` compares others."""
PREPARE = "python -m sspd_jax prepare"
ELSEWHERE = "choose another --data_dir, one in a folder that exists and is yours"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How recordings are prepared.

    Attributes:
      fps: of the clock, Hz.
      crop_size: side of the face crops, pixels.
      resize: 'linear' or 'area', see `sspd_jax.video.crop`.
      max_gap_s: longest gap between two frames that is interpolated, s; a longer one ends the segment.
      face_search_s: how far into a recording the face is searched, s.
      face_detector: 'haar' or 'yunet', see `sspd_jax.video.face_detection`.
      follow_every_s: how often the face is looked for, s, the box following it smoothly; 0: the first face
        found fixes the box, as published.
    """

    fps: float
    crop_size: int
    resize: str
    max_gap_s: float
    face_search_s: float
    face_detector: str = "haar"
    follow_every_s: float = 0.0

    @property
    def chunk_frames(self) -> int:
        """Frames in a record (fewer in a segment's last one)."""
        return round(CHUNK_S * self.fps)


@dataclasses.dataclass(frozen=True)
class Segment:
    """An unbroken stretch of a recording, on a uniform clock.

    Attributes:
      segment_id: the recording's id and the segment's number: 'subject1/0'.
      recording_id: unique in the dataset.
      person_id: who is seen.
      number: of the segment in its recording, from 0.
      start_s: time of its first frame, s since the video's first.
      n_frames: its length.
      has_ppg: whether there is a contact pulse wave for any of it.
      shard: name of the file it lies in.
      first_record: of the shard.
      face_box: left, top, right, bottom of the crop, pixels of the video's frames; of the last frame where
        the face was followed.
      notes: what was left out of the recording or is missing in it, a sentence each.
      meta: what else the dataset tells of the recording (device heart rate, …).
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


def shard_name(name: str, number: int, count: int) -> str:
    """Name the shard of a recording as tensorflow-datasets does.

    Args:
      name: of the dataset.
      number: of the recording, from 0.
      count: of all recordings.
    """
    return f"{name}-{SPLIT}.array_record-{number:05d}-of-{count:05d}"


@functools.cache
def features(crop_size: int) -> tfds.features.FeaturesDict:
    """Describe a record to tensorflow-datasets.

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
    """Write a table, aside and renamed.

    Raises:
      StorageError: it cannot be written.
    """
    storage.write_text(path, json.dumps(table, ensure_ascii=False) + "\n", otherwise=ELSEWHERE)


def read_json(path: epath.Path) -> dict[str, Any] | None:
    """Read a table; None if there is no such file.

    Raises:
      UserError: it is damaged or cannot be read.
    """
    try:
        table = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is damaged or cannot be read; delete it and prepare again") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: is damaged; delete it and prepare again")
    return table

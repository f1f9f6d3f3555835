"""Shards of a prepared dataset, written aside and renamed."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath
from tensorflow_datasets.proto import tf_feature_pb2

from sspd_jax.datasets.format import ELSEWHERE, FORMAT, INDEX, SPLIT, Settings, features, write_json
from sspd_jax.runtime import storage

# One record to a compressed group: any other number makes random access read its neighbours. One writing
# thread: more would queue up chunks in memory.
WRITER_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"


class ShardWriter:
    """Writes one shard aside; it appears under its name when `commit` is called, and not at all otherwise."""

    def __init__(self, path: epath.Path):
        """Open the file aside.

        Args:
          path: of the finished shard.

        Raises:
          StorageError: it cannot be opened.
        """
        self.path = path
        self.count = 0  # records written
        self._folder = None
        if storage.is_remote(path):
            self._folder = tempfile.TemporaryDirectory(prefix="sspd_jax-")
            self._aside = epath.Path(self._folder.name) / path.name
        else:
            self._aside = storage.aside(path)
        with storage.storing(path, ELSEWHERE):
            self._writer = array_record_module.ArrayRecordWriter(os.fspath(self._aside), WRITER_OPTIONS)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None and self._writer.is_open():
            # The file is thrown away: that closing fails too is no news.
            with suppress(RuntimeError):
                self._writer.close()
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)
        if self._folder is not None:
            self._folder.cleanup()

    def write(
        self,
        *,
        recording_id: str,
        person_id: str,
        segment: int,
        start: int,
        frames: np.ndarray,
        ppg: np.ndarray,
        times_s: np.ndarray,
    ) -> None:
        """Write a chunk as one record.

        Args:
          recording_id: of the recording.
          person_id: who is seen.
          segment: its number in the recording.
          start: number of the chunk's first frame in the segment.
          frames: uint8 [n, s, s, 3] RGB.
          ppg: float32 [n], NaN where there is none.
          times_s: float64 [n], s since the video's first frame.

        Raises:
          StorageError: the disk is full, say. It can come a few records late.
        """
        small = tf_feature_pb2.Features()
        for key, value in (
            ("recording_id", recording_id.encode()),
            ("person_id", person_id.encode()),
            ("ppg", ppg.astype(np.float32, copy=False).tobytes()),
            ("times_s", times_s.astype(np.float64, copy=False).tobytes()),
        ):
            small.feature[key].bytes_list.value.append(value)
        small.feature["segment"].int64_list.value.append(segment)
        small.feature["start"].int64_list.value.append(start)
        encoded = _with_frames(small, np.ascontiguousarray(frames, np.uint8))
        with storage.storing(self.path, ELSEWHERE):
            self._writer.write(encoded)
        self.count += 1

    def commit(self) -> int:
        """Finish the shard and give it its name.

        Returns:
          Its size, bytes.

        Raises:
          StorageError: it cannot be written to the end.
        """
        with storage.storing(self.path, ELSEWHERE):
            self._writer.close()
            self._writer = None
            size = self._aside.stat().length
            if self._folder is None:
                self._aside.replace(self.path)
            else:
                self._aside.copy(self.path, overwrite=True)
        return size


def _with_frames(small: tf_feature_pb2.Features, frames: np.ndarray) -> bytes:
    """Serialize a `tf.train.Example` of some features and the frames.

    As protobuf does it, in the order of the features' names; but that copies the frames three times, which
    takes as long as cutting them out of their pictures. So they are put in front of the rest here.

    Args:
      small: the other features, whose names come after 'frames'.
      frames: uint8, contiguous.
    """
    # A map is serialized in an order of its own unless one asks for a fixed one.
    rest = small.SerializeToString(deterministic=True)
    heads = [b""]
    # Outwards: BytesList.value, Feature.bytes_list, value and key of the map's entry, Features.feature.
    for before in (b"\x0a", b"\x0a", b"\x0a\x06frames\x12", b"\x0a"):
        inner = frames.nbytes + sum(map(len, heads))
        heads[0:0] = [before, _varint(inner)]
    head = b"".join(heads)
    features_size = len(head) + frames.nbytes + len(rest)
    return b"".join([b"\x0a", _varint(features_size), head, frames.data, rest])  # Example.features


def _varint(number: int) -> bytes:
    """Write a number as protobuf does: 7 bits a byte, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_index(
    data_dir: epath.Path,
    name: str,
    settings: Settings,
    recordings: list[dict[str, Any]],
    left_out: Mapping[str, str],
) -> None:
    """Make a dataset of finished shards: tensorflow-datasets' metadata first, then our index.

    Args:
      data_dir: with the shards.
      name: of the dataset.
      settings: it was prepared with.
      recordings: facts of every recording, those left out included, in the order of their shards; see
        `sspd_jax.datasets.prepare`.
      left_out: recording id → why.

    Raises:
      StorageError: something cannot be written.
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

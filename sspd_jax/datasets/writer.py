"""Shards of a prepared dataset, written aside and renamed.

They are ArrayRecord files written here, because `download_and_prepare` of tensorflow-datasets needs
TensorFlow beyond 1 GB and cannot resume. ArrayRecord reads `gs://` by itself but writes local files only, so
a shard of a remote dataset is written to the local temporary directory and then copied.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

import numpy as np
from array_record.python import array_record_module
from etils import epath
from tensorflow_datasets.proto import tf_feature_pb2

from sspd_jax.datasets.format import ELSEWHERE
from sspd_jax.runtime import storage

# One record to a compressed group: any other number makes random access read its neighbours. One writing
# thread: more would queue up chunks in memory.
WRITER_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"


class ShardWriter:
    """Writes one shard aside; it appears under its name when `commit` is called, and not at all otherwise."""

    def __init__(self, path: epath.Path):
        """Open the file aside.

        Args:
          path: Path of the finished shard.

        Raises:
          StorageError: It cannot be opened.
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
          recording_id: Id of the recording.
          person_id: Id of the person who is seen.
          segment: Number of the segment in the recording.
          start: Number of the chunk's first frame in the segment.
          frames: Face crops, uint8 [n, s, s, 3] RGB.
          ppg: Contact pulse wave, float32 [n], NaN where there is none.
          times_s: Times since the video's first frame, s, float64 [n].

        Raises:
          StorageError: The disk is full, for example. It can come a few records late.
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
        encoded = serialize_example(small, np.ascontiguousarray(frames, np.uint8))
        with storage.storing(self.path, ELSEWHERE):
            self._writer.write(encoded)
        self.count += 1

    def commit(self) -> int:
        """Finish the shard and give it its name.

        Returns:
          Its size, bytes.

        Raises:
          StorageError: It cannot be written to the end.
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


def serialize_example(small: tf_feature_pb2.Features, frames: np.ndarray) -> bytes:
    """Serialize a `tf.train.Example` of some small features and the frames.

    As protobuf does it, in the order of the features' names; but that copies the frames three times, which
    takes as long as cutting them out of their pictures. So they are put in front of the rest here.

    Args:
      small: The other features, whose names come after 'frames'.
      frames: Frames, uint8, contiguous.

    Returns:
      The message, to the byte as protobuf would serialize it.
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

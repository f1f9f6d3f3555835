"""Shards, written aside and renamed."""

import errno

import numpy as np
import pytest
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from sspd_jax.datasets import format
from sspd_jax.datasets.writer import ShardWriter, serialize_example
from sspd_jax.errors import StorageError


def chunk(**changes):
    return {
        "recording_id": "a",
        "person_id": "a",
        "segment": 0,
        "start": 0,
        "frames": np.zeros((60, 64, 64, 3), np.uint8),
        "ppg": np.zeros(60, np.float32),
        "times_s": np.zeros(60),
    } | changes


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000, 3_000_000])
def test_a_record_is_what_protobuf_makes_of_it(size):
    frames = np.arange(size, dtype=np.uint32).astype(np.uint8)
    example = tf_example_pb2.Example()
    for key in ("person_id", "ppg", "start"):
        example.features.feature[key].bytes_list.value.append(key.encode())
    small = tf_feature_pb2.Features()
    small.CopyFrom(example.features)
    example.features.feature["frames"].bytes_list.value.append(frames.tobytes())
    assert serialize_example(small, frames) == example.SerializeToString(deterministic=True)


def test_a_shard_that_is_not_committed_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(epath.Path(tmp_path) / "x") as writer:
        writer.write(**chunk())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_a_sentence(tmp_path):
    (tmp_path / ".x.partial").symlink_to("/dev/full")  # what is written there meets a full disk
    with (
        pytest.raises(StorageError, match=r"x: cannot be written \(no space left on device\); make"),
        ShardWriter(epath.Path(tmp_path) / "x") as writer,
    ):
        for _ in range(20):
            writer.write(**chunk())
        writer.commit()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".t.json.partial").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="make room"):
        format.write_json(epath.Path(tmp_path) / "t.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    with (
        pytest.raises(StorageError, match=r"no such file or directory\); choose another --data_dir"),
        ShardWriter(epath.Path(tmp_path) / "gone" / "x") as writer,
    ):
        writer.write(**chunk())
        writer.commit()
    monkeypatch.setattr(type(epath.Path(tmp_path)), "write_bytes", refuse)
    with pytest.raises(StorageError, match=r"\(read-only file system\); choose another --data_dir"):
        format.write_json(epath.Path(tmp_path) / "t.json", {})

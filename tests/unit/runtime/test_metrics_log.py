"""The log of a run: what it writes, how a resumed run continues it, where it may lie, a full disk."""

import json
import struct

import pytest
from etils import epath
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from sspd_jax.errors import StorageError
from sspd_jax.runtime import metrics_log


def log_of(workdir, first_step=0):
    return metrics_log.RunLog(epath.Path(workdir), first_step=first_step, total_steps=9, progress=False)


def events(data: bytes) -> list[Event]:
    """Read TensorBoard's records and check both checksums of each."""
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        body, data = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[:4])[0] == masked_crc32c(body)
        data = data[4:]
        found.append(Event.FromString(body))
    return found


def test_lines_and_scalars_are_on_disk_when_they_are_written(tmp_path):
    with log_of(tmp_path) as log:
        log.write(1, {"loss": 2.5, "health/score": float("nan")}, epoch=1)
        (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line) == {"step": 1, "epoch": 1, "loss": 2.5, "health/score": None}
        (board,) = (tmp_path / "tensorboard").iterdir()
        first, start, loss, score = events(board.read_bytes())
    assert first.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (1, SessionLog.START)
    assert (loss.step, loss.summary.value[0].tag, loss.summary.value[0].simple_value) == (1, "loss", 2.5)
    assert score.summary.value[0].tag == "health/score"


def test_a_resumed_run_drops_the_steps_it_takes_again(tmp_path):
    with log_of(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # cut off by a kill
    assert [row["step"] for row in metrics_log.read_metrics(tmp_path)] == [1, 2, 3]
    with log_of(tmp_path, first_step=2) as log:
        log.write(3, {"loss": 30})
    assert [row["loss"] for row in metrics_log.read_metrics(tmp_path)] == [1, 2, 30]
    boards = sorted((tmp_path / "tensorboard").iterdir())
    assert events(boards[1].read_bytes())[1].step == 3  # hides what the first file says of step 3


def test_a_log_can_lie_in_a_bucket(bucket):
    with log_of("gs://bucket/run") as log:
        log.write(1, {"loss": 1.0})
        log.write(2, {"loss": 2.0})
    with log_of("gs://bucket/run", first_step=2) as log:
        log.write(3, {"loss": 3.0})
    assert [row["step"] for row in metrics_log.read_metrics("gs://bucket/run")] == [1, 2, 3]
    boards = [events(file.getvalue()) for path, file in sorted(bucket.items()) if "tensorboard" in path]
    assert [len(board) for board in boards] == [4, 3]


@pytest.mark.parametrize("full", ["metrics.jsonl", "tensorboard"])
def test_a_full_disk_stops_the_run_with_a_sentence(tmp_path, full, monkeypatch):
    with (
        pytest.raises(StorageError, match=r"cannot be written \(no space left on device\); make room"),
        log_of(tmp_path) as log,
    ):
        appended = log._lines if full == "metrics.jsonl" else log._board
        appended._file.close()
        appended._file = open("/dev/full", "ab")  # noqa: PTH123, SIM115
        for step in range(1, 1000):
            log.write(step, {"loss": 1.0})

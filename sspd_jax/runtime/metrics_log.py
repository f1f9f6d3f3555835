"""What a run writes down while it trains: JSON lines, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import tqdm
from etils import epath
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from sspd_jax import errors
from sspd_jax.runtime import storage

METRICS = "metrics.jsonl"
BOARD = "tensorboard"
UPLOAD_EVERY_S = 30.0
ELSEWHERE = "choose another --workdir"


class RunLog:
    """The log of one run in its work directory.

    A resumed run continues the log of the one before: lines of steps that will be taken again are dropped, so
    that the log of an interrupted run equals that of one that never was.
    """

    def __init__(self, workdir: epath.Path, *, first_step: int, total_steps: int, progress: bool):
        """Open the log.

        Args:
          workdir: The run's directory; must exist.
          first_step: Number of steps already taken.
          total_steps: Number of steps of the whole run.
          progress: Whether to draw a progress bar on stderr.
        """
        path = workdir / METRICS
        kept = [line for line in _lines(path) if _step_of(line) <= first_step]
        storage.write_text(path, "".join(f"{line}\n" for line in kept), otherwise=ELSEWHERE)
        self._lines = _Appended(path)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._board = _Appended(workdir / BOARD / name)
        self._add_event(file_version="brain.Event:2")
        # TensorBoard hides what an earlier file says of later steps.
        self._add_event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._bar = tqdm.tqdm(
            total=total_steps, initial=first_step, unit="step", disable=not progress, file=sys.stderr
        )

    def advance(self) -> None:
        """Count one step on the progress bar."""
        self._bar.update()

    def stage(self, text: str) -> None:
        """Write what is done before the progress bar, until another text, or '', is written."""
        self._bar.set_description_str(text)

    def write(self, step: int, metrics: Mapping[str, float], **facts: Any) -> None:
        """Write the metrics of a step.

        Args:
          step: Number of steps taken so far.
          metrics: Values by name.
          facts: What else belongs into the JSON line, such as the epoch.
        """
        values = {name: float(value) for name, value in metrics.items()}
        # JSON has no NaN: a value that is none is written as null.
        finite = {name: value if abs(value) < float("inf") else None for name, value in values.items()}
        self._lines.append(f"{json.dumps({'step': step, **facts, **finite})}\n".encode())
        for name, value in values.items():
            self._add_event(step=step, summary=scalar(name, value))
        short = {name: f"{value:.3g}" for name, value in values.items() if name in ("loss", "health/score")}
        self._bar.set_postfix(short)

    def _add_event(self, **fields: Any) -> None:
        """Append an event in TensorBoard's format: length, data, and a checksum of each."""
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        self._board.append(length + sums[0] + data + sums[1])

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        failures = []
        for file in (self._board, self._lines):
            try:
                file.close()
            except errors.StorageError as failure:
                failures.append(failure)
        if failures and error is None:  # an error in the block comes first
            raise failures[0]


class Silence:
    """The log of a process that writes none, because another one does."""

    def advance(self) -> None:
        """Do nothing."""

    def stage(self, text: str) -> None:
        """Do nothing."""

    def write(self, step: int, metrics: Mapping[str, float], **facts: Any) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        return


class _Appended:
    """A file that grows: what was appended is on disk when `append` returns.

    Remote storage cannot append: there the whole file, kept in memory, is written again every half a
    minute and at the end.
    """

    def __init__(self, path: epath.Path):
        """Begin the file, or go on behind what it holds."""
        self._path = path
        self._uploaded_s = 0.0
        with storage.storing(path, ELSEWHERE):
            path.parent.mkdir(parents=True, exist_ok=True)
            if storage.is_remote(path):
                self._file, self._content = None, path.read_bytes() if path.exists() else b""
            else:
                self._file = path.open("ab")

    def append(self, data: bytes) -> None:
        with storage.storing(self._path, ELSEWHERE):
            if self._file is not None:
                self._file.write(data)
                self._file.flush()
                return
            self._content += data
            if time.monotonic() - self._uploaded_s > UPLOAD_EVERY_S:
                self._upload()

    def _upload(self) -> None:
        self._path.write_bytes(self._content)
        self._uploaded_s = time.monotonic()

    def close(self) -> None:
        with storage.storing(self._path, ELSEWHERE):
            self._file.close() if self._file is not None else self._upload()


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    r"""Read a run's JSON lines; a line cut off by a kill is left out.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = (pathlib.Path(folder) / METRICS).write_text('{"step": 5, "loss": 0.4}\n{"step": 10, "lo')
      ...     read_metrics(folder)
      [{'step': 5, 'loss': 0.4}]
    """
    return [json.loads(line) for line in _lines(epath.Path(workdir) / METRICS)]


def _lines(path: epath.Path) -> list[str]:
    lines = path.read_bytes().decode(errors="replace").splitlines() if path.exists() else []
    return [line for line in lines if _step_of(line) is not None]


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None

"""What a run writes down while it trains: JSON lines, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import tensorboardX
import tqdm
from etils import epath

METRICS = "metrics.jsonl"


class RunLog:
    """The log of one run in its work directory.

    A resumed run continues the log of the one before: lines of steps that will be taken again are dropped, so
    that the log of an interrupted run equals that of one that never was.
    """

    def __init__(self, workdir: epath.Path, *, first_step: int, total_steps: int, progress: bool):
        """Open the log.

        Args:
          workdir: of the run; must exist.
          first_step: steps already taken.
          total_steps: steps of the whole run.
          progress: whether to draw a progress bar on stderr.
        """
        self._path = workdir / METRICS
        self._keep_until(first_step)
        self._file = self._path.open("a")
        self._board = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=first_step + 1, write_to_disk=True
        )
        self._bar = tqdm.tqdm(
            total=total_steps, initial=first_step, unit="step", disable=not progress, file=sys.stderr
        )

    def _keep_until(self, step: int) -> None:
        if not self._path.exists():
            return
        lines = self._path.read_text().splitlines()
        kept = [line for line in lines if _step_of(line) is not None and _step_of(line) <= step]
        aside = self._path.parent / f".{METRICS}.partial"
        aside.write_text("".join(f"{line}\n" for line in kept))
        aside.replace(self._path)

    def advance(self) -> None:
        """Count one step on the progress bar."""
        self._bar.update()

    def write(self, step: int, metrics: Mapping[str, float], **facts: Any) -> None:
        """Write the metrics of a step.

        Args:
          step: steps taken so far.
          metrics: name → value.
          facts: what else belongs into the JSON line, such as the epoch.
        """
        values = {name: float(value) for name, value in metrics.items()}
        # JSON has no NaN: a value that is none is written as null.
        finite = {name: value if abs(value) < float("inf") else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **facts, **finite}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        short = {name: f"{value:.3g}" for name, value in values.items() if name in ("loss", "health/score")}
        self._bar.set_postfix(short)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._board.close()
        self._file.close()


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Read a run's JSON lines; a line cut off by a kill is left out."""
    path = epath.Path(workdir) / METRICS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if _step_of(line) is not None]


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None

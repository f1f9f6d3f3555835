"""What a run measures while it trains: means, health, trust."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from sspd_jax.datasets import input_pipeline
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.training import sharding
from sspd_jax.training import state as train_state
from sspd_jax.training import step as train_step
from sspd_jax.training.compiled import compile_probe


def make_probe(
    config: ml_collections.ConfigDict,
    dataset: PreparedDataset,
    choice: input_pipeline.Choice,
    step_config: train_step.StepConfig,
    mesh: jax.sharding.Mesh,
) -> Callable[[train_state.TrainState], dict[str, jax.Array]]:
    """Choose fixed clips, of as many people as possible, and compile what is measured of them.

    Args:
      config: The experiment's configuration; `health.clips` is the number of clips.
      dataset: Prepared recordings.
      choice: The segments that are trained on.
      step_config: The static part of a step.
      mesh: The devices to compute on.

    Returns:
      A function from a state to the scalars of `diagnostics.probe`.
    """
    length = config.clip_frames + 1
    first = [dataset.segments[numbers[0]] for numbers in choice.segments]
    # Everybody's first recording, then everybody's second, …
    counts = collections.Counter[str]()
    turns = []
    for segment in first:
        turns.append(counts[segment.person_id])
        counts[segment.person_id] += 1
    first = [first[i] for i in np.argsort(turns, kind="stable")[: config.health.clips]]
    clips = np.stack([dataset.clip(segment, 0, length) for segment in first])
    on_devices = jax.make_array_from_callback(clips.shape, sharding.replicated(mesh), clips.__getitem__)
    compiled = compile_probe(step_config, mesh, [segment.person_id for segment in first])
    return lambda state: compiled(state, on_devices)


@dataclasses.dataclass
class RunMetrics:
    """Metrics that are not in the log yet, so that averages do not depend on where a run was interrupted.

    Attributes:
      line: Metrics of each step since the last line of the log.
      epoch: Metrics of each step of this epoch before those.
      trust: The measure 'trust' after every epoch so far, where the networks' health is probed.
      pending: Metrics of the steps after `line`, still on the device.
    """

    line: list[dict[str, float]] = dataclasses.field(default_factory=list)
    epoch: list[dict[str, float]] = dataclasses.field(default_factory=list)
    trust: list[float] = dataclasses.field(default_factory=list)
    pending: list[dict[str, jax.Array]] = dataclasses.field(default_factory=list)

    def table(self) -> dict[str, Any]:
        """Return what a checkpoint holds, written while steps go on; nothing must be pending."""
        return {"line": [*self.line], "epoch": [*self.epoch], "trust": [*self.trust]}

    def best_epoch(self) -> int:
        """Return the number, from 1, of the first epoch whose network was trusted most; 0 before any."""
        return int(np.argmax(self.trust)) + 1 if self.trust else 0

    def is_exhausted(self, patience: int) -> bool:
        """Say whether the last `patience` epochs (0: however many) brought no better trust."""
        return 0 < patience <= len(self.trust) - self.best_epoch()

    def read(self) -> None:
        """Wait for the device."""
        self.line += [
            {name: float(value) for name, value in row.items()} for row in jax.device_get(self.pending)
        ]
        self.pending = []

    def end_line(self) -> None:
        """Begin the next line."""
        self.epoch += self.line
        self.line = []


class StepTimer:
    """How long steps take since the last line of the log, and how much of that they wait for clips."""

    def __init__(self):
        """Begin at zero."""
        self._waited_s, self._total_s, self._steps = 0.0, 0.0, 0

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Time a step, its waiting included."""
        with self.reading():
            yield
        self._steps += 1

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """Time the wait for a step's clips."""
        began = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - began

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Time what belongs to steps that were taken: waiting for the device."""
        began = time.perf_counter()
        yield
        self._total_s += time.perf_counter() - began

    def read(self) -> dict[str, float]:
        """Return the log's numbers, and begin anew."""
        speed = {
            "time/waiting_share": self._waited_s / self._total_s,
            "time/steps_per_s": self._steps / self._total_s,
        }
        self._waited_s, self._total_s, self._steps = 0.0, 0.0, 0
        return speed


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average each metric over steps."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def not_finite(rows: list[dict[str, float]]) -> list[str]:
    """Name the metrics that are not finite in the first step whose loss is not; [] if all losses are."""
    for row in rows:
        if not math.isfinite(row["loss"]):
            return sorted(name for name, value in row.items() if not math.isfinite(value))
    return []

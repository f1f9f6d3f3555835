"""The training loop: steps, what is logged of them, checkpoints, and the network that is kept."""

from __future__ import annotations

import contextlib
import json
from typing import NamedTuple

import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath

from sspd_jax.datasets import input_pipeline
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.errors import UserError
from sspd_jax.method import diagnostics
from sspd_jax.runtime import compilation_cache, distributed, metrics_log, preemption, storage
from sspd_jax.training import monitor, sharding
from sspd_jax.training.checkpoints import (
    Resumed,
    checkpoints,
    export_networks,
    finish,
    restore,
    resume,
    save,
)
from sspd_jax.training.monitor import RunMetrics, StepTimer
from sspd_jax.training.setup import Setup, set_up
from sspd_jax.training.state import TrainState
from sspd_jax.training.warm_start import init_from
from sspd_jax.training.workdir import LEARNED_BEFORE


def train(
    config: ml_collections.ConfigDict,
    dataset: PreparedDataset,
    workdir: epath.Path,
    *,
    progress: bool = True,
    watch: preemption.Watch | None = None,
) -> TrainState:
    """Train to the end, from the last checkpoint if there is one.

    Args:
      config: The experiment's configuration.
      dataset: Prepared recordings; only those of `config.data.train_people` are used.
      workdir: The run's directory, see `workdir.claim_workdir`.
      progress: Whether to draw a progress bar.
      watch: Says when to stop early; None: never.

    Returns:
      The final state. Its networks are exported to `workdir/network/{online,target}`.

    Raises:
      Stopped: `watch` said so; the state is in the last checkpoint.
      UserError: A loss is not finite, or a checkpoint is damaged or cannot be written.
    """
    setup, epoch_steps = set_up(config, dataset)
    with checkpoints(workdir, config.checkpoint.keep) as manager:
        state, measured, passed_over = _first_state(config, dataset, setup, manager, workdir)
        run_metrics = RunMetrics(**measured)
        log = distributed.together("log", lambda: _open_log(workdir, int(state.step), setup, progress))
        with log:
            for note in (*passed_over, *setup.notes):
                log.say(f"note: {note}")
            run = Run(config, setup, epoch_steps, manager, run_metrics, log, watch)
            state = _take_steps(run, state)
            if config.health.patience:
                state = _most_trusted(run)
    # What readers load: both networks, without what only training needs.
    state = jax.device_get(state) if jax.process_count() > 1 else state
    distributed.together("export", lambda: export_networks(config, state, workdir), first_only=True)
    return state


class Run(NamedTuple):
    """What the parts of a run share."""

    config: ml_collections.ConfigDict
    setup: Setup
    epoch_steps: int
    manager: ocp.CheckpointManager
    metrics: RunMetrics
    log: metrics_log.RunLog | metrics_log.Silence
    watch: preemption.Watch | None


class Due(NamedTuple):
    """What is to be done after a step."""

    epoch: int  # that the step belongs to, from 1
    epoch_ends: bool
    stops: bool  # the machine will be taken away
    keeps: bool  # a checkpoint
    logs: bool


def _take_steps(run: Run, state: TrainState) -> TrainState:
    """Step to the end, or until nothing gets better. The device is read when something is written."""
    first, last, timer = int(state.step), run.setup.total_steps, StepTimer()
    compiled: set[int] = set()  # sizes of batches
    with contextlib.closing(input_pipeline.prefetch(run.setup.batches, first)) as stream:
        for taken in range(first + 1, last + 1):
            if run.metrics.is_exhausted(run.config.health.patience):
                run.log.say(
                    f"note: stopped after {len(run.metrics.trust)} epochs: the last "
                    f"{run.config.health.patience} brought no network that is trusted more"
                )
                return state
            with timer.step():
                with timer.wait():
                    drawn = next(stream)
                    batch = run.setup.to_devices(drawn)
                size = len(drawn["start"])
                if size not in compiled:
                    run.log.stage(f"compiling for {size} clip{'s' * (size != 1)}, once")
                state, metrics = run.setup.steps[size](state, batch)
                if size not in compiled:
                    compiled.add(size)
                    compilation_cache.sign()
                    run.log.stage("")
                run.metrics.pending.append(metrics)
            run.log.advance()
            due = _due(run, taken)
            if due.logs or due.keeps:
                with timer.reading():
                    run.metrics.read()
                _require_finite(run, taken)
            probed = _write_line(run, taken, state, due, timer) if due.logs else {}
            epoch_metrics = _end_epoch(run, due, probed) if due.epoch_ends else {}
            if due.keeps:
                save(run.manager, taken, state, epoch_metrics, run.metrics.table())
            if due.stops and taken < last:
                finish(run.manager)
                raise preemption.Stopped(
                    f"stopped by SIGTERM after step {taken} of {last}; the same command goes on"
                )
    save(run.manager, last, state, {})
    return state


def _due(run: Run, taken: int) -> Due:
    epoch_ends = taken % run.epoch_steps == 0
    stops = run.watch is not None and run.watch.reached(taken)
    every = run.config.checkpoint.every_steps
    return Due(
        epoch=(taken - 1) // run.epoch_steps + 1,
        epoch_ends=epoch_ends,
        stops=stops,
        keeps=epoch_ends or stops or (every > 0 and taken % every == 0),
        logs=epoch_ends or taken % run.config.log_every == 0,
    )


def _require_finite(run: Run, taken: int) -> None:
    if bad := monitor.not_finite(run.metrics.line):
        finish(run.manager)
        raise UserError(
            f"the loss stopped being finite before step {taken} ({', '.join(bad)}); the last good checkpoint "
            f"is of step {run.manager.latest_step() or 0}: try a lower optimizer.learning_rate, or check the "
            "recordings"
        )


def _write_line(run: Run, taken: int, state: TrainState, due: Due, timer: StepTimer) -> dict[str, float]:
    """Write a line of the log; returns what the probe found, at the end of an epoch."""
    probed: dict[str, float] = {}
    speed = timer.read()
    if run.setup.probe is not None and due.epoch_ends:
        probed = {name: float(value) for name, value in jax.device_get(run.setup.probe(state)).items()}
        run.metrics.trust.append(probed["trust"])
    logged = {f"{diagnostics.LOGGED_AS}{name}": value for name, value in probed.items()}
    run.log.write(taken, {**monitor.means(run.metrics.line), **logged, **speed}, epoch=due.epoch)
    run.metrics.end_line()
    return probed


def _end_epoch(run: Run, due: Due, probed: dict[str, float]) -> dict[str, float]:
    """Warn of what the epoch's health says; returns the scores by which a checkpoint is kept."""
    averages = monitor.means(run.metrics.epoch)
    run.metrics.epoch = []
    epoch_metrics = {
        name.removeprefix("health/"): value for name, value in averages.items() if name.startswith("health/")
    }
    collapse = diagnostics.collapse_warning(epoch_metrics, one_person=run.setup.one_person)
    for warning in filter(None, (collapse, diagnostics.confounder_warning(probed))):
        run.log.say(f"warning: epoch {due.epoch}: {warning}")
    return epoch_metrics | ({"trust": probed["trust"]} if probed else {})


def _most_trusted(run: Run) -> TrainState:
    """Return the state of the epoch whose network is trusted most, if its checkpoint is there."""
    finish(run.manager)
    best_step = run.metrics.best_epoch() * run.epoch_steps
    best = [step for step in run.manager.all_steps() if step == best_step]
    replicated = sharding.replicated(run.setup.mesh)
    state = restore(run.manager, run.setup.step_config, run.config.seed, replicated, *best)
    run.log.say(f"note: the networks of epoch {int(state.step) // run.epoch_steps} are kept")
    return state


def _first_state(
    config: ml_collections.ConfigDict,
    dataset: PreparedDataset,
    setup: Setup,
    manager: ocp.CheckpointManager,
    workdir: epath.Path,
) -> Resumed:
    """Return the last whole checkpoint, or a fresh state, around another run's network if asked for."""
    if config.init_from and manager.latest_step() is None:
        state, before = init_from(config, dataset, setup.step_config)
        text = json.dumps(before, indent=2) + "\n"
        path = workdir / LEARNED_BEFORE
        distributed.together("before", lambda: storage.write_text(path, text), first_only=True)
        resumed = Resumed(state, {}, ())
    else:
        resumed = resume(manager, setup.step_config, config.seed, sharding.replicated(setup.mesh))
    return resumed._replace(state=sharding.place(resumed.state, setup.mesh))


def _open_log(
    workdir: epath.Path, first_step: int, setup: Setup, progress: bool
) -> metrics_log.RunLog | metrics_log.Silence:
    if not distributed.is_first():
        return metrics_log.Silence()
    return metrics_log.RunLog(
        workdir, first_step=first_step, total_steps=setup.total_steps, progress=progress
    )

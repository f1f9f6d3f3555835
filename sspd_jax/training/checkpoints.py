"""The checkpoints of a run: saved, restored to the bit, exported."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from sspd_jax.checkpoints.network import quiet_stragglers, save_network
from sspd_jax.errors import UserError
from sspd_jax.runtime import distributed, metrics_log, storage
from sspd_jax.training import state as train_state
from sspd_jax.training import step as train_step
from sspd_jax.training.workdir import CHECKPOINTS, LEARNED_BEFORE, MEASURED, NETWORK


@contextlib.contextmanager
def checkpoints(workdir: epath.Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints of a run: the last `keep` and the one with the best label-free score stay.

    That is 'trust' where the networks' health is probed, else 'score', see `diagnostics`.
    When the block ends well, what was saved in it is on disk.

    Raises:
      StorageError: They cannot be written.
    """
    policies = [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
            get_metric_fn=_score_of,
            n=1,
            keep_checkpoints_without_metrics=False,
        ),
    ]
    directory = workdir / CHECKPOINTS
    distributed.together("scores", lambda: _forget_damaged_scores(directory), first_only=True)
    with storage.storing(directory, metrics_log.ELSEWHERE, (OSError,)):
        manager = ocp.CheckpointManager(
            storage.absolute(directory),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=_score_of,  # without it no score is stored: a resumed run would forget the best
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler(), MEASURED: ocp.JsonCheckpointHandler()},
        )
    with quiet_stragglers():
        try:
            yield manager
            finish(manager)
        finally:
            # A write that failed was raised already; the manager would raise it again.
            with contextlib.suppress(*_WRITING_RAISES):
                manager.close()


def _score_of(metrics: Mapping[str, float]) -> float:
    return metrics.get("trust", metrics["score"])


def _forget_damaged_scores(directory: epath.Path) -> None:
    """Delete scores that cannot be read: they only choose what is kept, and Orbax would open nothing."""
    with storage.storing(directory, metrics_log.ELSEWHERE, (OSError,)):
        for file in directory.glob("*/metrics/metrics"):
            try:
                _score_of(json.loads(file.read_text())) + 0.0
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                file.parent.rmtree()


_WRITING_RAISES = (OSError, RuntimeError, ValueError)
"""What Orbax and TensorStore raise when a checkpoint cannot be written, often at the next one."""


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: train_state.TrainState,
    scores: Mapping[str, float],
    measured: Mapping[str, Any] | None = None,
) -> None:
    """Begin to write a checkpoint of a step, unless there is one; Orbax writes aside and renames.

    Args:
      manager: From `checkpoints`.
      step: Number of steps taken.
      state: The state after them.
      scores: Label-free scores by which the best is kept; {} in the middle of an epoch.
      measured: Metrics that are not in the log yet, see `monitor.RunMetrics.table`.

    Raises:
      StorageError: It, or the one before it, cannot be written (a full disk, say); what was written stays.
    """
    if step in manager.all_steps():
        return
    with_sum = {**(measured or {}), CHECKSUM: checksum(state)}
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), measured=ocp.args.JsonSave(with_sum))
    with storage.storing(manager.directory, metrics_log.ELSEWHERE, _WRITING_RAISES):
        manager.save(step, args=items, metrics=dict(scores) or None)


def finish(manager: ocp.CheckpointManager) -> None:
    """Wait until the checkpoints that were saved are on disk.

    Raises:
      StorageError: One cannot be written.
    """
    with storage.storing(manager.directory, metrics_log.ELSEWHERE, _WRITING_RAISES):
        manager.wait_until_finished()


def restore(
    manager: ocp.CheckpointManager,
    step_config: train_step.StepConfig,
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
    step: int | None = None,
) -> train_state.TrainState:
    """Return the state of a checkpoint, or a fresh one.

    Args:
      manager: From `checkpoints`.
      step_config: The static part of the steps; says which fields the state has, and their shapes.
      seed: Seed of a fresh state's parameters.
      sharding: Where a stored state shall lie, whatever it was saved from; by default on this process's first
        device.
      step: Step of the checkpoint; by default the last one's, if there is any.

    Raises:
      UserError: The checkpoint is damaged or belongs to another network.
    """
    step = manager.latest_step() if step is None else step
    if step is None:
        return train_state.init(step_config.network, step_config.optimizer, seed)
    return _restore(manager, step_config, seed, sharding, step)[0]


class Resumed(NamedTuple):
    """Where a training goes on.

    Attributes:
      state: The state of the last whole checkpoint, or a fresh one.
      measured: Its metrics that were not in the log yet; {} of a fresh state.
      notes: A sentence for each later checkpoint that was damaged and is passed over.
    """

    state: train_state.TrainState
    measured: dict[str, Any]
    notes: tuple[str, ...]


def resume(
    manager: ocp.CheckpointManager,
    step_config: train_step.StepConfig,
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Resumed:
    """Return the last whole checkpoint; those after it are renamed, so that their steps are taken anew.

    Nothing is renamed where none is whole.

    Args:
      manager: From `checkpoints`.
      step_config: See `restore`.
      seed: See `restore`.
      sharding: See `restore`.

    Raises:
      UserError: There are checkpoints, and all are damaged or belong to another network.
      StorageError: A damaged one cannot be renamed.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    if not steps:
        return Resumed(train_state.init(step_config.network, step_config.optimizer, seed), {}, ())
    for tried, step in enumerate(steps):
        found, failure = None, None
        try:
            found = _restore(manager, step_config, seed, sharding, step)
        except UserError as error:
            failure = error
        if distributed.everywhere(found is not None):
            damaged = steps[:tried]
            if damaged:
                distributed.together(
                    "damaged", lambda damaged=damaged: _set_aside(manager, damaged), first_only=True
                )
                manager.reload()
            said = "its files are kept as {} and the training goes on from step {}"
            notes = [
                f"the checkpoint of step {late} is damaged: {said.format(_aside_name(late), step)}"
                for late in damaged
            ]
            return Resumed(*found, tuple(notes))
    if len(steps) == 1:
        raise failure or _damaged(manager, steps[0])
    raise UserError(
        f"{manager.directory}: all checkpoints (steps {', '.join(map(str, reversed(steps)))}) are damaged or "
        "of another network; move the folder away to begin anew"
    ) from failure


CHECKSUM = "checksum"
"""Key beside a checkpoint's metrics: an array's bytes are stored without one of their own."""


def checksum(state: train_state.TrainState) -> int:
    """Return a checksum (CRC-32) of all numbers of a state, the same wherever they lie."""
    total = 0
    for leaf in jax.tree.leaves(jax.device_get(state)):
        total = zlib.crc32(np.ascontiguousarray(leaf), total)
    return total


def _aside_name(step: int) -> str:
    return f"damaged-{step}"


def _set_aside(manager: ocp.CheckpointManager, steps: list[int]) -> None:
    for step in steps:
        kept = manager.directory / _aside_name(step)
        with storage.storing(kept, metrics_log.ELSEWHERE, (OSError,)):
            if kept.exists():
                kept.rmtree()
            (manager.directory / str(step)).rename(kept)


def _restore(
    manager: ocp.CheckpointManager,
    step_config: train_step.StepConfig,
    seed: int,
    sharding: jax.sharding.Sharding | None,
    step: int,
) -> tuple[train_state.TrainState, dict[str, Any]]:
    """Read the state and the metrics of one checkpoint, and check that they are what was saved."""
    fresh = jax.eval_shape(lambda: train_state.init(step_config.network, step_config.optimizer, seed))
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), fresh)
    items: dict[str, Any] = {"state": ocp.args.StandardRestore(abstract)}
    if (manager.directory / str(step) / MEASURED).exists():  # earlier versions wrote none
        items[MEASURED] = ocp.args.JsonRestore()
    try:
        with quiet_stragglers():
            stored = manager.restore(step, args=ocp.args.Composite(**items))
        measured = dict(stored[MEASURED]) if MEASURED in items else {}
        right = measured.pop(CHECKSUM, None)
    except Exception as error:  # Orbax and its storage raise a dozen kinds
        raise _damaged(manager, step) from error
    if right is not None and checksum(stored.state) != right:
        raise _damaged(manager, step)
    return stored.state, measured


def _damaged(manager: ocp.CheckpointManager, step: int) -> UserError:
    return UserError(
        f"{manager.directory}: the checkpoint of step {step} is damaged or of another network; "
        "delete that step's folder to resume at the one before it, if there is one"
    )


def export_networks(
    config: ml_collections.ConfigDict, state: train_state.TrainState, workdir: epath.Path
) -> None:
    """Write both networks, whole, where `sspd_jax.load` reads them: `workdir/network/{online,target}`."""
    tables = json.loads(config.to_json())
    if (workdir / LEARNED_BEFORE).exists():
        tables["learned_before"] = json.loads((workdir / LEARNED_BEFORE).read_text())
    pairs = {
        "online": (state.params, state.batch_stats),
        "target": (state.target_params, state.target_batch_stats),
    }
    for name, (params, batch_stats) in pairs.items():
        directory = workdir / NETWORK / name
        partial = storage.aside(directory)
        with storage.storing(directory, metrics_log.ELSEWHERE, (OSError,)):
            if partial.exists():
                partial.rmtree()  # of a run that was killed
        save_network(partial, tables, params, batch_stats)
        with storage.storing(directory, metrics_log.ELSEWHERE, (OSError,)):
            if directory.exists():
                directory.rmtree()  # of an export that a kill cut off from its end; the state has it all
            partial.rename(directory)

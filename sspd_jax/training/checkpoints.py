"""The checkpoints of a run: saved, restored to the bit, exported."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from sspd_jax.checkpoints.network import quiet_stragglers, save_network
from sspd_jax.errors import UserError
from sspd_jax.runtime import metrics_log, storage
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
            get_metric_fn=lambda metrics: metrics.get("trust", metrics["score"]),
            n=1,
            keep_checkpoints_without_metrics=False,
        ),
    ]
    directory = workdir / CHECKPOINTS
    with storage.storing(directory, metrics_log.ELSEWHERE, (OSError,)):
        manager = ocp.CheckpointManager(
            storage.absolute(directory),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies)
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
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state), measured=ocp.args.JsonSave(dict(measured or {}))
    )
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
    fresh = jax.eval_shape(lambda: train_state.init(step_config.network, step_config.optimizer, seed))
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), fresh)
    with _explain_damage(manager, step):
        return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state


def restore_measured(manager: ocp.CheckpointManager) -> dict[str, Any]:
    """Return the metrics of the last checkpoint that were not in the log yet; {} where there is none.

    Raises:
      UserError: The checkpoint is damaged.
    """
    step = manager.latest_step()
    if step is None or not (manager.directory / str(step) / MEASURED).exists():
        return {}
    with _explain_damage(manager, step):
        return manager.restore(step, args=ocp.args.Composite(measured=ocp.args.JsonRestore())).measured


@contextlib.contextmanager
def _explain_damage(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
    try:
        with quiet_stragglers():
            yield
    except Exception as error:  # Orbax and its storage raise a dozen kinds
        raise UserError(
            f"{manager.directory}: the checkpoint of step {step} is damaged or of another network; "
            "delete that step's folder to resume at the one before it"
        ) from error


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

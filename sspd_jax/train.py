"""Train on prepared recordings, without a label, and test on people the network never saw."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from sspd_jax import checkpoint, run_log, storage, train_state, train_step
from sspd_jax import config as experiments
from sspd_jax.command import ConfigError, UserError
from sspd_jax.datasets import pipeline, prepared, splits
from sspd_jax.method import health

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
NETWORK = "network"


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, *, progress: bool = True
) -> dict[str, Any]:
    """Train, then test on held-out people, then write the report.

    Run again in the same work directory, it resumes at the last checkpoint: parameters, optimiser, target,
    statistics, random keys and the order of the data continue as if nothing had happened.

    Args:
      config: of the experiment, see `sspd_jax.config`.
      workdir: a local or remote directory; made if needed.
      progress: whether to draw a progress bar.

    Returns:
      The scores, as in `report/scores.json`; {} where the split has nobody to test on.

    Raises:
      ConfigError: an impossible configuration, or a work directory of another experiment.
      UserError: the data is missing or damaged, the work directory cannot be written, the loss stops being
        finite.
    """
    from sspd_jax import evaluate  # it draws pictures: not needed while training

    workdir = epath.Path(workdir)
    experiments.validate(config)
    config, dataset = choose_people(config, open_data(config))
    claim_workdir(config, workdir)
    train(config, dataset, workdir, progress=progress)
    if config.data.split.kind == "everyone":
        return {}
    (result,) = evaluate.evaluate_run(config, dataset, workdir).values()
    return result


def choose_people(
    config: ml_collections.ConfigDict, dataset: prepared.PreparedDataset
) -> tuple[ml_collections.ConfigDict, prepared.PreparedDataset]:
    """Write who is learned from and who is tested on into a copy of the configuration.

    Args:
      config: of the experiment; `data.split` says how, see `sspd_jax.datasets.splits.of_dataset`.
      dataset: prepared.

    Returns:
      The copy, with both lists of people; and the dataset of the recordings that the split counts.

    Raises:
      ConfigError: an impossible split.
      UserError: the dataset has nobody for it.
    """
    split = splits.of_dataset(dataset, config.data)
    config = config.copy_and_resolve_references()
    config.data.train_people, config.data.test_people = split.train, split.test
    return config, dataset if split.recordings is None else dataset.only(split.recordings)


def open_data(config: ml_collections.ConfigDict) -> prepared.PreparedDataset:
    """Open the prepared dataset, preparing it first where `data.source` names recordings.

    Raises:
      UserError: there is nothing to open, or it cannot be prepared.
    """
    data = config.data
    if data.source:
        from sspd_jax import prepare

        prepare.prepare_dataset(
            data.name,
            data.source,
            data.data_dir,
            fps=config.fps,
            crop_size=config.crop_size,
            face_detector=data.face.detector,
            face_model=data.face.model,
            follow_every_s=data.face.follow_every_s,
            keep_going=data.keep_going,
            workers=data.workers,
        )
    return prepared.open_prepared(data.data_dir, fps=config.fps, crop_size=config.crop_size)


def claim_workdir(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Make the work directory, or check that it belongs to this experiment.

    Raises:
      ConfigError: it holds another experiment; the sentence names the first key that differs.
      UserError: it cannot be written.
    """
    ours = json.loads(config.to_json())
    path = workdir / CONFIG
    with storage.storing(workdir, run_log.ELSEWHERE, (OSError,)):
        found = path.read_text() if path.exists() else None
    if found is None:
        with storage.storing(workdir, run_log.ELSEWHERE, (OSError,)):
            workdir.mkdir(parents=True, exist_ok=True)
        storage.write_text(path, json.dumps(ours, indent=2) + "\n", otherwise=run_log.ELSEWHERE)
        return
    try:
        theirs = _flat(json.loads(found))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: is damaged; delete it, or choose another --workdir") from error
    for key, value in sorted(_flat(ours).items()):
        if key not in IGNORED_ON_RESUME and theirs.get(key) != value:
            raise ConfigError(
                f"{workdir}: holds an experiment with {key} = {theirs.get(key)!r}, not {value!r}; "
                "choose another --workdir, or delete this one"
            )


IGNORED_ON_RESUME = frozenset(
    {"data.source", "data.data_dir", "data.workers", "log_every", "checkpoint.keep"}
)
"""Keys that may change between a run and its continuation: they change no number."""


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def train(
    config: ml_collections.ConfigDict,
    dataset: prepared.PreparedDataset,
    workdir: epath.Path,
    *,
    progress: bool = True,
) -> train_state.TrainState:
    """Train to the end, from the last checkpoint if there is one.

    Args:
      config: of the experiment.
      dataset: prepared; only `config.data.train_people` are looked at.
      workdir: claimed.
      progress: whether to draw a progress bar.

    Returns:
      The final state. Its networks are exported to `workdir/network/{online,target}`.
    """
    # 1) Data: element k of `batches` is the batch of step k, whatever happened before.
    settings = {
        "clip_frames": config.clip_frames,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "epochs": config.epochs,
    }
    people = tuple(config.data.train_people)
    batches = pipeline.clip_batches(dataset, people, **settings)
    choice = pipeline.choose(dataset, people, config.clip_frames)
    total_steps = len(batches)
    steps_per_epoch = total_steps // config.epochs
    last_batch = len(choice.segments) - (steps_per_epoch - 1) * config.batch_size

    # 2) Method, and the one compiled step.
    method = experiments.method(config, total_steps)
    first_batch = min(config.batch_size, len(choice.segments))
    mesh = train_step.data_mesh(jax.devices()[: math.gcd(jax.device_count(), first_batch, last_batch)])
    step_fn = train_step.compile_train_step(method, mesh)

    # 3) State: fresh, or that of the last whole checkpoint.
    with checkpoints(workdir, config.checkpoint.keep) as manager:
        state = train_step.place(restore(manager, method, config.seed), mesh)
        first_step = int(state.step)

        # 4) Steps. The device is read when a line is logged, not in between.
        pending: list[dict[str, jax.Array]] = []
        epoch_health: list[dict[str, float]] = []
        waited = stepped = 0.0
        stream = pipeline.prefetch(batches, first_step)
        log = run_log.RunLog(workdir, first_step=first_step, total_steps=total_steps, progress=progress)
        with log, contextlib.closing(stream):
            for note in choice.left_out:
                log.say(f"note: {note}")
            for step in range(first_step, total_steps):
                began = time.perf_counter()
                batch = {"clips": next(stream)["clips"]}
                waited += time.perf_counter() - began
                state, metrics = step_fn(state, batch)
                pending.append(metrics)
                stepped += time.perf_counter() - began
                log.advance()

                taken = step + 1
                epoch, at_end_of_epoch = step // steps_per_epoch + 1, taken % steps_per_epoch == 0
                if taken % config.log_every == 0 or at_end_of_epoch or taken == total_steps:
                    began = time.perf_counter()
                    rows = [
                        {name: float(value) for name, value in row.items()} for row in jax.device_get(pending)
                    ]
                    stepped += time.perf_counter() - began
                    _require_finite(rows, taken, manager)
                    epoch_health += rows
                    speed = {"time/waiting_share": waited / stepped, "time/steps_per_s": len(rows) / stepped}
                    log.write(taken, {**_means(rows), **speed}, epoch=epoch)
                    pending, waited, stepped = [], 0.0, 0.0

                # 5) Once an epoch: health, and a checkpoint.
                if at_end_of_epoch:
                    means = _means(epoch_health)
                    epoch_health = []
                    well = {
                        name.removeprefix("health/"): v
                        for name, v in means.items()
                        if name.startswith("health/")
                    }
                    if trouble := health.complaint(well):
                        log.say(f"warning: epoch {epoch}: {trouble}")
                    save(manager, taken, state, well)
            save(manager, total_steps, state, {})

    # 6) What readers load: both networks, without what only training needs.
    export_networks(config, state, workdir)
    return state


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _require_finite(rows: list[dict[str, float]], step: int, manager: ocp.CheckpointManager) -> None:
    for row in rows:
        if not math.isfinite(row["loss"]):
            bad = ", ".join(sorted(name for name, value in row.items() if not math.isfinite(value)))
            finish(manager)
            raise UserError(
                f"the loss stopped being finite before step {step} ({bad}); the last good checkpoint is of "
                f"step {manager.latest_step() or 0}: try a lower optimizer.learning_rate, or check the "
                "recordings"
            )


@contextlib.contextmanager
def checkpoints(workdir: epath.Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints of a run: the last `keep` and the one with the best label-free score stay.

    When the block ends well, what was saved in it is on disk.

    Raises:
      StorageError: they cannot be written.
    """
    policies = [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
            get_metric_fn=lambda metrics: metrics["score"], n=1, keep_checkpoints_without_metrics=False
        ),
    ]
    directory = workdir / CHECKPOINTS
    with storage.storing(directory, run_log.ELSEWHERE, (OSError,)):
        manager = ocp.CheckpointManager(
            directory if storage.is_remote(directory) else directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies)
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler()},
        )
    with checkpoint.quiet_stragglers():
        try:
            yield manager
            finish(manager)
        finally:
            # A write that failed was said; the manager would raise it again.
            with contextlib.suppress(*_WRITING_RAISES):
                manager.close()


_WRITING_RAISES = (OSError, RuntimeError, ValueError)
"""What Orbax and TensorStore raise when a checkpoint cannot be written, often at the next one."""


def save(
    manager: ocp.CheckpointManager, step: int, state: train_state.TrainState, scores: Mapping[str, float]
) -> None:
    """Begin to write a checkpoint of a step, unless there is one; Orbax writes aside and renames.

    Raises:
      StorageError: it, or the one before it, cannot be written (a full disk, say); what was written stays.
    """
    if step in manager.all_steps():
        return
    with storage.storing(manager.directory, run_log.ELSEWHERE, _WRITING_RAISES):
        manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), metrics=dict(scores) or None
        )


def finish(manager: ocp.CheckpointManager) -> None:
    """Wait until the checkpoints that were saved are on disk.

    Raises:
      StorageError: one cannot be written.
    """
    with storage.storing(manager.directory, run_log.ELSEWHERE, _WRITING_RAISES):
        manager.wait_until_finished()


def restore(manager: ocp.CheckpointManager, method: train_step.Method, seed: int) -> train_state.TrainState:
    """Return the state of the last checkpoint, or a fresh one.

    Raises:
      UserError: the checkpoint is damaged or belongs to another network.
    """
    step = manager.latest_step()
    if step is None:
        return train_state.init(method.network, method.optimizer, seed)
    fresh = jax.eval_shape(lambda: train_state.init(method.network, method.optimizer, seed))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), fresh)
    try:
        with checkpoint.quiet_stragglers():
            return manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            ).state
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
    pairs = {
        "online": (state.params, state.batch_stats),
        "target": (state.target_params, state.target_batch_stats),
    }
    for name, (params, batch_stats) in pairs.items():
        directory = workdir / NETWORK / name
        partial = storage.aside(directory)
        with storage.storing(directory, run_log.ELSEWHERE, (OSError,)):
            if partial.exists():
                partial.rmtree()  # of a run that was killed
        checkpoint.save_network(partial, tables, params, batch_stats)
        with storage.storing(directory, run_log.ELSEWHERE, (OSError,)):
            if directory.exists():
                directory.rmtree()  # of an export that a kill cut off from its end; the state has it all
            partial.rename(directory)

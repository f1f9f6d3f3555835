"""Train on prepared recordings, without a label, and test on people the network never saw."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from sspd_jax import (
    checkpoint,
    compilation,
    compilation_cache,
    held_out,
    interruption,
    processes,
    run_log,
    storage,
    train_state,
    train_step,
)
from sspd_jax import config as experiments
from sspd_jax.command import ConfigError, UserError
from sspd_jax.datasets import pipeline, prepared, resident, splits
from sspd_jax.method import health, model

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
CACHE = "compilation_cache"
NETWORK = "network"
MEASURED = "measured"
LEARNED_BEFORE = "learned_before.json"


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, *, progress: bool = True
) -> dict[str, Any]:
    """Train, then test on held-out people, then write the report.

    Run again in the same work directory, it resumes at the last checkpoint: parameters, optimiser, target,
    statistics, random keys, the order of the data and the log's averages continue as if nothing had happened,
    on whatever number of devices and processes.

    With several processes (`processes.start`) each calls this; the first one prepares, writes and tests. What
    is compiled is kept in the work directory, from then on for this whole process.

    Args:
      config: of the experiment, see `sspd_jax.config`.
      workdir: a local or remote directory; made if needed.
      progress: whether to draw a progress bar.

    Returns:
      The scores, as in `report/scores.json`; {} where the split has nobody to test on, and in all processes
      but the first.

    Raises:
      ConfigError: an impossible configuration, or a work directory of another experiment.
      UserError: the data is missing or damaged, the work directory cannot be written, the loss stops being
        finite; or something went wrong in another process.
      Stopped: SIGTERM came while training; what was learned is on disk.
    """
    from sspd_jax import evaluate  # it draws pictures: not needed while training

    workdir = epath.Path(workdir)
    experiments.validate(config)
    processes.together("prepare", lambda: prepare_data(config), first_only=True)
    config, dataset = processes.together("people", lambda: choose_people(config, open_data(config)))
    content = zlib.crc32(repr(dataset.segments).encode())
    processes.require_same(config.data.data_dir, content, "let all processes read the same prepared dataset")
    processes.together("claim", lambda: claim_workdir(config, workdir), first_only=True)
    processes.together("claimed", lambda: _require_shared(workdir))
    compilation.give_memory_back()
    if config.compilation_cache and not storage.is_remote(workdir):
        compilation_cache.enable(workdir / CACHE)
    with interruption.watching() as watch:
        train(config, dataset, workdir, progress=progress, watch=watch)
    if config.data.split.kind == "everyone":
        return {}
    results = processes.together(
        "evaluate", lambda: evaluate.evaluate_run(config, dataset, workdir), first_only=True
    )
    return next(iter(results.values())) if results else {}


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


def prepare_data(config: ml_collections.ConfigDict) -> None:
    """Prepare the dataset where `data.source` names recordings; does nothing if that is done.

    Raises:
      UserError: it cannot be prepared.
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


def open_data(config: ml_collections.ConfigDict) -> prepared.PreparedDataset:
    """Open the prepared dataset.

    Raises:
      UserError: there is nothing to open, or it was prepared otherwise.
    """
    return prepared.open_prepared(config.data.data_dir, fps=config.fps, crop_size=config.crop_size)


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


def _require_shared(workdir: epath.Path) -> None:
    if not (workdir / CONFIG).exists():
        raise UserError(
            f"{workdir}: is not the first process's; choose a --workdir that all processes see: a shared "
            "disk, or gs://"
        )


IGNORED_ON_RESUME = frozenset(
    {
        "data.source",
        "data.data_dir",
        "data.on_device",
        "data.workers",
        "log_every",
        "checkpoint.keep",
        "checkpoint.every_steps",
        "parallel",
        "distributed",
        "compilation_cache",
        "network.conv",
        "network.rematerialise",
    }
)
"""Keys that may change between a run and its continuation: they change no number, beyond rounding."""


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
    watch: interruption.Watch | None = None,
) -> train_state.TrainState:
    """Train to the end, from the last checkpoint if there is one.

    Args:
      config: of the experiment.
      dataset: prepared; only `config.data.train_people` are looked at.
      workdir: claimed.
      progress: whether to draw a progress bar.
      watch: says when to stop early.

    Returns:
      The final state. Its networks are exported to `workdir/network/{online,target}`.

    Raises:
      Stopped: `watch` said so; the state is in the last checkpoint.
    """
    # 1) Devices: for each size of batch, how its clips are spread.
    people = tuple(config.data.train_people)
    choice = pipeline.choose(dataset, people, config.clip_frames)
    sizes = pipeline.epoch_sizes(len(choice.segments), config.batch_size)
    meshes = lay_out(config.parallel, sizes)
    first_mesh = meshes[sizes[0]]

    # 2) Data: element k of `batches` is the batch of step k, whatever happened before.
    frames = None
    n_bytes = resident.n_bytes(dataset, choice)
    if processes.everywhere(
        resident.is_wanted(config.data.on_device, n_bytes, list(first_mesh.devices.flat))
    ):
        where = train_step.along_time(first_mesh)
        frames = processes.together("frames", lambda: resident.load(dataset, choice, where))
    batches = pipeline.clip_batches(
        dataset,
        people,
        clip_frames=config.clip_frames,
        batch_size=config.batch_size,
        seed=config.seed,
        epochs=config.epochs,
        parts={size: train_step.part_of_process(mesh, size) for size, mesh in meshes.items()},
        read=frames is None,
    )
    total_steps = len(batches)

    # 3) Method, and the one compiled step (a smaller last batch is a second one).
    method = experiments.method(config, total_steps)
    compile_step = train_step.WAYS[config.parallel]
    if frames is None:
        step_fns = {size: compile_step(method, mesh) for size, mesh in meshes.items()}
    else:
        length = config.clip_frames
        step_fns = {size: compile_step(method, mesh, clip_frames=length) for size, mesh in meshes.items()}

    def put(drawn: Mapping[str, np.ndarray], size: int) -> dict[str, Any]:
        if frames is not None:
            return {"frames": frames.frames, "starts": frames.starts(drawn["segment"], drawn["start"])}
        return {"clips": train_step.spread_clips(drawn["clips"], meshes[size], size)}

    probe = _probe(config, dataset, choice, method, first_mesh) if config.health.clips else None
    one_person = len({dataset.segments[numbers[0]].person_id for numbers in choice.segments}) == 1

    # 4) State: that of the last whole checkpoint, or a fresh one, around another run's network if asked for.
    with checkpoints(workdir, config.checkpoint.keep) as manager:
        if config.init_from and manager.latest_step() is None:
            restored, before = init_from(config, dataset, method)
            text = json.dumps(before, indent=2) + "\n"
            where = workdir / LEARNED_BEFORE
            processes.together("before", lambda: storage.write_text(where, text), first_only=True)
        else:
            restored = restore(manager, method, config.seed, train_step.everywhere(first_mesh))
        state = train_step.place(restored, first_mesh)
        first_step = int(state.step)
        measured = Measured.of_checkpoint(manager)

        # 5) Steps. The device is read when something is written, not in between.
        waited = stepped = 0.0
        stepped_since = 0
        stream = pipeline.prefetch(batches, first_step)
        log = processes.together("log", lambda: _open_log(workdir, first_step, total_steps, progress))
        with log, contextlib.closing(stream):
            for note in (*choice.left_out, *_idle(meshes)):
                log.say(f"note: {note}")
            for step in range(first_step, total_steps):
                if measured.is_exhausted(config.health.patience):
                    log.say(
                        f"note: stopped after {len(measured.trust)} epochs: the last "
                        f"{config.health.patience} brought no network that is trusted more"
                    )
                    break
                began = time.perf_counter()
                drawn = next(stream)
                size = len(drawn["start"])
                batch = put(drawn, size)
                waited += time.perf_counter() - began
                state, metrics = step_fns[size](state, batch)
                measured.pending.append(metrics)
                stepped += time.perf_counter() - began
                stepped_since += 1
                log.advance()

                taken = step + 1
                epoch, at_end_of_epoch = step // len(sizes) + 1, taken % len(sizes) == 0
                stops = watch is not None and watch.reached(taken)
                every = config.checkpoint.every_steps
                keeps = at_end_of_epoch or stops or (every > 0 and taken % every == 0)
                logs = taken % config.log_every == 0 or at_end_of_epoch
                if logs or keeps:
                    began = time.perf_counter()
                    measured.read()
                    stepped += time.perf_counter() - began
                    _require_finite(measured.line, taken, manager)
                if logs:
                    speed = {
                        "time/waiting_share": waited / stepped,
                        "time/steps_per_s": stepped_since / stepped,
                    }
                    probed: dict[str, float] = {}
                    if probe is not None and at_end_of_epoch:
                        probed = {name: float(v) for name, v in jax.device_get(probe(state)).items()}
                        measured.trust.append(probed["trust"])
                    told = {f"{health.LOGGED_AS}{name}": value for name, value in probed.items()}
                    log.write(taken, {**_means(measured.line), **told, **speed}, epoch=epoch)
                    measured.end_line()
                    waited, stepped, stepped_since = 0.0, 0.0, 0

                # 6) Health once an epoch, and a checkpoint.
                well: dict[str, float] = {}
                if at_end_of_epoch:
                    means = _means(measured.epoch)
                    measured.epoch = []
                    well = {
                        name.removeprefix("health/"): v
                        for name, v in means.items()
                        if name.startswith("health/")
                    }
                    complaint = health.complaint(well, one_person=one_person)
                    for trouble in filter(None, (complaint, health.alarm(probed))):
                        log.say(f"warning: epoch {epoch}: {trouble}")
                    if probed:
                        well["trust"] = probed["trust"]
                if keeps:
                    save(manager, taken, state, well, measured)
                if stops and taken < total_steps:
                    finish(manager)
                    raise interruption.Stopped(
                        f"stopped by SIGTERM after step {taken} of {total_steps}; the same command goes on"
                    )
            else:
                save(manager, total_steps, state, {})
            if config.health.patience:
                finish(manager)
                best = [step for step in manager.all_steps() if step == measured.best_epoch() * len(sizes)]
                state = restore(manager, method, config.seed, train_step.everywhere(first_mesh), *best)
                log.say(f"note: the networks of epoch {int(state.step) // len(sizes)} are kept")

    # 7) What readers load: both networks, without what only training needs.
    state = jax.device_get(state) if jax.process_count() > 1 else state
    processes.together("export", lambda: export_networks(config, state, workdir), first_only=True)
    return state


def _probe(
    config: ml_collections.ConfigDict,
    dataset: prepared.PreparedDataset,
    choice: pipeline.Choice,
    method: train_step.Method,
    mesh: jax.sharding.Mesh,
) -> Callable[[train_state.TrainState], dict[str, jax.Array]]:
    """Choose the clips that are read again and again, of as many people as there are; compile the reading."""
    length = config.clip_frames + 1
    first = [dataset.segments[numbers[0]] for numbers in choice.segments]
    # Everybody's first recording, then everybody's second, …
    seen = collections.Counter[str]()
    turns = []
    for segment in first:
        turns.append(seen[segment.person_id])
        seen[segment.person_id] += 1
    first = [first[i] for i in np.argsort(turns, kind="stable")[: config.health.clips]]
    clips = np.stack([dataset.clip(segment, 0, length) for segment in first])
    where = train_step.everywhere(mesh)
    held = jax.make_array_from_callback(clips.shape, where, clips.__getitem__)
    compiled = train_step.compile_probe(method, mesh, [segment.person_id for segment in first])
    return lambda state: compiled(state, held)


def init_from(
    config: ml_collections.ConfigDict, dataset: prepared.PreparedDataset, method: train_step.Method
) -> tuple[train_state.TrainState, list[dict[str, Any]]]:
    """Start from another training's network, with a fresh optimizer, and similarity blocks if it has none.

    Args:
      config: of the experiment; `init_from` is a checkpoint of a network, or the work directory of a run,
        whose online and target networks are both taken.
      dataset: prepared; nobody of its test people may have been learned from before.
      method: of this training.

    Returns:
      A state at step 0, and the tables `data` of the trainings that the network went through, latest first.

    Raises:
      ConfigError: the network is another one than the configuration's, or learned from people to be tested.
      UserError: there is no checkpoint, or it is damaged.
    """
    place = epath.Path(config.init_from)
    of_run = [place / NETWORK / name for name in ("online", "target")]
    folders = of_run if of_run[-1].exists() else [place]  # a checkpoint, too, has a folder of that name
    networks = []
    for folder in folders:
        theirs, params, batch_stats = checkpoint.load_network(folder)
        settings = experiments.network_settings(theirs)
        for name in sorted(model.NetworkSettings.__dataclass_fields__):
            one, other = getattr(settings, name), getattr(method.network, name)
            if one != other and name not in _FREE_OF_THE_NETWORK:
                raise ConfigError(
                    f"config init_from: {folder} has network.{name} = {one!r}, this experiment {other!r}; "
                    "choose its settings, or another checkpoint"
                )
        if seen := held_out.trained_on(dataset, theirs, tuple(config.data.test_people)):
            raise ConfigError(
                f"config init_from: {folder} learned from {', '.join(seen)}, who are to be tested; "
                "name other data.test_people"
            )
        if "ts" not in params:  # made for reading alone: its similarity blocks begin afresh
            fresh, _ = model.init(method.network, jax.random.key(config.seed))
            params = {**params, "ts": fresh["ts"]}
        networks.append((params, batch_stats))
    (params, batch_stats), (target_params, target_batch_stats) = networks[0], networks[-1]
    state = train_state.create(params, batch_stats, method.optimizer)
    state = state.replace(
        target_batch_stats=jax.tree.map(jnp.copy, target_batch_stats),
        opt_state=optax.tree.set(state.opt_state, target=jax.tree.map(jnp.copy, target_params)),
    )
    return state, [table for table in (theirs.get("data"), *theirs.get("learned_before", ())) if table]


_FREE_OF_THE_NETWORK = ("conv", "dtype", "predictor_isolated", "rematerialise")
"""Settings that may differ from those of the network that a training goes on from."""


def lay_out(parallel: str, sizes: tuple[int, ...]) -> dict[int, jax.sharding.Mesh]:
    """Lay out the devices for each size of batch.

    Args:
      parallel: 'jit' or 'pmap'.
      sizes: of the batches of an epoch.

    Returns:
      A mesh of the same devices in the same order for each size.
    """
    devices: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: device.id):
        devices.setdefault(device.process_index, []).append(device)
    count = devices_to_use(parallel, sizes, len(devices), min(map(len, devices.values())))
    used = [device for of_process in devices.values() for device in of_process[:count]]
    return {size: train_step.data_mesh(used, size) for size in sizes}


def devices_to_use(parallel: str, sizes: tuple[int, ...], n_processes: int, available: int) -> int:
    """Say how many devices of each process compute a step.

    With 'jit' as many as cut a batch into the most equal parts: 12 clips on 8 devices are 6 parts. Every
    process takes part, so several devices may have to compute the same part. With 'pmap' none does, and every
    size of batch needs the same devices.

    Args:
      parallel: 'jit' or 'pmap'.
      sizes: of the batches of an epoch, the first the largest.
      n_processes: all with as many devices.
      available: devices of each.
    """
    counts = range(1, available + 1)
    if parallel == "pmap":
        return max(count for count in counts if math.gcd(*sizes) % count == 0)
    return max(counts, key=lambda count: (math.gcd(count * n_processes, sizes[0]), -count))


def _idle(meshes: Mapping[int, jax.sharding.Mesh]) -> Iterator[str]:
    """Say where devices do not share a batch equally."""
    for size, mesh in meshes.items():
        parts, total = mesh.shape[train_step.DATA_AXIS], jax.device_count()
        if parts < total:
            yield f"a step on {size} clips is as fast on these {total} devices as on {parts}"


def _open_log(
    workdir: epath.Path, first_step: int, total_steps: int, progress: bool
) -> run_log.RunLog | run_log.Silence:
    if not processes.is_first():
        return run_log.Silence()
    return run_log.RunLog(workdir, first_step=first_step, total_steps=total_steps, progress=progress)


@dataclasses.dataclass
class Measured:
    """What was measured and not written yet, so that averages do not depend on where a run was interrupted.

    Attributes:
      line: of each step since the last line of the log, its metrics.
      epoch: of each step of this epoch before those, its metrics.
      trust: of every epoch so far, where the networks' health is probed.
      pending: of the steps after `line`, still on the device.
    """

    line: list[dict[str, float]] = dataclasses.field(default_factory=list)
    epoch: list[dict[str, float]] = dataclasses.field(default_factory=list)
    trust: list[float] = dataclasses.field(default_factory=list)
    pending: list[dict[str, jax.Array]] = dataclasses.field(default_factory=list)

    @classmethod
    def of_checkpoint(cls, manager: ocp.CheckpointManager) -> Measured:
        """Read what the last checkpoint holds of it.

        Raises:
          UserError: the checkpoint is damaged.
        """
        step = manager.latest_step()
        if step is None or not (manager.directory / str(step) / MEASURED).exists():
            return cls()
        with _said_if_damaged(manager, step):
            items = ocp.args.Composite(measured=ocp.args.JsonRestore())
            return cls(**manager.restore(step, args=items).measured)

    def table(self) -> dict[str, Any]:
        """Return what a checkpoint holds; nothing must be pending."""
        return {"line": self.line, "epoch": self.epoch, "trust": self.trust}

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

    That is 'trust' where the networks' health is probed, else 'score', see `health`.

    When the block ends well, what was saved in it is on disk.

    Raises:
      StorageError: they cannot be written.
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
    with storage.storing(directory, run_log.ELSEWHERE, (OSError,)):
        manager = ocp.CheckpointManager(
            storage.absolute(directory),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies)
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler(), MEASURED: ocp.JsonCheckpointHandler()},
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
    manager: ocp.CheckpointManager,
    step: int,
    state: train_state.TrainState,
    scores: Mapping[str, float],
    measured: Measured | None = None,
) -> None:
    """Begin to write a checkpoint of a step, unless there is one; Orbax writes aside and renames.

    Args:
      manager: of `checkpoints`.
      step: steps taken.
      state: after them.
      scores: label-free, by which the best is kept; {} in the middle of an epoch.
      measured: read from the device, not written yet.

    Raises:
      StorageError: it, or the one before it, cannot be written (a full disk, say); what was written stays.
    """
    if step in manager.all_steps():
        return
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state), measured=ocp.args.JsonSave((measured or Measured()).table())
    )
    with storage.storing(manager.directory, run_log.ELSEWHERE, _WRITING_RAISES):
        manager.save(step, args=items, metrics=dict(scores) or None)


def finish(manager: ocp.CheckpointManager) -> None:
    """Wait until the checkpoints that were saved are on disk.

    Raises:
      StorageError: one cannot be written.
    """
    with storage.storing(manager.directory, run_log.ELSEWHERE, _WRITING_RAISES):
        manager.wait_until_finished()


def restore(
    manager: ocp.CheckpointManager,
    method: train_step.Method,
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
    step: int | None = None,
) -> train_state.TrainState:
    """Return the state of a checkpoint, or a fresh one.

    Args:
      manager: of `checkpoints`.
      method: that the state is of.
      seed: of a fresh one.
      sharding: where a stored one shall lie, whatever it was saved from; by default on this process's first
        device.
      step: of the checkpoint; by default the last one's, if there is any.

    Raises:
      UserError: the checkpoint is damaged or belongs to another network.
    """
    step = manager.latest_step() if step is None else step
    if step is None:
        return train_state.init(method.network, method.optimizer, seed)
    fresh = jax.eval_shape(lambda: train_state.init(method.network, method.optimizer, seed))
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), fresh)
    with _said_if_damaged(manager, step):
        return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state


@contextlib.contextmanager
def _said_if_damaged(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
    try:
        with checkpoint.quiet_stragglers():
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
        with storage.storing(directory, run_log.ELSEWHERE, (OSError,)):
            if partial.exists():
                partial.rmtree()  # of a run that was killed
        checkpoint.save_network(partial, tables, params, batch_stats)
        with storage.storing(directory, run_log.ELSEWHERE, (OSError,)):
            if directory.exists():
                directory.rmtree()  # of an export that a kill cut off from its end; the state has it all
            partial.rename(directory)

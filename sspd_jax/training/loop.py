"""Train on prepared recordings, without a label, and test on people the network never saw."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from sspd_jax.datasets import device_cache, input_pipeline
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.method import diagnostics
from sspd_jax.runtime import distributed, metrics_log, preemption, storage
from sspd_jax.training import compiled, sharding
from sspd_jax.training import config as experiments
from sspd_jax.training import state as train_state
from sspd_jax.training.checkpoints import (
    checkpoints,
    export_networks,
    finish,
    restore,
    restore_measured,
    save,
)
from sspd_jax.training.monitor import Measured, is_finite, make_probe, means, require_finite
from sspd_jax.training.warm_start import init_from
from sspd_jax.training.workdir import LEARNED_BEFORE


def train(
    config: ml_collections.ConfigDict,
    dataset: PreparedDataset,
    workdir: epath.Path,
    *,
    progress: bool = True,
    watch: preemption.Watch | None = None,
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
    choice = input_pipeline.choose(dataset, people, config.clip_frames)
    sizes = input_pipeline.epoch_sizes(len(choice.segments), config.batch_size)
    meshes = sharding.lay_out(config.parallel, sizes)
    first_mesh = meshes[sizes[0]]

    # 2) Data: element k of `batches` is the batch of step k, whatever happened before.
    frames = None
    n_bytes = device_cache.n_bytes(dataset, choice)
    if distributed.everywhere(
        device_cache.is_wanted(config.data.on_device, n_bytes, list(first_mesh.devices.flat))
    ):
        where = sharding.frame_sharding(first_mesh)
        frames = distributed.together("frames", lambda: device_cache.load(dataset, choice, where))
    batches = input_pipeline.clip_batches(
        dataset,
        people,
        clip_frames=config.clip_frames,
        batch_size=config.batch_size,
        seed=config.seed,
        epochs=config.epochs,
        parts={size: sharding.part_of_process(mesh, size) for size, mesh in meshes.items()},
        read=frames is None,
    )
    total_steps = len(batches)

    # 3) Method, and the one compiled step (a smaller last batch is a second one).
    method = experiments.method(config, total_steps)
    compile_step = compiled.STEP_COMPILERS[config.parallel]
    if frames is None:
        step_fns = {size: compile_step(method, mesh) for size, mesh in meshes.items()}
    else:
        length = config.clip_frames
        step_fns = {size: compile_step(method, mesh, clip_frames=length) for size, mesh in meshes.items()}

    def put(drawn: Mapping[str, np.ndarray], size: int) -> dict[str, Any]:
        if frames is not None:
            return {"frames": frames.frames, "starts": frames.starts(drawn["segment"], drawn["start"])}
        return {"clips": sharding.spread_clips(drawn["clips"], meshes[size], size)}

    probe = make_probe(config, dataset, choice, method, first_mesh) if config.health.clips else None
    one_person = len({dataset.segments[numbers[0]].person_id for numbers in choice.segments}) == 1

    # 4) State: that of the last whole checkpoint, or a fresh one, around another run's network if asked for.
    with checkpoints(workdir, config.checkpoint.keep) as manager:
        if config.init_from and manager.latest_step() is None:
            restored, before = init_from(config, dataset, method)
            text = json.dumps(before, indent=2) + "\n"
            where = workdir / LEARNED_BEFORE
            distributed.together("before", lambda: storage.write_text(where, text), first_only=True)
        else:
            restored = restore(manager, method, config.seed, sharding.replicated(first_mesh))
        state = sharding.place(restored, first_mesh)
        first_step = int(state.step)
        measured = Measured(**restore_measured(manager))

        # 5) Steps. The device is read when something is written, not in between.
        waited = stepped = 0.0
        stepped_since = 0
        stream = input_pipeline.prefetch(batches, first_step)
        log = distributed.together("log", lambda: _open_log(workdir, first_step, total_steps, progress))
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
                    if not is_finite(measured.line):
                        finish(manager)
                        require_finite(measured.line, taken, manager.latest_step() or 0)
                if logs:
                    speed = {
                        "time/waiting_share": waited / stepped,
                        "time/steps_per_s": stepped_since / stepped,
                    }
                    probed: dict[str, float] = {}
                    if probe is not None and at_end_of_epoch:
                        probed = {name: float(v) for name, v in jax.device_get(probe(state)).items()}
                        measured.trust.append(probed["trust"])
                    told = {f"{diagnostics.LOGGED_AS}{name}": value for name, value in probed.items()}
                    log.write(taken, {**means(measured.line), **told, **speed}, epoch=epoch)
                    measured.end_line()
                    waited, stepped, stepped_since = 0.0, 0.0, 0

                # 6) Health once an epoch, and a checkpoint.
                well: dict[str, float] = {}
                if at_end_of_epoch:
                    averages = means(measured.epoch)
                    measured.epoch = []
                    well = {
                        name.removeprefix("health/"): v
                        for name, v in averages.items()
                        if name.startswith("health/")
                    }
                    complaint = diagnostics.collapse_warning(well, one_person=one_person)
                    for trouble in filter(None, (complaint, diagnostics.confounder_warning(probed))):
                        log.say(f"warning: epoch {epoch}: {trouble}")
                    if probed:
                        well["trust"] = probed["trust"]
                if keeps:
                    save(manager, taken, state, well, measured.table())
                if stops and taken < total_steps:
                    finish(manager)
                    raise preemption.Stopped(
                        f"stopped by SIGTERM after step {taken} of {total_steps}; the same command goes on"
                    )
            else:
                save(manager, total_steps, state, {})
            if config.health.patience:
                finish(manager)
                best = [step for step in manager.all_steps() if step == measured.best_epoch() * len(sizes)]
                state = restore(manager, method, config.seed, sharding.replicated(first_mesh), *best)
                log.say(f"note: the networks of epoch {int(state.step) // len(sizes)} are kept")

    # 7) What readers load: both networks, without what only training needs.
    state = jax.device_get(state) if jax.process_count() > 1 else state
    distributed.together("export", lambda: export_networks(config, state, workdir), first_only=True)
    return state


def _idle(meshes: Mapping[int, jax.sharding.Mesh]) -> Iterator[str]:
    """Say where devices do not share a batch equally."""
    for size, mesh in meshes.items():
        parts, total = mesh.shape[sharding.DATA_AXIS], jax.device_count()
        if parts < total:
            yield f"a step on {size} clips is as fast on these {total} devices as on {parts}"


def _open_log(
    workdir: epath.Path, first_step: int, total_steps: int, progress: bool
) -> metrics_log.RunLog | metrics_log.Silence:
    if not distributed.is_first():
        return metrics_log.Silence()
    return metrics_log.RunLog(workdir, first_step=first_step, total_steps=total_steps, progress=progress)

"""Train on prepared recordings, without a label, and test on people the network never saw."""

from __future__ import annotations

import contextlib
import sys
import zlib
from typing import Any

import ml_collections
from etils import epath

from sspd_jax.datasets.dataset import PreparedDataset, open_prepared
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.splits import choose_people
from sspd_jax.experiments import plan
from sspd_jax.runtime import compilation_cache, compile_options, distributed, preemption, storage
from sspd_jax.training import config as experiments
from sspd_jax.training.loop import train
from sspd_jax.training.workdir import CACHE, alone_in, claim_workdir, require_shared
from sspd_jax.video.crop import BOX


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, *, progress: bool = True
) -> dict[str, Any]:
    """Train, then test on held-out people, then write the report.

    Run again in the same work directory, it resumes at the last checkpoint: parameters, optimiser, target,
    statistics, random keys, the order of the data and the log's averages continue as if nothing had happened,
    on whatever number of devices and processes.

    With several processes (`distributed.start`) each calls this; the first one prepares, writes and tests.
    What is compiled is kept in the work directory, from then on for this whole process.

    Args:
      config: The experiment's configuration, see `sspd_jax.training.config`.
      workdir: A local or remote directory; made if needed.
      progress: Whether to draw a progress bar.

    Returns:
      The scores, as in `report/scores.json`; {} where the split has nobody to test on, and in all processes
      but the first.

    Raises:
      ConfigError: The configuration is impossible, or the work directory is another experiment's.
      UserError: The data is missing or damaged, the work directory cannot be written, the loss stops being
        finite; or something went wrong in another process.
      Stopped: SIGTERM came while training; what was learned is on disk.

    Example:
      An impossible experiment is refused before anything is written:

      >>> train_and_evaluate(experiments.load("ubfc:smoke", ["batch_size=0"]), "workdir/never")
      Traceback (most recent call last):
      sspd_jax.errors.ConfigError: config batch_size is 0; it must be a whole number ≥ 1
    """
    from sspd_jax.evaluation import evaluate  # it draws pictures: not needed while training

    workdir = epath.Path(workdir)
    experiments.validate(config)
    planned = distributed.together("plan", lambda: plan.check(config, workdir), first_only=True)
    if planned is not None:
        for note in planned.notes:
            print(f"note: {note}", file=sys.stderr)
    distributed.together("prepare", lambda: prepare_data(config, planned, progress), first_only=True)
    config, dataset = distributed.together("people", lambda: choose_people(config, open_data(config)))
    content = zlib.crc32(repr(dataset.segments).encode())
    distributed.require_same(
        config.data.data_dir, content, "let all processes read the same prepared dataset"
    )
    distributed.together("claim", lambda: claim_workdir(config, workdir), first_only=True)
    distributed.together("claimed", lambda: require_shared(workdir))
    compile_options.give_memory_back()
    if config.compilation_cache and not storage.is_remote(workdir):
        compilation_cache.enable(workdir / CACHE)
    with contextlib.ExitStack() as stack:
        lock = alone_in(workdir)
        distributed.together("alone", lambda: stack.enter_context(lock), first_only=True)
        with preemption.watching() as watch:
            train(config, dataset, workdir, progress=progress, watch=watch)
        if config.data.split.kind == "everyone":
            return {}
        results = distributed.together(
            "evaluate", lambda: evaluate.evaluate_run(config, dataset, workdir), first_only=True
        )
    return next(iter(results.values())) if results else {}


def prepare_data(
    config: ml_collections.ConfigDict, planned: plan.Plan | None = None, progress: bool = True
) -> None:
    """Prepare the dataset where `data.source` names recordings; do nothing if that is done.

    Args:
      config: The experiment's configuration.
      planned: What `plan.check` found, so that the recordings are not listed again.
      progress: Whether to draw a progress bar.

    Raises:
      UserError: It cannot be prepared.
    """
    data = config.data
    if data.source:
        from sspd_jax.datasets import prepare

        listed = planned.recordings if planned is not None else None
        prepare.prepare(
            listed if listed is not None else registry.read(data.name, data.source),
            data.data_dir,
            name=data.name,
            leave_out_by="--config.data.keep_going=True",
            progress=progress,
            fps=config.fps,
            crop_size=config.crop_size,
            face_crop=config.get("face_crop", BOX),
            face_detector=data.face.detector,
            face_model=data.face.model,
            follow_every_s=data.face.follow_every_s,
            skin=data.get("skin", True),
            keep_going=data.keep_going,
            workers=data.workers,
        )


def open_data(config: ml_collections.ConfigDict) -> PreparedDataset:
    """Open the prepared dataset.

    Raises:
      UserError: There is nothing to open, or it was prepared otherwise.
    """
    return open_prepared(
        config.data.data_dir,
        fps=config.fps,
        crop_size=config.crop_size,
        face_crop=config.get("face_crop", BOX),
    )

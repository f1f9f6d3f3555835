"""What a run steps with: devices, data, the compiled step and the probe, made once before the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import jax
import ml_collections
import numpy as np

from sspd_jax.datasets import device_cache, input_pipeline
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.runtime import distributed, processes
from sspd_jax.training import compiled, monitor, sharding
from sspd_jax.training import config as experiments
from sspd_jax.training.state import TrainState
from sspd_jax.training.step import StepConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What does not change from step to step.

    Attributes:
      step_config: The static part of a step.
      meshes: Size of a batch → mesh of the devices that it is spread over; the first is of the first batch.
      steps: Size of a batch → the compiled step.
      batches: Dataset whose element k is what is drawn for step k, whatever happened before.
      to_devices: Function that puts what was drawn where its step takes it.
      probe: Function state → measures of both networks' waves of fixed clips; None where it is not asked for.
      one_person: Whether all clips show the same person.
      notes: Sentences on recordings that are left out, and on devices that are idle.
    """

    step_config: StepConfig
    meshes: Mapping[int, jax.sharding.Mesh]
    steps: Mapping[int, compiled.Step]
    batches: grain.MapDataset
    to_devices: Callable[[Mapping[str, np.ndarray]], dict[str, Any]]
    probe: Callable[[TrainState], dict[str, jax.Array]] | None
    one_person: bool
    notes: tuple[str, ...]

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices of an epoch's first batch."""
        return next(iter(self.meshes.values()))

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return len(self.batches)


def set_up(config: ml_collections.ConfigDict, dataset: PreparedDataset) -> tuple[Setup, int]:
    """Choose devices and clips, and compile.

    Args:
      config: The experiment's configuration.
      dataset: The prepared dataset; only `config.data.train_people` are looked at.

    Returns:
      What a run steps with, and the number of steps of an epoch.

    Raises:
      UserError: Somebody has no recording, none holds a clip, or the devices lack room for all frames.
      ConfigError: The configuration is impossible.
    """
    processes.require_whole()
    people = tuple(config.data.train_people)
    choice = input_pipeline.choose(dataset, people, config.clip_frames)
    sizes = input_pipeline.epoch_sizes(len(choice.segments), config.batch_size)
    meshes = sharding.lay_out(config.parallel, sizes)
    mesh = meshes[sizes[0]]
    frames = _frames_on_devices(config, dataset, choice, mesh)
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
    step_config = experiments.method(config, len(batches))
    compile_step = compiled.STEP_COMPILERS[config.parallel]
    length = None if frames is None else config.clip_frames
    first = {dataset.segments[numbers[0]].person_id for numbers in choice.segments}

    def to_devices(drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
        if frames is not None:
            return {"frames": frames.frames, "starts": frames.starts(drawn["segment"], drawn["start"])}
        size = len(drawn["start"])
        return {"clips": sharding.spread_clips(drawn["clips"], meshes[size], size)}

    setup = Setup(
        step_config=step_config,
        meshes=meshes,
        # A smaller last batch is a second compilation.
        steps={size: compile_step(step_config, mesh, clip_frames=length) for size, mesh in meshes.items()},
        batches=batches,
        to_devices=to_devices,
        probe=(
            monitor.make_probe(config, dataset, choice, step_config, mesh) if config.health.clips else None
        ),
        one_person=len(first) == 1,
        notes=(*choice.left_out, *_idle(meshes)),
    )
    return setup, len(sizes)


def _frames_on_devices(
    config: ml_collections.ConfigDict,
    dataset: PreparedDataset,
    choice: input_pipeline.Choice,
    mesh: jax.sharding.Mesh,
) -> device_cache.Frames | None:
    """Load all frames into the devices' memory where that is asked for and every process has room."""
    n_bytes = device_cache.n_bytes(dataset, choice)
    fits = device_cache.should_cache(config.data.on_device, n_bytes, list(mesh.devices.flat))
    if not distributed.everywhere(fits):
        return None
    sharded = sharding.frame_sharding(mesh)
    return distributed.together("frames", lambda: device_cache.load(dataset, choice, sharded))


def _idle(meshes: Mapping[int, jax.sharding.Mesh]) -> Iterator[str]:
    """Say where devices do not share a batch equally."""
    for size, mesh in meshes.items():
        parts, total = mesh.shape[sharding.DATA_AXIS], jax.device_count()
        if parts < total:
            yield f"a step on {size} clips is as fast on these {total} devices as on {parts}"

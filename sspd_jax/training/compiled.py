"""The one place where jit, pmap, sharding and donation are applied to a training step and to a probe."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import UInt8

from sspd_jax.runtime import compile_options
from sspd_jax.training.sharding import DATA_AXIS, cut_clips, frame_sharding, replicated
from sspd_jax.training.state import TrainState
from sspd_jax.training.step import StepConfig, probe, train_step

Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]]
"""`step(state, batch)` → the next state and the metrics; the state given is donated."""
Probe = Callable[[TrainState, UInt8[ArrayLike, "n frames s s 3"]], dict[str, jax.Array]]
"""`probe(state, clips)` → the measures of `diagnostics.probe`, of the target network."""


def _with_fast_convolutions(step_config: StepConfig) -> StepConfig:
    conv = compile_options.conv_form(step_config.network.conv)
    return dataclasses.replace(step_config, network=dataclasses.replace(step_config.network, conv=conv))


def compile_probe(step_config: StepConfig, mesh: Mesh, people: Sequence[str] | None = None) -> Probe:
    """Apply jit to `probe`; state and clips lie whole on every device of the mesh."""
    step_config = _with_fast_convolutions(step_config)
    whole = replicated(mesh)
    return jax.jit(
        functools.partial(probe, step_config=step_config, people=people),
        in_shardings=(whole, whole),
        out_shardings=whole,
        compiler_options=compile_options.options(),
    )


def compile_train_step(step_config: StepConfig, mesh: Mesh, *, clip_frames: int | None = None) -> Step:
    """Apply jit, sharding and donation to `train_step`.

    Args:
      step_config: The static part of the step.
      mesh: From `data_mesh`; the number of clips must be a multiple of its parts.
      clip_frames: Frame differences T of clips that are cut out of frames on the devices, T + 1 frames each;
        None where the batch holds clips.

    Returns:
      A step; its state `place`d on the mesh, its batch {'clips'} as `train_step` takes it, or, with
      `clip_frames`, {'frames', 'starts'} as `cut_clips` does. BatchNorm's statistics and the losses are those
      of the whole batch, whatever the number of devices.

    Example:
      A step is compiled when it is first called; here it is only asked what it would return:

      >>> from sspd_jax.method.settings import NetworkSettings
      >>> from sspd_jax.training import config, sharding, state
      >>> network = NetworkSettings(22, ((4, 4),), 4, ts_kernels=(3,), ts_strides=(1,), conv="direct")
      >>> step_config = dataclasses.replace(config.validate(config.load("ubfc")), network=network)
      >>> step = compile_train_step(step_config, sharding.data_mesh(jax.devices()[:1]))
      >>> fresh = state.init(step_config.network, step_config.optimizer, seed=0)
      >>> clips = jax.ShapeDtypeStruct((2, 25, 26, 26, 3), "uint8")
      >>> next_state, metrics = step.eval_shape(fresh, {"clips": clips})
      >>> metrics["loss"].shape, next_state.step.dtype
      ((), dtype('int32'))
    """
    step_config = _with_fast_convolutions(step_config)
    whole, spread = replicated(mesh), NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    step, batch = functools.partial(train_step, step_config=step_config), spread
    if clip_frames is not None:
        cut = functools.partial(cut_clips, mesh=mesh, length=clip_frames + 1)
        batch = {"frames": frame_sharding(mesh), "starts": whole}

        def step(state: TrainState, batch: Mapping[str, ArrayLike]) -> tuple[TrainState, dict[str, Array]]:
            clips = cut(batch["frames"], batch["starts"])
            return train_step(state, {"clips": clips}, step_config=step_config)

    return jax.jit(
        step,
        in_shardings=(whole, batch),
        out_shardings=(whole, whole),
        donate_argnums=(0,),
        compiler_options=compile_options.options(),
    )


def pmap_train_step(step_config: StepConfig, mesh: Mesh, *, clip_frames: int | None = None) -> Step:
    """Apply `jax.pmap` to `train_step`: the same step in another way, see `compile_train_step`.

    BatchNorm, losses, gradients and health average over the mapped axis by name. One process only.

    Args:
      step_config: The static part of the step.
      mesh: From `data_mesh`, without copies; the number of clips must be a multiple of its size.
      clip_frames: As in `compile_train_step`; the clips are cut out in a jit of their own.

    Returns:
      A step that takes and gives what that of `compile_train_step` does.

    Raises:
      ValueError: The mesh has copies.
    """
    devices = mesh.devices[:, 0]
    if mesh.size != len(devices):
        raise ValueError(f"pmap computes on each of {mesh.size} devices another part of the batch")
    mapped = jax.pmap(
        functools.partial(train_step, step_config=dataclasses.replace(step_config, batch_axis=DATA_AXIS)),
        axis_name=DATA_AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=list(devices),
        donate_argnums=(0,),
    )
    cut = None
    if clip_frames is not None:
        cut = jax.jit(functools.partial(cut_clips, mesh=mesh, length=clip_frames + 1))

    def step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, jax.Array]]:
        clips = batch["clips"] if cut is None else cut(batch["frames"], batch["starts"])
        return mapped(state, {"clips": clips.reshape(len(devices), -1, *clips.shape[1:])})

    return step


STEP_COMPILERS: Mapping[str, Callable[..., Step]] = {"jit": compile_train_step, "pmap": pmap_train_step}
"""Ways to spread a step over devices, by the name that a configuration uses."""

"""One step of SSPD: a pure function, and the one place where jit, pmap, sharding and donation are applied.

Clips are spread over devices in equal parts, in their order. A number of clips that the devices do not
divide is spread over as many parts as divide both, each computed by several devices: which clips a step
learns from, and so its result, never depends on the devices.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Float32, Int32, UInt8

from sspd_jax import compilation
from sspd_jax.method import health, losses, model, playback, routing, target_ema, views
from sspd_jax.method.blocks import after
from sspd_jax.train_state import TrainState

DATA_AXIS = "data"
"""Name of the mesh axis that clips are spread over."""

COPY_AXIS = "copy"
"""Name of the mesh axis along which devices compute the same."""

Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]]
"""`step(state, batch)` → the next state and the metrics; the state given is donated."""


@dataclasses.dataclass(frozen=True)
class Method:
    """The static part of a step: what is learned, from which views, by which losses.

    Attributes:
      network: settings of both networks.
      local_view: how the online network's view is made.
      global_view: how the target network's view is made.
      terms: `{name: {'weight': w, **settings}}` of the losses, see `losses.total_loss`.
      optimizer: of the online parameters, with the target's average last.
      momentum: of that average, as a function of the step.
      fps: frame rate of the clips in Hz.
      seed: of views.
      slowest: speed that the online network's view may be played at, see `playback`; 1: its own.
    """

    network: model.NetworkSettings
    local_view: views.ViewSettings
    global_view: views.ViewSettings
    terms: Mapping[str, Mapping[str, Any]]
    optimizer: optax.GradientTransformation
    momentum: optax.Schedule
    fps: float
    seed: int = 0
    slowest: float | Array = 1.0


def make_optimizer(
    learning_rate: float | optax.Schedule,
    momentum: optax.Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    frozen: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Build Adam on the parts of the network, then the average into the target.

    Args:
      learning_rate: of Adam.
      momentum: of the target, see `target_ema.target_momentum`.
      b1: decay of Adam's first moment.
      b2: decay of Adam's second moment.
      eps: Adam's epsilon, outside the root as in PyTorch.
      frozen: labels (`routing.LABELS`) of parts to leave as they are.

    Returns:
      An optax transformation whose state holds the target.
    """
    adam = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
    parts = {label: optax.set_to_zero() if label in frozen else adam for label in routing.LABELS}
    return optax.chain(optax.partition(parts, routing.labels), target_ema.target_ema(momentum))


def train_step(
    state: TrainState, batch: Mapping[str, ArrayLike], *, method: Method, batch_axis: str | None = None
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """Learn from a batch of clips: views, then `learn`.

    Args:
      state: of the training.
      batch: {'clips': uint8 [n, t + 1, s, s, 3] RGB}, t even.
      method: the static part.
      batch_axis: name of a mapped axis over which the batch is spread in equal parts, `batch` one of them.

    Returns:
      The next state and the metrics of `learn`.
    """
    key = jax.random.fold_in(jax.random.key(method.seed), state.step)
    local_key, global_key = jax.random.split(key)
    size, kind = method.network.input_size, method.network.change
    first = 0 if batch_axis is None else jax.lax.axis_index(batch_axis) * len(batch["clips"])
    clips, speed = batch["clips"], None
    if not playback.is_off(method.slowest):
        # A key of its own beside the two: what else is drawn stays what it is at the clip's own speed.
        speed = playback.draw_speeds(jax.random.fold_in(key, _PLAY), len(clips), method.slowest, first)
        clips = playback.play(clips, speed)
    local = views.make_view(clips, local_key, method.local_view, size, first, kind)
    whole = views.make_view(batch["clips"], global_key, method.global_view, size, first, kind)
    return learn(state, local, whole, speed, method=method, batch_axis=batch_axis)


_PLAY = 7


def learn(
    state: TrainState,
    online_video: Float32[ArrayLike, "n t s s 3"],
    target_video: Float32[ArrayLike, "n t s s 3"],
    speed: Float32[ArrayLike, " n"] | None = None,
    *,
    method: Method,
    batch_axis: str | None = None,
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """Learn from two views that are ready: both readings, losses, optimiser, target, statistics.

    Args:
      state: of the training.
      online_video: float32 [n, t, size, size, 3], the local views' frame differences.
      target_video: float32 [n, t, size, size, 3], the global views' frame differences.
      speed: float32 [n] that the local views were played at, or None: at their own.
      method: the static part.
      batch_axis: see `train_step`.

    Returns:
      The next state, and float32 scalars: 'loss', 'terms/<name>' (weighted), 'target_momentum' and
      'health/<name>' of the target's waves, which come from unmasked views.
    """
    (loss, (terms, wave, batch_stats, target_batch_stats)), gradients = jax.value_and_grad(
        loss_fn, has_aux=True
    )(state.params, state, online_video, target_video, speed, method=method, batch_axis=batch_axis)
    if batch_axis is not None:
        gradients = jax.lax.pmean(gradients, batch_axis)
        wave = jax.lax.all_gather(wave, batch_axis, tiled=True)  # clips are compared with each other

    # The optimiser's last link averages the stepped parameters into the target. Optax raises a float to
    # an int32 power, which a program under strict dtype promotion would not be allowed to.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = method.optimizer.update(gradients, state.opt_state, state.params)
    metrics = {
        "loss": loss,
        "target_momentum": jnp.asarray(method.momentum(state.step), jnp.float32),
        **{f"terms/{name}": value for name, value in terms.items()},
        **{f"health/{name}": value for name, value in health.wave_health(wave, method.fps).items()},
    }
    next_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        target_batch_stats=target_batch_stats,
        opt_state=opt_state,
    )
    return next_state, metrics


def loss_fn(
    params: model.Floats,
    state: TrainState,
    online_video: Float32[ArrayLike, "n t s s 3"],
    target_video: Float32[ArrayLike, "n t s s 3"],
    speed: Float32[ArrayLike, " n"] | None = None,
    *,
    method: Method,
    batch_axis: str | None = None,
) -> tuple[Float32[Array, ""], tuple[dict[str, Float32[Array, ""]], Array, model.Floats, model.Floats]]:
    """Compute the loss as a function of the online parameters.

    Args:
      params: the online network's; the only thing to differentiate.
      state: everything else that the networks hold; its `params` are not used.
      online_video: float32 [n, t, size, size, 3].
      target_video: float32 [n, t, size, size, 3].
      speed: see `learn`.
      method: the static part.
      batch_axis: see `train_step`; loss and terms are then the whole batch's, the waves these clips'.

    Returns:
      The loss, and (the weighted terms, the target's waves, the online statistics, the target's).
    """
    read = functools.partial(model.read, method.network, batch_axis=batch_axis)
    # The target trains by averaging alone; it is in training mode and keeps its own statistics.
    target, target_batch_stats = jax.lax.stop_gradient(
        read(state.target_params, state.target_batch_stats, target_video)
    )
    # One network after the other: XLA on CPU would have them side by side, and hold the largest maps of both.
    online, batch_stats = read(params, state.batch_stats, after(online_video, target.wave))
    said = target if speed is None else playback.play_reading(target, speed)
    loss, terms = losses.total_loss(losses.Outputs(online, said), method.fps, method.terms)
    if batch_axis is not None:  # every term is a mean over clips
        loss, terms = jax.lax.pmean((loss, terms), batch_axis)
    return loss, (terms, target.wave, batch_stats, target_batch_stats)


Probe = Callable[[TrainState, UInt8[ArrayLike, "n frames s s 3"]], dict[str, jax.Array]]
"""`probe(state, clips)` → the measures of `health.probe`, of the target network."""

_PROBE_SEED = 1  # the same views and lights whenever a run is probed, and in every run


def probe(
    state: TrainState,
    clips: UInt8[ArrayLike, "n frames s s 3"],
    *,
    method: Method,
    people: Sequence[str] | None = None,
) -> dict[str, Float32[Array, ""]]:
    """Describe what both networks say of fixed clips, in evaluation mode.

    Args:
      state: of the training.
      clips: uint8 [n, t + 1, s, s, 3] RGB, t even.
      method: the static part.
      people: who is seen in each clip; everybody is another one, if not given.

    Returns:
      The measures of `health.probe` of the target, the online network beside it.
    """
    reads = functools.partial(model.read_wave, method.network)
    target = functools.partial(reads, state.target_params, state.target_batch_stats)
    online = functools.partial(reads, state.params, state.batch_stats)
    size, kind = method.network.input_size, method.network.change
    return health.probe(target, clips, size, method.fps, jax.random.key(_PROBE_SEED), kind, people, online)


def compile_probe(method: Method, mesh: Mesh, people: Sequence[str] | None = None) -> Probe:
    """Apply jit to `probe`; state and clips lie whole on every device of the mesh."""
    method = dataclasses.replace(method, network=compilation.tuned(method.network))
    replicated = everywhere(mesh)
    return jax.jit(
        functools.partial(probe, method=method, people=people),
        in_shardings=(replicated, replicated),
        out_shardings=replicated,
        compiler_options=compilation.options(),
    )


def data_mesh(devices: Sequence[jax.Device] | None = None, batch_size: int | None = None) -> Mesh:
    """Lay devices out for data parallelism.

    Args:
      devices: all of them, if not given.
      batch_size: number of clips; a multiple of the number of devices, if not given.

    Returns:
      A mesh [parts, copies]: as many parts as divide both the clips and the devices.
    """
    devices = jax.devices() if devices is None else devices
    # `jax.make_mesh` may order them otherwise, and then the clips that a process reads were not neighbours.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    parts = len(devices) if batch_size is None else math.gcd(len(devices), batch_size)
    grid = np.array(devices).reshape(parts, -1)
    return Mesh(grid, (DATA_AXIS, COPY_AXIS), axis_types=(AxisType.Auto,) * 2)


def everywhere(mesh: Mesh) -> NamedSharding:
    """Say how a state lies on a mesh: whole on every device.

    The same for every layout of the same devices. A step on another number of clips would otherwise get its
    state in a way it was not compiled for, and be compiled again.
    """
    return NamedSharding(_in_a_row(mesh), PartitionSpec())


def along_time(mesh: Mesh) -> NamedSharding:
    """Say how frames that live on the devices lie on a mesh: cut along time, no frame on two."""
    return NamedSharding(_in_a_row(mesh), PartitionSpec(DATA_AXIS))


def _in_a_row(mesh: Mesh) -> Mesh:
    return Mesh(mesh.devices.ravel(), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def part_of_process(mesh: Mesh, batch_size: int) -> slice:
    """Say which clips of a batch the devices of this process need.

    Args:
      mesh: of `data_mesh`.
      batch_size: number of clips, a multiple of the mesh's parts.
    """
    spread = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    parts = [
        index.indices(batch_size)
        for (index,) in spread.addressable_devices_indices_map((batch_size,)).values()
    ]
    return slice(min(start for start, *_ in parts), max(stop for _, stop, _ in parts))


def spread_clips(clips: UInt8[np.ndarray, "n frames s s 3"], mesh: Mesh, batch_size: int) -> jax.Array:
    """Put clips on the mesh that they are to be computed on.

    Args:
      clips: of this process: those of `part_of_process`.
      mesh: of `data_mesh`.
      batch_size: clips of all processes.

    Returns:
      uint8 [batch_size, frames, s, s, 3], spread over the mesh.
    """
    first = part_of_process(mesh, batch_size).start
    shape = (batch_size, *clips.shape[1:])

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(batch_size)
        return clips[start - first : stop - first]

    return jax.make_array_from_callback(shape, NamedSharding(mesh, PartitionSpec(DATA_AXIS)), part)


def place(state: TrainState, mesh: Mesh) -> TrainState:
    """Put a state on a mesh, whole on every device.

    A step's output lies there; a fresh state that does not would cost a second compilation of the step.
    """
    sharding = everywhere(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(state, sharding)

    def on_all(leaf: jax.Array) -> jax.Array:
        if leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        return jax.make_array_from_callback(leaf.shape, sharding, np.asarray(leaf).__getitem__)

    return jax.tree.map(on_all, state)


def compile_train_step(method: Method, mesh: Mesh, *, clip_frames: int | None = None) -> Step:
    """Apply jit, sharding and donation to `train_step`.

    Args:
      method: the static part.
      mesh: from `data_mesh`; the number of clips must be a multiple of its parts.
      clip_frames: of clips that are cut out of frames on the devices: T, one more frame is taken.

    Returns:
      A step; its state `place`d on the mesh, its batch {'clips'} as `train_step` takes it, or, with
      `clip_frames`, {'frames', 'starts'} as `cut_clips` does. BatchNorm's statistics and the losses are those
      of the whole batch, whatever the number of devices.
    """
    method = dataclasses.replace(method, network=compilation.tuned(method.network))
    replicated, spread = everywhere(mesh), NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    step, batch = functools.partial(train_step, method=method), spread
    if clip_frames is not None:
        cut = functools.partial(cut_clips, mesh=mesh, length=clip_frames + 1)
        batch = {"frames": along_time(mesh), "starts": replicated}

        def step(state: TrainState, batch: Mapping[str, ArrayLike]) -> tuple[TrainState, dict[str, Array]]:
            return train_step(state, {"clips": cut(batch["frames"], batch["starts"])}, method=method)

    return jax.jit(
        step,
        in_shardings=(replicated, batch),
        out_shardings=(replicated, replicated),
        donate_argnums=(0,),
        compiler_options=compilation.options(),
    )


def pmap_train_step(method: Method, mesh: Mesh, *, clip_frames: int | None = None) -> Step:
    """Apply `jax.pmap` to `train_step`: the same step in another way, see `compile_train_step`.

    BatchNorm, losses, gradients and health average over the mapped axis by name. One process only.

    Args:
      method: the static part.
      mesh: from `data_mesh`, without copies; the number of clips must be a multiple of its size.
      clip_frames: see `compile_train_step`; the clips are cut out in a jit of their own.

    Returns:
      A step that takes and gives what that of `compile_train_step` does.

    Raises:
      ValueError: the mesh has copies.
    """
    devices = mesh.devices[:, 0]
    if mesh.size != len(devices):
        raise ValueError(f"pmap computes on each of {mesh.size} devices another part of the batch")
    mapped = jax.pmap(
        functools.partial(train_step, method=method, batch_axis=DATA_AXIS),
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


WAYS: Mapping[str, Callable[..., Step]] = {"jit": compile_train_step, "pmap": pmap_train_step}
"""Ways to spread a step over devices, by the name that a configuration uses."""


def cut_clips(
    frames: UInt8[ArrayLike, "all s s 3"], starts: Int32[ArrayLike, " n"], *, mesh: Mesh, length: int
) -> UInt8[Array, "n {length} s s 3"]:
    """Cut clips out of frames that are spread over the devices.

    Each device gives what it holds of every clip and the sum of that, over the devices, is the batch: a
    batch's bytes travel, not the dataset's.

    Args:
      frames: uint8 [all, s, s, 3], `along_time`.
      starts: int32 [n], number of each clip's first frame.
      mesh: of `data_mesh`; n is a multiple of its parts.
      length: frames in a clip.

    Returns:
      uint8 [n, length, s, s, 3], spread over the mesh.
    """

    def here(held: Array, starts: Array) -> Array:
        first = jax.lax.axis_index((DATA_AXIS, COPY_AXIS)) * len(held)
        index = starts[:, None] + jnp.arange(length, dtype=starts.dtype) - first
        held_here = jnp.logical_and(index >= 0, index < len(held))
        found = held[jnp.clip(index, 0, len(held) - 1)]
        found = jnp.where(held_here[:, :, None, None, None], found, jnp.zeros((), found.dtype))
        part = jax.lax.psum_scatter(found, DATA_AXIS, scatter_dimension=0, tiled=True)
        return jax.lax.psum(part, COPY_AXIS)

    frames_spec = PartitionSpec((DATA_AXIS, COPY_AXIS))
    specs = {"in_specs": (frames_spec, PartitionSpec()), "out_specs": PartitionSpec(DATA_AXIS)}
    return jax.shard_map(here, mesh=mesh, **specs)(jnp.asarray(frames), jnp.asarray(starts))

"""How states, frames and clips lie on the devices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Int32, UInt8

from sspd_jax.training.state import TrainState

DATA_AXIS = "data"
"""Name of the mesh axis that clips are spread over."""
COPY_AXIS = "copy"
"""Name of the mesh axis along which devices compute the same."""


def data_mesh(devices: Sequence[jax.Device] | None = None, batch_size: int | None = None) -> Mesh:
    """Lay devices out for data parallelism.

    Args:
      devices: All of them, if not given.
      batch_size: Number of clips; a multiple of the number of devices, if not given.

    Returns:
      A mesh [parts, copies]: as many parts as divide both the clips and the devices.

    Example:
      >>> data_mesh(jax.devices()[:1], batch_size=12).size
      1
    """
    devices = jax.devices() if devices is None else devices
    # `jax.make_mesh` may order them otherwise, and then the clips that a process reads were not neighbours.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    parts = len(devices) if batch_size is None else math.gcd(len(devices), batch_size)
    grid = np.array(devices).reshape(parts, -1)
    return Mesh(grid, (DATA_AXIS, COPY_AXIS), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a state on a mesh: whole on every device.

    The same for every layout of the same devices. A step on another number of clips would otherwise get its
    state in a way it was not compiled for, and be compiled again.
    """
    return NamedSharding(_in_a_row(mesh), PartitionSpec())


def frame_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of frames that live on the devices: cut along time, no frame on two of them."""
    return NamedSharding(_in_a_row(mesh), PartitionSpec(DATA_AXIS))


def _in_a_row(mesh: Mesh) -> Mesh:
    return Mesh(mesh.devices.ravel(), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def part_of_process(mesh: Mesh, batch_size: int) -> slice:
    """Return the slice of a batch's clips that the devices of this process need.

    Args:
      mesh: From `data_mesh`.
      batch_size: Number of clips, a multiple of the mesh's parts.
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
      clips: The clips of this process: those of `part_of_process`.
      mesh: From `data_mesh`.
      batch_size: Number of clips of all processes together.

    Returns:
      uint8 [batch_size, frames, s, s, 3], spread over the mesh.

    Example:
      >>> clips = np.zeros((4, 3, 8, 8, 3), np.uint8)
      >>> spread_clips(clips, data_mesh(batch_size=4), 4).shape
      (4, 3, 8, 8, 3)
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

    Example:
      >>> place({"step": jnp.int32(0)}, data_mesh())["step"].sharding.is_fully_replicated
      True
    """
    sharding = replicated(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(state, sharding)

    def on_all(leaf: jax.Array) -> jax.Array:
        if leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        return jax.make_array_from_callback(leaf.shape, sharding, np.asarray(leaf).__getitem__)

    return jax.tree.map(on_all, state)


def cut_clips(
    frames: UInt8[ArrayLike, "all s s 3"], starts: Int32[ArrayLike, " n"], *, mesh: Mesh, length: int
) -> UInt8[Array, "n {length} s s 3"]:
    """Cut clips out of frames that are spread over the devices.

    Each device gives what it holds of every clip and the sum of that, over the devices, is the batch: a
    batch's bytes travel, not the dataset's.

    Args:
      frames: All frames, uint8 [all, s, s, 3] RGB, laid out by `frame_sharding`.
      starts: Number of each clip's first frame, int32 [n].
      mesh: From `data_mesh`; n is a multiple of its parts.
      length: Number of frames in a clip.

    Returns:
      uint8 [n, length, s, s, 3], spread over the mesh.
    """

    def cut_on_device(local_frames: Array, starts: Array) -> Array:
        count = len(local_frames)
        first = jax.lax.axis_index((DATA_AXIS, COPY_AXIS)) * count
        index = starts[:, None] + jnp.arange(length, dtype=starts.dtype) - first
        is_local = jnp.logical_and(index >= 0, index < count)
        clips = local_frames[jnp.clip(index, 0, count - 1)]
        clips = jnp.where(is_local[:, :, None, None, None], clips, jnp.zeros((), clips.dtype))
        part = jax.lax.psum_scatter(clips, DATA_AXIS, scatter_dimension=0, tiled=True)
        return jax.lax.psum(part, COPY_AXIS)

    frames_spec = PartitionSpec((DATA_AXIS, COPY_AXIS))
    specs = {"in_specs": (frames_spec, PartitionSpec()), "out_specs": PartitionSpec(DATA_AXIS)}
    return jax.shard_map(cut_on_device, mesh=mesh, **specs)(jnp.asarray(frames), jnp.asarray(starts))


def lay_out(parallel: str, sizes: tuple[int, ...]) -> dict[int, jax.sharding.Mesh]:
    """Lay out the devices for each size of batch.

    Args:
      parallel: 'jit' or 'pmap'.
      sizes: Numbers of clips in the batches of an epoch.

    Returns:
      A mesh of the same devices in the same order for each size.
    """
    devices: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: device.id):
        devices.setdefault(device.process_index, []).append(device)
    count = devices_to_use(parallel, sizes, len(devices), min(map(len, devices.values())))
    used = [device for of_process in devices.values() for device in of_process[:count]]
    return {size: data_mesh(used, size) for size in sizes}


def devices_to_use(parallel: str, sizes: tuple[int, ...], n_processes: int, available: int) -> int:
    """Return how many devices of each process compute a step.

    With 'jit' as many as cut a batch into the most equal parts: 12 clips on 8 devices are 6 parts. Every
    process takes part, so several devices may have to compute the same part. With 'pmap' none does, and every
    size of batch needs the same devices.

    Args:
      parallel: 'jit' or 'pmap'.
      sizes: Numbers of clips in the batches of an epoch, the largest first.
      n_processes: Number of processes, all with as many devices.
      available: Number of devices of each process.
    """
    counts = range(1, available + 1)
    if parallel == "pmap":
        return max(count for count in counts if math.gcd(*sizes) % count == 0)
    return max(counts, key=lambda count: (math.gcd(count * n_processes, sizes[0]), -count))

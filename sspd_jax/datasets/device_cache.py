"""A prepared dataset in the accelerators' memory: read once, then batches are cut out of it on the devices.

The frames of all segments lie one after the other, cut along time into equal parts, one on each device
(`sharding.frame_sharding`), so that the devices' memories together have to hold them, not each alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding

from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.datasets.input_pipeline import Choice
from sspd_jax.errors import UserError

ROOM = 0.25
"""Share of a device's free memory that frames may take: a step at full size wants most of the rest."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """Where frames lie that live on the devices.

    Attributes:
      first: For every segment's number in `PreparedDataset.segments`, the number of its first frame.
      frames: All frames, uint8 [n, s, s, 3]; the last are zeros, so that n is a multiple of the devices.
    """

    first: Mapping[int, int]
    frames: jax.Array

    def starts(self, segment: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return where in `frames` the clips begin that `clip_batches` drew, int32 [n]."""
        return np.array([self.first[int(s)] for s in segment], np.int32) + start


def should_cache(choice: str, n_bytes: int, devices: Sequence[jax.Device]) -> bool:
    """Decide whether frames are kept on devices.

    Args:
      choice: 'always', 'never' or 'auto'.
      n_bytes: Size of the frames, bytes.
      devices: Devices that would share them.

    Returns:
      For 'auto', whether these are accelerators whose memory has room: `ROOM` of what is free.
    """
    if choice != "auto":
        return choice == "always"
    if devices[0].platform == "cpu":
        return False
    for device in devices:
        if device.process_index == jax.process_index():
            stats = device.memory_stats() or {}
            free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
            if n_bytes / len(devices) > ROOM * free:
                return False
    return True


def n_bytes(dataset: PreparedDataset, choice: Choice) -> int:
    """Return how many bytes the frames of the chosen recordings take."""
    n_frames = sum(dataset.segments[number].n_frames for numbers in choice.segments for number in numbers)
    return n_frames * dataset.crop_size**2 * 3


def load(dataset: PreparedDataset, choice: Choice, sharding: NamedSharding) -> Frames:
    """Read the chosen recordings onto devices; each process reads what its own devices hold.

    Args:
      dataset: Prepared dataset.
      choice: Recordings to read.
      sharding: Sharding of the frames, along the first axis only.

    Raises:
      UserError: They cannot be read, or do not fit.
    """
    numbers = [number for numbers in choice.segments for number in numbers]
    lengths = [dataset.segments[number].n_frames for number in numbers]
    firsts = np.concatenate([[0], np.cumsum(lengths)])
    n_devices = sharding.mesh.size
    total = -(-int(firsts[-1]) // n_devices) * n_devices
    side = dataset.crop_size

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(total)
        frames = np.zeros((stop - start, side, side, 3), np.uint8)
        for number, first, length in zip(numbers, firsts, lengths, strict=False):
            low, high = max(start, int(first)), min(stop, int(first) + length)
            if low < high:
                out = frames[low - start : high - start]
                dataset.clip(dataset.segments[number], low - int(first), high - low, out=out)
        return frames

    try:
        frames = jax.make_array_from_callback((total, side, side, 3), sharding, part)
        frames.block_until_ready()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size = n_bytes(dataset, choice) / 1e9
        raise UserError(
            f"{dataset.data_dir}: {size:.1f} GB of frames do not fit into the memory of {n_devices} devices; "
            "use --config.data.on_device=never"
        ) from error
    return Frames(dict(zip(numbers, map(int, firsts), strict=False)), frames)

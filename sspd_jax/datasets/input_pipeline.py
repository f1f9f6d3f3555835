"""The input pipeline: from a prepared dataset to batches of clips, by Grain.

In an epoch every recording gives one clip, a random window of it. Which one, and in which order, depends on
the seed and the epoch alone, so the batch of any step can be had without those before it: a resumed training
just starts at its step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import grain
import numpy as np

from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.errors import ConfigError, UserError

AHEAD = 2
"""Batches that are read ahead: 0.25 GB each at 12 clips of 301 frames of 151 × 151 pixels."""

THREADS = 2


@dataclasses.dataclass(frozen=True)
class Choice:
    """The recordings that clips are taken from.

    Attributes:
      segments: For every recording, numbers in `PreparedDataset.segments` of those that are long enough.
      windows: For every one of them, how many clips it holds.
      left_out: Why recordings give no clips, a sentence each.
    """

    segments: tuple[tuple[int, ...], ...]
    windows: tuple[tuple[int, ...], ...]
    left_out: tuple[str, ...]


def choose(dataset: PreparedDataset, people: Iterable[str], clip_frames: int) -> Choice:
    """Choose the recordings of some people that hold a clip.

    Args:
      dataset: Prepared dataset.
      people: People whose recordings are chosen.
      clip_frames: Number of difference frames in a clip; one more frame is read.

    Returns:
      The recordings, in the dataset's order.

    Raises:
      UserError: Somebody has no recording, or no recording holds a clip.
    """
    people = tuple(dict.fromkeys(people))
    absent = [person for person in people if person not in dataset.people]
    if absent:
        known = ", ".join(dataset.people[:5]) + (", …" if len(dataset.people) > 5 else "")
        raise UserError(
            f"{dataset.data_dir}: holds no recording of {', '.join(absent)}; name people it has: {known}"
        )
    needed = clip_frames + 1
    recordings: dict[str, list[int]] = {}
    for number, segment in enumerate(dataset.segments):
        if segment.person_id in people:
            recordings.setdefault(segment.recording_id, []).append(number)
    chosen, windows, left_out = [], [], []
    for recording_id, numbers in recordings.items():
        counts = {n: dataset.segments[n].n_frames - clip_frames for n in numbers}
        long_enough = {n: count for n, count in counts.items() if count > 0}
        if long_enough:
            chosen.append(tuple(long_enough))
            windows.append(tuple(long_enough.values()))
        else:
            longest = max(counts.values()) + clip_frames
            left_out.append(f"{recording_id}: {longest} unbroken frames are fewer than a clip's {needed}")
    if not chosen:
        raise UserError(
            f"{dataset.data_dir}: no recording of {', '.join(people) or 'nobody'} has the {needed} unbroken "
            f"frames of a clip ({needed / dataset.fps:.1f} s); lower clip_frames, or name other people"
        )
    return Choice(tuple(chosen), tuple(windows), tuple(left_out))


def epoch_sizes(recordings: int, batch_size: int) -> tuple[int, ...]:
    """Return the number of clips in each batch of an epoch: 30 recordings in batches of 12 are 12, 12, 6.

    Args:
      recordings: Number of recordings that give clips, `len(choose(…).segments)`.
      batch_size: Number of clips in a batch, but for the last one.
    """
    whole, rest = divmod(recordings, batch_size)
    return (batch_size,) * whole + ((rest,) if rest else ())


def clip_batches(
    dataset: PreparedDataset,
    people: Iterable[str],
    *,
    clip_frames: int,
    batch_size: int,
    seed: int,
    epochs: int,
    parts: Mapping[int, slice] | None = None,
    read: bool = True,
) -> grain.MapDataset:
    """Return the batches of a whole training; element k is the batch of step k.

    Every epoch is a new random order of the recordings and in each a new random window, all windows of a
    recording equally likely, whichever of its segments they lie in. An epoch's last batch is smaller, see
    `epoch_sizes`. Which clips a batch has does not depend on who reads them: of several processes each reads
    its own part only.

    Args:
      dataset: Prepared dataset.
      people: People whose recordings are used.
      clip_frames: Number of difference frames in a clip (T); one more frame is read.
      batch_size: Number of clips in a batch.
      seed: Seed of order and windows.
      epochs: Number of times that every recording comes up.
      parts: For each size in `epoch_sizes`, which clips of a batch to read; by default all.
      read: Whether to read clips at all.

    Returns:
      A grain.MapDataset of `epochs` × `len(epoch_sizes(…))` elements, each {'segment': int32 [n], number in
      `dataset.segments`, 'start': int32 [n], number of the clip's first frame in it, 'clips': uint8
      [m, T + 1, s, s, 3] RGB, those of the part}. It reads when it is indexed, and not before.

    Raises:
      ConfigError: A size is below 1.
      UserError: See `choose`.
    """
    for key, value in (("clip_frames", clip_frames), ("batch_size", batch_size), ("epochs", epochs)):
        if value < 1:
            raise ConfigError(f"{key} {value} is not 1 or more")
    choice = choose(dataset, people, clip_frames)
    sizes = epoch_sizes(len(choice.segments), batch_size)
    source = _Batches(dataset, choice, clip_frames, sizes, seed, epochs, dict(parts or {}), read)
    return grain.MapDataset.source(source)


def prefetch(batches: grain.MapDataset, first_step: int = 0, *, ahead: int = AHEAD) -> grain.DatasetIterator:
    """Read batches ahead in threads of this process.

    The time that `next` takes is the time that one waits for data.

    Args:
      batches: Batches that `clip_batches` returns.
      first_step: Step to start at.
      ahead: Number of batches to hold ready; 0 reads when asked.

    Returns:
      An iterator over the batches from `first_step` on; reading has begun. `close` ends it early. Its
      position can be saved and restored as Grain's iterators can, but the step alone tells it too.
    """
    options = grain.ReadOptions(num_threads=min(THREADS, ahead), prefetch_buffer_size=ahead)
    iterator = iter(batches.to_iter_dataset(options))
    iterator.set_state({"next_index": first_step})
    iterator.start_prefetch()
    return iterator


@dataclasses.dataclass(frozen=True)
class _Batches:
    """What Grain takes for a source: element k is the batch of step k."""

    dataset: PreparedDataset
    choice: Choice
    clip_frames: int
    sizes: tuple[int, ...]  # of an epoch's batches
    seed: int
    epochs: int
    parts: Mapping[int, slice]
    read: bool

    def __len__(self) -> int:
        return self.epochs * len(self.sizes)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        epoch, batch = divmod(int(step), len(self.sizes))
        segments, starts = self._draw(epoch)
        first, size = batch * self.sizes[0], self.sizes[batch]
        segments, starts = segments[first : first + size], starts[first : first + size]
        drawn = {"segment": segments, "start": starts}
        if not self.read:
            return drawn
        ours = self.parts.get(size, slice(None))
        segments, starts = segments[ours], starts[ours]
        side = self.dataset.crop_size
        clips = np.empty((len(segments), self.clip_frames + 1, side, side, 3), np.uint8)
        for clip, segment, start in zip(clips, segments, starts, strict=True):
            self.dataset.clip(self.dataset.segments[segment], int(start), self.clip_frames + 1, out=clip)
        return {"clips": clips, **drawn}

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw an epoch's segments and starts, int32 [recordings] each, in the order of their use."""
        rng = np.random.default_rng([self.seed, epoch])
        segments, starts = [], []
        for numbers, windows in zip(self.choice.segments, self.choice.windows, strict=True):
            ends = np.cumsum(windows)
            window = rng.integers(ends[-1])
            which = int(np.searchsorted(ends, window, side="right"))
            segments.append(numbers[which])
            starts.append(window - (ends[which] - windows[which]))
        order = rng.permutation(len(segments))
        return np.array(segments, np.int32)[order], np.array(starts, np.int32)[order]

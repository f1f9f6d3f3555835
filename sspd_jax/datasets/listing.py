"""What is known of a dataset before it is prepared: its recordings' people, lengths and truths, from headers.

A `Listing` stands in for a `PreparedDataset` where people are split: it has `people`, `segments` with ids and
`meta`, and `data_dir` as that has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.datasets.recording import Broken, Ppg, Recording
from sspd_jax.errors import UserError
from sspd_jax.video import decode


@dataclasses.dataclass(frozen=True)
class Entry:
    """One recording, or an unbroken segment of one that is prepared.

    Attributes:
      recording_id: Id of the recording.
      person_id: Id of the person who is seen.
      meta: Whatever else the dataset has on it.
      length_s: Its length in s; None where no header has it.
      truth_s: First and last time in s of every unbroken stretch of its contact pulse wave.
    """

    recording_id: str
    person_id: str
    meta: Mapping[str, Any]
    length_s: float | None
    truth_s: tuple[tuple[float, float], ...]

    @property
    def longest_truth_s(self) -> float:
        """Length of the longest stretch of truth in s, 0 where there is none."""
        return max((last - first for first, last in self.truth_s), default=0.0)


@dataclasses.dataclass(frozen=True)
class Listing:
    """A dataset's recordings as far as their headers tell.

    Attributes:
      data_dir: Folder that the dataset is, or will be, prepared in; for messages.
      segments: Its recordings or, where it is prepared, their segments.
      left_out: Id of every recording that is known not to be in the dataset, and why.
    """

    data_dir: epath.PathLike
    segments: tuple[Entry, ...]
    left_out: Mapping[str, str]

    @property
    def people(self) -> tuple[str, ...]:
        """Everyone seen, in the order of the recordings."""
        return tuple(dict.fromkeys(entry.person_id for entry in self.segments))


def of_recordings(
    recordings: Sequence[Recording | Broken], data_dir: epath.PathLike, max_gap_s: float
) -> Listing:
    """List recordings that are not prepared yet.

    Args:
      recordings: All recordings of the dataset.
      data_dir: Folder that they will be prepared in.
      max_gap_s: Longest gap in a contact pulse wave that is interpolated, s.
    """
    whole = [r for r in recordings if isinstance(r, Recording)]
    entries = (
        Entry(
            r.recording_id,
            r.person_id,
            r.meta,
            length_s := stated_length_s(r),
            _truth(r, length_s, max_gap_s),
        )
        for r in whole
    )
    broken = {r.recording_id: r.why for r in recordings if isinstance(r, Broken)}
    return Listing(data_dir, tuple(entries), broken)


def of_prepared(dataset: PreparedDataset) -> Listing:
    """List the segments of a dataset that is prepared."""
    entries = []
    for segment in dataset.segments:
        truth = segment.truth
        if truth is None:  # an earlier version did not note it: it may be anywhere
            truth = ((0, segment.n_frames),) if segment.has_ppg else ()
        truth_s = tuple((first / dataset.fps, last / dataset.fps) for first, last in truth)
        length_s = segment.n_frames / dataset.fps
        entries.append(Entry(segment.recording_id, segment.person_id, segment.meta, length_s, truth_s))
    return Listing(dataset.data_dir, tuple(entries), dataset.left_out)


def stated_length_s(recording: Recording) -> float | None:
    """Return how long a recording is by its header, or by its wave where that has none; None: unknown."""
    try:
        length_s = decode.read_facts(recording.file).duration_s
    except UserError:  # a folder of pictures, a MATLAB file
        length_s = None
    if length_s is None and recording.ppg is not None and len(recording.ppg.times_s):
        length_s = float(recording.ppg.times_s[-1])
    return length_s


def _truth(recording: Recording, length_s: float | None, max_gap_s: float) -> tuple[tuple[float, float], ...]:
    ppg: Ppg | None = recording.ppg
    if ppg is None or not len(ppg.times_s):
        return ()
    times_s = np.asarray(ppg.times_s)[np.isfinite(ppg.values)]
    parts = np.split(times_s, np.flatnonzero(np.diff(times_s) > max_gap_s) + 1)
    end_s = length_s if length_s is not None else np.inf
    spans = ((max(0.0, float(p[0])), min(end_s, float(p[-1]))) for p in parts if len(p))
    return tuple((first, last) for first, last in spans if last > first)

"""The contract of every dataset reader: it lists `Recording`s and `Broken` ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

LONGEST_ID = 200
"""Bytes of a recording's id: names of files are made of it, of 255 at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ppg:
    """A contact pulse wave on the video's clock.

    Attributes:
      times_s: Increasing times since the video's first frame, s, float64 [m].
      values: Values in any unit, float64 [m].
    """

    times_s: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """One video of one person, as its owner stored it.

    Attributes:
      recording_id: Unique and stable id that can be a file name, such as 'subject1', of `LONGEST_ID`
        bytes at most.
      person_id: Id of the person who is seen; people, not recordings, are split.
      frames: Opens the video and yields (time in s, uint8 [h, w, 3] RGB), times increasing; each call
        starts anew. It must be picklable (a `functools.partial` of a module's function is) where recordings
        are prepared by several processes.
      ppg: The contact pulse wave, or None where there is none. It is never used in training.
      file: Path of the video, for messages.
      meta: Whatever else the dataset has (device heart rate, light, task, …), of JSON's types only.
    """

    recording_id: str
    person_id: str
    frames: Callable[[], Iterator[tuple[float, np.ndarray]]]
    ppg: Ppg | None
    file: Path
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Broken:
    """A recording that is in the dataset and cannot be used as it is.

    Attributes:
      recording_id: Id that it would have if it were whole.
      why: One sentence that names the file and the remedy.
    """

    recording_id: str
    why: str

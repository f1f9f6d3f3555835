"""The prepared dataset, opened and read: face crops on a uniform clock; see `sspd_jax.datasets.format`."""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from array_record.python import array_record_module
from etils import epath

from sspd_jax.datasets import skin_file
from sspd_jax.datasets.format import (
    FORMAT,
    INDEX,
    PLAN,
    PREPARE,
    READABLE,
    Segment,
    Settings,
    features,
    read_json,
    segments_of,
)
from sspd_jax.errors import UserError

READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
MOST_OPEN = 64  # shards: a dataset can have more recordings than a process may open files


def open_prepared(
    data_dir: epath.PathLike,
    *,
    fps: float | None = None,
    crop_size: int | None = None,
    face_crop: str | None = None,
) -> PreparedDataset:
    """Open a prepared dataset; reads its index and the shards' sizes, nothing more.

    Args:
      data_dir: Folder that `sspd_jax.datasets.prepare` wrote.
      fps: Frame rate that it must have been prepared with, Hz; None for any.
      crop_size: Size of the crops that it must have been prepared with, pixels; None for any.
      face_crop: What its crops must show, 'box' or 'skin'; None for any.

    Returns:
      The dataset.

    Raises:
      UserError: It is missing, unfinished or damaged, or was prepared with other settings.
    """
    data_dir = epath.Path(data_dir)
    index = _read_index(data_dir)
    try:
        settings = Settings(**index["settings"])
        segments = tuple(s for recording in index["recordings"] for s in segments_of(recording))
        sizes = {recording["shard"]: recording["shard_bytes"] for recording in index["recordings"]}
        skin = {r["recording_id"]: r["skin"] for r in index["recordings"] if "skin" in r}
    except (KeyError, TypeError) as error:
        raise UserError(f"{data_dir / INDEX}: is damaged; delete it and prepare again") from error
    for key, asked, unit in (
        ("fps", fps, " Hz"),
        ("crop_size", crop_size, " pixels"),
        ("face_crop", face_crop, ""),
    ):
        has = getattr(settings, key)
        if asked is not None and asked != has:
            has, asked = (one if isinstance(one, str) else f"{one:g}" for one in (has, asked))
            raise UserError(
                f"{data_dir}: was prepared with {key} {has}{unit}, not {asked}; "
                f"prepare again into another --data_dir (main: --config.data.data_dir), or set {key} to {has}"
            )
    for shard, size in sizes.items():
        try:
            found = (data_dir / shard).stat().length
        except OSError as error:
            raise UserError(f"{data_dir / shard}: is missing; prepare again, the others stay") from error
        if found != size:
            raise _damaged(data_dir / shard, f"{found} bytes instead of {size}")
    return PreparedDataset(data_dir, settings, segments, index.get("left_out", {}), skin)


def _read_index(data_dir: epath.Path) -> dict[str, Any]:
    index = read_json(data_dir / INDEX)
    if index is None:
        if (data_dir / PLAN).exists():
            raise UserError(
                f"{data_dir}: its preparation is not finished; run the same `{PREPARE} …` again, it resumes"
            )
        raise UserError(
            f"{data_dir}: holds no prepared dataset; make one with "
            f"`{PREPARE} --dataset=NAME --source=RAW --data_dir={data_dir}`"
        )
    if index.get("format") not in READABLE:
        raise UserError(
            f"{data_dir}: was prepared by another version (format {index.get('format')}, not {FORMAT}); "
            "prepare again into another --data_dir"
        )
    return index


def _damaged(path: epath.Path, detail: str) -> UserError:
    return UserError(f"{path}: is damaged ({detail[:200]}); delete it and prepare again, the others stay")


class PreparedDataset:
    """Face crops of many people, read piece by piece; threads may share it, and it can be pickled.

    Attributes:
      data_dir: Folder it lies in.
      settings: Settings it was prepared with.
      segments: All segments, recording by recording.
      left_out: Id of every recording that could not be prepared (`--keep_going`), and why.
    """

    def __init__(
        self,
        data_dir: epath.Path,
        settings: Settings,
        segments: tuple[Segment, ...],
        left_out: Mapping[str, str],
        skin: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        """See `open_prepared`; `skin` is what the index says of each recording's traces."""
        self.data_dir, self.settings, self.segments, self.left_out = data_dir, settings, segments, left_out
        self._skin = skin or {}
        self._why_unheard = ""
        self._forget_readers()

    def _forget_readers(self) -> None:
        self._readers: OrderedDict[str, array_record_module.ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_readers", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_readers()

    @property
    def fps(self) -> float:
        """Frame rate of the clock, Hz."""
        return self.settings.fps

    @property
    def crop_size(self) -> int:
        """Side of the frames, pixels."""
        return self.settings.crop_size

    @property
    def people(self) -> tuple[str, ...]:
        """Everyone seen, in the order of the recordings."""
        return tuple(dict.fromkeys(segment.person_id for segment in self.segments))

    @property
    def face_crop(self) -> str:
        """What the frames show, 'box' or 'skin'."""
        return self.settings.face_crop

    def only(self, recording_ids: Collection[str]) -> PreparedDataset:
        """Return the dataset restricted to some of the recordings.

        Args:
          recording_ids: Ids of the recordings whose segments stay.
        """
        kept = tuple(segment for segment in self.segments if segment.recording_id in recording_ids)
        other = copy.copy(self)  # heard or not, as it was
        other.segments = kept
        other._forget_readers()
        return other

    @property
    def has_skin(self) -> bool:
        """Whether the skin's traces of every recording are there; an earlier version wrote none."""
        return all(skin_file.is_known(self._skin.get(segment.recording_id)) for segment in self.segments)

    def skin_fallback(self, recording_id: str) -> str:
        """Return why the face was not followed by its landmarks in a recording; '' where it was."""
        return self._skin.get(recording_id, {}).get("fallback", "")

    def without_network(self, why: str) -> PreparedDataset:
        """Return the dataset without the waves of the network that ships with the package.

        Args:
          why: For what reason, for `why_not_learned`.
        """
        other = copy.copy(self)
        other._why_unheard = why
        other._forget_readers()
        return other

    def why_not_learned(self, recording_id: str) -> str:
        """Return why a recording's skin has no network's wave though `predict` has one; '' where it has."""
        if self._why_unheard:
            return self._why_unheard
        facts = self._skin.get(recording_id)
        return skin_file.why_not_learned(facts) if facts else ""

    def skin(self, recording_id: str) -> skin_file.SkinRecord | None:
        """Read what was seen of the skin in a recording.

        Args:
          recording_id: Id of a recording of this dataset.

        Returns:
          The traces; None where there are none, or of another version's layout.

        Raises:
          UserError: The file is missing or damaged.
        """
        facts = self._skin.get(recording_id)
        record = None if facts is None else skin_file.read(self.data_dir, facts)
        return record._replace(learned=()) if record and self._why_unheard else record

    def clip(self, segment: Segment, start: int, length: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read consecutive frames; only the chunks they lie in are read.

        Args:
          segment: Segment of this dataset.
          start: Number of the first frame in the segment.
          length: Number of frames, at least 1.
          out: Array to write to, uint8 [length, s, s, 3]; by default a new one.

        Returns:
          The frames, uint8 [length, s, s, 3] RGB.

        Raises:
          ValueError: The segment does not have those frames.
          UserError: The shard is damaged.
        """
        end = start + length
        if start < 0 or length < 1 or end > segment.n_frames:
            raise ValueError(f"{segment.segment_id} has {segment.n_frames} frames, not {start} to {end - 1}")
        if out is None:
            out = np.empty((length, self.crop_size, self.crop_size, 3), np.uint8)
        step = self.settings.chunk_frames
        for chunk in range(start // step, (end - 1) // step + 1):
            frames, at = self._chunk(segment, chunk)["frames"], chunk * step
            first, last = max(start, at), min(end, at + step)
            out[first - start : last - start] = frames[first - at : last - at]
        return out

    def frames(self, segment: Segment) -> Iterator[np.ndarray]:
        """Stream a segment's frames, with one chunk in memory.

        Yields:
          One frame after the other, uint8 [s, s, 3] RGB.

        Raises:
          UserError: The shard is damaged.
        """
        for chunk in self._chunks(segment):
            yield from chunk["frames"]

    def ppg(self, segment: Segment) -> np.ndarray | None:
        """Read the contact pulse wave on the frames' clock. It is never used in training.

        Returns:
          The wave, float32 [n_frames], NaN where it is missing; None if the segment has none.

        Raises:
          UserError: The shard is damaged.
        """
        if not segment.has_ppg:
            return None
        return np.concatenate([chunk["ppg"] for chunk in self._chunks(segment)])

    def _chunks(self, segment: Segment) -> Iterator[dict[str, Any]]:
        for chunk in range(-(-segment.n_frames // self.settings.chunk_frames)):
            yield self._chunk(segment, chunk)

    def _chunk(self, segment: Segment, chunk: int) -> dict[str, Any]:
        """Read a chunk and check that it is what the index says."""
        path, start = self.data_dir / segment.shard, chunk * self.settings.chunk_frames
        count = min(self.settings.chunk_frames, segment.n_frames - start)
        try:
            record = features(self.crop_size).deserialize_example_np(
                self._read(segment.shard, segment.first_record + chunk)
            )
            is_it = (record["recording_id"].decode(), record["segment"], record["start"])
            lengths = {len(record[key]) for key in ("frames", "ppg", "times_s")}
        # Damage shows as whatever ArrayRecord, protobuf or NumPy make of the bytes.
        except Exception as error:
            raise _damaged(path, " ".join(str(error).split())) from error
        if is_it != (segment.recording_id, segment.number, start) or lengths != {count}:
            raise _damaged(path, f"record {segment.first_record + chunk} is not what the index says")
        return record

    def _read(self, shard: str, record: int) -> bytes:
        return self._reader(shard).read([record])[0]

    def _reader(self, shard: str) -> array_record_module.ArrayRecordReader:
        with self._lock:
            reader = self._readers.pop(shard, None)
            if reader is None:
                reader = array_record_module.ArrayRecordReader(
                    os.fspath(self.data_dir / shard), READER_OPTIONS, file_reader_buffer_size=32768
                )
            self._readers[shard] = reader
            # One that another thread is reading from closes when that thread lets go of it.
            if len(self._readers) > MOST_OPEN:
                self._readers.popitem(last=False)
            return reader

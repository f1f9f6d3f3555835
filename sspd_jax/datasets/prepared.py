"""The prepared dataset: face crops on a uniform clock, in a directory that tensorflow-datasets reads too.

    data_dir/
      ubfc_rppg-recordings.array_record-00000-of-00042  one shard for each recording
      dataset_info.json, features.json                  of tensorflow-datasets
      index.json                                        ours, written last: which record holds what
      preparation.json, recordings/*.json               ours: the settings, and what is finished

A recording is one or several unbroken *segments*, a segment is cut into *chunks* of 1 s, and a chunk is one
record: a clip is read without reading its video. The shards are ArrayRecord files written here, because
`download_and_prepare` needs TensorFlow beyond 1 GB and cannot resume. The frames are stored as plain bytes:
what compressing them without loss would save, and cost, is in `benchmarks/storage.md`.

Paths are `etils.epath`. ArrayRecord reads `gs://` by itself but writes local files only, so a shard of a
remote dataset is written to the local temporary directory and then copied.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath
from tensorflow_datasets.proto import tf_feature_pb2

from sspd_jax import storage
from sspd_jax.command import UserError

FORMAT = 2
SPLIT = "recordings"  # the only one: people are split by the experiment. TFDS reserves the name 'all'
INDEX = "index.json"
PLAN = "preparation.json"
PARTS = "recordings"
CHUNK_S = 1.0
"""Length of a record, s: a 10 s clip reads at most 11 s of video; `benchmarks/storage.md` compares others."""

PREPARE = "python -m sspd_jax.prepare"
ELSEWHERE = "choose another --data_dir, one in a folder that exists and is yours"
# One record to a compressed group: any other number makes random access read its neighbours. One writing
# thread: more would queue up chunks in memory.
WRITER_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
MOST_OPEN = 64  # shards: a dataset can have more recordings than a process may open files


@dataclasses.dataclass(frozen=True)
class Settings:
    """How recordings are prepared.

    Attributes:
      fps: of the clock, Hz.
      crop_size: side of the face crops, pixels.
      resize: 'linear' or 'area', see `sspd_jax.video.crop`.
      max_gap_s: longest gap between two frames that is interpolated, s; a longer one ends the segment.
      face_search_s: how far into a recording the face is searched, s.
      face_detector: 'haar' or 'yunet', see `sspd_jax.video.face`.
      follow_every_s: how often the face is looked for, s, the box following it smoothly; 0: the first face
        found fixes the box, as published.
    """

    fps: float
    crop_size: int
    resize: str
    max_gap_s: float
    face_search_s: float
    face_detector: str = "haar"
    follow_every_s: float = 0.0

    @property
    def chunk_frames(self) -> int:
        """Frames in a record (fewer in a segment's last one)."""
        return round(CHUNK_S * self.fps)


@dataclasses.dataclass(frozen=True)
class Segment:
    """An unbroken stretch of a recording, on a uniform clock.

    Attributes:
      segment_id: the recording's id and the segment's number: 'subject1/0'.
      recording_id: unique in the dataset.
      person_id: who is seen.
      number: of the segment in its recording, from 0.
      start_s: time of its first frame, s since the video's first.
      n_frames: its length.
      has_ppg: whether there is a contact pulse wave for any of it.
      shard: name of the file it lies in.
      first_record: of the shard.
      face_box: left, top, right, bottom of the crop, pixels of the video's frames; of the last frame where
        the face was followed.
      notes: what was left out of the recording or is missing in it, a sentence each.
      meta: what else the dataset tells of the recording (device heart rate, …).
    """

    segment_id: str
    recording_id: str
    person_id: str
    number: int
    start_s: float
    n_frames: int
    has_ppg: bool
    shard: str
    first_record: int
    face_box: tuple[int, int, int, int]
    notes: tuple[str, ...]
    meta: Mapping[str, Any] = dataclasses.field(compare=False)


def shard_name(name: str, number: int, count: int) -> str:
    """Name the shard of a recording as tensorflow-datasets does.

    Args:
      name: of the dataset.
      number: of the recording, from 0.
      count: of all recordings.
    """
    return f"{name}-{SPLIT}.array_record-{number:05d}-of-{count:05d}"


@functools.cache
def features(crop_size: int) -> tfds.features.FeaturesDict:
    """Describe a record to tensorflow-datasets.

    Arrays are stored as raw bytes: as TFDS's integers every pixel would become a 64-bit number in Python, and
    its floats know 32 bits only.
    """
    tensor = functools.partial(tfds.features.Tensor, encoding="bytes")
    return tfds.features.FeaturesDict(
        {
            "recording_id": tfds.features.Text(),
            "person_id": tfds.features.Text(),
            "segment": tfds.features.Scalar(np.int32),
            "start": tfds.features.Scalar(np.int32),
            "frames": tensor(shape=(None, crop_size, crop_size, 3), dtype=np.uint8),
            "ppg": tensor(shape=(None,), dtype=np.float32),
            "times_s": tensor(shape=(None,), dtype=np.float64),
        }
    )


# Writing.


class ShardWriter:
    """Writes one shard aside; it appears under its name when `commit` is called, and not at all otherwise."""

    def __init__(self, path: epath.Path):
        """Open the file aside.

        Args:
          path: of the finished shard.

        Raises:
          StorageError: it cannot be opened.
        """
        self.path = path
        self.count = 0  # records written
        self._folder = None
        if storage.is_remote(path):
            self._folder = tempfile.TemporaryDirectory(prefix="sspd_jax-")
            self._aside = epath.Path(self._folder.name) / path.name
        else:
            self._aside = storage.aside(path)
        with storage.storing(path, ELSEWHERE):
            self._writer = array_record_module.ArrayRecordWriter(os.fspath(self._aside), WRITER_OPTIONS)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None and self._writer.is_open():
            # The file is thrown away: that closing fails too is no news.
            with suppress(RuntimeError):
                self._writer.close()
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)
        if self._folder is not None:
            self._folder.cleanup()

    def write(
        self,
        *,
        recording_id: str,
        person_id: str,
        segment: int,
        start: int,
        frames: np.ndarray,
        ppg: np.ndarray,
        times_s: np.ndarray,
    ) -> None:
        """Write a chunk as one record.

        Args:
          recording_id: of the recording.
          person_id: who is seen.
          segment: its number in the recording.
          start: number of the chunk's first frame in the segment.
          frames: uint8 [n, s, s, 3] RGB.
          ppg: float32 [n], NaN where there is none.
          times_s: float64 [n], s since the video's first frame.

        Raises:
          StorageError: the disk is full, say. It can come a few records late.
        """
        small = tf_feature_pb2.Features()
        for key, value in (
            ("recording_id", recording_id.encode()),
            ("person_id", person_id.encode()),
            ("ppg", ppg.astype(np.float32, copy=False).tobytes()),
            ("times_s", times_s.astype(np.float64, copy=False).tobytes()),
        ):
            small.feature[key].bytes_list.value.append(value)
        small.feature["segment"].int64_list.value.append(segment)
        small.feature["start"].int64_list.value.append(start)
        encoded = _with_frames(small, np.ascontiguousarray(frames, np.uint8))
        with storage.storing(self.path, ELSEWHERE):
            self._writer.write(encoded)
        self.count += 1

    def commit(self) -> int:
        """Finish the shard and give it its name.

        Returns:
          Its size, bytes.

        Raises:
          StorageError: it cannot be written to the end.
        """
        with storage.storing(self.path, ELSEWHERE):
            self._writer.close()
            self._writer = None
            size = self._aside.stat().length
            if self._folder is None:
                self._aside.replace(self.path)
            else:
                self._aside.copy(self.path, overwrite=True)
        return size


def _with_frames(small: tf_feature_pb2.Features, frames: np.ndarray) -> bytes:
    """Serialize a `tf.train.Example` of some features and the frames.

    As protobuf does it, in the order of the features' names; but that copies the frames three times, which
    takes as long as cutting them out of their pictures. So they are put in front of the rest here.

    Args:
      small: the other features, whose names come after 'frames'.
      frames: uint8, contiguous.
    """
    # A map is serialized in an order of its own unless one asks for a fixed one.
    rest = small.SerializeToString(deterministic=True)
    heads = [b""]
    # Outwards: BytesList.value, Feature.bytes_list, value and key of the map's entry, Features.feature.
    for before in (b"\x0a", b"\x0a", b"\x0a\x06frames\x12", b"\x0a"):
        inner = frames.nbytes + sum(map(len, heads))
        heads[0:0] = [before, _varint(inner)]
    head = b"".join(heads)
    features_size = len(head) + frames.nbytes + len(rest)
    return b"".join([b"\x0a", _varint(features_size), head, frames.data, rest])  # Example.features


def _varint(number: int) -> bytes:
    """Write a number as protobuf does: 7 bits a byte, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_json(path: epath.Path, table: Mapping[str, Any]) -> None:
    """Write a table, aside and renamed.

    Raises:
      StorageError: it cannot be written.
    """
    storage.write_text(path, json.dumps(table, ensure_ascii=False) + "\n", otherwise=ELSEWHERE)


def read_json(path: epath.Path) -> dict[str, Any] | None:
    """Read a table; None if there is no such file.

    Raises:
      UserError: it is damaged or cannot be read.
    """
    try:
        table = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is damaged or cannot be read; delete it and prepare again") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: is damaged; delete it and prepare again")
    return table


def write_index(
    data_dir: epath.Path,
    name: str,
    settings: Settings,
    recordings: list[dict[str, Any]],
    left_out: Mapping[str, str],
) -> None:
    """Make a dataset of finished shards: tensorflow-datasets' metadata first, then our index.

    Args:
      data_dir: with the shards.
      name: of the dataset.
      settings: it was prepared with.
      recordings: facts of every recording, those left out included, in the order of their shards; see
        `sspd_jax.prepare`.
      left_out: recording id → why.

    Raises:
      StorageError: something cannot be written.
    """
    template = tfds.core.ShardedFileTemplate(
        data_dir=data_dir, dataset_name=name, split=SPLIT, filetype_suffix="array_record"
    )
    whole = tfds.core.SplitInfo(
        name=SPLIT,
        # TFDS passes over shards of length 0: those of recordings that were left out need not exist.
        shard_lengths=[sum(s["n_records"] for s in r.get("segments", ())) for r in recordings],
        num_bytes=sum(r.get("shard_bytes", 0) for r in recordings),
        filename_template=template,
    )
    with storage.storing(data_dir, ELSEWHERE):
        tfds.folder_dataset.write_metadata(
            data_dir=data_dir,
            features=features(settings.crop_size),
            split_infos=[whole],
            version="1.0.0",
            check_data=False,
            description="Face crops on a uniform clock, prepared by sspd_jax.",
        )
    write_json(
        data_dir / INDEX,
        {
            "format": FORMAT,
            "name": name,
            "settings": dataclasses.asdict(settings),
            "recordings": [r for r in recordings if "segments" in r],
            "left_out": dict(left_out),
        },
    )


# Reading.


def open_prepared(
    data_dir: epath.PathLike, *, fps: float | None = None, crop_size: int | None = None
) -> PreparedDataset:
    """Open a prepared dataset; reads its index and looks at the shards' sizes, nothing more.

    Args:
      data_dir: where `sspd_jax.prepare` wrote it.
      fps: Hz, if it must have been prepared so.
      crop_size: pixels, likewise.

    Returns:
      The dataset.

    Raises:
      UserError: it is missing, unfinished or damaged, or was prepared otherwise.
    """
    data_dir = epath.Path(data_dir)
    index = read_json(data_dir / INDEX)
    if index is None:
        if (data_dir / PLAN).exists():
            raise UserError(
                f"{data_dir}: its preparation is not finished; run the same `{PREPARE} …` again, it resumes"
            )
        raise UserError(
            f"{data_dir}: holds no prepared dataset; make one with "
            f"`{PREPARE} --dataset=ubfc_rppg --source=RAW --data_dir={data_dir}`"
        )
    if index.get("format") != FORMAT:
        raise UserError(
            f"{data_dir}: was prepared by another version (format {index.get('format')}, not {FORMAT}); "
            "prepare again into another --data_dir"
        )
    try:
        settings = Settings(**index["settings"])
        segments = tuple(
            _segment(recording, number)
            for recording in index["recordings"]
            for number in range(len(recording["segments"]))
        )
        sizes = {recording["shard"]: recording["shard_bytes"] for recording in index["recordings"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{data_dir / INDEX}: is damaged; delete it and prepare again") from error
    for key, asked, unit in (("fps", fps, " Hz"), ("crop_size", crop_size, " pixels")):
        has = getattr(settings, key)
        if asked is not None and asked != has:
            raise UserError(
                f"{data_dir}: was prepared with {key} {has:g}{unit}, not {asked:g}; "
                f"prepare again into another --data_dir, or set {key} to {has:g}"
            )
    for shard, size in sizes.items():
        try:
            found = (data_dir / shard).stat().length
        except OSError as error:
            raise UserError(f"{data_dir / shard}: is missing; prepare again, the others stay") from error
        if found != size:
            raise _damaged(data_dir / shard, f"{found} bytes instead of {size}")
    return PreparedDataset(data_dir, settings, segments, index.get("left_out", {}))


def _segment(recording: Mapping[str, Any], number: int) -> Segment:
    facts = recording["segments"][number]
    return Segment(
        segment_id=f"{recording['recording_id']}/{number}",
        recording_id=recording["recording_id"],
        person_id=recording["person_id"],
        number=number,
        start_s=facts["start_s"],
        n_frames=facts["n_frames"],
        has_ppg=facts["has_ppg"],
        shard=recording["shard"],
        first_record=facts["first_record"],
        face_box=tuple(recording["face_box"]),
        notes=tuple(recording["notes"]),
        meta=recording["meta"],
    )


def _damaged(path: epath.Path, detail: str) -> UserError:
    return UserError(f"{path}: is damaged ({detail[:200]}); delete it and prepare again, the others stay")


class PreparedDataset:
    """Face crops of many people, read piece by piece; threads may share it, and it can be pickled.

    Attributes:
      data_dir: where it lies.
      settings: it was prepared with.
      segments: all of them, recording by recording.
      left_out: recording id → why it could not be prepared (`--keep_going`).
    """

    def __init__(
        self,
        data_dir: epath.Path,
        settings: Settings,
        segments: tuple[Segment, ...],
        left_out: Mapping[str, str],
    ):
        """See `open_prepared`."""
        self.data_dir, self.settings, self.segments, self.left_out = data_dir, settings, segments, left_out
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
        """Rate of the clock, Hz."""
        return self.settings.fps

    @property
    def crop_size(self) -> int:
        """Side of the frames, pixels."""
        return self.settings.crop_size

    @property
    def people(self) -> tuple[str, ...]:
        """Everyone seen, in the order of the recordings."""
        return tuple(dict.fromkeys(segment.person_id for segment in self.segments))

    def only(self, recording_ids: Collection[str]) -> PreparedDataset:
        """Return the dataset of some of the recordings.

        Args:
          recording_ids: whose segments stay.
        """
        kept = tuple(segment for segment in self.segments if segment.recording_id in recording_ids)
        return PreparedDataset(self.data_dir, self.settings, kept, self.left_out)

    def clip(self, segment: Segment, start: int, length: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read consecutive frames; only the chunks they lie in are read.

        Args:
          segment: of this dataset.
          start: number of the first frame.
          length: how many, ≥ 1.
          out: uint8 [length, s, s, 3] to write to; by default a new array.

        Returns:
          uint8 [length, s, s, 3] RGB.

        Raises:
          ValueError: frames that the segment does not have.
          UserError: the shard is damaged.
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
        """Stream a segment: yields uint8 [s, s, 3] RGB; holds one chunk in memory.

        Raises:
          UserError: the shard is damaged.
        """
        for chunk in self._chunks(segment):
            yield from chunk["frames"]

    def ppg(self, segment: Segment) -> np.ndarray | None:
        """Read the contact pulse wave on the frames' clock. It is never used in training.

        Returns:
          float32 [n_frames], NaN where it is missing; None if the segment has none.

        Raises:
          UserError: the shard is damaged.
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

"""What a prepared recording should be stored like: chunk length and encoding, beside size and reading time.

    python benchmarks/speed/storage.py

Writes storage.md beside this file. What is stored are the crops of a simulated face (camera noise included);
every row writes them by the package's own writer, with another chunk length or encoding, and reads them by
its own reader.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from array_record.python import array_record_module
from etils import epath

from sspd_jax.datasets import format, writer
from sspd_jax.datasets.dataset import READER_OPTIONS, PreparedDataset, open_prepared
from sspd_jax.datasets.format import Segment, Settings
from sspd_jax.runtime import storage

REPORT = Path(__file__).with_suffix(".md")
FPS, SIZE, CLIP = 30, 151, 301
SECONDS, TIMES = 60, 4  # of simulated video, and how often it is stored, one after the other
CLIPS = 16  # random ones
PNG_LEVEL = 1
PLAIN = "uncompressed"
ROWS = (
    *((length_s, PLAIN) for length_s in (0.5, 1, 2, 4, 10)),
    *((2, encoding) for encoding in ("snappy", "zstd:1", "zstd:3", "zstd:9", "PNG")),
)


class Row(NamedTuple):
    """What was measured of one way to store.

    Attributes:
      size: bytes.
      written: frames in a second of CPU time.
      clip_s: median CPU time to read 10 s, what is read being in memory already.
      cold_s: median time likewise, read from the disk.
      whole_s: CPU time to read all of it, in memory already.
    """

    size: int
    written: float
    clip_s: float
    cold_s: float
    whole_s: float


def crops(folder: Path) -> np.ndarray:
    """Simulate and prepare a face; returns uint8 [t, 151, 151, 3]."""
    raw = folder / "raw"
    for command in (
        ["simulate", raw, "--people=1", f"--seconds={SECONDS}"],
        ["prepare", "--dataset=ubfc_rppg", f"--source={raw}", f"--data_dir={folder / 'a'}"],
    ):
        subprocess.run(
            [sys.executable, "-m", "sspd_jax", *map(str, command)], check=True, capture_output=True
        )
    dataset = open_prepared(folder / "a")
    return dataset.clip(dataset.segments[0], 0, dataset.segments[0].n_frames)


def store(path: Path, frames: np.ndarray, step: int, encoding: str) -> float:
    """Write a shard; returns the seconds of CPU time that it took."""
    began = time.process_time()
    if encoding == "PNG":
        records = array_record_module.ArrayRecordWriter(os.fspath(path), writer.WRITER_OPTIONS)
        for chunk in in_chunks(frames, step):
            level = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL]
            pictures = [cv2.imencode(".png", picture, level)[1].tobytes() for picture in chunk]
            lengths = np.array([len(chunk), *map(len, pictures)], np.int32)
            records.write(lengths.tobytes() + b"".join(pictures))
        records.close()
        return time.process_time() - began
    usual, writer.WRITER_OPTIONS = writer.WRITER_OPTIONS, writer.WRITER_OPTIONS.replace(PLAIN, encoding)
    try:
        with writer.ShardWriter(epath.Path(path)) as shard:
            for number, chunk in enumerate(in_chunks(frames, step)):
                start = number * step
                shard.write(
                    recording_id="a",
                    person_id="a",
                    segment=0,
                    start=start,
                    frames=chunk,
                    ppg=np.zeros(len(chunk), np.float32),
                    times_s=(start + np.arange(len(chunk))) / FPS,
                )
            shard.commit()
    finally:
        writer.WRITER_OPTIONS = usual
    return time.process_time() - began


def in_chunks(frames: np.ndarray, step: int) -> Iterator[np.ndarray]:
    """Cut what is stored, the frames over and over, into chunks of `step` frames."""
    for start in range(0, TIMES * len(frames), step):
        stop = min(start + step, TIMES * len(frames))
        yield frames[np.arange(start, stop) % len(frames)]


def reader(path: Path, n_frames: int, step: int, encoding: str) -> Callable[[int, int], np.ndarray]:
    """Return what reads a clip: (first frame, length) → uint8 [length, 151, 151, 3]."""
    if encoding == "PNG":
        records = array_record_module.ArrayRecordReader(
            os.fspath(path), READER_OPTIONS, file_reader_buffer_size=32768
        )

        def read(start: int, length: int) -> np.ndarray:
            out = np.empty((length, SIZE, SIZE, 3), np.uint8)
            for chunk in range(start // step, (start + length - 1) // step + 1):
                data = records.read([chunk])[0]
                count = int(np.frombuffer(data, np.int32, 1)[0])
                lengths = np.frombuffer(data, np.int32, count, 4)
                ends = 4 * (count + 1) + np.cumsum(lengths)
                for number, (size, end) in enumerate(zip(lengths, ends, strict=True)):
                    at = chunk * step + number - start
                    if 0 <= at < length:
                        picture = np.frombuffer(data, np.uint8, size, end - size)
                        out[at] = cv2.imdecode(picture, cv2.IMREAD_COLOR)
            return out

        return read
    settings = Settings(FPS, SIZE, "linear", 0.5, 30.0)
    segment = Segment("a/0", "a", "a", 0, 0.0, n_frames, True, path.name, 0, (0, 0, SIZE, SIZE), (), {})
    dataset = PreparedDataset(epath.Path(path.parent), settings, (segment,), {})
    return lambda start, length: dataset.clip(segment, start, length)


def forget(path: Path) -> None:
    """Let the system drop a file from memory."""
    handle = os.open(path, os.O_RDWR)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def measure(folder: Path, frames: np.ndarray, length_s: float, encoding: str) -> Row:
    """Store the frames one way and read them."""
    usual, format.CHUNK_S = format.CHUNK_S, length_s
    path, step, n_frames = folder / "shard", round(length_s * FPS), TIMES * len(frames)
    try:
        used = store(path, frames, step, encoding)
        read = reader(path, n_frames, step, encoding)
        starts = np.random.default_rng(0).integers(0, n_frames - CLIP, CLIPS)
        cold, warm = [], []
        for start in starts:
            forget(path)
            cold.append(timed(read, start, CLIP, time.perf_counter))
            warm.append(timed(read, start, CLIP))
            right = frames[np.arange(start, start + CLIP) % len(frames)]
            assert np.array_equal(read(start, CLIP), right)
        read(0, n_frames)
        whole = min(timed(read, 0, n_frames) for _ in range(2))
        return Row(
            path.stat().st_size, n_frames / used, float(np.median(warm)), float(np.median(cold)), whole
        )
    finally:
        format.CHUNK_S = usual
        path.unlink(missing_ok=True)


def timed(
    read: Callable[[int, int], np.ndarray],
    start: int,
    length: int,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Return how long reading a clip takes by a clock, s; that of the CPU counts no other program's time."""
    began = clock()
    read(int(start), length)
    return clock() - began


def main() -> None:
    """Measure, and write the report."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        frames = crops(Path(name))
        for length_s, encoding in ROWS:
            rows[length_s, encoding] = row = measure(Path(name), frames, length_s, encoding)
            print(f"{length_s:g} s, {encoding}: {row}", flush=True)
    report(rows, TIMES * frames.nbytes)


def report(rows: dict[tuple[float, str], Row], raw: int) -> None:
    """Write the report.

    Args:
      rows: what was measured, by length of the chunks, s, and encoding.
      raw: bytes of the pixels.
    """
    default = rows[format.CHUNK_S, PLAIN]
    lines = [
        f"| {length_s:g} s | {encoding} | {row.size / 1e6:.0f} MB | {row.size / raw:.2f} | {row.written:.0f} "
        f"| {1e3 * row.clip_s:.0f} ms | {1e3 * row.cold_s:.0f} ms | {1e3 * row.whole_s:.0f} ms "
        f"| {row.whole_s / row.clip_s:.0f} × |"
        for (length_s, encoding), row in rows.items()
    ]
    least = min((row.clip_s, key) for key, row in rows.items())
    smallest = min((row.size, key) for key, row in rows.items())
    times = rows[smallest[1]].clip_s / default.clip_s
    clip_s, ratio = default.clip_s, default.whole_s / default.clip_s
    text = f"""# Storage: chunk length and encoding

`python benchmarks/speed/storage.py`: the crops of a simulated face with camera noise, {SIZE} × {SIZE} × 3
bytes at {FPS} Hz, {SECONDS} s stored {TIMES} times over: {raw / 1e6:.0f} MB, {TIMES * SECONDS / 60:g}
minutes. One thread reads {CLIPS} random clips of {CLIP} frames (10 s) by the package's own reader. Memory:
the file is in the system's cache; CPU time, as for the whole record. Disk: the file was dropped from there;
time by the clock, on whatever disk there is. Written: frames a second of CPU time.
The load average was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end.

| chunk | encoding | size | of raw | written | clip, memory | clip, disk | whole record | whole : clip |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

The default is chunks of {format.CHUNK_S:g} s, {PLAIN}: a random clip in {1e3 * clip_s:.0f} ms, {ratio:.0f}
times faster than the whole record. The fastest row is {least[1][0]:g} s, {least[1][1]}, with
{1e3 * least[0]:.0f} ms; the smallest {smallest[1][0]:g} s, {smallest[1][1]}, with {smallest[0] / raw:.2f}
of the raw size, whose clips take {times:.1f} times as long as the default's: a training reads every clip many
times, so time is what counts here. Half the default's length makes twice as many records for what it gains.
Encodings with loss are not offered: they alter the colours that the pulse is read from.
"""
    storage.write_text(REPORT, text)


if __name__ == "__main__":
    main()

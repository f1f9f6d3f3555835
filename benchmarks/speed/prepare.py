"""How fast recordings are prepared, beside what cannot be saved: decoding, RGB, crop and area resize alone.

    python benchmarks/speed/prepare.py

Writes prepare.md beside this file. Both ways run in turn, each in a process of its own, and count the
seconds of CPU time that they use (all threads), so that other programs on the machine matter less.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.runtime import storage
from sspd_jax.simulation import sample_video

REPORT = Path(__file__).with_suffix(".md")
FPS, SECONDS, SIZE = 30, 20, (640, 480)
ROUNDS = 3
LARGE = ((1920, 1080), (3840, 2160))

ALONE = """
import sys, time
from sspd_jax.video import crop, decode, face_detection
frames = decode.frames(sys.argv[1])
box = face_detection.widen(face_detection.HaarDetector().detect(next(frames)[1]), 640, 480)
began, count = time.process_time(), 0
for _, rgb in decode.frames(sys.argv[1]):
    crop.crop(rgb, box, 151, "area")
    count += 1
print(count, time.process_time() - began)
"""
PREPARED = """
import sys, time
from pathlib import Path
from sspd_jax.datasets import preparation, prepare
if "most" in sys.argv:
    prepare.decoder_threads = lambda count: preparation.MOST_THREADS
from sspd_jax.datasets.readers import registry
began = time.process_time()
recordings = registry.read("folder", sys.argv[1])
# The crops alone: what the skin's traces cost is that of the face networks.
report = prepare.prepare(recordings, sys.argv[2], resize="area", skin=False, progress=False)
used = time.process_time() - began
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(round(report.seconds * 30), used, int(peak) / 1024, report.size_bytes)
"""


def pictures(times_s: np.ndarray, width: int, height: int):
    """Yield the sample's face in the middle of a larger picture, uint8 [height, width, 3]."""
    side = height * 4 // 5
    top, left = (height - side) // 2, (width - side) // 2
    for face in sample_video.face_frames(times_s, 72, 0):
        picture = np.full((height, width, 3), 90, np.uint8)
        picture[top : top + side, left : left + side] = cv2.resize(face, (side, side))
        yield picture


def run(code: str, *arguments: object) -> list[float]:
    """Run code in a process of its own and return the numbers that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Measure, and write the report."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, codec in (("uncompressed AVI", "rawvideo"), ("H.264 MP4", "libx264")):
            raw = Path(folder) / codec
            raw.mkdir()
            video = raw / ("a.avi" if codec == "rawvideo" else "a.mp4")
            times_s = np.arange(FPS * SECONDS) / FPS
            sample_video.write_video(video, pictures(times_s, *SIZE), times_s, codec=codec)
            alone, prepared = [], []
            for number in range(ROUNDS):
                frames, used = run(ALONE, video)
                alone.append(frames / used)
                frames, used, peak, size = run(PREPARED, raw, Path(folder) / f"{codec}-{number}")
                prepared.append(frames / used)
            one, other = np.median(alone), np.median(prepared)
            speeds = f"{one:.0f} | {other:.0f} | {other / one:.2f}"
            rows.append(f"| {name} | {speeds} | {peak:.0f} MiB | {size / 1e6:.0f} MB |")
            print(rows[-1])
            video.unlink()
        large = []
        for width, height in LARGE:
            raw = Path(folder) / f"{width}"
            raw.mkdir()
            times_s = np.arange(45) / FPS
            sample_video.write_video(
                raw / "a.mp4", pictures(times_s, width, height), times_s, codec="libx264"
            )
            peak = run(PREPARED, raw, Path(folder) / f"out-{width}", "most")[2]
            large.append(f"{width} × {height}: {peak:.0f} MiB")
            print(large[-1])
    text = f"""# Preparing recordings: speed and memory

`python benchmarks/speed/prepare.py`: {SECONDS} s of 640 × 480 pixels at {FPS} Hz, one recording, crops of
151 × 151, median of {ROUNDS} rounds in turn. Frames per second of CPU time, all threads counted; the load
average was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end. "Alone" is decoding, conversion to
RGB, crop and area resize, nothing else; "prepare" is all of the command's work: reader, checks, face search,
clock, shard, index.

| video | alone | prepare | share | peak memory | size of the shard |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Peak memory with larger pictures, 45 frames of H.264, as many threads as a worker decodes with at most (4):
{"; ".join(large)}.
"""
    storage.write_text(REPORT, text)


if __name__ == "__main__":
    main()

"""How fast the live rate is: frames per second at full speed, and the latency at the camera's own.

    python benchmarks/speed/live.py [--checkpoint=DIR] [--seconds=30]

Films a simulated face of 640 × 480 pixels at 30 Hz and pushes the file through `live.watch`, by POS and by a
network of the published size at 128 × 128 pixels (random weights where no checkpoint is named: speed does not
depend on them): as fast as it goes, decoding included, and at its own pace as a camera would. Writes live.md
beside this file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import jax
import numpy as np

from sspd_jax.cli import common
from sspd_jax.inference import live
from sspd_jax.inference.model import RppgModel, load_model
from sspd_jax.method import network, settings
from sspd_jax.runtime import storage
from sspd_jax.simulation import sample_video
from sspd_jax.video import camera, decode, face_stream

REPORT = Path(__file__).with_name("live.md")
FPS = 30.0
WIDTH, HEIGHT, FACE = 640, 480, 440  # pixels


def film(path: Path, seconds: float) -> None:
    """Write the portrait with a pulse, on a wall, as large as a webcam's picture."""
    times_s = np.arange(round(seconds * FPS)) / FPS
    left, top = (WIDTH - FACE) // 2, HEIGHT - FACE

    def pictures() -> Iterator[np.ndarray]:
        for portrait in sample_video.face_frames(times_s, 72.0, 0):
            picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            picture[top:, left : left + FACE] = cv2.resize(portrait, (FACE, FACE))
            yield picture

    sample_video.write_video(path, pictures(), times_s)


def published_size() -> RppgModel:
    """Draw a network of the published size."""
    params, batch_stats = network.init_variables(settings.NetworkSettings(), jax.random.key(0))
    params.pop("ts")
    return RppgModel(settings.NetworkSettings(), params, batch_stats, FPS, face_stream.SIZE, "random weights")


class Counted:
    """Frames that note how many they are and when the first was asked for: what compiles is before."""

    def __init__(self, frames: Iterable):
        self.frames, self.count, self.start_s = frames, 0, 0.0

    def __iter__(self):
        self.start_s = time.perf_counter()
        for frame in self.frames:
            self.count += 1
            yield frame


def measure(path: Path, method: str, reader: RppgModel | None) -> str:
    """Measure one method; returns a row of the table."""
    how = {"method": method, "model": reader}
    frames = Counted(decode.frames(path))
    updates = live.watch(frames, FPS, **how)
    busy = time.process_time()
    for _ in updates:
        pass
    wall_s, busy_s = time.perf_counter() - frames.start_s, time.process_time() - busy

    feed = camera.as_live(path)
    shown = [update for update in live.watch(feed, feed.fps, **how) if len(update.wave.values)]
    waits = [update.latency_s for update in shown] or [float("nan")]
    name = method if reader is None else f"{method}, {reader.name}"
    return (
        f"| {name} | **{frames.count / wall_s:.0f}** | {1000 * busy_s / frames.count:.1f} | "
        f"{np.median(waits):.2f} | {np.percentile(waits, 95):.2f} | {feed.dropped} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser("benchmarks/speed/live.py", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", metavar="DIR", help="network to read with (default: random weights)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of film (default: %(default)g)")
    args = parser.parse_args(argv)

    def work():
        reader = load_model(args.checkpoint) if args.checkpoint else published_size()
        rows, loads = [], []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            film(path, args.seconds)
            for method, net in (("pos", None), ("sspd", reader)):
                loads.append(os.getloadavg()[0])
                rows.append(measure(path, method, net))
                print(rows[-1], flush=True)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        text = f"""# Live: speed and latency

`python benchmarks/speed/live.py`: {args.seconds:g} s of a simulated face, {WIDTH} × {HEIGHT} pixels at
{FPS:g} Hz, through `live.watch` on {cores} CPU cores, at niceness {os.getpriority(os.PRIO_PROCESS, 0)}.
Other programs ran: the load average (1 min) was {", ".join(f"{load:.1f}" for load in loads)} before the rows,
of which this program accounts for two at most.

| method | frames/s at full speed | CPU ms/frame | latency, s (median) | 95 % | dropped |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Frames/s: decoding, finding and cutting the face, the wave, rate and confidence, as fast as it goes; 30 are
needed. CPU time is that of all threads: divided by the cores, it says what a computer without other work
reaches. Latency: from the moment the newest sample of the wave was filmed until the update, the file played
at its own pace; dropped: frames of that run. A network of the published size waits 0.4 s for the frames after
a sample.
"""
        storage.write_text(REPORT, text)
        print(text)

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

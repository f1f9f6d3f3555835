"""Whether memory, threads and descriptors stay flat when the commands run for long.

    python benchmarks/robustness/soak.py                                        # hours
    python benchmarks/robustness/soak.py --videos=12 --frames=1500 --epochs=40  # minutes

Three parts, each a process of its own that is looked at once a second from outside:

predict    one `sspd_jax predict` over many videos, every tenth damaged, with JSON and CSV files
live       `sspd_jax.watch` over many frames and its page, with clients that come, stall and go
training   `sspd_jax.main` on a tiny network, an epoch after the other

Rows are appended to --folder/soak.csv. What was stopped goes on with the same command: finished parts are
passed over, a training goes on from its checkpoint, videos that were read are not read again. The table is
of the last run of each part: its last quarter is compared with its second. Results are in soak.md.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
FIELDS = ("part", "run", "time_s", "done", "of", "memory_mb", "threads", "descriptors")
PARTS = ("predict", "live", "training")
EVERY_S = 1.0
GROWTH_MB, GROWTH = 15.0, 0.03  # from the second quarter to the last: more is not flat
CLIP_S = 6.0


def main() -> int:
    """Run what is left of the three parts, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--frames", type=int, default=30_000, help="of the live part")
    parser.add_argument("--epochs", type=int, default=200, help="of the training")
    parser.add_argument("--folder", type=Path, default=Path("workdir/soak"))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)  # the live part's own process
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)
    args.folder.mkdir(parents=True, exist_ok=True)
    sizes = dict(zip(PARTS, (args.videos, args.frames, args.epochs), strict=True))
    for part in args.parts.split(","):
        globals()[f"soak_{part}"](args.folder, sizes[part])
    print(table(read_rows(args.folder)))
    return 0


def soak_predict(folder: Path, count: int) -> None:
    """Read the videos that no earlier run has read."""
    from sspd_jax.simulation import sample_video

    whole = folder / "whole.mp4"
    if not whole.exists():
        sample_video.write_face_video(whole, seconds=CLIP_S, bpm=80)
    data = whole.read_bytes()
    videos = [folder / "videos" / f"{number:04d}.mp4" for number in range(count)]
    videos[0].parent.mkdir(exist_ok=True)
    for number, video in enumerate(videos):
        if not video.exists():
            video.write_bytes(data[: len(data) // 2] if number % 10 == 9 else data)
    files = [path for path in folder.glob("results*.json") if path.stat().st_size]
    results = [json.loads(path.read_text()) for path in files]
    read = {one["file"] for found in results for one in (found if isinstance(found, list) else [found])}
    left = [video for video in videos if str(video) not in read]
    if not left:
        return
    out = folder / f"results{len(files)}.json"
    command = [*("-m", "sspd_jax", "predict", *map(str, left)), f"--json={out}", f"--csv={out}.csv"]
    watched = Watched(folder, "predict", command, count)
    said = 0

    def done() -> int:
        nonlocal said
        said += sum(1 for line in watched.new_lines() if line.startswith((str(folder), "error: ")))
        return len(read) + said

    watched.watch(done)
    found = json.loads(out.read_text())
    told = sum(1 for one in found if "error" in one)
    print(f"predict: {len(found)} of {len(left)} videos are in the file, {told} with a sentence", flush=True)


def soak_live(folder: Path, count: int) -> None:
    """Watch frames without a pause while clients come, stall and go."""
    if is_finished(folder, "live", count):
        return
    watched = Watched(folder, "live", [str(Path(__file__).resolve()), f"--serve={count}"], count)
    frames, stop, clients = 0, threading.Event(), []

    def done() -> int:
        nonlocal frames
        for line in watched.new_lines():
            if line.startswith("http"):
                clients.extend(start_clients(line.strip(), stop))
            elif line.strip().isdecimal():
                frames = int(line)
        return frames

    try:
        watched.watch(done)
    finally:
        stop.set()
        for client in clients:
            client.join()


def soak_training(folder: Path, count: int) -> None:
    """Train a tiny network to its end, from the last checkpoint if there is one."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import small_run

    if is_finished(folder, "training", count):
        return
    if not (folder / "people").exists():
        small_run.prepare_people(folder / "people")
    values = {**small_run.OVERRIDES, "data.data_dir": (folder / "people").absolute(), "epochs": count}
    metrics = folder / f"training{count}" / "metrics.jsonl"
    command = [
        *("-m", "sspd_jax.main", f"--config={ROOT}/configs/ubfc.py:released", "--no_progress"),
        f"--workdir={metrics.parent}",
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]

    def done() -> int:
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return json.loads(lines[-1])["epoch"] if lines else 0

    Watched(folder, "training", command, count).watch(done)


class Watched:
    """A process, what it says, and a row a second of what it holds."""

    def __init__(self, folder: Path, part: str, arguments: list[str], of: int):
        self._rows, self._said, self._read = folder / "soak.csv", folder / f"{part}.said", 0
        runs = [int(row["run"]) for row in read_rows(folder) if row["part"] == part]
        self._facts = {"part": part, "run": max(runs, default=0) + 1, "of": of}
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [sys.executable, *arguments], cwd=Path.cwd(), stdout=said, stderr=said
            )

    def new_lines(self) -> Iterator[str]:
        """Yield the lines that were said since the last call."""
        with self._said.open() as said:
            said.seek(self._read)
            while (line := said.readline()).endswith("\n"):
                self._read = said.tell()
                yield line

    def watch(self, done: Callable[[], int]) -> None:
        """Write a row a second until the process ends."""
        began, is_new = time.monotonic(), not self._rows.exists()
        with self._rows.open("a", newline="") as file:
            rows = csv.DictWriter(file, FIELDS)
            if is_new:
                rows.writeheader()
            last = None
            try:
                while self._process.poll() is None:
                    if held := look_at(self._process.pid):
                        last = held
                        now = {"time_s": round(time.monotonic() - began, 1), "done": done()}
                        rows.writerow({**self._facts, **now, **held})
                        file.flush()
                    time.sleep(EVERY_S)
                if last:  # what was done since
                    now = {"time_s": round(time.monotonic() - began, 1), "done": done()}
                    rows.writerow({**self._facts, **now, **last})
            finally:
                self._process.kill()
                self._process.wait()


def look_at(pid: int) -> dict[str, float] | None:
    """Read memory in MB, threads and descriptors of a process; None where it has just ended."""
    with contextlib.suppress(OSError, KeyError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        return {
            "memory_mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
            "threads": int(status["Threads"]),
            "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        }
    return None


def serve(count: int) -> int:
    """Watch a looped film of `count` frames and show it; prints the page's address, then how many came."""
    import sspd_jax
    from sspd_jax.inference.live import as_json
    from sspd_jax.inference.server import Page
    from sspd_jax.simulation import sample_video

    loop = list(sample_video.face_frames(np.arange(150) / 30, 72.0, 0))  # 5 s: six whole beats
    newest: list[tuple[float, np.ndarray]] = []

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for number, picture in zip(range(count), itertools.cycle(loop), strict=False):
            newest[:] = [(number / 30, picture)]
            if number % 30 == 0:
                print(number, flush=True)
            yield number / 30, picture

    page = Page(0, {"source": "soak"}, lambda: newest[0] if newest else None)
    with contextlib.closing(page):
        print(page.url, flush=True)
        for update in sspd_jax.watch(frames(), 30):
            page.publish(as_json(update))
        print(count, flush=True)
    return 0


def start_clients(url: str, stop: threading.Event) -> list[threading.Thread]:
    """Start a client of each kind: one that comes, one that stalls, one that goes at once."""
    host, port = url.removeprefix("http://").split(":")

    def ask(path: str) -> socket.socket:
        client = socket.create_connection((host, int(port)), timeout=5)
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return client

    def comes() -> None:
        for path in ("/state.json", "/picture.jpg", "/"):
            urllib.request.urlopen(url + path, timeout=5).read()

    def stalls() -> None:
        held = [ask("/events") for _ in range(5)]
        stop.wait(5)
        for client in held:
            client.close()

    def goes() -> None:
        ask("/picture.jpg").close()

    def again(work: Callable[[], None]) -> None:
        while not stop.wait(0.2):
            with contextlib.suppress(OSError):  # the page is full, or has closed
                work()

    clients = [threading.Thread(target=again, args=(work,), daemon=True) for work in (comes, stalls, goes)]
    for client in clients:
        client.start()
    return clients


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Read all rows so far; a line that a kill cut off is left out."""
    path = folder / "soak.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["descriptors"]]


def is_finished(folder: Path, part: str, of: int) -> bool:
    """Return whether an earlier run of a part came to its end."""
    rows = [row for row in read_rows(folder) if row["part"] == part and int(row["of"]) == of]
    return any(int(row["done"]) >= of for row in rows)


def table(rows: list[dict[str, str]]) -> str:
    """Write the last run of each part as a table, and whether it is flat."""
    lines = [
        "| part | done | seconds | memory, MB: 2nd quarter, last | threads | descriptors | flat |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        mine = [row for row in rows if row["part"] == part]
        mine = [row for row in mine if row["run"] == mine[-1]["run"]]
        if len(mine) < 8:
            continue
        quarter = len(mine) // 4
        early, late = mine[quarter : 2 * quarter], mine[-quarter:]
        pairs = {
            name: [max(float(row[name]) for row in some) for some in (early, late)] for name in FIELDS[-3:]
        }
        memory = pairs["memory_mb"]
        flat = memory[1] <= memory[0] * (1 + GROWTH) + GROWTH_MB and all(
            pairs[name][1] <= pairs[name][0] + 5 for name in ("threads", "descriptors")
        )
        cells = [", ".join(f"{value:.0f}" for value in pairs[name]) for name in FIELDS[-3:]]
        done = f"{mine[-1]['done']} of {mine[-1]['of']}"
        lines.append(
            f"| {part} | {done} | {float(mine[-1]['time_s']):.0f} | {' | '.join(cells)} | ",
        )
        lines[-1] += f"{'yes' if flat else '**no**'} |"
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

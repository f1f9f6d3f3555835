"""How many frames a second the page in the browser reads, and what each stage of it takes.

    python benchmarks/speed/web_page.py [--seconds=30] [--rounds=3]

Films a simulated face of 640 × 480 pixels at 30 Hz (`live.film`), lets the fake camera of a headless
Chromium play it before the page that `sspd_jax web` writes, and asks the page what it counted between two
moments. Then each network is run alone in the same browser, by the runtime's build without threads, by the
one with, on one thread and on two (the page is isolated for it by headers), and by the one for WebGPU, where
the processor stands in for a graphics processor. Needs npm and Chromium.
Writes web_page.md and web_page.json beside this file. Where Linux groups processes by session, `nice` alone
does not put this before other work: `echo -20 > /proc/self/autogroup` does.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from live import FPS, HEIGHT, WIDTH, film

from sspd_jax.cli import common
from sspd_jax.inference import site
from sspd_jax.runtime import storage

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
import browser

REPORT = Path(__file__).with_name("web_page.md")
SETTLE_S = 12.0  # until windows are judged
STAGES = {
    "picture": "the camera's picture as numbers",
    "face": "face and landmarks: one look in 0.1 s",
    "skin": "skin: cut out, weighed, compared; its map once in 0.2 s",
    "network": "network: blocks of 8 frames",
    "evidence": "evidence and confidence, once a second, in a worker",
}
NETWORKS = {
    "face_detection_short_range": "finds a face",
    "face_detection_full_range": "finds a small face",
    "face_landmark": "landmarks",
    "pulse": "pulse, 8 frames",
}
WAYS = {
    "no threads": {"load": {}, "compile": {"accelerator": "wasm"}},
    "1 thread": {
        "load": {"threads": True},
        "compile": {"accelerator": "wasm", "cpuOptions": {"numThreads": 1}},
    },
    "2 threads": {
        "load": {"threads": True},
        "compile": {"accelerator": "wasm", "cpuOptions": {"numThreads": 2}},
    },
    "WebGPU, emulated": {"load": {"jspi": True}, "compile": {"accelerator": "webgpu"}},
}
EMULATED = "WebGPU, emulated"
ALONE = """(async (how, names) => {
  const { Tensor, loadAndCompile, loadLiteRt } = await import("./litert/index.js");
  await loadLiteRt(new URL("litert/wasm/", document.baseURI).href, how.load);
  const adapter = await navigator.gpu?.requestAdapter();
  const found = { isolated: crossOriginIsolated, adapter: adapter?.info.architecture ?? null, ms: {} };
  const kinds = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };
  for (const name of names) {
    const model = await loadAndCompile(`models/${name}.tflite`, how.compile);
    const once = async () => {
      const given = model.getInputDetails().map(({ shape, dtype }) => {
        return new Tensor(new kinds[dtype]([...shape].reduce((a, b) => a * b)), [...shape]);
      });
      const outputs = Object.values(await model.run(given));
      if (how.compile.accelerator === "wasm") {
        for (const tensor of outputs) tensor.toTypedArray();
        for (const tensor of [...given, ...outputs]) tensor.delete();
      } else {
        for (const tensor of outputs) {
          const here = await tensor.moveTo("wasm");
          here.toTypedArray();
          here.delete();
        }
      }
    };
    for (let i = 0; i < how.runs / 4; i++) await once();
    const times = [];
    for (let i = 0; i < how.runs; i++) {
      const since = performance.now();
      await once();
      times.push(performance.now() - since);
    }
    found.ms[name] = times.sort((a, b) => a - b)[Math.floor(how.runs / 2)];
  }
  return found;
})"""


class _Isolating(http.server.SimpleHTTPRequestHandler):
    """Serves with the two headers without which a browser gives no memory that threads share."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def isolated(folder: Path) -> Iterator[str]:
    """Serve a folder so that threads are allowed; yields its address."""
    handler = functools.partial(_Isolating, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()


def processor_seconds() -> float:
    """Return what all processes of the browser have used so far, in s."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"chrom" in (process / "cmdline").read_bytes().split(b"\0")[0]:
                fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def read_page(page: browser.Page) -> dict[str, Any]:
    """Return what the page has counted so far."""
    said = page.run(
        "({ ...document.body.dataset, dropped: document.getElementById('dropped').textContent,"
        " latency: document.getElementById('latency').textContent })"
    )
    assert said["state"] == "reading", said
    return said | {"spent": json.loads(said["spent"]), "processor_s": processor_seconds()}


def measure_page(folder: Path, camera: Path, seconds: float) -> dict[str, Any]:
    """Let the page read a camera; returns frames/s, ms of each stage and the browser's share of the cores."""
    with browser.served(folder) as (url, _), browser.opened(url, camera) as page:
        page.wait("document.body?.dataset.state === 'ready'")
        page.run("document.getElementById('camera').click()")
        time.sleep(SETTLE_S)
        page.wait("document.body.dataset.state === 'reading'")
        first = read_page(page)
        time.sleep(seconds)
        last = read_page(page)
        version = page.call("Browser.getVersion")["product"]
    took_s = float(last["seconds"]) - float(first["seconds"])
    frames = int(last["frames"]) - int(first["frames"])
    stages = {
        name: {key: last["spent"][name][key] - first["spent"][name][key] for key in ("ms", "count")}
        for name in STAGES
    }
    return {
        "frames_per_s": frames / took_s,
        "dropped": int(last["dropped"]) - int(first["dropped"]),
        "latency_s": float(last["latency"].removesuffix(" s")),
        "ms_a_frame": {name: stages[name]["ms"] / frames for name in STAGES if name != "evidence"},
        "evidence_ms": stages["evidence"]["ms"] / stages["evidence"]["count"],
        "processors": (last["processor_s"] - first["processor_s"]) / took_s,
        "load": os.getloadavg()[0],
        "browser": version,
    }


def measure_networks(folder: Path) -> dict[str, Any]:
    """Run every network alone, in every way in turn; returns ms, medians of 101 runs, 11 emulated."""
    with isolated(folder) as url:
        found = {}
        for name, how in WAYS.items():
            how = {**how, "runs": 11 if name == EMULATED else 101}
            with browser.opened(url, emulates_gpu=name == EMULATED) as page:
                page.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
                found[name] = page.run(f"{ALONE}({json.dumps(how)}, {json.dumps(list(NETWORKS))})")
    return found


def with_threads(folder: Path, scratch: Path) -> Path:
    """Return a copy of the page that has all builds of the runtime."""
    made = scratch / "threads"
    shutil.copytree(folder, made)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(Path(site.__file__).parent / "web_page" / name, scratch / name)
    site._install(scratch)
    for file in (scratch / site._RUNTIME / "core" / "wasm").iterdir():
        shutil.copyfile(file, made / "litert" / "wasm" / file.name)
    (made / "source.mjs").write_text("")  # the page itself would load the runtime first
    return made


def processor_name() -> str:
    """Return what the processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def report(found: dict[str, Any]) -> str:
    """Return the tables."""
    rounds = found["page"]

    def middle(pick) -> float:
        return statistics.median(pick(one) for one in rounds)

    whole = middle(lambda one: sum(one["ms_a_frame"].values()))
    rows = [
        f"| {words} | {middle(lambda one, name=name: one['ms_a_frame'][name]):.1f} |"
        for name, words in STAGES.items()
        if name != "evidence"
    ]
    each = "\n".join(
        f"| {one['frames_per_s']:.1f} | {one['dropped']} | {sum(one['ms_a_frame'].values()):.1f} | "
        f"{one['processors']:.2f} | {one['latency_s']:.2f} | {one['load']:.1f} |"
        for one in rounds
    )
    alone = "\n".join(
        f"| {words} | "
        + " | ".join(" and ".join(f"{one[way]['ms'][name]:.1f}" for one in found["networks"]) for way in WAYS)
        + " |"
        for name, words in NETWORKS.items()
    )
    first = found["networks"][0]
    is_isolated = str(first["2 threads"]["isolated"]).lower()
    adapter = first["no threads"]["adapter"] or "no adapter"
    evidence = STAGES["evidence"][0].upper() + STAGES["evidence"][1:]
    return f"""# The page in the browser: speed

`python benchmarks/speed/web_page.py`: a simulated face, {WIDTH} × {HEIGHT} pixels at {FPS:g} Hz, before the
fake camera of {rounds[0]["browser"]} without a window or a graphics processor, on {found["cores"]} cores of
one {found["processor"]}, at niceness {found["niceness"]}. Other programs ran; this one went before them. The
load average (1 min) counts both. Dropped: frames in {found["seconds"]:g} s.

| frames/s read | dropped | ms a frame | cores, whole browser | latency, s | load |
|---|---|---|---|---|---|
{each}

The camera gives {FPS:g} frames/s: more cannot be read of it. By the ms of a frame, the page has time for
**{1000 / whole:.0f}**.

| stage | ms a frame |
|---|---|
{chr(10).join(rows)}
| together | **{whole:.1f}** |

{evidence}: {middle(lambda one: one["evidence_ms"]):.0f} ms. All are medians of the rounds above.

## Threads, and a graphics processor

Each network alone, ms of a run, medians of 101 (emulated: 11); two rounds, the ways in turn:

| network | {" | ".join(WAYS)} |
|---|{"---|" * len(WAYS)}
{alone}

The page was isolated for the threads (`crossOriginIsolated` {is_isolated}). WebGPU has {adapter} here; its
column is of one that the processor emulates ({first[EMULATED]["adapter"]}) and says nothing of a real one.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser("benchmarks/speed/web_page.py", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each round (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=3, help="of the page (default: %(default)d)")
    args = parser.parse_args(argv)

    def work():
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            video, folder = scratch / "film.mp4", scratch / "page"
            film(video, 20)  # at 72 bpm: whole beats, so the camera can play it again and again
            camera = browser.as_camera(video, scratch / "film.y4m")
            site.write(folder)
            found = {
                "machine": platform.machine(),
                "processor": processor_name(),
                "cores": len(os.sched_getaffinity(0)),
                "niceness": os.getpriority(os.PRIO_PROCESS, 0),
                "seconds": args.seconds,
                "page": [measure_page(folder, camera, args.seconds) for _ in range(args.rounds)],
            }
            threads = with_threads(folder, scratch)
            found["networks"] = [measure_networks(threads) for _ in range(2)]
        storage.write_text(REPORT.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
        storage.write_text(REPORT, report(found))
        print(REPORT.read_text())

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

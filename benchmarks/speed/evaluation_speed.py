"""How long it takes to score 1,000 windows once the waves are there.

    python benchmarks/speed/evaluation_speed.py

Fifty people of 200 s at 30 Hz, 20 windows of 10 s each: all rates, SNR, MACC, alignment, beats, the whole
videos on top, intervals over people and strata; first one network alone, then beside five other methods, then
with the network's confidence. Run it on an idle core; results are in evaluation_speed.md.
"""

from __future__ import annotations

import time

import numpy as np

from sspd_jax.datasets.format import Segment
from sspd_jax.evaluation import protocol, scoring
from sspd_jax.heart_rate.wave import Wave

FPS, SECONDS, PEOPLE = 30.0, 200.0, 50
METHODS = ("target", "online", "untrained", "green", "chrom", "pos")


def people(methods: tuple[str, ...], cells: bool) -> list[scoring.Sample]:
    """Make waves of a drifting rate with noise."""
    rng = np.random.default_rng(0)
    count = round(SECONDS * FPS)
    made = []
    for i in range(PEOPLE):
        bpm = 50 + 90 * rng.random() + np.cumsum(rng.normal(0, 0.02, count))
        phase = 2 * np.pi * np.cumsum(bpm / 60) / FPS
        truth = (np.sin(phase) + 0.3 * np.sin(2 * phase)).astype(np.float32)
        waves = {m: Wave(np.sin(phase + 1) + rng.normal(0, 0.5, count), FPS) for m in methods}
        name = f"p{i}"
        segment = Segment(
            f"{name}/0", name, name, 0, 0.0, count, True, "", 0, (0, 0, 1, 1), (), {"light": i % 3}
        )
        colours = rng.normal(120, 1, (count, 16, 3)).astype(np.float32) if cells else None
        made.append(scoring.Sample(segment, FPS, truth, waves, colours))
    return made


def main() -> None:
    """Measure and print."""
    print(
        "| protocol | methods | confidence | windows | wall time, s | processor time, s "
        "|\n|---|---|---|---|---|---|"
    )
    for name in ("ours", "toolbox"):
        p = protocol.load(name, window_s=10.0, stride_s=10.0)
        for methods, sure in ((METHODS[:1], False), (METHODS, False), (METHODS[:1], True)):
            samples = people(methods, sure)
            scoring.score(samples[:1], "target", p, with_confidence=sure)  # imports and caches
            wall, cpu = time.perf_counter(), time.process_time()
            one = scoring.score(samples, "target", p, with_confidence=sure)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            windows = len({(r.recording, r.start_s) for r in one.rows if r.span == "window"})
            told = "reader's" if sure else "no"
            print(f"| {p.name} | {len(methods)} | {told} | {windows} | {wall:.1f} | {cpu:.1f} |", flush=True)


if __name__ == "__main__":
    main()

"""The network that travels with the package: made, trained without labels, tested.

    python benchmarks/network/skin_network.py make               # clips: an hour on two cores, resumable
    python benchmarks/network/skin_network.py train --seconds=300 --seed=1
    python benchmarks/network/skin_network.py test --seed=1
    python benchmarks/network/skin_network.py ship --seed=1

SSPD in the released form learns from eight heads that talk, grimace or sit before a webcam
(`skin_clips.LEARNED_FROM`, every second one of `real/`, by name). Their clips are filmed anew, twelve times
each: a pulse of 50 to 130 bpm and 0.3 to 1.2 % is put on the skin and the video is written as H.264 of crf 17
to 28. No pulse is ever looked at in training. Pictures show the skin alone, aligned by landmarks
(`skin_map.skin_only`). Each clip is played faster or slower, backwards, darker, in other colours and with
noise, as often as it is drawn.

Tested are the other heads, and real people with an oximeter, of whom nothing was learned. The clips and the
footage lie beside the repository or in workdir, and belong to others: neither is kept here.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "confidence"))
CLIPS = HERE.parents[1] / "workdir" / "skin_network"
REPORT = Path(__file__).with_suffix(".md")
SCORES = Path(__file__).with_suffix(".json")
FILE = HERE.parents[1] / "sspd_jax" / "checkpoints" / "skin_network.npz"
CHECKPOINT = HERE.parents[1] / "data" / "skin_network"

FPS, CROP_SIZE, FRAMES, DRAWS, HELD_OUT_DRAWS = 30.0, 42, 330, 12, 3
NETWORK = {
    "input_size": 36,
    "stages": ((16, 32),),
    "features": 64,
    "predictor_width": 32,
    "ts_kernels": (9, 7, 5),
    "rematerialise": False,
}
BATCH, CLIP_FRAMES, LEARNING_RATE, MOMENTUM = 12, 200, 1e-3, 0.9
AT_ONCE = 10  # steps in a program


def make() -> None:
    """Film the clips that are not there yet, and keep the pictures of their skin."""
    import skin_clips
    from skin_clips import Clip

    held_out = sorted(skin_clips.faces().keys() - {skin_clips.NO_PULSE} - set(skin_clips.LEARNED_FROM))
    skin_clips.TRACES = CLIPS
    CLIPS.mkdir(parents=True, exist_ok=True)
    wanted = [Clip("moving", "net", who, 100 + n) for n in range(DRAWS) for who in skin_clips.LEARNED_FROM]
    wanted += [Clip("moving", "net", who, 200 + n) for n in range(HELD_OUT_DRAWS) for who in held_out]
    people = sorted((skin_clips.SHARED / "real/ubfc_crf23").iterdir())
    wanted += [Clip("real", "ubfc", path.name, 0) for path in people]
    for clip in wanted:
        if not clip.path.exists():
            skin_clips.record(clip)
            print(clip.path.name, flush=True)


def learned_from() -> np.ndarray:
    """Load what is learned from, uint8 [n, FRAMES, CROP_SIZE, CROP_SIZE, 3]: short clips to and fro."""
    videos = []
    for path in sorted(CLIPS.glob("moving-*-net-1??.npz")):
        with np.load(path) as kept:
            crops = kept["crops"]
        there_and_back = np.r_[0 : len(crops), len(crops) - 2 : 0 : -1]
        videos.append(crops[np.resize(there_and_back, FRAMES)])
    if not videos:
        raise SystemExit(f"{CLIPS}: holds no clips; run `make` first")
    return np.stack(videos)


def vary(key: jax.Array, videos: jax.Array) -> jax.Array:
    """Draw clips and play them differently each time: uint8 [BATCH, CLIP_FRAMES + 1, s, s, 3]."""
    keys = jax.random.split(key, 9)
    count, length = videos.shape[:2]
    who = jax.random.randint(keys[0], (BATCH,), 0, count)
    speed = jnp.exp(jax.random.uniform(keys[1], (BATCH,), minval=-0.3, maxval=0.3))
    speed = jnp.minimum(speed, (length - 2) / CLIP_FRAMES)
    start = jax.random.uniform(keys[2], (BATCH,)) * (length - 2 - speed * CLIP_FRAMES)
    at = start[:, None] + speed[:, None] * jnp.arange(CLIP_FRAMES + 1)
    low = jnp.floor(at).astype(jnp.int32)
    part = (at - low)[..., None, None, None]
    one, next_one = (videos[who[:, None], low + k].astype(jnp.float32) for k in (0, 1))
    seen = one * (1 - part) + next_one * part
    each = (BATCH, 1, 1, 1, 1)
    light = jnp.exp(jax.random.uniform(keys[3], each, minval=-0.7, maxval=0.15))
    colour = jnp.exp(0.12 * jax.random.normal(keys[4], (BATCH, 1, 1, 1, 3)))
    noise = jnp.exp(jax.random.uniform(keys[5], each, minval=-2.5, maxval=0.4))
    seen = seen * light * colour + noise * jax.random.normal(keys[6], seen.shape)
    seen = jnp.where(jax.random.bernoulli(keys[7], 0.5, each), seen[:, ::-1], seen)
    seen = seen + jax.random.uniform(keys[8], seen.shape) - 0.5
    return jnp.clip(jnp.round(seen), 0, 255).astype(jnp.uint8)


def settings() -> Any:
    """Return the network's sizes, in the released form."""
    from sspd_jax.method.settings import NetworkSettings
    from sspd_jax.training import presets

    return NetworkSettings(**{**presets.RELEASED["network"], **NETWORK})


def step_config(steps: float | jax.Array, seed: int) -> Any:
    """Build the step of the released form; rate and momentum go along half a cosine over so many steps."""
    from sspd_jax.method import views
    from sspd_jax.training import presets, step

    view = {name: views.view_settings(table) for name, table in presets.RELEASED["views"].items()}

    def left(taken: jax.Array) -> jax.Array:
        return 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(taken / steps, 1.0)))

    def momentum(taken: jax.Array) -> jax.Array:
        return 1 - (1 - MOMENTUM) * left(taken)

    optimizer = step.make_optimizer(lambda taken: LEARNING_RATE * (0.02 + 0.98 * left(taken)), momentum)
    return step.StepConfig(
        network=settings(),
        local_view=view["online"],
        global_view=view["target"],
        terms=presets.RELEASED["terms"],
        optimizer=optimizer,
        momentum=momentum,
        fps=FPS,
        seed=seed,
    )


def train(seconds: float, seed: int) -> None:
    """Train for so long, compiling included; the first steps tell how many there will be."""
    from sspd_jax.training import state as train_state
    from sspd_jax.training import step

    videos = jnp.asarray(learned_from())
    began = last = time.monotonic()
    state = train_state.init(settings(), step_config(1.0, seed).optimizer, seed)

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state: Any, key: jax.Array, videos: jax.Array, steps: jax.Array) -> tuple[Any, Any]:
        config = step_config(steps, seed)

        def once(state: Any, key: jax.Array) -> tuple[Any, Any]:
            return step.train_step(state, {"clips": vary(key, videos)}, step_config=config)

        state, metrics = jax.lax.scan(once, state, jax.random.split(key, AT_ONCE))
        return state, jax.tree.map(lambda value: value[-1], metrics)

    key, steps, taken = jax.random.key(1000 + seed), 1e5, 0
    while taken < steps and time.monotonic() - began < seconds:
        key, now = jax.random.split(key)
        state, metrics = advance(state, now, videos, jnp.float32(steps))
        loss, taken, before, last = float(metrics["loss"]), taken + AT_ONCE, last, time.monotonic()
        if taken == 2 * AT_ONCE:
            steps = taken + int(0.97 * (seconds - (last - began)) / (last - before) * AT_ONCE)
        print(f"step {taken} of {steps:.0f}, {last - began:.0f} s, loss {loss:.3f}", flush=True)
    kept = {"params": state.target_params, "batch_stats": state.target_batch_stats}
    flat = {
        "/".join(str(part.key) for part in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(kept)[0]
    }
    data = io.BytesIO()
    np.savez(data, **flat, steps=taken, device=jax.devices()[0].device_kind, clips=len(videos))
    _file(seed).write_bytes(data.getvalue())


def _file(seed: int) -> Path:
    return CLIPS / f"network-{seed}.npz"


def load(seed: int) -> tuple[Any, dict[str, Any]]:
    """Load a trained network: what reads with it, and how it came about."""
    from sspd_jax.inference.model import RppgModel

    trees: dict[str, Any] = {}
    with np.load(_file(seed)) as kept:
        facts = {name: kept[name].item() for name in ("steps", "device", "clips")}
        for name in kept.files:
            if "/" in name:
                *path, leaf = name.split("/")
                functools.reduce(lambda node, key: node.setdefault(key, {}), path, trees)[leaf] = kept[name]
    params = {part: tree for part, tree in trees["params"].items() if part != "ts"}
    return RppgModel(settings(), params, trees["batch_stats"], FPS, CROP_SIZE, "skin_network", "skin"), facts


def test(seed: int) -> None:
    """Read the heads that were held out, and real people; the table goes to skin_network.md."""
    import skin_clips
    from skin_clips import spectral_peak_rate

    from sspd_jax.checkpoints import host_network
    from sspd_jax.heart_rate import skin_evidence
    from sspd_jax.inference import skin_reading, skin_segment
    from sspd_jax.video.skin_traces import as_traces

    model, facts = load(seed)
    groups = {"real people": "real-*-ubfc-0.npz", "heads held out": "moving-*-net-2??.npz"}
    found: dict[str, list[tuple[str, float, dict[str, float]]]] = {}
    for group, pattern in groups.items():
        for path in sorted(CLIPS.glob(pattern)):
            with np.load(path) as kept:
                table, truth = kept["table"], (kept["pulse_s"], kept["pulse"])
                crops = zip(kept["crops_s"], kept["crops"], strict=True)
                learned = host_network.read(model, crops, FPS)
            for part in skin_segment.on_clock(as_traces(table), FPS):
                with_it, without = (
                    skin_segment.read_waves(part, FPS, skin_reading.AUTO, waves) for waves in (learned, [])
                )
                length = round(skin_clips.WINDOW_S * FPS)
                for start in range(0, max(0, len(part.time_s) - length) + 1, length // 2):
                    end = min(start + length, len(part.time_s))
                    times_s = part.time_s[start:end]
                    if end - start < 0.93 * length or truth[0][-1] < times_s[-1] - 0.3:
                        continue
                    fused = skin_evidence.fuse(with_it.window(start, end))
                    alone = skin_evidence.fuse(without.window(start, end))
                    rates = {**fused.rates_bpm, "auto": fused.bpm, "auto without it": alone.bpm}
                    true_bpm = spectral_peak_rate(np.interp(times_s, *truth), FPS)
                    found.setdefault(group, []).append((path.stem.split("-")[1], true_bpm, rates))
    scores = json.loads(SCORES.read_text()) if SCORES.exists() else {}
    scores[str(seed)] = {**facts, "groups": {group: _score(rows) for group, rows in found.items()}}
    SCORES.write_text(json.dumps(scores, indent=1) + "\n")
    REPORT.write_text(page(scores))
    print(REPORT.read_text())


def _score(rows: list[tuple[str, float, dict[str, float]]]) -> dict[str, Any]:
    result: dict[str, Any] = {"windows": len(rows)}
    for name in ("sspd", "pos", "chrom", "auto without it", "auto"):
        off = np.array([abs(rates[name] - true_bpm) for _, true_bpm, rates in rows])
        people = sorted({person for person, *_ in rows})
        right = {p: int(sum(o <= 3 for o, (q, *_) in zip(off, rows, strict=True) if q == p)) for p in people}
        result[name] = {"right": int((off <= 3).sum()), "mae": round(float(off.mean()), 2), "people": right}
    return result


def page(scores: dict[str, Any]) -> str:
    """Write the page of all trainings."""
    lines = [
        "# The network that travels with the package, tested",
        "",
        "`python benchmarks/network/skin_network.py test`. Windows of 10 s, one every 5 s, nothing refused; "
        "right: within 3 bpm. Nothing was learned from anybody who is tested here; the real people chose "
        "between the two trainings, see [the card](../../docs/skin_network.md).",
        "",
        "| seed | device | steps | clips learned from | tested on | windows | network: right (MAE) "
        "| POS | CHROM | auto without it | auto |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed, run in sorted(scores.items()):
        for group, found in run["groups"].items():
            cells = [
                f"{found[name]['right'] / found['windows']:.0%} ({found[name]['mae']:.1f})"
                for name in ("sspd", "pos", "chrom", "auto without it", "auto")
            ]
            head = (seed, run["device"], run["steps"], run["clips"], group, found["windows"])
            lines.append("| " + " | ".join([*map(str, head), *cells]) + " |")
    lines += ["", "## The network alone, one by one", "", "| seed | tested on | right |", "|---|---|---|"]
    for seed, run in sorted(scores.items()):
        for group, found in run["groups"].items():
            each = ", ".join(f"{who} {right}" for who, right in found["sspd"]["people"].items())
            lines.append(f"| {seed} | {group} | {each} |")
    return "\n".join(lines) + "\n"


def ship(seed: int) -> None:
    """Write the network into the package, and as a checkpoint to go on from into `data/`."""
    from sspd_jax.checkpoints import host_network
    from sspd_jax.checkpoints.network import save_network
    from sspd_jax.method.settings import network_table

    model, _ = load(seed)
    sizes = {name: NETWORK[name] for name in ("input_size", "stages", "features", "predictor_width")}
    facts = {**sizes, "fps": FPS, "crop_size": CROP_SIZE, "face_crop": "skin", "name": "skin_network"}
    arrays = host_network.folded(model.params, model.batch_stats)
    with FILE.open("wb") as file:
        np.savez_compressed(file, **host_network.as_file(arrays, facts))
    config = {
        "network": network_table(model.network),
        "fps": FPS,
        "crop_size": CROP_SIZE,
        "face_crop": "skin",
        "source": "benchmarks/network/skin_network.py",
    }
    save_network(CHECKPOINT, config, model.params, model.batch_stats)


def main(argv: list[str] | None = None) -> int:
    """Run a stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=("make", "train", "test", "ship"))
    parser.add_argument("--seconds", type=float, default=3600.0, help="of training (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.stage == "make":
        make()
    elif args.stage == "train":
        train(args.seconds, args.seed)
    else:
        {"test": test, "ship": ship}[args.stage](args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

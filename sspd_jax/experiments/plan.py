"""What a training will do, checked and counted before anything is prepared or trained.

Everything that the configuration, the list of the recordings and their headers can tell is told here: who is
learned from and who is tested, whether their videos are long enough for a clip and their contact pulse waves
for the protocol, whether the disk has room. `python -m sspd_jax.main --check_only` prints it.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np
from etils import epath

from sspd_jax.datasets import check as dataset_check
from sspd_jax.datasets import format, input_pipeline, listing, prepare, splits
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.listing import Entry, Listing
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError
from sspd_jax.evaluation import evaluate, scoring
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.runtime import storage
from sspd_jax.training import compiled, sharding
from sspd_jax.training import config as experiments
from sspd_jax.training import state as train_state
from sspd_jax.training.warm_start import init_from
from sspd_jax.training.workdir import refuse_another
from sspd_jax.video.crop import BOX
from sspd_jax.video.face_detection import make_detector

MOST_NAMED = 12  # people in a line


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What a training will do.

    Attributes:
      recordings: Those of `data.source`; None where the dataset is prepared already.
      train: Recordings to learn from.
      test: Recordings to test on.
      sizes: Number of clips in every step of an epoch.
      epochs: Number of epochs.
      protocol: By which it is tested; None where nobody is.
      size_bytes: What preparing will write; 0 where that is done.
      notes: Sentences on what is left out or missing.
    """

    recordings: Sequence[Recording | Broken] | None
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    sizes: tuple[int, ...]
    epochs: int
    protocol: Protocol | None
    size_bytes: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"learned from: {_people(self.train)}", f"tested: {_people(self.test) or 'nobody'}"]
        if self.protocol is not None:
            lines.append(f"protocol: {self.protocol}")
        if self.size_bytes:
            lines.append(f"to prepare: {self.size_bytes / 1e9:.2f} GB")
        steps = _count(len(self.sizes), "step", "steps")
        sizes = " and ".join(map(str, dict.fromkeys(self.sizes)))
        lines.append(
            f"steps: {_count(self.epochs, 'epoch', 'epochs')} of {_count(sum(self.sizes), 'clip', 'clips')}, "
            f"{steps} of {sizes} each: {self.epochs * len(self.sizes)} in all"
        )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _people(entries: Sequence[Entry]) -> str:
    names = list(dict.fromkeys(entry.person_id for entry in entries))
    if not names:
        return ""
    shown = ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
    minutes = sum(entry.length_s or 0 for entry in entries) / 60
    recordings = len({entry.recording_id for entry in entries})
    unknown = sum(entry.length_s is None for entry in entries)
    more = f", and {unknown} of unknown length" if unknown else ""
    who, what = _count(len(names), "person", "people"), _count(recordings, "recording", "recordings")
    return f"{who} ({shown}), {what}, {minutes:.1f} min{more}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def check(config: ml_collections.ConfigDict, workdir: epath.PathLike | None = None) -> Plan:
    """Check all of an experiment that can be known beforehand; nothing is written.

    Args:
      config: The experiment's configuration.
      workdir: Directory of the run; None where it is not known yet.

    Raises:
      ConfigError: A value is impossible for these recordings.
      UserError: The recordings, the work directory or the disk are not fit for it.
    """
    experiments.validate(config)
    data = config.data
    make_detector(data.face.detector, data.face.model)
    recordings, known, notes = _list(config)
    split = splits.of_dataset(known, data)
    if split.recordings is not None:
        entries = tuple(e for e in known.segments if e.recording_id in split.recordings)
        known = dataclasses.replace(known, segments=entries)
    if workdir is not None:
        chosen = config.copy_and_resolve_references()
        chosen.data.train_people, chosen.data.test_people = split.train, split.test
        begun = refuse_another(chosen, epath.Path(workdir))
        if config.init_from and not begun:
            init_from(chosen, known, experiments.validate(config))
    train, short = _long_enough(config, known, split.train)
    protocol, test, untested = _testable(config, known, split.test)
    size_bytes = 0.0
    if recordings is not None:
        size_bytes = _require_room(config, known)
    sizes = input_pipeline.epoch_sizes(len({e.recording_id for e in train}), config.batch_size)
    return Plan(
        recordings=recordings,
        train=tuple(train),
        test=tuple(test),
        sizes=sizes,
        epochs=config.epochs,
        protocol=protocol,
        size_bytes=size_bytes,
        notes=(*notes, *short, *untested),
    )


def _list(
    config: ml_collections.ConfigDict,
) -> tuple[Sequence[Recording | Broken] | None, Listing, list[str]]:
    """List what is prepared, or else what the source holds."""
    data = config.data
    if (epath.Path(data.data_dir) / format.INDEX).exists():
        dataset = open_prepared(
            data.data_dir, fps=config.fps, crop_size=config.crop_size, face_crop=config.get("face_crop", BOX)
        )
        notes = [f"{name} is not in the dataset: {why}" for name, why in dataset.left_out.items()]
        return None, listing.of_prepared(dataset), notes
    if not data.source:
        raise UserError(
            f"{data.data_dir}: holds no prepared dataset; say where the recordings are by "
            f"--config.data.source=DIR, or prepare them by `{format.PREPARE} --dataset={data.name} "
            f"--source=DIR --data_dir={data.data_dir}`"
        )
    recordings = registry.read(data.name, data.source)
    settings = prepare.settings_of(
        fps=config.fps,
        crop_size=config.crop_size,
        face_crop=config.get("face_crop", BOX),
        face_detector=data.face.detector,
        follow_every_s=data.face.follow_every_s,
        skin=data.get("skin", True),
    )
    prepare.require_place(data.data_dir, data.name, settings, recordings)
    known = listing.of_recordings(recordings, data.source, settings.max_gap_s)
    if known.left_out and not data.keep_going:
        for name, why in known.left_out.items():
            print(f"{name}: {why}", file=sys.stderr)
        raise UserError(
            f"{data.source}: {len(known.left_out)} of {len(recordings)} recordings cannot be prepared "
            f"({', '.join(known.left_out)}: see above); mend them, or leave them out by "
            "--config.data.keep_going=True"
        )
    notes = [f"{name} is left out: {why}" for name, why in known.left_out.items()]
    notes += [finding.sentence for finding in dataset_check.check_dataset(data.name, recordings)]
    return recordings, known, notes


def _long_enough(
    config: ml_collections.ConfigDict, known: Listing, people: Iterable[str]
) -> tuple[list[Entry], list[str]]:
    """Choose the recordings that hold a clip; returns them and what is said of the others."""
    people = tuple(people)
    mine = [entry for entry in known.segments if entry.person_id in people]
    needed_s = (config.clip_frames + 1) / config.fps
    slack_s = 1 / config.fps
    train = [e for e in mine if e.length_s is None or e.length_s + slack_s >= needed_s]
    if not train:
        longest_s = max((e.length_s or 0.0 for e in mine), default=0.0)
        raise UserError(
            f"{known.data_dir}: no recording to learn from has the {needed_s:.1f} s of a clip (the longest "
            f"has {longest_s:.1f} s); lower --config.clip_frames={config.clip_frames}, or choose others by "
            "--config.data.split"
        )
    kept = {e.recording_id for e in train}
    short: dict[str, float] = {}
    for entry in mine:
        if entry.recording_id not in kept:
            short[entry.recording_id] = max(short.get(entry.recording_id, 0.0), entry.length_s or 0.0)
    return train, [
        f"{name} is not learned from: its {length_s:.1f} s are shorter than a clip's {needed_s:.1f} s"
        for name, length_s in short.items()
    ]


def _testable(
    config: ml_collections.ConfigDict, known: Listing, people: Sequence[str]
) -> tuple[Protocol | None, list[Entry], list[str]]:
    """Choose the recordings that the protocol can score; returns it, them and what is said of the others."""
    if config.data.split.kind == "everyone":
        return None, [], []
    p = evaluate.protocol_of(config)
    least_s = max(p.window_s, scoring.LEAST_S)
    if not people:
        raise UserError(
            f"{known.data_dir}: nobody is to be tested; name people in --config.data.test_people, deal them "
            "by --config.data.split.kind=folds, or learn from all by --config.data.split.kind=everyone"
        )
    mine = [entry for entry in known.segments if entry.person_id in people]
    slack_s = 2 / config.fps
    test = [e for e in mine if e.longest_truth_s + slack_s >= least_s]
    notes = [f"{person} is not tested: not in the dataset" for person in people if person not in known.people]
    for entry in mine:
        if entry.longest_truth_s + slack_s < least_s:
            why = (
                f"its contact pulse wave has {entry.longest_truth_s:.1f} s unbroken, {least_s:g} s are needed"
            )
            if not entry.truth_s:
                why = "it has no contact pulse wave"
            notes.append(f"{entry.recording_id} is not tested: {why}")
        elif entry.length_s is not None and entry.length_s - sum(b - a for a, b in entry.truth_s) > slack_s:
            spans = ", ".join(f"{first:.1f}–{last:.1f} s" for first, last in entry.truth_s)
            notes.append(
                f"{entry.recording_id} is tested where it has a contact pulse wave: {spans} of "
                f"{entry.length_s:.1f} s"
            )
    if not test:
        longest_s = max((e.longest_truth_s for e in mine), default=0.0)
        raise UserError(
            f"{known.data_dir}: nobody of those to be tested ({', '.join(people[:MOST_NAMED])}) can be: the "
            f"protocol {p.name} needs {least_s:g} s of contact pulse wave, the longest has {longest_s:.1f}; "
            "shorten --config.evaluation.window_s, choose others by --config.data.split, or learn from "
            "all and test nobody by --config.data.split.kind=everyone"
        )
    return p, test, notes


def _require_room(config: ml_collections.ConfigDict, known: Listing) -> float:
    """Return how many bytes preparing will write; refuses a disk without that room."""
    seconds = sum(entry.length_s or 0.0 for entry in known.segments)
    needed = seconds * config.fps * config.crop_size**2 * 3
    if storage.is_remote(config.data.data_dir):
        return needed
    folder = Path(config.data.data_dir)
    there = sum(p.stat().st_size for p in folder.glob("*.array_record*")) if folder.is_dir() else 0
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed - there > free:
        raise UserError(
            f"{config.data.data_dir}: preparing {seconds / 60:.0f} min needs {(needed - there) / 1e9:.1f} GB "
            f"and its disk has {free / 1e9:.1f} GB; make room, choose another --config.data.data_dir, or a "
            f"smaller --config.crop_size={config.crop_size}"
        )
    return needed


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a step takes on this machine.

    Attributes:
      step_s: Time of a step, s.
      compile_s: Time until the first one begins, s.
      memory_bytes: Most memory of this process, or of one device where that has its own.
      devices: How many devices there are, and what they are.
    """

    step_s: float
    compile_s: float
    memory_bytes: float
    devices: str


def measure_step(config: ml_collections.ConfigDict, sizes: Sequence[int]) -> Measured:
    """Take two steps on noise, as large as the training's, and measure the second.

    Args:
      config: The experiment's configuration.
      sizes: Number of clips in every step of an epoch.
    """
    size = sizes[0]
    mesh = sharding.lay_out(config.parallel, tuple(sizes))[size]
    step_config = experiments.method(config, len(sizes) * config.epochs)
    step = compiled.STEP_COMPILERS[config.parallel](step_config, mesh)
    state = train_state.init(step_config.network, step_config.optimizer, config.seed)
    state = sharding.place(state, mesh)
    shape = (size, config.clip_frames + 1, config.crop_size, config.crop_size, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = {"clips": sharding.spread_clips(clips, mesh, size)}
    times_s = []
    for _ in range(2):
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        times_s.append(time.perf_counter() - began)
    device = mesh.devices.flat[0]
    of_device = (device.memory_stats() or {}).get("peak_bytes_in_use")
    unit = 1 if sys.platform == "darwin" else 1024
    memory = of_device or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    devices = f"{mesh.size} × {device.device_kind}" if device.platform != "cpu" else f"{os.cpu_count()} cores"
    return Measured(times_s[1], max(0.0, times_s[0] - times_s[1]), memory, devices)


def cost(plan: Plan, measured: Measured) -> str:
    """Say what a training takes, from a measured step."""
    clips = sum(plan.sizes) * plan.epochs
    size = _count(plan.sizes[0], "clip", "clips")
    compiling_s = measured.compile_s * len(set(plan.sizes))
    total_s = compiling_s + measured.step_s * clips / plan.sizes[0]
    return (
        f"memory: {measured.memory_bytes / 1e9:.2f} GB at a step of {size}\n"
        f"time: a step took {measured.step_s:.2f} s on {measured.devices} after {measured.compile_s:.0f} s "
        f"of compiling: about {duration(total_s)} for the training; preparing and testing come on top"
    )


def duration(seconds: float) -> str:
    """Write a time in words: '8 s', '25 min', '3.2 h'."""
    if seconds < 99:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99 * 60 else f"{seconds / 3600:.1f} h"

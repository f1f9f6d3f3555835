"""Whole runs of the command in processes of their own, so small that a step takes milliseconds."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from prepared_faces import recording

from sspd_jax.datasets.prepare import prepare

ROOT = Path(__file__).parents[2]
PEOPLE = ("ann", "bob", "cleo", "dan")
STEPS = 40  # of two clips
NETWORK = {
    "network.input_size": 22,
    "network.stages": "((4,4),)",
    "network.features": 8,
    "network.predictor_width": 4,
    "network.ts_kernels": "(5,)",
    "network.ts_strides": "(1,)",
    "network.conv": "direct",
}
OVERRIDES = {
    "fps": 10,
    "clip_frames": 26,
    "crop_size": 26,
    "batch_size": 2,
    "epochs": STEPS * 2 // len(PEOPLE),
    "log_every": 3,  # lines of the log, epochs and checkpoints end at different steps
    "data.train_people": PEOPLE,
    "data.split.kind": "everyone",
    **NETWORK,
}


def prepare_people(directory):
    """Prepare four people, 4 to 5.5 s each at 10 Hz."""
    recordings = [
        recording(name, np.arange(40 + 5 * n) / 10, shade=5 * n, ppg=False) for n, name in enumerate(PEOPLE)
    ]
    prepare(recordings, directory, fps=10, crop_size=26, skin=False, progress=False)
    return directory


def arguments_of(workdir, data_dir, **overrides):
    """The arguments of `sspd_jax.main` for a run."""
    values = {**OVERRIDES, "data.data_dir": data_dir, **overrides}
    return [
        *(f"--config={ROOT}/configs/ubfc.py:released", f"--workdir={workdir}", "--no_progress"),
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]


def start(workdir, data_dir, said, *arguments, environment=None, **overrides):
    """Start a run; `said` is a file for what it prints."""
    command = [
        sys.executable,
        "-m",
        "sspd_jax.main",
        *arguments_of(workdir, data_dir, **overrides),
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


def start_two(workdir, data_dir, saids, *, environment=None, second=None, **overrides):
    """Start a run in two processes of two devices each; `second` overrides for the second one only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"JAX_NUM_CPU_DEVICES": "2", **(environment or {})}
    return [
        start(
            workdir,
            data_dir,
            said,
            f"--coordinator=127.0.0.1:{port}",
            "--num_processes=2",
            f"--process_id={i}",
            environment=environment,
            **{"distributed": "auto", **overrides, **((second or {}) if i else {})},
        )
        for i, said in enumerate(saids)
    ]


def last_step(workdir):
    """The step of the last whole checkpoint, 0 if there is none."""
    folder = Path(workdir) / "checkpoints"
    return max((int(p.name) for p in folder.glob("*") if p.name.isdigit()), default=0)

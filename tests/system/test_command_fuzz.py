"""Every command that reads files is fed damaged ones: each ends in a result or in a sentence.

The counts are printed at the end of the tests, by command.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dataset_files
import fuzzing
import numpy as np
import pytest
import torch_file_writer
from scored_people import people

from sspd_jax.datasets.prepare import prepare_dataset
from sspd_jax.evaluation import evaluate, protocol, scoring
from sspd_jax.simulation import sample_video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def film(suffix, seconds=2):
    def make(folder):
        sample_video.write_face_video(folder / f"a{suffix}", seconds=seconds)
        return [folder / f"a{suffix}"]

    return make


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def raw(folder):
    dataset_files.folder(folder / "raw", seconds=5)
    return all_files(folder / "raw")


def prepared(folder):
    raw(folder)
    prepare_dataset("folder", folder / "raw", folder / "prepared", crop_size=16, progress=False)
    return all_files(folder / "prepared")


def checkpoint(folder):
    shutil.copytree(ROOT / "data" / "simulated_faces", folder / "network")
    return all_files(folder / "network")


def weights(folder):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    torch_file_writer.save(folder / "a.pth", {"conv.weight": array, "other": array})
    return [folder / "a.pth"]


def reports(folder):
    for name, error in (("a", 1.0), ("b", 4.0)):
        scored = scoring.score(people(error, pos=0.2), "target", protocol.default(), with_confidence=False)
        evaluate.write(scored, evaluate.epath.Path(folder / name / "report"), "")
    return [path for path in all_files(folder) if path.suffix in (".json", ".csv")]


def study(folder):
    (folder / "study.toml").write_text(
        'experiment = "demo"\nseeds = [0, 1]\nprotocols = ["ours"]\n[data.a]\ndata_dir = "nowhere"\n'
        '[parts.within]\ntrain = "a"\ntrain_people = 4\n[parts.folds]\ntrain = "a"\nfolds = 3\n'
    )
    return [folder / "study.toml"]


# command, what it reads, its arguments; {} is the folder of the files
CASES = {
    "predict, MP4": (film(".mp4"), 100, ["{}/a.mp4", "--method=pos", "--json={}/out"]),
    "predict, AVI": (film(".avi"), 100, ["{}/a.avi", "--method=pos", "--json={}/out"]),
    "predict, MKV": (film(".mkv"), 100, ["{}/a.mkv", "--method=pos", "--json={}/out"]),
    "live": (film(".mp4"), 60, ["{}/a.mp4", "--method=pos", "--no_page", "--exit", "--speed=1000"]),
    "simulate": (film(".mp4", 10), 20, ["{}/out", "--from={}/a.mp4", "--seconds=10", "--workers=1"]),
    "inspect": (raw, 60, ["--dataset=folder", "--source={}/raw", "--output={}/out"]),
    "prepare": (
        raw,
        100,
        [
            *("--dataset=folder", "--source={}/raw", "--data_dir={}/out", "--crop_size=16", "--no_skin"),
            *("--keep_going", "--workers=1", "--no_progress"),
        ],
    ),
    "evaluate": (
        prepared,
        30,
        [
            *("--data={}/prepared", "--output={}/out", "--window=4", "--methods=pos", "--no_confidence"),
            "--no_faces",
        ],
    ),
    "convert": (weights, 300, ["{}/a.pth", "--output={}/out"]),
    "export": (checkpoint, 100, ["--checkpoint={}/network", "--format=onnx", "--output={}/out"]),
    "compare": (reports, 300, ["{}/a", "{}/b", "--output={}/out"]),
    "study": (study, 300, ["--config={}/study.toml", "--workdir={}/out"]),
}


@pytest.mark.parametrize("command", CASES)
def test_damaged_files_end_in_a_result_or_a_sentence(tmp_path, command, record_property):
    make, count, arguments = CASES[command]
    settings = {
        "files": [str(path) for path in make(tmp_path)],
        "count": count,
        "seed": 0,
        "command": command.partition(",")[0],
        "arguments": [argument.format(tmp_path) for argument in arguments],
        "output": str(tmp_path / "out"),
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, fuzzing.__file__, tmp_path / "settings.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SSPD_JAX_CACHE": ""},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    record_property("fuzz", {"command": command, **found, "faults": len(found["faults"])})
    assert found["faults"] == []
    assert found["inputs"] == count and 0 < found["refused"] <= count
    assert found["most_mb"] <= fuzzing.MOST_MB

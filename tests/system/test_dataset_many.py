"""A hundred recordings: prepared by two workers, killed in the middle, resumed, opened, split and read."""

import hashlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sspd_jax.datasets import input_pipeline, splits
from sspd_jax.datasets.dataset import MOST_OPEN, open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import registry
from sspd_jax.video.face_stream import cut_face

PEOPLE, SECONDS, CROP = 100, 2, 48
MOST_MIB = 600 / 1.048576  # 600 MB


def start(*words):
    return subprocess.Popen([sys.executable, "-m", "sspd_jax", *map(str, words)], stderr=subprocess.DEVNULL)


def peaks_mib(pid):
    """Return the peak memory of a process and of its children, by their ids."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:  # it ended
            continue
        facts = dict(re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE))
        if str(pid) in (facts["Pid"], facts["PPid"]) and "VmHWM" in facts:
            found[int(facts["Pid"])] = int(facts["VmHWM"]) / 1024
    return found


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_hundred_recordings(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    size = ("--size=160x120", f"--people={PEOPLE}", f"--seconds={SECONDS}", "--preset=easy")
    assert start("simulate", raw, *size).wait(900) == 0
    command = ("prepare", "--dataset=ubfc_rppg", f"--source={raw}", f"--data_dir={out}")
    command += (f"--crop_size={CROP}", "--workers=2")

    began = time.monotonic()
    with start(*command) as first:
        while len(list(out.glob("recordings/*.json"))) < PEOPLE // 3 and time.monotonic() < began + 600:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    done = {path.stem for path in out.glob("recordings/[!.]*.json")}
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*-of-*")}
    assert PEOPLE // 3 <= len(done) < PEOPLE and not (out / "index.json").exists()

    peaks = {}
    with start(*command) as second:
        while second.poll() is None and time.monotonic() < began + 1500:
            peaks |= peaks_mib(second.pid)
            time.sleep(0.2)
    assert second.returncode == 0
    # The process that waits, two that work, and Python's tracker of what they share.
    print(
        f"{PEOPLE} recordings, {time.monotonic() - began:.0f} s; peak memory, MiB: {sorted(peaks.values())}"
    )
    assert sum(mib > 50 for mib in peaks.values()) == 3 and max(peaks.values()) < MOST_MIB

    dataset = open_prepared(out, fps=30, crop_size=CROP)
    assert len(dataset.segments) == len(dataset.people) == PEOPLE and dataset.left_out == {}
    names = {s.shard for s in dataset.segments if s.recording_id in done}
    assert all((out / name).stat().st_mtime_ns == stamps[name] for name in names)  # not made again
    recordings = registry.read("ubfc_rppg", raw)
    prepare(recordings, tmp_path / "one", name="ubfc_rppg", crop_size=CROP, progress=False)
    assert digests(out) == digests(tmp_path / "one")

    tested = []
    for fold in range(5):
        data = {"split": {"kind": "folds", "name": "", "folds": 5, "fold": fold, "seed": 0}}
        split = splits.of_dataset(dataset, {**data, "train_people": (), "test_people": ()})
        assert not set(split.train) & set(split.test) and len(split.train) + len(split.test) == PEOPLE
        tested += split.test
    assert sorted(tested) == sorted(dataset.people)

    random = np.random.default_rng(0)
    for place in random.permutation(PEOPLE):
        segment = dataset.segments[place]
        first_frame = int(random.integers(0, segment.n_frames - 30))
        clip = dataset.clip(segment, first_frame, 30)
        if place % 20 == 0:
            crops = cut_face(recordings[place].frames(), recordings[place].file, size=CROP)
            right = np.stack([image for _, image in crops])
            np.testing.assert_array_equal(clip, right[first_frame : first_frame + 30])
    assert len(list(Path("/proc/self/fd").iterdir())) < MOST_OPEN + 100
    batches = input_pipeline.clip_batches(
        dataset, split.train, clip_frames=29, batch_size=8, seed=0, epochs=1
    )
    assert len(batches) == PEOPLE * 4 // 5 // 8 and batches[0]["clips"].shape == (8, 30, CROP, CROP, 3)
    for path in tmp_path.rglob("*"):  # pytest keeps the folders of its last runs
        if path.is_file() and path.stat().st_size > 100_000:
            path.unlink()

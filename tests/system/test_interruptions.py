"""A run that is stopped, killed or spread over processes ends as one that nobody disturbed."""

import csv
import json
import random
import re
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
from killed import Command

from sspd_jax.checkpoints import network
from sspd_jax.runtime import metrics_log
from sspd_jax.simulation import sample_video

pytestmark = pytest.mark.slow

KILLS, VIDEOS = 20, 8


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return small_run.prepare_people(tmp_path_factory.mktemp("prepared") / "faces")


@pytest.fixture(scope="module")
def undisturbed(data_dir, compiled, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    ends_well(*begin(workdir, data_dir, compiled))
    return workdir


def begin(workdir, data_dir, compiled, **overrides):
    """Start a run; returns its process and the path of what it says."""
    text = Path(f"{workdir}.said")
    with text.open("w") as said:
        return small_run.start(workdir, data_dir, said, environment=compiled, **overrides), text


def begin_two(workdir, data_dir, compiled, **overrides):
    texts = [Path(f"{workdir}.said{i}") for i in range(2)]
    with texts[0].open("w") as first, texts[1].open("w") as second:
        pair = small_run.start_two(workdir, data_dir, (first, second), environment=compiled, **overrides)
    return list(zip(pair, texts, strict=True))


def ends_well(process, text):
    assert process.wait(500) == 0, text.read_text()
    assert "Traceback" not in text.read_text()


def wait_for(process, text, happened):
    deadline = time.monotonic() + 300
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline, text.read_text()
        time.sleep(0.01)


def measured(workdir):
    rows = metrics_log.read_metrics(workdir)
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def networks(workdir):
    return [network.load_network(workdir / "network" / name)[1:] for name in ("online", "target")]


def assert_ends_alike(workdir, undisturbed):
    assert measured(workdir) == measured(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, networks(workdir), networks(undisturbed))


def assert_ends_alike_but_for_rounding(workdir, undisturbed):
    for mine, other in zip(measured(workdir), measured(undisturbed), strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            assert mine[name] == pytest.approx(value, rel=2e-3, abs=2e-3), (mine["step"], name)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-3 * max(1, np.max(np.abs(b))))

    jax.tree.map(close, networks(workdir), networks(undisturbed))


def test_sigterm_saves_and_the_same_command_goes_on(data_dir, compiled, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    process, text = begin(workdir, data_dir, compiled)
    wait_for(process, text, lambda: small_run.last_step(workdir) >= 8)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    ends_well(process, text)
    assert time.monotonic() - began < 20
    (line,) = [line for line in text.read_text().splitlines() if "SIGTERM" in line]
    words = rf"stopped by SIGTERM after step (\d+) of {small_run.STEPS}; the same command goes on"
    step = int(re.fullmatch(words, line)[1])
    assert small_run.last_step(workdir) == step < small_run.STEPS
    assert not (workdir / "network").exists()
    # What a kill leaves of a checkpoint that it cut off is passed over.
    half = workdir / "checkpoints" / f"{step + 1}.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints" / str(step), half)
    (half / "state" / "manifest.ocdbt").write_bytes(b"")
    ends_well(*begin(workdir, data_dir, compiled))
    assert_ends_alike(workdir, undisturbed)


def wait_until(command, happened):
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline, command.said
        time.sleep(0.01)


def test_twenty_kills_at_random_moments_change_nothing(data_dir, compiled, undisturbed, tmp_path):
    rng = random.Random(0)
    workdir = tmp_path / "run"
    arguments = small_run.arguments_of(workdir, data_dir, **{"checkpoint.every_steps": 1})
    where = {"cwd": tmp_path, "environment": compiled, "imports": ("sspd_jax.experiments.run", "grain")}
    with Command("sspd_jax.main", *arguments, **where) as command:
        for kill in range(KILLS):
            command.begin()
            if kill % 5 == 4:  # while it starts, reads or begins
                time.sleep(rng.uniform(0, 2))
            else:  # while it learns and saves; every such life gets further
                goal = small_run.last_step(workdir) + 1
                wait_until(command, lambda goal=goal: small_run.last_step(workdir) >= goal)
                time.sleep(rng.uniform(0, 0.3))
            command.kill()
            assert command.end()[0] == -signal.SIGKILL, command.said
        assert KILLS * 4 // 5 <= small_run.last_step(workdir) < small_run.STEPS
        assert command.run()[0] == 0, command.said
        assert "Traceback" not in command.said
    assert_ends_alike(workdir, undisturbed)


def test_twenty_kills_of_a_folder_lose_no_result(tmp_path):
    """Whatever was said of a video is in files that are whole."""
    sample_video.write_face_video(tmp_path / "face.mp4", seconds=4, bpm=80)
    (tmp_path / "faces").mkdir()
    for number in range(VIDEOS):
        (tmp_path / "faces" / f"{number:02d}.mp4").symlink_to(tmp_path / "face.mp4")
    (tmp_path / "faces" / "03.mp4").unlink()
    (tmp_path / "faces" / "03.mp4").write_text("no video")
    arguments = ("faces", "--json=a.json", "--csv=a.csv")
    where = {"cwd": tmp_path, "imports": ("sspd_jax.inference.predict", "cv2", "av", "scipy.signal")}
    rng, most, before = random.Random(0), 0, 0
    with Command("sspd_jax.cli.predict", *arguments, **where) as command:
        for _ in range(KILLS):
            command.begin()
            told = before + rng.randrange(VIDEOS)
            wait_until(command, lambda told=told: lines_of(tmp_path / "said") >= told)
            time.sleep(rng.uniform(0, 0.3))
            command.kill()
            assert command.end()[0] == -signal.SIGKILL, command.said
            count = lines_of(tmp_path / "said") - before
            before += count
            if count:
                results = json.loads((tmp_path / "a.json").read_text())
                rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
                assert len(results) >= count and len(rows) >= count and rows[-1]["error"] is not None
                most = max(most, count)
    assert most >= VIDEOS // 2


def lines_of(said):
    return sum(
        line.endswith("\n") and "faces/" in line for line in said.read_text().splitlines(keepends=True)
    )


def test_two_processes_stop_together_and_any_number_goes_on(data_dir, compiled, undisturbed, tmp_path):
    workdir, alone = tmp_path / "two", tmp_path / "alone"
    pair = begin_two(workdir, data_dir, compiled)
    wait_for(*pair[0], lambda: small_run.last_step(workdir) >= 8)
    pair[1][0].send_signal(signal.SIGTERM)  # the other one is not told
    for process, text in pair:
        ends_well(process, text)
    assert "stopped by SIGTERM after step" in pair[0][1].read_text()
    assert "SIGTERM after" not in pair[1][1].read_text()
    assert 8 <= small_run.last_step(workdir) < small_run.STEPS
    shutil.copytree(workdir, alone)

    on_device = {"data.on_device": "always"}  # half of the frames in each process
    for process, text in begin_two(workdir, data_dir, compiled, **on_device):
        ends_well(process, text)
    assert_ends_alike_but_for_rounding(workdir, undisturbed)
    boards = list((workdir / "tensorboard").iterdir())
    assert len(boards) == 2  # of the first process, before and after

    ends_well(*begin(alone, data_dir, compiled, parallel="pmap"))  # on one device now
    assert_ends_alike_but_for_rounding(alone, undisturbed)


def test_what_fails_in_one_process_is_said_by_all(data_dir, compiled, tmp_path):
    elsewhere = {"data.data_dir": tmp_path / "nowhere"}
    pair = begin_two(tmp_path / "run", data_dir, compiled, second=elsewhere)
    for process, text in pair:
        assert process.wait(120) == 1, text.read_text()
        lines = [line for line in text.read_text().splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and f"{tmp_path / 'nowhere'}: " in lines[0], text.read_text()
    assert "error: process 1: " in pair[0][1].read_text()
    assert not (tmp_path / "run").exists()

"""Recordings of simulated people on disk: whole, the same whoever films them, and read as a dataset."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed_film
import numpy as np
import pytest

from sspd_jax.cli import simulate
from sspd_jax.datasets.readers import ubfc_rppg
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.simulation import known_pulse
from sspd_jax.simulation import recordings as simple
from sspd_jax.simulation.footage_recordings import Encoding
from sspd_jax.simulation.people import looks, recordings
from sspd_jax.simulation.people.presets import PRESETS
from sspd_jax.simulation.people.recordings import draw_rate, write_people_recordings
from sspd_jax.video import decode

SMALL = {"seconds": 1.5, "size": (160, 160), "seed": 3}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    out = tmp_path_factory.mktemp("browser")
    write_people_recordings(out, preset="browser", people=2, **SMALL)
    return out


def test_a_dataset_s_reader_reads_them(browser):
    assert sorted(path.name for path in browser.iterdir()) == ["simulation.json", "subject1", "subject2"]
    for number, recording in enumerate(ubfc_rppg.recordings(browser), 1):
        assert recording.meta["dataset"] == "simulated" and recording.meta["notes"] == []
        assert recording.meta["simulation"]["preset"] == "browser"
        times_s, pictures = zip(*recording.frames(), strict=True)
        assert pictures[0].shape == (160, 160, 3)
        np.testing.assert_allclose(np.array(times_s), recording.ppg.times_s, atol=2e-3)  # WebM's clock
        off = np.array(times_s) * 30
        assert np.abs(off - np.rint(off)).max() > 0.05  # late frames
        rate = np.mean(recording.meta["device_heart_rate"])
        assert rate == pytest.approx(draw_rate(3, number), rel=0.1)
        sheet = json.loads((browser / f"subject{number}" / "recording.json").read_text())
        assert sheet["person"]["number"] == number and sheet["person"]["split"] == looks.split_of(number)
        assert sheet["encoding"]["codec"] == "vp8" and 0.05 < sheet["pulse"]["green_percent"] < 2


def test_more_people_leave_those_that_are_there_and_workers_change_nothing(browser, tmp_path):
    out = tmp_path / "out"
    write_people_recordings(out, preset="browser", people=1, **SMALL)
    before = (out / "subject1" / "vid.webm").stat()
    write_people_recordings(out, preset="browser", people=2, workers=2, **SMALL)
    after = (out / "subject1" / "vid.webm").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert contents(out / "subject2") == contents(browser / "subject2")
    with pytest.raises(ConfigError, match="other settings"):
        write_people_recordings(out, preset="webcam", people=2, **SMALL)


def test_a_split_films_its_own_people_and_twins_have_no_truth(tmp_path):
    folders = write_people_recordings(
        tmp_path, preset="webcam", people=1, split="test", kinds=["frozen"], **SMALL
    )
    (folder,) = folders
    sheet = json.loads((folder / "recording.json").read_text())
    assert sheet["person"]["number"] == looks.people_of("test", 1)[0] and sheet["pulse"] is None
    ppg, rate, _ = np.loadtxt(folder / "ground_truth.txt")
    assert not ppg.any() and np.isnan(rate).all()
    pictures = [picture for _, picture in decode.frames(next(folder.glob("vid.*")))]
    changes = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(pictures)]
    assert np.median(changes) < 0.5  # the codec's alone


def test_people_of_a_split_move_like_its_talkers_alone(tmp_path, monkeypatch):
    asked = []
    film = recordings.film.film

    def watched(figure, scene, wave, tracks, *given, **named):
        asked.append(tracks)
        return film(figure, scene, wave, tracks, *given, **named)

    monkeypatch.setattr(recordings.film, "film", watched)
    for split in looks.SPLITS:
        write_people_recordings(tmp_path / split, preset="studio", people=1, split=split, **SMALL)
    assert asked == [recordings.TRACKS[split] for split in looks.SPLITS]


QUICK = ("phone", "dark")  # HEVC; 20 frames a second. VP8 is above


@pytest.mark.parametrize(
    "preset", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
)
def test_every_preset_is_written_with_its_codec(preset, tmp_path):
    size = (160, 288) if PRESETS[preset].scene.size[1] > 700 else (160, 160)
    (folder,) = write_people_recordings(tmp_path, preset=preset, people=1, seconds=1.0, size=size, seed=1)
    facts = decode.read_facts(next(folder.glob("vid.*")))
    assert (facts.width, facts.height) == size and facts.codec == PRESETS[preset].codec
    assert facts.fps == pytest.approx(PRESETS[preset].fps, rel=0.1)
    sheet = json.loads((folder / "recording.json").read_text())
    assert sheet["frames"] == len(list(decode.frames(next(folder.glob("vid.*")))))


def test_what_cannot_be_filmed_is_said(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something else"):
        write_people_recordings(tmp_path / "mine", preset="webcam", people=1)
    for wrong, said in (
        ({"people": 0}, "people cannot be filmed"),
        ({"split": "train"}, "fit, choose, test, all"),
        ({"seconds": 0.1}, "outside"),
        ({"seconds": float("nan")}, "outside"),
        ({"seed": -1}, "negative"),
        ({"size": (161, 160)}, "even"),
        ({"size": (640, 160)}, "twice"),
        ({"kinds": ["statue"]}, "photograph"),
        ({"workers": 0}, "workers"),
        ({"preset": "film"}, "webcam"),
        ({"encoding": Encoding("h264", crf=99)}, "outside"),
    ):
        with pytest.raises(ConfigError, match=said):
            write_people_recordings(tmp_path / "out", **{"preset": "webcam", **wrong})
    assert not (tmp_path / "out").exists()

    def full(*args, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recordings.sample_video, "write_video", full)
    with pytest.raises(UserError, match=r"no space left.*free space"):
        write_people_recordings(tmp_path / "full", preset="webcam", people=1, **SMALL)
    assert [path.name for path in (tmp_path / "full").iterdir()] == [simple.SETTINGS_FILE]


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_recordings_and_goes_on(browser, tmp_path, capsys):
    arguments = [str(tmp_path / "out"), "--preset=browser", "--people=2", "--seconds=1.5", "--size=160x160"]
    arguments += ["--seed=3", "--workers=1"]
    assert killed_film.run(10, *arguments) == -signal.SIGKILL
    assert (tmp_path / "out" / "subject1").exists() and not (tmp_path / "out" / "subject2").exists()
    assert simulate.main(arguments) == 0
    assert "2 recordings" in capsys.readouterr().out
    for name in ("subject1", "subject2"):
        assert contents(tmp_path / "out" / name) == contents(browser / name)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("blow", ["starter", "worker"])
def test_processes_that_film_end_with_the_one_that_started_them(tmp_path, blow):
    out = tmp_path / "out"
    arguments = [str(out), "--preset=webcam", "--people=2", "--seconds=600", "--size=160x160", "--workers=2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "sspd_jax", "simulate", *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as started:
        try:
            until(lambda: len(list(out.glob(".subject*.partial/.vid*"))) == 2)
            mine = children(started.pid)
            assert len(mine) >= 2
            os.kill(started.pid if blow == "starter" else mine[-1], signal.SIGKILL)
            said = started.communicate(timeout=60)[1]
        finally:
            started.kill()
    until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in mine))
    if blow == "worker":
        assert started.returncode != 0 and "a worker process was killed" in said and "Traceback" not in said
    assert not list(out.glob("subject*"))


def until(it_is, seconds=60):
    end = time.monotonic() + seconds
    while not it_is():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for task in tasks for child in task.read_text().split())


def test_the_command_refuses_what_says_nothing(tmp_path, capsys):
    for arguments, said in (
        (["--preset=nowhere"], "preset 'nowhere' is none of studio"),
        (["--preset=easy", "--codec=vp8"], "does not go with the preset easy"),
        (["--preset=easy", "--split=test"], "does not go with the preset easy"),
        (["--preset=webcam", "--bpm=70"], "needs --from=CLIP"),
        (["--preset=webcam", "--pulse_free=nod"], "photograph, mannequin"),
    ):
        assert simulate.main([str(tmp_path / "out"), *arguments]) != 0
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pulse_swells_and_keeps_its_rate():
    wave = known_pulse.draw_wave(1, 72.0, 60.0)
    swelling = recordings._swelling(np.random.default_rng(2), wave)
    np.testing.assert_array_equal(swelling.rate_bpm, wave.rate_bpm)
    beats = np.abs(swelling.ppg[: 29000 // 500 * 500].reshape(-1, 500)).max(1)  # each second
    assert 0.05 < beats.std() / beats.mean() < 0.3 and np.abs(swelling.ppg).max() <= 1

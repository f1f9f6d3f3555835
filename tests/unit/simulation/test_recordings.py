import json
import shutil
import signal

import killed_film
import numpy as np
import pytest
from simulated_face import open_face_clip

from sspd_jax.cli import simulate
from sspd_jax.datasets.readers import ubfc_rppg
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate.classical import read_trace
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.simulation import recordings
from sspd_jax.simulation.recordings import draw_person

TIMES = np.arange(600) / 30


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    out = tmp_path_factory.mktemp("easy")
    recordings.write_recordings(out, preset="easy", people=2, seconds=10, seed=50)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_recordings_are_what_the_reader_of_the_dataset_reads(easy):
    assert sorted(path.name for path in easy.iterdir()) == ["simulation.json", "subject1", "subject2"]
    for i, recording in enumerate(ubfc_rppg.recordings(easy), 1):
        assert recording.recording_id == f"subject{i}"
        assert recording.meta["notes"] == []
        assert recording.meta["dataset"] == "simulated"
        assert recording.meta["simulation"]["preset"] == "easy"
        times, images = zip(*recording.frames(), strict=True)
        np.testing.assert_allclose(times, TIMES[:300], atol=1e-6)
        assert images[0].shape == (240, 320, 3)
        person = draw_person(50, i)
        ppg, rate = person.pulse(TIMES[:300])
        np.testing.assert_allclose(recording.ppg.values, ppg, atol=1e-6)
        np.testing.assert_allclose(recording.meta["device_heart_rate"], rate, rtol=1e-6)


def test_the_pulse_in_the_pictures_is_the_truth_in_the_text(easy):
    for recording in ubfc_rppg.recordings(easy):
        trace = np.array([image.mean((0, 1)) for _, _, image in open_face_clip(recording.file).on_clock(30)])
        truth = spectral_peak_rate(recording.ppg.values, 30)
        for name in ("green", "chrom", "pos"):
            assert spectral_peak_rate(read_trace(name, trace, 30), 30) == pytest.approx(truth, abs=1.5), name
        green = read_trace("green", trace, 30)
        spectrum = np.fft.rfft((green - green.mean()) * np.hanning(len(green)))
        drawn = np.fft.rfft(recording.ppg.values * np.hanning(len(green)))
        at = round(truth / 60 * 10)
        turn = np.angle(spectrum[at] / drawn[at])
        assert abs(abs(turn) - np.pi) < 0.5  # in time with the truth: more blood, darker


def test_the_same_seed_writes_the_same_bytes_whichever_others_are_written(easy, tmp_path):
    recordings.write_recording(tmp_path / "again", "easy", 2, 10, 50)
    assert contents(tmp_path / "again") == contents(easy / "subject2")
    assert contents(easy / "subject1")["vid.avi"] != contents(easy / "subject2")["vid.avi"]


@pytest.mark.slow
def test_run_killed_half_way_leaves_whole_subjects_only_and_is_finished_by_a_second(easy, tmp_path):
    out = tmp_path / "out"
    arguments = [str(out), "--preset=easy", "--seconds=10", "--seed=50", "--workers=1"]
    assert killed_film.run(100, *arguments, "--people=9") == -signal.SIGKILL
    assert contents(out / "subject1") == contents(easy / "subject1")
    assert not (out / "subject2").exists()
    assert (out / ".subject2.partial").exists()
    assert [r.recording_id for r in ubfc_rppg.recordings(out)] == ["subject1"]
    before = (out / "subject1" / "vid.avi").stat()
    assert simulate.main([*arguments, "--people=2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["simulation.json", "subject1", "subject2"]
    assert contents(out / "subject2") == contents(easy / "subject2")
    after = (out / "subject1" / "vid.avi").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_folder_of_something_else_is_left_alone(easy, tmp_path, monkeypatch):
    (tmp_path / "subject1").mkdir()
    with pytest.raises(UserError, match="something else"):
        recordings.write_recordings(tmp_path, people=1, seconds=1)
    with pytest.raises(ConfigError, match="other settings"):
        recordings.write_recordings(easy, preset="hard", people=3, seconds=10, seed=50)
    with pytest.raises(UserError, match="cannot be written"):
        recordings.write_recordings(easy / "simulation.json", people=1, seconds=1)

    def full(*args, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recordings.sample_video, "write_video", full)
    with pytest.raises(UserError, match=r"no space left.*free space"):
        recordings.write_recordings(tmp_path / "full", people=1, seconds=1)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["simulation.json"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--preset=medium", "lamp, easy, default, hard"),
        ("--people=0", "1 or more"),
        ("--seconds=0.1", "too short"),
        ("--seconds=nan", "too short"),
        ("--seed=-1", "negative"),
        ("--size=100x100", "at least 120"),
        ("--size=321x240", "even"),
        ("--size=120x240", "twice the height"),
    ],
)
def test_wrong_arguments_are_a_sentence(tmp_path, capsys, flag, words):
    assert simulate.main([str(tmp_path / "out"), flag]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_command_writes_the_size_asked_for(tmp_path, capsys):
    out = tmp_path / "out"
    assert simulate.main([str(out), "--people=1", "--seconds=1.5", "--seed=4", "--size=256x192"]) == 0
    assert "subject1: 1.5 s, default" in capsys.readouterr().out
    (recording,) = ubfc_rppg.recordings(out)
    times, images = zip(*recording.frames(), strict=True)
    assert len(times) == 45
    assert images[0].shape == (192, 256, 3)
    assert json.loads((out / "simulation.json").read_text())["size"] == [256, 192]
    shutil.rmtree(out)
    with pytest.raises(SystemExit) as stop:
        simulate.main(["--help"])
    assert stop.value.code == 0

"""The commands: from a video to a number, and one sentence for whatever is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shared_files import PUBLISHED_WEIGHTS, REAL_FACE, needs
from simulated_face import write_sound

from sspd_jax import convert, predict
from sspd_jax.video import sample

ROOT = Path(__file__).parents[1]


def command(module, *arguments, folder):
    """Run a command as a user would: a process of its own, from another folder."""
    return subprocess.run(
        [sys.executable, "-m", f"sspd_jax.{module}", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(run, *words, code=1):
    """Check that a command failed with one sentence holding the words."""
    assert run.returncode == code, run
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), run.stderr
    for word in words:
        assert str(word) in lines[0], lines[0]
    assert "bpm" not in run.stdout


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "face.mp4"
    sample.write_face_video(path, seconds=10, bpm=84)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    directory = tmp_path_factory.mktemp("published") / "ubfc"
    assert convert.convert(PUBLISHED_WEIGHTS, directory) == 786_079
    return directory


@pytest.mark.parametrize("method", ["green", "chrom", "pos"])
def test_classical_methods_read_a_known_pulse(face, method):
    prediction = predict.predict(face, method=method)
    assert prediction.heart_rate_bpm == pytest.approx(84, abs=1.5)
    assert prediction.wave.fps == 30
    assert prediction.notes == ()
    assert prediction.checkpoint is None
    published = predict.predict(face, method=method, read_out="wavelet").heart_rate_bpm
    assert published == pytest.approx(84, abs=1.5)


def test_predict_prints_a_rate_and_writes_wave_and_times(face, tmp_path):
    run = command("predict", face, "--method=pos", "--json=out.json", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    result = json.loads((tmp_path / "out.json").read_text())
    assert f"{face}: {result['heart_rate_bpm']:.1f} bpm (pos, 10.0 s at 30.00 Hz)" in run.stdout
    assert result["heart_rate_bpm"] == pytest.approx(84, abs=1.5)
    assert len(result["wave"]) == len(result["times_s"]) == 300
    np.testing.assert_allclose(np.diff(result["times_s"]), 1 / 30, atol=1e-6)
    assert (result["method"], result["read_out"], result["fps"]) == ("pos", "spectrum", 30.0)
    left, top, right, bottom = result["face_box"]
    assert 0 <= left < right and 0 <= top < bottom
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


def test_a_gap_leaves_the_longest_stretch_and_says_so(tmp_path):
    times = np.concatenate([np.arange(0, 1.5, 1 / 30), np.arange(4, 10, 1 / 30), np.arange(12, 17, 1 / 30)])
    sample.write_face_video(tmp_path / "gaps.mp4", bpm=66, times_s=times)
    prediction = predict.predict(tmp_path / "gaps.mp4", method="pos")
    assert prediction.heart_rate_bpm == pytest.approx(66, abs=2)
    assert (prediction.wave.start_s, prediction.wave.duration_s) == pytest.approx((4, 6), abs=0.05)
    first, last = prediction.notes
    assert "0.0–1.5 s" in first and "12.0–17.0 s" in last


def test_a_variable_rate_reads_the_same_pulse(tmp_path):
    times = np.cumsum(np.random.default_rng(0).uniform(0.025, 0.045, 300))
    sample.write_face_video(tmp_path / "phone.mp4", bpm=75, times_s=times - times[0])
    assert predict.predict(tmp_path / "phone.mp4", method="pos").heart_rate_bpm == pytest.approx(75, abs=2)


# The published network.


@pytest.mark.slow
@needs(PUBLISHED_WEIGHTS)
def test_the_published_network_reads_a_known_pulse(face, published):
    import sspd_jax

    prediction = sspd_jax.load(published).predict(face)
    assert prediction.heart_rate_bpm == pytest.approx(84, abs=2)
    assert prediction.checkpoint == str(published)
    assert len(prediction.wave.values) == 299
    assert prediction.wave.start_s == pytest.approx(0.5 / 30)


@needs(REAL_FACE)
@needs(PUBLISHED_WEIGHTS)
def test_convert_then_predict_reads_a_real_face(tmp_path):
    run = command("convert", PUBLISHED_WEIGHTS, "--output=ubfc", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "786,079 parameters" in run.stdout
    run = command("predict", REAL_FACE, "--checkpoint=ubfc", "--json=o.json", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "o.json").read_text())
    assert 51.5 <= result["heart_rate_bpm"] <= 53.5
    assert f"{result['heart_rate_bpm']:.1f} bpm" in run.stdout
    assert len(result["wave"]) == 300


@needs(REAL_FACE)
@pytest.mark.parametrize("method", ["green", "chrom", "pos"])
def test_classical_methods_read_a_real_face(method):
    assert 51.5 <= predict.predict(REAL_FACE, method=method).heart_rate_bpm <= 53.5


@pytest.mark.slow
@needs(REAL_FACE)
@needs(PUBLISHED_WEIGHTS)
def test_the_published_read_out_agrees_on_a_real_face(published):
    import sspd_jax

    prediction = sspd_jax.load(published).predict(REAL_FACE, read_out="wavelet")
    assert 51.5 <= prediction.heart_rate_bpm <= 53.5


# What can be wrong.


def bad_videos(folder):
    """Write every kind of bad video; yields path and a word of its sentence."""
    text = folder / "text.mp4"
    text.write_text("this is not a video\n" * 100)
    yield text, "video"
    header = folder / "header.mp4"
    sample.write_face_video(folder / "whole.mp4", seconds=1)
    header.write_bytes((folder / "whole.mp4").read_bytes()[:160])
    yield header, "video"
    write_sound(folder / "sound.mp4")
    yield folder / "sound.mp4", "no video"
    yield folder / "missing.mp4", "no such"
    grey = [np.full((120, 160, 3), 90, np.uint8)] * 60
    sample.write_video(folder / "grey.mp4", iter(grey), np.arange(60) / 30)
    yield folder / "grey.mp4", "no face"
    picture = next(iter(sample.face_frames(np.arange(1) / 30, 60.0, 0)))
    sample.write_video(folder / "one.mp4", iter([picture, picture]), np.arange(2) / 30)
    yield folder / "one.mp4", "only 0.1 s"
    sample.write_face_video(folder / "short.mp4", seconds=2)
    yield folder / "short.mp4", "2.0 s"
    yield folder, "directory"


def test_a_bad_video_is_said_in_one_sentence(tmp_path, capfd):
    (tmp_path / "bad").mkdir()
    for path, word in bad_videos(tmp_path / "bad"):
        code = predict.main([str(path), "--method=pos", f"--json={tmp_path / 'out.json'}"])
        out, err = capfd.readouterr()
        assert code == 1, path
        assert "bpm" not in out
        lines = err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"error: {path}"), err
        assert word in lines[0], err
        assert not (tmp_path / "out.json").exists()


def test_a_still_picture_gives_no_number(tmp_path, capsys):
    picture = next(iter(sample.face_frames(np.arange(1) / 30, 60.0, 0)))
    sample.write_video(tmp_path / "still.avi", iter([picture] * 180), np.arange(180) / 30, codec="ffv1")
    for method in ("green", "chrom", "pos"):
        assert predict.main([str(tmp_path / "still.avi"), f"--method={method}"]) == 1
        said = capsys.readouterr()
        assert "still.avi" in said.err and "no pulse" in said.err and "bpm" not in said.out


def test_one_bad_video_does_not_stop_the_others(face, tmp_path, capsys):
    out = tmp_path / "out.json"
    code = predict.main([str(tmp_path / "missing.mp4"), str(face), "--method=pos", f"--json={out}"])
    said = capsys.readouterr()
    assert code == 1
    assert "missing.mp4" in said.err and "bpm" in said.out
    assert json.loads(out.read_text())["file"] == str(face)
    assert predict.main([str(face), str(face), "--method=green", f"--json={out}"]) == 0
    assert [row["method"] for row in json.loads(out.read_text())] == ["green", "green"]


def test_json_that_cannot_be_written_is_said_before_the_work(face, tmp_path):
    run = command("predict", face, "--method=pos", "--json=nowhere/out.json", folder=tmp_path)
    refused(run, "nowhere/out.json", "cannot be written")


def test_wrong_arguments_end_with_2(face, tmp_path):
    refused(command("predict", face, folder=tmp_path), "--checkpoint=DIR", "convert", code=2)
    for main, arguments in (
        (predict.main, [str(face), "--method=magic"]),
        (predict.main, []),
        (convert.main, ["x.pth"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_a_missing_checkpoint_is_said(face, tmp_path):
    run = command("predict", face, "--checkpoint=nowhere", folder=tmp_path)
    refused(run, "nowhere", "no such checkpoint", "sspd_jax.convert")


def test_debug_shows_the_traceback(tmp_path):
    run = command("predict", "missing.mp4", "--method=pos", "--debug", folder=tmp_path)
    assert run.returncode == 1
    assert "Traceback" in run.stderr and run.stderr.strip().splitlines()[-1].startswith("error: missing.mp4")


# Conversion.


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "other"])
def test_weights_that_do_not_convert_leave_nothing(tmp_path, capsys, kind):
    import torch_file_writer

    weights = tmp_path / f"{kind}.pth"
    if kind == "text":
        weights.write_text("weights")
    elif kind == "other":
        torch_file_writer.save(
            weights, {"BN.weight": np.ones(4, np.float32), "head.bias": np.ones(2, np.float32)}
        )
    elif kind == "truncated":
        torch_file_writer.save(weights, {"BN.weight": np.ones(3, np.float32)})
        weights.write_bytes(weights.read_bytes()[:-40])
    assert convert.main([str(weights), f"--output={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {weights}") and len(error.strip().splitlines()) == 1
    if kind == "other":
        assert "BN.weight" in error
    assert not (tmp_path / "out").exists()


@needs(PUBLISHED_WEIGHTS)
def test_convert_does_not_overwrite(published, capsys):
    assert convert.main([str(PUBLISHED_WEIGHTS), f"--output={published}"]) == 1
    assert "exists already" in capsys.readouterr().err

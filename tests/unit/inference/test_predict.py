"""The commands: from a video to a number, and one sentence for whatever is wrong."""

import csv
import dataclasses
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_training
from shared_files import PUBLISHED_WEIGHTS, REAL_FACE, needs
from simulated_face import write_sound

import sspd_jax
from sspd_jax.checkpoints import convert, host_network
from sspd_jax.checkpoints.network import save_network
from sspd_jax.cli import convert as cli_convert
from sspd_jax.cli import predict as cli_predict
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate import host_classical
from sspd_jax.heart_rate.estimators import OF_RAW_WAVES
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import predict, skin_reading, windows
from sspd_jax.inference.prediction import Failure, Prediction, describe
from sspd_jax.inference.windows import Segment, Settings, Window
from sspd_jax.inference.writing import write_csv, write_json
from sspd_jax.method import network
from sspd_jax.runtime.text import percent
from sspd_jax.simulation import sample_video
from sspd_jax.training import config as experiments
from sspd_jax.video import decode
from sspd_jax.video.face_detection import FaceBox
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.skin_box import SkinBox

ROOT = Path(__file__).parents[3]


def slowly(*values):
    """Parameters for the slow tests."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def command(name, *arguments, folder, **environment):
    """Run a command as a user would: a process of its own, from another folder."""
    return subprocess.run(
        [sys.executable, "-m", "sspd_jax", name, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def called(name, *arguments, said):
    """Run a command in this process, which takes no time to start."""
    code = {"predict": cli_predict, "convert": cli_convert}[name].main(list(map(str, arguments)))
    out, err = said.readouterr()
    return subprocess.CompletedProcess(arguments, code, out, err)


def refused(run, *words, code=1):
    """Check that a command failed with one sentence holding the words."""
    assert run.returncode == code, run
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), run.stderr
    for word in words:
        assert str(word) in lines[0], lines[0]
    assert "bpm" not in run.stdout


def notes_of(prediction):
    """What was said beside the rate, but for the models that some machine lacks."""
    return tuple(note for note in prediction.notes if note != load_networks()[1])


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    """Ten seconds at 84 bpm; 15 frames/s, which are read in half the time of 30."""
    path = tmp_path_factory.mktemp("videos") / "face.mp4"
    sample_video.write_face_video(path, seconds=10, fps=15, bpm=84)
    return path


@pytest.fixture(scope="module")
def face_at_30(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "face.mp4"
    sample_video.write_face_video(path, seconds=10, bpm=84)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    directory = tmp_path_factory.mktemp("published") / "ubfc"
    assert convert.convert(PUBLISHED_WEIGHTS, directory) == 786_079
    return directory


# What each method makes of colours is tested where it is written.
@pytest.mark.parametrize("method", ["pos", "lgi", *slowly(*sorted({*host_classical.NAMES} - {"pos", "lgi"}))])
def test_classical_methods_read_a_known_pulse(face, method):
    prediction = predict.predict(face, method=method)
    assert prediction.heart_rate_bpm == pytest.approx(84, abs=1.5)
    assert prediction.confidence > 0.5
    assert prediction.wave.fps == 15
    assert notes_of(prediction) == ()
    assert prediction.checkpoint is None
    (window,) = prediction.windows
    assert (window.start_s, window.duration_s, window.why) == (0, 10, "")


@pytest.mark.parametrize("hr_estimator", OF_RAW_WAVES)
def test_every_estimator_finds_a_known_pulse(read_face, hr_estimator):
    (segment,) = read_face.segments
    (window,) = skin_reading.judge(segment.skin, "pos", Settings(hr_estimator=hr_estimator)).windows
    assert window.heart_rate_bpm == pytest.approx(84, abs=1.5)


def test_predict_prints_a_rate_and_writes_wave_and_times(face, tmp_path):
    run = command("predict", face, "--method=pos", "--json=out.json", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    result = json.loads((tmp_path / "out.json").read_text())
    sure = f"{percent(result['confidence'])} sure"
    assert f"{face}: {result['heart_rate_bpm']:.1f} bpm, {sure} (pos, 10.0 s at 15.00 Hz)" in run.stdout
    assert result["heart_rate_bpm"] == pytest.approx(84, abs=1.5)
    low, high = result["interval_bpm"]
    assert low < 84 < high < low + 10
    assert result["windows"][0]["interval_bpm"] == [low, high]
    assert len(result["wave"]) == len(result["times_s"]) == 150
    np.testing.assert_allclose(np.diff(result["times_s"]), 1 / 15, atol=1e-6)
    assert (result["method"], result["read_out"], result["fps"]) == ("pos", "levelled_spectrum", 15.0)
    assert len(result["beats_s"]) == pytest.approx(14, abs=1)
    np.testing.assert_allclose(np.diff(result["beats_s"]), 60 / 84, atol=2 / 15)  # two frames
    left, top, right, bottom = result["face_box"]
    assert 0 <= left < right and 0 <= top < bottom
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


def test_a_gap_makes_two_stretches_and_says_so(tmp_path):
    times = np.concatenate([np.arange(0, 1.5, 1 / 15), np.arange(4, 10, 1 / 15), np.arange(12, 17, 1 / 15)])
    sample_video.write_face_video(tmp_path / "gaps.mp4", bpm=66, times_s=times)
    prediction = predict.predict(tmp_path / "gaps.mp4", method="pos")
    assert [(w.start_s, w.duration_s) for w in prediction.windows] == [
        (pytest.approx(4, abs=0.1), pytest.approx(6, abs=0.1)),
        (pytest.approx(12, abs=0.1), pytest.approx(5, abs=0.1)),
    ]
    assert [w.candidate_bpm for w in prediction.windows] == pytest.approx([66, 66], abs=3)
    left_out, first, second = notes_of(prediction)
    assert left_out == "left out 0.0–1.5 s: too short to hold a few beats"
    assert first == "a gap in time, 1.5–4.0 s" and second == "a gap in time, 9.9–12.0 s"


@pytest.mark.parametrize(
    ("fps", "clock"),
    [(60, 60), *(pytest.param(*rates, marks=pytest.mark.slow) for rates in ((15, 15), (24, 24), (120, 60)))],
)
def test_frame_rates_from_15_to_120(tmp_path, fps, clock):
    sample_video.write_face_video(tmp_path / "face.mp4", seconds=6, fps=fps, bpm=84)
    prediction = predict.predict(tmp_path / "face.mp4", method="pos")
    assert prediction.wave.fps == pytest.approx(clock, rel=0.01)
    assert prediction.windows[0].candidate_bpm == pytest.approx(84, abs=2)


def test_a_variable_rate_reads_the_same_pulse(tmp_path):
    times = np.cumsum(np.random.default_rng(0).uniform(0.05, 0.09, 150))
    sample_video.write_face_video(tmp_path / "phone.mp4", bpm=75, times_s=times - times[0])
    reading = predict.predict(tmp_path / "phone.mp4", method="pos", settings=Settings(min_confidence=0.5))
    assert reading.heart_rate_bpm == pytest.approx(75, abs=2)


# The published network.


@pytest.mark.slow
@needs(PUBLISHED_WEIGHTS)
def test_the_published_network_reads_a_known_pulse(face_at_30, published):
    model = sspd_jax.load(published)
    prediction = predict.predict(face_at_30, model=model, method="sspd")
    assert prediction.heart_rate_bpm == pytest.approx(84, abs=2)
    assert prediction.checkpoint == str(published)
    assert len(prediction.wave.values) == 300  # on the clock of the skin
    of_crop = predict.predict(face_at_30, model=model, method="sspd", settings=Settings(region="crop"))
    assert len(of_crop.wave.values) == 299  # between the frames
    assert of_crop.wave.start_s == pytest.approx(0.5 / 30)


@pytest.mark.slow
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
    assert len(result["wave"]) == 301


@needs(REAL_FACE)
@pytest.mark.parametrize("method", ["auto", *slowly("green", "chrom", "pos")])
def test_classical_methods_read_a_real_face(method):
    # Given by all side by side; one alone is right, whether it is given or not.
    settings = Settings() if method == "auto" else Settings(min_confidence=0)
    assert 51.5 <= predict.predict(REAL_FACE, method=method, settings=settings).heart_rate_bpm <= 53.5


@pytest.mark.slow
@needs(REAL_FACE)
@needs(PUBLISHED_WEIGHTS)
def test_the_published_estimator_agrees_on_a_real_face(published):
    settings = Settings(hr_estimator="wavelet", min_confidence=0)  # whether it is given is not asked here
    prediction = predict.predict(REAL_FACE, model=sspd_jax.load(published), settings=settings)
    assert 51.5 <= prediction.heart_rate_bpm <= 53.5


# What can be wrong.


def bad_videos(folder):
    """Write every kind of bad video; yields path and a word of its sentence."""
    text = folder / "text.mp4"
    text.write_text("this is not a video\n" * 100)
    yield text, "video"
    header = folder / "header.mp4"
    sample_video.write_face_video(folder / "whole.mp4", seconds=1)
    header.write_bytes((folder / "whole.mp4").read_bytes()[:160])
    yield header, "video"
    write_sound(folder / "sound.mp4")
    yield folder / "sound.mp4", "no video"
    yield folder / "missing.mp4", "no such"
    grey = [np.full((120, 160, 3), 90, np.uint8)] * 60
    sample_video.write_video(folder / "grey.mp4", iter(grey), np.arange(60) / 30)
    yield folder / "grey.mp4", "no face"
    picture = next(iter(sample_video.face_frames(np.arange(1) / 30, 60.0, 0)))
    sample_video.write_video(folder / "one.mp4", iter([picture, picture]), np.arange(2) / 30)
    yield folder / "one.mp4", "only 0.1 s"
    sample_video.write_face_video(folder / "short.mp4", seconds=2)
    yield folder / "short.mp4", "2.0 s"
    (folder / "none").mkdir()
    yield folder / "none", "holds no video"


def test_a_bad_video_is_said_in_one_sentence(tmp_path, capfd):
    (tmp_path / "bad").mkdir()
    for path, word in bad_videos(tmp_path / "bad"):
        code = cli_predict.main([str(path), "--method=pos", f"--json={tmp_path / 'out.json'}"])
        out, err = capfd.readouterr()
        assert code == 1, path
        assert "bpm" not in out
        lines = err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"error: {path}"), err
        assert word in lines[0], err
        result = tmp_path / "out.json"
        if word == "holds no video":
            assert not result.exists()
        else:
            assert json.loads(result.read_text()) == {"file": str(path), "error": lines[0][len("error: ") :]}
            result.unlink()


def test_a_still_picture_gives_no_number(tmp_path, capsys):
    picture = next(iter(sample_video.face_frames(np.arange(1) / 30, 60.0, 0)))
    sample_video.write_video(tmp_path / "still.avi", iter([picture] * 75), np.arange(75) / 15, codec="ffv1")
    for method in ("green", "chrom", "pos"):
        out = tmp_path / f"{method}.json"
        assert cli_predict.main([str(tmp_path / "still.avi"), f"--method={method}", f"--json={out}"]) == 0
        said = capsys.readouterr()
        assert "still.avi: no reading, " in said.out and f"({method}, " in said.out and "bpm" not in said.out
        result = json.loads(out.read_text())
        assert result["heart_rate_bpm"] is None and result["windows"][0]["heart_rate_bpm"] is None


def test_one_bad_video_does_not_stop_the_others(brief, tmp_path, capsys):
    face, out = brief[0], tmp_path / "out.json"
    code = cli_predict.main([str(tmp_path / "missing.mp4"), str(face), "--method=pos", f"--json={out}"])
    said = capsys.readouterr()
    assert code == 1
    assert "missing.mp4" in said.err and "face.mp4: " in said.out
    missing, read = json.loads(out.read_text())
    assert missing["file"].endswith("missing.mp4") and "no such file" in missing["error"]
    assert read["file"] == str(face) and "error" not in read
    assert cli_predict.main([str(face), str(face), "--method=green", f"--json={out}"]) == 0
    assert [row["method"] for row in json.loads(out.read_text())] == ["green", "green"]


@pytest.mark.slow
def test_three_lines_of_python_read_files_arrays_and_streams(brief):
    face, by_file = brief
    assert by_file.windows[0].candidate_bpm == pytest.approx(84, abs=1.5)
    stream = list(decode.frames(face))
    by_stream = sspd_jax.read(iter(stream), fps=15, method="pos")
    by_array = sspd_jax.read(np.stack([picture for _, picture in stream]), fps=15, method="pos")
    for prediction in (by_stream, by_array):
        np.testing.assert_allclose(prediction.wave.values, by_file.wave.values, atol=1e-9)
        assert prediction.file == "frames"
    with pytest.warns(DeprecationWarning, match="read_out is called hr_estimator now"):
        by_earlier_name = sspd_jax.read(face, read_out="beats", network=False)
    assert (by_earlier_name.method, by_earlier_name.hr_estimator) == ("auto", "beats")
    network = sspd_jax.load(ROOT / "data" / "simulated_faces")
    with pytest.warns(DeprecationWarning, match="model is called checkpoint now"):
        assert sspd_jax.read(face, model=network).checkpoint == network.name
    with pytest.raises(ConfigError, match="need their rate"):
        sspd_jax.read(iter(stream))


@pytest.fixture(scope="module")
def read_face(face):
    return sspd_jax.read(face, method="pos")


@pytest.fixture(scope="module")
def brief(tmp_path_factory):
    """Five seconds at 84 bpm, and what is read of them."""
    path = tmp_path_factory.mktemp("brief") / "face.mp4"
    sample_video.write_face_video(path, seconds=5, fps=15, bpm=84)
    return path, sspd_jax.read(path, method="pos")


@pytest.mark.parametrize("kind", ["bytes", "stream", "upload", "list", "fractions", "channels first"])
def test_uploads_and_pictures_of_any_kind_are_read_as_the_file_is(brief, kind):
    face, whole = brief
    pictures = np.stack([picture for _, picture in decode.frames(face)])
    video = {
        "bytes": face.read_bytes(),
        "stream": io.BytesIO(face.read_bytes()),
        "upload": types.SimpleNamespace(file=io.BytesIO(face.read_bytes()), filename="C:/me/face.mp4"),
        "list": list(pictures),
        "fractions": (pictures / 255).astype(np.float32),
        "channels first": pictures.transpose(0, 3, 1, 2),
    }[kind]
    fps = None if kind in ("bytes", "stream", "upload") else 15
    prediction = sspd_jax.read(video, fps=fps, method="pos")
    np.testing.assert_allclose(prediction.wave.values, whole.wave.values, atol=1e-9)
    names = {"bytes": "the upload", "stream": "the upload", "upload": "face.mp4"}
    assert prediction.file == names.get(kind, "frames")


@pytest.mark.parametrize(
    ("video", "options", "words"),
    [
        (b"no video at all", {}, "the upload: not a video"),
        (b"", {}, "has no byte left to read"),
        (io.StringIO("text"), {}, r"gives text instead of bytes; open it by open\(path, \"rb\"\)"),
        (None, {"fps": 30}, "a video cannot be NoneType"),
        (["a.mp4", "b.mp4"], {}, "is a list of files"),
        ("https://example.org/a.mp4", {}, "is an address, and no address is opened"),
        (np.zeros((9, 8, 8, 3)), {"fps": 0}, "fps=0 is no frame rate"),
        (np.zeros((9, 8, 8, 3)), {"fps": "30"}, "fps='30' is no frame rate"),
        (np.zeros((9, 8, 8, 3)), {"fps": 5}, "frames: has 5 frames/s, a pulse needs more than 6"),
        (np.zeros((9, 8, 8, 3)), {"fps": 30, "window": "5"}, "a setting has the wrong type"),
        (
            np.zeros((9, 8, 8, 3)),
            {"fps": 30, "windw_s": 5},
            r"read\(\) has no setting 'windw_s'; did you mean",
        ),
        (np.zeros((9, 8, 8, 3)), {"fps": 30, "methd": "pos"}, "'methd'; did you mean 'method'"),
    ],
)
@pytest.mark.filterwarnings("ignore:window is called")
def test_what_is_no_video_is_one_sentence(video, options, words):
    with pytest.raises(UserError, match=words) as caught:
        sspd_jax.read(video, **options)
    assert len(str(caught.value).splitlines()) == 1 and "/tmp" not in str(caught.value)


def test_a_prediction_is_printed_as_the_command_says_it(face, read_face, capsys):
    cli_predict.main([str(face), "--method=pos"])
    assert capsys.readouterr().out == f"{read_face}\n"
    first = str(read_face).splitlines()[0]
    assert first.startswith(f"{face}: 83.7 bpm") and repr(read_face) == f"<{first}>"


def test_exchanged_channels_are_said(brief):
    face, read_face = brief
    assert not [note for note in read_face.notes if "BGR" in note]
    turned = ((time_s, picture[..., ::-1]) for time_s, picture in decode.frames(face))
    assert [n for n in sspd_jax.read(turned, fps=15, method="pos").notes if "if the pictures are BGR" in n]


def test_watching_takes_what_reading_takes(brief):
    pictures = [picture for _, picture in decode.frames(brief[0])]
    timed = [(number / 15, picture) for number, picture in enumerate(pictures)]
    fractions = [picture.astype(np.float32) / 255 for picture in pictures]
    one, other = (
        list(sspd_jax.watch(frames, 15, method="pos", window_s=4))[-1].wave.values
        for frames in (timed, fractions)
    )
    assert len(one) == 60
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ConfigError, match=r"watch\(\) has no setting 'every'"):
        sspd_jax.watch(pictures, 30, every=2)
    with pytest.raises(ConfigError, match="fps=0 is no frame rate"):
        sspd_jax.watch(pictures, 0)


@pytest.mark.parametrize("option", ["--hr_estimator", "--read_out", "--read-out"])
def test_the_estimator_is_an_option_with_earlier_names(brief, tmp_path, option, capsys):
    out = tmp_path / "out.json"
    assert cli_predict.main([str(brief[0]), "--method=pos", f"{option}=beats", f"--json={out}"]) == 0
    is_earlier = option != "--hr_estimator"
    assert (f"note: {option} is called --hr_estimator now" in capsys.readouterr().err) == is_earlier
    assert json.loads(out.read_text())["read_out"] == "beats"
    with pytest.raises(SystemExit):
        cli_predict.main(["--help"])
    shown = capsys.readouterr().out
    assert "usage: sspd_jax predict" in shown
    assert "--hr_estimator" in shown and "--read" not in shown


def test_what_is_done_is_written_before_the_next_video_begins(face, tmp_path, monkeypatch):
    """As it must be where a kill, or a fault, ends the last one."""
    out, table = tmp_path / "out.json", tmp_path / "out.csv"
    videos = [tmp_path / "missing.mp4", face, tmp_path / "=last.mp4"]
    seen = []

    def estimate(video, **options):
        if video == str(videos[-1]):
            seen.append((json.loads(out.read_text()), list(csv.DictReader(table.read_text().splitlines()))))
            raise KeyboardInterrupt
        return predict.predict(video, **options)

    monkeypatch.setattr(cli_predict, "predict", estimate)
    options = ["--method=pos", f"--json={out}", f"--csv={table}"]
    assert cli_predict.main([*map(str, videos), *options]) == 130
    ((results, rows),) = seen
    assert [result["file"] for result in results] == [str(video) for video in videos[:2]]
    assert [row["file"] for row in rows] == [str(video) for video in videos[:2]]
    assert "no such file" in rows[0]["error"] and rows[0]["heart_rate_bpm"] == ""
    assert rows[1]["error"] == "" and float(rows[1]["heart_rate_bpm"]) == pytest.approx(84, abs=1.5)


def test_an_interruption_ends_the_whole_folder(face, monkeypatch, capsys):
    asked = []

    def interrupted(video, **_):
        asked.append(video)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_predict, "predict", interrupted)
    assert cli_predict.main([str(face), str(face)]) == 130
    assert len(asked) == 1 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.slow
def test_a_pipe_gets_its_results_once(brief, tmp_path):
    face = brief[0]
    said = command("predict", face, face, "--method=pos", "--csv=/dev/stdout", folder=tmp_path).stdout
    assert said.count("heart_rate_bpm") == 1 and said.count(f"{face},") == 2


def test_certainty_is_never_printed(read_face):
    sure = dataclasses.replace(read_face.windows[0], confidence=1.0)
    segments = tuple(dataclasses.replace(s, windows=(sure, sure)) for s in read_face.segments)
    lines = list(describe(dataclasses.replace(read_face, confidence=1.0, segments=segments), "face"))
    assert all(">99% sure" in line for line in lines[:3]) and not any("100%" in line for line in lines)


def test_a_refused_window_says_what_it_is_unsure_of(face, capsys):
    options = ["--method=pos", "--window=5", "--stride=5", "--min_confidence=1"]
    assert cli_predict.main([str(face), *options]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "0.0–5.0 s" in line]
    assert re.search(r"0\.0–5\.0 s no reading  .+ \(8\d\.\d bpm would be >?\d+% sure\)$", said), said


def test_a_window_longer_than_the_video_is_said(brief):
    (note,) = notes_of(predict.predict(brief[0], method="pos", settings=Settings(window_s=60)))
    asked = "windows of 60 s were asked for, and nothing that long is there"
    assert note == f"{asked}: the longest has 5.0 s"


@pytest.mark.parametrize("region", ["skin", "crop"])
def test_a_face_that_leaves_for_good_is_said(tmp_path, region):
    times = np.arange(15 * 15) / 15
    pictures = list(sample_video.face_frames(times, 72, 0))
    pictures[5 * 15 :] = [np.full((256, 256, 3), 120, np.uint8)] * (10 * 15)
    sample_video.write_video(tmp_path / "left.mp4", pictures, times)
    settings = Settings(region=region)
    prediction = predict.predict(tmp_path / "left.mp4", method="pos", settings=settings)
    assert prediction.watched_s == pytest.approx(15, abs=0.1)
    (note,) = (note for note in prediction.notes if "nothing is read after" in note)
    assert re.fullmatch(r"nothing is read after [5-8]\.\d s of 14\.9 s: the face is out of view", note)
    assert re.search(r"pos, [5-8]\.\d of 15\.0 s at 15", next(describe(prediction, "left")))


def test_why_no_variability_is_measured_is_said(brief, tmp_path):
    options = ["--method=pos", "--min_confidence=0", f"--json={tmp_path / 'a.json'}"]
    assert cli_predict.main([str(brief[0]), *options]) == 0
    result = json.loads((tmp_path / "a.json").read_text())
    needed = "60 s of readings in a row are needed, the longest run has 5 s"
    assert result["variability"] is None and result["why_no_variability"] == needed


@pytest.mark.parametrize("options", [[], ["--region=crop"], ["--all_faces"]])
def test_a_search_says_how_far_it_went(tmp_path, options, capsys):
    grey = [np.full((120, 160, 3), 90, np.uint8)] * 60
    sample_video.write_video(tmp_path / "grey.mp4", iter(grey), np.arange(60) / 30)
    assert cli_predict.main([str(tmp_path / "grey.mp4"), *options]) == 1
    assert "no face found in any of its 2.0 s" in capsys.readouterr().err


def test_the_detector_of_the_crop_can_be_chosen(face, capsys):
    assert cli_predict.main([str(face), "--method=pos", "--region=crop", "--face_detector=haar"]) == 0
    assert cli_predict.main([str(face), "--face_detector=haar"]) == 2
    assert "for --region=crop" in capsys.readouterr().err
    assert cli_predict.main([str(face), "--region=crop", "--face_detector=yunet"]) == 2
    assert "no such model file" in capsys.readouterr().err


@pytest.mark.parametrize("step_s", [1.0, 100.0])
def test_too_few_frames_a_second_are_refused_before_they_are_read(tmp_path, step_s, monkeypatch, capsys):
    picture = next(iter(sample_video.face_frames(np.arange(1) / 30, 60.0, 0)))
    sample_video.write_video(tmp_path / "slow.mp4", iter([picture] * 12), np.arange(12) * step_s)
    monkeypatch.setattr(predict, "_predict", None)
    assert cli_predict.main([str(tmp_path / "slow.mp4")]) == 1
    assert f"has {1 / step_s:g} frames/s, a pulse needs more than 6" in capsys.readouterr().err


@pytest.mark.slow
def test_notes_on_a_video_in_pieces_are_few(tmp_path):
    starts = [0, *(8 + 2 * np.arange(25))]
    times = np.concatenate([start + np.arange(150 if not start else 8) / 30 for start in starts])
    sample_video.write_video(tmp_path / "a.mp4", sample_video.face_frames(times, 72.0, 0), times)
    notes = predict.predict(tmp_path / "a.mp4", method="pos", settings=Settings(region="crop")).notes
    assert len(notes) == 21 and notes[-1] == "31 more such notes are left out"


def test_no_path_is_not_the_present_folder(face, monkeypatch, capsys):
    monkeypatch.chdir(face.parent)
    assert cli_predict.main([""]) == 1
    assert capsys.readouterr().err.startswith("error: '': is no path")


def test_bounds_are_said_and_can_be_raised(brief, capsys):
    face = brief[0]
    assert cli_predict.main([str(face), "--max_megapixels=0.01"]) == 1
    assert "256 × 256 pixels are larger than 0.01 megapixels" in capsys.readouterr().err
    assert cli_predict.main([str(face), "--method=pos", "--max_hours=0.00125"]) == 0
    said = capsys.readouterr().out
    assert "(pos, 4.5 s" in said and "only the first 0.00125 hours are read: --max_hours allows more" in said
    assert cli_predict.main([str(face), "--method=pos"]) == 0
    assert "(pos, 5.0 s" in capsys.readouterr().out


def test_csv_and_picture_hold_every_window(face, tmp_path, capsys):
    csv_file, picture = tmp_path / "out.csv", tmp_path / "out.png"
    options = ["--method=pos", f"--csv={csv_file}", f"--plot={picture}", "--window=5", "--stride=1"]
    assert cli_predict.main([str(face), *options]) == 0
    rows = list(csv.DictReader(csv_file.read_text().splitlines()))
    assert len(rows) == 6 and [float(row["start_s"]) for row in rows] == [0, 1, 2, 3, 4, 5]
    read = [row for row in rows if row["heart_rate_bpm"]]
    assert read and all(float(row["heart_rate_bpm"]) == pytest.approx(84, abs=2) for row in read)
    assert f"{len(read)} of 6 windows" in capsys.readouterr().out
    assert cv2.imread(str(picture)).shape[1] > 800
    assert cli_predict.main([str(face), "--method=pos", f"--plot={tmp_path / 'out.docx'}"]) == 2
    assert "ends in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [("--window=2", "window_s 2"), ("--stride=0", "stride_s 0"), ("--min_confidence=2", "min_confidence 2")],
)
def test_settings_out_of_range_end_with_2(face, option, said, capsys):
    assert cli_predict.main([str(face), "--method=pos", option]) == 2
    assert said in capsys.readouterr().err


def two_faces(folder):
    """Write a video of two people, 60 bpm on the left and 96 on the right."""
    times = np.arange(150) / 15
    pair = zip(sample_video.face_frames(times, 60, 1), sample_video.face_frames(times, 96, 2), strict=True)
    path = folder / "two.mp4"
    sample_video.write_video(path, (np.hstack(pictures) for pictures in pair), times)
    return path


def test_everybody_in_view_is_read_on_request(tmp_path, capsys):
    path, out = two_faces(tmp_path), tmp_path / "out.json"
    assert cli_predict.main([str(path), "--method=pos", "--all_faces", f"--json={out}"]) == 0
    left, right = json.loads(out.read_text())
    assert left["heart_rate_bpm"] == pytest.approx(60, abs=1.5)
    assert right["heart_rate_bpm"] == pytest.approx(96, abs=1.5)
    assert left["face_box"][2] < 300 < right["face_box"][2]
    said = capsys.readouterr().out
    assert "face 1 of 2" in said and "face 2 of 2" in said


@pytest.mark.slow
def test_a_face_that_leaves_and_comes_back_is_read_where_it_was(tmp_path):
    times = np.arange(22 * 15) / 15
    pictures = list(sample_video.face_frames(times, 72, 0))
    for number in range(8 * 15, 14 * 15):
        pictures[number] = np.full((256, 256, 3), 120, np.uint8)
    sample_video.write_video(tmp_path / "away.mp4", pictures, times)
    prediction = predict.predict(
        tmp_path / "away.mp4", method="pos", settings=Settings(window_s=6, stride_s=2)
    )
    there = [w for w in prediction.windows if w.start_s + w.duration_s <= 8 or w.start_s >= 14]
    assert len(there) >= 3 and all(w.candidate_bpm == pytest.approx(72, abs=3) for w in there)
    assert any("out of view" in note for note in prediction.notes)
    away = [w for w in prediction.windows if w not in there]
    assert all(w.heart_rate_bpm is None or abs(w.heart_rate_bpm - 72) < 3 for w in away)


def test_a_video_damaged_in_the_middle_is_read_around_the_damage(face, tmp_path):
    data = bytearray(face.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    (tmp_path / "hurt.mp4").write_bytes(data)
    prediction = predict.predict(tmp_path / "hurt.mp4", method="pos")
    assert any("damaged frame" in note for note in prediction.notes)
    assert any(w.candidate_bpm == pytest.approx(84, abs=3) for w in prediction.windows)


def test_a_short_clip_is_told_to_be_short(tmp_path, capsys):
    sample_video.write_face_video(tmp_path / "six.mp4", seconds=6, fps=15, bpm=84)
    assert cli_predict.main([str(tmp_path / "six.mp4"), "--method=pos", "--min_confidence=1"]) == 0
    assert "and 6.0 s are too short to be sure: take 10 s or more" in capsys.readouterr().out


@pytest.mark.slow
def test_a_clock_that_is_assumed_is_doubted_until_a_rate_is_given(tmp_path, capsys):
    times_s = np.arange(300) / 30
    pictures = (cv2.imencode(".jpg", p[..., ::-1])[1] for p in sample_video.face_frames(times_s, 72.0, 0))
    path = tmp_path / "raw.mjpeg"
    path.write_bytes(b"".join(picture.tobytes() for picture in pictures))
    assert cli_predict.main([str(path), "--no_network"]) == 0
    said = capsys.readouterr().out
    assert f"no reading, {windows.NO_CLOCK}" in said and "are assumed" in said
    doubted = predict.predict(path, settings=Settings(min_confidence=0.3, network=False))
    assert doubted.heart_rate_bpm is not None and doubted.confidence == 0.5
    told = predict.predict(path, fps=30.0, settings=Settings(network=False))
    assert told.heart_rate_bpm == pytest.approx(72, abs=1.5) and notes_of(told) == ()
    assert cli_predict.main([str(path), "--fps=-3"]) == 2


def test_a_name_that_a_spreadsheet_would_compute_is_no_formula(read_face, tmp_path):
    write_csv(tmp_path / "a.csv", [dataclasses.replace(read_face, file="=1+1.mp4")])
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("'=1+1.mp4,1,pos,0")


def test_a_name_does_not_pass_for_a_line_of_its_own(brief, tmp_path, capsys):
    face = brief[0]
    for name in ("a\nb.mp4: 72.0 bpm, 99% sure", "c\x1b[2J"):
        (tmp_path / f"{name}.mp4").symlink_to(face)
    assert cli_predict.main([str(tmp_path), "--method=pos", "--min_confidence=0"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 and "\\nb.mp4" in out and "\\x1b" in out and "\x1b" not in out


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"$x_{^2.mp4", b"a\n\x1b[2J.mp4"])
def test_a_picture_can_be_drawn_of_any_name(brief, tmp_path, name, capsys):
    face = brief[0]
    path = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).symlink_to(face)
    options = ["--method=pos", f"--plot={tmp_path / 'a.svg'}", f"--csv={tmp_path / 'a.csv'}"]
    assert cli_predict.main([os.fsdecode(path), *options]) == 0
    assert (tmp_path / "a.svg").stat().st_size > 10_000
    assert name.splitlines()[0] in (tmp_path / "a.csv").read_bytes()


@pytest.mark.slow
def test_the_windows_of_auto_say_what_each_estimator_says(face, tmp_path):
    assert cli_predict.main([str(face), f"--json={tmp_path / 'a.json'}"]) == 0
    (window,) = json.loads((tmp_path / "a.json").read_text())["windows"]
    assert set(window["estimates_bpm"]) == {"green", "pos", "chrom", "omit", "sspd"}
    assert all(bpm == pytest.approx(84, abs=3) for bpm in window["estimates_bpm"].values())


@pytest.mark.parametrize("method", ["auto", "pos", "sspd"])
def test_the_crop_can_be_read_as_toolboxes_do(face, method):
    model = sspd_jax.load(ROOT / "data/simulated_faces") if method == "sspd" else None
    settings = Settings(region="crop")
    prediction = predict.predict(face, method=method, model=model, settings=settings)
    assert prediction.method == {"auto": "pos"}.get(method, method)
    assert prediction.hr_estimator == "harmonic"
    assert prediction.windows[0].candidate_bpm == pytest.approx(84, abs=2)


def test_a_network_is_one_voice_among_the_estimators(face):
    model = sspd_jax.load(ROOT / "data/simulated_faces")
    prediction = predict.predict(face, model=model)
    assert prediction.method == "auto" and prediction.checkpoint == model.name
    assert set(prediction.windows[0].estimates_bpm) == {"green", "pos", "chrom", "omit", "sspd"}
    assert prediction.windows[0].candidate_bpm == pytest.approx(84, abs=1.5)


def test_the_network_of_the_package_is_asked_alone(face, monkeypatch):
    alone = predict.predict(face, method="sspd")
    assert (alone.method, alone.checkpoint) == ("sspd", "skin_network")
    (window,) = alone.windows
    assert window.candidate_bpm == pytest.approx(84, abs=1.5)
    assert window.candidate_bpm == window.estimates_bpm["sspd"]
    heard = predict.predict(face).segments[0]
    assert len(heard.wave.values) == len(alone.wave.values)
    monkeypatch.setattr(predict, "load_networks", lambda: (None, "no landmarks"))
    with pytest.raises(UserError, match=r"skin_network cannot be asked: no landmarks; .* --checkpoint"):
        predict.predict(face, method="sspd")


def test_the_network_of_the_package_is_a_voice_of_auto_that_can_be_left_out(brief, tmp_path, monkeypatch):
    face = brief[0]
    assert set(predict.predict(face).windows[0].estimates_bpm) == {"green", "pos", "chrom", "omit", "sspd"}
    out = tmp_path / "face.json"
    with monkeypatch.context() as absent:
        absent.setattr(host_network, "shipped", lambda: pytest.fail("it was asked"))
        assert cli_predict.main([str(face), "--no_network", f"--json={out}"]) == 0
        assert "sspd" not in predict.predict(face, method="omit").windows[0].estimates_bpm
    (window,) = json.loads(out.read_text())["windows"]
    assert set(window["estimates_bpm"]) == {"green", "pos", "chrom", "omit"}
    assert window["candidate_bpm"] == pytest.approx(84, abs=1.5)
    monkeypatch.setattr(predict, "load_networks", lambda: (None, "no landmarks"))
    alone = predict.predict(face)  # it has learned from skin that landmarks found
    assert "sspd" not in alone.windows[0].estimates_bpm and "no landmarks" in alone.notes


@pytest.mark.parametrize("method", ["pos", *slowly("green")])
def test_a_black_and_white_video_gives_no_number(tmp_path, method, monkeypatch, capsys):
    monkeypatch.setitem(sample_video.PIXEL_FORMATS, "libx264", "gray")
    times = np.arange(75) / 15
    sample_video.write_video(tmp_path / "grey.mp4", sample_video.face_frames(times, 84, 0), times)
    assert cli_predict.main([str(tmp_path / "grey.mp4"), f"--method={method}"]) == 0
    assert f"grey.mp4: no reading, {windows.NO_COLOUR}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        pytest.param("ten_bit.mkv", "libx265", "yuv420p10le", marks=pytest.mark.slow),
        ("grey.mkv", "ffv1", "gray"),
        ("phone.mov", "libx264", "yuv420p"),
        ("wide_gamut.mp4", "libx264", "yuv420p10le"),
        pytest.param("web.webm", "libvpx-vp9", "yuv420p", marks=pytest.mark.slow),
        ("transparent.mov", "qtrle", "argb"),
    ],
)
def test_odd_pictures_are_read(tmp_path, name, codec, pixels, monkeypatch):
    times = np.arange(90) / 15
    monkeypatch.setitem(sample_video.PIXEL_FORMATS, codec, pixels)
    path, turn = tmp_path / name, 90 if name == "phone.mov" else 0
    pictures = (np.rot90(p, -turn // 90) for p in sample_video.face_frames(times, 84, 0))
    options = {"crf": "12", "deadline": "realtime"} if codec not in ("ffv1", "qtrle") else {}
    sample_video.write_video(path, pictures, times, codec=codec, rotation=turn, options=options)
    prediction = predict.predict(path, method="green")
    (window,) = prediction.windows
    assert window.candidate_bpm == pytest.approx(84, abs=3)


@pytest.mark.slow
def test_a_reader_of_the_output_may_leave(face, tmp_path):
    first = f"{sys.executable} -m sspd_jax predict {face} {face} --method=green --window=4 | true"
    run = subprocess.run(
        ["sh", "-c", first],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""


def test_json_that_cannot_be_written_is_said_before_the_work(face, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_predict, "predict", lambda *_, **__: pytest.fail("it began"))
    run = called("predict", face, "--method=pos", "--json=nowhere/out.json", said=capfd)
    refused(run, "nowhere/out.json", "cannot be written")


def test_wrong_arguments_end_with_2(face, capfd):
    for option in ("--no_network", "--box=picture", "--region=crop"):
        run = called("predict", face, "--method=sspd", option, said=capfd)
        refused(run, "--checkpoint=DIR", "convert", option.partition("=")[0], code=2)
    for main, arguments in (
        (cli_predict.main, [str(face), "--method=magic"]),
        (cli_predict.main, []),
        (cli_convert.main, ["x.pth"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_a_missing_checkpoint_is_said(face, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run = called("predict", face, "--checkpoint=nowhere", said=capfd)
    refused(run, "nowhere", "no such checkpoint", "python -m sspd_jax convert")


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
    assert cli_convert.main([str(weights), f"--output={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {weights}") and len(error.strip().splitlines()) == 1
    if kind == "other":
        assert "BN.weight" in error
    assert not (tmp_path / "out").exists()


@needs(PUBLISHED_WEIGHTS)
def test_convert_does_not_overwrite(published, capsys):
    assert cli_convert.main([str(PUBLISHED_WEIGHTS), f"--output={published}"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_folder_gives_its_videos_and_an_empty_one_a_sentence(brief, tmp_path, capsys):
    face = brief[0]
    (tmp_path / "week" / "monday").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("b.mp4", "monday/a.mp4", "monday/.hidden.mp4"):
        (tmp_path / "week" / name).symlink_to(face)
    (tmp_path / "week" / "notes.txt").write_text("not a video")
    out = tmp_path / "out.csv"
    assert (
        cli_predict.main(
            [*(str(tmp_path / name) for name in ("empty", "week")), "--method=pos", f"--csv={out}"]
        )
        == 1
    )
    said = capsys.readouterr()
    assert said.err == f"error: {tmp_path / 'empty'}: holds no video; give a folder of videos, or a video\n"
    files = [line.split(",")[0] for line in out.read_text().splitlines()[1:]]
    assert list(dict.fromkeys(files)) == [str(tmp_path / "week" / name) for name in ("b.mp4", "monday/a.mp4")]


def test_as_many_videos_are_read_at_once_as_there_are_devices(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1] * 3)
    meet = threading.Barrier(3, timeout=20)

    def work(number):
        meet.wait()
        return number, jnp.zeros(()).devices()

    with cli_predict._each_on_a_device(object()) as each:
        assert list(each(work, range(3))) == [(number, set(jax.devices()[:1])) for number in range(3)]


@pytest.mark.slow
def test_a_folder_on_several_devices_reads_as_on_one(face, tmp_path):
    settings = small_training.network()
    config = {"network": experiments.network_table(settings), "fps": 30.0, "crop_size": 40}
    save_network(tmp_path / "network", config, *network.init_variables(settings, jax.random.key(0)))
    (tmp_path / "faces").mkdir()
    for name in "abc":
        (tmp_path / "faces" / f"{name}.mp4").symlink_to(face)
    said = []
    for devices in (1, 3):
        flags = f"--xla_force_host_platform_device_count={devices}"
        run = command("predict", "faces", "--checkpoint=network", folder=tmp_path, XLA_FLAGS=flags)
        assert run.returncode == 0, run.stderr
        said.append(run.stdout)
    assert said[0] == said[1] and said[0].count("faces/") == 3


@pytest.fixture(scope="module")
def cheek(tmp_path_factory):
    """Another tool's crop, half a face, in which no detector finds one: 54 bpm."""
    path = tmp_path_factory.mktemp("cheek") / "cheek.mp4"
    times_s = np.arange(150) / 15
    pictures = (p[70:214, 62:134] for p in sample_video.face_frames(times_s, 54, 1))
    sample_video.write_video(path, pictures, times_s)
    return path


def test_a_crop_without_a_face_is_read_where_a_box_says_so(cheek, tmp_path, capfd):
    refused(called("predict", cheek, said=capfd), cheek, "no face found", "--box")
    run = command("predict", cheek, "--box=picture", "--json=out.json", folder=tmp_path)
    assert run.returncode == 0 and run.stderr == "", run
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["heart_rate_bpm"] == pytest.approx(54, abs=1.5)
    assert result["face_box"] == [0, 0, 72, 144]
    assert any("only the box that was given is read" in note for note in result["notes"])
    assert "only the box that was given is read" in run.stdout


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["--box=0,0,73,144"], ["cheek.mp4: box 0,0,73,144", "72 × 144 pixels"], 2),
        (["--box=0,0,0,144"], ["too little skin"], 2),
        (["--box=left"], ["LEFT,TOP,WIDTH,HEIGHT", "picture"], 2),
        (["--box=picture", "--all_faces"], ["--all_faces"], 2),
    ],
)
def test_a_wrong_box_is_one_sentence(cheek, capsys, options, words, code):
    assert cli_predict.main([str(cheek), *options]) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    for word in words:
        assert word in said.err


def test_an_interval_is_two_columns_and_empty_without_a_reading(brief, read_face, tmp_path):
    unsure = predict.predict(brief[0], method="pos", settings=Settings(min_confidence=1))
    write_csv(tmp_path / "a.csv", [read_face, unsure])
    given, refused = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    low, high = read_face.windows[0].interval_bpm
    assert (float(given["lowest_bpm"]), float(given["highest_bpm"])) == pytest.approx((low, high), abs=1e-3)
    assert refused["lowest_bpm"] == refused["highest_bpm"] == ""


def test_a_box_is_meant_in_the_upright_picture(tmp_path):
    path = tmp_path / "turned.mp4"
    times_s = np.arange(60) / 15
    frames = (np.rot90(p[100:220, 60:196], -1) for p in sample_video.face_frames(times_s, 84, 1))
    sample_video.write_video(path, frames, times_s, rotation=90)
    assert sspd_jax.read(path, box=(0, 0, 136, 120)).face_box == (0, 0, 136, 120)
    with pytest.raises(ConfigError, match="136 × 120 pixels"):
        sspd_jax.read(path, box=(0, 0, 120, 136))


def test_a_box_of_a_crop_is_that_box(cheek):
    estimate = sspd_jax.read(cheek, box="picture", region="crop")
    assert estimate.windows[0].candidate_bpm == pytest.approx(54, abs=2)
    assert estimate.face_box == (0, 0, 72, 144)


@pytest.mark.parametrize("light", [(1, 1, 1), (1.2, 1, 0.8)], ids=["white", "warm"])
def test_a_light_in_a_box_is_no_pulse(light):
    portrait, _ = sample_video.read_portrait()
    rng = np.random.default_rng(0)

    def frames():
        for time_s in np.arange(150) / 15:
            lit = portrait * (1 + 0.01 * np.sin(2 * np.pi * 1.2 * time_s) * np.array(light))
            yield time_s, np.clip(np.rint(lit + rng.normal(0, 1.5, lit.shape)), 0, 255).astype(np.uint8)

    estimate = sspd_jax.read(frames(), fps=15, box=(70, 60, 120, 160))
    assert estimate.heart_rate_bpm is None and estimate.confidence < 0.5


def test_a_box_is_watched_live(cheek):
    updates = list(sspd_jax.watch(decode.frames(cheek), 15, box=SkinBox.of("picture")))
    assert updates[-1].face_box == FaceBox(0, 0, 72, 144)
    assert updates[-1].window.candidate_bpm == pytest.approx(54, abs=2)


@pytest.mark.slow
@needs(REAL_FACE)
def test_a_real_face_is_read_in_a_box_as_it_is_by_its_landmarks():
    found = sspd_jax.read(REAL_FACE)
    left, top, right, bottom = found.face_box
    inner = (left + (right - left) // 4, top + (bottom - top) // 4, (right - left) // 2, (bottom - top) // 2)
    given = sspd_jax.read(REAL_FACE, box=inner)
    assert given.windows[0].candidate_bpm == pytest.approx(found.windows[0].candidate_bpm, abs=3)


def two_rates(times_s, change_s):
    """A face at 60 bpm, from a moment on at 90."""
    slow = sample_video.face_frames(times_s[times_s < change_s], 60, 0)
    fast = sample_video.face_frames(times_s[times_s >= change_s], 90, 1)
    yield from zip(times_s, [*slow, *fast], strict=True)


@pytest.fixture(scope="module")
def changing():
    """18 s at 15 frames/s, 60 bpm and from 8 s on 90, then a gap, then 6 s more at 90."""
    times_s = np.concatenate([np.arange(270) / 15, 20 + np.arange(90) / 15])
    return sspd_jax.read(two_rates(times_s, 8), fps=15, network=False)


def test_a_slice_has_its_own_rate(changing):
    assert changing.hr(0, 8).candidate_bpm == pytest.approx(60, abs=1.5)
    late = changing.hr(8, 18)
    assert late.heart_rate_bpm == pytest.approx(90, abs=1.5)
    assert (late.start_s, late.duration_s) == (8, 10)
    assert late.confidence >= 0.8 and late.why == ""
    assert changing.hr(20, 26).candidate_bpm == pytest.approx(90, abs=2)  # of the second part


@pytest.mark.parametrize("region", ["skin", "crop"])
def test_a_slice_that_is_a_window_is_that_window(face, region):
    estimate = sspd_jax.read(face, region=region, window_s=6, stride_s=2, network=False)
    for window in estimate.windows:
        alone = dataclasses.replace(window, smoothed_bpm=None, smoothed_interval_bpm=None)
        assert estimate.hr(window.start_s, window.start_s + window.duration_s) == alone
    assert estimate.hr(1, 9) not in estimate.windows


def test_a_slice_without_a_reading_says_why(face):
    window = sspd_jax.read(face, method="pos", min_confidence=1).hr(2, 8)
    assert window.heart_rate_bpm is None and window.candidate_bpm == pytest.approx(84, abs=2)
    assert "6.0 s are too short to be sure" in window.why


@pytest.mark.parametrize(
    ("slice_s", "words"),
    [
        ((0, 3.9), "3.9 s is too short .* 4 s or more"),
        ((9, 3), "9 to 3 s has no length"),
        ((np.nan, 9), "has no length"),
        ((0, np.inf), "has no length"),
        ((14, 24), r"14–24 s does not lie inside what was read, 0\.0–18\.0 s, 20\.0–26\.0 s"),
        ((-1, 9), "-1–9 s does not lie inside"),
        ((21, 27), "21–27 s does not lie inside"),
    ],
)
def test_a_wrong_slice_is_one_sentence(changing, slice_s, words):
    with pytest.raises(ConfigError, match=words):
        changing.hr(*slice_s)


def test_the_command_keeps_no_more_than_it_needs(brief):
    face = brief[0]
    kept = predict.predict(face, method="green")
    with pytest.raises(UserError, match=r"not kept; ask `sspd_jax\.read`"):
        kept.hr(0, 5)
    assert kept.snapshot is None
    pictured = predict.predict(face, method="green", photograph=True)
    assert pictured.snapshot is not None and all(segment.skin is None for segment in pictured.segments)


@pytest.mark.slow
def test_a_slice_on_an_assumed_clock_is_doubted_as_the_windows_are(tmp_path):
    sample_video.write_face_video(tmp_path / "face.avi", seconds=10, bpm=84, codec="rawvideo")
    estimate = sspd_jax.read(tmp_path / "face.avi")
    (segment,) = estimate.segments
    doubted = dataclasses.replace(estimate, segments=(windows.doubted(segment, 0.5, Settings()),))
    assert estimate.hr(0, 10).confidence > 0.8
    assert doubted.hr(0, 10) == doubted.windows[0]
    assert (doubted.hr(0, 10).heart_rate_bpm, doubted.hr(0, 10).why) == (None, windows.NO_CLOCK)


def test_a_prediction_can_be_kept_on_disk(changing):
    again = pickle.loads(pickle.dumps(changing))
    assert again.hr(8, 18) == changing.hr(8, 18)


# What is passed on, and what is written, without a video.


class Reached(Exception):
    """What was looked for is known; the rest need not run."""


def handed(monkeypatch, module, name):
    """Note what a function is called with, and end there."""
    notes = []

    def note(*args, **options):
        notes.append((args, options))
        raise Reached

    monkeypatch.setattr(module, name, note)
    return notes


FRAMES = [(i / 10, np.zeros((32, 32, 3), np.uint8)) for i in range(3)]


@pytest.mark.parametrize("photograph", [True, False])
@pytest.mark.parametrize("near", [None, FaceBox(1, 2, 30, 40)])
def test_the_skin_is_recorded_of_the_face_that_was_named(monkeypatch, photograph, near):
    monkeypatch.setattr(predict, "load_networks", lambda: ("the networks", ""))
    notes = handed(monkeypatch, predict, "SkinRecorder")
    box = None if near else SkinBox((4, 5, 20, 20))
    with pytest.raises(Reached):
        options = (Settings(), near, box, not photograph)
        predict._predict(iter(FRAMES), Path("a"), 10.0, None, "pos", *options, photograph=photograph)
    ((args, options),) = notes
    assert args == (None if box else "the networks",)
    expected = (1, 2, 30, 40) if near else None
    assert options == {"near": expected, "crop_size": None, "box": box, "photograph": photograph}


@pytest.mark.parametrize("given", [None, SkinBox((4, 5, 20, 20))])
def test_a_crop_is_cut_around_the_face_that_was_named_by_the_detector_that_was_chosen(monkeypatch, given):
    notes = handed(monkeypatch, predict.face_stream, "cut_box" if given else "cut_face")
    near = FaceBox(1, 2, 30, 40)
    with pytest.raises(Reached):
        predict._predict(
            iter(FRAMES),
            Path("a"),
            10.0,
            None,
            "pos",
            Settings(region="crop"),
            near,
            given,
            False,
            "a detector",
            photograph=False,
        )
    (((_, file, *box), options),) = notes
    assert file == Path("a") and options.pop("size") == predict.face_stream.SIZE
    assert options.pop("watch_background")  # what lies behind beats, too, where a lamp does
    if given:
        assert box == [given] and not options
    else:
        assert options == {"follow": True, "near": near, "detector": "a detector"}


def judged(bpm, sure, start_s, **more):
    return Window(start_s, 10.0, bpm, sure, "" if bpm else "noise", bpm or 50.0, **more)


def of(segments, **more):
    bpm, sure = windows.summary(segments)
    fields = {
        "file": "a.mp4", "method": "auto", "hr_estimator": "x", "heart_rate_bpm": bpm, "confidence": sure,
        "segments": tuple(segments), "variability": None, "face_box": (1, 2, 3, 4), "checkpoint": None,
        "notes": (),
    }  # fmt: skip
    return Prediction(**(fields | more))


@pytest.fixture
def in_parts():
    """A recording in two parts, of which the second is the longer one and has the surer refusal."""
    first = Segment(Wave(np.arange(60.0), 10.0, 1.0), np.array([1.5, 2.5]), (judged(None, 0.2, 1.0),))
    long = Segment(Wave(np.arange(90.0), 10.0, 20.0), np.array([20.25]), (
        dataclasses.replace(judged(None, 0.6, 20.0), why="a lamp"), judged(None, 0.3, 22.0),
    ))  # fmt: skip
    return first, long


def test_a_recording_in_parts_shows_its_longest_wave_all_beats_and_the_surest_reason(in_parts):
    whole = of(in_parts, watched_s=31.23456)
    assert whole.wave is in_parts[1].wave and whole.why == "a lamp" and len(whole.windows) == 3
    table = whole.to_json()
    assert table["beats_s"] == [1.5, 2.5, 20.25] and table["watched_s"] == 31.235
    assert (table["start_s"], table["duration_s"], len(table["wave"])) == (20, 9, 90)
    assert table["times_s"][:2] == [20, 20.1] and (table["read_out"], table["why"]) == ("x", "a lamp")
    assert of(in_parts).to_json()["watched_s"] is None
    (line, *_) = describe(whole, "me")
    assert line == "me: no reading, a lamp (auto, 15.0 of 31.2 s at 10.00 Hz, 0 of 3 windows)"
    (line, *_) = describe(of(in_parts, watched_s=15.9), "me")
    assert "15.0 s at" in line  # what is missing is less than a second


def test_a_table_of_windows_has_each_range_in_its_own_columns(in_parts, tmp_path):
    given = judged(70.0, 0.9, 0.0, interval_bpm=(68.0, 73.0), smoothed_bpm=71.0,
                   smoothed_interval_bpm=(69.0, 75.0))  # fmt: skip
    segment = dataclasses.replace(in_parts[0], windows=(given, judged(None, 0.1, 5.0)))
    both = [of([segment]), of([segment]), Failure("b.mp4", "b.mp4: no face"), of([segment], file="b.mp4")]
    write_csv(tmp_path / "a.csv", both)
    lines = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    places = [("a.mp4", "1"), ("a.mp4", "1"), ("a.mp4", "2"), ("a.mp4", "2"), ("b.mp4", "1"), ("b.mp4", "2"),
              ("b.mp4", "2")]  # fmt: skip
    assert [(line["file"], line["face"]) for line in lines] == places
    names = ("heart_rate_bpm", "lowest_bpm", "highest_bpm", "smoothed_bpm", "smoothed_lowest_bpm",
             "smoothed_highest_bpm", "why", "error")  # fmt: skip
    assert [lines[0][name] for name in names] == ["70.0", "68.0", "73.0", "71.0", "69.0", "75.0", "", ""]
    assert [lines[1][name] for name in names] == ["", "", "", "", "", "", "noise", ""]
    assert [lines[4][name] for name in names] == [""] * 7 + ["b.mp4: no face"]


def test_one_result_is_an_object_unless_more_will_follow(in_parts, tmp_path):
    one, two = of(in_parts), Failure("b.mp4", "b.mp4: no face")
    for results, options, kind in (
        ([one], {}, dict), ([one], {"as_list": True}, list), ([one, two], {}, list), ([two], {}, dict)
    ):  # fmt: skip
        write_json(tmp_path / "a.json", results, **options)
        found = json.loads((tmp_path / "a.json").read_text())
        assert isinstance(found, kind)
        assert (found if kind is list else [found]) == [json.loads(json.dumps(r.to_json())) for r in results]


def test_what_is_assumed_of_a_clock_halves_what_is_sure_and_measures_anew(in_parts, monkeypatch):
    given = judged(70.0, 0.9, 0.0, interval_bpm=(68.0, 73.0))
    segment = dataclasses.replace(in_parts[0], windows=(given,))
    monkeypatch.setattr(windows, "variability", lambda parts: [w.heart_rate_bpm for w in parts[0].windows])
    before = of([segment], variability="of before")
    for least, bpm in ((0.5, 70.0), (0.51, None)):
        found = predict._of_assumed_clock(before, Settings(min_confidence=least))
        assert (found.heart_rate_bpm, found.confidence, found.variability) == (bpm, 0.5, [bpm])
        assert found.interval_bpm is None


def faces_at(monkeypatch, seen, until_s=9.0):
    """Look for everybody in a video in which a detector sees boxes at times: [(from s, to s, box)]."""
    now, looked = [0.0], []

    class Detector:
        def detect_all(self, rgb):
            looked.append(now[0])
            return [box for first_s, last_s, box in seen if first_s <= now[0] < last_s]

    def frames(path):
        for i in range(round(until_s * 30)):
            now[0] = i / 30
            yield now[0], None

    monkeypatch.setattr(predict.decode, "frames", frames)
    return predict.find_faces("a.mp4", detector=Detector()), looked


def test_everybody_is_who_was_seen_twice_from_left_to_right(monkeypatch):
    left, right, ghost = FaceBox(10, 90, 60, 140), FaceBox(100, 10, 150, 60), FaceBox(200, 50, 250, 100)
    late = FaceBox(300, 50, 350, 100)
    seen = [(1.0, 9, right), (1.6, 9, left), (2.0, 2.1, ghost), (4.5, 9, late)]
    found, looked = faces_at(monkeypatch, seen)
    assert found == [left, right]  # the others were seen once, or more than 3 s after the first
    assert 3.8 < looked[-1] <= 4.0
    moved = FaceBox(104, 12, 154, 62)  # the same face a little beside
    assert faces_at(monkeypatch, [(0, 1, right), (1, 9, moved)])[0] == [right]
    assert faces_at(monkeypatch, [(1.0, 1.1, right)])[0] == [right]  # once is better than nobody
    with pytest.raises(UserError, match="no face found"):
        faces_at(monkeypatch, [])


@pytest.mark.parametrize("region", windows.REGIONS)
@pytest.mark.parametrize("least", [0.0, 1.0])
def test_every_setting_reaches_the_windows(region, least):
    """Of a picture that is all skin and beats at 84 bpm."""
    times_s = np.arange(90) / 15
    beat = np.sin(2 * np.pi * 1.4 * times_s)[:, None] * [0.43, 1.0, 0.69]
    grain = np.random.default_rng(0).normal(0, 1, (90, 24, 24, 3))
    pictures = np.rint(np.array([150, 110, 90]) * (1 - 0.02 * beat[:, None, None]) + grain).astype(np.uint8)
    settings = Settings(window_s=4, stride_s=2, min_confidence=least, region=region, network=False)
    found = predict.predict_frames(pictures, 15.0, method="pos", settings=settings, box=SkinBox())
    assert [(w.start_s, w.duration_s) for w in found.windows] == [(0, 4), (2, 4)]
    assert all((w.heart_rate_bpm is None) == (least == 1) for w in found.windows)
    assert all(w.candidate_bpm == pytest.approx(84, abs=3) for w in found.windows)
    assert found.settings == settings and found.watched_s == pytest.approx(6)
    assert all(segment.judge is None and segment.skin is None for segment in found.segments)

"""Footage with a known pulse, or with none: what is put in comes out, and the command that writes it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from still_face import write_still

from sspd_jax.cli import simulate
from sspd_jax.datasets.readers import ubfc_rppg
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.simulation import footage_recordings, known_pulse, pulse_free, sample_video
from sspd_jax.simulation.footage import to_and_fro
from sspd_jax.simulation.footage_recordings import Encoding, write_footage_recordings
from sspd_jax.video.decode import frames

LOSSLESS = Encoding("lossless")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A still photograph, and one with a pulse of its own."""
    folder = tmp_path_factory.mktemp("clips")
    write_still(folder / "still.mp4", frames=75)
    write_still(folder / "own.mp4", frames=165, own_bpm=66, seed=1)
    return folder


@pytest.fixture(scope="module")
def put_in(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "put_in"
    write_footage_recordings(
        out, [clips / "still.mp4", clips / "own.mp4"], bpm=[93], seconds=10, encoding=LOSSLESS, seed=2
    )
    return out


def sheet(folder):
    return json.loads((folder / "footage.json").read_text())


def truth(folder):
    """PPG, rate in bpm and times in s."""
    return [np.array(line.split(), float) for line in (folder / "ground_truth.txt").read_text().splitlines()]


def green(folder):
    """Relative change of the mean green, in linear light, of the portrait's forehead, nose and cheeks."""
    skin = (sample_video.read_portrait()[1] > 0.99).astype(np.float32)
    skin[:72] = skin[165:] = skin[:, :95] = skin[:, 172:] = 0  # chin and neck, the borders
    skin[90:120, 95:172] = skin[142:165, 108:160] = 0  # eyes and lips do not beat
    pictures = (picture for _, picture in frames(next(folder.glob("vid.*"))))
    light = np.array([(known_pulse.to_light(p)[..., 1] * skin).sum() / skin.sum() for p in pictures])
    return light / light.mean() - 1


@pytest.mark.slow
def test_what_is_put_into_a_photograph_comes_out_of_the_mean_green(put_in):
    ppg, rate, times_s = truth(put_in / "subject1")
    assert len(times_s) == 300
    assert rate.mean() == pytest.approx(93, abs=0.1)
    seen = green(put_in / "subject1")
    assert spectral_peak_rate(seen, 30) == pytest.approx(spectral_peak_rate(ppg, 30), abs=0.1)
    strength = -100 * seen @ (ppg - ppg.mean()) / ((ppg - ppg.mean()) ** 2).sum()
    assert strength == pytest.approx(0.6, rel=0.1)
    told = sheet(put_in / "subject1")
    assert told["pulse"]["measured_percent"] == pytest.approx(0.6, rel=0.05)
    assert told["pulse"]["measured_percent_encoded"] == pytest.approx(0.6, rel=0.05)
    assert told["own_pulse"]["found_percent"] == [] or max(told["own_pulse"]["found_percent"]) < 0.02


@pytest.mark.slow
def test_where_there_is_no_skin_nothing_is_changed(clips, put_in):
    source = [picture for _, picture in frames(clips / "still.mp4")]
    for k, (_, picture) in zip(to_and_fro(75, 300), frames(put_in / "subject1" / "vid.mkv"), strict=True):
        still = source[k]
        assert (picture[:, :40] == still[:, :40]).all()
        assert (picture[230:] == still[230:]).all()
        assert np.abs(picture.astype(int) - still).max() <= 6


def test_a_pulse_of_the_clip_s_own_is_less_than_what_is_put_in(put_in):
    told = sheet(put_in / "subject2")["own_pulse"]
    assert told["lines_bpm"][0] == pytest.approx(66, abs=2)
    assert told["found_percent"][0] == pytest.approx(0.8, abs=0.3)  # 1 %, its first harmonic
    assert told["left_percent"][0] < 0.25 * told["found_percent"][0]
    assert told["left_percent"][0] < 0.5 * told["beside_put_in_percent"]
    ppg, _, times_s = truth(put_in / "subject2")
    seen = green(put_in / "subject2")
    assert spectral_peak_rate(seen, 30) == pytest.approx(spectral_peak_rate(ppg, 30), abs=0.5)
    lines = [abs(np.exp(-2j * np.pi * bpm / 60 * times_s) * np.hanning(300) @ seen) for bpm in (66, 93)]
    assert lines[0] < 0.3 * lines[1]


def test_recordings_are_what_the_reader_of_the_dataset_reads(put_in, clips):
    one, two = ubfc_rppg.recordings(put_in)
    assert (one.recording_id, two.recording_id) == ("subject1", "subject2")
    assert one.meta["dataset"] == "simulated"
    assert one.meta["simulation"]["from"] == "footage"
    assert one.meta["notes"] == []
    told = sheet(put_in / "subject1")
    assert told["source"]["name"] == "still.mp4"
    assert str(clips) not in json.dumps(told)  # where somebody's clips lie is theirs
    assert (told["seed"], told["number"], told["encoding"]["codec"]) == (2, 1, "lossless")
    assert told["encoding"]["kbit_per_s"] > 500


def test_a_pulse_free_recording_is_read_and_has_no_pulse(clips, tmp_path):
    out = tmp_path / "out"
    write_footage_recordings(out, [clips / "own.mp4"], kinds=["frozen", "white_all"], seconds=4, seed=1)
    for recording, kind in zip(ubfc_rppg.recordings(out), ("frozen", "white_all"), strict=True):
        assert (recording.ppg.values == 0).all()
        assert set(recording.meta["heart_rate"]) == {None}
        assert sheet(out / recording.recording_id)["pulse_free"]["kind"] == kind
    still, lit = green(out / "subject1"), green(out / "subject2")
    hz = sheet(out / "subject2")["pulse_free"]["hz"]
    assert spectral_peak_rate(lit, 30) == pytest.approx(60 * hz, abs=8)
    assert still.std() < 0.05 * lit.std()  # the clip's own pulse does not beat in a frozen frame


def test_run_again_it_adds_what_is_missing_and_changes_nothing(put_in, clips, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = {"seconds": 4, "encoding": Encoding(crf=30)}
    write_footage_recordings(out, [clips / "still.mp4"], bpm=[60], **arguments)
    first = {path.name: path.read_bytes() for path in (out / "subject1").iterdir()}
    (out / ".subject2.partial").mkdir()  # of a run that was killed
    said = []
    both = [clips / "still.mp4", clips / "own.mp4"]
    write_footage_recordings(out, both, bpm=[60], on_written=said.append, **arguments)
    assert len(said) == 1
    assert "subject2: own.mp4, 60 bpm" in said[0]
    assert sorted(path.name for path in out.iterdir()) == ["simulation.json", "subject1", "subject2"]
    assert {path.name: path.read_bytes() for path in (out / "subject1").iterdir()} == first
    # The same again elsewhere: the same bytes.
    write_footage_recordings(tmp_path / "again", [clips / "still.mp4"], bpm=[60], **arguments)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again" / "subject1").iterdir()} == first
    with pytest.raises(ConfigError, match="is another recording"):
        write_footage_recordings(out, both[::-1], bpm=[60], **arguments)
    with pytest.raises(ConfigError, match="other settings"):
        write_footage_recordings(out, both, bpm=[60], strength=1.0, **arguments)

    def full(*args, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(footage_recordings.sample_video, "write_video", full)
    with pytest.raises(UserError, match=r"no space left.*free space"):
        write_footage_recordings(tmp_path / "full", [clips / "still.mp4"], bpm=[60], seconds=4)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["simulation.json"]


def test_command_says_what_it_wrote(clips, tmp_path, capsys):
    arguments = [
        str(tmp_path / "out"),
        f"--from={clips / 'still.mp4'}",
        "--bpm=84",
        "--seconds=4",
        "--workers=1",
    ]
    assert simulate.main([*arguments, "--codec=vp9", "--bitrate=900", "--strength=1.2"]) == 0
    said = capsys.readouterr().out
    assert "subject1: still.mp4, 84 bpm, 1.2 % put in, the codec left" in said
    told = sheet(tmp_path / "out" / "subject1")
    assert told["pulse"]["strength_percent"] == pytest.approx(1.2)
    assert told["encoding"]["bitrate_kbps"] == 900
    assert (tmp_path / "out" / "subject1" / "vid.webm").exists()


WRONG = [
    (["--from=still.mp4", "--bpm=200"], 2, "200 bpm is outside 40 to 180"),
    (["--from=still.mp4", "--pulse_free=earthquake"], 2, "none of frozen"),
    (["--from=text.mp4"], 1, "not a video"),
    (["--from=missing.mp4"], 1, "no such file"),
    (["--from=wall.mp4"], 1, "no face is found"),
]


@pytest.fixture(scope="module")
def odd(clips):
    """Besides good clips, a text and a wall."""
    (clips / "text.mp4").write_text("no video")
    wall = [np.full((128, 128, 3), 120, np.uint8)] * 30
    sample_video.write_video(clips / "wall.mp4", wall, np.arange(30) / 30)
    return clips


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG)
def test_what_goes_wrong_is_one_sentence(odd, tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(odd)
    assert simulate.main([str(tmp_path / "out"), *arguments, "--workers=1"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not list(tmp_path.glob("out/*subject*"))


def test_a_place_that_cannot_be_written_to_is_one_sentence(odd, capsys):
    assert simulate.main([str(odd / "text.mp4" / "out"), f"--from={odd / 'still.mp4'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code", "words"), WRONG)
def test_what_goes_wrong_is_one_sentence_of_a_real_process(odd, tmp_path, arguments, code, words):
    command = [sys.executable, "-m", "sspd_jax", "simulate", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, cwd=odd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--bpm=nan"], "outside 40 to 180"),
        (["--bpm=39"], "outside 40 to 180"),
        (["--bpm=70", "--pulse_free=nod"], "one or the other"),
        (["--strength=0"], "outside 0.05 to 5"),
        (["--seconds=1"], "outside 4 to 3600"),
        (["--seconds=inf"], "outside 4 to 3600"),
        (["--seed=-1"], "negative"),
        (["--workers=0"], "1 or more"),
        (["--codec=av7"], "none of h264"),
        (["--crf=60"], "outside 0 to 51"),
        (["--crf=20", "--bitrate=500"], "exclude"),
        (["--codec=mjpeg", "--crf=20"], "no constant rate factor"),
        (["--codec=lossless", "--bitrate=500"], "no bit rate"),
        (["--bitrate=1"], "outside 50"),
        (["--people=3"], "does not go with --from"),
        (["--preset=easy"], "does not go with --from"),
    ],
)
def test_settings_outside_their_range_are_refused_before_anything_is_written(
    clips, tmp_path, capsys, flags, words
):
    assert simulate.main([str(tmp_path / "out"), f"--from={clips / 'still.mp4'}", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--bpm=84", "--pulse_free=nod", "--strength=1", "--codec=h264", "--crf=20"])
def test_what_is_of_footage_needs_a_clip(tmp_path, capsys, flag):
    assert simulate.main([str(tmp_path / "out"), flag]) == 2
    said = capsys.readouterr().err
    assert "needs --from=CLIP" in said or "name a clip by --from" in said
    assert list(tmp_path.iterdir()) == []


def test_all_stands_for_every_kind(clips, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        footage_recordings,
        "write_footage_recording",
        lambda folder, number, treatments, **_: made.append(treatments[number - 1].kind),
    )
    write_footage_recordings(tmp_path / "out", [clips / "still.mp4"], kinds=["all"])
    assert made == list(pulse_free.KINDS)

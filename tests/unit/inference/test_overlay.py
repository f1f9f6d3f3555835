"""Videos with what was read drawn into them."""

import dataclasses
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from shared_files import REAL_FACE, needs

import sspd_jax
from sspd_jax.cli import predict as cli_predict
from sspd_jax.errors import ConfigError
from sspd_jax.inference import overlay, predict
from sspd_jax.inference.overlay import GIVEN, REFUSED
from sspd_jax.simulation import sample_video
from sspd_jax.video import decode
from sspd_jax.video.skin_box import SkinBox

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "face.mp4"
    sample_video.write_face_video(path, seconds=10, fps=15, bpm=84)
    return path


@pytest.fixture(scope="module")
def estimate(video):
    return sspd_jax.read(video)


def drawn_at(video, prediction, at_s, **options):
    """The frame at a moment, before and after."""
    before = next(rgb for time_s, rgb in decode.frames(video) if time_s >= at_s)
    frames = overlay.draw(decode.frames(video), [prediction], **options)
    return before, next(rgb for time_s, rgb in frames if time_s >= at_s)


def marked(before, after, colour):
    """Where pixels took a colour, rows and columns."""
    is_new = (np.abs(after.astype(int) - colour).max(-1) < 12) & (before != after).any(-1)
    return np.nonzero(is_new)


def refused(prediction):
    (segment,) = prediction.segments
    found = [dataclasses.replace(w, heart_rate_bpm=None, interval_bpm=None) for w in segment.windows]
    return dataclasses.replace(prediction, segments=(dataclasses.replace(segment, windows=tuple(found)),))


@pytest.mark.slow
def test_the_command_writes_the_video_again(video, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "sspd_jax", "predict", video, "--overlay=out.mp4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and run.stderr == "" and "bpm, " in run.stdout, run
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    before, after = list(decode.frames(video)), list(decode.frames(tmp_path / "out.mp4"))
    assert [t for t, _ in after] == pytest.approx([t for t, _ in before], abs=1e-3)
    assert decode.read_facts(tmp_path / "out.mp4").codec == "h264"
    darker = before[75][1].astype(int).mean((1, 2)) - after[75][1].mean((1, 2))
    assert darker[-35:].mean() > 20 and np.abs(darker[60:200]).mean() < 8


def test_a_box_is_around_the_face_in_the_colour_of_the_reading(video, estimate):
    before, after = drawn_at(video, estimate, 5)
    rows, columns = marked(before, after, GIVEN)
    face = rows < 256 - 41
    # The portrait's face is an ellipse of 104 × 144 about (133, 138): brows to chin is marked.
    assert 30 < columns[face].min() < 75 and 190 < columns[face].max() < 240
    assert 50 < rows[face].min() < 90
    assert len(marked(before, drawn_at(video, refused(estimate), 5)[1], GIVEN)[0]) == 0
    assert len(marked(before, drawn_at(video, refused(estimate), 5)[1], REFUSED)[0]) > 200


def test_the_wave_is_what_was_before_the_present_frame(video, estimate):
    _, early = drawn_at(video, estimate, 1)
    _, late = drawn_at(video, estimate, 8)
    # What shines in the strip beside the words.
    inked = [np.nonzero((frame[-41:, 120:].max(-1) > 150).any(0))[0] for frame in (early, late)]
    assert inked[1].min() < 10 and inked[0].min() > 80  # six seconds, and the first of them
    assert inked[0].max() > 130 and inked[1].max() > 130


def test_a_box_that_was_given_is_drawn_as_it_is(video):
    box = SkinBox((70, 60, 120, 120))
    prediction = predict.predict(video, box=box, keep=True)
    before, after = drawn_at(video, prediction, 5, box=box)
    rows, columns = marked(before, after, GIVEN if prediction.heart_rate_bpm else REFUSED)
    face = rows < 256 - 41
    assert (columns[face].min(), columns[face].max()) == pytest.approx((70, 189), abs=1)
    assert (rows[face].min(), rows[face].max()) == pytest.approx((60, 179), abs=1)


def test_words_for_what_is_known(estimate):
    window = estimate.windows[0]
    assert overlay.rate_text(window) == f"{window.heart_rate_bpm:.0f} bpm, {window.confidence:.0%} sure"
    assert overlay.rate_text(dataclasses.replace(window, confidence=0.999)).endswith(" >99% sure")
    assert overlay.rate_text(dataclasses.replace(window, heart_rate_bpm=None)) == "no reading"
    assert overlay.rate_text(None) == "no face"


def test_a_frame_outside_of_what_was_read_has_no_box(estimate):
    grey = np.full((256, 256, 3), 128, np.uint8)
    ((_, late),) = overlay.draw(iter([(60.0, grey)]), [estimate])
    assert (late[: 256 - 41] == 128).all() and (late[256 - 41 :] != 128).any()
    assert (grey == 128).all()


def test_frames_are_let_go_of(estimate):
    alive = weakref.WeakValueDictionary()

    def frames():
        for number in range(100):
            rgb = np.zeros((256, 256, 3), np.uint8)
            alive[number] = rgb
            yield number / 15, rgb
            del rgb
            assert len(alive) <= 1

    for _ in overlay.draw(frames(), [estimate]):
        pass


def test_a_turned_video_with_odd_sides_is_written_upright(tmp_path):
    times_s = np.arange(75) / 15
    path = tmp_path / "turned.mkv"
    pictures = (np.rot90(p[:251, :241], -1) for p in sample_video.face_frames(times_s, 84, 0))
    sample_video.write_video(path, pictures, times_s, codec="ffv1", rotation=90)
    facts = decode.read_facts(path)
    assert (facts.width, facts.height) == (241, 251)
    assert cli_predict.main([str(path), "--method=pos", f"--overlay={tmp_path / 'out.mp4'}"]) == 0
    written = decode.read_facts(tmp_path / "out.mp4")
    assert (written.width, written.height, written.rotation) == (242, 252, 0)
    (_, before), (_, after) = next(decode.frames(path)), next(decode.frames(tmp_path / "out.mp4"))
    assert np.abs(before[100:200].astype(int) - after[100:200, :241]).mean() < 8


@pytest.mark.parametrize("name", ["face.mp4", "link.mp4"])
def test_the_video_that_is_read_is_never_overwritten(video, name, capsys):
    held = video.read_bytes()
    link = video.with_name("link.mp4")
    if not link.exists():
        link.symlink_to(video)
    assert cli_predict.main([str(video), f"--overlay={video.with_name(name)}"]) == 2
    said = capsys.readouterr()
    assert (
        said.err.count("\n") == 1 and "is the video that is read; give the overlay another name" in said.err
    )
    assert said.out == "" and video.read_bytes() == held


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--overlay=out.gif"], "out.gif: no such kind of video"),
        (["--overlay=out.mp4", "--region=crop"], "leave --region=crop out"),
        (["--overlay=out.mp4", "other.mp4"], "one video, and 2 are to be read"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(video, options, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli_predict.main([*options, str(video)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and words in said.err and said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_kept_cannot_be_drawn(video, tmp_path):
    with pytest.raises(ConfigError, match="was not kept"):
        overlay.write(tmp_path / "out.mp4", [predict.predict(video, method="green")])


@pytest.mark.slow
@needs(REAL_FACE)
def test_a_real_face_is_written(tmp_path):
    assert cli_predict.main([str(REAL_FACE), f"--overlay={tmp_path / 'out.mp4'}"]) == 0
    facts, written = decode.read_facts(REAL_FACE), decode.read_facts(tmp_path / "out.mp4")
    assert (written.width, written.height) == (facts.width, facts.height)
    assert written.duration_s == pytest.approx(facts.duration_s, abs=0.1)


def test_a_video_is_drawn_by_the_clock_and_the_box_that_it_was_read_with(estimate, monkeypatch, tmp_path):
    told = {}
    monkeypatch.setattr(overlay.decode, "frames", lambda file, fps: (file, fps))
    monkeypatch.setattr(overlay, "draw", lambda frames, found, box: (frames, found, box))
    monkeypatch.setattr(overlay.encode, "write_video", lambda path, drawn: told.update({path: drawn}))
    box = SkinBox((70, 60, 120, 120))
    overlay.write(tmp_path / "out.mp4", [estimate], fps=12.5, box=box)
    assert told == {tmp_path / "out.mp4": ((estimate.file, 12.5), [estimate], box)}


def test_a_moment_belongs_to_the_window_whose_middle_is_nearest(estimate):
    (segment,) = estimate.segments
    (one,) = segment.windows
    found = tuple(
        dataclasses.replace(one, start_s=start, duration_s=length)
        for start, length in ((0, 10), (5, 10), (6, 2))
    )
    drawn = overlay._Drawn(dataclasses.replace(segment, windows=found), estimate, None)
    for time_s, number in ((0, 0), (5.9, 0), (6.2, 2), (8.4, 2), (8.6, 1), (99, 1)):
        assert drawn.window(time_s) is found[number], time_s


def test_the_wave_rises_upwards_and_runs_to_the_present(estimate, monkeypatch):
    lines = []
    monkeypatch.setattr(
        overlay.cv2, "polylines", lambda strip, points, *_, **how: lines.append((strip.shape, points[0] / 16))
    )
    (segment,) = estimate.segments
    grey = np.full((256, 256, 3), 128, np.uint8)
    list(overlay.draw(iter([(8.0, grey)]), [estimate]))
    (((rows, width, _), points),) = lines
    drawn = overlay._Drawn(segment, estimate, None)
    shown = (drawn.times_s > 2.0) & (drawn.times_s <= 8.0)
    assert len(points) == shown.sum()
    heights = np.corrcoef(points[:, 1], drawn.values[shown])[0, 1]
    assert heights < -0.99  # a picture's rows go down
    assert points[:, 1].min() >= 0.05 * rows and points[:, 1].max() <= 0.95 * rows
    assert width - 5 < points[-1, 0] <= width - 1 and (np.diff(points[:, 0]) > 0).all()


def test_each_face_has_a_strip_of_its_own_from_the_lowest_up(estimate):
    grey = np.full((256, 256, 3), 128, np.uint8)
    ((_, picture),) = overlay.draw(iter([(60.0, grey)]), [estimate] * 3)
    rows = round(overlay.STRIP * 256 / 1.5)
    changed = (picture != 128).any((1, 2))
    assert changed[-3 * rows :].all() and not changed[: -3 * rows].any()
    strips = [picture[256 - (n + 1) * rows : 256 - n * rows] for n in range(3)]
    assert (strips[0] != strips[1]).any() and (strips[1] != strips[2]).any()  # each with its number

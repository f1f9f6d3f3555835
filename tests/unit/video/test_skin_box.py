"""Skin where a person says that it is: the box, and what is recorded in it."""

import cv2
import numpy as np
import pytest

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate.skin_evidence import SIDES
from sspd_jax.video import face_track, skin_box
from sspd_jax.video.face_detection import FaceBox
from sspd_jax.video.skin_box import SkinBox
from sspd_jax.video.skin_traces import SkinRecorder

cv2.setNumThreads(1)


@pytest.mark.parametrize(
    ("given", "box"),
    [
        ("10,20,30,40", (10, 20, 30, 40)),
        (" 10, 20 ,30,40 ", (10, 20, 30, 40)),
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        (np.array([10, 20, 30, 40]), (10, 20, 30, 40)),
        ("picture", None),
        (SkinBox((1, 2, 30, 40)), (1, 2, 30, 40)),
    ],
)
def test_a_box_is_what_was_given(given, box):
    assert SkinBox.of(given).box == box


@pytest.mark.parametrize(
    "given",
    ["", "10,20,30", "10,20,30,40,50", "a,b,c,d", "1.5,2,30,40", "Picture!", (1, 2, 3.5, 40), "١,2,30,40"],
)
def test_what_is_no_box_is_said_with_what_is_one(given):
    with pytest.raises(ConfigError, match="is not a box; give LEFT,TOP,WIDTH,HEIGHT in pixels"):
        SkinBox.of(given)


@pytest.mark.parametrize("given", ["10,20,0,40", "10,20,30,-40", "10,20,7,40"])
def test_an_empty_box_is_refused(given):
    with pytest.raises(ConfigError, match=f"box {given}: .* hold too little skin"):
        SkinBox.of(given)


@pytest.mark.parametrize("given", ["-1,0,20,20", "0,-1,20,20", "81,0,20,20", "0,41,20,20"])
def test_a_box_outside_of_the_picture_is_refused_to_the_pixel(given):
    with pytest.raises(ConfigError, match="is not inside the picture, which is 100 × 60 pixels"):
        SkinBox.of(given).inside(100, 60)


def test_a_box_lies_where_it_was_given():
    assert SkinBox.of("80,40,20,20").inside(100, 60) == FaceBox(80, 40, 100, 60)
    assert SkinBox().inside(100, 60) == FaceBox(0, 0, 100, 60)


def test_the_cells_tile_the_box_and_lie_on_the_side_that_the_evidence_takes_them_for():
    size, drawn = 96, np.zeros((96, 96), int)
    middles = []
    for rows, columns in skin_box.grid(size):
        drawn[rows, columns] += 1
        middles.append((columns.start + columns.stop) / 2)
    assert (drawn == 1).all()
    np.testing.assert_array_equal(np.sign(np.round(np.array(middles) - size / 2)), SIDES)


def pictures(times_s, *, shift=0.0):
    """Skin that beats at 75 bpm beside a blue mask that flickers at 130, in a dark room; 120 × 160."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 60, (160, 120, 3)).astype(np.float32), (0, 0), 3)
    for time_s in times_s:
        picture = np.full((160, 120, 3), 30, np.float32)
        pulse = 1 - 0.008 * np.sin(2 * np.pi * 75 / 60 * time_s) * np.array([0.43, 1, 0.69])
        picture[20:110, 20:100] = np.array([190, 140, 115]) * pulse
        picture[110:150, 20:100] = np.array([60, 90, 190]) * (1 + 0.1 * np.sin(2 * np.pi * 130 / 60 * time_s))
        move = np.array([[1, 0, shift * np.sin(2 * np.pi * 0.5 * time_s)], [0, 1, 0]])
        picture = cv2.warpAffine(picture + texture, move, (120, 160))
        yield time_s, np.clip(np.rint(picture + rng.normal(0, 1.5, picture.shape)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def recorded():
    recorder = SkinRecorder(None, box=SkinBox((20, 20, 80, 130)))
    for time_s, picture in pictures(np.arange(120) / 30):
        recorder.see(time_s, picture)
    return recorder.finish()


def test_no_detector_looks(monkeypatch):
    def look(*args, **kwargs):
        raise AssertionError("somebody looks for a face")

    monkeypatch.setattr(face_track, "HaarDetector", look)
    monkeypatch.setattr(face_track, "MeshTracker", look)
    recorder = SkinRecorder(None, box=SkinBox())
    for time_s, picture in pictures(np.arange(10) / 30):
        recorder.see(time_s, picture)
    assert recorder.finish().found.all()


def test_of_the_box_that_is_read_which_has_the_colour_of_its_middle(recorded):
    assert recorded.found.all()
    green = recorded.skin[:, 1] / recorded.skin[:, 1].mean()
    at = np.exp(-2j * np.pi * np.outer([75 / 60, 130 / 60], recorded.time_s))
    pulse, flicker = 2 * np.abs(at @ (green - 1)) / len(green)
    assert pulse == pytest.approx(0.008, rel=0.1)
    assert flicker < 0.001  # the mask's own is 0.1
    # A pixel that moves as the middle one does counts half.
    assert recorded.skin_area[60] == pytest.approx(80 * 90 / 2, rel=0.25)


def test_what_nobody_can_know_in_a_box_is_said_to_be_unknown(recorded):
    assert np.isnan(recorded.eyes).all()
    assert np.isnan(recorded.behind).all()  # what lies around the box may be skin, too
    assert (recorded.pose == 0).all()
    assert (recorded.patch_area[:, :7] > 0).sum(1).mean() >= 5  # the upper cells are skin


def test_motion_inside_the_box_is_in_the_track(recorded):
    recorder = SkinRecorder(None, box=SkinBox((20, 20, 80, 90)))
    for time_s, picture in pictures(np.arange(120) / 30, shift=1.5):
        recorder.see(time_s, picture)
    moved = recorder.finish().residual
    right = 2 * np.abs(np.exp(-2j * np.pi * 0.5 * np.arange(120) / 30) @ moved[:, 0]) / 120
    # 1.5 of 80 pixels, in units of the spread, against a mean that follows within a second.
    assert right == pytest.approx(1.5 / 80 * face_track.CROP_SIDE, rel=0.35)
    assert np.abs(recorded.residual[:, 0]).max() < right / 8


def test_a_photograph_is_small_and_its_map_lies_on_the_skin():
    rng = np.random.default_rng(0)
    recorder = SkinRecorder(None, box=SkinBox((300, 100, 400, 600)), photograph=True)
    for time_s in np.arange(50) / 10:
        picture = np.full((960, 1280, 3), 30, np.uint8)
        picture[100:400, 300:700] = (190, 140, 115)  # the upper half of the box
        picture[400:700, 300:700] = (60, 90, 190)
        noise = rng.integers(0, 4, (96, 128, 3), np.uint8)
        recorder.see(time_s, picture + cv2.resize(noise, (1280, 960), interpolation=cv2.INTER_NEAREST))
    recorder.finish()
    shown = recorder.snapshot
    assert shown.time_s == pytest.approx(2)  # of the next, at 4 s, the skin is known a second later
    assert shown.picture.shape == (480, 640, 3) and shown.skin.shape == (480, 640)
    rows, columns = np.nonzero(shown.skin > 0.3)
    edges = rows.min(), rows.max(), columns.min(), columns.max()
    assert edges == pytest.approx((50, 199, 150, 349), abs=3)

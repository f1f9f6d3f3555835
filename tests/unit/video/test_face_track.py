from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scripted_faces import Scripted

from sspd_jax.video import face_track
from sspd_jax.video.face_detection import FaceBox
from sspd_jax.video.face_mesh import FaceRegion
from sspd_jax.video.face_track import TEMPLATE, Look, MeshTracker, smooth_points

PORTRAIT = Path(face_track.__file__).parents[1] / "simulation" / "portrait.png"
EYES = (132.6, 109)  # as the mesh places their middle
PICTURE = np.zeros((240, 320, 3), np.uint8)


def at(x, y, scale=20.0):
    return (TEMPLATE * scale + [x, y, 0]).astype(np.float32)


def test_two_faces_that_cross_keep_their_numbers():
    networks, tracks = Scripted(), {0: [], 1: []}
    tracker = MeshTracker(networks, most_faces=2)
    for i in range(61):
        share = i / 60
        networks.faces = [at(60 + 200 * share, 100), at(260 - 200 * share, 140)]
        tracker.see(i * 0.1, PICTURE)
        for face in tracker.faces:
            tracks[face.number].append(face.looks[-1].points)
    ends = {n: t[-1][:, 0].mean() for n, t in tracks.items()}
    starts = {n: t[0][:, 0].mean() for n, t in tracks.items()}
    for number in (0, 1):
        assert ends[number] == pytest.approx(320 - starts[number], abs=3)


def test_a_lost_face_is_said_and_found_again():
    networks = Scripted()
    tracker = MeshTracker(networks)
    for i in range(60):
        networks.faces = [] if 20 <= i < 40 else [at(100, 100)]
        tracker.see(i * 0.1, PICTURE)
    words = [sentence.split(" at ")[0] for _, sentence in tracker.said]
    assert words == ["face 0 is found", "face 0 is lost", "face 0 is found"]
    assert [time_s for time_s, _ in tracker.said] == pytest.approx([0, 2.0, 4.0], abs=0.21)


@pytest.mark.parametrize("by_networks", [True, False])
def test_a_face_that_was_away_for_long_is_found_again(by_networks, monkeypatch):
    networks, there = Scripted(), []
    monkeypatch.setattr(face_track, "HaarDetector", lambda: SimpleNamespace(detect_all=lambda _: list(there)))
    tracker = MeshTracker(networks if by_networks else None)
    for i in range(200):
        seen = not 20 <= i < 150  # 13 s, more than looks are kept
        networks.faces, there[:] = [at(100, 100)] * seen, [FaceBox(65, 60, 135, 130)] * seen
        tracker.see(i * 0.1, PICTURE)
    (face,) = tracker.faces
    assert face.last is not None and face.last.time_s == pytest.approx(19.9)
    assert [sentence for _, sentence in tracker.said][-1].startswith("face 0 is found at 15.")


def test_without_a_face_there_is_nothing():
    tracker = MeshTracker(Scripted())
    for i in range(20):
        tracker.see(i * 0.1, PICTURE)
    assert tracker.faces == []
    assert tracker.said == []


def test_the_haar_cascade_carries_the_template():
    portrait = cv2.cvtColor(cv2.imread(str(PORTRAIT)), cv2.COLOR_BGR2RGB)
    tracker = MeshTracker(None)
    tracker.see(0.0, portrait)
    (face,) = tracker.faces
    assert np.allclose(face.last.points[[33, 133, 362, 263], :2].mean(0), EYES, atol=10)


def looks(track, noise=0.0, step_s=0.1):
    rng = np.random.default_rng(1)
    return [
        Look(i * step_s, at(x, 100, 40) + np.float32(noise) * rng.standard_normal(3, np.float32))
        for i, x in enumerate(track)
    ]


def test_a_still_face_does_not_tremble():
    seen = looks(np.full(100, 150.0), noise=0.3)
    middles = [smooth_points(seen, t)[:, :2].mean(0) for t in np.arange(2, 8, 1 / 30)]
    assert np.std(middles, 0).max() < 0.1


def test_a_moving_face_is_followed_without_delay():
    times_s = np.arange(100) * 0.1
    seen = looks(150 + 20 * np.sin(2 * np.pi * 0.5 * times_s))
    at_s = np.arange(2, 8, 1 / 30)
    middles = np.array([smooth_points(seen, t)[:, 0].mean() for t in at_s])
    true = 150 + 20 * np.sin(2 * np.pi * 0.5 * at_s)
    assert np.abs(middles - true).max() < 2
    lags = [np.corrcoef(middles[5:-5], np.roll(true, k)[5:-5])[0, 1] for k in range(-5, 6)]
    assert np.argmax(lags) == 5


def test_without_looks_ahead_the_lag_is_as_stated():
    speed = 10.0  # pixels a second
    seen = looks(100 + speed * 0.1 * np.arange(100))
    behind = 100 + speed * 5 - smooth_points(seen, 5.0, ahead=False)[:, 0].mean()
    assert 0 < behind / speed <= face_track.LAG_S


def test_nothing_is_said_of_a_moment_without_looks():
    seen = [Look(0.0, at(100, 100)), Look(0.1, None)]
    assert smooth_points(seen, 0.2) is not None
    assert smooth_points(seen, 0.2 + face_track.HELD_S) is None
    assert smooth_points([], 0.0) is None


@pytest.mark.parametrize("axis, position, sign", [("y", 0, -1), ("x", 1, 1), ("z", 2, 1)])
def test_head_pose_of_a_turned_template(axis, position, sign):
    turn = np.radians(20)
    c, s = np.cos(turn), np.sin(turn)
    rotation = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis]
    pose = face_track.head_pose(70 * TEMPLATE @ np.array(rotation).T + [300, 200, 0])
    expected = np.zeros(3)
    expected[position] = sign * 20
    assert pose == pytest.approx(expected, abs=0.01)


def test_the_aligned_region_follows_shift_scale_and_turn():
    turn = np.radians(15)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    region = face_track.aligned_region(50 * TEMPLATE[:, :2] @ rotation + [120, 90])
    assert (region.x, region.y) == pytest.approx((120, 90), abs=0.05)
    assert region.side == pytest.approx(50 * face_track.CROP_SIDE, rel=1e-3)
    assert region.angle == pytest.approx(turn, abs=5e-3)


class Counted(Scripted):
    """Networks that count how often the whole picture was searched."""

    searched = 0

    def detect(self, rgb, **options):
        self.searched += 1
        return super().detect(rgb, **options)


@pytest.mark.parametrize(
    ("in_view", "most", "searches"),
    [
        (0, 1, 10),  # nobody: every 0.2 s
        (1, 1, 0),  # whoever is followed is in view: nobody is looked for
        (1, 2, 2),  # there is room for another one: every second
        (2, 2, 0),
    ],
)
def test_the_picture_is_searched_often_while_nobody_is_there_and_seldom_else(in_view, most, searches):
    networks = Counted()
    tracker = MeshTracker(networks, most_faces=most)
    networks.faces = [at(80, 100), at(240, 100)][:in_view]
    for i in range(10):
        tracker.see(i * 0.1, PICTURE)
    networks.searched = 0
    for i in range(10, 30):
        tracker.see(i * 0.1, PICTURE)
    assert networks.searched == searches
    # Lost: every 0.2 s again, wherever they were.
    networks.faces, networks.searched = [], 0
    for i in range(30, 50):
        tracker.see(i * 0.1, PICTURE)
    assert networks.searched == 10


def test_one_of_two_that_is_lost_is_looked_for_every_second():
    networks = Counted()
    tracker = MeshTracker(networks, most_faces=2)
    for i in range(50):
        networks.faces = [at(80, 100), at(240, 100)][: 2 if i < 20 else 1]
        networks.searched *= i != 20
        tracker.see(i * 0.1, PICTURE)
    assert networks.searched == 3


def test_a_marked_box_is_three_and_a_half_spreads_wide_and_lies_as_the_cascades():
    assert face_track.marked_box(at(200, 150, 40)) == FaceBox(130, 72, 270, 212)
    # Laid into a box as the cascade marks it, a face marks that box.
    box = FaceBox(65, 60, 135, 130)
    placed = face_track._placed((65, 60, 135, 130))
    assert face_track.marked_box(placed) == box
    assert face_track.spread(placed) == pytest.approx(70 / 3.5, rel=1e-3)


@pytest.mark.parametrize(
    ("dx", "dy", "grown", "turn", "stays"),
    [
        (2.9, 0, 0, 0, True), (3.1, 0, 0, 0, False), (-3.1, 0, 0, 0, False),
        (0, 2.9, 0, 0, True), (0, 3.1, 0, 0, False), (0, -3.1, 0, 0, False),
        (0, 0, 2.9, 0, True), (0, 0, 3.1, 0, False), (0, 0, -3.1, 0, False),
        (0, 0, 0, 0.034, True), (0, 0, 0, 0.036, False), (0, 0, 0, -0.036, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("angle", [0.1, np.pi - 0.01])
def test_a_region_stays_until_any_part_of_it_is_off(dx, dy, grown, turn, stays, angle):
    old = FaceRegion(200.0, 150.0, 100.0, angle)
    turned = (angle + turn + np.pi) % (2 * np.pi) - np.pi  # −π … π
    new = FaceRegion(200.0 + dx, 150.0 + dy, 100.0 + grown, turned)
    assert face_track._steady(old, new) is (old if stays else new)
    assert face_track._steady(None, new) is new

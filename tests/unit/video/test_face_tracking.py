"""Following a face: a box that does not tremble, glides when it must, and says when the face is gone."""

import numpy as np

from sspd_jax.video.face_detection import FaceBox, overlap
from sspd_jax.video.face_tracking import FaceFollower, share_in_view

PICTURE = np.zeros((240, 320, 3), np.uint8)


class Scripted:
    """A detector that finds what a function of the number of its searches says."""

    def __init__(self, script):
        self.script, self.count = script, 0

    def detect_all(self, rgb):
        self.count += 1
        return self.script(self.count - 1)


def box(left, top=60, side=100):
    return FaceBox(left, top, left + side, top + side)


def followed(script, seconds, fps=10, **settings):
    follower = FaceFollower(Scripted(script), **settings)
    return follower, [follower.see(number / fps, PICTURE) for number in range(round(seconds * fps))]


def test_a_trembling_detection_does_not_move_the_box():
    follower, boxes = followed(lambda look: [box(100 + (-1) ** look * 6)], 10)
    assert set(boxes) == {box(106)}
    assert follower.detector.count == 10  # one look a second


def test_a_face_that_moves_is_followed_in_a_glide():
    _, boxes = followed(lambda look: [box(100 if look < 3 else 150)], 8)
    lefts = np.array([b.left for b in boxes])
    assert lefts[:40].max() == 100  # the first look elsewhere can be a mistake
    assert lefts[-1] == 150 and lefts[51] == 150
    assert (np.diff(lefts) >= 0).all() and np.diff(lefts).max() <= 6


def test_one_look_elsewhere_moves_nothing():
    _, boxes = followed(lambda look: [box(150 if look == 4 else 100)], 9)
    assert set(boxes) == {box(100)}


def test_a_face_that_is_gone_for_long_is_lost_and_found_again_anywhere():
    def script(look):
        return [box(20)] if look < 3 else [] if look < 9 else [box(190)]

    follower, boxes = followed(script, 14)
    missing = [number for number, b in enumerate(boxes) if b is None]
    assert 55 <= missing[0] <= 65  # 3 s after it was last seen
    assert boxes[missing[0] - 1] == box(20)
    assert boxes[-1] == box(190) and missing == list(range(missing[0], missing[-1] + 1))
    assert share_in_view(follower.detections, 0, 2.5) == 1
    assert share_in_view(follower.detections, 3.6, 5.9) == 0


def test_a_short_absence_is_bridged():
    _, boxes = followed(lambda look: [] if look in (3, 4) else [box(100)], 8)
    assert None not in boxes


def test_of_several_faces_the_one_that_was_seen_is_followed():
    faces = [box(180, side=120), box(20, side=70)]  # the detector's first choice first
    _, boxes = followed(lambda look: faces, 4)
    assert boxes[-1] == faces[0]
    _, boxes = followed(lambda look: faces, 4, near=FaceBox(22, 58, 88, 128))
    assert set(boxes) == {faces[1]}
    _, boxes = followed(lambda look: faces if look else faces[:1], 4, near=faces[1])
    assert boxes[0] is None and boxes[-1] == faces[1]


def test_overlap():
    assert overlap(box(0), box(0)) == 1
    assert overlap(box(0), box(50)) == 1 / 3
    assert overlap(box(0), box(200)) == 0

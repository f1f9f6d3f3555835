"""Where the face of a clip is, and how the clip is played."""

import cv2
import numpy as np
import pytest
from simulated_face import write_sound
from still_face import write_still

from sspd_jax.errors import UserError
from sspd_jax.simulation import footage, sample_video
from sspd_jax.video import decode


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "still.mp4"
    write_still(path, frames=24)
    return path


@pytest.fixture(scope="module")
def studied(clip):
    return footage.study(clip, 10.0, None)


def test_skin_lies_on_the_skin_of_the_portrait_and_nowhere_else(studied):
    assert studied.size == (256, 256)
    assert studied.fps == pytest.approx(30, abs=0.01)
    laid, rows, columns = footage.onto_picture(studied.skin(5)[..., None], studied.region(5), studied.size)
    seen = np.zeros((256, 256), np.float32)
    seen[rows, columns] = laid[..., 0]
    _, skin = sample_video.read_portrait()
    assert seen[skin < 0.01].sum() < 0.06 * seen.sum()
    assert (seen > 0.5).sum() > 0.4 * (skin > 0.5).sum()
    assert 0.1 < seen[(seen > 0.02) & (seen < 0.98)].mean() < 0.9  # its edge is soft
    assert np.abs(np.diff(seen, axis=1)).max() < 0.6


def test_only_what_is_asked_for_is_looked_at(clip):
    assert len(footage.study(clip, 0.6, None).times_s) == 18


@pytest.mark.parametrize("hold", [1, 5, 1000])
def test_played_to_and_fro_no_frame_is_doubled_whatever_can_be_held(clip, studied, hold):
    order, times_s = footage.schedule(studied.times_s, 2.0)
    assert len(order) == 60
    assert (np.abs(np.diff(order)) == 1).all()
    assert order.max() == 23
    np.testing.assert_allclose(np.diff(times_s), 1 / 30, atol=2e-4)
    pictures = [picture for _, picture in decode.frames(clip)]
    played = list(footage.play(studied, order, hold_bytes=hold * 3 * 256 * 256))
    assert len(played) == 60
    for number, picture in zip(order, played, strict=True):
        assert (picture == pictures[number]).all()


def test_uneven_steps_are_played_as_long_backwards():
    order, times_s = footage.schedule(np.array([0.0, 0.1, 0.4, 0.5]), 1.25)
    assert order.tolist() == [0, 1, 2, 3, 2, 1, 0, 1]
    np.testing.assert_allclose(times_s, [0, 0.1, 0.4, 0.5, 0.6, 0.9, 1.0, 1.1])


def test_a_map_outside_the_picture_is_nowhere(studied):
    gone = footage.FaceRegion(-500, -500, 100, 0.1)
    assert footage.onto_picture(studied.skin(0)[..., None], gone, studied.size) is None
    assert footage.onto_picture(0 * studied.skin(0)[..., None], studied.region(0), studied.size) is None


def _written(path, pictures, fps=30.0):
    sample_video.write_video(path, pictures, np.arange(len(pictures)) / fps, options={"qp": "4"})
    return path


def test_what_cannot_be_used_is_a_sentence(tmp_path):
    portrait, skin = sample_video.read_portrait()
    white = portrait.copy()
    white[cv2.dilate(skin, np.ones((9, 9))) > 0.02, 0] = 255  # red is cut off: what beats is lost
    dark = (portrait // 28).astype(np.uint8)
    sound = tmp_path / "sound.mp4"
    write_sound(sound)
    (tmp_path / "text.mp4").write_text("no video")
    for path, words in (
        (_written(tmp_path / "wall.mp4", [np.full((128, 128, 3), 120, np.uint8)] * 30), "no face"),
        (_written(tmp_path / "short.mp4", [portrait] * 3), "too few to put a pulse in"),
        (_written(tmp_path / "slow.mp4", [portrait] * 8, 4.0), "too few for a pulse"),
        (_written(tmp_path / "white.mp4", [white] * 30), "no skin"),
        (_written(tmp_path / "dark.mp4", [dark] * 30), "no (skin|face)"),
        (sound, "no video stream"),
        (tmp_path / "text.mp4", "not a video"),
        (tmp_path / "missing.mp4", "no such file"),
    ):
        with pytest.raises(UserError, match=words) as error:
            footage.study(path, 10.0, None)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

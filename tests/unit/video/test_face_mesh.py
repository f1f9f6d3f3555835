from pathlib import Path

import cv2
import numpy as np
import pytest

from sspd_jax.video import face_mesh, models
from sspd_jax.video.face_mesh import FaceNetworks, FaceRegion, region_of

cv2.setNumThreads(1)
carried = all((models.FOLDER / name).is_file() for name in models.SHA256)
needs_models = pytest.mark.skipif(not carried, reason="built without the face models")


@pytest.fixture(scope="module")
def networks():
    return FaceNetworks()


@pytest.fixture(scope="module")
def portrait():
    file = Path(models.__file__).parents[1] / "simulation" / "portrait.png"
    return cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)


def test_a_missing_model_is_said_in_one_sentence(tmp_path):
    with pytest.raises(
        models.FaceModelError, match=r"short_range.tflite: the face model is missing; install.*Haar"
    ):
        FaceNetworks(tmp_path)


def test_a_damaged_model_is_said_in_one_sentence(tmp_path):
    for name in models.SHA256:
        (tmp_path / name).write_bytes(b"TFL3 of another version")
    with pytest.raises(models.FaceModelError, match="damaged or of another version"):
        FaceNetworks(tmp_path)


def test_without_models_the_cascade_is_used_and_said(tmp_path):
    networks, sentence = face_mesh.load_networks(tmp_path)
    assert networks is None
    assert "Haar cascade" in sentence


@needs_models
def test_the_portrait_is_found_and_its_eyes_and_mouth_lie_where_they_are(networks, portrait):
    (face,) = networks.detect(portrait)
    assert np.allclose(face.box, (78, 79, 188, 189), atol=8)
    points = networks.landmarks(portrait, face.region).points
    assert points.shape == (468, 3)
    assert points.dtype == np.float32
    eyes = points[[33, 133, 362, 263], :2].mean(0)
    assert np.allclose(eyes, (132.6, 109), atol=3)


@needs_models
@pytest.mark.parametrize("degrees", [-30, 0, 40])
def test_landmarks_turn_with_the_picture(networks, portrait, degrees):
    matrix = cv2.getRotationMatrix2D((133, 130), degrees, 1.0)
    turned = cv2.warpAffine(portrait, matrix, (256, 256), borderMode=cv2.BORDER_REFLECT)
    straight = networks.landmarks(portrait, networks.detect(portrait)[0].region).points[:, :2]
    found = networks.landmarks(turned, networks.detect(turned)[0].region).points[:, :2]
    assert np.abs(found - (straight @ matrix[:, :2].T + matrix[:, 2])).mean() < 2


@needs_models
@pytest.mark.parametrize("shape", [(16, 16), (16, 300), (1, 1)])
def test_a_tiny_picture_holds_no_face(networks, shape):
    assert networks.detect(np.full((*shape, 3), 120, np.uint8)) == []
    assert networks.landmarks(np.full((*shape, 3), 120, np.uint8), FaceRegion(8, 8, 16, 0)) is None


@needs_models
@pytest.mark.parametrize("kind", ["black", "noise", "stripes", "blobs"])
def test_pictures_without_a_face(networks, kind):
    rng = np.random.default_rng(0)
    if kind == "black":
        picture = np.zeros((240, 320, 3), np.uint8)
    elif kind == "noise":
        picture = rng.integers(0, 255, (240, 320, 3), np.uint8)
    elif kind == "stripes":
        picture = np.tile((np.arange(320) // 20 % 2 * 200).astype(np.uint8)[None, :, None], (240, 1, 3))
    else:
        coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
        picture = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
    assert networks.detect(picture) == []


@needs_models
def test_a_face_cut_by_the_border_does_not_break_anything(networks, portrait):
    half = np.ascontiguousarray(portrait[:, 133:])
    for face in networks.detect(half):
        networks.landmarks(half, face.region)
    assert networks.landmarks(half, FaceRegion(-500, 10, 100, 0)) is None


def test_a_region_maps_its_middle_and_corners():
    matrix = FaceRegion(50, 40, 20, np.pi / 2).to_picture(11)
    assert np.allclose(matrix @ [5, 5, 1], (50, 40))
    # Turned by a quarter clockwise, right of the square is below in the picture.
    assert np.allclose(matrix @ [10, 5, 1], (50, 40 + 5 * 20 / 11))


def test_region_of_turned_points_has_their_angle():
    from sspd_jax.video.face_track import TEMPLATE

    turn = np.radians(25)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    region = region_of(np.hstack([60 * TEMPLATE[:, :2] @ rotation + [200, 150], TEMPLATE[:, 2:]]))
    assert np.isclose(region.angle, turn, atol=0.01)


def test_a_large_region_is_averaged_not_skipped():
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    drawn = face_mesh.warp_region(stripes, FaceRegion(400, 400, 600, 0), 100)
    assert np.abs(drawn.astype(int) - 127).max() < 3

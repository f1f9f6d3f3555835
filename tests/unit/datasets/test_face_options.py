"""Which detector finds the face, and whether the box follows it."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from prepared_faces import FLAT, portrait, recording

from sspd_jax.cli import prepare as cli_prepare
from sspd_jax.datasets import prepare as preparing
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.video import face_detection
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.skin_traces import SkinRecorder

MODEL = Path(os.environ.get("YUNET_MODEL", "face_detection_yunet_2023mar.onnx"))
TIMES = np.arange(45) / 30


def moving(times_s):
    """A face that is 120 pixels further right from 3 s on, and out of view from 8 s to 13 s."""
    for number, (time_s, picture) in enumerate(portrait(times_s)):
        wide = np.full((256, 512, 3), 120, np.uint8)
        if not 8 <= time_s < 13:
            left = 20 if time_s < 3 else 140
            wide[:, left : left + 256] = picture
        wide[0, 0] = number % 256
        yield time_s, wide


def test_a_face_is_followed_and_a_lost_one_is_a_gap(tmp_path):
    times_s = np.arange(17 * 15) / 15
    r = recording("a", frames=lambda: moving(times_s), seconds=17)
    prepare([r], tmp_path / "still", crop_size=32, skin=False, progress=False)
    (still,) = open_prepared(tmp_path / "still").segments
    prepare([r], tmp_path / "followed", crop_size=32, follow_every_s=0.5, skin=False, progress=False)
    dataset = open_prepared(tmp_path / "followed")
    first, second = dataset.segments
    # The last box is where the face went; the still one where it was.
    assert 110 < first.face_box[0] - still.face_box[0] < 130
    assert first.start_s == 0 and 10.5 < first.n_frames / 30 < 12 and 13 <= second.start_s < 13.3
    assert any(re.match(r"no face, or a gap in time, 1[01]\.\d–13", note) for note in first.notes)
    with pytest.raises(UserError, match=r"was prepared with follow_every_s 0\.5, not 0\.0; choose"):
        prepare([r], tmp_path / "followed", crop_size=32, skin=False, progress=False)


def test_several_faces_are_told(tmp_path):
    def two():
        for time_s, picture in portrait(np.arange(45) / 30):
            yield time_s, np.concatenate([picture, np.zeros((256, 40, 3), np.uint8), picture], 1)

    prepare([recording("a", frames=two)], tmp_path / "out", crop_size=32, skin=False, progress=False)
    (segment,) = open_prepared(tmp_path / "out").segments
    assert "2 faces in view: of the large ones the most central one was taken" in segment.notes


def test_a_dataset_of_before_there_was_a_choice_stays_good(tmp_path):
    prepare([recording("a")], tmp_path / "out", crop_size=32, skin=False, progress=False)
    for name in ("preparation.json", "index.json"):
        path = tmp_path / "out" / name
        text = path.read_text()
        assert ', "face_detector": "haar", "follow_every_s": 0.0' in text
        path.write_text(text.replace(', "face_detector": "haar", "follow_every_s": 0.0', ""))
    assert prepare([recording("a")], tmp_path / "out", crop_size=32, skin=False, progress=False).made == 0
    assert open_prepared(tmp_path / "out").settings.face_detector == "haar"


def test_what_yunet_finds_comes_in_the_same_order(monkeypatch, tmp_path):
    class Network:
        size = None

        def setInputSize(self, size):
            self.size = size

        def detect(self, bgr):
            assert (bgr.shape[1], bgr.shape[0]) == self.size == (480, 240) and bgr[0, 0].tolist() == [3, 2, 1]
            rest = np.zeros((4, 11), np.float32)
            boxes = [[0, 10, 100, 120], [200, 60, 95, 110], [300, 0, 50, 60], [5, 5, 20, 20]]
            return 1, np.c_[np.array(boxes, np.float32), rest]

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Network())
    (tmp_path / "yunet.onnx").touch()
    detector = face_detection.make_detector("yunet", tmp_path / "yunet.onnx")
    picture = np.full((480, 960, 3), (1, 2, 3), np.uint8)
    boxes = detector.detect_all(picture)
    # Two pixels of the picture to one that is searched; of the large ones the central first; 20 is too small.
    assert boxes == [
        face_detection.FaceBox(400, 120, 590, 340),
        face_detection.FaceBox(0, 20, 200, 260),
        face_detection.FaceBox(600, 0, 700, 120),
    ]
    assert detector.detect(picture) == boxes[0]
    monkeypatch.setattr(Network, "detect", lambda *_: (1, None))
    assert detector.detect_all(picture) == [] and detector.detect(picture) is None


def test_a_detector_that_cannot_be_had_is_said_in_a_sentence(tmp_path, capsys):
    with pytest.raises(ConfigError, match="face detector 'dlib' is none of haar, yunet"):
        face_detection.make_detector("dlib")
    with pytest.raises(
        ConfigError, match=r"gone\.onnx: no such model file; download .* or use the detector haar"
    ):
        face_detection.make_detector("yunet", tmp_path / "gone.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"bad\.onnx: is no YuNet model; download it again"):
        face_detection.make_detector("yunet", tmp_path / "bad.onnx")
    with pytest.raises(ConfigError, match="follow_every_s -1 is not 0 s or more"):
        prepare([recording("a")], tmp_path / "out", follow_every_s=-1)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.mp4").touch()
    arguments = ["--dataset=folder", f"--source={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'out'}"]
    assert cli_prepare.main([*arguments, "--face_detector=yunet"]) == 2
    assert "YuNet: no such model file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not MODEL.is_file(), reason="needs YuNet's model file, named by YUNET_MODEL")
def test_yunet_finds_the_face_where_the_cascade_does():
    ((_, picture),) = portrait([0.0])
    one, other = (
        face_detection.make_detector("yunet", MODEL).detect(picture),
        face_detection.HaarDetector().detect(picture),
    )
    assert face_detection.overlap(one, other) > 0.5
    assert face_detection.make_detector("yunet", MODEL).detect(FLAT) is None


def test_crops_of_the_skin_are_those_that_predict_gives_a_network(tmp_path, monkeypatch):
    """One size for the dataset, and one for the network that reads on."""
    asked = SimpleNamespace(detect_all=lambda _: pytest.fail("the landmarks know where the face is"))
    with monkeypatch.context() as absent:
        absent.setattr(preparing, "make_detector", lambda *_: asked)
        for size in (24, 42):
            prepare([recording("ann", TIMES)], tmp_path / str(size), crop_size=size, face_crop="skin")
    for size in (24, 42):
        dataset = open_prepared(tmp_path / str(size), crop_size=size, face_crop="skin")
        (segment,) = dataset.segments
        recorder = SkinRecorder(load_networks()[0], crop_size=size)
        pictures = list(recorder.crops_beside(recorder.watch(portrait(TIMES))))
        assert segment.n_frames == len(pictures) == 45 and dataset.face_crop == "skin"
        np.testing.assert_array_equal(dataset.clip(segment, 0, 45), [picture for _, picture in pictures])
        assert segment.notes == () and segment.has_ppg and dataset.has_skin
        left, top, right, bottom = segment.face_box
        assert 0 <= left < right <= 256 and 0 <= top < bottom <= 256 and right - left > 80
    # What the dataset stores is nothing to the traces and to the network that ships with the package.
    prepare([recording("ann", TIMES)], tmp_path / "box", crop_size=24, progress=False)
    for name in ("ann.npy", "ann.network.npz"):
        expected = (tmp_path / "box/skin" / name).read_bytes()
        assert (tmp_path / "24/skin" / name).read_bytes() == expected
        assert (tmp_path / "42/skin" / name).read_bytes() == expected


def test_a_face_that_leaves_the_picture_is_a_gap_of_the_skin_too(tmp_path):
    times_s = np.arange(12 * 15) / 15

    def frames():
        for time_s, picture in portrait(times_s):
            yield time_s, np.full_like(picture, 90) if 4 <= time_s < 8 else picture

    prepare([recording("a", frames=frames, seconds=12)], tmp_path / "a", crop_size=24, face_crop="skin",
            progress=False)  # fmt: skip
    dataset = open_prepared(tmp_path / "a")
    first, second = dataset.segments
    assert first.start_s == 0 and 3.9 < first.n_frames / 30 < 5 and 8 <= second.start_s < 8.5
    assert any(note.startswith("no face, or a gap in time, 4.") for note in first.notes)


def test_a_dataset_knows_what_its_crops_show(tmp_path):
    made = [recording("ann", np.arange(40) / 30)]
    prepare(made, tmp_path / "box", crop_size=24, progress=False)
    prepare(made, tmp_path / "skin", crop_size=24, face_crop="skin", progress=False)
    for name, other in (("box", "skin"), ("skin", "box")):
        assert open_prepared(tmp_path / name, face_crop=name).settings.face_crop == name
        said = rf"was prepared with face_crop {name}, not {other}; prepare again into another --data_dir"
        with pytest.raises(UserError, match=said):
            open_prepared(tmp_path / name, face_crop=other)
        with pytest.raises(UserError, match=f"with face_crop {name}, not {other}; choose another"):
            prepare(made, tmp_path / name, crop_size=24, face_crop=other, progress=False)
    # One of before there was a choice holds boxes.
    for name in ("preparation.json", "index.json"):
        path = tmp_path / "box" / name
        path.write_text(path.read_text().replace(', "face_crop": "box"', ""))
        assert "face_crop" not in path.read_text()
    assert open_prepared(tmp_path / "box", face_crop="box").face_crop == "box"
    assert prepare(made, tmp_path / "box", crop_size=24, progress=False).made == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"face_crop": "face"}, "'face' is none of box, skin"),
        ({"skin": False}, "leave --no_skin away"),
        ({"crop_size": 97}, "crop_size 97 is too large for face_crop 'skin'; choose 8 to 96 pixels"),
        ({"follow_every_s": 1}, "follow_every_s are for face_crop 'box'"),
        ({"face_detector": "yunet", "face_model": "x"}, "face_detector and follow_every_s are for"),
    ],
)
def test_what_does_not_go_with_crops_of_the_skin_is_said(tmp_path, settings, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        prepare([recording("a")], tmp_path / "out", **{"crop_size": 24, "face_crop": "skin", **settings})
    assert not (tmp_path / "out").exists()

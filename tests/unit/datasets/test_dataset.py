import dataclasses
import json
import pickle
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from prepared_faces import content, recording, three
from scored_people import segment

from sspd_jax.datasets import dataset as dataset_module
from sspd_jax.datasets.dataset import PreparedDataset, open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.errors import UserError
from sspd_jax.video.face_stream import cut_face

SIZE = 64
HERE = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "faces"
    prepare(three(), path, crop_size=SIZE, skin=False, progress=False)
    return path


@pytest.fixture
def mine(made, tmp_path):
    """A copy to damage."""
    for name, data in content(made).items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(data)
    return tmp_path / "mine"


def crops_of(r, size=SIZE):
    return np.stack([image for _, image in cut_face(r.frames(), r.file, size=size)])


def test_segments_tell_what_was_prepared(made):
    dataset = open_prepared(made)
    assert (dataset.fps, dataset.crop_size, dataset.left_out) == (30.0, SIZE, {})
    assert dataset.people == ("subject1", "subject2", "subject3")
    assert [s.segment_id for s in dataset.segments] == ["subject1/0", "subject2/0", "subject3/0"]
    assert [s.n_frames for s in dataset.segments] == [90, 150, 210]
    first = dataset.segments[0]
    assert (first.recording_id, first.person_id, first.number) == ("subject1", "subject1", 0)
    assert (first.start_s, first.has_ppg, first.notes, first.meta) == (0, True, (), {"device_bpm": 71})
    r = three()[0]
    assert first.face_box == dataclasses.astuple(cut_face(r.frames(), r.file).box)
    assert len(set(dataset.segments)) == 3


def test_tensorflow_datasets_reads_it(made):
    source = tfds.builder_from_directory(made).as_data_source(split="all")
    rows = list(source)
    assert len(rows) == len(source) == 3 + 5 + 7
    for r in three():
        mine = [row for row in rows if row["recording_id"].decode() == r.recording_id]
        assert [row["start"] for row in mine] == [30 * k for k in range(len(mine))]
        assert {(row["person_id"].decode(), row["segment"]) for row in mine} == {(r.person_id, 0)}
        frames = np.concatenate([row["frames"] for row in mine])
        assert frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, crops_of(r))
        times_s, wave = (np.concatenate([row[key] for row in mine]) for key in ("times_s", "ppg"))
        assert (times_s.dtype, wave.dtype) == (np.float64, np.float32)
        np.testing.assert_allclose(times_s, np.arange(len(frames)) / 30, atol=1e-12)
        np.testing.assert_allclose(wave, np.sin(2 * np.pi * 1.2 * times_s), atol=0.01)
    assert "tensorflow" not in sys.modules


def test_neither_tensorflow_nor_the_network_is_needed(tmp_path):
    code = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("the network was tried")
socket.socket.connect = socket.getaddrinfo = refuse
import tensorflow_datasets as tfds
from prepared_faces import recording
from sspd_jax.datasets import input_pipeline
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
prepare([recording("a")], sys.argv[1], crop_size=64, skin=False, progress=False)
dataset = open_prepared(sys.argv[1])
assert len(dataset.clip(dataset.segments[0], 0, 90)) == 90
assert len(list(tfds.builder_from_directory(sys.argv[1]).as_data_source(split="all"))) == 3
assert input_pipeline.clip_batches(dataset, ["a"], clip_frames=8, batch_size=1, seed=0, epochs=1)[0]
assert "tensorflow" not in sys.modules
"""
    # As in setup.cfg.
    warnings = ["-W", "error", "-W", "ignore:label() is deprecated:DeprecationWarning"]
    command = [sys.executable, *warnings, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("start", "length", "records"),
    [(0, 1, 1), (0, 30, 1), (29, 2, 2), (30, 30, 1), (30, 61, 3), (180, 30, 1), (209, 1, 1), (0, 210, 7)],
)
def test_a_clip_reads_only_its_chunks(made, monkeypatch, start, length, records):
    dataset = open_prepared(made)
    read = []
    honest = PreparedDataset._read
    monkeypatch.setattr(PreparedDataset, "_read", lambda self, *at: read.append(at) or honest(self, *at))
    segment = dataset.segments[2]
    clip = dataset.clip(segment, start, length)
    assert len(read) == records
    assert (clip.dtype, clip.shape) == (np.uint8, (length, SIZE, SIZE, 3))
    np.testing.assert_array_equal(clip, crops_of(three()[2])[start : start + length])
    out = np.zeros_like(clip)
    assert dataset.clip(segment, start, length, out=out) is out
    np.testing.assert_array_equal(out, clip)


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 0), (80, 11), (90, 1)])
def test_frames_that_are_not_there_are_refused(made, start, length):
    dataset = open_prepared(made)
    with pytest.raises(ValueError, match="subject1/0 has 90 frames"):
        dataset.clip(dataset.segments[0], start, length)


def test_a_segment_streams_in_bounded_memory(made):
    dataset = open_prepared(made)
    segment = dataset.segments[2]
    expected = crops_of(three()[2])
    next(dataset.frames(segment))
    tracemalloc.start()
    try:
        for image, wanted in zip(dataset.frames(segment), expected, strict=True):
            assert (image == wanted).all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 30 * SIZE * SIZE * 3  # 7 chunks are 210 frames; a chunk is held up to three times


def test_it_can_be_pickled_and_shared_among_threads(made, monkeypatch):
    monkeypatch.setattr(dataset_module, "MOST_OPEN", 1)  # every other read opens a shard anew
    dataset = open_prepared(made)
    before = dataset.clip(dataset.segments[1], 3, 100)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.clip(copy.segments[1], 3, 100), before)
    wrong = []

    def work(number):
        for _ in range(10):
            segment = copy.segments[number % 3]
            if not (copy.clip(segment, 50, 40) == crops[number % 3][50:90]).all():
                wrong.append(segment)

    crops = [crops_of(r) for r in three()]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(copy._readers) == 1


def test_the_pulse_wave_is_none_where_there_is_none(tmp_path):
    prepare([recording("a", ppg=False)], tmp_path / "out", crop_size=SIZE, skin=False, progress=False)
    dataset = open_prepared(tmp_path / "out")
    assert dataset.ppg(dataset.segments[0]) is None
    row = tfds.builder_from_directory(tmp_path / "out").as_data_source(split="all")[0]
    assert np.isnan(row["ppg"]).all() and len(row["ppg"]) == 30


# What can be wrong.


def test_a_missing_dataset_says_how_to_make_one(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"holds no prepared dataset; make one with .*sspd_jax prepare"):
            open_prepared(path)


def test_another_clock_or_size_than_asked_for_is_refused(made):
    open_prepared(made, fps=30, crop_size=SIZE)
    with pytest.raises(UserError, match=r"prepared with fps 30 Hz, not 25; prepare again into another"):
        open_prepared(made, fps=25.0)
    with pytest.raises(UserError, match=r"prepared with crop_size 64 pixels, not 151"):
        open_prepared(made, crop_size=151)


def test_an_unfinished_preparation_is_refused(mine):
    (mine / "index.json").unlink()
    with pytest.raises(UserError, match=r"not finished; run the same .* again, it resumes"):
        open_prepared(mine)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 2, "settings": {"fps": 3}}'])
def test_a_damaged_index_is_named_and_made_anew(mine, made, text):
    (mine / "index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json: is damaged.*; delete it and prepare again"):
        open_prepared(mine)
    assert prepare(three(), mine, crop_size=SIZE, skin=False, progress=False).made == 0
    assert content(mine) == content(made)


def test_an_index_of_another_version_is_refused(mine):
    index = json.loads((mine / "index.json").read_text())
    (mine / "index.json").write_text(json.dumps(index | {"format": 99}))
    with pytest.raises(UserError, match=r"another version \(format 99, not 3\)"):
        open_prepared(mine)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    data = bytearray(path.read_bytes())
    data[300_000] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink()])
def test_a_damaged_shard_is_named_and_made_anew(mine, made, damage):
    shard = mine / "faces-recordings.array_record-00001-of-00003"
    damage(shard)
    with pytest.raises(UserError, match=r"array_record-00001-of-00003: is (damaged|missing)"):
        dataset = open_prepared(mine)
        list(dataset.frames(dataset.segments[0]))  # the others can still be read
        list(dataset.frames(dataset.segments[1]))
    shard.unlink(missing_ok=True)
    assert prepare(three(), mine, crop_size=SIZE, skin=False, progress=False).made == 1
    assert content(mine) == content(made)


def test_a_shard_of_another_recording_is_noticed(tmp_path):
    for name in ("a", "b"):
        prepare([recording(name)], tmp_path / name, crop_size=SIZE, skin=False, progress=False)
    shard = "faces-recordings.array_record-00000-of-00001"
    (tmp_path / "b" / shard).replace(tmp_path / "a" / shard)
    dataset = open_prepared(tmp_path / "a")
    with pytest.raises(UserError, match="record 0 is not what the index says"):
        dataset.clip(dataset.segments[0], 0, 1)


def test_a_part_of_a_dataset_keeps_what_is_said_of_the_whole(monkeypatch):
    """Who was left out, whose skin is known: all recordings' skin must be, for any to be read."""
    segments = tuple(segment(name) for name in "abc")
    skin = {"a": "known", "b": "of another version", "c": "known"}
    monkeypatch.setattr(dataset_module.skin_file, "is_known", lambda facts: facts == "known")
    whole = dataset_module.PreparedDataset("there", "settings", segments, {"d": "gone"}, skin)
    assert not whole.has_skin
    part = whole.only(("a", "c"))
    assert part.has_skin and part.left_out == {"d": "gone"} and part.people == ("a", "c")
    assert not whole.only(("b",)).has_skin and len(whole.segments) == 3
    assert not dataset_module.PreparedDataset("there", "settings", segments, {}).has_skin


def test_a_dataset_that_is_read_without_the_network_says_why_and_so_do_its_parts(monkeypatch):
    segments = tuple(segment(name) for name in "ab")
    skin = {"a": {"fallback": "no model"}, "b": {}}
    monkeypatch.setattr(dataset_module.skin_file, "why_not_learned", lambda facts: facts and "of its own")
    record = dataset_module.skin_file.SkinRecord("traces", 30.0, "", ("a wave",))
    monkeypatch.setattr(dataset_module.skin_file, "read", lambda data_dir, facts: record)
    whole = dataset_module.PreparedDataset("there", "settings", segments, {}, skin)
    deaf = whole.without_network("as asked")
    for there, why, learned in ((whole, "of its own", ("a wave",)), (deaf, "as asked", ())):
        for part in (there, there.only(("a",))):
            assert part.why_not_learned("a") == why and part.skin("a").learned == learned
        assert there.skin_fallback("a") == "no model" and there.skin_fallback("b") == ""
        assert there.skin_fallback("nobody") == ""
    assert whole.why_not_learned("nobody") == "" and deaf.segments is segments

"""The skin's traces beside the crops: what predict records, whole or not at all; datasets without."""

import dataclasses
import itertools
import json
from functools import partial

import numpy as np
import pytest
from etils import epath
from prepared_faces import content, portrait, recording

from sspd_jax.checkpoints import host_network
from sspd_jax.cli import prepare as cli_prepare
from sspd_jax.datasets import prepare as command
from sspd_jax.datasets import skin_file
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.errors import UserError
from sspd_jax.simulation.sample_video import write_face_video
from sspd_jax.video import decode
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.skin_traces import SkinRecorder, as_table, skin_traces

prepare = partial(command.prepare, crop_size=16, progress=False)
TIMES = np.arange(45) / 30
SKIN_OF_ANN = ["skin/ann.network.npz", "skin/ann.npy"]


def two():
    return [recording(name, TIMES, shade=shade) for shade, name in enumerate(("ann", "bob"))]


def predicted(frames):
    """What `predict` records of frames."""
    return as_table(skin_traces(frames, load_networks()[0]))


def of_version_2(folder):
    """Make a prepared dataset one of the format that knew no skin."""
    for name in ("preparation.json", "index.json"):
        path = folder / name
        if path.exists():
            table = json.loads(path.read_text()) | {"format": 2}
            del table["settings"]["skin"]
            for facts in table["recordings"] if name == "index.json" else ():
                del facts["skin"]
            path.write_text(json.dumps(table))
    for path in (folder / "recordings").glob("*.json"):
        table = json.loads(path.read_text())
        del table["skin"]
        path.write_text(json.dumps(table))
    for path in (folder / "skin").iterdir():
        path.unlink()
    (folder / "skin").rmdir()


def test_the_traces_are_those_that_predict_records(tmp_path, monkeypatch):
    monkeypatch.setattr(skin_file, "ROWS_HELD", 7)  # written in several pieces
    prepare(two(), tmp_path / "out")
    dataset = open_prepared(tmp_path / "out")
    assert dataset.has_skin and dataset.settings.skin
    for r in two():
        record = dataset.skin(r.recording_id)
        np.testing.assert_array_equal(as_table(record.traces), predicted(r.frames()))
        assert record.fps == 30.0 and record.traces.lag_s == 0
        np.testing.assert_array_equal(
            np.load(tmp_path / f"out/skin/{r.recording_id}.npy"), predicted(r.frames())
        )
    assert dataset.skin("nobody") is None
    assert dataset.only({"bob"}).skin("bob") is not None
    # The crops know nothing of it.
    prepare(two(), tmp_path / "crops", skin=False)
    crops = content(tmp_path / "crops")
    assert not any(name.startswith("skin") for name in crops)
    shards = [name for name in crops if "array_record" in name]
    assert len(shards) == 2 and all(crops[name] == content(tmp_path / "out")[name] for name in shards)


def gone(times_s):
    """A portrait that is out of view from 4.5 s to 6 s."""
    for time_s, picture in portrait(times_s):
        yield time_s, np.full_like(picture, 90) if 4.5 <= time_s < 6 else picture


@pytest.mark.parametrize(("fps", "clock"), [pytest.param(29.7, 29.7, marks=pytest.mark.slow), (20.0, 30.0)])
def test_the_networks_waves_are_those_of_the_shipped_one_part_by_part(tmp_path, fps, clock):
    times_s = np.arange(round(10.5 * fps)) / fps
    r = recording("ann", frames=partial(gone, times_s), ppg=False)
    prepare([r], tmp_path / "out")
    dataset = open_prepared(tmp_path / "out")
    network = host_network.shipped()
    recorder = SkinRecorder(load_networks()[0], crop_size=network.crop_size)
    pictures = list(recorder.crops_beside(recorder.watch(gone(times_s))))
    expected = host_network.read(network, pictures, dataset.skin("ann").fps)
    learned = dataset.skin("ann").learned
    assert len(learned) == len(expected) == 2
    for ours, theirs in zip(learned, expected, strict=True):
        assert (ours.start_s, ours.fps) == (theirs.start_s, theirs.fps)
        np.testing.assert_array_equal(ours.values, theirs.values)
    assert learned[0].fps == pytest.approx(clock, abs=0.01) and learned[0].start_s == 0.5 / learned[0].fps
    assert 5.5 < learned[1].start_s < 6.5 and learned[1].times_s[-1] > 10.3
    with np.load(tmp_path / "out/skin/ann.network.npz") as kept:
        assert str(kept["digest"]) == network.digest and str(kept["network"]) == network.name


def test_what_is_held_does_not_grow_with_the_video(tmp_path, monkeypatch):
    monkeypatch.setattr(skin_file, "ROWS_HELD", 8)
    with skin_file.SkinWriter(epath.Path(tmp_path), "ann", tmp_path / "ann.avi") as writer:
        held, pictures = [], []
        for _ in writer.watch(portrait(np.arange(120) / 30)):
            held.append(len(writer._recorder._rows))
            pictures.append(len(writer._recorder._weigher.crops[0]))
        assert max(held) <= 8 and not any(pictures) and not (tmp_path / "skin/ann.npy").exists()
        assert writer.commit()["bytes"] == (tmp_path / "skin/ann.npy").stat().st_size
    assert len(np.load(tmp_path / "skin/ann.npy")) == 120


def test_the_rate_is_the_one_that_predict_reads_at(tmp_path):
    path = tmp_path / "face.mp4"
    write_face_video(path, seconds=2, fps=25, bpm=90)
    r = dataclasses.replace(recording("a", ppg=False, frames=partial(decode.frames, path)), file=path)
    # A dataset's own times count where they are other ones; milliseconds tell the rate as well.
    slow = dataclasses.replace(recording("b", np.arange(24) / 12, ppg=False), file=path)
    rounded = recording("c", np.round(np.arange(60) / 30, 3), ppg=False)
    dense = recording("d", np.arange(180) / 120, ppg=False)
    prepare([r, slow, rounded, dense], tmp_path / "out")
    dataset = open_prepared(tmp_path / "out")
    assert [dataset.skin(name).fps for name in "abcd"] == pytest.approx([25, 12, 30, 60], abs=0.01)
    assert dataset.skin("a").fps == decode.reading_rate(path)


def test_without_landmark_models_the_cascade_finds_the_face_and_a_note_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(skin_file, "load_networks", lambda: (None, "x.tflite: the face model is missing"))
    prepare(two(), tmp_path / "out")
    dataset = open_prepared(tmp_path / "out")
    assert all("x.tflite: the face model is missing" in segment.notes for segment in dataset.segments)
    record = dataset.skin("ann")
    assert record.fallback == "x.tflite: the face model is missing" and record.traces.found.all()
    # The network has learned from skin that landmarks found: as by `predict`, it is not asked.
    assert record.learned == () and not list((tmp_path / "out/skin").glob("*.npz"))
    assert dataset.why_not_learned("ann") == ""


def test_a_recording_is_finished_when_its_traces_are(tmp_path):
    prepare(two(), tmp_path / "out")
    whole = content(tmp_path / "out")
    for name, spoil in itertools.product(("bob.npy", "bob.network.npz"), ("missing", "damaged")):
        path = tmp_path / "out/skin" / name
        if spoil == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
        assert open_prepared(tmp_path / "out").skin("ann") is not None
        with pytest.raises(UserError, match=rf"{name}: is {spoil}; .*prepare again, the others stay"):
            open_prepared(tmp_path / "out").skin("bob")
        assert prepare(two(), tmp_path / "out").made == 1
        assert content(tmp_path / "out") == whole


@pytest.mark.parametrize("time_s", [1e9, -1.0, np.nan])
def test_times_that_run_anywhere_ask_for_no_clock(tmp_path, time_s):
    """A clock that reached 1e9 s would fill any memory."""
    prepare(two()[:1], tmp_path / "out")
    path = tmp_path / "out/skin/ann.npy"
    table = np.load(path)
    table[7, 0] = time_s
    np.save(path, table)
    with pytest.raises(UserError, match=r"ann.npy: is damaged; delete it and prepare again"):
        open_prepared(tmp_path / "out").skin("ann")


def test_a_rate_at_which_nothing_is_read_is_damage_to_the_index(tmp_path):
    prepare(two()[:1], tmp_path / "out")
    index = tmp_path / "out/index.json"
    told = json.loads(index.read_text())
    told["recordings"][0]["skin"]["fps"] = 1e9
    index.write_text(json.dumps(told))
    with pytest.raises(UserError, match="its index is damaged; delete it and prepare again"):
        open_prepared(tmp_path / "out").skin("ann")


def test_traces_reach_remote_storage(bucket, tmp_path):
    for out in ("gs://bucket/out", tmp_path / "out"):
        assert prepare(two()[:1], out).made == 1
    for name in SKIN_OF_ANN:
        (stored,) = (file for path, file in bucket.items() if path.endswith(f"out/{name}"))
        assert stored.getvalue() == (tmp_path / "out" / name).read_bytes()
    assert prepare(two()[:1], "gs://bucket/out").made == 0


def test_a_recording_that_breaks_off_leaves_no_traces(tmp_path):
    def breaks_off():
        yield from itertools.islice(portrait(TIMES), 40)
        raise OSError("torn")

    broken = recording("bob", frames=breaks_off)
    with pytest.raises(UserError, match="1 of 2 recordings cannot be prepared"):
        prepare([two()[0], broken], tmp_path / "out")
    assert [name for name in content(tmp_path / "out") if name.startswith("skin")] == SKIN_OF_ANN
    (tmp_path / "out/skin/.cat.npy.partial").write_bytes(b"of a run that was killed")
    prepare(two(), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out/skin").iterdir()) == [
        "ann.network.npz",
        "ann.npy",
        "bob.network.npz",
        "bob.npy",
    ]


def test_a_dataset_of_before_the_skin_stays_as_it_is(tmp_path, capsys):
    prepare(two(), tmp_path / "out")
    of_version_2(tmp_path / "out")
    before = content(tmp_path / "out")
    dataset = open_prepared(tmp_path / "out")
    assert not dataset.has_skin and dataset.skin("ann") is None
    assert dataset.clip(dataset.segments[0], 0, 45).shape == (45, 16, 16, 3)
    assert prepare(two(), tmp_path / "out").made == 0
    assert content(tmp_path / "out") == before
    said = capsys.readouterr().err
    assert "was begun without the skin's traces and goes on so" in said and len(said.splitlines()) == 1
    # One that was not finished goes on as it was begun, too.
    (tmp_path / "out/index.json").unlink()
    (tmp_path / "out/recordings/bob.json").unlink()
    assert prepare(two(), tmp_path / "out").made == 1
    assert not open_prepared(tmp_path / "out").has_skin


def test_traces_of_another_layout_are_left_alone(tmp_path):
    prepare(two()[:1], tmp_path / "out")
    path = tmp_path / "out/index.json"
    index = json.loads(path.read_text())
    for key, value in (("format", 99), ("columns", {"time_s": 1})):
        index["recordings"][0]["skin"][key] = value
        path.write_text(json.dumps(index))
        assert open_prepared(tmp_path / "out").skin("ann") is None


def test_the_command_can_do_without(tmp_path):
    write_face_video(tmp_path / "a.mp4", seconds=2, bpm=90)
    arguments = ["--dataset=folder", f"--source={tmp_path}", "--workers=1", "--no_progress", "--crop_size=16"]
    for name, more in (("with", []), ("without", ["--no_skin"])):
        out = tmp_path / "made" / name
        out.parent.mkdir(exist_ok=True)
        assert cli_prepare.main([*arguments, f"--data_dir={out}", *more]) == 0
        assert open_prepared(out).has_skin == (name == "with")


def test_why_a_network_is_not_heard():
    """Where `predict` has no network either, nothing is missing."""
    today = host_network.shipped().digest
    for facts, says in (
        ({"network": {"digest": today}}, ""),
        ({"fallback": "no model"}, ""),
        ({"fallback": "no model", "network": {"digest": "another"}}, ""),
        ({"network": {"digest": "another", "name": "old"}}, "another network than today's (old); prepare"),
        ({"network": {}}, "an earlier version prepared it, without a network"),
        ({}, "an earlier version prepared it, without a network"),
    ):
        found = skin_file.why_not_learned(facts)
        assert says in found and bool(found) == bool(says)

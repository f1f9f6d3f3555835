import functools
import pickle
import threading
import time
from collections import Counter

import jax
import numpy as np
import pytest
from prepared_faces import portrait, recording

from sspd_jax.datasets import device_cache, input_pipeline
from sspd_jax.datasets.dataset import PreparedDataset, open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.training import sharding

FRAMES = 20  # difference frames of a clip
EPOCHS = 1000  # enough to see every window
SETTINGS = {"clip_frames": FRAMES, "batch_size": 3, "seed": 0, "epochs": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight recordings of seven people; `broken` has segments of 1 s and 2 s; `short` is too short for 45."""
    broken = np.r_[np.arange(30), 90 + np.arange(60)] / 30
    recordings = [recording(f"p{n}", seconds=1 + n / 10, shade=n) for n in range(1, 6)]
    recordings += [
        recording("p5again", person="p5", seconds=2),
        recording("broken", broken, ppg=False, frames=lambda: portrait(broken)),
        recording("short", seconds=1),
    ]
    path = tmp_path_factory.mktemp("pipeline") / "faces"
    prepare(recordings, path, crop_size=16, skin=False, progress=False)
    return open_prepared(path)


def batches(dataset, people=None, **changes):
    return input_pipeline.clip_batches(dataset, people or dataset.people, **(SETTINGS | changes))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def drawn(all_batches):
    return [(int(s), int(t)) for b in all_batches for s, t in zip(b["segment"], b["start"], strict=True)]


def test_elements_are_clips_of_the_dataset(dataset):
    all_batches = batches(dataset)
    assert len(all_batches) == 4 * 3
    for batch in all_batches:
        n = len(batch["start"])
        assert batch["clips"].shape == (n, FRAMES + 1, 16, 16, 3)
        assert [batch[key].dtype for key in ("clips", "segment", "start")] == [np.uint8, np.int32, np.int32]
        for clip, segment, start in zip(*(batch[key] for key in ("clips", "segment", "start")), strict=True):
            wanted = dataset.clip(dataset.segments[segment], int(start), FRAMES + 1)
            np.testing.assert_array_equal(clip, wanted)


def test_every_recording_comes_up_once_in_an_epoch_in_another_order(dataset):
    all_batches = batches(dataset)
    assert [len(all_batches[k]["start"]) for k in range(6)] == [3, 3, 2, 3, 3, 2]
    orders = []
    for epoch in range(4):
        segments = [s for s, _ in drawn(all_batches[3 * epoch + k] for k in range(3))]
        orders.append([dataset.segments[s].recording_id for s in segments])
        assert sorted(orders[-1]) == sorted({s.recording_id for s in dataset.segments})
    assert len({tuple(order) for order in orders}) == 4
    windows = [sorted(drawn(all_batches[3 * epoch + k] for k in range(3))) for epoch in range(4)]
    assert windows[0] != windows[1]


def test_a_batch_depends_on_seed_and_step_alone(dataset):
    all_batches = batches(dataset)
    again = batches(dataset, epochs=40)
    for step in (11, 0, 5):  # in any order
        assert same(all_batches[step], again[step])
    other = batches(dataset, seed=1)
    assert drawn(all_batches) != drawn(other)
    assert same(pickle.loads(pickle.dumps(all_batches))[7], all_batches[7])


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_reading_ahead_changes_nothing(dataset, ahead):
    all_batches = batches(dataset)
    for first_step in (0, 7, len(all_batches)):
        stream = input_pipeline.prefetch(all_batches, first_step, ahead=ahead)
        read = list(stream)
        assert len(read) == len(all_batches) - first_step
        assert all(same(b, all_batches[first_step + k]) for k, b in enumerate(read))
    stream = input_pipeline.prefetch(all_batches, 2, ahead=ahead)
    next(stream)
    state = stream.get_state()
    wanted = next(stream)
    stream.set_state(state)
    assert same(next(stream), wanted)
    stream.close()


def test_what_is_read_ahead_is_not_waited_for(dataset, monkeypatch):
    honest, read, may_read = PreparedDataset.clip, [], threading.Event()

    def gated(*args, **settings):
        may_read.wait()
        clip = honest(*args, **settings)
        read.append(clip)
        return clip

    monkeypatch.setattr(PreparedDataset, "clip", gated)
    may_read.set()
    stream = input_pipeline.prefetch(batches(dataset), ahead=2)
    for _ in range(6000):  # the network's step
        if len(read) >= 2 * SETTINGS["batch_size"]:
            break
        time.sleep(0.01)
    may_read.clear()
    found = []
    asks = threading.Thread(target=lambda: found.append(next(stream)), daemon=True)
    asks.start()
    asks.join(timeout=30)
    may_read.set()
    stream.close()
    assert found, "the next batch was waited for"


def test_a_failure_while_reading_ahead_comes_out(dataset, monkeypatch):
    def damaged(*_, **__):
        raise UserError("shard 3: is damaged")

    monkeypatch.setattr(PreparedDataset, "clip", damaged)
    with pytest.raises(UserError, match="shard 3: is damaged"):
        next(input_pipeline.prefetch(batches(dataset)))


def test_windows_cover_the_recordings_evenly(dataset, monkeypatch):
    monkeypatch.setattr(PreparedDataset, "clip", lambda *_, **__: None)
    counts = Counter(drawn(batches(dataset, epochs=EPOCHS)))
    numbers = {s.segment_id: n for n, s in enumerate(dataset.segments)}
    # A recording of 33 frames holds 13 clips of 21; one of 30 and 60 frames 10 + 40.
    for parts in (["p1/0"], ["p5again/0"], ["broken/0", "broken/1"]):
        windows = [
            (numbers[part], start)
            for part in parts
            for start in range(dataset.segments[numbers[part]].n_frames - FRAMES)
        ]
        expected = EPOCHS / len(windows)
        found = np.array([counts[window] for window in windows])
        assert found.sum() == EPOCHS  # and no other window
        assert ((found - expected) ** 2 / expected).sum() < 2 * len(windows)  # chi-square, seeded


@pytest.mark.parametrize("cut", [3, 4])
def test_processes_read_their_parts_of_the_same_batches(dataset, monkeypatch, cut):
    reads = []
    honest = PreparedDataset.clip

    def counted(self, segment, *args, **options):
        reads.append(segment)
        return honest(self, segment, *args, **options)

    monkeypatch.setattr(PreparedDataset, "clip", counted)
    whole = batches(dataset, batch_size=6)  # eight recordings: 6 and 2
    shares = [{6: slice(0, cut), 2: slice(0, 2)}, {6: slice(cut, 6), 2: slice(0, 2)}]
    parts = [batches(dataset, batch_size=6, parts=share) for share in shares]
    assert [len(part) for part in parts] == [8, 8] == [len(whole)] * 2
    for step in range(8):
        reads.clear()
        first, second = (part[step] for part in parts)
        assert len(reads) == (6 if step % 2 == 0 else 4)
        wanted = whole[step]
        for key in ("segment", "start"):  # all clips', whoever reads them
            np.testing.assert_array_equal(first[key], wanted[key])
            np.testing.assert_array_equal(second[key], wanted[key])
        if step % 2 == 0:
            np.testing.assert_array_equal(np.concatenate([first["clips"], second["clips"]]), wanted["clips"])
        else:
            assert same(first, wanted) and same(second, wanted)
    reads.clear()
    drawn = batches(dataset, batch_size=6, read=False)
    assert [set(batch) for batch in drawn] == [{"segment", "start"}] * 8 and not reads
    np.testing.assert_array_equal(drawn[5]["start"], whole[5]["start"])


def test_sizes_of_an_epochs_batches():
    assert input_pipeline.epoch_sizes(30, 12) == (12, 12, 6)
    assert input_pipeline.epoch_sizes(24, 12) == (12, 12)
    assert input_pipeline.epoch_sizes(1, 12) == (1,)


@pytest.mark.parametrize("n_devices", [1, 8])
def test_clips_cut_on_the_devices_are_those_that_are_read(dataset, n_devices):
    mesh = sharding.data_mesh(jax.devices()[:n_devices], 6)
    everyone = [p for p in dataset.people if p != "short"]
    choice = input_pipeline.choose(dataset, everyone, FRAMES)
    frames = device_cache.load(dataset, choice, sharding.frame_sharding(mesh))
    held = [shard.data.shape[0] for shard in frames.frames.addressable_shards]
    assert len(held) == n_devices and len(set(held)) == 1  # spread, not copied
    assert device_cache.n_bytes(dataset, choice) == sum(
        dataset.segments[n].n_frames * 16 * 16 * 3 for numbers in choice.segments for n in numbers
    )
    cut = jax.jit(functools.partial(sharding.cut_clips, mesh=mesh, length=FRAMES + 1))
    for batch in list(batches(dataset, everyone, batch_size=6, epochs=6))[::2]:
        clips = cut(frames.frames, frames.starts(batch["segment"], batch["start"]))
        np.testing.assert_array_equal(clips, batch["clips"])


def test_people_are_chosen_and_what_is_too_short_is_left_out(dataset):
    choice = input_pipeline.choose(dataset, ["p5", "short", "broken"], 40)
    ids = [[dataset.segments[n].segment_id for n in numbers] for numbers in choice.segments]
    assert ids == [["p5/0"], ["p5again/0"], ["broken/1"]]
    assert choice.windows == ((5,), (20,), (20,))
    assert choice.left_out == ("short: 30 unbroken frames are fewer than a clip's 41",)
    seen = {
        dataset.segments[s].person_id for s, _ in drawn(batches(dataset, ["p5", "short"], clip_frames=40))
    }
    assert seen == {"p5"}
    assert input_pipeline.choose(dataset, ["p5", "short", "broken", "p5"], 40) == choice
    exact = batches(dataset, ["short"], clip_frames=29)
    assert set(drawn(exact)) == {(drawn(exact)[0][0], 0)}


def test_what_cannot_be_read_is_refused(dataset):
    with pytest.raises(UserError, match=r"no recording of p9, q; name people it has: p1, p2, p3, p4, p5, …"):
        batches(dataset, ["p1", "p9", "q"])
    with pytest.raises(UserError, match=r"no recording of short, p1 has the 301 unbroken frames .*10\.0 s"):
        batches(dataset, ["short", "p1"], clip_frames=300)
    with pytest.raises(UserError, match="no recording of nobody"):
        input_pipeline.clip_batches(dataset, [], **SETTINGS)
    for wrong in ({"batch_size": 0}, {"epochs": 0}, {"clip_frames": 0}):
        with pytest.raises(ConfigError, match=r"0 is not 1 or more"):
            batches(dataset, **wrong)

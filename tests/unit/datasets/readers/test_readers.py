"""Every reader on files of the real format: who is seen, when, and with which wave."""

import dataclasses
import pickle
import re
from itertools import islice
from pathlib import Path

import cv2
import dataset_files
import h5py
import numpy as np
import pytest
from dataset_files import BPM

from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import files, folder, matlab, pure, registry, vipl_hr
from sspd_jax.datasets.recording import LONGEST_ID, Broken, Recording
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.simulation import sample_video

SECONDS = 6
PEOPLE = {
    "ubfc_rppg": ("subject1", "subject2"),
    "ubfc_rppg_1": ("5-gt", "11-gt"),
    "pure": ("01", "02"),
    "cohface": ("1", "2"),
    "mmpd": ("subject1", "subject2"),
    "ubfc_phys": ("s1", "s2"),
    "vipl_hr": ("p1", "p2"),
    "scamps": ("P000001", "P000002"),
    "folder": ("Zoë", "李"),
}
EACH = {"cohface": 2, "ubfc_phys": 2, "vipl_hr": 2}  # recordings a person


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Folder of a dataset by its name; written once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("raw") / name
            dataset_files.WRITERS[name](made[name])
        return made[name]

    return get


def whole(listed) -> list[Recording]:
    assert [r.why for r in listed if isinstance(r, Broken)] == []
    return listed


def test_there_is_a_test_for_every_reader():
    assert set(PEOPLE) == set(dataset_files.WRITERS) == set(registry.READERS) - {"vipl_hr_infrared"}
    with pytest.raises(ConfigError, match="dataset 'purer' is none of cohface, folder"):
        registry.read("purer", ".")


@pytest.mark.parametrize("name", PEOPLE)
def test_recordings_by_the_contract(name, source):
    listed = whole(registry.read(name, source(name)))
    assert len(listed) == 2 * EACH.get(name, 1)
    assert tuple(dict.fromkeys(r.person_id for r in listed)) == PEOPLE[name]
    assert len({r.recording_id for r in listed}) == len(listed)
    assert [r.recording_id for r in registry.read(name, source(name))] == [r.recording_id for r in listed]
    # Each call of `frames` starts anew, in another process too.
    for recording in (listed[0], pickle.loads(pickle.dumps(listed[0]))):
        times_s, first = zip(*((t, rgb) for t, rgb in recording.frames()), strict=True)
        assert times_s[0] == 0 and (np.diff(times_s) > 0).all()
        assert SECONDS - 0.1 < times_s[-1] + np.median(np.diff(times_s)) < SECONDS + 0.1
        assert {f.shape for f in first} == {(112, 112, 3)} and first[0].dtype == np.uint8
    # Red skin, not blue: the order of the colours.
    assert first[0][..., 0].mean() > first[0][..., 2].mean() + 10
    bpm = BPM[PEOPLE[name].index(recording.person_id)]
    expected = sample_video.ppg(recording.ppg.times_s, bpm)
    assert np.corrcoef(recording.ppg.values, expected)[0, 1] > 0.999
    assert recording.meta["dataset"]


@pytest.mark.parametrize("name", PEOPLE)
def test_prepared_frames_and_wave_have_one_clock(name, source, tmp_path):
    settings = {"name": name, "crop_size": 32, "skin": False, "progress": False}
    prepare(registry.read(name, source(name)), tmp_path / name, **settings)
    dataset = open_prepared(tmp_path / name)
    assert dataset.people == PEOPLE[name]
    for segment in dataset.segments:
        bpm = BPM[PEOPLE[name].index(segment.person_id)]
        wave = dataset.ppg(segment)
        there = np.isfinite(wave)
        assert there.mean() > 0.97
        ticks_s = segment.start_s + np.arange(segment.n_frames) / 30
        expected = sample_video.ppg(ticks_s, bpm)
        assert np.corrcoef(wave[there], expected[there])[0, 1] > 0.99
        green = np.array([f[..., 1].mean() for f in dataset.frames(segment)])
        assert spectral_peak_rate(green, 30) == pytest.approx(bpm, abs=2)
        # Blood darkens: the frames beat with the wave, in phase, not only at its rate.
        assert np.corrcoef(-np.diff(green)[there[1:]], np.diff(wave)[there[1:]])[0, 1] > 0.6


@pytest.mark.parametrize("name", PEOPLE)
def test_the_skin_is_recorded_as_the_frames_go_by_whatever_they_come_from(name, source, tmp_path):
    whole_one = registry.read(name, source(name))[0]
    beginning = list(islice(whole_one.frames(), 36))
    short = dataclasses.replace(whole_one, frames=lambda: iter(beginning), ppg=None)
    prepare([short], tmp_path / name, crop_size=16, progress=False)
    record = open_prepared(tmp_path / name).skin(short.recording_id)
    assert list(record.traces.time_s) == [time_s for time_s, _ in beginning]
    assert record.traces.found.all()
    assert record.fps == pytest.approx(1 / np.diff(record.traces.time_s).mean(), rel=0.02)


# What is particular to one.


def test_ubfc_dataset_1_has_the_devices_rate(source):
    first, second = registry.read("ubfc_rppg_1", source("ubfc_rppg_1"))
    assert first.meta["device_heart_rate"] == [72.0] * 6
    assert second.file.name == "vid of 11.avi"
    assert 1 / np.diff(first.ppg.times_s).mean() == pytest.approx(62, abs=0.1)


def test_pure_in_both_layouts_with_dropped_frames_and_a_corrupt_start(tmp_path):
    for layout in "AB":
        dataset_files.pure(tmp_path / layout, layout=layout, dropped=(0, 50, 51, 52))
        first, second = whole(pure.recordings(tmp_path / layout))
        assert (first.recording_id, first.person_id, second.person_id) == ("01-01", "01", "02")
        times_s = np.array([t for t, _ in first.frames()])
        assert len(times_s) == 176 and times_s[0] == 0
        assert np.diff(times_s).max() == pytest.approx(4 / 30, abs=1e-6)
        # The clock starts at the first picture that is there, 1/30 s later than the face does; the wave
        # began 0.1 s earlier, and its first two values are left out.
        assert first.ppg.times_s[0] == pytest.approx(2 / 60 - 0.1 - 1 / 30, abs=1e-6)
        assert first.ppg.values.min() >= 500
        assert set(first.meta["device_heart_rate"]) == {72.0}
        assert first.meta["task"] == "steady"


def test_pure_pictures_that_are_missing_or_damaged_are_left_out(tmp_path):
    dataset_files.pure(tmp_path, seconds=3)
    pictures = sorted((tmp_path / "01-01" / "01-01").glob("*.png"))
    pictures[10].unlink()
    pictures[20].write_bytes(pictures[20].read_bytes()[:3000])
    pictures[30].write_bytes(b"")
    first, _ = whole(pure.recordings(tmp_path))
    assert first.meta["notes"] == ["1 of 90 pictures are not in 01-01"]
    times_s = [t for t, _ in first.frames()]
    assert np.flatnonzero(np.diff(times_s) > 0.05).tolist() == [9, 18, 27]  # nothing else has moved
    for path in pictures[40:46]:
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"01-01: 8 of 89 pictures are damaged; copy"):
        list(first.frames())


def test_pure_pictures_without_stamps_go_by_their_order(tmp_path):
    dataset_files.pure(tmp_path, seconds=3)
    for number, path in enumerate(sorted((tmp_path / "01-01" / "01-01").glob("*.png"))):
        path.rename(path.with_name(f"{number:04d}.png"))
    first, _ = whole(pure.recordings(tmp_path))
    assert [t for t, _ in first.frames()] == pytest.approx(np.arange(90) / 30, abs=1e-6)
    (tmp_path / "01-01" / "01-01" / "0050.png").unlink()
    first, _ = pure.recordings(tmp_path)
    assert "do not say which are missing" in first.why


def test_cohface_keeps_its_protocols(source):
    listed = whole(registry.read("cohface", source("cohface")))
    assert [r.recording_id for r in listed] == ["1-0", "1-2", "2-0", "2-2"]
    assert listed[0].meta["protocols"] == {"all": "train", "clean": "train"}
    assert listed[3].meta["protocols"] == {"all": "test", "natural": "test"}
    assert [r.meta["illumination"] for r in listed[:2]] == ["lamp", "natural"]


@pytest.mark.parametrize("version", [5, 7.3])
def test_mmpd_in_both_versions_of_matlab(tmp_path, version):
    dataset_files.mmpd(tmp_path, seconds=2, version=version)
    first, _ = whole(registry.read("mmpd", tmp_path))
    assert first.meta["motion"] == "Walking" and "walking" in first.meta["notes"][0]
    labels = ("light", "exercise", "skin_color", "gender", "glasser", "hair_cover", "makeup")
    assert [first.meta[x] for x in labels] == ["LED-low", False, 4, "female", True, False, False]
    frames = [rgb for _, rgb in first.frames()]
    np.testing.assert_array_equal(frames, dataset_files.pictures(30, 2, BPM[0]))


def test_a_video_in_hdf5_is_read_in_slabs(tmp_path, monkeypatch):
    video = np.random.default_rng(0).integers(0, 256, (40, 6, 8, 3), np.uint8)
    dataset_files.hdf5_mat(tmp_path / "a.mat", video=video, ints=video[:3], high=video[:3].astype(np.float64))
    monkeypatch.setattr(matlab, "SLAB_BYTES", 15 * 6 * 8 * 3)
    file = matlab.MatFile(tmp_path / "a.mat")
    assert [len(slab) for slab in file._slabs("video")] == [14, 14, 12]  # two chunks of 7 frames fit
    np.testing.assert_array_equal(list(file.frames("video")), video)
    np.testing.assert_array_equal(list(file.frames("high")), video[:3])
    with h5py.File(tmp_path / "a.mat") as opened:
        monkeypatch.setattr(matlab, "SLAB_BYTES", 1)
        assert matlab.slab_length(opened["video"]) == 1


def test_ubfc_phys_keeps_a_persons_tasks_together(source):
    listed = whole(registry.read("ubfc_phys", source("ubfc_phys")))
    assert [(r.recording_id, r.person_id, r.meta["task"]) for r in listed] == [
        ("s1_T1", "s1", "rest"),
        ("s1_T2", "s1", "speech"),
        ("s2_T1", "s2", "rest"),
        ("s2_T2", "s2", "speech"),
    ]


def test_vipl_hr_has_its_own_times_and_leaves_infrared_out(source):
    listed = whole(registry.read("vipl_hr", source("vipl_hr")))
    assert [r.recording_id for r in listed] == [
        f"p{person}-v1-2-source{number}" for person in (1, 2) for number in (1, 2)
    ]
    first, second = listed[:2]
    times_s = np.array([t for t, _ in first.frames()])
    np.testing.assert_allclose(np.diff(times_s[:5]), [0.044, 0.036, 0.044, 0.036], atol=1e-9)
    assert [t for t, _ in second.frames()] == pytest.approx(np.arange(180) / 30)
    assert second.meta["ppg_hz"] == 60  # 360 values beside 180 frames at 30 Hz
    assert [r.meta["fold"] for r in listed] == [1, 1, 2, 2]
    assert first.meta["device_heart_rate"] == [72.0] * 6
    (infrared, _) = whole(vipl_hr.infrared_recordings(source("vipl_hr")))
    assert infrared.recording_id == "p1-v1-2-source4"


def test_scamps_falls_back_on_its_small_video(tmp_path):
    dataset_files.scamps(tmp_path / "train", seconds=2, name="Xsub")
    first, _ = whole(registry.read("scamps", tmp_path))
    assert first.meta["video"] == "Xsub"
    np.testing.assert_array_equal(next(first.frames())[1], dataset_files.pictures(30, 2, BPM[0])[0])
    dataset_files.scamps(tmp_path / "test", seconds=2)
    with pytest.raises(UserError, match=r"holds P000001\.mat twice; give the folder of one copy"):
        registry.read("scamps", tmp_path)


def test_a_folder_says_who_is_who(tmp_path):
    dataset_files.folder(tmp_path, seconds=2, labelled=False)
    clip = (tmp_path / "Zoë" / "a clip.mp4").read_bytes()
    for name in ("solo.mp4", ".hidden.mp4", "Zoë/a_clip.mp4", "Zoë/notes.txt"):
        (tmp_path / name).write_bytes(clip)
    (tmp_path / "李" / "loop").symlink_to(tmp_path)
    listed = whole(folder.recordings(tmp_path))
    seen = {r.meta["path"]: (r.recording_id, r.person_id) for r in listed}
    assert seen.pop("solo.mp4") == ("solo", "solo")
    assert seen.pop("李/day 1/b.mkv") == ("李-day_1-b", "李")
    (one, _), (other, _) = seen.pop("Zoë/a clip.mp4"), seen.pop("Zoë/a_clip.mp4")
    assert one != other and {one[:11], other[:11]} == {"Zoë-a_clip-"}
    assert seen == {}
    assert all(r.ppg is None for r in listed)


def test_names_of_recordings_are_stable_file_names():
    assert folder.name_recordings(["a/b c.mp4", "-x.avi", "é.mov"]) == ["a-b_c", "_-x", "é"]
    twice = folder.name_recordings(["a/b.mp4", "a-b.mp4", "c.mp4"])
    assert twice[2] == "c" and len(set(twice)) == 3
    assert twice == folder.name_recordings(["a/b.mp4", "a-b.mp4", "c.mp4"])


def test_folder_names_that_are_too_long_are_cut_and_stay_apart():
    paths = ["d" * 200 + "/" + "v" * 251 + ending for ending in (".mp4", "w.mp4")] + ["李" * 83 + ".mp4"]
    names = folder.name_recordings(paths)
    assert len(set(names)) == 3 and names == folder.name_recordings(paths)
    assert all(len(name.encode()) <= LONGEST_ID for name in names)
    assert names[0].startswith("d" * 180) and names[2].startswith("李" * 60)


def test_what_a_device_says_is_averaged_by_the_second():
    times_s, rates = [-0.5, 0.1, 0.9, 1.5, 3.2], [50, 60, 62, np.nan, 70]
    assert files.by_second(times_s, rates) == [61.0, None, None, 70.0]


def test_a_video_shorter_than_its_header_says_is_noticed_at_its_end(tmp_path):
    dataset_files.avi(tmp_path / "a.avi", 30, 2, BPM[0])
    assert len(list(files.timed_frames(tmp_path / "a.avi", 2.0))) == 60
    assert len(list(files.timed_frames(tmp_path / "a.avi", 3.9))) == 60  # headers round
    with pytest.raises(UserError, match=r"a\.avi: breaks off at 2\.0 s where its header says 30\.0 s; copy"):
        list(files.timed_frames(tmp_path / "a.avi", 30.0))


def test_a_damaged_picture_is_none(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((9, 9, 3), (10, 20, 30), np.uint8))
    assert pure.read_picture(path)[0, 0].tolist() == [30, 20, 10]
    data = path.read_bytes()
    for bad in (b"", data[:-1], data[: len(data) // 2], data[20:]):
        path.write_bytes(bad)
        assert pure.read_picture(path) is None
    assert pure.read_picture(tmp_path / "nowhere.png") is None


def test_the_reader_in_the_docs_works(tmp_path):
    text = (Path(__file__).parents[4] / "docs" / "datasets.md").read_text()
    (code,) = [part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "GET_IT" in part]
    names = {}
    exec(code, names)
    frames = dataset_files.pictures(30, 2, BPM[0])
    sample_video.write_video(tmp_path / "ann.mp4", frames, np.arange(60) / 30)
    dataset_files.column(tmp_path / "ann.txt", dataset_files.wave(100, 2, BPM[0])[1])
    (recording,) = whole(names["recordings"](tmp_path))
    assert (recording.person_id, len(list(recording.frames())), len(recording.ppg.values)) == ("ann", 60, 200)
    (tmp_path / "ann.txt").unlink()
    assert "ann.txt: missing; copy" in names["recordings"](tmp_path)[0].why


@pytest.mark.parametrize("name", ["ubfc_rppg_1", "ubfc_phys"])
def test_a_copy_in_another_container(tmp_path, name):
    getattr(dataset_files, name)(tmp_path, seconds=5)
    videos = sorted(tmp_path.rglob("*.avi"))
    for video in videos:
        video.rename(video.with_suffix(".mkv"))
    listed = registry.read(name, tmp_path)
    assert [recording.file.suffix for recording in listed] == [".mkv"] * len(videos)
    assert len(list(listed[0].frames())) > 100

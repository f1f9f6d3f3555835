from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from shared_files import REAL_PEOPLE, needs

from sspd_jax.datasets.readers import ubfc_rppg
from sspd_jax.datasets.recording import Broken
from sspd_jax.errors import UserError
from sspd_jax.simulation.sample_video import write_video

FRAMES = 90
TIMES = 2.0 + np.cumsum(np.tile([1 / 29, 1 / 31], FRAMES // 2))  # no 30 frames/s, and no start at 0
PPG = np.sin(2 * np.pi * 1.2 * TIMES)
RATE = np.full(FRAMES, 60.25)


def pictures(count):
    """Grey pictures that tell their number."""
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = np.full((48, 64, 3), 2 * i + 20, np.int16)
        yield np.clip(picture + rng.integers(-3, 4, picture.shape), 0, 255).astype(np.uint8)


def number(rgb):
    return round((rgb.mean() - 20) / 2)


def write_truth(folder, *lines):
    text = "\n".join(" ".join(f"{value:.7e}" for value in line) for line in lines)
    (folder / "ground_truth.txt").write_text(text + "\n")


def write_subject(folder: Path, count=FRAMES, lines=(PPG, RATE, TIMES), codec="rawvideo") -> Path:
    folder.mkdir(parents=True)
    write_video(folder / "vid.avi", pictures(count), np.arange(count) / 30, codec=codec)
    write_truth(folder, *lines)
    return folder


@pytest.fixture
def subject(tmp_path) -> Path:
    return write_subject(tmp_path / "subject1")


def refusal(source) -> str:
    """Return the sentence by which a source is refused, or by which its frames end."""
    with pytest.raises(UserError) as caught:
        for recording in ubfc_rppg.recordings(source):
            if isinstance(recording, Broken):
                raise UserError(recording.why)
            list(recording.frames())
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text  # … and the remedy
    return text


@pytest.mark.parametrize("inner", ["", "DATASET_2"])
def test_recordings_by_the_contract(tmp_path, inner):
    for name in ("subject10", "subject9", "subject1"):
        write_subject(tmp_path / inner / name)
    (tmp_path / inner / ".subject3.partial").mkdir()
    (tmp_path / inner / "notes.txt").touch()
    found = ubfc_rppg.recordings(tmp_path)
    assert [r.recording_id for r in found] == ["subject1", "subject9", "subject10"]
    assert [r.person_id for r in found] == ["subject1", "subject9", "subject10"]
    recording = found[1]
    assert recording.file == tmp_path / inner / "subject9" / "vid.avi"
    for _ in range(2):  # each call starts anew
        times, images = zip(*recording.frames(), strict=True)
        np.testing.assert_allclose(times, TIMES - TIMES[0], atol=1e-6)
        assert [number(image) for image in images] == list(range(FRAMES))
        assert images[0].shape == (48, 64, 3)
        assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(recording.ppg.times_s, times)
    np.testing.assert_allclose(recording.ppg.values, PPG, atol=1e-6)
    assert recording.meta["device_heart_rate"] == [60.25] * FRAMES
    assert recording.meta["notes"] == []
    assert recording.meta["dataset"] == "UBFC-rPPG DATASET_2"
    assert "simulation" not in recording.meta


def test_frames_are_lazy(subject, monkeypatch):
    (recording,) = ubfc_rppg.recordings(subject.parent)
    assert [number(rgb) for _, rgb in islice(recording.frames(), 3)] == [0, 1, 2]


@pytest.mark.parametrize(("count", "values"), [(FRAMES - 3, FRAMES), (FRAMES, FRAMES - 5)])
def test_the_shorter_counts_where_the_ends_differ(tmp_path, count, values):
    write_subject(tmp_path / "subject1", count, [line[:values] for line in (PPG, RATE, TIMES)])
    (recording,) = ubfc_rppg.recordings(tmp_path)
    used = min(count, values)
    assert len(list(recording.frames())) == used
    assert len(recording.ppg.values) == len(recording.meta["device_heart_rate"]) == used
    (note,) = recording.meta["notes"]
    assert f"{count} frames" in note
    assert f"{values} values" in note


def test_a_picture_that_cannot_be_decoded_shifts_no_other(tmp_path):
    folder = write_subject(tmp_path / "subject1", codec="mjpeg")
    video = folder / "vid.avi"
    data = bytearray(video.read_bytes())
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\xff\xd8\xff"]
    assert len(starts) == FRAMES
    data[starts[40] : starts[41] - 16] = bytes(starts[41] - 16 - starts[40])
    video.write_bytes(data)
    (recording,) = ubfc_rppg.recordings(tmp_path)
    seen = {round(t, 6): number(rgb) for t, rgb in recording.frames()}
    right = {round(float(t), 6): i for i, t in enumerate(recording.ppg.times_s)}
    assert len(seen) >= FRAMES - 2
    assert all(abs(right[t] - i) <= 1 for t, i in seen.items())
    assert right[max(seen)] == FRAMES - 1


def test_a_gap_in_the_heart_rate_line_is_kept(subject):
    write_truth(subject, PPG, np.where(np.arange(FRAMES) == 7, np.nan, RATE), TIMES)
    (recording,) = ubfc_rppg.recordings(subject.parent)
    assert recording.meta["device_heart_rate"][6:9] == [60.25, None, 60.25]


def test_no_dataset_says_where_to_get_one(tmp_path):
    for source, words in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "holds no folder subject1")):
        text = refusal(source)
        assert text.startswith(f"{source}: ")
        assert words in text
        assert "https://" in text
        assert "DATASET_2" in text
        assert "python -m sspd_jax simulate" in text


@pytest.mark.parametrize("name", ["vid.avi", "ground_truth.txt"])
def test_a_subject_without_one_of_its_files(subject, name):
    (subject / name).unlink()
    assert refusal(subject.parent).startswith(f"{subject / name}: missing")


def with_value(line, index, value):
    return [value if i == index else old for i, old in enumerate(line)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "0 lines"),
        ((PPG, RATE), "2 lines"),
        ((PPG, RATE, TIMES[:-10]), "90, 90, 80 values"),
        ((with_value(PPG, 4, np.inf), RATE, TIMES), "value 5 of the PPG line is inf"),
        ((PPG, RATE, with_value(TIMES, 4, np.inf)), "value 5 of the time line is inf"),
        ((PPG, RATE, with_value(TIMES, 4, TIMES[2])), "do not increase (value 5"),
        ((PPG, RATE, with_value(TIMES, 4, TIMES[3])), "do not increase (value 5"),
        ((PPG[:3], RATE[:3], TIMES[:3]), "3 frames only"),
    ],
)
def test_a_text_that_is_wrong(subject, lines, words):
    write_truth(subject, *lines)
    text = refusal(subject.parent)
    assert text.startswith(f"{subject / 'ground_truth.txt'}: ")
    assert words in text


@pytest.mark.parametrize(
    ("data", "words"), [(b"a b c\nd e f\n1 2 3\n", "no number"), (b"\xff\xfe\x00", "text")]
)
def test_a_text_that_is_none(subject, data, words):
    (subject / "ground_truth.txt").write_bytes(data)
    assert words in refusal(subject.parent)


@pytest.mark.parametrize("codec", ["rawvideo", "mjpeg", "libx264"])
def test_a_video_that_breaks_off(tmp_path, codec):
    video = write_subject(tmp_path / "subject1", codec=codec) / "vid.avi"
    data = video.read_bytes()
    movie = data.index(b"movi")
    video.write_bytes(data[: movie + (len(data) - movie) // 3])
    text = refusal(tmp_path)
    assert text.startswith(f"{video}: has ")
    assert "90 values" in text
    (found,) = ubfc_rppg.recordings(tmp_path)
    assert found == Broken("subject1", text)  # before a frame is asked for


def test_a_broken_subject_does_not_hide_the_others(tmp_path):
    for name in ("subject1", "subject2", "subject3"):
        write_subject(tmp_path / name)
    (tmp_path / "subject2" / "ground_truth.txt").unlink()
    first, second, third = ubfc_rppg.recordings(tmp_path)
    assert [r.recording_id for r in (first, second, third)] == ["subject1", "subject2", "subject3"]
    assert isinstance(second, Broken) and "ground_truth.txt: missing" in second.why
    assert len(list(third.frames())) == len(list(first.frames())) == FRAMES


def test_pictures_that_cannot_be_decoded_at_the_end(tmp_path):
    video = write_subject(tmp_path / "subject1", codec="mjpeg") / "vid.avi"
    data = bytearray(video.read_bytes())
    index, movie = data.rindex(b"idx1"), data.index(b"movi")
    starts = [i for i in range(movie, index) if data[i : i + 3] == b"\xff\xd8\xff"]
    for start, end in zip(starts[30:], [*starts[31:], index + 8], strict=True):
        data[start : end - 8] = bytes(end - 8 - start)
    video.write_bytes(data)
    (recording,) = ubfc_rppg.recordings(tmp_path)
    assert len(list(islice(recording.frames(), 20))) == 20
    assert "90 values" in refusal(tmp_path)


@pytest.mark.parametrize("count", [3, FRAMES + 200])
def test_a_video_of_another_length(tmp_path, count):
    folder = tmp_path / "subject1"
    folder.mkdir()
    write_video(
        folder / "vid.avi", (np.zeros((48, 64, 3), np.uint8),) * count, np.arange(count) / 30, codec="mjpeg"
    )
    write_truth(folder, PPG, RATE, TIMES)
    assert f"has {count} frames where ground_truth.txt has 90 values" in refusal(tmp_path)


def test_a_video_without_a_frame(subject):
    for data in (b"", b"no video\n" * 50, (subject / "vid.avi").read_bytes()[:300]):
        (subject / "vid.avi").write_bytes(data)
        text = refusal(subject.parent)
        assert text.startswith(f"{subject / 'vid.avi'}: ")
        assert "record" not in text  # the remedy is the dataset's, not the camera's


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".MKV", "libx264"), (".mov", "libx264")])
def test_a_copy_in_another_container(tmp_path, suffix, codec):
    folder = write_subject(tmp_path / "subject1")
    (folder / "vid.avi").unlink()
    made = folder / f"made{suffix.lower()}"
    write_video(made, pictures(FRAMES), np.arange(FRAMES) / 30, codec=codec)
    video = made.rename(folder / f"vid{suffix}")
    (recording,) = ubfc_rppg.recordings(tmp_path)
    assert recording.file == video
    times, images = zip(*recording.frames(), strict=True)
    np.testing.assert_allclose(times, TIMES - TIMES[0], atol=1e-6)
    assert [number(image) for image in images] == list(range(FRAMES))


def test_uneven_times_of_a_container_shift_no_picture(tmp_path):
    folder = write_subject(tmp_path / "subject1")
    (folder / "vid.avi").unlink()
    uneven_s = np.arange(FRAMES) / 30 + 0.4 * (np.arange(FRAMES) > 30)
    write_video(folder / "vid.mkv", pictures(FRAMES), uneven_s)
    (recording,) = ubfc_rppg.recordings(tmp_path)
    times, images = zip(*recording.frames(), strict=True)
    np.testing.assert_allclose(times, TIMES - TIMES[0], atol=1e-6)
    assert [number(image) for image in images] == list(range(FRAMES))


def test_the_owners_container_counts_beside_a_copy(subject):
    (subject / "vid.mp4").write_bytes(b"a copy")
    (recording,) = ubfc_rppg.recordings(subject.parent)
    assert recording.file == subject / "vid.avi"


def test_two_copies_and_no_original(subject):
    (subject / "vid.avi").rename(subject / "vid.mov")
    (subject / "vid.mkv").touch()
    assert "vid.mkv, vid.mov" in refusal(subject.parent)


LONG_S = np.arange(1200) / 30
LONG_PPG = np.sin(2 * np.pi * 2.1 * LONG_S)  # 126 bpm


def write_long(folder, rate, times_s=LONG_S):
    folder.mkdir(parents=True)
    grey = (np.zeros((16, 16, 3), np.uint8),) * len(LONG_S)
    write_video(folder / "vid.avi", grey, LONG_S, codec="mjpeg")
    write_truth(folder, LONG_PPG, rate, times_s)


def test_a_device_that_fails_gives_way_to_its_pulse_wave(tmp_path):
    failing = np.where(LONG_S < 20, 125.0, np.where(LONG_S < 30, 1.0, 127.0))
    write_long(tmp_path / "subject1", failing)
    write_long(tmp_path / "subject2", np.where(LONG_S < 5, 96.0, 125.0))  # it lags
    fails, lags = ubfc_rppg.recordings(tmp_path)
    assert fails.meta["device_heart_rate"] == list(failing)  # for the record
    np.testing.assert_allclose(fails.meta["heart_rate"], 126, atol=0.5)
    (note,) = fails.meta["heart_rate_notes"]
    assert "fails" in note and "1 to 127 bpm" in note and "pulse wave" in note
    assert lags.meta["heart_rate"] == lags.meta["device_heart_rate"]
    assert lags.meta["heart_rate_notes"] == []


def test_a_device_that_says_nothing(tmp_path):
    write_long(tmp_path / "subject1", np.full(len(LONG_S), np.nan))
    (recording,) = ubfc_rppg.recordings(tmp_path)
    np.testing.assert_allclose(recording.meta["heart_rate"], 126, atol=0.5)
    assert "not one number" in recording.meta["heart_rate_notes"][0]


def test_a_time_that_repeats_is_set_between_its_neighbours(tmp_path):
    times_s = LONG_S.copy()
    times_s[400], times_s[-1] = times_s[399], times_s[-2]
    write_long(tmp_path / "subject1", np.full(len(LONG_S), 126.0), times_s)
    (recording,) = ubfc_rppg.recordings(tmp_path)
    np.testing.assert_allclose(recording.ppg.times_s, LONG_S, atol=1e-3)
    assert "2 of 1200 times repeat" in recording.meta["notes"][0]


@needs(REAL_PEOPLE)
def test_real_people():
    found = ubfc_rppg.recordings(REAL_PEOPLE)
    assert not [r.why for r in found if isinstance(r, Broken)]
    fails = {r.person_id for r in found if r.meta["heart_rate_notes"]}
    assert fails == {"subject11", "subject20"} & {r.person_id for r in found}
    for recording in found:
        rates = np.array(recording.meta["heart_rate"])
        assert len(rates) == len(recording.ppg.values)
        assert rates.min() > 50 and rates.max() < 150

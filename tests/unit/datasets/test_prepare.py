import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import types
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from etils.epath import backend
from prepared_faces import FLAT, content, portrait, recording, three

from sspd_jax.cli import prepare as cli_prepare
from sspd_jax.datasets import prepare as command
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Ppg
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.simulation.sample_video import ppg, write_face_video
from sspd_jax.video import decode
from sspd_jax.video.face_stream import cut_face

HERE = Path(__file__).parents[2] / "support"
SHARD = "faces-recordings.array_record-{:05d}-of-00003"

prepare = partial(command.prepare, crop_size=64, skin=False, progress=False)


def in_another_process(code, *arguments, check=True, **settings):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, **settings)
    assert not check or done.returncode == 0, done.stderr
    return done


def one(r, folder, **settings):
    """Prepare one recording and open it."""
    prepare([r], folder / r.recording_id, **settings)
    return open_prepared(folder / r.recording_id)


# What comes out.


def test_video_files_come_out_as_the_shared_road_reads_them(tmp_path):
    path = tmp_path / "face.mp4"
    write_face_video(path, seconds=3, fps=25, bpm=90)
    beats = np.arange(3 * 64) / 64
    r = recording("a", frames=partial(decode.frames, path), ppg=Ppg(beats, ppg(beats, 90)))
    dataset = one(dataclasses.replace(r, file=path), tmp_path)
    (segment,) = dataset.segments
    ticks = [image for _, _, image in cut_face(decode.frames(path), path, size=64).on_clock(30)]
    assert segment.n_frames == len(ticks) == 89  # the last frame is at 2.96 s
    frames = dataset.clip(segment, 0, 89)
    np.testing.assert_array_equal(frames, np.rint(ticks).astype(np.uint8))
    wave = dataset.ppg(segment)
    expected = ppg(np.arange(89) / 30, 90)
    assert np.abs(wave - expected).max() < 0.12 and np.corrcoef(wave, expected)[0, 1] > 0.995


def test_a_pulse_wave_without_a_clock_is_a_fault_of_its_recording(tmp_path, capsys):
    bad = [
        recording("a", ppg=Ppg(np.arange(5.0), np.zeros(4))),
        recording("b", ppg=Ppg(np.array([0, 2, 1.0]), np.zeros(3))),
    ]
    with pytest.raises(UserError, match=r"2 of 2 recordings cannot be prepared \(a, b: see above\)"):
        prepare(bad, tmp_path / "out")
    said = capsys.readouterr().err
    assert "a: a.avi: the contact pulse wave has 4 values at 5 times" in said
    assert "b: b.avi: the times of the contact pulse wave do not increase" in said


# Again, and after a kill.

KILLED = """
import dataclasses, os, signal, sys
from prepared_faces import three
from sspd_jax.datasets.prepare import prepare

def killed(frames):
    for number, frame in enumerate(frames()):
        if number == 100:  # three chunks of 30 frames are written
            os.kill(os.getpid(), signal.SIGKILL)
        yield frame

first, second, third = three()
cut_off = dataclasses.replace(second, frames=lambda: killed(second.frames))
prepare([first, cut_off, third], sys.argv[1], crop_size=64, skin=False, progress=False)
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    done = in_another_process(KILLED, tmp_path / "killed", check=False)
    assert done.returncode == -signal.SIGKILL
    left = content(tmp_path / "killed")
    assert SHARD.format(0) in left and f".{SHARD.format(1)}.partial" in left
    assert SHARD.format(1) not in left and "index.json" not in left
    with pytest.raises(UserError, match="not finished"):
        open_prepared(tmp_path / "killed")

    def again():
        raise AssertionError("the first recording was finished")
        yield

    first, second, third = three()
    first = dataclasses.replace(first, frames=again)
    assert prepare([first, second, third], tmp_path / "killed").made == 2
    assert prepare(three(), tmp_path / "whole").made == 3
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_second_run_does_nothing(tmp_path):
    before = prepare(three(), tmp_path / "out")
    assert (before.recordings, before.people, before.made, before.seconds) == (3, 3, 3, 15.0)
    assert before.size_bytes == sum(len(v) for k, v in content(tmp_path / "out").items() if "-of-" in k)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    recordings = [dataclasses.replace(r, frames=None) for r in three()]  # not looked at
    assert prepare(recordings, tmp_path / "out") == dataclasses.replace(before, made=0)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == stamps


def test_other_settings_and_recordings_are_noticed(tmp_path):
    prepare(three(), tmp_path / "out")
    before = content(tmp_path / "out")
    for settings, said in [
        ({"fps": 25}, "fps 30.0, not 25.0"),
        ({"crop_size": 65}, "crop_size 64, not 65"),
        ({"resize": "area"}, "resize linear, not area"),
        ({"max_gap_s": 1.0}, "max_gap_s 0.5, not 1.0"),
        ({"name": "others"}, "dataset faces, not others"),
    ]:
        with pytest.raises(UserError, match=f"out: was prepared with {said}; choose another --data_dir"):
            prepare(three(), tmp_path / "out", **settings)
    with pytest.raises(UserError, match=r"from 3 recordings that are not these 2 .*difference: subject3\)"):
        prepare(three()[:2], tmp_path / "out")
    with pytest.raises(UserError, match="their order"):
        prepare(three()[::-1], tmp_path / "out")
    for changed in (
        recording("subject2", seconds=4, device_bpm=72),
        recording("subject2", seconds=5, device_bpm=80),
        recording("subject2", seconds=5, device_bpm=72, person="subject1"),
    ):
        with pytest.raises(UserError, match=r"subject2\.avi: is not the recording that .*00001-of-00003 was"):
            prepare([three()[0], changed, three()[2]], tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_place_can_be_asked_about_before_anything_is_written(tmp_path):
    settings = command.settings_of(crop_size=64, skin=False)

    def ask(path, recordings=(), **changes):
        wanted = dataclasses.replace(settings, **changes)
        command.require_place(path, "faces", wanted, list(recordings) or three())

    ask(tmp_path / "new")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="is no folder; make it"):
        ask(tmp_path / "nowhere" / "new")
    with pytest.raises(ConfigError, match="crop_size"):
        ask(tmp_path / "new", crop_size=0)
    (tmp_path / "empty").mkdir()
    ask(tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())
    prepare(three(), tmp_path / "out")
    before = content(tmp_path / "out")
    ask(tmp_path / "out")
    with pytest.raises(UserError, match=r"crop_size 64, not 65; choose another --data_dir"):
        ask(tmp_path / "out", crop_size=65)
    with pytest.raises(UserError, match="from 3 recordings that are not these 2"):
        ask(tmp_path / "out", three()[:2])
    assert content(tmp_path / "out") == before


def test_settings_are_what_they_are_called_after():
    values = {
        "fps": 25.0, "crop_size": 99, "resize": "area", "max_gap_s": 0.7, "face_search_s": 33.0,
        "face_detector": "yunet", "follow_every_s": 2.5, "skin": False, "face_crop": "skin",
    }  # fmt: skip
    found = command.settings_of(**values)
    assert {key: getattr(found, key) for key in values} == values
    plan = command._plan("faces", found, ["a", "b"])
    assert (plan["name"], plan["recordings"], plan["settings"]["fps"]) == ("faces", ["a", "b"], 25.0)


def test_two_at_once_do_not_meet(tmp_path):
    (tmp_path / "out").mkdir()
    holder = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is being prepared by another process; wait"):
            prepare(three(), tmp_path / "out")
    finally:
        os.close(holder)
    assert prepare(three(), tmp_path / "out").made == 3


# Recordings that cannot be prepared.


def broken(kind):
    """Return a recording and what is said of it."""

    def late():
        yield from islice(portrait(np.arange(90) / 30), 80)
        raise UserError("bad.avi: has 80 frames where its text has 90; copy it again")

    def lost():
        yield from islice(portrait(np.arange(90) / 30), 80)
        raise OSError(5, "Input/output error")

    frames, said = {
        "no face": (
            lambda: ((k / 30, FLAT) for k in range(60)),
            "bad.avi: no face found in any of its 2.0 s",
        ),
        "no frame": (lambda: iter(()), "bad.avi: no face found"),
        "one frame": (lambda: portrait([0.0]), "bad.avi: has fewer than 2 frames with a face"),
        "3 frames": (
            lambda: portrait(np.arange(3) / 30),
            "bad.avi: has no 1 s of unbroken video with a face",
        ),
        "truncated": (late, "bad.avi: has 80 frames where its text has 90; copy it again"),
        "bad disk": (lost, "bad.avi: [Errno 5] Input/output error; check that it plays, or copy it again"),
        "backwards": (
            lambda: portrait([0, 0.1, 0.05]),
            "bad.avi: time must increase, got 0.05 s after 0.1 s; check that it plays, or copy it again",
        ),
    }[kind]
    return recording("bad", frames=frames), said


@pytest.mark.parametrize(
    "kind", ["no face", "no frame", "one frame", "3 frames", "truncated", "bad disk", "backwards"]
)
def test_a_bad_recording_is_named_and_the_others_go_on(tmp_path, capsys, kind):
    bad, said = broken(kind)
    with pytest.raises(UserError) as error:
        prepare([recording("a"), bad, recording("c")], tmp_path / "out")
    assert str(error.value) == (
        "1 of 3 recordings cannot be prepared (bad: see above); mend them and run again, "
        "or leave them out by `python -m sspd_jax prepare … --keep_going`; 2 are done and stay"
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bad: {said}")
    assert sorted(content(tmp_path / "out")) == [
        SHARD.format(0), SHARD.format(2), "preparation.json", "recordings/a.json", "recordings/c.json"
    ]  # fmt: skip


def test_a_mended_recording_joins_the_others(tmp_path, capsys):
    bad, _ = broken("truncated")
    with pytest.raises(UserError):
        prepare([recording("a"), bad, recording("c")], tmp_path / "out")
    assert prepare([recording("a"), recording("bad"), recording("c")], tmp_path / "out").made == 1
    prepare([recording("a"), recording("bad"), recording("c")], tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_bad_recordings_are_left_out_on_request_and_not_tried_again(tmp_path, capsys):
    bad, said = broken("truncated")
    recordings = [recording("a"), bad, recording("c")]
    report = prepare(recordings, tmp_path / "out", keep_going=True)
    assert (report.recordings, report.made, list(report.left_out)) == (2, 2, ["bad"])
    assert said in capsys.readouterr().err
    dataset = open_prepared(tmp_path / "out")
    assert dataset.people == ("a", "c") and dataset.left_out == {"bad": said}
    tfds = pytest.importorskip("tensorflow_datasets")
    rows = tfds.builder_from_directory(tmp_path / "out").as_data_source(split="all")
    assert [row["person_id"] for row in rows] == [b"a"] * 3 + [b"c"] * 3
    never = dataclasses.replace(bad, frames=None)
    report = prepare([recordings[0], never, recordings[2]], tmp_path / "out")
    assert (report.made, report.left_out) == (0, {"bad": said})
    mended = recording("bad", mended=True)  # another recording than before
    report = prepare([recordings[0], mended, recordings[2]], tmp_path / "out")
    assert (report.recordings, report.made, report.left_out) == (3, 1, {})
    assert open_prepared(tmp_path / "out").people == ("a", "bad", "c")
    with pytest.raises(UserError, match="not one of the 1 recordings can be prepared"):
        prepare([bad], tmp_path / "none", keep_going=True)


def test_subjects_that_are_broken_on_disk_are_named_first_and_can_be_left_out(tmp_path, capsys):
    source, out = tmp_path / "raw", tmp_path / "out"
    for number in (1, 2, 3):
        folder = source / f"subject{number}"
        folder.mkdir(parents=True)
        write_face_video(folder / "vid.avi", seconds=2, bpm=70 + number)
        times = np.arange(60) / 30
        lines = (ppg(times, 70 + number), np.full(60, 70.0), times)
        text = "\n".join(" ".join(map(str, line)) for line in lines)
        (folder / "ground_truth.txt").write_text(text)
    truth = source / "subject1" / "ground_truth.txt"
    text = truth.read_text()
    truth.unlink()
    arguments = ["--dataset=ubfc_rppg", f"--source={source}", f"--data_dir={out}", "--crop_size=64"]
    arguments += ["--no_progress", "--workers=1"]
    assert cli_prepare.main(arguments) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"subject1: {truth}: missing;")
    assert last.startswith("error: 1 of 3 recordings") and "2 are done and stay" in last
    assert cli_prepare.main([*arguments, "--keep_going"]) == 1  # the exit code says that it is not all of it
    assert "2 recordings of 2 people" in capsys.readouterr().out
    assert open_prepared(out).people == ("subject2", "subject3")
    truth.write_text(text)  # mended
    assert cli_prepare.main(arguments) == 0
    assert "3 recordings of 3 people" in capsys.readouterr().out
    truth.unlink()  # what was prepared stays, whatever becomes of the raw files
    assert cli_prepare.main(arguments) == 0


# Where it is written.


def test_a_full_disk_keeps_what_was_finished(tmp_path):
    code = """
import resource, sys
from prepared_faces import three
from sspd_jax.cli.common import run
from sspd_jax.datasets.prepare import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, -1))  # the first shard fits, the second does not
sys.exit(run(lambda: prepare(three(), sys.argv[1], crop_size=64, skin=False, progress=False) and None))
"""
    done = in_another_process(code, tmp_path / "out", check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path / 'out' / SHARD.format(1)}: cannot be written (file too large); "
        "make room and run again: what is finished stays\n"
    )
    assert sorted(content(tmp_path / "out")) == [
        SHARD.format(0),
        "preparation.json",
        "recordings/subject1.json",
    ]
    assert prepare(three(), tmp_path / "out").made == 2
    prepare(three(), tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_disk_full_at_the_very_end_is_mended_by_running_again(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tensorflow_datasets.folder_dataset.write_metadata", full)
        with pytest.raises(UserError, match=r"out: cannot be written \(no space left on device\); make room"):
            prepare(three(), tmp_path / "out")
    assert prepare(three(), tmp_path / "out").made == 0
    assert open_prepared(tmp_path / "out").people == ("subject1", "subject2", "subject3")


def test_folders_below_where_one_works_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare([recording("ann", seconds=1)], "data/new/out").made == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out: .*choose another --data_dir"):
        prepare(three(), "file/out")


def test_folders_that_cannot_take_it_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"out: .*nowhere is no folder; make it, or choose another --data_dir"
    ):
        prepare(three(), tmp_path / "nowhere" / "out")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(UserError, match=r"choose another --data_dir"):
            prepare(three(), path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("")
    with pytest.raises(UserError, match=r"photos: holds other files \(cat\.png, …\); choose another"):
        prepare(three(), tmp_path / "photos")
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["file", "photos", "photos/cat.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"out: cannot be written \(permission denied\); choose another"):
        prepare(three(), tmp_path / "out")


def test_a_read_only_disk_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(backend.os_backend, "mkdir", refuse)
    with pytest.raises(UserError, match=r"out: cannot be written \(read-only file system\); choose another"):
        prepare(three(), tmp_path / "out")


def test_a_bucket_gets_the_same_files(tmp_path, bucket):
    assert prepare(three(), "gs://bucket/out").made == 3
    assert prepare(three(), "gs://bucket/out").made == 0
    prepare(three(), tmp_path / "out")
    there = {path.partition("bucket/out/")[2]: bucket[path].getvalue() for path in bucket}
    assert there == content(tmp_path / "out")
    assert open_prepared("gs://bucket/out").segments == open_prepared(tmp_path / "out").segments


# Wrong arguments, and the command.


def test_impossible_arguments_are_refused(tmp_path):
    for settings, said in [
        ({"fps": 0}, "fps 0 is not 6 to 1000"),
        ({"fps": float("nan")}, "fps nan is not 6 to 1000"),
        ({"crop_size": 0}, "crop_size 0 is not"),
        ({"resize": "cubic"}, "resize 'cubic' is none of"),
        ({"max_gap_s": 0}, "max_gap_s 0 is not above 0"),
        ({"name": "My-Faces"}, "dataset name 'My-Faces' is not"),
    ]:
        with pytest.raises(ConfigError, match=said):
            prepare(three(), tmp_path / "out", **settings)
    with pytest.raises(UserError, match="no recordings to prepare; check --source"):
        prepare([], tmp_path / "out")
    for ids in (["a", "a"], ["a/b"], [".."], [""]):
        with pytest.raises(ValueError, match="is not unique or no plain file name"):
            prepare([recording(i) for i in ids], tmp_path / "out")
    with pytest.raises(UserError, match=r"is longer than 200 bytes, .* give the recording a shorter name"):
        prepare([recording("é" * 101)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def by_hand(monkeypatch):
    """A reader that makes its recordings by hand."""

    def recordings(source):
        if source != "RAW":
            raise UserError(f"{source}: no such folder; give another --source")
        return three()

    monkeypatch.setitem(sys.modules, "by_hand", types.SimpleNamespace(recordings=recordings))
    monkeypatch.setitem(registry.READERS, "by_hand", "by_hand")


def test_the_command_prepares_with_a_progress_bar(tmp_path, by_hand, capsys):
    arguments = ["--dataset=by_hand", "--source=RAW", f"--data_dir={tmp_path / 'out'}", "--crop_size=64"]
    arguments += ["--workers=1", "--no_skin"]
    assert cli_prepare.main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.endswith("out: 3 recordings of 3 people, 0.2 min, 0.01 GB (3 new)\n")
    assert "preparing" in err and "3.0/3 recordings" in err and "left" in err
    assert open_prepared(tmp_path / "out", fps=30, crop_size=64).people[0] == "subject1"
    assert cli_prepare.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "(0 new)" in out and err == ""
    assert cli_prepare.main([*arguments, "--fps=25"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_the_command_says_in_a_sentence_what_is_wrong(tmp_path, by_hand, capsys):
    target = f"--data_dir={tmp_path / 'out'}"
    assert cli_prepare.main(["--dataset=by_hand", "--source=GONE", target]) == 1
    assert capsys.readouterr().err == "error: GONE: no such folder; give another --source\n"
    assert cli_prepare.main(["--dataset=by_hand", "--source=RAW", target, "--fps=1"]) == 2
    assert cli_prepare.main(["--dataset=purer", "--source=RAW", target]) == 2
    with pytest.raises(SystemExit) as exit_:
        cli_prepare.main(["--source=RAW"])
    assert exit_.value.code == 2
    with pytest.raises(ConfigError, match="dataset 'purer' is none of"):
        command.prepare_dataset("purer", "RAW", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Large.

LARGE = """
import sys
from pathlib import Path
import numpy as np
from prepared_faces import recording, portrait
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare

def peak_kib():  # not getrusage's: that one begins with the peak of the process that started this one
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1])

def frames():
    still = next(portrait([0.0]))[1]
    for number in range(6000):
        yield number / 30, np.roll(still, (number // 7 % 5, number % 9), (0, 1))

recordings = [recording(f"subject{n}", frames=frames, seconds=200, person=f"person{n}") for n in range(3)]
base = peak_kib()
report = prepare(recordings, sys.argv[1], skin=False, progress=False)
dataset = open_prepared(sys.argv[1])
for segment in dataset.segments:
    for start in (0, 2999, 5699):
        assert len(dataset.clip(segment, start, 301)) == 301
assert "tensorflow" not in sys.modules
peak = peak_kib()
print(report.size_bytes, round((peak - base) / 1024), round(peak / 1024))
"""


@pytest.mark.slow
def test_more_than_a_gigabyte_is_prepared_without_tensorflow_in_bounded_memory(tmp_path):
    done = in_another_process(LARGE, tmp_path / "out", timeout=240)
    size, grown_mib, peak_mib = map(int, done.stdout.split())
    print(f"{size / 1e9:.2f} GB prepared; peak memory {peak_mib} MiB, {grown_mib} MiB of them for the work")
    assert size > 1.1e9
    # A chunk of 30 frames is 2 MiB, a clip 20 MiB: what is held does not grow with 410 MB recordings.
    assert grown_mib < 150
    tfds = pytest.importorskip("tensorflow_datasets")
    rows = tfds.builder_from_directory(tmp_path / "out").as_data_source(split="all")
    assert len(rows) == 600 and rows[599]["start"] == 5970 and len(rows[599]["frames"]) == 30
    for path in (tmp_path / "out").glob("*-of-*"):
        path.unlink()  # pytest keeps the folders of its last runs

"""Several recordings at once, and on Apache Beam: the same bytes, and what goes wrong is said alike."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prepared_faces import FLAT, content, portrait, recording, three

from sspd_jax.cli import prepare as cli_prepare
from sspd_jax.datasets import prepare as command
from sspd_jax.datasets import workers
from sspd_jax.datasets.readers import registry
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.simulation import sample_video
from sspd_jax.video import decode

HERE = Path(__file__).parents[2] / "support"

prepare = functools.partial(command.prepare, crop_size=64, skin=False, progress=False)


def faces(folder, count, seconds=2):
    """Write a folder of videos, one of them without a face."""
    folder.mkdir()
    for number in range(count):
        sample_video.write_face_video(folder / f"p{number}.mp4", seconds=seconds, bpm=60 + 10 * number)
    sample_video.write_video(folder / "wall.mp4", [FLAT] * 40, np.arange(40) / 30, codec="libx264")
    return folder


def arguments(source, out, *more):
    return ["--dataset=folder", f"--source={source}", f"--data_dir={out}", "--crop_size=64", *more]


def test_two_at_once_write_what_one_writes_and_say_what_one_says(tmp_path, capsys):
    source = faces(tmp_path / "raw", 3)
    said = {}
    for count in (1, 2):
        out = tmp_path / str(count)
        assert cli_prepare.main(arguments(source, out, f"--workers={count}")) == 1
        first = capsys.readouterr()
        assert "error: 1 of 4 recordings cannot be prepared (wall: see above)" in first.err
        assert "index.json" not in content(out)
        assert cli_prepare.main(arguments(source, out, f"--workers={count}", "--keep_going")) == 1
        second = capsys.readouterr()
        assert (
            second.out.startswith(f"{out}: 3 recordings of 3 people")
            and "(0 new, without wall)" in second.out
        )
        assert "4.0/4 recordings" in first.err and "left" in first.err
        said[count] = [line for line in (first.err + second.err).splitlines() if line.startswith("wall: ")]
    assert len(said[1]) == 2 and said[1] == said[2]
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_how_many_there_are(monkeypatch):
    assert workers.worker_count(3, 100) == 3
    assert workers.worker_count(30, 4) == 4
    assert workers.worker_count(5, 0) == 1
    assert 1 <= workers.worker_count(0, 100) <= 8
    for cores, here in ((3, 3), (12, 8)):
        monkeypatch.setattr(workers, "_cores", lambda cores=cores: cores)
        assert workers.worker_count(0, 100) == here and workers.worker_count(20, 100) == 20
    # Of twelve cores: four at most for one, and never none.
    assert [workers.decoder_threads(count) for count in (1, 3, 5, 12, 20)] == [4, 4, 2, 1, 1]
    with pytest.raises(ConfigError, match=r"workers -1 is not 0 \(one for each core\) or more"):
        workers.worker_count(-1, 4)


def test_a_worker_has_the_settings_of_the_one_who_asks_and_says_how_far_it_is(monkeypatch, tmp_path):
    settings = command.settings_of(face_detector="yunet", skin=False)
    threads, jobs = [], []
    monkeypatch.setattr(workers.cv2, "setNumThreads", threads.append)
    monkeypatch.setattr(workers.decode, "use_threads", threads.append)
    monkeypatch.setattr(workers, "make_detector", lambda *args: args)
    monkeypatch.setattr(workers, "_shared", None, raising=False)
    monkeypatch.setattr(workers, "_detector", None, raising=False)
    monkeypatch.setattr(workers, "fraction_done", lambda recording: lambda time_s: time_s / 10)

    def build(job, settings, detector, on_progress):
        jobs.append((job.recording_id, settings, detector))
        on_progress(4.0)
        return "what came of it"

    monkeypatch.setattr(workers.preparation, "build", build)
    parts = np.zeros(3)
    workers._begin(workers._Shared(parts, settings, "model.onnx", 2))
    job = workers.preparation.Job(recording("ann"), command.epath.Path(tmp_path), "shard")
    assert workers._build(1, workers._packed(job)) == "what came of it"
    assert jobs == [("ann", settings, ("yunet", "model.onnx"))]
    assert parts.tolist() == [0, 0.4, 0] and threads == [2, 2]


def test_a_recording_that_cannot_travel_is_refused(tmp_path):
    first = three()[0]
    stays = dataclasses.replace(first, frames=lambda: first.frames())
    with pytest.raises(
        ConfigError, match=r"subject1: cannot be sent to another process .*functools\.partial"
    ):
        prepare([stays, *three()[1:]], tmp_path / "out", workers=2)
    assert prepare(three(), tmp_path / "out").made == 3


def test_the_number_of_threads_changes_nothing(tmp_path):
    path = tmp_path / "a.mp4"
    sample_video.write_face_video(path, seconds=1, bpm=70)
    frames = []
    try:
        for count in (0, 1, 3):
            decode.use_threads(count)
            frames.append([rgb for _, rgb in decode.frames(path)])
    finally:
        decode.use_threads(0)
    assert len(frames[0]) == 30
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


# What is killed. The functions travel to the workers by their names.


def killed(times_s, shade, once):
    """Kill the process that reads, the first time."""
    for number, frame in enumerate(portrait(times_s, shade)):
        if number == 70 and not once.exists():
            once.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        yield frame


def waiting(times_s, shade, here):
    """Say which process reads, and wait."""
    for number, frame in enumerate(portrait(times_s, shade)):
        if number == 70:
            here.with_name(f"{here.name}.{os.getpid()}").write_text("")
            time.sleep(600)
        yield frame


def several(second=None):
    """Return four recordings of 3 s that travel; `second` reads the second one."""
    made = [recording(f"s{n}", shade=n) for n in range(4)]
    if second is not None:
        made[1] = dataclasses.replace(made[1], frames=functools.partial(second, np.arange(90) / 30, 1))
    return made


@pytest.mark.slow
def test_a_worker_that_is_killed_is_said_and_the_rest_is_done_by_running_again(tmp_path):
    mortal = functools.partial(killed, once=tmp_path / "once")
    with pytest.raises(UserError, match=r"a worker process was killed, .* run again with fewer --workers"):
        prepare(several(mortal), tmp_path / "out", workers=2)
    assert "index.json" not in content(tmp_path / "out")
    report = prepare(several(mortal), tmp_path / "out", workers=2)
    assert report.recordings == 4 and report.made >= 1
    prepare(several(), tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


STARTED = """
import functools, sys
from pathlib import Path
import test_workers as this
from sspd_jax.cli.common import run

if __name__ == "__main__":
    slow = functools.partial(this.waiting, here=Path(sys.argv[2]))
    sys.exit(run(lambda: this.prepare(this.several(slow), sys.argv[1], workers=2) and None))
"""


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, blow):
    script = tmp_path / "start.py"
    script.write_text(STARTED)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{Path(__file__).parent}:{HERE.parents[1]}"}
    run = [sys.executable, str(script), str(tmp_path / "out"), str(tmp_path / "here")]
    with subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, text=True) as started:
        try:
            until(lambda: list(tmp_path.glob("here.*")) and len(list(tmp_path.glob("out/recordings/*"))) == 3)
            (mark,) = tmp_path.glob("here.*")
            worker = int(mark.suffix[1:])
            assert worker != started.pid and alive(worker)
            started.send_signal(blow)
            started.wait(30)
        finally:
            started.kill()
    assert started.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL)
    until(lambda: not alive(worker))
    assert ".faces-recordings.array_record-00001-of-00004.partial" in content(tmp_path / "out")
    assert prepare(several(), tmp_path / "out", workers=2).made == 1
    prepare(several(), tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def until(it_is, seconds=60):
    end = time.monotonic() + seconds
    while not it_is():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Apache Beam.


def test_without_beam_its_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    source = faces(tmp_path / "raw", 1)
    for name in [name for name in sys.modules if name.startswith("apache_beam")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "sspd_jax.datasets.beam", raising=False)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert cli_prepare.main(arguments(source, tmp_path / "out", "--no_progress", "--runner=beam")) == 2
    said = capsys.readouterr().err
    assert said == "error: Apache Beam is not installed; run `pip install sspd_jax[beam]`\n"
    assert cli_prepare.main(arguments(source, tmp_path / "out", "--beam_options=--runner=X")) == 2
    assert "--beam_options are for --runner=beam" in capsys.readouterr().err


def by_beam(source, out, *more):
    """Run the command with Beam in a process of its own."""
    words = [sys.executable, "-m", "sspd_jax", "prepare", *arguments(source, out, "--runner=beam", *more)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_beam_writes_what_the_command_writes_without_it(tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam (the extra `beam`) is not installed")
    source = faces(tmp_path / "raw", 3)
    done = by_beam(source, tmp_path / "beam")
    assert done.returncode == 1, done.stderr
    assert "error: 1 of 4 recordings cannot be prepared (wall: see above)" in done.stderr
    names = set(content(tmp_path / "beam"))
    assert "index.json" not in names and "recordings/wall.json" not in names and "recordings/p0.json" in names
    done = by_beam(source, tmp_path / "beam", "--keep_going")
    assert done.returncode == 1 and "(0 new, without wall)" in done.stdout, done.stderr
    command.prepare(
        registry.read("folder", source), tmp_path / "plain", name="folder", crop_size=64, keep_going=True
    )
    assert content(tmp_path / "beam") == content(tmp_path / "plain")
    (source / "wall.mp4").unlink()
    done = by_beam(source, tmp_path / "other", "--beam_options=--direct_num_workers=2 --job_name=faces")
    assert done.returncode == 0 and "3 recordings of 3 people" in done.stdout, done.stderr
    done = by_beam(source, tmp_path / "third", "--beam_options=--runner=NoSuchRunner")
    assert done.returncode == 1 and "error: the pipeline failed" in done.stderr, done.stderr


@pytest.mark.slow
def test_two_at_once_read_the_network_as_one_does(tmp_path):
    people = [recording(name, np.arange(90) / 20, ppg=False) for name in ("ann", "bob")]
    for count in (1, 2):
        prepare(people, tmp_path / str(count), crop_size=16, skin=True, workers=count)
    one, two = (content(tmp_path / str(count)) for count in (1, 2))
    assert len(np.load(tmp_path / "1/skin/ann.network.npz")["values"]) > 120
    assert one == two

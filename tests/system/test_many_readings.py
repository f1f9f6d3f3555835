"""A hundred readings side by side, in a pool, threads and the example server: one number, flat memory."""

import http.client
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import dataset_files
import pytest

import sspd_jax
from sspd_jax.simulation import sample_video

ROOT = Path(__file__).parents[2]
ROUNDS, EACH = 4, (10, 8, 8)  # readings of a round: by the pool, the threads, the server
MOST_GROWTH_MB = 60  # over 78 readings: what each would leave behind is more
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def memory_mb(pid):
    """Memory of a process and of all that it started."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0.0
    own = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += task.read_text().split()
    return own / 1024 + sum(memory_mb(child) for child in children)


WORKER = """
import sspd_jax

def read(path):
    prediction = sspd_jax.read(path, method="pos")
    return prediction.heart_rate_bpm, prediction.confidence
"""


def read(path, **options):
    prediction = sspd_jax.read(path, **{"method": "pos", **options})
    return prediction.heart_rate_bpm, prediction.confidence


def ask(port, data):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/", data)
    answer = connection.getresponse()
    table = json.loads(answer.read())
    assert answer.status == 200, table
    return table["heart_rate_bpm"], table["confidence"]


@pytest.fixture
def face(tmp_path):
    path = tmp_path / "face.mp4"
    frames = dataset_files.pictures(30, 6, 72.0)
    sample_video.write_video(path, frames, [number / 30 for number in range(len(frames))])
    return path


@pytest.fixture
def server():
    command = [sys.executable, ROOT / "examples" / "server.py", "--port=0", "--workers=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        yield int(run.stdout.readline().strip().rstrip("/").rpartition(":")[2]), run.pid
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0


@pytest.fixture
def read_elsewhere(tmp_path, monkeypatch):
    """The function that a pool calls, in a file of its own, as each process imports it."""
    (tmp_path / "reading_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    specification = importlib.util.spec_from_file_location("reading_worker", tmp_path / "reading_worker.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "reading_worker", module)
    specification.loader.exec_module(module)
    return module.read


@pytest.mark.slow
@needs_proc
def test_a_hundred_readings_side_by_side_are_one_number_in_flat_memory(face, server, read_elsewhere):
    port, pid = server
    expected, data = read(face), face.read_bytes()
    assert expected[0] == pytest.approx(72, abs=2)
    found, memory = [], []
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(2, context) as pool,
        ThreadPoolExecutor(4) as threads,
        ThreadPoolExecutor(2) as asking,
    ):
        for _ in range(ROUNDS):
            waiting = [pool.submit(read_elsewhere, str(face)) for _ in range(EACH[0])]
            waiting += [threads.submit(read, face) for _ in range(EACH[1])]
            waiting += [asking.submit(ask, port, data) for _ in range(EACH[2])]
            found += [one.result(300) for one in waiting]
            memory.append((memory_mb(os.getpid()) - memory_mb(pid), memory_mb(pid)))
    assert len(found) >= 100
    # The answer of the server went through JSON, which keeps every digit.
    assert set(found) == {expected}
    for before, after in zip(memory[0], memory[-1], strict=True):
        assert after - before < MOST_GROWTH_MB, memory


@pytest.mark.slow
def test_four_threads_share_a_network_and_read_as_one(face):
    network = sspd_jax.load(ROOT / "data" / "simulated_faces")
    options = {"method": "sspd", "checkpoint": network}
    expected = read(face, **options)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: read(face, **options), range(12))) == {expected}

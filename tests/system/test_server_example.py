"""The example of a server: readings, sentences for what is no video, and an end when it is asked to."""

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from sspd_jax.simulation import sample_video

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def port():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "examples" / "server.py", "--port=0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        yield int(run.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 0


def post(port, data):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/", data)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.slow
def test_uploads_are_read_side_by_side_and_what_is_no_video_gets_a_sentence(port, tmp_path):
    path = tmp_path / "face.mp4"
    sample_video.write_face_video(path, seconds=11, bpm=72)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda data: post(port, data), [path.read_bytes()] * 4 + [b"no video"]))
    assert [status for status, _ in answers] == [200] * 4 + [422]
    rates = {table["heart_rate_bpm"] for _, table in answers[:4]}
    assert len(rates) == 1 and rates.pop() == pytest.approx(72, abs=2)
    assert "not a video" in answers[-1][1]["error"] and "/" not in answers[-1][1]["error"]
    assert post(port, b"")[0] == 413


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind", "status"), [("GET", "text/plain", 405), ("POST", "multipart/form-data", 415)]
)
def test_another_way_of_asking_is_told_the_right_one(port, method, kind, status):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, "/", None if method == "GET" else b"--x", {"Content-Type": kind})
    answer = connection.getresponse()
    assert answer.status == status and "curl --data-binary" in json.loads(answer.read())["error"]


@contextlib.contextmanager
def lent(tmp_path, *changes):
    """Import the example from a copy, in which something may be changed; a worker imports it from there."""
    text = (ROOT / "examples" / "server.py").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "server_example.py").write_text(text)
    specification = importlib.util.spec_from_file_location("server_example", tmp_path / "server_example.py")
    example = importlib.util.module_from_spec(specification)
    sys.modules["server_example"] = example
    sys.path.insert(0, str(tmp_path))
    specification.loader.exec_module(example)
    workers = example.Workers(1)
    try:
        yield workers
    finally:
        workers.close()
        sys.path.remove(str(tmp_path))
        del sys.modules["server_example"]


@pytest.mark.slow
def test_workers_that_died_are_replaced(tmp_path):
    path = tmp_path / "face.mp4"
    sample_video.write_face_video(path, seconds=11, bpm=72)
    with lent(tmp_path) as workers:
        assert workers.read(str(path))["heart_rate_bpm"] == pytest.approx(72, abs=2)
        for worker in workers._pool._processes.values():
            worker.kill()
        with pytest.raises(BrokenProcessPool):
            workers.read(str(path))
        assert workers.read(str(path))["heart_rate_bpm"] == pytest.approx(72, abs=2)


@pytest.mark.slow
def test_a_reading_without_end_frees_its_worker(tmp_path):
    reading = 'sspd_jax.read(path, method="pos")'
    endless = f'__import__("time").sleep(10_000) if "endless" in path else {reading}'
    path = tmp_path / "face.mp4"
    sample_video.write_face_video(path, seconds=11, bpm=72)
    with lent(
        tmp_path, (reading, endless), ("alarm(MOST", 'alarm(1 if "endless" in path else MOST')
    ) as workers:
        with pytest.raises(BrokenProcessPool):
            workers.read("endless.mp4")
        assert workers.read(str(path))["heart_rate_bpm"] == pytest.approx(72, abs=2)


def form(name, filename, content, boundary="line"):
    """Return a form with one field, as browsers send it, and its kind."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
    head += f'; filename="{filename}"\r\n\r\n' if filename else "\r\n\r\n"
    return (
        head.encode() + content + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


@pytest.fixture(scope="module")
def starlette_port(free_port):
    command = [sys.executable, "-m", "uvicorn", f"--app-dir={ROOT / 'examples'}", "server_starlette:app"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, f"--port={free_port}"], env=environment, stderr=subprocess.PIPE, text=True
    ) as run:
        for line in run.stderr:
            if "Uvicorn running" in line:
                break
        yield free_port
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)


@pytest.fixture(scope="module")
def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_starlette_reads_a_form_and_says_what_is_none(starlette_port, tmp_path):
    path = tmp_path / "face.mp4"
    sample_video.write_face_video(path, seconds=5, bpm=72)

    def send(data, kind):
        connection = http.client.HTTPConnection("127.0.0.1", starlette_port, timeout=120)
        with contextlib.closing(connection):
            connection.request("POST", "/", data, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    status, table = send(*form("video", "my face.mp4", path.read_bytes()))
    assert status == 200 and set(table) == {"heart_rate_bpm", "interval_bpm", "confidence", "why"}
    assert table["heart_rate_bpm"] is None or table["heart_rate_bpm"] == pytest.approx(72, abs=3)
    assert (table["why"] == "") == (table["heart_rate_bpm"] is not None)
    status, table = send(*form("video", "notes.txt", b"no video"))
    assert status == 422 and table["error"].startswith("notes.txt: not a video")
    for other in (form("video", "", b"text"), (b"bytes", "application/x-www-form-urlencoded")):
        status, table = send(*other)
        assert status == 415 and "curl --form" in table["error"]

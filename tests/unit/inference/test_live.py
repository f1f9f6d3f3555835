"""Live: a wave that streams as if read at once, feeds that do not lag, bounded memory, page, command."""

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import small_training

from sspd_jax.checkpoints import host_network
from sspd_jax.cli import live as cli_live
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import live, model, server, site, windows
from sspd_jax.inference.windows import Settings, Window
from sspd_jax.method import architecture
from sspd_jax.method.network import init_variables
from sspd_jax.simulation import sample_video
from sspd_jax.video import camera, face_stream, face_track, resample
from sspd_jax.video.face_detection import FaceBox
from sspd_jax.video.skin_box import SkinBox

# The networks here compile longer than they run.
pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[3]
WEB_PAGE = ROOT / "sspd_jax" / "inference" / "web_page"
BOX = FaceBox(50, 40, 110, 100)


@pytest.fixture(scope="module")
def network():
    """A small network, every weight and statistic of it random, as trained ones are."""
    settings = small_training.network()
    rng = np.random.default_rng(0)
    params, batch_stats = (
        jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, 0.5, x.shape).astype(np.float32), tree)
        for tree in init_variables(settings, jax.random.key(3))
    )
    # As a checkpoint gives them: bound to a device.
    params, batch_stats = jax.device_put((params, batch_stats), jax.devices()[0])
    return model.RppgModel(
        settings, params, batch_stats, fps=30.0, crop_size=small_training.CROP, name="small"
    )


@pytest.fixture(scope="module")
def film():
    """Twelve seconds of a face at 84 bpm, 30 Hz."""
    times_s = np.arange(360) / 30
    return list(zip(times_s.tolist(), sample_video.face_frames(times_s, 84, 0), strict=True))


def noise(seconds, fps=10, seed=0, start_s=0.0):
    """Small pictures of nothing."""
    rng = np.random.default_rng(seed)
    for number in range(round(seconds * fps)):
        yield start_s + number / fps, rng.integers(80, 120, (120, 160, 3), np.uint8)


@pytest.fixture
def seen(monkeypatch):
    """A detector that sees a face as long as `seen[0]` says so."""
    there = [True]

    class Detector:
        def detect_all(self, rgb):
            return [BOX] if there[0] else []

    monkeypatch.setattr(live, "HaarDetector", Detector)
    monkeypatch.setattr(face_track, "HaarDetector", Detector)
    monkeypatch.setattr(live, "load_networks", lambda: (None, ""))
    return there


# A network's wave, as its images come.


@pytest.mark.parametrize(
    ("step", "images"),
    [
        (30, 47),
        (30, 165),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((2, 61), (30, 46), (64, 210))),
    ],
)
def test_a_stream_gives_the_wave_of_the_whole(network, step, images):
    network = small_training.in_form(network, "matmul")
    rng = np.random.default_rng(step)
    clip = rng.integers(0, 256, (images, 26, 26, 3), np.uint8)
    stream = network.stream(step)
    parts, at = [], 0
    while at < images:
        until = at + int(rng.integers(1, 40))
        # A resampled image is float32.
        parts.append(stream.push(clip[at:until].astype(np.float32) if at % 2 else clip[at:until]))
        at = until
    wave = np.concatenate(parts)
    whole = small_training.one_pass(network, clip)
    assert stream.lag == network.network.receptive_halo - 1 == 7
    assert len(wave) == max(0, (images - 1) // step * step - stream.lag)
    # Rounding: two forms of one pass differ by 1.2e-5 here, two programs of this form by 2.3e-6.
    np.testing.assert_allclose(wave, whole[: len(wave)], rtol=0, atol=5e-6 * np.abs(whole).max())


def test_a_stream_compiles_once_and_holds_one_step(network):
    stream = network.stream(26)
    before = model._compiled_step()._cache_size()
    held = sum(x.size for x in stream._state)
    for image in np.zeros((300, 26, 26, 3), np.uint8):
        stream.push([image])
        assert len(stream._images) <= 26
        assert sum(x.size for x in stream._state) == held
    assert model._compiled_step()._cache_size() - before == 1


@pytest.mark.parametrize("step", [0, -2, 7])
def test_a_stream_refuses_a_step_that_is_not_even(network, step):
    with pytest.raises(ValueError, match="even"):
        network.stream(step)


@pytest.mark.slow
def test_watching_with_a_network_shows_its_wave(network, film):
    clip = face_stream.cut_face(iter(film), Path("film"), size=network.crop_size, follow=True)
    whole = network.infer_stream(image for _, _, image in clip.on_clock(30))
    settings = Settings(window_s=5, region="crop")
    updates = list(live.watch(iter(film), 30, model=network, method="sspd", settings=settings))
    judged = [u for u in updates if u.window.duration_s == 5]
    assert len(judged) == 7  # up to sample 150, 180 … 330, or a few more
    for update in judged:
        first = round((update.wave.start_s - 0.5 / 30) * 30)
        assert update.window.start_s == pytest.approx(first / 30)
        expected = whole[first : first + 150]
        values = update.wave.values * np.sign(update.wave.values @ expected)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5 * np.abs(whole).max())
        # The clock waits for the next frame, the wave for 7 differences and half of its own.
        assert update.time_s - update.wave.times_s[-1] == pytest.approx(8.5 / 30, abs=1.01 / 30)
        assert 7 / 30 < update.latency_s < 5
    signs = {
        np.sign(np.corrcoef(u.wave.values, whole[round(u.window.start_s * 30) :][:150])[0, 1]) for u in judged
    }
    assert len(signs) == 1  # the shown wave does not turn over


# Watching.


def test_a_simulated_face_is_read(film):
    settings = Settings(window_s=8, min_confidence=0.3, network=False)
    updates = list(live.watch(iter(film), 30, settings=settings))
    assert len(updates) == 13  # the face is found, then one a second
    for update in updates[:8]:
        assert update.window.heart_rate_bpm is None and "of 8 s" in update.window.why
    for number, update in enumerate(updates[8:]):
        assert update.window.heart_rate_bpm == pytest.approx(84, abs=2)
        assert update.window.start_s == pytest.approx(number)
        assert len(update.wave.values) == 240 and update.wave.start_s == update.window.start_s
        assert update.fps == pytest.approx(30)
        assert 0 < update.latency_s < 5
        box = update.face_box
        assert 0 <= box.left < 128 < box.right <= 256 and 0 <= box.top < 128 < box.bottom <= 256
        json.dumps(live.as_json(update), allow_nan=False)
    # It rises when blood darkens the skin.
    truth = sample_video.ppg(updates[-1].wave.times_s, 84)
    assert np.corrcoef(updates[-1].wave.values, truth)[0, 1] > 0.8


def test_the_shipped_network_is_asked_beside_the_others(film):
    settings = Settings(window_s=8, min_confidence=0.3)
    updates = list(live.watch(iter(film[:330]), 30, settings=settings))
    judged = [update for update in updates if update.window.duration_s == 8]
    assert len(judged) == 3
    shipped = host_network.shipped()
    lag_s = architecture.lag(shipped.layers) / 30
    for update in judged:
        assert update.window.estimates_bpm["sspd"] == pytest.approx(84, abs=2)
        assert update.window.heart_rate_bpm == pytest.approx(84, abs=2)
        # The window ends with the network's wave; the clock waits for the next frame.
        wait_s = update.time_s - update.wave.times_s[-1]
        assert wait_s == pytest.approx(lag_s + 1.5 / 30, abs=1.01 / 30)
    settings = Settings(window_s=5, min_confidence=0.3, network=False)
    without = list(live.watch(iter(film[:160]), 30, settings=settings))
    assert "sspd" not in without[-1].window.estimates_bpm


def test_updates_can_come_less_often(seen):
    times = [u.time_s for u in live.watch(noise(12), 10, every_s=3, settings=Settings(window_s=4))]
    assert np.round(np.diff(times), 1).tolist() == pytest.approx([3, 3, 3, 3], abs=0.35)


def test_a_face_that_is_lost_begins_the_window_anew(seen):
    def frames():
        for time_s, rgb in noise(24):
            seen[0] = 2 <= time_s < 9 or time_s >= 15
            yield time_s, rgb

    updates = list(live.watch(frames(), 10, settings=Settings(window_s=4)))
    waits = [u for u in updates if u.window.why == live.NO_FACE_YET]
    assert [round(u.time_s) for u in waits] == [0, 1]
    found = updates[len(waits)]
    assert found.face_box is not None and found.time_s == pytest.approx(2)
    assert found.window.why == "watched for 0 of 4 s"
    gone = [u for u in updates if u.window.why == windows.OUT_OF_VIEW and u.face_box is None]
    assert [round(u.time_s) for u in gone] == [12, 13, 14]
    assert all(len(u.wave.values) == 0 and u.window.heart_rate_bpm is None for u in gone)
    anew = [u for u in updates if u.time_s >= 15 and "anew" in u.window.why]
    assert anew[0].window.why == "watched for 0 of 4 s, anew since the face was out of view"
    assert anew[0].time_s == pytest.approx(15, abs=0.15)
    full = [u for u in updates if u.window.duration_s == 4]
    assert [round(u.time_s) for u in full if u.time_s > 14] == [19, 20, 21, 22, 23, 24]
    assert all(u.window.start_s >= 15 for u in full if u.time_s > 14)


def test_a_gap_in_time_begins_the_window_anew(seen):
    frames = itertools.chain(noise(6), noise(6, start_s=8))
    updates = list(live.watch(frames, 10, settings=Settings(window_s=4)))
    anew = [u for u in updates if "anew" in u.window.why]
    assert anew and {u.window.why.split(", ")[1] for u in anew} == {"anew since a gap in time"}
    assert all(u.window.start_s >= 8 for u in updates if u.time_s > 8.1)
    assert updates[-1].window.duration_s == 4


def test_dropped_frames_are_said(seen):
    class Slow(camera.Feed):
        def __next__(self):
            time_s, rgb = next(self._source)
            self.dropped, self.arrived_s = 20 * (time_s > 6), time.monotonic() - 0.7
            return time_s, rgb

    quick = Slow(itertools.chain(noise(6), noise(3, start_s=8)), 10, "quick", speed=4)
    *_, last = live.watch(quick, 10, settings=Settings(window_s=4))
    assert "--speed=4 is more than this computer can follow" in last.window.why
    feed = Slow(itertools.chain(noise(6), noise(3, start_s=8)), 10, "slow")
    updates = list(live.watch(feed, 10, settings=Settings(window_s=4)))
    assert live.TOO_SLOW in updates[-1].window.why
    assert updates[-1].dropped == 20
    assert all(0.7 < u.latency_s < 5 for u in updates)
    assert "20 frames dropped" in live.describe(updates[-1])


def test_memory_does_not_grow(seen, network):
    settings = Settings(window_s=4)
    for method, net in (("pos", None), ("sspd", network)):
        plan = live._Plan(method, net, settings, 30.0, 120, 30)
        view = live._View(noise(3 * 4 + 3, fps=60), 26, plan.kept / 30 + 1)
        segment = live._GrowingSegment(plan, "")
        sizes = []
        for _, _, image in resample.uniform(view.crops(), 30.0, max_gap_s=0.5):
            segment.take(view.time_s, image)
            sizes.append([len(x) for x in (segment._cells, segment._wave, view.around, view.detections)])
        sizes = np.array(sizes)
        assert len(sizes) == 450
        assert (sizes.max(0) == sizes[200:300].max(0)).all()  # full after a window and what it waits for
        assert (sizes.max(0) <= [plan.kept, 120, 60 * (plan.kept / 30 + 1) + 2, 8]).all()


def test_what_cannot_be_watched_is_said(network):
    for arguments, words in (
        ({"method": "eulerian"}, "eulerian"),
        ({"method": "sspd", "settings": Settings(network=False)}, "--checkpoint"),
        ({"method": "sspd", "settings": Settings(region="crop")}, "--checkpoint"),
        ({"every_s": 0}, "every"),
    ):
        with pytest.raises(ConfigError, match=words):
            live.watch([], 30, **arguments)
    with pytest.raises(ConfigError, match="chrom cannot read 5 frames/s"):
        live.watch([], 5, method="chrom")
    assert list(live.watch([], 30)) == []
    with pytest.raises(ValueError, match="time must increase"):
        list(live.watch([(0.0, np.zeros((120, 160, 3), np.uint8))] * 2, 30))


# Feeds.


def numbers(count, go_on):
    """Frames at 10 Hz; those after the first come when one may go on."""
    for n in range(count):
        yield n / 10, np.full((2, 2, 3), n, np.uint8)
        go_on.wait()


def test_a_slow_reader_gets_the_newest_frames():
    go_on = threading.Event()
    feed = camera.Feed(numbers(100, go_on), 10, "numbers")
    assert feed._thread is None  # nothing is taken before somebody asks
    assert next(feed)[0] == 0
    go_on.set()
    feed._thread.join()
    assert [time_s for time_s, _ in feed] == [n / 10 for n in range(80, 100)]  # two seconds
    assert feed.dropped == 79 and feed.newest[0] == 9.9
    assert list(feed) == []


def test_large_pictures_wait_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(camera, "HOLD_BYTES", 5 * 12)
    go_on = threading.Event()
    feed = camera.Feed(numbers(50, go_on), 30, "numbers")
    next(feed)
    go_on.set()
    feed._thread.join()
    assert len(list(feed)) == 5


def test_what_goes_wrong_in_a_feed_reaches_its_reader():
    def broken():
        yield from noise(0.3)
        raise UserError("camera 0: gives no pictures any more; plug it in again")

    feed = camera.Feed(broken(), 10, "broken")
    with pytest.raises(UserError, match="plug it in"):
        list(feed)
    assert list(feed) == []


def test_a_feed_is_closed_when_nobody_watches_any_more(seen):
    closed = threading.Event()

    def endless():
        try:
            for n in itertools.count():
                time.sleep(0.001)
                yield n / 30, np.zeros((120, 160, 3), np.uint8)
        finally:
            closed.set()

    feed = camera.Feed(endless(), 30, "endless")
    for _ in live.watch(feed, 30):
        break
    assert closed.wait(5) and list(feed) == []
    camera.Feed(endless(), 30, "never asked").close()


def test_a_file_comes_at_its_own_pace(tmp_path):
    pictures = [np.full((64, 64, 3), 5 * n, np.uint8) for n in range(16)]
    sample_video.write_video(tmp_path / "v.mp4", pictures, np.arange(16) / 15)
    feed = camera.as_live(tmp_path / "v.mp4", speed=2)
    start_s = time.monotonic()
    times = [time_s for time_s, _ in feed]
    assert time.monotonic() - start_s >= 0.49
    np.testing.assert_allclose(times, np.arange(16) / 15, atol=1e-3)
    assert (feed.fps, feed.dropped) == (15, 0)
    with pytest.raises(ConfigError, match="speed"):
        camera.as_live(tmp_path / "v.mp4", speed=0)


class Camera:
    """A camera of five pictures a call to `read`, whose driver tells times or does not."""

    stamps = None

    def __init__(self, device):
        self.count, self.released = 0, False

    def isOpened(self):
        return True

    def grab(self):
        self.count += 1
        return True

    def read(self):
        self.count += 1
        time.sleep(0.01)
        return self.count <= 25, np.full((4, 6, 3), (1, 2, 3), np.uint8)

    def get(self, what):
        if what == cv2.CAP_PROP_FPS:
            return 25.0
        return self.stamps(self.count) if self.stamps else 0.0

    def release(self):
        self.released = True


@pytest.mark.parametrize("told", [True, False])
def test_a_camera_gives_its_drivers_times_or_ours(monkeypatch, told):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "stamps", (lambda self, n: 5e6 + 12.5 * n) if told else None)
    feed = camera.camera(0)
    assert feed.fps == 25
    got = []
    with pytest.raises(UserError, match="camera 0: gives no pictures"):
        for time_s, rgb in feed:
            got.append(time_s)
            assert rgb.shape == (4, 6, 3) and rgb[0, 0].tolist() == [3, 2, 1]
    assert len(got) == 20 and got[0] == 0
    if told:
        np.testing.assert_allclose(np.diff(got), 0.0125, atol=1e-6)
    else:
        assert (np.diff(got) >= 0.0009).all() and got[-1] >= 0.18


def test_a_drivers_clock_that_strays_is_not_followed(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "stamps", lambda self, n: 1e5 * n)
    feed, got = camera.camera(0), []
    with pytest.raises(UserError):
        for time_s, _ in feed:
            got.append(time_s)
    assert got[-1] < 10 and (np.diff(got) > 0).all()


def test_a_camera_that_is_not_there_is_said():
    with pytest.raises(UserError, match=r"camera 97: cannot be opened; .*--camera=NUMBER"):
        camera.camera(97)


# The page.


def update(bpm=72.0):
    window = Window(1.0, 10.0, bpm, 0.9 if bpm else 0.2, "" if bpm else "the wave has no clear rhythm", 71.0)
    return live.Update(11.0, window, Wave(np.sin(np.arange(300) / 5), 30.0, 1.0), BOX, 0.4, 29.9, 3)


@pytest.fixture
def page():
    picture = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    page = server.Page(0, {"source": "test", "method": "pos"}, lambda: (1.0, picture))
    yield page
    page.close()


def get(page, path, **headers):
    with urllib.request.urlopen(
        urllib.request.Request(page.url + path, headers=headers), timeout=10
    ) as answer:
        return answer.headers, answer.read()


def test_the_page_is_whole_in_itself(page):
    for path, (name, kind) in server.FILES.items():
        headers, got = get(page, path)
        assert headers["Content-Type"] == kind and headers["Cache-Control"] == "no-store"
        assert got == (WEB_PAGE / name).read_bytes()
        text = got.decode()
        # Whatever a file asks for is served here, and nothing is asked of anybody else.
        asked = re.findall(r'(?:from|import|href=|src=|EventSource\(|Worker\()\s*"(?:\./)?([^"]+)"', text)
        assert {f"/{name}" for name in asked} <= {*server.FILES, "/events"}
        assert "@import" not in text and set(re.findall(r"\w+://[^\s\"'`)]*", text)) <= {
            "http://www.w3.org/2000/svg"
        }
    assert "Not a medical device" in get(page, "/")[1].decode()


def test_it_is_the_page_that_computes_in_the_browser(page):
    """Only the source of its numbers differs."""
    served = {name for name, _ in server.FILES.values()}
    assert served - {path.name for path in WEB_PAGE.iterdir()} == set()
    assert {"index.html", "style.css", "view.mjs", "drawing.mjs"} <= served
    assert not served & set(site._NOT_SERVED) - {"live_stream.mjs", "forget.js"}
    assert get(page, "/source.mjs")[1] == (WEB_PAGE / "live_stream.mjs").read_bytes()
    assert not list(WEB_PAGE.parent.glob("*.html"))


def test_the_page_may_load_and_ask_nothing_else(page):
    policy = get(page, "/")[0]["Content-Security-Policy"]
    rules = {name: allowed for name, *allowed in map(str.split, policy.split(";"))}
    assert rules.pop("default-src") == rules.pop("frame-ancestors") == ["'none'"]
    assert rules.pop("base-uri") == rules.pop("form-action") == ["'none'"]
    assert set(rules) == {"script-src", "style-src", "img-src", "connect-src"}
    assert all(allowed == ["'self'"] for allowed in rules.values())


def test_the_state_is_told(page):
    state = json.loads(get(page, "/state.json")[1])
    assert (state["update"], state["history"], state["ended"]) == (None, [], False)
    page.publish(live.as_json(update()))
    page.publish(live.as_json(update(None)))
    page.end()
    state = json.loads(get(page, "/state.json")[1])
    assert (state["source"], state["method"], state["ended"]) == ("test", "pos", True)
    assert state["frame_size"] == [640, 360]
    assert state["history"] == [[11.0, 72.0, 0.9], [11.0, None, 0.2]]
    assert state["update"]["window"]["why"] == "the wave has no clear rhythm"
    assert state["update"]["face_box"] == [50, 40, 110, 100]
    assert (state["update"]["latency_s"], state["update"]["fps"], state["update"]["dropped"]) == (
        0.4,
        29.9,
        3,
    )
    assert len(state["update"]["wave"]["values"]) == 300


def test_a_wave_far_from_0_is_told_without_steps():
    pulse = np.sin(np.arange(300) / 5)
    told = live.as_json(dataclasses.replace(update(), wave=Wave(170 + 0.1 * pulse, 30.0, 1.0)))
    assert np.abs(np.array(told["wave"]["values"]) - 0.1 * (pulse - pulse.mean())).max() < 1e-4
    assert (
        live.as_json(dataclasses.replace(update(), wave=Wave(np.zeros(0), 30.0, 1.0)))["wave"]["values"] == []
    )


def test_each_update_is_an_event(page):
    with urllib.request.urlopen(page.url + "/events", timeout=10) as events:
        assert events.headers["Content-Type"] == "text/event-stream"

        def event():
            line, blank = events.readline(), events.readline()
            assert line.startswith(b"data: ") and blank == b"\n"
            return json.loads(line[6:])

        assert event()["update"] is None
        page.publish(live.as_json(update()))
        assert event()["update"]["window"]["heart_rate_bpm"] == 72
        page.end()
        assert event()["ended"]


def test_the_history_is_bounded(page):
    for _ in range(server.HISTORY + 50):
        page.publish(live.as_json(update()))
    assert len(json.loads(page.state())["history"]) == server.HISTORY


def test_the_picture_is_small(page):
    headers, data = get(page, "/picture.jpg?7")
    assert headers["Content-Type"] == "image/jpeg"
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (270, 480, 3)


def test_only_this_computer_is_answered(page):
    assert page._server.server_address[0] == "127.0.0.1"
    for path, headers, code in (("/nothing", {}, 404), ("/", {"Host": "evil.example"}, 403)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(page, path, **headers)
        assert refused.value.code == code
        refused.value.close()
    with socket.socket() as probe:  # another address of this computer: nobody listens there
        probe.settimeout(2)
        assert probe.connect_ex(("127.0.0.2", page._server.server_address[1])) != 0


def ask(page, text=b""):
    """Connect as a browser would, and send something or nothing."""
    client = socket.create_connection(("127.0.0.1", page._server.server_address[1]), timeout=20)
    client.sendall(text)
    return client


def test_connections_are_bounded_and_idle_ones_let_go(monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    monkeypatch.setattr(server._Handler, "timeout", 2.0)
    page = server.Page(0, {}, lambda: None)
    before = threading.active_count()
    idle = [ask(page) for _ in range(3)]
    late = [ask(page, b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n") for _ in range(5)]
    assert all(client.recv(30).startswith(b"HTTP/1.0 503") for client in late)
    assert threading.active_count() <= before + 3
    assert all(client.recv(1) == b"" for client in idle)  # closed: they asked nothing
    deadline = time.monotonic() + 20
    while page._server._free._value < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert get(page, "/state.json")[0]["Content-Type"] == "application/json"
    for client in (*idle, *late):
        client.close()
    page.close()


def test_who_asks_letter_by_letter_is_let_go(monkeypatch):
    monkeypatch.setattr(server._Handler, "timeout", 0.5)
    page = server.Page(0, {}, lambda: None)
    slow = ask(page, b"GET / HTTP/1.0\r\nX: ")
    slow.settimeout(0.05)  # between two letters, each of them in time
    for _ in range(400):
        with contextlib.suppress(TimeoutError, ConnectionError):
            slow.sendall(b"a")
            if slow.recv(1) == b"":
                break
    else:
        raise AssertionError("400 letters were waited for")
    slow.close()
    page.close()


def test_who_takes_an_answer_letter_by_letter_is_let_go(monkeypatch):
    """What no buffer on the way holds is waited for, and no longer than a browser takes."""
    monkeypatch.setattr(server._Handler, "timeout", 0.5)
    page = server.Page(0, {"much": "x" * 20_000_000}, lambda: None)
    slow = ask(page, b"GET /state.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert slow.recv(1) == b"H"
    for _ in range(400):
        if page._server._free._value == server.CONNECTIONS:  # its thread has ended
            break
        slow.recv(1)
        time.sleep(0.05)
    else:
        raise AssertionError("400 letters were waited for")
    slow.close()
    page.close()


def test_no_descriptor_left_is_waited_out(monkeypatch):
    """Not asked for again and again, which takes a whole core."""
    paused = []
    monkeypatch.setattr(server.time, "sleep", paused.append)
    page = server.Page(0, {}, lambda: None)

    def none_left(_):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(server.ThreadingHTTPServer, "get_request", none_left)
    for _ in range(3):
        with pytest.raises(OSError, match="too many"):
            page._server.get_request()
    assert paused == [server.PAUSE_S] * 3
    monkeypatch.undo()
    page.close()


def test_there_is_no_picture_before_the_first_frame():
    page = server.Page(0, {}, lambda: None)
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(page, "/picture.jpg")
    refused.value.close()
    page.close()


# The command.


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "face.mp4"
    sample_video.write_face_video(path, seconds=8, fps=15, bpm=84)
    return path


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "sspd_jax", "live", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_prints_a_line_for_each_update(face):
    with start(face, "--no_page", "--speed=8", "--window=5", "--min_confidence=0.1") as run:
        out, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (0, "")
    lines = out.splitlines()
    assert "watched for 0 of 5 s" in lines[0]
    rates = [float(m[1]) for line in lines if (m := re.search(r"([\d.]+) bpm, \d+% sure", line))]
    assert rates and np.allclose(rates, 84, atol=3)


@pytest.mark.slow
def test_the_command_serves_a_page_until_it_is_interrupted(face):
    # At life's own speed: a busy computer that drops frames begins its window anew.
    run = start(face, "--port=0", "--window=5", "--min_confidence=0.1")
    try:
        first = run.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", first)[0]
        with urllib.request.urlopen(url + "/events", timeout=60) as events:
            for line in events:
                if line.startswith(b"data: ") and (state := json.loads(line[6:]))["ended"]:
                    break
        assert state["source"] == str(face)
        assert state["update"]["window"]["heart_rate_bpm"] == pytest.approx(84, abs=3)
        with urllib.request.urlopen(url + "/picture.jpg", timeout=10) as picture:
            assert picture.read(3) == b"\xff\xd8\xff"
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    finally:
        run.kill()  # a page that is not interrupted stays for ever
    assert "ended" in out
    assert (run.returncode, err) == (130, "interrupted\n")


def says(capsys, code, *arguments):
    """Run the command, which fails with one sentence; return it."""
    assert cli_live.main(list(map(str, arguments))) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .*\n", err), err
    return err


def test_what_is_wrong_is_said_in_a_sentence(capsys, tmp_path, face):
    (tmp_path / "text.mp4").write_text("hello")
    assert "no such file" in says(capsys, 1, tmp_path / "none.mp4", "--no_page")
    assert "not a video" in says(capsys, 1, tmp_path / "text.mp4", "--no_page")
    assert "camera 97" in says(capsys, 1, "--camera=97")
    assert "camera nowhere.avi" in says(capsys, 1, "--camera=nowhere.avi")
    assert "--checkpoint=DIR" in says(capsys, 2, face, "--method=sspd", "--no_network")
    assert "window_s 1" in says(capsys, 2, face, "--window=1")
    assert "speed 0" in says(capsys, 2, face, "--speed=0")
    assert "every" in says(capsys, 2, face, "--every=-1", "--no_page")
    assert "none" in says(capsys, 1, face, f"--checkpoint={tmp_path / 'none'}", "--no_page")
    assert "--port" in says(capsys, 1, face, "--port=99999")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = says(capsys, 1, face, f"--port={port}")
    assert f"port {port}: cannot be used" in sentence and "--port=0" in sentence


@pytest.mark.parametrize("box", [None, SkinBox((4, 5, 20, 20))])
def test_a_live_picture_is_recorded_where_the_skin_is_said_to_be_and_waits_for_nothing(monkeypatch, box):
    told = []
    monkeypatch.setattr(live, "load_networks", lambda: ("the networks", ""))
    monkeypatch.setattr(
        live,
        "SkinRecorder",
        lambda *args, **how: told.append((args, how)) or types.SimpleNamespace(tracker=None),
    )
    live.watch(iter(()), 15.0, method="pos", settings=Settings(network=False), box=box)
    networks = None if box else "the networks"
    assert told == [((networks,), {"look_ahead_s": 0, "crop_size": None, "box": box})]

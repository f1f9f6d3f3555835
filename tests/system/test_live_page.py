"""The page of `sspd_jax live` in a real browser: what it shows, what it asks for, what can be saved."""

import base64
import contextlib
import csv

import browser
import numpy as np
import pytest

from sspd_jax.cli import live as cli_live
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import live, server
from sspd_jax.inference.windows import Window
from sspd_jax.simulation import sample_video
from sspd_jax.video.face_detection import FaceBox

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed"),
]
ABOUT = {
    "source": "a test",
    "method": "auto",
    "window_s": 10.0,
    "min_confidence": 0.75,
    "every_s": 1.0,
    "speed": 1.0,
}
SAID = "({ ...document.body.dataset, said: document.getElementById('said').textContent })"
ORANGE = """(() => {
  const view = document.getElementById("view");
  const { data } = view.getContext("2d").getImageData(0, 0, view.width, view.height);
  const found = [];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] > 200 && data[i + 2] < 60) found.push([(i / 4) % view.width, Math.floor(i / 4 / view.width)]);
  }
  const side = (axis, pick) => pick(...found.map((place) => place[axis]));
  return found.length && [side(0, Math.min), side(1, Math.min), side(0, Math.max), side(1, Math.max)];
})()"""


def update(time_s, bpm, why="", candidate_bpm=None, duration_s=10.0, box=True):
    window = Window(
        time_s - duration_s,
        duration_s,
        bpm,
        0.9 if bpm else 0.2,
        why,
        bpm or candidate_bpm,
        {},
        bpm and (70, 74),
    )
    values = np.sin(np.arange(300) / 30 * 2 * np.pi * 1.2)
    face = FaceBox(160, 120, 320, 300) if box else None
    return live.as_json(live.Update(time_s, window, Wave(values, 30.0, time_s - 10), face, 0.42, 29.9, 3))


@pytest.fixture
def page():
    grey = np.full((480, 640, 3), 90, np.uint8)
    page = server.Page(0, ABOUT, lambda: (1.0, grey))
    yield page
    page.close()


def test_it_shows_what_the_command_says(page, tmp_path):
    downloads = tmp_path / "downloads"
    with browser.opened(page.url) as shown:
        shown.wait("document.body?.dataset.state === 'waiting'")
        assert shown.run(
            "document.getElementById('camera').offsetParent === null"
        )  # no camera of the browser
        page.publish(update(3.0, None, "watched for 3 of 10 s", duration_s=3.0))
        shown.wait("document.getElementById('said').textContent === 'No reading yet: watched for 3 of 10 s.'")
        page.publish(update(11.0, None, "the wave has no clear rhythm", candidate_bpm=140.0))
        shown.wait("document.body.dataset.state === 'no reading'")
        assert shown.run("document.title") == "A pulse from a face"
        page.publish(update(12.0, 72.3))
        shown.wait("document.body.dataset.state === 'reading'")
        assert shown.run(SAID)["said"] == "72 beats a minute, 90 % sure; 70.0 to 74.0."
        assert shown.run("document.title") == "72 bpm · A pulse from a face"
        assert shown.run("document.getElementById('rate').firstElementChild.textContent") == "72"
        assert shown.run("document.getElementById('bar').getAttribute('aria-valuenow')") == "90"
        figures = {
            name: f"document.getElementById('{name}').textContent"
            for name in ("latency", "fps", "dropped", "clock")
        }
        assert {name: shown.run(text) for name, text in figures.items()} == {
            "latency": "0.42 s",
            "fps": "29.9",
            "dropped": "3",
            "clock": "0:12",
        }
        assert "a reading needs 75 %" in shown.run("document.body.innerText")
        assert "a test · auto" in shown.run("document.getElementById('source').textContent")
        # The picture comes at 480 pixels across, and so does its box.
        box = shown.wait(f"(() => {{ const box = {ORANGE}; return box[0] > 0 && box; }})()")
        np.testing.assert_allclose(box, [120, 90, 240, 225], atol=4)
        # Both curves are drawn, above the fold of a small screen.
        shown.call(
            "Emulation.setDeviceMetricsOverride", width=1200, height=800, deviceScaleFactor=1, mobile=False
        )
        assert shown.wait("document.getElementById('history').getBoundingClientRect().bottom < 800")
        (tmp_path / "page.png").write_bytes(base64.b64decode(shown.call("Page.captureScreenshot")["data"]))
        page.end()
        said = shown.wait(f"document.body.dataset.state === 'ended' && {SAID}")["said"]
        assert said == "72 beats a minute, 90 % sure; 70.0 to 74.0. It has ended: this is the last state."
        shown.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        shown.run("document.getElementById('save').click()")
        for _ in range(50):
            if (downloads / "heart_rate.csv").exists():
                break
            shown.run("new Promise((go) => setTimeout(go, 100))")
        rows = list(csv.DictReader((downloads / "heart_rate.csv").read_text().splitlines()))
        assert [(row["end_s"], row["heart_rate_bpm"], row["why"]) for row in rows] == [
            ("11.00", "", "the wave has no clear rhythm"),
            ("12.00", "72.30", ""),
        ]
        # Nothing is asked of anybody else, none of the networks' runtime, and nothing breaks the policy.
        assert not shown.complaints
        own = {
            page.url + path
            for path in ("/", "/style.css", "/icon.svg", "/source.mjs", "/view.mjs", "/drawing.mjs")
        }
        asked = {request.split("?")[0] for request in shown.requests if not request.startswith("blob:")}
        assert asked <= own | {page.url + "/events", page.url + "/picture.jpg"}


def test_a_wave_of_other_units_fills_its_place_at_once(page):
    """From update to update it may be another method's."""
    # Slow frames: a height that followed would take seconds.
    slow = "window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 400)"
    with browser.opened(page.url) as shown:
        shown.wait("document.body?.dataset.state === 'waiting'")
        shown.run(slow)
        page.publish(large := update(12.0, 72.3))
        large["wave"]["values"] = [1000 * value for value in large["wave"]["values"]]
        page.publish(large | {"time_s": 13.0})
        shown.wait("document.body.dataset.seconds === '13'")
        shown.run("new Promise((go) => setTimeout(go, 1000))")
        page.publish(update(14.0, 72.3))
        shown.wait("document.body.dataset.seconds === '14'")
        shown.run("new Promise((go) => setTimeout(go, 900))")
        assert shown.run(browser.INK) > 0.5


def test_who_hears_it_is_not_told_every_second_the_same(page):
    spoken = "document.getElementById('spoken').textContent"
    with browser.opened(page.url) as shown:
        shown.wait("document.body?.dataset.state === 'waiting'")
        page.publish(update(12.0, 72.3))
        shown.wait("document.body.dataset.state === 'reading'")
        assert shown.run(spoken).startswith("72 beats")
        page.publish(update(13.0, 77.3))
        shown.wait("document.getElementById('said').textContent.startsWith('77')")
        assert shown.run(spoken).startswith("72 beats")
        page.publish(update(14.0, None, "the face is out of view", box=False))
        shown.wait("document.body.dataset.state === 'no reading'")
        assert shown.run(spoken) == "No reading: the face is out of view."
        tree = shown.call("Accessibility.getFullAXTree")["nodes"]
        assert any(node["role"]["value"] == "status" for node in tree if "role" in node)
        assert any(node["role"]["value"] == "meter" for node in tree if "role" in node)


def test_a_command_that_has_gone_is_noticed(page):
    with browser.opened(page.url) as shown:
        page.publish(update(12.0, 72.3))
        shown.wait("document.body?.dataset.state === 'reading'")
        page.close()
        shown.wait("document.body.dataset.state === 'failed'")
        assert shown.run(SAID)["said"] == "No connection: is the command still running?"


def test_a_page_that_was_kept_from_before_does_not_stand_in_its_way(tmp_path):
    """`sspd_jax web` keeps itself in the browser; at the same address it would be shown in place of this."""
    worker = (server.Path(server.__file__).parent / "web_page" / "offline.js").read_text()
    (tmp_path / "offline.js").write_text(worker.replace('["FILES"]', '["./"]'))
    old = "<!doctype html><title>old</title><body data-state=ready><script src=old.js></script>"
    (tmp_path / "index.html").write_text(old)
    (tmp_path / "old.js").write_text("navigator.serviceWorker.register('offline.js')")
    with contextlib.ExitStack() as old_server:
        url, _ = old_server.enter_context(browser.served(tmp_path))
        with browser.opened(url) as shown:
            shown.wait("navigator.serviceWorker.controller !== null")
            old_server.close()
            shown.call("Page.reload")
            shown.wait("document.title === 'old'")  # kept
            later = server.Page(int(url.rsplit(":", 1)[1].strip("/")), ABOUT, lambda: None)
            try:
                shown.call("Page.reload")
                shown.wait("document.title === 'A pulse from a face'")
                assert shown.wait(
                    "navigator.serviceWorker.getRegistrations().then((all) => all.length === 0)"
                )
            finally:
                later.close()


def test_a_file_is_read_and_shown(tmp_path, monkeypatch, capsys):
    """The command itself: its page says what it says."""
    video = tmp_path / "face.mp4"
    sample_video.write_face_video(video, seconds=9, bpm=84)
    seen = {}

    class Watched(server.Page):
        def end(self):
            with browser.opened(self.url) as shown:
                super().end()
                shown.wait("document.body?.dataset.state === 'ended'")
                seen.update(shown.run(SAID), complaints=shown.complaints)
            raise KeyboardInterrupt

    monkeypatch.setattr(cli_live, "Page", Watched)
    assert cli_live.main([str(video), "--port=0", "--window=5", "--min_confidence=0.1"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert abs(float(seen["bpm"]) - 84) < 3 and seen["complaints"] == []
    assert abs(float(seen["said"].split(" beats a minute")[0]) - 84) <= 3

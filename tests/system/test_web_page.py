"""The page in a real browser, before a camera that plays recordings: it reads what `predict` reads."""

import base64
import csv
import json

import browser
import cv2
import pytest

import sspd_jax
from sspd_jax.errors import UserError
from sspd_jax.inference import site
from sspd_jax.simulation import sample_video
from sspd_jax.video import decode, models

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(
        not all((models.FOLDER / name).exists() for name in models.SHA256),
        reason="the face models are not here: the package was built without a network",
    ),
]
FRAMES = 600  # of a recording before a camera
STAGES = ("picture", "face", "skin", "network")
READY = "document.body?.dataset.state === 'ready'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    made = tmp_path_factory.mktemp("web") / "page"
    try:
        site.write(made)
    except UserError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))
    return made


def judged(page, count):
    """Wait until so many windows were judged, and return what the page says of the last one."""
    page.wait(f"Number(document.body.dataset.judged) >= {count} || document.body.dataset.state === 'failed'")
    said = page.run("({ ...document.body.dataset, said: document.getElementById('said').textContent })")
    assert said["state"] != "failed", said
    return said


def shot(page, file):
    file.write_bytes(base64.b64decode(page.call("Page.captureScreenshot")["data"]))


def in_time(page, judged_before):
    """Wait for a window that was filmed in time, and return what the page says of it, and the camera's pace.

    A browser that has little time plays a fake camera's file slowly; the page rightly reads a slower pulse.
    How slowly is told by the numbers of the frames, see `stamp`.
    """
    seen = []
    while True:
        seen.append(page.run(PACE))
        now = seen[-1]
        assert now["state"] != "failed", now["said"]
        inside = [one for one in seen if one["t"] > now["t"] - 11000]
        if now["judged"] >= judged_before + 4 and len(inside) > 8:
            middle = inside[len(inside) // 2]
            paces = [
                (end["n"] - start["n"]) % FRAMES / (end["t"] - start["t"]) * 1000 / 30
                for start, end in ((inside[0], middle), (middle, now), (inside[0], now))
            ]
            if abs(paces[0] / paces[1] - 1) < 0.01 and now["judged"] > seen[-2]["judged"]:
                return now, paces[2]
        if now["judged"] > judged_before + 30:
            pytest.skip("this computer is too busy: the browser's camera never kept its pace for ten seconds")
        page.run("new Promise((go) => setTimeout(go, 200))")


PACE = """({
  ...document.body.dataset,
  t: performance.now(),
  n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].reduce((number, bit) => {
    const [red] = document.getElementById("view").getContext("2d").getImageData(8 * bit + 4, 4, 1, 1).data;
    return number + (red > 127 ? 2 ** bit : 0);
  }, 0),
  judged: Number(document.body.dataset.judged ?? 0),
  said: document.getElementById("said").textContent,
})"""


@pytest.mark.parametrize("bpm", [57, 72, 105])
def test_before_a_camera_the_rate_is_that_of_predict(folder, tmp_path, bpm):
    video = tmp_path / "face.mp4"
    # A whole number of beats: the camera plays it again and again, and the pulse goes on.
    sample_video.write_face_video(video, seconds=FRAMES / 30, bpm=bpm)
    read = sspd_jax.read(video)
    assert read.heart_rate_bpm is not None and abs(read.heart_rate_bpm - bpm) < 2
    camera = browser.as_camera(video, tmp_path / "face.y4m")

    def watch():
        with browser.served(folder) as (url, _), browser.opened(url, camera) as page:
            page.wait(READY)
            page.run("document.getElementById('camera').click()")
            said, pace = in_time(page, 0)
            shot(page, tmp_path / "page.png")
            assert 0.5 < page.run(browser.INK) <= 1  # the wave fills its place
            assert not page.complaints
            # A blob is the page's own.
            asked = [request.removeprefix("blob:") for request in page.requests]
            assert asked and all(request.startswith(url) for request in asked)
        spent = json.loads(said["spent"])  # benchmarks/speed/web_page.py reads it
        assert all(spent[stage]["ms"] > 0 and spent[stage]["count"] > 0 for stage in STAGES)
        off_bpm = abs(float(said["bpm"] or 0) - pace * read.heart_rate_bpm)
        return said, off_bpm, abs(float(said["confidence"]) - read.confidence)

    # A browser that waits for a processor leaves pictures out and shows them late: it gets three chances.
    for _ in range(3):
        said, off_bpm, unsure = watch()
        if said["state"] == "reading" and off_bpm < 1 and unsure < 0.2:
            break
    assert said["state"] == "reading"
    assert off_bpm < 1 and unsure < 0.2
    assert "beats a minute" in said["said"]


def test_a_video_is_read_by_its_own_clock(folder, tmp_path):
    video = tmp_path / "face.mp4"
    sample_video.write_face_video(video, seconds=15, bpm=88)
    read = sspd_jax.read(video)
    with browser.served(folder) as (url, _), browser.opened(url) as page:
        page.wait(READY)
        if not page.run("document.createElement('video').canPlayType('video/mp4; codecs=avc1.42E01E')"):
            pytest.skip("this browser plays no H.264")
        dropped(page, video, "video/mp4")
        page.wait("document.getElementById('said').textContent.endsWith('The recording has ended.')")
        said = page.run(PACE)
    assert said["state"] == "reading"
    assert abs(float(said["bpm"]) - read.heart_rate_bpm) < 1


def test_a_photograph_has_no_reading(folder, tmp_path):
    video = tmp_path / "face.mp4"
    sample_video.write_face_video(video, seconds=6, bpm=72)
    camera = browser.as_camera(video, tmp_path / "still.y4m", still=True)
    with browser.served(folder) as (url, _), browser.opened(url, camera) as page:
        page.wait(READY)
        page.run("document.getElementById('camera').click()")
        said = page.wait("document.body.dataset.judged >= 3 && { ...document.body.dataset }")
        assert said["state"] == "no reading" and said["bpm"] == ""
        assert float(said["confidence"]) < 0.75
        assert page.run("document.getElementById('said').textContent").startswith("No reading: ")
        assert page.run("document.getElementById('rate').firstElementChild.textContent") == "–"


def dropped(page, file, kind):
    """Drop a file on the page as a hand does."""
    content = base64.b64encode(file.read_bytes()).decode()
    page.run(f"""(async () => {{
      const bytes = Uint8Array.from(atob({json.dumps(content)}), (c) => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], {json.dumps(file.name)}, {{ type: {json.dumps(kind)} }}));
      const event = new DragEvent("drop", {{ dataTransfer: transfer, bubbles: true, cancelable: true }});
      document.getElementById("stage").dispatchEvent(event);
    }})()""")


def test_files_without_a_network_and_what_can_be_saved(folder, tmp_path):
    video = tmp_path / "face.mp4"
    sample_video.write_face_video(video, seconds=6, bpm=72)
    _, rgb = next(iter(decode.frames(video)))
    broken, picture = tmp_path / "broken.mp4", tmp_path / "face.png"
    cv2.imwrite(str(picture), rgb[..., ::-1])
    broken.write_bytes(b"no video")
    downloads = tmp_path / "downloads"
    with browser.served(folder) as (url, shut), browser.opened(url) as page:
        page.wait(READY)
        page.wait("navigator.serviceWorker.controller !== null")
        # Load once more through what keeps the files, then do without the server.
        page.call("Page.reload")
        page.wait(READY)
        shut()
        page.call("Page.reload")
        page.wait(READY)
        dropped(page, broken, "video/mp4")
        page.wait("document.body.dataset.state === 'failed'")
        assert "broken.mp4 cannot be played here" in page.run("document.getElementById('said').textContent")
        dropped(page, picture, "image/png")
        said = judged(page, 2)
        assert (said["state"], said["bpm"]) == ("no reading", "")
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        page.run("document.getElementById('save').click()")
        for _ in range(50):
            if (downloads / "heart_rate.csv").exists():
                break
            page.run("new Promise((go) => setTimeout(go, 100))")
        rows = list(csv.DictReader((downloads / "heart_rate.csv").read_text().splitlines()))
        assert len(rows) >= 2
        assert rows[0].keys() == {"end_s", "heart_rate_bpm", "confidence", "candidate_bpm", "why"}
        assert all(row["heart_rate_bpm"] == "" and row["why"] for row in rows)
        page.run("document.getElementById('stop').click()")
        assert page.run("document.body.dataset.state") == "stopped"


def test_neither_the_page_nor_its_worker_can_ask_anybody_else(folder, tmp_path):
    ask = "fetch(%r, { mode: 'no-cors' }).then(() => 'asked', (error) => error.message)"
    with browser.served(tmp_path) as (elsewhere, _), browser.served(folder) as (url, _):
        with browser.opened(url) as page:
            page.wait(READY)
            assert len(page.workers) == 1
            for place in (page, *page.workers):
                assert "Failed to fetch" in place.run(ask % elsewhere)
                assert place.run(ask % url) == "asked"
        # What a page without a policy asks for arrives: the test would see it.
        with browser.opened(elsewhere) as page:
            page.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
            assert page.run(ask % url) == "asked"


def test_it_is_used_by_keyboard_and_named_for_those_who_hear_it(folder):
    with browser.served(folder) as (url, _), browser.opened(url) as page:
        page.wait(READY)
        reached = []
        for _ in range(4):
            for kind in ("keyDown", "keyUp"):
                page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            reached.append(page.run("document.activeElement.id || document.activeElement.tagName"))
        assert reached[:3] == ["camera", "file", "SUMMARY"]
        tree = page.call("Accessibility.getFullAXTree")["nodes"]
        named = {
            (node["role"]["value"], node.get("name", {}).get("value")) for node in tree if "role" in node
        }
        assert ("button", "Use the camera") in named and ("heading", "A pulse from a face") in named
        assert ("button", "Open a video or a picture") in named
        assert any(role == "status" for role, _ in named)
        assert page.run("document.documentElement.lang") == "en"

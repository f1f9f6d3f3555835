"""A page in a headless Chromium, driven by its debugging protocol over a pipe; and what serves it."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

import av
import numpy as np

from sspd_jax.video import decode

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

# The share of its height that the wave fills: of the pixels in the curve's colour, blue.
INK = """(() => {
  const canvas = document.getElementById("wave");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [top, bottom] = [Infinity, 0];
  for (let i = 3; i < data.length; i += 4) {
    const row = Math.floor(i / 4 / canvas.width);
    const isCurve = data[i] && data[i - 1] > data[i - 3] + 100;
    if (isCurve) [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
  }
  return (bottom - top) / canvas.height;
})()"""


class Page:
    """One page of a browser."""

    def __init__(self, write, read, session):
        self._write, self._read, self._session, self._number = write, read, session, 0
        self.requests, self.complaints, self.workers = [], [], []

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, said["error"]
                return said["result"]
            self._note(said)

    def _next(self):
        while b"\0" not in self._held:
            got = os.read(self._read, 1 << 20)
            assert got, "the browser is gone"
            self._held += got
        said, _, self._held = self._held.partition(b"\0")
        return json.loads(said)

    _held = b""

    def _note(self, said):
        method, parameters = said.get("method"), said.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Target.attachedToTarget" and parameters["targetInfo"]["type"] == "worker":
            worker = Page(self._write, self._read, parameters["sessionId"])
            worker._number = 1000 * (2 + len(self.workers))
            self.workers.append(worker)
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"])[:2000])

    def run(self, script):
        """Evaluate JavaScript; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script, patience_s=90):
        """Wait until JavaScript is true, and return what it is."""
        for _ in range(int(patience_s / 0.2)):
            if value := self.run(script):
                return value
            time.sleep(0.2)
        raise AssertionError(f"never true: {script}; the page says {self.run('document.body.innerText')!r}")


@contextlib.contextmanager
def opened(url, camera=None, *, emulates_gpu=False):
    """Open a page; `camera` is a .y4m or .mjpeg file that the camera shows.

    `emulates_gpu`: the processor stands in for a graphics processor, for WebGPU.
    """
    gpu = ["--disable-gpu"]
    if emulates_gpu:
        gpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader"]
        gpu.append("--enable-features=Vulkan")
    arguments = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *gpu),
        *("--remote-debugging-pipe", "--window-size=1200,1200", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
    ]
    if camera:
        arguments.append(f"--use-file-for-fake-video-capture={camera}")
    to_child, write = os.pipe()
    read, from_child = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads file 3 and writes file 4.
        redirected = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        command = ["bash", "-c", redirected, "bash", *arguments, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, pass_fds=(to_child, from_child), **quiet) as browser:
            os.close(to_child)
            os.close(from_child)
            try:
                root = Page(write, read, None)
                target = root.call("Target.createTarget", url="about:blank")["targetId"]
                session = root.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
                page = Page(write, read, session)
                page._number = 1000
                for domain in ("Page", "Network", "Log", "Runtime"):
                    page.call(f"{domain}.enable")
                page.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
                page.call("Page.navigate", url=url)
                yield page
            finally:
                browser.kill()
                browser.wait()
                os.close(write)
                os.close(read)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """Serve a folder as `python -m http.server` does; yields its address and what stops it."""
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}/", server.shutdown
        server.shutdown()
        thread.join()


def as_camera(video, file, *, still=False):
    """Write a video as the raw pictures that the browser's fake camera plays again and again."""
    with file.open("wb") as raw:
        for number, (_, rgb) in enumerate(decode.frames(video)):
            if still and number:
                break
            if not still:
                stamp(rgb, number)
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
            if not number:
                raw.write(b"YUV4MPEG2 W%d H%d F30:1 Ip A1:1 C420jpeg\n" % (picture.width, picture.height))
            planes = b"".join(
                np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].tobytes()
                for plane in picture.planes
            )
            raw.write((b"FRAME\n" + planes) * (60 if still else 1))
    return file


def stamp(rgb, number):
    """Write a frame's number into its corner, in ten bits, each above its opposite: no light changes."""
    for bit in range(10):
        value = 255 * (number >> bit & 1)
        rgb[:8, 8 * bit : 8 * bit + 8], rgb[8:16, 8 * bit : 8 * bit + 8] = value, 255 - value

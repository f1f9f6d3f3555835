"""The folder that a web server serves: whole, with what the package knows inside, or not there at all."""

import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from sspd_jax.checkpoints import host_network
from sspd_jax.cli import web
from sspd_jax.errors import UserError
from sspd_jax.heart_rate import confidence
from sspd_jax.inference import site
from sspd_jax.video import models, resample, skin_map

SOURCES = site.Path(site.__file__).parent / "web_page"
MODELS = pytest.mark.skipif(
    not all((models.FOLDER / name).exists() for name in models.SHA256),
    reason="the face models are not here: the package was built without a network",
)


@pytest.fixture
def runtime(monkeypatch):
    """What npm would bring, in small."""

    def bring(folder):
        core, utils = (folder / "node_modules" / "@litertjs" / name for name in ("core", "wasm-utils"))
        for place in (core / "dist", core / "wasm", utils / "dist"):
            place.mkdir(parents=True)
        (core / "dist" / "index.js").write_text(
            'import { a } from "@litertjs/wasm-utils";\n//# sourceMappingURL=x\n'
        )
        (utils / "dist" / "index.js").write_text("export const a = 1;\n")
        for name in site._WASM:
            (core / "wasm" / f"{name}.js").write_text("1;")
            (core / "wasm" / f"{name}.wasm").write_bytes(bytes(site._LARGE))

    monkeypatch.setattr(site, "_install", bring)


@MODELS
def test_the_folder_is_whole(runtime, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    folder = tmp_path / "new" / "page"
    assert web.main([str(folder)]) == 0
    assert "serve it by: python -m http.server --directory" in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == ["page"]
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    for name in models.SHA256:
        assert (folder / "models" / name).read_bytes() == models.load_model(name)
    assert (folder / "confidence.json").read_text() == confidence.WEIGHTS.read_text()
    assert (folder / "litert" / "index.js").read_text() == 'import { a } from "./wasm_utils.js";\n'
    assert not files & {"package.json", "package-lock.json", "own_camera.mjs", "live_stream.mjs", "forget.js"}
    assert (folder / "source.mjs").read_bytes() == (SOURCES / "own_camera.mjs").read_bytes()
    for name in ("index.html", "style.css", "view.mjs", "drawing.mjs"):
        assert (folder / name).read_bytes() == (SOURCES / name).read_bytes()
    # Every file but the large ones is kept for use without a network, under a name that changes with them.
    offline = (folder / "offline.js").read_text()
    kept = json.loads(re.search(r"FILES = (\[.*\])", offline)[1])
    large = {name for name in files if name.endswith(".wasm")}
    assert set(kept) == files - large - {"offline.js"} | {"./"}
    assert re.search(r'CACHE = "[0-9a-f]{16}"', offline)
    # Whatever a file imports or opens is there.
    for file in folder.glob("*.mjs"):
        for name in re.findall(r'from "\./([^"]+)"', file.read_text()):
            assert name in files, (file.name, name)
    site.write(tmp_path / "again")
    assert (tmp_path / "again" / "offline.js").read_text() == offline


def test_the_page_may_ask_nobody_else():
    page = (SOURCES / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy"\s*content="([^"]*)"', page)[1]
    rules = {name: set(allowed) for name, *allowed in map(str.split, policy.split(";"))}
    assert rules["default-src"] == {"'none'"} and rules["connect-src"] == {"'self'"}
    assert rules["script-src"] == {"'self'", "'wasm-unsafe-eval'"} and rules["style-src"] == {"'self'"}
    assert not re.search(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", page)
    for source in SOURCES.iterdir():
        found = set(re.findall(r"\w+://[^\s\"'`)]*", source.read_text()))
        assert found <= {"http://www.w3.org/2000/svg"}, (source.name, found)


def test_what_the_page_knows_of_faces_is_what_the_package_knows():
    parts = json.loads(json.dumps(site.parts()))
    assert parts["patches"] == {name: list(corners) for name, corners in skin_map.PATCHES.items()}
    assert len(parts["template"]) == 468 * 3
    side = host_network.shipped().crop_size
    assert parts["cropSize"] == side
    np.testing.assert_allclose(np.reshape(parts["dither"], (side, side, 3)), skin_map.dither(side), atol=1e-4)


def test_the_lock_file_pins_every_package_by_its_hash():
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    wanted = json.loads((SOURCES / "package.json").read_text())["dependencies"]
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert {f"node_modules/{name}" for name in wanted} <= packages.keys()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="exists already; delete it or choose another folder"):
        site.write(tmp_path)
    with pytest.raises(UserError, match="mine: exists already"):
        site.write(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


@MODELS
@pytest.mark.parametrize(
    ("npm", "words"),
    [
        (None, "npm is not installed, and the page's runtime comes by it; install Node.js"),
        ("false", "npm cannot fetch the page's runtime (it gave no reason); try again with a network"),
    ],
)
def test_without_npm_nothing_is_written(npm, words, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    found = npm and shutil.which(npm)
    monkeypatch.setattr(site.shutil, "which", lambda _: found)
    assert web.main([str(tmp_path / "page")]) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", [None, "", "/nowhere/home"])
def test_npm_has_a_home_where_there_is_none(home, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\necho "$HOME $npm_config_cache" >&2\nprintf "\\351\\n" >&2\nexit 1\n')
    npm.chmod(0o755)
    monkeypatch.setattr(site.shutil, "which", lambda _: str(npm))
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(UserError, match=re.escape(f"({tmp_path} {tmp_path});")):
        site._install(tmp_path)


@MODELS
def test_a_package_that_is_absent_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert web.main([str(tmp_path / "page")]) == 2
    assert "run `pip install 'sspd_jax[export]'`" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


PICTURES = """
import { readFileSync, writeFileSync } from "node:fs";
import { blur, drawRegion, shrink } from "./pictures.mjs";
const folder = process.argv[1];
const data = new Uint8ClampedArray(readFileSync(`${folder}/picture`));
const picture = { data, width: 320, height: 240 };
const region = { x: 60, y: 130, side: 190, angle: 0.2 };
const crop = drawRegion(picture, region, 128, 1, 100);
const large = drawRegion(picture, { ...region, x: 160, y: 120 }, 64, 2, 150);
writeFileSync(`${folder}/crop`, crop);
const into = crop.slice().fill(7);
writeFileSync(`${folder}/black`, drawRegion(picture, region, 128, 1, 100, { black: true, into }));
writeFileSync(`${folder}/large`, large);
writeFileSync(`${folder}/small`, shrink(crop, 128, 128, 48, 48, 3));
writeFileSync(`${folder}/whole`, shrink(data, 320, 240, 128, 96, 4));
const grey = Float32Array.from(crop.filter((_, i) => i % 3 === 1), (value, i) => (i < 40 * 128 ? 0 : value));
writeFileSync(`${folder}/grey`, shrink(grey, 128, 128, 48, 48, 1));
writeFileSync(`${folder}/blurred`, blur(grey, 128, 1.5));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_the_pages_pictures_are_opencvs(tmp_path):
    rng = np.random.default_rng(0)
    rgba = cv2.resize(rng.integers(0, 256, (24, 32, 4), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "picture").write_bytes(rgba.tobytes())
    command = ["node", "--input-type=module", "--eval", PICTURES, str(tmp_path)]
    subprocess.run(command, cwd=SOURCES, check=True)

    def found(name, *shape):
        return np.fromfile(tmp_path / name, np.float32).reshape(shape)

    rgb = rgba[..., :3].astype(np.float32)
    scale = 190 / 128
    c, s = scale * np.cos(0.2), scale * np.sin(0.2)
    matrix = np.array([[c, -s, 60 - 63.5 * (c - s)], [s, c, 130 - 63.5 * (c + s)]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # OpenCV rounds places to 1/32 of a pixel.
    edge, black = (
        cv2.warpAffine(rgb, matrix, (128, 128), flags=how, borderMode=mode)
        for mode in (cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)
    )
    steepest = np.abs(np.diff(rgb, axis=0)).max() + np.abs(np.diff(rgb, axis=1)).max()
    crop = found("crop", 128, 128, 3)
    np.testing.assert_allclose(crop, edge, atol=steepest / 32)
    assert np.abs(crop - edge).mean() < 0.5
    outside = found("black", 128, 128, 3)
    assert np.abs(outside - black).mean() < 0.5 and (outside[black.max(-1) == 0] < 20).all()
    assert (crop[40:110, 60:110] == outside[40:110, 60:110]).all()  # the same where nothing lies outside
    small = cv2.resize(crop, (48, 48), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found("small", 48, 48, 3), small, atol=1e-3)
    whole = cv2.resize(rgb, (128, 96), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found("whole", 96, 128, 4)[..., :3], whole, atol=1e-3)
    grey = crop[..., 1].copy()
    grey[:40] = 0  # rows of nothing are not computed
    np.testing.assert_allclose(
        found("grey", 48, 48), cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA), atol=1e-3
    )
    blurred = cv2.GaussianBlur(grey, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(found("blurred", 128, 128), blurred, atol=1e-3)
    assert found("large", 64, 64, 3).std() > 1


CLOCK = """
import { Clock } from "./clock.mjs";
const clock = new Clock(30);
const frames = JSON.parse(process.argv[1]);
const ticks = frames.flatMap(([timeS, value]) => clock.push(timeS, Float64Array.of(value, 2 * value)));
console.log(JSON.stringify(ticks.map(({ tickS, values }) => [tickS, ...values])));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.parametrize(("fps", "jitter"), [(30, 0), (30, 0.3), (25, 0.2), (60, 0.1), (75, 0), (14, 0.3)])
def test_the_pages_clock_is_the_packages(fps, jitter):
    rng = np.random.default_rng(0)
    times = 5 + (np.arange(60) + rng.uniform(0, jitter, 60)) / fps
    values = rng.normal(100, 1, 60)
    frames = list(zip(times.tolist(), values.tolist(), strict=True))
    command = ["node", "--input-type=module", "--eval", CLOCK, json.dumps(frames)]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=True)
    found = np.array(json.loads(done.stdout))
    pictures = ((time_s, np.full((1, 1, 3), value)) for time_s, value in frames)
    wanted = [
        (tick_s, float(image[0, 0, 0])) for _, tick_s, image in resample.uniform(pictures, 30, max_gap_s=0.5)
    ]
    assert len(wanted) - len(found) in (0, 1, 2)  # the last ones wait for what comes
    wanted = np.array(wanted[: len(found)])
    np.testing.assert_allclose(found[:, 0], wanted[:, 0], atol=1e-9)
    np.testing.assert_allclose(found[:, 1], wanted[:, 1], atol=1e-3)
    np.testing.assert_allclose(found[:, 2], 2 * found[:, 1])

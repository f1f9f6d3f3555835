"""The example for browsers, in Node: ONNX Runtime's WebAssembly gives the wave of the same crops here."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sspd_jax.checkpoints import export, host_network
from sspd_jax.method import architecture

WEB = Path(__file__).parents[2] / "examples" / "web"

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(
        not (WEB / "node_modules" / "onnxruntime-web").exists(),
        reason="onnxruntime-web is not installed; run `npm ci --prefix examples/web --ignore-scripts`",
    ),
]

SCRIPT = """
import * as ort from "onnxruntime-web";
import { readFileSync } from "node:fs";
import { PulseStream } from "./pulse_stream.mjs";

ort.env.wasm.numThreads = 1;
const [file, crops, step] = process.argv.slice(1);
const stream = await PulseStream.open(ort, readFileSync(file), { step: Number(step) });
const pictures = readFileSync(crops);
const size = stream.side * stream.side * 3;
const wave = [];
for (let at = 0; at < pictures.length; at += size) {
  wave.push(...(await stream.push(pictures.subarray(at, at + size))));
}
const refused = await stream.push(new Uint8Array(5)).catch((error) => error.message);
console.log(JSON.stringify({ side: stream.side, wave, refused }));
"""


def node(*arguments):
    command = ["node", "--input-type=module", "--eval", SCRIPT, *map(str, arguments)]
    return subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    file = tmp_path_factory.mktemp("crops") / "crops.bin"
    side = host_network.shipped().crop_size
    pictures = np.random.default_rng(0).integers(0, 256, (41, side, side, 3), np.uint8)
    pictures.tofile(file)
    return file, pictures


def test_the_wave_of_a_browsers_runtime_is_that_of_here(crops, tmp_path):
    file, pictures = crops
    export.export(None, tmp_path / "pulse.onnx", "onnx", form="stream")
    model = host_network.shipped()
    lag = architecture.lag(model.layers)
    wanted = model.infer(pictures, 30.0, 0.0).values
    done = node(tmp_path / "pulse.onnx", file, 6)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["side"] == model.crop_size
    assert len(said["wave"]) == 36  # what fills no block has not gone through
    found = np.array(said["wave"][lag:])
    np.testing.assert_allclose(found, wanted[: len(found)], atol=1e-4 * np.abs(wanted).max())
    assert said["refused"] == f"a crop must hold {model.crop_size} × {model.crop_size} × 3 numbers, not 5"


@pytest.mark.parametrize(
    ("form", "step", "words"),
    [("clip", 8, "export it with --form=stream"), ("stream", 7, "a step must be an even number of crops")],
)
def test_what_it_cannot_read_is_said(crops, tmp_path, form, step, words):
    export.export(None, tmp_path / "pulse.onnx", "onnx", form=form)
    done = node(tmp_path / "pulse.onnx", crops[0], step)
    assert done.returncode != 0 and words in done.stderr


def test_the_lock_file_pins_every_package_by_its_hash():
    lock = json.loads((WEB / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert "node_modules/onnxruntime-web" in packages
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())

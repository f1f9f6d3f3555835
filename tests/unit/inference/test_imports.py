"""What `sspd_jax.inference.model` pulls in: a network is loaded without training, datasets or evaluation."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys
from sspd_jax.inference import model

model.load_model("data/simulated_faces")
print(json.dumps([name for name in sys.modules if name.startswith("sspd_jax")]))
"""


def test_loading_a_network_imports_what_inference_needs_alone():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = json.loads(run.stdout)
    assert "sspd_jax.checkpoints.network" in modules
    rooms = {".".join(name.split(".")[:2]) for name in modules}
    used = {"checkpoints", "errors", "heart_rate", "inference", "method", "runtime", "video"}
    assert rooms <= {"sspd_jax", *(f"sspd_jax.{room}" for room in used)}


def test_reading_without_a_network_does_not_import_jax():
    program = """
import sys, numpy as np, sspd_jax
from sspd_jax.simulation import sample_video

times_s = np.arange(75) / 15
frames = list(sample_video.face_frames(times_s, 84, 0))
sspd_jax.read(frames, fps=15, window_s=4)
list(sspd_jax.watch(zip(times_s, frames), 15, window_s=4))
sys.exit("jax" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

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

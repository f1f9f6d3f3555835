"""Whatever a person drags in: damaged files by the dozen, no traceback, no hang, no invented number."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sspd_jax.simulation import sample_video

ROOT = Path(__file__).parents[2]
SECONDS, BPM = 12, 84  # what is left of less would be refused

READ = """
import json, sys
from sspd_jax.cli import predict
for path in sys.argv[1:]:
    print(path, flush=True)  # which one it was, if the process dies
    code = predict.main([path, "--method=pos", f"--json={path}.json"])
    assert code in (0, 1), code
"""


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of the ways that files get damaged."""
    out, kind = bytearray(data), rng.integers(6)
    if kind == 0:  # scattered bytes
        for at in rng.integers(0, len(out), rng.integers(1, 40)):
            out[at] = rng.integers(256)
    elif kind == 1:  # cut off
        out = out[: rng.integers(1, len(out))]
    elif kind == 2:  # a hole
        at = rng.integers(0, len(out))
        out[at : at + rng.integers(1, 5000)] = bytes(int(rng.integers(1, 5000)))
    elif kind == 3:  # something missing
        at = rng.integers(0, len(out))
        del out[at : at + rng.integers(1, 5000)]
    elif kind == 4:  # its header
        for at in rng.integers(0, 200, rng.integers(1, 8)):
            out[at] = rng.integers(256)
    else:  # its last part twice, its first missing
        out = out[rng.integers(1, len(out) // 2) :] * 2
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["face.mp4", "face.avi", "face.mkv"])
def test_damaged_files(tmp_path, name, record_property):
    sample_video.write_face_video(tmp_path / name, seconds=SECONDS, bpm=BPM)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(len(name) + ord(name[-1]))
    paths = []
    for number in range(25):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(damaged(whole, rng))
        paths.append(path)
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    read = 0
    for path in paths:
        result = Path(f"{path}.json")
        told = json.loads(result.read_text())
        if "error" in told:
            assert sum(line == f"error: {told['error']}" for line in errors) == 1
            continue
        bpm = told["heart_rate_bpm"]
        read += bpm is not None
        assert bpm is None or bpm == pytest.approx(BPM, abs=4), path
    counts = {"command": f"predict {name}", "inputs": len(paths), "refused": len(errors), "faults": 0}
    record_property("fuzz", counts)
    assert read >= 3 and errors

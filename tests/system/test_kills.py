"""Twenty kills of each command that writes: what is there is whole, and the same command ends as ever."""

import json
import random
import shutil
from pathlib import Path

import dataset_files
import jax
import numpy as np
import pytest
from golden import recipe
from killed import Command
from small_run import NETWORK

from sspd_jax.checkpoints import network, torch_writer
from sspd_jax.datasets.dataset import open_prepared

pytestmark = pytest.mark.slow

KILLS = 20
ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "data" / "simulated_faces"


def kill_often(command, check, longest_s, kills=KILLS):
    """Kill a command at random moments of its life; `check` looks at what each leaves.

    A run that ends before its moment says how long the command lives on this machine now.
    """
    chance, killed = random.Random(0), 0
    for _ in range(10 * kills):
        code, lived_s = command.run(chance.uniform(0, longest_s))
        assert code in (0, -9), command.said
        check()
        killed += code == -9
        if code == 0:
            longest_s = min(longest_s, lived_s)
        if killed == kills:
            break
    assert killed == kills
    assert "Traceback" not in command.said and "unexpected" not in command.said


def content(folder):
    """All files of a folder, hidden ones and what a clock writes left out."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def test_prepare(tmp_path):
    dataset_files.folder(tmp_path / "raw", seconds=4)
    arguments = ["--dataset=folder", f"--source={tmp_path / 'raw'}", "--crop_size=32", "--no_progress"]
    arguments += ["--workers=1"]
    module, out = "sspd_jax.cli.prepare", tmp_path / "out"
    with Command(module, *arguments, f"--data_dir={tmp_path / 'whole'}", cwd=tmp_path) as whole:
        code, lasts_s = whole.run()
        assert code == 0, whole.said
    expected, finished = content(tmp_path / "whole"), set()

    def check():
        done = {path.name for path in out.glob("recordings/*.json")}
        assert done >= finished  # what was finished stays
        finished.update(done)
        if (out / "index.json").exists():
            assert content(out) == expected
            finished.clear()
            shutil.rmtree(out)

    with Command(module, *arguments, f"--data_dir={out}", cwd=tmp_path) as command:
        kill_often(command, check, lasts_s)
        assert command.run()[0] == 0, command.said
    assert content(out) == expected
    assert len(open_prepared(out).segments) == 2


def kill_what_makes(tmp_path, module, *arguments, whole, kills=KILLS):
    """Kill a command that makes one thing; what stands under its name is whole, and is then put away."""
    output, made = tmp_path / "out", []

    def check():
        if output.exists():
            assert whole(output) == expected
            made.append(output.rename(tmp_path / f"made{len(made)}"))
            (tmp_path / "out.json").unlink(missing_ok=True)

    with Command(module, *arguments, f"--output={output}", cwd=tmp_path) as command:
        code, lasts_s = command.run()
        assert code == 0, command.said
        expected = whole(output)
        check()
        kill_often(command, check, lasts_s, kills)
        assert command.run()[0] == 0, command.said
        check()
    assert len(made) >= 2
    left = {path.name for path in tmp_path.iterdir()} - {path.name for path in made}
    assert left <= {"said", "theirs.pth"}  # nothing of those that were killed


def weights_of(directory):
    config, *trees = network.load_network(directory)
    return repr(config), [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


def test_convert(tmp_path):
    layout = json.loads((ROOT / "tests" / "golden" / "state_dict_layout.json").read_text())
    torch_writer.write_state_dict(tmp_path / "theirs.pth", recipe.weights(layout))
    kill_what_makes(tmp_path, "sspd_jax.cli.convert", tmp_path / "theirs.pth", whole=weights_of)


@pytest.mark.parametrize("form", ["orbax", "pytorch", "stablehlo", "onnx", "tflite"])
def test_export(tmp_path, form):
    whole = weights_of if form == "orbax" else lambda path: path.read_bytes()
    arguments = [f"--checkpoint={SHIPPED}", f"--format={form}"]
    kill_what_makes(tmp_path, "sspd_jax.cli.export", *arguments, whole=whole, kills=KILLS // 4)


STUDY = f"""
experiment = "{ROOT}/configs/demo.py:smoke"
overrides = {["epochs=1", *(f"{key}={value}" for key, value in NETWORK.items())]}
seeds = [3]
protocols = ["ours"]
methods = ["green"]
[data.a]
simulate = {{ preset = "easy", people = 2, seconds = 10.5, seed = 5 }}
[parts.folds]
train = "a"
folds = 2
"""
IMPORTS = ("sspd_jax.training.loop", "sspd_jax.datasets.prepare", "sspd_jax.evaluation.figures", "grain")


def test_study(compiled, tmp_path):
    """It goes on where it was: kills cost time alone. A finished one is put away, and another begun."""
    (tmp_path / "study.toml").write_text(STUDY)
    arguments = [f"--config={tmp_path / 'study.toml'}", "--no_progress"]
    module, report = "sspd_jax.cli.study", "report/ours/scores.json"
    where = {"cwd": tmp_path, "environment": compiled, "imports": IMPORTS}
    with Command(module, *arguments, "--workdir=whole", **where) as whole:
        code, lasts_s = whole.run()
        assert code == 0, whole.said
    expected = json.loads((tmp_path / "whole" / report).read_text())

    def check():
        if (tmp_path / "out" / report).exists():
            assert json.loads((tmp_path / "out" / report).read_text()) == expected
            shutil.rmtree(tmp_path / "out")

    with Command(module, *arguments, "--workdir=out", **where) as command:
        kill_often(command, check, lasts_s / 4)
        assert command.run()[0] == 0, command.said
    assert json.loads((tmp_path / "out" / report).read_text()) == expected

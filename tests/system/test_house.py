"""The package's order: imports go down only, every folder says what it is for, every module has its test."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sspd_jax"
MODULES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
UNIT_TESTS = [p.relative_to(ROOT / "tests" / "unit") for p in (ROOT / "tests" / "unit").rglob("test_*.py")]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

# Modules without a test file of their own name: which file tests them, in tests/, and why there.
ELSEWHERE = {
    "system/test_package.py": ("what a shell starts", "__main__ errors"),
    "system/test_dataset_training.py": ("a whole training", "main"),
    "system/test_older_workdir.py": ("what version 0.1 wrote", "checkpoints/renamed_keys"),
    "system/test_interruptions.py": ("signals, and disks that fill, need processes", "runtime/preemption"),
    "unit/checkpoints/test_export.py": (
        "one trip of a network through every format",
        "checkpoints/convert checkpoints/network checkpoints/torch_writer cli/convert cli/export "
        "runtime/storage",
    ),
    "unit/checkpoints/test_portable_graph.py": (
        "one graph, in every format that it is written in",
        "checkpoints/onnx_file checkpoints/tflite_file",
    ),
    "unit/datasets/readers/test_readers.py": (
        "one contract, held by every reader",
        "datasets/recording datasets/readers/cohface datasets/readers/files datasets/readers/folder "
        "datasets/readers/matlab datasets/readers/mmpd datasets/readers/pure datasets/readers/registry "
        "datasets/readers/scamps datasets/readers/ubfc_phys datasets/readers/ubfc_rppg_1 "
        "datasets/readers/vipl_hr",
    ),
    "unit/datasets/test_dataset.py": ("written and read back", "datasets/format"),
    "unit/datasets/test_inspect.py": ("with what it commands", "cli/inspect"),
    "unit/datasets/test_prepare.py": ("with what it commands", "cli/common cli/prepare datasets/progress"),
    "unit/datasets/test_workers.py": ("the same bytes whoever works", "datasets/beam runtime/crew"),
    "unit/evaluation/test_compare.py": ("with what it commands", "cli/compare"),
    "unit/evaluation/test_evaluate.py": ("who may be tested on", "cli/evaluate datasets/leakage"),
    "unit/evaluation/test_scoring.py": (
        "a score in every form it is written in",
        "evaluation/figures evaluation/pages evaluation/render evaluation/report evaluation/summary "
        "evaluation/table",
    ),
    "unit/simulation/test_people.py": (
        "a person is seen through all of them",
        "simulation/people/camera simulation/people/film simulation/people/head_motion "
        "simulation/people/heads simulation/people/lights simulation/people/looks simulation/people/paint "
        "simulation/people/presets simulation/people/raster simulation/people/skin_optics",
    ),
    "unit/simulation/test_people_recordings.py": ("on disk", "simulation/people/recordings"),
    "unit/experiments/test_plan.py": ("with the plan that is made of it", "datasets/listing"),
    "unit/experiments/test_study.py": ("with what it commands", "cli/study"),
    "unit/heart_rate/test_classical.py": ("beside the filters they copy", "heart_rate/jax_filters"),
    "unit/heart_rate/test_rate.py": ("on the way to a rate", "heart_rate/filters heart_rate/wave"),
    "unit/heart_rate/test_signal_quality.py": ("evidence and its weights", "heart_rate/confidence"),
    "unit/inference/test_explain.py": ("what stands on the page", "inference/advice inference/figures"),
    "unit/inference/test_live.py": (
        "a camera from end to end",
        "cli/live inference/server video/camera",
    ),
    "unit/inference/test_model.py": ("the same wave piece by piece", "method/streaming"),
    "unit/inference/test_predict.py": (
        "with what it commands",
        "cli/estimation cli/predict inference/methods inference/prediction inference/writing video/files",
    ),
    "unit/inference/test_skin_reading.py": ("from traces to rates", "inference/skin_segment"),
    "unit/inference/test_site.py": ("with what it commands", "cli/web"),
    "unit/method/test_golden.py": ("numbers of the published code", "method/settings training/state"),
    "unit/method/test_losses.py": ("what losses are of", "method/outputs"),
    "unit/simulation/test_recordings.py": (
        "what a simulation is drawn with",
        "cli/simulate simulation/random_signals",
    ),
    "unit/training/test_loop.py": (
        "a run from its first step to its report",
        "experiments/run training/setup training/workdir",
    ),
    "unit/training/test_step.py": (
        "a step however it is compiled and cut",
        "training/compiled training/presets training/sharding",
    ),
    "unit/video/test_decode.py": ("from a file to a crop", "video/crop"),
    "unit/video/test_face_mesh.py": ("with what it runs", "video/models"),
    "unit/video/test_skin.py": ("a map and what is read through it", "video/skin_map video/skin_traces"),
    "unit/video/test_face_stream.py": (
        "from a film to crops on a clock",
        "cli/sample simulation/sample_video video/face_detection video/resample",
    ),
}


def lint(folder):
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, check=False
    )


def test_imports_go_down_only():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout.partition("Broken contracts")[2]


@pytest.mark.parametrize(
    "line", ["from sspd_jax.cli import common", "def f():\n    import sspd_jax.cli.common"]
)
def test_an_import_that_goes_up_is_named(tmp_path, line):
    shutil.copytree(PACKAGE, tmp_path / "sspd_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / "sspd_jax" / "video" / "crop.py").open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "sspd_jax.video.crop -> sspd_jax.cli.common" in done.stdout


def test_a_circle_of_modules_is_named(tmp_path):
    """Also one that a deferred import closes."""
    shutil.copytree(PACKAGE, tmp_path / "sspd_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / "sspd_jax" / "method" / "architecture.py").open("a") as file:
        file.write("\ndef f():\n    import sspd_jax.method.network\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert (
        "round about BROKEN" in done.stdout and ".architecture" in done.stdout and ".network" in done.stdout
    )


def test_a_new_folder_has_a_place_among_the_layers(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "sspd_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    (tmp_path / "sspd_jax" / "utils.py").write_text("")
    done = lint(tmp_path)
    assert done.returncode == 1 and "utils" in done.stdout


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in PACKAGE.rglob("__init__.py")), ids=lambda p: p.name
)
def test_every_folder_says_what_it_is_for(folder):
    says = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert says and "TODO" not in says
    assert says.splitlines()[0].endswith(".")


def test_every_module_has_its_test():
    elsewhere = {
        f"{module}.py": file for file, (_, modules) in ELSEWHERE.items() for module in modules.split()
    }
    gone = sorted(set(elsewhere) - set(MODULES))
    assert not gone, f"listed above, but no modules: {gone}"
    mirrored = {f"{p.parent.as_posix()}/{p.name.removeprefix('test_')}" for p in UNIT_TESTS}
    missing = sorted(set(MODULES) - mirrored - set(elsewhere))
    assert not missing, f"without a test file of their own or a line above: {missing}"
    for file in ELSEWHERE:
        assert (ROOT / "tests" / file).exists(), file

"""Readings in pools of processes: an answer or a sentence, never a hang; scripts without a guard are told."""

import os
import subprocess
import sys
from pathlib import Path

import dataset_files
import pytest

from sspd_jax.runtime import processes
from sspd_jax.simulation import sample_video

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "face.mp4"
    frames = dataset_files.pictures(30, 6, 72.0)
    sample_video.write_video(path, frames, [number / 30 for number in range(len(frames))])
    return path


def run(folder, text, *arguments, name="script.py"):
    """Run a script as a person does: a process of its own, with a limit on its time."""
    script = folder / name
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )


POOL = """
import multiprocessing, sys
import sspd_jax

def rate(path):
    return sspd_jax.read(path, method="pos").heart_rate_bpm

if __name__ == "__main__":
    how, first, path = sys.argv[1:]
    if first == "computes":
        import jax
        jax.block_until_ready(jax.jit(lambda x: x @ x)(jax.numpy.ones((500, 500))))
    if first == "reads":
        print("parent", rate(path), flush=True)
    with multiprocessing.get_context(how).Pool(1) as pool:
        try:
            print("child", pool.apply_async(rate, (path,)).get(60))
        except sspd_jax.errors.UserError as error:
            print("refused", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "first", "said"),
    [("fork", "computes", "refused"), ("fork", "waits", "child"), ("spawn", "reads", "child")],
)
def test_a_pool_gives_a_reading_or_a_sentence(tmp_path, face, how, first, said):
    done = run(tmp_path, POOL, how, first, face)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith(said), done.stdout
    if said == "refused":
        assert 'multiprocessing.get_context("spawn")' in last and "fork" in last
    elif first == "reads":
        assert done.stdout.splitlines()[0].removeprefix("parent ") == last.removeprefix("child ")


@pytest.mark.slow
def test_a_network_is_refused_too_instead_of_an_abort(tmp_path, face):
    text = POOL.replace('method="pos"', f'checkpoint="{ROOT / "data" / "simulated_faces"}"')
    last = run(tmp_path, text, "fork", "computes", face).stdout.splitlines()[-1]
    assert last.startswith("refused process ")


def test_only_a_process_that_was_forked_afterwards_is_torn(monkeypatch):
    processes.require_whole()
    monkeypatch.setattr(processes, "_torn", False)
    monkeypatch.setattr(processes, "jax_has_begun", lambda: False)
    processes._after_fork()
    processes.require_whole()
    monkeypatch.setattr(processes, "jax_has_begun", lambda: True)
    processes._after_fork()
    with pytest.raises(processes.UserError, match=r"had already computed with JAX.*\"spawn\""):
        processes.require_whole()


def test_importing_the_package_does_not_begin_jax(tmp_path):
    text = "import sspd_jax, sys\nfrom sspd_jax.runtime import processes\n"
    text += "print(processes.jax_has_begun(), 'jax' in sys.modules)\n"
    assert run(tmp_path, text).stdout == "False False\n"


PREPARE = """
from sspd_jax.datasets.prepare import prepare_dataset
print(prepare_dataset("folder", "raw", "out", crop_size=16, workers=2, progress=False).recordings)
"""


def test_a_script_without_a_guard_prepares_all_the_same_and_is_told(tmp_path):
    dataset_files.folder(tmp_path / "raw", seconds=2)
    done = run(tmp_path, PREPARE)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert 'script.py has no `if __name__ == "__main__":`' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_guard_is_recognised(tmp_path, monkeypatch):
    import __main__

    script = tmp_path / "a.py"
    monkeypatch.setattr(__main__, "__file__", str(script), raising=False)
    monkeypatch.setattr(__main__, "__spec__", None)
    for text, guarded in (("x = 1\n", False), ("if __name__ == '__main__':\n    x = 1\n", True)):
        script.write_text(text)
        assert (processes.script_without_guard() is None) == guarded
    monkeypatch.delattr(__main__, "__file__")
    assert processes.script_without_guard() is None

"""Every notebook runs from top to bottom in a clean kernel, in small; what is in git has no outputs."""

import configparser
import importlib.util
import os
import re
import subprocess
from pathlib import Path

import nbclient
import nbformat
import pytest
from shared_files import PUBLISHED_WEIGHTS

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ("accelerators", "inside_sspd", "published_weights", "quickstart", "your_own_videos")
LARGEST_BYTES = 30_000
MOST_MEMORY_KB = 4_000_000
LARGEST_RUN_BYTES = 2_000_000  # with its pictures
# Asked in the kernel: what this process saw of its children is of all tests before, and what a process
# is told of itself begins with the size of the one that started it.
LARGEST_KB = """
import re, resource
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
print(max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""

with (ROOT / "setup.cfg").open() as file:
    setup_cfg = configparser.ConfigParser(interpolation=None)
    setup_cfg.read_file(file)
ADDRESS = setup_cfg["metadata"]["url"]


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_these_are_there():
    assert tuple(path.stem for path in NOTEBOOKS) == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    """No outputs, no counts, small; what it says of itself is the same in all."""
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert all(not cell.metadata for cell in notebook.cells)
    assert path.stat().st_size < LARGEST_BYTES
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_opened_and_installs_what_it_needs(path):
    notebook = read(path)
    place = ADDRESS.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{path.name}"
    assert f"colab-badge.svg)]({link})" in notebook.cells[0].source
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    first = next(cell.source for cell in read(NOTEBOOKS[0]).cells if cell.cell_type == "code")
    assert code[0] == first and f"git+{ADDRESS}" in first
    assert "SSPD_JAX_SMALL" in code[1]


def test_the_first_cell_takes_an_uploaded_wheel_or_says_what_to_set(tmp_path, monkeypatch):
    first = next(cell.source for cell in read(NOTEBOOKS[0]).cells if cell.cell_type == "code")
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command[-1]))
    if "/OWNER/" in ADDRESS:
        with pytest.raises(SystemExit, match="Upload a wheel"):
            exec(first, {})
    exec(first.replace("github.com/OWNER/", "github.com/somebody/"), {})
    (tmp_path / "sspd_jax-0.1.0-py3-none-any.whl").touch()
    exec(first, {})
    assert re.match(r"sspd_jax\[(train|cuda|tpu)\] @ git\+https://github.com/", asked[0])
    assert re.fullmatch(r"\./sspd_jax-0.1.0-py3-none-any.whl\[(train|cuda|tpu)\]", asked[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    if not PUBLISHED_WEIGHTS.exists():
        told = "left out: no weights"
    else:
        told = "numbers converted"
    for key, value in {
        "SSPD_JAX_SMALL": "1",
        "SSPD_JAX_WEIGHTS": str(PUBLISHED_WEIGHTS),
        "SSPD_JAX_CACHE": "",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "" if name == "published_weights" else "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        "TMPDIR": str(tmp_path),
        "IPYTHONDIR": str(tmp_path),
        "PYTHONWARNINGS": "",
    }.items():
        if value:
            monkeypatch.setenv(key, value)
        else:
            monkeypatch.delenv(key, raising=False) if key != "SSPD_JAX_CACHE" else monkeypatch.setenv(key, "")
    notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
    notebook.cells.append(nbformat.v4.new_code_cell(LARGEST_KB))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    # Free notebooks in a browser have about 12 GB.
    assert 100_000 < int(notebook.cells.pop().outputs[0].text) < MOST_MEMORY_KB
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    shown = [output for output in outputs if output.output_type == "display_data"]
    assert "Traceback" not in text
    assert shown, "nothing was shown"
    assert len(nbformat.writes(notebook)) < LARGEST_RUN_BYTES
    for words in SAID[name]:
        assert words in text, f"{words!r} is not in\n{text}"
    if name == "published_weights":
        assert told in text


SAID = {
    "quickstart": ("subject3: ", "truth", "run/report/index.html"),
    "your_own_videos": ("photograph: no reading", "black and white: no reading", "no face"),
    "inside_sspd": ("F2 (2, 96, ", "collapsed: ", "may have collapsed", "honest: "),
    "published_weights": ("POS", "CHROM", "GREEN", "72."),
    "accelerators": ("4 parts, each on 1", "a step, ", "process 0 of 2 sees 4", "process 1 of 2 sees 4"),
}

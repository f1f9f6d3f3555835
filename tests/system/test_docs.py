"""The documentation builds without a warning, says what is true of the code, and its links lead somewhere."""

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from sspd_jax.method import losses, settings
from sspd_jax.training import config, presets

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
METHOD_FILES = sorted((ROOT / "sspd_jax" / "method").glob("[a-z]*.py"))
METHOD = (DOCS / "method.md").read_text()


def test_the_method_page_has_the_weights_of_both_forms():
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*\|[^|]*) \|$", METHOD, re.MULTILINE))
    used = {*presets.PAPER["terms"], *presets.RELEASED["terms"]}
    assert set(rows) == used <= set(losses.TERMS)
    for name, cells in rows.items():
        for cell, form in zip(cells.split("|"), (presets.PAPER, presets.RELEASED), strict=True):
            weight = form["terms"].get(name, {}).get("weight")
            assert cell.strip().split(",")[0] == ("–" if weight is None else f"{weight:g}"), name


def test_names_on_the_method_page_exist():
    """`module.name` of a room of the method, keys of the configuration, settings of the network."""
    modules = {path.stem: import_module(f"sspd_jax.method.{path.stem}") for path in METHOD_FILES}
    found = re.findall(r"`(?:sspd_jax\.method\.)?(\w+)\.(\w+)(?:\(|`)", METHOD)
    # The module `network` shares its name with a table of the configuration.
    keys = {("network", key) for key in settings.NetworkSettings.__dataclass_fields__}
    known = [pair for pair in found if pair[0] in modules and pair not in keys]
    assert len(known) >= 20
    for module, name in known:
        assert hasattr(modules[module], name), f"{module}.{name}"
    for name in re.findall(r"`network\.(\w+)`", METHOD):
        assert name in settings.NetworkSettings.__dataclass_fields__
    assert settings.NetworkSettings().scale_lengths(300) == (292, 286, 282)


def test_keys_on_the_training_page_are_those_of_a_configuration_with_their_defaults():
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", (DOCS / "training.md").read_text(), re.MULTILINE)
    found = 0
    default = config.default()
    for key, value in rows:
        at = default
        for part in key.split("."):
            at = at[part]
        if not value.startswith("of the"):
            assert str(at) == value.strip("`") or float(at) == float(value), key
        found += 1
    assert found >= 9


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    command = [*(sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", "-b", "html")]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "out")], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "out" / "api" / "method.html").read_text()
    assert "similarity_inverse_snr" in reference and "arXiv 2311.05100" in reference
    house = (tmp_path / "out" / "index.html").read_text()
    assert "/blob/main/notebooks/quickstart.ipynb" in house  # what lies beside docs/ leads to the repository


def test_the_address_is_moved_everywhere(tmp_path):
    for name in ("notebooks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("setup.cfg", "README.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    moved = ["make", "address", "URL=https://github.com/somebody/elsewhere"]
    subprocess.run(moved, cwd=tmp_path, check=True, capture_output=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in (".png", ".jpg")]
    texts = {path.name: path.read_text() for path in files}
    assert not [name for name, text in texts.items() if "OWNER/sspd_jax" in text]
    assert "url = https://github.com/somebody/elsewhere" in texts["setup.cfg"]
    quickstart = texts["quickstart.ipynb"]
    assert "/github/somebody/elsewhere/blob/main/notebooks/quickstart.ipynb" in quickstart
    assert "git+https://github.com/somebody/elsewhere" in quickstart
    bare = subprocess.run(["make", "address"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert bare.returncode != 0 and "say which" in bare.stdout

"""The examples in docstrings: each is run, and prints what it says."""

import ast
import doctest
import inspect
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "sspd_jax").rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # one opens the network in data/
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(import_module(name), optionflags=options)
    assert result.attempted and not result.failed


ALSO = {
    "sspd_jax.heart_rate.beats.beat_rate",
    "sspd_jax.heart_rate.classical.read_trace",
    "sspd_jax.heart_rate.estimators.estimate",
    "sspd_jax.heart_rate.rate.fundamental_rate",
    "sspd_jax.heart_rate.rate.spectral_peak_rate",
    "sspd_jax.heart_rate.rate.wavelet_peak_rate",
}


def pages() -> Iterator[tuple[str, list[ast.Module]]]:
    """Yield what each notebook and page has of Python; a signature that is shown alone is none."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        lines = ([line for line in cell["source"] if not line.startswith(("%", "!"))] for cell in cells)
        yield path.name, [ast.parse("".join(cell)) for cell in lines]
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        trees = []
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            try:
                trees.append(ast.parse(block))
            except SyntaxError:
                continue
        yield path.name, trees


def names_of_ours(trees: list[ast.Module]) -> Iterator[str]:
    """Yield the dotted names that lead into the package."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    known = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for name in node.names:
                top = name.name.partition(".")[0]
                known[name.asname or top] = name.name if name.asname else top
        elif isinstance(node, ast.ImportFrom):
            known |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    for node in nodes:
        first, parts = node, []
        while isinstance(first, ast.Attribute):
            parts.insert(0, first.attr)
            first = first.value
        if isinstance(first, ast.Name) and known.get(first.id, "").partition(".")[0] == "sspd_jax":
            yield ".".join([known[first.id], *parts])


def is_there(name: str) -> bool:
    """Say whether a dotted name leads to something; what follows a class or a function is not looked at."""
    parts = name.split(".")
    value = import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not inspect.ismodule(value):
            return True
        try:
            value = getattr(value, part, None) or import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            return False
    return True


def test_whatever_a_page_names_is_there():
    """A function that moved is noticed here, not after minutes in a notebook's kernel."""
    moved = (
        "from sspd_jax.evaluation import figures, nothing\nfigures.embed(1)\nfigures.draw_training(nothing)\n"
    )
    assert [name for name in names_of_ours([ast.parse(moved)]) if not is_there(name)] == [
        "sspd_jax.evaluation.figures.embed",
        "sspd_jax.evaluation.nothing",
    ]
    for page, trees in pages():
        assert not [name for name in names_of_ours(trees) if not is_there(name)], page


def functions_that_pages_name() -> dict[str, str]:
    """Return function, under the name where it is defined → a page that names it."""
    found = {}
    for page, trees in pages():
        for name in names_of_ours(trees):
            module, _, attribute = name.rpartition(".")
            try:
                value = getattr(import_module(module), attribute, None) if module else None
            except ModuleNotFoundError:  # an attribute of a class or a function
                continue
            if inspect.isfunction(value := inspect.unwrap(value)):
                found[f"{value.__module__}.{value.__name__}"] = page
    return found


def test_every_function_that_a_page_calls_has_an_example():
    named = functions_that_pages_name()
    assert {"sspd_jax.read", "sspd_jax.training.config.load"} < set(named)
    examples = {
        test.name
        for name in MODULES
        for test in doctest.DocTestFinder().find(import_module(name))
        if test.examples
    }
    missing = (set(named) | ALSO) - examples
    assert not missing, [f"{name} ({named.get(name)})" for name in missing]

"""The examples in docstrings: each is run, and prints what it says."""

import doctest
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


def test_what_people_call_has_an_example():
    examples = {
        test.name
        for name in MODULES
        for test in doctest.DocTestFinder().find(import_module(name))
        if test.examples
    }
    functions = (
        "sspd_jax.read",
        "sspd_jax.load",
        "sspd_jax.watch",
        "classical.read_trace",
        "beats.beat_rate",
        "estimators.estimate",
        "self_similarity.similarity_matrix",
        "self_similarity.similarity_wave",
        "spectrum.snr",
        "losses.negative_pearson",
        "config.load",
    )
    rates = ("spectral_peak_rate", "fundamental_rate", "wavelet_peak_rate")
    for name in (*functions, *(f"rate.{rate}" for rate in rates)):
        assert any(example.endswith(name) for example in examples), name

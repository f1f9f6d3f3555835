"""Examples in docstrings are run: those of functions that the README and the notebooks call."""

import doctest
import importlib

import pytest

MODULES = (
    "sspd_jax.checkpoints.renamed_keys",
    "sspd_jax.method.losses",
    "sspd_jax.method.self_similarity",
    "sspd_jax.method.spectrum",
    "sspd_jax.training.config",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    # Decorated functions keep their docstrings: what jaxtyping wraps is found by the module's own names.
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0, f"{name} has no example"
    assert found.failed == 0

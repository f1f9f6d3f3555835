"""Settings that every test shares: strict dtypes, eight virtual devices, shapes checked at call time."""

import os
from pathlib import Path

import jax
import jaxtyping
import pytest

# Before the backend starts: one machine's cores pose as eight devices for the parallel tests.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Before anything imports them. `shape_checks` is beside this file.
jaxtyping.install_import_hook(["sspd_jax.method", "sspd_jax.train_step"], "shape_checks.checked")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_file(name: str) -> Path:
    """Return a file that belongs to others and is only tested against, or skip the test."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here: it belongs to others and is not shipped")
    return path


@pytest.fixture(scope="session")
def published_weights() -> Path:
    return shared_file("reference/ubfc.pth")


@pytest.fixture(scope="session")
def real_face() -> Path:
    return shared_file("real/face.mp4")


@pytest.fixture(scope="module")
def quick_compilation():
    """Compile without optimising: for networks so small that compiling takes longer than running."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def in_repository(monkeypatch) -> Path:
    """Run the test from the repository's root, as a user would."""
    root = Path(__file__).resolve().parents[1]
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])))
    return root

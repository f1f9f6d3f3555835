"""Settings that every test shares: strict dtypes, eight virtual devices, shapes checked at call time."""

import os
import signal

import fsspec
import hypothesis
import jax
import jaxtyping
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from jax.experimental.compilation_cache import compilation_cache

# Two processes of tests share two cores: in each, a second thread of a matrix product waits more than it
# works. Those that this process starts read it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The user's own cache is not for tests, nor is what it holds: neither here nor in processes of theirs.
os.environ["SSPD_JAX_CACHE"] = ""
# Where tests run in the background interrupts are ignored, in processes of theirs too, which wait for one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Before the backend starts: one machine's cores pose as eight devices for the parallel tests.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Before anything imports them. `shape_checks` is beside this file.
jaxtyping.install_import_hook(["sspd_jax.method", "sspd_jax.training.step"], "shape_checks.checked")

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def bucket(monkeypatch):
    """Paths on gs:// lie in memory; returns the store, path → file."""
    there = MemoryFileSystem()
    there.store, there.pseudo_dirs = {}, [""]
    systems = {"file": fsspec.filesystem("file")}
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: systems.get(name, there))
    return there.store


@pytest.fixture(scope="module")
def quick_compilation():
    """Compile without optimising: for networks so small that compiling takes longer than running."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What tells the processes that a module starts to share their compiled programs."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def kept_programs(compiled):
    """Keep what this process compiles, too, where runs of one module compile the same again and again."""
    settings = {
        "jax_compilation_cache_dir": compiled["JAX_COMPILATION_CACHE_DIR"],
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at the settings once
    yield compiled
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def pytest_terminal_summary(terminalreporter):
    """Print what the fuzz tests counted, by command."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    rows = [value for report in reports for name, value in report.user_properties if name == "fuzz"]
    if rows:
        terminalreporter.section("damaged files")
        for row in sorted(rows, key=lambda row: row["command"]):
            terminalreporter.write_line(", ".join(f"{name} {value}" for name, value in row.items()))

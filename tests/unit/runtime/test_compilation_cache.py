"""Programs kept on disk: where, for whom, and that trouble with them costs time only."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import platformdirs
import pytest

from sspd_jax.cli import common
from sspd_jax.runtime import compilation_cache

ROOT = Path(__file__).parents[3]
# Keeps even what compiles at once; says how many programs came from disk.
PROGRAM = """
import jax, jax.numpy as jnp
from sspd_jax.cli import common
from sspd_jax.runtime import compilation_cache

compilation_cache.LEAST_S = 0
hits = []
jax.monitoring.register_event_listener(lambda name, **_: name.endswith("cache_hits") and hits.append(name))

def work(args):
    print(compilation_cache.enable())
    print(float(jax.jit(lambda x: jnp.sin(x) + x)(0.5)), len(hits))

common.start(common.make_parser("cached", None), work, [])
"""


@pytest.fixture
def no_cache(monkeypatch):
    """JAX's own settings are put back afterwards."""
    before = {
        name: getattr(jax.config, name)
        for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    }
    yield
    compilation_cache._folder = None
    for name, value in before.items():
        jax.config.update(name, value)


def run(**variables):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_next_process_reads_what_the_last_one_compiled(tmp_path):
    first, second = run(SSPD_JAX_CACHE=str(tmp_path)), run(SSPD_JAX_CACHE=str(tmp_path))
    where, result = first.stdout.splitlines()
    assert where == str(tmp_path / compilation_cache.processor())
    assert list(Path(where).iterdir())
    value, hits = result.split()
    assert hits == "0" and second.stdout.split()[1] == value and int(second.stdout.split()[2]) >= 1
    # Damaged, it is as if it were not there, and nobody is bothered.
    for file in Path(where).glob(compilation_cache.PROGRAMS):
        file.write_bytes(file.read_bytes()[:-20])
    third = run(SSPD_JAX_CACHE=str(tmp_path))
    assert third.returncode == 0 and third.stderr == "" and third.stdout == first.stdout


def programs(folder):
    return {path.name for path in folder.glob(compilation_cache.PROGRAMS)}


@pytest.fixture
def kept(tmp_path, monkeypatch, no_cache):
    """A folder of two signed programs, in a user's own cache."""
    monkeypatch.setenv("SSPD_JAX_CACHE", str(tmp_path / "cache"))
    folder = Path(compilation_cache.enable())
    for name in ("a-cache", "b-cache"):
        (folder / name).write_bytes(name.encode() * 100)
    compilation_cache.sign()
    jax.config.update("jax_compilation_cache_dir", None)
    return folder


def test_a_program_with_one_flipped_bit_is_never_run(kept):
    data = bytearray((kept / "a-cache").read_bytes())
    data[17] ^= 4
    (kept / "a-cache").write_bytes(data)
    assert compilation_cache.enable() is not None and programs(kept) == {"b-cache"}


def test_a_program_of_somebody_else_is_never_run(kept, tmp_path, monkeypatch):
    (kept / "c-cache").write_bytes(b"without a signature")
    shutil.copy(kept / "b-cache", kept / "a-cache")  # a signed one under another's name
    assert compilation_cache.enable() is not None and programs(kept) == {"b-cache"}
    jax.config.update("jax_compilation_cache_dir", None)
    # The whole folder, a work directory's say, comes from another user.
    shutil.copytree(tmp_path / "cache", tmp_path / "theirs")
    monkeypatch.setenv("SSPD_JAX_CACHE", str(tmp_path / "mine"))
    where = Path(compilation_cache.enable(tmp_path / "theirs"))
    assert where.parent == tmp_path / "theirs" and programs(where) == set()


def test_a_key_that_others_can_read_signs_nothing(kept, tmp_path):
    (tmp_path / "cache" / compilation_cache.KEY).chmod(0o644)
    assert compilation_cache.enable() is None


def test_the_users_cache_folder_is_the_default(monkeypatch, tmp_path):
    monkeypatch.delenv("SSPD_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    where = compilation_cache.default_directory()
    assert where == platformdirs.user_cache_path("sspd_jax", appauthor=False)
    if sys.platform == "linux":
        assert where == tmp_path / "sspd_jax"
    monkeypatch.setenv("SSPD_JAX_CACHE", "~/here")
    assert compilation_cache.default_directory() == Path.home() / "here"


def test_a_folder_that_cannot_be_written_is_not_used(monkeypatch, tmp_path, no_cache):
    (tmp_path / "file").write_text("no folder")
    assert compilation_cache.enable(tmp_path / "file" / "cache") is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert compilation_cache.enable(tmp_path / "cache") is None
    assert jax.config.jax_compilation_cache_dir is None


def test_the_filters_of_warnings_are_the_programs_own(tmp_path, no_cache):
    before = list(warnings.filters)
    assert compilation_cache.enable(tmp_path) is not None
    assert common.start(common.make_parser("command", None), lambda args: None, []) == 0
    assert warnings.filters == before


def test_nothing_is_kept_where_the_user_wants_nothing(monkeypatch, no_cache):
    monkeypatch.setenv("SSPD_JAX_CACHE", "")
    assert compilation_cache.default_directory() is None and compilation_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_cache_that_jax_was_told_of_is_used(tmp_path, no_cache):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "told"))
    assert str(compilation_cache.enable(tmp_path / "other")) == str(tmp_path / "told")
    assert not (tmp_path / "other").exists()


def test_processors_differ_by_their_instructions(monkeypatch, tmp_path):
    names = []
    for flags in ("fpu sse2", "fpu sse2 avx512f"):
        info = tmp_path / "cpuinfo"
        info.write_text(f"processor\t: 0\nmodel name\t: One\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
        monkeypatch.setattr(compilation_cache, "CPU_INFO", info)
        names.append(compilation_cache.processor())
    monkeypatch.setattr(compilation_cache, "CPU_INFO", tmp_path / "none")
    names.append(compilation_cache.processor())
    assert len(set(names)) == 3

"""Compiled programs kept on disk, so that the next process reads what this one took seconds to compile.

JAX's persistent compilation cache, in a place where a user would look for it, free to be deleted at any time:
`SSPD_JAX_CACHE` names a folder, or, empty, keeps nothing; without it, it is the user's cache folder
(`~/.cache/sspd_jax` on Linux, or under `XDG_CACHE_HOME`). Where JAX itself was told of a cache
(`JAX_COMPILATION_CACHE_DIR`), that one is used. Whatever goes wrong with it costs time, never the work.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from pathlib import Path

import jax
import platformdirs
from etils import epath

from sspd_jax.runtime import storage

VARIABLE = "SSPD_JAX_CACHE"
LEAST_S = 0.5  # what compiles in less is not kept: it would be many small files for little
CPU_INFO = Path("/proc/cpuinfo")


def default_directory() -> Path | None:
    """Return the folder of programs unless a caller names another; None where the user wants none kept."""
    variable = os.environ.get(VARIABLE)
    try:
        if variable is None:
            folder = platformdirs.user_cache_path("sspd_jax", appauthor=False)
            # A user whom the system does not know, in a container, has no home; then '~' stays as it is.
            return folder if folder.is_absolute() else None
        return Path(variable).expanduser().absolute() if variable else None
    except RuntimeError:  # the home directory cannot be found
        return None


def enable(directory: epath.PathLike | None = None) -> epath.Path | None:
    """Keep what is compiled from here on, and read what was kept, in this whole process.

    This sets JAX's configuration. It is for commands and whole runs; importing sets nothing. Of a full disk
    or a damaged file JAX warns, compiles and goes on; commands do not show it (`cli.common.start`).

    Programs for one processor can crash on another, and JAX's keys need not tell CPUs apart: each kind has a
    folder of its own. What is in the folder is run; it is made for this user alone.

    Args:
      directory: A local or remote folder; by default `default_directory()`.

    Returns:
      The folder in use; None where none is wanted, or it cannot be written.
    """
    if jax.config.jax_compilation_cache_dir:
        return epath.Path(jax.config.jax_compilation_cache_dir)
    directory = default_directory() if directory is None else directory
    if directory is None:
        return None
    folder = epath.Path(directory) / processor()
    if not storage.is_remote(folder):
        try:
            Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True)
        except OSError:
            return None
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return None
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_S)
    return folder


def processor() -> str:
    """Name the kind of processor: its architecture, and a hash of its model and instruction sets."""
    try:
        text = CPU_INFO.read_text()
    except OSError:
        text = ""
    # Of the first core; x86 and ARM name them differently.
    lines = re.findall(r"^(?:model name|flags|CPU part|Features)\s*:\s*(.*)$", text.split("\n\n")[0], re.M)
    description = "\n".join(lines) or platform.processor()
    return f"{platform.machine() or 'cpu'}-{hashlib.sha256(description.encode()).hexdigest()[:12]}"

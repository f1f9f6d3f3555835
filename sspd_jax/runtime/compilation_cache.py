"""Compiled programs kept on disk, so that the next process reads what this one took seconds to compile.

JAX's persistent compilation cache, in a place where a user would look for it, free to be deleted at any time:
`SSPD_JAX_CACHE` names a folder, or, empty, keeps nothing; without it, it is the user's cache folder
(`~/.cache/sspd_jax` on Linux, or under `XDG_CACHE_HOME`). Where JAX itself was told of a cache
(`JAX_COMPILATION_CACHE_DIR`), that one is used. Whatever goes wrong with it costs time, never the work.

A kept program is machine code that is run as it is: one flipped bit can kill the process, and a stranger's
can do anything. So each is signed with a key of this user; what is not signed, or was changed, is deleted.
"""

from __future__ import annotations

import atexit
import hashlib
import hmac
import os
import platform
import re
import secrets
import stat
from pathlib import Path

import jax
import platformdirs
from etils import epath

from sspd_jax.errors import StorageError
from sspd_jax.runtime import storage

VARIABLE = "SSPD_JAX_CACHE"
LEAST_S = 0.5  # what compiles in less is not kept: it would be many small files for little
KEY, KEY_BYTES = "key", 32
PROGRAMS = "*-cache"  # as JAX calls them
SIGNATURE = ".hmac"  # added to a program's name
CPU_INFO = Path("/proc/cpuinfo")


_folder: Path | None = None  # the local one in use; JAX's own setting is the user's affair


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
    folder of its own. In a local folder, programs that this user's processes did not sign are deleted first;
    a remote one is trusted as it is.

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
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK) or (key := _key()) is None:
                return None
            _delete_unsigned(Path(folder), key)
        except OSError:
            return None
        global _folder
        _folder = Path(folder)
        atexit.register(sign)
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_S)
    return folder


def sign() -> None:
    """Sign the programs that this user's processes have put into the local folder in use.

    It is done at the process's end, and is to be done after long compilations: what a kill leaves unsigned
    is compiled anew.
    """
    if _folder is None or not (key := _key()):
        return
    for program in _folder.glob(PROGRAMS):
        try:
            signed = _signature_file(program).exists()
            if not signed and program.stat().st_uid == os.geteuid():
                storage.write_text(_signature_file(program), _signature(program, key))
        except (OSError, StorageError):
            continue  # it is compiled anew


def _delete_unsigned(folder: Path, key: bytes) -> None:
    for program in folder.glob(PROGRAMS):
        try:
            said = _signature_file(program).read_text(errors="replace").encode()
        except OSError:
            said = b""
        if not hmac.compare_digest(said, _signature(program, key).encode()):
            program.unlink(missing_ok=True)
            _signature_file(program).unlink(missing_ok=True)


def _signature_file(program: Path) -> Path:
    return program.with_name(program.name + SIGNATURE)


def _signature(program: Path, key: bytes) -> str:
    data = program.read_bytes()
    return hmac.new(key, program.name.encode() + b"\0" + data, hashlib.sha256).hexdigest()


def _key() -> bytes | None:
    """Return this user's key, made on first use; None where it cannot be kept, or others could know it."""
    try:
        folder = default_directory() or platformdirs.user_cache_path("sspd_jax", appauthor=False)
        if not folder.is_absolute():
            return None
        path = folder / KEY
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = path.with_name(f".{KEY}.{os.getpid()}")
            aside.touch(mode=0o600)
            aside.write_bytes(secrets.token_bytes(KEY_BYTES))
            aside.replace(path)
        status, key = path.stat(), path.read_bytes()
    except (OSError, RuntimeError):
        return None
    is_own = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
    return key if is_own and len(key) == KEY_BYTES else None


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

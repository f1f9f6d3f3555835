"""How files are written: aside and renamed; what cannot be written raises an error with a remedy."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from etils import epath

from sspd_jax.errors import StorageError, UserError

MOST_LINKS = 40  # as the system has it
LONGEST_NAME = 255  # bytes of a file's name


def is_remote(path: epath.PathLike) -> bool:
    """Return whether a path is on remote storage, such as 'gs://…'."""
    return "://" in os.fspath(path)


def absolute(path: epath.Path) -> epath.Path:
    """Return a path that holds wherever the process goes; a remote one is such already."""
    # Not `path.absolute()`, which etils has from 1.14 on only.
    return path if is_remote(path) else epath.Path(Path(path).absolute())


def aside(path: epath.Path, suffix: str = "") -> epath.Path:
    """Return the path, beside it, under which a file is written until it is complete.

    Args:
      path: Where the file is to be.
      suffix: How the name ends where what writes it goes by that.
    """
    name = f".{path.name}.partial{suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.partial{suffix}"
    return path.parent / name


def write_text(path: epath.PathLike, text: str, *, otherwise: str = "choose another place") -> None:
    """Write a text file, in UTF-8; bytes of file names that are none stay as they are. See `write_bytes`."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), otherwise=otherwise)


def write_texts(folder: epath.Path, texts: Mapping[str, str]) -> None:
    """Write text files (name → text) into a folder, which is made if it is not there; see `write_bytes`."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)


def write_bytes(path: epath.PathLike, data: bytes, *, otherwise: str = "choose another place") -> None:
    """Write a file; it appears under its name when it is complete, in place of one that was there.

    Devices, pipes and sockets are written through, a link's target is written and the link stays.

    Args:
      path: The file, local or remote.
      data: Its content.
      otherwise: The remedy, see `storing`.

    Raises:
      StorageError: It cannot be written.
    """
    path = epath.Path(path)
    with storing(path, otherwise):
        if is_remote(path):  # objects appear when they are complete
            path.write_bytes(data)
            return
        target = _behind_links(Path(path))
        if target is None:
            with Path(path).open("ab") as file:
                file.write(data)
            return
        path = epath.Path(target)
        partial = aside(path)
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def check_name(path: epath.PathLike) -> None:
    """Check that a file can be called so, before the work that would be lost.

    Raises:
      StorageError: The system takes no such name.
    """
    if not is_remote(path):
        usual = (FileNotFoundError, NotADirectoryError, PermissionError)
        with storing(path, errors=(OSError, ValueError)), suppress(*usual):
            Path(path).lstat()


def file_behind(path: epath.PathLike) -> Path:
    """Return the file on a disk that a local path leads to, for what can be written to a disk alone.

    Raises:
      StorageError: It is a device, a pipe or a socket.
    """
    check_name(path)
    target = _behind_links(Path(path))
    if target is None:
        raise StorageError(f"{path}: cannot be written (it is no file on a disk); choose another place")
    return target


def is_stream(path: epath.PathLike) -> bool:
    """Return whether what is written to a path goes through it, as with a device or a pipe."""
    return not is_remote(path) and _behind_links(Path(path)) is None


def _behind_links(path: Path) -> Path | None:
    """Return the file that a path leads to; None where it is no file on a disk but a stream."""
    for _ in range(MOST_LINKS):
        if str(path).startswith(("/dev/", "/proc/")) and path.exists():
            return None  # also where standard output is a file: what it holds must stay
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    if path.exists() and not path.is_file() and not path.is_dir():
        return None
    return path


@contextmanager
def storing(
    path: epath.PathLike,
    otherwise: str = "choose another place",
    errors: tuple[type[Exception], ...] = (OSError, RuntimeError),
) -> Iterator[None]:
    """Turn what goes wrong while writing into a `StorageError` that names the path and the remedy.

    Args:
      path: What is written, for the message.
      otherwise: The remedy where the reason is another one than missing room.
      errors: What failed writing raises: ArrayRecord raises RuntimeError, with the reason in its text.

    Raises:
      StorageError: One of `errors` was raised in the block.
    """
    try:
        yield
    except StorageError:
        raise
    except errors as error:
        reason = _reason(error)
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if reason in (os.strerror(code).lower() for code in full):
            remedy = "make room and run again: what is finished stays"
        else:
            remedy = otherwise
        raise StorageError(f"{path}: cannot be written ({reason}); {remedy}") from error


@contextmanager
def alone_in(folder: epath.Path, otherwise: str, taken: str) -> Iterator[None]:
    """Keep every other process out of a folder, until the block, or this process, ends.

    Remote storage, and file systems without locks, keep nobody out.

    Args:
      folder: An existing one.
      otherwise: See `storing`.
      taken: What is said of it, after its name, where another process is in it.

    Raises:
      UserError: Another process is in it.
      StorageError: It cannot be opened.
    """
    if is_remote(folder):
        yield
        return
    with storing(folder, otherwise, (OSError,)):
        lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: {taken}") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(lock)


def _reason(error: Exception) -> str:
    """Say why writing failed: the system's words where they can be found."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    if code := re.search(r"os_error_code='(\d+)'", text):  # TensorStore
        return os.strerror(int(code[1])).lower()
    if found := re.search(r"failed: ([^;]+)", text):  # ArrayRecord
        return found[1][:200].lower()
    return text[:200].lower()

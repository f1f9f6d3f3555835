"""What goes wrong in a way that a user can mend: one sentence, and the exit code of a command that ends so.

Exit codes: 0 done; 1 the work failed; 2 wrong arguments or configuration.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

DONE, FAILED, MISUSED = 0, 1, 2


class UserError(Exception):
    """Something the user can mend; its text is one sentence naming the file and the remedy."""

    exit_code = FAILED


class ConfigError(UserError):
    """A wrong argument or configuration value; its text names the value and what is allowed."""

    exit_code = MISUSED


class StorageError(UserError):
    """Something cannot be written; nothing that was read is to blame."""


TRAIN_MODULES = frozenset(
    {
        "absl",
        "array_record",
        "flatbuffers",
        "flax",
        "grain",
        "h5py",
        "jax",
        "jaxlib",
        "jaxtyping",
        "ml_collections",
        "optax",
        "orbax",
        "pandas",
        "tensorboardX",
        "tensorflow_datasets",
    }
)
"""What the extra [train] installs, by the names that are imported."""


def lacking(error: BaseException) -> UserError | None:
    """Say what to install, where `error` is the import of a package that reading does without; else None."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in TRAIN_MODULES:
        return None
    return UserError(
        f"the package {package} is not installed: reading does without it, this does not; "
        "run `pip install 'sspd_jax[train]'`"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the known key nearest to an unknown one, or nothing."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""

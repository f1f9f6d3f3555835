"""What goes wrong in a way that a user can mend: one sentence, and the exit code of a command that ends so.

Exit codes: 0 done; 1 the work failed; 2 wrong arguments or configuration.
"""

from __future__ import annotations

DONE, FAILED, MISUSED = 0, 1, 2


class UserError(Exception):
    """Something the user can mend; its text is one sentence naming the file and the remedy."""

    exit_code = FAILED


class ConfigError(UserError):
    """A wrong argument or configuration value; its text names the value and what is allowed."""

    exit_code = MISUSED


class StorageError(UserError):
    """Something cannot be written; nothing that was read is to blame."""

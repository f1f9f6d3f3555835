"""What a process must not do with others: go on with threads that a fork tore, start again what starts it.

JAX computes in threads of its own. A process that is forked from one that has computed has none of them, and
waits for them for ever at its first larger computation.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sspd_jax.errors import UserError

_GUARD = re.compile(r"""__name__\s*==\s*["']__main__["']|["']__main__["']\s*==\s*__name__""")
_torn = False  # this process was forked from one in which JAX had its threads already


def jax_has_begun() -> bool:
    """Tell whether JAX has started its threads in this process; imports nothing."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is None:
        return False
    try:
        return bool(bridge.backends_are_initialized())
    except AttributeError:  # another version of JAX: better too careful than hanging
        return True


def require_whole() -> None:
    """Refuse to compute in a process in which that would hang.

    Raises:
      UserError: The process was forked after JAX had begun to compute.
    """
    if _torn:
        raise UserError(
            f"process {os.getpid()} was forked from one that had already computed with JAX, whose threads "
            'no fork survives: make the pool of multiprocessing.get_context("spawn") '
            "(ProcessPoolExecutor(mp_context=…)), or fork before the first reading"
        )


def script_without_guard() -> Path | None:
    """Return the script that runs, where starting a process by spawn would run all of it again; else None."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:
        return None  # a prompt or notebook, or `python -m`
    path = Path(file)
    try:
        return None if _GUARD.search(path.read_text(errors="replace")) else path
    except OSError:
        return None


def _after_fork() -> None:
    global _torn
    _torn = _torn or jax_has_begun()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)

"""What every command shares: one sentence and an exit code for what goes wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from sspd_jax.errors import DONE, FAILED, UserError


def run(work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run `work` and turn what goes wrong into a sentence on stderr and an exit code.

    Args:
      work: does the job; may return an exit code (None means done).
      debug: let the traceback of a failure be printed before the sentence.

    Returns:
      The exit code for `sys.exit`.
    """
    try:
        return work() or DONE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `… | head` has seen enough; nobody is left to tell
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush complains
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        what = " ".join(str(error).split())[:300] or "no further detail"
        hint = "" if debug else " (--debug shows where)"
        print(f"error: unexpected {type(error).__name__}: {what}{hint}", file=sys.stderr)
        return FAILED

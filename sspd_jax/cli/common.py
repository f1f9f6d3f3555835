"""What every command shares: its parser, and one sentence and an exit code for what goes wrong."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from sspd_jax.errors import DONE, FAILED, UserError


def make_parser(module: str, doc: str | None, **options: Any) -> argparse.ArgumentParser:
    """Make the parser of a command, which has no arguments yet.

    Args:
      module: The command's `__name__`; its last part is what people type.
      doc: The command's docstring: the help shows it as it is.
      **options: Options of `argparse.ArgumentParser`.
    """
    options = {"prog": f"sspd_jax {module.rpartition('.')[2]}", "allow_abbrev": False, **options}
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )


def start(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
    *,
    allow_unknown: bool = False,
) -> int:
    """Parse a command's arguments and do its work.

    Args:
      parser: Parser with all arguments but --debug.
      work: Function that does the job, see `run`.
      argv: Arguments without the program's name; by default the process's own.
      allow_unknown: Whether to give `work` the arguments that the parser does not know, as `args.unknown`,
        instead of refusing them.

    Returns:
      The exit code for `sys.exit`.
    """
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args, args.unknown = parser.parse_known_args(argv)
    if args.unknown and not allow_unknown:
        parser.error(f"unrecognized arguments: {' '.join(args.unknown)}")
    with warnings.catch_warnings():
        # A full disk or a damaged file costs time, never the work: nobody who types a command needs to act.
        said = "Error (reading|writing) persistent compilation cache entry"
        warnings.filterwarnings("ignore", said, UserWarning, r"jax\._src\.compiler")
        return run(lambda: work(args), debug=args.debug)


def run(work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run `work` and turn what goes wrong into a sentence on stderr and an exit code.

    Args:
      work: Function that does the job; it may return an exit code (None means done).
      debug: Whether to print the traceback of a failure before the sentence.

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

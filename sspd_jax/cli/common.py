"""What every command shares: its parser, and one sentence and an exit code for what goes wrong."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from sspd_jax.errors import DONE, FAILED, StorageError, UserError, lacking
from sspd_jax.runtime import text


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


class Renamed(argparse.Action):
    """An option's earlier name: it keeps working, and the new one, that of `dest`, is said."""

    def __call__(
        self, _: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Store the value under the new name."""
        print(f"note: {option_string} is called --{self.dest} now", file=sys.stderr)
        setattr(namespace, self.dest, values)


def start(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
    *,
    allow_unknown: bool = False,
    goes_on: str = "",
) -> int:
    """Parse a command's arguments and do its work.

    Args:
      parser: Parser with all arguments but --debug.
      work: Function that does the job, see `run`.
      argv: Arguments without the program's name; by default the process's own.
      allow_unknown: Whether to give `work` the arguments that the parser does not know, as `args.unknown`,
        instead of refusing them.
      goes_on: What an interruption leaves and which command goes on, for the sentence that it ends with.

    Returns:
      The exit code for `sys.exit`.
    """
    text.use_any_terminal()
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args, args.unknown = parser.parse_known_args(argv)
    if args.unknown and not allow_unknown:
        parser.error(f"unrecognized arguments: {' '.join(args.unknown)}{_did_you_mean(parser, args.unknown)}")
    with warnings.catch_warnings():
        # A full disk or a damaged file costs time, never the work: nobody who types a command needs to act.
        said = "Error (reading|writing) persistent compilation cache entry"
        warnings.filterwarnings("ignore", said, UserWarning, r"jax\._src\.compiler")
        return run(lambda: work(args), debug=args.debug, goes_on=goes_on)


def _did_you_mean(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> str:
    """Name the option nearest to the first unknown one, or nothing."""
    known = [option for action in parser._actions for option in action.option_strings]
    name = next((argument.partition("=")[0] for argument in unknown if argument.startswith("--")), "")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7) if name else []
    return f"; did you mean {close[0]}?" if close else ""


def run(
    work: Callable[[], int | None],
    *,
    debug: bool = False,
    goes_on: str = "",
    failures: list[str] | None = None,
) -> int:
    """Run `work` and turn what goes wrong into a sentence on stderr and an exit code.

    Args:
      work: Function that does the job; it may return an exit code (None means done).
      debug: Whether to print the traceback of a failure before the sentence.
      goes_on: See `start`.
      failures: Is told the sentence. Where it is given, this is one piece of a larger work, and an
        interruption, which ends all of it, is raised.

    Returns:
      The exit code for `sys.exit`.
    """
    text.use_any_terminal()
    try:
        code = work() or DONE
        if failures is None and (why := text.why_not_printed()):
            raise StorageError(f"standard output: cannot be written ({why}); make room, or print elsewhere")
        return code
    except (KeyboardInterrupt, BrokenPipeError) as error:
        if failures is not None:
            raise
        if isinstance(error, BrokenPipeError):  # `… | head` has seen enough; nobody is left to tell
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush complains
            return FAILED
        print(f"interrupted{goes_on and '; '}{goes_on}", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        error = lacking(error) or error
        if isinstance(error, UserError):
            sentence, code, hint = text.printable(str(error)), error.exit_code, ""
        else:
            what = " ".join(str(error).split())[:300] or "no further detail"
            sentence, code = f"unexpected {type(error).__name__}: {what}", FAILED
            hint = "" if debug else " (--debug shows where)"
        if failures is not None:
            failures.append(sentence)
        print(f"error: {sentence}{hint}", file=sys.stderr)
        return code

"""Names that others chose, written where they can do no harm: terminals of any encoding, spreadsheets."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

PLAIN = str.maketrans(
    {
        "–": "-",
        "—": "-",
        "−": "-",
        "…": "...",
        "×": "x",
        "±": "+/-",
        "·": "*",
        "→": "->",
        "▶": ">",
        "≥": ">=",
        "≤": "<=",
        "’": "'",
        "“": '"',
        "”": '"',
        "█": "#",
        "₂": "2",
        "²": "2",
    }
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet compute a cell that begins with it."""


STEERING = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\r\t\b"
}
"""What moves a terminal's cursor, colours it or turns its text round: it is printed as its escape."""


class _Unsteered(io.TextIOWrapper):
    """Standard output or error whose text, names of strangers in it, does not steer a terminal."""

    def write(self, text: str) -> int:
        super().write(text.translate(STEERING))
        return len(text)


class _Lasting(io.RawIOBase):
    """Standard output or error that takes what is printed also where there is no room for it.

    What was to be read on a full disk is lost; the work that goes on is not.
    """

    def __init__(self, raw: io.FileIO):
        self._raw, self.why = raw, ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: Any) -> int:
        try:
            return self._raw.write(data)
        except BrokenPipeError:  # nobody reads any more: that ends a command
            raise
        except OSError as error:
            self.why = self.why or (error.strerror or str(error)).lower()
            return len(data)


def why_not_printed() -> str:
    """Say why something that was printed did not reach standard output; '' where all did."""
    try:
        sys.stdout.flush()
        buffer = sys.stdout.buffer
        return getattr(buffer, "raw", buffer).why
    except AttributeError:  # another program's stream
        return ""


def use_any_terminal() -> None:
    """Let whatever is printed reach stdout and stderr, in letters that their encoding has.

    Where they are closed or full, the command works on. What would steer a terminal is escaped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: the next file would get its number, and what C prints
            _open_nowhere(number)
            nowhere = open(os.devnull, "w" if number else "r")  # noqa: SIM115, PTH123
            setattr(sys, name, nowhere)
            setattr(sys, f"__{name}__", nowhere)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        if type(stream) is io.TextIOWrapper and isinstance(getattr(buffer, "raw", buffer), io.FileIO):
            settings = ("encoding", "errors", "line_buffering", "write_through")
            settings = {key: getattr(stream, key) for key in settings}
            stream.flush()  # and it stays: who logs has it
            lasting = _Lasting(getattr(buffer, "raw", buffer))
            buffer = io.BufferedWriter(lasting) if hasattr(buffer, "raw") else lasting  # as with python -u
            setattr(sys, name, _Unsteered(buffer, **settings))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors in (
            "strict",
            "surrogateescape",
            "backslashreplace",
        ):
            stream.reconfigure(errors="sspd_jax.plain")


def _open_nowhere(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.close(opened)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("sspd_jax.plain", _plain)


def printable(text: str) -> str:
    r"""Escape what would steer a terminal or begin a line: control characters, ESC, newlines.

    Example:
      >>> printable("a\x1b[2Jb – c.mp4")
      'a\\x1b[2Jb – c.mp4'
    """
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def drawable(text: str) -> str:
    r"""Write a file's name so that it can be drawn: bytes that are no letters are escaped, and what steers.

    Example:
      >>> drawable("caf\udce9\n.mp4")
      'caf\\udce9\\n.mp4'
    """
    return printable(text.encode("utf-8", "backslashreplace").decode())


def templates(package: str) -> jinja2.Environment:
    """Open a package's folder `templates` of HTML pages, in which whatever is put in is escaped.

    Args:
      package: its dotted name.
    """
    import jinja2  # 0.1 s, which a command that writes no page need not wait for

    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def percent(share: float) -> str:
    """Write a chance in percent: what is not quite certain never reads as if it were.

    Example:
      >>> percent(0.876), percent(0.999), percent(0.002), percent(0.0)
      ('88%', '>99%', '<1%', '0%')
    """
    if 0.995 <= share < 1:
        return ">99%"
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if share >= 1 else f"{share:.0%}"


def spreadsheet_safe(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would compute; numbers stay as they are.

    Example:
      >>> spreadsheet_safe("=1+1"), spreadsheet_safe("p1"), spreadsheet_safe(-1.5)
      ("'=1+1", 'p1', -1.5)
    """
    if isinstance(value, str) and value.lstrip(" '").startswith(FORMULA):
        return f"'{value}"
    return value


def from_spreadsheet(text: str) -> str:
    """Take the apostrophe of `spreadsheet_safe` off again."""
    return text[1:] if text.startswith("'") and text[1:].lstrip(" '").startswith(FORMULA) else text

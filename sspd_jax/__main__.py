"""One door to every command: `sspd_jax predict face.mp4` is `python -m sspd_jax predict face.mp4`."""

from __future__ import annotations

import difflib
import importlib
import sys

import sspd_jax
from sspd_jax.cli import common
from sspd_jax.errors import MISUSED
from sspd_jax.runtime import text

COMMANDS = {
    "predict": "estimate heart rates from videos, or say that there is no reading",
    "live": "estimate the heart rate before a camera, on a page of this computer",
    "main": "prepare, train without labels, test and report an experiment",
    "prepare": "check and prepare a dataset",
    "evaluate": "score a network or classical methods, each number with its protocol",
    "compare": "put reports beside each other",
    "study": "train and test over seeds, folds and datasets",
    "convert": "turn the authors' .pth file into a checkpoint",
    "export": "write a network for use elsewhere",
    "web": "write a web page that reads a pulse in the browser",
    "inspect": "draw a picture of every recording",
    "simulate": "write recordings with a known pulse, of simulated people or of your own footage",
    "sample": "write one short video of a face with a known pulse",
}
"""Name → what it does; its module is `sspd_jax.cli.NAME`, `main` stands beside this one."""

EARLIER_NAMES = {"inspect_recordings": "inspect", "simulator": "simulate"}
"""Names that commands had once; they keep working, and the new one is said."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first argument names.

    Args:
      argv: Arguments without the program's name; by default the process's own.

    Returns:
      The command's exit code; 2 where there is no such command.
    """
    text.use_any_terminal()
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        return common.run(lambda: print(_help()))
    if name == "--version":
        return common.run(lambda: print(f"sspd_jax {sspd_jax.__version__}"))
    if name in EARLIER_NAMES:
        print(f"note: {name} is called {EARLIER_NAMES[name]} now", file=sys.stderr)
        name = EARLIER_NAMES[name]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}"
        print(f"error: no command {name!r}{hint}", file=sys.stderr)
        return MISUSED
    module = "sspd_jax.main" if name == "main" else f"sspd_jax.cli.{name}"
    # An import may fail, too: of what [train] installs.
    return common.run(lambda: importlib.import_module(module).main(rest), debug="--debug" in rest)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sspd_jax COMMAND [ARGUMENTS]",
            "",
            "Heart rate from face video, learned without labels. Not a medical device.",
            "",
            *lines,
            "",
            "sspd_jax COMMAND --help says more; python -m sspd_jax COMMAND is the same.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

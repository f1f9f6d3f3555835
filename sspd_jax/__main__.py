"""One door to every command: `sspd_jax predict face.mp4` is `python -m sspd_jax.predict face.mp4`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import sspd_jax
from sspd_jax.command import DONE, MISUSED

COMMANDS = {
    "predict": ("sspd_jax.predict", "read heart rates from videos, or say that there is no reading"),
    "live": ("sspd_jax.live", "read a camera as it runs, on a page of this computer"),
    "main": ("sspd_jax.main", "prepare, train without labels, test and report an experiment"),
    "prepare": ("sspd_jax.prepare", "check and prepare a dataset"),
    "evaluate": ("sspd_jax.evaluate", "score a network or classical methods, each number with its protocol"),
    "compare": ("sspd_jax.compare", "put reports beside each other"),
    "study": ("sspd_jax.study", "train and test over seeds, folds and datasets"),
    "convert": ("sspd_jax.convert", "turn the authors' .pth file into a checkpoint"),
    "export": ("sspd_jax.export", "write a network for use elsewhere"),
    "inspect_recordings": ("sspd_jax.inspect_recordings", "draw a picture of every recording"),
    "simulator": ("sspd_jax.datasets.simulator", "write recordings of simulated people"),
    "sample": ("sspd_jax.video.sample", "write one short video of a face with a known pulse"),
}
"""Name → (module, what it does)."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first argument names.

    Args:
      argv: arguments without the program's name; by default the process's own.

    Returns:
      The command's exit code; 2 where there is no such command.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return DONE
    if name == "--version":
        print(f"sspd_jax {sspd_jax.__version__}")
        return DONE
    if name not in COMMANDS:
        print(f"error: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return MISUSED
    run: Callable[[list[str]], int] = importlib.import_module(COMMANDS[name][0]).main
    return run(rest)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sspd_jax COMMAND [ARGUMENTS]",
            "",
            "Heart rate from face video, learned without labels. Not a medical device.",
            "",
            *lines,
            "",
            "sspd_jax COMMAND --help says more; each is also python -m sspd_jax.COMMAND.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

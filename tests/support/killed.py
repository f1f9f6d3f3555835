"""A command of the package that is killed at chosen moments, many times, without waiting for its imports.

    python killed.py sspd_jax.cli.convert ARGUMENTS…

Each line on stdin is a time in s, after which a child that runs the command is killed, or `inf`. Each line
on stdout is how the child ended (its exit code, or minus the signal) and the seconds it lived.
"""

import importlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Command:
    """A command that can be run and killed again and again."""

    def __init__(self, module, *arguments, cwd, environment=None):
        self._said = Path(cwd, "said")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [sys.executable, __file__, module, *map(str, arguments)],
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    def run(self, kill_after_s=math.inf):
        """Run it; returns its exit code, or minus the signal, and how many seconds it lived."""
        self._process.stdin.write(f"{kill_after_s}\n")
        self._process.stdin.flush()
        code, lived_s = self._process.stdout.readline().split()
        return int(code), float(lived_s)

    @property
    def said(self):
        return self._said.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        self._process.stdout.close()


def _serve(module, arguments):
    main = importlib.import_module(module).main
    for line in sys.stdin:
        began = time.monotonic()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)  # what it starts is killed with it
            os.dup2(2, 1)
            os._exit(main(arguments))
        if math.isfinite(float(line)):
            time.sleep(float(line))
            with_it = os.getpgid(child)
            os.killpg(with_it if with_it == child else child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])

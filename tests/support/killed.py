"""A command of the package that is killed at chosen moments, many times, without waiting for its imports.

    python killed.py sspd_jax.cli.convert MORE,MODULES ARGUMENTS…

Each line on stdin is a time in s, after which a child that runs the command is killed, or `inf`. Two lines
on stdout follow: the child's id, when it begins; how it ended (its exit code, or minus the signal) and the
seconds it lived.
"""

import contextlib
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
    """A command that can be run and killed again and again.

    `imports` names what the command imports while it runs, so that no life of it spends seconds on that.
    """

    def __init__(self, module, *arguments, cwd, environment=None, imports=()):
        self._said = Path(cwd, "said")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [sys.executable, __file__, module, ",".join(imports), *map(str, arguments)],
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        self._pid = None

    def run(self, kill_after_s=math.inf):
        """Run it; returns its exit code, or minus the signal, and how many seconds it lived."""
        self.begin(kill_after_s)
        return self.end()

    def begin(self, kill_after_s=math.inf):
        """Begin to run it."""
        self._process.stdin.write(f"{kill_after_s}\n")
        self._process.stdin.flush()
        self._pid = int(self._process.stdout.readline())

    def kill(self):
        """Kill what was begun, with what it started."""
        os.killpg(self._pid, signal.SIGKILL)

    def end(self):
        """Wait for the end of what was begun; returns as `run`."""
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


def _serve(module, imports, arguments):
    main = importlib.import_module(module).main
    for more in filter(None, imports.split(",")):
        importlib.import_module(more)
    for line in sys.stdin:
        began = time.monotonic()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)  # what it starts is killed with it
            os.dup2(2, 1)
            os._exit(main(arguments))
        with contextlib.suppress(OSError):  # it may have ended
            os.setpgid(child, child)  # whoever is first: it has its group when its id is told
        print(child, flush=True)
        if math.isfinite(float(line)):
            time.sleep(float(line))
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], sys.argv[3:])

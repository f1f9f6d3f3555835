"""Files that are damaged in one way after the other while a command reads them: how many, and how it ends.

    python fuzzing.py SETTINGS.json

The settings: `files`, of which one is damaged at a time; `count`; `seed`; `command` and its `arguments`;
`output`, a path that is deleted before each. Printed: a JSON object with the inputs, those that were
refused in a sentence, and the faults.
"""

import contextlib
import io
import json
import random
import re
import shutil
import sys
import time
from pathlib import Path

PIECES = (
    b"Infinity",
    b"-inf",
    b"nan",
    b"1e400",
    b"1" + b"0" * 400,
    b'"text"',
    b"[" * 5000,
    b"\x00" * 40,
    b"\n,,,",
)
MOST_CPU_S, MOST_MB = 10.0, 1500


def mutate(data, chance):
    """Change a file in one of the ways that disks, editors and enemies have."""
    if not data:
        return b"\x00"
    data, kind, at = bytearray(data), chance.randrange(5), chance.randrange(len(data))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(chance.randrange(1, 30)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == 2:
        data[at : at + chance.randrange(1, 200)] = b""
    elif kind == 3:
        data[at : at + chance.randrange(20)] = chance.choice(PIECES)
    else:
        data[at:at] = data[at : at + 5000]
    return bytes(data)


def _end(run, arguments):
    """Run a command; returns its exit code and what it said on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = run(arguments)
        except SystemExit as error:
            code = error.code
    return code, said.getvalue()


def main(settings):
    """Damage and run, again and again."""
    from sspd_jax.__main__ import main as sspd_jax

    files, chance = [Path(name) for name in settings["files"]], random.Random(settings["seed"])
    arguments = [settings["command"], *settings["arguments"]]
    faults, refused, slowest = [], 0, 0.0
    output = Path(settings["output"])
    _end(sspd_jax, arguments)  # what is loaded and compiled once
    for number in range(settings["count"]):
        if output.is_dir():
            shutil.rmtree(output)
        output.unlink(missing_ok=True)
        path = chance.choice(files)
        whole = path.read_bytes()
        path.write_bytes(mutate(whole, chance))
        print(number, path, file=sys.stderr, flush=True)  # which one it was, if the process dies
        began = time.process_time()
        code, said = _end(sspd_jax, arguments)
        took = time.process_time() - began
        slowest = max(slowest, took)
        refused += code != 0
        if code not in (0, 1, 2) or "error: unexpected" in said or "Traceback" in said or took > MOST_CPU_S:
            faults.append([number, str(path), code, round(took, 1), said[-300:]])
        path.write_bytes(whole)
    # Not what `resource` says: that begins with the size of the process that started this one.
    most_mb = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    return {
        "inputs": settings["count"],
        "refused": refused,
        "faults": faults,
        "slowest_s": round(slowest, 2),
        "most_mb": round(most_mb),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))

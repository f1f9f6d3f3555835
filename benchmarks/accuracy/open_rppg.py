"""Read heart rates by open-rppg, in its own environment: `real_people.py` runs this with that Python.

    python -m venv DIR && DIR/bin/pip install open-rppg==0.1.1
    DIR/bin/python benchmarks/accuracy/open_rppg.py --model=FacePhys.rlap < clips.jsonl

Standard input has one JSON object a line, `{"clip": name, "file": path, "starts_s": [...], "window_s": 10}`.
For each, one line is written: the clip's name, the seconds it took, and for every window its heart rate in
bpm and its signal quality (0 to 1), both null where there is none. Nothing of sspd_jax is needed here.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time

import rppg


def number(value: object) -> float | None:
    """Return a number for JSON, None where there is none."""
    return None if value is None or not math.isfinite(value) else round(float(value), 3)


def main() -> None:
    """Read the clips of standard input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="FacePhys.rlap", choices=rppg.supported_models)
    args = parser.parse_args()
    # The library writes to standard output too: it gets standard error instead.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = rppg.Model(args.model)
    fresh = copy.deepcopy(model.state)
    for line in sys.stdin:
        clip = json.loads(line)
        began = time.monotonic()
        model.state = copy.deepcopy(fresh)  # it would begin with what the clip before left in its memory
        model.process_video(clip["file"])
        windows = []
        for start_s in clip["starts_s"]:
            found = model.hr(start_s, start_s + clip["window_s"], return_hrv=False) or {}
            windows.append([number(found.get("hr")), number(found.get("SQI"))])
        seconds = round(time.monotonic() - began, 2)
        answers.write(json.dumps({"clip": clip["clip"], "seconds": seconds, "windows": windows}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

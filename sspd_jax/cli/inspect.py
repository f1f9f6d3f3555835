"""Draw a picture of every recording, so that a person can look: face box, colours, wave, heart rate, gaps.

python -m sspd_jax inspect --dataset=pure --source=RAW --output=PICTURES [--recording=01-01 …]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sspd_jax import errors
from sspd_jax.cli import common
from sspd_jax.datasets import preparation
from sspd_jax.datasets.inspect import draw, make_overview
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Broken
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.runtime import storage
from sspd_jax.video.face_detection import DETECTORS, make_detector


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = sorted(registry.READERS)
    parser.add_argument("--dataset", required=True, choices=names, help="whose layout it has")
    parser.add_argument("--source", required=True, metavar="RAW", help="folder of the recordings")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--recording", nargs="+", metavar="ID", help="only these (default: all)")
    parser.add_argument("--face_detector", choices=DETECTORS, default="haar", help="what finds the face")
    parser.add_argument("--face_model", default="", metavar="ONNX", help="YuNet's model file")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work() -> int:
        detector = make_detector(args.face_detector, args.face_model)
        listed = {r.recording_id: r for r in registry.read(args.dataset, args.source)}
        wanted = args.recording or list(listed)
        for recording_id in wanted:
            if recording_id not in listed:
                known = ", ".join(list(listed)[:5])
                raise ConfigError(f"--recording {recording_id} is not in {args.source}; it has {known}, …")
        folder = Path(args.output)
        with storage.storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        bad = 0
        for recording_id in wanted:
            recording = listed[recording_id]
            try:
                if isinstance(recording, Broken):
                    raise UserError(recording.why)
                picture = draw(recording, make_overview(recording, detector))
            except (UserError, ValueError, OSError) as error:
                text = str(error) if isinstance(recording, Broken) else preparation.failure(recording, error)
                print(f"{recording_id}: {text}", file=sys.stderr)
                bad += 1
                continue
            storage.write_bytes(folder / f"{recording_id}.png", picture)
            print(folder / f"{recording_id}.png")
        return errors.FAILED if bad else errors.DONE

    return common.run(work, debug=args.debug)

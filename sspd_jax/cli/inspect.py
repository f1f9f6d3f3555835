"""Draw a picture of every recording, so that a person can look: face box, skin, colours, wave, rate, gaps.

sspd_jax inspect --dataset=pure --source=RAW --output=PICTURES [--recording=01-01 …]
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
from sspd_jax.runtime import storage, text
from sspd_jax.video.face_detection import DETECTORS, make_detector


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add("--dataset", required=True, choices=sorted(registry.READERS), help="whose layout it has")
    add("--source", required=True, metavar="RAW", help="folder of the recordings")
    add("--output", required=True, metavar="DIR", help="folder for the pictures")
    add("--recording", nargs="+", metavar="ID", help="only these (default: all)")
    add("--face_detector", choices=DETECTORS, default="haar", help="what finds the face")
    add("--face_model", default="", metavar="ONNX", help="YuNet's model file")
    return common.start(parser, _draw, argv)


def _draw(args: argparse.Namespace) -> int:
    detector = make_detector(args.face_detector, args.face_model)
    listed = {r.recording_id: r for r in registry.read(args.dataset, args.source)}
    chosen = args.recording or list(listed)
    for recording_id in chosen:
        if recording_id not in listed:
            known = ", ".join(list(listed)[:5])
            raise ConfigError(f"--recording {recording_id} is not in {args.source}; it has {known}, …")
    folder = Path(args.output)
    with storage.storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    code = errors.DONE
    for recording_id in chosen:
        recording, picture = listed[recording_id], folder / f"{recording_id}.png"
        try:
            if isinstance(recording, Broken):
                raise UserError(recording.why)
            data = draw(recording, make_overview(recording, detector))
        except (UserError, ValueError, OSError) as error:
            why = str(error) if isinstance(recording, Broken) else preparation.failure(recording, error)
            print(text.printable(f"{recording_id}: {why}"), file=sys.stderr)
            code = errors.FAILED
            continue
        storage.write_bytes(picture, data)
        print(picture)
    return code

"""Prepare recordings for training: decode, find the face, crop, put on a uniform clock, store in chunks.

sspd_jax prepare --dataset=ubfc_rppg --source=RAW --check_only
sspd_jax prepare --dataset=ubfc_rppg --source=RAW --data_dir=OUT

Beside the crops lie the traces of the face's skin, recorded as the frames go by, which `evaluate` reads as
`predict` does.

With --check_only everything is read and nothing written: what is broken, doubtful or missing is listed.

--workers=N prepares N recordings at once, each in a process that takes 600 MB at most, whatever the length;
by default one for each core, 8 at most. --runner=beam hands the same work to Apache Beam (an extra: `pip
install sspd_jax[beam]`), and with --beam_options='--runner=FlinkRunner …' to a cluster. What is written is
the same to the byte.

Killed and started again, it continues at the recording it was at. Run once more, it does nothing. A
recording that cannot be prepared is named in a sentence and the others go on; the run then ends with exit
code 1, and the dataset is not finished until the recording is mended. With --keep_going the dataset is
finished without it; the exit code is 1 all the same.
"""

from __future__ import annotations

import argparse
import shlex

from sspd_jax import errors
from sspd_jax.cli import common
from sspd_jax.datasets.check import print_findings
from sspd_jax.datasets.prepare import prepare_dataset
from sspd_jax.datasets.readers import registry
from sspd_jax.errors import ConfigError
from sspd_jax.video import face_stream
from sspd_jax.video.crop import BOX, FACE_CROPS, INTERPOLATION
from sspd_jax.video.face_detection import DETECTORS, make_detector
from sspd_jax.video.skin_traces import MAP_SIZE


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add(
        "--dataset", required=True, metavar="NAME", help=f"whose layout it has: {', '.join(registry.READERS)}"
    )
    add("--source", required=True, metavar="RAW", help="folder of the recordings")
    add("--data_dir", metavar="OUT", help="folder to make; gs://… too")
    add("--check_only", action="store_true", help="read everything, list what is wrong")
    add("--fps", type=float, default=30.0, help="of the clock, Hz (default: %(default)g)")
    add("--crop_size", type=int, default=face_stream.SIZE, help="of the face, pixels (default: %(default)d)")
    add("--face_detector", choices=DETECTORS, default="haar", help="what finds the face")
    add("--face_model", default="", metavar="ONNX", help="YuNet's model file")
    add(
        "--follow_every_s",
        type=float,
        default=0.0,
        metavar="S",
        help="look for the face again (default: never)",
    )
    add(
        "--face_crop",
        choices=FACE_CROPS,
        default=BOX,
        help="what the crops show: the face in its box (default), or its skin alone, with --crop_size of "
        f"{MAP_SIZE} at most",
    )
    add("--no_skin", action="store_true", help="record no traces of the skin: evaluate then reads the crop")
    add("--resize", choices=sorted(INTERPOLATION), default="linear", help="how it is scaled")
    add("--keep_going", action="store_true", help="finish without the recordings that cannot be prepared")
    add("--workers", type=int, default=0, metavar="N", help="recordings at once (default: one for each core)")
    add("--runner", choices=("processes", "beam"), default="processes", help="who does the work")
    add("--beam_options", default="", metavar="'--A=B …'", help="of the pipeline: its runner, …")
    add("--no_progress", action="store_true", help="draw no progress bar")
    return common.start(
        parser, _prepare, argv, goes_on="what is finished stays, and the same command goes on"
    )


def _prepare(args: argparse.Namespace) -> int:
    if args.check_only:
        detector = make_detector(args.face_detector, args.face_model)
        broken = print_findings(args.dataset, args.source, detector, progress=not args.no_progress)
        return errors.FAILED if broken else errors.DONE
    if args.data_dir is None:
        raise ConfigError("--data_dir is missing; name the folder to make, or ask for --check_only")
    if args.beam_options and args.runner != "beam":
        raise ConfigError("--beam_options are for --runner=beam; add that, or leave them out")
    report = prepare_dataset(
        args.dataset,
        args.source,
        args.data_dir,
        fps=args.fps,
        crop_size=args.crop_size,
        resize=args.resize,
        face_detector=args.face_detector,
        face_model=args.face_model,
        follow_every_s=args.follow_every_s,
        skin=not args.no_skin,
        face_crop=args.face_crop,
        keep_going=args.keep_going,
        workers=args.workers,
        beam_options=shlex.split(args.beam_options) if args.runner == "beam" else None,
        progress=not args.no_progress,
    )
    without = f", without {', '.join(report.left_out)}" if report.left_out else ""
    print(
        f"{args.data_dir}: {report.recordings} recordings of {report.people} people, "
        f"{report.seconds / 60:.1f} min, {report.size_bytes / 1e9:.2f} GB ({report.made} new{without})"
    )
    return errors.FAILED if report.left_out else errors.DONE

"""Score networks and classical methods on people the network never saw.

sspd_jax evaluate --workdir=DIR [--protocol=toolbox,sinc]
sspd_jax evaluate --checkpoint=DIR --data=PREPARED --people=subject1,subject2 --output=DIR
sspd_jax evaluate --data=PREPARED --methods=pos,chrom --protocol=toolbox --region=crop --output=DIR

Classical methods, and auto, read the skin as `predict` does: the same rates, confidence and reasons.
--region=crop reads the mean of a box around the face, as published toolboxes do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from sspd_jax.cli import common
from sspd_jax.datasets.dataset import PreparedDataset, open_prepared
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import protocol, render, scoring
from sspd_jax.evaluation.evaluate import evaluate_checkpoint, evaluate_run, folder_name, over, protocol_of
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.heart_rate import classical
from sspd_jax.inference.methods import AUTO
from sspd_jax.inference.windows import REGIONS
from sspd_jax.video.crop import BOX


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = common.make_parser(__name__, __doc__)
    add = parser.add_argument
    add("--workdir", metavar="DIR", help="of a trained run")
    add("--data", "--data_dir", metavar="PREPARED", help="prepared dataset to test on, in place of --workdir")
    add("--checkpoint", metavar="DIR", help="network to test on it; without one, classical methods only")
    add("--people", metavar="A,B", default="", help="whom to test on (default: all with a contact wave)")
    add("--output", metavar="DIR", help="where the report goes (with --data)")
    add(
        "--protocol",
        metavar="P,Q",
        default="",
        help=f"{', '.join(protocol.names())}, or files like them; a report for each",
    )
    add(
        "--window",
        type=float,
        metavar="S",
        help="another window than the protocol's, s; 0: whole videos; one after the other, unless protocol "
        "or --stride has a shorter stride",
    )
    add("--stride", type=float, metavar="S", help="another stride than the protocol's, s; 0: one frame")
    add(
        "--methods",
        metavar="A,B",
        default=",".join(scoring.DEFAULT),
        help=f"{AUTO}, all side by side as predict reads them, and classical methods, of "
        f"{', '.join(classical.METHODS)} (default: %(default)s)",
    )
    add(
        "--region",
        choices=REGIONS,
        help="what of the face is read: the skin, as predict does (default), or the mean of a box around it, "
        "as published toolboxes do",
    )
    add(
        "--no_network",
        action="store_true",
        help=f"{AUTO} without the network that ships with the package, as predict with this option",
    )
    add("--no_confidence", action="store_true", help="weigh no window: no coverage, and half the time")
    add("--no_faces", action="store_true", help="leave face pictures out of the report")
    return common.start(parser, _evaluate, argv)


def _evaluate(args: argparse.Namespace) -> None:
    if bool(args.workdir) == bool(args.data):
        raise ConfigError("name either --workdir, a trained run, or --data, a prepared dataset")
    known = (AUTO, *classical.METHODS)
    for name in _names(args.methods):
        if name not in known:
            raise ConfigError(f"method {name!r} is none of {', '.join(known)}")
    done = _test_run(args) if args.workdir else _test_data(args)
    for folder, result in done.items():
        print(render.as_text(result))
        print(f"report: {folder / 'index.html'}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _protocols(args: argparse.Namespace, default: Protocol) -> list[Protocol]:
    changes = {f"{key}_s": getattr(args, key) for key in ("window", "stride")}
    changes = {key: value for key, value in changes.items() if value is not None}
    region = args.region or default.region
    if args.protocol:
        names = _names(args.protocol)
        loaded = [protocol.load(n, **_without_gaps(changes, protocol.load(n).stride_s)) for n in names]
        return [over(p, region) for p in loaded]
    changes = _without_gaps(changes, default.stride_s)
    settings = {"window_s": default.window_s, "stride_s": default.stride_s, **changes}
    return [over(protocol.load(default.name.partition("(")[0], **settings), region)]


def _without_gaps(changes: Mapping[str, float], stride_s: float) -> dict[str, float]:
    """Let no gap come between windows of another length than a protocol's, nor one begin at every frame."""
    window_s = changes.get("window_s")
    if not window_s or "stride_s" in changes or 0 < stride_s <= window_s:
        return dict(changes)
    return {**changes, "stride_s": window_s}


def _test_run(args: argparse.Namespace) -> dict[epath.Path, Mapping[str, Any]]:
    from sspd_jax.datasets import splits
    from sspd_jax.training.workdir import CONFIG

    workdir = epath.Path(args.workdir)
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(f"{workdir}: is no work directory of a run; name one that has a {CONFIG}")
    for name in ("checkpoint", "people", "output"):
        if getattr(args, name):
            raise ConfigError(f"--{name} goes with --data; a work directory has its own")
    try:
        config = ml_collections.ConfigDict(json.loads(path.read_text()))
        default = protocol_of(config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({error!r}); copy it again, or train again") from error
    dataset = open_prepared(
        config.data.data_dir,
        fps=config.fps,
        crop_size=config.crop_size,
        face_crop=config.get("face_crop", BOX),  # older runs have none
    )
    config, dataset = splits.choose_people(config, _heard(args, dataset))
    done = evaluate_run(
        config,
        dataset,
        workdir,
        protocols=_protocols(args, default),
        methods=_names(args.methods),
        with_confidence=not args.no_confidence,
        faces=not args.no_faces,
    )
    return done


def _heard(args: argparse.Namespace, dataset: PreparedDataset) -> PreparedDataset:
    return dataset.without_network("--no_network was given") if args.no_network else dataset


def _test_data(args: argparse.Namespace) -> dict[epath.Path, Mapping[str, Any]]:
    if not args.output:
        raise ConfigError("--data needs --output=DIR, where the report goes")
    protocols = _protocols(args, over(protocol.default(), REGIONS[0]))
    output = epath.Path(args.output)
    folders = {p: output / folder_name(p) if len(protocols) > 1 else output for p in protocols}
    return evaluate_checkpoint(
        args.checkpoint or None,
        _heard(args, open_prepared(args.data)),
        folders,
        people=_names(args.people),
        methods=_names(args.methods),
        with_confidence=not args.no_confidence,
        faces=not args.no_faces,
    )

"""Score networks and classical methods on people the network never saw.

python -m sspd_jax.evaluate --workdir=DIR [--protocol=toolbox,sinc]
python -m sspd_jax.evaluate --checkpoint=DIR --data=PREPARED --people=subject1,subject2 --output=DIR
python -m sspd_jax.evaluate --data=PREPARED --methods=pos,chrom --protocol=toolbox --output=DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
from etils import epath

from sspd_jax import checkpoint, command, held_out, reader, score_sheet, scoring, storage, window_table
from sspd_jax import config as experiments
from sspd_jax.command import ConfigError, UserError
from sspd_jax.datasets import prepared
from sspd_jax.heart_rate import classical, protocol
from sspd_jax.heart_rate.protocol import Protocol
from sspd_jax.method import model
from sspd_jax.scoring import Evaluation, Sample

REPORT = "report"
UNTRAINED = "untrained"
NETWORK = "network"  # what a checkpoint's network is called, beside no other
PRESET_OF = {"spectrum": "ours", "wavelet": "sspd"}  # read-out of a configuration → protocol


def evaluate_run(
    config: ml_collections.ConfigDict,
    dataset: prepared.PreparedDataset,
    workdir: epath.PathLike,
    *,
    protocols: Sequence[Protocol] = (),
    methods: Sequence[str] = scoring.CLASSICAL,
    with_confidence: bool = True,
    faces: bool = True,
) -> dict[epath.Path, Mapping[str, Any]]:
    """Test a trained run and write its reports.

    Args:
      config: of the run.
      dataset: prepared; only `config.data.test_people` are looked at.
      workdir: with the run's exported networks.
      protocols: by which it is scored, a report for each; by default the one of `config.evaluation`, whose
        report is `workdir/report`; the others' are folders in it.
      methods: classical ones beside the networks.
      with_confidence: see `scoring.score`.
      faces: whether the reports may show face pictures.

    Returns:
      Folder of each report → its scores, as in its `scores.json`.

    Raises:
      UserError: the run is not trained, or there is nobody to test on.
    """
    workdir = epath.Path(workdir)
    own = protocol_of(config)
    networks = {name: reader.load(workdir / "network" / name) for name in ("online", "target")}
    chosen = networks[config.evaluation.reader]
    networks[UNTRAINED] = _untrained(config)
    samples = list(scoring.read_segments(dataset, tuple(config.data.test_people), networks, methods))
    folders = {p: workdir / REPORT / ("" if p == own else folder_name(p)) for p in protocols or (own,)}
    title = f"{workdir.name}: heart rates of people the network never saw"
    keeps_best = bool(config.get("health", {}).get("patience"))  # older runs have none
    page = Page(title, dataset, chosen, faces=faces, workdir=workdir, keeps_best=keeps_best)
    return _score_and_write(samples, config.evaluation.reader, folders, page, with_confidence)


def evaluate_checkpoint(
    directory: epath.PathLike | None,
    dataset: prepared.PreparedDataset,
    folders: Mapping[Protocol, epath.Path],
    *,
    people: Sequence[str] = (),
    methods: Sequence[str] = scoring.CLASSICAL,
    with_confidence: bool = True,
    faces: bool = True,
) -> dict[epath.Path, Mapping[str, Any]]:
    """Test any checkpoint, or classical methods alone, on a prepared dataset.

    Args:
      directory: of the checkpoint; None for classical methods alone, of which the first is the reader.
      dataset: prepared.
      folders: protocol → where its report goes.
      people: whom to test on; () for everybody with a contact pulse wave.
      methods: classical ones.
      with_confidence: see `scoring.score`.
      faces: whether the reports may show face pictures.

    Returns:
      Folder of each report → its scores.

    Raises:
      ConfigError: the network was trained on one of the people, somebody is unknown, or nothing is to test.
      UserError: the checkpoint or the dataset is damaged, or they do not fit.
    """
    networks, config, notes = {}, None, ()
    if directory is not None:
        config, _, _ = checkpoint.load_network(directory)
        networks[NETWORK] = reader.load(directory)
        rate = networks[NETWORK].clock_rate(dataset.fps)
        if rate != dataset.fps:
            raise UserError(
                f"{dataset.data_dir}: was prepared at {dataset.fps:g} Hz and the network reads {rate:g} Hz; "
                f"prepare again with --fps={rate:g} into another --data_dir"
            )
        if not (config.get("data") or {}).get("train_people"):
            notes = ("The checkpoint does not say whom it learned from: see that none of them is tested on.",)
    elif not methods:
        raise ConfigError("there is nothing to test: name --checkpoint=DIR, or --methods")
    chosen = held_out.people_to_test(dataset, config, people)
    samples = list(scoring.read_segments(dataset, chosen, networks, methods))
    name = epath.Path(directory).name if directory is not None else ", ".join(methods)
    page = Page(
        f"{name} on {dataset.data_dir.name}", dataset, networks.get(NETWORK), faces=faces, notes=notes
    )
    return _score_and_write(samples, next(iter([*networks, *methods])), folders, page, with_confidence)


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
    """What a report shows beside scores.

    Attributes:
      title: of the page.
      dataset: that the samples were read from.
      network: whose similarity maps are drawn; None for none.
      faces: whether face pictures may be shown.
      workdir: of a training, for its curves; None for none.
      notes: sentences for the top of the page.
      keeps_best: whether the network is that of the training's most trusted epoch, not of its last.
    """

    title: str
    dataset: prepared.PreparedDataset
    network: reader.Reader | None
    faces: bool = True
    workdir: epath.Path | None = None
    notes: tuple[str, ...] = ()
    keeps_best: bool = False


def protocol_of(config: Mapping[str, Any]) -> Protocol:
    """Return the protocol that a configuration names: its read-out, window and stride."""
    e = config["evaluation"]
    return protocol.load(
        PRESET_OF[e["read_out"]], window_s=float(e["window_s"]), stride_s=float(e["stride_s"])
    )


def folder_name(p: Protocol) -> str:
    """Name a protocol's folder."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in p.name).strip("-")


def _untrained(config: ml_collections.ConfigDict) -> reader.Reader:
    """Make the network that training started from: what is seen without learning."""
    settings = experiments.network_settings(config)
    params, batch_stats = model.init(settings, jax.random.key(config.seed))
    return reader.Reader(settings, params, batch_stats, config.fps, config.crop_size, UNTRAINED)


def _score_and_write(
    samples: Sequence[Sample],
    reader_name: str,
    folders: Mapping[Protocol, epath.Path],
    page: Page,
    with_confidence: bool,
) -> dict[epath.Path, Mapping[str, Any]]:
    """Score by every protocol first, so that nothing is written where one of them fails; then write."""
    from sspd_jax import report  # matplotlib takes a second to import

    scored = [
        (folder, scoring.score(samples, reader_name, p, with_confidence=with_confidence))
        for p, folder in folders.items()
    ]
    for folder, one in scored:
        write(one, folder, report.render(one, samples, page))
    return {folder: one.result for folder, one in scored}


def write(one: Evaluation, folder: epath.Path, page: str) -> None:
    """Write a report: windows.csv, scores.csv, scores.json, scores.tex and index.html."""
    with storage.storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    storage.write_text(folder / "windows.csv", window_table.write(one.rows, one.protocol))
    storage.write_text(folder / "scores.csv", score_sheet.as_csv(one.result))
    storage.write_text(folder / "scores.tex", score_sheet.as_latex(one.result))
    storage.write_text(folder / "scores.json", json.dumps(one.result, indent=2) + "\n")
    storage.write_text(folder / "index.html", page)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", metavar="DIR", help="of a trained run")
    add("--data", metavar="PREPARED", help="prepared dataset to test on, in place of --workdir")
    add("--checkpoint", metavar="DIR", help="network to test on it; without one, classical methods only")
    add("--people", metavar="A,B", default="", help="whom to test on (default: all with a contact wave)")
    add("--output", metavar="DIR", help="where the report goes (with --data)")
    add(
        "--protocol",
        metavar="P,Q",
        default="",
        help=f"{', '.join(protocol.names())}, or files like them; a report for each",
    )
    add("--window", type=float, metavar="S", help="another window than the protocol's, s; 0: whole videos")
    add("--stride", type=float, metavar="S", help="another stride than the protocol's, s; 0: one frame")
    add(
        "--methods",
        metavar="A,B",
        default=",".join(scoring.CLASSICAL),
        help=f"classical methods, of {', '.join(classical.METHODS)} (default: %(default)s)",
    )
    add("--no_confidence", action="store_true", help="weigh no window: no coverage, and half the time")
    add("--no_faces", action="store_true", help="leave face pictures out of the report")
    add("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        if bool(args.workdir) == bool(args.data):
            raise ConfigError("name either --workdir, a trained run, or --data, a prepared dataset")
        for name in _names(args.methods):
            if name not in classical.METHODS:
                raise ConfigError(f"method {name!r} is none of {', '.join(classical.METHODS)}")
        done = _test_run(args) if args.workdir else _test_data(args)
        for folder, result in done.items():
            print(score_sheet.as_text(result))
            print(f"report: {folder / 'index.html'}")

    return command.run(work, debug=args.debug)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _protocols(args: argparse.Namespace, default: Protocol) -> list[Protocol]:
    changes = {f"{key}_s": getattr(args, key) for key in ("window", "stride")}
    changes = {key: value for key, value in changes.items() if value is not None}
    if args.protocol:
        return [protocol.load(name, **changes) for name in _names(args.protocol)]
    settings = {"window_s": default.window_s, "stride_s": default.stride_s, **changes}
    return [protocol.load(default.name.partition("(")[0], **settings)]


def _test_run(args: argparse.Namespace) -> dict[epath.Path, Mapping[str, Any]]:
    from sspd_jax import train

    workdir = epath.Path(args.workdir)
    path = workdir / train.CONFIG
    if not path.exists():
        raise UserError(f"{workdir}: is no work directory of a run; name one that has a {train.CONFIG}")
    for name in ("checkpoint", "people", "output"):
        if getattr(args, name):
            raise ConfigError(f"--{name} goes with --data; a work directory has its own")
    try:
        config = ml_collections.ConfigDict(json.loads(path.read_text()))
        default = protocol_of(config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({error!r}); copy it again, or train again") from error
    dataset = prepared.open_prepared(config.data.data_dir, fps=config.fps, crop_size=config.crop_size)
    config, dataset = train.choose_people(config, dataset)
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


def _test_data(args: argparse.Namespace) -> dict[epath.Path, Mapping[str, Any]]:
    if not args.output:
        raise ConfigError("--data needs --output=DIR, where the report goes")
    protocols = _protocols(args, protocol.default())
    output = epath.Path(args.output)
    folders = {p: output / folder_name(p) if len(protocols) > 1 else output for p in protocols}
    return evaluate_checkpoint(
        args.checkpoint or None,
        prepared.open_prepared(args.data),
        folders,
        people=_names(args.people),
        methods=_names(args.methods),
        with_confidence=not args.no_confidence,
        faces=not args.no_faces,
    )


if __name__ == "__main__":
    sys.exit(main())

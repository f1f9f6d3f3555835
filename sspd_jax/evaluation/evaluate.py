"""Score networks and classical methods on people the network never saw.

python -m sspd_jax evaluate --workdir=DIR [--protocol=toolbox,sinc]
python -m sspd_jax evaluate --checkpoint=DIR --data=PREPARED --people=subject1,subject2 --output=DIR
python -m sspd_jax evaluate --data=PREPARED --methods=pos,chrom --protocol=toolbox --output=DIR
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
from etils import epath

from sspd_jax.checkpoints.network import load_network
from sspd_jax.datasets import leakage
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import protocol, render, scoring, table
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.evaluation.report import Page
from sspd_jax.evaluation.scoring import Evaluation, Sample
from sspd_jax.inference import model
from sspd_jax.inference.methods import AUTO
from sspd_jax.inference.windows import REGIONS
from sspd_jax.method.network import init_variables
from sspd_jax.method.settings import network_settings
from sspd_jax.runtime import storage
from sspd_jax.video.crop import BOX, SKIN

REPORT = "report"
UNTRAINED = "untrained"
NETWORK = "network"  # what a checkpoint's network is called, beside no other
PRESET_OF = {"spectrum": "ours", "wavelet": "sspd"}  # read-out of a configuration → protocol


def evaluate_run(
    config: ml_collections.ConfigDict,
    dataset: PreparedDataset,
    workdir: epath.PathLike,
    *,
    protocols: Sequence[Protocol] = (),
    methods: Sequence[str] = scoring.DEFAULT,
    with_confidence: bool = True,
    faces: bool = True,
) -> dict[epath.Path, Mapping[str, Any]]:
    """Test a trained run and write its reports.

    Args:
      config: The run's configuration.
      dataset: The prepared dataset; only `config.data.test_people` are looked at.
      workdir: The run's directory, with its exported networks.
      protocols: Protocols by which it is scored, a report for each; by default that of `config.evaluation`,
        whose report is `workdir/report`; the others' are folders in it.
      methods: Classical methods beside the networks, and 'auto' where the skin is read.
      with_confidence: See `scoring.score`.
      faces: Whether the reports may show face pictures.

    Returns:
      Folder of each report → its scores, as in its `scores.json`.

    Raises:
      UserError: The run is not trained, or there is nobody to test on.
    """
    workdir = epath.Path(workdir)
    own = protocol_of(config)
    networks = {name: model.load_model(workdir / "network" / name) for name in ("online", "target")}
    chosen = networks[config.evaluation.reader]
    networks[UNTRAINED] = _untrained(config)
    folders = {
        p: workdir / REPORT / ("" if over(p, own.region) == own else folder_name(p))
        for p in protocols or (own,)
    }
    title = f"{workdir.name}: heart rates of people the network never saw"
    keeps_best = bool(config.get("health", {}).get("patience"))  # older runs have none
    page = Page(title, dataset, chosen, faces=faces, workdir=workdir, keeps_best=keeps_best)
    not_read = scoring.not_read(dataset, tuple(config.data.test_people))
    work = _Work(dataset, tuple(config.data.test_people), networks, tuple(methods), config.evaluation.reader)
    return _score_and_write(work, folders, page, with_confidence, not_read)


def evaluate_checkpoint(
    directory: epath.PathLike | None,
    dataset: PreparedDataset,
    folders: Mapping[Protocol, epath.Path],
    *,
    people: Sequence[str] = (),
    methods: Sequence[str] = scoring.DEFAULT,
    with_confidence: bool = True,
    faces: bool = True,
) -> dict[epath.Path, Mapping[str, Any]]:
    """Test any checkpoint, or classical methods alone, on a prepared dataset.

    Args:
      directory: Directory of the checkpoint; None for classical methods alone, of which the first is the
        primary one.
      dataset: The prepared dataset.
      folders: Protocol → folder of its report.
      people: Ids of the people to test on; () for everybody with a contact pulse wave.
      methods: Classical methods, and 'auto' where the skin is read.
      with_confidence: See `scoring.score`.
      faces: Whether the reports may show face pictures.

    Returns:
      Folder of each report → its scores.

    Raises:
      ConfigError: The network was trained on one of the people, somebody is unknown, or there is nothing
        to test.
      UserError: The checkpoint or the dataset is damaged, or they do not fit.
    """
    networks, config, notes = {}, None, ()
    if directory is not None:
        config, _, _ = load_network(directory)
        networks[NETWORK] = model.load_model(directory)
        rate = networks[NETWORK].clock_rate(dataset.fps)
        if rate != dataset.fps:
            raise UserError(
                f"{dataset.data_dir}: was prepared at {dataset.fps:g} Hz and the network reads {rate:g} Hz; "
                f"prepare again with --fps={rate:g} into another --data_dir"
            )
        shown = networks[NETWORK].face_crop
        if shown != dataset.face_crop:
            raise UserError(
                f"{dataset.data_dir}: was prepared with face_crop {dataset.face_crop} and the network reads "
                f"{shown}; prepare again with --face_crop={shown} --crop_size={networks[NETWORK].crop_size} "
                "into another --data_dir"
            )
        if not (config.get("data") or {}).get("train_people"):
            notes = ("The checkpoint does not say whom it learned from: see that none of them is tested on.",)
    elif not methods:
        raise ConfigError("there is nothing to test: name --checkpoint=DIR, or --methods")
    chosen = leakage.people_to_test(dataset, config, people)
    name = epath.Path(directory).name if directory is not None else ", ".join(methods)
    page = Page(
        f"{name} on {dataset.data_dir.name}", dataset, networks.get(NETWORK), faces=faces, notes=notes
    )
    not_read = scoring.not_read(dataset, chosen, asked_for=bool(people))
    work = _Work(dataset, chosen, networks, tuple(methods), next(iter(networks), None))
    return _score_and_write(work, folders, page, with_confidence, not_read)


def protocol_of(config: Mapping[str, Any]) -> Protocol:
    """Return the protocol that a configuration names: its read-out, window, stride and region."""
    e = config["evaluation"]
    preset = protocol.load(
        PRESET_OF[e["hr_estimator"]], window_s=float(e["window_s"]), stride_s=float(e["stride_s"])
    )
    return over(preset, e.get("region", REGIONS[0]))  # older runs name none


def over(p: Protocol, region: str) -> Protocol:
    """Return a protocol that reads a region of the face, a name in `inference.windows.REGIONS`."""
    return dataclasses.replace(p, region=region)


def folder_name(p: Protocol) -> str:
    """Name a protocol's folder."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in p.name).strip("-")


def _untrained(config: ml_collections.ConfigDict) -> model.RppgModel:
    """Make the network that training started from: what is seen without learning."""
    settings = network_settings(config)
    params, batch_stats = init_variables(settings, jax.random.key(config.seed))
    return model.RppgModel(
        network=settings,
        params=params,
        batch_stats=batch_stats,
        fps=config.fps,
        crop_size=config.crop_size,
        name=UNTRAINED,
        face_crop=config.get("face_crop", BOX),  # older runs have none
    )


class _Work(NamedTuple):
    """What is read: the dataset, whose, by which networks and methods; `primary` None: the first method."""

    dataset: PreparedDataset
    people: Sequence[str]
    networks: Mapping[str, model.RppgModel]
    methods: Sequence[str]
    primary: str | None


def region_of(dataset: PreparedDataset, asked: str) -> str:
    """Return what of the face can be read: the crop, where a dataset has no traces of the skin."""
    return asked if dataset.has_skin else "crop"


NO_SKIN = (
    "{} holds no traces of the skin (an earlier version prepared it, or --no_skin), so the crop is read; "
    "prepare again into another --data_dir to read the skin as predict does"
)
NO_AUTO = "auto reads the skin alone and is left out of a crop"


def _read(work: _Work, region: str) -> tuple[list[Sample], str]:
    """Read everybody over a region; returns the primary method too."""
    methods = [name for name in work.methods if region == "skin" or name != AUTO]
    primary = work.primary or next(iter(methods), None)
    if primary is None:
        raise ConfigError(f"{NO_AUTO}, and there is nothing else to test: name other --methods")
    return list(scoring.read_segments(work.dataset, work.people, work.networks, methods, region)), primary


def _score_and_write(
    work: _Work,
    folders: Mapping[Protocol, epath.Path],
    page: Page,
    with_confidence: bool,
    not_read: Sequence[scoring.LeftOut],
) -> dict[epath.Path, Mapping[str, Any]]:
    """Score by every protocol first, so that nothing is written where one of them fails; then write."""
    from sspd_jax.evaluation import report  # matplotlib takes a second to import

    scored, read = [], {}
    if work.dataset.face_crop == SKIN and any(p.region == "crop" for p in folders):
        raise ConfigError(
            f"{work.dataset.data_dir}: its crops show the skin alone (face_crop), not a box around the face; "
            "leave --region=crop away, or prepare again with --face_crop=box into another --data_dir"
        )
    for p, folder in folders.items():
        region = region_of(work.dataset, p.region)
        if region not in read:
            read[region] = _read(work, region)
        samples, primary = read[region]
        notes = [NO_SKIN.format(work.dataset.data_dir)] if region != p.region else []
        if region == "crop" and AUTO in work.methods and tuple(work.methods) != scoring.DEFAULT:
            notes.append(NO_AUTO)
        said = {"not_read": not_read, "notes": notes}
        one = scoring.score(samples, primary, over(p, region), with_confidence=with_confidence, **said)
        scored.append((folder, one, samples))
    for folder, one, samples in scored:
        write(one, folder, report.render(one, samples, page))
    return {folder: one.result for folder, one, _ in scored}


def write(one: Evaluation, folder: epath.Path, page: str) -> None:
    """Write a report: windows.csv, scores.csv, scores.json, scores.tex and index.html."""
    texts = {
        "windows.csv": table.write(one.rows, one.protocol),
        "scores.csv": render.as_csv(one.result),
        "scores.tex": render.as_latex(one.result),
        "scores.json": json.dumps(one.result, indent=2) + "\n",
        "index.html": page,
    }
    storage.write_texts(folder, texts)

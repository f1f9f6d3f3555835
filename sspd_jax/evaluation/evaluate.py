"""Score networks and classical methods on people the network never saw.

python -m sspd_jax evaluate --workdir=DIR [--protocol=toolbox,sinc]
python -m sspd_jax evaluate --checkpoint=DIR --data=PREPARED --people=subject1,subject2 --output=DIR
python -m sspd_jax evaluate --data=PREPARED --methods=pos,chrom --protocol=toolbox --output=DIR
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

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
from sspd_jax.method.network import init_variables
from sspd_jax.method.settings import network_settings
from sspd_jax.runtime import storage

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
    methods: Sequence[str] = scoring.CLASSICAL,
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
      methods: Classical methods beside the networks.
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
    samples = list(scoring.read_segments(dataset, tuple(config.data.test_people), networks, methods))
    folders = {p: workdir / REPORT / ("" if p == own else folder_name(p)) for p in protocols or (own,)}
    title = f"{workdir.name}: heart rates of people the network never saw"
    keeps_best = bool(config.get("health", {}).get("patience"))  # older runs have none
    page = Page(title, dataset, chosen, faces=faces, workdir=workdir, keeps_best=keeps_best)
    not_read = scoring.not_read(dataset, tuple(config.data.test_people))
    return _score_and_write(samples, config.evaluation.reader, folders, page, with_confidence, not_read)


def evaluate_checkpoint(
    directory: epath.PathLike | None,
    dataset: PreparedDataset,
    folders: Mapping[Protocol, epath.Path],
    *,
    people: Sequence[str] = (),
    methods: Sequence[str] = scoring.CLASSICAL,
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
      methods: Classical methods.
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
        if not (config.get("data") or {}).get("train_people"):
            notes = ("The checkpoint does not say whom it learned from: see that none of them is tested on.",)
    elif not methods:
        raise ConfigError("there is nothing to test: name --checkpoint=DIR, or --methods")
    chosen = leakage.people_to_test(dataset, config, people)
    samples = list(scoring.read_segments(dataset, chosen, networks, methods))
    name = epath.Path(directory).name if directory is not None else ", ".join(methods)
    page = Page(
        f"{name} on {dataset.data_dir.name}", dataset, networks.get(NETWORK), faces=faces, notes=notes
    )
    not_read = scoring.not_read(dataset, chosen, asked_for=bool(people))
    primary = next(iter([*networks, *methods]))
    return _score_and_write(samples, primary, folders, page, with_confidence, not_read)


def protocol_of(config: Mapping[str, Any]) -> Protocol:
    """Return the protocol that a configuration names: its read-out, window and stride."""
    e = config["evaluation"]
    return protocol.load(
        PRESET_OF[e["hr_estimator"]], window_s=float(e["window_s"]), stride_s=float(e["stride_s"])
    )


def folder_name(p: Protocol) -> str:
    """Name a protocol's folder."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in p.name).strip("-")


def _untrained(config: ml_collections.ConfigDict) -> model.RppgModel:
    """Make the network that training started from: what is seen without learning."""
    settings = network_settings(config)
    params, batch_stats = init_variables(settings, jax.random.key(config.seed))
    return model.RppgModel(settings, params, batch_stats, config.fps, config.crop_size, UNTRAINED)


def _score_and_write(
    samples: Sequence[Sample],
    primary: str,
    folders: Mapping[Protocol, epath.Path],
    page: Page,
    with_confidence: bool,
    not_read: Sequence[scoring.LeftOut],
) -> dict[epath.Path, Mapping[str, Any]]:
    """Score by every protocol first, so that nothing is written where one of them fails; then write."""
    from sspd_jax.evaluation import report  # matplotlib takes a second to import

    scored = [
        (folder, scoring.score(samples, primary, p, with_confidence=with_confidence, not_read=not_read))
        for p, folder in folders.items()
    ]
    for folder, one in scored:
        write(one, folder, report.render(one, samples, page))
    return {folder: one.result for folder, one in scored}


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

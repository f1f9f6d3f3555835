"""Train and test over several seeds, within a dataset, across datasets and in folds, from one file.

python -m sspd_jax study --config=configs/simulated_study.toml --workdir=workdir/study

What is finished is not run again: killed and started again, a study goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tomllib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sspd_jax.datasets import leakage
from sspd_jax.datasets.dataset import PreparedDataset, open_prepared
from sspd_jax.datasets.format import INDEX
from sspd_jax.datasets.splits import k_folds
from sspd_jax.errors import ConfigError
from sspd_jax.evaluation import evaluate, protocol, render, scoring, summary
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.evaluation.table import Row, read, with_facts, write
from sspd_jax.heart_rate import classical
from sspd_jax.inference.methods import AUTO
from sspd_jax.inference.windows import REGIONS
from sspd_jax.runtime import storage
from sspd_jax.training import config as experiments

TRAININGS, TESTS, DATA = "trainings", "tests", "data"
KEYS = {"experiment", "overrides", "seeds", "protocols", "methods", "region", "data", "parts"}
PART_KEYS = {"train", "train_people", "test", "test_people", "folds"}
DATA_KEYS = {"data_dir", "simulate"}
PRIMARY = evaluate.NETWORK


@dataclasses.dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
      data: Name of its dataset in the study.
      people: Ids of the people it learns from.
      seed: Seed of the training.
    """

    data: str
    people: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Name its work directory: the same people have the same name."""
        return (
            f"{self.data}-{len(self.people)}-{zlib.crc32(','.join(self.people).encode()):08x}-seed{self.seed}"
        )


@dataclasses.dataclass(frozen=True)
class Test:
    """One test of a training.

    Attributes:
      part: Name of the part of the study.
      fold: Number of the fold, from 0; 0 where there are none.
      training: Training whose network is tested.
      data: Name of the dataset it is tested on.
      people: Ids of the people it is tested on.
    """

    part: str
    fold: int
    training: Training
    data: str
    people: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as its file describes it.

    Attributes:
      experiment: File of the trainings' configuration.
      overrides: Assignments 'key=value' that change it.
      seeds: Seeds of the trainings; the people stay the same.
      protocols: Names of the protocols by which everything is scored.
      methods: Classical methods beside the network, and 'auto' where the skin is read.
      region: What of the face they read, 'skin' as `predict` does, or 'crop'.
      data: Name → {'data_dir': prepared} or {'simulate': settings of the simulator}.
      parts: Name → who learns and who is tested.
    """

    experiment: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    protocols: tuple[str, ...]
    methods: tuple[str, ...]
    region: str
    data: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Mapping[str, Any]]


def load(path: str) -> Study:
    """Read a study's file.

    Args:
      path: Path of the file, or the name of a shipped one, see `sspd_jax.training.config.find`.

    Raises:
      ConfigError: It is missing, or something in it is impossible.

    Example:
      >>> study = load("simulated_study")
      >>> len(study.seeds), list(study.parts)
      (3, ['within', 'across'])
    """
    file = experiments.find(path, ".toml")
    try:
        table = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise ConfigError(f"study {path}: cannot be read ({error})") from error
    _require_keys(path, "", table, KEYS, {"experiment", "seeds", "data", "parts"})
    study = Study(
        experiment=table["experiment"],
        overrides=tuple(table.get("overrides", ())),
        seeds=tuple(table["seeds"]),
        protocols=tuple(table.get("protocols", ("ours",))),
        methods=tuple(table.get("methods", scoring.DEFAULT)),
        region=table.get("region", REGIONS[0]),
        data=table["data"],
        parts=table["parts"],
    )
    whole = all(isinstance(seed, int) and seed >= 0 for seed in study.seeds)
    if not study.seeds or not whole or len(set(study.seeds)) < len(study.seeds):
        raise ConfigError(
            f"study {path}: seeds is {list(study.seeds)}; it must be different whole numbers ≥ 0"
        )
    known = (AUTO, *classical.METHODS)
    for name in study.methods:
        if name not in known:
            raise ConfigError(f"study {path}: method {name!r} is none of {', '.join(known)}")
    if study.region not in REGIONS:
        raise ConfigError(f"study {path}: region {study.region!r} is none of {', '.join(REGIONS)}")
    for name, entry in study.data.items():
        _require_keys(path, f"data.{name}.", entry, DATA_KEYS, set())
        if len(entry) != 1:
            raise ConfigError(f"study {path}: data.{name} needs either data_dir or simulate")
    for name, entry in study.parts.items():
        _require_keys(path, f"parts.{name}.", entry, PART_KEYS, {"train"})
        for key in ("train", "test"):
            if entry.get(key, entry["train"]) not in study.data:
                raise ConfigError(
                    f"study {path}: parts.{name}.{key} is {entry[key]!r}; it must be one of "
                    f"{', '.join(study.data)}"
                )
        if "folds" in entry and (set(entry) - {"train", "folds"} or not entry["folds"] >= 2):
            raise ConfigError(f"study {path}: parts.{name} in folds has train and folds ≥ 2, nothing else")
    return study


def _require_keys(
    path: str, prefix: str, table: Mapping[str, Any], known: set[str], needed: set[str]
) -> None:
    if unknown := sorted(set(table) - known):
        raise ConfigError(f"study {path}: {prefix}{unknown[0]} is unknown; known: {', '.join(sorted(known))}")
    if missing := sorted(needed - set(table)):
        raise ConfigError(f"study {path}: {prefix}{missing[0]} is missing")


def plan(study: Study, datasets: Mapping[str, PreparedDataset]) -> list[Test]:
    """List every test of a study, part by part, fold by fold, seed by seed.

    Args:
      study: The study that is asked for.
      datasets: Name in the study → prepared dataset.

    Returns:
      The tests; equal trainings in them are run once.

    Raises:
      ConfigError: Somebody would be tested on who was learned from, is unknown, or nobody is left to test.
    """
    tests = []
    for part, entry in study.parts.items():
        train_data = entry["train"]
        test_data = entry.get("test", train_data)
        everybody = datasets[train_data].people
        if "folds" in entry:
            if entry["folds"] > len(everybody):
                raise ConfigError(
                    f"parts.{part}.folds is {entry['folds']}; {train_data} has {len(everybody)} people"
                )
            folds = k_folds(everybody, entry["folds"], seed=None)
            splits = [(tuple(p for p in everybody if p not in fold), fold) for fold in folds]
        else:
            train = _people(part, "train_people", entry.get("train_people"), everybody)
            tested = datasets[test_data].people
            if test_data == train_data:
                tested = tuple(p for p in tested if p not in train)
            splits = [(train, _people(part, "test_people", entry.get("test_people"), tested))]
        for fold, (train, tested) in enumerate(splits):
            _refuse_seen(part, datasets[train_data], train, datasets[test_data], tested)
            tests += [
                Test(part, fold, Training(train_data, train, s), test_data, tested) for s in study.seeds
            ]
    return tests


def _people(part: str, key: str, asked: Any, everybody: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first n people, those that are named, or everybody."""
    if asked is None:
        chosen = everybody
    elif isinstance(asked, int):
        chosen = everybody[:asked]
        if len(chosen) < asked:
            raise ConfigError(f"parts.{part}.{key} is {asked}; there are {len(everybody)} people")
    else:
        chosen = tuple(asked)
        if unknown := [p for p in chosen if p not in everybody]:
            raise ConfigError(
                f"parts.{part}.{key}: {', '.join(unknown)} cannot be chosen of {', '.join(everybody)}"
            )
    if not chosen:
        raise ConfigError(f"parts.{part}.{key}: nobody is left; name fewer people to learn from")
    return chosen


def _refuse_seen(
    part: str,
    train_set: PreparedDataset,
    train: Sequence[str],
    test_set: PreparedDataset,
    tested: Sequence[str],
) -> None:
    learned = {leakage.origin(train_set, person) for person in train}
    if seen := [person for person in tested if leakage.origin(test_set, person) in learned]:
        raise ConfigError(
            f"parts.{part}: would test on {', '.join(seen)}, who are learned from; name others in "
            "test_people, or "
            "for simulated people another seed"
        )


def run(study: Study, workdir: epath.PathLike, *, progress: bool = True) -> dict[str, dict[str, Any]]:
    """Run what is left of a study and write its tables.

    Args:
      study: The study that is asked for.
      workdir: Directory of the study; everything lands in it.
      progress: Whether to draw progress bars.

    Returns:
      Protocol → the summary that `scores.json` holds.

    Raises:
      ConfigError: The study is impossible.
      UserError: Data is missing, or a training fails.
    """
    workdir = epath.Path(workdir)
    protocols = [protocol.load(name) for name in study.protocols]
    config = experiments.load(study.experiment, study.overrides)
    experiments.validate(config)
    dirs = {name: _prepare(study, name, workdir, config, progress) for name in study.data}
    datasets = {
        name: open_prepared(path, fps=config.fps, crop_size=config.crop_size, face_crop=config.face_crop)
        for name, path in dirs.items()
    }
    # One region for all: tables of a study are read side by side.
    region = study.region if all(dataset.has_skin for dataset in datasets.values()) else "crop"
    if region != study.region:
        blind = [str(dataset.data_dir) for dataset in datasets.values() if not dataset.has_skin]
        print(f"note: {evaluate.NO_SKIN.format(', '.join(blind))}", file=sys.stderr)
    protocols = [evaluate.over(p, region) for p in protocols]
    tests = plan(study, datasets)
    for number, test in enumerate(tests, 1):
        say = f"{number}/{len(tests)} {test.part}, fold {test.fold}, seed {test.training.seed}"
        _train(study, test.training, dirs[test.training.data], workdir, say, progress)
        _test(study, test, datasets[test.data], workdir, protocols, config.evaluation.reader, say)
    results = {}
    for p in protocols:
        rows = collect(tests, workdir, p)
        results[p.name] = result = summarise(study, tests, rows, p)
        for name, part in result["parts"].items():
            part["left_out"] = collect_left_out([test for test in tests if test.part == name], workdir, p)
        _write(result, rows, p, workdir / "report" / evaluate.folder_name(p))
    return results


def _prepare(study: Study, name: str, workdir: epath.Path, config: Any, progress: bool) -> epath.Path:
    """Return where a dataset is; simulate and prepare it first if that is what is asked for."""
    entry = study.data[name]
    if "data_dir" in entry:
        return epath.Path(entry["data_dir"])
    path, raw = workdir / DATA / name, workdir / DATA / f"{name}-recordings"
    if not (path / INDEX).exists():
        from sspd_jax.datasets import prepare
        from sspd_jax.simulation import recordings

        try:
            recordings.write_recordings(raw, **entry["simulate"])
        except TypeError as error:
            raise ConfigError(f"data.{name}.simulate: {error}") from error
        prepare.prepare_dataset(
            "ubfc_rppg",
            raw,
            path,
            fps=config.fps,
            crop_size=config.crop_size,
            face_crop=config.face_crop,
            progress=progress,
        )
    if raw.exists():
        shutil.rmtree(raw)
    return path


def _train(
    study: Study, training: Training, data_dir: epath.Path, workdir: epath.Path, say: str, progress: bool
):
    """Train, unless it is done."""
    from sspd_jax.experiments.run import open_data
    from sspd_jax.training import loop
    from sspd_jax.training.workdir import NETWORK, claim_workdir

    folder = workdir / TRAININGS / training.name
    config = experiments.load(
        study.experiment,
        [
            *study.overrides,
            f"seed={training.seed}",
            "data.source=",
            f"data.data_dir={data_dir}",
            f"data.train_people={training.people}",
            "data.test_people=()",
        ],
    )
    experiments.validate(config)
    claim_workdir(config, folder)  # refuses a work directory of another experiment
    if all((folder / NETWORK / name).exists() for name in ("online", "target")):
        return
    print(f"{say}: training", file=sys.stderr, flush=True)
    loop.train(config, open_data(config), folder, progress=progress)


def _test(
    study: Study,
    test: Test,
    dataset: PreparedDataset,
    workdir: epath.Path,
    protocols: Sequence[Protocol],
    primary: str,
    say: str,
) -> None:
    """Test, unless it is done."""
    folders = {p: test_folder(workdir, test, p) for p in protocols}
    left = {p: folder for p, folder in folders.items() if not _is_done(folder, test, p.region)}
    if not left:
        return
    print(f"{say}: testing", file=sys.stderr, flush=True)
    network = workdir / TRAININGS / test.training.name / "network" / primary
    evaluate.evaluate_checkpoint(network, dataset, left, people=test.people, methods=study.methods)


def test_folder(workdir: epath.Path, test: Test, p: Protocol) -> epath.Path:
    """Say where the report of a test is."""
    name = f"{test.part}-{test.data}-fold{test.fold}-seed{test.training.seed}"
    return epath.Path(workdir) / TESTS / name / evaluate.folder_name(p)


def _is_done(folder: epath.Path, test: Test, region: str) -> bool:
    try:
        scores = json.loads((folder / "scores.json").read_text())
        if scores.get("settings", {}).get("region", "crop") != region:
            return False
        left_out = {one["person"] for one in scores.get("left_out", ())}
        return set(test.people) - left_out <= set(scores["people"]) <= set(test.people)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def collect(tests: Sequence[Test], workdir: epath.Path, p: Protocol) -> list[Row]:
    """Read every window of every test; part, datasets, fold and seed are facts of the rows."""
    rows = []
    for test in tests:
        mine, _ = read(test_folder(workdir, test, p) / "windows.csv")
        facts = {"part": test.part, "train": test.training.data, "test": test.data}
        rows += with_facts(mine, **facts, fold=test.fold, seed=test.training.seed)
    return rows


def collect_left_out(tests: Sequence[Test], workdir: epath.Path, p: Protocol) -> list[dict[str, Any]]:
    """Read what is in no table of some tests, each once, however many seeds lack it."""
    found: dict[str, dict[str, Any]] = {}
    for test in tests:
        scores = json.loads((test_folder(workdir, test, p) / "scores.json").read_text())
        for one in scores.get("left_out", ()):
            found.setdefault(json.dumps(one), one)
    return list(found.values())


def summarise(study: Study, tests: Sequence[Test], rows: Sequence[Row], p: Protocol) -> dict[str, Any]:
    """Score every part over its seeds.

    Returns:
      JSON's types: 'protocol', 'settings', 'seeds', 'parts': name → 'train', 'test', 'trained_on', 'people',
      'methods': method → 'by_seed' (MAE of each seed, folds pooled), 'mean' and 'sd' of these, and metric →
      [value, standard error, low, high] of all seeds' windows; 'paired': method → network − method.
    """
    span = summary.main_span(rows)
    parts: dict[str, Any] = {}
    for name in study.parts:
        mine = [row for row in rows if row.facts["part"] == name and row.span == span]
        own = [test for test in tests if test.part == name]
        methods = {}
        for method in dict.fromkeys(row.method for row in mine):
            chosen = [row for row in mine if row.method == method]
            by_seed = []
            for seed in study.seeds:
                errors = [abs(row.error_bpm) for row in chosen if row.facts["seed"] == seed]
                by_seed.append(float(np.nanmean(errors)) if np.isfinite(errors).any() else None)
            known = [value for value in by_seed if value is not None]
            methods[method] = {
                "by_seed": by_seed,
                "mean": float(np.mean(known)) if known else None,
                "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
                "scores": summary.plain(summary.score(chosen)),
            }
        parts[name] = {
            "train": own[0].training.data,
            "test": own[0].data,
            "folds": max(test.fold for test in own) + 1,
            "trained_on": len(own[0].training.people),
            "people": len({person for test in own for person in test.people}),
            "methods": methods,
            "paired": {
                method: summary.plain(summary.compare_methods(mine, PRIMARY, method))
                for method in methods
                if method != PRIMARY
            },
        }
    return {
        "protocol": str(p),
        "settings": p.facts,
        "compare_with": p.compare_with,
        "experiment": " ".join([study.experiment, *study.overrides]),
        "seeds": list(study.seeds),
        "span": span,
        "parts": parts,
    }


NOTE = (
    "MAE of each seed; mean ± standard deviation over seeds; in brackets the 95 % bootstrap interval "
    "over people, who "
    "are the same in every seed, so it says nothing of other trainings. Classical methods learn nothing: "
    "their seeds "
    "differ by nothing."
)


def as_text(result: Mapping[str, Any]) -> str:
    """Write a summary as Markdown, the protocol below it."""
    lines = [
        "| part | method | MAE by seed, bpm | mean ± SD | MAE over people | RMSE, bpm | r | "
        f"people | {result['span']}s a seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, part in result["parts"].items():
        for method, table in part["methods"].items():
            lines.append(
                "| "
                + " | ".join([name, summary.NAMES.get(method, method), *_cells(result, part, table)])
                + " |"
            )
    for name, part in result["parts"].items():
        for method, table in part["paired"].items():
            difference = render.cell(table["difference"], interval=True)
            lines.append(
                f"\n{name}: |error| of the network − |error| of {summary.NAMES.get(method, method)}: "
                f"{difference} bpm"
            )
    left_out = [f"{name}: {line}" for name, part in result["parts"].items() for line in render.left_out(part)]
    return "\n".join([*lines, "", f"{result['protocol']}. {NOTE}", *(f"\n{line}" for line in left_out)])


def _cells(result: Mapping[str, Any], part: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    def cell(value: float | None, sd: float | None = None, *interval: float | None) -> str:
        return render.cell([value, sd, *(interval or (None, None))], interval=True)

    metrics = table["scores"]
    value, _, low, high = metrics["MAE"]
    windows = (metrics["rows"][0] + metrics["missing"][0]) / len(result["seeds"])
    return [
        ", ".join(map(cell, table["by_seed"])),
        cell(table["mean"], table["sd"]),
        cell(value, None, low, high),
        *(cell(metrics[metric][0]) for metric in ("RMSE", "r")),
        str(part["people"]),
        f"{windows:.0f}",
    ]


def as_csv(result: Mapping[str, Any]) -> str:
    """Write a study's scores as a tidy table: a row for each part, method and metric."""
    names = ("value", "standard_error", "low", "high")
    lines = []
    for name, part in result["parts"].items():
        scores = [
            (method, metric, numbers)
            for method, table in part["methods"].items()
            for metric, numbers in (
                *(
                    (f"MAE of seed {seed}", [value, None, None, None])
                    for seed, value in zip(result["seeds"], table["by_seed"], strict=True)
                ),
                *table["scores"].items(),
            )
        ]
        scores += [
            (f"{PRIMARY} − {method}", "difference", table["difference"])
            for method, table in part["paired"].items()
        ]
        place = {"part": name, "train": part["train"], "test": part["test"]}
        lines += [
            place
            | {"method": method, "metric": metric, **dict(zip(names, numbers, strict=True))}
            | result["settings"]
            for method, metric, numbers in scores
        ]
    return render.tidy_csv(lines)


def as_latex(result: Mapping[str, Any]) -> str:
    r"""Write a study's scores as a LaTeX table for `\input`; it needs the package booktabs."""
    heads = ["Part", "Method", "MAE by seed", "mean ± SD", "MAE over people", "RMSE", "r", "people", "n"]
    lines = [
        [
            render.latex_name(name),
            render.latex_name(summary.NAMES.get(method, method)),
            *_cells(result, part, table),
        ]
        for name, part in result["parts"].items()
        for method, table in part["methods"].items()
    ]
    return render.latex_table(heads, lines, f"{result['protocol']}. {NOTE}")


def as_html(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Write a study's scores as a page of its own."""
    from sspd_jax.evaluation import figures
    from sspd_jax.evaluation.pages import picture, render_page

    lines, parts = {}, {}
    for name, part in result["parts"].items():
        lines[name] = {
            method: [summary.NAMES.get(method, method), *_cells(result, part, table)]
            for method, table in part["methods"].items()
        }
        mine = [row for row in rows if row.facts["part"] == name]
        shown = figures.shown_methods(mine, PRIMARY)
        parts[name] = [
            picture(figures.draw_rates(mine, shown), f"{name}: predicted against true"),
            picture(figures.draw_bland_altman(mine, shown), f"{name}: Bland–Altman"),
            picture(figures.draw_by_range(mine, shown), f"{name}: error by heart rate"),
        ]
    seeds = picture(figures.draw_seeds(result), "mean absolute error of every seed, part and method")
    return render_page(
        "study.html",
        "Study",
        result=result,
        heads=HEADS,
        lines=lines,
        primary=PRIMARY,
        note=NOTE,
        left_out={name: render.left_out(part) for name, part in result["parts"].items()},
        pictures={"seeds": seeds, "parts": parts},
    )


HEADS = (
    *("method", "MAE by seed, bpm", "mean ± SD", "MAE over people", "RMSE, bpm", "r", "people"),
    "windows a seed",
)


def _write(result: Mapping[str, Any], rows: Sequence[Row], p: Protocol, folder: epath.Path) -> None:
    files = {
        "windows.csv": write(rows, p),
        "scores.csv": as_csv(result),
        "scores.tex": as_latex(result),
        "scores.md": as_text(result) + "\n",
        "index.html": as_html(result, rows),
        "scores.json": json.dumps(result, indent=2) + "\n",
    }
    storage.write_texts(folder, files)

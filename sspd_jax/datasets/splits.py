"""Who is learned from and who is tested on: published lists, a dataset's own protocols, folds from a seed.

People are split, never recordings. The lists, and what is known to be wrong in the datasets, are small tables
in `manifests/`, every line with its source.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import ml_collections

from sspd_jax.errors import ConfigError, UserError

if TYPE_CHECKING:  # configurations are checked before anything heavy is imported
    from sspd_jax.datasets.dataset import PreparedDataset

KINDS = ("people", "folds", "everyone", "published", "protocol", "own_folds")
"""How people can be split, see `of_dataset`."""

PROTOCOLS = ("all", "clean", "natural")
"""COHFACE's."""


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of people.

    Attributes:
      train: Ids of the people to learn from.
      test: Ids of the people to test on, none of them in `train`.
      recordings: Ids of the recordings that count, where the split leaves some out; else None.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    recordings: frozenset[str] | None = None

    def __post_init__(self):
        both = sorted(set(self.train) & set(self.test))
        if both:
            raise UserError(f"a split has {', '.join(both)} in training and in testing; split by person")


@dataclasses.dataclass(frozen=True)
class Erratum:
    """Something known to be wrong in a dataset.

    Attributes:
      recordings: Ids of the recordings or people that it concerns; '*' is all.
      what: What is wrong.
      done: What is done about it here.
      source: Who says so.
    """

    recordings: tuple[str, ...]
    what: str
    done: str
    source: str


def k_folds(people: Iterable[str], folds: int, seed: int | None) -> tuple[tuple[str, ...], ...]:
    """Deal people into folds of (nearly) equal size.

    With a seed the order is that of a hash of seed and name: the same on every machine and in every version,
    whatever the order the people are given in. Without one they are dealt like cards in the order given, so
    that trainings with other seeds share their folds.

    Args:
      people: Names of the people; doubles count once.
      folds: Number of folds, from 2 to the number of people.
      seed: Seed of the hash; other seeds give other folds; None for the order given.

    Returns:
      The folds; every person is in exactly one. With a seed people are sorted in each.

    Raises:
      ConfigError: The number of folds is impossible.
    """
    names = tuple(dict.fromkeys(people))
    if not 2 <= folds <= len(names):
        raise ConfigError(f"{folds} folds of {len(names)} people; ask for 2 to {len(names)}")
    if seed is None:
        return tuple(names[first::folds] for first in range(folds))
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return tuple(tuple(sorted(order[first::folds])) for first in range(folds))


def published(dataset: str, split: str) -> dict[str, tuple[str, ...]]:
    """Return a published split: part ('train', 'dev', 'test') → people.

    Raises:
      ConfigError: There is no such list.
    """
    rows = _rows("splits", dataset)
    parts = {row["part"]: expand(row["people"]) for row in rows if row["split"] == split}
    if not parts:
        known = sorted({row["split"] for row in rows})
        raise ConfigError(
            f"there is no published split {split!r} of {dataset}; "
            f"known: {', '.join(known) or 'none, use folds'}"
        )
    return parts


def known_people(dataset: str) -> tuple[str, ...]:
    """Return everyone a dataset has as its owner gives it away; () where that is not known."""
    return next((expand(row["people"]) for row in _rows("people", dataset)), ())


def known_recordings(dataset: str) -> int | None:
    """Return how many recordings a dataset has as its owner gives it away; None where that is not known."""
    return next((int(row["recordings"]) for row in _rows("people", dataset)), None)


def errata(dataset: str) -> tuple[Erratum, ...]:
    """Return what is known to be wrong in a dataset."""
    return tuple(
        Erratum(tuple(row["recording"].split()), row["what"], row["what_is_done"], row["source"])
        for row in _rows("errata", dataset)
    )


def expand(people: str) -> tuple[str, ...]:
    """Write out a list of people: 'p1 p3..p5' is p1, p3, p4, p5; leading zeros stay."""
    names: list[str] = []
    for word in people.split():
        first, dots, last = word.partition("..")
        if not dots:
            names.append(word)
            continue
        stem, start = re.fullmatch(r"(.*?)(\d+)", first).groups()
        stop = re.fullmatch(r"(.*?)(\d+)", last)[2]
        names += [f"{stem}{number:0{len(start)}d}" for number in range(int(start), int(stop) + 1)]
    return tuple(names)


@functools.cache
def _rows(table: str, dataset: str) -> tuple[Mapping[str, str], ...]:
    text = resources.files("sspd_jax.datasets").joinpath("manifests", f"{table}.csv").read_text("utf-8")
    return tuple(row for row in csv.DictReader(text.splitlines()) if row["dataset"] == dataset)


def of_dataset(dataset: PreparedDataset, data: Mapping[str, Any]) -> Split:
    """Find out who is learned from and who is tested on.

    `data['split']['kind']` says how:
    - 'people': those named in data.train_people and data.test_people;
    - 'folds': everybody, dealt into `folds` by `seed`; number `fold` (from 0) is tested;
    - 'everyone': all are learned from, nobody is tested: for recordings without a wave;
    - 'published': the list `name`, see `published`; its dev people, if any, are left out of both;
    - 'protocol': COHFACE's own, `name` is 'all', 'clean' or 'natural'; dev people are left out of both;
    - 'own_folds': VIPL-HR's own; fold number `fold` (from 1) is tested.

    Args:
      dataset: The prepared dataset.
      data: Table `data` of a configuration.

    Returns:
      The split; people whom the dataset lacks are left out of a published one.

    Raises:
      ConfigError: A setting is impossible.
      UserError: The dataset has nobody for it.
    """
    settings = data.get("split") or {"kind": "people"}  # runs of before there was a choice
    kind, people = settings["kind"], dataset.people
    if kind == "people":
        return _named(dataset, data)
    if kind == "everyone":
        return Split(people, ())
    if kind == "folds":
        if not 2 <= settings["folds"] <= len(people):
            remedy = f"folds={_folds_for(people)}" if len(people) > 1 else "kind=everyone: nobody is tested"
            raise ConfigError(
                f"{dataset.data_dir}: has {len(people)} people, who cannot be dealt into {settings['folds']} "
                f"folds; set --config.data.split.{remedy}"
            )
        folds = k_folds(people, settings["folds"], settings["seed"])
        return _tested(people, folds[settings["fold"]])
    if kind == "published":
        parts = published(data["name"], settings["name"])
        train, test = ([p for p in people if p in parts.get(part, ())] for part in ("train", "test"))
        return _someone(dataset, Split(tuple(train), tuple(test)))
    if kind == "own_folds":
        return _own_fold(dataset, settings["fold"])
    return _own_protocol(dataset, settings["name"])


def _own_fold(dataset: PreparedDataset, number: int) -> Split:
    """Test on one of the folds that the dataset's recordings name."""
    fold = {s.person_id: s.meta.get("fold") for s in dataset.segments}
    test = [person for person in dataset.people if fold[person] == number]
    if not test:
        known = sorted({f for f in fold.values() if f is not None})
        raise UserError(
            f"{dataset.data_dir}: has nobody of fold {number} (it has {known or 'no folds'}); "
            "copy the dataset's folder fold beside data before preparing, or set data.split.kind=folds"
        )
    return _tested([person for person in dataset.people if fold[person] is not None], test)


def _own_protocol(dataset: PreparedDataset, name: str) -> Split:
    """Split as a protocol does that the dataset's recordings name."""
    parts = {s.recording_id: s.meta.get("protocols", {}).get(name) for s in dataset.segments}
    person = {s.recording_id: s.person_id for s in dataset.segments}
    train, test = (
        tuple(dict.fromkeys(person[r] for r, is_in in parts.items() if is_in == part))
        for part in ("train", "test")
    )
    counted = frozenset(r for r, part in parts.items() if part in ("train", "test"))
    return _someone(dataset, Split(train, test, counted))


def _folds_for(people: Iterable[str]) -> int:
    """Suggest a number of folds: five, or one for each person where there are fewer."""
    return max(2, min(5, len(tuple(people))))


def _named(dataset: PreparedDataset, data: Mapping[str, Any]) -> Split:
    """Take the people that the configuration names; some of them must be there.

    Where recordings may be left out (`data.keep_going`) people may be missing; else everybody to learn from
    must be there. Those to test on who are missing stay in the list: reports name them.
    """
    train, test = tuple(data["train_people"]), tuple(data["test_people"])
    absent = {
        key: [person for person in names if person not in dataset.people]
        for key, names in (("train_people", train), ("test_people", test))
    }
    may_lack = data.get("keep_going", False)
    for key, names in (("train_people", train), ("test_people", test)):
        missing = absent[key]
        nobody = names and len(missing) == len(names)
        if nobody or (missing and key == "train_people" and not may_lack):
            has = ", ".join(dataset.people[:6]) + (", …" if len(dataset.people) > 6 else "")
            few = ", ".join(missing[:6]) + (", …" if len(missing) > 6 else "")
            deal = (
                f", or deal them by --config.data.split.kind=folds --config.data.split.folds="
                f"{_folds_for(dataset.people)}"
                if len(dataset.people) > 1
                else ""
            )
            raise UserError(
                f"{dataset.data_dir}: holds no recording of {few}; name people it has ({has}) in "
                f"--config.data.{key}{deal}"
            )
    return Split(tuple(person for person in train if person in dataset.people), test)


def _tested(people: Iterable[str], test: Iterable[str]) -> Split:
    test = tuple(test)
    return Split(tuple(person for person in people if person not in test), test)


def _someone(dataset: PreparedDataset, split: Split) -> Split:
    for part, people in (("train on", split.train), ("test on", split.test)):
        if not people:
            raise UserError(
                f"{dataset.data_dir}: has nobody to {part} in this split; check that the dataset was whole "
                "(protocols included) when it was prepared, or set data.split.kind=folds"
            )
    return split


def choose_people(
    config: ml_collections.ConfigDict, dataset: PreparedDataset
) -> tuple[ml_collections.ConfigDict, PreparedDataset]:
    """Write who is learned from and who is tested on into a copy of the configuration.

    Args:
      config: The experiment's configuration; `data.split` says how, see `of_dataset`.
      dataset: The prepared dataset.

    Returns:
      The copy, with both lists of people; and the dataset of the recordings that the split counts.

    Raises:
      ConfigError: The split is impossible.
      UserError: The dataset has nobody for it.
    """
    split = of_dataset(dataset, config.data)
    config = config.copy_and_resolve_references()
    config.data.train_people, config.data.test_people = split.train, split.test
    return config, dataset if split.recordings is None else dataset.only(split.recordings)

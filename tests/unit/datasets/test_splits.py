"""Splits: disjoint, the same for ever, and every line of the tables has its source."""

import csv
import itertools
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import dataset_files
import numpy as np
import pytest
import scipy.io

from sspd_jax.datasets import splits
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import cohface, registry, vipl_hr
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.training import config as experiments

TABLES = resources.files("sspd_jax.datasets") / "manifests"


def rows(table):
    return list(csv.DictReader((TABLES / f"{table}.csv").read_text("utf-8").splitlines()))


@pytest.mark.parametrize("table", ["people", "splits", "errata"])
def test_every_line_has_a_source_and_a_dataset_that_there_is(table):
    assert rows(table)
    for row in rows(table):
        assert None not in row and None not in row.values(), row
        assert row["source"].strip() and row["dataset"] in registry.READERS, row


def test_published_splits_are_disjoint_and_of_people_there_are():
    names = {(row["dataset"], row["split"]) for row in rows("splits")}
    assert ("ubfc_rppg", "sspd") in names
    for dataset, name in names:
        parts = splits.published(dataset, name)
        assert {"train", "test"} <= set(parts)
        for one, other in itertools.combinations(parts.values(), 2):
            assert not set(one) & set(other)
        assert set().union(*parts.values()) <= set(splits.known_people(dataset))
    with pytest.raises(ConfigError, match="no published split 'x' of pure; known: none, use folds"):
        splits.published("pure", "x")


def test_the_published_split_is_that_of_the_configuration():
    data = experiments.load(str(Path(__file__).parents[3] / "configs" / "ubfc.py")).data
    parts = splits.published("ubfc_rppg", "sspd")
    assert (parts["train"], parts["test"]) == (tuple(data.train_people), tuple(data.test_people))
    assert len(splits.known_people("ubfc_rppg")) == splits.known_recordings("ubfc_rppg") == 42
    assert len(splits.known_people("vipl_hr")) == 107


def test_lists_are_written_out():
    assert splits.expand("p1 p9..p11 08..10") == ("p1", "p9", "p10", "p11", "08", "09", "10")
    assert splits.expand("") == ()


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_folds_are_disjoint_whole_and_even(folds):
    people = splits.known_people("pure")
    dealt = splits.k_folds(people, folds, seed=0)
    assert sorted(itertools.chain(*dealt)) == sorted(people)
    sizes = [len(fold) for fold in dealt]
    assert len(sizes) == folds and max(sizes) - min(sizes) <= 1


def test_folds_are_the_same_for_ever():
    people = splits.known_people("pure")
    # Written down once: a change of these would change everybody's experiments.
    expected = (("04", "06"), ("07", "08"), ("01", "02"), ("03", "10"), ("05", "09"))
    assert splits.k_folds(people, 5, seed=0) == expected
    assert splits.k_folds(people[::-1] + people, 5, seed=0) == expected
    assert splits.k_folds(people, 5, seed=1) != expected
    assert splits.k_folds("dacb", 2, seed=None) == (("d", "c"), ("a", "b"))  # dealt in the order given
    for wrong in (0, 1, 11):
        with pytest.raises(ConfigError, match=f"{wrong} folds of 10 people; ask for 2 to 10"):
            splits.k_folds(people, wrong, seed=0)


def stub(*recordings, **data):
    """A prepared dataset that has nothing but facts: (recording, person, meta)."""
    segments = [SimpleNamespace(recording_id=r, person_id=p, meta=m) for r, p, m in recordings]
    people = tuple(dict.fromkeys(p for _, p, _ in recordings))
    return SimpleNamespace(segments=segments, people=people, data_dir="data")


def chosen(dataset, reader="pure", **split):
    return splits.of_dataset(dataset, {"name": reader, "split": {"seed": 0, **split}})


def test_everyone_folds_and_lists():
    dataset = stub(*((f"r{n}", f"p{n}", {}) for n in range(6)))
    assert chosen(dataset, kind="everyone") == splits.Split(dataset.people, ())
    tests = []
    for fold in range(3):
        split = chosen(dataset, kind="folds", folds=3, fold=fold)
        assert sorted(split.train + split.test) == sorted(dataset.people)
        tests += split.test
    assert sorted(tests) == sorted(dataset.people)
    listed = {"name": "", "split": {"kind": "people"}, "train_people": ["p0"], "test_people": ["p1", "q"]}
    assert splits.of_dataset(dataset, listed) == splits.Split(("p0",), ("p1", "q"))  # reports name q
    listed["train_people"].append("r")
    with pytest.raises(UserError, match=r"no recording of r; name people it has .*split\.folds=5"):
        splits.of_dataset(dataset, listed)
    assert splits.of_dataset(dataset, {**listed, "keep_going": True}).train == ("p0",)
    with pytest.raises(UserError, match=r"data: has 6 people, who cannot .* 7 folds; set .*folds=5"):
        chosen(dataset, kind="folds", folds=7, fold=0)
    with pytest.raises(UserError, match="has a in training and in testing"):
        splits.Split(("a",), ("a",))


def test_a_published_split_takes_whom_the_dataset_has():
    dataset = stub(("s2_T1", "s2", {}), ("s40_T1", "s40", {}), ("s50_T1", "s50", {}))
    assert chosen(dataset, "ubfc_phys", kind="published", name="remoteppg") == splits.Split(("s2",), ("s50",))
    dataset = stub(("s2_T1", "s2", {}))
    with pytest.raises(UserError, match="nobody to test on in this split"):
        chosen(dataset, "ubfc_phys", kind="published", name="remoteppg")


def test_protocols_come_from_cohface_itself(tmp_path):
    dataset_files.cohface(tmp_path / "raw", seconds=2)
    prepare(cohface.recordings(tmp_path / "raw"), tmp_path / "out", crop_size=32, skin=False, progress=False)
    dataset = open_prepared(tmp_path / "out")
    for name, kept in (("all", 4), ("clean", 2), ("natural", 2)):
        split = chosen(dataset, kind="protocol", name=name)
        assert (split.train, split.test) == (("1",), ("2",))
        assert len(dataset.only(split.recordings).segments) == kept
    dev = tmp_path / "raw" / "protocols" / "all" / "dev.txt"
    dev.write_text("2/0/data\n")
    with pytest.raises(UserError, match=r"person 2 is in (test and in dev|dev and in test); copy"):
        cohface.recordings(tmp_path / "raw")
    dev.write_text("2-0\n")
    with pytest.raises(UserError, match=r"dev\.txt: line 1 is '2-0', not like 17/0/data"):
        cohface.recordings(tmp_path / "raw")
    with pytest.raises(UserError, match="nobody to train on"):
        chosen(stub(("a", "a", {})), kind="protocol", name="all")


def test_who_is_in_no_part_of_a_protocol_or_in_its_dev_part_does_not_count():
    parts = (
        ("r1", "a", "train"),
        ("r2", "a", "train"),
        ("r3", "b", "test"),
        ("r4", "c", "dev"),
        ("r5", "d", None),
    )
    dataset = stub(*((r, p, {"protocols": {"clean": part} if part else {}}) for r, p, part in parts))
    split = chosen(dataset, kind="protocol", name="clean")
    assert (split.train, split.test, split.recordings) == (("a",), ("b",), {"r1", "r2", "r3"})


def test_folds_come_from_vipl_hr_itself(tmp_path):
    (tmp_path / "fold").mkdir()
    scipy.io.savemat(tmp_path / "fold" / "fold1.mat", {"fold1": np.array([[1, 107]])})
    scipy.io.savemat(tmp_path / "fold" / "fold2.mat", {"fold2": np.array([[2], [3]], np.uint8)})
    folds = vipl_hr.read_folds(tmp_path)
    assert folds == {"p1": 1, "p107": 1, "p2": 2, "p3": 2}
    dataset = stub(*((f"{p}-v1-source1", p, {"fold": folds.get(p)}) for p in ("p1", "p2", "p3", "p9")))
    assert chosen(dataset, kind="own_folds", fold=2) == splits.Split(("p1",), ("p2", "p3"))
    with pytest.raises(UserError, match=r"nobody of fold 3 \(it has \[1, 2\]\); copy"):
        chosen(dataset, kind="own_folds", fold=3)
    scipy.io.savemat(tmp_path / "fold" / "fold3.mat", {"fold3": np.array([[1]])})
    with pytest.raises(UserError, match=r"fold3\.mat: person 1 is in another fold too"):
        vipl_hr.read_folds(tmp_path)


@pytest.mark.parametrize("recordings", [None, {"r1"}])
def test_a_run_is_of_the_people_and_the_recordings_of_its_split(recordings, monkeypatch):
    config = experiments.load(str(Path(__file__).parents[3] / "configs" / "ubfc.py"))
    before = tuple(config.data.train_people)
    told = []
    split = splits.Split(("a",), ("b", "c"), recordings)
    monkeypatch.setattr(splits, "of_dataset", lambda *args: told.append(args) or split)
    dataset = SimpleNamespace(only=lambda kept: f"only {sorted(kept)}")
    found, left = splits.choose_people(config, dataset)
    assert (tuple(found.data.train_people), tuple(found.data.test_people)) == (("a",), ("b", "c"))
    assert left == (dataset if recordings is None else "only ['r1']")
    assert told[0][0] is dataset and tuple(config.data.train_people) == before  # the one given stays

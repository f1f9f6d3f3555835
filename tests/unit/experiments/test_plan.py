"""What cannot be trained or tested is said, with the key to set, before anything is prepared or written."""

import json
import shutil

import dataset_files
import pytest
import small_run

from sspd_jax import main
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import registry
from sspd_jax.errors import UserError
from sspd_jax.experiments import plan
from sspd_jax.training import config as experiments

SMALL = {"crop_size": 26, "clip_frames": 80, "batch_size": 1, "epochs": 3, **small_run.NETWORK}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two people of UBFC-rPPG and PURE, 6 s each."""
    folder = tmp_path_factory.mktemp("raw")
    dataset_files.ubfc_rppg(folder / "ubfc_rppg")
    dataset_files.pure(folder / "pure")
    return folder


def arguments(tmp_path, name, source, **values):
    values = {
        **SMALL,
        "data.source": source,
        "data.data_dir": tmp_path / "data",
        "evaluation.window_s": 5,
        **{key.replace("__", "."): value for key, value in values.items()},
    }
    return [
        f"--config={name}",
        f"--workdir={tmp_path / 'run'}",
        "--no_progress",
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]


FOLDS = {"data__split__kind": "folds", "data__split__folds": 2}


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (
            "ubfc",
            {},
            [
                "holds no recording of subject3",
                "it has (subject1, subject2) in --config.data.train_people",
                "--config.data.split.kind=folds --config.data.split.folds=2",
            ],
        ),
        ("pure", {}, ["has 2 people, who cannot be dealt into 5 folds", "--config.data.split.folds=2"]),
        (
            "pure",
            {**FOLDS, "clip_frames": 300},
            ["has the 10.0 s of a clip", "longest has 6.0 s", "--config.clip_frames=300"],
        ),
        (
            "pure",
            {**FOLDS, "evaluation__window_s": 10},
            ["needs 10 s of contact pulse wave, the longest has 6.0", "--config.evaluation.window_s"],
        ),
        (
            "ubfc",
            {"data__train_people": "('subject1',)", "data__test_people": "()"},
            ["nobody is to be tested", "--config.data.split.kind=everyone"],
        ),
        (
            "ubfc",
            {"data__train_people": "('subject1',)", "data__test_people": "('subject9',)"},
            ["holds no recording of subject9", "--config.data.test_people"],
        ),
        ("pure", {**FOLDS, "data__data_dir": "/nowhere/at/all"}, ["/nowhere/at is no folder"]),
    ],
)
@pytest.mark.parametrize("door", ["--check_only", ""])
def test_what_cannot_be_is_said_with_its_key_before_anything_is_done(
    tmp_path, capsys, raw, name, values, words, door
):
    source = raw / {"ubfc": "ubfc_rppg"}.get(name, name)
    code = main.main([*arguments(tmp_path, name, source, **values), *([door] if door else [])])
    error = capsys.readouterr().err.strip().splitlines()
    assert code in (1, 2) and len(error) == 1
    assert all(word in error[0] for word in words), error
    assert list(tmp_path.iterdir()) == []


def test_a_broken_recording_is_named_at_once_with_mains_own_key(tmp_path, capsys, raw):
    shutil.copytree(raw / "pure", tmp_path / "pure")
    (tmp_path / "pure" / "02-01" / "02-01.json").write_text("{")
    assert main.main(arguments(tmp_path, "pure", tmp_path / "pure", **FOLDS)) == 1
    error = capsys.readouterr().err
    assert "02-01.json: is damaged" in error and "--config.data.keep_going=True" in error
    assert "--keep_going`" not in error
    assert not (tmp_path / "data").exists()


def test_a_disk_without_room_is_refused(tmp_path, capsys, raw, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1e5))
    assert main.main(arguments(tmp_path, "pure", raw / "pure", **FOLDS)) == 1
    assert "needs 0.0 GB and its disk has 0.0 GB; make room" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_compilation")
def test_the_plan_counts_people_steps_memory_and_time_and_writes_nothing(tmp_path, capsys, raw):
    assert main.main([*arguments(tmp_path, "pure", raw / "pure", **FOLDS), "--check_only"]) == 0
    text = capsys.readouterr().out
    for words in (
        "1 person (0",
        "1 recording, 0.1 min",
        "protocol: sspd_jax: windows of 5 s",
        "3 epochs of 1 clip, 1 step of 1 each: 3 in all",
        "to prepare: 0.00 GB",
        "8 of 10 people are not there",
        "memory: ",
        " GB at a step of 1 clip\n",
        "time: a step took ",
    ):
        assert words in text, text
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_a_prepared_dataset_is_of_its_segments_and_names_who_is_not_tested(tmp_path, raw):
    shutil.copytree(raw / "pure", tmp_path / "pure")
    path = tmp_path / "pure" / "02-01" / "02-01.json"
    content = json.loads(path.read_text())
    content["/FullPackage"] = content["/FullPackage"][:280]  # 4.6 of 6 s
    path.write_text(json.dumps(content))
    values = {
        **SMALL,
        "data.name": "pure",
        "data.source": tmp_path / "pure",
        "data.data_dir": tmp_path / "data",
        "data.train_people": ("01",),
        "data.test_people": ("02", "03"),
        "evaluation.window_s": 5,
    }
    config = experiments.load("ubfc", [f"{key}={value}" for key, value in values.items()])
    for prepared in (False, True):
        if prepared:
            listed = registry.read("pure", config.data.source)
            prepare(listed, config.data.data_dir, crop_size=26, skin=False, progress=False)
        with pytest.raises(UserError, match=r"needs 5 s of contact pulse wave, the longest has 4\.[56]; "):
            plan.check(config)
        config.evaluation.window_s = 4
        planned = plan.check(config)
        assert (planned.recordings is None) == prepared
        assert [entry.recording_id for entry in planned.test] == ["02-01"]
        assert any(note == "03 is not tested: not in the dataset" for note in planned.notes)
        covered = [
            note for note in planned.notes if "02-01 is tested where it has a contact pulse wave" in note
        ]
        assert len(covered) == prepared  # a folder of pictures has no header that says how long it is
        config.evaluation.window_s = 5


def test_another_experiments_work_directory_is_refused_before_preparing(tmp_path, capsys, raw):
    (tmp_path / "run").mkdir()
    config = experiments.load("pure", ["seed=7"])
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    assert main.main(arguments(tmp_path, "pure", raw / "pure", **FOLDS)) == 2
    assert "holds an experiment with" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("seconds", "words"), [(8, "8 s"), (1500, "25 min"), (11520, "3.2 h")])
def test_times_are_written_in_words(seconds, words):
    assert plan.duration(seconds) == words

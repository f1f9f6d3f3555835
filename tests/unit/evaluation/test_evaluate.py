"""The command on a prepared dataset: classical methods, and whom one may test on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scored_people import segment

from sspd_jax.cli import evaluate as cli_evaluate
from sspd_jax.datasets import leakage
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.recording import Ppg, Recording
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import evaluate
from sspd_jax.simulation import sample_video

TIMES = np.arange(330) / 30


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepared") / "faces"
    recordings = [
        Recording(
            recording_id=name,
            person_id=name,
            frames=lambda bpm=bpm: zip(TIMES, sample_video.face_frames(TIMES, bpm, 0), strict=True),
            ppg=Ppg(TIMES, sample_video.ppg(TIMES, bpm)),
            file=directory / name,
            meta={"light": light},
        )
        for name, bpm, light in (("ann", 66.0, "dim"), ("bob", 90.0, "bright"))
    ]
    prepare(recordings, directory, crop_size=40, skin=False, progress=False)
    return directory


def test_classical_methods_are_scored_without_a_checkpoint(data_dir, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = [f"--data={data_dir}", f"--output={output}", "--methods=pos,green", "--protocol=ours,toolbox"]
    assert cli_evaluate.main(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert said.count("report: ") == 2 and "pos *" in said
    for name in ("ours", "toolbox"):
        assert sorted(path.name for path in (output / name).iterdir()) == [
            *("index.html", "scores.csv", "scores.json", "scores.tex", "windows.csv")
        ]
    result = json.loads((output / "ours" / "scores.json").read_text())
    assert result["reader"] == "pos" and result["people"] == ["ann", "bob"]
    assert result["scores"]["window"]["pos"]["MAE"][0] < 1.5
    assert set(result["strata"]["light"]) == {"bright", "dim"}
    assert result["coverage"]["windows"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "name either --workdir"),
        (["--workdir=x", "--data=DATA"], 2, "name either --workdir"),
        (["--data=DATA"], 2, "--data needs --output=DIR"),
        (["--data=nowhere", "--output=OUT"], 1, "nowhere: holds no prepared dataset"),
        (["--data=DATA", "--output=OUT", "--people=zoe"], 2, "nobody called zoe; it has ann, bob"),
        (["--data=DATA", "--output=OUT", "--methods=magic"], 2, "'magic' is none of auto, green"),
        (["--data=DATA", "--output=OUT", "--methods="], 2, "nothing to test"),
        (["--data=DATA", "--output=OUT", "--protocol=toolbx"], 2, "'toolbx' is none of ours"),
        (["--data=DATA", "--output=OUT", "--window=2"], 2, "4 s or more"),
        (["--data=DATA", "--output=OUT", "--window=30"], 1, "has 11.0 s"),
        (["--data=DATA", "--output=OUT", "--checkpoint=nowhere"], 1, "nowhere: no such checkpoint"),
    ],
)
def test_what_cannot_be_evaluated_is_said_and_leaves_nothing(
    data_dir, tmp_path, capsys, arguments, code, words
):
    out = tmp_path / "out"
    arguments = [a.replace("DATA", str(data_dir)).replace("OUT", str(out)) for a in arguments]
    assert cli_evaluate.main(arguments) == code
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
    assert not out.exists()


# Whom one may test on.


def dataset(*names, **meta):
    segments = tuple(segment(name, **meta) for name in names)
    return SimpleNamespace(people=names, segments=segments, data_dir="there")


def learned(*names):
    return {"data": {"data_dir": "training", "train_people": names}}


@pytest.fixture
def training(monkeypatch):
    """What the training's dataset is found to be."""

    def put(found):
        def open_(path):
            if found is None:
                raise UserError(f"{path}: gone")
            return found

        monkeypatch.setattr(leakage, "open_prepared", open_)

    return put


def test_people_learned_from_are_refused_by_name(training):
    training(dataset("a", "b", dataset="X"))
    there = dataset("a", "b", "c", dataset="X")
    with pytest.raises(ConfigError, match=r"trained on a, b.*--people=c"):
        leakage.people_to_test(there, learned("b", "a"), ())
    assert leakage.people_to_test(there, learned("a", "b"), ("c",)) == ("c",)
    with pytest.raises(ConfigError, match="trained on all of them"):
        leakage.people_to_test(dataset("a", dataset="X"), learned("a"), ())


def test_the_same_name_in_another_dataset_is_somebody_else(training):
    training(dataset("a", dataset="X"))
    assert leakage.people_to_test(dataset("a", dataset="Y"), learned("a"), ()) == ("a",)


def test_simulated_people_are_known_by_their_seed(training):
    training(dataset("a", dataset="simulated", simulation={"seed": 1, "preset": "easy"}))
    same = dataset("a", dataset="simulated", simulation={"seed": 1, "preset": "hard"})
    other = dataset("a", dataset="simulated", simulation={"seed": 2, "preset": "easy"})
    assert leakage.trained_on(same, learned("a"), ("a",)) == ["a"]
    assert leakage.trained_on(other, learned("a"), ("a",)) == []


def test_without_the_training_data_a_name_is_enough_to_refuse(training):
    training(None)
    assert leakage.trained_on(dataset("a", dataset="Y"), learned("a"), ("a",)) == ["a"]
    assert leakage.trained_on(dataset("a", dataset="Y"), None, ("a",)) == []


def test_people_of_an_earlier_training_are_refused_too(training):
    """A network that went on from another one's: all that it went through counts."""
    training(dataset("a", "b", "c", dataset="X"))
    there = dataset("a", "b", "c", "d", dataset="X")
    before = [{"data_dir": "earlier", "train_people": ("b",)}, {"data_dir": "first", "train_people": ("c",)}]
    config = {**learned("a"), "learned_before": before}
    assert leakage.trained_on(there, config, ("d", "c", "b", "a")) == ["c", "b", "a"]
    with pytest.raises(ConfigError, match=r"trained on b.*--people=d"):
        leakage.people_to_test(there, config, ("b", "d"))


@pytest.mark.parametrize(("reads_hz", "refused"), [(25.0, True), (30.0, False)])
def test_a_dataset_at_another_rate_than_the_networks_is_refused(reads_hz, refused, monkeypatch, tmp_path):
    facts = {"fps": 30.0, "face_crop": "box", "data_dir": tmp_path / "prepared"}
    there = SimpleNamespace(**facts, people=("c",), segments=())
    network = SimpleNamespace(clock_rate=lambda fps: reads_hz, face_crop="box")
    monkeypatch.setattr(evaluate, "load_network", lambda directory: (learned("a"), None, None))
    monkeypatch.setattr(evaluate.model, "load_model", lambda directory: network)
    monkeypatch.setattr(evaluate.leakage, "people_to_test", lambda *_: ("c",))
    monkeypatch.setattr(evaluate.scoring, "read_segments", lambda *_: ())
    monkeypatch.setattr(evaluate.scoring, "not_read", lambda *_, **__: ())
    monkeypatch.setattr(evaluate, "_score_and_write", lambda *_: "scored")
    if refused:
        with pytest.raises(UserError, match=r"at 30 Hz and the network reads 25 Hz.*--fps=25"):
            evaluate.evaluate_checkpoint(tmp_path / "network", there, {})
    else:
        assert evaluate.evaluate_checkpoint(tmp_path / "network", there, {}) == "scored"

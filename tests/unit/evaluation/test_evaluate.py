"""The command on a prepared dataset: classical methods, and whom one may test on."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scored_people import segment

from sspd_jax.cli import evaluate as cli_evaluate
from sspd_jax.datasets import leakage
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.recording import Ppg, Recording
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import evaluate, protocol, report
from sspd_jax.simulation import sample_video
from sspd_jax.training import config as experiments

pytestmark = pytest.mark.usefixtures("quick_compilation")

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


# What is passed on.


@pytest.fixture
def passed(monkeypatch, tmp_path):
    """What is handed to scoring and writing, and what a fresh network is drawn from."""
    notes = SimpleNamespace(keys=[])
    monkeypatch.setattr(evaluate.model, "load_model", lambda path: SimpleNamespace(
        name=path.name, clock_rate=lambda fps: fps, face_crop="box", crop_size=128
    ))  # fmt: skip
    monkeypatch.setattr(evaluate, "_score_and_write", lambda *args: args)
    monkeypatch.setattr(evaluate.scoring, "not_read", lambda *args, **how: (args[1:], how))
    monkeypatch.setattr(evaluate, "init_variables", lambda settings, key: notes.keys.append(key) or ({}, {}))
    notes.data = SimpleNamespace(
        fps=30.0, face_crop="box", data_dir=tmp_path / "faces", people=("a", "b"),
        segments=tuple(segment(name) for name in "ab"),
    )  # fmt: skip
    return notes


@pytest.mark.parametrize("way", [True, False])
def test_a_runs_test_is_what_was_asked_for(passed, way, tmp_path):
    changes = ["evaluation.reader=online", "seed=5", "fps=25", "data.test_people=('b',)", "crop_size=160"]
    config = experiments.load(
        "ubfc", changes + ["face_crop=box", "health.clips=2", "health.patience=3"] * way
    )
    found = evaluate.evaluate_run(
        config, passed.data, tmp_path / "run", methods=["lgi"], with_confidence=way, faces=way,
        protocols=[evaluate.protocol.load("toolbox")],
    )  # fmt: skip
    work, folders, page, with_confidence, not_read = found
    assert work[:2] == (passed.data, ("b",)) and work[3:] == (("lgi",), "online")
    assert {key: network.name for key, network in work.networks.items()} == {
        key: key for key in ("online", "target", "untrained")
    }
    assert (page.faces, page.keeps_best, with_confidence) == (way, way, way)
    assert page.network.name == "online" and page.workdir.name == "run" and page.dataset is passed.data
    assert [folder.relative_to(tmp_path / "run").as_posix() for folder in folders.values()] == [
        "report/toolbox"
    ]
    assert not_read == ((("b",),), {})
    (key,) = passed.keys
    assert jax.random.key_data(key).tolist() == jax.random.key_data(jax.random.key(5)).tolist()
    fresh = work.networks["untrained"]
    assert (fresh.fps, fresh.crop_size, fresh.face_crop, fresh.network.input_size) == (25.0, 160, "box", 128)


@pytest.mark.parametrize("named", [("b",), ()])
def test_a_checkpoints_test_is_what_was_asked_for(passed, named, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "load_network", lambda directory: ({"data": {}}, None, None))
    found = evaluate.evaluate_checkpoint(
        tmp_path / "step7", passed.data, {"protocol": "folder"}, people=named, methods=("lgi", "pos"),
        with_confidence=not named, faces=bool(named),
    )  # fmt: skip
    work, folders, page, with_confidence, not_read = found
    assert (work.people, work.methods, work.primary) == (named or ("a", "b"), ("lgi", "pos"), "network")
    assert list(work.networks) == ["network"] and page.network.name == "step7"
    assert (page.faces, with_confidence, folders) == (bool(named), not named, {"protocol": "folder"})
    assert "does not say whom it learned from" in page.notes[0] and page.title == "step7 on faces"
    assert not_read == ((named or ("a", "b"),), {"asked_for": bool(named)})
    alone = evaluate.evaluate_checkpoint(None, passed.data, {}, methods=("lgi", "pos"))
    assert alone[0].primary is None and alone[2].network is None and alone[2].notes == ()
    assert alone[2].title == "lgi, pos on faces"


def test_a_dataset_of_another_face_crop_than_the_networks_is_refused(passed, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "load_network", lambda directory: (learned("z"), None, None))
    passed.data.face_crop = "skin"
    with pytest.raises(UserError, match=r"face_crop skin and the network reads box; .*--crop_size=128"):
        evaluate.evaluate_checkpoint(tmp_path / "step7", passed.data, {})


def test_crops_of_the_skin_alone_are_not_scored_as_boxes(monkeypatch):
    there = SimpleNamespace(data_dir="there", face_crop="skin", has_skin=True)
    work = evaluate._Work(there, ("a",), {}, ("auto",), None)
    protocols = {region: evaluate.over(evaluate.protocol.load("ours"), region) for region in ("skin", "crop")}
    with pytest.raises(ConfigError, match=r"crops show the skin alone.*--face_crop=box"):
        evaluate._score_and_write(work, dict.fromkeys(protocols.values(), "folder"), "page", True, [])
    monkeypatch.setattr(evaluate, "_read", lambda *_: ([], "auto"))
    monkeypatch.setattr(evaluate.scoring, "score", lambda *_, **__: SimpleNamespace(result="scored"))
    monkeypatch.setattr(report, "render", lambda *_: "")
    monkeypatch.setattr(evaluate, "write", lambda *_: None)
    found = evaluate._score_and_write(work, {protocols["skin"]: "folder"}, "page", True, [])
    assert found == {"folder": "scored"}


@pytest.mark.parametrize("has_skin", [True, False])
def test_each_protocol_is_scored_over_its_region_of_what_can_be_read(has_skin, monkeypatch, tmp_path):
    read, scored, written = [], [], []
    there = SimpleNamespace(data_dir="there", face_crop="box", has_skin=has_skin)

    def read_segments(dataset, people, networks, methods, region):
        read.append((people, networks, methods, region))
        return [f"waves of the {region}"]

    def score(samples, primary, p, **how):
        scored.append((samples, primary, p.name, p.region, how))
        return SimpleNamespace(result=f"{p.name} over {p.region}")

    monkeypatch.setattr(evaluate.scoring, "read_segments", read_segments)
    monkeypatch.setattr(evaluate.scoring, "score", score)
    monkeypatch.setattr(report, "render", lambda one, samples, page: (one.result, samples, page))
    monkeypatch.setattr(evaluate, "write", lambda one, folder, page: written.append((folder, page)))
    work = evaluate._Work(there, ("a",), {}, ("auto", "lgi"), None)
    protocols = [
        evaluate.over(evaluate.protocol.load(name), region)
        for name, region in (("ours", "skin"), ("toolbox", "crop"), ("sinc", "skin"))
    ]
    folders = {p: p.name for p in protocols}
    results = evaluate._score_and_write(work, folders, "page", False, ["left out"])
    skin = "skin" if has_skin else "crop"
    methods = {"skin": ["auto", "lgi"], "crop": ["lgi"]}
    regions = ["skin", "crop"] if has_skin else ["crop"]  # each is read once
    assert read == [(("a",), {}, methods[region], region) for region in regions]
    for (samples, primary, _, region, how), p in zip(scored, protocols, strict=True):
        assert region == (p.region if has_skin else "crop") and samples == [f"waves of the {region}"]
        assert primary == methods[region][0]
        assert how["with_confidence"] is False and how["not_read"] == ["left out"]
        said = ["holds no traces of the skin"] * (region != p.region) + ["left out of a crop"] * (
            region == "crop"
        )
        assert len(how["notes"]) == len(said)
        assert all(words in note for words, note in zip(said, how["notes"], strict=True))
    expected = {p.name: f"{p.name} over {skin if p.region == 'skin' else 'crop'}" for p in protocols}
    assert results == expected
    assert [(folder, page[0], page[2]) for folder, page in written] == [
        (name, result, "page") for name, result in expected.items()
    ]


@pytest.mark.parametrize(
    ("protocol_name", "options", "window_s", "stride_s"),
    [
        ("ours", ["--window=8"], 8, 8),  # its stride of 10 s would leave gaps
        ("ours", ["--window=30"], 30, 10),
        ("ours", ["--window=8", "--stride=10"], 8, 10),  # who asks for gaps gets them
        ("toolbox", ["--window=8"], 8, 8),  # whole videos have no stride
        ("toolbox", ["--window=8", "--stride=0"], 8, 0),
        ("sinc", ["--window=0"], 0, None),
    ],
)
def test_windows_of_another_length_leave_no_gaps(protocol_name, options, window_s, stride_s, monkeypatch):
    asked = {}
    monkeypatch.setattr(cli_evaluate, "_test_data", lambda args: asked.update(args=args) or {})
    assert cli_evaluate.main(["--data=D", "--output=O", *options]) == 0
    default = evaluate.over(protocol.default(), "crop")
    asked["args"].protocol = protocol_name
    (found,) = cli_evaluate._protocols(asked["args"], default)
    assert found.window_s == window_s
    assert found.stride_s == (protocol.load(protocol_name).stride_s if stride_s is None else stride_s)
    asked["args"].protocol = ""
    (found,) = cli_evaluate._protocols(asked["args"], default)  # a run's own, as ours
    expected = stride_s if protocol_name == "ours" else found.stride_s
    assert (found.window_s, found.stride_s) == (window_s, expected)

"""Studies: who learns and who is tested, what is refused, and that finished parts are not run again."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scored_people import rows, segment

from sspd_jax.cli import study as cli_study
from sspd_jax.errors import ConfigError
from sspd_jax.experiments import run as experiment_run
from sspd_jax.experiments import study
from sspd_jax.training import loop as training_loop

ROOT = Path(__file__).parents[3]
TEXT = """
experiment = "configs/demo.py"
seeds = [0, 1]
[data.a]
data_dir = "a"
[data.b]
data_dir = "b"
[parts.within]
train = "a"
train_people = 4
[parts.across]
train = "a"
train_people = 4
test = "b"
[parts.folds]
train = "a"
folds = 3
"""


def dataset(names, **meta):
    segments = tuple(segment(name, **meta) for name in names)
    return SimpleNamespace(people=tuple(names), segments=segments)


def two(seed_of_b=2):
    names = [f"subject{i}" for i in range(1, 8)]
    simulated = [{"dataset": "simulated", "simulation": {"seed": seed}} for seed in (1, seed_of_b)]
    return {"a": dataset(names, **simulated[0]), "b": dataset(names[:3], **simulated[1])}


@pytest.fixture
def load(tmp_path):
    def made(text=TEXT):
        (tmp_path / "study.toml").write_text(text)
        return study.load(str(tmp_path / "study.toml"))

    return made


def test_parts_become_tests(load):
    tests = study.plan(load(), two())
    within = [t for t in tests if t.part == "within"]
    assert [t.training.seed for t in within] == [0, 1]
    assert within[0].training.people == ("subject1", "subject2", "subject3", "subject4")
    assert within[0].people == ("subject5", "subject6", "subject7")
    across = [t for t in tests if t.part == "across"]
    assert across[0].data == "b" and len(across[0].people) == 3
    assert across[0].training == within[0].training  # trained once


def test_folds_test_everybody_once_and_never_on_who_was_learned_from(load):
    folds = [t for t in study.plan(load(), two()) if t.part == "folds" and t.training.seed == 0]
    assert len(folds) == 3
    assert sorted(p for t in folds for p in t.people) == sorted(two()["a"].people)
    for t in folds:
        assert not set(t.people) & set(t.training.people)
        assert len(t.people) + len(t.training.people) == 7


def test_the_same_simulated_people_in_another_light_are_refused(load):
    with pytest.raises(
        ConfigError, match=r"across: would test on subject1, subject2, subject3, who are learned"
    ):
        study.plan(load(), two(seed_of_b=1))


def test_names_that_are_learned_from_cannot_be_tested(load):
    text = TEXT.replace(
        "train_people = 4\n[parts.across]", 'train_people = 4\ntest_people = ["subject4"]\n[parts.across]'
    )
    with pytest.raises(ConfigError, match="subject4 cannot be chosen of subject5"):
        study.plan(load(text), two())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds = [0, 1]", "seeds = [0, 0]", "seeds is"),
        ("seeds = [0, 1]", "", "seeds is missing"),
        ("seeds", "seed", "seed is unknown"),
        ('test = "b"', 'test = "c"', "parts.across.test is 'c'.*a, b"),
        ("folds = 3", "folds = 1", "folds ≥ 2"),
        ("folds = 3", 'folds = 3\ntest = "b"', "nothing else"),
        ('data_dir = "b"', 'data_dir = "b"\nsimulate = {}', "either data_dir or simulate"),
        ("seeds", 'region = "nose"\nseeds', "region 'nose' is none of skin, crop"),
        ("seeds", 'methods = ["magic"]\nseeds', "'magic' is none of auto, green"),
        ("[data.a]", "[data.a", "cannot be read"),
    ],
)
def test_a_wrong_study_is_said_in_a_sentence(load, old, new, words):
    assert old in TEXT
    with pytest.raises(ConfigError, match=words) as caught:
        load(TEXT.replace(old, new, 1))
    assert "study.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("folds = 3", "folds = 8", "folds is 8; a has 7 people"),
        ("train_people = 4", "train_people = 9", "there are 7 people"),
        ("train_people = 4", "train_people = 7", "nobody is left"),
    ],
)
def test_a_plan_that_cannot_be_is_said(load, old, new, words):
    with pytest.raises(ConfigError, match=words):
        study.plan(load(TEXT.replace(old, new, 1)), two())


def test_the_shipped_study_can_be_read():
    shipped = study.load(str(ROOT / "configs" / "simulated_study.toml"))
    assert len(shipped.seeds) == 3 and set(shipped.parts) == {"within", "across"}


def test_a_missing_study_ends_with_2(tmp_path, capsys):
    assert cli_study.main([f"--config={tmp_path / 'no.toml'}", f"--workdir={tmp_path / 'w'}"]) == 2
    assert "does not exist" in capsys.readouterr().err and not (tmp_path / "w").exists()


def test_each_training_has_its_own_seed_people_and_folder(tmp_path, load, monkeypatch):
    """What a training is given, and which network each of its tests then reads."""
    trained, tested = [], []
    monkeypatch.setattr(
        training_loop, "train", lambda config, data, folder, **_: trained.append((config, folder))
    )
    monkeypatch.setattr(experiment_run, "open_data", lambda config: None)
    monkeypatch.setattr(
        study.evaluate,
        "evaluate_checkpoint",
        lambda network, *_, **options: tested.append((network, options)),
    )
    ours = load(TEXT.replace("configs/demo.py", f"{ROOT}/configs/demo.py"))
    tests = [t for t in study.plan(ours, two()) if t.part in ("within", "folds")]
    for test in tests:
        study._train(ours, test.training, f"prepared-{test.training.data}", tmp_path, "", False)
        study._test(ours, test, None, tmp_path, [study.protocol.default()], "target", "")
    for test, (config, folder), (network, options) in zip(tests, trained, tested, strict=True):
        assert config.seed == test.training.seed
        assert tuple(config.data.train_people) == test.training.people
        assert config.data.data_dir == "prepared-a" and tuple(config.data.test_people) == ()
        assert network == folder / "network" / "target" and options["people"] == test.people
    assert {config.seed for config, _ in trained} == {0, 1}
    assert len({str(folder) for _, folder in trained}) == len(tests)
    written = {json.loads((folder / "config.json").read_text())["seed"] for _, folder in trained}
    assert written == {0, 1}


def test_a_study_is_summed_up_seed_by_seed(tmp_path, load, monkeypatch):
    """Errors to either side, other ones in each seed; the classical method's are the same in both."""
    ours = load(TEXT.replace("[parts.across]", "[parts.across] # ").replace('test = "b"\n', ""))
    tests = [t for t in study.plan(ours, two()) if t.part in ("within", "across")]
    errors = {
        ("within", 0): (1.0, -1.0),
        ("within", 1): (-3.0, 5.0),
        ("across", 0): (7.0,),
        ("across", 1): (-9.0,),
    }

    def read(path):
        name = path.parent.parent.name
        part, seed = name.split("-")[0], int(name[-1])
        return [*rows(*errors[part, seed], method="network"), *rows(2.0, -2.0, method="pos")], {}

    monkeypatch.setattr(study, "read", read)
    p = study.protocol.default()
    found = study.collect(tests, tmp_path, p)
    assert [
        (row.facts["part"], row.facts["seed"], row.error_bpm) for row in found if row.method == "network"
    ] == [
        *(("within", 0, 1), ("within", 0, -1), ("within", 1, -3), ("within", 1, 5)),
        *(("across", 0, 7), ("across", 1, -9)),
    ]
    only = dataclasses.replace(ours, parts={name: ours.parts[name] for name in ("within", "across")})
    result = study.summarise(only, tests, found, p)
    network, pos = (result["parts"]["within"]["methods"][name] for name in ("network", "pos"))
    assert network["by_seed"] == [1, 4] and network["mean"] == 2.5
    assert network["sd"] == pytest.approx(np.sqrt(4.5))
    assert network["scores"]["MAE"][0] == pytest.approx(2.5) and network["scores"]["rows"][0] == 4
    assert pos["by_seed"] == [2, 2] and pos["sd"] == 0
    assert result["parts"]["across"]["methods"]["network"]["by_seed"] == [7, 9]
    # Window by window and seed by seed: 1 − 2, 1 − 2, 3 − 2, 5 − 2
    assert result["parts"]["within"]["paired"]["pos"]["difference"][0] == pytest.approx(0.5)
    text = study.as_text({**result, "parts": {"within": {**result["parts"]["within"], "left_out": []}}})
    assert "1.00 ± –, 4.00 ± – | 2.50 ± 2.12 | 2.50" in text
    for line in csv.DictReader(study.as_csv(result).splitlines()):
        if (line["part"], line["method"], line["metric"]) == ("within", "network", "MAE of seed 1"):
            assert float(line["value"]) == 4


@pytest.mark.slow
def test_a_study_runs_and_is_not_run_again(tmp_path, monkeypatch, capsys):
    text = f"""
experiment = "{ROOT}/configs/demo.py:smoke"
overrides = ["epochs=1"]
seeds = [3, 4]
protocols = ["ours", "toolbox"]
[data.a]
simulate = {{ preset = "easy", people = 4, seconds = 10.5, seed = 5 }}
[parts.folds]
train = "a"
folds = 2
"""
    (tmp_path / "study.toml").write_text(text)
    arguments = [f"--config={tmp_path / 'study.toml'}", f"--workdir={tmp_path / 'out'}", "--no_progress"]
    assert cli_study.main(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert said.err.count("training") == 4 and "preparing" not in said.err
    report = tmp_path / "out" / "report" / "toolbox"
    summary = json.loads((report / "scores.json").read_text())
    part = summary["parts"]["folds"]
    assert set(part["methods"]) == {"network", "auto", "green", "pos", "chrom"}
    assert said.out.count("| folds |") == 2 * len(part["methods"])  # in the table of each protocol
    assert part["people"] == 4 and part["trained_on"] == 2 and part["folds"] == 2
    assert part["methods"]["pos"]["by_seed"][0] == part["methods"]["pos"]["by_seed"][1]
    assert np.isfinite(part["methods"]["network"]["by_seed"]).all()
    assert sorted(p.name for p in report.iterdir()) == [
        *("index.html", "scores.csv", "scores.json", "scores.md", "scores.tex", "windows.csv")
    ]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "trainings").rglob("*")}
    assert cli_study.main(arguments) == 0
    again = capsys.readouterr()
    assert "training" not in again.err and "testing" not in again.err and again.out == said.out
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "trainings").rglob("*")}


def test_who_has_no_truth_is_listed_and_does_not_make_a_test_undone(tmp_path, load):
    tests = [t for t in study.plan(load(), two()) if t.part == "across"]
    p = study.protocol.default()
    lost = {
        "recording": "subject3/0",
        "person": "subject3",
        "why": "no truth",
        "start_s": None,
        "end_s": None,
    }
    for test in tests:
        folder = study.test_folder(tmp_path, test, p)
        folder.mkdir(parents=True)
        people = sorted(set(test.people) - {"subject3"})
        (folder / "scores.json").write_text(json.dumps({"people": people, "left_out": [lost]}))
        assert study._is_done(folder, test, p.region)
    assert study.collect_left_out(tests, tmp_path, p) == [lost]  # once, not for every seed
    (folder / "scores.json").write_text(json.dumps({"people": people, "left_out": []}))
    assert not study._is_done(folder, test, p.region)
    text = study.as_text(
        {"span": "window", "protocol": "p", "parts": {"x": {"methods": {}, "paired": {}, "left_out": [lost]}}}
    )
    assert "x: left out: subject3/0: no truth" in text

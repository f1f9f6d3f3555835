"""Studies: who learns and who is tested, what is refused, and that finished parts are not run again."""

import copy
import csv
import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from page_tables import read_tables
from scored_people import rows, segment

from sspd_jax.cli import study as cli_study
from sspd_jax.datasets import prepare
from sspd_jax.errors import ConfigError
from sspd_jax.evaluation import figures, pages
from sspd_jax.experiments import run as experiment_run
from sspd_jax.experiments import study
from sspd_jax.simulation import recordings
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


def test_a_study_is_all_that_its_file_says(load):
    plain = load()
    assert (plain.overrides, plain.protocols, plain.region) == ((), ("ours",), "skin")
    assert plain.methods == study.scoring.DEFAULT
    settings = (
        'overrides = ["epochs=7"]\nprotocols = ["toolbox", "ours"]\nmethods = ["lgi"]\nregion = "crop"\n'
    )
    ours = load(settings + TEXT)
    assert ours.overrides == ("epochs=7",) and ours.protocols == ("toolbox", "ours")
    assert ours.methods == ("lgi",) and ours.region == "crop"
    assert (ours.experiment, ours.seeds) == ("configs/demo.py", (0, 1))
    assert ours.data == {"a": {"data_dir": "a"}, "b": {"data_dir": "b"}}
    assert ours.parts["across"] == {"train": "a", "train_people": 4, "test": "b"}


def test_a_training_learns_by_the_overrides_and_a_test_reads_by_the_methods(tmp_path, load, monkeypatch):
    trained, tested = [], []
    monkeypatch.setattr(training_loop, "train", lambda config, *_, **__: trained.append(config))
    monkeypatch.setattr(experiment_run, "open_data", lambda config: None)
    monkeypatch.setattr(
        study.evaluate, "evaluate_checkpoint", lambda *args, **how: tested.append((args, how))
    )
    text = TEXT.replace("configs/demo.py", f"{ROOT}/configs/demo.py")
    ours = load(f'overrides = ["epochs=7", "data.source=raw"]\nmethods = ["lgi", "omit"]\n{text}')
    test = next(t for t in study.plan(ours, two()) if t.part == "across" and t.training.seed == 1)
    study._train(ours, test.training, "prepared", tmp_path, "", False)
    (config,) = trained
    assert config.epochs == 7 and config.data.source == ""  # it is prepared
    protocols = [study.protocol.load(name) for name in ("ours", "toolbox")]
    study._test(ours, test, "of b", tmp_path, protocols, "online", "")
    (((network, data, folders), options),) = tested
    assert (network.name, data, options["methods"]) == ("online", "of b", ("lgi", "omit"))
    assert folders == {p: study.test_folder(tmp_path, test, p) for p in protocols}


def test_every_test_has_a_folder_of_its_own(tmp_path, load):
    tests = study.plan(load(), two())
    protocols = [study.protocol.load(name) for name in ("ours", "toolbox")]
    folders = {study.test_folder(tmp_path, test, p) for test in tests for p in protocols}
    assert len(folders) == 2 * len(tests) == 2 * 2 * (1 + 1 + 3)


def test_what_was_tested_over_another_region_is_tested_again(tmp_path, load):
    test = study.plan(load(), two())[0]
    for region, settings in (("skin", {"region": "skin"}), ("crop", {"region": "crop"}), ("crop", {})):
        scores = {"people": list(test.people), "settings": settings}
        (tmp_path / "scores.json").write_text(json.dumps(scores))
        assert study._is_done(tmp_path, test, region)
        assert not study._is_done(tmp_path, test, {"skin": "crop", "crop": "skin"}[region])


@pytest.mark.parametrize(("blind", "region"), [((), "skin"), (("b",), "crop"), (("a", "b"), "crop")])
def test_a_study_reads_its_data_as_it_trains_and_one_region_of_all(
    tmp_path, load, monkeypatch, blind, region
):
    opened, tested, summed = [], [], []

    def open_prepared(path, **asked):
        opened.append((path.name, asked))
        data = two()[path.name]
        data.has_skin, data.data_dir = path.name not in blind, path
        return data

    monkeypatch.setattr(study, "open_prepared", open_prepared)
    monkeypatch.setattr(
        study, "_train", lambda study, training, folder, *_: tested.append((training, folder))
    )
    monkeypatch.setattr(
        study, "_test", lambda study, test, data, workdir, *how: tested.append((test, data, how))
    )
    monkeypatch.setattr(study, "collect", lambda tests, workdir, p: [])
    monkeypatch.setattr(study, "collect_left_out", lambda tests, workdir, p: [test.part for test in tests])
    parts = {name: {} for name in ("within", "across", "folds")}
    monkeypatch.setattr(study, "summarise", lambda study, tests, rows, p: {"parts": copy.deepcopy(parts)})
    monkeypatch.setattr(study, "_write", lambda result, rows, p, folder: summed.append((p, folder)))
    overrides = '["evaluation.reader=online", "fps=25", "crop_size=160", "epochs=1"]'
    text = TEXT.replace("configs/demo.py", "ubfc")
    ours = load(f'protocols = ["ours", "toolbox"]\noverrides = {overrides}\n{text}')
    results = study.run(ours, tmp_path, progress=False)
    assert opened == [(name, {"fps": 25.0, "crop_size": 160, "face_crop": "box"}) for name in "ab"]
    tests = study.plan(ours, two())
    assert [entry[0] for entry in tested[::2]] == [test.training for test in tests]
    assert {entry[1].name for entry in tested[::2]} == {"a"}
    assert [entry[0] for entry in tested[1::2]] == tests
    for test, data, (protocols, reader, _) in tested[1::2]:
        assert data.data_dir.name == test.data and reader == "online"
        assert [(p.name, p.region) for p in protocols] == [("ours", region), ("toolbox", region)]
    assert [(p.name, p.region, folder.name) for p, folder in summed] == [
        (name, region, name) for name in ("ours", "toolbox")
    ]
    for result in results.values():
        assert {name: set(part["left_out"]) for name, part in result["parts"].items()} == {
            name: {name} for name in parts
        }


def test_simulated_people_are_prepared_as_the_training_wants_them(tmp_path, load, monkeypatch):
    told = []
    monkeypatch.setattr(recordings, "write_recordings", lambda raw, **how: told.append((raw.name, how)))
    monkeypatch.setattr(prepare, "prepare_dataset", lambda *args, **how: told.append((args, how)))
    ours = load(TEXT.replace('data_dir = "b"', "simulate = { people = 3, seed = 5 }"))
    config = study.experiments.load("ubfc", ["fps=25", "crop_size=160", "face_crop=skin"])
    assert study._prepare(ours, "a", study.epath.Path(tmp_path), config, False).name == "a" and not told
    path = study._prepare(ours, "b", study.epath.Path(tmp_path), config, False)
    assert told[0] == ("b-recordings", {"people": 3, "seed": 5})
    (reader, raw, there), how = told[1]
    assert (reader, raw.name, there) == ("ubfc_rppg", "b-recordings", path)
    assert how == {"fps": 25.0, "crop_size": 160, "face_crop": "skin", "progress": False}


def errors_of(test):
    """Errors of a test's network to either side, other ones in each part, fold and seed."""
    rng = np.random.default_rng([len(test.part), test.fold, test.training.seed])
    return rng.normal(0, 4, len(test.people)).round(2).tolist()


@pytest.fixture
def summed(tmp_path, load, monkeypatch):
    """A study's tests, its rows and their summary; whole videos, which do not count, are far off."""
    ours = load()
    tests = study.plan(ours, two())
    by_folder = {study.test_folder(tmp_path, test, study.protocol.default()): test for test in tests}

    def read(path):
        test = by_folder[path.parent]
        network = rows(*errors_of(test), method="network")
        videos = [dataclasses.replace(row, span="video", predicted_bpm=500.0) for row in network]
        return [*network, *videos, *rows(*(2.0 for _ in test.people), method="pos")], {}

    monkeypatch.setattr(study, "read", read)
    found = study.collect(tests, tmp_path, study.protocol.default())
    return tests, found, study.summarise(ours, tests, found, study.protocol.default())


def test_each_part_says_who_learned_and_who_was_tested(summed):
    tests, found, result = summed
    said = {
        name: [part[key] for key in ("train", "test", "folds", "trained_on", "people")]
        for name, part in result["parts"].items()
    }
    assert said == {
        "within": ["a", "a", 1, 4, 3],
        "across": ["a", "b", 1, 4, 3],
        "folds": ["a", "a", 3, 4, 7],  # three, two and two of seven are tested, the others learned from
    }
    keys = ("part", "train", "test", "fold", "seed")
    assert {tuple(row.facts[key] for key in keys) for row in found} == {
        (t.part, t.training.data, t.data, t.fold, t.training.seed) for t in tests
    }
    for name, part in result["parts"].items():
        own = [test for test in tests if test.part == name]
        for seed, value in zip(result["seeds"], part["methods"]["network"]["by_seed"], strict=True):
            errors = np.concatenate([errors_of(test) for test in own if test.training.seed == seed])
            assert value == pytest.approx(np.abs(errors).mean())
        errors = np.concatenate([errors_of(test) for test in own])
        scores = part["methods"]["network"]["scores"]
        assert scores["RMSE"][0] == pytest.approx(np.sqrt(np.mean(errors**2)))
        assert scores["rows"][0] == len(errors)
        assert part["paired"]["pos"]["difference"][0] == pytest.approx((np.abs(errors) - 2).mean())


def test_every_form_of_a_study_has_the_numbers_of_its_summary(summed):
    _, _, result = summed
    lines = {}
    for name, part in result["parts"].items():
        for method, table in part["methods"].items():
            scores = table["scores"]
            value, _, low, high = scores["MAE"]
            assert method == "pos" or low < value < high
            correlation = scores["r"][0]
            lines[name, method] = [
                ", ".join(f"{mae:.2f} ± –" for mae in table["by_seed"]),
                f"{table['mean']:.2f} ± {table['sd']:.2f}",
                f"{value:.2f} ± – [{low:.2f}, {high:.2f}]",
                f"{scores['RMSE'][0]:.2f} ± –",
                "–" if correlation is None else f"{correlation:.2f} ± –",
                str(part["people"]),
                f"{scores['rows'][0] / 2:.0f}",  # of each of two seeds
            ]
    names = {"network": study.summary.NAMES["network"], "pos": "POS"}
    text = [line.strip("| ").split(" | ") for line in study.as_text({**result, "parts": {
        name: {**part, "left_out": []} for name, part in result["parts"].items()
    }}).splitlines()]  # fmt: skip
    latex = [
        [
            re.sub(r"\$|\\(?!pm)", "", cell).replace(r"\pm", "±").replace("--", "–").strip()
            for cell in line.split("&")
        ]
        for line in study.as_latex(result).splitlines()
    ]
    for (name, method), cells in lines.items():
        row = [name, names[method], *cells]
        assert row in text
        assert row in latex
    for line in csv.DictReader(study.as_csv(result).splitlines()):
        part = result["parts"][line["part"]]
        assert (line["train"], line["test"]) == (part["train"], part["test"])
        if line["method"] in part["methods"] and line["metric"] in ("MAE", "SNR"):
            numbers = part["methods"][line["method"]]["scores"][line["metric"]]
        elif line["metric"] == "difference":
            assert line["method"] == "network − pos"
            numbers = part["paired"]["pos"]["difference"]
        else:
            continue
        written = [line[key] for key in ("value", "standard_error", "low", "high")]
        assert written == ["" if number is None else str(number) for number in numbers]


def test_the_page_and_the_picture_of_a_study_have_the_numbers_of_its_summary(summed, monkeypatch):
    monkeypatch.setattr(pages, "picture", lambda figure, alt: f"({alt})")
    _, found, result = summed
    one = {**result, "parts": {"across": {**result["parts"]["across"], "left_out": []}}}
    page = study.as_html(one, found)
    ((head, *table),) = read_tables(page)
    assert head == list(study.HEADS)
    part = one["parts"]["across"]
    for line, (method, scores) in zip(table, part["methods"].items(), strict=True):
        assert line == [study.summary.NAMES[method], *study._cells(one, part, scores)]
    difference = part["paired"]["pos"]["difference"]
    said = "network − POS: {:.2f} ± {:.2f} [{:.2f}, {:.2f}] bpm".format(*difference)
    assert said in page and said.replace("network", "|error| of the network").replace(
        "POS", "|error| of POS"
    ) in study.as_text(one)
    (axis,) = figures.draw_seeds(result).axes
    drawn = [dots.get_offsets().tolist() for dots in axis.collections if len(dots.get_offsets())]
    expected = [
        part["methods"][m]["by_seed"] for m in ("network", "pos") for part in result["parts"].values()
    ]
    assert [[y for _, y in dots] for dots in drawn] == expected
    assert [round(np.mean([x for x, _ in dots]), 3) for dots in drawn] == [-0.2, 0.8, 1.8, 0.2, 1.2, 2.2]


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

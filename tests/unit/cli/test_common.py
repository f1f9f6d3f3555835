"""What every command says of names that are not its own, and of an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_collections
import pytest
import small_run
from etils import epath

from sspd_jax import __main__ as door
from sspd_jax import main
from sspd_jax.cli import common, predict, prepare
from sspd_jax.datasets.readers import registry
from sspd_jax.errors import UserError
from sspd_jax.runtime import metrics_log
from sspd_jax.training import config as experiments
from sspd_jax.training import workdir

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("command", "argument", "said"),
    [
        (predict.main, "--windows=5", "did you mean --window?"),
        (predict.main, "--min-confidence=0.5", "did you mean --min_confidence?"),
        (prepare.main, "--datadir=x", "did you mean --data_dir?"),
    ],
)
def test_an_unknown_option_names_the_nearest(capsys, command, argument, said):
    with pytest.raises(SystemExit) as caught:
        command(
            ["x", "--dataset=pure", "--source=y", argument] if command is prepare.main else ["x", argument]
        )
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--data_dir=x", "overrides look like --config.data.data_dir=x"),
        ("--dataset=pure", "a dataset's experiment is --config=pure"),
        ("--epochs=3", "overrides look like --config.epochs=3"),
        ("--config.keep_going", "overrides look like --config.data.keep_going=VALUE"),
        ("--nonsense=3", "overrides look like --config.seed=1"),
        ("--config.epoch=3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("--config.optimizer.learning_rat=3", "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
    ],
)
def test_an_override_that_is_none_names_the_key(capsys, argument, said):
    assert main.main(["--config=ubfc", argument]) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith(said) and "\\" not in error and len(error.splitlines()) == 1


def test_a_commands_earlier_name_works_and_says_the_new_one(capsys):
    for earlier, name in door.EARLIER_NAMES.items():
        with pytest.raises(SystemExit) as caught:
            door.main([earlier, "--help"])
        said = capsys.readouterr()
        assert caught.value.code == 0 and f"usage: sspd_jax {name}" in said.out
        assert said.err == f"note: {earlier} is called {name} now\n"
    assert door.main(["predikt"]) == 2
    assert capsys.readouterr().err == "error: no command 'predikt'; did you mean predict?\n"
    assert door.main(["face.mp4"]) == 2
    assert "there are predict, live" in capsys.readouterr().err


def test_a_dataset_has_one_name_in_commands_and_configurations():
    for experiment, reader in registry.EXPERIMENTS.items():
        assert experiments.find(reader, ".py") == experiments.find(experiment, ".py")
        assert experiments.load(reader).data.name == reader
    readers = {experiments.load(name).data.name for name in ("ubfc", "ubfc1", "pure", "cohface", "mmpd")}
    assert readers <= set(registry.READERS)


def test_an_interruption_says_what_goes_on(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert common.run(interrupt, goes_on="the same command goes on") == 130
    assert common.run(interrupt) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on\ninterrupted\n"


@pytest.mark.slow
def test_a_training_tells_that_it_compiles_and_what_ctrl_c_leaves(tmp_path):
    data = small_run.prepare_people(tmp_path / "data")
    values = {**small_run.OVERRIDES, "data.data_dir": data, "epochs": 2000}
    command = [
        sys.executable,
        "-m",
        "sspd_jax.main",
        "--config=ubfc:released",
        f"--workdir={tmp_path / 'run'}",
    ]
    command += [f"--config.{key}={value}" for key, value in values.items()]
    with (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=said, stderr=said)
        log = tmp_path / "run" / "metrics.jsonl"
        until = time.monotonic() + 120
        while not (log.exists() and log.read_text()) and time.monotonic() < until:
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
    text = (tmp_path / "said").read_text()
    assert "compiling for 2 clips, once" in text
    assert "interrupted; what is prepared and the last checkpoint stay, and the same command goes on" in text
    assert json.loads(log.read_text().splitlines()[0])["step"] >= 1


DEEP = "[" * 100_000
TEXTS = [
    "",
    "no table",
    "[]",
    "{}",
    "3",
    '{"data": 1}',
    '{"data": {"data_dir": 3}}',
    DEEP,
    '{"a":' * 100_000,
    "\udcff",
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_that_is_damaged_or_nested_without_end_is_a_sentence(tmp_path, capsys, text):
    data = text.encode(errors="surrogateescape")
    for name in ("config.json", "a.toml", "report/scores.json", "made/simulation.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "metrics.jsonl").write_bytes(data + b'\n{"step": 1, "loss": 0.5}\n{"step": Infinity}\n')
    commands = [
        ["evaluate", f"--workdir={tmp_path}"],
        ["evaluate", "--data=nowhere", "--output=nowhere", f"--protocol={tmp_path / 'a.toml'}"],
        ["study", f"--config={tmp_path / 'a.toml'}", f"--workdir={tmp_path / 'study'}"],
        ["compare", str(tmp_path), str(tmp_path)],
        ["simulate", str(tmp_path / "made"), "--people=1", "--seconds=12"],
    ]
    for command in commands:
        assert door.main(command) in (1, 2)
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "unexpected" not in said and said.count("\n") == 1, said
    assert [row["step"] for row in metrics_log.read_metrics(tmp_path)] == [1]
    plain = ml_collections.ConfigDict({"seed": 1})
    with pytest.raises(UserError):
        workdir.refuse_another(plain, epath.Path(tmp_path))

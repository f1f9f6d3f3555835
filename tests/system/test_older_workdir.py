"""What version 0.1 wrote is read, evaluated and gone on with: its keys of configurations had other names."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run

from sspd_jax.checkpoints import network, renamed_keys
from sspd_jax.errors import ConfigError
from sspd_jax.evaluation.evaluate import protocol_of
from sspd_jax.experiments.run import train_and_evaluate
from sspd_jax.method.settings import network_settings
from sspd_jax.training import config as experiments

ROOT = Path(__file__).parents[2]
OLD = {
    **small_run.OVERRIDES,
    "network.features": 4,
    "network.ts_heads": 1,
    "network.predictor_width": 2,
    "network.stages": "((2,2),)",
    "epochs": 4,
    "network.change": "steady_chrominance",
    "playback.slowest": 0.8,
    "evaluation.read_out": "wavelet",
    "checkpoint.keep": 4,
    "compilation_cache": False,
}


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    folder = tmp_path_factory.mktemp("older")
    shutil.unpack_archive(ROOT / "tests" / "golden" / "workdir_0.1.tar.xz", folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return small_run.prepare_people(tmp_path_factory.mktemp("people") / "data")


def load(data_dir, **changes):
    values = {**OLD, "data.data_dir": data_dir, **changes}
    overrides = [f"{key}={value}" for key, value in values.items()]
    return experiments.load(str(ROOT / "configs" / "ubfc.py:released"), overrides)


def test_a_network_is_loaded_under_the_keys_of_today(older):
    config, _, _ = network.load_network(older / "final" / "target")
    assert network_settings(config).input_transform == "steady_chrominance"
    assert protocol_of(config).name.startswith("sspd")
    assert config["time_stretch"] == {"min_speed": 0.8}
    assert not {"playback", "disturb"} & set(config)


def test_the_shipped_network_is_loaded_as_it_is():
    config, _, _ = network.load_network(ROOT / "data" / "simulated_faces")
    assert network_settings(config).input_transform == "steady_chrominance"


@pytest.mark.slow
def test_a_run_goes_on_to_the_networks_that_it_would_have_had(older, data_dir, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(older / "run", workdir)
    log = tmp_path / "log"
    with log.open("w") as file:
        assert small_run.start(workdir, data_dir, file, **OLD).wait(300) == 0, log.read_text()
    for old, new in renamed_keys.RENAMED.items():
        assert f"note: config key {old!r} is now {new!r}" in log.read_text()
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 3, 4, 6, 8]
    _, *ours = network.load_network(workdir / "network" / "target")
    _, *theirs = network.load_network(older / "final" / "target")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_another_experiment_is_refused(older, data_dir, tmp_path):
    for changes, says in (
        ({"network.change": "steady"}, "network.input_transform = 'steady_chrominance'"),
        ({"playback.slowest": 0.9}, "time_stretch.min_speed = 0.8"),
    ):
        with pytest.raises(ConfigError, match=says):
            train_and_evaluate(load(data_dir, **changes), older / "run", progress=False)
    workdir = tmp_path / "disturbed"
    workdir.mkdir()
    config = json.loads((older / "run" / "config.json").read_text())
    config["disturb"]["light"] = 0.01
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"disturb\.lamp = 0\.0, which this one does not have"):
        train_and_evaluate(load(data_dir), workdir, progress=False)


def test_translating_leaves_everything_else_alone():
    config = {"network": {"input_size": 36}, "disturb": {"light": 0.1}, "terms": {}, "fps": 30.0}
    assert renamed_keys.translate(config) == config
    assert renamed_keys.translate({}) == {}

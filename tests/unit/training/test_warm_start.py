"""Going on from another training's network: what is taken over, and what is refused in one sentence."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run

from sspd_jax.checkpoints import network
from sspd_jax.errors import ConfigError
from sspd_jax.runtime import metrics_log
from sspd_jax.training import config as experiments
from sspd_jax.training import warm_start

ROOT = Path(__file__).parents[3]

SHORT = {"epochs": 2, "network.ts_heads": 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return small_run.prepare_people(tmp_path_factory.mktemp("prepared") / "faces")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One cache of compiled programs for all runs here."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run(workdir, data_dir, environment, **overrides):
    """Run to the end; returns exit code and what was said."""
    text = Path(f"{workdir}.said")
    with text.open("w") as said:
        values = {**SHORT, **overrides}
        process = small_run.start(workdir, data_dir, said, environment=environment, **values)
    return process.wait(500), text.read_text()


@pytest.fixture(scope="module")
def first(data_dir, environment, tmp_path_factory):
    """A finished run that probed its health."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    code, said = run(workdir, data_dir, environment, **{"health.clips": 2, "time_stretch.min_speed": 0.9})
    assert code == 0, said
    return workdir


def networks(workdir):
    return [network.load_network(workdir / "network" / name)[1:] for name in ("online", "target")]


@pytest.mark.slow
def test_a_run_goes_on_from_another_ones_networks_with_a_fresh_optimizer(
    first, data_dir, environment, tmp_path
):
    # All parts frozen: the networks stay what they were taken over as, but for statistics and the average.
    frozen = {"optimizer.frozen": "('backbone','ts','predictor')", "target.momentum": 1.0}
    going_on = {"init_from": first, **frozen}
    code, said = run(tmp_path / "second", data_dir, environment, **going_on)
    assert code == 0, said
    for ours, theirs in zip(networks(tmp_path / "second"), networks(first), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours[0], theirs[0])
        assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (ours[1], theirs[1])), strict=True))
    online, target = networks(first)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (online[0], target[0])), strict=True))
    assert metrics_log.read_metrics(tmp_path / "second")[-1]["step"] == 4  # its own steps, from 0


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_that_was_made_for_reading_alone(
    first, data_dir, environment, tmp_path
):
    """As the one in data/ is: without similarity blocks, which begin afresh."""
    config, params, batch_stats = network.load_network(first / "network" / "target")
    stripped = tmp_path / "stripped"
    without = [{k: v for k, v in tree.items() if k != "ts"} for tree in (params, batch_stats)]
    network.save_network(stripped, config, *without)
    frozen = {"optimizer.frozen": "('backbone','ts','predictor')", "target.momentum": 1.0}
    code, said = run(tmp_path / "run", data_dir, environment, init_from=stripped, **frozen)
    assert code == 0, said
    for ours in networks(tmp_path / "run"):
        for part in ("backbone", "predictor"):
            jax.tree.map(np.testing.assert_array_equal, ours[0][part], params[part])
        assert jax.tree.structure(ours[0]) == jax.tree.structure(params)


@pytest.mark.slow
def test_a_probe_is_logged_at_the_end_of_every_epoch(first):
    rows = metrics_log.read_metrics(first)
    probed = [row for row in rows if "probe/light_moves" in row]
    assert [row["step"] for row in probed] == [2, 4]
    assert all(np.isfinite(value) for row in probed for name, value in row.items() if "probe/" in name)
    assert json.loads((first / "config.json").read_text())["time_stretch"]["min_speed"] == 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"init_from": "/nowhere/at/all"}, ["/nowhere/at/all", "no such checkpoint"]),
        ({"network.features": 16}, ["init_from", "network.features = 8", "16"]),
        (
            {"data.split.kind": "people", "data.train_people": ("ann",), "data.test_people": ("bob",)},
            ["init_from", "learned from bob"],
        ),
    ],
    ids=["missing", "another network", "seen people"],
)
def test_what_cannot_be_gone_on_from_is_refused_in_one_sentence(
    first, data_dir, environment, tmp_path, overrides, says
):
    code, said = run(tmp_path / "run", data_dir, environment, **{"init_from": first, **overrides})
    assert code != 0
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    for words in says:
        assert words in last, said


def test_pictures_of_another_kind_are_refused():
    """The network in data/ learned from faces in boxes; skin alone is another picture."""
    config = experiments.load("demo", [f"init_from={ROOT / 'data' / 'simulated_faces'}", "face_crop=skin"])
    with pytest.raises(ConfigError, match=r"face_crop = 'box', this experiment shows 'skin'; set config"):
        warm_start.init_from(config, None, experiments.validate(config))

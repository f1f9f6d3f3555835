"""Going on from another training's network: what is taken over, and what is refused in one sentence."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
import small_training as small

from sspd_jax.checkpoints import network
from sspd_jax.errors import ConfigError
from sspd_jax.method import network as networks_of
from sspd_jax.method.settings import network_table
from sspd_jax.runtime import metrics_log
from sspd_jax.training import config as experiments
from sspd_jax.training import presets, warm_start

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
@pytest.mark.slow
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


# The state it begins with, without a run.


BEFORE = [{"data_dir": "earlier", "train_people": ["zoe"]}]


@pytest.fixture(scope="module")
def drawn():
    """Networks of other trainings, each of its own numbers: name → (params, batch_stats)."""
    settings = small.network(presets.RELEASED)
    trees = {}
    for seed, name in enumerate(("online", "target", "alone")):
        params, statistics = networks_of.init_variables(settings, jax.random.key(seed))
        trees[name] = params, jax.tree.map(lambda x, seed=seed: x + seed, statistics)
    return settings, trees


@pytest.fixture
def kept(drawn, monkeypatch, tmp_path):
    """The same as checkpoints: a run's two networks in `tmp_path/run`, and one in `tmp_path/alone`."""
    settings, trees = drawn
    trees = {name: (dict(params), statistics) for name, (params, statistics) in trees.items()}
    tables = {
        name: {
            "network": network_table(settings),
            "data": {"data_dir": f"of {name}", "train_people": ["ann"]},
            "learned_before": BEFORE,
        }
        for name in trees
    }

    def load(folder):
        return tables[folder.name], *trees[folder.name]

    monkeypatch.setattr(warm_start, "load_network", load)
    monkeypatch.setattr(warm_start.leakage, "trained_on", lambda dataset, theirs, people: [])
    for name in ("online", "target"):
        (tmp_path / "run" / "network" / name).mkdir(parents=True)
    (tmp_path / "alone").mkdir()
    return trees, tables


def begin(source, form=presets.RELEASED, **changes):
    config = experiments.load("ubfc", [f"init_from={source}", "seed=5", "data.test_people=('bob',)"])
    return warm_start.init_from(config, "the dataset", small.step_config(form, **changes))


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_each_network_of_a_run_goes_on_as_itself(kept, tmp_path):
    trees, _ = kept
    state, before = begin(tmp_path / "run")
    (online, statistics), (target, target_statistics) = trees["online"], trees["target"]
    assert_same(state.params, online)
    assert_same(state.batch_stats, statistics)
    assert_same(state.target_params, target)
    assert_same(state.target_batch_stats, target_statistics)
    assert state.step == 0
    assert before == [{"data_dir": "of target", "train_people": ["ann"]}, *BEFORE]  # the latest first
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)  # a step gives them away


def test_a_checkpoint_goes_on_in_both_networks(kept, tmp_path):
    trees, _ = kept
    state, _ = begin(tmp_path / "alone")
    for params, statistics in (
        (state.params, state.batch_stats), (state.target_params, state.target_batch_stats),
    ):  # fmt: skip
        assert_same((params, statistics), trees["alone"])


def test_similarity_blocks_that_are_absent_are_drawn_from_the_runs_own_seed(kept, tmp_path):
    trees, _ = kept
    blocks = trees["alone"][0].pop("ts")
    state, _ = begin(tmp_path / "alone")
    fresh, _ = networks_of.init_variables(small.network(presets.RELEASED), jax.random.key(5))
    assert_same(state.params["ts"], fresh["ts"])
    assert_same(state.target_params["ts"], fresh["ts"])
    with pytest.raises(AssertionError):
        assert_same(state.params["ts"], blocks)


def test_nobody_is_tested_whom_any_of_both_networks_learned_from(kept, tmp_path, monkeypatch):
    asked = []

    def trained_on(dataset, theirs, people):
        asked.append((dataset, theirs["data"]["data_dir"], people))
        return ["bob"] if theirs["data"]["data_dir"] == "of target" else []

    monkeypatch.setattr(warm_start.leakage, "trained_on", trained_on)
    with pytest.raises(ConfigError, match=r"target learned from bob, who are to be tested"):
        begin(tmp_path / "run")
    assert asked == [("the dataset", f"of {name}", ("bob",)) for name in ("online", "target")]


OTHERS = {
    "input_size": 24, "stages": ((4, 6),), "features": 4, "predictor_width": 2, "ts_kernels": (7, 3),
    "ts_strides": (2, 1), "ts_heads": 1, "ts_attention_scale": "channels", "ts_projection": "linear",
    "ts_residual": "embedding", "input_transform": "steady",
}  # fmt: skip
FREE = {"conv": "matmul", "dtype": "bfloat16", "predictor_isolated": False, "rematerialise": False}


@pytest.mark.parametrize("name", [*OTHERS, *FREE])
def test_what_makes_another_network_is_refused_and_how_it_is_computed_is_free(kept, tmp_path, name):
    _, tables = kept
    assert set(OTHERS) | set(FREE) == set(tables["alone"]["network"])
    tables["alone"]["network"][name] = (OTHERS | FREE)[name]
    if name in FREE:
        begin(tmp_path / "alone")
    else:
        with pytest.raises(ConfigError, match=f"alone has network.{name} = "):
            begin(tmp_path / "alone")

"""A checkpoint that was damaged after it was written costs its steps, never the run."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small_training
from etils import epath

from sspd_jax.errors import UserError
from sspd_jax.training import checkpoints as module
from sspd_jax.training import config as experiments
from sspd_jax.training.checkpoints import checkpoints, resume, save

STEPS = (1, 2, 3)


@pytest.fixture(scope="module")
def step_config():
    return small_training.step_config()


def changed(state, step):
    """A state of its own for each step; its largest array is random bits, which are stored as they are."""
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda x: x + np.asarray(step, x.dtype), state))
    at = largest(leaves)
    bits = np.random.default_rng(step).bytes(leaves[at].nbytes)
    leaves[at] = np.frombuffer(bits, leaves[at].dtype).reshape(leaves[at].shape)
    return jax.tree.unflatten(tree, leaves)


def largest(leaves):
    return max(range(len(leaves)), key=lambda i: leaves[i].nbytes)


@pytest.fixture(scope="module")
def written(step_config, tmp_path_factory):
    """A work directory with three checkpoints, and the states in them."""
    workdir = epath.Path(tmp_path_factory.mktemp("run"))
    fresh = small_training.state(step_config)
    states = {step: changed(fresh, step) for step in STEPS}
    with checkpoints(workdir, 3) as manager:
        for step, state in states.items():
            save(manager, step, state, {"score": float(step)}, {"trust": [step / 4]})
    return Path(workdir), states


def resumed(workdir, step_config):
    with checkpoints(epath.Path(workdir), 3) as manager:
        return resume(manager, step_config, 0)


def cut_the_manifest(step, _):
    for path in (step / "state").rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:20])


def cut_the_numbers(step, _):
    for path in (step / "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(step, state):
    """In a number, where the storage has no checksum of its own."""
    leaves = jax.tree.leaves(state)
    some = np.asarray(leaves[largest(leaves)]).tobytes()[64:128]
    for path in (step / "state").rglob("d/*"):
        data = bytearray(path.read_bytes())
        if (at := data.find(some)) >= 0:
            data[at] ^= 16
            path.write_bytes(data)
            return
    raise AssertionError("the numbers are not stored as they are")


def empty_its_metrics(step, _):
    (step / "measured" / "metadata").write_bytes(b"")


def remove_the_state(step, _):
    shutil.rmtree(step / "state")


def cut_the_scores(step, _):
    (step / "metrics" / "metrics").write_bytes(b"{")


@pytest.mark.parametrize(
    "damage",
    [
        flip_one_bit,
        *(
            pytest.param(damage, marks=pytest.mark.slow)
            for damage in (
                cut_the_numbers,
                cut_the_manifest,
                empty_its_metrics,
                remove_the_state,
                cut_the_scores,
            )
        ),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(written, step_config, damage, tmp_path, capfd):
    workdir, states = written
    shutil.copytree(workdir, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "3", states[3])
    state, measured, notes = resumed(tmp_path / "run", step_config)
    if damage is cut_the_scores:  # they only choose what is kept
        assert int(state.step) == 3 and notes == ()
    else:
        assert int(state.step) == 2 and measured == {"trust": [0.5]}
        jax.tree.map(np.testing.assert_array_equal, state, states[2])
        (note,) = notes
        assert note.startswith("the checkpoint of step 3 is damaged") and "goes on from step 2" in note
        assert (tmp_path / "run" / "checkpoints" / "damaged-3").is_dir()
    assert capfd.readouterr().err == ""
    # The steps after it are taken and saved anew.
    with checkpoints(epath.Path(tmp_path / "run"), 3) as manager:
        assert resume(manager, step_config, 0).notes == ()
        save(manager, 3, states[3], {"score": 3.0}, {"trust": [0.75]})
    again = resumed(tmp_path / "run", step_config)
    assert int(again.state.step) == 3 and again.notes == () and again.measured == {"trust": [0.75]}


def test_where_none_is_whole_nothing_is_touched(written, step_config, tmp_path):
    workdir, _ = written
    shutil.copytree(workdir, tmp_path / "run")
    for step in STEPS:
        cut_the_manifest(tmp_path / "run" / "checkpoints" / str(step), None)
    with pytest.raises(UserError, match=r"all checkpoints \(steps 1, 2, 3\) are damaged.*begin anew"):
        resumed(tmp_path / "run", step_config)
    there = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {"1", "2", "3"} <= there and not any("damaged" in name for name in there)


def test_a_run_without_checkpoints_begins_anew(step_config, tmp_path):
    state, measured, notes = resumed(tmp_path, step_config)
    assert int(state.step) == 0 and measured == {} and notes == ()


def test_the_best_stays_after_a_run_was_resumed(written, step_config, tmp_path):
    _, states = written
    for steps, scores in (((1, 2), (0.9, 0.1)), ((3, 4, 5), (0.2, 0.3, 0.4))):
        with checkpoints(epath.Path(tmp_path), 2) as manager:
            for step, score in zip(steps, scores, strict=True):
                save(manager, step, states[1], {"score": score})
    with checkpoints(epath.Path(tmp_path), 2) as manager:
        assert list(manager.all_steps()) == [1, 4, 5]


def test_what_is_kept_as_the_best_is_what_is_trusted_most_where_that_is_known():
    assert module._score_of({"score": 0.9, "trust": 0.1}) == 0.1
    assert module._score_of({"score": 0.9}) == 0.9


@pytest.mark.parametrize("before", [None, [{"train_people": ["zoe"]}]])
def test_each_network_is_exported_with_its_own_numbers_and_what_it_learned_before(
    before, tmp_path, monkeypatch
):
    saved = {}

    def save_network(folder, tables, params, batch_stats):
        folder.mkdir(parents=True)
        saved[len(saved)] = (tables, params, batch_stats)

    monkeypatch.setattr(module, "save_network", save_network)
    if before:
        (tmp_path / "learned_before.json").write_text(json.dumps(before))
    state = SimpleNamespace(
        params="online", batch_stats="its statistics", target_params="target", target_batch_stats="its own",
    )  # fmt: skip
    config = experiments.load("ubfc", ["seed=7"])
    for _ in range(2):  # what a run that was cut off has left is replaced
        saved.clear()
        module.export_networks(config, state, epath.Path(tmp_path))
    (first, *online), (second, *target) = saved.values()
    assert (online, target) == (["online", "its statistics"], ["target", "its own"])
    for tables in (first, second):
        assert tables["seed"] == 7 and tables.get("learned_before") == before
    assert sorted(path.name for path in (tmp_path / "network").iterdir()) == ["online", "target"]

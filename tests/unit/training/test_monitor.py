"""Stopping by trust or at a loss that is not finite, and keeping the network that was trusted most."""

import itertools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small_run

from sspd_jax.checkpoints import network
from sspd_jax.runtime import metrics_log
from sspd_jax.training import loop, monitor
from sspd_jax.training.monitor import RunMetrics

EPOCHS = 12


def test_the_first_of_the_best_epochs_counts_and_patience_from_there():
    found = RunMetrics(trust=[0.2, 0.5, 0.5, 0.1])
    assert found.best_epoch() == 2
    assert found.is_exhausted(1) and found.is_exhausted(2) and not found.is_exhausted(3)
    assert not found.is_exhausted(0), "0 is no patience at all: nothing stops"
    assert RunMetrics().best_epoch() == 0 and not RunMetrics().is_exhausted(1)


def test_what_was_trusted_goes_into_a_checkpoint_and_back():
    found = RunMetrics(line=[{"loss": 2.0}], epoch=[{"loss": 1.0}], trust=[0.5])
    table = found.table()
    assert RunMetrics(**table) == found
    # It is written while steps go on.
    found.end_line()
    found.trust.append(0.75)
    assert table == {"line": [{"loss": 2.0}], "epoch": [{"loss": 1.0}], "trust": [0.5]}


def test_what_steps_measured_is_read_once():
    found = RunMetrics(line=[{"loss": 1.0}], pending=[{"loss": np.float32(2)}, {"loss": np.float32(4)}])
    found.read()
    found.read()
    assert found == RunMetrics(line=[{"loss": 1.0}, {"loss": 2.0}, {"loss": 4.0}])


def test_steps_and_waiting_are_timed_and_begin_anew(monkeypatch):
    clock = itertools.count()  # each look at it is a second later
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: float(next(clock)))
    timer = monitor.StepTimer()
    for _ in range(2):
        for _ in range(2):
            with timer.step(), timer.wait():  # three seconds, one of them waited
                pass
        with timer.reading():  # another one
            pass
        assert timer.read() == {"time/waiting_share": 2 / 7, "time/steps_per_s": 2 / 7}


def test_everybody_is_probed_once_before_anybody_is_twice(monkeypatch):
    people = ("ann", "ann", "bob", "ann", "bob", "cleo")
    segments = [SimpleNamespace(person_id=who, number=i) for i, who in enumerate(people)]
    dataset = SimpleNamespace(
        segments=segments, clip=lambda segment, start, length: np.full((length, 1), segment.number)
    )
    choice = SimpleNamespace(segments=[[i] for i in range(6)])
    told = []

    def compile_probe(*args):
        told.append(args)
        return lambda state, clips: clips

    monkeypatch.setattr(monitor, "compile_probe", compile_probe)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    monkeypatch.setattr(monitor.sharding, "replicated", lambda mesh: one)
    for count, order in ((2, [0, 2]), (3, [0, 2, 5]), (5, [0, 2, 5, 1, 4]), (9, [0, 2, 5, 1, 4, 3])):
        config = SimpleNamespace(clip_frames=4, health=SimpleNamespace(clips=count))
        probe = monitor.make_probe(config, dataset, choice, "step", "mesh")
        assert np.asarray(probe("state"))[:, 0, 0].tolist() == order
        assert told[-1] == ("step", "mesh", [people[i] for i in order])


@pytest.fixture
def run_of_four(monkeypatch):
    """A run of epochs of 4 steps, whose log, saved states and restored ones are noted."""
    notes = SimpleNamespace(said=[], written=[])
    log = SimpleNamespace(
        say=notes.said.append, write=lambda step, values, epoch: notes.written.append((step, values, epoch))
    )
    setup = SimpleNamespace(
        one_person=False, mesh="mesh", step_config="step", total_steps=12, batches=(),
        probe=lambda state: {"trust": np.float32(0.25), "repeated": 0.5, "steady_pos_agrees": 0.75},
    )  # fmt: skip
    config = SimpleNamespace(
        seed=5, log_every=3, checkpoint=SimpleNamespace(every_steps=0), health=SimpleNamespace(patience=2)
    )
    manager = SimpleNamespace(all_steps=lambda: [4, 8, 12])
    notes.run = loop.Run(config, setup, 4, manager, RunMetrics(), log, None)
    return notes


def test_a_line_of_the_log_holds_means_and_at_the_end_of_an_epoch_the_probe(run_of_four):
    run = run_of_four.run
    rows = [{"loss": 1.0, "health/alike": 0.2}, {"loss": 3.0, "health/alike": 0.4}]
    rows = [row | {"health/at_edge": 0.0} for row in rows]
    timer = SimpleNamespace(read=lambda: {"time/steps_per_s": 9.0})
    for taken, epoch in ((3, 1), (4, 1), (6, 2), (8, 2)):
        run.metrics.line = [dict(row) for row in rows]
        due = loop._due(run, taken)
        assert (due.epoch, due.epoch_ends, due.logs) == (epoch, taken % 4 == 0, True)
        probed = loop._write_line(run, taken, "state", due, timer)
        (step, values, said_epoch) = run_of_four.written[-1]
        assert (step, said_epoch, values["loss"], values["time/steps_per_s"]) == (taken, epoch, 2, 9)
        assert values["health/alike"] == pytest.approx(0.3)
        assert ("probe/trust" in values) == ("trust" in probed) == due.epoch_ends
        assert not run.metrics.line and len(run.metrics.epoch) == {3: 2, 4: 4, 6: 2, 8: 4}[taken]
        if due.epoch_ends:
            assert values["probe/trust"] == 0.25
            scores = loop._end_epoch(run, due, probed)
            assert scores == {"alike": pytest.approx(0.3), "at_edge": 0, "trust": 0.25}
            assert run.metrics.epoch == []  # the next epoch's means are its own
    assert run.metrics.trust == [0.25, 0.25]


@pytest.mark.parametrize("one_person", [True, False])
def test_waves_that_are_alike_are_warned_of_unless_all_are_of_one_person(run_of_four, one_person):
    run = run_of_four.run
    run.setup.one_person = one_person
    run.metrics.epoch = [{"loss": 1.0, "health/alike": 0.99, "health/at_edge": 0.0}]
    loop._end_epoch(run, loop._due(run, 8), {})
    assert ["0.99 alike" in said and "epoch 2" in said for said in run_of_four.said] == [True] * (
        not one_person
    )


@pytest.mark.parametrize(
    ("trust", "best"), [([0.1, 0.9, 0.5], 8), ([0.9, 0.1], 4), ([0.1, 0.1, 0.1, 0.2], None)]
)
def test_the_state_that_is_kept_is_of_the_epoch_that_is_trusted_most(run_of_four, monkeypatch, trust, best):
    run, asked = run_of_four.run, []
    run.metrics.trust = trust
    monkeypatch.setattr(loop, "finish", lambda manager: asked.append(manager))
    monkeypatch.setattr(loop.sharding, "replicated", lambda mesh: f"whole on the {mesh}")

    def restore(*args):
        asked.append(args)
        return SimpleNamespace(step=best or 12)

    monkeypatch.setattr(loop, "restore", restore)
    loop._most_trusted(run)
    where = (run.manager, "step", 5, "whole on the mesh")
    assert asked == [run.manager, (*where, best) if best else where]  # the last one, where that is gone
    assert run_of_four.said == [f"note: the networks of epoch {(best or 12) // 4} are kept"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return small_run.prepare_people(tmp_path_factory.mktemp("prepared") / "faces")


def run(workdir, data_dir, said, **overrides):
    values = {"epochs": EPOCHS, "health.clips": 4, "checkpoint.keep": 1, **overrides}
    with said.open("w") as file:
        code = small_run.start(workdir, data_dir, file, **values).wait(500)
    assert code == 0, said.read_text()
    return said.read_text()


def target(workdir):
    return network.load_network(workdir / "network" / "target")[1]


def test_the_first_step_whose_loss_is_not_finite_is_described():
    nan, fine = float("nan"), {"loss": 1.0, "terms/a": 1.0}
    rows = [fine, {"loss": nan, "terms/b": 1.0, "terms/a": nan}, {"loss": nan, "terms/b": nan}]
    assert monitor.not_finite(rows) == ["loss", "terms/a"]
    assert monitor.not_finite([fine, {"loss": 1.0, "health/score": nan}]) == []


@pytest.mark.slow
def test_a_run_ends_when_trust_stops_growing_and_gives_its_most_trusted_network(data_dir, tmp_path):
    whole, stopped, said = tmp_path / "whole", tmp_path / "stopped", tmp_path / "said"
    run(whole, data_dir, said)
    trust = [row["probe/trust"] for row in metrics_log.read_metrics(whole) if "probe/trust" in row]
    assert len(trust) == EPOCHS
    patience = 1
    # What follows from the numbers of the run that was not stopped.
    ends = next((n for n in range(1, EPOCHS) if RunMetrics(trust=trust[:n]).is_exhausted(patience)), EPOCHS)
    best = RunMetrics(trust=trust[:ends]).best_epoch()
    assert best < ends, "nothing to see here: every epoch was trusted more than the one before"

    told = run(stopped, data_dir, said, **{"health.patience": patience})
    assert f"the networks of epoch {best} are kept" in told
    assert (f"stopped after {ends} epochs" in told) == (ends < EPOCHS)
    found = [row["probe/trust"] for row in metrics_log.read_metrics(stopped) if "probe/trust" in row]
    np.testing.assert_allclose(found, trust[:ends], atol=1e-3)
    assert json.loads((stopped / "config.json").read_text())["health"]["patience"] == patience

    # Started again, it has nothing left to learn and gives the same network; a run of so many epochs too.
    first = target(stopped)
    assert f"the networks of epoch {best} are kept" in run(
        stopped, data_dir, said, **{"health.patience": patience}
    )
    jax.tree.map(np.testing.assert_array_equal, target(stopped), first)
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, target(whole), first)

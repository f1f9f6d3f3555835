"""Stopping by trust or at a loss that is not finite, and keeping the network that was trusted most."""

import json

import jax
import numpy as np
import pytest
import small_run

from sspd_jax.checkpoints import network
from sspd_jax.runtime import metrics_log
from sspd_jax.training import monitor
from sspd_jax.training.monitor import RunMetrics

EPOCHS = 12


def test_the_first_of_the_best_epochs_counts_and_patience_from_there():
    found = RunMetrics(trust=[0.2, 0.5, 0.5, 0.1])
    assert found.best_epoch() == 2
    assert found.is_exhausted(2) and not found.is_exhausted(3)
    assert not found.is_exhausted(0), "0 is no patience at all: nothing stops"
    assert RunMetrics().best_epoch() == 0 and not RunMetrics().is_exhausted(1)


def test_what_was_trusted_goes_into_a_checkpoint_and_back():
    assert RunMetrics(**RunMetrics(trust=[0.5]).table()).trust == [0.5]


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

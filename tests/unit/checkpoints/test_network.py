"""A network is found where people look for it: in a training's work directory, too."""

import json
from pathlib import Path

import pytest

from sspd_jax.checkpoints.network import load_network
from sspd_jax.errors import UserError

SHIPPED = Path(__file__).parents[3] / "data" / "simulated_faces"


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "run" / "network").mkdir(parents=True)
    (tmp_path / "run" / "network" / "target").symlink_to(SHIPPED)
    (tmp_path / "run" / "checkpoints" / "2" / "state").mkdir(parents=True)
    return tmp_path / "run"


@pytest.mark.parametrize("inside", ["", "network", "network/target"])
def test_a_work_directory_stands_for_its_network(workdir, inside):
    config, params, _ = load_network(workdir / inside)
    expected, other, _ = load_network(SHIPPED)
    assert json.dumps(config, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert params.keys() == other.keys()


@pytest.mark.parametrize("inside", ["checkpoints", "checkpoints/2"])
def test_a_state_of_a_training_names_the_network(workdir, inside):
    with pytest.raises(UserError) as caught:
        load_network(workdir / inside)
    network = workdir / "network" / "target"
    assert (
        str(caught.value) == f"{workdir / inside}: holds states of a training, not a network; give {network}"
    )


@pytest.mark.parametrize("inside", ["network/target/network", "report"])
def test_a_folder_beside_a_network_names_it(workdir, inside):
    (workdir / "report").mkdir()
    with pytest.raises(UserError) as caught:
        load_network(workdir / inside)
    network = workdir / "network" / "target"
    assert str(caught.value) == f"{workdir / inside}: is not a checkpoint of a network; give {network}"


def test_a_folder_without_a_network_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="is not a checkpoint of a network"):
        load_network(tmp_path)

"""A run that begins with another one's network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from etils import epath

from sspd_jax.checkpoints.network import load_network
from sspd_jax.datasets import leakage
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.errors import ConfigError
from sspd_jax.method import network
from sspd_jax.method.settings import NetworkSettings, network_settings
from sspd_jax.training import state as train_state
from sspd_jax.training import step as train_step
from sspd_jax.training.workdir import NETWORK
from sspd_jax.video.crop import BOX


def init_from(
    config: ml_collections.ConfigDict, dataset: PreparedDataset, step_config: train_step.StepConfig
) -> tuple[train_state.TrainState, list[dict[str, Any]]]:
    """Start from another training's network, with a fresh optimizer, and similarity blocks if it has none.

    Args:
      config: The experiment's configuration; `init_from` is a checkpoint of a network, or the work directory
        of a run, whose online and target networks are both taken.
      dataset: Prepared recordings; nobody of its test people may have been learned from before.
      step_config: The static part of this training's steps.

    Returns:
      A state at step 0, and the tables `data` of the trainings that the network went through, latest first.

    Raises:
      ConfigError: The network is another one than the configuration's, learned from other pictures, or
        learned from people to be tested.
      UserError: There is no checkpoint, or it is damaged.
    """
    source = epath.Path(config.init_from)
    of_run = [source / NETWORK / name for name in ("online", "target")]
    folders = of_run if of_run[-1].exists() else [source]  # a checkpoint, too, has a folder of that name
    networks = []
    for folder in folders:
        theirs, params, batch_stats = load_network(folder)
        shown, ours = theirs.get("face_crop", BOX), config.get("face_crop", BOX)
        if shown != ours:
            raise ConfigError(
                f"config init_from: {folder} learned from pictures of face_crop = {shown!r}, this experiment "
                f"shows {ours!r}; set config.face_crop to theirs, or choose another checkpoint"
            )
        settings = network_settings(theirs)
        for name in sorted(NetworkSettings.__dataclass_fields__):
            one, other = getattr(settings, name), getattr(step_config.network, name)
            if one != other and name not in _FREE_OF_THE_NETWORK:
                raise ConfigError(
                    f"config init_from: {folder} has network.{name} = {one!r}, this experiment {other!r}; "
                    "choose its settings, or another checkpoint"
                )
        if seen := leakage.trained_on(dataset, theirs, tuple(config.data.test_people)):
            raise ConfigError(
                f"config init_from: {folder} learned from {', '.join(seen)}, who are to be tested; "
                "name other data.test_people"
            )
        if "ts" not in params:  # made for reading alone: its similarity blocks begin afresh
            fresh, _ = network.init_variables(step_config.network, jax.random.key(config.seed))
            params = {**params, "ts": fresh["ts"]}
        networks.append((params, batch_stats))
    (params, batch_stats), (target_params, target_batch_stats) = networks[0], networks[-1]
    state = train_state.create(params, batch_stats, step_config.optimizer)
    state = state.replace(
        target_batch_stats=jax.tree.map(jnp.copy, target_batch_stats),
        opt_state=optax.tree.set(state.opt_state, target=jax.tree.map(jnp.copy, target_params)),
    )
    return state, [table for table in (theirs.get("data"), *theirs.get("learned_before", ())) if table]


_FREE_OF_THE_NETWORK = ("conv", "dtype", "predictor_isolated", "rematerialise")
"""Settings that may differ from those of the network that a training goes on from."""

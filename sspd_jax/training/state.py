"""The state that training carries from step to step."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from sspd_jax.method.network import init_variables
from sspd_jax.method.settings import NetworkSettings


@flax.struct.dataclass
class TrainState:
    """Everything that a resumed training needs beside its configuration and its data's position.

    Random keys are folded out of the configuration's seed and `step`, so none is stored.

    Attributes:
      step: Number of optimiser steps taken, int32 [].
      params: The online network's parameters, nested dict of float32.
      batch_stats: The online network's running statistics, nested dict of float32.
      target_batch_stats: The target network's own running statistics, nested dict of float32.
      opt_state: The optimiser's state; the target network's parameters are part of it.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    target_batch_stats: Any
    opt_state: Any

    @property
    def target_params(self) -> Any:
        """The target network's parameters, an average of `params`."""
        return optax.tree.get(self.opt_state, "target")


def create(params: Any, batch_stats: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Start training from given parameters and statistics, the same in both networks.

    Args:
      params: Parameters, a nested dict of float32.
      batch_stats: Running statistics, a nested dict of float32.
      optimizer: From `step.make_optimizer`: its last link is `target_ema`.

    Returns:
      A state at step 0 that shares no buffer between its fields.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        target_batch_stats=jax.tree.map(jnp.copy, batch_stats),
        opt_state=optimizer.init(params),
    )


def init(network: NetworkSettings, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Start training from fresh parameters.

    Args:
      network: The network's settings.
      optimizer: From `step.make_optimizer`: its last link is `target_ema`.
      seed: Seed of the parameters.

    Returns:
      A state at step 0.

    Example:
      >>> from sspd_jax.training.step import make_optimizer
      >>> network = NetworkSettings(22, ((4, 4),), 4, ts_kernels=(3,), ts_strides=(1,))
      >>> state = init(network, make_optimizer(1e-3, lambda step: 0.9), seed=0)
      >>> int(state.step), sorted(state.params)
      (0, ['backbone', 'predictor', 'ts'])
    """
    params, batch_stats = init_variables(network, jax.random.key(seed))
    return create(params, batch_stats, optimizer)

"""The target network's parameters, held as the state of an optax transformation.

target ← m·target + (1 − m)·online, after the optimiser's step, parameters only. `optax.ema` cannot do
this: it starts at zero, averages updates and has one decay. Put this transformation last in
`optax.chain`, so that the updates it sees are the ones that will be applied.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Int32


class TargetState(NamedTuple):
    """State of `target_ema`."""

    count: Int32[Array, ""]  # updates made so far
    target: Any  # like the parameters


def target_momentum(total_steps: int, *, base: float = 0.9) -> optax.Schedule:
    """Let the momentum rise from `base` to 1 by a cosine.

    m_s = 1 + ½·(base − 1)·(1 + cos(π·s / S)), s = 0 … S − 1, so the first update uses `base`.

    Args:
      total_steps: Number S of updates of the whole training.
      base: Momentum m_0 of the first update.

    Returns:
      A function of the count of updates made before, to float32.

    References:
      Zhang et al. 2024; BYOL (Grill et al. 2020).
    """
    step_size = optax.cosine_decay_schedule(1 - base, total_steps)
    return lambda count: 1 - step_size(jnp.asarray(count, jnp.float32))


def target_ema(momentum: optax.Schedule) -> optax.GradientTransformation:
    """Average the parameters after each update into a target network's.

    Args:
      momentum: Momentum m as a function of the count of updates made before.

    Returns:
      A transformation that leaves updates as they are and whose state is a `TargetState`; its `update`
      needs `params`.
    """

    def init(params: Any) -> TargetState:
        # A copy: shared buffers could not be donated beside the parameters.
        return TargetState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: TargetState, params: Any = None) -> tuple[Any, TargetState]:
        if params is None:
            raise ValueError("target_ema averages parameters: call update(updates, state, params)")
        online = optax.apply_updates(params, updates)
        step_size = 1 - momentum(state.count)
        target = optax.incremental_update(online, state.target, step_size)
        return updates, TargetState(optax.safe_increment(state.count), target)

    return optax.GradientTransformation(init, update)

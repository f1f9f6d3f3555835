"""One step of SSPD: a pure function, and the one place where jit, sharding and donation are applied."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Float32

from sspd_jax import compilation
from sspd_jax.method import health, losses, model, routing, target_ema, views
from sspd_jax.train_state import TrainState

DATA_AXIS = "data"
"""Name of the mesh axis that clips are spread over."""


@dataclasses.dataclass(frozen=True)
class Method:
    """The static part of a step: what is learned, from which views, by which losses.

    Attributes:
      network: settings of both networks.
      local_view: how the online network's view is made.
      global_view: how the target network's view is made.
      terms: `{name: {'weight': w, **settings}}` of the losses, see `losses.total_loss`.
      optimizer: of the online parameters, with the target's average last.
      momentum: of that average, as a function of the step.
      fps: frame rate of the clips in Hz.
      seed: of views.
    """

    network: model.NetworkSettings
    local_view: views.ViewSettings
    global_view: views.ViewSettings
    terms: Mapping[str, Mapping[str, Any]]
    optimizer: optax.GradientTransformation
    momentum: optax.Schedule
    fps: float
    seed: int = 0


def make_optimizer(
    learning_rate: float | optax.Schedule,
    momentum: optax.Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    frozen: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Build Adam on the parts of the network, then the average into the target.

    Args:
      learning_rate: of Adam.
      momentum: of the target, see `target_ema.target_momentum`.
      b1: decay of Adam's first moment.
      b2: decay of Adam's second moment.
      eps: Adam's epsilon, outside the root as in PyTorch.
      frozen: labels (`routing.LABELS`) of parts to leave as they are.

    Returns:
      An optax transformation whose state holds the target.
    """
    adam = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
    parts = {label: optax.set_to_zero() if label in frozen else adam for label in routing.LABELS}
    return optax.chain(optax.partition(parts, routing.labels), target_ema.target_ema(momentum))


def train_step(
    state: TrainState, batch: Mapping[str, ArrayLike], *, method: Method
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """Learn from a batch of clips: views, then `learn`.

    Args:
      state: of the training.
      batch: {'clips': uint8 [n, t + 1, s, s, 3] RGB}, t even.
      method: the static part.

    Returns:
      The next state and the metrics of `learn`.
    """
    key = jax.random.fold_in(jax.random.key(method.seed), state.step)
    local_key, global_key = jax.random.split(key)
    size = method.network.input_size
    local = views.make_view(batch["clips"], local_key, method.local_view, size)
    whole = views.make_view(batch["clips"], global_key, method.global_view, size)
    return learn(state, local, whole, method=method)


def learn(
    state: TrainState,
    online_video: Float32[ArrayLike, "n t s s 3"],
    target_video: Float32[ArrayLike, "n t s s 3"],
    *,
    method: Method,
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """Learn from two views that are ready: both readings, losses, optimiser, target, statistics.

    Args:
      state: of the training.
      online_video: float32 [n, t, size, size, 3], the local views' frame differences.
      target_video: float32 [n, t, size, size, 3], the global views' frame differences.
      method: the static part.

    Returns:
      The next state, and float32 scalars: 'loss', 'terms/<name>' (weighted), 'target_momentum' and
      'health/<name>' of the target's waves, which come from unmasked views.
    """
    (loss, (terms, wave, batch_stats, target_batch_stats)), gradients = jax.value_and_grad(
        loss_fn, has_aux=True
    )(state.params, state, online_video, target_video, method=method)

    # The optimiser's last link averages the stepped parameters into the target. Optax raises a float to
    # an int32 power, which a program under strict dtype promotion would not be allowed to.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = method.optimizer.update(gradients, state.opt_state, state.params)
    metrics = {
        "loss": loss,
        "target_momentum": jnp.asarray(method.momentum(state.step), jnp.float32),
        **{f"terms/{name}": value for name, value in terms.items()},
        **{f"health/{name}": value for name, value in health.wave_health(wave, method.fps).items()},
    }
    next_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        target_batch_stats=target_batch_stats,
        opt_state=opt_state,
    )
    return next_state, metrics


def loss_fn(
    params: model.Floats,
    state: TrainState,
    online_video: Float32[ArrayLike, "n t s s 3"],
    target_video: Float32[ArrayLike, "n t s s 3"],
    *,
    method: Method,
) -> tuple[Float32[Array, ""], tuple[dict[str, Float32[Array, ""]], Array, model.Floats, model.Floats]]:
    """Compute the loss as a function of the online parameters.

    Args:
      params: the online network's; the only thing to differentiate.
      state: everything else that the networks hold; its `params` are not used.
      online_video: float32 [n, t, size, size, 3].
      target_video: float32 [n, t, size, size, 3].
      method: the static part.

    Returns:
      The loss, and (the weighted terms, the target's waves, the online statistics, the target's).
    """
    online, batch_stats = model.read(method.network, params, state.batch_stats, online_video)
    # The target trains by averaging alone; it is in training mode and keeps its own statistics.
    target, target_batch_stats = jax.lax.stop_gradient(
        model.read(method.network, state.target_params, state.target_batch_stats, target_video)
    )
    loss, terms = losses.total_loss(losses.Outputs(online, target), method.fps, method.terms)
    return loss, (terms, target.wave, batch_stats, target_batch_stats)


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lay devices (all of them, if not given) out along one axis for data parallelism."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def place(state: TrainState, mesh: Mesh) -> TrainState:
    """Put a state on a mesh, whole on every device.

    A step's output lies there; a fresh state that does not would cost a second compilation of the step.
    """
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def compile_train_step(
    method: Method, mesh: Mesh
) -> Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]]:
    """Apply jit, sharding and donation to `train_step`.

    Args:
      method: the static part.
      mesh: from `data_mesh`; the number of clips must be a multiple of its size.

    Returns:
      `step(state, batch)`: state `place`d on the mesh and donated, clips spread over the mesh. BatchNorm's
      statistics and the losses are those of the whole batch, whatever the number of devices.
    """
    method = dataclasses.replace(method, network=compilation.tuned(method.network))
    replicated = NamedSharding(mesh, PartitionSpec())
    spread = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    return jax.jit(
        functools.partial(train_step, method=method),
        in_shardings=(replicated, spread),
        out_shardings=(replicated, replicated),
        donate_argnums=(0,),
        compiler_options=compilation.options(),
    )

"""One step of SSPD as pure functions; `sspd_jax.training.compiled` compiles them.

Clips are spread over devices in equal parts, in their order. A number of clips that the devices do not
divide is spread over as many parts as divide both, each computed by several devices: which clips a step
learns from, and so its result, never depends on the devices.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, UInt8

from sspd_jax.method import diagnostics, losses, outputs, param_labels, target_ema, time_stretch, views
from sspd_jax.method.layers.chunked import after
from sspd_jax.method.network import forward, infer_wave
from sspd_jax.method.settings import Floats, NetworkSettings
from sspd_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """The static part of a step: what is learned, from which views, by which losses.

    Attributes:
      network: Sizes and variants of both networks.
      local_view: How the online network's view is made.
      global_view: How the target network's view is made.
      terms: The losses, `{name: {'weight': w, **settings}}`, see `losses.total_loss`.
      optimizer: Optimiser of the online parameters, from `make_optimizer`; the target's average is its end.
      momentum: Momentum of that average, a function of the number of steps taken.
      fps: Frame rate of the clips in Hz.
      seed: Seed of the random views, 0 or more.
      min_speed: Slowest speed of the online network's view, above 0; 1: always its own, see `time_stretch`.
      batch_axis: Name of a mapped axis over which batches are spread in equal parts; None for none.
    """

    network: NetworkSettings
    local_view: views.ViewSettings
    global_view: views.ViewSettings
    terms: Mapping[str, Mapping[str, Any]]
    optimizer: optax.GradientTransformation
    momentum: optax.Schedule
    fps: float
    seed: int = 0
    min_speed: float | Array = 1.0
    batch_axis: str | None = None


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
      learning_rate: Learning rate of Adam, a number or a function of the step.
      momentum: Momentum of the target, see `target_ema.target_momentum`.
      b1: Decay of Adam's first moment.
      b2: Decay of Adam's second moment.
      eps: Adam's epsilon, outside the root as in PyTorch.
      frozen: Labels (`param_labels.LABELS`) of parts to leave as they are.

    Returns:
      An optax transformation whose state holds the target.
    """
    adam = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
    parts = {label: optax.set_to_zero() if label in frozen else adam for label in param_labels.LABELS}
    return optax.chain(optax.partition(parts, param_labels.labels), target_ema.target_ema(momentum))


def train_step(
    state: TrainState, batch: Mapping[str, ArrayLike], *, step_config: StepConfig
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """Learn from a batch of clips: views, then `learn`.

    Args:
      state: The state of the training.
      batch: The clips, {'clips': uint8 [n, t + 1, s, s, 3] RGB}, t even.
      step_config: The static part of the step.

    Returns:
      The next state and the metrics of `learn`.
    """
    key = jax.random.fold_in(jax.random.key(step_config.seed), state.step)
    local_key, global_key = jax.random.split(key)
    size, transform = step_config.network.input_size, step_config.network.input_transform
    axis, clips, speed = step_config.batch_axis, batch["clips"], None
    first = 0 if axis is None else jax.lax.axis_index(axis) * len(clips)
    if not time_stretch.is_off(step_config.min_speed):
        # A key of its own beside the two: what else is drawn stays what it is at the clip's own speed.
        speed_key = jax.random.fold_in(key, _SPEED_KEY)
        speed = time_stretch.draw_speeds(speed_key, len(clips), step_config.min_speed, first)
        clips = time_stretch.play(clips, speed)
    local = views.make_view(clips, local_key, step_config.local_view, size, first, transform)
    whole = views.make_view(batch["clips"], global_key, step_config.global_view, size, first, transform)
    return learn(state, local, whole, speed, step_config=step_config)


_SPEED_KEY = 7  # folded into a step's key


def learn(
    state: TrainState,
    online_video: Float32[ArrayLike, "n t s s 3"],
    target_video: Float32[ArrayLike, "n t s s 3"],
    speed: Float32[ArrayLike, " n"] | None = None,
    *,
    step_config: StepConfig,
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """Learn from two views that are ready: both outputs, losses, optimiser, target, statistics.

    Args:
      state: The state of the training.
      online_video: The local views' frame differences, float32 [n, t, size, size, 3], intensity levels.
      target_video: The global views' frame differences, float32 [n, t, size, size, 3], intensity levels.
      speed: Speed at which each local view was played, float32 [n]; None: at its own.
      step_config: The static part of the step.

    Returns:
      The next state, and float32 scalars: 'loss', 'terms/<name>' (weighted), 'target_momentum' and
      'health/<name>' of the target's waves, which come from unmasked views.
    """
    (loss, (terms, wave, batch_stats, target_batch_stats)), gradients = jax.value_and_grad(
        loss_fn, has_aux=True
    )(state.params, state, online_video, target_video, speed, step_config=step_config)
    if (axis := step_config.batch_axis) is not None:
        gradients = jax.lax.pmean(gradients, axis)
        wave = jax.lax.all_gather(wave, axis, tiled=True)  # clips are compared with each other

    # The optimiser's last link averages the stepped parameters into the target. Optax raises a float to
    # an int32 power, which a program under strict dtype promotion would not be allowed to.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = step_config.optimizer.update(gradients, state.opt_state, state.params)
    metrics = {
        "loss": loss,
        "target_momentum": jnp.asarray(step_config.momentum(state.step), jnp.float32),
        **{f"terms/{name}": value for name, value in terms.items()},
        **{f"health/{name}": value for name, value in diagnostics.wave_health(wave, step_config.fps).items()},
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
    params: Floats,
    state: TrainState,
    online_video: Float32[ArrayLike, "n t s s 3"],
    target_video: Float32[ArrayLike, "n t s s 3"],
    speed: Float32[ArrayLike, " n"] | None = None,
    *,
    step_config: StepConfig,
) -> tuple[Float32[Array, ""], tuple[dict[str, Float32[Array, ""]], Array, Floats, Floats]]:
    """Compute the loss as a function of the online parameters.

    Args:
      params: Parameters of the online network; the only thing to differentiate.
      state: Everything else that the networks hold; its `params` are not used.
      online_video: See `learn`.
      target_video: See `learn`.
      speed: See `learn`.
      step_config: The static part; with a `batch_axis` loss and terms are the whole batch's, the waves these
        clips'.

    Returns:
      The loss, and (the weighted terms, the target's waves, the online statistics, the target's).
    """
    infer = functools.partial(forward, step_config.network, batch_axis=step_config.batch_axis)
    # The target trains by averaging alone; it is in training mode and keeps its own statistics.
    target, target_batch_stats = jax.lax.stop_gradient(
        infer(state.target_params, state.target_batch_stats, target_video)
    )
    # One network after the other: XLA on CPU would have them side by side, and hold the largest maps of both.
    online, batch_stats = infer(params, state.batch_stats, after(online_video, target.wave))
    target_output = target if speed is None else time_stretch.play_output(target, speed)
    both = outputs.Outputs(online, target_output)
    loss, terms = losses.total_loss(both, step_config.fps, step_config.terms)
    if step_config.batch_axis is not None:  # every term is a mean over clips
        loss, terms = jax.lax.pmean((loss, terms), step_config.batch_axis)
    return loss, (terms, target.wave, batch_stats, target_batch_stats)


_PROBE_SEED = 1  # the same views and lights whenever a run is probed, and in every run


def probe(
    state: TrainState,
    clips: UInt8[ArrayLike, "n frames s s 3"],
    *,
    step_config: StepConfig,
    people: Sequence[str] | None = None,
) -> dict[str, Float32[Array, ""]]:
    """Measure both networks' waves of fixed clips, in evaluation mode.

    Args:
      state: State of the training.
      clips: Clips, uint8 [n, t + 1, s, s, 3] RGB, t even.
      step_config: The static part of the step.
      people: Who is seen in each clip; everybody is another one, if not given.

    Returns:
      The measures of `diagnostics.probe` of the target, the online network beside it.
    """
    infer = functools.partial(infer_wave, step_config.network)
    target = functools.partial(infer, state.target_params, state.target_batch_stats)
    online = functools.partial(infer, state.params, state.batch_stats)
    size, transform = step_config.network.input_size, step_config.network.input_transform
    return diagnostics.probe(
        target, clips, size, step_config.fps, jax.random.key(_PROBE_SEED), transform, people, online
    )

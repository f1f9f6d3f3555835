"""A method small enough to compile and run in seconds: one stage, two scales, 22 × 22 pixels."""

import dataclasses

import jax
import numpy as np

from sspd_jax.method import target_ema, views
from sspd_jax.method.network import infer_wave
from sspd_jax.method.settings import NetworkSettings
from sspd_jax.training import presets
from sspd_jax.training import state as train_state
from sspd_jax.training import step as train_step

FRAMES = 24  # differences in a clip
CROP = 26


def network(form=presets.PAPER, **changes):
    """Settings of a small network in the form's variant."""
    # 'direct', as on GPU and TPU, compiles sooner; the golden steps run 'matmul'.
    small = {"input_size": 22, "stages": ((4, 4),), "features": 8, "predictor_width": 4, "conv": "direct"}
    scales = {"ts_kernels": (5, 3), "ts_strides": (1, 1)}
    return NetworkSettings(**{**small, **scales, **form["network"], **changes})


def step_config(form=presets.PAPER, *, frozen=(), total_steps=4, fps=30.0, **changes):
    """A whole method around it; `changes` are of the network."""
    momentum = target_ema.target_momentum(total_steps)
    local, whole = (
        views.ViewSettings(
            crop=view["crop"],
            flip_horizontal=view["flip"]["horizontal"],
            flip_vertical=view["flip"]["vertical"],
            mask_unit=view["mask"]["unit"],
            mask_keep=view["mask"]["keep"],
        )
        for view in (form["views"][name] for name in ("online", "target"))
    )
    return train_step.StepConfig(
        network=network(form, **changes),
        local_view=local,
        global_view=whole,
        terms=form["terms"],
        optimizer=train_step.make_optimizer(1e-3, momentum, frozen=frozen),
        momentum=momentum,
        fps=fps,
    )


def state(step_config, seed=0):
    """A fresh state."""
    return train_state.init(step_config.network, step_config.optimizer, seed)


def clips(n=2, *, frames=FRAMES, seed=0):
    """Noise with a pulse common to a clip's pixels: uint8 [n, frames + 1, 26, 26, 3]."""
    rng = np.random.default_rng(seed)
    beat = np.sin(2 * np.pi * rng.uniform(1, 2, (n, 1)) * np.arange(frames + 1) / 30)
    noise = rng.normal(120, 20, (n, frames + 1, CROP, CROP, 3))
    return np.clip(noise + 10 * beat[:, :, None, None, None], 0, 255).astype(np.uint8)


def differences(n=2, *, seed=0, size=22):
    """Frame differences that a network can read: float32 [n, 24, 22, 22, 3]."""
    return np.diff(clips(n, seed=seed)[:, :, :size, :size].astype(np.float32), axis=1)


def replace(step_config, **changes):
    """The method with other fields."""
    return dataclasses.replace(step_config, **changes)


def in_form(reader, conv):
    """A reader whose convolutions are written in another form."""
    return dataclasses.replace(reader, network=dataclasses.replace(reader.network, conv=conv))


def one_pass(reader, frames):
    """The whole network at once, on the differences of all frames; an odd number gets one more, of zeros."""
    frames = np.concatenate([frames, frames[-1:]])[: len(frames) + (len(frames) - 1) % 2]
    video = views.whole_view(frames[None], reader.network.input_size, reader.network.input_transform)
    read = jax.jit(infer_wave, static_argnums=0)
    return np.asarray(read(reader.network, reader.params, reader.batch_stats, video)[0])

"""One clip played at two speeds: what beats in it has to slow down with it.

The online network's view of a clip may be played in slow motion. Its pulse is then slower by a factor that
is known, so what the target network infers at the clip's own speed, played as slowly, is what the online
network should infer. A network that answers one wave to every face, or picks one frequency out of noise,
disagrees with itself; and each clip teaches a range of rates. Off (a speed of 1) in the published forms.

Source: equivariance, here to playback speed. Y. Yang et al., "SimPer: simple self-supervised learning of
periodic targets", ICLR 2023 (speeds are labels by which views of a clip are contrasted); J. Speth et al.,
"Non-contrastive unsupervised learning of physiological signals from video", CVPR 2023 (an augmentation).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, Int32, PRNGKeyArray, Real

from sspd_jax.method import outputs, self_similarity


def is_off(min_speed: float | Array) -> bool:
    """Return whether every clip is played at its own speed."""
    return isinstance(min_speed, int | float) and min_speed == 1


def draw_speeds(
    key: PRNGKeyArray, n: int, min_speed: float | Array, first: Int32[ArrayLike, ""] | int = 0
) -> Float32[Array, " {n}"]:
    """Draw a speed for each clip, from `min_speed` to 1, as evenly as its logarithm.

    Args:
      key: Random key; each clip draws from a key of its own folded out of it.
      n: Number of clips.
      min_speed: Slowest speed, above 0, at most 1.
      first: Number of the first clip in its batch, where these are a part of one.

    Returns:
      float32 [n].
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(n))
    return jnp.asarray(min_speed, jnp.float32) ** jax.vmap(jax.random.uniform)(keys)


def play(
    signal: Real[ArrayLike, "n t *rest"], speed: Float32[ArrayLike, " n"]
) -> Float32[Array, "n t *rest"]:
    """Play the middle of signals in slow motion, for as long as they last: linear between samples.

    Args:
      signal: Clips of frames, or waves, [n, t, ...].
      speed: Speed of each, above 0, at most 1.

    Returns:
      float32 [n, t, ...]: sample k is the old one at c + speed · (k − c), c the middle.
    """
    signal = jnp.asarray(signal)
    t = signal.shape[1]
    middle = (t - 1) / 2
    at = middle + jnp.asarray(speed)[:, None] * (jnp.arange(t, dtype=jnp.float32) - middle)
    before = jnp.clip(jnp.floor(at), 0, max(t - 2, 0))
    share = (at - before).reshape(*at.shape, *(1,) * (signal.ndim - 2))
    frame = before.astype(jnp.int32)
    take = jax.vmap(lambda values, index: values[index])
    early, late = (take(signal, jnp.minimum(k, t - 1)).astype(jnp.float32) for k in (frame, frame + 1))
    return early + share * (late - early)


def play_output(output: outputs.NetworkOutput, speed: Float32[ArrayLike, " n"]) -> outputs.NetworkOutput:
    """Turn what a network says of clips at their own speed into what it should say of them in slow motion.

    Args:
      output: Output of a network for n clips.
      speed: Speed of each, float32 [n].

    Returns:
      The output whose wave and self-similarities run as slowly.
    """

    def slow(matrix: Float32[Array, "n t t"]) -> Float32[Array, "n t t"]:
        return play(play(matrix, speed).swapaxes(1, 2), speed).swapaxes(1, 2)

    ssm = tuple(slow(matrix) for matrix in output.ssm)
    ssw = tuple(self_similarity.similarity_wave(matrix) for matrix in ssm)
    return output.replace(wave=play(output.wave, speed), ssm=ssm, ssw=ssw)

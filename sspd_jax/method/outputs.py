"""What both networks infer from their views: waves, similarity matrices and similarity waves."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float32

from sspd_jax.method import self_similarity


@flax.struct.dataclass
class NetworkOutput:
    """What one network infers from one view of n clips.

    Attributes:
      wave: Pulse wave y, float [n, t].
      ssm: Self-similarity matrix of each scale i, float32 [n, t_i, t_i].
      ssw: Self-similarity wave of each scale, float32 [n, t_i].
      relative_rates: Sampling rate of each scale divided by the video's: 1 / ∏ strides so far.
    """

    wave: Float[Array, "n t"]
    ssm: tuple[Float32[Array, "n t_i t_i"], ...]
    ssw: tuple[Float32[Array, "n t_i"], ...]
    relative_rates: tuple[float, ...] = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class Outputs:
    """What the losses compare: both networks' outputs; the target's is a constant."""

    online: NetworkOutput
    target: NetworkOutput


def similarity_outputs(
    wave: Float[ArrayLike, "n t"],
    features: tuple[Float[ArrayLike, "n _ c"], ...],
    relative_rates: tuple[float, ...] | None = None,
) -> NetworkOutput:
    """Compute the self-similarities of a network's features.

    Args:
      wave: Pulse wave, float [n, t].
      features: A_i of each temporal-similarity block, float [n, t_i, c].
      relative_rates: Sampling rate of each scale divided by the video's; 1 everywhere if not given.

    Returns:
      The network's output, its SSMs and SSWs computed in float32.

    Example:
      Two moments whose features are at right angles:

      >>> output = similarity_outputs(jnp.zeros((1, 2)), (jnp.eye(2)[None],))
      >>> output.ssm[0].round(4).tolist(), output.ssw[0].round(4).tolist()
      ([[[1.0, 0.0], [0.0, 1.0]]], [[1.0, 0.0]])
    """
    ssm = tuple(self_similarity.similarity_matrix(a) for a in features)
    ssw = tuple(self_similarity.similarity_wave(m) for m in ssm)
    rates = (1.0,) * len(ssm) if relative_rates is None else tuple(relative_rates)
    return NetworkOutput(jnp.asarray(wave), ssm, ssw, rates)

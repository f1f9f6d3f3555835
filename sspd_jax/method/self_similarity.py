"""Self-similarity: matrices, their diagonals, and the waves that diagonals make.

The features of a good pulse extractor resemble themselves one beat later, so their similarity matrix
carries stripes along its diagonals, and the diagonals' means, read lag by lag, form a wave with the
period of the pulse (Zhang et al. 2024, arXiv 2311.05100).

Everything is computed in float32 whatever the features' dtype, with finite gradients for constant and
for zero features.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32, Shaped

# Added inside square roots: far below any variance that matters, far above float32's smallest.
_TINY = 1e-12


def similarity_matrix(features: Float[ArrayLike, "*batch t c"]) -> Float32[Array, "*batch t t"]:
    """Compute the cosine similarity of every two moments: SSM[j, k] = cos(A_j, A_k).

    Args:
      features: Feature vector A of each moment, float [..., t, c].

    Returns:
      float32 [..., t, t] in [−1, 1]. A zero vector is similar to nothing (its entries are 0).

    References:
      Zhang et al. 2024, self-similarity matrix (SSM).

    Example:
      Two moments alike, then one that is opposite:

      >>> similarity_matrix(jnp.array([[1.0, 0.0], [1.0, 0.0], [-2.0, 0.0]])).round(4).tolist()
      [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    a = jnp.asarray(features, jnp.float32)
    unit = a * jax.lax.rsqrt(jnp.sum(a * a, axis=-1, keepdims=True) + _TINY)
    return jnp.einsum("...jc,...kc->...jk", unit, unit)


def diagonals(matrix: Shaped[ArrayLike, "*batch t t"]) -> Shaped[Array, "*batch t t"]:
    """Shear square matrices so that column d holds the d-th upper diagonal.

    The rows, written one after the other and read again with rows one longer, start one entry later
    each: a pad and two reshapes, no gather, memory of the order of the matrix itself.

    Args:
      matrix: Square matrices, [..., t, t].

    Returns:
      [..., t, t]: entry [j, d] is matrix[j, j + d], and 0 where j + d ≥ t.
    """
    matrix = jnp.asarray(matrix)
    *batch, t, _ = matrix.shape
    flat = jnp.pad(matrix.reshape(*batch, t * t), [(0, 0)] * len(batch) + [(0, t)])
    return jnp.where(_inside(t), flat.reshape(*batch, t, t + 1)[..., :t], 0)


def similarity_wave(matrix: Float[ArrayLike, "*batch t t"]) -> Float32[Array, "*batch t"]:
    """Average the upper diagonals: SSW[d] = mean over j of SSM[j, j + d].

    Args:
      matrix: Similarity matrices, float [..., t, t].

    Returns:
      float32 [..., t], one value for each lag d = 0 … t − 1.

    References:
      Zhang et al. 2024, self-similarity wave (SSW).

    Example:
      >>> similarity_wave(jnp.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 1.0]])).tolist()
      [1.0, 0.375, 0.0]
    """
    sheared = diagonals(jnp.asarray(matrix, jnp.float32))
    return jnp.sum(sheared, axis=-2) / _lengths(sheared.shape[-1])


def diagonal_deviation(
    matrix: Float[ArrayLike, "*batch t t"], *, ddof: int = 0
) -> Float32[Array, "*batch t"]:
    """Compute the standard deviation along each upper diagonal.

    Args:
      matrix: Similarity matrices, float [..., t, t].
      ddof: The variance divides by length − ddof; diagonals too short for that get 0.

    Returns:
      float32 [..., t], one value for each lag d = 0 … t − 1.
    """
    sheared = diagonals(jnp.asarray(matrix, jnp.float32))
    t = sheared.shape[-1]
    mean = jnp.sum(sheared, axis=-2, keepdims=True) / _lengths(t)
    from_mean = jnp.where(_inside(t), sheared - mean, 0)
    freedom = jnp.maximum(_lengths(t) - ddof, 1)
    return jnp.sqrt(jnp.sum(from_mean**2, axis=-2) / freedom + _TINY)


def _inside(t: int) -> Bool[Array, "{t} {t}"]:
    """Which entries [j, d] of a sheared matrix lie on a diagonal: bool [t, t]."""
    return jnp.arange(t)[:, None] + jnp.arange(t)[None, :] < t


def _lengths(t: int) -> Float32[Array, " {t}"]:
    """Lengths t, t − 1, …, 1 of the upper diagonals: float32 [t]."""
    return jnp.arange(t, 0, -1, dtype=jnp.float32)

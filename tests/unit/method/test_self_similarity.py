"""Similarity matrices, waves and deviations: loops as oracle, finite gradients, bounded memory."""

import jax
import jax.numpy as jnp
import method_oracles as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sspd_jax.method import self_similarity as ss

pytestmark = pytest.mark.usefixtures("quick_compilation")

MANY = settings(max_examples=40, deadline=None, derandomize=True)


def arrays(*shapes, largest):
    """Draw arrays of any values and of a few shapes: every new shape is compiled."""
    values = st.floats(-largest, largest, width=32).map(lambda v: 0.0 if abs(v) < 1e-3 else v)
    return st.sampled_from(shapes).flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))


MATRICES = arrays((1, 3, 3), (2, 4, 4), (1, 7, 7), largest=1)


@MANY
@given(arrays((1, 1, 4), (2, 5, 1), (3, 6, 3), largest=10))
def test_similarity_matrix_is_the_cosine_of_every_pair(features):
    expected = np.stack([oracle.similarity_matrix(clip) for clip in features])
    np.testing.assert_allclose(ss.similarity_matrix(features), expected, atol=2e-6)


def test_similarity_matrix_by_hand():
    matrix = ss.similarity_matrix(jnp.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-5.0, 0.0]]))
    r = np.sqrt(0.5)
    np.testing.assert_allclose(
        matrix, [[1, 0, r, -1], [0, 1, r, 0], [r, r, 1, -r], [-1, 0, -r, 1]], atol=1e-6
    )


@MANY
@given(MATRICES)
def test_diagonals_are_sheared_into_columns(matrix):
    sheared = np.asarray(ss.diagonals(matrix))
    t = matrix.shape[-1]
    for clip, d in np.ndindex(len(matrix), t):
        np.testing.assert_array_equal(sheared[clip, : t - d, d], oracle.diagonal(matrix[clip], d))
        assert not sheared[clip, t - d :, d].any()


@MANY
@given(MATRICES)
def test_similarity_wave_averages_the_upper_diagonals(matrix):
    expected = np.stack([oracle.similarity_wave(m) for m in matrix])
    np.testing.assert_allclose(ss.similarity_wave(matrix), expected, atol=1e-6)


@MANY
@given(MATRICES, st.sampled_from([0, 1]))
def test_diagonal_deviation_is_the_deviation_along_each_diagonal(matrix, ddof):
    expected = np.stack([oracle.diagonal_deviation(m, ddof) for m in matrix])
    np.testing.assert_allclose(ss.diagonal_deviation(matrix, ddof=ddof), expected, atol=3e-6)


def test_only_the_upper_diagonals_count():
    matrix = jnp.where(jnp.tri(4, k=-1, dtype=bool), 7.0, jnp.arange(16.0).reshape(4, 4))
    np.testing.assert_allclose(ss.similarity_wave(matrix), [7.5, 6, 4.5, 3])
    np.testing.assert_allclose(
        ss.diagonal_deviation(matrix), [np.std([0, 5, 10, 15]), np.std([1, 6, 11]), 2.5, 0], atol=2e-6
    )


@pytest.mark.parametrize("value", [0.0, 0.25])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_constant_features_have_finite_gradients(value, dtype):
    def everything(features):
        matrix = ss.similarity_matrix(features)
        return ss.similarity_wave(matrix).sum() + ss.diagonal_deviation(matrix, ddof=1).sum()

    total, gradient = jax.value_and_grad(everything)(jnp.full((2, 7, 3), value, dtype))
    assert total.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert np.isfinite(total)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_zero_features_resemble_nothing():
    assert not np.any(ss.similarity_matrix(jnp.zeros((4, 3))))


@pytest.mark.parametrize("function", [ss.similarity_wave, lambda m: ss.diagonal_deviation(m, ddof=1)])
def test_memory_with_gradients_is_a_few_matrices(function):
    matrix = jax.ShapeDtypeStruct((1, 300, 300), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(lambda m: function(m).sum())).lower(matrix).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 6 * 300 * 300 * 4

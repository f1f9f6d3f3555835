"""Annotations are checked at every call in these tests: a wrong rank or dtype is refused, traced or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_training as small
from jaxtyping import TypeCheckError

from sspd_jax.method import losses, network, self_similarity, spectrum, views
from sspd_jax.method.layers import conv3d
from sspd_jax.training import step as train_step

VIDEO = np.zeros((1, 24, 22, 22, 3), np.float32)

WRONG = {
    "rank": lambda: self_similarity.similarity_matrix(jnp.ones(5)),
    "integers for floats": lambda: self_similarity.similarity_matrix(jnp.ones((5, 3), jnp.int32)),
    "not square": lambda: self_similarity.similarity_wave(jnp.ones((2, 4, 5))),
    "scalar wave": lambda: spectrum.power_spectrum(jnp.float32(1)),
    "complex wave": lambda: spectrum.snr(jnp.ones(40, jnp.complex64), 30.0),
    "different lengths": lambda: losses.pearson_distance(jnp.ones(5), jnp.ones(6)),
    "clips without batch": lambda: views.whole_view(np.zeros((5, 9, 9, 3), np.uint8), 7),
    "four colours": lambda: views.whole_view(np.zeros((1, 5, 9, 9, 4), np.uint8), 7),
    "no key": lambda: views.random_crop(np.zeros((5, 9, 9, 3), np.uint8), jnp.zeros(3), 7),
    "channels": lambda: conv3d.conv3d(jnp.ones((1, 3, 3, 3, 2)), jnp.ones((3, 3, 3, 1, 1))),
    "uint8 video": lambda: network.infer_wave(small.network(), {}, {}, VIDEO.astype(np.uint8)),
    "half-precision parameters": lambda: network.infer_wave(
        small.network(), {"kernel": jnp.ones(2, jnp.bfloat16)}, {}, VIDEO
    ),
    "different views": lambda: train_step.loss_fn(
        {}, None, VIDEO, VIDEO[:, :-2], step_config=small.step_config()
    ),
    "string for a number": lambda: spectrum.snr(jnp.ones(40), "30"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_refused_at_the_call(case):
    with pytest.raises(TypeCheckError, match="parameters of sspd_jax"):
        WRONG[case]()


def test_checks_look_through_jit_vmap_and_grad():
    with pytest.raises(TypeCheckError):
        jax.jit(self_similarity.similarity_matrix)(jnp.ones(5))
    with pytest.raises(TypeCheckError):
        jax.eval_shape(jax.vmap(self_similarity.similarity_matrix), jnp.ones((4, 5)))
    batch = jnp.ones((4, 5, 3))
    assert jax.eval_shape(jax.vmap(self_similarity.similarity_matrix), batch).shape == (4, 5, 5)
    assert jax.eval_shape(jax.grad(lambda a: self_similarity.similarity_matrix(a).sum()), batch).shape == (
        4,
        5,
        3,
    )


def test_whole_numbers_and_numpy_arrays_are_welcome():
    assert spectrum.snr(np.ones(40, np.float32), 30) == 1

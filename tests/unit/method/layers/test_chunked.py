"""Loops over blocks of frames, and what waits for what."""

import jax
import jax.numpy as jnp
import numpy as np

from sspd_jax.method.layers import chunked

CLIPS = np.random.default_rng(0).normal(size=(2, 6, 3, 4)).astype(np.float32)


def cut(x, place, frames):
    return jax.lax.dynamic_slice(x, (*place, 0, 0), (1, frames, *x.shape[2:]))[0]


def test_a_map_over_blocks_is_a_map_over_frames():
    out = chunked.map_blocks(lambda place: 2 * cut(CLIPS, place, 3), 2, 6, 3, source=jnp.asarray(CLIPS))
    np.testing.assert_array_equal(out, 2 * CLIPS)


def test_a_reduction_sees_every_block_once():
    total = chunked.reduce_blocks(
        lambda place, total: total + jnp.sum(cut(CLIPS, place, 2)), jnp.float32(0), 2, 6, 2
    )
    np.testing.assert_allclose(total, CLIPS.sum(), rtol=1e-5)


def test_blocks_are_replaced_by_what_is_computed_from_them():
    def compute(block, place):
        return block + 10 * cut(CLIPS, place, 2) + place[1].astype(jnp.float32)

    first = np.array([0, 0, 2, 2, 4, 4], np.float32)[:, None, None]
    actual = chunked.replace_blocks(compute, jnp.asarray(CLIPS), 2)
    np.testing.assert_allclose(actual, 11 * CLIPS + first, rtol=1e-6)


def test_replacing_takes_no_memory():
    """Three arrays in a row, each computed from the last, in one place."""

    def run(x):
        for factor in (2.0, 3.0, 4.0):
            x = chunked.replace_blocks(lambda block, _, f=factor: jnp.tanh(f * block), x, 2)
        return x

    x = jnp.ones((2, 200, 32, 32))
    needed = jax.jit(run, donate_argnums=0).lower(x).compile().memory_analysis()
    assert needed.temp_size_in_bytes < x.nbytes / 10


def test_what_comes_after_is_itself_and_has_its_gradient():
    x, earlier = jnp.asarray(CLIPS), jnp.array([[np.nan, 1.0], [np.inf, 0.0]])[:, 1:]
    np.testing.assert_array_equal(chunked.after(x, earlier), x)
    gradient = jax.grad(lambda x: jnp.sum(chunked.after(x, earlier) ** 2))(x)
    np.testing.assert_allclose(gradient, 2 * CLIPS, rtol=1e-6)
    np.testing.assert_array_equal(chunked.after(x, jnp.full((2, 3), np.nan)), x)

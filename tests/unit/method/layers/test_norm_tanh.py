"""Normalisation and tanh with gradients that keep little: the same numbers, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sspd_jax.method import network
from sspd_jax.method.layers import norm_tanh
from sspd_jax.method.layers.conv3d import conv3d
from sspd_jax.method.settings import NetworkSettings

pytestmark = pytest.mark.usefixtures("quick_compilation")

FORMS = ("direct", "matmul", "planes")


def draw(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def of_batch(x, scale, bias):
    """Normalise `x` by its own moments."""
    mean = jnp.mean(x.astype(jnp.float32), axis=(0, 1, 2, 3))
    return norm_tanh.Norm(mean, norm_tanh.variance(x, mean), scale, bias)


def scale_and_bias(c):
    return draw((c,), 2), draw((c,), 3)


def plain_norm_tanh(x, scale, bias, *, tanh=True):
    axes = (0, 1, 2, 3)
    y = (x - jnp.mean(x, axes)) / jnp.sqrt(jnp.var(x, axes) + 1e-5) * scale + bias
    return jnp.tanh(y) if tanh else y


def assert_close(ours, theirs):
    for a, e in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5 * np.abs(e).max())


@pytest.fixture(params=[("cpu",), ()], ids=["in blocks", "as on accelerators"])
def way(request, monkeypatch):
    monkeypatch.setattr(norm_tanh, "_IN_BLOCKS_ON", request.param)


def value_and_gradients(function, *args):
    @jax.jit
    def compute(*args):
        value, pull_back = jax.vjp(function, *args)
        return value, pull_back(draw(value.shape, 9).astype(value.dtype))

    return compute(*args)


def pool(x, *scale_and_bias):
    return norm_tanh.norm_tanh_pool(x, of_batch(x, *scale_and_bias))


@pytest.mark.parametrize(
    ("form", "tanh"),
    [
        ("direct", True),
        ("matmul", False),
        *(pytest.param(form, True, marks=pytest.mark.slow) for form in ("matmul", "planes")),
    ],
)
@pytest.mark.usefixtures("way")
def test_a_convolution_of_norm_and_tanh_is_that_of_their_values(form, tanh):
    def ours(x, scale, bias, kernel):
        return norm_tanh.norm_tanh_conv3d(x, of_batch(x, scale, bias), kernel, form=form, tanh=tanh)

    def plain(x, scale, bias, kernel):
        return conv3d(plain_norm_tanh(x, scale, bias, tanh=tanh), kernel, form="matmul")

    given = draw((2, 6, 7, 6, 3)), *scale_and_bias(3), draw((3, 3, 3, 3, 4), 4)
    assert_close(*(value_and_gradients(f, *given) for f in (ours, plain)))


@pytest.mark.usefixtures("way")
def test_a_pool_of_norm_and_tanh_is_the_average_of_their_values_and_drops_an_odd_row():
    def plain(x, scale, bias):
        y = plain_norm_tanh(x, scale, bias)[:, :, :6]
        return (y[:, :, ::2] + y[:, :, 1::2]).reshape(2, 6, 3, 3, 2, 3).mean(axis=4) / 2

    given = draw((2, 6, 7, 6, 3)), *scale_and_bias(3)
    assert_close(*(value_and_gradients(f, *given) for f in (pool, plain)))


OPERATIONS = {
    "convolution": lambda x, norm, kernel: norm_tanh.norm_tanh_conv3d(x, norm, kernel, form="direct"),
    "pool": lambda x, norm, _: norm_tanh.norm_tanh_pool(x, norm),
    "variance": lambda x, norm, _: norm_tanh.variance(x, norm.mean),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_have_their_own_rule_in_blocks_and_are_rematerialised_on_accelerators(name, monkeypatch):
    norm = norm_tanh.Norm(*(jnp.ones(3) for _ in range(4)))
    arguments = jnp.ones((2, 4, 6, 6, 3)), norm, jnp.ones((3, 3, 3, 3, 2))

    def program(backends):
        monkeypatch.setattr(norm_tanh, "_IN_BLOCKS_ON", backends)
        return str(jax.make_jaxpr(lambda *arguments: OPERATIONS[name](*arguments))(*arguments))

    here, elsewhere = program((jax.default_backend(),)), program(())
    assert "custom_vjp" in here and "prevent_cse" not in here
    assert "custom_vjp" not in elsewhere
    assert ("prevent_cse" in elsewhere) == (name != "variance")  # that one is a mean, and keeps nothing


def test_blocks_do_not_show(monkeypatch):
    given = draw((2, 6, 4, 4, 3)), *scale_and_bias(3)
    whole = value_and_gradients(pool, *given)
    monkeypatch.setattr(norm_tanh, "_VALUES_PER_BLOCK", 2 * 4 * 4 * 3)
    assert norm_tanh._sizes(given[0]) == (2, 6, 2)
    assert_close(value_and_gradients(pool, *given), whole)


@pytest.mark.usefixtures("way")
def test_the_variance_is_that_of_two_passes_with_its_gradient():
    x = 100 + draw((2, 6, 4, 4, 3))
    ours, theirs = (
        jax.value_and_grad(lambda x, f=f: jnp.dot(f(x), jnp.arange(3.0)))(x)
        for f in (
            lambda x: norm_tanh.variance(x, jnp.mean(x, (0, 1, 2, 3))),
            lambda x: jnp.var(x, (0, 1, 2, 3)),
        )
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5 * np.abs(theirs[1]).max())


def test_bfloat16_stays_bfloat16_and_sums_in_float32():
    x = draw((1, 4, 4, 4, 2)).astype(jnp.bfloat16)
    value, (to_x, *to_norm) = value_and_gradients(pool, x, *scale_and_bias(2))
    assert value.dtype == to_x.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in to_norm} == {jnp.dtype("float32")}


def stage(rematerialise, form):
    settings = NetworkSettings(input_size=22, stages=((4, 6),), conv=form, rematerialise=rematerialise)
    return network.Stage(settings, settings.layers[:2])


@functools.cache
def learning(rematerialise, form):
    """Compile the gradients of a stage in training, as a function of its parameters and input."""
    x = draw((2, 24, 40, 40, 3))
    variables = stage(rematerialise, form).init(jax.random.key(1), x, train=True)
    weight = draw((2, 24, 17, 17, 6), 5)

    def total(params, x):
        y, updated = stage(rematerialise, form).apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(weight * y), updated

    compiled = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True)).lower(variables["params"], x).compile()
    return compiled, compiled(variables["params"], x)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["matmul", "direct"])
def test_a_rematerialised_stage_learns_the_same(form):
    (_, (gradients, updated)), (_, (plain, plain_updated)) = (learning(r, form) for r in (True, False))
    assert_close(updated, plain_updated)
    assert_close(gradients, plain)


@pytest.mark.slow
def test_a_rematerialised_stage_takes_less_memory(monkeypatch):
    monkeypatch.setattr(norm_tanh, "_VALUES_PER_BLOCK", 1 << 14)
    learning.cache_clear()
    less, more = (learning(r, "matmul")[0].memory_analysis().temp_size_in_bytes for r in (True, False))
    learning.cache_clear()
    assert less < 0.85 * more

"""The target's average: hand values, the schedule, its place after the optimiser, buffers of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sspd_jax.method import target_ema


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_momentum_by_hand(jit):
    momentum = jit(target_ema.target_momentum(4))
    # 1 + ½·(0.9 − 1)·(1 + cos(π·s / 4)), and 1 once all steps are done.
    expected = [0.9, 0.95 - 0.05 * np.sqrt(0.5), 0.95, 0.95 + 0.05 * np.sqrt(0.5), 1, 1]
    values = [momentum(s) for s in range(6)]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert all(v.dtype == jnp.float32 for v in values)


def test_momentum_of_the_published_schedule():
    momentum = target_ema.target_momentum(90)
    values = np.array([momentum(s) for s in range(90)])
    expected = 1 + 0.5 * (0.9 - 1) * (1 + np.cos(np.pi * np.arange(90) / 90))
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert np.all(np.diff(values) > 0)


def test_momentum_takes_another_base():
    assert target_ema.target_momentum(10, base=0.99)(0) == pytest.approx(0.99)
    assert target_ema.target_momentum(10, base=1.0)(0) == 1


def test_update_averages_the_stepped_parameters_by_hand():
    ema = target_ema.target_ema(lambda count: jnp.where(count == 0, 0.9, 0.5))
    params = {"w": jnp.array([1.0, -2.0])}
    state = ema.init(params)
    updates, state = jax.jit(ema.update)({"w": jnp.array([1.0, 2.0])}, state, params)
    np.testing.assert_array_equal(updates["w"], [1, 2])  # passed on as they came
    np.testing.assert_allclose(state.target["w"], [0.9 * 1 + 0.1 * 2, 0.9 * -2 + 0.1 * 0], rtol=1e-6)
    params = optax.apply_updates(params, updates)
    _, state = ema.update({"w": jnp.array([0.0, 4.0])}, state, params)
    np.testing.assert_allclose(state.target["w"], [0.5 * 1.1 + 0.5 * 2, 0.5 * -1.8 + 0.5 * 4], rtol=1e-6)
    assert state.count == 2
    assert state.count.dtype == jnp.int32
    assert state.target["w"].dtype == jnp.float32


def test_last_in_a_chain_it_sees_what_the_optimiser_made_of_the_gradient():
    optimizer = optax.chain(optax.sgd(0.5), target_ema.target_ema(lambda count: 0.75))
    params = {"w": jnp.array([8.0])}
    updates, state = optimizer.update({"w": jnp.array([4.0])}, optimizer.init(params), params)
    assert optax.apply_updates(params, updates)["w"] == 6
    assert optax.tree.get(state, "target")["w"] == 0.75 * 8 + 0.25 * 6


def test_parameters_are_needed():
    ema = target_ema.target_ema(lambda count: 0.9)
    with pytest.raises(ValueError, match="params"):
        ema.update({"w": jnp.ones(1)}, ema.init({"w": jnp.ones(1)}))


def test_target_has_buffers_of_its_own():
    ema = target_ema.target_ema(lambda count: 0.9)
    params = {"w": jnp.ones(3)}
    state = ema.init(params)
    step = jax.jit(lambda p, s: (p, s), donate_argnums=(0, 1))
    step(params, state)  # "Attempt to donate the same buffer twice" if it were shared
    assert params["w"].is_deleted()

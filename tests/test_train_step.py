"""One step: repeatable, compiled once, the same on one device and on eight, in either precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_training as small

from sspd_jax import forms, train_step
from sspd_jax.method import routing, views

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLIPS = 8
FORMS = {"paper": forms.PAPER, "released": forms.RELEASED}


def compiled(method, devices=1):
    mesh = train_step.data_mesh(jax.devices()[:devices])
    return train_step.compile_train_step(method, mesh), mesh


def run(method, step, mesh, batches, *, state=None):
    """The state and all metrics after a step on each batch, on the host."""
    state = train_step.place(state or small.state(method), mesh)
    metrics = []
    for batch in batches:
        state, measured = step(state, {"clips": batch})
        metrics.append(jax.device_get(measured))
    return jax.device_get(state), metrics


@pytest.fixture(scope="module")
def traces():
    """One entry for every time that the fixture `paper`'s method was traced."""
    return []


@pytest.fixture(scope="module")
def method(traces, quick_compilation):
    """The paper's form; 'direct' as on the devices that come in numbers."""
    plain = small.method(conv="direct")

    def momentum(step):
        traces.append(step)
        return plain.momentum(step)

    # Adam's first step is the sign of a gradient, whatever its size. A large ε keeps the rounding of
    # gradients near zero out of the parameters.
    optimizer = train_step.make_optimizer(1e-3, plain.momentum, eps=1.0)
    return small.replace(plain, momentum=momentum, optimizer=optimizer)


@pytest.fixture(scope="module")
def paper(method):
    """The method, its step on one device, that device."""
    return method, *compiled(method)


@pytest.fixture(scope="module")
def batches():
    return [small.clips(CLIPS, seed=seed) for seed in range(2)]


@pytest.fixture(scope="module")
def two_steps(paper, batches):
    return run(*paper, batches)


def assert_finite(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)


# --- what a step does -------------------------------------------------------------------------------


def test_metrics_are_finite_scalars_with_every_weighted_term(paper, two_steps):
    method = paper[0]
    for s, metrics in enumerate(two_steps[1]):
        assert {name for name in metrics if name.startswith("terms/")} == {f"terms/{t}" for t in method.terms}
        assert all(np.shape(v) == () and v.dtype == np.float32 for v in metrics.values())
        assert_finite(metrics)
        assert metrics["loss"] == pytest.approx(
            sum(v for name, v in metrics.items() if name.startswith("terms/")), rel=1e-5
        )
        assert metrics["target_momentum"] == pytest.approx(1 - 0.05 * (1 + np.cos(np.pi * s / 4)))


def test_every_part_of_both_networks_moves(paper, two_steps):
    before, after = jax.device_get(small.state(paper[0])), two_steps[0]
    assert after.step == 2
    for start, end in ((before.params, after.params), (before.target_params, after.target_params)):
        moved = jax.tree.map(lambda a, b: np.any(a != b), start, end)
        assert all(jax.tree.leaves(moved)), moved


def test_target_keeps_the_statistics_of_its_own_view(two_steps, batches):
    # Flips change neither mean nor variance of the whole face.
    mean, var = np.zeros(3), np.ones(3)
    for batch in batches:
        seen = np.asarray(views.whole_view(batch, 22), np.float64).reshape(-1, 3)
        mean, var = 0.9 * mean + 0.1 * seen.mean(axis=0), 0.9 * var + 0.1 * seen.var(axis=0, ddof=1)
    state = two_steps[0]
    own = state.target_batch_stats["backbone"]["input_norm"]
    np.testing.assert_allclose(own["mean"], mean, atol=1e-4)
    np.testing.assert_allclose(own["var"], var, rtol=1e-4)
    assert not np.allclose(state.batch_stats["backbone"]["input_norm"]["var"], var, rtol=0.1)


def test_views_are_drawn_anew_at_every_step(paper, batches):
    method, *rest = paper
    first, second = (
        run(method, *rest, batches[:1], state=small.state(method).replace(step=jnp.int32(s)))[1][0]["loss"]
        for s in (0, 1)
    )
    assert first != second


def test_same_state_and_batches_give_equal_results(paper, batches, two_steps):
    again = run(*paper, batches)
    jax.tree.map(np.testing.assert_array_equal, again, two_steps)


def test_steps_share_one_trace_and_one_compilation(paper, two_steps, traces):
    assert len(traces) == 1
    assert paper[1]._cache_size() == 1


def test_state_is_donated(paper, batches):
    method, step, mesh = paper
    state = train_step.place(small.state(method), mesh)
    step(state, {"clips": batches[0]})
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.target_params)))


def test_state_shares_no_buffer_between_its_fields():
    leaves = jax.tree.leaves(small.state(small.method()))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


# --- several devices --------------------------------------------------------------------------------


def test_eight_devices_equal_one(method, two_steps, batches):
    eight = run(method, *compiled(method, 8), batches)
    for on_one, on_eight in zip(two_steps[1], eight[1], strict=True):
        for name, value in on_one.items():
            assert on_eight[name] == pytest.approx(float(value), rel=1e-5, abs=1e-6), name
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(two_steps[0]), jax.tree.leaves(eight[0]), strict=True
    ):
        tolerance = 1e-5 * np.max(np.abs(leaf)) + 1e-6
        np.testing.assert_allclose(other, leaf, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))


# --- whatever comes in ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_frozen_clips_leave_everything_finite(form, paper, batches):
    # Every frame the same: all differences, features and waves are flat.
    frozen = np.repeat(batches[0][:, :1], small.FRAMES + 1, axis=1)
    if form == "paper":
        method, step, mesh = paper
    else:
        method = small.method(FORMS[form], conv="direct")
        step, mesh = compiled(method)
    state, metrics = run(method, step, mesh, [frozen])
    assert_finite(metrics)
    assert_finite(state)


def test_bfloat16_network_learns_with_float32_parameters(batches):
    method = small.method(dtype="bfloat16", conv="direct")
    state, metrics = run(method, *compiled(method), batches[:1])
    assert_finite(metrics)
    assert_finite(state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        assert leaf.dtype in (np.float32, np.int32), jax.tree_util.keystr(path)
    assert all(value.dtype == np.float32 for value in metrics[0].values())


@pytest.mark.parametrize("form", FORMS)
def test_no_fft_sees_half_precision(form):
    method = small.method(FORMS[form], dtype="bfloat16")
    step = functools.partial(train_step.train_step, method=method)
    clips = jax.ShapeDtypeStruct((2, small.FRAMES + 1, small.CROP, small.CROP, 3), jnp.uint8)
    state = jax.eval_shape(lambda: small.state(method))
    dtypes = {
        variable.aval.dtype.name
        for equation in _equations(jax.make_jaxpr(step)(state, {"clips": clips}).jaxpr)
        if equation.primitive.name == "fft"
        for variable in (*equation.invars, *equation.outvars)
    }
    assert dtypes == {"float32", "complex64"}


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(_open(v), "eqns")):
            if hasattr(_open(value), "eqns"):
                yield from _equations(_open(value))


def _open(value):
    """The jaxpr in a closed one; anything else as it is."""
    return getattr(value, "jaxpr", value)


@pytest.mark.parametrize(
    ("form", "fps", "network"),
    [
        ("paper", 30.0, {"ts_strides": (2, 2)}),
        ("paper", 25.0, {}),
        ("released", 25.0, {}),
    ],
)
def test_strides_and_other_frame_rates_have_a_finite_loss(form, fps, network):
    method = small.method(FORMS[form], fps=fps, conv="direct", **network)
    state = small.state(method)
    loss, (terms, *_) = jax.jit(functools.partial(train_step.loss_fn, method=method))(
        state.params, state, small.differences(seed=0), small.differences(seed=1)
    )
    assert_finite((loss, terms))
    assert terms["similarity_mse"] > 0


# --- frozen parts -----------------------------------------------------------------------------------


def test_frozen_parts_do_not_move_and_carry_no_moments():
    params = {label: {"kernel": jnp.full(2, float(i))} for i, label in enumerate(routing.LABELS, 1)}
    momentum = small.method().momentum
    optimizer = train_step.make_optimizer(0.1, momentum, frozen=("backbone", "ts"))
    state = optimizer.init(params)
    moments = optax.tree.get_all_with_path(state, "mu")
    assert len(jax.tree.leaves([tree for _, tree in moments])) == 1
    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    stepped, target = optax.apply_updates(params, updates), optax.tree.get(state, "target")
    for label in ("backbone", "ts"):
        np.testing.assert_array_equal(stepped[label]["kernel"], params[label]["kernel"])
        np.testing.assert_allclose(target[label]["kernel"], params[label]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(stepped["predictor"]["kernel"], 3 - 0.1, rtol=1e-6)
    np.testing.assert_allclose(target["predictor"]["kernel"], 3 - 0.1 * 0.1, rtol=1e-6)

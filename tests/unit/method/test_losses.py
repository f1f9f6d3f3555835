"""The loss terms: hand values, the formulas once more in float64, finite gradients on flat signals."""

import functools

import golden_inputs as golden
import jax
import jax.numpy as jnp
import method_oracles as oracle
import numpy as np
import pytest

from sspd_jax.method import losses
from sspd_jax.method.outputs import Outputs, similarity_outputs
from sspd_jax.training import presets

pytestmark = pytest.mark.usefixtures("quick_compilation")

SETTINGS = {
    **{name: {} for name in losses.TERMS},
    "similarity_deviation": {"weight_by_length": True, "ddof": 1},
}


# --- Pearson ----------------------------------------------------------------------------------------


def test_pearson_distance_by_hand():
    x = jnp.array([[1.0, 2, 3], [1, 2, 3], [1, 2, 3], [0, 1, 0]])
    y = jnp.array([[2.0, 4, 6], [3, 2, 1], [1, 1, 1], [1, 0, -1]])
    np.testing.assert_allclose(jax.jit(losses.pearson_distance)(x, y), [0, 2, 1, 1], atol=1e-6)


def test_pearson_distance_is_one_minus_the_correlation():
    x, y = np.random.default_rng(0).normal(3, 2, (2, 5, 7, 40)).astype(np.float32)
    distance = losses.pearson_distance(x, y)
    assert distance.shape == (5, 7)
    for i in np.ndindex(5, 7):
        assert distance[i] == pytest.approx(1 - np.corrcoef(x[i], y[i])[0, 1], abs=1e-6)
    assert losses.negative_pearson(x, y) == pytest.approx(float(np.mean(distance)), rel=1e-6)


def test_pearson_distance_ignores_offset_and_scale_and_order():
    x, y = np.random.default_rng(1).normal(0, 1, (2, 40)).astype(np.float32)
    distance = losses.pearson_distance(x, y)
    np.testing.assert_allclose(losses.pearson_distance(3 * x + 7, 0.2 * y - 1), distance, rtol=1e-5)
    np.testing.assert_allclose(losses.pearson_distance(y, x), distance, rtol=1e-6)
    np.testing.assert_allclose(losses.pearson_distance(-x, y), 2 - distance, rtol=1e-5)


def test_pearson_distance_keeps_its_digits_near_agreement():
    x = np.random.default_rng(2).normal(0, 1, 300)
    y = x + 1e-4 * np.random.default_rng(3).normal(0, 1, 300)
    product = x.std(ddof=1) * y.std(ddof=1)
    expected = 1 - np.cov(x, y)[0, 1] / (product + 1e-7)  # 1e-7: one step of float32 below 1
    assert losses.pearson_distance(np.float32(x), np.float32(y)) == pytest.approx(expected, rel=1e-3)


def test_pearson_distance_of_a_constant_is_one():
    flat, wave = np.full(40, 3, np.float32), np.sin(np.arange(40, dtype=np.float32))
    assert losses.pearson_distance(flat, wave) == 1
    assert losses.pearson_distance(1e6 * wave, flat) == 1
    assert losses.pearson_distance(flat, flat) == 1


# --- each term against its formula ------------------------------------------------------------------


def random_inputs(t, lengths, clips=2, channels=4):
    rng = np.random.default_rng(5)
    waves = [rng.normal(1, 1, (clips, t)).astype(np.float32) for _ in "ot"]
    features = [
        tuple(rng.normal(0.5, 1, (clips, n, channels)).astype(np.float32) for n in lengths) for _ in "ot"
    ]
    return *waves, *features


def outputs_of(online_wave, target_wave, online_features, target_features, rates):
    return Outputs(
        similarity_outputs(online_wave, online_features, rates),
        similarity_outputs(target_wave, target_features, rates),
    )


CASES = {
    "30 Hz": (30.0, (20, 17, 15), (1.0, 1.0, 1.0)),
    "25 Hz": (25.0, (20, 17, 15), (1.0, 1.0, 1.0)),
    "30 Hz, strides 2, 2": (30.0, (20, 9, 15), (1.0, 0.5, 0.25)),
}


@pytest.mark.parametrize(
    "case", [pytest.param(n, marks=pytest.mark.slow if n == "25 Hz" else ()) for n in CASES]
)
def test_every_term_equals_its_formula(case):
    fps, lengths, rates = CASES[case]
    inputs = random_inputs(24, lengths)
    expected = oracle.terms(*inputs, fps=fps, relative_rates=rates)

    @jax.jit
    def compute(inputs):
        outputs = outputs_of(*inputs, rates)
        values = {name: term(outputs, fps, **SETTINGS[name]) for name, term in losses.TERMS.items()}
        paper = losses.similarity_deviation(outputs, fps, weight_by_length=False, ddof=0)
        return values | {"similarity_deviation": {"paper": paper, "released": values["similarity_deviation"]}}

    for path, value in jax.tree_util.tree_leaves_with_path(compute(inputs)):
        wanted = expected
        for entry in path:
            wanted = wanted[entry.key]
        assert value == pytest.approx(wanted, rel=1e-5), path


def test_every_similarity_term_by_hand():
    # Two moments alike and two opposite: SSM = ±1 in 2 × 2 blocks.
    a = jnp.array([[[1.0, 0], [1, 0], [-1, 0], [-1, 0]]])
    b = jnp.array([[[1.0, 0], [1, 0], [1, 0], [1, 0]]])
    wave = jnp.zeros((1, 4))
    outputs = outputs_of(wave, wave, (a,), (b,), (1.0,))
    np.testing.assert_allclose(outputs.online.ssw[0], [[1, 1 / 3, -1, -1]], atol=1e-6)
    np.testing.assert_allclose(outputs.target.ssw[0], [[1, 1, 1, 1]], atol=1e-6)
    # Half of the matrix differs by 2; the waves by 0, 2/3, 2, 2.
    assert losses.similarity_mse(outputs, 30.0) == pytest.approx(2 + (4 / 9 + 8) / 4, rel=1e-5)
    # Lags 1 and 2: (1, −1, 1) and (−1, −1).
    paper = losses.similarity_deviation(outputs, 30.0, weight_by_length=False, ddof=0)
    assert paper == pytest.approx(np.sqrt(8 / 9) / 2, rel=1e-5)
    released = losses.similarity_deviation(outputs, 30.0, weight_by_length=True, ddof=1)
    assert released == pytest.approx(np.sqrt(8 / 6) * 3 / 20 / 2, rel=1e-5)


def test_agreement_costs_nothing():
    wave, _, features, _ = random_inputs(24, (20, 17))
    names = (
        "wave_pearson",
        "wave_power_mse",
        "wave_amplitude_pearson",
        "similarity_mse",
        "similarity_pearson",
    )

    @jax.jit
    def compute(wave, features):
        reading = similarity_outputs(wave, features)
        return [losses.TERMS[name](Outputs(reading, reading), 30.0) for name in names]

    np.testing.assert_allclose(compute(wave, features), 0, atol=5e-6)


def test_the_papers_total_on_golden_features_equals_its_formula():
    inputs = golden.wave("wo"), golden.wave("wt"), golden.features("po"), golden.features("pt")
    rates = (1.0, 1.0, 1.0)
    e = oracle.terms(*inputs, fps=golden.FPS, relative_rates=rates)
    rpd = e["wave_pearson"] + e["wave_power_mse"]
    tspd = e["similarity_mse"] + 0.04 * e["similarity_deviation"]["paper"] + 0.6 * e["similarity_inverse_snr"]
    compute = jax.jit(lambda i: losses.total_loss(outputs_of(*i, rates), golden.FPS, presets.PAPER["terms"]))
    total, terms = compute(inputs)
    assert total == pytest.approx(rpd + tspd, rel=2e-6)
    assert sum(terms.values()) == pytest.approx(float(total), rel=1e-6)


def test_total_weighs_its_terms():
    outputs = outputs_of(*random_inputs(24, (20,)), (1.0,))
    total, terms = losses.total_loss(
        outputs, 30.0, {"wave_pearson": {"weight": 3.0}, "similarity_mse": {"weight": 0}}
    )
    assert terms["wave_pearson"] == pytest.approx(3 * float(losses.wave_pearson(outputs, 30.0)))
    assert terms["similarity_mse"] == 0
    assert total == terms["wave_pearson"]


def test_unknown_term_is_refused():
    with pytest.raises(KeyError, match="wave_pearsen"):
        losses.total_loss(
            outputs_of(*random_inputs(24, (20,)), (1.0,)), 30.0, {"wave_pearsen": {"weight": 1}}
        )


def test_an_inverse_snr_below_6_hz_is_refused():
    with pytest.raises(ValueError, match=r"3\.75 Hz"):
        losses.similarity_inverse_snr(outputs_of(*random_inputs(24, (20,)), (0.125,)), 30.0)


# --- flat signals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_flat_signals_have_finite_values_and_gradients_in_every_term(dtype):
    # Zero, constant and ordinary signals, against flat ones and against ordinary ones.
    rng = np.random.default_rng(6)
    wave = jnp.asarray(np.stack([np.zeros(24), np.full(24, 2.0), rng.normal(0, 1, 24)]), dtype)
    features = jnp.asarray(np.stack([np.zeros((20, 4)), np.ones((20, 4)), rng.normal(0, 1, (20, 4))]), dtype)
    online = jnp.repeat(wave, 3, axis=0), jnp.repeat(features, 3, axis=0)
    target = jnp.tile(wave, (3, 1)), jnp.tile(features, (3, 1, 1))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def compute(online):
        outputs = outputs_of(online[0], target[0], (online[1],), (target[1],), (1.0,))
        values = {name: term(outputs, 30.0, **SETTINGS[name]) for name, term in losses.TERMS.items()}
        return sum(values.values()), values

    (_, values), gradients = compute(online)
    for name, value in values.items():
        assert value.dtype == jnp.float32
        assert np.isfinite(value), name
    for gradient in gradients:  # of the sum: a NaN in any term's would stay
        assert gradient.dtype == dtype
        assert np.isfinite(np.asarray(gradient, np.float32)).all()

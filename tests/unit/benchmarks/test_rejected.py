"""What the robustness study rejected: disturbances and losses over the batch, hand values and formulas."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import method_oracles as oracle
import numpy as np
import pytest
import small_training as small

from sspd_jax.method import losses, views
from sspd_jax.method.outputs import NetworkOutput, Outputs, similarity_outputs

FILE = Path(__file__).parents[3] / "benchmarks" / "robustness" / "rejected.py"
spec = importlib.util.spec_from_file_location("rejected", FILE)
rejected = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rejected)

# Slow: a study's own code, which nothing in the package calls.
pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.slow]

KEY = jax.random.key(3)
FPS = 30.0
EVERY = rejected.STRENGTHS


@functools.cache
def disturbing():
    """One compiled program for all strengths and both kinds of clip."""
    return jax.jit(lambda clip, key, strengths: rejected.brighten(clip, key, strengths, FPS))


def disturbed(clip, key=KEY, **strengths):
    strengths = {name: np.float32(strengths.get(name, 0)) for name in EVERY}
    return np.asarray(disturbing()(clip, key, strengths))


def clip(t=200, side=12):
    """A smooth picture that stands still, float32 [t, side, side, 3]."""
    at = np.linspace(0, 1, side)
    picture = 100 + 40 * np.sin(3 * at[:, None, None] + 2 * at[None, :, None] + np.arange(3))
    return np.repeat(picture[None].astype(np.float32), t, axis=0)


def gains(**strengths):
    """What a disturbance multiplies each pixel by, less 1."""
    return disturbed(np.full_like(clip(), 100), **strengths) / 100 - 1


def test_strength_zero_changes_nothing():
    np.testing.assert_allclose(disturbed(clip()), clip(), rtol=1e-6)


def test_same_key_same_disturbance_another_key_another():
    strengths = dict.fromkeys(EVERY, 0.01)
    first, again, other = (disturbed(clip(), key, **strengths) for key in (KEY, KEY, jax.random.key(4)))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_light_is_the_same_everywhere_and_within_its_strength():
    gain = gains(light=0.01)
    np.testing.assert_allclose(gain, gain[:, :1, :1, :1] * np.ones_like(gain), atol=1e-6)
    assert 1e-5 < gain.std() < 0.02


def test_a_lamp_has_one_colour_and_fades_to_nothing_at_one_corner():
    gain = gains(lamp=0.01)
    spread = gain.std(axis=0)
    corners = [spread[i, j] for i in (0, -1) for j in (0, -1)]
    assert min(c.max() for c in corners) < 1e-5
    ratio = spread / spread.max(axis=-1, keepdims=True).clip(1e-6)
    np.testing.assert_allclose(ratio[3, 4], ratio[8, 7], atol=0.02)


def test_shading_brightens_one_side_by_what_the_other_darkens():
    gain = gains(shading=0.01)
    np.testing.assert_allclose(gain, -gain[:, ::-1, ::-1], atol=1e-6)
    assert gain.std() > 1e-5


def test_tint_changes_colours_independently():
    gain = gains(tint=0.01)[:, 0, 0]
    assert np.abs(np.corrcoef(gain.T)[np.triu_indices(3, 1)]).max() < 0.7


def test_courses_have_the_promised_deviation_and_band():
    courses = np.asarray(rejected.course(KEY, 100, 600, FPS))
    assert courses.std(axis=1).mean() == pytest.approx(1, abs=0.1)
    power = np.abs(np.fft.rfft(courses - courses.mean(axis=1, keepdims=True))) ** 2
    hz = np.fft.rfftfreq(600, 1 / FPS)
    assert power[:, (hz > 0.2) & (hz < 3.2)].sum() > 0.95 * power.sum()


def test_each_strength_alone_disturbs_and_has_finite_gradients():
    still = jnp.asarray(clip(t=12))

    def change(strengths):
        settings = dict(zip(EVERY, strengths, strict=True))
        return jnp.sum(jnp.diff(rejected.brighten(still, KEY, settings, FPS), axis=0) ** 2)

    alone = 0.01 * jnp.eye(len(EVERY), dtype=jnp.float32)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(change)))(alone)
    assert np.all(values > 0)
    assert np.all(np.isfinite(gradients))
    assert np.all(np.diag(gradients) != 0)


@pytest.mark.slow
def test_views_and_clips_are_disturbed_independently_and_otherwise_made_as_before():
    # A still, flat face: all that is left of a view is its disturbance.
    face = np.full((2, 41, 26, 26, 3), 120, np.uint8)
    step_config = small.step_config()
    seen = views.ViewSettings(crop="random", mask_unit="none")
    make = jax.jit(lambda face, key: rejected.disturbed_view(face, key, seen, {"light": 0.01}, step_config))
    courses = [np.asarray(make(face, key))[:, :, 0, 0, 0] for key in jax.random.split(KEY)]
    courses = np.concatenate(courses)  # two views of two clips
    assert np.all(courses.std(axis=1) > 1e-3)
    assert np.abs(np.corrcoef(courses)[np.triu_indices(4, 1)]).max() < 0.95
    # Crops, flips and masks are drawn from the same keys with a disturbance and without.
    noise, plain = small.clips(), views.ViewSettings(crop="random", mask_unit="pixel")
    one = views.make_view(noise, KEY, plain, step_config.network.input_size)
    other = rejected.disturbed_view(noise, KEY, plain, {"light": 1e-9}, step_config)
    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.slow
def test_a_disturbed_step_learns_from_every_term():
    terms = {name: {"weight": 1.0} for name in rejected.TERMS}
    step_config = small.replace(small.step_config(), terms=terms)
    step = jax.jit(
        functools.partial(rejected.disturbed_step, strengths={"lamp": 0.01}, step_config=step_config)
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, term in rejected.TERMS.items():
            patch.setitem(losses.TERMS, name, term)
        _, metrics = step(small.state(step_config), small.clips())
    assert all(np.isfinite(metrics[f"terms/{name}"]) for name in terms)


# --- losses over the batch ------------------------------------------------------------------------------


def shares(waves, hz):
    """Share of the in-band power in each bin."""
    frequency = np.arange(waves.shape[-1] // 2 + 1) * hz / waves.shape[-1]
    inside = (frequency > 0.5 - 1e-6) & (frequency < 3 + 1e-6)
    return np.stack([oracle.power(w)[inside] / oracle.power(w)[inside].sum() for w in waves])


def spread(waves, hz):
    mean, total, gaps = shares(waves, hz).mean(axis=0), 0, []
    for i, share in enumerate(mean, 1):
        total += share
        gaps.append(total - i / len(mean))
    return np.mean(np.square(gaps))


def negatives(ours, theirs, hz):
    pairs = [(i, j) for i in range(len(ours)) for j in range(len(ours)) if i != j]
    a, b = shares(ours, hz), shares(theirs, hz)
    return np.mean([1 - np.sum((a[i] - b[j]) ** 2) / 2 for i, j in pairs])


@pytest.mark.parametrize("fps", [30.0, 25.0])
@pytest.mark.parametrize("rates", [(1.0, 1.0, 1.0), (1.0, 0.5, 0.25)])
def test_every_term_equals_its_formula(fps, rates):
    rng = np.random.default_rng(5)
    wave_o, wave_t = (rng.normal(1, 1, (2, 24)).astype(np.float32) for _ in "ot")
    features = [[rng.normal(0.5, 1, (2, n, 4)).astype(np.float32) for n in (20, 17, 15)] for _ in "ot"]
    outputs = Outputs(
        *(similarity_outputs(w, tuple(f), rates) for w, f in zip((wave_o, wave_t), features, strict=True))
    )
    scales = [*zip(outputs.online.ssw, outputs.target.ssw, (fps * rate for rate in rates), strict=True)]
    scales = [(np.asarray(o), np.asarray(t), hz) for o, t, hz in scales]
    expected = {
        "wave_spread": spread(wave_o, fps),
        "wave_negatives": negatives(wave_o, wave_t, fps),
        "similarity_spread": np.mean([spread(o, hz) for o, _, hz in scales]),
        "similarity_negatives": np.mean([negatives(o, t, hz) for o, t, hz in scales]),
    }
    for name, term in rejected.TERMS.items():
        assert term(outputs, fps) == pytest.approx(expected[name], rel=1e-4), name


def test_spread_and_negatives_by_hand():
    def outputs(*hz):
        # Sines that fit into 4 s: one bin each.
        waves = jnp.asarray([np.sin(2 * np.pi * f * np.arange(120) / 30) for f in hz], jnp.float32)
        reading = NetworkOutput(waves, (), (waves,), (1.0,))
        return Outputs(reading, reading)

    every = 0.25 * np.arange(2, 13)  # the 11 bins of 0.5–3 Hz
    for kind in ("wave", "similarity"):
        spread, negatives = (rejected.TERMS[f"{kind}_{name}"] for name in ("spread", "negatives"))
        assert spread(outputs(*every), 30.0) == pytest.approx(0, abs=1e-6)
        # All at the lowest bin: the distribution is 1 from there on.
        gaps = 1 - np.arange(1, 12) / 11
        assert spread(outputs(0.5, 0.5), 30.0) == pytest.approx(np.mean(gaps**2), rel=1e-3)
        assert negatives(outputs(1.0, 1.0, 1.0), 30.0) == pytest.approx(1, abs=1e-5)
        assert negatives(outputs(1.0, 1.5, 2.0), 30.0) == pytest.approx(0, abs=1e-4)
        assert negatives(outputs(1.0), 30.0) == 0  # nobody else

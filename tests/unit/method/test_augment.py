"""Disturbances: hand values, independence of the two views, nothing at strength 0, finite gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sspd_jax.method import augment, views
from sspd_jax.method.augment import Disturbance

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(3)
FPS = 30.0
EVERY = tuple(field.name for field in dataclasses.fields(Disturbance))


@functools.cache
def disturbing():
    """One compiled program for all strengths and both kinds of clip."""
    return jax.jit(lambda clip, key, strengths: augment.disturb(clip, key, Disturbance(**strengths), FPS))


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
    assert Disturbance().is_off()
    assert not Disturbance(motion=0.01).is_off()
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
    courses = np.asarray(augment.course(KEY, 100, 600, FPS))
    assert courses.std(axis=1).mean() == pytest.approx(1, abs=0.1)
    power = np.abs(np.fft.rfft(courses - courses.mean(axis=1, keepdims=True))) ** 2
    hz = np.fft.rfftfreq(600, 1 / FPS)
    assert power[:, (hz > 0.2) & (hz < 3.2)].sum() > 0.95 * power.sum()


def shifted(picture, down, across):
    frames = jnp.asarray(picture, jnp.float32)
    rows = jnp.full(len(frames), down, jnp.float32), jnp.full(len(frames), across, jnp.float32)
    return np.asarray(augment.shift(frames, *rows))


def test_shifting_by_whole_and_half_pixels_by_hand():
    picture = np.arange(16).reshape(1, 4, 4, 1).repeat(3, -1)
    np.testing.assert_allclose(shifted(picture, 1, 0)[0, :, 0, 0], [0, 0, 4, 8])  # the edge is repeated
    np.testing.assert_allclose(shifted(picture, 0, -0.5)[0, 0, :, 0], [0.5, 1.5, 2.5, 3])


@settings(max_examples=10)
@given(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32))
def test_a_flat_picture_may_be_moved_anywhere(down, across):
    np.testing.assert_allclose(shifted(np.full((1, 4, 4, 3), 7), down, across), 7, rtol=1e-6)


def test_each_strength_alone_disturbs_and_has_finite_gradients():
    still = jnp.asarray(clip(t=12))

    def change(strengths):
        settings = Disturbance(**dict(zip(EVERY, strengths, strict=True)))
        return jnp.sum(jnp.diff(augment.disturb(still, KEY, settings, FPS), axis=0) ** 2)

    alone = 0.01 * jnp.eye(len(EVERY), dtype=jnp.float32)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(change)))(alone)
    assert np.all(values > 0)
    assert np.all(np.isfinite(gradients))
    assert np.all(np.diag(gradients) != 0)


def test_views_and_clips_are_disturbed_independently_and_otherwise_made_as_before():
    # A still, flat face: all that is left of a view is its disturbance.
    face = np.full((2, 41, 12, 12, 3), 120, np.uint8)
    seen = views.ViewSettings(crop="random", mask_unit="none", disturbance=Disturbance(light=0.01))
    make = jax.jit(functools.partial(views.make_view, settings=seen, size=10))
    courses = [np.asarray(make(face, key))[:, :, 0, 0, 0] for key in jax.random.split(KEY)]
    courses = np.concatenate(courses)  # two views of two clips
    assert np.all(courses.std(axis=1) > 1e-3)
    assert np.abs(np.corrcoef(courses)[np.triu_indices(4, 1)]).max() < 0.95
    # Crops, flips and masks are drawn from the same keys with a disturbance and without.
    noise = np.random.default_rng(0).integers(0, 255, (2, 9, 16, 16, 3), np.uint8)
    plain = views.ViewSettings(crop="random", mask_unit="pixel")
    tiny = dataclasses.replace(plain, disturbance=Disturbance(light=1e-9))
    one, other = (views.make_view(noise, KEY, s, 12) for s in (plain, tiny))
    np.testing.assert_allclose(one, other, atol=1e-3)

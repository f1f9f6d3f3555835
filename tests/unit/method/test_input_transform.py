"""What a network is given of a video: light is taken out, the pulse stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sspd_jax.method import input_transform, views
from sspd_jax.method.settings import NetworkSettings

pytestmark = pytest.mark.usefixtures("quick_compilation")

apply = jax.jit(input_transform.apply, static_argnames="transform")  # sooner than one by one

make_view = jax.jit(views.make_view, static_argnames=("settings", "size", "transform"))
whole_view = jax.jit(views.whole_view, static_argnames=("size", "transform"))

SIZE = 16
TIME_S = np.arange(40) / 15
BEAT = np.sin(2 * np.pi * 1.7 * TIME_S)[:, None, None, None]
PULSE = np.array([0.33, 0.77, 0.53]) / 0.77


def still():
    """A picture of many colours without hard edges, [1, size, size, 3]."""
    y, x = np.mgrid[:SIZE, :SIZE][..., None] / SIZE
    phase = np.array([0.0, 1.0, 2.5])
    return (120 + 60 * np.sin(3 * x + phase) * np.cos(2 * y + 2 * phase))[None]


def power(seen):
    return float(np.sqrt(np.mean(np.square(seen))))


@pytest.fixture
def inside():
    return 1 - input_transform.outside(SIZE, SIZE)[..., None]


def test_the_published_input_is_the_difference():
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(apply(frames), np.diff(frames.astype(np.float32), axis=1))
    assert NetworkSettings().input_transform == "difference"


def test_both_kinds_of_view_are_given_what_is_asked_for():
    clips = np.random.default_rng(3).integers(0, 256, (1, 5, SIZE, SIZE, 3), np.uint8)
    plain = views.ViewSettings(flip_horizontal=0.0, flip_vertical=0.0)
    expected = apply(clips, "steady")
    for view in (
        make_view(clips, jax.random.key(0), plain, SIZE, transform="steady"),
        whole_view(clips, SIZE, "steady"),
    ):
        np.testing.assert_allclose(view, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("transform", ["chrominance", "steady", "steady_chrominance"])
def test_white_light_is_taken_out(transform):
    lit = still() * (1 + 0.005 * BEAT)
    assert power(apply(lit, transform)) < 0.04 * power(apply(lit))


def test_shading_that_differs_from_pixel_to_pixel_has_no_chrominance():
    shade = np.random.default_rng(1).normal(size=(1, SIZE, SIZE, 1))
    shaded = still() * (1 + 0.005 * BEAT * shade)
    assert power(apply(shaded, "chrominance")) < 0.02 * power(apply(shaded))
    assert power(apply(shaded, "steady")) > 0.5 * power(apply(shaded))


@pytest.mark.parametrize("transform", ["steady", "steady_chrominance"])
def test_a_coloured_lamp_at_one_side_is_taken_out(transform):
    across = np.linspace(0, 1, SIZE)[None, None, :, None]
    lit = still() * (1 + 0.005 * BEAT * across * np.array([1.0, 0.4, 0.1]))
    assert power(apply(lit, transform)) < 0.03 * power(apply(lit))
    assert power(apply(lit, "chrominance")) > 0.2 * power(apply(lit))


def test_a_pulse_inside_the_surround_stays_as_it_is(inside):
    face = still() * (1 + 0.005 * BEAT * PULSE * inside)
    np.testing.assert_allclose(apply(face, "steady"), apply(face), atol=1e-4)
    seen = apply(face, "steady_chrominance")
    assert power(seen) > 0.2 * power(apply(face))


def test_pulse_under_a_lamp_is_the_pulse_without_it(inside):
    across = np.linspace(0, 1, SIZE)[None, None, :, None]
    lamp = 0.004 * np.cos(2 * np.pi * 1.2 * TIME_S)[:, None, None, None] * across * np.array([0.1, 0.3, 1.0])
    face = still() * (1 + 0.005 * BEAT * PULSE * inside)
    alone, lit = (apply(f, "steady") for f in (face, face * (1 + lamp)))
    assert power(lit - alone) < 0.05 * power(alone)


@pytest.mark.parametrize("transform", [*input_transform.INPUT_TRANSFORMS])
def test_it_reads_a_stream_as_it_reads_a_recording(transform):
    frames = np.random.default_rng(2).integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
    parts = [apply(frames[start : start + 5], transform) for start in (0, 4)]
    np.testing.assert_allclose(np.concatenate(parts), apply(frames, transform), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("transform", [*input_transform.INPUT_TRANSFORMS])
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_pictures_change_by_nothing(transform, level):
    np.testing.assert_array_equal(apply(np.full((1, 4, 8, 8, 3), level, np.uint8), transform), 0)


def test_gradients_of_black_pictures_are_finite():
    black = jnp.zeros((3, 8, 8, 3))
    gradient = jax.grad(lambda f: jnp.sum(apply(f, "steady_chrominance") ** 2))(black)
    assert np.isfinite(gradient).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_systems_of_three_are_solved_as_numpy_does(seed):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(5, 3, 3))
    a = half @ half.swapaxes(1, 2) + np.eye(3)
    b = rng.normal(size=(5, 3))
    actual = input_transform._solve3(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(actual, np.linalg.solve(a, b[..., None])[..., 0], rtol=1e-3, atol=1e-4)


def light_by_hand(change, mean):
    """`without_light` of one change [h, w, 3] in float64: pixel by pixel, colour by colour."""
    h, w, _ = change.shape
    left = np.array(change, np.float64)
    down, across = np.gradient(mean, axis=0) * h, np.gradient(mean, axis=1) * w
    for colour in range(3):
        gram, right = np.eye(3) / 0.003**2, np.zeros(3)
        plane = np.empty((h, w, 3))
        for i, j in np.ndindex(h, w):
            x, y = (j + 0.5) / w * 2 - 1, (i + 0.5) / h * 2 - 1
            plane[i, j] = 1, x, y
            if x**2 + y**2 > 1:
                steep = down[i, j, colour] ** 2 + across[i, j, colour] ** 2
                weight = 1 / (0.35**2 + 0.002**2 * steep)
                gram += weight * mean[i, j, colour] ** 2 * np.outer(plane[i, j], plane[i, j])
                right += weight * mean[i, j, colour] * change[i, j, colour] * plane[i, j]
        left[..., colour] -= mean[..., colour] * (plane @ np.linalg.solve(gram, right))
    return left


def test_light_is_fitted_as_its_formula_says_in_a_picture_that_is_wider_than_high():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:10, :14][..., None] / 10
    mean = 90 + 70 * np.sin(7 * x + np.array([0.0, 1.0, 2.0])) * np.cos(2 * y)  # steep across, not down
    change = rng.normal(0, 1, (10, 14, 3))
    actual = input_transform.without_light(*(jnp.asarray(a[None], jnp.float32) for a in (change, mean)))
    np.testing.assert_allclose(actual[0], light_by_hand(change, mean), atol=2e-4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="input_transform is 'hue'"):
        NetworkSettings(input_transform="hue")

"""Slow motion: hand values, a sine at another rate, readings that slow down with their clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sspd_jax.heart_rate import rate
from sspd_jax.method import losses, outputs, time_stretch

pytestmark = pytest.mark.usefixtures("quick_compilation")

FPS = 30.0

# Sooner compiled as a whole than one by one.
play = jax.jit(time_stretch.play)
play_output = jax.jit(time_stretch.play_output)
similarity_outputs = jax.jit(outputs.similarity_outputs)


def test_half_speed_shows_the_middle_half_twice_as_long():
    found = play(np.arange(5.0)[None], np.float32([0.5]))
    np.testing.assert_allclose(found, [[1, 1.5, 2, 2.5, 3]])


def test_own_speed_changes_nothing():
    signal = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(play(signal, np.ones(2, np.float32)), signal, atol=1e-6)


@given(t=st.sampled_from((1, 2, 7, 40)), speed=st.floats(0.0625, 1), slope=st.floats(-3, 3))
@settings(deadline=None, max_examples=25)
def test_a_line_becomes_a_flatter_line_through_the_same_middle(t, speed, slope):
    line = slope * np.arange(t, dtype=np.float32)[None]
    middle = slope * (t - 1) / 2
    want = middle + speed * (line - middle)
    np.testing.assert_allclose(play(line, np.float32([speed])), want, atol=1e-4)


def test_a_clip_of_uint8_is_played_as_its_pixels_are():
    clip = np.random.default_rng(1).integers(0, 256, (2, 6, 4, 4, 3), np.uint8)
    speed = np.float32([0.7, 0.9])
    found = play(clip, speed)
    assert found.dtype == jnp.float32 and found.shape == clip.shape
    pixel = play(clip[:, :, 1, 2, 0], speed)
    np.testing.assert_allclose(found[:, :, 1, 2, 0], pixel, rtol=1e-6)


def test_a_pulse_slows_by_the_speed():
    time_s = np.arange(300) / FPS
    wave = np.sin(2 * np.pi * 1.5 * time_s)[None]
    slow = np.asarray(play(wave, np.float32([0.8])))[0]
    assert rate.spectral_peak_rate(slow, FPS) == pytest.approx(0.8 * 90, abs=0.2)


def reading(hz, t=120):
    """What a network says that follows a sine."""
    phase = 2 * np.pi * hz * np.arange(t) / FPS
    features = np.stack([np.sin(phase), np.cos(phase), np.full(t, 0.5)], axis=-1)
    return similarity_outputs(np.sin(phase - np.pi * hz * (t - 1) / FPS)[None], (features[None],))


def test_a_reading_played_slowly_is_the_reading_of_the_slow_clip():
    slow, want = play_output(reading(1.5), np.float32([0.8])), reading(1.2)
    np.testing.assert_allclose(slow.wave, want.wave, atol=0.03)
    np.testing.assert_allclose(slow.ssm[0], want.ssm[0], atol=0.03)
    np.testing.assert_allclose(slow.ssw[0], want.ssw[0], atol=0.03)
    assert slow.relative_rates == want.relative_rates


def test_one_answer_at_every_speed_disagrees_with_itself():
    one = reading(1.6)
    same = losses.wave_pearson(outputs.Outputs(one, one), FPS)
    slow = losses.wave_pearson(outputs.Outputs(one, play_output(one, np.float32([0.8]))), FPS)
    assert same < 1e-4 < 0.5 < slow


def test_speeds_lie_in_their_range_and_are_a_clips_own():
    key = jax.random.key(0)
    speeds = np.asarray(time_stretch.draw_speeds(key, 500, 0.7))
    assert 0.7 <= speeds.min() < 0.71 and 0.99 < speeds.max() <= 1
    # A part of a batch draws what the whole batch does.
    np.testing.assert_array_equal(time_stretch.draw_speeds(key, 100, 0.7, 50), speeds[50:150])
    assert time_stretch.is_off(1) and time_stretch.is_off(1.0) and not time_stretch.is_off(0.9)

"""A pulse on pixels, in linear light."""

import numpy as np
import pytest

from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.simulation import known_pulse
from sspd_jax.simulation.person import PULSE_COLOUR

TIMES = np.arange(900) / 30


@pytest.mark.parametrize("bpm", [40.0, 84.0, 180.0])
def test_mean_rate_is_as_asked_and_the_rate_breathes(bpm):
    wave = known_pulse.draw_wave([3, 1], bpm, 30.0)
    rate = wave.rate_at(TIMES)
    assert rate.mean() == pytest.approx(bpm, abs=0.02)
    assert 0.005 < rate.std() / bpm < 0.06
    ppg = wave.at(TIMES)
    assert np.abs(ppg).max() <= 1
    assert spectral_peak_rate(ppg, 30) == pytest.approx(bpm, rel=0.05)
    assert (ppg == known_pulse.draw_wave([3, 1], bpm, 30.0).at(TIMES)).all()
    assert np.abs(ppg - known_pulse.draw_wave([4, 1], bpm, 30.0).at(TIMES)).max() > 0.1


def test_maps_vary_smoothly_and_keep_the_strength_that_a_mean_over_the_skin_shows():
    down, across = np.mgrid[:96, :96]
    skin = np.clip(1.5 - np.hypot(across - 48, down - 48) / 20, 0, 1).astype(np.float32)
    maps = known_pulse.draw_maps(np.random.default_rng(1), skin)
    assert (skin * skin * maps.strength).sum() / skin.sum() == pytest.approx(1, abs=1e-4)
    assert (skin * maps.delay_s).sum() == pytest.approx(0, abs=1e-3)
    on = skin > 0.9
    assert maps.strength[on].std() > 0.1
    assert maps.delay_s[on].std() > 0.005
    assert np.abs(np.diff(maps.strength, axis=0))[on[1:]].max() < 0.2  # of one pixel to the next


def test_light_is_scaled_not_the_value():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    change = np.linspace(-0.02, 0.02, 2000, dtype=np.float32).reshape(40, 50)
    seen = known_pulse.change_light(picture, change) / 255
    light = np.where(seen > 0.04045, ((seen + 0.055) / 1.055) ** 2.4, seen / 12.92)
    right = known_pulse.to_light(picture) * (1 + change[..., None] * PULSE_COLOUR)
    np.testing.assert_allclose(light, right, rtol=2e-3, atol=2e-6)  # at the toe the curve has a corner
    np.testing.assert_allclose(light[picture > 20], right[picture > 20], rtol=1e-5)


def test_what_is_divided_out_is_gone_and_no_change_is_none():
    picture = np.random.default_rng(0).integers(1, 200, (8, 9, 3), np.uint8)
    own = np.full((8, 9, 3), 0.05, np.float32)
    beaten = picture * (1 + own)
    still = known_pulse.change_light(beaten, np.zeros((8, 9), np.float32), own)
    np.testing.assert_allclose(still, picture, rtol=1e-5)


def test_dither_keeps_means_where_it_is_asked_for_and_leaves_the_rest():
    values = np.full((200, 200, 3), 100.3, np.float32)
    values[:, 100:] = 7
    touched = np.zeros((200, 200), bool)
    touched[:, :100] = True
    seen = known_pulse.dithered(values, touched, np.random.default_rng(0))
    assert seen.dtype == np.uint8
    assert seen[:, :100].mean() == pytest.approx(100.3, abs=0.01)
    assert (seen[:, 100:] == 7).all()

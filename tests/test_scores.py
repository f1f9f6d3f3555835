"""Scores and run health against hand values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sspd_jax.heart_rate import scores
from sspd_jax.method import health

FPS = 30.0


def tone(hz, t=300, phase=0.0, fps=FPS):
    return np.sin(2 * np.pi * hz * np.arange(t) / fps + phase)


def test_scores_by_hand():
    result = scores.score_rates(np.array([61.0, 70, 83, 90]), np.array([60.0, 72, 80, 90]))
    assert result["MAE"].value == pytest.approx((1 + 2 + 3 + 0) / 4)
    assert result["MAE"].error == pytest.approx(np.std([1, 2, 3, 0]) / 2)
    assert result["RMSE"].value == pytest.approx(np.sqrt(14 / 4))
    r = np.corrcoef([61, 70, 83, 90], [60, 72, 80, 90])[0, 1]
    assert result["r"] == pytest.approx((r, np.sqrt((1 - r**2) / 2)))
    assert (result["rows"].value, result["missing"].value) == (4, 0)


def test_a_perfect_prediction_is_perfect():
    true = np.array([50.0, 60, 80, 120])
    result = scores.score_rates(true, true)
    assert result["MAE"].value == result["RMSE"].value == 0
    assert result["r"].value == pytest.approx(1)


def test_missing_rates_are_counted_not_hidden():
    result = scores.score_rates(np.array([60, np.nan, 81]), np.array([60.0, 70, 80]))
    assert (result["rows"].value, result["missing"].value) == (2, 1)
    assert result["MAE"].value == pytest.approx(0.5)
    assert np.isnan(result["r"].value)


def test_no_rate_at_all_is_no_score():
    result = scores.score_rates(np.array([np.nan]), np.array([60.0]))
    assert np.isnan(result["MAE"].value)
    assert result["missing"].value == 1


def test_snr_of_known_mixtures():
    clean = tone(1.2)
    assert scores.snr_db(clean, FPS, 72) > 9  # the window of 10 s spreads a pure tone by that much
    assert scores.snr_db(clean, FPS, 100) < -15
    assert scores.snr_db(clean + tone(2.0), FPS, 72) == pytest.approx(0, abs=1.5)
    assert scores.snr_db(tone(2.4), FPS, 72) > 9  # the second harmonic counts
    assert np.isnan(scores.snr_db(np.ones(300), FPS, 72))
    assert np.isnan(scores.snr_db(clean, FPS, np.nan))


@given(st.floats(0.01, 100), st.floats(-1e3, 1e3), st.sampled_from([-1, 1]))
def test_snr_ignores_scale_offset_and_sign(scale, offset, sign):
    wave = tone(1.2) + 0.3 * tone(2.9, phase=1)
    expected = scores.snr_db(wave, FPS, 72)
    assert scores.snr_db(sign * scale * wave + offset, FPS, 72) == pytest.approx(expected, abs=0.05)


def well(waves, fps=FPS):
    result = jax.jit(health.wave_health, static_argnums=1)(jnp.asarray(waves, jnp.float32), fps)
    return {name: float(value) for name, value in result.items()}


def test_different_pulses_are_healthy():
    result = well([tone(hz, phase=hz) for hz in (0.9, 1.2, 1.6, 2.3)])
    assert result["concentration"] > 0.95
    assert result["alike"] < 0.05
    assert result["at_edge"] == 0
    assert result["score"] > 0.9
    assert health.complaint(result) is None


def test_one_answer_for_every_face_is_a_collapse_whatever_its_phase():
    result = well([tone(1.2, phase=phase) for phase in (0, 1, 2, 3)])
    assert result["alike"] > 0.99
    assert result["score"] < 0.02
    assert "collapsed" in health.complaint(result)


def test_waves_at_the_edge_of_the_band_are_no_pulse():
    result = well([tone(0.5), tone(3.0), tone(0.5, phase=1), tone(1.4)])
    assert result["at_edge"] == pytest.approx(0.75)
    assert "edge" in health.complaint(result)


def test_noise_is_not_concentrated():
    noise = np.random.default_rng(0).standard_normal((16, 300))
    assert well(noise)["concentration"] < 0.5


@pytest.mark.parametrize("waves", [np.zeros((3, 300)), np.ones((3, 300)), np.zeros((1, 300))])
def test_flat_waves_give_finite_health(waves):
    assert all(np.isfinite(value) for value in well(waves).values())


def test_health_knows_the_sampling_rate():
    assert well([tone(hz, fps=20, t=200) for hz in (0.9, 1.5)], fps=20.0)["at_edge"] == 0

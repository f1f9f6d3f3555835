"""Scores and run health against hand values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sspd_jax.evaluation import metrics
from sspd_jax.method import diagnostics

FPS = 30.0


def tone(hz, t=300, phase=0.0, fps=FPS):
    return np.sin(2 * np.pi * hz * np.arange(t) / fps + phase)


def test_scores_by_hand():
    result = metrics.score_rates(np.array([61.0, 70, 83, 90]), np.array([60.0, 72, 80, 90]))
    assert result["MAE"].value == pytest.approx((1 + 2 + 3 + 0) / 4)
    assert result["MAE"].error == pytest.approx(np.std([1, 2, 3, 0]) / 2)
    assert result["RMSE"].value == pytest.approx(np.sqrt(14 / 4))
    r = np.corrcoef([61, 70, 83, 90], [60, 72, 80, 90])[0, 1]
    assert result["r"][:2] == pytest.approx((r, np.sqrt((1 - r**2) / 2)))
    assert result["ME"][:2] == pytest.approx((0.5, np.std([1, -2, 3, 0]) / 2))
    assert result["RMSE"].error == pytest.approx(np.sqrt(np.std([1, 4, 9, 0]) / 2))
    relative = 100 * np.array([1 / 60, 2 / 72, 3 / 80, 0])
    assert result["MAPE"][:2] == pytest.approx((relative.mean(), relative.std() / 2))
    assert np.isnan([result["MAE"].low, result["MAE"].high]).all()  # nobody was named
    assert (result["rows"].value, result["missing"].value) == (4, 0)


def test_a_perfect_prediction_is_perfect():
    true = np.array([50.0, 60, 80, 120])
    result = metrics.score_rates(true, true)
    assert result["MAE"].value == result["RMSE"].value == 0
    assert result["r"].value == pytest.approx(1)


def test_the_truth_scored_against_itself_is_suspicious():
    true = np.array([50.0, 60, 80, 120])
    assert metrics.is_suspicious(metrics.score_rates(true, true))
    assert metrics.is_suspicious(metrics.score_rates(np.full(4, 60.0), np.full(4, 60.0)))  # wide bins, no r
    assert not metrics.is_suspicious(metrics.score_rates(true + 0.01, true))
    assert metrics.is_suspicious(metrics.score_rates(true[:3], true[:3]))
    assert not metrics.is_suspicious(metrics.score_rates(true[:2], true[:2]))  # may be chance
    assert not metrics.is_suspicious(metrics.score_rates(np.full(4, np.nan), true))


def test_shuffled_truth_is_no_correlation():
    rng = np.random.default_rng(0)
    true = rng.uniform(45, 150, 400)
    predicted = true + rng.normal(0, 1, 400)
    people = [f"p{i // 10}" for i in range(400)]
    assert metrics.score_rates(predicted, true, people)["r"].value > 0.99
    shuffled = metrics.score_rates(predicted, rng.permutation(true), people)["r"]
    assert abs(shuffled.value) < 0.15
    assert shuffled.low < 0 < shuffled.high


@given(st.integers(0, 99))
def test_an_interval_is_of_people_not_of_windows(seed):
    # Everybody's windows have the same error: copies of a window add no certainty.
    rng = np.random.default_rng(seed)
    error = rng.uniform(0, 10, 8)
    once = metrics.score_rates(60 + error, np.full(8, 60.0), np.arange(8))["MAE"]
    ten_times = metrics.score_rates(60 + np.repeat(error, 10), np.full(80, 60.0), np.repeat(np.arange(8), 10))
    assert (ten_times["MAE"].low, ten_times["MAE"].high) == pytest.approx((once.low, once.high))
    assert ten_times["MAE"].error < once.error / 3  # what papers print shrinks
    assert once.low < error.mean() < once.high


def test_an_interval_covers_what_it_should():
    # 24 people, each with an offset of their own: the mean of the offsets' population is 5.
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        offsets = np.repeat(rng.exponential(5, 24), 3)
        score = metrics.score_mean(offsets + rng.normal(0, 0.1, 72), np.repeat(np.arange(24), 3))
        inside += score.low <= 5 <= score.high
    assert 0.86 <= inside / 200 <= 0.98


def test_an_interval_is_of_as_many_draws_as_it_says(monkeypatch):
    usual = metrics.score_mean(np.arange(8.0), np.arange(8))
    monkeypatch.setattr(metrics, "RESAMPLES", 2)
    two = metrics.score_mean(np.arange(8.0), np.arange(8))
    assert usual.low < two.low < two.high < usual.high and two.value == usual.value


def test_one_person_has_no_interval():
    result = metrics.score_rates(np.array([61.0, 70, 83]), np.array([60.0, 72, 80]), ["ann"] * 3)
    assert np.isnan(result["MAE"].low) and np.isfinite(result["MAE"].value)


def test_paired_difference_by_hand():
    first, second = np.array([1.0, 2, np.nan, 4]), np.array([2.0, 2, 5, 8])
    result = metrics.paired_difference(first, second, ["a", "a", "b", "b"])
    assert result["difference"].value == pytest.approx((-1 + 0 - 4) / 3)
    assert (result["rows"].value, result["missing"].value) == (3, 1)
    # Person a alone gives −0.5, person b −4: the draws hold both and their mixtures.
    assert (result["difference"].low, result["difference"].high) == pytest.approx((-4, -0.5))


def test_pairing_sees_what_separate_scores_do_not():
    rng = np.random.default_rng(1)
    hard, people = rng.exponential(10, 60), np.repeat(np.arange(20), 3)
    first, second = hard, hard + 0.5  # always half a beat better
    apart = [metrics.score_mean(errors, people) for errors in (first, second)]
    assert apart[0].high > apart[1].low  # their own intervals overlap
    assert metrics.paired_difference(first, second, people)["difference"].high < 0


def test_limits_of_agreement_by_hand():
    bias, low, high = metrics.limits_of_agreement(
        np.array([61.0, 73, 79, np.nan]), np.array([60.0, 70, 80, 9])
    )
    assert bias == pytest.approx(1)
    assert (low, high) == pytest.approx((1 - 1.96 * 2, 1 + 1.96 * 2))
    assert np.isnan(metrics.limits_of_agreement(np.array([61.0]), np.array([60.0]))).all()


@pytest.mark.parametrize(
    ("bpm", "name"),
    [
        (45, "below 60 bpm"),
        (60, "60–80 bpm"),
        (79.9, "60–80 bpm"),
        (119, "100–120 bpm"),
        (180, "120 bpm and above"),
    ],
)
def test_rate_ranges(bpm, name):
    assert metrics.rate_range(bpm) == name


def test_a_correlation_loses_no_digits_far_from_zero():
    predicted, true = np.array([61.0, 70, 83, 90]), np.array([60.0, 72, 80, 90])
    near, far = (metrics.score_rates(predicted + by, true + by)["r"].value for by in (0, 1e8 + 1 / 3))
    assert far == pytest.approx(near, abs=1e-6)


def test_an_snr_is_of_the_bins_of_the_band_and_its_ends_count(monkeypatch):
    """Bins 6 bpm apart and powers by hand: 72 bpm and 144 bpm are the pulse, each with its neighbours."""
    hz = np.arange(30) / 10
    power = np.arange(30) ** 2 + 1.0
    monkeypatch.setattr(metrics, "hann_periodogram", lambda wave, fps: (hz, power))
    wave = np.array([1.0, 2.0])
    inside = power[[11, 12, 13, 23, 24]].sum()  # 25 lies above the band
    outside = power[[7, 8, 9, 10, 14, 15, 16, 17, 18, 19, 20, 21, 22]].sum()
    expected = 10 * np.log10(inside / outside)
    found = metrics.snr_db(wave, 30.0, 72.0, band_hz=(hz[7], hz[24]))
    assert found == pytest.approx(expected)


def test_missing_rates_are_counted_not_hidden():
    result = metrics.score_rates(np.array([60, np.nan, 81]), np.array([60.0, 70, 80]))
    assert (result["rows"].value, result["missing"].value) == (2, 1)
    assert result["MAE"].value == pytest.approx(0.5)
    assert np.isnan(result["r"].value)


def test_no_rate_at_all_is_no_score():
    result = metrics.score_rates(np.array([np.nan]), np.array([60.0]))
    assert np.isnan(result["MAE"].value)
    assert result["missing"].value == 1


def test_snr_of_known_mixtures():
    clean = tone(1.2)
    assert metrics.snr_db(clean, FPS, 72) > 9  # the window of 10 s spreads a pure tone by that much
    assert metrics.snr_db(clean, FPS, 100) < -15
    assert metrics.snr_db(clean + tone(2.0), FPS, 72) == pytest.approx(0, abs=1.5)
    assert metrics.snr_db(tone(2.4), FPS, 72) > 9  # the second harmonic counts
    assert np.isnan(metrics.snr_db(np.ones(300), FPS, 72))
    assert np.isnan(metrics.snr_db(clean, FPS, np.nan))


@given(st.floats(0.01, 100), st.floats(-1e3, 1e3), st.sampled_from([-1, 1]))
def test_snr_ignores_scale_offset_and_sign(scale, offset, sign):
    wave = tone(1.2) + 0.3 * tone(2.9, phase=1)
    expected = metrics.snr_db(wave, FPS, 72)
    assert metrics.snr_db(sign * scale * wave + offset, FPS, 72) == pytest.approx(expected, abs=0.05)


def well(waves, fps=FPS):
    result = jax.jit(diagnostics.wave_health, static_argnums=1)(jnp.asarray(waves, jnp.float32), fps)
    return {name: float(value) for name, value in result.items()}


def test_different_pulses_are_healthy():
    result = well([tone(hz, phase=hz) for hz in (0.9, 1.2, 1.6, 2.3)])
    assert result["concentration"] > 0.95
    assert result["alike"] < 0.05
    assert result["at_edge"] == 0
    assert result["score"] > 0.9
    assert diagnostics.collapse_warning(result) is None


def test_one_answer_for_every_face_is_a_collapse_whatever_its_phase():
    result = well([tone(1.2, phase=phase) for phase in (0, 1, 2, 3)])
    assert result["alike"] > 0.99
    assert result["score"] < 0.02
    assert "collapsed" in diagnostics.collapse_warning(result)
    assert diagnostics.collapse_warning(result, one_person=True) is None


def test_waves_at_the_edge_of_the_band_are_no_pulse():
    result = well([tone(0.5), tone(3.0), tone(0.5, phase=1), tone(1.4)])
    assert result["at_edge"] == pytest.approx(0.75)
    assert "edge" in diagnostics.collapse_warning(result)


def test_noise_is_not_concentrated():
    noise = np.random.default_rng(0).standard_normal((16, 300))
    assert well(noise)["concentration"] < 0.5


@pytest.mark.parametrize("waves", [np.zeros((3, 300)), np.ones((3, 300)), np.zeros((1, 300))])
def test_flat_waves_give_finite_health(waves):
    assert all(np.isfinite(value) for value in well(waves).values())


def test_health_knows_the_sampling_rate():
    assert well([tone(hz, fps=20, t=200) for hz in (0.9, 1.5)], fps=20.0)["at_edge"] == 0


def test_an_interval_is_of_ninety_five_in_a_hundred():
    """Of a hundred people with normal errors it is 2 × 1.96 standard errors wide, not 2 × 1.64."""
    error = np.random.default_rng(3).normal(10, 2, 100)
    score = metrics.score_mean(error, np.arange(100))
    assert 3.6 < (score.high - score.low) / (error.std() / 10) < 4.2

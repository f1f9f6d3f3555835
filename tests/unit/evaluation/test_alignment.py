"""Waves on each other: sign and lag do not count, what does is known by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sspd_jax.evaluation import alignment

FPS = 30.0
T = np.arange(600) / FPS


def pulse(beats_s, t=T, width=0.09):
    """A bump at every beat, a smaller one behind it."""
    wave = np.zeros_like(t)
    for beat in beats_s:
        wave += np.exp(-(((t - beat) / width) ** 2)) + 0.3 * np.exp(-(((t - beat - 0.3) / width) ** 2))
    return wave - wave.mean()


def irregular(seed=0, mean=0.8, spread=0.04):
    return 0.5 + np.cumsum(np.random.default_rng(seed).normal(mean, spread, 24))


def test_macc_is_the_loop():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 57))
    loop = max(abs(np.corrcoef(x, np.roll(y, lag))[0, 1]) for lag in range(56))
    assert alignment.macc(x, y) == pytest.approx(loop, abs=1e-12)
    assert np.isnan(alignment.macc(np.ones(57), y))


def test_macc_leaves_the_last_lag_out():
    # As published: rolled by t − 1 would be a perfect match here.
    y = np.random.default_rng(1).standard_normal(40)
    assert alignment.macc(np.roll(y, 39), y) < 0.9
    assert alignment.macc(np.roll(y, 38), y) == pytest.approx(1)


def test_alignment_is_the_loop():
    x, y = np.random.default_rng(0).standard_normal((2, 90))
    best = (0.0, 0, 1)
    for lag in range(-30, 31):
        a, b = x[max(0, lag) : 90 + min(0, lag)], y[max(0, -lag) : 90 + min(0, -lag)]
        r = np.corrcoef(a, b)[0, 1]
        best = max(best, (abs(r), lag, 1 if r > 0 else -1))
    got = alignment.align(x, y, FPS, max_lag_s=1.0)
    assert (got.r, got.lag_s, got.sign) == pytest.approx((best[0], best[1] / FPS, best[2]))


def test_waves_are_never_laid_beside_each_other_by_more_than_half_their_length():
    """Of two or three samples that overlap, any are alike."""
    x, y = np.random.default_rng(3).standard_normal((2, 8))
    lags = range(-4, 5)
    r = [np.corrcoef(x[max(0, k) : 8 + min(0, k)], y[max(0, -k) : 8 + min(0, -k)])[0, 1] for k in lags]
    assert alignment.align(x, y, FPS, max_lag_s=10.0).r == pytest.approx(np.abs(r).max())
    with pytest.raises(ValueError, match="7 and 7"):
        alignment.align(x[:7], y[:7], FPS)


@given(
    scale=st.floats(0.01, 100),
    offset=st.floats(-100, 100),
    sign=st.sampled_from([-1, 1]),
    lag=st.integers(-12, 12),
)
def test_alignment_finds_sign_and_lag_and_ignores_amplitude_and_offset(scale, offset, sign, lag):
    truth, late = pulse(irregular()), pulse(irregular() + lag / FPS)
    got = alignment.align(sign * scale * late + offset, truth, FPS)
    assert got.r > 0.99 and got.sign == sign
    assert got.lag_s == pytest.approx(lag / FPS)


def test_flat_waves_agree_with_nothing():
    got = alignment.align(np.ones(600), pulse(irregular()), FPS)
    assert np.isnan(got.r)
    # What rounding leaves of a constant is no wave, and nothing at all is none either.
    rounded = 1e6 + 1e-9 * np.random.default_rng(0).standard_normal(600)
    for flat in (rounded, np.zeros(600)):
        for pair in ((flat, pulse(irregular())), (pulse(irregular()), flat)):
            assert np.isnan(alignment.align(*pair, FPS).r) and np.isnan(alignment.macc(*pair))
    assert len(alignment.both_ways(np.ones(600), FPS)[1]) == 0
    assert len(alignment.both_ways(np.ones(5), FPS)[-1]) == 0


def errors_of(wave, truth):
    best = alignment.align(wave, truth, FPS)
    read_s = alignment.both_ways(wave, FPS)[best.sign] - best.lag_s
    return alignment.interval_error(read_s, alignment.both_ways(truth, FPS)[1])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("delay_s", [0.0, 0.21])
def test_intervals_of_the_same_beats_are_equal_whatever_sign_and_delay(sign, delay_s):
    got = errors_of(sign * pulse(irregular() + delay_s), pulse(irregular()))
    assert got.error_ms < 3 and got.found > 0.9


def test_moved_beats_have_the_error_they_were_moved_by():
    # Every second beat is 40 ms late: each interval is wrong by 40 ms.
    beats = irregular()
    moved = beats + 0.04 * (np.arange(len(beats)) % 2)
    got = errors_of(pulse(moved), pulse(beats))
    assert got.error_ms == pytest.approx(40, abs=8)
    assert got.found > 0.85


def test_another_rate_finds_few_beats():
    other = errors_of(pulse(irregular(1, mean=0.55)), pulse(irregular()))
    assert other.found < 0.5


def test_a_contact_wave_of_three_beats_allows_no_intervals():
    got = errors_of(pulse(irregular())[:100], pulse([1.0, 1.8, 2.6])[:100])
    assert np.isnan(got.error_ms) and np.isnan(got.found)


def test_no_beat_found_is_said():
    assert alignment.interval_error(np.zeros(0), irregular()).found == 0


def test_waves_of_different_lengths_are_refused():
    for call in (alignment.macc, lambda x, y: alignment.align(x, y, FPS)):
        with pytest.raises(ValueError, match="100 and 99"):
            call(np.ones(100), np.ones(99))


BEATS = np.arange(10.0)


@pytest.mark.parametrize(("late_s", "found"), [(0.24, 1.0), (-0.24, 1.0), (0.26, 7 / 9), (-0.26, 7 / 9)])
def test_a_beat_is_found_within_a_quarter_of_the_interval(late_s, found):
    read = BEATS.copy()
    read[4] += late_s
    error = alignment.interval_error(read, BEATS)
    assert error.found == pytest.approx(found)
    assert error.error_ms == pytest.approx(2 * 240 / 9 if found == 1 else 0, abs=1e-6)


def test_an_interval_that_is_none_counts_for_nothing():
    """A beat of the contact wave is missing: what was read around it says nothing."""
    true = np.array([0, 1, 2, 3.6, 4.6, 5.6])
    read = true + np.array([0, 0, 0, 0.1, 0, 0])
    error = alignment.interval_error(read, true)
    assert error == (pytest.approx(100 / 4), 1.0)  # of four regular intervals one is read 0.1 s short
    worse = np.array([0, 1, 2, 3.6, 4.6, 6.2])  # two of five
    assert np.isnan(alignment.interval_error(worse, worse)).all()


def test_three_intervals_are_enough():
    assert alignment.interval_error(BEATS[:4], BEATS[:4]) == (0, 1)
    assert np.isnan(alignment.interval_error(BEATS[:3], BEATS[:3])).all()


def test_a_beat_that_is_read_twice_or_between_makes_no_interval():
    twice = np.sort(np.append(BEATS, 4.1))
    error = alignment.interval_error(twice, BEATS)
    assert error.error_ms == pytest.approx(0, abs=1e-6) and error.found == pytest.approx(8 / 9)
    assert alignment.interval_error(np.zeros(0), BEATS).found == 0

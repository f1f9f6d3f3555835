"""Beats between the samples, and what their intervals say, against beats that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sspd_jax.heart_rate import beats
from sspd_jax.heart_rate.rate import fundamental_rate, spectral_peak_rate
from sspd_jax.simulation.recordings import draw_person


def drawn(number, seconds, fps=30):
    """A simulated heart's wave, and when it beats: the tops of its wave at a thousand samples a second."""
    person = draw_person(50, number)
    fine = np.arange(seconds * 1000) / 1000
    ppg, _ = person.pulse(fine)
    tops = np.flatnonzero((ppg[1:-1] >= ppg[:-2]) & (ppg[1:-1] > ppg[2:]) & (ppg[1:-1] > 0.8)) + 1
    return person.pulse(np.arange(seconds * fps) / fps)[0], fine[tops]


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("fps", [20, 30, 60])
def test_beats_lie_where_the_heart_beats(number, fps):
    wave, truth = drawn(number, 20, fps)
    found = beats.beat_times(3 - 7 * -wave, fps, start_s=5.0) - 5.0
    inner = truth[(truth > 1.5) & (truth < 18)]  # the ends of a filtered wave are less sure
    off = np.array([np.abs(found - beat).min() for beat in inner])
    assert off.max() < 0.035 and np.ptp(off) < 0.01  # s: a constant delay stays, to a third of a frame
    assert abs(len(found) - len(truth)) <= 2
    assert beats.beat_rate(wave, fps) == pytest.approx(60 / np.diff(truth).mean(), abs=0.5)


@pytest.mark.parametrize("number", range(1, 7))
def test_variability_of_a_clean_minute_is_right_within_a_few_ms(number):
    wave, truth = drawn(number, 64)
    found = beats.variability(beats.beat_times(wave, 30), 64)
    known = beats.variability(truth, 64)
    assert found.mean_nn_ms == pytest.approx(known.mean_nn_ms, abs=2)
    assert found.sdnn_ms == pytest.approx(known.sdnn_ms, abs=3)
    assert found.rmssd_ms == pytest.approx(known.rmssd_ms, abs=5)


def test_variability_by_hand():
    intervals = np.tile([0.8, 0.9], 40)
    found = beats.variability(np.concatenate([[0], intervals.cumsum()]), 68)
    assert (found.mean_nn_ms, found.rmssd_ms) == pytest.approx((850, 100))
    assert found.sdnn_ms == pytest.approx(50, rel=0.01)
    assert found.beats == 80


def test_there_is_no_variability_of_less_than_a_minute_or_of_gaps():
    steady = np.arange(0, 70, 0.8)
    assert beats.variability(steady, 59.9) is None
    assert beats.variability(np.delete(steady, range(5, 80, 8)), 70) is None  # every eighth beat is missing
    one_missing = beats.variability(np.delete(steady, 40), 70)
    assert one_missing.mean_nn_ms == pytest.approx(800)
    assert one_missing.rmssd_ms == pytest.approx(0, abs=1e-6)


@given(bpm=st.floats(40, 210), phase=st.floats(0, 6.28), fps=st.sampled_from([15.0, 29.97, 60.0]))
def test_rates_of_clean_waves(bpm, phase, fps):
    time = np.arange(round(10 * fps)) / fps
    turn = 2 * np.pi * bpm / 60 * time + phase
    wave = 5 + np.sin(turn) + 0.4 * np.sin(2 * turn - 0.7)
    for read_out in (spectral_peak_rate, fundamental_rate):
        assert read_out(wave, fps) == pytest.approx(bpm, abs=0.2)
    assert beats.beat_rate(np.sin(turn), fps) == pytest.approx(bpm, rel=0.02)


def test_a_strong_second_harmonic_is_not_the_rate():
    turn = 2 * np.pi * 55 / 60 * np.arange(300) / 30
    wave = 0.8 * np.sin(turn) + np.sin(2 * turn)
    assert spectral_peak_rate(wave, 30) == pytest.approx(110, abs=0.5)
    assert fundamental_rate(wave, 30) == pytest.approx(55, abs=0.5)
    weak = 0.5 * np.sin(turn) + np.sin(2 * turn)  # too weak to be a fundamental
    assert fundamental_rate(weak, 30) == pytest.approx(110, abs=0.5)
    assert len(beats.beat_times(wave, 30)) == pytest.approx(9, abs=1)


@pytest.mark.parametrize("wave", [np.zeros(300), np.full(300, np.nan), np.linspace(0, 1, 300)])
def test_nothing_has_no_beats(wave):
    assert len(beats.beat_times(np.nan_to_num(wave), 30)) == 0
    assert np.isnan(beats.beat_rate(wave, 30))


def test_intervals_are_regular_beside_their_median_and_none_are_none():
    intervals, regular = beats.regular_intervals([0, 1, 2, 3.5, 4.5, 5])
    assert intervals.tolist() == [1, 1, 1.5, 1, 0.5]
    assert regular.tolist() == [True, True, False, True, False]
    for few in ([], [2.0]):
        intervals, regular = beats.regular_intervals(few)
        assert intervals.shape == regular.shape == (0,) and regular.dtype == bool

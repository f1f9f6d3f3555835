"""Who is simulated."""

import numpy as np
import pytest

from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.simulation.recordings import draw_person

TIMES = np.arange(600) / 30


def test_heart_rates_and_pulses_are_as_asked():
    people = [draw_person(50, number) for number in range(1, 13)]
    rates = np.array([person.heart_rate_bpm for person in people])
    assert rates.min() >= 45
    assert rates.max() <= 150
    assert np.ptp(rates) > 80
    assert np.diff(np.sort(rates)).min() > 2
    for person in people:
        ppg, rate = person.pulse(TIMES)
        assert np.abs(ppg).max() <= 1
        assert rate.mean() == pytest.approx(person.heart_rate_bpm, rel=0.06)
        assert 0.005 < rate.std() / rate.mean() < 0.06  # it varies
        assert spectral_peak_rate(ppg, 30) == pytest.approx(rate.mean(), rel=0.05)
        on_skin = person.blood[person.skin > 0.999]
        assert 0.002 <= on_skin.min() + 1e-5 < on_skin.max() <= 0.008 + 1e-9
        assert on_skin.std() > 0.0005
        assert (person.blood[(person.skin == 0)] == 0).all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_beat_has_a_systolic_peak_and_behind_it_a_second_wave(number):
    ppg, rate = draw_person(50, number).pulse(np.arange(4000) / 1000)
    feet = np.flatnonzero((ppg[1:-1] < ppg[:-2]) & (ppg[1:-1] <= ppg[2:]) & (ppg[1:-1] < -0.3)) + 1
    assert len(feet) == pytest.approx(4 * rate.mean() / 60, abs=1)
    foot, peak = feet[0], feet[0] + ppg[feet[0] : feet[1]].argmax()
    assert ppg[peak] > 0.9
    assert peak - foot < feet[1] - peak  # it rises faster than it falls
    slope = np.convolve(np.diff(ppg[peak : feet[1]]), np.ones(15) / 15, "valid")
    steepest = np.flatnonzero((slope[1:-1] < slope[:-2]) & (slope[1:-1] <= slope[2:]))
    assert len(steepest) >= 2  # the fall slows down, then goes on

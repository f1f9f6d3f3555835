"""The rate that goes on from window to window: against all paths at once, its peak, its doubt."""

import itertools

import numpy as np
import pytest

from sspd_jax.heart_rate import fusion, rate_track

FPS = 30.0


def spectrum(bpm, seconds=10.0):
    """The levelled spectrum of a sine, and its frequencies."""
    hz, share = fusion.power_shares(np.sin(2 * np.pi * bpm / 60 * np.arange(seconds * FPS) / FPS), FPS)
    return share, hz, seconds


def test_the_chance_of_each_rate_is_that_of_all_paths_through_it(monkeypatch):
    monkeypatch.setattr(rate_track, "GRID_BPM", np.array([50.0, 60.0, 75.0, 100.0]))
    rng = np.random.default_rng(0)
    likely, times_s = rng.uniform(0.1, 3, (4, 4)), np.array([5.0, 10.0, 15.0, 21.0])
    steps = [rate_track.transition(seconds) for seconds in np.diff(times_s)]
    chance = np.zeros((4, 4))
    for path in itertools.product(range(4), repeat=4):
        value = np.prod([likely[i, state] for i, state in enumerate(path)])
        value *= np.prod([step[a, b] for step, a, b in zip(steps, path, path[1:], strict=False)])
        for i, state in enumerate(path):
            chance[i, state] += value
    track = rate_track.smooth(likely, times_s, 10.0)
    np.testing.assert_array_equal(track.bpm, rate_track.GRID_BPM[chance.argmax(1)])
    below = np.cumsum(chance, axis=1) / chance.sum(1, keepdims=True)
    for level, edge in ((0.05, track.low_bpm), (0.95, track.high_bpm)):
        np.testing.assert_allclose(edge, [np.interp(level, row, rate_track.GRID_BPM) for row in below])
    np.testing.assert_array_equal(track.times_s, times_s)


def test_a_heart_goes_on_or_rarely_jumps():
    step = rate_track.transition(5.0)
    np.testing.assert_allclose(step.sum(1), 1)
    at = np.flatnonzero(rate_track.GRID_BPM == 80)[0]
    assert step[at].argmax() == at
    # A Laplace distribution of 24 bpm in 5 s, and a fiftieth for everywhere.
    near, far = step[at, at + 48] / step[at, at], step[at, -1]
    assert near == pytest.approx(np.exp(-1), abs=0.05)
    assert far > rate_track.JUMP / len(rate_track.GRID_BPM)
    assert rate_track.transition(1.0)[at, at] > step[at, at]  # it has less time to change


@pytest.mark.parametrize("bpm", [48.0, 72.0, 150.0])
def test_a_window_is_likeliest_at_its_rate_and_at_no_chance_says_nothing(bpm):
    for seconds in (6.0, 10.0, 20.0):
        likely = rate_track.likelihood(*spectrum(bpm, seconds), 0.8)
        assert rate_track.GRID_BPM[likely.argmax()] == pytest.approx(bpm, abs=0.5)
        assert likely.mean() == pytest.approx(1)
        assert likely.min() == pytest.approx(0.2, abs=1e-3)
    np.testing.assert_array_equal(rate_track.likelihood(*spectrum(bpm), 0.0), 1)


def test_a_harmonic_between_sure_windows_is_not_followed_and_a_heart_that_changes_is():
    def track(rates, chances):
        likely = [rate_track.likelihood(*spectrum(b), c) for b, c in zip(rates, chances, strict=True)]
        return rate_track.smooth(np.array(likely), 5.0 * np.arange(len(rates)), 10.0)

    found = track([70, 140, 72], [0.95, 0.3, 0.95])
    assert np.abs(found.bpm - [70, 71, 72]).max() <= 1
    np.testing.assert_allclose(track([70, 80, 90, 100], [0.95] * 4).bpm, [70, 80, 90, 100], atol=0.5)
    # Where nothing is known, what is near says something, and less the farther it is.
    found = track([70, 70, 70, 70], [0.95, 0, 0, 0])
    assert (np.diff(found.high_bpm - found.low_bpm) > 0).all()
    alone = track([70], [0.9])
    assert alone.bpm == 70 and alone.low_bpm < 70 < alone.high_bpm


def test_windows_that_share_most_of_what_they_saw_count_for_less():
    likely = np.array([rate_track.likelihood(*spectrum(70), 0.6)] * 9)
    apart = rate_track.smooth(likely, 5.0 * np.arange(9), 10.0)
    again = rate_track.smooth(likely, 0.5 * np.arange(9), 10.0)
    assert (again.high_bpm - again.low_bpm)[4] > (apart.high_bpm - apart.low_bpm)[4]

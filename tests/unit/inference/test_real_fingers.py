"""Finger-camera recordings with a chest strap's RR intervals: estimators on real, irregular timestamps."""

import numpy as np
import pytest
from shared_files import FINGERS, needs

from sspd_jax.heart_rate.confidence import WAVE_THRESHOLD
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import windows
from sspd_jax.inference.windows import Settings
from sspd_jax.video import resample

FPS, WINDOW_S, STRIDE_S = 30.0, 20.0, 10.0


def red_wave(folder):
    """The red channel's mean on a uniform clock."""
    table = np.genfromtxt(folder / "PPG.csv", delimiter=",", names=True)
    times_s = table["time"] / 1000
    ticks_s = np.arange(times_s[0], times_s[-1], 1 / FPS)
    return Wave(resample.resample_wave(table["R"], times_s, ticks_s), FPS, float(ticks_s[0]))


def true_rate(folder, start_s, end_s):
    """60 ÷ the mean RR interval in a window, both clocks starting at 0; NaN past the strap's end."""
    intervals = np.array((folder / "RR.txt").read_text().split(), float) / 1000
    ends = intervals.cumsum()
    inside = (ends - intervals >= start_s) & (ends <= end_s)
    return 60 / intervals[inside].mean() if end_s <= ends[-1] else np.nan


def errors_of(hr_estimator):
    """Errors in bpm of all windows, NaN where refused."""
    settings = Settings(WINDOW_S, STRIDE_S, hr_estimator, WAVE_THRESHOLD)
    errors = []
    for folder in sorted(FINGERS.glob("subject_*")):
        for window in windows.judge_wave(red_wave(folder), settings).windows:
            truth = true_rate(folder, window.start_s, window.start_s + window.duration_s)
            if np.isfinite(truth):
                errors.append(np.nan if window.heart_rate_bpm is None else window.heart_rate_bpm - truth)
    return np.array(errors)


@needs(FINGERS)
@pytest.mark.parametrize("hr_estimator", ["harmonic", "beats"])
def test_fingers_are_read_as_the_chest_strap_has_it(hr_estimator):
    errors = errors_of(hr_estimator)
    assert len(errors) >= 30
    assert np.isnan(errors).mean() <= 0.1
    assert np.nanmean(np.abs(errors)) <= 1.5

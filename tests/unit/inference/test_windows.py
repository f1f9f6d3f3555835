"""Windows over waves: where they lie, what each says, and how a recording is summed up."""

import numpy as np
import pytest

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import confidence
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import windows
from sspd_jax.inference.windows import Segment, Settings, Window, judge_window, spans

FPS = 30


def pulse(bpm, seconds, fps=FPS, noise=0.0):
    time = np.arange(round(seconds * fps)) / fps
    turn = 2 * np.pi * bpm / 60 * time
    rng = np.random.default_rng(0)
    return np.sin(turn) + 0.3 * np.sin(2 * turn - 0.5) + rng.normal(0, noise, len(time))


def window(start, bpm, sure=0.9):
    return Window(start, 10.0, bpm, sure, "" if bpm else "noise", bpm)


def test_windows_cover_a_segment_to_its_end():
    assert spans(300, 30, Settings()) == [(0, 300)]
    assert spans(200, 30, Settings()) == [(0, 200)]  # a shorter one is one window
    assert spans(600, 30, Settings()) == [(0, 300), (150, 450), (300, 600)]
    assert spans(700, 30, Settings()) == [(0, 300), (150, 450), (300, 600), (400, 700)]
    assert spans(660, 30, Settings()) == [(0, 300), (150, 450), (300, 600)]  # 2 s more: not worth a window
    assert spans(900, 30, Settings(window_s=20, stride_s=20)) == [(0, 600), (300, 900)]


def test_a_clean_wave_alone_is_read_and_noise_is_not():
    read, turn = judge_window(pulse(70, 20), FPS, Settings(window_s=20))
    assert read.heart_rate_bpm == pytest.approx(70, abs=0.2) and read.why == ""
    assert turn == 0  # without colours nobody knows which way up it is
    refused, _ = judge_window(np.random.default_rng(1).normal(size=600), FPS, Settings(window_s=20))
    assert refused.heart_rate_bpm is None and refused.candidate_bpm > 36
    assert refused.why in confidence.REASONS.values()
    assert refused.confidence < confidence.THRESHOLD < read.confidence


def test_the_least_confidence_is_a_setting():
    wave = np.random.default_rng(1).normal(size=300)
    assert judge_window(wave, FPS, Settings(min_confidence=0))[0].heart_rate_bpm is not None
    assert judge_window(pulse(70, 10), FPS, Settings(min_confidence=1))[0].heart_rate_bpm is None


@pytest.mark.parametrize(
    ("wave", "why"),
    [
        (np.zeros(300), windows.FLAT),
        (np.full(300, np.nan), "ends before"),
        (pulse(70, 4, fps=7), "7 frames/s"),
    ],
)
def test_what_cannot_be_read_says_why(wave, why):
    fps = 7 if "frames/s" in why else FPS
    read, _ = judge_window(wave, fps, Settings())
    assert read.heart_rate_bpm is None and read.candidate_bpm is None and read.confidence == 0
    assert why in read.why


def test_a_face_out_of_view_is_not_read():
    read, _ = judge_window(pulse(70, 10), FPS, Settings(), in_view=0.3)
    assert read.heart_rate_bpm is None and read.why == windows.OUT_OF_VIEW


def test_a_recording_is_summed_up_by_the_windows_that_can_be_trusted():
    wave = Wave(np.zeros(900), 30.0)
    segments = [
        Segment(wave, np.zeros(0), (window(0, 70.0), window(5, 74.0, 0.6), window(10, None, 0.2))),
        Segment(wave, np.zeros(0), (window(40, 71.0, 0.8),)),
    ]
    assert windows.summary(segments) == (71.0, 0.8)
    assert windows.summary([Segment(wave, np.zeros(0), (window(0, None, 0.3),))]) == (None, 0.3)
    assert windows.summary([]) == (None, 0.0)


def test_variability_takes_the_longest_run_of_good_windows_of_a_minute():
    beats_s = np.arange(0, 120, 0.8)
    wave = Wave(np.zeros(3600), 30.0)
    good = tuple(window(start, 75.0) for start in range(0, 60, 5))  # 0–65 s
    found = windows.variability([Segment(wave, beats_s, (*good, window(60, None), window(65, 75.0)))])
    assert found.duration_s == 65 and found.mean_nn_ms == pytest.approx(800)
    assert windows.variability([Segment(wave, beats_s, good[:8])]) is None  # 45 s


@pytest.mark.parametrize(
    "settings",
    [
        {"window_s": 3},
        {"stride_s": 0},
        {"hr_estimator": "magic"},
        {"min_confidence": -0.1},
        {"window_s": np.nan},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError):
        Settings(**settings)

"""Windows over waves: where they lie, what each says, and how a recording is summed up."""

import dataclasses
from types import SimpleNamespace

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


def beating(starts_with_readings, start_s=5.0, seconds=40.0):
    """A wave of 60 bpm whose tops are at whole seconds, and windows of 10 s that have readings or not."""
    time_s = start_s + np.arange(round(seconds * FPS)) / FPS
    wave = Wave(np.cos(2 * np.pi * time_s), float(FPS), start_s)
    found = [window(float(start), 60.0 if good else None) for start, good in starts_with_readings]
    return windows.with_beats(wave, found)


def test_beats_are_those_of_windows_with_a_reading_each_once():
    segment = beating([(5, True), (10, True), (15, False), (20, True), (25, False), (30, True)])
    found = segment.beats_s
    assert np.abs(found - found.round()).max() < 0.1
    assert len(set(found.round())) == len(found)  # a run that begins where the last ended finds none twice
    assert set(found.round()) <= {*range(5, 41)}
    assert {*range(6, 20), *range(21, 30), *range(31, 40)} <= set(found.round())
    alone = beating([(5, False), (20, True), (30, False)]).beats_s
    assert set(alone.round()) <= {*range(20, 31)} and len(alone) >= 9
    assert len(beating([(5, False)]).beats_s) == 0
    lapping = beating([(5, True), (8, False), (10, True)]).beats_s  # 10 to 15 s are in two runs
    assert len(set(lapping.round())) == len(lapping) and {*range(6, 19)} <= set(lapping.round())


def test_variability_is_of_the_beats_of_its_run_alone():
    """What beats irregularly outside of the longest run says nothing of it."""
    good = tuple(window(float(start), 75.0) for start in range(20, 80, 5))  # 20–85 s
    steady = np.arange(20, 85, 0.8)
    wild = np.cumsum(0.5 + 0.4 * (np.arange(30) % 2))
    beats_s = np.concatenate([wild[wild < 19], steady, 90 + wild])
    wave = Wave(np.zeros(4000), 30.0)
    segments = [Segment(wave, beats_s, (window(0.0, 75.0), window(10.0, None), *good, window(90.0, None)))]
    found = windows.variability(segments)
    assert found.duration_s == 65 and found.mean_nn_ms == pytest.approx(800)
    assert found.sdnn_ms == pytest.approx(0, abs=1e-6)


def test_the_longest_run_is_told_and_not_their_sum():
    wave = Wave(np.zeros(4000), 30.0)
    runs = (window(0.0, 75.0), window(5.0, 75.0), window(10.0, None), window(20.0, 75.0), window(40.0, None))
    told = windows.why_no_variability([Segment(wave, np.zeros(0), runs)] * 2)
    assert told == "60 s of readings in a row are needed, the longest run has 15 s"
    long = tuple(window(float(start), 75.0) for start in range(0, 55, 5))
    told = windows.why_no_variability([Segment(wave, np.zeros(0), long)])
    assert told == "too many intervals between beats are irregular"


def test_what_a_doubtful_clock_leaves():
    """No interval and no smoothed rate, a lower confidence, and no reading where that is too low."""
    sure = Window(0.0, 10.0, 70.0, 0.9, "", 70.0, {}, (69.0, 71.0), 70.5, (69.5, 71.5))
    unsure = dataclasses.replace(sure, confidence=0.3, heart_rate_bpm=None, why="noise")
    wave = Wave(np.zeros(600), 30.0)
    segment = Segment(wave, np.zeros(0), (sure, unsure), lambda start, end: sure)
    for least, given, why in ((0.5, 70.0, ""), (0.6, None, windows.NO_CLOCK)):
        doubted = windows.doubted(segment, 0.5, Settings(min_confidence=least))
        first, second = doubted.windows
        assert (first.heart_rate_bpm, first.confidence, first.why) == (given, 0.5, why)
        assert (second.heart_rate_bpm, second.confidence, second.why) == (None, 0.3, "noise")
        for one in (first, second, doubted.judge(0, 300)):
            assert (one.interval_bpm, one.smoothed_bpm, one.smoothed_interval_bpm) == (None,) * 3
            assert one.candidate_bpm == 70
        assert doubted.judge(0, 300) == first


def test_a_wave_without_a_picture_is_read_on_its_own_clock():
    settings = Settings(min_confidence=confidence.WAVE_THRESHOLD, stride_s=10.0)
    segment = windows.judge_wave(Wave(pulse(70, 25), 30.0, 7.0), settings)
    assert [w.start_s for w in segment.windows] == [7, 17, 22]
    assert all(w.heart_rate_bpm == pytest.approx(70, abs=0.3) for w in segment.windows)
    assert 7 <= segment.beats_s[0] < 8.5 and 30 < segment.beats_s[-1] <= 32


def test_each_region_has_its_own_least_confidence_unless_one_is_given():
    assert Settings(region="skin").least_confidence == confidence.SKIN_THRESHOLD
    assert Settings(region="crop").least_confidence == confidence.THRESHOLD
    assert confidence.SKIN_THRESHOLD != confidence.THRESHOLD
    assert {Settings(region=region, min_confidence=0.0).least_confidence for region in ("skin", "crop")} == {
        0
    }


@pytest.mark.parametrize(
    ("method", "model", "box", "settings", "asks"),
    [
        ("auto", None, None, {}, True), ("sspd", None, None, {}, True), ("pos", None, None, {}, False),
        ("auto", "a network", None, {}, False), ("auto", None, "a box", {}, False),
        ("auto", None, None, {"network": False}, False), ("auto", None, None, {"region": "crop"}, False),
    ],
)  # fmt: skip
def test_the_shipped_network_is_asked_where_nothing_speaks_against_it(method, model, box, settings, asks):
    assert Settings(**settings).asks_shipped(method, model, box) == asks


def test_a_slice_lies_inside_its_segment_to_a_frame():
    segment = Segment(Wave(np.zeros(300), 30.0, 2.0), np.zeros(0), ())
    assert segment.span_of(2.0, 12.0) == (0, 300)
    assert segment.span_of(3.0, 7.5) == (30, 165)
    assert segment.span_of(2.0 - 1 / 30, 12 + 1 / 30) == (0, 300)  # rounding
    assert segment.span_of(2.0 - 2 / 30, 12.0) is None and segment.span_of(2.0, 12 + 2 / 30) is None


@pytest.mark.parametrize("in_view", [0.49, 0.5])
def test_half_of_the_looks_have_to_find_the_face(in_view):
    read, _ = judge_window(pulse(70, 10), FPS, Settings(), in_view=in_view)
    assert (read.why == windows.OUT_OF_VIEW) == (in_view < 0.5)


@pytest.mark.parametrize(("seconds", "told"), [(8.9, True), (9.0, False)])
def test_what_is_shorter_than_nine_seconds_says_so_where_it_is_not_sure(seconds, told):
    noise = np.random.default_rng(1).normal(size=round(seconds * FPS))
    read, _ = judge_window(noise, FPS, Settings(min_confidence=1))
    assert read.heart_rate_bpm is None
    assert ("are too short to be sure: take 10 s or more" in read.why) == told


def test_json_has_no_number_that_is_none():
    one = Window(1.23456, 10.0, None, 0.12345, "x", float("nan"), {"pos": float("nan"), "omit": 70.12345})
    found = windows.as_json(dataclasses.replace(one, interval_bpm=(1.00049, float("inf"))))
    assert (found["start_s"], found["confidence"], found["candidate_bpm"]) == (1.235, 0.123, None)
    assert found["estimates_bpm"] == {"pos": None, "omit": 70.123} and found["interval_bpm"] == [1.0, None]


def face_cells(seconds=20.0, colours=(0.43, 1.0, 0.69)):
    """The colours of sixteen cells of a face that darkens as blood fills it, [t, 48]."""
    beat = pulse(70, seconds)[:, None, None]
    cells = np.array([150.0, 110.0, 90.0]) * (1 - 0.004 * beat * np.array(colours))
    return np.broadcast_to(cells, (len(beat), 16, 3)).reshape(len(beat), 48)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_wave_of_a_crop_rises_as_blood_darkens_the_skin(sign):
    """Whichever way up it was read."""
    cells = face_cells()
    times_s = 3 + np.arange(600) / FPS
    nothing = SimpleNamespace(times_s=np.zeros(0), values=np.zeros((0, 3)))
    clip = SimpleNamespace(background=nothing, detections=[(3.0, True), (20.0, True)])
    wave = Wave(sign * pulse(70, 20, noise=0.05), float(FPS), 3.0)
    seen = SimpleNamespace(times_s=times_s, values=cells)
    segment = windows.judge_segment(wave, seen, clip, Settings(region="crop"))
    assert np.corrcoef(segment.wave.values, pulse(70, 20))[0, 1] > 0.9
    assert [w.start_s for w in segment.windows] == [3, 8, 13]
    assert all(w.candidate_bpm == pytest.approx(70, abs=0.5) for w in segment.windows)
    again = segment.judge(0, 300)
    assert again == segment.windows[0]


def test_a_picture_without_colour_is_no_reading_whatever_beats_in_it():
    grey = face_cells(10, (1.0, 1.0, 1.0)).reshape(300, 16, 3)[..., 1:2].repeat(3, axis=2).reshape(300, 48)
    for cells, why in ((grey, windows.NO_COLOUR), (face_cells(10), None)):
        read, _ = judge_window(pulse(70, 10), FPS, Settings(region="crop", min_confidence=1), cells=cells)
        assert read.heart_rate_bpm is None and read.candidate_bpm == pytest.approx(70, abs=0.5)
        assert (read.why == windows.NO_COLOUR) == (why is not None)

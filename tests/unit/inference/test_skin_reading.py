"""From traces of skin to rates: gaps, hidden patches, waves that end, windows and their judgement."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from sspd_jax.heart_rate import confidence, estimators, fusion, host_classical, skin_evidence
from sspd_jax.heart_rate.signal_quality import BLOOD
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import skin_reading, skin_segment, windows
from sspd_jax.inference.methods import AUTO
from sspd_jax.inference.skin_reading import estimator_of, judge, judge_window, rate_of
from sspd_jax.inference.skin_segment import on_clock, read_waves
from sspd_jax.inference.windows import Settings, Window
from sspd_jax.video import skin_map
from sspd_jax.video.skin_traces import FIELDS, SkinTraces

FPS, BPM = 30.0, 78.0
SKIN = np.array([170.0, 120.0, 95.0])
PATCHES = len(skin_map.PATCHES)


def blood(time_s, bpm=BPM):
    """The filling of the skin with blood, which darkens it: a rate that wanders by 3 %."""
    phase = bpm / 60 * (time_s - 0.03 * 8 / (2 * np.pi) * np.cos(2 * np.pi * time_s / 8))
    return np.sin(2 * np.pi * phase) + 0.3 * np.sin(4 * np.pi * phase - 0.5)


def seen(time_s, change, noise=0.02, **fields):
    """Traces of a face at given times that changes by a float [t, 3], relative, and holds still."""
    rng, frames = np.random.default_rng(0), len(time_s)

    def picture(change, *more):
        shown = SKIN * (1 + np.broadcast_to(change, (frames, *more, 3)))
        return shown + rng.normal(0, noise, shown.shape)

    traces = SkinTraces(
        time_s=np.asarray(time_s, np.float64),
        skin=picture(change),
        skin_area=np.full(frames, 6000.0),
        patches=picture(np.asarray(change)[:, None], PATCHES),
        patch_area=np.full((frames, PATCHES), 300.0),
        eyes=picture(0),
        crop=picture(0),
        behind=picture(0),
        pose=0.1 * rng.normal(size=(frames, 3)),
        geometry=np.array([200.0, 150.0, 40.0, 0.0]) + 0.01 * rng.normal(size=(frames, 4)) * [1, 1, 1, 0.01],
        residual=0.0005 * rng.normal(size=(frames, 4)),
    )
    return dataclasses.replace(traces, **fields)


def pulse(time_s, bpm=BPM, strength=0.004):
    return -strength * np.outer(blood(time_s, bpm), BLOOD)


def at(seconds, fps=FPS, start_s=0.0):
    return start_s + np.arange(round(seconds * fps)) / fps


def face(seconds=10.0, fps=FPS, start_s=0.0, bpm=BPM, **fields):
    time_s = at(seconds, fps, start_s)
    return seen(time_s, pulse(time_s, bpm), **fields)


def hidden(traces, gone):
    """The same, the face out of view in some frames, bool [t]."""
    found = {name: getattr(traces, name).copy() for name in FIELDS}
    for name, values in found.items():
        if name not in ("time_s", "behind"):
            values[gone] = 0 if name.endswith("area") else np.nan
    return SkinTraces(**found)


def read(traces, method=AUTO, settings=None, fps=FPS, learned=()):
    return judge(read_waves(traces, fps, method, learned), method, settings or Settings())


def read_window(traces, method=AUTO, settings=None, fps=FPS, **options):
    window = read_waves(traces, fps, method).window(0, len(traces.time_s))
    return judge_window(window, method, settings or Settings(), **options)


def test_traces_on_the_clock_pass_through():
    traces = dataclasses.replace(face(2), lag_s=0.3, said=((1.0, "a sentence"),))
    (part,) = on_clock(traces, FPS)
    assert part.time_s == pytest.approx(traces.time_s)
    for name in set(FIELDS) - {"time_s"}:
        assert np.array_equal(getattr(part, name), getattr(traces, name)), name
    assert part.lag_s == 0.3 and part.said == traces.said


def test_a_long_gap_parts_a_recording_and_a_short_one_is_bridged():
    time_s = at(12)
    traces = seen(time_s, pulse(time_s), noise=0)
    away = (time_s > 3.01) & (time_s < 3.3) | (time_s > 6.01) & (time_s < 6.9)
    first, second = on_clock(hidden(traces, away), FPS)
    assert np.diff(first.time_s) == pytest.approx(1 / FPS) and np.diff(second.time_s) == pytest.approx(
        1 / FPS
    )
    assert first.time_s[0] == 0 and first.time_s[-1] == pytest.approx(6.0)
    assert second.time_s[0] == pytest.approx(6.9) and second.time_s[-1] == pytest.approx(time_s[-1])
    assert first.found.all() and second.found.all()
    inside = (first.time_s > 3.01) & (first.time_s < 3.29)
    assert np.abs(np.diff(first.skin[inside, 1], 2)).max() < 1e-4 < np.ptp(first.skin[inside, 1])  # a line
    # Frames that were dropped are a gap, too, and how long a gap may be is a choice.
    kept = traces.between(0, 3.0), traces.between(3.4, 12)
    dropped = [np.concatenate([getattr(part, name) for part in kept]) for name in FIELDS]
    dropped = SkinTraces(*dropped)
    assert len(list(on_clock(dropped, FPS))) == 1
    assert len(list(on_clock(dropped, FPS, max_gap_s=0.3))) == 2


def test_each_part_has_its_own_clock():
    early, late = face(5), face(5, start_s=6.013)
    both = SkinTraces(*(np.concatenate([getattr(part, name) for part in (early, late)]) for name in FIELDS))
    first, second = on_clock(both, FPS)
    assert second.time_s == pytest.approx(late.time_s) and np.array_equal(second.skin, late.skin)
    assert np.array_equal(first.skin, early.skin)


def test_uneven_frames_are_put_on_the_clock_and_are_read():
    rng = np.random.default_rng(2)
    time_s = np.sort(at(12) + rng.uniform(-0.008, 0.008, 360))
    (part,) = on_clock(seen(time_s, pulse(time_s)), FPS)
    assert np.diff(part.time_s) == pytest.approx(1 / FPS)
    expected = SKIN * (1 + pulse(part.time_s))
    assert np.abs(part.skin - expected)[:, 1].max() < 0.15  # of 0.37 levels
    assert read(part).windows[0].heart_rate_bpm == pytest.approx(BPM, abs=2)


def test_a_face_upside_down_does_not_jump_between_uneven_frames():
    time_s = np.sort(at(5) + np.random.default_rng(2).uniform(-0.01, 0.01, 150))
    turn = (0.05 * np.sin(2 * np.pi * time_s) + 2 * np.pi) % (2 * np.pi) - np.pi
    geometry = np.column_stack([np.full((150, 3), 50.0), turn])
    pose = np.degrees(np.outer(turn, [0, 0, 1]))
    traces = seen(time_s, pulse(time_s), geometry=geometry, pose=pose)
    assert np.abs(np.diff(turn)).max() > 6
    (part,) = on_clock(traces, FPS)
    assert np.ptp(part.geometry[:, 3]) < 0.11 and np.ptp(np.radians(part.pose[:, 2])) < 0.11


def test_a_patch_that_is_hidden_for_a_while_is_bridged_and_one_never_seen_is_not():
    traces = face(10, noise=0)
    patches, area = traces.patches.copy(), traces.patch_area.copy()
    patches[90:120, 3], area[90:120, 3] = np.nan, 0
    patches[:, 7], area[:, 7] = np.nan, 0
    (part,) = on_clock(dataclasses.replace(traces, patches=patches, patch_area=area), FPS)
    assert np.isfinite(part.patches[:, 3]).all()
    line = np.linspace(patches[89, 3, 1], patches[120, 3, 1], 32)
    assert part.patches[89:121, 3, 1] == pytest.approx(line)
    assert np.array_equal(part.patches[:90, 3], traces.patches[:90, 3])
    assert part.patch_area[100, 3] == 0
    assert np.isnan(part.patches[:, 7]).all() and (part.patch_area[:, 7] == 0).all()
    segment = read_waves(part, FPS, AUTO)
    assert np.isfinite(segment.patch_waves).all()
    window = segment.window(0, 300)
    assert window.patch_area[3] == pytest.approx(270) and window.patch_area[7] == 0
    assert judge(segment, AUTO, Settings()).windows[0].heart_rate_bpm == pytest.approx(BPM, abs=2)


def test_nobody_in_view_has_no_parts():
    traces = face(5)
    assert list(on_clock(hidden(traces, np.ones(150, bool)), FPS)) == []
    before_the_first_frame = traces.between(9, 10)
    assert len(before_the_first_frame.time_s) == 0
    assert list(on_clock(before_the_first_frame, FPS)) == []
    assert len(before_the_first_frame.between(0, 1).time_s) == 0


def test_waves_are_those_of_the_skin_and_of_its_patches():
    traces = face(10)
    segment = read_waves(traces, FPS, AUTO)
    assert tuple(segment.waves) == fusion.ESTIMATORS
    for number, name in enumerate(fusion.ESTIMATORS):
        own = host_classical.METHODS[name](traces.skin, FPS)
        assert segment.waves[name][: len(own)] == pytest.approx(own, abs=1e-9)
        of_patch = host_classical.METHODS[name](traces.patches[:, 5], FPS)
        assert segment.patch_waves[number, 5, : len(of_patch)] == pytest.approx(of_patch, abs=1e-9)
    assert all(len(wave) == 300 for wave in segment.waves.values())


def test_a_method_beside_the_four_is_read_as_well():
    traces = face(10)
    segment = read_waves(traces, FPS, "lgi")
    own = host_classical.read_trace("lgi", traces.skin, FPS)
    assert np.array_equal(segment.waves["lgi"], own)
    window = judge(segment, "lgi", Settings()).windows[0]
    assert window.estimates_bpm["lgi"] == window.candidate_bpm == pytest.approx(BPM, abs=2)
    assert set(window.estimates_bpm) == {*fusion.ESTIMATORS, "lgi"}


def test_a_window_is_cut_out_of_everything():
    traces = face(12)
    window = read_waves(traces, FPS, AUTO, [Wave(blood(at(12)), FPS)]).window(30, 330)
    for name in ("skin", "patches", "eyes", "crop", "behind"):
        assert np.array_equal(getattr(window, name), getattr(traces, name)[30:330]), name
    assert window.fps == FPS and window.skin_area == 6000 and (window.patch_area == 300).all()
    moved = skin_evidence.track(traces.geometry, traces.residual, traces.pose)
    assert np.array_equal(window.track, moved[30:330])
    assert window.patch_waves.shape == (4, PATCHES, 300)
    assert np.array_equal(window.waves["sspd"], blood(at(12))[30:330])


def test_windows_lie_as_spans_lays_them():
    traces = face(23, start_s=4.0)
    settings = Settings(window_s=8, stride_s=4)
    segment = read(traces, settings=settings)
    spans = windows.spans(690, FPS, settings)
    assert [window.start_s for window in segment.windows] == pytest.approx(
        [4 + start / FPS for start, _ in spans]
    )
    assert {window.duration_s for window in segment.windows} == {8.0}
    assert segment.wave.start_s == 4 and len(segment.wave.values) == 690
    (short,) = read(face(6)).windows
    assert short.duration_s == 6


def test_a_pulse_is_read_by_all_and_by_each():
    for method in (AUTO, "pos", "green", "chrom", "omit"):
        segment = read(face(10), method)
        (window,) = segment.windows
        assert window.heart_rate_bpm == pytest.approx(BPM, abs=1.5), method
        assert window.candidate_bpm == window.heart_rate_bpm and window.why == ""
        assert window.confidence >= confidence.SKIN_THRESHOLD
        assert set(window.estimates_bpm) == set(fusion.ESTIMATORS)
        assert len(segment.beats_s) == pytest.approx(13, abs=1)


def test_noise_is_not_read_and_says_why():
    time_s = at(10)
    (window,) = read(seen(time_s, np.zeros((300, 3)))).windows
    assert window.heart_rate_bpm is None and np.isfinite(window.candidate_bpm)
    assert window.why in confidence.SKIN_REASONS.values()
    (short,) = read(seen(time_s[:180], np.zeros((180, 3)))).windows
    assert "6.0 s are too short to be sure" in short.why


@pytest.mark.parametrize("method", [AUTO, "green", "pos", "sspd"])
def test_the_wave_rises_as_blood_darkens_the_skin(method):
    for sign in (1, -1):  # what way up a learned wave is means nothing
        traces = face(20)
        segment = read(traces, method, learned=[Wave(sign * blood(at(20)), FPS)])
        assert segment.windows[0].heart_rate_bpm is not None
        values = segment.wave.values[60:540]
        assert np.corrcoef(values, blood(at(20))[60:540])[0, 1] > 0.5


def test_a_networks_wave_that_ends_early_is_not_read_and_auto_reads_on():
    traces, learned = face(20), [Wave(blood(at(12)), FPS)]
    first, *_, last = read(traces, "sspd", learned=learned).windows
    assert first.heart_rate_bpm == pytest.approx(BPM, abs=2)
    assert last.heart_rate_bpm is None and last.candidate_bpm is None and last.confidence == 0
    assert last.why == "the wave ends before the window does"
    segment = read(traces, AUTO, learned=learned)
    first, *_, last = segment.windows
    assert last.heart_rate_bpm == pytest.approx(BPM, abs=2)
    assert "sspd" in first.estimates_bpm and "sspd" not in last.estimates_bpm
    assert np.isfinite(segment.wave.values).all()


def test_a_part_that_no_network_read_has_no_rate_by_it():
    segment = read(face(10), "sspd")
    (window,) = segment.windows
    assert window.heart_rate_bpm is None and window.why == "the wave ends before the window does"
    assert np.array_equal(segment.wave.values, np.zeros(300))


def test_a_networks_waves_lie_where_they_were_read():
    traces = face(20, start_s=100.0)
    early = Wave(np.arange(100.0), FPS, 100.0)
    late = Wave(np.arange(1000.0, 1100.0), FPS, 100 + 300.4 / FPS)  # the nearest sample counts
    wave = read_waves(traces, FPS, "sspd", [early, late]).waves["sspd"]
    assert np.array_equal(wave[:100], np.arange(100.0))
    assert wave[100] == 99  # a frame beyond the end it holds
    assert np.isnan(wave[101:299]).all()
    assert np.array_equal(wave[300:400], np.arange(1000.0, 1100.0))
    assert np.isnan(wave[402:]).all()
    half = Wave(np.arange(300.0), FPS / 2, 100.0)
    sampled = read_waves(traces, FPS, "sspd", [half]).waves["sspd"]
    assert np.abs(sampled[:599] - np.arange(599) / 2).max() <= 0.5


@pytest.mark.parametrize("of_wave", [25.0, 30.0, 60.0])
def test_a_wave_on_another_clock_is_interpolated_and_one_on_its_own_is_not(of_wave):
    traces = face(20, start_s=50.0)
    wave = Wave(pulse_at(50.3 + np.arange(round(12 * of_wave)) / of_wave), of_wave, 50.3)
    found = read_waves(traces, FPS, "sspd", [wave]).waves["sspd"]
    times_s = 50 + np.arange(len(found)) / FPS
    inside = (times_s >= 50.3) & (times_s <= wave.times_s[-1])
    # A line through two samples errs by an eighth of the square of the step between them.
    step = 2 * np.pi * 1.5 / of_wave
    assert np.abs(found[inside] - pulse_at(times_s[inside])).max() < step**2 / 6
    beyond = (times_s < 50.3 - 1.6 / of_wave) | (times_s > wave.times_s[-1] + 1.6 / of_wave)
    assert beyond.sum() > 200 and np.isnan(found[beyond]).all()


def test_a_wave_of_nearly_the_same_clock_is_not_smoothed():
    noise = np.random.default_rng(0).normal(size=300)
    for of_wave, is_taken in ((FPS * 1.0005, True), (FPS * 1.002, False)):
        wave = Wave(noise, of_wave, 0.5 / FPS)
        found = read_waves(face(10), FPS, "sspd", [wave]).waves["sspd"]
        assert np.isin(found[2:-2], noise).all() == is_taken
        assert (found[2:-2].std() > 0.95) == is_taken


def pulse_at(times_s):
    return np.sin(2 * np.pi * 1.5 * times_s)


def test_skin_that_does_not_change_is_flat_and_a_grey_picture_has_no_colour():
    time_s = at(10)
    frozen = seen(time_s, np.zeros((300, 3)), noise=0)
    for method in (AUTO, "pos"):
        window, name, turn = read_window(frozen, method, start_s=3.0)
        assert window.heart_rate_bpm is None and window.candidate_bpm is None and window.confidence == 0
        assert window.why == windows.FLAT and window.start_s == 3 and window.duration_s == 10
        assert name == "pos" and turn == 0
    level = 120 * (1 + pulse(time_s)[:, 1:2]) * np.ones(3)
    grey = dataclasses.replace(face(10), skin=level)
    assert read_window(grey)[0].why == windows.NO_COLOUR
    assert read_window(grey, settings=Settings(min_confidence=0))[0].heart_rate_bpm is None
    still = dataclasses.replace(frozen, skin=np.full((300, 3), 120.0))
    assert read_window(still)[0].why == windows.NO_COLOUR
    black = dataclasses.replace(frozen, skin=np.zeros((300, 3)))
    assert read_window(black)[0].why == windows.NO_COLOUR


def test_what_rounding_leaves_is_still():
    rounding = 120 + 1e-4 * np.random.default_rng(0).uniform(-1, 1, (300, 3))
    colour = rounding * [1.4, 1.0, 0.8]
    assert read_window(dataclasses.replace(face(10), skin=colour))[0].why == windows.FLAT
    assert read_window(face(10))[0].why != windows.FLAT


def test_below_14_frames_a_second_chrom_is_left_out_and_auto_reads():
    slow = face(20, fps=12.0)
    segment = read_waves(slow, 12.0, AUTO)
    assert set(segment.waves) == {"green", "pos", "omit"} and segment.patch_waves.shape[0] == 3
    for window in judge(segment, AUTO, Settings()).windows:
        assert window.heart_rate_bpm == pytest.approx(BPM, abs=2)
        assert set(window.estimates_bpm) == {"green", "pos", "omit"}
    with pytest.raises(ValueError):
        read_waves(slow, 12.0, "chrom")
    assert "chrom" in read_waves(face(10, fps=14.0), 14.0, AUTO).waves


def test_a_rate_too_low_for_any_pulse_says_so():
    slow = read_waves(face(20, fps=12.0), 12.0, AUTO).window(0, 240)
    window, *_ = judge_window(dataclasses.replace(slow, fps=7.0), AUTO, Settings())
    assert window.heart_rate_bpm is None and "at 7 frames/s no pulse can be read" in window.why


def test_rates_are_checked_before_there_is_a_picture():
    skin_segment.check_rate(AUTO, 30.0, 300)
    skin_segment.check_rate("sspd", 12.0, 120)
    skin_segment.check_rate("pos", 12.0, 120)
    skin_segment.check_rate("lgi", 30.0, 300)
    for method, fps, frames in (("chrom", 12.0, 120), (AUTO, 7.0, 70), (AUTO, 30.0, 20), ("lgi", 7.0, 70)):
        with pytest.raises(ValueError):
            skin_segment.check_rate(method, fps, frames)


def test_the_least_confidence_is_a_setting_and_the_regions_own_otherwise():
    assert Settings().least_confidence == confidence.SKIN_THRESHOLD
    assert Settings(region="crop").least_confidence == confidence.THRESHOLD
    assert Settings(min_confidence=0.3).least_confidence == 0.3
    assert Settings(region="crop", min_confidence=0).least_confidence == 0
    noise = seen(at(10), np.zeros((300, 3)))
    trusted, *_ = read_window(noise, settings=Settings(min_confidence=0))
    assert trusted.heart_rate_bpm == trusted.candidate_bpm and trusted.why == ""
    refused, *_ = read_window(face(10), settings=Settings(min_confidence=1))
    assert refused.heart_rate_bpm is None and refused.candidate_bpm == pytest.approx(BPM, abs=2)
    sure = read_window(face(10))[0].confidence
    assert read_window(face(10), settings=Settings(min_confidence=sure))[0].heart_rate_bpm is not None


def test_an_estimator_is_named_by_whoever_asks_else_by_method_and_region():
    assert estimator_of(AUTO, Settings()) == "fused_spectra"
    assert estimator_of("pos", Settings()) == "levelled_spectrum"
    assert estimator_of("sspd", Settings()) == estimators.DEFAULT
    assert estimator_of("pos", Settings(region="crop")) == estimators.DEFAULT
    assert estimator_of("pos", Settings(hr_estimator="beats")) == "beats"
    assert estimator_of("sspd", Settings(hr_estimator="beats")) == "beats"


def test_a_named_estimator_reads_the_rate_and_else_the_noises_slope_is_taken_off():
    time_s = at(10)
    drift = 3 * np.sin(2 * np.pi * 0.75 * time_s) + 2 * np.sin(2 * np.pi * 1.5 * time_s)
    assert rate_of(drift, FPS, "pos", Settings()) == pytest.approx(90, abs=1)
    for name in estimators.OF_RAW_WAVES:
        own = estimators.estimate(name, drift, FPS)
        for method in ("pos", "sspd"):
            assert rate_of(drift, FPS, method, Settings(hr_estimator=name)) == own
    assert rate_of(drift, FPS, "sspd", Settings()) == estimators.estimate(estimators.DEFAULT, drift, FPS)
    assert rate_of(drift, FPS, "pos", Settings(hr_estimator="spectrum")) == pytest.approx(45, abs=1)
    assert np.isnan(rate_of(np.zeros(300), FPS, "pos", Settings()))


def test_a_named_estimator_is_what_a_window_says():
    segment = read_waves(face(10), FPS, "pos")
    window, *_ = judge_window(segment.window(0, 300), "pos", Settings(hr_estimator="beats"))
    own = estimators.estimate("beats", segment.waves["pos"], FPS)
    assert window.candidate_bpm == window.estimates_bpm["pos"] == own
    assert window.estimates_bpm["green"] != own


def test_a_named_estimator_reads_the_wave_that_shows_the_fused_rate_most_clearly():
    segment = read_waves(face(10), FPS, AUTO)
    whole = segment.window(0, 300)
    window, name, _ = judge_window(whole, AUTO, Settings(hr_estimator="beats"))
    assert window.candidate_bpm == estimators.estimate("beats", segment.waves[name], FPS)
    assert window.candidate_bpm != judge_window(whole, AUTO, Settings())[0].candidate_bpm


def test_a_reading_has_an_interval_and_a_refusal_none():
    window, *_ = read_window(face())
    low, high = window.interval_bpm
    assert low < BPM < high and low < window.heart_rate_bpm < high
    refused, *_ = read_window(face(), settings=Settings(min_confidence=1))
    assert refused.candidate_bpm and refused.interval_bpm is None
    assert windows.as_json(window)["interval_bpm"] == [round(low, 3), round(high, 3)]
    assert windows.as_json(refused)["interval_bpm"] is None


def test_the_interval_of_all_is_the_median_of_the_readings():
    segment = read(face(30))
    found = [w.interval_bpm for w in segment.windows]
    assert len(found) == 5
    assert windows.interval([segment]) == pytest.approx(np.median(found, axis=0))
    assert windows.interval([windows.doubted(segment, 0.5, Settings())]) is None
    assert windows.interval([windows.doubted(segment, 0.5, Settings(min_confidence=0.4))]) is None


def test_between_readings_the_rate_goes_on_and_far_from_them_is_none():
    """A head nods in some windows: one estimator of four sees only that, or all do."""
    time_s = at(10)
    pulse, nod = (np.sin(2 * np.pi * hz * time_s) for hz in (BPM / 60, 2.2))
    clear, mixed, lost = (
        fusion.fused_rate(np.stack(waves), FPS)
        for waves in ([pulse] * 4, [pulse, pulse, pulse + nod, nod], [nod] * 4)
    )
    chances, given = (0.95, 0.6, 0.95, 0.6, 0.02, 0.9), (True, False, True, False, False, False)
    found = [
        Window(5.0 * number, 10.0, BPM if is_given else None, chance, "", 132.0)
        for number, (chance, is_given) in enumerate(zip(chances, given, strict=True))
    ]
    shown = skin_reading.smoothed(found, [clear, mixed, clear, mixed, None, clear])
    assert [w.smoothed_bpm is not None for w in shown] == [True, True, True, True, False, False]
    for before, after in zip(found, shown, strict=True):
        assert dataclasses.replace(after, smoothed_bpm=None, smoothed_interval_bpm=None) == before
    for w in shown[:4]:
        assert w.smoothed_bpm == pytest.approx(BPM, abs=1)
        low, high = w.smoothed_interval_bpm
        assert low <= w.smoothed_bpm <= high <= low + 30
    # Where the nod is all that is seen, the band is too wide to be a rate.
    hidden = skin_reading.smoothed(found, [clear, lost, clear, mixed, None, clear])
    assert hidden[1].smoothed_bpm is None and hidden[0].smoothed_bpm


def test_what_is_not_smoothed():
    time_s = at(40)
    traces, settings = seen(time_s, pulse(time_s)), Settings()
    whole = judge(read_waves(traces, FPS, AUTO), AUTO, settings)
    assert all(window.smoothed_bpm for window in whole.windows)
    doubted = windows.doubted(whole, 0.5, settings)
    assert {(w.heart_rate_bpm, w.smoothed_bpm, w.smoothed_interval_bpm) for w in doubted.windows} == {
        (None, None, None)
    }

    def none_is(traces, method=AUTO, settings=settings):
        found = judge(read_waves(traces, FPS, method), method, settings).windows
        return all(window.smoothed_bpm is None for window in found)

    assert none_is(traces, "pos")  # of one method
    assert none_is(traces, settings=Settings(hr_estimator="harmonic"))
    assert none_is(seen(at(15), pulse(at(15))))  # two windows
    assert none_is(seen(time_s, 0 * pulse(time_s)))  # no reading anywhere
    assert not none_is(traces)


def test_a_wave_that_its_method_cuts_short_goes_on_at_its_last_value(monkeypatch):
    short = 7.0 + np.arange(290.0)
    monkeypatch.setattr(host_classical, "read_trace", lambda name, rgb, fps: short)
    wave = read_waves(face(10), FPS, "pbv").waves["pbv"]
    assert wave[:290].tolist() == short.tolist() and wave[290:].tolist() == [296.0] * 10
    monkeypatch.setitem(host_classical.METHODS, "green", lambda rgb, fps: rgb[..., :-5, 1] + 1)
    rgb = np.random.default_rng(0).normal(100, 1, (2, 20, 3))
    (green,) = fusion.estimator_waves(rgb, FPS, ("green",))
    assert green[:, :15].tolist() == (rgb[:, :15, 1] + 1).tolist()
    assert green[:, 15:].tolist() == [[last] * 5 for last in rgb[:, 14, 1] + 1]


@pytest.mark.parametrize(
    ("said", "name", "sign"),
    [
        ([("pos", 1.0), ("chrom", 1.0), ("chrom", -0.2)], "chrom", 1),
        ([("pos", 1.0), ("chrom", -1.0), ("chrom", 0.2)], "chrom", -1),
        ([("pos", 0.2), ("pos", -1.0), ("green", 1.0)], "pos", -1),
        ([("omit", 0.0), ("omit", 0.0), ("omit", 0.0)], "omit", 1),
    ],
)
def test_the_wave_that_is_shown_is_that_of_most_windows_the_way_up_that_they_say_together(
    said, name, sign, monkeypatch
):
    segment, left = read_waves(face(20), FPS, AUTO), iter(said)
    monkeypatch.setattr(
        skin_reading,
        "judge_window",
        lambda window, method, settings, start_s: (Window(start_s, 10.0, None, 0.1, "x", None), *next(left)),
    )
    shown = judge(segment, AUTO, Settings())
    assert len(shown.windows) == 3 and shown.skin is segment
    np.testing.assert_array_equal(shown.wave.values, sign * segment.waves[name])


def test_each_window_is_smoothed_at_its_middle_by_its_own_spectrum_and_confidence(monkeypatch):
    weighed, tracked = [], []

    def likelihood(share, hz, duration_s, chance):
        weighed.append((share, hz, duration_s, chance))
        return np.full(len(skin_reading.rate_track.GRID_BPM), float(len(weighed)))

    def smooth(likely, times_s, duration_s):
        tracked.append((likely[:, 0].tolist(), times_s.tolist(), duration_s))
        bpm = np.array([70.0, 71, 72, 73])
        return SimpleNamespace(bpm=bpm, low_bpm=bpm - 2, high_bpm=bpm + np.array([3, 3, 100, 3]))

    monkeypatch.setattr(skin_reading.rate_track, "likelihood", likelihood)
    monkeypatch.setattr(skin_reading.rate_track, "smooth", smooth)
    spectra = [SimpleNamespace(share=f"share {i}", hz=f"hz {i}") for i in range(4)]
    spectra[1] = None
    found = [
        Window(start_s, 8.0, given, chance, "", given)
        for start_s, given, chance in (
            (2.0, 70.0, 0.9),
            (6.0, None, 0.1),
            (10.0, 70.0, 0.8),
            (500.0, None, 0.3),
        )
    ]
    shown = skin_reading.smoothed(found, spectra)
    assert weighed == [(f"share {i}", f"hz {i}", 8.0, chance) for i, chance in ((0, 0.9), (2, 0.8), (3, 0.3))]
    assert tracked == [([1, 1, 2, 3], [6, 10, 14, 504], 8.0)]  # nothing to read says nothing
    assert [w.smoothed_bpm for w in shown] == [70, 71, None, None]  # too wide; far from any reading
    assert [w.smoothed_interval_bpm for w in shown[:2]] == [(68, 73), (69, 74)]


def test_a_picture_is_grey_where_no_frame_has_a_colour():
    traces = face(10)
    grey = np.repeat(traces.skin[:, 1:2], 3, axis=1)
    for skin, is_grey in ((grey, True), (np.where(np.arange(300)[:, None] < 290, grey, traces.skin), False)):
        (window,) = read(dataclasses.replace(traces, skin=skin)).windows
        assert (window.why == windows.NO_COLOUR) == is_grey

"""From a recording to its shard."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath
from prepared_faces import FLAT, portrait, recording

from sspd_jax.datasets import preparation
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.format import Settings
from sspd_jax.datasets.preparation import PpgOnClock
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.recording import Ppg
from sspd_jax.video import resample


def one(r, folder, **settings):
    """Prepare one recording and open it."""
    prepare([r], folder / r.recording_id, crop_size=64, skin=False, progress=False, **settings)
    return open_prepared(folder / r.recording_id)


def test_a_gap_makes_two_segments_and_a_late_face_is_noted(tmp_path):
    times = np.r_[np.arange(100) / 30, 5 + np.arange(10) / 30, 7 + np.arange(40) / 30]

    def frames():
        for number, (time_s, picture) in enumerate(portrait(times)):
            yield time_s, FLAT if number < 30 else picture

    dataset = one(recording("a", frames=frames, seconds=9), tmp_path)
    assert [(s.segment_id, s.n_frames) for s in dataset.segments] == [("a/0", 70), ("a/1", 40)]
    np.testing.assert_allclose([s.start_s for s in dataset.segments], [1, 7])
    assert dataset.segments[0].notes == (
        "no face before 1.0 s",
        "a gap in time, 3.3–5.0 s",
        "left out 5.0–5.3 s, cut off by a gap in time",
        "a gap in time, 5.3–7.0 s",
    )
    for segment in dataset.segments:
        expected = np.sin(2 * np.pi * 1.2 * (segment.start_s + np.arange(segment.n_frames) / 30))
        np.testing.assert_allclose(dataset.ppg(segment), expected, atol=0.01)
    assert len(one(recording("b", frames=frames, seconds=9), tmp_path, max_gap_s=3).segments) == 1


def test_what_is_missing_in_a_pulse_wave_stays_missing(tmp_path):
    beats = np.arange(120) / 60  # one second less than the video
    values = np.sin(9 * beats)
    values[30:75] = np.nan
    values[100] = np.nan  # one sample is interpolated
    dataset = one(recording("a", ppg=Ppg(beats, values)), tmp_path)
    (segment,) = dataset.segments
    wave = dataset.ppg(segment)
    assert np.flatnonzero(np.isnan(wave)).tolist() == [*range(16, 37), *range(61, 90)]
    there = np.isfinite(wave)
    # Up to half a frame beyond its ends the wave is held: at 9 rad/s that is 0.15.
    np.testing.assert_allclose(wave[there], np.sin(9 * np.arange(90) / 30)[there], atol=0.16)
    assert segment.notes == ("no contact pulse wave at 0.53–1.23 s, 2.03–3.00 s",)
    assert segment.truth == ((0, 16), (37, 61))


@pytest.mark.parametrize("rate", [20, 29.76, 30, 60, 256])
def test_the_pulse_wave_is_read_by_its_timestamps_with_anti_aliasing(rate):
    times_s = 0.1 + np.arange(round(10 * rate)) / rate
    hum = np.sin(2 * np.pi * 29 * times_s) if rate > 60 else 0  # would fold to 1 Hz, inside the pulse band
    on_clock = PpgOnClock(Ppg(times_s, np.sin(7 * times_s) + hum), 30, 0.5)
    ticks_s = np.arange(300) / 30
    wave = on_clock.at(ticks_s)
    assert wave.dtype == np.float32
    assert np.isnan(wave[:2]).all() and np.isfinite(wave[4:]).all()
    assert np.abs(wave[6:-6] - np.sin(7 * ticks_s[6:-6])).max() < 0.1
    pieces = [on_clock.at(piece) for piece in np.split(ticks_s, [1, 60, 61, 299])]
    np.testing.assert_allclose(np.concatenate(pieces), wave, atol=1e-6)  # however it is cut
    inside = slice(4, 300)
    whole = resample.resample_wave(np.sin(7 * times_s) + hum, times_s, ticks_s[inside])
    np.testing.assert_allclose(wave[inside], whole, atol=1e-5)


def test_a_changed_video_file_is_noticed_wherever_it_lies(tmp_path):
    data = bytearray(np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes())
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.avi").write_bytes(data)
    here, there = (
        dataclasses.replace(recording("a"), file=tmp_path / f / "a.avi") for f in ("here", "there")
    )
    assert preparation.fingerprint(here) == preparation.fingerprint(there)
    data[-1] ^= 1
    there.file.write_bytes(data)
    assert preparation.fingerprint(here) != preparation.fingerprint(there)


class Reached(Exception):
    """What was looked for is known; the rest need not run."""


@pytest.mark.parametrize("follow_every_s", [0.0, 2.5])
def test_a_face_is_cut_out_by_every_setting(monkeypatch, tmp_path, follow_every_s):
    told = {}

    def cut_face(frames, file, **options):
        told.update(options)
        return SimpleNamespace(start_s=0.0, in_view=1, close=lambda: None)

    def uniform(crops, fps, max_gap_s):
        told.update(fps=fps, gap_of_clock_s=max_gap_s)
        raise Reached

    monkeypatch.setattr(preparation.face_stream, "cut_face", cut_face)
    monkeypatch.setattr(preparation.resample, "uniform", uniform)
    settings = Settings(25.0, 48, "area", 0.7, 33.0, follow_every_s=follow_every_s)
    job = preparation.Job(recording("a"), epath.Path(tmp_path), "shard")
    with pytest.raises(Reached):
        job.run(settings, "the detector", lambda reached_s: None)
    every_s = follow_every_s or preparation.DETECT_EVERY_S
    assert told == {
        "size": 48, "resize": "area", "face_search_s": 33.0, "max_gap_s": 0.7, "detector": "the detector",
        "follow": follow_every_s > 0, "detect_every_s": every_s, "fps": 25.0, "gap_of_clock_s": 0.7,
    }  # fmt: skip


def test_a_recordings_own_wave_is_put_on_the_clock_by_every_setting(monkeypatch):
    told = []

    def on_clock(*args):
        told.append(args)
        raise Reached

    monkeypatch.setattr(preparation, "PpgOnClock", on_clock)
    one = recording("a")
    with pytest.raises(Reached):
        preparation._write_segments(one, iter(()), Settings(25.0, 48, "area", 0.7, 33.0), None, None)
    assert told == [(one.ppg, 25.0, 0.7)]


@pytest.mark.parametrize(("gap_s", "bridged"), [(0.69, True), (0.71, False)])
def test_a_contact_wave_is_bridged_as_far_as_the_frames_are(gap_s, bridged):
    times_s = np.concatenate([np.arange(0, 2, 0.01), 1.99 + gap_s + np.arange(0, 2, 0.01)])
    wave = PpgOnClock(Ppg(times_s, np.sin(times_s)), 25.0, 0.7)
    found = wave.at(np.arange(0, 4, 1 / 25))
    assert np.isfinite(found).all() == bridged
    there = np.isfinite(found)
    np.testing.assert_allclose(found[there], np.sin(np.arange(0, 4, 1 / 25))[there], atol=0.08)


def test_beyond_its_ends_a_wave_is_held_for_half_a_frame_and_no_longer():
    times_s = np.arange(1, 2, 0.001)  # 1.000 to 1.999 s
    found = PpgOnClock(Ppg(times_s, times_s), 10.0, 0.5).at(np.array([0.85, 0.955, 1.5, 2.04, 2.15]))
    assert np.isfinite(found).tolist() == [False, True, True, True, False]

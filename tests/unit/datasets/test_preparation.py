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


def test_what_went_wrong_in_another_process_is_taken_once(tmp_path):
    (tmp_path / preparation.format.PARTS).mkdir()
    here, there = (preparation.Job(recording("a"), epath.Path(tmp_path), "shard") for _ in range(2))
    assert here.take_failure() is None
    there.note_failure("a.avi: is cut off")
    assert here.finished() is None  # it is tried again
    assert here.take_failure() == "a.avi: is cut off" and here.take_failure() is None
    there.leave_out("no face")
    assert here.take_failure() is None and here.finished()["left_out"] == "no face"
    other = preparation.Job(recording("a", seconds=4), epath.Path(tmp_path), "shard")
    assert other.finished() is None  # it has been mended since


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


def test_segments_are_written_chunk_by_chunk_and_how_far_they_are_is_said(monkeypatch):
    """Two segments of 60 and 30 frames in chunks of 25, of a wave that ends in the second."""
    times_s = np.concatenate([1 + np.arange(60) / 25, 4 + np.arange(30) / 25])
    pictures = np.arange(90)[:, None, None, None] + np.zeros((1, 2, 2, 3))
    ticks = [(int(n >= 60), t, picture) for n, (t, picture) in enumerate(zip(times_s, pictures, strict=True))]
    beats = np.arange(0, 4.61, 0.01)
    written, reached = [], []

    class Writer:
        count = 7

        def write(self, **facts):
            written.append((facts["segment"], facts["start"], facts["frames"][:, 0, 0, 0].tolist()))
            there = np.isfinite(facts["ppg"])
            np.testing.assert_allclose(facts["ppg"][there], facts["times_s"][there], atol=0.05)
            Writer.count += 1

    monkeypatch.setattr(Settings, "chunk_frames", 25)
    settings = Settings(25.0, 48, "area", 0.7, 33.0)
    one = recording("a", ppg=Ppg(beats, beats))
    facts, notes = preparation._write_segments(one, iter(ticks), settings, Writer(), reached.append)
    spans = ((0, 0, 0, 25), (0, 25, 25, 50), (0, 50, 50, 60), (1, 0, 60, 85), (1, 25, 85, 90))
    assert written == [(segment, start, list(range(a, b))) for segment, start, a, b in spans]
    assert reached == [times_s[end - 1] for *_, end in spans]
    keys = ("start_s", "n_frames", "first_record", "n_records", "has_ppg", "truth")
    assert [[fact[key] for key in keys] for fact in facts] == [
        [1, 60, 7, 3, True, [[0, 60]]],
        [4, 30, 10, 2, True, [[0, 16]]],
    ]
    assert notes == ["a gap in time, 3.4–4.0 s", "no contact pulse wave at 4.64–5.20 s"]


@pytest.mark.parametrize(("fps", "frames", "kept"), [(12.5, 20, True), (12.5, 11, False), (25.0, 24, False)])
def test_a_segment_is_left_out_for_its_length_whatever_the_clock(fps, frames, kept):
    """At 12.5 Hz a chunk has twelve frames, a little less than a second: that is no short segment."""
    ticks = ((0, number / fps, np.zeros((2, 2, 3))) for number in range(frames))
    writer = SimpleNamespace(count=0, write=lambda **_: None)
    settings = Settings(fps, 48, "area", 0.7, 33.0)
    facts, notes = preparation._write_segments(recording("a"), ticks, settings, writer, lambda _: None)
    assert [fact["n_frames"] for fact in facts] == [frames] * kept and len(notes) == (not kept)


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

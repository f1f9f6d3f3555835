"""The checker: what is broken, what is doubtful, what is missing; and heart rates out of waves."""

import dataclasses

import dataset_files
import numpy as np
import pytest
from prepared_faces import FLAT, portrait, recording

from sspd_jax.cli import prepare as cli_prepare
from sspd_jax.datasets import check
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Broken, Ppg
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.simulation import sample_video


def wave(bpm, seconds=30, rate_hz=64):
    times_s = np.arange(seconds * rate_hz) / rate_hz
    return Ppg(times_s, sample_video.ppg(times_s, bpm))


def said(r, **settings):
    return [(f.kind, f.sentence) for f in check.check_recording(r, **settings)]


@pytest.mark.parametrize("bpm", [48, 72, 133.6, 180])
def test_heart_rates_are_read_window_by_window(bpm):
    found = check.heart_rates(wave(bpm, seconds=35))
    assert [(start, end) for start, end, _ in found] == [(0, 10), (10, 20), (20, 30)]
    assert [rate for _, _, rate in found] == pytest.approx([bpm] * 3, abs=1)
    ((start, end, rate),) = check.heart_rates(wave(bpm, seconds=6))
    assert (start, round(end, 1)) == (0, 6) and rate == pytest.approx(bpm, abs=3)
    assert check.heart_rates(wave(bpm, seconds=2)) == []


def test_a_device_that_disagrees_with_its_wave_is_found():
    # UBFC-rPPG's subject 20: the line says 60.2 bpm where the wave has 133.6.
    r = recording("subject20", seconds=12, ppg=wave(133.6, 12), device_heart_rate=[60.2] * 360)
    ((kind, sentence),) = said(r)
    assert kind == "doubtful"
    assert "the device says 60.2 bpm where its own wave shows 133." in sentence
    for bpm in (126.0, 133.6, 141.0):  # it lags, and rounds
        r = recording("a", seconds=12, ppg=wave(133.6, 12), device_heart_rate=[bpm] * 12)
        assert said(r) == []
    # Rates that change: the same moments are compared.
    times_s = np.arange(40 * 64) / 64
    phase = np.cumsum(np.where(times_s < 20, 60, 120) / 60 / 64)
    ppg = Ppg(times_s, np.sin(2 * np.pi * phase))
    right, wrong = [60.0] * 20 + [120.0] * 20, [None] * 3 + [120.0] * 17 + [60.0] * 20
    assert said(recording("a", seconds=40, ppg=ppg, device_heart_rate=right)) == []
    assert [rate for _, rate in check.device_rates(recording("a", ppg=ppg, device_heart_rate=wrong))][:1] == [
        120
    ]


def test_gaps_drops_and_a_late_face_are_told():
    times = np.r_[np.arange(100) / 30, 5 + np.arange(60) / 30]

    def frames():
        for number, (time_s, picture) in enumerate(portrait(np.delete(times, [50, 60, 70]))):
            yield time_s, FLAT if number < 30 else picture

    r = recording("a", frames=frames, seconds=9, notes=["its reader's note"])
    notes = said(r)
    assert {kind for kind, _ in notes} == {"note"}
    assert [sentence for _, sentence in notes] == [
        "its reader's note",
        "no face before 1.0 s",
        "a gap in time, 3.3–5.0 s: it splits the recording",
        "2% of the frames are missing; they are interpolated by their times",
    ]


def test_what_cannot_be_prepared_is_broken_by_the_same_sentence(tmp_path, capsys):
    bad = [
        recording("a", frames=lambda: ((k / 30, FLAT) for k in range(60))),
        recording("b", frames=lambda: portrait(np.arange(20) / 30)),
        recording("c", frames=lambda: portrait([0, 0.1, 0.05])),
        Broken("d", "d.avi: missing; copy it"),
    ]
    findings = [f for r in bad for f in check.check_recording(r)]
    assert [(f.recording_id, f.kind) for f in findings] == [(x, "broken") for x in "abcd"]
    report = prepare(
        [*bad, recording("e")], tmp_path / "out", keep_going=True, skin=False, progress=False, crop_size=16
    )
    assert {f.recording_id: f.sentence for f in findings} == report.left_out


def test_a_flat_or_short_wave_is_doubtful():
    flat = Ppg(np.arange(300) / 30, np.ones(300))
    ((kind, sentence),) = said(recording("a", seconds=10, ppg=flat))
    assert kind == "doubtful" and "is flat or shorter than 4 s" in sentence
    short = wave(72, 6)
    ((kind, sentence),) = said(recording("a", seconds=10, ppg=short))
    assert kind == "doubtful" and "covers 6.0 s of 10.0 s" in sentence
    assert said(dataclasses.replace(recording("a", seconds=10), ppg=None)) == []


def test_what_is_missing_of_a_dataset_and_what_is_known_to_be_wrong():
    people = [f"subject{n}" for n in range(1, 50) if n not in (2, 6, 7, 19, 21, 28, 29)]
    listed = [recording(p) for p in people if p not in ("subject3", "subject20")]
    sentences = [f.sentence for f in check.check_dataset("ubfc_rppg", listed)]
    assert sentences[0] == "2 of 42 people are not there (subject3, subject20); copy them if they should be"
    assert any("subject11: the heart rate line says 96.2 bpm" in s for s in sentences)
    assert not any("60.2" in s for s in sentences)  # subject20 is not there
    whole = [recording(p) for p in people]
    assert not any("not there" in f.sentence for f in check.check_dataset("ubfc_rppg", whole))
    clips = [recording(f"{p}-0", person=str(p)) for p in range(1, 41)]
    sentences = [f.sentence for f in check.check_dataset("cohface", clips)]
    assert sentences[0] == "40 of 160 recordings are there; copy the others if they should be"
    assert check.check_dataset("folder", listed) == []


def test_the_command_lists_file_by_file_and_writes_nothing(tmp_path, capsys):
    dataset_files.ubfc_rppg(tmp_path / "raw", seconds=5)
    arguments = ["--dataset=ubfc_rppg", f"--source={tmp_path / 'raw'}", "--check_only", "--no_progress"]
    assert cli_prepare.main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith("raw: 2 recordings, 2 people: 0 broken, 0 doubtful, 1 notes")
    truth = tmp_path / "raw" / "DATASET_2" / "subject2" / "ground_truth.txt"
    ppg, _, times = truth.read_text().splitlines()
    truth.write_text("\n".join([ppg, " ".join(["60.2"] * len(times.split())), times]))
    (tmp_path / "raw" / "DATASET_2" / "subject1" / "vid.avi").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    assert cli_prepare.main(arguments) == 1
    out, err = capsys.readouterr()
    assert err == ""
    absent, broken, doubtful, summary = out.splitlines()
    assert absent.startswith("note      41 of 42 people are not there")
    assert broken.startswith("broken    subject1: ") and "vid.avi: the file is empty; copy" in broken
    assert doubtful.startswith("doubtful  subject2: ") and "says 60.2 bpm" in doubtful
    assert summary.endswith("2 recordings, 1 people: 1 broken, 1 doubtful, 1 notes")
    assert sorted(tmp_path.rglob("*")) == before
    assert cli_prepare.main(arguments[:2]) == 2
    assert "--data_dir is missing" in capsys.readouterr().err


def test_a_recording_with_dropped_frames_gives_the_same_heart_rates(tmp_path):
    """One frame in twenty is dropped; frames and wave still meet by their timestamps."""
    dropped = tuple(np.random.default_rng(0).choice(np.arange(1, 420), 21, replace=False))
    rates = {}
    for name, missing in (("whole", ()), ("dropped", dropped)):
        dataset_files.pure(tmp_path / name, seconds=14, dropped=missing, people=1)
        listed = registry.read("pure", tmp_path / name)
        assert len(list(listed[0].frames())) == 420 - len(missing)
        prepare(listed, tmp_path / f"{name}-out", crop_size=32, skin=False, progress=False)
        dataset = open_prepared(tmp_path / f"{name}-out")
        (segment,) = dataset.segments  # no gap is longer than the limit
        assert segment.n_frames == 420
        green = np.array([frame[..., 1].mean() for frame in dataset.frames(segment)])
        truth = dataset.ppg(segment)
        rates[name] = [
            spectral_peak_rate(x[start : start + 300].astype(np.float64), 30)
            for x in (green, truth)
            for start in range(3, 121, 39)
        ]
    assert np.isfinite(rates["whole"]).all()
    np.testing.assert_allclose(rates["dropped"], rates["whole"], atol=0.3)
    # Stretching what is left to the whole length, as is done elsewhere, would be 3.6 bpm off.

import csv
import resource
import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from shared_files import REAL_FACE, needs
from simulated_face import colour_trace, open_face_clip

from sspd_jax.cli.sample import main
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate.classical import read_trace
from sspd_jax.heart_rate.rate import spectral_peak_rate, wavelet_peak_rate
from sspd_jax.simulation.sample_video import PORTRAIT, face_frames, ppg, write_face_video, write_video
from sspd_jax.video.crop import crop
from sspd_jax.video.decode import frames, read_facts
from sspd_jax.video.face_detection import FaceBox, HaarDetector, widen
from sspd_jax.video.resample import native_rate

pytestmark = pytest.mark.usefixtures("quick_compilation")

FLAT = np.full((256, 256, 3), 120, np.uint8)
CLASSICAL = ("green", "chrom", "pos")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "face.mp4"
    write_face_video(path, seconds=4)
    return path


def test_a_sample_with_a_negative_seed_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "a.mp4"), "--seed=-1"]) == 2
    assert "the seed -1 is negative" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_sample_on_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        code = main([str(tmp_path / "a.mp4"), "--seconds=4"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = f"error: {tmp_path / 'a.mp4'}: cannot be written (file too large); make room and run again"
    assert code == 1 and capsys.readouterr().err.startswith(said) and not list(tmp_path.iterdir())


def test_clip_is_one_widened_box_of_every_frame(sample):
    decoded = list(frames(sample))
    box = widen(HaarDetector().detect(decoded[0][1]), 256, 256)
    clip = open_face_clip(sample)
    assert (clip.file, clip.box, clip.start_s) == (sample, box, 0.0)
    crops = list(clip)
    assert [t for t, _ in crops] == [t for t, _ in decoded]
    for (_, image), (_, rgb) in zip(crops, decoded, strict=True):
        np.testing.assert_array_equal(image, crop(rgb, box, 151))
    assert list(clip) == []


def test_clip_settings_reach_the_crops(sample):
    _, image = next(open_face_clip(sample, size=64, resize="area"))
    clip = open_face_clip(sample)
    rgb = next(frames(sample))[1]
    np.testing.assert_array_equal(image, crop(rgb, clip.box, 64, "area"))
    ticks = list(clip.on_clock(30))
    assert len(ticks) == 120
    assert all(image.dtype == np.uint8 for *_, image in ticks)


def test_clip_starts_where_the_face_does(tmp_path):
    path = tmp_path / "late.mp4"
    times = np.arange(45) / 15
    face = list(face_frames(times[30:], 72, 0))
    write_video(path, [FLAT] * 30 + face, times)
    clip = open_face_clip(path)
    assert clip.start_s == pytest.approx(2.0, abs=1e-3)
    assert len(list(clip)) == 15
    with pytest.raises(UserError, match=r"late.mp4: no face found in the first 1.5 s; .*upright"):
        open_face_clip(path, face_search_s=1.5)


def test_clip_refuses_a_video_without_a_face_and_one_of_a_single_frame(tmp_path):
    path = tmp_path / "wall.mp4"
    write_video(path, [FLAT] * 20, np.arange(20) / 10)
    with pytest.raises(UserError, match=r"wall.mp4: no face found in any of its 1.9 s"):
        open_face_clip(path)
    with pytest.raises(UserError, match=r"portrait.png: has fewer than 2 frames"):
        open_face_clip(PORTRAIT)
    with pytest.raises(UserError, match=r"gone.mp4: no such file"):
        open_face_clip(tmp_path / "gone.mp4")


def test_clip_takes_another_detector_and_can_be_closed(sample):
    class Fixed:
        def detect_all(self, rgb):
            return [FaceBox(100, 100, 160, 160)]

    clip = open_face_clip(sample, detector=Fixed())
    assert clip.box == FaceBox(60, 44, 200, 200)
    next(clip)
    clip.close()
    assert list(clip) == []
    open_face_clip(sample).close()


def test_clip_turned_like_a_phones_is_upright(tmp_path):
    path = tmp_path / "phone.mp4"
    write_face_video(path, seconds=0.5, rotation=-90)
    assert read_facts(path).rotation == 270
    box = open_face_clip(path).box
    assert box.left < 60 and box.right > 200


def test_clip_reports_a_gap_as_a_second_segment(tmp_path):
    path = tmp_path / "gap.mp4"
    write_face_video(path, times_s=np.r_[np.arange(20) / 30, 2 + np.arange(40) / 30])
    assert native_rate([t for t, _ in frames(path)]).constant is False
    segments = [segment for segment, *_ in open_face_clip(path).on_clock(30)]
    assert segments == [0] * 20 + [1] * 40
    segments = [segment for segment, *_ in open_face_clip(path, max_gap_s=2).on_clock(30)]
    assert segments == [0] * 100


def test_clip_memory_does_not_grow_with_the_video(sample):
    tracemalloc.start()
    try:
        for _ in open_face_clip(sample).on_clock(20):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    frame, image = 256 * 256 * 3, 151 * 151 * 3
    assert peak < 6 * frame + 20 * 4 * image  # 120 frames are 23.6 MB


# A known pulse through a real codec.


@pytest.mark.parametrize("bpm", [*(pytest.param(bpm, marks=pytest.mark.slow) for bpm in (48, 150)), 80])
def test_a_known_pulse_is_read_from_h264(tmp_path, bpm):
    path = tmp_path / "face.mp4"
    write_face_video(path, seconds=12, bpm=bpm, seed=bpm)
    trace = colour_trace(path, 30)
    for name in CLASSICAL:
        assert wavelet_peak_rate(read_trace(name, trace, 30), 30) == pytest.approx(bpm, abs=1.5), name


@pytest.mark.parametrize(
    "source", [*(pytest.param(fps, marks=pytest.mark.slow) for fps in (25, 60)), "variable"]
)
def test_a_known_pulse_is_read_at_other_rates(tmp_path, source):
    path = tmp_path / "face.mp4"
    if source == "variable":
        times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, 250))
    else:
        times = np.arange(8 * source) / source
    write_face_video(path, times_s=times, bpm=84)
    trace = colour_trace(path, 30)
    assert len(trace) == pytest.approx(30 * (times[-1] - times[0]), abs=1)
    for name in CLASSICAL:
        assert wavelet_peak_rate(read_trace(name, trace, 30), 30) == pytest.approx(84, abs=1.5), name


def test_sample_is_the_same_twice_and_says_the_truth(tmp_path, capsys):
    for name in ("a", "b"):
        assert main([str(tmp_path / f"{name}.mp4"), "--bpm=90", "--seconds=2", "--seed=5"]) == 0
    assert "2 s at 90 bpm" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.mp4", "b.csv", "b.mp4"]
    for (_, a), (_, b) in zip(frames(tmp_path / "a.mp4"), frames(tmp_path / "b.mp4"), strict=True):
        np.testing.assert_array_equal(a, b)
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["time_s", "ppg"]
    truth = np.array([[float(row["time_s"]), float(row["ppg"])] for row in rows])
    np.testing.assert_allclose(truth[:, 0], [t for t, _ in frames(tmp_path / "a.mp4")], atol=1e-4)
    np.testing.assert_allclose(truth[:, 1], ppg(truth[:, 0], 90), atol=1e-4)


def test_sample_pulse_darkens_the_skin_green_most(monkeypatch):
    monkeypatch.setattr("sspd_jax.simulation.sample_video.SWAY_PX", 0)
    times = np.linspace(0, 1, 31)[:-1]
    pictures = np.stack(list(face_frames(times, 60, 0)))[:, 120:150, 110:150].mean((1, 2))
    blood = ppg(times, 60)
    slopes = [np.polyfit(blood, channel / channel.mean(), 1)[0] for channel in pictures.T]
    np.testing.assert_allclose(slopes, [-0.0045, -0.01, -0.007], atol=0.0005)
    assert np.abs(blood).max() <= 1


def test_sample_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(ConfigError, match="unknown kind"):
        write_face_video(tmp_path / "face.txt")
    for settings in ({"seconds": 0.01}, {"seconds": float("nan")}, {"fps": 0}):
        with pytest.raises(ConfigError, match="fewer than 2 frames"):
            write_face_video(tmp_path / "face.mp4", **settings)
    with pytest.raises(ConfigError, match="0 bpm"):
        write_face_video(tmp_path / "face.mp4", bpm=0)
    with pytest.raises(UserError, match="cannot be written"):
        write_face_video(tmp_path / "nowhere" / "face.mp4")
    assert list(tmp_path.iterdir()) == []


def test_sample_leaves_nothing_behind_when_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "warpAffine", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_face_video(tmp_path / "face.mp4", seconds=1)
    assert list(tmp_path.iterdir()) == []


def test_video_rooms_need_no_network_library():
    code = (
        "import sys, sspd_jax.video.face_stream, sspd_jax.simulation.sample_video, sspd_jax.heart_rate.rate; "
        "sys.exit(any(m in sys.modules for m in ('jax', 'flax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A real face.


@pytest.fixture(scope="module")
def real_traces():
    return {resize: colour_trace(REAL_FACE, 30, resize=resize) for resize in ("linear", "area")}


@needs(REAL_FACE)
@pytest.mark.parametrize("resize", ["linear", "area"])
@pytest.mark.parametrize("method", CLASSICAL)
def test_a_real_pulse_is_read(real_traces, method, resize):
    wave = read_trace(method, real_traces[resize], 30)
    assert 51.5 < spectral_peak_rate(wave, 30) < 53.5
    # 10 s hold nine beats, so the mean of their rates is coarse: GREEN 52.7, POS 53.6, CHROM 53.8 bpm.
    assert 51.5 < wavelet_peak_rate(wave, 30) < 54.0


@needs(REAL_FACE)
def test_the_real_face_is_found():
    facts = read_facts(REAL_FACE)
    assert (facts.width, facts.height, facts.fps, facts.rotation) == (528, 592, 30.0, 0)
    box = HaarDetector().detect(next(frames(REAL_FACE))[1])
    np.testing.assert_allclose([box.left, box.top, box.right, box.bottom], [36, 72, 446, 482], atol=12)

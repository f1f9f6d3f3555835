import os
import weakref
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_face import write_sound

from sspd_jax.errors import UserError
from sspd_jax.simulation.sample_video import PORTRAIT, write_face_video, write_video
from sspd_jax.video import decode
from sspd_jax.video.crop import crop
from sspd_jax.video.decode import Damage, frames, read_facts
from sspd_jax.video.face_detection import FaceBox, HaarDetector, widen
from sspd_jax.video.resample import native_rate, resample_wave, uniform

PORTRAIT_RGB = cv2.cvtColor(cv2.imread(str(PORTRAIT)), cv2.COLOR_BGR2RGB)


def counting_pictures(count, height=48, width=64):
    """Grey pictures that tell their number, a white corner at the top left."""
    for i in range(count):
        picture = np.full((height, width, 3), 4 * (i % 50) + 20, np.uint8)
        picture[: height // 3, : width // 3] = 255
        yield picture


def number(rgb):
    return round((int(np.median(rgb[..., 1])) - 20) / 4)


# Decoding.


def test_decode_streams_every_frame_with_its_time(tmp_path, capfd):
    path = tmp_path / "even.mp4"
    write_video(path, counting_pictures(40), np.arange(40) / 25)
    decoded = list(frames(path))
    assert [number(rgb) for _, rgb in decoded] == list(range(40))
    np.testing.assert_allclose([t for t, _ in decoded], np.arange(40) / 25, atol=1e-4)
    assert decoded[0][1].shape == (48, 64, 3)
    assert decoded[0][1].dtype == np.uint8
    facts = read_facts(path)
    assert (facts.file, facts.width, facts.height, facts.codec, facts.rotation) == (path, 64, 48, "h264", 0)
    assert facts.fps == pytest.approx(25)
    assert facts.duration_s == pytest.approx(1.6, abs=1e-3)
    assert capfd.readouterr().err == ""


def test_decode_keeps_variable_times(tmp_path):
    times = np.cumsum([0.4, *np.random.default_rng(0).uniform(0.01, 0.2, 29)])
    path = tmp_path / "variable.mp4"
    write_video(path, counting_pictures(30), times)
    decoded = list(frames(path))
    np.testing.assert_allclose([t for t, _ in decoded], times - 0.4, atol=1e-4)
    assert read_facts(path).fps == pytest.approx(29 / (times[-1] - times[0]), rel=0.1)
    assert [number(rgb) for _, rgb in decoded] == list(range(30))


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mjpeg"), ("b.avi", "rawvideo"), ("c.mkv", "ffv1")])
def test_decode_other_containers_and_pixel_formats(tmp_path, name, codec):
    write_video(tmp_path / name, counting_pictures(20), np.arange(20) / 30, codec=codec)
    decoded = list(frames(tmp_path / name))
    assert [number(rgb) for _, rgb in decoded] == list(range(20))
    np.testing.assert_allclose([t for t, _ in decoded], np.arange(20) / 30, atol=1e-3)
    assert read_facts(tmp_path / name).fps == pytest.approx(30)


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1)), (270, (0, -1))]
)
def test_decode_turns_the_picture_as_the_recording_asks(tmp_path, rotation, corner):
    path = tmp_path / "turned.mp4"
    write_video(path, counting_pictures(3), np.arange(3) / 30, rotation=rotation)
    _, rgb = next(frames(path))
    assert rgb.shape == ((64, 48, 3) if rotation % 180 else (48, 64, 3))
    assert rgb[corner].mean() > 230
    assert rgb.flags.c_contiguous
    facts = read_facts(path)
    assert (facts.height, facts.width) == rgb.shape[:2]
    assert facts.rotation == rotation % 360


def test_a_phones_portrait_matrix_means_a_turn_to_the_right(tmp_path):
    path = tmp_path / "phone.mp4"
    write_video(path, counting_pictures(3), np.arange(3) / 30, rotation=-90)
    data = path.read_bytes()
    matrix = data.index(b"tkhd") + 4 + 40
    # ISO 14496-12: (x, y) goes to (−y, x): what phones held upright write.
    assert np.frombuffer(data[matrix : matrix + 20], ">i4").tolist() == [0, 65536, 0, -65536, 0]


def test_decode_raw_stream_gets_its_own_rate(tmp_path):
    path = tmp_path / "raw.h264"
    write_video(path, counting_pictures(12), np.arange(12) / 30)
    np.testing.assert_allclose([t for t, _ in frames(path)], np.arange(12) / 30)
    assert read_facts(path).fps == 30
    assert read_facts(path).duration_s is None


def test_decode_scales_a_size_that_changes(tmp_path):
    path = tmp_path / "grows.h264"
    parts = []
    for height, width in ((48, 64), (96, 128)):
        write_video(path, counting_pictures(5, height, width), np.arange(5) / 30)
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    shapes = [rgb.shape for _, rgb in frames(path)]
    assert shapes == [(48, 64, 3)] * 10


def test_pictures_without_their_times_are_no_video(tmp_path):
    whole = tmp_path / "whole.avi"
    write_face_video(whole, seconds=2)
    data = whole.read_bytes()
    lost = tmp_path / "lost.avi"
    lost.write_bytes(data[data.index(b"movi") + 12 :])  # FFmpeg finds H.264 in it, and makes up 25 frames/s
    with pytest.raises(UserError, match=r"lost.avi: is damaged at its beginning, and with it the times"):
        next(frames(lost))


@pytest.mark.parametrize(("name", "codec", "least"), [("d.mp4", "libx264", 60), ("d.avi", "mjpeg", 100)])
def test_decode_uses_what_is_readable_of_a_damaged_file(tmp_path, capfd, name, codec, least):
    path = tmp_path / name
    rng = np.random.default_rng(0)
    noisy = (np.clip(p + rng.normal(0, 20, p.shape), 0, 255).astype(np.uint8) for p in counting_pictures(150))
    write_video(path, noisy, np.arange(150) / 30, codec=codec)
    data = bytearray(path.read_bytes())
    hit = slice(len(data) // 2, len(data) // 2 + len(data) // 20)
    data[hit] = rng.bytes(hit.stop - hit.start)
    path.write_bytes(data)
    times = np.array([t for t, _ in frames(path)])
    assert least <= len(times) < 150
    assert (np.diff(times) > 0).all()
    if codec == "mjpeg":  # cut off: the index is lost, the frames are not
        path.write_bytes(data[: len(data) // 3])
        assert len(list(frames(path))) > 30
    assert capfd.readouterr().err == ""


def bad_files(folder: Path):
    good = folder / "good.mp4"
    write_video(good, counting_pictures(3), np.arange(3) / 30)
    data = good.read_bytes()
    sound = folder / "sound.mp4"
    write_sound(sound)
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "header.mp4").write_bytes(data[:160])
    (folder / "empty.mp4").touch()
    # The description of the video is whole, all of its pictures are zeros.
    start = data.index(b"mdat") + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    (folder / "zeros.mp4").write_bytes(data[:start] + bytes(size) + data[start + size :])
    return {
        "missing.mp4": "no such file",
        "": "directory",
        "text.mp4": "not a video",
        "header.mp4": "not a video",
        "empty.mp4": "empty",
        "sound.mp4": "no video stream",
        "zeros.mp4": "not one frame",
    }


def test_decode_says_what_is_wrong_with_a_bad_file(tmp_path, capfd):
    for name, words in bad_files(tmp_path).items():
        for read in (read_facts, lambda path: list(frames(path))):
            with pytest.raises(UserError, match=words) as caught:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
            assert ";" in str(caught.value)  # … and the remedy
            assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_decode_closes_the_file_however_it_ends(tmp_path, monkeypatch):
    path = tmp_path / "even.mp4"
    write_video(path, counting_pictures(5), np.arange(5) / 25)
    opened = []
    av_open = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: opened.append(av_open(*a, **k)) or opened[-1])
    stream = frames(path)
    next(stream)
    stream.close()
    list(frames(path))
    for container in opened:
        with pytest.raises(AssertionError, match="not open"):
            container.seek(0)


# The face.


def test_the_portrait_has_one_face():
    box = HaarDetector().detect(PORTRAIT_RGB)
    centre = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
    assert np.hypot(centre[0] - 133, centre[1] - 125) < 12
    assert 95 < box.width < 130


@pytest.mark.parametrize("scale", [0.5, 3.3])
@pytest.mark.parametrize("light", [1.0, 0.15])
def test_detector_finds_the_face_in_other_sizes_and_in_the_dark(scale, light):
    picture = cv2.resize(PORTRAIT_RGB, None, fx=scale, fy=scale)
    wide = np.full((picture.shape[0], picture.shape[1] * 2, 3), 128, np.uint8)
    wide[:, picture.shape[1] :] = picture
    box = HaarDetector().detect((wide * light).astype(np.uint8))
    assert (box.left + box.right) / 2 / scale == pytest.approx(256 + 133, abs=15)
    assert (box.top + box.bottom) / 2 / scale == pytest.approx(125, abs=15)


def test_detector_takes_the_largest_then_the_most_central_face():
    small = cv2.resize(PORTRAIT_RGB, (150, 150), interpolation=cv2.INTER_AREA)
    picture = np.full((256, 800, 3), 128, np.uint8)
    picture[:, 20:276] = PORTRAIT_RGB
    picture[50:200, 330:480] = small
    assert HaarDetector().detect(picture).right < 276
    picture[:, 300:556] = PORTRAIT_RGB
    assert HaarDetector().detect(picture).left == pytest.approx(379, abs=15)


def faceless():
    rng = np.random.default_rng(0)
    yield np.zeros((240, 320, 3), np.uint8)
    yield np.full((240, 320, 3), 255, np.uint8)
    for block in (1, 4, 12, 40):
        coarse = rng.integers(0, 256, (240 // block + 1, 320 // block + 1, 3), dtype=np.uint8)
        yield cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:240, :320]
    for pattern in (
        np.sin(x / 9) + np.sin(y / 7),
        np.sin(np.hypot(x - 160, y - 120) / 6),
        (x // 20 + y // 20) % 2,
    ):
        yield np.repeat((100 + 40 * pattern).astype(np.uint8)[..., None], 3, axis=2)
    yield PORTRAIT_RGB[::-1].copy()  # upside down


def test_detector_sees_no_face_where_there_is_none():
    detector = HaarDetector()
    assert [detector.detect(picture) for picture in faceless()] == [None] * 10


def test_widen_by_hand():
    # 150 px: a third is 50, on top 70. 60 px: the least is 40, on top 56.
    assert widen(FaceBox(200, 200, 350, 350), 640, 480) == FaceBox(150, 130, 400, 400)
    assert widen(FaceBox(200, 200, 260, 260), 640, 480) == FaceBox(160, 144, 300, 300)
    assert widen(FaceBox(10, 20, 160, 170), 190, 200) == FaceBox(0, 0, 190, 200)


@given(st.integers(1, 2000), st.integers(1, 2000), st.data())
def test_widen_stays_inside_the_picture_and_around_the_face(width, height, data):
    left = data.draw(st.integers(0, width - 1))
    top = data.draw(st.integers(0, height - 1))
    box = FaceBox(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    wide = widen(box, width, height)
    assert 0 <= wide.left <= box.left < box.right <= wide.right <= width
    assert 0 <= wide.top <= box.top < box.bottom <= wide.bottom <= height


def test_crop_is_bilinear_without_antialiasing_or_an_average():
    rgb = np.zeros((20, 30, 3), np.uint8)
    rgb[:, 10:26] = np.random.default_rng(0).integers(0, 256, (20, 16, 3))
    box = FaceBox(10, 4, 26, 20)
    inside = rgb[4:20, 10:26].astype(np.float64)
    # 16 → 4: bilinear at 1.5, 5.5 … is the mean of the 2×2 pixels in the middle of each 4×4.
    middle = inside.reshape(4, 4, 4, 4, 3)[:, 1:3, :, 1:3].mean((1, 3))
    np.testing.assert_allclose(crop(rgb, box, 4), middle, atol=1)
    np.testing.assert_allclose(crop(rgb, box, 4, "area"), inside.reshape(4, 4, 4, 4, 3).mean((1, 3)), atol=1)
    np.testing.assert_array_equal(crop(rgb, box, 16), inside)
    assert crop(rgb, FaceBox(0, 0, 30, 10), 7).shape == (7, 7, 3)


# What a file may open, and how much it may ask for.


PLAYLISTS = {
    "list.mp4": "ffconcat version 1.0\nfile 'secret.ts'\n",
    "list.ffconcat": "ffconcat version 1.0\nfile 'secret.ts'\n",
    "live.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:6,\nsecret.ts\n",  # without an end
    "live.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:6,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "stream.avi": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5000 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_no_file_opens_another(tmp_path, name):
    write_video(tmp_path / "secret.ts", counting_pictures(10), np.arange(10) / 30)
    (tmp_path / name).write_text(PLAYLISTS[name])
    (tmp_path / "nested.mp4").write_text(f"ffconcat version 1.0\nfile '{name}'\n")
    for path in (tmp_path / name, tmp_path / "nested.mp4"):
        with pytest.raises(UserError, match="is a list of other files, and what a list names is not opened"):
            next(frames(path))


@pytest.mark.parametrize("name", ["list.ffconcat", "live.m3u8", "whole.m3u8"])
def test_a_list_that_is_allowed_opens_files_alone(tmp_path, name):
    for part, grey, start in (("a", 40, 0), ("b", 200, 12)):  # one clock runs through both
        pictures = np.full((10, 64, 64, 3), grey, np.uint8)
        write_video(tmp_path / f"{part}.ts", pictures, (start + np.arange(10)) / 30)
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.3,\na.ts\n#EXTINF:0.3,\nFILE\n"
    lists = {"live.m3u8": hls, "whole.m3u8": hls + "#EXT-X-ENDLIST\n"}
    text = lists.get(name, "ffconcat version 1.0\nfile a.ts\nfile FILE\n")
    decode.use_limits(decode.Limits(playlists=True))
    try:
        (tmp_path / name).write_text(text.replace("FILE", "b.ts"))
        greys = [round(float(picture.mean()), -1) for _, picture in frames(tmp_path / name)]
        assert len(greys) == 20 and greys[0] == 40 and greys[-1] == 200
        (tmp_path / name).write_text(text.replace("a.ts", "http://127.0.0.1:9/a.ts"))
        with pytest.raises(UserError, match="is a list, and what it names cannot be read"):
            next(frames(tmp_path / name))
    finally:
        decode.use_limits(decode.Limits())


def test_numbered_pictures_are_not_looked_for(tmp_path):
    for number in range(3):
        (tmp_path / f"a{number}.png").write_bytes(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1])
    (tmp_path / "a%d.png").write_text("not a picture")
    with pytest.raises(UserError, match="not a video"):
        next(frames(tmp_path / "a%d.png"))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    for path in (tmp_path / "x.mp4", "/dev/zero"):
        with pytest.raises(UserError, match="is a pipe or a device"):
            next(frames(path))
    with pytest.raises(UserError, match="no name that a file can have"):
        next(frames("a\0.mp4"))


def test_frames_microseconds_apart_are_left_out(tmp_path):
    """All of them would be held for one tick of the clock."""
    times = np.r_[0, 0.1 + np.arange(50) / 90_000, 0.2, 0.2021]
    write_video(tmp_path / "dense.mp4", counting_pictures(len(times)), times)
    damage = Damage()
    kept = [time_s for time_s, _ in frames(tmp_path / "dense.mp4", damage)]
    np.testing.assert_allclose(kept, [0, 0.1, 0.2, 0.2021], atol=2e-5)
    assert damage.repeated == 49


# The clock.


def stamped(times, signal=lambda t: t):
    """Float images that hold a signal of their time."""
    return [(float(t), np.full((2, 2, 3), signal(t), np.float32)) for t in times]


@pytest.mark.parametrize(
    "times",
    [
        np.arange(300) / 30,
        7.7 + np.arange(300) / 30,
        np.round(np.arange(300) / 30, 3),  # 33, 34, 33 ms
        np.arange(300) / 30 + np.random.default_rng(0).uniform(-0.0016, 0.0016, 300) * (np.arange(300) > 0),
    ],
)
def test_clock_passes_a_constant_rate_through_untouched(times):
    images = [np.full((2, 2, 3), i % 256, np.uint8) for i in range(300)]
    ticks = list(uniform(zip(times, images, strict=True), 30, max_gap_s=0.5))
    assert len(ticks) == 300
    assert all(out is image for (_, _, out), image in zip(ticks, images, strict=True))
    np.testing.assert_allclose([t for _, t, _ in ticks], times[0] + np.arange(300) / 30)


@pytest.mark.parametrize("fps", [15, 20, 25, 29.97, 30, 50, 60, 240])
def test_clock_keeps_a_pulse_at_any_source_rate(fps):
    pulse = lambda t: np.sin(2 * np.pi * 1.5 * t)  # noqa: E731
    times = 3 + np.arange(round(8 * fps)) / fps
    ticks = list(uniform(stamped(times, pulse), 30, max_gap_s=0.5))
    at = np.array([t for _, t, _ in ticks])
    np.testing.assert_allclose(at, 3 + np.arange(len(at)) / 30)
    assert times[-1] - 1 / 30 < at[-1] <= times[-1] + 0.05 / 30
    read = np.array([image[0, 0, 0] for _, _, image in ticks])
    np.testing.assert_allclose(read, pulse(at), atol=0.06)
    assert all(image.dtype == np.float32 for _, _, image in ticks)


def test_clock_interpolates_by_hand():
    images = [np.full((1, 1, 3), v, np.uint8) for v in (10, 20, 60)]
    ticks = list(uniform(zip([0, 0.1, 0.2], images, strict=True), 1 / 0.04, max_gap_s=1))
    np.testing.assert_allclose([im[0, 0, 0] for *_, im in ticks], [10, 14, 18, 28, 44, 60], rtol=1e-6)
    assert [im.dtype for *_, im in ticks] == [np.uint8, *[np.float32] * 4, np.uint8]


def test_clock_averages_a_denser_source_by_hand():
    images = [np.full((1, 1, 3), v, np.uint8) for v in (0, 8, 100, 40, 4)]
    ticks = list(uniform(zip(np.arange(5) / 60, images, strict=True), 30, max_gap_s=1))
    np.testing.assert_allclose([im[0, 0, 0] for *_, im in ticks], [0, 0.25 * 8 + 50 + 10, 4])


def test_clock_does_not_fold_flicker_into_the_pulse():
    # 100 Hz lamps seen at 120 fps flicker at 20 Hz; every fourth frame of it would be 10 Hz.
    flicker = lambda t: np.sin(2 * np.pi * 20 * t + 1)  # noqa: E731
    ticks = list(uniform(stamped(np.arange(600) / 120, flicker), 30, max_gap_s=0.5))
    read = np.array([image[0, 0, 0] for _, _, image in ticks])[1:-1]
    assert np.abs(read).max() < 0.2


def test_clock_ends_a_segment_at_a_gap_and_fills_a_short_one():
    times = np.r_[np.arange(30) / 30, 1.4 + np.arange(30) / 30, 3.01 + np.arange(30) / 30]
    ticks = list(uniform(stamped(times), 30, max_gap_s=0.5))
    assert [s for s, _, _ in ticks] == [0] * (30 + 12 + 30) + [1] * 30
    first = [(t, im[0, 0, 0]) for s, t, im in ticks if s == 0]
    np.testing.assert_allclose([t for t, _ in first], np.arange(72) / 30)
    np.testing.assert_allclose([v for _, v in first], np.arange(72) / 30, atol=1e-5)
    assert min(t for s, t, _ in ticks if s == 1) == 3.01


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.002, 0.4), min_size=1, max_size=60),
    st.floats(-5, 5),
    st.sampled_from([20.0, 30.0, 61.3]),
)
def test_clock_is_uniform_and_never_leaves_the_range_of_its_frames(steps, start, fps):
    times = start + np.cumsum([0, *steps])
    values = np.random.default_rng(len(steps)).uniform(0, 255, len(times))
    images = [np.full((1, 1, 3), v, np.float32) for v in values]
    ticks = list(uniform(zip(times.tolist(), images, strict=True), fps, max_gap_s=0.2))
    segments = np.r_[0, np.cumsum(np.diff(times) > 0.2)]
    assert {s for s, _, _ in ticks} == set(segments.tolist())
    for segment in set(segments.tolist()):
        own_times, own_values = times[segments == segment], values[segments == segment]
        at = np.array([t for s, t, _ in ticks if s == segment])
        read = np.array([im[0, 0, 0] for s, _, im in ticks if s == segment])
        np.testing.assert_allclose(at, own_times[0] + np.arange(len(at)) / fps)
        assert own_times[-1] - 1 / fps <= at[-1] <= own_times[-1] + 0.05 / fps
        assert own_values.min() - 1e-3 <= read.min() <= read.max() <= own_values.max() + 1e-3


def test_clock_holds_few_frames():
    alive = weakref.WeakSet()

    class Image(np.ndarray):
        pass

    def source():
        for i in range(3000):
            image = np.full((2, 2, 3), i % 256, np.uint8).view(Image)
            alive.add(Owner(image))
            yield i / 120, image

    class Owner:
        def __init__(self, image):
            image.owner = self

    most = 0
    for _ in uniform(source(), 30, max_gap_s=0.5):
        most = max(most, len(alive))
    assert 0 < most < 20


@pytest.mark.parametrize(
    ("times", "fps", "gap", "words"),
    [([0, 0.1, 0.1], 30, 1, "0.1 s after 0.1 s"), ([0], 0, 1, "got 0 and 1"), ([0], 30, 0, "got 30 and 0")],
)
def test_clock_errors_print_the_value(times, fps, gap, words):
    with pytest.raises(ValueError, match=words):
        list(uniform(stamped(times), fps, max_gap_s=gap))


def test_clock_of_nothing_is_nothing():
    assert list(uniform([], 30, max_gap_s=1)) == []


def test_native_rate_by_hand():
    assert native_rate(np.arange(100) / 25) == (pytest.approx(25), True)
    assert native_rate(np.round(np.arange(900) * 1001 / 30000, 3)) == (
        pytest.approx(29.97003, abs=1e-4),
        True,
    )
    dropped = np.delete(np.round(np.arange(900) / 30, 3), [70, 71, 300, 555])
    assert native_rate(dropped) == (pytest.approx(30, abs=1e-3), False)
    jittered = np.arange(900) / 30 + np.random.default_rng(0).uniform(-0.01, 0.01, 900)
    assert native_rate(jittered) == (pytest.approx(30, abs=0.01), False)
    assert native_rate([1.0, 1.5]) == (2.0, True)
    for times in ([], [1.0], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match=f"got {len(times)}"):
            native_rate(times)


@pytest.mark.parametrize("old_fps", [15, 30, 62, 256])
def test_resampled_wave_is_the_same_pulse(old_fps):
    times = np.arange(10 * old_fps) / old_fps
    new = 0.5 + np.arange(260) / 30
    pulse = np.sin(2 * np.pi * 1.2 * times)
    read = resample_wave(pulse, times, new)
    np.testing.assert_allclose(read, np.sin(2 * np.pi * 1.2 * new), atol=0.04)
    np.testing.assert_allclose(resample_wave(3 * pulse + 2, times, new), 3 * read + 2, atol=1e-9)


@pytest.mark.parametrize("old_fps", [30, 62, 256])
@pytest.mark.parametrize("offset", [0, 100])
def test_a_gap_between_samples_is_bridged_by_a_line(old_fps, offset):
    """However dense the samples are: where none is near, a wave is neither 0 nor the last one."""
    times = np.arange(4 * old_fps) / old_fps
    kept = (times < 1.5) | (times > 2.1)
    line = offset + 3 * times
    new = 0.2 + np.arange(100) / 30
    read = resample_wave(line[kept], times[kept], new)
    np.testing.assert_allclose(read, offset + 3 * new, atol=3 / 30)
    far = (new > 1.5 + 1 / 30) & (new < 2.1 - 1 / 30)
    np.testing.assert_allclose(read[far], offset + 3 * new[far], atol=1e-9)


def test_resampled_wave_by_hand():
    np.testing.assert_allclose(resample_wave([0, 10], [0, 1], [0, 0.25, 1.0]), [0, 2.5, 10])
    np.testing.assert_allclose(resample_wave([0, 8, 100, 40, 4], np.arange(5) / 2, [0, 1, 2]), [0, 62, 4])
    np.testing.assert_allclose(resample_wave([1, 2], [0, 1], [-0.5, 1.5]), [1, 2])  # held for half a period
    same = np.random.default_rng(0).normal(size=50)
    np.testing.assert_array_equal(resample_wave(same, np.arange(50) / 30, np.arange(50) / 30), same)
    assert resample_wave([1, 2], [0, 1], []).shape == (0,)
    with pytest.raises(ValueError, match="0–1 s cannot be read at 0–4 s"):
        resample_wave([1, 2], [0, 1], [0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="3 values have 2 times"):
        resample_wave([1, 2, 3], [0, 1], [0, 1])


def test_first_frames_come_without_reading_on(tmp_path):
    path = tmp_path / "even.mp4"
    write_video(path, counting_pictures(40), np.arange(40) / 30)
    assert [number(rgb) for _, rgb in islice(frames(path), 3)] == [0, 1, 2]

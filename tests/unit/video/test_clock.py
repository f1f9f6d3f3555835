"""The clock of a file, and how its picture is laid upright: stated, measured, assumed, or given."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from sspd_jax.datasets.readers import folder
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.simulation.sample_video import write_video
from sspd_jax.video import decode, resample


def pictures(count, first=0, height=48, width=64):
    """Grey pictures that tell their number, a white corner at the top left."""
    for number in range(first, first + count):
        picture = np.full((height, width, 3), 4 * (number % 50) + 20, np.uint8)
        picture[: height // 3, : width // 3] = 255
        yield picture


def numbers(decoded):
    return [round((int(np.median(rgb[..., 1])) - 20) / 4) for _, rgb in decoded]


def encode(path, codec, *, kind=None, rate=15, count=30, pixels="yuv420p", shape=None):
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        if shape is not None:
            stream.codec_context.sample_aspect_ratio = shape
        for picture in pictures(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def read(path, **settings):
    damage = decode.Damage()
    return list(decode.frames(path, damage, **settings)), damage, decode.read_facts(path, **settings)


def test_a_stream_without_times_and_rate_is_read_at_an_assumed_rate_and_says_so(tmp_path):
    path = tmp_path / "raw.mjpeg"
    encode(path, "mjpeg", kind="mjpeg", pixels="yuvj420p")
    decoded, damage, facts = read(path)
    assert facts.clock == decode.ASSUMED and facts.fps == 30
    assert [t for t, _ in decoded] == pytest.approx(np.arange(30) / 30)
    assert "30 frames/s are assumed" in str(damage) and facts.clock_note == str(damage)
    (recording,) = folder.recordings(tmp_path)
    assert recording.meta["notes"] == [str(damage)]


def test_a_rate_that_is_stated_is_used_and_one_that_is_given_rules(tmp_path):
    for name, codec, pixels in (("a.h264", "libx264", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")):
        encode(tmp_path / name, codec, pixels=pixels)
        decoded, damage, facts = read(tmp_path / name)
        assert (facts.clock, facts.fps, str(damage)) == (decode.STATED, 15, "")
        assert "15 frames/s that it states" in facts.clock_note
        assert decoded[-1][0] == pytest.approx(29 / 15)
        decoded, damage, facts = read(tmp_path / name, fps=7.5)
        assert (facts.clock, facts.fps, facts.clock_note) == (decode.GIVEN, 7.5, "")
        assert decoded[-1][0] == pytest.approx(29 / 7.5)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="is not above 0 and 10000 Hz"):
            decode.read_facts(tmp_path / "a.avi", fps=fps)


def test_a_stream_under_a_containers_name_is_asked_for_its_own(tmp_path):
    encode(tmp_path / "a.mp4", "mjpeg", kind="mjpeg", pixels="yuvj420p")
    with pytest.raises(UserError, match=r"a\.mp4: .*times of its frames are lost.*call it a\.mjpeg if"):
        list(decode.frames(tmp_path / "a.mp4"))
    with pytest.raises(UserError, match=r"call it a\.mjpeg if"):
        decode.read_facts(tmp_path / "a.mp4")
    assert len(list(decode.frames(tmp_path / "a.mp4", fps=15))) == 30


# FFmpeg reads two files that were joined to one WebM; a third it does not see.
@pytest.mark.parametrize(("suffix", "codec", "count"), [("ts", "libx264", 3), ("webm", "libvpx", 2)])
def test_where_a_clock_starts_again_a_segment_begins(tmp_path, suffix, codec, count):
    parts = []
    for number in range(count):
        part = tmp_path / f"{number}.{suffix}"
        write_video(part, pictures(20, 20 * number), np.arange(20) / 25, codec=codec)
        parts.append(part.read_bytes())
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(parts))
    decoded, damage, _ = read(joined)
    assert damage.restarts == count - 1 and damage.repeated == 0
    assert "its clock starts again" in str(damage)
    assert len(decoded) == 20 * count
    assert numbers(decoded[::5]) == pytest.approx([number % 50 for number in range(0, 20 * count, 5)], abs=1)
    steps = np.diff([t for t, _ in decoded])
    breaks = [20 * number - 1 for number in range(1, count)]
    assert steps[breaks] == pytest.approx(np.full(count - 1, decode.BREAK_S), abs=0.01)
    assert np.delete(steps, breaks) == pytest.approx(np.full(19 * count, 0.04), abs=1e-3)
    segments = {segment for segment, _, _ in resample.uniform(iter(decoded), 25, max_gap_s=0.5)}
    assert segments == set(range(count))


class Stamped:
    """A frame of which only the time counts."""

    def __init__(self, time):
        self.time = time


@pytest.mark.parametrize(
    ("stamps", "kept", "repeated", "restarts"),
    [
        ([0, 1, 1, 2], [0, 1, 2], 1, 0),
        ([0, 1, 0.8, 2], [0, 1, 2], 1, 0),  # a slip
        ([0, 1, 2, 0.1, 3], [0, 1, 2, 3], 1, 0),  # one stray frame, and the clock goes on
        ([0, 1, 2, 0.1], [0, 1, 2], 1, 0),
        ([0, 1, 2, 0.0, 0.1, 0.2], [0, 1, 2, 3, 3.1, 3.2], 0, 1),
        ([5, 6, 0.0, 0.1, 0.0, 0.1], [5, 6, 7, 7.1], 2, 1),
    ],
)
def test_stray_times_are_told_from_a_clock_that_starts_again(stamps, kept, repeated, restarts):
    damage = decode.Damage()
    found = [t for t, _ in decode._timed(map(Stamped, stamps), 1 / 30, False, damage)]
    assert found == pytest.approx(kept)
    assert (damage.repeated, damage.restarts) == (repeated, restarts)


def with_matrix(path, a, b, c, d):
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4
    at += 4 + (32 if data[at] == 1 else 20) + 16
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "corner", "rotation", "mirrored"),
    [
        # Where the white corner lands is computed by hand: x' = a x + c y, y' = b x + d y.
        ((1, 0, 0, 1), (0, 0), 0, False),
        ((-1, 0, 0, -1), (-1, -1), 180, False),
        ((0, 1, -1, 0), (0, -1), 270, False),
        ((0, -1, 1, 0), (-1, 0), 90, False),
        ((-1, 0, 0, 1), (0, -1), 0, True),
        ((1, 0, 0, -1), (-1, 0), 180, True),
        ((0, 1, 1, 0), (0, 0), 270, True),
        ((0, -1, -1, 0), (-1, -1), 90, True),
    ],
)
def test_the_display_matrix_is_followed_mirrors_too(tmp_path, matrix, corner, rotation, mirrored):
    path = tmp_path / "a.mp4"
    write_video(path, pictures(3), np.arange(3) / 30)
    with_matrix(path, *matrix)
    (_, rgb), *_ = decode.frames(path)
    assert rgb.shape == ((64, 48, 3) if matrix[0] == 0 else (48, 64, 3))
    white = [(y, x) for y in (0, -1) for x in (0, -1) if rgb[y, x].min() > 200]
    assert white == [corner]
    facts = decode.read_facts(path)
    assert (facts.width, facts.height) == rgb.shape[1::-1]
    assert (facts.rotation, facts.mirrored) == (rotation, mirrored)
    # What is stated leads to the same picture: turned counter-clockwise, then left for right.
    (_, plain), *_ = list(decode.frames(_plain(tmp_path)))
    turned = np.rot90(plain, rotation // 90)
    np.testing.assert_array_equal(turned[:, ::-1] if mirrored else turned, rgb)


def _plain(folder):
    write_video(folder / "plain.mp4", pictures(3), np.arange(3) / 30)
    return folder / "plain.mp4"


@pytest.mark.parametrize(("shape", "size"), [(Fraction(2, 1), (128, 48)), (Fraction(1, 2), (64, 96))])
def test_pixels_are_made_square(tmp_path, shape, size):
    encode(tmp_path / "a.mp4", "libx264", shape=shape, count=3)
    (_, rgb), *_ = decode.frames(tmp_path / "a.mp4")
    facts = decode.read_facts(tmp_path / "a.mp4")
    assert (facts.width, facts.height) == size == rgb.shape[1::-1]


def test_the_stream_that_players_show_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        small, main = (container.add_stream("libx264", rate=25) for _ in range(2))
        small.width, small.height, small.pix_fmt = 32, 24, "yuv420p"
        main.width, main.height, main.pix_fmt = 64, 48, "yuv420p"
        small.disposition = av.stream.Disposition(0)
        main.disposition = av.stream.Disposition.default
        for stream, size in ((main, {}), (small, {"height": 24, "width": 32})):
            for picture in pictures(10, **size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    assert decode.read_facts(path).width == 64
    assert numbers(decode.frames(path)) == list(range(10))

"""Videos that are written: sizes, times, memory, and what is left of one that breaks off."""

import weakref

import numpy as np
import pytest

from sspd_jax.errors import ConfigError, StorageError
from sspd_jax.video import decode, encode


def pictures(times_s, height=48, width=64):
    for number, time_s in enumerate(times_s):
        yield time_s, np.full((height, width, 3), (40 + 10 * number, 90, 200 - 10 * number), np.uint8)


def test_pictures_come_back_with_their_times(tmp_path):
    times_s = np.array([0, 0.033, 0.1, 0.133, 0.5, 0.533])  # a camera that waits
    assert encode.write_video(tmp_path / "a.mp4", pictures(times_s)) == 6
    back = list(decode.frames(tmp_path / "a.mp4"))
    assert [time_s for time_s, _ in back] == pytest.approx(times_s, abs=1e-3)
    for (_, written), (_, read) in zip(pictures(times_s), back, strict=True):
        assert np.abs(written.astype(int) - read).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_odd_side_is_drawn_out_by_a_pixel(tmp_path):
    encode.write_video(tmp_path / "a.mp4", pictures([0, 0.1], 47, 63))
    facts = decode.read_facts(tmp_path / "a.mp4")
    assert (facts.width, facts.height, facts.codec) == (64, 48, "h264")


def test_pictures_are_let_go_of(tmp_path):
    alive = weakref.WeakSet()

    class Picture(np.ndarray):
        pass

    def frames():
        for number in range(200):
            picture = np.zeros((32, 32, 3), np.uint8).view(Picture)
            alive.add(picture)
            yield number / 30, picture
            del picture
            assert len(alive) <= 2

    # Sets of arrays compare them; by identity they are told apart.
    Picture.__hash__ = object.__hash__
    Picture.__eq__ = object.__eq__
    assert encode.write_video(tmp_path / "a.mp4", frames()) == 200


def test_a_video_that_breaks_off_leaves_what_was_there(tmp_path):
    def broken():
        yield from pictures([0, 0.1])
        raise ValueError("broken")

    (tmp_path / "a.mp4").write_bytes(b"before")
    with pytest.raises(ValueError, match="broken"):
        encode.write_video(tmp_path / "a.mp4", broken())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"before"


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.gif: no such kind .* \.mp4, \.mov, \.mkv"):
        encode.write_video(tmp_path / "a.gif", pictures([0, 0.1]))
    with pytest.raises(StorageError, match="cannot be written"):
        encode.write_video(tmp_path / "nowhere" / "a.mp4", pictures([0, 0.1]))

"""Frames in the accelerators' memory."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from sspd_jax.datasets import device_cache
from sspd_jax.datasets.input_pipeline import Choice
from sspd_jax.errors import UserError
from sspd_jax.training import sharding


def test_frames_live_on_accelerators_with_room_only():
    class Device:
        platform, process_index = "gpu", 0

        def memory_stats(self):
            return {"bytes_limit": 80e9, "bytes_in_use": 20e9}

    devices = [Device(), Device()]
    assert device_cache.should_cache("auto", 29e9, devices)  # 14.5 GB on each, of 60
    assert device_cache.should_cache("auto", 30e9, devices)  # a quarter of what is free, to the byte
    assert not device_cache.should_cache("auto", 31e9, devices)
    assert device_cache.should_cache("always", 1e15, devices) and not device_cache.should_cache(
        "never", 1, devices
    )
    assert not device_cache.should_cache("auto", 1, jax.devices())  # CPU
    elsewhere = Device()
    elsewhere.process_index, elsewhere.memory_stats = 1, None  # of another process: nobody here can ask it
    assert device_cache.should_cache("auto", 29e9, [Device(), elsewhere])
    mute = Device()
    mute.memory_stats = lambda: None  # it does not say how much room it has
    assert not device_cache.should_cache("auto", 29e9, [Device(), mute])


@pytest.fixture
def three():
    """Segments of 3, 5 and 2 frames, of which the first is not chosen; frame k of segment s is 10 s + k."""
    segments = [SimpleNamespace(number=s, n_frames=n) for s, n in enumerate((3, 5, 2))]

    def clip(segment, start, length, out):
        out[:] = (10 * segment.number + start + np.arange(length))[:, None, None, None]

    return SimpleNamespace(segments=segments, crop_size=2, clip=clip, data_dir="there")


CHOICE = Choice(((2,), (1,)), ((), ()), ())


def test_frames_lie_one_after_the_other_in_the_order_they_were_chosen(three):
    for count, zeros in ((1, 0), (4, 1)):
        where = sharding.frame_sharding(sharding.data_mesh(jax.devices()[:count]))
        found = device_cache.load(three, CHOICE, where)
        expected = [20, 21, 10, 11, 12, 13, 14] + [0] * zeros
        np.testing.assert_array_equal(np.asarray(found.frames)[:, 0, 1, 2], expected)
        assert found.first == {2: 0, 1: 2}
        starts = found.starts(np.array([1, 2, 1], np.int32), np.array([3, 0, 0], np.int32))
        assert starts.dtype == np.int32 and starts.tolist() == [5, 0, 2]
    assert device_cache.n_bytes(three, CHOICE) == 7 * 2 * 2 * 3


@pytest.mark.parametrize("full", [True, False])
def test_frames_that_do_not_fit_are_said(three, full, monkeypatch):
    def fails(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 80 GB" if full else "INTERNAL: cable")

    monkeypatch.setattr(device_cache.jax, "make_array_from_callback", fails)
    monkeypatch.setattr(device_cache, "n_bytes", lambda dataset, choice: 12.34e9)
    where = sharding.frame_sharding(sharding.data_mesh(jax.devices()[:4]))
    said = r"there: 12\.3 GB of frames do not fit into the memory of 4 devices.*on_device=never"
    with pytest.raises(UserError if full else jax.errors.JaxRuntimeError, match=said if full else "cable"):
        device_cache.load(three, CHOICE, where)

"""Frames in the accelerators' memory."""

import jax

from sspd_jax.datasets import device_cache


def test_frames_live_on_accelerators_with_room_only():
    class Device:
        platform, process_index = "gpu", 0

        def memory_stats(self):
            return {"bytes_limit": 80e9, "bytes_in_use": 20e9}

    devices = [Device(), Device()]
    assert device_cache.should_cache("auto", 29e9, devices)  # 14.5 GB on each, of 60
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

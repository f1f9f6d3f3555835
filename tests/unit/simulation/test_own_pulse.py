"""A clip's own pulse: found, measured, and taken out."""

import dataclasses

import numpy as np
import pytest

from sspd_jax.simulation import own_pulse, sample_video
from sspd_jax.video import skin_map
from sspd_jax.video.skin_traces import SkinTraces

PARTS = len(skin_map.PATCHES)


def traces(bpm=(), seconds=12.0, fps=30.0, noise=0.02, gains=None, seed=0):
    """Traces of a face with some pulses of 0.5 % of green, and noise in grey levels."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(seconds * fps)) / fps
    blood = sum((sample_video.ppg(times_s, one) for one in bpm), np.zeros(len(times_s)))
    change = -0.005 * blood[:, None] * [0.45, 1.0, 0.7]
    colour = np.array([180.0, 130.0, 110.0])
    gains = np.ones(PARTS) if gains is None else gains
    patches = colour * (1 + change[:, None] * gains[:, None])
    still = np.ones(len(times_s), np.float32)
    return SkinTraces(
        time_s=times_s,
        skin=colour * (1 + change) + noise * rng.standard_normal((len(times_s), 3)),
        skin_area=900 * still,
        patches=patches + 2 * noise * rng.standard_normal(patches.shape),
        patch_area=np.full((len(times_s), PARTS), 60, np.float32),
        eyes=np.ones((len(times_s), 3)),
        crop=np.ones((len(times_s), 3)),
        behind=np.ones((len(times_s), 3)),
        pose=np.zeros((len(times_s), 3)),
        geometry=np.ones((len(times_s), 4)),
        residual=np.zeros((len(times_s), 4)),
    )


def test_a_pulse_is_found_and_noise_is_not():
    lines = own_pulse.find_lines(traces([66.0]))
    assert lines[0] == pytest.approx(66, abs=1.5)
    assert len(lines) <= own_pulse.MOST_LINES
    nothing = own_pulse.measure_own_pulse(traces(seconds=3.0))  # too short to tell
    assert nothing.lines_bpm == ()
    assert (nothing.change == 0).all()
    assert (nothing.over_face(32) == 1).all()


def test_what_is_measured_is_what_beats():
    seen = traces([66.0])
    own = own_pulse.measure_own_pulse(seen)
    left = seen.skin / (1 + own.change) / seen.skin.mean(0) - 1
    before = seen.skin / seen.skin.mean(0) - 1
    line = (own.lines_bpm[0],)
    for colour in range(3):
        was, remains = (own_pulse.in_bands(1 + x[:, colour], seen.time_s, line).std() for x in (before, left))
        assert remains < 0.05 * was


def test_patches_beat_as_strongly_as_they_do_and_what_goes_its_own_way_is_not_trusted():
    gains = np.linspace(0.5, 1.5, PARTS)
    own = own_pulse.measure_own_pulse(traces([66.0], gains=gains))
    np.testing.assert_allclose(own.gains[:, 1], gains, atol=0.15)
    cheeks = list(skin_map.PATCHES).index("cheek_right"), list(skin_map.PATCHES).index("cheek_left")
    over = own.over_face(96)[..., 1]
    assert 0.5 <= over.min() < over.max() <= 1.6
    assert over[50, 25] == pytest.approx(gains[cheeks[0]], abs=0.25)  # the person's right, our left
    assert over[50, 70] == pytest.approx(gains[cheeks[1]], abs=0.25)
    alone = traces([66.0])
    apart = alone.patches.copy()
    apart[:, 0] *= 1 + 0.01 * np.sin(2 * np.pi * 66 / 60 * alone.time_s + 1.3)[:, None]
    own = own_pulse.measure_own_pulse(dataclasses.replace(alone, patches=apart))
    assert own.gains[0, 1] < own_pulse.MOST_GAIN


def test_bands_need_no_even_clock_and_bridge_what_is_not_seen():
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.uniform(0.02, 0.046, 400))
    wave = 0.01 * np.cos(2 * np.pi * 1.2 * times_s)
    values = 120 * (1 + wave)
    values[200:205] = np.nan
    band = own_pulse.in_bands(values, times_s, (72.0,))
    assert np.corrcoef(band, wave)[0, 1] > 0.97
    assert own_pulse.in_bands(values, times_s, (140.0,)).std() < 0.1 * wave.std()
    assert (own_pulse.in_bands(np.full(50, np.nan), np.arange(50) / 30, (72.0,)) == 0).all()
    assert np.abs(own_pulse.in_bands(np.full(50, 9.0), np.arange(50) / 30, (72.0,))).max() < 1e-12

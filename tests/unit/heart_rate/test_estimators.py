"""One registry of estimators: every name gives a rate, and files of earlier versions are understood."""

import numpy as np
import pytest

from sspd_jax.evaluation import protocol
from sspd_jax.heart_rate import estimators, rate
from sspd_jax.heart_rate.estimators import EARLIER_NAMES, ESTIMATORS, OF_RAW_WAVES, estimate

FPS = 30.0
TIME_S = np.arange(600) / FPS


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_finds_a_sine(name):
    # The coarsest, a periodogram of 1024 points, has steps of 1.8 bpm.
    assert estimate(name, np.sin(2 * np.pi * 1.3 * TIME_S), FPS) == pytest.approx(78, abs=1.0)


def test_only_the_harmonic_one_halves_a_strong_second_harmonic():
    wave = 0.8 * np.sin(2 * np.pi * 0.9 * TIME_S) + np.sin(2 * np.pi * 1.8 * TIME_S)
    assert estimate("harmonic", wave, FPS) == pytest.approx(54, abs=0.2)
    assert estimate("spectrum", wave, FPS) == pytest.approx(108, abs=0.2)


def test_the_band_is_kept():
    wave = np.sin(2 * np.pi * 1.0 * TIME_S) + 0.5 * np.sin(2 * np.pi * 2.5 * TIME_S)
    assert estimate("spectrum", wave, FPS, (2.0, 3.0)) == pytest.approx(150, abs=0.3)
    assert estimate("periodogram", wave, FPS, (2.0, 3.0)) == pytest.approx(150, abs=1.0)


def test_the_default_comes_first_and_takes_raw_waves():
    assert OF_RAW_WAVES == ("harmonic", "spectrum", "beats", "wavelet")


def test_protocols_of_earlier_versions_are_understood(tmp_path):
    assert set(EARLIER_NAMES.values()) <= set(ESTIMATORS)
    text = (protocol.PRESETS / "ours.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('hr_estimator = "spectrum"', 'read_out = "interpolated_peak"'))
    assert "read_out" in path.read_text()
    assert protocol.load(str(path)).hr_estimator == "spectrum"


def test_the_hann_periodogram_is_the_windowed_transform():
    wave = np.random.default_rng(0).standard_normal((300, 2))
    hz, power = rate.hann_periodogram(wave, FPS, padding=4)
    assert len(hz) == 4 * 512 // 2 + 1 and hz[-1] == 15.0
    direct = np.abs(np.fft.rfft(wave * np.hanning(300)[:, None], 2048, axis=0)) ** 2
    ratio = power[1:-1] / direct[1:-1]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-10)  # but for one factor


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="samples"):
        estimators.estimate("spectrum", np.zeros(4), FPS)


@pytest.mark.parametrize(("samples", "points"), [(256, 256), (257, 512), (300, 512)])
def test_the_padded_periodogram_is_the_transform_of_the_next_power_of_two(samples, points):
    wave = np.random.default_rng(1).standard_normal(samples) + 3
    hz, power = estimators.padded_periodogram(wave, FPS)
    np.testing.assert_allclose(hz, np.arange(points // 2 + 1) * FPS / points)
    direct = np.abs(np.fft.rfft(wave, points)) ** 2
    ratio = power[1:-1] / direct[1:-1]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    inside = (hz >= 0.6) & (hz <= 3.6)
    highest = 60 * hz[inside][direct[inside].argmax()]
    assert estimate("periodogram", wave, FPS, (0.6, 3.6)) == pytest.approx(highest)


@pytest.mark.parametrize("name", ["periodogram", "hamming_periodogram"])
def test_a_band_between_two_bins_has_no_rate_and_its_ends_belong_to_it(name):
    wave = np.sin(2 * np.pi * 1.3 * TIME_S)
    step_hz = 30 / {"periodogram": 1024, "hamming_periodogram": 5400}[name]
    assert np.isnan(estimate(name, wave, FPS, (40.2 * step_hz, 40.8 * step_hz)))
    for band in ((40 * step_hz, 40.8 * step_hz), (39.2 * step_hz, 40 * step_hz)):
        assert estimate(name, wave, FPS, band) == pytest.approx(60 * 40 * step_hz)

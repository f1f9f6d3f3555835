"""Spectra and shares of power: hand values, bands at every frame rate, finite gradients, float32 FFTs."""

import jax
import jax.numpy as jnp
import method_oracles as oracle
import numpy as np
import pytest

from sspd_jax.method import spectrum

pytestmark = pytest.mark.usefixtures("quick_compilation")


def tone(hz, *, fps=30.0, t=300, amplitude=1.0, phase=0.4):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(t) / fps + phase)).astype(np.float32)


def test_power_of_a_tone_by_hand():
    power = spectrum.power_spectrum(3 + tone(2.0, t=60))
    expected = np.zeros(31)
    expected[4] = (60 / 2) ** 2  # 2 Hz is bin 2·60/30; a real tone of amplitude 1 has t/2 there
    np.testing.assert_allclose(power, expected, atol=1e-3)


@pytest.mark.parametrize("t", [1, 2, 15, 16])
def test_power_spectrum_is_the_squared_transform_without_the_mean(t):
    waves = np.random.default_rng(t).normal(2, 1, (3, t)).astype(np.float32)
    expected = np.stack([oracle.power(w) for w in waves])
    np.testing.assert_allclose(spectrum.power_spectrum(waves), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("wave", "expected"),
    [
        (tone(1.2), 1.0),
        (tone(0.5), 1.0),  # both ends belong to the band
        (tone(3.0), 1.0),
        (tone(0.4), 0.0),
        (tone(3.1), 0.0),
        (tone(5.0), 0.0),
        (tone(15.0), 0.0),  # the total includes the Nyquist frequency
        (tone(1.2) + tone(5.0), 0.5),
        (tone(1.2) + tone(0.4), 0.5),  # below the band counts as well
        (2 * tone(1.2) + tone(5.0), 0.8),
        (7 + tone(1.2) + tone(5.0), 0.5),  # DC is in neither
    ],
)
def test_snr_is_the_share_of_power_in_the_pulse_band(wave, expected):
    assert spectrum.snr(wave, 30.0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("fps", [6.0, 7.5, 20.0, 25.0, 29.97, 30.0, 60.0])
@pytest.mark.parametrize("t", [100, 151])
def test_snr_equals_the_loop_at_every_rate(fps, t):
    wave = np.random.default_rng(0).normal(1, 1, t).astype(np.float32)
    assert spectrum.snr(wave, fps) == pytest.approx(oracle.snr(wave, fps), rel=1e-5)


@pytest.mark.parametrize("fps", [20.0, 25.0, 30.0, 60.0])
def test_band_is_the_same_in_hertz_at_every_rate(fps):
    for hz, expected in ((0.5, 1.0), (3.0, 1.0), (0.4, 0.0), (3.2, 0.0)):
        wave = tone(hz, fps=fps, t=int(10 * fps))  # 10 s: a bin every 0.1 Hz
        assert spectrum.snr(wave, fps) == pytest.approx(expected, abs=1e-5)


def test_power_above_15_hz_does_not_count():
    wave = tone(1.2, fps=60.0, t=600)
    assert spectrum.snr(wave + tone(16.0, fps=60.0, t=600), 60.0) == pytest.approx(1.0, abs=1e-5)
    assert spectrum.snr(wave + tone(15.0, fps=60.0, t=600), 60.0) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(
    "function", [spectrum.snr, lambda w, fps: spectrum.out_of_band_ratio(w, fps, n_bins=9)]
)
def test_rates_that_cannot_hold_the_band_are_refused(function):
    with pytest.raises(ValueError, match=r"5\.9"):
        function(tone(1.0), 5.9)


@pytest.mark.parametrize(
    "function", [spectrum.snr, lambda w, fps: spectrum.out_of_band_ratio(w, fps, n_bins=4)]
)
def test_waves_too_short_to_show_a_pulse_are_refused(function):
    with pytest.raises(ValueError, match="9 samples at 30 Hz"):
        function(np.ones(9, np.float32), 30.0)


def test_band_bins_are_closed_however_their_quotients_round():
    for fps in (20.0, 25.0, 29.97, 30.0, 60.0):
        for t in (64, 282, 286, 292, 300, 1000):
            exact = [0.5 * t <= k * fps <= 3 * t for k in range(t // 2 + 1)]  # without a division
            np.testing.assert_array_equal(spectrum.band_bins(t, fps, 0.5, 3.0), exact)


def test_amplitude_spectrum_by_hand():
    # A mean of 2 gives 2·t in bin 0, a tone of amplitude 1 gives t/2 in its bin.
    amplitude = spectrum.amplitude_spectrum(2 + tone(2.0, t=60), 10)
    np.testing.assert_allclose(amplitude, [1, 0, 0, 0, 0.25, 0, 0, 0, 0, 0], atol=1e-6)


def test_out_of_band_ratio_by_hand():
    # Out of band: DC 2·t; in band: t/2. The upper edge, 3 Hz, is out as well.
    t = 60
    assert spectrum.out_of_band_ratio(2 + tone(2.0, t=t), 30.0, n_bins=30) == pytest.approx(4, rel=1e-5)
    both = tone(2.0, t=t) + tone(3.0, t=t)
    assert spectrum.out_of_band_ratio(both, 30.0, n_bins=30) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_out_of_band_ratio_equals_the_loop(fps):
    waves = np.random.default_rng(0).normal(0, 1, (2, 64)).astype(np.float32)
    expected = [oracle.out_of_band(w, fps, 30) for w in waves]
    np.testing.assert_allclose(spectrum.out_of_band_ratio(waves, fps, n_bins=30), expected, rtol=1e-5)


FUNCTIONS = {
    "power": spectrum.power_spectrum,
    "snr": lambda w: spectrum.snr(w, 30.0),
    "inverse snr": lambda w: 1 / spectrum.snr(w, 30.0),
    "amplitude": lambda w: spectrum.amplitude_spectrum(w, 20),
    "out of band": lambda w: spectrum.out_of_band_ratio(w, 30.0, n_bins=20),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_flat_waves_have_finite_values_and_gradients_in_float32(name, dtype):
    values, pull_back = jax.vjp(FUNCTIONS[name], jnp.stack([jnp.zeros(40, dtype), jnp.full(40, 3, dtype)]))
    (gradient,) = pull_back(jnp.ones_like(values))
    assert values.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert np.isfinite(values).all()
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_a_wave_without_power_has_the_best_snr():
    assert spectrum.snr(jnp.full((40,), 2.0), 30.0) == 1

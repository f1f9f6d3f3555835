from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from sspd_jax.heart_rate import rate as rate_module
from sspd_jax.heart_rate.filters import bandpass, detrend
from sspd_jax.heart_rate.rate import spectral_peak_rate, wavelet_peak_rate
from sspd_jax.heart_rate.wave import Wave

GOLDEN = Path(__file__).parents[2] / "golden"
RATES = np.load(GOLDEN / "heart_rate.npz")


def sine(bpm, seconds, fps):
    return np.sin(2 * np.pi * bpm / 60 * np.arange(round(seconds * fps)) / fps)


# Filters.


@pytest.mark.parametrize(
    ("fps", "order", "band"), [(30, 4, (0.5, 3)), (20, 1, (0.75, 3)), (35.1, 3, (0.7, 2.5))]
)
def test_bandpass_is_filtfilt(fps, order, band):
    x = np.random.default_rng(0).normal(size=(2, 200)) + 50
    b, a = signal.butter(order, band, "bandpass", fs=fps)
    np.testing.assert_allclose(bandpass(x, *band, fps, order), signal.filtfilt(b, a, x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("samples", [5, 6, 40])
@pytest.mark.parametrize("smoothness", [3.0, 100.0])
def test_detrend_is_the_dense_formula_from_five_samples_on(samples, smoothness):
    x = np.random.default_rng(samples).normal(size=samples).cumsum()
    second = np.diff(np.eye(samples), n=2, axis=0)
    trend = np.linalg.solve(np.eye(samples) + smoothness**2 * second.T @ second, x)
    np.testing.assert_allclose(detrend(x, smoothness), x - trend, atol=1e-9)
    with pytest.raises(ValueError, match="need 5 samples or more, got 4"):
        detrend(x[:4])


def test_bandpass_at_1000_hz_keeps_the_pulse():
    wave = sine(72, 20, 1000)
    middle = slice(5000, 15000)
    np.testing.assert_allclose(bandpass(wave + 9, 0.5, 3, 1000, 4)[middle], wave[middle], atol=0.02)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bandpass(np.ones(27), 0.5, 3, 30, 4), "more than 27 samples, got 27"),
        (lambda: bandpass(np.ones(99), 0.5, 3, 6, 4), "0.5–3 Hz does not lie inside 0–3 Hz"),
        (lambda: bandpass(np.ones(99), 3, 0.5, 30, 4), "3–0.5 Hz"),
        (lambda: wavelet_peak_rate(np.ones(20), 30), "got 20"),
        (lambda: Wave(np.ones((2, 2)), 30.0), r"\(2, 2\)"),
        (lambda: Wave(np.ones(2), 0.0), "0.0"),
    ],
)
def test_errors_print_the_value(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# Rate.


@pytest.mark.parametrize("j", range(7))
def test_rate_equals_the_released_read_out(j):
    assert wavelet_peak_rate(RATES[f"{j}/wave"], 30) == RATES[f"{j}/hr_cal"]


def released_read_out(wave, fps):
    """The published read-out, row by row and sample by sample."""
    x = signal.filtfilt(*signal.butter(4, [0.5, 3], "bandpass", fs=fps), np.asarray(wave, np.float64))
    n = 2 ** int(np.ceil(np.log2(len(x))))
    omega = 2 * np.pi * np.fft.fftfreq(n, 1 / fps)
    rows = []
    for k in range(107):
        scale = (6 + 38**0.5) / (4 * np.pi * (3.75 - k * 15 / 512))
        psi = (scale * omega[1] * n) ** 0.5 * np.pi**-0.25 * np.exp(-((scale * omega - 6) ** 2) / 2)
        rows.append((scale, np.fft.ifft(np.fft.fft(x, n) * psi)[: len(x)]))
    c = np.argmax([np.abs(w).mean() for _, w in rows])
    a = sum(w.real / s**0.5 * np.exp(-(((k - c) / (0.08 * 107)) ** 2)) for k, (s, w) in enumerate(rows))
    peaks = [i for i in range(1, len(a) - 1) if a[i] >= a[i - 1] and a[i] > a[i + 1]]
    return np.mean([60 * fps / (q - p) for p, q in pairwise(peaks)])


@pytest.mark.parametrize(("fps", "samples"), [(30, 256), (20, 300), (59.94, 700)])
def test_rate_at_other_fps_is_the_formula(fps, samples):
    rng = np.random.default_rng(samples)
    wave = sine(83, samples / fps, fps) + rng.normal(0, 0.5, samples)
    assert wavelet_peak_rate(wave, fps) == pytest.approx(released_read_out(wave, fps), abs=1e-9)


def test_rate_of_a_long_wave_is_the_same_in_pieces(monkeypatch):
    wave = sine(66, 60, 30) + np.random.default_rng(3).normal(0, 1, 1800)
    whole = wavelet_peak_rate(wave, 30)
    monkeypatch.setattr(rate_module, "VALUES_AT_ONCE", 5 * 2048)
    assert wavelet_peak_rate(wave, 30) == pytest.approx(whole, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    bpm=st.floats(45, 170),
    gain=st.floats(1e-3, 1e3),
    offset=st.floats(-1e4, 1e4),
    fps=st.sampled_from([20.0, 25.0, 30.0, 60.0]),
)
def test_rate_ignores_gain_offset_and_sign(bpm, gain, offset, fps):
    # So long that its first and last beat, which the end of the wave shortens, weigh little at 45 bpm too.
    wave = sine(bpm, 40, fps)
    rate = wavelet_peak_rate(wave, fps)
    # The mean of 60·fps/interval is high by the square of the intervals' rounding to whole samples.
    assert rate == pytest.approx(bpm, abs=0.25 + (bpm / 60 / fps) ** 2 * bpm)
    assert wavelet_peak_rate(gain * wave + offset, fps) == pytest.approx(rate, abs=0.3)
    assert wavelet_peak_rate(-wave, fps) == pytest.approx(rate, abs=0.5 + (bpm / 60 / fps) ** 2 * bpm)


@pytest.mark.parametrize(
    "wave",
    [np.zeros(300), np.full(300, 0.1), np.full(300, -1e9), np.full(300, np.nan), np.r_[np.inf, np.ones(299)]],
)
def test_rate_of_nothing_is_nan(wave):
    assert np.isnan(wavelet_peak_rate(wave, 30))


def test_rate_of_one_beat_is_nan():
    assert np.isnan(wavelet_peak_rate(np.exp(-((np.arange(28) - 14) ** 2) / 20.0), 30))


@pytest.mark.parametrize(
    ("wave", "peaks"),
    [
        ([0, 1, 0, 2, 2, 1], [1, 4]),
        ([3, 2, 2, 1, 1], [2]),
        ([1, 2, 3, 2], [2]),
        ([2, 1, 0], []),
        ([2, 2, 1], [1]),
    ],
)
def test_peaks_are_where_no_neighbour_is_higher_and_the_next_is_lower(wave, peaks):
    assert rate_module._peaks(np.array(wave)).tolist() == peaks


def test_a_spectrums_maxima_lie_where_its_bins_are_highest():
    """Two sines on bins of 256 samples: each maximum with its own power."""
    time_s = np.arange(256) / 25.6
    wave = np.sin(2 * np.pi * 1.2 * time_s) + 0.5 * np.sin(2 * np.pi * 2.0 * time_s)
    hz, power = rate_module.hann_periodogram(wave, 25.6)
    peaks = rate_module._spectral_peaks(wave, 25.6, (0.6, 3.6))
    highest = peaks.power.argsort()[::-1][:2]
    np.testing.assert_allclose(peaks.hz[highest], [1.2, 2.0], atol=0.01)
    at = [np.abs(hz - one).argmin() for one in (1.2, 2.0)]
    near = [power[i - 8 : i + 9].max() for i in at]
    np.testing.assert_allclose(peaks.power[highest], near, rtol=0.02)


@pytest.mark.parametrize("fps", [7.3, 9.0, 10.7])
def test_a_spectrum_needs_twice_the_bands_end_and_no_more(fps):
    wave = np.sin(2 * np.pi * 1.3 * np.arange(200) / fps)
    assert spectral_peak_rate(wave, fps) == pytest.approx(78, abs=0.3)
    with pytest.raises(ValueError, match=r"at 7\.2 Hz have no spectrum up to 3\.6 Hz"):
        spectral_peak_rate(wave, 7.2)
    assert np.isnan(spectral_peak_rate(np.zeros(8), fps))
    with pytest.raises(ValueError, match="7 samples"):
        spectral_peak_rate(np.zeros(7), fps)


# Wave.


def test_wave_knows_its_times():
    wave = Wave(np.zeros(60, np.float32), 20.0, 5.0)
    assert wave.duration_s == 3.0
    np.testing.assert_allclose(wave.times_s[[0, -1]], [5.0, 5.0 + 59 / 20])
    assert Wave(np.zeros(3), 0.5).duration_s == 6  # one sample in two seconds is slow, not wrong

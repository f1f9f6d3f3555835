"""Classical methods and their filters against rPPG-Toolbox's numbers, SciPy, and themselves in NumPy."""

import functools
from pathlib import Path

import classical_oracles as oracles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sspd_jax.heart_rate import classical, jax_filters
from sspd_jax.heart_rate.classical import METHODS, chrom, green, pos, read_trace
from sspd_jax.heart_rate.rate import spectral_peak_rate, wavelet_peak_rate

pytestmark = pytest.mark.usefixtures("quick_compilation")

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "classical_methods.npz")
BLOOD = np.array([0.33, 0.77, 0.53])  # how strongly a pulse colours red, green and blue


def trace(seed, fps, samples, *, bpm=72.0, pulse=0.01, light=0.02, noise=0.1):
    """Skin with a pulse under slowly changing and flickering white light, [samples, 3]."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / fps
    beat = np.sin(2 * np.pi * bpm / 60 * time) + 0.3 * np.sin(4 * np.pi * bpm / 60 * time + 1)
    flicker = oracles.bandpass(rng.normal(size=samples), 0.3, 4, fps, 2)
    shine = 1 + light * flicker / flicker.std() + 0.02 * np.sin(0.3 * time)
    skin = np.array([150, 110, 90]) * (1 - pulse * BLOOD * beat[:, None])
    return skin * shine[:, None] + rng.normal(0, noise, (samples, 3))


def in_float64(function, *arguments):
    with jax.enable_x64(True):
        return np.array(function(*arguments))


@functools.partial(jax.jit, static_argnums=(0, 2))
def compiled(name, rgb, fps):
    return METHODS[name](rgb, fps)


# Every new shape compiles, which takes longer than the rest: the tests share a few.
SEVERAL = np.stack([trace(seed, 30, 300, bpm=50 + 15 * seed, light=0.05) for seed in range(6)])


# Filters.


@pytest.mark.parametrize(
    ("fps", "order", "band"), [(30, 4, (0.5, 3)), (20, 1, (0.75, 3)), (35.1, 3, (0.7, 2.5))]
)
def test_bandpass_is_filtfilt(fps, order, band):
    x = np.random.default_rng(0).normal(size=(2, 3, 200)) + 50
    ours = in_float64(jax.jit(lambda x: jax_filters.bandpass(x, *band, fps, order)), x)
    np.testing.assert_allclose(ours, oracles.bandpass(x, *band, fps, order), rtol=0, atol=1e-9)


def test_detrend_is_the_dense_formula():
    x = np.random.default_rng(1).normal(size=(2, 90)).cumsum(1)
    second_difference = np.diff(np.eye(90), n=2, axis=0)
    trend = x @ np.linalg.inv(np.eye(90) + 100**2 * second_difference.T @ second_difference)
    ours = in_float64(jax.jit(jax_filters.detrend, static_argnums=1), x, 100)
    np.testing.assert_allclose(ours, x - trend, atol=1e-9)


def test_filters_of_three_samples_and_of_half_an_hour_are_scipys():
    detrend = jax.jit(jax_filters.detrend, static_argnums=1)
    np.testing.assert_allclose(in_float64(detrend, np.array([1.0, 2, 4]), 3.0), oracles.detrend([1, 2, 4], 3))
    x = np.random.default_rng(2).normal(size=54_000).cumsum() + 100
    np.testing.assert_allclose(in_float64(detrend, x, 100.0), oracles.detrend(x, 100), atol=2e-9)
    x = x / np.abs(x).max()
    ours = in_float64(jax.jit(lambda x: jax_filters.bandpass(x, 0.7, 2.5, 30.0, 3)), x)
    np.testing.assert_allclose(ours, oracles.bandpass(x, 0.7, 2.5, 30, 3), rtol=0, atol=1e-9)


def test_filters_keep_float32s_digits():
    x = np.random.default_rng(3).normal(size=3000).cumsum() + 1000
    for ours, exact in (
        (jax_filters.detrend(x.astype(np.float32), 100), oracles.detrend(x, 100)),
        (jax_filters.bandpass(x.astype(np.float32), 0.75, 3, 30, 1), oracles.bandpass(x, 0.75, 3, 30, 1)),
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, exact, atol=2e-3 * exact.std())


# Methods.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("j", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_methods_equal_the_toolbox_and_read_the_true_rate(method, j):
    fps = float(GOLDEN[f"{j}/fps"])
    wave = read_trace(method, GOLDEN[f"{j}/rgb"], fps)
    assert wave.dtype == np.float64
    if method != "pbv":  # the Toolbox's does not run
        np.testing.assert_allclose(wave, GOLDEN[f"{j}/{method.upper()}"], rtol=0, atol=1e-9)
    for rate in (spectral_peak_rate, wavelet_peak_rate):
        assert rate(wave, fps) == pytest.approx(GOLDEN[f"{j}/true_bpm"], abs=1.0)


@settings(max_examples=40)
@given(
    # Ends at, before and after a window's end.
    clip=st.sampled_from([(20.0, 64), (25.0, 99), (59.94, 200)]),
    seed=st.integers(0, 2**32 - 1),
    light=st.floats(0, 0.1),
    noise=st.floats(1e-3, 1),
)
@pytest.mark.parametrize("method", ["chrom", "pos", "pbv", "lgi", "omit"])
def test_methods_are_their_formulas(method, clip, seed, light, noise):
    fps, samples = clip
    rgb = trace(seed, fps, samples, light=light, noise=noise)
    expected = getattr(oracles, method)(rgb, fps)
    # PBV's system is nearly singular where there is little noise: digits are lost, in ours too.
    atol = 1e-7 if method == "pbv" else 1e-9
    np.testing.assert_allclose(read_trace(method, rgb, fps), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_one_trace_after_the_other(method):
    batch = SEVERAL.copy()
    batch[2] = batch[2, 0]  # one stands still
    one_by_one = np.stack([read_trace(method, rgb, 30) for rgb in batch])
    np.testing.assert_allclose(read_trace(method, batch, 30), one_by_one, rtol=0, atol=1e-10)
    if method in ("green", "omit", "pos"):
        waves = read_trace(method, batch.reshape(2, 3, 300, 3), 30)
        np.testing.assert_allclose(waves, one_by_one.reshape(2, 3, -1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_methods_in_float32_are_close(method):
    waves = read_trace(method, SEVERAL, 30)
    single = compiled(method, SEVERAL.astype(np.float32), 30.0)
    assert single.dtype == jnp.float32
    for one, wave in zip(single, waves, strict=True):
        np.testing.assert_allclose(one, wave, atol=2e-3 * wave.std())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_are_the_same_without_jit_and_under_vmap(method):
    waves = read_trace(method, SEVERAL, 30)
    for function in (METHODS[method], jax.vmap(METHODS[method], in_axes=(0, None))):
        np.testing.assert_allclose(in_float64(function, SEVERAL, 30.0), waves, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_or_black_picture_gives_no_rate(method):
    colours = np.array(
        [[0, 0, 0], [100.1, 77.3, 55.7], [3, 0, 9], [255, 255, 255], [0.1, 0.2, 0.3], [9, 9, 9]]
    )
    frozen = np.repeat(colours[:, None], 300, axis=1)
    single = compiled(method, frozen.astype(np.float32), 30.0)
    for wave in [*read_trace(method, frozen, 30), *np.asarray(single)]:
        assert np.isfinite(wave).all()
        assert np.isnan(wavelet_peak_rate(wave, 30))
        assert np.isnan(spectral_peak_rate(wave, 30))


@pytest.mark.parametrize("method", METHODS)
def test_odd_traces_give_finite_waves(method):
    odd = SEVERAL.copy()
    odd[0] = odd[0, :, 1:2]  # grey
    odd[1, :, 0] = 255  # red at its end
    odd[2, :, 0], odd[2, :, 2] = 255, odd[2, :, 1]
    odd[3, 100:200] = 0  # dark for a while
    odd[4, 0] = 0
    odd[5] = trace(9, 30, 300, light=0.05, noise=0)
    waves = read_trace(method, odd, 30)
    assert np.isfinite(waves).all()
    if method not in ("green", "lgi", "omit"):  # these leave white light in
        assert spectral_peak_rate(waves[-1], 30) == pytest.approx(72, abs=2)


@pytest.mark.parametrize("method", ["chrom", "pos", "pbv"])
def test_methods_survive_two_frozen_seconds(method):
    rgb = GOLDEN["1/rgb"].astype(np.float64)
    rgb[200:260] = rgb[200]
    assert spectral_peak_rate(read_trace(method, rgb, 30), 30) == pytest.approx(104, abs=2)


def test_pbv_reads_a_pulse_under_white_light_that_drowns_green():
    # The light's flicker is five times the pulse and in its band.
    rates = (50, 75, 100, 140)
    traces = np.stack([trace(seed, 30, 900, bpm=bpm, light=0.05) for seed, bpm in enumerate(rates)])
    for bpm, rgb, wave in zip(rates, traces, read_trace("pbv", traces, 30), strict=True):
        assert spectral_peak_rate(wave, 30) == pytest.approx(bpm, abs=1)
        beat = np.sin(2 * np.pi * bpm / 60 * np.arange(len(wave)) / 30)
        assert np.corrcoef(wave, -beat)[0, 1] > 0.6  # more blood, darker skin
        assert abs(np.corrcoef(rgb[: len(wave), 1], beat)[0, 1]) < 0.4


def test_ica_finds_the_mixed_pulse():
    time = np.arange(600) / 30
    sources = np.stack([np.sin(2 * np.pi * 1.2 * time), np.sign(np.sin(2 * np.pi * 0.37 * time)), time % 1.7])
    rgb = 100 + sources.T @ np.array([[0.2, 0.7, 0.4], [1.0, 1.1, 0.9], [-0.5, 0.3, 0.8]])
    wave = read_trace("ica", rgb, 30)
    assert abs(np.corrcoef(wave[60:-60], sources[0, 60:-60])[0, 1]) > 0.98


def test_pos_of_an_hour_takes_little_memory():
    with jax.enable_x64(True):
        shape = jax.ShapeDtypeStruct((108_000, 3), jnp.float64)
        compiled = jax.jit(pos, static_argnums=1).lower(shape, 30.0).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 50e6


# The way in from NumPy.


def test_each_shape_compiles_once_and_the_configuration_stays(monkeypatch):
    traces = []

    def counted(rgb, fps):
        traces.append((rgb.shape, rgb.dtype, fps))
        return rgb[..., 1]

    monkeypatch.setitem(METHODS, "counted", counted)
    for samples, fps in ((40, 30), (50, 30), (40, 30.0), (50, 30), (40, 25)):
        wave = read_trace("counted", np.ones((samples, 3), np.float32), fps)
        assert wave.dtype == np.float64
        wave[0] = 2  # the caller's own
    assert traces == [((40, 3), np.float64, 30.0), ((50, 3), np.float64, 30.0), ((40, 3), np.float64, 25.0)]
    assert jnp.zeros(1).dtype == jnp.float32


def test_integers_and_half_precision_are_computed_in_full():
    assert green(np.ones((9, 3), np.uint8), 30).dtype == jnp.float32
    assert green(jnp.ones((9, 3), jnp.bfloat16), 30).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jax_filters.bandpass(np.ones(27), 0.5, 3, 30, 4), "more than 27 samples, got 27"),
        (lambda: jax_filters.detrend(np.ones(2), 100), "got 2"),
        (lambda: pos(np.ones((47, 3)), 30), "48 samples, the trace only 46"),
        (lambda: read_trace("pos", np.ones((47, 3)), 6), "0.75–3 Hz does not lie inside 0–3 Hz"),
        (lambda: chrom(np.ones((47, 3)), 30), "48 samples, the trace only 47"),
        (lambda: read_trace("chrom", np.ones((99, 3)), 10), "more than 21 samples, got 16"),
        (lambda: read_trace("pbv", np.ones((2, 47, 3)), 30), "48 samples, the trace only 47"),
        (lambda: read_trace("ica", np.ones((21, 3)), 30), "more than 21 samples, got 21"),
        (lambda: jax.eval_shape(lambda rgb: pos(rgb, 30), np.ones((9, 3), np.float32)), "only 8"),
        (lambda: green(np.ones((9, 4)), 30), r"\(9, 4\)"),
        (lambda: read_trace("omit", np.ones((0, 3)), 30), r"\(0, 3\)"),
        (lambda: read_trace("pos", np.full((99, 3), np.nan), 30), "297 values"),
    ],
)
def test_errors_print_the_value(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_table_is_in_order():
    assert list(classical.METHODS) == ["green", "ica", "chrom", "pos", "pbv", "lgi", "omit"]

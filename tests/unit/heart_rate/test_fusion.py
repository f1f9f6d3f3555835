import numpy as np
import pytest

from sspd_jax.heart_rate import fusion

FPS, T = 30.0, np.arange(300) / 30.0
RNG = np.random.default_rng(0)


def wave(hz, noise=0.3):
    return np.sin(2 * np.pi * hz * T) + noise * RNG.standard_normal(300)


def test_a_sine_is_read_to_half_a_beat():
    hz, shares = fusion.power_shares(wave(1.3, 0.0), FPS)
    assert shares.sum() == pytest.approx(1)
    assert 60 * hz[shares.argmax()] == pytest.approx(78, abs=0.7)


def test_slow_drift_does_not_drown_the_pulse():
    drift = np.cumsum(RNG.standard_normal(300))
    drift *= 3 / drift.std()
    waves = np.stack([drift + wave(1.5)] * 2)
    assert fusion.fused_rate(waves, FPS, names=("a", "b")).bpm == pytest.approx(90, abs=3)


def test_the_one_that_errs_is_outvoted():
    waves = np.stack([wave(1.2), wave(1.2), wave(1.2), wave(2.4, 0.05)])
    fused = fusion.fused_rate(waves, FPS)
    assert fused.bpm == pytest.approx(72, abs=1.5)
    assert fused.rates_bpm["omit"] == pytest.approx(144, abs=1.5)
    assert fused.share.sum() == pytest.approx(1)


def test_patches_speak_by_what_they_see():
    noise = RNG.standard_normal((4, 3, 300))
    clear = np.stack([wave(1.0)] * 4)[:, None]
    patches = np.concatenate([noise, clear, clear], 1)
    hz, shares = fusion.power_shares(patches, FPS)
    weights = fusion.concentration(shares, hz)
    assert weights[:, 3:].min() > 2 * weights[:, :3].max() / 1.5
    blind = RNG.standard_normal((4, 300))
    assert fusion.fused_rate(blind, FPS, patch_waves=patches).bpm == pytest.approx(60, abs=2)


def test_a_patch_of_a_few_pixels_is_left_out():
    skin, lie = np.stack([wave(1.0, 2.0)] * 4), np.stack([wave(2.0, 0.0)] * 4)[:, None]
    heard = fusion.fused_rate(skin, FPS, patch_waves=lie, patch_area=np.array([100.0]))
    left_out = fusion.fused_rate(skin, FPS, patch_waves=lie, patch_area=np.array([5.0]))
    alone = fusion.fused_rate(skin, FPS)
    assert left_out.bpm == alone.bpm
    assert not np.allclose(heard.share, alone.share)


def test_what_follows_brightness_counts_as_far_as_brightness_holds_still():
    pulse, motion = wave(1.2), wave(2.2, 0.05)
    skin = np.stack([motion, pulse, pulse, motion])  # GREEN and OMIT follow the head
    patches = np.repeat(np.stack([motion, pulse, motion, motion])[:, None], 3, axis=1)
    rates = [fusion.fused_rate(skin, FPS, patch_waves=patches, steady=s).bpm for s in (1.0, 0.0)]
    assert rates == pytest.approx([132, 72], abs=1.5)


def test_groups_are_weighed_as_the_page_says():
    skin, patches, network = (RNG.standard_normal(shape) for shape in ((4, 300), (4, 2, 300), (300,)))
    steady, trusted = 0.25, np.array([0.25, 1, 1, 0.25])

    def logs(waves, tilt=fusion.NOISE_TILT):
        shares = fusion.power_shares(waves, FPS, tilt=tilt)[1]
        return np.log(shares + fusion.FLOOR / shares.shape[-1])

    hz, parts = fusion.power_shares(patches, FPS)
    sees = fusion.concentration(parts, hz)[..., None]
    of_patches = (sees * logs(patches)).sum(1) / sees.sum(1)
    of_skin = (trusted[:, None] * logs(skin)).sum(0) / 2.5
    expected = 1.75 * of_skin + 0.4 * trusted @ of_patches / 2.5 + logs(network, 0)
    expected = np.exp(expected / (1.75 + 0.4 + 1))
    fused = fusion.fused_rate(skin, FPS, patch_waves=patches, network=network, steady=steady)
    np.testing.assert_allclose(fused.share, expected / expected.sum(), rtol=1e-9)


def test_waves_without_motion_are_fused_and_each_estimator_keeps_its_own_rate():
    nodding, freed = np.stack([wave(2.0, 0.05)] * 4), np.stack([wave(1.1, 0.05)] * 4)
    fused = fusion.fused_rate(nodding, FPS, without_motion=freed)
    assert fused.bpm == pytest.approx(66, abs=1.5)
    assert list(fused.rates_bpm.values()) == pytest.approx([120] * 4, abs=1.5)


def test_nothing_to_read_is_not_a_number():
    for still in (np.zeros((4, 300)), np.full((4, 300), np.nan), np.full((4, 300), 7.0)):
        assert np.isnan(fusion.fused_rate(still, FPS).bpm)


def test_too_short_or_too_slow_is_an_error():
    with pytest.raises(ValueError, match="no spectrum"):
        fusion.power_shares(np.zeros(5), FPS)
    with pytest.raises(ValueError, match="no spectrum"):
        fusion.power_shares(np.zeros(100), 7.0)


def test_estimators_keep_the_length():
    rgb = 100 + np.stack([0.3 * wave(1.1), wave(1.1), 0.6 * wave(1.1)], -1)
    waves = fusion.estimator_waves(rgb, FPS)
    assert waves.shape == (4, 300)
    assert np.isfinite(waves).all()
    assert fusion.fused_rate(waves, FPS).bpm == pytest.approx(66, abs=2)


def shares_by_hand(wave, fps, tilt):
    """`power_shares` of one wave as it is written there: line off, window, padding, slope, sum."""
    samples = len(wave)
    time = np.arange(samples)
    steady = wave - np.polyval(np.polyfit(time, wave, 1), time)
    padded = 8 * samples if 8 * samples > fps / 0.01 else fps / 0.01
    padded = 2 ** int(np.ceil(np.log2(padded)))
    hz = np.arange(padded // 2 + 1) * fps / padded
    power = np.abs(np.fft.rfft(steady * np.hanning(samples), padded)) ** 2 * hz**tilt
    inside = (hz >= 0.65) & (hz <= 3.6)
    return hz[inside], power[inside] / power[inside].sum()


@pytest.mark.parametrize(("samples", "fps", "tilt"), [(300, 30.0, 1.5), (8, 7.3, 0.0), (600, 25.0, 1.0)])
def test_spectra_are_their_formula_down_to_eight_samples(samples, fps, tilt):
    waves = 5 + np.random.default_rng(samples).standard_normal((2, samples)).cumsum(1)
    hz, shares = fusion.power_shares(waves, fps, tilt=tilt)
    for one, found in zip(waves, shares, strict=True):
        by_hand_hz, by_hand = shares_by_hand(one, fps, tilt)
        np.testing.assert_allclose(hz, by_hand_hz)
        np.testing.assert_allclose(found, by_hand, rtol=1e-6, atol=1e-12)


def test_what_stands_still_or_is_not_finite_has_an_even_spectrum_beside_others_that_have_theirs():
    still = [np.zeros(300), np.full(300, 0.1), 1e6 + 3 * np.arange(300.0), np.append(np.nan, wave(1.0)[1:])]
    hz, shares = fusion.power_shares(np.stack([*still, wave(1.3, 0.0)]), FPS)
    np.testing.assert_allclose(shares[:-1], 1 / len(hz))
    assert 60 * hz[shares[-1].argmax()] == pytest.approx(78, abs=0.7)


def test_twice_the_bands_end_is_too_slow_and_seven_samples_are_too_few():
    for samples, fps in ((300, 7.2), (7, 30.0)):
        with pytest.raises(ValueError, match="no spectrum"):
            fusion.power_shares(np.ones(samples), fps)


def test_a_peak_holds_what_lies_within_its_half_width_the_end_included():
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    hz = np.array([0.0, 0.1, 0.3])
    assert fusion.concentration(shares, hz) == pytest.approx([0.8, 0.7])

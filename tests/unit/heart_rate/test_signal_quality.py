"""Evidence for and against a rate: blood, light, noise and stillness, each drawn by hand."""

import numpy as np
import pytest

from sspd_jax.heart_rate import confidence, signal_quality
from sspd_jax.heart_rate.signal_quality import BLOOD, GREY, extract

FPS, BPM = 30, 78.0
TIME = np.arange(300) / FPS
BEAT = np.sin(2 * np.pi * BPM / 60 * TIME)
SKIN = np.array([170.0, 120.0, 95.0])


def cells(*parts, noise=0.02, seed=0):
    """16 cells of skin; each part is (wave [t] or [t, 16], colour [3], strength)."""
    rng = np.random.default_rng(seed)
    change = np.zeros((300, 16, 3))
    for wave, colour, strength in parts:
        wave = wave[:, None] if wave.ndim == 1 else wave
        change += strength * wave[..., None] * np.asarray(colour)
    return SKIN * (1 + change) + rng.normal(0, noise, change.shape)


def at_random(seed=1):
    """A rhythm at the rate, in every cell at another moment."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, 16)
    return np.sin(2 * np.pi * BPM / 60 * TIME[:, None] + phase)


def test_a_pulse_speaks_for_itself():
    e = extract(BEAT, FPS, BPM, cells((-BEAT, BLOOD, 0.004)), np.full((300, 3), 90.0))
    assert e.wave_share > 0.95 and e.colour_share > 0.95
    assert e.cells_agree == 1 and e.in_step > 0.99
    assert e.rates_apart_bpm < 0.5
    assert e.blood > 0.05
    assert e.strength == pytest.approx(np.log10(0.004 * np.linalg.norm(BLOOD)), abs=0.05)
    assert e.behind < -2
    assert signal_quality.upright(BEAT, FPS, BPM, cells((-BEAT, BLOOD, 0.004))) > 0.99
    assert signal_quality.upright(-BEAT, FPS, BPM, cells((-BEAT, BLOOD, 0.004))) < -0.99


def test_white_light_is_not_the_colour_of_blood_and_shines_on_the_wall_too():
    wall = 90 * (1 + 0.01 * np.outer(BEAT, GREY))
    e = extract(BEAT, FPS, BPM, cells((BEAT, GREY, 0.01)), wall)
    assert e.blood < -0.05
    assert e.behind == pytest.approx(0, abs=0.05) and e.behind_share > 0.95


def test_a_screen_colours_the_wall_as_it_does_the_face_and_a_shadow_does_not():
    pulse, lamp = cells((-BEAT, BLOOD, 0.004), noise=0.0), cells((BEAT, (1, 0.2, 0.1), 0.004), noise=0.0)
    shadow = 90 * (1 + 0.004 * np.outer(BEAT, GREY))
    screen = 90 * (1 + 0.004 * np.outer(BEAT, (1, 0.2, 0.1)))
    assert extract(BEAT, FPS, BPM, pulse, shadow).behind_colour < -2
    assert extract(BEAT, FPS, BPM, pulse, shadow).behind > -0.5
    assert extract(BEAT, FPS, BPM, lamp, screen).behind_colour == pytest.approx(0, abs=0.01)


def test_noise_agrees_on_nothing():
    rng = np.random.default_rng(3)
    shares, agree, step = [], [], []
    for seed in range(5):
        e = extract(rng.normal(size=300), FPS, BPM, cells(seed=seed), None)
        shares.append(e.cells_share)
        agree.append(e.cells_agree)
        step.append(e.in_step)
    assert np.mean(shares) < 0.25 and np.mean(agree) < 0.25 and np.mean(step) < 0.5


def test_what_beats_at_random_is_not_in_step():
    together = extract(BEAT, FPS, BPM, cells((-BEAT, BLOOD, 0.004)))
    apart = extract(BEAT, FPS, BPM, cells((at_random(), BLOOD, 0.004)))
    assert apart.in_step < 0.6 < together.in_step


def test_a_heart_may_slow_down_in_a_long_window_and_noise_stays_noise():
    time_s = np.arange(30 * FPS) / FPS
    wave = np.sin(2 * np.pi * np.cumsum(1.4 - 0.3 * time_s / 30) / FPS)  # 84 to 66 bpm
    picture = SKIN * (1 - 0.004 * wave[:, None, None] * BLOOD * np.ones((16, 1)))
    e = extract(wave, FPS, 75.0, picture)
    assert e.wave_share > 0.95 and e.cells_agree > 0.95 and e.rates_apart_bpm < 1
    noise = np.random.default_rng(4).normal(size=900)
    assert extract(noise, FPS, 75.0).wave_share < 0.3


def test_no_picture_no_background_and_no_light_are_told_from_something():
    alone, noise = extract(BEAT, FPS, BPM), np.random.default_rng(6).normal(size=300)
    assert alone.wave_share > 0.95 and np.isnan(alone.colour_share) and np.isnan(alone.behind)
    black = extract(BEAT, FPS, BPM, np.zeros((300, 16, 3)), np.full((300, 3), np.nan))
    assert black.colour_share == 0 and np.isnan(black.behind) and black.strength == -6
    beats = confidence.confidence(alone)[0]
    assert beats > confidence.WAVE_THRESHOLD > confidence.confidence(extract(noise, FPS, BPM))[0]
    for found in (alone, black):
        assert all(np.isfinite(v) for v in confidence.features(found).values())
        assert 0 <= confidence.confidence(found)[0] <= 1


def test_evidence_does_not_depend_on_the_scale_of_wave_or_light():
    picture = cells((-BEAT, BLOOD, 0.004), noise=0.0)
    one = extract(BEAT, FPS, BPM, picture)
    other = extract(5 - 40 * BEAT, FPS, BPM, 0.5 * picture)
    for field in ("wave_share", "colour_share", "cells_agree", "in_step", "blood", "strength"):
        assert getattr(other, field) == pytest.approx(getattr(one, field), abs=1e-6)


def test_a_pulse_is_trusted_and_its_counterfeits_are_not():
    wall = np.full((300, 3), 90.0)
    lit = 90 * (1 + 0.008 * np.outer(BEAT, GREY))
    sure, why = confidence.confidence(extract(BEAT, FPS, BPM, cells((-BEAT, BLOOD, 0.004), noise=0.1), wall))
    assert sure > 0.9
    noise = np.random.default_rng(5).normal(size=300)
    for wave, picture, around in (
        (BEAT, cells((BEAT, GREY, 0.008)), lit),
        (noise, cells(), wall),
        (BEAT, cells((at_random(), GREY, 0.004)), wall),
    ):
        sure, why = confidence.confidence(extract(wave, FPS, BPM, picture, around))
        assert sure < confidence.THRESHOLD and why in confidence.REASONS.values()

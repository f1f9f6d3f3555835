"""Evidence for and against a rate: blood, light, noise and stillness, each drawn by hand."""

import dataclasses

import numpy as np
import pytest

from sspd_jax.heart_rate import confidence, signal_quality
from sspd_jax.heart_rate.signal_quality import BLOOD, GREY, extract
from sspd_jax.heart_rate.skin_evidence import SkinEvidence

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


# What is weighed: every number by hand, on both sides of each bound.

SKIN_ROWS = [
    *[({f: 0.9}, name, np.log(9)) for f, name in (
        ("wave_share", "rhythm wave"), ("fused_share", "rhythm fused"), ("patches_share", "patches share"),
        ("network_share", "agreement learned"), ("estimators_share", "agreement power"),
        ("in_step", "patches step"),
        ("green_in_step", "patches green"), ("same_colour", "blood same"), ("halves_colour", "blood halves"),
    )],
    ({"wave_share": 1.0}, "rhythm wave", np.log(0.995 / 0.005)),
    ({"wave_share": 0.0}, "rhythm wave", np.log(0.005 / 0.995)),
    *[({f: x}, name, y) for f, name, bounds in (
        ("rival", "rhythm rival", [(-9, -3), (-2.5, -2.5), (2.5, 2.5), (9, 3)]),
        ("estimators_agree", "agreement share", [(0.75, 0.75)]),
        ("estimators_off", "agreement off", [(20, 2)]),
        ("network_off", "agreement network", [(15, 1.5)]),
        ("patches_agree", "patches agree", [(0.4, 0.4)]),
        ("spread", "patches spread", [(-1, 0), (1.4, 1.4), (9, 1.5)]),
        ("red_green", "blood red", [(0.43, 0), (0.13, 0.3), (1.43, 1), (9, 1.5), (-9, 1.5)]),
        ("blue_green", "blood blue", [(0.69, 0), (0.39, 0.3), (1.69, 1), (9, 1.5), (-9, 1.5)]),
        ("patches_blood", "blood patches", [(0.9, -1), (1.0, -3), (-0.5, 0)]),
        ("strength", "faint colour", [(-4.3, 1), (-3, 0)]),
        ("area", "faint area", [(3.5, 3.5), (9, 4)]),
        ("brightness", "faint light", [(2, 2), (9, 2.2)]),
        ("strength", "light strong", [(-2.5, 0), (-1.2, 1)]),
        ("eyes_in_step", "light eyes", [(-1, 0), (1.4, 1.4), (9, 1.5)]),
        ("behind_colour", "light behind colour", [(-9, 0), (-0.5, 0.5), (0.4, 1.4), (9, 1.5)]),
        ("sides", "light sides", [(0.7, 0.7)]),
        ("wander", "light steady", [(-2.7, 1), (-1.5, 0)]),
        ("moved_share", "motion share", [(0.3, 0.3)]),
        ("posed", "motion pose", [(-1, 0), (2.5, 2.5)]),
        ("green_left", "motion green", [(0.9, 0.9), (9, 1)]),
        ("wave_left", "motion wave", [(0.9, 0.9), (9, 1)]),
        ("left_off", "motion off", [(15, 1.5)]),
        ("halves_off", "time halves", [(15, 1.5)]),
        ("wander", "time wander", [(-1.5, 0), (-0.3, 1)]),
    ) for x, y in bounds],
    ({"blood": 0.9}, "blood cosine", -1),
    ({"blood": 1.0}, "blood cosine", -3),
    ({"blood": 0.9, "grey": 0.8}, "blood grey", 1),
    ({"blood": 0.9, "grey": 0.1}, "blood grey", 2),
    ({"blood": 0.1, "grey": 0.9}, "blood grey", -2),
    ({"behind": -0.5, "behind_share": 0.4}, "light behind", 0.2),
    ({"behind": 5, "behind_share": 0.4}, "light behind", 0.8),
    ({"behind": -5, "behind_share": 0.4}, "light behind", 0),
    ({"moved": 2, "moved_share": 0.3}, "motion size", 0.6),
    ({"moved": -2, "moved_share": 0.3}, "motion size", 0),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "name", "expected"), SKIN_ROWS)
def test_each_number_of_the_skin_by_hand(fields, name, expected):
    names = [field.name for field in dataclasses.fields(SkinEvidence)]
    evidence = SkinEvidence(**(dict.fromkeys(names, 0.5) | fields))
    assert confidence.skin_features(evidence)[name] == pytest.approx(expected, abs=1e-9)


def test_every_number_of_the_skin_has_a_row():
    evidence = SkinEvidence(**dict.fromkeys((f.name for f in dataclasses.fields(SkinEvidence)), 0.5))
    assert set(confidence.skin_features(evidence)) == {name for _, name, _ in SKIN_ROWS}


CROP_ROWS = [
    *[({f: x}, name, y) for f, name, bounds in (
        ("wave_share", "wave share", [(0.9, np.log(9))]),
        ("colour_share", "colour share", [(0.9, np.log(9))]),
        ("rates_apart_bpm", "colour apart", [(15, 1.5), (99, 2)]),
        ("strength", "colour faint", [(-4.3, 1), (-3, 0)]),
        ("strength", "colour strong", [(-3, 0), (-1.7, 1)]),
        ("cells_agree", "cells agree", [(0.4, 0.4)]),
        ("cells_share", "cells share", [(0.9, np.log(9))]),
        ("in_step", "cells in step", [(0.9, np.log(9))]),
        ("blood", "blood", [(-9, -1), (0.05, 0.5), (9, 1)]),
        ("behind_colour", "behind colour", [(-9, -1.2), (0.2, 0.2), (9, 0.3)]),
        ("behind_colour", "behind lit", [(-9, 0), (-0.3, 0.2), (0.2, 0.7), (9, 0.8)]),
    ) for x, y in bounds],
    ({"behind": -0.5, "behind_share": 0.4}, "behind beats", 0.2),
    ({"behind": 5, "behind_share": 0.4}, "behind beats", 0.8),
    ({"behind": -5, "behind_share": 0.4}, "behind beats", 0),
    ({"behind_colour": 0.2, "cells_agree": 0.5}, "behind agrees", 0.35),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "name", "expected"), CROP_ROWS)
def test_each_number_of_a_crop_by_hand(fields, name, expected):
    names = [field.name for field in dataclasses.fields(signal_quality.Evidence)]
    evidence = signal_quality.Evidence(**(dict.fromkeys(names, 0.5) | fields))
    found = confidence.features(evidence)
    assert found[name] == pytest.approx(expected, abs=1e-9)
    assert set(found) == {row[1] for row in CROP_ROWS}


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (100, [0]),
        (300, [0]),
        (450, [0]),
        (451, [0, 76, 151]),
        (600, [0, 150, 300]),
        (601, [0, 100, 201, 301]),
    ],
)
def test_a_window_of_more_than_fifteen_seconds_has_parts_of_ten_half_over_one_another(length, starts):
    parts = signal_quality._parts(length, 30.0)
    assert [part.start for part in parts] == starts
    assert {part.stop - part.start for part in parts} == {min(length, 300 if len(starts) > 1 else length)}


def test_a_short_window_is_weighed_at_the_rate_that_was_read_and_not_at_its_own():
    beat = np.sin(2 * np.pi * BPM / 60 * TIME)
    own, beside = (extract(beat, FPS, bpm).wave_share for bpm in (BPM, BPM + 12))
    assert own > 0.95 > 0.2 > beside


def test_a_part_is_weighed_at_its_own_rate_only_where_that_is_near_the_one_that_was_read():
    time = np.arange(600) / FPS
    calm = np.sin(2 * np.pi * BPM / 60 * time)
    for bpm, least, most in ((BPM, 0.95, 1), (BPM * (1 + signal_quality.SWAY) + 12, 0, 0.2)):
        assert least <= extract(calm, FPS, bpm).wave_share <= most
    sways = np.sin(2 * np.pi * np.cumsum(np.where(time < 10, 1.25, 1.35)) / FPS)
    assert extract(sways, FPS, 78.0).wave_share > 0.9

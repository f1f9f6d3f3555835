"""Evidence from all of a face: blood, nods, lamps and clocks, each drawn by hand."""

import dataclasses

import numpy as np
import pytest

from sspd_jax.heart_rate import confidence, fusion, skin_evidence
from sspd_jax.heart_rate.confidence import SKIN_AGAINST, SKIN_REASONS, of_skin, skin_features
from sspd_jax.heart_rate.signal_quality import BLOOD, GREY
from sspd_jax.heart_rate.skin_evidence import SIDES, TREMBLE, SkinEvidence, SkinWindow, extract, fuse
from sspd_jax.video import skin_map

FPS, BPM, FRAMES = 30, 78.0, 300
TIME = np.arange(FRAMES) / FPS
SKIN = np.array([170.0, 120.0, 95.0])
STEADY = 0.004 * np.sin(2 * np.pi * BPM / 60 * TIME)
PATCHES = len(skin_map.PATCHES)


def heart(bpm=BPM, wander=0.03):
    """A pulse of 0.4 % whose rate goes up and down by a share once in 8 s."""
    rate = bpm / 60 * (1 + wander * np.sin(2 * np.pi * TIME / 8))
    return 0.004 * np.sin(2 * np.pi * np.cumsum(rate) / FPS)


def of(wave, colour=BLOOD):
    return np.outer(wave, colour)


def seen(change, *, patches=None, eyes=0, behind=0, track=0, noise=0.02, scale=1.0, **fields):
    """What is seen of a face: changes of colour, float [t, 3], and a track in its tremble's units."""
    rng = np.random.default_rng(0)

    def picture(change, grain, *more):
        shown = SKIN * (1 + np.broadcast_to(change, (FRAMES, *more, 3)))
        return scale * (shown + rng.normal(0, grain * noise, shown.shape))

    skin = picture(change, 1)
    parts = picture(change[:, None] if patches is None else patches, 3, PATCHES)
    every = np.concatenate([skin[:, None], parts], axis=1)
    waves = fusion.estimator_waves(np.moveaxis(every, 1, 0), FPS)
    shown = {
        "fps": float(FPS),
        "skin": skin,
        "skin_area": 6000.0,
        "patches": parts,
        "patch_area": np.full(PATCHES, 300.0),
        "eyes": picture(eyes, 3),
        "crop": skin,
        "behind": picture(behind, 1),
        "track": (track + 25 * noise * rng.normal(0, 1, (FRAMES, 7))) * TREMBLE,
        "waves": dict(zip(fusion.ESTIMATORS, waves[:, 0], strict=True)),
        "patch_waves": waves[:, 1:],
    }
    return SkinWindow(**(shown | fields))


def evidence(window, bpm=BPM, wave="pos"):
    return extract(window, window.waves[wave], bpm, fuse(window))


def without_network(evidence):
    """The fields as a dict, but for what a network says that is not there."""
    return {k: v for k, v in dataclasses.asdict(evidence).items() if not k.startswith("network_")}


def by_patch(gains, wave=None):
    """The pulse in every patch, times a number."""
    return np.asarray(gains)[:, None] * of(heart() if wave is None else wave)[:, None]


def test_a_pulse_speaks_for_itself():
    e = evidence(seen(of(heart())))
    assert e.wave_share > 0.85 and e.fused_share > 0.6 and e.rival > 2
    assert e.estimators_agree == 1 and e.estimators_off < 1.5 and e.estimators_share > 0.85
    assert e.patches_agree == pytest.approx(1) and e.patches_share > 0.8
    assert e.in_step > 0.99 and e.green_in_step > 0.99 and e.spread < 0.05 and e.sides < 0.05
    assert e.blood > 0.99 > e.grey and e.patches_blood > 0.98 and e.same_colour > 0.99
    assert e.red_green == pytest.approx(confidence.BLOOD_RED_GREEN, abs=0.03)
    assert e.blue_green == pytest.approx(confidence.BLOOD_BLUE_GREEN, abs=0.03)
    assert e.eyes < -1 and abs(e.eyes_in_step) < 0.1
    assert e.behind < -1 and e.behind_share < 0.3 and e.behind_colour < -1
    assert e.moved < -0.3 and e.posed < -0.3 and e.moved_share < 0.4
    assert e.green_left > 0.95 and e.wave_left > 0.95 and e.left_off < 1.5
    assert e.halves_off < 2 and e.halves_colour > 0.98
    sure, _ = of_skin(e)
    assert sure > 0.9


def test_a_second_harmonic_is_no_rival():
    beat = np.sin(2 * np.pi * 1.1 * TIME) + 0.8 * np.sin(2 * np.pi * 2.2 * TIME)
    two = np.sin(2 * np.pi * 1.1 * TIME) + 0.8 * np.sin(2 * np.pi * 1.8 * TIME)
    harmonic, rival = (evidence(seen(of(0.003 * wave)), bpm=66.0).rival for wave in (beat, two))
    assert harmonic > 2 > rival


def test_strength_brightness_and_area_are_logarithms_of_what_was_seen():
    e = evidence(seen(of(STEADY), noise=0, skin_area=1000.0))
    assert e.strength == pytest.approx(np.log10(0.004 * np.linalg.norm(BLOOD)), abs=0.02)
    assert e.brightness == pytest.approx(np.log10(120), abs=1e-3)
    assert e.area == pytest.approx(3)
    dark = evidence(seen(of(STEADY), noise=0, scale=1e-3, skin_area=0.0))
    assert dark.brightness == 0 and dark.area == 0


def test_noise_agrees_on_nothing():
    e = evidence(seen(np.zeros((FRAMES, 3))))
    assert e.wave_share < 0.4 and e.rival < 0 and e.estimators_agree < 0.5
    assert e.patches_agree < 0.3 and e.patches_share < 0.3 and e.in_step < 0.5 and e.strength < -4
    assert of_skin(e)[0] < 0.2


def test_a_nod_is_in_its_own_track_and_a_shudder_of_the_pulse_is_not_taken_for_one():
    nod = np.sin(2 * np.pi * BPM / 60 * TIME)
    moves = np.outer(nod, [0, 5, 0, 0, 0, 3, 0])  # down, and pitch
    e = evidence(seen(of(0.01 * nod, GREY), eyes=of(0.01 * nod, GREY), track=moves))
    assert e.moved == pytest.approx(np.log10(5), abs=0.05) and e.posed == pytest.approx(np.log10(3), abs=0.05)
    assert e.moved_share > 0.9
    assert e.green_left < 0.05
    assert of_skin(e)[0] < 0.2
    window = seen(of(0.01 * nod, GREY), track=moves)
    late = extract(window, np.cos(2 * np.pi * BPM / 60 * TIME), BPM, fuse(window))
    assert late.wave_left > 0.9 and late.green_left < 0.05  # a wave that does not go with the nod
    shudder = evidence(seen(of(heart()), track=np.outer(heart() / 0.04, np.ones(7))))  # a tenth of a tremble
    assert shudder.green_left > 0.9 and shudder.wave_left > 0.9 and shudder.moved < -0.3
    assert of_skin(shudder)[0] > 0.9


def test_a_skin_holds_still_as_far_as_a_pulse_could_change_it():
    steady = [skin_evidence.steadiness(seen(of(change * STEADY), noise=0).skin, FPS) for change in (0, 1, 10)]
    rms = 0.004 * BLOOD[1] / np.sqrt(2)
    expected = [1 / (1 + (change * rms / 0.004) ** 2) for change in (0, 1, 10)]
    assert steady == pytest.approx(expected, rel=0.02)
    breath = seen(of(0.01 * np.sin(2 * np.pi * 0.2 * TIME), GREY), noise=0).skin
    assert skin_evidence.steadiness(breath, FPS) > 0.9  # below what hearts beat at


def test_a_nod_that_drowns_the_pulse_is_taken_out_of_the_rate():
    nod = np.sin(2 * np.pi * 1.9 * TIME)
    shaded = of(0.02 * nod, [1.0, 0.5, 0.9])  # not grey: POS follows it, too
    skin = of(heart()) + shaded
    window = seen(skin, patches=skin[:, None], track=np.outer(nod, 5 * np.eye(7)[1]))
    fused = fuse(window)
    assert [fused.rates_bpm[name] for name in ("green", "pos")] == pytest.approx([114, 114], abs=2)
    assert fused.bpm == pytest.approx(BPM, abs=2)
    assert fuse(dataclasses.replace(window, track=np.zeros((FRAMES, 7)))).bpm == pytest.approx(114, abs=2)


def test_a_pulse_beside_a_nod_of_another_rate_is_left():
    nod = np.outer(np.sin(2 * np.pi * 1.0 * TIME), [0, 5, 0, 0, 0, 0, 0])
    e = evidence(seen(of(heart()), track=nod))
    assert e.green_left > 0.8 and e.left_off < 2


def test_a_nod_changes_the_light_at_twice_its_rate_too():
    nod = 20 * np.sin(2 * np.pi * BPM / 120 * TIME)
    light = 1e-5 * (nod**2 - 200)
    moved = np.outer(nod, [1, 0, 0, 0, 0, 0, 0]) * TREMBLE
    left = skin_evidence.without_motion(light[:, None], moved, FPS)
    assert left.std() < 0.1 * light.std()
    tremble = skin_evidence.without_motion(light[:, None], moved / 100, FPS)
    assert tremble.std() > 0.9 * light.std()


def test_without_motion_the_rate_stays_or_goes():
    nod = np.sin(2 * np.pi * 1.9 * TIME)
    shaken = of(heart()) + of(0.02 * nod, (0.3, 1.0, 0.3))
    track = np.outer(5 * nod, [1, 0, 0, 0, 0, 0, 0])
    window = seen(shaken, track=track)
    assert evidence(window, bpm=114.0).left_off > 15  # the nod's rate: what is left beats at another
    assert evidence(window, bpm=BPM).left_off < 2


def test_white_light_is_grey_and_shines_on_eyes_and_wall_too():
    light = of(STEADY, GREY)
    e = evidence(seen(light, eyes=light, behind=light))
    assert e.grey > e.blood and e.grey > 0.99
    assert e.red_green == pytest.approx(1, abs=0.05) and e.blue_green == pytest.approx(1, abs=0.05)
    assert e.eyes == pytest.approx(0, abs=0.05) and e.eyes_in_step == pytest.approx(1, abs=0.1)
    assert e.behind == pytest.approx(0, abs=0.05) and e.behind_share > 0.9
    assert of_skin(e)[0] < 0.2


def test_a_lamp_on_the_face_alone_is_in_the_eyes_and_not_behind():
    e = evidence(seen(of(heart()), eyes=of(heart())))
    assert e.eyes_in_step == pytest.approx(1, abs=0.1) and e.behind < -1
    opposite = evidence(seen(of(heart()), eyes=of(-heart())))
    assert opposite.eyes == pytest.approx(0, abs=0.05)
    assert opposite.eyes_in_step == pytest.approx(-1, abs=0.1)


def test_a_shadow_behind_is_white_and_a_screen_is_not():
    red = (1.0, 0.2, 0.1)
    shadow = evidence(seen(of(STEADY), behind=of(STEADY, GREY), noise=0))
    screen = evidence(seen(of(STEADY, red), behind=of(STEADY, red), noise=0))
    assert shadow.behind > -0.2 and shadow.behind_colour < -1
    assert screen.behind_colour == pytest.approx(0, abs=0.01)


def test_a_hue_that_turns_is_not_blood():
    turn = 2 * np.pi * np.arange(3) / 3
    change = 0.004 * np.sin(2 * np.pi * BPM / 60 * TIME[:, None] + turn)
    e = evidence(seen(change))
    assert e.blood < 0.4 and e.patches_blood < 0.4 and e.grey < 0.1
    assert e.red_green == pytest.approx(-0.5, abs=0.05) and e.blue_green == pytest.approx(-0.5, abs=0.05)


def test_light_from_one_side_is_on_that_side():
    from_right, from_left, from_both = (
        evidence(seen(of(heart()), patches=by_patch(np.choose(1 + SIDES, gains))))
        for gains in ((1.0, 0.6, 0.2), (0.2, 0.6, 1.0), (1.0, 0.2, 1.0))
    )
    for lit in (from_right, from_left):
        assert lit.sides == pytest.approx(np.log10(5), abs=0.05) and lit.spread > 0.4
    assert from_both.sides < 0.05 and from_both.spread > 0.4


def test_patches_that_beat_each_at_its_own_moment_are_not_in_step():
    phase = 2 * np.pi * np.arange(PATCHES) / PATCHES
    waves = 0.004 * np.sin(2 * np.pi * BPM / 60 * TIME[:, None] + phase)
    e = evidence(seen(of(heart()), patches=waves[..., None] * BLOOD))
    assert e.in_step < 0.1 and e.green_in_step < 0.1
    assert e.patches_agree == pytest.approx(1) and e.patches_blood > 0.98


def test_a_patch_of_another_colour_is_not_that_of_the_skin():
    light = np.array([1.0, -0.5, 0.2])
    patches = np.broadcast_to(of(heart())[:, None], (FRAMES, PATCHES, 3)).copy()
    patches[:, :6] = of(heart(), light)[:, None]
    e = evidence(seen(of(heart()), patches=patches))
    assert e.patches_blood < 0.5 and e.same_colour < 0.7 and e.blood > 0.99


def test_a_patch_that_beats_at_another_rate_disagrees():
    patches = np.broadcast_to(of(heart())[:, None], (FRAMES, PATCHES, 3)).copy()
    patches[:, :4] = of(heart(110))[:, None]
    e = evidence(seen(of(heart()), patches=patches))
    assert e.patches_agree == pytest.approx(9 / 13)
    # Large patches count for more, by the root of their area.
    area = np.where(np.arange(PATCHES) < 4, 1600.0, 400.0)
    large = evidence(seen(of(heart()), patches=patches, patch_area=area))
    assert large.patches_agree == pytest.approx(9 / 17)


def test_a_metronome_does_not_wander_and_a_heart_does():
    lamp, beats = (evidence(seen(of(wave))).wander for wave in (STEADY, heart()))
    assert lamp < confidence.STEADY - 0.3 and beats > lamp + 0.5
    assert beats == pytest.approx(np.log10(0.03 / np.sqrt(2)), abs=0.15)
    assert evidence(seen(of(heart(wander=0.1)))).wander > beats + 0.2
    fast = seen(of(heart(132)))
    relative = evidence(fast, bpm=132.0).wander
    assert relative == pytest.approx(np.log10(0.03 / np.sqrt(2)), abs=0.15)
    # The wave in which colours are weighed against each other, whatever green does.
    fast = dataclasses.replace(fast, waves=fast.waves | {"green": np.sin(2 * np.pi * 2.2 * TIME)})
    assert evidence(fast, bpm=132.0).wander == relative


def test_a_rate_that_jumps_is_not_that_of_both_halves():
    early, late = 0.004 * np.sin(2 * np.pi * 1.1 * TIME), 0.004 * np.sin(2 * np.pi * 1.6 * TIME)
    e = evidence(seen(of(np.where(TIME < 5, early, late))), bpm=66.0)
    assert e.halves_off == pytest.approx((0 + skin_evidence.FAR_BPM) / 2, abs=1.5)  # 30 bpm count as 20
    assert evidence(seen(of(early)), bpm=66.0).halves_off < 1


def test_the_halves_are_two_and_equally_long():
    """A loud first half that ends in the middle says nothing in the second."""
    window = seen(of(STEADY))
    jumps = np.where(TIME < 5, 50 * np.sin(2 * np.pi * 1.1 * TIME), np.sin(2 * np.pi * 1.6 * TIME))
    e = evidence(dataclasses.replace(window, waves=dict.fromkeys(window.waves, jumps)), bpm=66.0)
    assert e.halves_off == pytest.approx(skin_evidence.FAR_BPM / 2, abs=1)


@pytest.mark.parametrize("part", range(7))
def test_shift_growth_and_turn_are_motion_and_the_rest_is_pose(part):
    nod = np.sin(2 * np.pi * BPM / 60 * TIME)
    e = evidence(seen(of(STEADY), track=np.outer(nod, 5 * np.eye(7)[part])))
    large, small = (e.moved, e.posed) if part < 4 else (e.posed, e.moved)
    assert large == pytest.approx(np.log10(5), abs=0.05) and small < 0


@pytest.mark.parametrize(
    ("colour", "red", "blue"),
    [
        ((0.5, 1, 0.7), 0.5, 0.7),
        ((-0.5, 1, -1.9), -0.5, -1.9),
        ((2.9, 1, 2.9), 2.9, 2.9),
        ((9, 1, -9), 3, -2),
        ((-9, 1, 9), -2, 3),
        ((0.5, -1j, 0.7j), 0, -0.7),
    ],
)
def test_red_and_blue_are_compared_with_green_in_step_with_it(colour, red, blue):
    colour = 0.01 * np.array(colour, complex)
    found = skin_evidence._of_colour(colour)
    assert (found["red_green"], found["blue_green"]) == pytest.approx((red, blue), abs=1e-3)
    length = np.linalg.norm(colour)
    assert found["strength"] == pytest.approx(np.log10(length), abs=1e-3)
    for name, direction in (("blood", BLOOD), ("grey", GREY)):
        cosine = np.abs(colour @ direction) / length / np.linalg.norm(direction)
        assert found[name] == pytest.approx(cosine, abs=1e-3)


def test_a_colour_that_changes_with_the_halves_is_no_blood():
    change = np.where(TIME[:, None] < 5, of(STEADY), of(STEADY, (1.0, -0.6, 0.2)))
    assert evidence(seen(change)).halves_colour < 0.3
    assert evidence(seen(of(STEADY))).halves_colour > 0.98


def test_estimators_are_counted():
    window = seen(of(STEADY))
    other = np.sin(2 * np.pi * 2.0 * TIME)
    one = evidence(dataclasses.replace(window, waves=window.waves | {"omit": other}))
    assert one.estimators_agree == 0.75
    assert one.estimators_off == pytest.approx(skin_evidence.FAR_BPM / 4, abs=0.5)
    three = evidence(dataclasses.replace(window, waves=dict.fromkeys(window.waves, other)), wave="omit")
    assert three.estimators_agree == 0 and three.estimators_off == skin_evidence.FAR_BPM
    nothing = evidence(dataclasses.replace(window, waves=window.waves | {"omit": np.zeros(FRAMES)}))
    assert nothing.estimators_agree == 0.75  # no rate is no agreement
    for apart, agree in ((2, 1.0), (-2, 1.0), (5, 0.75), (-5, 0.75)):
        beside = np.sin(2 * np.pi * (BPM + apart) / 60 * TIME)
        e = evidence(dataclasses.replace(window, waves=window.waves | {"omit": beside}))
        assert e.estimators_agree == agree
        assert e.estimators_off == pytest.approx(abs(apart) / 4, abs=0.3)


def test_what_cannot_be_told_is_not_a_number_and_leaves_a_confidence():
    window, blind = seen(of(heart())), np.full((FRAMES, 3), np.nan)
    whole, of_patches = evidence(window), ("patches_agree", "in_step", "spread", "sides", "patches_blood")
    hidden = window.patches.copy()
    hidden[:, 2:] = np.nan
    small = np.where(np.arange(PATCHES) < 2, 300.0, fusion.LEAST_AREA - 1)
    for fields, unknown in (
        ({"patches": hidden}, of_patches),
        ({"patch_area": small}, of_patches),
        ({"behind": blind}, ("behind", "behind_share", "behind_colour")),
        ({"eyes": blind}, ("eyes", "eyes_in_step")),
    ):
        e = evidence(dataclasses.replace(window, **fields))
        assert all(np.isnan(getattr(e, name)) for name in unknown)
        assert e.blood == whole.blood and e.moved == whole.moved
        sure, why = of_skin(e)
        assert 0.5 < sure < 1 and why in SKIN_REASONS.values()
    hidden = window.patches.copy()
    hidden[:, 3:] = np.nan
    three = evidence(dataclasses.replace(window, patches=hidden))
    assert three.patches_agree == pytest.approx(1) and three.in_step > 0.98


def test_sides_are_those_of_the_patches():
    side = {"right": -1, "left": 1}
    assert SIDES.tolist() == [side.get(name.rsplit("_")[-1], 0) for name in skin_map.PATCHES]


def test_evidence_does_not_depend_on_the_light_nor_on_the_scale_of_the_wave():
    track = np.outer(np.sin(2 * np.pi * BPM / 60 * TIME), np.ones(7))
    one, half = (seen(of(heart()), eyes=0.1, track=track, scale=scale) for scale in (1.0, 0.5))
    first, second = (without_network(evidence(window)) for window in (one, half))
    assert second.pop("brightness") == pytest.approx(first.pop("brightness") - np.log10(2), abs=1e-3)
    assert second == pytest.approx(first, abs=1e-6)
    again = extract(one, 5 - 40 * one.waves["pos"], BPM, fuse(one))
    assert again.wave_share == pytest.approx(first["wave_share"], abs=1e-6)


def test_a_face_without_change_or_light_is_weighed_all_the_same():
    for window in (
        seen(np.zeros((FRAMES, 3)), noise=0),
        seen(np.zeros((FRAMES, 3)), noise=0, scale=0),
        seen(np.tile(TIME[:, None] / 100, 3), noise=0),
    ):
        e = evidence(window)
        assert all(np.isfinite(value) for value in without_network(e).values())
        unknown = {name for name, value in skin_features(e).items() if not np.isfinite(value)}
        assert unknown == {"agreement network", "agreement learned"}
        assert of_skin(e)[0] < 0.2


def test_track_puts_together_what_was_followed_and_what_was_left():
    still = np.tile([200.0, 100.0, 50.0, 0.0], (4, 1)), np.zeros((4, 4)), np.zeros((4, 3))
    geometry, residual, pose = (part.copy() for part in still)
    geometry[1] += [5, -10, 0, 0.1]
    residual[2] = 0.2, 0.3, 0.01, 0.03
    geometry[2:, 3] = np.pi / 2  # the face's right is the picture's down
    pose[3] = 90, 0, -45
    moved = skin_evidence.track(geometry, residual, pose) - skin_evidence.track(*still)
    assert moved[0] == pytest.approx(np.zeros(7))
    assert moved[1] == pytest.approx([0.1, -0.2, 0, 0.1, 0, 0, 0])
    assert moved[2] == pytest.approx([-0.3, 0.2, 0.01, np.pi / 2 + 0.03, 0, 0, 0])
    assert moved[3] == pytest.approx([0, 0, 0, np.pi / 2, np.pi / 2, 0, -np.pi / 4])
    tilted, small = (np.tile([200.0, 100.0, spread, turn], (3, 1)) for spread, turn in ((50, 0.5), (0.25, 0)))
    rest = np.tile([0.2, 0.3, 0.0, 0.0], (3, 1))
    found = skin_evidence.track(tilted, rest, np.zeros((3, 3)))[0]
    right, down = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]) @ [0.2, 0.3]
    assert found == pytest.approx([4 + right, 2 + down, np.log(50), 0.5, 0, 0, 0])
    assert skin_evidence.track(small, rest, np.zeros((3, 3)))[0, :3] == pytest.approx(
        [800.2, 400.3, np.log(0.25)]
    )
    across = np.tile([200.0, 100.0, 50.0, 0.0], (3, 1))
    across[:, 3] = 3.1, -3.1, 3.1  # upside down: a turn goes on beyond half a turn
    roll = np.outer([178, -178, 178], [0, 0, 1])
    assert np.ptp(skin_evidence.track(across, np.zeros((3, 4)), roll), axis=0).max() < 0.1


def test_the_clearest_wave_is_found_and_one_that_ends_early_is_not_taken():
    window = seen(of(heart()))
    rng = np.random.default_rng(1)
    waves = {name: rng.normal(size=FRAMES) for name in window.waves}
    clear = np.sin(2 * np.pi * BPM / 60 * TIME)
    noisy = dataclasses.replace(window, waves=waves | {"chrom": clear})
    assert skin_evidence.clearest(noisy, BPM) == "chrom"
    learned = dataclasses.replace(noisy, waves=waves | {"sspd": clear})
    assert skin_evidence.clearest(learned, BPM) == "sspd"
    ends = dataclasses.replace(window, waves=waves | {"chrom": clear, "sspd": np.append(clear[:-1], np.nan)})
    assert skin_evidence.clearest(ends, BPM) == "chrom"


def test_fusing_heeds_a_network_that_fills_the_window_alone():
    window = seen(of(heart()), noise=2.0)
    network = np.sin(2 * np.pi * 1.75 * TIME)
    plain = fuse(window)
    heard = fuse(dataclasses.replace(window, waves=window.waves | {"sspd": network}))
    assert heard.rates_bpm["sspd"] == pytest.approx(105, abs=0.5)
    assert not np.allclose(heard.share, plain.share)
    ends = fuse(dataclasses.replace(window, waves=window.waves | {"sspd": np.append(network[:-1], np.nan)}))
    assert "sspd" not in ends.rates_bpm and np.array_equal(ends.share, plain.share)


def with_network(window, wave):
    return dataclasses.replace(window, waves=window.waves | {"sspd": wave})


def test_a_network_speaks_for_its_own_rate_and_against_others():
    window = seen(of(heart()))
    agrees = evidence(with_network(window, heart()))
    assert agrees.network_off < 1 and agrees.network_share > 0.9
    rival = with_network(window, np.sin(2 * np.pi * (BPM + 12) / 60 * TIME))
    off = evidence(rival)
    assert off.network_off == pytest.approx(12, abs=0.5) and off.network_share < 0.1
    far = evidence(with_network(window, np.sin(2 * np.pi * 2.4 * TIME)))
    assert far.network_off == skin_evidence.FAR_BPM
    noisy = evidence(
        with_network(window, heart() / heart().std() + np.random.default_rng(0).normal(size=FRAMES))
    )
    assert agrees.network_share > noisy.network_share > off.network_share
    chances = [of_skin(one)[0] for one in (agrees, off)]
    assert chances[0] > chances[1]


def test_a_network_that_was_not_asked_or_ends_early_says_nothing():
    window = seen(of(heart()))
    ends = with_network(window, np.append(heart()[:-1], np.nan))
    for one in (evidence(window), evidence(ends)):
        assert np.isnan(one.network_off) and np.isnan(one.network_share)
        assert np.isfinite(of_skin(one)[0])
    assert of_skin(evidence(window)) == of_skin(evidence(ends))


def test_upright_is_the_wave_that_rises_as_blood_darkens_the_skin():
    window = seen(of(-heart()))
    assert skin_evidence.upright(window, heart(), BPM) > 0.95
    assert skin_evidence.upright(window, -heart(), BPM) < -0.95


def test_every_feature_is_weighed_once_and_only_the_way_it_can_speak():
    names, weights = confidence.weights("skin").names, confidence.weights("skin").weight
    features = skin_features(evidence(seen(of(heart()))))
    assert sorted(names) == sorted(features)
    assert len(set(SKIN_AGAINST)) == len(SKIN_AGAINST) and set(SKIN_AGAINST) < set(names)
    for name, weight in zip(names, weights, strict=True):
        assert weight <= 0 if name in SKIN_AGAINST else weight >= 0, name
    assert {name.split()[0] for name in names} == set(SKIN_REASONS)


WORSE = {
    "wave_share": 0.1,
    "fused_share": 0.1,
    "rival": -2.0,
    "estimators_agree": 0.25,
    "estimators_off": 12.0,
    "estimators_share": 0.2,
    "patches_agree": 0.1,
    "patches_share": 0.1,
    "in_step": 0.1,
    "green_in_step": 0.1,
    "spread": 1.0,
    "sides": 0.8,
    "blood": 0.5,
    "grey": 1.0,
    "red_green": 1.2,
    "blue_green": -0.4,
    "patches_blood": 0.3,
    "same_colour": 0.3,
    "strength": -4.0,
    "eyes_in_step": 0.9,
    "behind": 0.0,
    "behind_share": 0.9,
    "behind_colour": 0.0,
    "moved": 1.0,
    "posed": 0.5,
    "moved_share": 0.9,
    "green_left": 0.1,
    "wave_left": 0.1,
    "left_off": 18.0,
    "wander": -1.0,
    "halves_off": 15.0,
    "halves_colour": 0.3,
    "brightness": 1.2,
    "area": 1.5,
    "network_off": 15.0,
    "network_share": 0.05,
}
FIELDS_OF = {
    "rhythm": ("wave_share", "fused_share", "rival"),
    "agreement": ("estimators_agree", "estimators_off", "estimators_share", "network_off", "network_share"),
    "patches": ("patches_agree", "patches_share", "in_step", "green_in_step", "spread"),
    "blood": ("blood", "grey", "red_green", "blue_green", "patches_blood", "same_colour", "halves_colour"),
    "faint": ("strength", "brightness", "area"),
    "light": ("eyes_in_step", "behind", "behind_share", "behind_colour", "sides"),
    "motion": ("moved", "posed", "moved_share", "green_left", "wave_left", "left_off"),
    "time": ("wander", "halves_off"),
}


@pytest.fixture(name="alike")
def _alike(monkeypatch):
    """All features weigh alike, around a good pulse; returns its evidence."""
    good = dataclasses.replace(evidence(seen(of(heart()))), network_off=0.5, network_share=0.8)
    features = skin_features(good)
    signs = [-1.0 if name in SKIN_AGAINST else 1.0 for name in features]
    table = {"names": list(features), "centre": list(features.values()), "weight": signs, "bias": 2.0}
    monkeypatch.setattr(confidence, "weights", {"skin": confidence.as_weights(table)}.__getitem__)
    return good


def test_each_reason_is_given_for_what_it_names(alike):
    assert set(FIELDS_OF) == set(SKIN_REASONS)
    before, _ = of_skin(alike)
    assert before == pytest.approx(1 / (1 + np.exp(-2)))
    for kind, fields in FIELDS_OF.items():
        sure, why = of_skin(dataclasses.replace(alike, **{field: WORSE[field] for field in fields}))
        assert why == SKIN_REASONS[kind] and sure < before
    assert of_skin(dataclasses.replace(alike, wander=-2.7))[1] == SKIN_REASONS["light"]  # a lamp's clock
    assert of_skin(dataclasses.replace(alike, strength=-1.5))[1] == SKIN_REASONS["light"]


def test_each_field_that_gets_worse_speaks_against_the_rate(alike):
    # What counts only where another is there.
    along = {"behind": {"behind_share": 0.5}, "behind_share": {"behind": -0.5}, "moved": {"moved_share": 0.5}}
    for field, value in WORSE.items():
        beside = dataclasses.replace(alike, **along.get(field, {}))
        worse = dataclasses.replace(beside, **{field: value})
        assert of_skin(worse)[0] < of_skin(beside)[0], field
    assert {field.name for field in dataclasses.fields(SkinEvidence)} - set(WORSE) == {"eyes"}


def test_a_raw_wave_far_from_zero_is_weighed_as_one_around_it():
    window = seen(of(heart(81, wander=0)))
    e = evidence(window, bpm=81.0, wave="green")
    assert window.waves["green"].mean() > 100
    assert e.wave_left == pytest.approx(e.green_left, abs=1e-3)


def test_an_interval_is_as_wide_as_the_fused_spectrum_is_unsure():
    good = evidence(seen(of(heart())))
    low, high = confidence.interval_of_skin(good, BPM)
    assert low < BPM < high and BPM - low == pytest.approx(high - BPM)
    widths = []
    for share in (0.4, 0.25, 0.0, 1.0):
        low, high = confidence.interval_of_skin(dataclasses.replace(good, fused_share=share), BPM)
        widths.append((high - low) / 2)
    factor = confidence.interval_factor()
    assert widths[:2] == pytest.approx([factor * 0.6 / 0.4, factor * 0.75 / 0.25])
    assert widths[0] < widths[1] < widths[2] < np.inf and widths[3] > 0


def test_nine_of_ten_intervals_of_noisy_pulses_hold_the_rate_and_none_is_wide():
    held, half = [], []
    for number, noise in enumerate(np.linspace(0.1, 0.5, 20)):
        bpm = 55 + 4.3 * number
        window = seen(of(heart(bpm)), noise=noise)
        still = np.random.default_rng(number).normal(0, 1, (FRAMES, 7)) * TREMBLE  # whatever the colours do
        window = dataclasses.replace(window, track=still)
        fused = fuse(window)
        low, high = confidence.interval_of_skin(evidence(window, fused.bpm), fused.bpm)
        held.append(low <= bpm <= high)
        half.append((high - low) / 2)
    assert np.mean(held) >= 0.9
    assert np.median(half) < 4

"""Footage without a pulse: each kind does what it says and nothing of it looks like blood."""

import dataclasses

import numpy as np
import pytest
from still_face import write_still

from sspd_jax.simulation import footage, pulse_free
from sspd_jax.simulation.person import PULSE_COLOUR

STILL = {"frozen", "camera_noise", "codec"}
MOTION = {
    *("nod", "head_nod", "head_turn", "sway", "tilt", "zoom", "shake", "vibration", "chewing"),
    *("nod_shaded", "talking_track", "photograph", "mask"),
}
FACE_ALONE = {
    *("white_face", "green_face", "coloured_face", "screen_hue", "screen_video", "half_face", "flicker_60"),
    *("shadow",),
}
NO_SKIN = {"cartoon", "mannequin", "mask", "empty_chair"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "still.mp4"
    write_still(path, frames=18)
    studied = footage.study(path, 10.0, None)
    (picture,) = footage.play(studied, np.array([4]))
    return pulse_free.look_at(studied, 4, picture)


@pytest.fixture(scope="module")
def drawn():
    return pulse_free.draw(np.random.default_rng(5))


def cycle(scene, drawn, name, steps=14):
    """What a kind shows over two beats, float32 [t, h, w, 3], sampled where frames are."""
    frames = np.unique(np.rint(np.linspace(0, 2 * scene.rate_hz / drawn.hz, steps, endpoint=False)))
    return np.stack([pulse_free.KINDS[name].show(scene, k / scene.rate_hz, drawn) for k in frames])


def test_there_are_enough_kinds_and_each_is_in_words():
    assert len(pulse_free.KINDS) >= 25
    assert all(kind.says for kind in pulse_free.KINDS.values())
    assert {*STILL, *MOTION, *FACE_ALONE, *NO_SKIN} <= set(pulse_free.KINDS)


@pytest.mark.parametrize("name", pulse_free.KINDS)
def test_a_kind_is_a_pure_function_that_leaves_its_scene_alone(scene, drawn, name):
    before = scene.picture.copy()
    seen = pulse_free.KINDS[name].show(scene, 0.37, drawn)
    assert seen.shape == scene.picture.shape
    assert seen.dtype == np.float32
    assert np.isfinite(seen).all()
    assert (seen == pulse_free.KINDS[name].show(scene, 0.37, drawn)).all()
    assert (scene.picture == before).all()
    film = [
        pulse_free.film(pulse_free.KINDS[name], scene, 0.37, drawn, np.random.default_rng(k)) for k in (0, 0)
    ]
    assert film[0].dtype == np.uint8
    assert (film[0] == film[1]).all()


@pytest.mark.parametrize("name", pulse_free.KINDS)
def test_it_changes_where_it_says_and_never_as_blood_on_skin_alone_does(scene, drawn, name):
    seen = cycle(scene, drawn, name)
    change = np.ptp(seen, axis=0)
    if name in STILL:
        assert change.max() == 0
        return
    if name != "talking_track":  # the still clip's head does not move
        assert change.max() > 0.4
    corners = np.r_[change[:8, :8].ravel(), change[:8, -8:].ravel()]
    if name in FACE_ALONE or name in ("head_nod", "head_turn", "chewing"):
        assert corners.max() < 0.05
    if name in NO_SKIN or name in MOTION:
        return
    # What light does: its colour over all of the skin, over either half, and over what is behind.
    skin = scene.skin > 0.9
    right, left = skin & (scene.across < -0.3), skin & (scene.across > 0.3)
    change = [(seen[:, part].mean(1) / scene.picture[part].mean(0) - 1) for part in (skin, right, left)]
    whole, one, other = (c - c.mean(0) for c in change)
    _, size, ways = np.linalg.svd(whole, full_matrices=False)
    like_blood = abs(ways[0] @ PULSE_COLOUR) / np.linalg.norm(PULSE_COLOUR)
    steady = size[1] < 0.05 * size[0]
    even = np.abs(one - other).max() < 0.3 * np.abs(whole).max()
    alone = corners.max() < 0.05
    assert not (like_blood > 0.985 and steady and even and alone)


def test_white_light_has_no_colour_and_green_light_is_green(scene, drawn):
    seen = cycle(scene, drawn, "white_all") / np.maximum(scene.picture, 1)
    np.testing.assert_allclose(
        seen.max(-1)[:, scene.picture.min(-1) > 5], seen.min(-1)[:, scene.picture.min(-1) > 5], atol=1e-5
    )
    seen = cycle(scene, drawn, "green_face")
    assert np.ptp(seen[..., [0, 2]], axis=0).max() < 1e-3


def test_a_mannequin_is_as_bright_in_every_picture_whatever_the_person_does(scene, drawn):
    beaten = dataclasses.replace(
        scene, picture=scene.picture * (1 - 0.02 * scene.skin[..., None] * PULSE_COLOUR)
    )
    show, skin = pulse_free.KINDS["mannequin"].show, scene.skin[..., None] / scene.skin.sum()
    one, other = ((show(s, 0.2, drawn) * skin).sum((0, 1)) for s in (scene, beaten))
    np.testing.assert_allclose(one, other, rtol=1e-3)  # of a change of 2 %
    assert np.ptp(one) < 0.1 * one.mean()  # grey


@pytest.mark.parametrize(("name", "mains_hz"), [("flicker_50", 100), ("flicker_60", 120)])
def test_mains_are_folded_by_the_frame_rate_to_where_a_pulse_could_be(scene, drawn, name, mains_hz):
    times_s = np.arange(60) / scene.rate_hz
    row = [pulse_free.KINDS[name].show(scene, t, drawn)[128, 128, 1] for t in times_s]
    power = np.abs(np.fft.rfft((row - np.mean(row)) * np.hanning(60), 2048))
    assert np.fft.rfftfreq(2048, 1 / scene.rate_hz)[power.argmax()] == pytest.approx(drawn.hz, abs=0.1)
    assert abs(round(mains_hz / scene.rate_hz) * scene.rate_hz - mains_hz) < scene.rate_hz / 2


def test_a_track_is_replayed_to_and_fro(scene, drawn):
    track = np.array([[0, 0, 0, 0, 0], [1, 0.5, 0, 0, 0]], float)
    moving = dataclasses.replace(scene, track=track)
    show = pulse_free.KINDS["talking_track"].show
    np.testing.assert_allclose(show(moving, 0.4, drawn), show(moving, 1.6, drawn), atol=1e-3)
    assert np.abs(show(moving, 0.4, drawn) - show(moving, 0.0, drawn)).max() > 5


def test_seeds_draw_rates_and_strengths_where_pulses_are():
    many = [pulse_free.draw(np.random.default_rng(seed)) for seed in range(60)]
    assert len({one.hz for one in many}) == 60
    assert min(one.hz for one in many) >= 0.75
    assert max(one.hz for one in many) <= 2.4
    assert 0.2 < np.mean([one.sway > 0 for one in many]) < 0.8
    for one in many:
        assert max(one.colour) == 1
        colour = np.array(one.colour)
        assert colour @ PULSE_COLOUR < 0.8 * np.linalg.norm(colour) * np.linalg.norm(PULSE_COLOUR) + 1e-9
    assert pulse_free.KINDS["codec"].options(many[0], 30.0)["g"] == str(round(30 / many[0].hz))

"""Simulated people: what is drawn, painted, lit and filmed of them, each against hand values or an oracle."""

import dataclasses
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sspd_jax.simulation import known_pulse
from sspd_jax.simulation.people import (
    camera,
    film,
    head_motion,
    heads,
    lights,
    looks,
    paint,
    raster,
    skin_optics,
)
from sspd_jax.simulation.people.camera import Camera, Sensor
from sspd_jax.simulation.people.head_motion import Habits, draw_motion
from sspd_jax.simulation.people.lights import LightSettings
from sspd_jax.simulation.people.presets import PRESETS
from sspd_jax.simulation.people.recordings import TRACKS
from sspd_jax.video.face_mesh import load_networks

PERFECT = Camera(electrons=1e12, read_noise=0, softness_px=0, sharpening=0, contrast=0)
CODEC_NAMES = {"h264": "H.264", "hevc": "HEVC", "vp8": "VP8"}
STILL = Habits(sway_deg=0, sway_dm=0)


@pytest.fixture(scope="module")
def figure():
    return paint.draw_figure(looks.draw_looks(5))


# Skin.


def test_melanin_absorbs_as_jacques_has_it():
    at = np.flatnonzero(skin_optics.WAVELENGTHS_NM == 500)[0]
    # 6.6·10¹¹·500^−3.33 = 679 /cm; bloodless tissue 0.244 + 85.3·exp(−346/66.2) = 0.70 /cm.
    absorbed = 0.1 * 679.0 + 0.9 * 0.702
    assert skin_optics._epidermis(0.1)[at] == pytest.approx(np.exp(-absorbed * 0.006 * 2), rel=2e-3)


def test_the_pulse_of_light_skin_has_the_colour_that_was_measured():
    measured = np.array([0.33, 0.77, 0.53])  # de Haan & van Leest
    pulse = -skin_optics.skin(*skin_optics.LIGHT_SKIN).pulse
    np.testing.assert_allclose(pulse / pulse[1], measured / measured[1], rtol=1e-6)
    for blood in (0.008, 0.03):
        pulse = -skin_optics.skin(0.03, blood).pulse
        assert pulse @ measured / np.linalg.norm(pulse) / np.linalg.norm(measured) > 0.99
        assert pulse[1] > pulse[2] > pulse[0] > 0


def test_darker_skin_is_darker_and_beats_less():
    melanins = np.geomspace(*skin_optics.MELANIN, 8)
    skins = [skin_optics.skin(melanin, 0.015) for melanin in melanins]
    assert (np.diff([skin.colour for skin in skins], axis=0) < 0).all()
    green = [-skin.pulse[1] for skin in skins]
    assert (np.diff(green) < 0).all()
    assert 0.3 < green[-1] / green[0] < 0.7  # as in Nowara et al., half as strong in the darkest


# The mesh.


def test_a_triangle_covers_the_pixels_in_it():
    points = np.array([[1, 1, 5], [1, 5, 5], [5, 1, 5]], np.float32)
    seen = raster.rasterise(points, np.array([[0, 1, 2]]), (8, 6))
    covered = np.zeros(48, int)
    covered[seen.pixels] = 1
    hand = np.zeros((6, 8), int)
    for row, last in ((1, 5), (2, 4), (3, 3), (4, 2), (5, 1)):
        hand[row, 1 : last + 1] = 1
    np.testing.assert_array_equal(covered.reshape(6, 8), hand)
    np.testing.assert_allclose(
        seen.of(points, np.array([[0, 1, 2]]))[:, :2], np.argwhere(hand)[:, ::-1], atol=1e-5
    )


def test_backs_are_not_seen_and_the_nearer_hides_the_farther():
    points = np.array([[0, 0, 9], [0, 7, 9], [7, 0, 9], [0, 0, 3], [0, 4, 3], [4, 0, 3]], np.float32)
    both = np.array([[0, 1, 2], [3, 4, 5]])
    for order in (both, both[::-1]):
        seen = raster.rasterise(points, order, (8, 8))
        depth = np.full(64, np.inf)
        depth[seen.pixels] = seen.of(points, order)[:, 2]
        assert depth[0] == 3 and depth[8 * 2 + 2] == 3 and depth[8 * 5] == 9
    assert not len(raster.rasterise(points, both[:, ::-1], (8, 8)).pixels)


def test_random_triangles_are_drawn_as_by_looking_at_every_pixel():
    rng = np.random.default_rng(3)
    points = rng.uniform(-10, 40, (60, 3)).astype(np.float32)
    triangles = np.arange(60).reshape(20, 3)
    seen = raster.rasterise(points, triangles, (32, 24))
    shown = np.full(24 * 32, -1)
    shown[seen.pixels] = seen.triangle
    column, row = np.meshgrid(np.arange(32.0), np.arange(24.0))
    nearest = np.full((24, 32), np.inf)
    oracle = np.full((24, 32), -1)
    for i, (a, b, c) in enumerate(points[triangles].astype(float)):
        turn = [
            (q[0] - p[0]) * (row - p[1]) - (q[1] - p[1]) * (column - p[0])
            for p, q in ((a, b), (b, c), (c, a))
        ]
        inside = np.all([t <= 0 for t in turn], axis=0)
        depth = (a[2] + b[2] + c[2]) / 3
        oracle[inside & (depth < nearest)] = i
        nearest[inside] = np.minimum(nearest[inside], depth)
    assert (shown.reshape(24, 32) == oracle).mean() > 0.995  # but for pixels on an edge
    assert len(np.unique(oracle)) > 6


def test_heads_turn_as_their_angles_say():
    nose, top, right = np.array([0, 0, 1.0]), np.array([0, 1.0, 0]), np.array([1.0, 0, 0])
    assert (heads.rotation(0.3, 0, 0) @ nose)[0] > 0.29  # to the picture's right
    assert (heads.rotation(0, 0.3, 0) @ nose)[1] < -0.29  # down
    assert (heads.rotation(0, 0, 0.3) @ top)[0] > 0.29 and (heads.rotation(0, 0, 0.3) @ right)[1] < -0.29
    turned = heads.rotation(0.3, -0.2, 0.4)
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-6)


def test_normals_look_out_of_a_head():
    model = heads.load_heads()
    rest = model.shape(np.eye(12)[0], np.zeros(len(model.components)))
    up = heads.normals(rest, model.vertex_of_corner[model.triangles])
    np.testing.assert_allclose(np.linalg.norm(up[np.unique(model.vertex_of_corner)], axis=1), 1, atol=1e-5)
    front = np.argmax(rest[model.vertices_of_part("skin"), 2])
    assert up[model.vertices_of_part("skin")[front], 2] > 0.6  # the tip of the nose


# The list of people.


def test_the_list_of_people_is_frozen():
    told = [
        (who.number, who.split, round(who.melanin, 6), who.hair, who.glasses, round(who.beard, 6), who.seed)
        for who in map(looks.draw_looks, range(1, 61))
    ]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    assert digest[:16] == "3adb30bccb7d79f9"  # another list needs another VERSION


def test_nobody_is_in_two_parts_of_the_list_and_each_part_has_every_skin():
    parts = {split: looks.people_of(split, 10 * count) for split, count in looks.SPLITS.items()}
    together = [number for numbers in parts.values() for number in numbers]
    assert sorted(together) == list(range(1, 61))
    low, high = np.log(skin_optics.MELANIN)
    for numbers in parts.values():
        at = (np.log([looks.draw_looks(number).melanin for number in numbers]) - low) / (high - low)
        assert at.min() < 0.2 and at.max() > 0.75 and 0.35 < at.mean() < 0.65
    talkers = [name for names in TRACKS.values() for name in names]
    assert sorted(talkers) == sorted(head_motion.load_tracks())


def test_people_differ_in_shape():
    shapes = []
    model = heads.load_heads()
    for number in range(1, 21):
        who = looks.draw_looks(number)
        assert who.groups.sum() == pytest.approx(1)
        shapes.append(model.shape(who.groups, who.components)[model.vertices_of_part("skin")])
    apart = [np.sqrt(((a - b) ** 2).sum(1).mean()) for i, a in enumerate(shapes) for b in shapes[:i]]
    assert min(apart) > 0.03  # 3 mm


# Motion and light.


def test_a_still_head_recoils_with_its_beats_only():
    times_s = np.arange(300) / 30
    ppg = np.sin(2 * np.pi * 1.2 * times_s)
    motion = draw_motion(np.random.default_rng(1), STILL, TRACKS["fit"], times_s, ppg)
    assert 0.5 * head_motion.EJECTION_DM < np.abs(motion.pose["y"]).max() <= 1.01 * head_motion.EJECTION_DM
    assert all(not motion.pose[name].any() for name in ("yaw", "pitch", "roll", "x", "z"))
    assert 0.8 < motion.moves["blink"].max() <= 1.1 and np.median(motion.moves["blink"]) < 0.01


def test_talkers_move_as_their_tracks_do():
    times_s = np.arange(1500) / 30
    still, talk = (
        draw_motion(
            np.random.default_rng(2),
            Habits(sway_deg=0, sway_dm=0, talk=share),
            ("talk_d3",),
            times_s,
            times_s,
        )
        for share in (0.0, 1.0)
    )
    track = head_motion.load_tracks()["talk_d3"]
    assert talk.pose["yaw"].std() == pytest.approx(track[0].std(), rel=0.25)
    assert talk.moves["jaw"].std() > 5 * still.moves["jaw"].std() + 0.02
    assert np.abs(np.diff(talk.pose["yaw"])).max() < 0.12  # to and fro, without a jump


def test_light_keeps_away_from_the_pulse_and_screens_light_the_person_alone():
    times_s = np.arange(900) / 30
    for seed in range(20):
        light = lights.draw_lights(
            np.random.default_rng(seed), LightSettings(lamp=0.006, slow=0), times_s, 72.0
        )
        beat = light.colours[:, 2].sum(1)
        power = np.abs(np.fft.rfft((beat - beat.mean()) * np.hanning(900)))
        assert abs(np.argmax(power) / 30 - 1.2) > lights.APART_HZ - 0.06
    dim = LightSettings(level=0.1, key=0, slow=0, warmth=0, screen=0.8)
    light = lights.draw_lights(np.random.default_rng(1), dim, times_s, 72.0)
    assert light.behind.std() < 1e-6 and light.colours[:, -1].std() > 0.01
    with_mains = lights.draw_lights(np.random.default_rng(1), LightSettings(mains=0.1), times_s, 72.0)
    rows = with_mains.rows(0, 480)
    assert 1.05 < rows.max() <= 1.1 and 0.9 <= rows.min() < 0.95


# The camera.


def shoot(settings, level, frames=40, size=(64, 48)):
    sensor = Sensor(np.random.default_rng(0), settings, size, np.arange(frames) / 30)
    return np.stack([sensor.shoot(np.full((*size[::-1], 3), level, np.float32), i) for i in range(frames)])


def to_light(pictures):
    curve = camera._tone_curve(0.0)
    return np.interp(pictures, curve, np.linspace(0, 1, camera.LEVELS))


def test_noise_grows_with_light_as_electrons_do():
    settings = Camera(electrons=2000, read_noise=20, softness_px=0, sharpening=0, contrast=0)
    planes = camera.sensor_noise(np.random.default_rng(7), 64, 48).std((0, 1))
    for level in (0.05, 0.5):
        light = to_light(shoot(settings, level)) * level / camera.GREY
        expected = np.sqrt(level / 2000 + (20 / 2000) ** 2) * planes
        np.testing.assert_allclose(light.std(0).mean((0, 1)), expected, rtol=0.1)


def test_noise_has_the_colour_that_gains_and_matrix_give_it():
    noise = camera.sensor_noise(np.random.default_rng(1), 400, 301)
    assert noise.shape == (301, 400, 3) and noise.dtype == np.float32
    sites = noise @ np.linalg.inv(camera.COLOUR_MATRIX).T / np.sqrt(camera.WHITE_GAINS)
    spread = sites.reshape(-1, 3).std(0)
    # Half of green is seen, the rest the mean of four: (1 + 1/4)/2. Red and blue lie 1/4 and 3/4 of the way
    # between two sites, across and down: (1/16 + 9/16)².
    np.testing.assert_allclose(spread, [0.625, np.sqrt(0.625), 0.625], rtol=0.03)
    correlated = np.corrcoef(sites.reshape(-1, 3).T)
    assert np.abs(correlated - np.eye(3)).max() < 0.02  # sites know nothing of each other
    # Their colours do: what makes colours purer gives red and green noise of opposite sign.
    assert np.corrcoef(noise.reshape(-1, 3).T)[0, 1] < -0.3
    beside = (sites[:, 1:] * sites[:, :-1]).mean((0, 1)) / spread**2
    assert beside[0] > 0.7 and 0.3 < beside[1] < 0.5  # grains of two pixels; of green smaller ones


def test_grey_stays_grey_through_the_colour_matrix():
    np.testing.assert_allclose(camera.COLOUR_MATRIX.sum(1), 1, atol=1e-6)


def test_what_moves_is_blurred_along_its_way():
    along = film.streak(np.array([4.0, 0.0]))
    middle = len(along) // 2
    assert along.sum() == pytest.approx(1) and not np.delete(along, middle, axis=0).any()
    across = np.arange(len(along)) - middle
    line = along[middle]
    assert line @ across == pytest.approx(0, abs=1e-6)
    assert np.sqrt(line @ across**2) == pytest.approx(4 / np.sqrt(12), rel=0.15)  # of an even line of 4
    slanted = film.streak(np.array([3.0, -3.0]))
    down, over = np.indices(slanted.shape) - len(slanted) // 2
    assert (slanted * down * over).sum() < -0.3 and (slanted * (down + over)).sum() == pytest.approx(
        0, abs=1e-5
    )


def test_a_head_that_moves_is_blurred_and_the_wall_stays_sharp(figure, monkeypatch):
    def sharpness(shutter):
        scene = film.Scene(
            size=(160, 160), face=(0.6, 0.6), habits=STILL, busy=1,
            camera=dataclasses.replace(PERFECT, shutter=shutter), light=LightSettings(level=0.5, slow=0),
        )  # fmt: skip
        wave = known_pulse.draw_wave(4, 72.0, 1.0)
        pictures = list(film.film(figure, scene, wave, TRACKS["fit"], np.arange(2) / 30, [1]))
        rough = np.abs(np.diff(pictures[1][..., 1].astype(float), axis=1))
        return rough[60:110, 60:100].mean(), rough[:20, :30].mean()

    moved = draw_motion

    def leaping(*given):
        motion = moved(*given)
        motion.pose["x"][1] += 0.3
        return motion

    monkeypatch.setattr(film, "draw_motion", leaping)
    (face, wall), (blurred, same_wall) = sharpness(0.0), sharpness(0.8)
    assert blurred < 0.8 * face and same_wall == wall


def test_every_third_person_sits_before_a_window():
    scene = film.Scene(size=(64, 48), light=LightSettings(back=0.3))
    bright = [film._room(np.random.default_rng(seed), scene).max() > 1.5 for seed in range(120)]
    assert 25 <= sum(bright) <= 55
    dark = dataclasses.replace(scene, light=LightSettings())
    assert not any(film._room(np.random.default_rng(seed), dark).max() > 1.5 for seed in range(20))


def test_exposure_makes_pictures_grey_until_its_gain_ends():
    curve = camera._tone_curve(0.0)
    grey = np.interp(camera.GREY, np.linspace(0, 1, camera.LEVELS), curve)
    for level in (0.05, 0.5, 2.0):
        assert shoot(PERFECT, level, 2).mean() == pytest.approx(grey, abs=1)
    assert shoot(PERFECT, 0.002, 2).mean() < 0.6 * grey


def test_exposure_that_hunts_changes_in_steps():
    times_s = np.arange(300) / 30
    sensor = Sensor(np.random.default_rng(0), Camera(exposure_step=0.02), (64, 48), times_s)
    means = [
        sensor.shoot(np.full((48, 64, 3), 0.3 + 0.2 * (i > 150), np.float32), i).mean() for i in range(300)
    ]
    assert means[151] > means[149] + 5 and abs(means[299] - means[149]) < 4
    assert np.abs(np.diff(means[152:])).max() < 3


def test_a_calm_picture_has_less_noise_where_nothing_moves():
    noisy = Camera(electrons=300, sharpening=0)
    calm = Camera(electrons=300, sharpening=0, denoise=0.7)
    assert shoot(calm, 0.2)[10:].std(0).mean() < 0.7 * shoot(noisy, 0.2)[10:].std(0).mean()


# The film.


def filmed(figure, pulse_free=None, seconds=10.0, **changes):
    scene = film.Scene(
        size=(160, 160), face=(0.6, 0.6), habits=STILL, camera=PERFECT, busy=0,
        light=LightSettings(level=0.5, slow=0, warmth=0), **changes,
    )  # fmt: skip
    times_s = np.arange(round(seconds * 30)) / 30
    wave = known_pulse.draw_wave(4, 72.0, seconds)
    pictures = list(film.film(figure, scene, wave, TRACKS["fit"], times_s, [1], pulse_free=pulse_free))
    return np.stack(pictures), wave.at(times_s)


def test_what_is_put_in_comes_out_of_the_mean_green(figure, monkeypatch):
    monkeypatch.setattr(head_motion, "EJECTION_DM", 0.0)
    pictures, ppg = filmed(figure)
    light = to_light(pictures.astype(np.float32))
    # Cheeks and nose of a face in the picture's middle, eyes and mouth left out.
    green = light[:, 78:92, 64:96, 1].mean((1, 2))
    change = green / green.mean() - 1
    slope = -(change @ (ppg - ppg.mean())) / ((ppg - ppg.mean()) @ (ppg - ppg.mean()))
    strength = -figure.beats[..., 1][figure.beats[..., 1] < -1e-4].mean()
    assert 0.6 * strength < slope < 1.7 * strength
    assert np.corrcoef(change, -ppg)[0, 1] > 0.99


def test_nothing_but_skin_beats(figure):
    eyes, teeth, long_hair = (
        (slice(0, 128), slice(576, 704)),
        (slice(140, 180), slice(622, 660)),
        slice(600, None),
    )
    for place in (eyes, teeth, (long_hair, slice(heads.ISLAND, None))):
        assert not figure.beats[place].any()
    assert (figure.beats[..., 1] <= 0).all()


def cheeks(pictures):
    return to_light(pictures[:, 78:92, 64:96].astype(np.float32))[..., 1].mean((1, 2))


@pytest.fixture(scope="module")
def beating_cheeks(figure):
    return cheeks(filmed(figure, seconds=4.0)[0])


@pytest.mark.parametrize("kind", film.PULSE_FREE)
def test_twins_have_no_pulse(figure, beating_cheeks, kind):
    pictures, ppg = filmed(figure, kind, seconds=4.0)
    green, with_pulse = cheeks(pictures), beating_cheeks
    ppg = ppg - ppg.mean()
    slope = abs(green @ ppg / (ppg @ ppg)) / green.mean()
    assert slope < 0.1 * abs(with_pulse @ ppg / (ppg @ ppg)) / with_pulse.mean()


def test_a_face_is_found_in_every_preset(figure):
    networks, why = load_networks()
    if networks is None:
        pytest.skip(why)
    wave = known_pulse.draw_wave(4, 72.0, 1.0)
    for name, preset in PRESETS.items():
        pictures = film.film(figure, preset.scene, wave, TRACKS["fit"], np.arange(3) / preset.fps, [2])
        *_, last = pictures
        assert last.shape[1::-1] == preset.scene.size
        (face,) = networks.detect(last)
        height = face.box[3] - face.box[1]
        assert 0.15 < height / last.shape[0] < 0.6, name


def test_glasses_hair_and_beard_are_seen():
    bare = looks.draw_looks(5)
    pictures = {}
    for name, changed in {
        "bare": {"hair": "none", "beard": 0.0, "glasses": "none", "make_up": 0.0},
        "hair": {"hair": "full", "beard": 0.0, "glasses": "none", "make_up": 0.0},
        "beard": {"hair": "none", "beard": 1.0, "glasses": "none", "make_up": 0.0},
        "glasses": {"hair": "none", "beard": 0.0, "glasses": "thick", "make_up": 0.0},
    }.items():
        who = dataclasses.replace(bare, hair_colour=np.array([0.01, 0.008, 0.006]), **changed)
        pictures[name] = filmed(paint.draw_figure(who), seconds=0.1)[0][0].astype(float)

    def darker(name):
        change = pictures["bare"].mean(2) - pictures[name].mean(2)
        return cv2.GaussianBlur(change, (0, 0), 1) > 15

    rows = {name: np.flatnonzero(darker(name).any(1)) for name in ("hair", "beard", "glasses")}
    assert all(darker(name).sum() > 40 for name in rows)
    middle = {name: np.average(np.arange(160), weights=darker(name).sum(1)) for name in rows}
    assert middle["hair"] < middle["glasses"] < middle["beard"]


def test_the_page_has_every_preset_s_card():
    page = (Path(__file__).parents[3] / "docs" / "simulation.md").read_text()
    for name, preset in PRESETS.items():
        size = "×".join(map(str, preset.scene.size))
        card = f"| `{name}` | {preset.says} | {preset.hard} | {preset.whom} | {size}, {preset.fps:g}/s | "
        area = np.prod(preset.scene.size) / (640 * 480)
        low, high = (f"{area * kbps / 1000:.1f}" for kbps in preset.kbps)
        card += f"{CODEC_NAMES[preset.codec]}, {low}–{high} Mbit/s |"
        assert card in page, name
    assert all(f"`{kind}`" in page for kind in film.PULSE_FREE)

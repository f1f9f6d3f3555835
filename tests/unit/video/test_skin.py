import cv2
import numpy as np
import pytest
from scripted_faces import Scripted

from sspd_jax.simulation import sample_video
from sspd_jax.video import skin_map
from sspd_jax.video import skin_traces as traces_of
from sspd_jax.video.face_mesh import FaceRegion, Mesh, load_networks
from sspd_jax.video.face_track import TEMPLATE
from sspd_jax.video.skin_map import PATCHES, face_map, fit_skin, patch_maps, skin_likeness, to_ycc
from sspd_jax.video.skin_traces import AlignedFace, SkinMapper, SkinRecorder, SkinWeigher, skin_traces

cv2.setNumThreads(1)
SIZE = 96
POINTS = TEMPLATE[:, :2] * SIZE / 4.4 + (SIZE - 1) / 2
TONES = {"light": (232, 196, 178), "brown": (150, 102, 78), "dark": (70, 46, 38)}


def middle(name):
    return tuple(np.rint(POINTS[list(skin_map.HOLES[name])].mean(0)).astype(int)[::-1])


def test_eyes_brows_lips_and_all_outside_are_left_out():
    drawn = face_map(POINTS, SIZE)
    assert drawn.dtype == np.float32
    for hole in ("right_eye", "left_eye", "lips"):
        assert drawn[middle(hole)] < 0.5
    assert max(drawn[0].max(), drawn[:, 0].max(), drawn[-1].max()) < 0.02
    for landmark in (50, 280, 151, 199):  # cheeks, forehead, chin
        x, y = np.rint(POINTS[landmark]).astype(int)
        assert drawn[y, x] > 0.6


def test_patches_lie_where_they_are_called():
    maps = patch_maps(POINTS, SIZE)
    assert maps.shape == (len(PATCHES), SIZE, SIZE)
    x = dict(zip(PATCHES, (maps * np.arange(SIZE)).sum((1, 2)) / maps.sum((1, 2)), strict=True))
    y = dict(zip(PATCHES, (maps * np.arange(SIZE)[:, None]).sum((1, 2)) / maps.sum((1, 2)), strict=True))
    # The person's right is the picture's left.
    assert x["cheek_right"] < x["nose"] < x["cheek_left"]
    assert y["forehead_centre"] < y["glabella"] < y["nose"] < y["upper_lip"] < y["chin"]


def test_the_map_glides_with_the_face():
    shifts = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    columns = np.arange(SIZE)
    centres = [
        (face_map(np.add(POINTS, (s, 0)), SIZE).sum(0) @ columns)
        / face_map(np.add(POINTS, (s, 0)), SIZE).sum()
        for s in shifts
    ]
    assert np.diff(centres) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("tone", TONES)
def test_skin_of_any_tone_is_learned_and_other_things_are_not(tone):
    rng = np.random.default_rng(0)
    skin = np.clip(np.array(TONES[tone]) + rng.normal(0, 4, (40, 40, 3)), 0, 255).astype(np.uint8)
    mixed = skin.copy()
    mixed[:16] = np.clip(
        np.array((30, 90, 160)) + rng.normal(0, 4, (16, 40, 3)), 0, 255
    )  # a mask over two fifths
    colour = fit_skin(to_ycc(mixed).reshape(-1, 3))
    like = skin_likeness(mixed, to_ycc(mixed), colour)
    assert like[18:].mean() > 0.7
    assert like[:14].max() < 0.01
    glare = np.full((5, 5, 3), 255, np.uint8)
    assert skin_likeness(glare, to_ycc(glare), colour).max() == 0


def test_too_few_pixels_teach_no_colour():
    assert fit_skin(np.zeros((5, 3))) is None


def face_picture(tone, noise, rng, beat=0.0, size=240, at=(120, 120), scale=34.0):
    picture = np.full((size, size, 3), (60, 120, 90), np.float32)
    points = TEMPLATE[:, :2] * scale + at
    hull = np.rint(points[list(skin_map.OVAL)] * 16).astype(np.int32)
    face = np.zeros((size, size), np.uint8)
    cv2.fillPoly(face, [hull], 255, cv2.LINE_AA, 4)
    share = (face / np.float32(255))[..., None]
    blood = np.array([0.43, 1.0, 0.69], np.float32)
    shade = np.linspace(0.85, 1.1, size, dtype=np.float32)[None, :, None]
    skin = np.array(tone, np.float32) * shade * (1 - beat * blood)
    picture = picture * (1 - share) + skin * share
    return np.clip(np.rint(picture + noise * rng.standard_normal(picture.shape, np.float32)), 0, 255).astype(
        np.uint8
    )


class Trembling(Scripted):
    """Networks whose landmarks err by some tenths of a pixel, a face as one."""

    rng = np.random.default_rng(3)

    def landmarks(self, rgb, region):
        found = super().landmarks(rgb, region)
        if found is None:
            return None
        return Mesh(found.points + np.float32(0.25) * self.rng.standard_normal(3, np.float32), 1.0)


@pytest.fixture(scope="module")
def recorded():
    rng = np.random.default_rng(0)
    networks = Trembling()
    networks.faces = [(TEMPLATE * 34 + [120, 120, 0]).astype(np.float32)]
    times_s = np.arange(180) / 30
    beat = 0.004 * np.sin(2 * np.pi * 1.5 * times_s)
    frames = [(t, face_picture(TONES["brown"], 2.0, rng, b)) for t, b in zip(times_s, beat, strict=True)]
    return skin_traces(iter(frames), networks), beat


def test_the_traces_hold_the_pulse_and_nothing_else(recorded):
    traces, beat = recorded
    assert traces.skin.shape == (180, 3)
    assert traces.patches.shape == (180, len(PATCHES), 3)
    assert traces.found.all()
    green = traces.skin[:, 1] / traces.skin[:, 1].mean() - 1
    left = green + beat  # blood absorbs
    left = left - np.polyval(np.polyfit(np.arange(180), left, 2), np.arange(180))
    assert left.std() < 0.0006
    assert np.corrcoef(green, -beat)[0, 1] > 0.97
    assert traces.behind[:, 1] == pytest.approx(120, abs=0.5)
    assert np.abs(traces.pose).max() < 1


def test_a_still_face_has_a_still_track(recorded):
    traces, _ = recorded
    assert traces.geometry[30:-30, :2].std(0).max() < 0.1


def test_every_frame_gets_a_row_also_without_a_face():
    networks = Scripted()
    frames = ((i / 30, np.full((60, 80, 3), i, np.uint8)) for i in range(40))
    traces = skin_traces(frames, networks)
    assert traces.time_s == pytest.approx(np.arange(40) / 30)
    assert not traces.found.any()
    assert traces.behind[:, 0] == pytest.approx(np.arange(40))


def test_a_live_picture_waits_for_nothing():
    networks = Scripted()
    networks.faces = [(TEMPLATE * 34 + [120, 120, 0]).astype(np.float32)]
    rng = np.random.default_rng(0)
    recorder = SkinRecorder(networks, look_ahead_s=0)
    for i in range(10):
        recorder.see(i / 30, face_picture(TONES["dark"], 1.0, rng))
        seen = recorder.traces()
        assert len(seen.time_s) == i + 1
        assert np.isfinite(seen.skin).all()
    recorder.forget(4 / 30)
    assert recorder.traces().time_s == pytest.approx(np.arange(4, 10) / 30)


def test_a_table_of_traces_comes_back_as_it_went(recorded):
    traces, _ = recorded
    back = traces_of.as_traces(traces_of.as_table(traces))
    for name in traces_of.FIELDS:
        np.testing.assert_array_equal(getattr(back, name), getattr(traces, name))


def test_eyes_are_seen_beside_the_skin(recorded):
    traces, _ = recorded
    drawn = skin_map.eyes_map(POINTS, SIZE)
    assert drawn[middle("left_eye")] > 0.5
    assert drawn[middle("lips")] < 0.01
    assert np.isfinite(traces.eyes).all()


def test_tiny_frames_break_nothing():
    frames = ((i / 30, np.zeros((16, 16, 3), np.uint8)) for i in range(5))
    assert not skin_traces(frames, Scripted()).found.any()


def test_a_changing_map_draws_no_step():
    """Half a face is twice as bright; when it leaves the map, the mean goes on where it was."""
    crop = np.full((SIZE, SIZE, 3), 80, np.uint8)
    crop[:, SIZE // 2 :] = 100
    region = FaceRegion(48, 48, 96, 0)

    def faces():
        for i in range(120):
            yaw = 12.0 * (i >= 60)  # the map slides sideways over the picture
            points = (np.add(POINTS, (yaw, 0))).astype(np.float32)
            full = np.hstack([points, TEMPLATE[:, 2:] * 20]).astype(np.float32)
            yield AlignedFace(i / 30, crop, points, full, region, np.zeros(3, np.float32))

    weigher = SkinWeigher()
    rows = [row for face in faces() for row in weigher.see(face)] + list(weigher.finish())
    skin = traces_of.as_traces(np.array(rows)).skin[:, 1]
    assert np.abs(np.diff(skin)).max() < 0.02
    assert np.ptp(skin) < 1


def test_the_mapper_knows_nothing_before_a_face():
    mapper = SkinMapper()
    mapper.see(AlignedFace(0.0, None, None, None, None, np.zeros(3, np.float32)))
    assert mapper.weights(0.0) is None


def test_the_last_digit_of_a_time_decides_nothing():
    times_s = np.arange(225) / 30
    pictures = [cv2.resize(p, (128, 128)) for p in sample_video.face_frames(times_s, 80, 0)]
    networks, _ = load_networks()
    exact, rounded = (
        skin_traces(zip(times, pictures, strict=True), networks) for times in (times_s, np.round(times_s, 9))
    )
    for name in ("skin", "patches", "eyes", "skin_area", "geometry", "residual"):
        np.testing.assert_allclose(getattr(exact, name), getattr(rounded, name), rtol=1e-6, atol=1e-6)

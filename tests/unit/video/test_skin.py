import cv2
import numpy as np
import pytest
from scipy import ndimage
from scripted_faces import Scripted

from sspd_jax.simulation import sample_video
from sspd_jax.video import skin_map
from sspd_jax.video import skin_traces as traces_of
from sspd_jax.video.face_mesh import FaceRegion, Mesh, load_networks
from sspd_jax.video.face_track import LAG_S, TEMPLATE
from sspd_jax.video.skin_box import SkinBox
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


def test_a_colour_is_learned_channel_by_channel_before_the_channels_are_weighed_together():
    """Hue that varies little takes no width from brightness; what lies beside in hue alone is left out."""
    rng = np.random.default_rng(1)
    skin = rng.normal((120, 150, 110), (30, 1.5, 1.5), (600, 3))
    cloth = rng.normal((120, 170, 110), (30, 1.5, 1.5), (150, 3))
    colour = fit_skin(np.concatenate([skin, cloth]).astype(np.float32))
    assert (np.abs(colour.mean - skin.mean(0)) < [2.5, 0.3, 0.3]).all()
    assert colour.mean.dtype == colour.precision.dtype == np.float64
    kept = np.cov(skin[np.abs(skin[:, 0] - 120) < 75].T)
    np.testing.assert_allclose(np.diag(np.linalg.inv(colour.precision)), np.diag(kept), rtol=0.15)


def test_likeness_is_full_within_a_deviation_and_a_gaussians_flank_beyond():
    colour = skin_map.SkinColour(np.array([100.0, 120.0, 110.0]), np.diag([1 / 16, 1 / 4, 1.0]))
    off = [[0, 0, 0], [4, 0, 0], [8, 0, 0], [0, 6, 0], [0, 0, -1.5]]
    ycc = (colour.mean + np.array([off])).astype(np.float32)
    rgb = np.full((1, 5, 3), 249, np.uint8)
    distances = np.array([0, 1, 2, 3, 1.5])
    np.testing.assert_allclose(skin_map.distance(ycc, colour)[0], distances, atol=1e-5)
    expected = np.exp(-0.5 * np.maximum(distances - 1, 0) ** 2)
    np.testing.assert_allclose(skin_likeness(rgb, ycc, colour)[0], expected, rtol=1e-5)
    rgb[0, 1, 2] = 250  # one channel that is full is glare
    assert skin_likeness(rgb, ycc, colour)[0].tolist()[:2] == [1, 0]


@pytest.mark.parametrize("size", [12, 96, 160])
def test_borders_are_soft_by_a_share_of_the_crops_side_or_half_a_pixel(size):
    points = TEMPLATE[:, :2] * size / 4.4 + (size - 1) / 2

    def hard(filled, emptied=()):
        drawn = np.zeros((size, size), np.uint8)
        for value, many in ((255, filled), (0, emptied)):
            for corners in many:
                polygon = np.rint(points[list(corners), :2] * 16).astype(np.int32)
                cv2.fillPoly(drawn, [polygon], value, cv2.LINE_AA, 4)
        return drawn / 255

    def soft(drawn, sigma):
        return ndimage.gaussian_filter(drawn, max(sigma, 0.5), mode="mirror")

    holes = skin_map.HOLES
    eyes = hard([corners for name, corners in holes.items() if name != "lips"])
    for found, drawn, sigma in (
        (face_map(points, size), hard([skin_map.OVAL], holes.values()), 0.03 * size),
        (skin_map.eyes_map(points, size), eyes, 0.03 * size / 4),
        *((one, hard([PATCHES[name]]), 0.03 * size / 2)
          for name, one in zip(PATCHES, patch_maps(points, size), strict=True)),
    ):  # fmt: skip
        np.testing.assert_allclose(found, soft(drawn, sigma), atol=0.015)


def test_a_colour_is_learned_from_the_middle_of_the_face_and_from_no_eye():
    numbers = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), [0])[:2], axis=-1)[:, :, 0]
    ycc = np.concatenate([numbers, np.zeros((SIZE, SIZE, 1))], axis=-1).astype(np.float32)
    points = POINTS.copy()
    eye = list(skin_map.HOLES["right_eye"])
    cheek = points[list(PATCHES["cheek_right"])].mean(0)
    points[eye] += cheek - points[eye].mean(0)  # what is no skin is none wherever it lies
    found = {(int(x), int(y)) for x, y, _ in skin_map.core_pixels(ycc, points)}
    drawn = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(drawn, [np.rint(points[eye]).astype(np.int32)], 1)
    inside = cv2.erode(drawn, np.ones((3, 3), np.uint8))
    assert inside.sum() > 10
    assert not {(x, y) for y, x in np.argwhere(inside)} & found
    for name in skin_map.CORE:
        x, y = np.rint(points[list(PATCHES[name])].mean(0)).astype(int)
        assert ((x, y) in found) == (name != "cheek_right"), name


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


def half_skin(size=84):
    """A crop whose left half is skin, every pixel of another colour, beside a wall; and where its skin is."""
    rng = np.random.default_rng(2)
    crop = np.full((size, size, 3), (20, 250, 90), np.uint8)
    # Blocks of two pixels, which one pixel of the half-sized picture shows.
    crop[:, : size // 2] = (
        rng.integers(90, 160, (size // 2, size // 4, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    )
    skin = np.zeros((size, size), np.float32)
    skin[:, : size // 2] = 1
    return crop, skin


def test_in_a_picture_of_the_skin_alone_everything_else_is_its_mean_colour():
    crop, skin = half_skin()
    only = skin_map.skin_only(crop, skin, 42)
    assert only.shape == (42, 42, 3) and only.dtype == np.uint8
    inside = crop[::2, :42:2]
    assert np.abs(only[:, :21].astype(int) - inside).max() <= 1  # rounded here up and there down
    mean = inside.reshape(-1, 3).mean(0)
    outside = only[:, 21:].reshape(-1, 3)
    assert np.abs(outside - mean).max() < 1
    # What the wall looks like is all the same.
    crop[:, 42:] = np.random.default_rng(3).integers(0, 256, (84, 42, 3))
    np.testing.assert_array_equal(skin_map.skin_only(crop, skin, 42), only)


def test_what_is_skin_for_two_thirds_is_skin_and_less_is_mixed():
    crop = np.full((42, 42, 3), 100, np.uint8)
    crop[:, 21:] = 160
    skin = np.zeros((42, 42), np.float32)
    skin[:, :21] = 1
    for share, other in ((0.7, 160), (1 / 3, None), (0.0, 100)):
        skin[:10, 21:] = share
        only = skin_map.skin_only(crop, skin, 42)[:10, 21:].mean()
        if other is None:
            mean = (100 * 42 * 21 + 160 * 10 * 21 / 2) / (42 * 21 + 10 * 21 / 2)
            other = (160 + mean) / 2
        assert only == pytest.approx(other, abs=0.1)


def test_a_smaller_map_than_the_crop_is_laid_over_it():
    crop, skin = half_skin()
    small = skin_map.skin_only(crop, np.ascontiguousarray(skin[::2, ::2]), 42)
    assert np.abs(small.astype(int) - skin_map.skin_only(crop, skin, 42)).max() <= 1


def test_a_crop_without_skin_is_a_plain_picture():
    crop, skin = half_skin()
    assert np.ptp(skin_map.skin_only(crop, 0 * skin, 42), axis=(0, 1)).max() <= 1


def test_rounding_is_spread_so_that_a_mean_glides():
    """Of skin whose mean grows by a hundredth of a level at a time, the picture's mean does so, too."""
    number = np.random.default_rng(0).permutation(42 * 42).reshape(42, 42)
    skin = np.ones((42, 42), np.float32)
    skin[:, 21:] = 0
    count = skin.sum()
    order = np.argsort(np.where(skin > 0, number, 42 * 42), axis=None)
    means, levels = [], []
    for brighter in np.linspace(0, count, 41).astype(int):
        crop = np.full((42 * 42, 3), 120, np.uint8)
        crop[order[:brighter]] += 1
        crop = crop.reshape(42, 42, 3)
        pictures = [skin_map.skin_only(crop, skin, 42) for _ in range(2)]
        np.testing.assert_array_equal(*pictures)  # the same pattern every time
        levels.append(120 + brighter / count)
        means.append(pictures[0][:, 21:].mean())
    off = np.array(means) - levels
    assert np.abs(off).max() < 0.02 and np.abs(np.diff(off)).max() < 0.01
    whole = skin_map.dither(42)
    assert max(abs(np.rint(level + whole).mean() - level) for level in np.linspace(0, 1, 41)) < 0.01


def comes_and_goes(count):
    """A portrait that leaves the picture for a while."""
    times_s = np.round(np.arange(count) / 30 + 0.004 * (np.arange(count) % 3), 4)
    rng = np.random.default_rng(0)
    networks = Scripted()
    face = (TEMPLATE * 34 + [120, 120, 0]).astype(np.float32)
    away = range(count // 3, count // 3 + 40)

    def frames():
        for number, time_s in enumerate(times_s):
            networks.faces = [] if number in away else [face]
            yield float(time_s), face_picture(TONES["brown"], 1.0, rng)

    return networks, frames()


@pytest.mark.parametrize("look_ahead_s", [0, 1.0])
def test_pictures_of_the_skin_come_one_for_every_frame_in_view(look_ahead_s):
    networks, frames = comes_and_goes(150)
    recorder = SkinRecorder(networks, look_ahead_s=look_ahead_s, crop_size=24)
    crops = list(recorder.crops_beside(recorder.watch(frames)))
    traces = recorder.traces()
    assert len(traces.time_s) == 150 and not traces.found.all()
    assert [time_s for time_s, _ in crops] == traces.time_s[traces.found].tolist()
    assert {(crop.shape, crop.dtype) for _, crop in crops} == {((24, 24, 3), np.dtype(np.uint8))}
    # The wall is green, and nothing of it is left.
    assert all((crop[..., 0] > crop[..., 1]).all() for _, crop in crops)
    assert list(recorder.take_crops()) == []  # each once


def test_the_pictures_change_no_trace_and_none_is_kept_unasked():
    tables = []
    for crop_size in (None, 24):
        networks, frames = comes_and_goes(120)
        recorder = SkinRecorder(networks, crop_size=crop_size)
        held = [len(list(recorder.take_crops())) for _ in recorder.watch(frames)]
        tables.append(traces_of.as_table(recorder.finish()))
        assert (max(held) > 0) == (crop_size is not None)
    np.testing.assert_array_equal(*tables)


def test_a_face_beside_the_picture_leaves_nothing_but_what_is_behind():
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for x in (-80, 200):
        held = traces_of._hold(1.5, rgb, np.add(TEMPLATE * 10, [x, 30, 0]))
        assert held.time_s == 1.5 and held.cut is None
        assert held.behind == pytest.approx(rgb.mean((0, 1)), rel=1e-5)


@pytest.mark.parametrize("scale", [10, 70, 130])
def test_what_is_held_of_a_frame_is_the_face_and_the_mean_of_the_rest(scale):
    rgb = np.random.default_rng(0).integers(0, 256, (720, 960, 3), np.uint8)
    held = traces_of._hold(0.5, rgb, np.add(TEMPLATE * scale, [480, 400, 0]))
    side = 4.4 * scale
    reach = 1.25 * side / 2
    shrink = max(1, int(side // 256))
    assert (held.left, held.shrink) == (pytest.approx(480 - reach, abs=1.1), shrink)
    assert held.top == pytest.approx(max(0, 400 - reach), abs=1.1)
    rows, columns = held.cut.shape[:2]
    part = rgb[held.top :, held.left :][: rows * shrink, : columns * shrink].astype(float)
    mean = part.reshape(rows, shrink, columns, shrink, 3).mean((1, 3))
    assert np.abs(held.cut - mean).max() <= 0.5 + 1e-6
    assert columns * shrink == pytest.approx(2 * reach, abs=shrink + 1)
    sparse = rgb[::6, ::6].astype(float)
    y, x = np.mgrid[:720:6, :960:6]
    outside = (np.abs(x - 480) > reach) | (np.abs(y - 400) > reach)
    assert held.behind == pytest.approx(sparse[outside].mean(0), abs=0.5)


@pytest.mark.parametrize(
    ("options", "lag_s"),
    [({}, 0), ({"look_ahead_s": 0}, LAG_S), ({"look_ahead_s": 0, "box": SkinBox((8, 8, 40, 40))}, 0)],
)
def test_only_what_looks_at_the_past_alone_says_that_it_lags(options, lag_s):
    assert SkinRecorder(Scripted(), **options).traces().lag_s == lag_s


def plain_faces(times_s, level=100):
    """Aligned faces of one colour that hold still."""
    crop = np.full((SIZE, SIZE, 3), level, np.uint8)
    full = np.hstack([POINTS, TEMPLATE[:, 2:] * 20]).astype(np.float32)
    for time_s in times_s:
        points, region = POINTS.astype(np.float32), FaceRegion(48, 48, 96, 0)
        yield AlignedFace(time_s, crop, points, full, region, np.zeros(3, np.float32))


@pytest.mark.parametrize("jitter_s", [0, 1e-3, -1e-3])
def test_weights_are_renewed_five_times_a_second_whatever_the_last_digit_of_a_time(jitter_s):
    weigher = SkinWeigher(look_ahead_s=0)
    asked, weights = [], weigher.mapper.weights
    weigher.mapper.weights = lambda at_s: asked.append(at_s) or weights(at_s)
    times_s = np.arange(40) / 30
    times_s[6::6] += jitter_s * (np.arange(6) % 2)
    for face in plain_faces(times_s):
        list(weigher.see(face))
    assert asked == times_s[::6].tolist()


def test_what_chained_means_have_drifted_returns_within_seconds():
    weigher = SkinWeigher(look_ahead_s=0)
    times_s = np.arange(60) / 2
    rows = []
    for face in plain_faces(times_s):
        rows += weigher.see(face)
        if len(rows) == 1:  # the first weights begin a chain
            weigher._link = np.full_like(weigher._link, 1.2)
    green = traces_of.as_traces(np.array(rows)).skin[:, 1]
    expected = 100 * 1.2 ** np.exp(-times_s / traces_of.LINK_S)
    np.testing.assert_allclose(green[1:], expected[1:], rtol=1e-3)

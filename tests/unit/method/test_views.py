"""Views: what they do to frames, what they draw and how often, area resizing as OpenCV does it."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sspd_jax.method import input_transform, views

pytestmark = pytest.mark.usefixtures("quick_compilation")

make_view = jax.jit(views.make_view, static_argnames=("settings", "size"))

STILL = {"flip_horizontal": 0.0, "flip_vertical": 0.0}


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def random_clips(n=3, frames=5, size=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, frames, size, size, 3), np.uint8)


def position_clip(size):
    """A uint8 frame whose pixels say where they are: row, column, 0."""
    row, column = np.mgrid[:size, :size]
    return np.stack([row, column, np.zeros_like(row)], axis=-1).astype(np.uint8)[None]


# --- crop -------------------------------------------------------------------------------------------


def test_crop_moves_uniformly_over_all_places():
    crop = jax.jit(jax.vmap(lambda key: views.random_crop(position_clip(7), key, 5)[0, 0, 0, :2]))
    corners, counts = np.unique(crop(keys(1800)), axis=0, return_counts=True)
    assert corners.tolist() == [[i, j] for i in range(3) for j in range(3)]
    # 200 of each expected; χ² with 8 degrees of freedom exceeds 26 once in a thousand.
    assert np.sum((counts - 200) ** 2 / 200) < 26


def test_crop_is_a_window_of_the_clip():
    clip = random_clips()[0]
    window = views.random_crop(clip, jax.random.key(3), 6)
    assert window.dtype == jnp.uint8
    assert any(np.array_equal(window, clip[:, i : i + 6, j : j + 6]) for i in range(4) for j in range(4))


def test_crop_of_the_whole_frame_is_the_frame():
    clip = random_clips()[0]
    np.testing.assert_array_equal(views.random_crop(clip, jax.random.key(0), 9), clip)


@pytest.mark.parametrize("shape", [(3, 8, 9, 3), (3, 9, 8, 3)])
def test_crop_larger_than_the_frame_is_refused(shape):
    with pytest.raises(ValueError, match="9 pixels"):
        views.random_crop(np.zeros(shape, np.uint8), jax.random.key(0), 9)


# --- flip -------------------------------------------------------------------------------------------


def test_flips_turn_the_right_axis():
    clip = random_clips()[0]
    key = jax.random.key(0)
    np.testing.assert_array_equal(views.random_flip(clip, key, 1.0, 0.0), clip[:, :, ::-1])
    np.testing.assert_array_equal(views.random_flip(clip, key, 0.0, 1.0), clip[:, ::-1])
    np.testing.assert_array_equal(views.random_flip(clip, key, 0.0, 0.0), clip)


def test_flips_are_independent_and_as_frequent_as_asked():
    flip = jax.jit(jax.vmap(lambda key: views.random_flip(position_clip(2), key, 0.5, 0.25)[0, 0, 0, :2]))
    drawn = np.asarray(flip(keys(2000))).astype(bool)
    vertical, horizontal = drawn[:, 0], drawn[:, 1]
    assert horizontal.mean() == pytest.approx(0.5, abs=0.04)
    assert vertical.mean() == pytest.approx(0.25, abs=0.04)
    assert (horizontal & vertical).mean() == pytest.approx(0.125, abs=0.03)


# --- mask -------------------------------------------------------------------------------------------


def test_mask_by_frame_drops_whole_frames():
    mask = np.asarray(views.keep_mask(jax.random.key(0), (2000, 4, 5, 3), "frame", 0.7))
    assert mask.shape == (2000, 1, 1, 1)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.mean() == pytest.approx(0.7, abs=0.04)


def test_mask_by_pixel_drops_pixels_with_their_three_colours():
    mask = np.asarray(views.keep_mask(jax.random.key(0), (20, 12, 10, 3), "pixel", 0.7))
    assert mask.shape == (20, 12, 10, 1)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.mean() == pytest.approx(0.7, abs=0.04)
    assert len({frame.tobytes() for frame in mask}) == 20  # drawn anew for every frame


@pytest.mark.parametrize("unit", ["frame", "pixel"])
def test_masked_view_keeps_or_zeroes_differences(unit):
    clips = random_clips(frames=30)
    settings = views.ViewSettings(**STILL, mask_unit=unit)
    view = np.asarray(make_view(clips, jax.random.key(1), settings, 9))
    change = np.diff(clips.astype(np.float32), axis=1)
    kept = np.any(view != 0, axis=(2, 3, 4) if unit == "frame" else 4, keepdims=True)
    assert 0.5 < kept.mean() < 0.9
    np.testing.assert_array_equal(view, np.where(kept, change, 0))


# --- resize -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [(151, 128), (16, 8), (27, 9), (68, 58), (9, 9), (10, 7)])
def test_area_resize_is_opencvs(old, new):
    frame = np.random.default_rng(0).uniform(0, 255, (old, old, 3)).astype(np.float32)
    expected = cv2.resize(frame, (new, new), interpolation=cv2.INTER_AREA)
    actual = views.resize_area(frame, new)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_area_resize_treats_every_frame_alike_and_takes_uint8():
    clips = random_clips(size=10)
    resized = views.resize_area(clips, 7)
    assert resized.dtype == jnp.float32
    np.testing.assert_allclose(resized[1, 3], views.resize_area(clips[1, 3], 7), atol=1e-4)


def test_area_resize_takes_height_and_width_apart():
    frame = np.random.default_rng(0).uniform(0, 255, (12, 20, 3)).astype(np.float32)
    expected = cv2.resize(frame, (10, 10), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(views.resize_area(frame, 10), expected, atol=1e-3)


def test_area_resize_of_a_flat_frame_is_flat():
    np.testing.assert_allclose(views.resize_area(np.full((151, 151, 3), 200, np.uint8), 128), 200, rtol=1e-6)


# --- whole views ------------------------------------------------------------------------------------


def test_difference_of_uint8_is_signed():
    frames = np.array([[10, 250], [250, 10], [250, 9]], np.uint8)
    np.testing.assert_array_equal(input_transform.difference(frames, axis=0), [[240, -240], [0, -1]])
    assert input_transform.difference(frames, axis=1).shape == (3, 1)


def test_whole_view_is_the_resized_difference():
    clips = random_clips(size=12)
    expected = np.stack(
        [
            np.diff(
                [cv2.resize(f.astype(np.float32), (9, 9), interpolation=cv2.INTER_AREA) for f in clip], axis=0
            )
            for clip in clips
        ]
    )
    view = views.whole_view(clips, 9)
    np.testing.assert_allclose(view, expected, atol=1e-3)
    same = make_view(clips, jax.random.key(0), views.ViewSettings(**STILL), 9)
    np.testing.assert_allclose(same, view, atol=1e-4)


def test_random_view_is_cropped_flipped_then_differenced():
    clips = random_clips()
    view = np.asarray(make_view(clips, jax.random.key(5), views.ViewSettings(crop="random"), 7))
    for clip, seen in zip(clips, view, strict=True):
        change = np.diff(clip.astype(np.float32), axis=0)
        windows = [change[:, i : i + 7, j : j + 7] for i in range(3) for j in range(3)]
        flipped = [w[:, ::v, ::h] for w in windows for v in (1, -1) for h in (1, -1)]
        assert sum(np.array_equal(seen, w) for w in flipped) == 1


@pytest.fixture(scope="module")
def masked_crops():
    """Views of 40 equal clips by each of two keys, the first one twice; the pixels say their places."""
    # The first frame is 0, so the difference shows where its pixels came from.
    clip = np.concatenate([np.zeros((1, 9, 9, 3), np.uint8), 1 + position_clip(9)])
    settings = views.ViewSettings(crop="random", **STILL, mask_unit="pixel")
    clips = np.stack([clip] * 40)
    return [np.asarray(make_view(clips, jax.random.key(seed), settings, 7)) for seed in (0, 0, 1)]


def test_same_key_same_view_and_other_key_other_view(masked_crops):
    first, again, other = masked_crops
    assert first.dtype == np.float32
    assert first.shape == (40, 1, 7, 7, 3)
    np.testing.assert_array_equal(first, again)
    assert all(np.any(a != b) for a, b in zip(first, other, strict=True))


def test_every_clip_of_a_batch_gets_its_own_crop_and_mask(masked_crops):
    view = masked_crops[0]
    masks = view[..., 0] != 0
    assert len({m.tobytes() for m in masks}) == 40
    # The smallest row and column that the mask left.
    rows, columns = (np.where(masks, view[..., axis], 99).min(axis=(1, 2, 3)) for axis in (0, 1))
    assert {*zip(rows, columns, strict=True)} == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": "corner"}, "'corner'"),
        ({"mask_unit": "row"}, "'row'"),
        ({"mask_keep": 1.5}, "mask_keep.*1.5"),
        ({"flip_vertical": -0.1}, "flip_vertical.*-0.1"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        views.ViewSettings(**changes)

"""Sub-pixel motion inside a crop: what is put in comes out."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from sspd_jax.video.registration import Registration

SIZE = 96


def textured(rng):
    noise = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 5)
    return 128 + 40 * noise / noise.std()


def moved(picture, dx=0.0, dy=0.0, growth=0.0, turn=0.0, gain=1.0):
    matrix = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), -np.degrees(turn), 1 + growth)
    matrix[:, 2] += dx, dy
    warped = cv2.warpAffine(
        picture, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return np.clip(np.rint(gain * warped), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("motion", "expected"),
    [
        ({"dx": 0.5}, [0.5 / SIZE, 0, 0, 0]),
        ({"dy": -0.4}, [0, -0.4 / SIZE, 0, 0]),
        ({"growth": 0.01}, [0, 0, 0.01, 0]),
        ({"turn": 0.01}, [0, 0, 0, 0.01]),
        ({"gain": 1.05}, [0, 0, 0, 0]),
        ({"dx": 0.3, "gain": 0.97}, [0.3 / SIZE, 0, 0, 0]),
    ],
)
def test_a_motion_is_measured_and_light_is_none(motion, expected):
    picture = textured(np.random.default_rng(1))
    mask = np.ones((SIZE, SIZE), np.float32)
    mask[:12] = mask[-12:] = mask[:, :12] = mask[:, -12:] = 0
    registration = Registration()
    assert not registration.see(0.0, moved(picture), mask).any()
    found = registration.see(1 / 30, moved(picture, **motion), mask)
    assert found[:2] == pytest.approx(expected[:2], abs=6e-4)
    assert found[2:] == pytest.approx(expected[2:], abs=2.5e-3)  # corners move by half a pixel: not linear


def test_what_has_no_texture_does_not_move():
    registration = Registration()
    flat, mask = np.full((SIZE, SIZE, 3), 90, np.uint8), np.ones((32, 32), np.float32)
    registration.see(0.0, flat, mask)
    assert registration.see(0.1, flat + 3, mask) == pytest.approx(0, abs=1e-6)


def test_the_mean_follows_so_that_a_face_that_stays_elsewhere_has_come_to_rest():
    picture = textured(np.random.default_rng(2))
    registration, mask = Registration(), np.ones((SIZE, SIZE), np.float32)
    registration.see(0.0, moved(picture), mask)
    first, *_, last = (registration.see(i / 30, moved(picture, dx=0.5), mask)[0] for i in range(1, 150))
    assert first == pytest.approx(0.5 / SIZE, rel=0.1)
    assert abs(last) < 0.05 / SIZE


def steps_by_hand(pictures, times_s, mask):
    """`Registration.see` once more, in float64 SciPy: [n, 4] of grey pictures 48 × 48."""
    y, x = np.mgrid[:48, :48] - 23.5
    mean, last_s, solved_s, solve, found = None, None, -np.inf, None, []
    for time_s, picture in zip(times_s, pictures, strict=True):
        luma = ndimage.gaussian_filter(picture.astype(np.float64), 1.2, mode="mirror", radius=5)
        if mean is None:
            mean, last_s = luma, time_s
            found.append(np.zeros(4))
            continue
        if time_s - solved_s >= 0.198:
            across, down = (ndimage.sobel(mean, axis, mode="mirror") / 8 for axis in (1, 0))
            parts = [-across, -down, -(x * across + y * down), y * across - x * down, mean, np.ones((48, 48))]
            design = np.stack([part.ravel() for part in parts], axis=1)
            normal = design.T @ (design * mask.reshape(-1, 1))
            scale = np.sqrt(np.diag(normal))
            ridged = normal + 1e-3 * np.diag(scale**2)
            solve, solved_s = np.linalg.solve(ridged, (design * mask.reshape(-1, 1)).T), time_s
        found.append((solve @ (luma - mean).ravel())[:4] / [48, 48, 1, 1])
        keep = np.exp(-(time_s - last_s))
        mean, last_s = keep * mean + (1 - keep) * luma, time_s
    return np.array(found)


def wandering(count=9):
    """Grey pictures 48 × 48 of a face that goes down and across, and their times, s."""
    rng = np.random.default_rng(5)
    large = ndimage.gaussian_filter(rng.normal(0, 1, (60, 60)), 2)
    large = 128 + 30 * large / large.std()
    times_s = np.cumsum([0, *([0.1, 0.05, 0.3] * count)])[:count]
    pictures = [ndimage.shift(large, (0.2 * i, -0.1 * i), order=3)[6:54, 6:54] for i in range(count)]
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8), times_s


def registered(crops, times_s, mask):
    registration = Registration()
    return np.array([registration.see(t, crop, mask) for t, crop in zip(times_s, crops, strict=True)])


def test_motion_is_the_ridge_regression_on_the_blurred_mean_of_the_last_second():
    pictures, times_s = wandering()
    mask = np.random.default_rng(6).uniform(0, 1, (48, 48)).astype(np.float32)
    expected = steps_by_hand(pictures, times_s, mask)
    assert np.abs(expected[-1, :2]).min() > 0.003
    crops = np.repeat(pictures[..., None], 3, axis=-1)
    np.testing.assert_allclose(registered(crops, times_s, mask), expected, atol=2e-5)
    # A mask says which pixels count for more than others; its scale says nothing.
    faint = registered(crops, times_s, mask * np.float32(1e-6))
    np.testing.assert_allclose(faint, expected, atol=2e-5)


def test_every_pixel_of_a_large_crop_counts():
    """What averages to the same 48 × 48 pixels has moved alike, whatever is finer than they are."""
    pictures, times_s = wandering(3)
    rng, crops = np.random.default_rng(7), []
    for picture in pictures:
        grain = rng.integers(-8, 9, (48, 4, 48, 2))
        fine = np.concatenate([grain, -grain], axis=3)[..., rng.permutation(4)].reshape(192, 192)
        large = np.kron(np.clip(picture, 10, 245).astype(int), np.ones((4, 4), int)) + fine
        crops.append(np.repeat(large[..., None], 3, axis=-1).astype(np.uint8))
    mask = np.ones((48, 48), np.float32)
    expected = steps_by_hand(np.clip(pictures, 10, 245), times_s, mask)
    np.testing.assert_allclose(registered(crops, times_s, mask), expected, atol=5e-5)

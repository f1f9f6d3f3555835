"""Sub-pixel motion inside a crop: what is put in comes out."""

import cv2
import numpy as np
import pytest

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

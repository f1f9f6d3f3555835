"""What the simulated camera sees."""

import numpy as np

from sspd_jax.simulation import presets, recordings, scene
from sspd_jax.simulation.recordings import draw_person
from sspd_jax.video.crop import crop
from sspd_jax.video.face_detection import HaarDetector

TIMES = np.arange(600) / 30


def test_a_longer_recording_begins_like_a_shorter_one():
    person, preset = draw_person(3, 1), presets.PRESETS["hard"]
    short, long = ([*scene.film(person, preset, TIMES[:n], 3, 1)] for n in (4, 8))
    np.testing.assert_array_equal(short, long[:4])


def test_people_are_distinct_and_every_face_is_found():
    detector = HaarDetector()
    people = [draw_person(seed, number) for seed in (50, 51) for number in range(1, 9)]
    faces = []
    for person in people:
        picture = next(scene.film(person, presets.PRESETS["easy"], TIMES[:1], 0, 1))
        box = detector.detect(picture)
        assert 80 < box.width < 150
        faces.append(crop(picture, box, 32).astype(float))
    for i, one in enumerate(faces):
        for other in faces[:i]:
            assert np.abs(one - other).mean() > 5
    brightness = [person.texture[95:105, 120:145].mean() for person in people]
    assert max(brightness) > 1.5 * min(brightness)


def test_motion_moves_and_in_band_light_colours():
    person = draw_person(50, 1)
    traces = {}
    for name in ("easy", "default", "hard"):
        pictures = scene.film(person, presets.PRESETS[name], TIMES[:60], 50, 1)
        traces[name] = np.array([picture[20:60, 10:60].mean((0, 1)) for picture in pictures])  # background
    swing = {name: np.ptp(trace[:, 1] / trace.mean(0)[1]) for name, trace in traces.items()}
    assert swing["easy"] < 0.01
    ratio = traces["hard"] / traces["hard"].mean(0)
    colour = np.ptp(ratio - ratio.mean(1, keepdims=True), axis=0).max()
    ratio = traces["default"] / traces["default"].mean(0)
    assert colour > 1.5 * np.ptp(ratio - ratio.mean(1, keepdims=True), axis=0).max()


def test_pictures_are_those_of_this_version():
    """Whoever changes these numbers raises `recordings.VERSION`.

    Not a hash: processors differ in the last bit of a sine, which moves a few pixels by one grey level.
    """
    assert recordings.VERSION == 1
    *_, last = scene.film(draw_person(3, 2), presets.PRESETS["hard"], TIMES[:21], 3, 2)
    quarters = last.reshape(2, 120, 2, 160, 3).mean((1, 3))
    expected = [
        [[150.72, 143.87, 117.35], [205.70, 202.61, 175.33]],
        [[137.31, 130.31, 112.67], [150.74, 136.61, 121.97]],
    ]
    np.testing.assert_allclose(quarters, expected, atol=0.02)
    pixels = last[20::50, 20::70, 1]
    np.testing.assert_allclose(
        pixels.astype(int),
        [
            [172, 182, 211, 250, 255],
            [191, 38, 63, 228, 226],
            [200, 62, 122, 217, 216],
            [184, 193, 114, 32, 223],
            [194, 0, 2, 75, 235],
        ],
        atol=1,
    )

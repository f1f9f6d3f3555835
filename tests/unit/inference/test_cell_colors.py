"""The colours that evidence is taken from: with the lamp for a network that sees it, else without."""

import numpy as np
import pytest

from sspd_jax.heart_rate import signal_quality
from sspd_jax.inference import cell_colors, windows
from sspd_jax.inference.cell_colors import FaceCells

pytestmark = pytest.mark.usefixtures("quick_compilation")

FPS, T, SIDE = 30.0, 300, 48
PULSE_HZ, LAMP_HZ = 1.2, 1.9


def film(pulse=0.005, lamp=0.01, other_lamp=0.0):
    """A disc of skin before a wall, a reddish lamp at one side, a bluish one at the other: [t, s, s, 3]."""
    rng = np.random.default_rng(0)
    time_s = np.arange(T) / FPS
    x, y = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE * 2 - 1] * 2)
    is_skin = (x**2 + y**2 < 0.8)[..., None]
    still = np.where(is_skin, [190, 140, 115], [100, 110, 90]) + rng.normal(0, 4, (SIDE, SIDE, 1))
    beat = pulse * np.sin(2 * np.pi * PULSE_HZ * time_s)[:, None, None, None] * signal_quality.BLOOD * is_skin
    light = lamp * np.sin(2 * np.pi * LAMP_HZ * time_s)[:, None, None, None]
    light = light * np.array([1.0, 0.4, 0.1]) * ((x + 1) / 2)[..., None]
    other = other_lamp * np.sin(2 * np.pi * 2.6 * time_s)[:, None, None, None]
    light = light + other * np.array([0.1, 0.2, 1.0]) * ((1 - x) / 2)[..., None]
    seen = still * (1 + beat) * (1 + light) + rng.normal(0, 1, (T, SIDE, SIDE, 3))
    return np.clip(np.round(seen), 0, 255).astype(np.uint8)


def traces(frames, transform):
    face = FaceCells(transform)
    measured = np.stack([face.measure(frame) for frame in frames])
    assert measured.shape == (len(frames), face.width) and measured.dtype == np.float32
    seen = np.stack([cell_colors.mean_of_cells(frame).reshape(16, 3) for frame in frames])
    np.testing.assert_array_equal(cell_colors.cell_traces(measured)[0], seen)
    return cell_colors.cell_traces(measured)


def amplitude(cells, hz):
    """Of green in the four cells in the middle, relative."""
    middle = cells.reshape(T, 4, 4, 3)[:, 1:3, 1:3, 1].mean(axis=(1, 2))
    turn = np.exp(-2j * np.pi * hz * np.arange(T) / FPS) * np.hanning(T)
    return abs(turn @ (middle / middle.mean() - 1)) * 2 / np.hanning(T).sum()


def test_a_network_that_sees_the_light_is_judged_by_colours_with_it():
    for change in ("difference", "chrominance"):
        (seen,) = traces(film(), change)
    assert amplitude(seen, LAMP_HZ) == pytest.approx(0.01 * 0.4 / 2, rel=0.15)


def test_without_light_the_lamp_is_gone_and_the_pulse_is_there():
    _, found = traces(film(), "steady_chrominance")
    pulse = 0.005 * signal_quality.BLOOD[1]
    assert amplitude(found, PULSE_HZ) == pytest.approx(pulse, rel=0.15)
    assert amplitude(found, LAMP_HZ) < 0.15 * pulse


def test_mean_colours_stay_what_was_seen():
    seen, found = traces(film(), "steady")
    np.testing.assert_allclose(found.mean(axis=0), seen.mean(axis=0), rtol=1e-4)


def test_a_face_in_the_dark_has_no_light_to_take_out():
    for trace in traces(np.zeros((12, SIDE, SIDE, 3), np.uint8), "steady"):
        np.testing.assert_array_equal(trace, 0)


def test_a_window_of_nothing_has_no_colours():
    for trace in cell_colors.cell_traces(np.zeros((0, 96), np.float32)):
        assert trace.shape == (0, 16, 3)


def test_the_highest_confidence_counts():
    """Under two lamps the colours as they are speak against a rate that is right."""
    frames = film(pulse=0.004, lamp=0.02, other_lamp=0.03)
    wave = np.sin(2 * np.pi * PULSE_HZ * np.arange(T) / FPS)
    measured = [np.stack([face.measure(f) for f in frames]) for face in (FaceCells(), FaceCells("steady"))]
    seen, both = (windows.judge_window(wave, FPS, windows.Settings(), cells=cells)[0] for cells in measured)
    assert seen.candidate_bpm == both.candidate_bpm == pytest.approx(60 * PULSE_HZ, abs=0.2)
    assert both.confidence > seen.confidence + 0.1


def test_what_light_does_is_taken_out_and_what_blood_does_stays_the_way_it_went():
    """A face that darkens in its middle by a hundredth, while all of the picture brightens by a tenth."""
    y, x = np.mgrid[:64, :64] / 31.5 - 1
    face = ((x**2 + y**2) < 0.8)[..., None]
    still = np.array([150.0, 110.0, 90.0]) + 20 * np.sin(5 * x)[..., None]
    cells = cell_colors.FaceCells("steady")
    measured = []
    for step in range(11):
        lit = still * (1 + 0.01 * step) * np.where(face, 1 - 0.001 * step, 1)
        measured.append(cells.measure(lit.astype(np.float32)))
    filmed, steady = cell_colors.cell_traces(np.array(measured))
    middle = [5, 6, 9, 10]
    change = steady[-1] / steady[0] - 1
    np.testing.assert_allclose(change[middle], -0.01, atol=0.003)
    assert (filmed[-1] / filmed[0] - 1)[middle].min() > 0.08
    np.testing.assert_allclose(steady.mean(0), filmed.mean(0), rtol=0.01)  # around what was filmed

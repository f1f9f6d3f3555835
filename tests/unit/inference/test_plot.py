"""The picture of a prediction, artist by artist."""

import dataclasses

import numpy as np
import pytest

import sspd_jax
from sspd_jax.inference import plot
from sspd_jax.simulation import sample_video


@pytest.fixture(scope="module")
def estimate():
    times_s = np.arange(300) / 20
    frames = sample_video.face_frames(times_s, 84, 0)
    return _named(sspd_jax.read(zip(times_s, frames, strict=True), fps=20), "anna.mp4")


def _named(prediction, file):
    return dataclasses.replace(prediction, file=file)


def refused(prediction, numbers, why="the head moves at this rate", chance=0.4):
    """The same, some windows refused."""
    (segment,) = prediction.segments
    found = tuple(
        dataclasses.replace(w, heart_rate_bpm=None, interval_bpm=None, confidence=chance, why=why)
        if number in numbers
        else w
        for number, w in enumerate(segment.windows)
    )
    all_refused = all(w.heart_rate_bpm is None for w in found)
    return dataclasses.replace(
        prediction,
        segments=(dataclasses.replace(segment, windows=found),),
        heart_rate_bpm=None if all_refused else prediction.heart_rate_bpm,
    )


def panel(prediction):
    figure = plot.draw([prediction])
    return figure.subfigs[0], {axis.get_title(): axis for axis in figure.subfigs[0].axes}


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_one_bpm_is_no_mountain(estimate):
    _, axes = panel(estimate)
    low, high = axes["heart rate"].get_ylim()
    assert high - low >= 20
    assert all(low < w.interval_bpm[0] and w.interval_bpm[1] < high for w in estimate.windows)


def test_rates_far_apart_all_stand_inside(estimate):
    apart = refused(estimate, ())
    (segment,) = apart.segments
    first, second = segment.windows
    second = dataclasses.replace(second, heart_rate_bpm=140.0, interval_bpm=None)
    apart = dataclasses.replace(apart, segments=(dataclasses.replace(segment, windows=(first, second)),))
    low, high = panel(apart)[1]["heart rate"].get_ylim()
    assert low < 80 and 140 < high < 170


def test_a_reading_is_a_line_and_a_refusal_a_dotted_one_with_its_reason(estimate):
    figure, axes = panel(refused(estimate, {1}))
    rates = axes["heart rate"]
    styles = [line.get_linestyle() for line in rates.get_lines() if len(line.get_xdata())]
    assert styles == ["-", ":"]
    (label,) = labels(rates)
    assert label == "no reading, 1 window, 40% sure: the head moves at this rate"
    assert "84." in figure.get_suptitle() or "83." in figure.get_suptitle()
    assert "anna.mp4: " in figure.get_suptitle()


def test_reasons_are_counted(estimate):
    both = refused(refused(estimate, {0}, chance=0.2), {1}, chance=0.6)
    figure, axes = panel(both)
    assert labels(axes["heart rate"]) == ["no reading, 2 windows, 20%–60% sure: the head moves at this rate"]
    assert figure.get_suptitle().startswith("anna.mp4: no reading, at the most ")


def test_the_wave_is_labelled_and_its_beats_are_on_peaks(estimate):
    _, axes = panel(estimate)
    axis = axes["the surest window, slow drift taken off"]
    assert axis.get_ylabel() and axis.get_xlabel() == "s" and labels(axis) == ["wave", "beats"]
    (x, y), (beats, heights) = (line.get_data() for line in axis.get_lines())
    assert 9.5 < x[-1] - x[0] <= 10 and len(beats) == pytest.approx(14, abs=1)
    for beat, height in zip(beats, heights, strict=True):
        assert height == y[np.abs(x - beat) < 0.15].max()


def test_the_spectrum_peaks_at_the_rate_and_names_what_each_estimator_finds(estimate):
    _, axes = panel(estimate)
    axis = axes["its spectrum"]
    best = max(estimate.windows, key=lambda window: window.confidence)
    assert labels(axis) == [
        "wave",
        *(f"{name} {bpm:.1f}" for name, bpm in best.estimates_bpm.items()),
        f"{best.candidate_bpm:.1f}",
    ]
    x, y = axis.get_lines()[0].get_data()
    assert x[y.argmax()] == pytest.approx(84, abs=2)
    assert axis.get_lines()[-1].get_xdata()[0] == best.candidate_bpm


def test_each_face_has_a_panel_with_its_name(estimate):
    others = ["a/vid.mp4", "b/vid.mp4", "eve.mp4", "eve.mp4"]
    figure = plot.draw([estimate, *(_named(estimate, file) for file in others)])
    names = [panel.get_suptitle().split(":")[0] for panel in figure.subfigs]
    assert names == ["anna.mp4", "a/vid.mp4", "b/vid.mp4", "eve.mp4, 1 of 2", "eve.mp4, 2 of 2"]
    heights = [panel.bbox.height for panel in figure.subfigs]
    assert min(heights) > 300


def test_whose_rate_it_is_is_shown_where_a_picture_was_kept(estimate):
    snapshot = estimate.snapshot
    _, axes = panel(estimate)
    axis = axes[f"the skin at {snapshot.time_s:.1f} s"]
    (image,) = axis.get_images()
    shown, skin = image.get_array(), snapshot.skin
    assert shown.shape == snapshot.picture.shape
    np.testing.assert_array_equal(shown[skin == 0], snapshot.picture[skin == 0])
    assert (shown[skin > 0.9, 1] != snapshot.picture[skin > 0.9, 1]).mean() > 0.9  # it is marked
    rows, columns = (np.flatnonzero((skin > 0.5).any(side)) for side in (1, 0))
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert left < columns[0] < columns[-1] < right and top < rows[0] < rows[-1] < bottom
    _, without = panel(dataclasses.replace(estimate, snapshot=None))
    assert set(axes) - set(without) == {axis.get_title()}


def test_a_crop_and_a_window_without_a_rate_are_drawn(estimate):
    times_s = np.arange(100) / 20
    frames = sample_video.face_frames(times_s, 84, 0)
    crop = sspd_jax.read(zip(times_s, frames, strict=True), fps=20, region="crop")
    blank = refused(estimate, {0, 1}, chance=0.0)
    (segment,) = blank.segments
    found = tuple(dataclasses.replace(w, candidate_bpm=None, estimates_bpm={}) for w in segment.windows)
    blank = dataclasses.replace(blank, segments=(dataclasses.replace(segment, windows=found),))
    figure = plot.draw([crop, blank])
    figure.canvas.draw()
    assert len(figure.subfigs) == 2


def test_certainty_is_never_drawn(estimate):
    figure, _ = panel(dataclasses.replace(estimate, confidence=1.0))
    assert " >99% sure (" in figure.get_suptitle()


def test_each_window_is_drawn_where_it_lies(estimate):
    (segment,) = estimate.segments
    first, second = segment.windows
    first = dataclasses.replace(
        first, start_s=3.0, duration_s=8.0, heart_rate_bpm=70.0, interval_bpm=(68.0, 73.0),
        smoothed_bpm=71.0, smoothed_interval_bpm=(69.0, 74.0),
    )  # fmt: skip
    second = dataclasses.replace(
        second, start_s=5.0, duration_s=10.0, heart_rate_bpm=None, candidate_bpm=90.0, interval_bpm=None,
        smoothed_bpm=72.0, smoothed_interval_bpm=(70.0, 76.0),
    )  # fmt: skip
    segment = dataclasses.replace(segment, windows=(first, second))
    _, axes = panel(dataclasses.replace(estimate, segments=(segment,)))
    axis = axes["heart rate"]
    drawn = [
        (*map(list, line.get_data()), line.get_linestyle()) for line in axis.lines if len(line.get_xdata())
    ]
    assert drawn == [
        ([3, 11], [70, 70], "-"), ([5, 15], [90, 90], ":"), ([7, 10], [71, 72], "-"),
    ]  # fmt: skip
    bands = [band.get_paths()[0].vertices for band in axis.collections]
    for band, across, up in zip(bands, ([3, 11], [7, 10]), ([68, 73], [69, 76]), strict=True):
        assert [band[:, 0].min(), band[:, 0].max()] == across
        assert [band[:, 1].min(), band[:, 1].max()] == up
    assert axis.get_ylim()[0] < 68 and axis.get_ylim()[1] > 90


def test_the_scale_of_how_sure_goes_from_nothing_to_all(estimate):
    figure, _ = panel(estimate)
    (bar,) = (axis for axis in figure.axes if axis.get_ylabel() == "how sure")
    assert bar.get_ylim() == (0, 1)

"""From waves to tables: what must come out is known beforehand."""

import csv
import dataclasses
import io
import json
import re
import types

import numpy as np
import pytest
import scored_people
from hypothesis import given, settings
from hypothesis import strategies as st
from page_tables import read_tables
from scored_people import FPS, people, pulse, rows, sample

from sspd_jax.errors import UserError
from sspd_jax.evaluation import figures, protocol, render, report, scoring, summary, table
from sspd_jax.evaluation.metrics import Score
from sspd_jax.heart_rate import confidence
from sspd_jax.inference.windows import FLAT
from sspd_jax.method.settings import NetworkSettings

OURS = protocol.default()


def cells(one, method="target", level="window"):
    return one.result["scores"][level][method]


def test_the_truth_itself_is_perfect_and_suspicious():
    samples = [
        sample(f"p{i}", bpm, {"target": pulse(bpm).astype(np.float32)}) for i, bpm in enumerate((60, 83, 120))
    ]
    one = scoring.score(samples, "target", OURS)
    assert cells(one)["MAE"][0] == cells(one)["RMSE"][0] == 0
    assert cells(one)["r"][0] == pytest.approx(1)
    assert cells(one)["MACC"][0] == pytest.approx(1)
    assert cells(one)["IBI"][0] == 0 and cells(one)["beats_found"][0] == 1
    assert any("suspicious" in warning for warning in one.result["warnings"])


def test_honest_errors_are_not_suspicious():
    one = scoring.score(people(2.0), "target", OURS)
    assert cells(one)["MAE"][0] == pytest.approx(2, abs=0.1)
    assert cells(one)["ME"][0] == pytest.approx(2, abs=0.1)
    assert cells(one)["r"][0] > 0.999
    assert not any("suspicious" in warning for warning in one.result["warnings"])


def test_shuffled_truth_is_no_correlation():
    rng = np.random.default_rng(0)
    rates = rng.uniform(50, 150, 60)
    others = rng.permutation(rates)
    samples = [
        sample(f"p{i}", a, {"target": pulse(b, 10)}, 10.0)
        for i, (a, b) in enumerate(zip(rates, others, strict=True))
    ]
    r = cells(scoring.score(samples, "target", OURS, with_confidence=False))["r"]
    assert abs(r[0]) < 0.3 and r[2] < 0 < r[3]


@pytest.mark.parametrize("name", ["ours", "toolbox", "sinc"])
@settings(max_examples=3)
@given(scale=st.floats(0.01, 100), offset=st.floats(-50, 50), sign=st.sampled_from([-1, 1]))
def test_scores_ignore_amplitude_offset_and_polarity(name, scale, offset, sign):
    p = protocol.load(name, **({"stride_s": 10.0} if name == "sinc" else {}))
    (plain,) = people(1.0, count=1)
    wave = sign * scale * plain.waves["target"].values + offset
    turned = dataclasses.replace(plain, waves={"target": scored_people.Wave(wave, FPS)})
    for a, b in zip(scoring.score_segment(plain, p), scoring.score_segment(turned, p), strict=True):
        for column in (
            "true_bpm",
            "predicted_bpm",
            "snr_db",
            "macc",
            "wave_r",
            "ibi_error_ms",
            "beats_found",
        ):
            assert getattr(b, column) == pytest.approx(getattr(a, column), abs=0.02), column


def test_windows_and_videos_are_laid_as_the_protocol_says():
    (one,) = people(0.0, count=1, seconds=25.0)
    half_a_second = protocol.load("sinc", stride_s=0.5)
    for p, windows in (
        (OURS, 2),
        (protocol.load("ours", stride_s=5.0), 4),
        (half_a_second, 31),
        (protocol.load("toolbox"), 0),
    ):
        rows = scoring.score_segment(one, p)
        assert [row.span for row in rows] == ["window"] * windows + ["video"]
        assert rows[-1].duration_s == 25
    (short,) = people(0.0, count=1, seconds=11.0)
    assert len(scoring.score_segment(short, protocol.load("sinc"))) == 11 * 30 - 300 + 1 + 1  # every frame


def test_a_wave_that_ends_early_has_no_rate_and_is_counted():
    short = sample("p", 72, {"target": pulse(72), "chrom": pulse(72)[:560]})
    one = scoring.score([short], "target", OURS)
    chrom = [row for row in one.rows if row.method == "chrom" and row.span == "window"]
    assert np.isfinite(chrom[0].predicted_bpm) and np.isnan(chrom[1].predicted_bpm)
    assert cells(one, "chrom")["missing"][0] == 1 and cells(one, "chrom")["rows"][0] == 1
    assert any("1 of 4 readings gave no rate" in warning for warning in one.result["warnings"])


def spoilt(truth_there, bpm=72.0, person="p", wave=None):
    """A segment whose truth is there in some stretches only, frames; waves are read anew in each."""
    one = sample(person, bpm, {"target": pulse(bpm)})
    there = np.zeros(len(one.truth), bool)
    for first, last in truth_there:
        there[first:last] = True
    one.truth[~there] = np.nan
    one.waves["target"].values[~there] = np.nan
    return one


def cut_by_hand(one, first, last):
    wave = scored_people.Wave(one.waves["target"].values[first:last], FPS)
    segment = dataclasses.replace(one.segment, n_frames=last - first)
    return dataclasses.replace(one, segment=segment, truth=one.truth[first:last], waves={"target": wave})


STRETCHES = {
    "4 ms late": [(1, 600)],
    "late": [(60, 600)],
    "early end": [(0, 531)],
    "both": [(2, 593)],
    "a hole": [(0, 310), (400, 600)],
}


@pytest.mark.parametrize("name", protocol.names())
@pytest.mark.parametrize("case", STRETCHES)
def test_what_has_a_truth_is_scored_as_a_copy_that_was_cut_by_hand(name, case):
    p = protocol.load(name, **({"stride_s": 0.5} if name == "sinc" else {}))
    one = spoilt(STRETCHES[case])
    rows = scoring.score_segment(one, p, "target")
    by_hand = [
        dataclasses.replace(row, start_s=row.start_s + first / FPS)
        for first, last in STRETCHES[case]
        for row in scoring.score_segment(cut_by_hand(one, first, last), p, "target")
    ]
    assert len(rows) == len(by_hand) > 0
    for row, other in zip(rows, by_hand, strict=True):
        assert (row.span, row.method) == (other.span, other.method)
        for key in ("start_s", "duration_s", "true_bpm", "predicted_bpm", "snr_db", "macc", "confidence"):
            np.testing.assert_allclose(getattr(row, key), getattr(other, key), err_msg=key)
        np.testing.assert_allclose(row.ibi_error_ms, other.ibi_error_ms, atol=1e-6)
        assert row.beats_found == other.beats_found
    assert {"window" if p.window_s else "video"} <= {row.span for row in rows}


@pytest.mark.parametrize("name", protocol.names())
def test_whatever_is_in_no_row_is_listed_with_its_reason(name):
    p = protocol.load(name)
    short = spoilt([(0, 100)], person="short")  # 3.3 s
    partly = spoilt([(3, 500), (520, 580)], person="partly")
    nothing = spoilt([], person="nothing")
    flat = spoilt([(0, 600)], person="flat")
    flat.truth[:] = 1
    whole = sample("whole", 80, {"target": pulse(80)})
    not_read = (scoring.LeftOut("gone", "", "not prepared: gone.avi: the file is empty"),)
    one = scoring.score([short, partly, nothing, flat, whole], "target", p, not_read=not_read)
    assert one.result["people"] == ["partly", "whole"]
    text = render.as_text(one.result)
    least = f"{max(p.window_s, 4):g}"
    for line in (
        "left out: gone: not prepared: gone.avi: the file is empty",
        "left out: short/0: no contact pulse wave at 3.33–20.00 s; a contact pulse wave of less than "
        f"{least} s at 0.00–3.33 s",
        f"left out: partly/0: no contact pulse wave at 0.00–0.10 s, 16.67–17.33 s, 19.33–20.00 s; a contact"
        f" pulse wave of less than {least} s at 17.33–19.33 s",
        "left out: nothing/0: no contact pulse wave",
        "left out: flat/0: the contact pulse wave shows no rate at 0.00–20.00 s",
    ):
        assert line in text.splitlines(), text
    assert "whole/0" not in text
    assert "nobody of these is in the tables, see what is left out: flat, nothing, short" in text
    assert json.loads(json.dumps(one.result))["left_out"][0]["recording"] == "gone"


def test_a_protocol_without_a_window_of_truth_says_what_there_is():
    with pytest.raises(
        UserError, match=r"no window of 10 s .* video of these people has 20\.0 s.* wave 9\.0 s"
    ):
        scoring.score([spoilt([(0, 270)])], "target", OURS)
    with pytest.raises(UserError, match=r"no unbroken video with .* wave of 4 s or more.* wave 3\.0 s"):
        scoring.score([spoilt([(0, 90)])], "target", protocol.load("toolbox"))


def test_each_stretch_with_a_truth_is_read_on_its_own_and_laid_where_it_was(monkeypatch):
    """Frame k is of colour k: what is read of it stands at k, and nothing where there is no truth."""
    truth = np.ones(300, np.float32)
    truth[:10] = truth[140:150] = np.nan
    begun, asked = [], []

    def infer(frames, fps, start_s):
        begun.append((fps, start_s))
        return scored_people.Wave(np.array([frame[0, 0, 0] for frame in frames], np.float64), fps)

    def read_trace(name, trace, fps):
        if name == "lgi":
            raise ValueError("too short")
        return 1000 + trace[:, 1]

    class Cells:
        def __init__(self, change):
            asked.append(change)

        def measure(self, frame):
            return np.array([frame[0, 0, 0], 7], np.float32)

    frames = np.arange(300)[:, None, None, None] + np.zeros((1, 2, 2, 3))
    segments = [scored_people.segment(name, 300) for name in ("ann", "bob", "cleo")]
    dataset = types.SimpleNamespace(
        fps=FPS, segments=segments, frames=lambda segment: iter(frames),
        ppg=lambda segment: truth if segment.person_id != "cleo" else None,
    )  # fmt: skip
    network = types.SimpleNamespace(infer=infer, network=types.SimpleNamespace(input_transform="steady"))
    monkeypatch.setattr(scoring.classical, "read_trace", read_trace)
    monkeypatch.setattr(scoring, "FaceCells", Cells)
    (one,) = scoring.read_segments(dataset, ("bob", "cleo"), {"target": network}, ("green", "lgi"))
    assert one.segment.person_id == "bob" and one.fps == FPS and one.truth is truth
    assert begun == [(FPS, 0.0)] * 2 and asked == ["steady"] * 2
    there = np.where(np.isfinite(truth), np.arange(300), np.nan)
    np.testing.assert_array_equal(one.waves["target"].values, there)
    np.testing.assert_array_equal(one.waves["green"].values, 1000 + there)
    assert np.isnan(one.waves["lgi"].values).all() and len(one.waves["lgi"].values) == 300
    np.testing.assert_array_equal(one.cells[:, 0], there)
    np.testing.assert_array_equal(one.cells[:, 1], np.where(np.isfinite(truth), 7, np.nan))


def test_what_is_left_out_of_a_recording_says_when():
    assert str(scoring.LeftOut("ann/0", "ann", "no wave")) == "ann/0: no wave"
    assert str(scoring.LeftOut("ann/0", "ann", "no wave", 1.0, 2.5)) == "ann/0: 1.00–2.50 s: no wave"


def test_confidence_is_weighed_once_a_second_for_the_reader_alone():
    rows = scoring.score_segment(
        people(0.0, count=1, seconds=12.5, pos=0.0)[0], protocol.load("sinc"), "target"
    )
    known = [row for row in rows if np.isfinite(row.confidence)]
    assert {row.method for row in known} == {"target"} and len(known) == 3
    one = scoring.score(people(0.0), "target", OURS)
    assert one.result["coverage"]["coverage"] > 0.5
    assert scoring.score(people(0.0), "target", OURS, with_confidence=False).result["coverage"] is None


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("late_s", [0.2, -0.2])
def test_a_late_wave_has_the_beats_of_the_truth_and_its_own_shape(sign, late_s):
    """What is rolled around is less like the truth than what overlaps, and its beats come at their times."""
    bpm = 66.5  # no whole number of beats
    late = sign * pulse(bpm, phase=-2 * np.pi * bpm / 60 * late_s)
    (row,) = scoring.score_segment(sample("p", bpm, {"target": late}), protocol.load("toolbox"))
    assert row.beats_found > 0.9 and row.ibi_error_ms < 5
    bare = dataclasses.replace(OURS, window_s=0.0, shape=None)
    (row,) = scoring.score_segment(sample("p", bpm, {"target": late}), bare)
    assert row.wave_r > 0.999 > row.macc > 0.5


def test_why_there_is_no_reading_stands_in_the_row():
    """What moves with everything around it is no pulse; without colours the wave is judged alone."""
    rng = np.random.default_rng(2)
    made = scoring.score_segment(sample("p", 72, {"target": rng.normal(size=600)}), OURS, "target")
    flat = scoring.score_segment(sample("p", 72, {"target": np.zeros(600)}), OURS, "target")
    clear = scoring.score_segment(sample("p", 72, {"target": pulse(72)}), OURS, "target")
    whys = [{row.why for row in one if row.span == "window"} for one in (made, flat, clear)]
    assert whys[0] <= set(confidence.REASONS.values()) and whys[1] == {FLAT} and whys[2] == {""}
    assert all(row.confidence < confidence.THRESHOLD for row in (*made, *flat) if row.span == "window")


def test_strata_are_what_sorts_people():
    one = scoring.score(people(1.0, count=8, pos=3.0), "target", OURS)
    strata = one.result["strata"]
    assert list(strata) == [summary.RATE_RANGE, "light", "serial"]
    assert list(strata["light"]) == ["bright", "dim"]
    assert sum(m["target"]["rows"][0] for m in strata["light"].values()) == cells(one)["rows"][0] == 16
    assert next(iter(strata[summary.RATE_RANGE])) == "below 60 bpm"
    assert strata["light"]["dim"]["pos"]["MAE"][0] == pytest.approx(3, abs=0.2)
    many = scoring.score(people(1.0, count=14), "target", OURS)
    assert list(many.result["strata"]) == [summary.RATE_RANGE, "light"]  # 14 serial numbers sort nothing


def test_methods_are_compared_on_the_same_windows():
    one = scoring.score(people(1.0, pos=3.0), "target", OURS)
    difference = one.result["paired"]["pos"]["difference"]
    assert difference[0] == pytest.approx(-2, abs=0.2)
    assert difference[2] <= difference[0] <= difference[3] < 0


def test_methods_are_compared_by_the_size_of_their_errors():
    """Errors to either side: too high and too low by as much are as bad."""
    both = [*rows(2.0, -4.0, -1.0), *rows(-3.0, 1.0, 6.0, method="pos")]
    # |2| − |−3|, |−4| − |1|, |−1| − |6|
    found = summary.compare_methods(both, "target", "pos")
    assert found["difference"].value == pytest.approx((-1 + 3 - 5) / 3)
    result = summary.summarise(both, OURS, "target")
    assert result["paired"]["pos"]["difference"][0] == pytest.approx(-1)
    assert result["scores"]["window"]["target"]["MAE"][0] == pytest.approx(7 / 3)
    assert result["scores"]["window"]["target"]["ME"][0] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("confidence", "coverage", "mae"),
    [
        ((0.95, 0.9, 0.899, 0.2), 0.5, 1.5),  # on the threshold there is a reading
        ((0.95, 0.9, np.nan, 0.2), 2 / 3, 1.5),  # nobody asked for one: not counted
        ((0.1, 0.2, 0.3, 0.4), 0.0, None),
    ],
)
def test_coverage_is_of_windows_that_are_sure_enough(confidence, coverage, mae):
    others = rows(9.0, 9.0, 9.0, 9.0, method="pos", confidence=(1.0,) * 4)
    result = summary.summarise(
        [*rows(1.0, -2.0, 30.0, -40.0, confidence=confidence), *others], OURS, "target"
    )
    found = result["coverage"]
    assert found["threshold"] == 0.9
    assert found["windows"] == sum(np.isfinite(confidence))
    assert found["coverage"] == pytest.approx(coverage)
    assert found["MAE"][0] == (None if mae is None else pytest.approx(mae))


def test_each_mean_is_of_its_own_column():
    columns = {"SNR": "snr_db", "MACC": "macc", "wave_r": "wave_r", "IBI": "ibi_error_ms",
               "beats_found": "beats_found"}  # fmt: skip
    made = [
        dataclasses.replace(row, **{name: place + 10 * i for place, name in enumerate(columns.values())})
        for i, row in enumerate(rows(1.0, -2.0, 4.0))
    ]
    found = summary.summarise(made, OURS, "target")["scores"]
    for level in ("window", "person"):
        means = {name: found[level]["target"][name][0] for name in columns}
        assert means == {name: pytest.approx(place + 10) for place, name in enumerate(columns)}


def test_whole_videos_count_where_videos_are_asked_for_and_nowhere_else():
    """Each video is far off as a whole; of four windows one is of somebody else and has no rate."""
    facts = {"meta.light": "dim"}
    windows = [
        *rows(1.0, -2.0, 4.0, person="ann", **facts),
        *rows(np.nan, person="bob", **{"meta.light": "lit"}),
    ]
    videos = [dataclasses.replace(row, span="video", predicted_bpm=row.true_bpm + 100) for row in windows]
    pos = [dataclasses.replace(row, method="pos", predicted_bpm=row.true_bpm + 3) for row in windows]
    result = summary.summarise([*windows, *videos, *pos], OURS, "target")
    scores = result["scores"]
    assert scores["window"]["target"]["MAE"][0] == pytest.approx(7 / 3)
    assert scores["video"]["target"]["MAE"][0] == pytest.approx(100)
    assert [scores["window"]["target"][name][0] for name in ("rows", "missing")] == [3, 1]
    assert scores["person"]["target"]["MAE"][0] == pytest.approx(7 / 3)
    assert [scores["person"]["target"][name][0] for name in ("rows", "missing")] == [1, 1]
    assert result["by_person"]["ann"]["target"]["MAE"] == pytest.approx(7 / 3)
    assert result["by_person"]["bob"]["target"]["MAE"] is None
    light = result["strata"]["light"]
    assert light["dim"]["target"]["MAE"][0] == pytest.approx(7 / 3) and light["lit"]["target"]["rows"][0] == 0
    assert sum(table["target"]["rows"][0] for table in result["strata"][summary.RATE_RANGE].values()) == 3
    paired = result["paired"]["pos"]
    assert paired["difference"][0] == pytest.approx(7 / 3 - 3) and paired["rows"][0] == 3
    assert "1 of 8 readings gave no rate; the scores leave them out" in result["warnings"]


def test_intervals_are_over_people_and_one_person_has_none():
    """Two recordings of one person say nothing of others."""
    both = [
        dataclasses.replace(row, person="ann")
        for method, shift in (("target", 0.0), ("pos", 2.0))
        for row in rows(1.0 + shift, -3.0 - shift, 5.0 + shift, method=method)
    ]
    for alone in (True, False):
        if not alone:
            both = [dataclasses.replace(row, person=row.recording) for row in both]
        result = summary.summarise(both, OURS, "target")
        cells = [*result["scores"]["window"]["target"].values(), *result["paired"].values()]
        intervals = [result["scores"]["window"]["target"]["MAE"], result["paired"]["pos"]["difference"]]
        assert cells and all((cell[2] is None) == alone for cell in intervals)


@pytest.mark.parametrize(
    ("people", "says"),
    [(1, "1 person was tested"), (2, "2 people: with fewer"), (9, "9 people: with fewer"), (10, "")],
)
def test_too_few_people_for_an_interval_are_told(people, says):
    warnings = summary.summarise(rows(*np.linspace(-4, 5, people)), OURS, "target")["warnings"]
    found = [one for one in warnings if "people" in one or "person" in one]
    assert len(found) == bool(says) and all(one.startswith(says) for one in found)


@pytest.mark.parametrize(
    ("region", "least"), [("crop", confidence.THRESHOLD), ("skin", confidence.SKIN_THRESHOLD)]
)
def test_coverage_is_by_the_threshold_of_the_region_and_leaves_out_what_has_a_reason(region, least):
    sure = (least, 1.0, 1.0, np.nextafter(least, 0), 0.0)
    made = rows(1.0, -2.0, 30.0, 40.0, 50.0, confidence=sure)
    made[2] = dataclasses.replace(made[2], why="the picture is black and white")
    found = summary.summarise(made, dataclasses.replace(OURS, region=region), "target")["coverage"]
    assert (found["threshold"], found["windows"], found["coverage"]) == (least, 5, 2 / 5)
    assert found["MAE"][0] == pytest.approx(1.5)


def test_everybody_counts_once_by_person():
    # One has three windows of 5 bpm, one has one window without an error.
    long = sample("long", 70, {"target": pulse(75, 30)}, 30.0)
    short = sample("short", 90, {"target": pulse(90, 10)}, 10.0)
    one = scoring.score([long, short], "target", OURS)
    assert cells(one)["MAE"][0] == pytest.approx(3.75, abs=0.1)
    assert cells(one, level="person")["MAE"][0] == pytest.approx(2.5, abs=0.1)
    assert one.result["by_person"]["short"]["target"]["MAE"] == pytest.approx(0, abs=0.1)


# What is written.


@pytest.fixture(scope="module")
def scored():
    samples = people(1.0, pos=2.0)
    return samples, scoring.score(samples, "target", OURS)


@pytest.fixture(scope="module")
def page(scored):
    samples, one = scored
    about = report.Page("a <b>", None, None, faces=False, notes=("see & judge",))
    return report.render(one, samples, about)


def said(value):
    """A score as tables write it, spelt out here: value ± standard error."""
    if value is None or value[0] is None:
        return "–"
    return f"{value[0]:.2f}" + (f" ± {value[1]:.2f}" if value[1] is not None else "")


def test_numbers_of_a_page_are_those_of_the_scores(scored, page):
    _, one = scored
    tables = read_tables(page)
    levels = list(one.result["scores"])
    assert cells(one)["MAE"][0] == pytest.approx(1, abs=0.1) and cells(one, "pos")["MAE"][0] > 1.5
    for level, (head, *lines) in zip(levels, tables, strict=False):
        methods = one.result["scores"][level]
        assert [line[0] for line in lines] == [summary.NAMES[name] for name in methods]
        metrics = {words: metric for metric, words in summary.HEADS.items()}
        assert {"MAE, bpm", "RMSE, bpm", "SNR, dB"} <= set(head)
        for line, scores in zip(lines, methods.values(), strict=True):
            for words, text in zip(head, line, strict=True):
                if words in metrics:
                    value = scores.get(metrics[words])
                    assert text.startswith(said(value)), (level, line[0], words)
    _, paired = tables[len(levels)]
    difference = one.result["paired"]["pos"]["difference"]
    assert paired[:2] == ["POS", f"{said(difference)} [{difference[2]:.2f}, {difference[3]:.2f}]"]
    coverage = one.result["coverage"]
    assert f"{100 * coverage['coverage']:.0f}% of {coverage['windows']} windows" in page


def test_numbers_of_text_latex_and_csv_are_those_of_the_scores(scored):
    _, one = scored
    for name, label in (("target", "target *"), ("pos", "pos")):
        scores = cells(one, name)
        (line,) = (t for t in render.as_text(one.result).splitlines() if t.startswith(f"{label:<16}"))
        assert re.split(r"\s{2,}", line)[1:] == [said(scores[m]) for m in render.METRICS]
        title = summary.NAMES[name]
        (line,) = (t for t in render.as_latex(one.result).splitlines() if t.startswith(title))
        found = [re.sub(r"[$]", "", cell).strip() for cell in line.removesuffix(r" \\").split("&")[1:]]
        for metric, text in zip(render.METRICS, found, strict=False):
            value = scores[metric]
            assert text.startswith(said(value).replace("±", r"\pm")), metric
            assert value[2] is None or text.endswith(f"[{value[2]:.2f}, {value[3]:.2f}]"), metric
        assert found[-1] == f"{scores['rows'][0]:.0f}"
    lines = list(csv.DictReader(io.StringIO(render.as_csv(one.result))))
    for line in lines:
        if line["level"] == "window" and line["method"] == "pos" and not line["stratum"]:
            value = cells(one, "pos")[line["metric"]]
            for key, number in zip(("value", "standard_error", "low", "high"), value, strict=True):
                assert line[key] == ("" if number is None else str(number))
    paired = [line["value"] for line in lines if line["method"] == "target − pos"]
    assert paired == [str(one.result["paired"]["pos"]["difference"][0])]
    difference = "{:.2f} ± {:.2f} [{:.2f}, {:.2f}]".format(*one.result["paired"]["pos"]["difference"])
    assert f"|error| of target − pos: {difference} bpm in 12 windows" in render.as_text(one.result)


def test_every_stratum_has_its_lines_with_its_counts():
    made = [
        *rows(1.0, -2.0, np.nan, **{"meta.light": "dim"}),
        *rows(4.0, person="lit", **{"meta.light": "lit"}),
        *rows(6.0, 2.0, method="pos", person="lit", **{"meta.light": "lit"}),
    ]
    result = summary.summarise(made, OURS, "target")
    lines = list(csv.DictReader(io.StringIO(render.as_csv(result))))
    found = {
        (line["value_of_stratum"], line["method"]): (line["value"], line["rows"], line["missing"])
        for line in lines
        if line["metric"] == "MAE" and line["stratum"] == "light" and line["level"] == "window"
    }
    assert found == {
        ("dim", "target"): ("1.5", "2.0", "1.0"),
        ("lit", "target"): ("4.0", "1.0", "0.0"),
        ("lit", "pos"): ("4.0", "2.0", "0.0"),
    }
    whole = next(line for line in lines if (line["metric"], line["method"]) == ("ME", "target"))
    assert (whole["stratum"], whole["value"], whole["rows"], whole["missing"]) == ("", "1.0", "3.0", "1.0")


def test_rates_over_time_are_hollow_where_the_method_is_not_sure():
    mine = rows(0.0, 5.0, -5.0, 9.0, person="p", confidence=(0.95, 0.9, 0.89, np.nan))
    mine[2] = dataclasses.replace(mine[2], why="the head moves at this rate")
    figure = figures.draw_over_time([*mine, *rows(40.0, method="pos", person="p")], "target")
    drawn = {line.get_label(): line for axis in figure.axes for line in axis.lines}
    assert list(drawn["true"].get_xdata()) == [5, 15, 25, 35]
    assert list(drawn["true"].get_ydata()) == [72, 73, 74, 75]
    assert list(drawn[summary.NAMES["target"]].get_ydata()) == [72, 78, 69, 84]
    hollow = drawn["not sure"]
    assert (list(hollow.get_xdata()), list(hollow.get_ydata())) == ([25], [69])
    assert hollow.get_markerfacecolor() == "white"
    beside = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert beside == ["0.95", "0.90", "0.89"]
    sure = figures.draw_over_time(rows(0.0, 5.0, person="p", confidence=(0.95, 0.9)), "target")
    assert "not sure" not in {line.get_label() for axis in sure.axes for line in axis.lines}


def test_pictures_show_the_rows_they_are_of():
    both = [*rows(2.0, -4.0), *rows(-3.0, 1.0, method="pos")]
    figure = figures.draw_rates(both, ["target", "pos"])
    for axis, errors in zip(figure.axes, ((2, -4), (-3, 1)), strict=True):
        points = axis.collections[0].get_offsets()
        assert points.tolist() == [[72, 72 + errors[0]], [73, 73 + errors[1]]]  # true across, predicted up
    assert [axis.get_title() for axis in figure.axes] == [summary.NAMES["target"], "POS"]
    (axis,) = figures.draw_bland_altman(both, ["target"]).axes
    assert axis.collections[0].get_offsets().tolist() == [[73, 2], [71, -4]]
    assert "bias -1.00" in axis.get_title()  # mean of 2 and −4
    middle = [line.get_ydata()[0] for line in axis.lines]
    spread = 1.96 * np.std([2, -4], ddof=1)
    assert middle == pytest.approx([0, -1, -1 - spread, -1 + spread], abs=0.01)


def test_a_wave_is_drawn_turned_and_moved_onto_the_contact_wave():
    """Upside down, late by 0.2 s and of another strength: what is drawn lies on the truth."""
    late = -7 * pulse(66, phase=-2 * np.pi * 1.1 * 0.2)
    samples = [sample("p", 66, {"target": late})]
    (row, _) = scoring.score_segment(samples[0], protocol.load("ours", window_s=20.0))
    axis = figures.draw_waves([row], samples, "target", OURS).axes[0]
    truth, wave = axis.lines
    assert (truth.get_label(), wave.get_label()) == (
        "contact pulse wave", "SSPD, target network, turned and moved",
    )  # fmt: skip
    np.testing.assert_allclose(wave.get_xdata()[0], -0.2, atol=1 / FPS)
    inside = slice(30, 500)
    again = np.interp(truth.get_xdata()[inside], wave.get_xdata(), wave.get_ydata())
    np.testing.assert_allclose(again, truth.get_ydata()[inside] - 4, atol=0.15)
    assert axis.get_title() == f"best: p/0, 66.0 bpm, true 66.0; wave r {row.wave_r:.2f}"


def test_pictures_are_of_windows_alone_where_there_are_any():
    """Whole videos, far off, stand in the same table."""
    windows = rows(2.0, -4.0)
    videos = [dataclasses.replace(row, span="video", predicted_bpm=row.true_bpm + 90) for row in windows]
    both = [*windows, *videos]
    for draw in (figures.draw_rates, figures.draw_bland_altman):
        (axis,) = draw(both, ["target"]).axes
        assert len(axis.collections[0].get_offsets()) == 2
    (axis,) = figures.draw_by_range(both, ["target"]).axes
    assert sum(len(one.get_offsets()) for one in axis.collections) == 2
    ((line, *_), *_) = [axis.lines for axis in figures.draw_over_time(both, "target").axes]
    assert len(line.get_xdata()) == 1


def test_every_seed_of_a_study_is_drawn_at_its_part_and_method():
    parts = {
        "faces": {"methods": {"target": {"by_seed": [1.0, None, 3.0]}, "pos": {"by_seed": [5.0]}}},
        "others": {"methods": {"pos": {"by_seed": [7.0]}}},
    }
    (axis,) = figures.draw_seeds({"parts": parts}).axes
    drawn = [np.asarray(one.get_offsets()).round(9).tolist() for one in axis.collections]
    assert [one for one in drawn if one] == [
        [[-0.28, 1], [-0.12, 3]],  # 0.2 to the left, and 0.08 to either side
        [[0.12, 5]],
        [[1.12, 7]],
    ]
    assert [label.get_text() for label in axis.get_xticklabels()] == list(parts)
    assert axis.get_yscale() == "log"


@pytest.mark.parametrize("has_blocks", [True, False])
def test_similarity_maps_are_of_clips_as_long_as_those_of_the_training(has_blocks, monkeypatch):
    given = []
    params = {"ts": 1} if has_blocks else {}
    monkeypatch.setattr(report.network, "load_network", lambda name: ({"clip_frames": 90}, params, None))
    monkeypatch.setattr(figures, "draw_similarities", lambda *args: given.append(args) or "drawn")
    monkeypatch.setattr(report, "picture", lambda figure, text: f"{figure}: {text}")
    page = report.Page("t", "dataset", types.SimpleNamespace(name="there"))
    found = report._similarities("samples", page)
    if not has_blocks:
        assert found is None and not given
        return
    assert found.startswith("drawn: similarity maps")
    assert given == [(page.network, params, "dataset", "samples", 90)]
    monkeypatch.setattr(report.network, "load_network", lambda name: ({}, params, None))
    report._similarities("samples", page)  # a file of before there was a choice
    assert given[1][-1] == 300
    assert report._similarities("samples", report.Page("t", None, None)) is None


def test_a_page_says_whether_somebody_was_learned_from_and_why_a_picture_is_absent(scored, monkeypatch):
    for name in dir(figures):
        if name.startswith("draw_"):
            monkeypatch.setattr(figures, name, lambda *_: "")
    monkeypatch.setattr(report, "picture", lambda figure, text: f"[{text}]")
    monkeypatch.setattr(report, "_similarities", lambda samples, page: None)
    monkeypatch.setattr(report.metrics_log, "read_metrics", lambda workdir: [{"step": 1, "terms/a": 0.5}])
    samples, one = scored
    network = types.SimpleNamespace(name="there")
    for page, says in (
        (report.Page("t", None, network, faces=False), (True, True, False)),
        (report.Page("t", None, network, faces=False, notes=("unknown",)), (False, True, False)),
        (report.Page("t", None, None, faces=False, workdir="run"), (False, False, True)),
    ):
        text = report.render(one, samples, page)
        words = ("Nobody here was learned from", "has no similarity blocks", "[losses and health]")
        assert tuple(word in text for word in words) == says


def test_differences_are_drawn_with_their_intervals():
    table = {"a − b": Score(-2.0, 0.5, -3.0, -1.0), "c − b": Score(0.25, 0.5, -1.0, 2.0)}
    (axis,) = figures.draw_differences(table, "windows").axes
    zero, *lines = axis.lines
    assert set(zero.get_xdata()) == {0}
    assert [line.get_xdata().tolist() for line in lines] == [[-3, -1], [-1, 2]]
    assert [line.get_ydata().tolist() for line in lines] == [[0, 0], [1, 1]]
    assert [dots.get_offsets().tolist() for dots in axis.collections] == [[[-2, 0]], [[0.25, 1]]]
    assert [text.get_text() for text in axis.texts] == ["-2.00", "+0.25"]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(table)
    low, high = axis.get_ylim()
    assert low > high  # the first stands above


def test_errors_by_range_have_bars_at_their_medians():
    made = [*rows(1.0, -2.0, 9.0, true_bpm=50.0), *rows(-0.5, 4.0, method="pos", true_bpm=130.0)]
    (axis,) = figures.draw_by_range(made, ["target", "pos"]).axes
    dots = [sorted(one.get_offsets()[:, 1]) for one in axis.collections if len(one.get_offsets())]
    assert dots == [[1, 2, 9], [0.5, 4]]
    bars = [line for line in axis.lines if line.get_color() == figures.TRUTH]
    assert [line.get_ydata()[0] for line in bars] == [2, 2.25]
    assert [np.mean(line.get_xdata()) for line in bars] == pytest.approx([-0.2, 1.2])
    assert [label.get_text() for label in axis.get_xticklabels()] == [
        "below 60 bpm\n(n = 3)", "120 bpm and above\n(n = 2)",
    ]  # fmt: skip


def test_a_training_is_drawn_by_its_terms_and_its_health():
    log = [
        {"step": 5, "terms/a": 0.5, "health/score": 0.1},
        {"step": 10, "terms/a": 0.25, "health/score": None},
    ]
    losses, health = figures.draw_training(log).axes
    for axis, label, values in ((losses, "a", [0.5, 0.25]), (health, "score", [0.1, np.nan])):
        (line,) = axis.lines
        assert line.get_label() == label and line.get_xdata().tolist() == [5, 10]
        np.testing.assert_array_equal(line.get_ydata(), values)


def test_similarities_are_those_of_the_longest_clip_at_the_rate_of_their_scale(monkeypatch):
    """Features that repeat every 10 moments, of a network whose scale halves the rate."""
    halved = NetworkSettings(22, ((4, 4),), 8, ts_kernels=(3,), ts_strides=(2,), conv="direct")
    turn = 2 * np.pi * np.arange(40) / 10
    feature = np.stack([np.cos(turn), np.sin(turn)], -1).astype(np.float32)
    stub = types.SimpleNamespace(apply=lambda *_, **__: (None, [feature[None]]))
    monkeypatch.setattr(figures, "Network", lambda settings: stub)
    monkeypatch.setattr(figures.views, "whole_view", lambda clips, *_: clips.astype(np.float32))
    asked = []

    def clip(segment, start, length):
        asked.append((segment.person_id, start, length))
        return np.zeros((length, 22, 22, 3), np.uint8)

    network = types.SimpleNamespace(network=halved, batch_stats={}, fps=30.0)
    samples = [sample(name, 60, {}, seconds) for name, seconds in (("a", 4.0), ("b", 6.0), ("c", 5.0))]
    figure = figures.draw_similarities(network, {}, types.SimpleNamespace(clip=clip), samples, 90)
    assert asked == [("b", 0, 91)]
    picture, below = figure.axes[:2]
    assert picture.get_title() == "scale 1, 15 Hz"
    np.testing.assert_allclose(picture.images[0].get_array(), feature @ feature.T, atol=1e-5)
    assert picture.images[0].get_extent() == [0, 40 / 15, 40 / 15, 0]
    (line,) = below.lines
    assert line.get_xdata()[1:][line.get_ydata()[1:].argmax()] == pytest.approx(10 / 15)


@pytest.mark.parametrize(
    ("keeps_best", "says"),
    [(False, "At the end of the training (2 of 3"), (True, "In the epoch whose network was kept (2 of 3")],
)
def test_alarms_of_a_training_are_those_of_the_network_that_is_tested(keeps_best, says, monkeypatch):
    trusts = (0.1, 0.3, 0.2)
    if not keeps_best:
        trusts = (0.5, 0.3, 0.2)
    log = [
        {"step": i, "probe/trust": trust, "probe/steady_pos_agrees": trust, "probe/repeated": i / 10}
        for i, trust in enumerate(trusts)
    ]
    monkeypatch.setattr(report.metrics_log, "read_metrics", lambda workdir: [*log, {"step": 9, "loss": 1.0}])
    page = report.Page("t", None, None, workdir="there", keeps_best=keeps_best)
    (alarm,) = report._alarms(page)
    raised = sum(trust < 0.4 for trust in trusts)
    assert alarm.startswith(says.replace("2 of 3", f"{raised} of 3"))
    kept = 1 if keeps_best else 2
    assert f"by {trusts[kept]:.2f}, and each other by {kept / 10:.2f}" in alarm
    log[kept]["probe/trust"] = 0.9
    assert report._alarms(page) == []
    assert report._alarms(dataclasses.replace(page, workdir=None)) == []


@pytest.mark.parametrize("faces", [True, False])
def test_faces_are_on_a_page_only_where_they_may_be(faces, monkeypatch):
    drawn = []
    for name in dir(figures):
        if name.startswith("draw_"):
            monkeypatch.setattr(figures, name, lambda *_, name=name: drawn.append(name))
    monkeypatch.setattr(report, "picture", lambda figure, text: "")
    monkeypatch.setattr(report, "_alarms", lambda page: ["the training raised an alarm"])
    samples = people(1.0, count=2)
    one = scoring.score(samples, "target", OURS, with_confidence=False)
    page = report.render(one, samples, report.Page("t", None, None, faces=faces, notes=("be careful",)))
    assert ("draw_faces" in drawn) == faces and "draw_rates" in drawn
    assert "be careful" in page and "the training raised an alarm" in page


def test_every_form_says_the_protocol(scored, page):
    _, one = scored
    forms = [render.as_text(one.result), page, render.as_latex(one.result), json.dumps(one.result)]
    for text in forms:
        assert "windows of 10 s every 10 s" in text and "detrending none" in text
        assert "3.6 Hz" in text and "0.6" in text
    for text in (render.as_csv(one.result), table.write(one.rows, OURS)):
        for line in csv.DictReader(io.StringIO(text)):
            assert (line["protocol"], line["window_s"], line["stride_s"]) == ("ours", "10.0", "10.0")
            assert (line["detrend"], line["band_low_hz"], line["band_high_hz"]) == ("none", "0.6", "3.6")
    tables = page.count("<table>")
    assert page.count("class='protocol'") >= tables  # below each of them


def test_the_page_stands_alone(page):
    assert page.count("data:image/png;base64,") == 5
    assert 'src="http' not in page and "href=" not in page
    assert "a &lt;b&gt;" in page and "see &amp; judge" in page
    assert "Bland–Altman" in page and "By light" in page and "tend to be too narrow" in page


def test_pictures_of_whole_videos_and_of_one_person():
    samples = people(1.0, count=1)
    one = scoring.score(samples, "target", protocol.load("toolbox"))
    page = report.render(one, samples, report.Page("t", None, None, faces=False))
    assert page.count("data:image/png;base64,") == 5


def test_the_window_table_comes_back_as_it_was(scored, tmp_path):
    _, one = scored
    path = tmp_path / "windows.csv"
    path.write_text(table.write(one.rows, OURS))
    rows, settings = table.read(path)
    assert settings == {key: str(value) for key, value in OURS.facts.items()}
    for row, back in zip(one.rows, rows, strict=True):
        assert (row.recording, row.person, row.method, row.span) == (
            back.recording,
            back.person,
            back.method,
            back.span,
        )
        assert back.predicted_bpm == pytest.approx(row.predicted_bpm, abs=1e-6, nan_ok=True)
        assert back.confidence == pytest.approx(row.confidence, abs=1e-6, nan_ok=True)
        assert back.facts["meta.light"] == row.facts["meta.light"]
    odd = dataclasses.replace(
        one.rows[0], start_s=1.2344, duration_s=9.9996, true_bpm=71.2345674, ibi_error_ms=12.346,
        why="no, not \"sure\"", facts={},
    )  # fmt: skip
    path.write_text(table.write([odd], OURS))
    ((back,), _) = table.read(path)
    found = [getattr(back, name) for name in ("start_s", "duration_s", "true_bpm", "ibi_error_ms", "why")]
    assert found == [1.234, 10.0, 71.234567, 12.35, odd.why]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "holds no window"),
        (lambda text: text.replace("macc", "mac", 1), "earlier version"),
        (lambda text: text.replace(",ours,10.0", ",ours,20.0", 1), "mixes several protocols"),
        (lambda text: text.replace("p0/0,p0,target,window,0.0", "p0/0,p0,target,window,x", 1), "damaged"),
    ],
)
def test_a_damaged_table_is_said(scored, tmp_path, change, words):
    path = tmp_path / "windows.csv"
    path.write_text(change(table.write(scored[1].rows, OURS)))
    with pytest.raises(UserError, match=words) as caught:
        table.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe\xff", "cannot be read"), (None, "cannot be read"), (b'"', "cannot be read|damaged")],
)
def test_what_is_no_table_is_said(tmp_path, content, words):
    path = tmp_path / "windows.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        table.read(path)


def test_a_table_without_lines_or_of_an_earlier_version_is_understood(scored, tmp_path):
    path = tmp_path / "windows.csv"
    text = table.write(scored[1].rows, OURS)
    path.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(UserError, match="holds no window; evaluate again"):
        table.read(path)
    lines = list(csv.DictReader(io.StringIO(text)))
    earlier, out = [key for key in lines[0] if key not in ("why", "region")], io.StringIO()
    writer = csv.DictWriter(out, earlier, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    path.write_text(out.getvalue())
    found, settings = table.read(path)
    assert {row.why for row in found} == {""} and settings["region"] == "crop"
    assert set(found[0].facts) == {"meta.light", "meta.serial"}


def test_facts_of_a_row_stay_before_those_that_are_added():
    (row,) = rows(1.0, light="dim", seed=1)
    (found,) = table.with_facts([row], part="faces", seed=2)
    assert list(found.facts.items()) == [("part", "faces"), ("seed", 1), ("light", "dim")]


def test_what_a_dataset_tells_is_flat():
    meta = {
        "light": "dim",
        "simulation": {"seed": 3, "size": [1, 2]},
        "notes": "x",
        "device_heart_rate": [60.0],
    }
    assert table.flatten_metadata(meta) == {"meta.light": "dim", "meta.simulation.seed": 3}


def test_one_row_has_no_spread():
    one = scoring.score(people(2.0, count=1, seconds=10.0), "target", OURS)
    assert cells(one)["rows"][0] == 1
    assert cells(one)["MAE"][1] is None and cells(one)["SNR"][1] is None
    assert " ± –" in render.as_text(one.result) and "± 0.00" not in render.as_text(one.result)
    (line,) = (
        r
        for r in csv.DictReader(io.StringIO(render.as_csv(one.result)))
        if r["metric"] == "MAE" and r["level"] == "window" and not r["stratum"] and r["method"] == "target"
    )
    assert line["standard_error"] == "" and line["value"]


def test_differences_are_drawn_on_one_scale_with_a_legend():
    waves = {"target": pulse(60.0), "pos": pulse(110.0)}
    rows = scoring.score([sample(f"p{i}", 60.0 + i, waves) for i in range(3)], "target", OURS).rows
    figure = figures.draw_bland_altman(rows, ["target", "pos"])
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim() and left.get_xlim() == right.get_xlim()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "no difference",
        "bias",
        "limits of agreement",
    ]


@pytest.mark.parametrize(
    ("windows", "shown"), [(1, ["best"]), (2, ["best", "worst"]), (5, ["best", "median", "worst"])]
)
def test_no_window_is_drawn_twice(windows, shown):
    samples = people(2.0, count=windows, seconds=10.0)
    rows = scoring.score(samples, "target", OURS).rows
    figure = figures.draw_waves(rows, samples, "target", OURS)
    titles = [axis.get_title().partition(":") for axis in figure.axes if ":" in axis.get_title()]
    assert [title[0] for title in titles] == shown and len({title[2] for title in titles}) == len(shown)


def test_latex_names_of_any_kind_are_letters(scored):
    result = {**scored[1].result, "scores": {"window": {r"a$b_{\input{x}}": cells(scored[1])}}}
    assert r"a\$b\_\{\textbackslash{}input\{x\}\} &" in render.as_latex(result)


def test_latex_is_escaped(scored):
    text = render.as_latex(scored[1].result, caption="50 % of a_b & c")
    assert r"50 \% of a\_b \& c" in text and "MAPE, \\%" in text
    assert text.count(r"\\") >= 3 and "−" not in text and "±" not in text

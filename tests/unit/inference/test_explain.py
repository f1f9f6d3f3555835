"""The page that says why: its numbers are those of the JSON file, its pictures show what was read."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from shared_files import REAL_FACE, needs

import sspd_jax
from sspd_jax.cli import predict as cli_predict
from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import confidence, skin_evidence
from sspd_jax.inference import explain, figures, predict, skin_reading, skin_segment, windows
from sspd_jax.inference.advice import advice
from sspd_jax.inference.windows import Settings
from sspd_jax.simulation import sample_video
from sspd_jax.video.skin_traces import Snapshot

ROOT = Path(__file__).parents[3]


class Page(HTMLParser):
    """Rows of cells of every table by its class, and every address that a browser would ask for."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.asked, self.names, self.text = [], [], [], ""
        self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.asked += [attrs[key] for key in ("src", "href", "srcset", "data", "action") if key in attrs]
        assert tag not in ("script", "link", "iframe", "object"), tag
        if tag == "table":
            self.tables.append((attrs["class"], []))
        if tag == "tr":
            self.tables[-1][1].append([])
            self.names.append(attrs.get("data-name"))
        if tag in ("td", "th"):
            self._cell = ""

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][1][-1].append(self._cell.strip())
            self._cell = None

    def of(self, name):
        return [rows[1:] for kind, rows in self.tables if kind == name]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "face.mp4"
    sample_video.write_face_video(path, seconds=11, fps=15, bpm=84)
    return path


@pytest.fixture(scope="module")
def told(video):
    """The page and the JSON file of one run, of two windows."""
    page, data = video.with_suffix(".html"), video.with_suffix(".json")
    arguments = [str(video), f"--explain={page}", f"--json={data}", "--window=8", "--stride=3"]
    assert cli_predict.main(arguments) == 0
    return page.read_text(), json.loads(data.read_text())


@pytest.fixture(scope="module")
def estimate(video):
    return sspd_jax.read(video)


def check_numbers(text, data):
    """Check every number on the page against the JSON file, and the sums against themselves."""
    page = Page(text)
    (table,) = page.of("windows")
    assert len(table) == len(data["windows"])
    for (span, bpm, interval, sure, why), window in zip(table, data["windows"], strict=True):
        assert span == f"{window['start_s']:.1f}–{window['start_s'] + window['duration_s']:.1f}"
        shown = "({:.1f})" if window["heart_rate_bpm"] is None else "{:.1f}"
        assert bpm == shown.format(window["candidate_bpm"])
        assert interval == (
            "{:.1f}–{:.1f}".format(*window["interval_bpm"]) if window["interval_bpm"] else "–"
        )
        assert sure == f"{window['confidence']:.0%}"
        assert why == (window["why"] or "given")
    for rows, window in zip(page.of("evidence"), data["windows"], strict=True):
        bias, *middle, together = rows
        parts = [row for row in middle if row[1]]
        kinds = [row for row in middle if not row[1]]
        assert [row[0] for row in kinds] == list(explain.KINDS.values())
        assert sorted(row[0] for row in parts) == sorted(explain.WORDS.values())
        for _, here, usual, weight, log_odds, _ in parts:
            if here == "unknown":
                assert float(log_odds) == 0
                continue
            slack = 0.0006 * (1 + 2 * abs(float(weight)) + abs(float(here)) + abs(float(usual)))
            assert float(log_odds) == pytest.approx(float(weight) * (float(here) - float(usual)), abs=slack)
        total = float(bias[4]) + sum(float(row[4]) for row in parts)
        assert total == pytest.approx(float(bias[4]) + sum(float(row[4]) for row in kinds), abs=0.03)
        assert total == pytest.approx(float(together[4]), abs=0.03)
        chance = 1 / (1 + math.exp(-float(together[4])))
        assert chance == pytest.approx(window["confidence"], abs=1e-3)
        assert together[0] == f"together: {100 * chance:.1f}% sure"


def test_the_numbers_of_the_page_are_those_of_the_file(told):
    text, data = told
    assert len(data["windows"]) == 2
    check_numbers(text, data)
    assert f"{data['heart_rate_bpm']:.1f} bpm" in text
    assert "within {:.1f}–{:.1f} bpm".format(*data["interval_bpm"]) in text


def test_so_are_those_of_what_is_not_trusted(video, tmp_path):
    files = [f"--explain={tmp_path / 'a.html'}", f"--json={tmp_path / 'a.json'}"]
    assert cli_predict.main([str(video), *files, "--min_confidence=1"]) == 0
    data = json.loads((tmp_path / "a.json").read_text())
    assert [window["heart_rate_bpm"] for window in data["windows"]] == [None] * len(data["windows"])
    check_numbers((tmp_path / "a.html").read_text(), data)


def test_the_page_asks_for_nothing(told):
    text, _ = told
    page = Page(text)
    assert len(page.asked) == 4  # face, course, and the spectra of two windows
    assert all(address.startswith("data:image/png;base64,") for address in page.asked)
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|@import|url\(", text)
    assert text.count('<img alt="') == 4


def test_a_name_is_shown_and_not_run(estimate):
    text = explain.page([dataclasses.replace(estimate, file="<script>alert(1)&.mp4")])
    assert text.count("&lt;script&gt;alert(1)&amp;.mp4") == 2 and "<script>" not in text


def test_a_refusal_says_why_and_what_would_help(estimate):
    (segment,), settings = estimate.segments, Settings(min_confidence=1)
    segment = skin_reading.judge(segment.skin, "auto", settings)
    prediction = dataclasses.replace(
        estimate, segments=(segment,), settings=settings, heart_rate_bpm=None, confidence=0.9
    )
    page = Page(explain.page([prediction]))
    assert "No reading" in page.text and f"Why: {prediction.why}." in page.text
    assert f"What would help: {advice(prediction.why)}." in page.text
    assert "100% are needed" in page.text


def test_a_box_leaves_unknown_what_nobody_can_know(video):
    text = explain.page([sspd_jax.read(video, box=(70, 60, 120, 160), network=False)])
    rows = {row[0]: row for row in Page(text).of("evidence")[0]}
    for name in ("light eyes", "light behind"):
        assert rows[explain.WORDS[name]][1] == "unknown"
    assert "only the box that was given is read" in text


def test_every_feature_has_words_and_every_kind_a_head():
    names = confidence.weights("skin").names
    assert set(explain.WORDS) == set(names)
    assert len(set(explain.WORDS.values())) == len(names) - 1  # power at the rate: of estimators, of patches
    assert set(explain.KINDS) == set(confidence.SKIN_REASONS) == {name.split()[0] for name in names}


def test_what_cannot_be_explained_is_said(video, tmp_path, capsys):
    with pytest.raises(ConfigError, match="was not kept"):
        explain.page([predict.predict(video, method="green")])
    assert cli_predict.main([str(video), "--region=crop", f"--explain={tmp_path / 'a.html'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli_predict.main([str(video), f"--explain={tmp_path / 'nowhere' / 'a.html'}"]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert cli_predict.main([str(video), f"--explain={tmp_path / 'a.txt'}"]) == 2
    assert "a.txt: the page is HTML; give a name that ends in .html" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_flat_window_has_no_evidence_to_show(estimate):
    (segment,) = estimate.segments
    traces = segment.skin.traces
    still = dataclasses.replace(traces, skin=np.full_like(traces.skin, [150, 110, 90]))
    segment = skin_reading.judge(skin_segment.read_waves(still, 15.0, "auto"), "auto", Settings())
    text = explain.page([dataclasses.replace(estimate, segments=(segment,), heart_rate_bpm=None)])
    assert windows.FLAT in text and Page(text).of("evidence") == []


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


def test_each_spectrum_has_its_rate_above_its_peak(estimate):
    (segment,), (window, *_) = estimate.segments, estimate.windows
    seen = segment.skin.window(0, 150)
    weighed = skin_reading.weigh(seen, "auto", Settings())
    axes = figures.draw_spectra(seen, weighed, window).axes
    assert [next(iter(lines(axis))) for axis in axes] == ["fused", "green", "pos", "chrom", "omit", "sspd"]
    for axis in axes:
        (name, line), (_, marker) = [item for item in lines(axis).items() if not item[0].startswith("_")]
        bpm = weighed.bpm if name == "fused" else weighed.estimates_bpm[name]
        assert marker.get_xdata() == pytest.approx([bpm])
        x, y = line.get_data()
        assert x[y.argmax()] == pytest.approx(bpm, abs=2) and y.max() == 1
        assert f"{bpm:.1f}" in axis.texts[0].get_text()


def test_the_course_shows_colours_beats_and_motion(estimate):
    (segment,) = estimate.segments
    colour, wave, motion = figures.draw_course(segment).axes
    assert set(lines(colour)) == {"red", "green", "blue"}
    size = {name: np.std(line.get_ydata()) for name, line in lines(colour).items()}
    assert size["green"] == max(size.values()) and 0.2 < size["green"] < 1.5  # %, of a pulse of 1 %
    assert set(lines(motion)) == set(figures.TRACK)
    assert not list(wave.patches)  # every second has a reading


def test_each_line_of_the_course_is_what_it_is_called(estimate):
    """Every colour and every part of the motion with a strength of its own."""
    (segment,) = estimate.segments
    traces = segment.skin.traces
    beat = np.sin(2 * np.pi * 1.4 * traces.time_s)
    skin = 100 * (1 + np.outer(beat, [0.01, 0.02, 0.03]))
    track = np.outer(beat, np.arange(1, 8)) * skin_evidence.TREMBLE
    shown = types.SimpleNamespace(traces=dataclasses.replace(traces, skin=skin), fps=15.0, track=track)
    colour, _, motion = figures.draw_course(dataclasses.replace(segment, skin=shown)).axes
    sizes = {name: np.abs(line.get_ydata()).max() for name, line in lines(colour).items()}
    assert 0.8 < sizes["red"] < 1.3  # %
    assert {name: size / sizes["red"] for name, size in sizes.items()} == {
        name: pytest.approx(i, rel=0.01) for i, name in enumerate(("red", "green", "blue"), 1)
    }
    sizes = {name: np.abs(line.get_ydata()).max() for name, line in lines(motion).items()}
    parts = ("right", "down", "size", "turn", "yaw", "pitch", "roll")
    assert sizes == {name: pytest.approx(i, rel=0.1) for i, name in enumerate(parts, 1)}


def test_the_rate_that_is_read_is_a_line_through_all_spectra(estimate):
    (segment,), (window, *_) = estimate.segments, estimate.windows
    seen = segment.skin.window(0, 150)
    weighed = dataclasses.replace(skin_reading.weigh(seen, "auto", Settings()), bpm=99.0)
    window = dataclasses.replace(window, interval_bpm=(95.0, 104.0))
    for axis in figures.draw_spectra(seen, weighed, window).axes:
        (line,) = (line for line in axis.lines if line.get_linestyle() == "--")
        assert set(line.get_xdata()) == {99}
        (band,) = axis.patches
        assert (band.get_x(), band.get_x() + band.get_width()) == (95, 104)


def test_the_odds_of_a_window_begin_with_the_bias():
    evidence = explain.Evidence(None, None, -1.5, (("rhythm", 2.0, []), ("blood", 0.25, [])))
    assert evidence.log_odds == 0.75


def test_beats_stand_on_peaks_of_the_wave_that_is_drawn(estimate):
    (segment,) = estimate.segments
    wave = lines(figures.draw_course(segment).axes[1])
    x, y = wave["wave"].get_data()
    beats, heights = wave["beats"].get_data()
    assert len(beats) == len(segment.beats_s) >= 12
    for beat, height in zip(beats, heights, strict=True):
        near = np.abs(x - beat) < 0.15
        assert height == y[near].max() and height > np.quantile(y, 0.7)


def test_seconds_without_a_reading_are_grey(estimate):
    (segment,) = estimate.segments
    found = segment.windows[0]
    late = dataclasses.replace(found, start_s=5.0, heart_rate_bpm=None)
    early = dataclasses.replace(found, duration_s=6.0)
    segment = dataclasses.replace(segment, windows=(early, late))
    (patch,) = figures.draw_course(segment).axes[0].patches
    assert (patch.get_x(), patch.get_x() + patch.get_width()) == pytest.approx((6, 15))


def test_the_map_is_laid_over_the_skin_alone(estimate):
    snapshot = estimate.snapshot
    assert snapshot.time_s == pytest.approx(8, abs=0.2)
    whole, near = figures.draw_face(snapshot).axes
    assert np.array_equal(whole.images[0].get_array(), snapshot.picture)
    marked = near.images[0].get_array().astype(int)
    changed = np.abs(marked - snapshot.picture).max(-1)
    assert changed[snapshot.skin == 0].max() == 0 and changed[snapshot.skin > 0.9].min() > 10
    # The portrait's own skin is where the map says.
    _, skin = sample_video.read_portrait()
    assert snapshot.skin[skin > 0.9].mean() > 4 * snapshot.skin[skin < 0.1].mean()
    left, right = near.get_xlim()
    assert 0 <= left < 80 and 180 < right < 256


def test_a_picture_without_skin_is_shown_whole():
    snapshot = Snapshot(1.0, np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.float32))
    _, near = figures.draw_face(snapshot).axes
    assert near.get_xlim() == (-0.5, 59.5)


REASONS = [*confidence.REASONS.values(), *confidence.SKIN_REASONS.values()]


@pytest.mark.parametrize(
    "why",
    [*REASONS, windows.FLAT, windows.NO_COLOUR, windows.NO_CLOCK, windows.OUT_OF_VIEW, "at 5 frames/s no"],
)
def test_there_is_advice_for_every_reason(why):
    assert advice(why) and advice(f"{why}, and 6.0 s are too short to be sure") == advice(why)


def test_advice_is_silent_where_it_knows_nothing():
    assert advice("") == advice("something else") == ""


def test_each_part_of_a_confidence_adds_up_to_it(estimate):
    (segment,) = estimate.segments
    weighed = skin_reading.weigh(segment.skin.window(0, 150), "auto", Settings())
    bias, parts = confidence.parts_of_skin(weighed.evidence)
    odds = bias + sum(part.log_odds for part in parts)
    assert confidence.of_skin(weighed.evidence)[0] == pytest.approx(1 / (1 + math.exp(-odds)))
    assert sum(confidence.by_kind(parts).values()) == pytest.approx(odds - bias)


@pytest.mark.slow
@needs(REAL_FACE)
def test_the_command_explains_a_real_face(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "sspd_jax", "predict", REAL_FACE, "--explain=e.html", "--json=e.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and run.stderr == "", run
    check_numbers((tmp_path / "e.html").read_text(), json.loads((tmp_path / "e.json").read_text()))


def test_certainty_is_never_shown(estimate):
    segments = tuple(
        dataclasses.replace(s, windows=tuple(dataclasses.replace(w, confidence=0.999) for w in s.windows))
        for s in estimate.segments
    )
    shown = explain.page([dataclasses.replace(estimate, confidence=0.999, segments=segments)])
    assert shown.count("&gt;99%") >= 3 and "100%" not in re.sub(r"<style.*?</style>", "", shown, flags=re.S)

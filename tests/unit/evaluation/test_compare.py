"""Runs side by side: differences on shared windows, and what may not be compared."""

import csv
import dataclasses
import json
import re
import shutil

import pytest
from page_tables import read_tables
from scored_people import people, rows

from sspd_jax.cli import compare as cli_compare
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import compare, evaluate, figures, pages, protocol, scoring


def write(folder, samples, p=None):
    evaluate.write(
        scoring.score(samples, "target", p or protocol.default(), with_confidence=False), folder, ""
    )
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two scored runs, `a` the better one."""
    folder = tmp_path_factory.mktemp("runs")
    for name, error_bpm in (("a", 1.0), ("b", 4.0)):
        write(evaluate.epath.Path(folder / name / "report"), people(error_bpm, pos=0.2))
    return folder


@pytest.fixture
def runs(written, tmp_path):
    """A copy of them, which a test may change."""
    return [evaluate.epath.Path(shutil.copytree(written / name, tmp_path / name)) for name in ("a", "b")]


def test_differences_are_of_the_same_windows(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli_compare.main([*map(str, runs), f"--output={out}"]) == 0
    said = capsys.readouterr().out
    assert "windows of 10 s every 10 s" in said
    result = json.loads((out / "compare.json").read_text())
    difference = result["paired"]["b"]["difference"]
    assert difference[0] == pytest.approx(3, abs=0.2) and 2 < difference[2] <= difference[3] < 4
    assert result["paired"]["b"]["rows"][0] == 12 and not result["warnings"]
    lines = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert {line["run"] for line in lines} == {"a", "b"} and {line["protocol"] for line in lines} == {"ours"}
    page = (out / "compare.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "windows of 10 s" in page
    assert "windows of 10 s" in (out / "compare.tex").read_text()


def test_runs_are_compared_by_the_size_of_their_errors():
    """Errors to either side, and only windows that both have: one of b is of nobody else."""
    one, other = rows(2.0, -4.0, -1.0), rows(-3.0, 1.0, 6.0, 5.0)
    columns = [compare.Column("a", one), compare.Column("b", other)]
    result = compare.compare(columns, "words", {"protocol": "ours"})
    # The run's own less the first's: |−3| − |2|, |1| − |−4|, |6| − |−1|
    difference = result["paired"]["b"]["difference"]
    assert difference[0] == pytest.approx((1 - 3 + 5) / 3)
    assert result["paired"]["b"]["rows"][0] == 3
    assert result["warnings"] == ["b: 1 windows are in one of the two only; the difference is of 3"]
    written = f"{difference[0]:.2f} ± {difference[1]:.2f} [{difference[2]:.2f}, {difference[3]:.2f}]"
    assert f"{written} (n = 3)" in compare.as_text(result)
    (table,) = read_tables(compare.as_html(result))
    assert table[-1][0] == "b" and table[-1][-1] == f"{written} n = 3"
    lines = list(csv.DictReader(compare.as_csv(result).splitlines()))
    (line,) = (line for line in lines if line["metric"] == "difference")
    assert (line["run"], float(line["value"]), float(line["rows"])) == ("b", difference[0], 3)
    (line,) = (line for line in lines if (line["run"], line["metric"]) == ("a", "MAE"))
    assert float(line["value"]) == pytest.approx(7 / 3)
    latex = next(line for line in compare.as_latex(result).splitlines() if line.startswith("b "))
    assert written.replace("±", r"$\pm$") in latex


def test_windows_are_the_same_by_recording_start_length_and_true_rate():
    one = rows(2.0, -4.0, -1.0, 3.0, person="ann")
    other = rows(-3.0, 1.0, 6.0, 8.0, person="ann")
    other[1] = dataclasses.replace(other[1], true_bpm=other[1].true_bpm + 0.02)  # of another recording
    other[2] = dataclasses.replace(other[2], true_bpm=other[2].true_bpm + 0.009)  # rounding
    other[3] = dataclasses.replace(other[3], duration_s=8.0)
    columns = [compare.Column("a", one), compare.Column("b", other)]
    result = compare.compare(columns, "words", {"protocol": "ours"})
    paired = result["paired"]["b"]
    assert paired["rows"][0] == 2
    assert paired["difference"][0] == pytest.approx((3 - 2 + 6 - 1) / 2, abs=0.01)
    assert paired["difference"][2] is None  # of one person there is no interval
    assert result["warnings"] == [
        "b: 1 windows have the names but not the true rates of those of a: other recordings, left out of the "
        "difference",
        "b: 4 windows are in one of the two only; the difference is of 2",
    ]


def test_windows_of_another_length_by_a_fraction_of_a_second_are_others():
    one, other = rows(2.0), rows(-3.0)
    other[0] = dataclasses.replace(other[0], duration_s=one[0].duration_s + 0.2)
    result = compare.compare([compare.Column("a", one), compare.Column("b", other)], "words", {})
    assert result["paired"]["b"]["rows"][0] == 0


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    assert compare._labels(["x/a/report", "x/b"]) == ["a", "b"]
    assert compare._labels(["x/a", "y/a/report"]) == ["x/a", "y/a"]
    assert compare._labels(["."]) == ["."]
    with pytest.raises(ConfigError, match=r"^x/a/report: is named twice"):
        compare._labels(["x/a/report", "x/a"])


def test_what_differs_in_one_setting_is_not_compared_whatever_the_words_are(runs, tmp_path):
    other = evaluate.epath.Path(tmp_path / "other")
    write(other, people(1.0, count=2), protocol.load("ours", stride_s=5.0))
    path = other / "scores.json"
    words = json.loads((runs[0] / "report" / "scores.json").read_text())["protocol"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "protocol": words}))
    with pytest.raises(UserError, match=r"other: was scored with protocol ours\(stride_s=5\), .* with ours;"):
        compare.read_columns([runs[0], other])


@pytest.mark.parametrize("scores", [None, "{", '{"protocol": "words"}', "[]"])
def test_an_evaluation_whose_scores_are_damaged_is_said(runs, scores):
    path = runs[0] / "report" / "scores.json"
    path.unlink()
    if scores is not None:
        path.write_text(scores)
    with pytest.raises(UserError, match=r"scores\.json: is missing or damaged; evaluate again"):
        compare.read_columns(runs)


def test_the_picture_of_a_comparison_has_its_differences(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "draw_differences", lambda table, title: drawn.append(table))
    monkeypatch.setattr(pages, "picture", lambda figure, text: "")
    runs = [
        compare.Column(name, rows(*errors))
        for name, errors in (("a", (2, -4)), ("b", (1, -1)), ("c", (6, 6)))
    ]
    result = compare.compare(runs, "words", {})
    compare.as_html(result)
    (table,) = drawn
    assert {name: score.value for name, score in table.items()} == {"b − a": -2, "c − a": 3}
    assert [table["c − a"].low, table["c − a"].high] == result["paired"]["c"]["difference"][2:]


def test_whole_videos_are_not_compared_with_windows(tmp_path):
    samples = people(1.0, count=2)
    write(evaluate.epath.Path(tmp_path / "a"), samples)
    ((column,), _, _) = compare.read_columns([tmp_path / "a"])
    assert {row.span for row in column.rows} == {"window"} and len(column.rows) == 4


def test_methods_of_one_run_can_be_compared(runs, capsys):
    assert cli_compare.main([str(runs[1]), "--methods=target,pos"]) == 0
    assert "b: pos" in capsys.readouterr().out


def test_other_people_of_the_same_names_are_left_out(runs, tmp_path):
    others = people(1.0)[::-1]
    renamed = [
        scoring.Sample(a.segment, b.fps, b.truth, b.waves) for a, b in zip(people(1.0), others, strict=True)
    ]
    write(evaluate.epath.Path(tmp_path / "c"), renamed)
    columns = compare.read_columns([runs[0], tmp_path / "c"])
    result = compare.compare(*columns)
    assert result["paired"]["c"]["rows"][0] == 0
    assert any("other recordings" in warning for warning in result["warnings"])
    compare.as_html(result)  # draws without a difference, too


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a"], 2, "compares with nothing"),
        (["a", "a"], 2, "named twice"),
        (["a", "nowhere"], 1, "holds no evaluation"),
        (["a", "b", "--methods=ica"], 1, "has no method 'ica'"),
        (["a", "toolbox"], 1, "cannot be compared.*--protocol"),
    ],
)
def test_what_cannot_be_compared_is_said(runs, tmp_path, capsys, arguments, code, words):
    write(evaluate.epath.Path(tmp_path / "toolbox"), people(1.0), protocol.load("toolbox"))
    folders = [name if name.startswith("-") else str(tmp_path / name) for name in arguments]
    out = tmp_path / "out"
    assert cli_compare.main([*folders, f"--output={out}"]) == code
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and not out.exists()
    assert re.search(words, error), error

"""The benchmark on real people: its grid of windows, its table, and that a run goes on where it stopped."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from shared_files import REAL_PEOPLE, TALKING, needs

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate import rate
from sspd_jax.inference import windows

FOLDER = Path(__file__).parents[2] / "benchmarks" / "accuracy"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(FOLDER))
    import real_people

    yield real_people
    sys.path.remove(str(FOLDER))


def clip(benchmark, name="a", bpm=72.0, seconds=20.0, person="anna"):
    times_s = np.arange(round(30 * seconds)) / 30
    wave = np.sin(2 * np.pi * bpm / 60 * times_s)
    return benchmark.Clip(name, person, "people", Path(f"{name}.mp4"), times_s, wave, {})


def test_windows_and_truth(benchmark):
    known = clip(benchmark)
    assert known.starts_s() == [0.0, 5.0, 10.0]
    assert known.true_bpm(5.0) == pytest.approx(72, abs=0.2)


def found(start_s, bpm, given):
    return windows.Window(start_s, 10.0, bpm if given else None, 0.95 if given else 0.1, "", bpm)


def test_what_the_product_lacks_counts_as_wrong(benchmark, monkeypatch):
    class Prediction:
        windows = (found(0.02, 72.5, True), found(9.9, 90.0, False))

    monkeypatch.setattr(benchmark.sspd_jax, "read", lambda *_, **__: Prediction)
    first, second, third = benchmark.product(method="pos")(clip(benchmark))
    assert (first.bpm, first.given) == (72.5, True)
    assert (second.bpm, second.given) == (None, False)
    assert (third.bpm, third.given) == (90.0, False)


def test_a_video_that_cannot_be_read_counts_as_wrong(benchmark, monkeypatch):
    def refuse(*_, **__):
        raise UserError("no face; film one")

    monkeypatch.setattr(benchmark.sspd_jax, "read", refuse)
    assert [r.bpm for r in benchmark.product(method="pos")(clip(benchmark))] == [None] * 3


def test_results_are_kept_and_gone_on_with(benchmark, tmp_path):
    path, settings = tmp_path / "real_people.json", {"region": None}
    results = benchmark.Results(path, settings, resume=True)
    readings = [
        benchmark.Reading(0.0, 72.0, 73.0, 0.95, True),
        benchmark.Reading(5.0, 72.0, 76.0, 0.2, False),
        benchmark.Reading(10.0, 72.0, None, None, False),
        benchmark.Reading(15.0, 72.0, 90.0, 0.1, False),
    ]
    results.keep("pos", clip(benchmark), readings, 3.0)
    results.keep("pos", clip(benchmark, "b", person="ben"), readings, 5.0)
    again = benchmark.Results(path, settings, resume=True)
    assert again.table == results.table == json.loads(path.read_text())
    assert again.has("pos", clip(benchmark)) and not again.has("green", clip(benchmark))
    row = benchmark.line(again.table, "pos", "people")
    assert row == "| pos | 8 | 25 (25–25) | 50 (50–50) | 7.7 (7.7–7.7) | 2 | 2 | 2 | 50 | 4 |"
    page = benchmark.report(again.table | {"not_run": {"a rival": "it is not here"}})
    assert row in page and "a rival | not run: it is not here" in page and "1 of 4 | 1 of 4" in page
    assert not benchmark.Results(path, settings, resume=False).has("pos", clip(benchmark))
    with pytest.raises(UserError, match="other settings"):
        benchmark.Results(path, {"region": "crop"}, resume=True)


def test_a_region_that_cannot_be_chosen(benchmark, monkeypatch):
    assert benchmark.region_setting(None) == {}
    monkeypatch.setattr(benchmark.sspd_jax, "read", lambda video, *, region="skin": None)
    assert benchmark.region_setting("skin") == {"region": "skin"}
    monkeypatch.setattr(benchmark.sspd_jax, "read", lambda video: None)
    if "region" not in windows.Settings.__dataclass_fields__:
        with pytest.raises(ConfigError, match="crop only"):
            benchmark.region_setting("skin")


def test_pulses_are_drawn_by_name(benchmark):
    heads = benchmark.talking_heads
    drawn, fixed = heads.recipes("talk_x", 0)
    assert (drawn, fixed) == heads.recipes("talk_x", 0)
    assert drawn != heads.recipes("talk_y", 0)[0]
    assert 55 <= drawn.bpm <= 120 and 0.006 <= drawn.amplitude <= 0.008 and 20 <= drawn.crf <= 26
    times_s = np.arange(600) / 30
    wave = heads.pulse(drawn.bpm, times_s, np.random.default_rng(0))
    assert rate.spectral_peak_rate(wave, 30.0) == pytest.approx(drawn.bpm, rel=0.04)
    assert list(heads.to_and_fro(3, 8)) == [0, 1, 2, 1, 0, 1, 2, 1]


@pytest.mark.slow
@needs(REAL_PEOPLE)
@needs(TALKING)
def test_a_run(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "KEPT", tmp_path)
    output = tmp_path / "page.md"
    command = ["--people", "subject5", "talk_d10", "--methods", "pos", "open-rppg FacePhys"]
    command += [f"--source={REAL_PEOPLE}", f"--heads={TALKING}", f"--output={output}"]
    assert benchmark.main(command) == 0
    assert "subject5: pos" in capsys.readouterr().out
    assert "no --rival_python was given" in output.read_text()
    assert benchmark.main([*command, "--resume"]) == 0
    assert "subject5: pos" not in capsys.readouterr().out
    table = json.loads(output.with_suffix(".json").read_text())
    assert set(table["readings"]["pos"]) == {"subject5", "talk_d10, drawn", "talk_d10, fixed"}


def test_what_is_asked_for_and_is_not_there(benchmark, tmp_path, capsys):
    nowhere = [f"--{name}={tmp_path / name}" for name in ("source", "heads", "weights")]
    output = f"--output={tmp_path / 'page.md'}"
    assert benchmark.main([*nowhere, output, "--methods", "pos"]) == 1
    assert "nobody to read" in capsys.readouterr().err
    assert benchmark.main([*nowhere, output, "--methods", "magic"]) == 2
    assert "'magic' is none of auto, sspd, green" in capsys.readouterr().err

"""A report over the skin says of a recording what predict says of it: rate, confidence and reason."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import cv2
import dataset_files
import numpy as np
import pytest

from sspd_jax.cli import evaluate as cli_evaluate
from sspd_jax.datasets import skin_file
from sspd_jax.datasets.dataset import PreparedDataset, open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Ppg, Recording
from sspd_jax.evaluation import protocol, report, scoring
from sspd_jax.evaluation.evaluate import over
from sspd_jax.heart_rate import confidence
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import skin_reading, skin_segment, windows
from sspd_jax.inference.predict import predict, predict_frames
from sspd_jax.inference.windows import Settings
from sspd_jax.simulation import sample_video

SECONDS = 18
BPM = {"ann": 66.0, "bob": 90.0, "cat": 78.0}
RATE = {"ann": 30.0, "bob": 25.0, "cat": 30.0}  # of the cameras; the dataset's clock has 30 Hz
GONE = (11.0, 14.0)  # cat is out of view
METHODS = ("auto", "pos", "chrom", "omit")
OURS = over(protocol.load("ours"), "skin")
AUTO_WINDOW = ("auto", "window")


@functools.cache
def frames(name):
    times_s = np.arange(round(SECONDS * RATE[name])) / RATE[name]
    found = []
    for time_s, picture in zip(times_s, sample_video.face_frames(times_s, BPM[name], 0), strict=True):
        picture = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA)
        away = name == "cat" and GONE[0] <= time_s < GONE[1]
        found.append((float(time_s), np.full_like(picture, 90) if away else picture))
    return found


@functools.cache
def predicted(name, method, **settings):
    return predict_frames(
        iter(frames(name)), RATE[name], method=method, settings=Settings(**settings), keep=True
    )


def judged_anew(name, method, learned=True, **settings):
    """What `predict` says with other settings, of what it has recorded in one part."""
    (segment,) = predicted(name, method, stride_s=1.0).segments
    waves = segment.skin if learned else skin_segment.read_waves(segment.skin.traces, RATE[name], method)
    return skin_reading.judge(waves, method, Settings(**settings))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "faces"
    made = []
    for name, bpm in BPM.items():
        # The contact wave of ann begins late: the skin is read from the video's beginning all the same.
        beats = np.arange(2.0 if name == "ann" else 0.0, SECONDS, 1 / 60)
        ppg = Ppg(beats, sample_video.ppg(beats, bpm))
        made.append(Recording(name, name, functools.partial(frames, name), ppg, folder / name, {}))
    prepare(made, folder, crop_size=16, progress=False)
    return open_prepared(folder)


@pytest.fixture(scope="module")
def samples(dataset):
    return {s.segment.person_id: s for s in scoring.read_segments(dataset, tuple(BPM), {}, METHODS, "skin")}


@pytest.mark.parametrize(("name", "method"), [("ann", "auto"), ("bob", "auto"), ("ann", "omit")])
def test_rate_confidence_and_reason_are_those_of_predict(samples, name, method):
    said = predicted(name, method, stride_s=1.0)
    by_start = {w.start_s: w for segment in said.segments for w in segment.windows}
    p = over(protocol.load("ours", stride_s=5.0), "skin")
    rows = [row for row in scoring.score_segment(samples[name], p, "auto") if row.method == method]
    rows = [row for row in rows if row.span == "window"]
    assert [row.start_s for row in rows] == ([2, 7] if name == "ann" else [0, 5])
    for row in rows:
        window = by_start[row.start_s]
        assert row.predicted_bpm == window.candidate_bpm
        assert row.confidence == window.confidence
        assert (row.why == "") == (window.heart_rate_bpm is not None) and row.why == window.why
        assert abs(row.error_bpm) < 3
    assert len({row.confidence for row in rows}) == len(rows)


@pytest.mark.slow
def test_a_file_of_a_dataset_is_read_as_predict_reads_the_file(tmp_path):
    dataset_files.ubfc_rppg(tmp_path / "raw", seconds=11)  # whose times stand in a text, rounded
    listed = registry.read("ubfc_rppg", tmp_path / "raw")[:1]
    prepare(listed, tmp_path / "out", crop_size=16, progress=False)
    there = open_prepared(tmp_path / "out")
    (sample,) = scoring.read_segments(there, there.people, {}, ("auto",), "skin")
    (row,) = (r for r in scoring.score_segment(sample, OURS, "auto") if r.span == "window")
    window = predict(listed[0].file).segments[0].windows[0]
    assert row.predicted_bpm == pytest.approx(window.candidate_bpm, abs=1e-6)
    assert row.confidence == pytest.approx(window.confidence, abs=1e-6)


def test_the_wave_is_the_one_that_predict_shows(samples):
    for name, method in (("ann", "omit"), ("bob", "auto")):
        segment = judged_anew(name, method)
        wave = samples[name].waves[method]
        times_s = segment.wave.start_s + np.arange(len(segment.wave.values)) / segment.wave.fps
        shown = np.interp(np.arange(len(wave.values)) / 30, times_s, segment.wave.values)
        assert abs(np.corrcoef(wave.values[:530], shown[:530])[0, 1]) > (0.9999 if name == "ann" else 0.99)
        row = next(r for r in scoring.score_segment(samples[name], OURS) if r.method == method)
        assert row.macc > 0.8 and row.snr_db > 0


def test_a_face_out_of_view_has_no_rate_and_the_others_are_read_as_parts(samples):
    rows = scoring.score_segment(samples["cat"], over(protocol.load("ours", stride_s=2.0), "skin"), "auto")
    auto = {row.start_s: row for row in rows if row.method == "auto" and row.span == "window"}
    assert list(auto) == [0, 2, 4, 6, 8]
    for start_s, row in auto.items():
        # A tenth of a window may lack; what counts as found ends up to half a second after the last look.
        if start_s < 2:
            assert abs(row.error_bpm) < 3 and row.confidence > 0
        elif start_s > 2:
            assert (row.confidence, row.why) == (0, windows.OUT_OF_VIEW) and np.isnan(row.predicted_bpm)
    (video,) = (row for row in rows if row.method == "pos" and row.span == "video")
    assert np.isnan(video.predicted_bpm) and np.isnan(video.confidence) and video.why == ""
    assert np.isnan(samples["cat"].waves["pos"].values[round(12.7 * 30)])


def test_whole_videos_are_judged_too_and_nobody_is_judged_unasked(samples):
    whole = over(protocol.load("toolbox"), "skin")
    rows = scoring.score_segment(samples["bob"], whole, "auto")
    assert {row.span for row in rows} == {"video"} and all(0 < row.confidence <= 1 for row in rows)
    (auto,) = (row for row in rows if row.method == "auto")
    window, *_ = judged_anew("bob", "auto", window_s=auto.duration_s).windows
    assert auto.predicted_bpm == pytest.approx(window.candidate_bpm, abs=1e-6)
    assert auto.confidence == pytest.approx(window.confidence, abs=1e-6)
    unasked = scoring.score_segment(samples["bob"], whole)
    assert [row.predicted_bpm for row in unasked] == [row.predicted_bpm for row in rows]
    assert all(np.isnan(row.confidence) and row.why == "" for row in unasked)


def test_auto_alone_hears_the_network(dataset, samples):
    (learned,) = dataset.skin("ann").learned
    reading = samples["ann"].skin.read()
    waves = {method: reading._parts[reading._kind[method]][0].waves for method in METHODS}
    assert [method for method in METHODS if "sspd" in waves[method]] == ["auto"]
    assert waves["auto"]["sspd"][100:110] == pytest.approx(learned.values[100:110])
    # A window of one method is not the other's.
    rates = [reading.estimate(m, 0.0, 10.0, judged=True) for m in ("pos", "auto", "pos")]
    assert rates[0] == rates[2] != rates[1]


def test_auto_can_be_read_without_the_network(dataset, samples, tmp_path, capsys):
    (deaf,) = scoring.read_segments(dataset.without_network("as asked"), ("bob",), {}, ("auto",), "skin")
    found, heard = (
        {
            r.start_s: r
            for r in scoring.score_segment(sample, OURS, "auto")
            if (r.method, r.span) == AUTO_WINDOW
        }
        for sample in (deaf, samples["bob"])
    )
    window, *_ = judged_anew("bob", "auto", learned=False).windows
    assert (found[0].predicted_bpm, found[0].confidence) == (window.candidate_bpm, window.confidence)
    assert found[0].confidence != heard[0].confidence
    command = [f"--data={dataset.data_dir}", "--people=bob", "--methods=auto", f"--output={tmp_path / 'out'}"]
    assert cli_evaluate.main([*command, "--no_network", "--no_faces"]) == 0
    said = json.loads((tmp_path / "out" / "scores.json").read_text())["warnings"]
    assert "auto is read without the network of predict in bob: --no_network was given" in said
    assert dataset.skin("bob").learned  # the dataset itself has it still


def test_who_is_read_without_todays_network_is_said(samples, dataset):
    of_bob = dataset._skin["bob"]
    earlier = {key: value for key, value in of_bob.items() if key != "network"}
    network = {**of_bob["network"], "name": "old_network", "digest": "0" * 16}
    without = "auto is read without the network of predict in bob:"
    for facts, said in (
        (
            earlier | {"network": network},
            f"{without} it was prepared with another network than today's (old_network)",
        ),
        (earlier, f"{without} an earlier version prepared it, without a network"),
        (earlier | {"fallback": "no model"}, "the skin was found without landmarks in bob: no model"),
        (of_bob, ""),
    ):
        there = PreparedDataset(dataset.data_dir, dataset.settings, dataset.segments, {}, {"bob": facts})
        assert bool(there.skin("bob").learned) == (facts is of_bob)
        source = dataclasses.replace(samples["bob"].skin, dataset=there)
        sample = dataclasses.replace(samples["bob"], skin=source)
        warnings = scoring.score([sample], "auto", OURS, with_confidence=False).result["warnings"]
        assert [one.partition("; prepare again")[0] for one in warnings if "bob" in one] == [said] * bool(
            said
        )
        classical = dataclasses.replace(sample, skin=dataclasses.replace(source, methods=("pos",)))
        warnings = scoring.score([classical], "pos", OURS, with_confidence=False).result["warnings"]
        assert not any("network" in one for one in warnings)


def test_a_networks_rate_is_the_protocols_and_its_confidence_that_of_the_skin(dataset):
    def infer(crops, fps, start_s):
        times_s = start_s + np.arange(len(list(crops))) / fps
        return Wave(np.sin(2 * np.pi * BPM["bob"] / 60 * times_s) + 0.1 * np.sin(9 * times_s), fps, start_s)

    network = SimpleNamespace(infer=infer, network=SimpleNamespace(input_transform="difference"))
    read = {}
    for region in ("skin", "crop"):
        (sample,) = scoring.read_segments(dataset, ("bob",), {"network": network}, ("pos",), region)
        p = over(protocol.load("ours", stride_s=7.0), region)
        rows = scoring.score_segment(sample, p, "network")
        read[region] = [row for row in rows if row.method == "network" and row.span == "window"]
        wave = sample.waves["network"]
    skin, crop = read["skin"], read["crop"]
    assert [row.predicted_bpm for row in skin] == [row.predicted_bpm for row in crop]
    (part,) = skin_segment.on_clock(dataset.skin("bob").traces, 30.0)
    segment = skin_segment.read_waves(part, 30.0, "sspd", [wave])
    for row, start in zip(skin, (0, 210), strict=True):
        window = segment.window(start, start + 300)
        chance, why = skin_reading.judge_rate(window, window.waves["sspd"], row.predicted_bpm, Settings())
        assert (row.confidence, row.why) == (chance, why)
    assert [row.confidence for row in skin] != [row.confidence for row in crop]


def test_the_sum_says_how_many_windows_predict_would_give_a_rate(samples):
    one = scoring.score(list(samples.values()), "auto", over(protocol.load("ours", stride_s=5.0), "skin"))
    mine = [row for row in one.rows if row.method == "auto" and row.span == "window"]
    coverage = one.result["coverage"]
    assert coverage["threshold"] == confidence.SKIN_THRESHOLD
    assert coverage["coverage"] == np.mean([row.why == "" for row in mine])
    assert one.result["settings"]["region"] == "skin" and "region: skin" in one.result["protocol"]
    assert one.result["scores"]["window"]["auto"]["missing"][0] == 1


def run(data, out, *more):
    return cli_evaluate.main([f"--data={data}", f"--output={out}", "--no_faces", *more])


def result(out):
    return json.loads((out / "scores.json").read_text())


def test_the_command_reads_the_skin_and_can_read_the_crop(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "render", lambda *_, **__: "")  # its pictures are tested where they are drawn
    asked = "--methods=auto,pos"
    for region, more in (("skin", []), ("crop", ["--region=crop"]), ("asked", ["--region=crop", asked])):
        assert run(dataset.data_dir, tmp_path / region, "--people=bob", *more) == 0
        said = capsys.readouterr().out
        assert f"region: {region.replace('asked', 'crop')}" in said
        assert ("auto reads the skin alone and is left out of a crop" in said) == (region == "asked")
    skin, crop = (result(tmp_path / region) for region in ("skin", "crop"))
    assert skin["reader"] == "auto" and crop["reader"] == "green"
    assert list(skin["scores"]["window"]) == ["auto", "green", "chrom", "pos"]
    assert list(crop["scores"]["window"]) == ["green", "chrom", "pos"]
    assert crop["coverage"]["threshold"] == confidence.THRESHOLD
    assert run(dataset.data_dir, tmp_path / "none", "--methods=auto", "--region=crop") == 2
    assert "auto reads the skin alone" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dataset_without_traces_is_read_from_the_crop_in_a_sentence(dataset, tmp_path, capsys, monkeypatch):
    assert run(dataset.data_dir, tmp_path / "crop", "--region=crop") == 0
    capsys.readouterr()
    monkeypatch.setattr(PreparedDataset, "skin", lambda *_: None)
    monkeypatch.setattr(skin_file, "is_known", lambda _: False)
    assert run(dataset.data_dir, tmp_path / "asked") == 0
    said = capsys.readouterr().out
    assert said.count("holds no traces of the skin") == 1 and "so the crop is read" in said
    for name in ("windows.csv", "scores.csv"):
        assert (tmp_path / "asked" / name).read_text() == (tmp_path / "crop" / name).read_text()


def test_who_was_found_without_landmarks_is_said(samples, dataset):
    skin = {name: {**facts, "fallback": "no model"} for name, facts in dataset._skin.items()}
    blind = PreparedDataset(dataset.data_dir, dataset.settings, dataset.segments, {}, skin)
    source = dataclasses.replace(samples["bob"].skin, dataset=blind)
    one = scoring.score(
        [dataclasses.replace(samples["bob"], skin=source)], "auto", OURS, with_confidence=False
    )
    assert "the skin was found without landmarks in bob: no model" in one.result["warnings"]
    assert scoring.score([samples["bob"]], "auto", OURS).result["warnings"][0].startswith("1 person")

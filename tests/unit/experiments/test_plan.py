"""What cannot be trained or tested is said, with the key to set, before anything is prepared or written."""

import json
import shutil
from types import SimpleNamespace

import dataset_files
import numpy as np
import pytest
import small_run

from sspd_jax import main
from sspd_jax.datasets import listing
from sspd_jax.datasets.listing import Entry, Listing
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Broken, Ppg, Recording
from sspd_jax.errors import UserError
from sspd_jax.experiments import plan
from sspd_jax.training import config as experiments

SMALL = {"crop_size": 26, "clip_frames": 80, "batch_size": 1, "epochs": 3, **small_run.NETWORK}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two people of UBFC-rPPG and PURE, 6 s each."""
    folder = tmp_path_factory.mktemp("raw")
    dataset_files.ubfc_rppg(folder / "ubfc_rppg")
    dataset_files.pure(folder / "pure")
    return folder


def arguments(tmp_path, name, source, **values):
    values = {
        **SMALL,
        "data.source": source,
        "data.data_dir": tmp_path / "data",
        "evaluation.window_s": 5,
        **{key.replace("__", "."): value for key, value in values.items()},
    }
    return [
        f"--config={name}",
        f"--workdir={tmp_path / 'run'}",
        "--no_progress",
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]


FOLDS = {"data__split__kind": "folds", "data__split__folds": 2}


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (
            "ubfc",
            {},
            [
                "holds no recording of subject3",
                "it has (subject1, subject2) in --config.data.train_people",
                "--config.data.split.kind=folds --config.data.split.folds=2",
            ],
        ),
        ("pure", {}, ["has 2 people, who cannot be dealt into 5 folds", "--config.data.split.folds=2"]),
        (
            "pure",
            {**FOLDS, "clip_frames": 300},
            ["has the 10.0 s of a clip", "longest has 6.0 s", "--config.clip_frames=300"],
        ),
        (
            "pure",
            {**FOLDS, "evaluation__window_s": 10},
            ["needs 10 s of contact pulse wave, the longest has 6.0", "--config.evaluation.window_s"],
        ),
        (
            "ubfc",
            {"data__train_people": "('subject1',)", "data__test_people": "()"},
            ["nobody is to be tested", "--config.data.split.kind=everyone"],
        ),
        (
            "ubfc",
            {"data__train_people": "('subject1',)", "data__test_people": "('subject9',)"},
            ["holds no recording of subject9", "--config.data.test_people"],
        ),
        ("pure", {**FOLDS, "data__data_dir": "/nowhere/at/all"}, ["/nowhere/at is no folder"]),
    ],
)
@pytest.mark.parametrize("door", ["--check_only", ""])
def test_what_cannot_be_is_said_with_its_key_before_anything_is_done(
    tmp_path, capsys, raw, name, values, words, door
):
    source = raw / {"ubfc": "ubfc_rppg"}.get(name, name)
    code = main.main([*arguments(tmp_path, name, source, **values), *([door] if door else [])])
    error = capsys.readouterr().err.strip().splitlines()
    assert code in (1, 2) and len(error) == 1
    assert all(word in error[0] for word in words), error
    assert list(tmp_path.iterdir()) == []


def test_a_broken_recording_is_named_at_once_with_mains_own_key(tmp_path, capsys, raw):
    shutil.copytree(raw / "pure", tmp_path / "pure")
    (tmp_path / "pure" / "02-01" / "02-01.json").write_text("{")
    assert main.main(arguments(tmp_path, "pure", tmp_path / "pure", **FOLDS)) == 1
    error = capsys.readouterr().err
    assert "02-01.json: is damaged" in error and "--config.data.keep_going=True" in error
    assert "--keep_going`" not in error
    assert not (tmp_path / "data").exists()


def test_a_disk_without_room_is_refused(tmp_path, capsys, raw, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1e5))
    assert main.main(arguments(tmp_path, "pure", raw / "pure", **FOLDS)) == 1
    assert "needs 0.0 GB and its disk has 0.0 GB; make room" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_plan_counts_people_steps_memory_and_time_and_writes_nothing(tmp_path, capsys, raw):
    assert main.main([*arguments(tmp_path, "pure", raw / "pure", **FOLDS), "--check_only"]) == 0
    text = capsys.readouterr().out
    for words in (
        "1 person (0",
        "1 recording, 0.1 min",
        "protocol: sspd_jax: windows of 5 s",
        "3 epochs of 1 clip, 1 step of 1 each: 3 in all",
        "to prepare: 0.00 GB",
        "8 of 10 people are not there",
        "memory: ",
        " GB at a step of 1 clip\n",
        "time: a step took ",
    ):
        assert words in text, text
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_a_prepared_dataset_is_of_its_segments_and_names_who_is_not_tested(tmp_path, raw):
    shutil.copytree(raw / "pure", tmp_path / "pure")
    path = tmp_path / "pure" / "02-01" / "02-01.json"
    content = json.loads(path.read_text())
    content["/FullPackage"] = content["/FullPackage"][:280]  # 4.6 of 6 s
    path.write_text(json.dumps(content))
    values = {
        **SMALL,
        "data.name": "pure",
        "data.source": tmp_path / "pure",
        "data.data_dir": tmp_path / "data",
        "data.train_people": ("01",),
        "data.test_people": ("02", "03"),
        "evaluation.window_s": 5,
    }
    config = experiments.load("ubfc", [f"{key}={value}" for key, value in values.items()])
    for prepared in (False, True):
        if prepared:
            listed = registry.read("pure", config.data.source)
            prepare(listed, config.data.data_dir, crop_size=26, skin=False, progress=False)
        with pytest.raises(UserError, match=r"needs 5 s of contact pulse wave, the longest has 4\.[56]; "):
            plan.check(config)
        config.evaluation.window_s = 4
        planned = plan.check(config)
        assert (planned.recordings is None) == prepared
        assert [entry.recording_id for entry in planned.test] == ["02-01"]
        assert any(note == "03 is not tested: not in the dataset" for note in planned.notes)
        covered = [
            note for note in planned.notes if "02-01 is tested where it has a contact pulse wave" in note
        ]
        assert len(covered) == prepared  # a folder of pictures has no header that says how long it is
        config.evaluation.window_s = 5


def test_another_experiments_work_directory_is_refused_before_preparing(tmp_path, capsys, raw):
    (tmp_path / "run").mkdir()
    config = experiments.load("pure", ["seed=7"])
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    assert main.main(arguments(tmp_path, "pure", raw / "pure", **FOLDS)) == 2
    assert "holds an experiment with" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("seconds", "words"), [(8, "8 s"), (1500, "25 min"), (11520, "3.2 h")])
def test_times_are_written_in_words(seconds, words):
    assert plan.duration(seconds) == words


# By hand, without recordings.


def entry(name, length_s, *truth_s, person=None):
    return Entry(name, person or name, {}, length_s, truth_s)


def experiment(*overrides):
    return experiments.load("ubfc", ["fps=25", "clip_frames=100", "crop_size=130", *overrides])


def listed(*entries):
    return Listing("there", tuple(entries), {})


def test_a_recording_is_learned_from_where_it_holds_a_clip():
    """101 frames at 25 Hz are 4.04 s; a header may be a frame short."""
    known = listed(
        entry("long", 9.0), entry("just", 4.0), entry("short", 3.99), entry("two", 2.0), entry("two", 3.0),
        entry("mixed", 1.0), entry("mixed", 5.0), entry("unknown", None), entry("other", 9.0),
    )  # fmt: skip
    people = ("long", "just", "short", "two", "mixed", "unknown")
    train, notes = plan._long_enough(experiment(), known, people)
    assert [e.recording_id for e in train] == ["long", "just", "mixed", "unknown"]
    assert notes == [
        f"{name} is not learned from: its {length} s are shorter than a clip's 4.0 s"
        for name, length in (("short", "4.0"), ("two", "3.0"))
    ]
    with pytest.raises(UserError, match=r"has the 4\.0 s of a clip \(the longest has 3\.0 s\)"):
        plan._long_enough(experiment(), known, ("two",))


def test_a_recording_is_tested_where_its_truth_is_as_long_as_a_window():
    known = listed(
        entry("whole", 20.0, (0.0, 20.0)), entry("just", 9.0, (0.0, 4.92)), entry("short", 9.0, (0.0, 4.9)),
        entry("parts", 20.0, (0.0, 6.0), (10.0, 14.0)), entry("none", 20.0), entry("other", 9.0, (0.0, 9.0)),
    )  # fmt: skip
    people = ("whole", "just", "short", "parts", "none", "gone")
    config = experiment("evaluation.window_s=5", "evaluation.region=crop")
    p, test, notes = plan._testable(config, known, people)
    assert (p.window_s, p.region) == (5, "crop")
    assert [e.recording_id for e in test] == ["whole", "just", "parts"]
    assert notes == [
        "gone is not tested: not in the dataset",
        "just is tested where it has a contact pulse wave: 0.0–4.9 s of 9.0 s",
        "short is not tested: its contact pulse wave has 4.9 s unbroken, 5 s are needed",
        "parts is tested where it has a contact pulse wave: 0.0–6.0 s, 10.0–14.0 s of 20.0 s",
        "none is not tested: it has no contact pulse wave",
    ]
    everyone = experiment("data.split.kind=everyone")
    assert plan._testable(everyone, known, ()) == (None, [], [])


@pytest.mark.parametrize(("free_mb", "there_mb", "fits"), [(39, 0, True), (37, 0, False), (37, 2, True)])
def test_the_disk_needs_three_bytes_a_pixel_less_what_is_there(
    tmp_path, monkeypatch, free_mb, there_mb, fits
):
    known = listed(entry("a", 20.0), entry("b", 10.0), entry("c", None))
    folder = tmp_path / "data"
    if there_mb:
        folder.mkdir()
        (folder / "x.array_record-00").write_bytes(bytes(there_mb * 10**6))
        (folder / "y.json").write_bytes(bytes(10**6))  # no shard
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=free_mb * 10**6))
    config = experiment(f"data.data_dir={folder}")
    if fits:
        assert plan._require_room(config, known) == 30 * 25 * 130**2 * 3  # 38 MB
    else:
        with pytest.raises(UserError, match=r"preparing 0 min needs 0\.0 GB and its disk has 0\.0 GB"):
            plan._require_room(config, known)


def made(sizes=(4, 4, 2), epochs=10):
    return plan.Plan(None, (), (), sizes, epochs, None, 0.0, ())


def test_a_training_costs_its_steps_and_a_compilation_for_each_size():
    measured = plan.Measured(2.0, 30.0, 3.21e9, "2 cores")
    assert plan.cost(made(), measured) == (
        "memory: 3.21 GB at a step of 4 clips\n"
        "time: a step took 2.00 s on 2 cores after 30 s of compiling: about 110 s for the training; "
        "preparing and testing come on top"
    ).replace("110 s", plan.duration(2 * 30 + 2.0 * 100 / 4))


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_the_second_of_two_steps_is_measured_as_it_will_be_compiled(parallel, monkeypatch):
    clock, took, seen = [0.0], iter((7.0, 2.0)), []

    def compile_step(step_config, mesh):
        def step(state, batch):
            clock[0] += next(took)
            seen.append((state, batch["clips"].shape, batch["clips"].dtype))
            return state + 1, {}

        return step

    def refuse(*_):
        raise AssertionError("another way to compile")

    compilers = {"jit": refuse, "pmap": refuse, parallel: compile_step}
    monkeypatch.setattr(plan.compiled, "STEP_COMPILERS", compilers)
    monkeypatch.setattr(plan.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(plan.train_state, "init", lambda network, optimizer, seed: seed)
    monkeypatch.setattr(plan.sharding, "place", lambda state, mesh: state)
    measured = plan.measure_step(experiment(f"parallel={parallel}", "seed=3"), (4, 2))
    assert (measured.step_s, measured.compile_s) == (2, 5)
    assert seen == [(3, (4, 101, 130, 130, 3), np.uint8), (4, (4, 101, 130, 130, 3), np.uint8)]


def test_a_plan_counts_recordings_and_not_their_parts(monkeypatch):
    """An unbroken part of a recording gives no clip of its own."""
    known = listed(*(entry(name, 9.0, (0.0, 9.0)) for name in ("a", "a", "b", "c", "d")))
    monkeypatch.setattr(plan, "_list", lambda config: (None, known, ["a note"]))
    config = experiment(
        "data.train_people=('a', 'b', 'c')",
        "data.test_people=('d',)",
        "batch_size=2",
        "evaluation.window_s=5",
    )
    planned = plan.check(config)
    assert (planned.sizes, planned.epochs, planned.size_bytes) == ((2, 1), config.epochs, 0)
    assert planned.notes == ("a note",)
    text = str(planned)
    assert "learned from: 3 people (a, b, c), 3 recordings, 0.6 min" in text
    assert "tested: 1 person (d), 1 recording, 0.1 min" in text
    assert "of 3 clips, 2 steps of 2 and 1 each" in text


def test_what_a_source_would_be_prepared_with_is_the_configurations(monkeypatch):
    told = []
    monkeypatch.setattr(plan.registry, "read", lambda name, source: [(name, source)])
    monkeypatch.setattr(plan.prepare, "require_place", lambda *args: told.append(args))
    monkeypatch.setattr(plan.listing, "of_recordings", lambda *args: told.append(args) or listed())
    monkeypatch.setattr(plan.dataset_check, "check_dataset", lambda name, recordings: [])
    config = experiment(
        "data.source=raw", "data.name=pure", "data.data_dir=there", "data.face.detector=yunet",
        "data.face.follow_every_s=2", "data.skin=False",
    )  # fmt: skip
    plan._list(config)
    (folder, name, settings, recordings), of_listing = told
    assert (folder, name, recordings) == ("there", "pure", [("pure", "raw")])
    asked = (settings.fps, settings.crop_size, settings.face_crop, settings.face_detector)
    assert asked == (25.0, 130, "box", "yunet") and (settings.follow_every_s, settings.skin) == (2.0, False)
    assert of_listing == (recordings, "raw", settings.max_gap_s)


# What headers tell.


def test_the_truth_of_a_recording_is_what_of_its_wave_lies_in_the_video(monkeypatch, tmp_path):
    times_s = np.concatenate([np.arange(-1, 3, 0.1), np.arange(4, 9, 0.1), [20.0]])
    values = np.sin(times_s)
    values[(times_s > 5.95) & (times_s < 6.35)] = np.nan
    recording = Recording(
        recording_id="a", person_id="ann", frames=lambda: (), ppg=Ppg(times_s, values), file=tmp_path / "a",
        meta={"light": "dim"},
    )  # fmt: skip
    broken = Broken("b", "b.avi: the file is empty")
    monkeypatch.setattr(listing.decode, "read_facts", lambda file: SimpleNamespace(duration_s=7.5))
    for max_gap_s, spans in ((0.45, [(0, 2.9), (4, 5.9), (6.4, 7.5)]), (0.9, [(0, 2.9), (4, 7.5)])):
        found = listing.of_recordings([recording, broken], "there", max_gap_s)
        (one,) = found.segments
        assert (one.person_id, one.length_s, one.meta) == ("ann", 7.5, {"light": "dim"})
        assert np.array(one.truth_s) == pytest.approx(np.array(spans))
        assert found.left_out == {"b": "b.avi: the file is empty"} and found.people == ("ann",)
    assert one.longest_truth_s == pytest.approx(3.5)


def test_a_recording_without_a_header_is_as_long_as_its_wave(monkeypatch, tmp_path):
    def no_video(file):
        raise UserError(f"{file}: is a folder of pictures")

    monkeypatch.setattr(listing.decode, "read_facts", no_video)
    wave = Ppg(np.arange(0, 6, 0.1), np.ones(60))
    for ppg, length_s, spans in ((wave, 5.9, ((0, 5.9),)), (None, None, ())):
        recording = Recording(
            recording_id="a", person_id="a", frames=lambda: (), ppg=ppg, file=tmp_path, meta={}
        )
        (one,) = listing.of_recordings([recording], "there", 0.5).segments
        assert (one.length_s, one.truth_s) == (
            pytest.approx(length_s) if length_s else None, tuple(pytest.approx(span) for span in spans),
        )  # fmt: skip


def test_the_truth_of_a_prepared_segment_is_in_seconds_of_its_own_clock():
    def segment(name, truth, has_ppg=True):
        return SimpleNamespace(
            recording_id=name, person_id=name, meta={}, truth=truth, has_ppg=has_ppg, n_frames=250
        )

    segments = (segment("a", ((0, 100), (125, 250))), segment("b", None), segment("c", None, False))
    dataset = SimpleNamespace(segments=segments, fps=25.0, data_dir="there", left_out={"d": "gone"})
    found = listing.of_prepared(dataset)
    assert [one.truth_s for one in found.segments] == [((0, 4), (5, 10)), ((0, 10),), ()]
    assert {one.length_s for one in found.segments} == {10} and found.left_out == {"d": "gone"}


@pytest.mark.parametrize(
    ("source", "begun", "asked"), [("before", False, True), ("before", True, False), ("", False, False)]
)
def test_what_a_run_goes_on_from_is_checked_before_it_begins(source, begun, asked, monkeypatch, tmp_path):
    """By the people that the split chooses; a run that has begun goes on from itself."""
    told = []
    known = listed(*(entry(name, 9.0, (0.0, 9.0)) for name in "abc"))
    monkeypatch.setattr(plan, "_list", lambda config: (None, known, []))
    monkeypatch.setattr(plan, "refuse_another", lambda config, workdir: told.append(workdir.name) or begun)
    monkeypatch.setattr(plan, "init_from", lambda config, there, step: told.append((config, there)))
    config = experiment(
        f"init_from={source}", "data.split.kind=folds", "data.split.folds=3", "data.split.fold=1",
        "evaluation.window_s=5",
    )  # fmt: skip
    plan.check(config, tmp_path / "run")
    assert told[0] == "run" and len(told) == 1 + asked
    for chosen, there in told[1:]:
        assert there is known and len(chosen.data.test_people) == 1 and len(chosen.data.train_people) == 2
        assert set(chosen.data.test_people) | set(chosen.data.train_people) == set("abc")

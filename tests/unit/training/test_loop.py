"""Whole runs: reproducible, resumable after a kill, tested on people never seen, honest about bad input."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_run

from sspd_jax import main
from sspd_jax.cli import evaluate as cli_evaluate
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.recording import Ppg, Recording
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import evaluate
from sspd_jax.experiments.run import train_and_evaluate
from sspd_jax.runtime import metrics_log, preemption
from sspd_jax.simulation import sample_video
from sspd_jax.training import config as experiments
from sspd_jax.training import loop, monitor, setup, sharding
from sspd_jax.training.checkpoints import Resumed

ROOT = Path(__file__).parents[3]
SECONDS = 12
TIMES = np.arange(SECONDS * 30) / 30
RATES = {"ann": 60.0, "bob": 84.0, "cleo": 72.0, "dan": 100.0}


def record(person, bpm):
    return Recording(
        recording_id=person,
        person_id=person,
        frames=lambda: zip(TIMES, sample_video.face_frames(TIMES, bpm, 0), strict=True),
        ppg=Ppg(TIMES, sample_video.ppg(TIMES, bpm)),
        file=Path(f"{person}.avi"),
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepared") / "faces"
    prepare([record(*item) for item in RATES.items()], directory, crop_size=68, skin=False, progress=False)
    return directory


@pytest.mark.parametrize(
    ("parallel", "sizes", "processes", "available", "used"),
    [
        ("jit", (12, 6), 1, 8, 6),
        ("jit", (12, 6), 1, 16, 12),
        ("jit", (7,), 1, 4, 1),
        ("jit", (12, 6), 2, 4, 3),  # six parts
        ("jit", (2, 1), 4, 8, 1),  # two parts, each computed by two processes
        ("jit", (2, 1), 1, 8, 2),
        ("pmap", (12, 6), 1, 8, 6),
        ("pmap", (12, 2), 1, 8, 2),
    ],
)
def test_as_many_devices_are_used_as_share_a_batch_equally(parallel, sizes, processes, available, used):
    assert sharding.devices_to_use(parallel, sizes, processes, available) == used


def small(data_dir, *overrides):
    """A run of four steps, an epoch each."""
    config = experiments.load(
        str(ROOT / "configs" / "ubfc.py") + ":released,smoke",
        [
            "epochs=4",
            "log_every=1",
            "compilation_cache=False",
            f"data.data_dir={data_dir}",
            "data.train_people=('ann', 'bob')",
            "data.test_people=('cleo', 'dan')",
            *(f"{name}={value}" for name, value in small_run.NETWORK.items()),
            *overrides,
        ],
    )
    experiments.validate(config)
    return config


@pytest.fixture(scope="module")
def finished(data_dir, kept_programs, tmp_path_factory):
    """An undisturbed run."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    config = small(data_dir)
    return config, workdir, train_and_evaluate(config, workdir, progress=False)


def untimed(workdir):
    rows = metrics_log.read_metrics(workdir)
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def final_state(workdir, config):
    """The leaves of the last checkpoint."""
    import jax

    from sspd_jax.training.checkpoints import checkpoints, restore

    step_config = experiments.method(config, 4)
    with checkpoints(loop.epath.Path(workdir), 3) as manager:
        return jax.tree.leaves(restore(manager, step_config, config.seed))


def starts(workdir, data_dir, said, compiled, *, largest_file=None):
    """Start the run of `small` in a process of its own."""
    command = [
        *(sys.executable, "-m", "sspd_jax.main", f"--config={ROOT}/configs/ubfc.py:released,smoke"),
        *(f"--workdir={workdir}", "--no_progress", "--config.epochs=4", "--config.log_every=1"),
        f"--config.data.data_dir={data_dir}",
        "--config.data.train_people=('ann', 'bob')",
        "--config.data.test_people=('cleo', 'dan')",
        *(f"--config.{name}={value}" for name, value in small_run.NETWORK.items()),
    ]

    if largest_file is not None:
        command = ["bash", "-c", f'ulimit -f {largest_file // 1024} && exec "$@"', "bash", *command]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(finished):
    _, workdir, result = finished
    rows = untimed(workdir)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        terms = sum(value for name, value in row.items() if name.startswith("terms/"))
        assert row["loss"] == pytest.approx(terms, rel=1e-5)
        assert 0 <= row["health/concentration"] <= 1
    assert rows[0]["target_momentum"] == pytest.approx(0.9)
    assert json.loads((workdir / "config.json").read_text())["epochs"] == 4
    assert list((workdir / "tensorboard").glob("events*"))
    assert json.loads((workdir / "report" / "scores.json").read_text()) == json.loads(json.dumps(result))
    assert result["people"] == ["cleo", "dan"]


@pytest.mark.slow
def test_the_report_is_one_page_with_its_protocol(finished):
    _, workdir, _ = finished
    page = (workdir / "report" / "index.html").read_text()
    assert "never saw" in page and "target network" in page and "10 s" in page
    assert page.count("data:image/png;base64,") == 8
    assert 'src="http' not in page and "Who was tested on" in page


@pytest.mark.slow
def test_faces_can_be_left_out(finished, data_dir):
    config, workdir, result = finished
    dataset = open_prepared(data_dir)
    (again,) = evaluate.evaluate_run(config, dataset, workdir, faces=False).values()
    assert again == result
    assert "Who was tested on" not in (workdir / "report" / "index.html").read_text()


@pytest.mark.slow
def test_evaluation_compares_every_method_on_the_same_windows(finished):
    _, workdir, result = finished
    names = ["online", "target", "untrained", "chrom", "green", "pos"]
    assert sorted(result["scores"]["window"]) == sorted(names)
    lines = (workdir / "report" / "windows.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(names) * 2  # two people, a window and the whole video each
    truth = {line.split(",")[1]: float(line.split(",")[6]) for line in lines[1:]}
    assert truth == {"cleo": pytest.approx(72, abs=0.5), "dan": pytest.approx(100, abs=0.5)}
    for method in ("green", "pos"):
        assert result["scores"]["window"][method]["MAE"][0] < 1.5


@pytest.mark.slow
def test_other_protocols_land_beside_the_runs_own(finished, capsys):
    _, workdir, result = finished
    report = workdir / "report"
    before = (report / "scores.json").read_text()
    assert (
        cli_evaluate.main(
            [f"--workdir={workdir}", "--protocol=toolbox", "--methods=pos,lgi", "--no_confidence"]
        )
        == 0
    )
    assert "0.6–3.3 Hz" in capsys.readouterr().out
    other = json.loads((report / "toolbox" / "scores.json").read_text())
    assert other["settings"]["protocol"] == "toolbox" and "lgi" in other["scores"]["video"]
    assert other["coverage"] is None and result["coverage"] is not None
    assert (report / "scores.json").read_text() == before


@pytest.mark.slow
def test_any_checkpoint_can_be_tested_on_people_it_did_not_learn_from(finished, data_dir, tmp_path, capsys):
    _, workdir, result = finished
    network = f"--checkpoint={workdir / 'network' / 'target'}"
    output = tmp_path / "out"
    arguments = [network, f"--data={data_dir}", f"--output={output}"]
    assert cli_evaluate.main(arguments) == 2
    assert "was trained on ann, bob" in (said := capsys.readouterr().err) and "--people=cleo,dan" in said
    assert cli_evaluate.main([*arguments, "--people=cleo,bob"]) == 2
    assert not output.exists()
    assert cli_evaluate.main([*arguments, "--people=cleo,dan"]) == 0
    mine = json.loads((output / "scores.json").read_text())
    assert mine["scores"]["window"]["network"] == result["scores"]["window"]["target"]
    assert "Nobody here was learned from" in (output / "index.html").read_text()


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(finished, data_dir):
    config, workdir, result = finished
    before = final_state(workdir, config)
    began = time.perf_counter()
    assert train_and_evaluate(config, workdir, progress=False) == result
    assert time.perf_counter() - began < 60
    for old, new in zip(before, final_state(workdir, config), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(untimed(workdir)) == 4


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(data_dir, compiled, tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    with (tmp_path / "said").open("w") as said:
        assert starts(undisturbed, data_dir, said, compiled).wait(500) == 0, (tmp_path / "said").read_text()
        process = starts(killed, data_dir, said, compiled)
        deadline = time.monotonic() + 500
        while not list((killed / "checkpoints").glob("2*/commit_success.txt")):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "report").exists()
        assert starts(killed, data_dir, said, compiled).wait(500) == 0, (tmp_path / "said").read_text()

    assert untimed(killed) == untimed(undisturbed)
    config = small(data_dir)
    for mine, other in zip(final_state(killed, config), final_state(undisturbed, config), strict=True):
        np.testing.assert_array_equal(mine, other)
    scores = [(run / "report" / "scores.json").read_text() for run in (killed, undisturbed)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(finished, data_dir, compiled, tmp_path):
    _, undisturbed, _ = finished
    workdir, text = tmp_path / "run", tmp_path / "said"
    shutil.copytree(undisturbed, workdir)
    for name in ("report", "network", "checkpoints/3", "checkpoints/4"):
        shutil.rmtree(workdir / name)  # as if it had been stopped after step 2
    with text.open("w") as said:
        assert starts(workdir, data_dir, said, compiled, largest_file=20_000).wait(500) == 1
    (line,) = [line for line in text.read_text().splitlines() if not line.startswith("note:")]
    assert line == (
        f"error: {workdir / 'checkpoints'}: cannot be written (file too large); "
        "make room and run again: what is finished stays"
    )
    assert not (workdir / "report").exists()
    with text.open("w") as said:
        assert starts(workdir, data_dir, said, compiled).wait(500) == 0, text.read_text()
    rows = untimed(workdir)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    # Not equal to the last digit: these tests compute on eight devices, the process on one.
    assert rows[-1]["loss"] == pytest.approx(untimed(undisturbed)[-1]["loss"], rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that nobody may write to")
def test_a_read_only_work_directory_is_said_before_training(data_dir):
    with pytest.raises(
        UserError, match=r"/sys/kernel/run: cannot be written \(.*\); choose another --workdir"
    ):
        train_and_evaluate(small(data_dir), "/sys/kernel/run", progress=False)


@pytest.mark.slow
def test_a_work_directory_of_another_experiment_is_refused(finished, data_dir):
    _, workdir, _ = finished
    with pytest.raises(ConfigError, match=r"holds an experiment with seed = 0, not 1.*--workdir"):
        train_and_evaluate(small(data_dir, "seed=1"), workdir, progress=False)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(data_dir, tmp_path):
    config = small(data_dir, "optimizer.learning_rate=1e30", "epochs=3")
    with pytest.raises(UserError, match=r"stopped being finite before step \d.*learning_rate") as caught:
        train_and_evaluate(config, tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "report").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_its_steps_alone(finished, data_dir, tmp_path, capsys):
    config, undisturbed, _ = finished
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    shutil.rmtree(workdir / "network")
    for file in (workdir / "checkpoints" / "4" / "state").rglob("manifest.ocdbt"):
        file.write_bytes(b"garbage")
    loop.train(config, open_prepared(data_dir), loop.epath.Path(workdir), progress=False)
    assert "note: the checkpoint of step 4 is damaged" in capsys.readouterr().err
    assert untimed(workdir) == untimed(undisturbed)
    for old, new in zip(final_state(undisturbed, config), final_state(workdir, config), strict=True):
        np.testing.assert_array_equal(old, new)


def test_missing_data_is_said(tmp_path, capsys):
    arguments = [
        f"--config={ROOT}/configs/ubfc.py:smoke",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={tmp_path / 'nowhere'}",
    ]
    assert main.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'nowhere'}") and "sspd_jax prepare" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config=configs/nothing.py"], "does not exist"),
        (["--config=configs/ubfc.py:smoke", "--config.seeed=1"], "seed"),
        (["--config=configs/ubfc.py:smoke", "--config.batch_size=0"], "batch_size"),
        (["--config=configs/ubfc.py:smoke", "--surprise"], "--surprise"),
    ],
)
def test_a_wrong_configuration_ends_with_2_and_leaves_nothing(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main.main([*arguments, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_evaluate_says_what_is_no_run(tmp_path, capsys):
    assert cli_evaluate.main([f"--workdir={tmp_path}"]) == 1
    assert "no work directory of a run" in capsys.readouterr().err


@pytest.mark.parametrize("on_devices", [True, False])
@pytest.mark.parametrize(("people", "alone"), [(("ann", "ann"), True), (("ann", "bob"), False)])
def test_a_run_steps_on_what_it_holds_and_knows_whether_it_sees_one_person(
    on_devices, people, alone, monkeypatch
):
    segments = [SimpleNamespace(person_id=name) for name in people]
    dataset = SimpleNamespace(segments=segments)
    choice = SimpleNamespace(segments=[[0], [1]], left_out=("short",))
    meshes = {2: SimpleNamespace(devices=np.array(["device"]), shape={"data": 1}), 1: "mesh of one"}
    made, told, spread = [], {}, []
    frames = SimpleNamespace(frames="all frames", starts=lambda segment, start: ("cut at", segment, start))

    def compile_step(step_config, mesh, clip_frames):
        made.append((mesh, clip_frames))
        return f"step on {len(made)}"

    def clip_batches(*args, **options):
        told.update(options)
        return range(6)

    monkeypatch.setattr(setup.processes, "require_whole", lambda: None)
    monkeypatch.setattr(setup.input_pipeline, "choose", lambda *_: choice)
    monkeypatch.setattr(setup.input_pipeline, "epoch_sizes", lambda *_: (2, 1))
    monkeypatch.setattr(setup.sharding, "lay_out", lambda *_: meshes)
    monkeypatch.setattr(setup.sharding, "part_of_process", lambda mesh, size: slice(0, size))
    monkeypatch.setattr(setup.sharding, "spread_clips", lambda *args: spread.append(args) or "spread")
    monkeypatch.setattr(setup, "_frames_on_devices", lambda *_: frames if on_devices else None)
    monkeypatch.setattr(setup.input_pipeline, "clip_batches", clip_batches)
    monkeypatch.setattr(setup.compiled, "STEP_COMPILERS", {"jit": compile_step})
    monkeypatch.setattr(setup, "_idle", lambda meshes: ("idle",))
    config = experiments.load("ubfc", ["clip_frames=128", "data.train_people=('ann',)"])
    found, epoch_steps = setup.set_up(config, dataset)
    assert found.one_person == alone and found.notes == ("short", "idle") and epoch_steps == 2
    assert made == [(mesh, 128 if on_devices else None) for mesh in meshes.values()]
    assert found.steps == {2: "step on 1", 1: "step on 2"}
    assert told["read"] == (not on_devices) and told["parts"] == {2: slice(0, 2), 1: slice(0, 1)}
    drawn = {"segment": "s", "start": [7], "clips": "clips"}
    if on_devices:
        assert found.to_devices(drawn) == {"frames": "all frames", "starts": ("cut at", "s", [7])}
    else:
        assert found.to_devices(drawn) == {"clips": "spread"} and spread == [("clips", "mesh of one", 1)]


# --- the loop without a network ---------------------------------------------------------------------


@pytest.fixture
def of_seven(monkeypatch):
    """A run of seven steps, epochs of three of which the last is smaller; it was stopped after the first."""
    notes = SimpleNamespace(said=[], stages=[], written=[], saved=[], stepped=[], counted=[], losses={})

    class Stream:
        def __init__(self, batches, first):
            assert batches == "batches"
            self.next = first

        def __next__(self):
            number, self.next = self.next, self.next + 1
            return {"start": [0] * (2, 2, 1)[number % 3], "number": number}

        def close(self):
            notes.closed = self.next

    def step_on(size):
        def step(state, batch):
            notes.stepped.append((size, batch))
            taken = state.step + 1
            row = {"loss": notes.losses.get(taken, float(taken)), "health/score": taken / 10}
            return SimpleNamespace(step=taken), {k: np.float32(v) for k, v in row.items()}

        return step

    monkeypatch.setattr(loop.input_pipeline, "prefetch", Stream)
    monkeypatch.setattr(loop.compilation_cache, "sign", lambda: notes.stages.append("signed"))
    monkeypatch.setattr(loop, "finish", lambda manager: notes.saved.append("on disk"))
    monkeypatch.setattr(loop.diagnostics, "collapse_warning", lambda *_, **__: None)
    monkeypatch.setattr(
        loop, "save", lambda manager, taken, state, *rest: notes.saved.append((taken, state.step, *rest))
    )
    log = SimpleNamespace(
        say=notes.said.append, stage=notes.stages.append, advance=lambda: notes.counted.append(1),
        write=lambda step, values, epoch: notes.written.append((step, values["loss"], epoch)),
    )  # fmt: skip
    made = SimpleNamespace(
        total_steps=7, batches="batches", probe=None, one_person=False, steps={2: step_on(2), 1: step_on(1)},
        to_devices=lambda drawn: drawn["number"],
    )  # fmt: skip
    config = experiments.load("ubfc", ["log_every=2", "checkpoint.every_steps=5"])
    manager = SimpleNamespace(latest_step=lambda: 3)
    notes.run = loop.Run(config, made, 3, manager, monitor.RunMetrics(), log, None)
    notes.start = SimpleNamespace(step=1)
    return notes


def row(taken):
    return {"loss": taken, "health/score": pytest.approx(taken / 10)}


def test_each_step_is_taken_once_and_what_is_due_after_it_is_done(of_seven):
    state = loop._take_steps(of_seven.run, of_seven.start)
    assert state.step == 7 and len(of_seven.counted) == 6 and of_seven.closed == 7
    assert of_seven.stepped == [(2, 1), (1, 2), (2, 3), (2, 4), (1, 5), (2, 6)]  # size, number of the batch
    two, one = ([f"compiling for {clips}, once", "signed", ""] for clips in ("2 clips", "1 clip"))
    assert of_seven.stages == [*two, *one]  # a batch of a size that was seen is not compiled again
    # Lines are means since the last one, even where an epoch ends between.
    assert of_seven.written == [(2, 2, 1), (3, 3, 1), (4, 4, 2), (6, 5.5, 2)]
    assert of_seven.saved == [
        (3, 3, {"score": pytest.approx(0.25)}, {"line": [], "epoch": [], "trust": []}),
        (5, 5, {}, {"line": [row(5)], "epoch": [row(4)], "trust": []}),
        (6, 6, {"score": pytest.approx(0.5)}, {"line": [], "epoch": [], "trust": []}),
        (7, 7, {}),
    ]


@pytest.mark.parametrize(("at", "stops"), [(4, True), (7, False)])
def test_a_run_whose_machine_is_taken_away_saves_its_step_and_stops(of_seven, at, stops):
    run = of_seven.run._replace(watch=SimpleNamespace(reached=lambda taken: taken == at))
    if stops:
        with pytest.raises(preemption.Stopped, match="after step 4 of 7"):
            loop._take_steps(run, of_seven.start)
        assert of_seven.saved[1:] == [
            (4, 4, {}, {"line": [], "epoch": [row(4)], "trust": []}), "on disk"
        ]  # fmt: skip
        assert of_seven.closed == 4
    else:  # there is nothing left to stop
        assert loop._take_steps(run, of_seven.start).step == 7 and "on disk" not in of_seven.saved


def test_a_loss_that_is_not_finite_is_said_before_its_step_is_saved(of_seven):
    of_seven.losses[5] = float("nan")
    with pytest.raises(UserError, match=r"before step 5 \(loss\); the last good checkpoint is of step 3"):
        loop._take_steps(of_seven.run, of_seven.start)
    assert [one if one == "on disk" else one[0] for one in of_seven.saved] == [3, "on disk"]
    of_seven.run.manager.latest_step = lambda: None
    with pytest.raises(UserError, match="is of step 0"):
        loop._require_finite(of_seven.run, 5)


@pytest.mark.parametrize("patience", [0, 2])
def test_a_training_goes_on_from_what_was_measured_and_exports_what_is_kept(patience, monkeypatch, tmp_path):
    config = experiments.load("ubfc", ["health.clips=2", f"health.patience={patience}"])
    made = SimpleNamespace(notes=("a device is idle",), total_steps=9)
    said, runs, exported, asked = [], [], [], []

    @contextlib.contextmanager
    def opened(workdir, keep):
        yield "manager"

    class Log(contextlib.nullcontext):
        say = staticmethod(said.append)

    def taken(run, state):
        runs.append((run, state.step))
        return SimpleNamespace(step=9)

    before = Resumed(SimpleNamespace(step=4), {"trust": [0.5], "line": ["a row"]}, ("step 5 is damaged",))
    monkeypatch.setattr(loop, "set_up", lambda config, dataset: (made, 3))
    monkeypatch.setattr(loop, "checkpoints", opened)
    monkeypatch.setattr(loop, "_first_state", lambda *args: asked.append(args) or before)
    monkeypatch.setattr(loop.metrics_log, "RunLog", lambda *args, **how: asked.append((args, how)) or Log())
    monkeypatch.setattr(loop, "_take_steps", taken)
    monkeypatch.setattr(loop, "_most_trusted", lambda run: SimpleNamespace(step=6))
    monkeypatch.setattr(loop, "export_networks", lambda config, state, workdir: exported.append(state.step))
    state = loop.train(config, "dataset", tmp_path, progress=False, watch="watch")
    ((run, first),) = runs
    assert (run.setup, run.epoch_steps, run.manager, run.watch, first) == (made, 3, "manager", "watch", 4)
    assert run.metrics.table() == {"trust": [0.5], "line": ["a row"], "epoch": []}
    assert asked[0] == (config, "dataset", made, "manager", tmp_path)
    assert asked[1] == ((tmp_path,), {"first_step": 4, "total_steps": 9, "progress": False})
    assert said == ["note: step 5 is damaged", "note: a device is idle"]
    assert exported == [state.step] == [6 if patience else 9]


def test_only_the_first_process_writes_a_log(monkeypatch, tmp_path):
    monkeypatch.setattr(loop.distributed, "is_first", lambda: False)
    log = loop._open_log(tmp_path, 0, SimpleNamespace(total_steps=1), True)
    assert isinstance(log, metrics_log.Silence) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("begun", [True, False])
def test_what_another_run_learned_is_noted_once_and_a_state_lies_on_the_devices(begun, monkeypatch, tmp_path):
    config = experiments.load("ubfc", ["init_from=elsewhere", "seed=4"])
    made = SimpleNamespace(step_config="step", mesh="mesh")
    manager = SimpleNamespace(latest_step=lambda: 0 if begun else None)  # 0: stopped before the first step
    before = [{"train_people": ["zoe"]}]
    found = Resumed("resumed", {"trust": [0.5]}, ("damaged",))
    monkeypatch.setattr(loop, "init_from", lambda *args: (f"from {args[1:]}", before))
    monkeypatch.setattr(loop, "resume", lambda *args: found._replace(state=args))
    monkeypatch.setattr(loop.sharding, "replicated", lambda mesh: f"whole on the {mesh}")
    monkeypatch.setattr(loop.sharding, "place", lambda state, mesh: (state, mesh))
    first = loop._first_state(config, "dataset", made, manager, loop.epath.Path(tmp_path))
    path = tmp_path / "learned_before.json"
    assert path.exists() != begun
    if begun:
        assert first == found._replace(state=((manager, "step", 4, "whole on the mesh"), "mesh"))
    else:
        assert first == Resumed(("from ('dataset', 'step')", "mesh"), {}, ())
        assert json.loads(path.read_text()) == before


# --- where things lie -------------------------------------------------------------------------------


@pytest.mark.parametrize(("fits", "all_fit"), [(True, True), (True, False), (False, False)])
def test_frames_lie_on_the_devices_where_all_processes_have_room(fits, all_fit, monkeypatch):
    config = experiments.load("ubfc", ["data.on_device=auto"])
    mesh = SimpleNamespace(devices=np.array([["a", "b"]]))
    asked = []
    monkeypatch.setattr(setup.device_cache, "n_bytes", lambda *args: asked.append(args) or 17)
    monkeypatch.setattr(setup.device_cache, "should_cache", lambda *args: asked.append(args) or fits)
    monkeypatch.setattr(setup.device_cache, "load", lambda *args: args)
    monkeypatch.setattr(setup.distributed, "everywhere", lambda holds: asked.append(holds) or all_fit)
    monkeypatch.setattr(setup.sharding, "frame_sharding", lambda mesh: "cut along time")
    found = setup._frames_on_devices(config, "dataset", "choice", mesh)
    assert found == (("dataset", "choice", "cut along time") if all_fit else None)
    assert asked == [("dataset", "choice"), ("auto", 17, ["a", "b"]), fits]


def test_devices_that_share_no_batch_are_said():
    total = sharding.jax.device_count()
    meshes = {12: SimpleNamespace(shape={"data": total, "copy": 1}), 5: SimpleNamespace(shape={"data": 1})}
    assert list(setup._idle(meshes)) == [f"a step on 5 clips is as fast on these {total} devices as on 1"]
    made = setup.Setup("step", meshes, {}, range(21), None, None, False, ())
    assert made.mesh is meshes[12] and made.total_steps == 21


def test_every_process_gives_as_many_of_its_devices_in_their_order(monkeypatch):
    """Process 1 has two devices, process 0 three: two of each, for six clips and for four."""
    places = ((1, 7), (0, 2), (0, 0), (1, 3), (0, 1))
    devices = [SimpleNamespace(process_index=process, id=number) for process, number in places]
    asked = []
    monkeypatch.setattr(sharding.jax, "devices", lambda: devices)
    monkeypatch.setattr(
        sharding, "data_mesh", lambda used, size: ([(one.process_index, one.id) for one in used], size)
    )
    monkeypatch.setattr(sharding, "devices_to_use", lambda *args: asked.append(args) or 2)
    used = [(0, 0), (0, 1), (1, 3), (1, 7)]
    assert sharding.lay_out("jit", (6, 4)) == {6: (used, 6), 4: (used, 4)}
    assert asked == [("jit", (6, 4), 2, 2)]


def test_a_state_is_laid_where_it_does_not_lie_yet(monkeypatch):
    """On devices of several processes, each gives its part of what it has whole."""
    whole = SimpleNamespace(is_fully_addressable=False)
    there, elsewhere = SimpleNamespace(ndim=2), np.arange(6.0).reshape(2, 3).view(WithSharding)
    there.sharding = SimpleNamespace(is_equivalent_to=lambda other, ndim: other is whole and ndim == 2)
    monkeypatch.setattr(sharding, "replicated", lambda mesh: whole)
    monkeypatch.setattr(
        sharding.jax, "make_array_from_callback", lambda shape, where, part: (shape, where, part(0).tolist())
    )
    placed = sharding.place({"a": there, "b": elsewhere}, "mesh")
    assert placed == {"a": there, "b": ((2, 3), whole, [0, 1, 2])}


class WithSharding(np.ndarray):
    """An array that lies somewhere else."""

    sharding = SimpleNamespace(is_equivalent_to=lambda *_: False)

"""Every key of a configuration reaches what it configures: changed alone, that changes and nothing else."""

import dataclasses
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scored_people import segment

from sspd_jax import main
from sspd_jax.datasets import prepare, splits
from sspd_jax.evaluation import evaluate
from sspd_jax.experiments import run as experiment_run
from sspd_jax.method import param_labels
from sspd_jax.runtime import distributed
from sspd_jax.training import checkpoints, loop, monitor, setup
from sspd_jax.training import config as experiments

UBFC = str(Path(__file__).parents[3] / "configs" / "ubfc.py")

OTHER = {  # values that differ from the default's and are allowed beside the others of the default
    "seed": 5,
    "fps": 25.0,
    "network.input_size": 106,
    "network.stages": ((4, 4), (4, 4), (4, 4)),
    "network.features": 12,
    "network.predictor_width": 6,
    "network.ts_kernels": (7, 5, 3),
    "network.ts_strides": (2, 1, 1),
    "network.ts_heads": 4,
    "network.ts_attention_scale": "keys",
    "network.ts_projection": "tanh",
    "network.ts_residual": "input",
    "network.input_transform": "steady",
    "network.predictor_isolated": False,
    "network.conv": "direct",
    "network.dtype": "bfloat16",
    "network.rematerialise": False,
    "views.online.crop": "whole",
    "views.online.flip.horizontal": 0.1,
    "views.online.flip.vertical": 0.2,
    "views.online.mask.unit": "pixel",
    "views.online.mask.keep": 0.3,
    "views.target.crop": "random",
    "views.target.flip.horizontal": 0.4,
    "views.target.flip.vertical": 0.6,
    "views.target.mask.unit": "frame",
    "views.target.mask.keep": 0.8,
    "terms.wave_pearson.weight": 2.0,
    "terms.wave_power_mse.weight": 3.0,
    "terms.similarity_mse.weight": 4.0,
    "terms.similarity_deviation.weight": 5.0,
    "terms.similarity_deviation.weight_by_length": True,
    "terms.similarity_deviation.ddof": 1,
    "terms.similarity_inverse_snr.weight": 6.0,
    "time_stretch.min_speed": 0.9,
    "optimizer.learning_rate": 0.02,
    "optimizer.b1": 0.5,
    "optimizer.b2": 0.9,
    "optimizer.eps": 0.5,
    "optimizer.frozen": ("ts",),
    "target.momentum": 0.6,
}
RUN_KEYS = {  # what a method is not made of; `test_run_keys_…` below
    *(
        "init_from",
        "clip_frames",
        "crop_size",
        "face_crop",
        "batch_size",
        "epochs",
        "log_every",
        "parallel",
        "distributed",
    ),
    *("compilation_cache", "health.clips", "health.patience", "checkpoint.keep", "checkpoint.every_steps"),
    *("data.name", "data.source", "data.data_dir", "data.keep_going", "data.workers", "data.on_device"),
    *("data.face.detector", "data.face.model", "data.face.follow_every_s"),
    *("data.split.kind", "data.split.name", "data.split.folds", "data.split.fold", "data.split.seed"),
    *("data.train_people", "data.test_people", "data.skin", "evaluation.region"),
    *("evaluation.reader", "evaluation.hr_estimator", "evaluation.window_s", "evaluation.stride_s"),
}
STEPS = 4


def changed(**values):
    """The published configuration with other values; dots in a key are two underscores."""
    config = experiments.load(UBFC)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in values.items()})
    return config


def leaves(table, prefix=""):
    for key, value in table.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_there_is_no_key_that_is_not_looked_at_here():
    assert set(leaves(experiments.load(UBFC))) == set(OTHER) | RUN_KEYS
    assert not set(OTHER) & RUN_KEYS


# --- the method -------------------------------------------------------------------------------------


GRADIENTS = (np.array([0.5, -1.0]), np.array([2.0, 0.1]), np.array([-0.3, 0.7]))


def stepped(optimizer):
    """Parameters and target after three steps from 1, in each part of the network: [part, 2, 2]."""
    params = {label: {"w": jnp.ones(2)} for label in param_labels.LABELS}
    state = optimizer.init(params)
    for gradient in GRADIENTS:
        gradients = {label: {"w": jnp.asarray(gradient, jnp.float32)} for label in params}
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    target = optax.tree.get(state, "target")
    return np.array([[params[label]["w"], target[label]["w"]] for label in param_labels.LABELS])


def adam(*, learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, frozen=(), momentum=0.9):
    """The same by the published formulas, in float64."""
    parts = []
    for label in param_labels.LABELS:
        online, target = np.ones(2), np.ones(2)
        first, second = np.zeros(2), np.zeros(2)
        for s, gradient in enumerate(GRADIENTS):
            first = b1 * first + (1 - b1) * gradient
            second = b2 * second + (1 - b2) * gradient**2
            if label not in frozen:
                right = first / (1 - b1 ** (s + 1)), second / (1 - b2 ** (s + 1))
                online = online - learning_rate * right[0] / (np.sqrt(right[1]) + eps)
            m = 1 + 0.5 * (momentum - 1) * (1 + np.cos(np.pi * s / STEPS))
            target = m * target + (1 - m) * online
        parts.append([online, target])
    return np.array(parts)


@pytest.fixture(scope="module")
def published():
    return experiments.method(experiments.load(UBFC), STEPS)


PARTS = ("network", "local_view", "global_view", "terms", "fps", "seed", "min_speed")


def with_key(method, key, value):
    """What the static part of a step has to be: part → value, where one key has another value."""
    expected = {part: getattr(method, part) for part in PARTS}
    first, *rest = key.split(".")
    if first == "network":
        expected["network"] = dataclasses.replace(method.network, **{rest[0]: value})
    elif first == "views":
        part = {"online": "local_view", "target": "global_view"}[rest[0]]
        expected[part] = dataclasses.replace(expected[part], **{"_".join(rest[1:]): value})
    elif first == "terms":
        name, setting = rest
        expected["terms"] = {**method.terms, name: {**method.terms[name], setting: value}}
    elif key in ("fps", "seed", "time_stretch.min_speed"):
        expected[rest[-1] if rest else first] = value
    return expected


@pytest.mark.parametrize("key", OTHER)
def test_a_methods_key_changes_what_it_is_called_after_and_nothing_else(key, published):
    value = OTHER[key]
    config = changed(**{key: value})
    method = experiments.method(config, STEPS)
    assert {part: getattr(method, part) for part in PARTS} == with_key(published, key, value)
    settings = {}
    if key.startswith(("optimizer.", "target.")):
        settings[key.partition(".")[2]] = value
    np.testing.assert_allclose(stepped(method.optimizer), adam(**settings), rtol=0, atol=2e-6)
    m = settings.get("momentum", 0.9)
    expected = [1 + 0.5 * (m - 1) * (1 + np.cos(np.pi * s / STEPS)) for s in range(STEPS)]
    np.testing.assert_allclose([method.momentum(s) for s in range(STEPS)], expected, rtol=1e-6)


def test_each_optimizers_key_makes_another_step():
    """So that an argument that is not passed on cannot hide behind the tolerance."""
    plain = adam()
    for key in (key for key in OTHER if key.startswith(("optimizer.", "target."))):
        other = adam(**{key.partition(".")[2]: OTHER[key]})
        assert np.abs(other - plain).max() > 1e-5, key


# --- a run ------------------------------------------------------------------------------------------


class Reached(Exception):
    """What was looked for is known; the rest need not run."""


@pytest.fixture
def told(monkeypatch):
    """Set a function to note what it is called with: name → (args, kwargs)."""
    notes = {}

    def note(module, name, returns=None, ends=False):
        def noted(*args, **kwargs):
            notes[name] = (args, kwargs)
            if ends:
                raise Reached
            return returns

        monkeypatch.setattr(module, name, noted)

    return types.SimpleNamespace(notes=notes, note=note)


@pytest.fixture
def dataset():
    people = ("ann", "bob", "cleo", "dan", "eve", "fay")
    segments = tuple(segment(name) for name in people)
    return types.SimpleNamespace(people=people, segments=segments, data_dir="there", fps=30.0)


def test_run_keys_that_lay_out_the_steps(told, dataset, monkeypatch):
    config = changed(
        clip_frames=200, batch_size=5, epochs=7, seed=3, parallel="pmap", data__on_device="never",
        data__train_people=("ann", "bob"),
    )  # fmt: skip
    chosen = types.SimpleNamespace(segments=[[0], [1]], left_out=())
    mesh = types.SimpleNamespace(devices=np.array(["device"]), shape={"data": 1})
    told.note(setup.input_pipeline, "choose", chosen)
    told.note(setup.input_pipeline, "epoch_sizes", (2,))
    told.note(setup.sharding, "lay_out", {2: mesh})
    told.note(setup.sharding, "part_of_process", slice(0, 2))
    told.note(setup.device_cache, "n_bytes", 1)
    told.note(setup.device_cache, "should_cache", False)
    told.note(setup.input_pipeline, "clip_batches", range(11))
    told.note(setup.processes, "require_whole")
    compiled = {"pmap": lambda *args, **kwargs: "the mapped step", "jit": lambda *args, **kwargs: "another"}
    monkeypatch.setattr(setup.compiled, "STEP_COMPILERS", compiled)
    monkeypatch.setattr(setup, "_idle", lambda meshes: ())
    made, epoch_steps = setup.set_up(config, dataset)
    assert told.notes["choose"][0][1:] == (("ann", "bob"), 200)
    assert told.notes["epoch_sizes"][0] == (2, 5)
    assert told.notes["lay_out"][0] == ("pmap", (2,))
    assert told.notes["should_cache"][0][0] == "never"
    args, batches = told.notes["clip_batches"]
    assert args[1] == ("ann", "bob")
    wanted = {"clip_frames": 200, "batch_size": 5, "seed": 3, "epochs": 7}
    assert {key: batches[key] for key in wanted} == wanted
    assert made.steps == {2: "the mapped step"} and made.probe is None and epoch_steps == 1
    assert float(made.step_config.momentum(11)) == 1  # it rises over all steps
    assert made.step_config.seed == 3


@pytest.mark.parametrize("clips", [1, 3])
def test_run_key_health_clips_is_how_many_are_probed(clips, told, dataset):
    read = []
    dataset.clip = lambda segment, start, length: read.append((start, length)) or np.zeros((length, 2, 2, 3))
    told.note(monitor, "compile_probe", lambda state, seen: len(seen))
    told.note(monitor.sharding, "replicated", jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    choice = types.SimpleNamespace(segments=[[i] for i in range(6)])
    config = changed(health__clips=clips, clip_frames=64)
    probe = monitor.make_probe(config, dataset, choice, "step", "mesh")
    assert probe("state") == clips and read == [(0, 65)] * clips
    assert told.notes["compile_probe"][0][2] == list(dataset.people[:clips])


def running(config, **settings):
    made = types.SimpleNamespace(total_steps=12, batches=(), **settings)
    log = types.SimpleNamespace(say=lambda text: said.append(text))
    said = []
    return loop.Run(config, made, 4, None, monitor.RunMetrics(), log, None), said


def test_run_keys_of_log_and_checkpoints():
    def due(**values):
        run, _ = running(changed(**values))
        every = [loop._due(run, taken) for taken in range(1, 13)]
        return [[i for i, each in enumerate(every, 1) if getattr(each, kind)] for kind in ("logs", "keeps")]

    assert due(log_every=5) == [[4, 5, 8, 10, 12], [4, 8, 12]]
    assert due(log_every=3) == [[3, 4, 6, 8, 9, 12], [4, 8, 12]]
    assert due(log_every=100, checkpoint__every_steps=3) == [[4, 8, 12], [3, 4, 6, 8, 9, 12]]


def test_run_key_checkpoint_keep(told, dataset, tmp_path):
    told.note(loop, "set_up", (None, 1))
    told.note(loop, "checkpoints", ends=True)
    with pytest.raises(Reached):
        loop.train(changed(checkpoint__keep=2), dataset, tmp_path)
    assert told.notes["checkpoints"][0][1] == 2
    policies = []

    class Manager:
        def __init__(self, directory, options, **_):
            policies.extend(options.preservation_policy.policies)
            raise Reached

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Reached):
        patch.setattr(checkpoints.ocp, "CheckpointManager", Manager)
        with checkpoints.checkpoints(loop.epath.Path(tmp_path), 2):
            pass
    assert policies[0].n == 2


@pytest.mark.parametrize(("patience", "stops"), [(0, False), (2, True), (3, False)])
def test_run_key_health_patience(patience, stops, monkeypatch):
    run, said = running(changed(health__clips=2, health__patience=patience))
    run.metrics.trust = [0.1, 0.5, 0.4, 0.5]  # the best one is two epochs back

    class Stream:
        close = staticmethod(lambda: None)

        def __next__(self):
            raise Reached

    monkeypatch.setattr(loop.input_pipeline, "prefetch", lambda batches, first: Stream())
    state = types.SimpleNamespace(step=0)
    if stops:
        assert loop._take_steps(run, state) is state
        assert f"the last {patience} brought no network that is trusted more" in said[0]
    else:
        with pytest.raises(Reached):
            loop._take_steps(run, state)


def test_run_key_init_from(told, dataset, tmp_path):
    made = types.SimpleNamespace(step_config="step", mesh="mesh")
    manager = types.SimpleNamespace(latest_step=lambda: None)
    told.note(loop, "resume", ends=True)
    told.note(loop, "init_from", ends=True)
    told.note(loop.sharding, "replicated")
    for source, name in (("", "resume"), ("elsewhere", "init_from")):
        told.notes.clear()
        config = changed(init_from=source, seed=4)
        with pytest.raises(Reached):
            loop._first_state(config, dataset, made, manager, loop.epath.Path(tmp_path))
        assert set(told.notes) - {"replicated"} == {name}
    manager.latest_step = lambda: 3  # a run that has begun goes on
    with pytest.raises(Reached):
        loop._first_state(config, dataset, made, manager, loop.epath.Path(tmp_path))
    assert told.notes["resume"][0][1:3] == ("step", 4)


def test_run_keys_of_the_recordings(told):
    config = changed(
        fps=25.0, crop_size=140, face_crop="skin", data__skin=False, data__source="raw",
        data__name="pure", data__data_dir="prepared",
        data__keep_going=True, data__workers=3, data__face__detector="yunet", data__face__model="a.onnx",
        data__face__follow_every_s=2.0,
    )  # fmt: skip
    told.note(experiment_run.registry, "read", "recordings")
    told.note(prepare, "prepare")
    experiment_run.prepare_data(config)
    assert told.notes["read"][0] == ("pure", "raw")
    args, options = told.notes["prepare"]
    assert args == ("recordings", "prepared")
    wanted = {
        "name": "pure", "fps": 25.0, "crop_size": 140, "face_crop": "skin", "skin": False,
        "face_detector": "yunet", "face_model": "a.onnx",
        "follow_every_s": 2.0, "keep_going": True, "workers": 3,
    }  # fmt: skip
    assert {key: options[key] for key in wanted} == wanted
    told.notes.clear()
    experiment_run.prepare_data(changed())
    assert not told.notes  # they are prepared already
    told.note(experiment_run, "open_prepared")
    experiment_run.open_data(config)
    assert told.notes["open_prepared"] == (
        ("prepared",),
        {"fps": 25.0, "crop_size": 140, "face_crop": "skin"},
    )


def test_run_keys_of_the_split(dataset):
    def split(**values):
        data = changed(**{f"data__split__{key}": value for key, value in values.items()}).data
        return splits.of_dataset(dataset, data)

    config = changed(data__train_people=("bob",), data__test_people=("eve", "fay"))
    named = splits.of_dataset(dataset, config.data)
    assert (named.train, named.test) == (("bob",), ("eve", "fay"))
    everyone = split(kind="everyone")
    assert (everyone.train, everyone.test) == (dataset.people, ())
    for folds, fold, seed in ((3, 0, 0), (3, 1, 0), (2, 1, 0), (3, 1, 5)):
        dealt = split(kind="folds", folds=folds, fold=fold, seed=seed)
        assert dealt.test == tuple(splits.k_folds(dataset.people, folds, seed)[fold])
        assert set(dealt.train) == set(dataset.people) - set(dealt.test)
    people = ("subject1", "subject38", "subject40")
    ubfc = types.SimpleNamespace(
        people=people, segments=tuple(segment(name) for name in people), data_dir="there"
    )
    config = changed(data__split__kind="published", data__split__name="sspd")
    assert splits.of_dataset(ubfc, config.data).test == ("subject38", "subject40")


def test_run_keys_of_the_evaluation(told, dataset, monkeypatch, tmp_path):
    config = changed(
        evaluation__reader="online", evaluation__hr_estimator="wavelet", evaluation__window_s=8.0,
        evaluation__stride_s=4.0, data__test_people=("dan",), health__clips=2, health__patience=3,
    )  # fmt: skip
    p = evaluate.protocol_of(config)
    assert (p.hr_estimator, p.window_s, p.stride_s) == ("wavelet_peaks", 8.0, 4.0)
    assert evaluate.protocol_of(changed()).hr_estimator == "spectrum"
    monkeypatch.setattr(evaluate.model, "load_model", lambda path: f"network of {path.name}")
    told.note(evaluate, "_untrained", "fresh")
    told.note(evaluate.scoring, "not_read", [])
    told.note(evaluate, "_score_and_write")
    evaluate.evaluate_run(config, dataset, tmp_path)
    (work, folders, page, *_), _ = told.notes["_score_and_write"]
    assert work.people == ("dan",) and work.primary == "online"
    assert page.network == "network of online" and page.keeps_best
    assert list(folders) == [p] and folders[p] == evaluate.epath.Path(tmp_path) / "report"


@pytest.mark.parametrize("cache", [True, False])
def test_run_key_compilation_cache(cache, told, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_run.distributed, "together", lambda name, do, **_: do())
    monkeypatch.setattr(experiment_run.plan, "check", lambda config, workdir: None)
    for name in ("prepare_data", "open_data", "claim_workdir", "require_shared"):
        told.note(experiment_run, name)
    config = changed(compilation_cache=cache)
    told.note(experiment_run, "choose_people", (config, dataset))
    told.note(experiment_run.compile_options, "give_memory_back")
    told.note(experiment_run.compilation_cache, "enable")
    told.note(experiment_run, "train", ends=True)
    with pytest.raises(Reached):
        experiment_run.train_and_evaluate(config, tmp_path)
    assert ("enable" in told.notes) == cache
    assert told.notes["train"][0][:2] == (config, dataset)


def test_run_key_distributed(told, monkeypatch):
    told.note(distributed, "start", ends=True)
    assert main.main([f"--config={UBFC}", "--config.distributed=auto", "--num_processes=3"]) == 1
    args, options = told.notes["start"]
    assert args == ("auto",) and options["count"] == 3

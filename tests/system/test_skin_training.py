"""A network of the skin alone, from recordings to its rate: one that knows what it was shown."""

import dataclasses
import json

import numpy as np
import pytest
import small_run
from prepared_faces import portrait, recording

import sspd_jax
from sspd_jax.checkpoints import export, network
from sspd_jax.cli import evaluate as cli_evaluate
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.experiments import plan
from sspd_jax.experiments import run as experiment_run
from sspd_jax.inference import live, predict
from sspd_jax.inference.model import Stream
from sspd_jax.inference.windows import Settings
from sspd_jax.training import config as experiments
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.skin_traces import SkinRecorder

pytestmark = pytest.mark.slow
OVERRIDES = {
    **small_run.OVERRIDES,
    "face_crop": "skin",
    "epochs": 2,
    "data.split.kind": "people",
    "data.train_people": ("ann", "bob"),
    "data.test_people": ("cleo",),
    "evaluation.window_s": 4.0,
    "compilation_cache": False,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Datasets of the skin and of boxes, and the work directory of a training on the first."""
    folder = tmp_path_factory.mktemp("skin")
    people = [
        recording(name, np.arange(60) / 10, shade=n, seconds=6)
        for n, name in enumerate(("ann", "bob", "cleo"))
    ]
    for face_crop in ("skin", "box"):
        prepare(people, folder / face_crop, fps=10, crop_size=26, face_crop=face_crop, progress=False)
    config = config_of(folder / "skin")
    scores = experiment_run.train_and_evaluate(config, folder / "run", progress=False)
    assert set(scores["scores"]["window"]) >= {"target", "online", "auto"}
    return folder


def config_of(data_dir, **overrides):
    values = {**OVERRIDES, "data.data_dir": data_dir, **overrides}
    path = f"{small_run.ROOT}/configs/ubfc.py:released"
    return experiments.load(path, [f"{key}={value}" for key, value in values.items()])


def test_a_checkpoint_remembers_that_it_saw_the_skin_alone(made, tmp_path):
    assert json.loads((made / "run/config.json").read_text())["face_crop"] == "skin"
    assert sspd_jax.load(made / "run").face_crop == "skin"
    export.export(made / "run", tmp_path / "small", "orbax")
    assert sspd_jax.load(tmp_path / "small").face_crop == "skin"


def test_a_dataset_of_the_other_kind_is_refused(made, tmp_path):
    said = "was prepared with face_crop box, not skin"
    for check in (plan.check, experiment_run.open_data):
        with pytest.raises(UserError, match=said):
            check(config_of(made / "box"))
    with pytest.raises(UserError, match=said):
        experiment_run.train_and_evaluate(config_of(made / "box"), tmp_path / "run", progress=False)
    with pytest.raises(UserError, match="was prepared with face_crop skin, not box"):
        experiment_run.open_data(config_of(made / "skin", face_crop="box"))
    with pytest.raises(ConfigError, match="holds an experiment with face_crop = 'skin', not 'box'"):
        plan.check(config_of(made / "box", face_crop="box"), made / "run")


def test_it_is_tested_on_crops_of_the_skin_and_on_no_others(made, tmp_path, capsys):
    config, *trees = network.load_network(made / "run")
    del config["face_crop"]  # as converted ones, and those of before there was a choice
    network.save_network(tmp_path / "boxes", config, *trees)

    def evaluate(data, name, *arguments):
        people = ("--people=cleo", "--window=4", "--no_faces", f"--output={tmp_path / name}")
        return cli_evaluate.main([f"--data={made / data}", *people, *arguments])

    network_of_skin, network_of_boxes = f"--checkpoint={made / 'run'}", f"--checkpoint={tmp_path / 'boxes'}"
    assert evaluate("skin", "seen", network_of_skin) == 0
    assert "network" in json.loads((tmp_path / "seen/scores.json").read_text())["scores"]["window"]
    capsys.readouterr()
    for data, argument, says in (
        ("box", network_of_skin, "face_crop box and the network reads skin; prepare again with "
         "--face_crop=skin --crop_size=26 into another --data_dir"),
        ("skin", network_of_boxes, "face_crop skin and the network reads box; prepare again"),
        ("skin", "--region=crop", "its crops show the skin alone (face_crop), not a box around the face"),
    ):  # fmt: skip
        assert evaluate(data, "refused", argument) != 0
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert says in said and str(made / data) in said
        assert not (tmp_path / "refused").exists()


def test_it_reads_a_video_by_its_skin(made):
    model = sspd_jax.load(made / "run")
    given, infer = [], model.infer

    def noted(images, fps, start_s):
        images = list(images)
        given.extend(images)
        return infer(images, fps, start_s)

    noting = dataclasses.replace(model)
    object.__setattr__(noting, "infer", noted)
    times_s = np.arange(60) / 10
    prediction = predict.predict_frames(portrait(times_s), 10.0, model=noting, method="sspd")
    dataset = open_prepared(made / "skin")
    np.testing.assert_array_equal(given, dataset.clip(dataset.segments[0], 0, 60))
    assert prediction.checkpoint == model.name
    with pytest.raises(ConfigError, match="reads pictures of the skin alone; leave --region=crop away"):
        predict.predict_frames(portrait(times_s), 10.0, model=model, settings=Settings(region="crop"))
    with pytest.raises(ConfigError, match="reads pictures of the skin alone; leave --region=crop away"):
        live.watch(portrait(times_s), 10.0, model=model, settings=Settings(region="crop"))


@pytest.mark.parametrize("method", ["sspd", "auto"])
def test_a_camera_is_read_by_its_skin(made, method, monkeypatch):
    given, push = [], Stream.push

    def noted(stream, images):
        given.extend(images)
        return push(stream, images)

    times_s = np.arange(100) / 10
    recorder = SkinRecorder(load_networks()[0], look_ahead_s=0, crop_size=26)
    expected = [picture for _, picture in recorder.crops_beside(recorder.watch(portrait(times_s)))]
    settings = Settings(window_s=4.0, min_confidence=0.0)
    model = sspd_jax.load(made / "run")
    updates = live.watch(portrait(times_s), 10.0, model=model, method=method, settings=settings)
    monkeypatch.setattr(Stream, "push", noted)
    *_, last = updates
    assert len(given) > 90
    np.testing.assert_array_equal(given, expected[-len(given) :])
    assert last.window.candidate_bpm is not None and last.window.duration_s == pytest.approx(4, abs=0.15)

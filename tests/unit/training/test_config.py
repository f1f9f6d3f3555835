"""Experiments: every shipped one is valid, and whatever is wrong is said in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest

from sspd_jax.checkpoints.renamed_keys import RENAMED
from sspd_jax.errors import ConfigError
from sspd_jax.method import losses
from sspd_jax.method.settings import network_settings
from sspd_jax.method.views import ViewSettings
from sspd_jax.training import config as experiments
from sspd_jax.training import presets

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.py"))
UBFC = str(Path(__file__).parents[3] / "configs" / "ubfc.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("variants", ["", *experiments.VARIANTS, "released,smoke", "downsampled,smoke"])
def test_every_shipped_config_is_valid(path, variants):
    method = experiments.validate(experiments.load(f"{path}:{variants}"))
    assert set(method.terms) <= set(losses.TERMS)


def test_ubfc_is_the_papers_form_as_published():
    config = experiments.load(UBFC)
    method = experiments.validate(config)
    assert (config.batch_size, config.epochs, config.clip_frames, config.fps) == (12, 30, 300, 30)
    assert config.optimizer.learning_rate == 1e-3
    assert method.terms == {name: dict(settings) for name, settings in presets.PAPER["terms"].items()}
    assert method.terms["similarity_deviation"]["weight"] == 0.04
    assert method.terms["similarity_inverse_snr"]["weight"] == 0.6
    assert method.local_view.mask_unit == "frame"
    assert method.network.ts_heads == 1
    assert method.network.relative_rates == (1, 1, 1)


@pytest.mark.parametrize(
    ("variants", "unit"), [("paper", "frame"), ("released", "pixel"), ("robust", "pixel")]
)
def test_each_form_has_the_views_of_its_description(variants, unit):
    """The table of the method's description, written out: nothing here is read from a preset."""
    method = experiments.validate(experiments.load(f"{UBFC}:{variants}"))
    flips = {"flip_horizontal": 0.5, "flip_vertical": 0.5}
    assert method.local_view == ViewSettings(crop="random", **flips, mask_unit=unit, mask_keep=0.7)
    assert method.global_view == ViewSettings(crop="whole", **flips, mask_unit="none", mask_keep=0.7)


PAPER_TERMS = {
    "wave_pearson": {"weight": 1.0},
    "wave_power_mse": {"weight": 1.0},
    "similarity_mse": {"weight": 1.0},
    "similarity_deviation": {"weight": 0.04, "weight_by_length": False, "ddof": 0},
    "similarity_inverse_snr": {"weight": 0.6},
}
RELEASED_TERMS = {
    "wave_pearson": {"weight": 0.5},
    "wave_amplitude_pearson": {"weight": 0.5},
    "wave_out_of_band": {"weight": 0.5},
    "similarity_mse": {"weight": 0.5},
    "similarity_pearson": {"weight": 0.5},
    "similarity_deviation": {"weight": 0.5, "weight_by_length": True, "ddof": 1},
    "similarity_out_of_band": {"weight": 0.2},
}


def test_each_form_weighs_the_terms_of_its_description():
    for variant, terms in (("paper", PAPER_TERMS), ("released", RELEASED_TERMS), ("robust", RELEASED_TERMS)):
        assert experiments.validate(experiments.load(f"{UBFC}:{variant}")).terms == terms
    network = experiments.validate(experiments.load(UBFC)).network
    assert (network.ts_heads, network.ts_attention_scale) == (1, "channels")
    assert (network.ts_projection, network.ts_residual, network.ts_kernels) == (
        "linear",
        "embedding",
        (9, 7, 5),
    )


def test_ubfc_splits_its_people_as_published():
    data = experiments.load(UBFC).data
    assert (len(data.train_people), len(data.test_people)) == (30, 12)
    assert data.test_people == tuple(f"subject{i}" for i in range(38, 50))
    assert not set(data.train_people) & set(data.test_people)


def test_smoke_is_as_small_as_it_is_said_to_be_and_otherwise_the_experiment():
    whole, smoke = (experiments.load(name).to_dict() for name in ("pure", "pure:smoke"))
    small = {
        "input_size": 58, "stages": ((4, 4), (4, 8)), "features": 16, "predictor_width": 8,
        "ts_kernels": (9, 7, 5),
    }  # fmt: skip
    whole["network"] |= small
    whole |= {"crop_size": 68, "clip_frames": 96, "batch_size": 2, "epochs": 2}
    whole["data"]["data_dir"] += "_smoke"
    assert smoke == whole


def test_a_datasets_experiment_is_the_published_one_on_its_own_recordings():
    config = experiments.for_dataset("cohface", split={"kind": "folds", "fold": 2}, keep_going=True)()
    expected = experiments.default()
    expected.data.update(name="cohface", data_dir="data/cohface", keep_going=True)
    expected.data.split.update(kind="folds", fold=2)
    assert config.to_dict() == expected.to_dict()
    assert experiments.for_dataset("pure", split={})("released").network.ts_heads == 2


@pytest.mark.parametrize(
    "override",
    [
        *(
            "evaluation.window_s=4",
            "evaluation.stride_s=0.1",
            "seed=0",
            "batch_size=1",
            "epochs=1",
            "log_every=1",
        ),
        *("checkpoint.keep=1", "checkpoint.every_steps=0", "data.workers=0", "data.face.follow_every_s=0"),
        *("optimizer.b1=0", "optimizer.b2=0", "target.momentum=0", "target.momentum=1", "fps=6"),
        *("views.online.mask.keep=0.01", "views.target.mask.keep=1", "views.online.flip.vertical=0"),
        *("terms.wave_pearson.weight=0", "time_stretch.min_speed=0.5", "time_stretch.min_speed=1"),
    ],
)
def test_a_value_on_its_bound_is_allowed(override):
    experiments.validate(experiments.load(UBFC, [override]))


def test_what_smoke_prepares_is_in_nobodys_way():
    """Its crops have another size: the experiment itself, run afterwards, would be refused them."""
    whole, smoke = (experiments.load(name) for name in ("pure", "pure:smoke"))
    assert whole.crop_size != smoke.crop_size
    assert (whole.data.data_dir, smoke.data.data_dir) == ("data/pure", "data/pure_smoke")
    assert experiments.load("pure:smoke", ["data.data_dir=here"]).data.data_dir == "here"


def test_released_variant_is_the_released_form():
    method = experiments.validate(experiments.load(f"{UBFC}:released"))
    assert method.local_view.mask_unit == "pixel"
    assert method.network == type(method.network)()  # the defaults are the released sizes
    assert method.network.scale_lengths(300) == (292, 286, 282)
    assert sum(term["weight"] for term in method.terms.values()) == pytest.approx(3.2)


@pytest.mark.parametrize("variants", ["", "released", "downsampled", "smoke"])
def test_published_forms_have_no_addition(variants):
    config = experiments.load(f"{UBFC}:{variants}")
    method = experiments.validate(config)
    assert method.network.predictor_isolated
    assert (config.health.clips, config.health.patience, config.init_from) == (0, 0, "")
    assert method.min_speed == 1


def test_robust_variant_adds_to_the_released_form_and_leaves_nothing_behind():
    config = experiments.load(f"{UBFC}:robust")
    method = experiments.validate(config)
    released = presets.RELEASED["terms"]
    assert {name: method.terms[name] for name in released} == {n: dict(t) for n, t in released.items()}
    assert method.network.input_transform == "steady_chrominance"
    assert method.min_speed == 0.7
    assert config.health.clips > 0
    back = experiments.load(f"{UBFC}:robust,released")
    assert back.to_dict() == experiments.load(f"{UBFC}:released").to_dict()


def test_the_robust_form_with_everything_off_is_the_released_form():
    config = experiments.load(
        f"{UBFC}:robust", ["network.input_transform=difference", "time_stretch.min_speed=1.0"]
    )
    ours, released = (experiments.validate(c) for c in (config, experiments.load(f"{UBFC}:released")))
    for part in ("network", "local_view", "global_view", "terms", "fps", "seed", "min_speed"):
        assert getattr(ours, part) == getattr(released, part)


def test_a_key_of_an_older_version_is_accepted_and_its_new_name_said(capsys):
    for old, new, value in (
        ("network.change", "network.input_transform", "steady"),
        ("playback.slowest", "time_stretch.min_speed", 0.8),
        ("evaluation.read_out", "evaluation.hr_estimator", "wavelet"),
    ):
        config = experiments.load(UBFC, [f"{old}={value}"])
        experiments.validate(config)
        table, name = new.split(".")
        assert config[table][name] == value
        assert capsys.readouterr().err == f"note: config key {old!r} is now {new!r}\n"


def test_downsampled_variant_halves_rates_as_far_as_the_band_allows():
    method = experiments.validate(experiments.load(f"{UBFC}:downsampled"))
    assert method.network.ts_strides == (2, 2, 1)
    assert [30 * rate for rate in method.network.relative_rates] == [15, 7.5, 7.5]
    assert method.network.scale_lengths(300) == (146, 70, 66)


def test_overrides_reach_every_depth():
    overrides = ["views.online.mask.unit=pixel", "terms.similarity_mse.weight=2.5", "fps=25", "seed=7"]
    config = experiments.load(UBFC, overrides)
    method = experiments.validate(config)
    assert method.local_view.mask_unit == "pixel"
    assert method.terms["similarity_mse"]["weight"] == 2.5
    assert (method.fps, method.seed) == (25.0, 7)


def test_a_configuration_survives_json():
    config = experiments.load(f"{UBFC}:smoke")
    again = json.loads(config.to_json())
    assert network_settings(again) == network_settings(config)


def test_default_configs_share_nothing():
    first, second = experiments.default(), experiments.default()
    first.terms.similarity_mse.weight = 9.0
    first.views.online.flip.horizontal = 0.0
    assert second.terms.similarity_mse.weight == 1.0
    assert presets.PAPER["terms"]["similarity_mse"]["weight"] == 1.0
    assert second.views.target.flip.horizontal == 0.5


OF_SKIN = ("face_crop=skin", "crop_size=64", "network.input_size=58", "network.stages=((4,4),(4,8))")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["netwrk.input_size=90"], ["netwrk", "network"]),
        (["network.inputsize=90"], ["inputsize", "input_size"]),
        (["terms.wave_pearson.wait=1"], ["wait"]),
        (["seed=x"], ["seed", "x"]),
        (["seed=-1"], ["seed", "-1", "≥ 0"]),
        (["network=3"], ["network", "3"]),
        (["network.input_size=90"], ["90", "106 and every larger size"]),
        (["network.stages=((4,4),(4,8))", "network.input_size=49"], ["49", "50 and every larger size"]),
        (["network.ts_heads=3"], ["ts_heads 3", "256"]),
        (["network.conv=fast"], ["fast", "matmul"]),
        (["network.dtype=int8"], ["int8", "bfloat16"]),
        (["network.ts_kernels=(9, 7)"], ["ts_kernels", "ts_strides"]),
        (["network.ts_kernels=(200, 90, 50)"], ["300", "TS kernels"]),
        (["network.ts_strides=(2, 2, 2)"], ["3.75 Hz", "scale 3", "6 Hz"]),
        (["views.online.mask.unit=rows"], ["views.online", "rows", "pixel"]),
        (["views.target.mask.keep=1.5"], ["views.target", "mask_keep", "1.5"]),
        (["views.online.crop=middle"], ["middle", "random"]),
        (["crop_size=100"], ["128", "100"]),
        (["terms.wave_pearson.weight=-1"], ["terms.wave_pearson.weight", "-1"]),
        (["face_crop=skinn"], ["face_crop", "'skinn'", "did you mean 'skin'"]),
        (["face_crop=skin"], ["crop_size", "151", "96 pixels or less where face_crop is 'skin'"]),
        ([*OF_SKIN, "data.skin=False"], ["data.skin", "True where face_crop is 'skin'"]),
        ([*OF_SKIN, "data.face.follow_every_s=1"], ["data.face.follow_every_s is 1", "be 0 where face_crop"]),
        ([*OF_SKIN, "data.face.detector=yunet"], ["data.face.detector is 'yunet'", "be 'haar' where"]),
        (["fps=5"], ["fps", "5", "6"]),
        (["clip_frames=301"], ["clip_frames", "301", "even"]),
        (["clip_frames=40"], ["clip_frames", "period"]),
        (["batch_size=0"], ["batch_size", "0"]),
        (["epochs=0"], ["epochs", "0"]),
        (["optimizer.learning_rate=0"], ["learning_rate", "0"]),
        (["optimizer.learning_rate=nan"], ["learning_rate", "nan"]),
        (["optimizer.b1=1"], ["optimizer.b1", "1"]),
        (["optimizer.frozen=('head',)"], ["frozen", "head", "backbone"]),
        (["target.momentum=1.2"], ["target.momentum", "1.2"]),
        (["data.test_people=('subject1', 'subject38')"], ["train_people", "test_people", "share subject1"]),
        (["data.test_people=(38,)"], ["data.test_people", "38"]),
        (["data.source=raw", "data.name=ubfc"], ["data.name", "'ubfc'", "ubfc_rppg"]),
        (["data.workers=-1"], ["data.workers", "-1"]),
        (["data.split.kind=random"], ["data.split.kind", "random", "folds"]),
        (["data.split.kind=folds", "data.split.fold=5"], ["data.split.fold", "5", "below"]),
        (["data.split.kind=folds", "data.split.folds=1"], ["data.split.folds", "1", "≥ 2"]),
        (["data.split.kind=published", "data.split.name=ours"], ["'ours'", "ubfc_rppg", "sspd"]),
        (["data.split.kind=protocol", "data.split.name=dark"], ["data.split.name", "dark", "natural"]),
        (["data.face.detector=dlib"], ["data.face.detector", "dlib", "haar"]),
        (["data.face.follow_every_s=-1"], ["data.face.follow_every_s", "-1"]),
        (["evaluation.reader=best"], ["evaluation.reader", "best", "online"]),
        (["evaluation.hr_estimator=fft"], ["evaluation.hr_estimator", "fft", "spectrum"]),
        (["evaluation.window_s=1"], ["evaluation.window_s", "4 s"]),
        (["checkpoint.keep=0"], ["checkpoint.keep", "0"]),
        (["checkpoint.every_steps=-1"], ["checkpoint.every_steps", "-1", "≥ 0"]),
        (["parallel=threads"], ["parallel", "threads", "pmap"]),
        (["distributed=on"], ["distributed", "'on'", "auto"]),
        (["disturb.light=0.1"], ["disturb.light", "is gone", "rejected.md"]),
        (["health.clips=-1"], ["health.clips", "-1", "≥ 0"]),
        (["health.clips=4", "health.patience=-1"], ["health.patience", "-1", "≥ 0"]),
        (["health.patience=3"], ["health.patience", "set health.clips"]),
        (["time_stretch.min_speed=0.1"], ["time_stretch.min_speed", "0.1", "0.5 to 1 (off)"]),
        (["network.predictor_isolated=3"], ["predictor_isolated", "3"]),
        (["parallel=pmap", "distributed=auto"], ["pmap", "one process", "jit"]),
        (["data.on_device=sometimes"], ["data.on_device", "sometimes", "never"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_in_one_sentence(overrides, says):
    with pytest.raises(ConfigError) as caught:
        experiments.validate(experiments.load(UBFC, overrides))
    message = str(caught.value)
    assert "\n" not in message
    for word in says:
        assert word in message, message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def get_config(v=''):\n    return 1 / 0\n", ["ZeroDivisionError"]),
        ("x = = 1\n", ["SyntaxError"]),
        ("def get_config(v=''):\n    return 3\n", ["3", "ConfigDict"]),
        ("c.terms.wave_pearsn = {'weight': 1.0}", ["wave_pearsn", "wave_pearson"]),
        ("c.terms.similarity_deviation = {'weight': 1.0}", ["similarity_deviation", "ddof"]),
        ("c.playback.slowst = 0.7", ["playback", "is now 'time_stretch.min_speed'"]),
        ("c.playback.slowest = 'half'", ["min_speed", "half"]),
        ("c.network.change = 3", ["input_transform", "3"]),
        ("c.terms = {}", ["terms", "at least one"]),
        ("c.batchsize = 3", ["batchsize", "batch_size"]),
        ("c.network.layers = 3", ["network.layers"]),
        ("del c.target", ["target", "missing"]),
        ("c.optimizer = 3", ["optimizer"]),
        ("c.network.features = 'many'", ["many"]),
        ("c.fps = 'fast'", ["fps", "fast"]),
        ("del c.views['target']", ["views.target", "missing"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_file_is_said_in_one_sentence(tmp_path, source, says):
    if "get_config" not in source and source.startswith(("c.", "del")):
        source = (
            "from sspd_jax.training import config\n\ndef get_config(v=''):\n"
            f"    c = config.default()\n    {source}\n    return c\n"
        )
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(ConfigError) as caught:
        experiments.validate(experiments.load(str(path)))
    message = str(caught.value)
    assert "\n" not in message
    for word in says:
        assert word in message, message


def test_a_missing_file_and_an_unknown_variant_are_said(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.py does not exist"):
        experiments.load(str(tmp_path / "nowhere.py"))
    with pytest.raises(ConfigError, match="'realesed' is unknown; did you mean 'released'"):
        experiments.load(f"{UBFC}:realesed")


def test_a_file_that_was_written_for_an_earlier_version_is_understood(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from sspd_jax import config as experiments, forms\nfrom sspd_jax.config import with_variants\n\n"
        "def get_config(v=''):\n    return with_variants(experiments.default(forms.RELEASED), v)\n"
    )
    assert experiments.load(str(path)).network.ts_heads == presets.RELEASED["network"]["ts_heads"]


def test_a_key_that_a_file_sets_under_its_earlier_name_is_understood(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from sspd_jax.training import config\n\ndef get_config(v=''):\n    c = config.default()\n"
        "    c.network.change = 'steady'\n    c.evaluation.read_out = 'wavelet'\n"
        "    c.playback.slowest = 0.8\n    return c\n"
    )
    config = experiments.load(str(path))
    assert experiments.validate(config).min_speed == 0.8
    assert (config.network.input_transform, config.evaluation.hr_estimator) == ("steady", "wavelet")
    assert set(config) == set(experiments.default())
    said = capsys.readouterr().err
    assert all(f"config key {old!r} is now {new!r}" in said for old, new in RENAMED.items())
    config = experiments.load(str(path), ["network.input_transform=chrominance"])
    assert config.network.input_transform == "chrominance" and "change" not in config.network
    assert experiments.load(str(path), ["time_stretch.min_speed=0.9"]).time_stretch.min_speed == 0.9
    assert experiments.load(str(path), ["playback.slowest=0.9"]).time_stretch.min_speed == 0.9


def test_load_leaves_the_programs_own_flags_alone():
    script = (
        "from absl import flags\nfrom sspd_jax.training import config\n"
        f"config.load({UBFC!r}, ['seed=3'])\nassert 'config' not in flags.FLAGS\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_locked_configs_refuse_new_keys():
    config = experiments.load(UBFC)
    assert isinstance(config, ml_collections.ConfigDict)
    with pytest.raises(AttributeError, match="locked"):
        config.surprise = 1

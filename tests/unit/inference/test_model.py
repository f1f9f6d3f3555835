"""Checkpoints and the networks read from them."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import small_training
from golden import recipe

import sspd_jax
from sspd_jax.checkpoints import convert, torch_writer
from sspd_jax.checkpoints.network import load_network, save_network
from sspd_jax.errors import UserError
from sspd_jax.inference import model
from sspd_jax.method.network import init_variables
from sspd_jax.method.settings import NetworkSettings, network_settings
from sspd_jax.training import config as experiments

# The networks here compile longer than they run.
pytestmark = pytest.mark.usefixtures("quick_compilation")

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL = NetworkSettings(input_size=58, stages=((4, 4), (4, 8)), features=16, predictor_width=8, ts_heads=1)


def tables(network=SMALL, **more):
    return {"network": experiments.network_table(network), "fps": 30.0, "crop_size": 68, **more}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of a small network of random weights."""
    directory = tmp_path_factory.mktemp("checkpoints") / "small"
    save_network(directory, tables(), *init_variables(SMALL, jax.random.key(3)))
    return directory


@pytest.fixture(scope="module")
def golden_model(tmp_path_factory):
    """The golden weights, saved as a PyTorch file, converted and loaded."""
    folder = tmp_path_factory.mktemp("golden")
    layout = json.loads((GOLDEN / "state_dict_layout.json").read_text())
    torch_writer.write_state_dict(folder / "golden.pth", recipe.weights(layout))
    assert convert.convert(folder / "golden.pth", folder / "checkpoint") == 2_954_143
    return sspd_jax.load(folder / "checkpoint")


def clip(n_frames, size=68, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n_frames, size, size, 3), dtype=np.uint8)


@pytest.mark.slow
def test_waveform_of_converted_golden_weights_equals_the_reference(golden_model):
    golden = np.load(GOLDEN / "forward.npz")["eval/rppg"]
    frames = recipe.frames("online", 2, 65, 128)[..., ::-1].astype(np.uint8)  # the recipe's are BGR
    waves = np.stack([golden_model.waveform(video, 30) for video in frames])
    assert waves.dtype == np.float32
    np.testing.assert_allclose(waves, golden, atol=2e-6 * np.abs(golden).max())


def test_a_saved_network_comes_back_whole(small):
    config, params, batch_stats = load_network(small)
    assert network_settings(config) == SMALL
    expected = init_variables(SMALL, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, (params, batch_stats), expected)


def test_a_loaded_network_holds_what_inference_needs(small):
    network = sspd_jax.load(small)
    assert set(network.params) == {"backbone", "predictor"}
    assert (network.fps, network.crop_size, network.network) == (30.0, 68, SMALL)


@pytest.mark.slow
def test_what_a_network_is_given_is_part_of_its_checkpoint(small, tmp_path):
    """A network of the robust form reads a stream as it reads a clip, and not as the published form does."""
    settings = dataclasses.replace(SMALL, input_transform="steady_chrominance")
    weights = init_variables(SMALL, jax.random.key(3))
    save_network(tmp_path / "steady", tables(settings), *weights)
    network = small_training.in_form(sspd_jax.load(tmp_path / "steady"), "matmul")
    frames = clip(67)
    wave = network.infer_stream(iter(frames))
    np.testing.assert_allclose(wave, small_training.one_pass(network, frames)[:66], atol=2e-6 * np.ptp(wave))
    assert np.abs(wave - sspd_jax.load(small).infer_stream(iter(frames))).max() > 0.01 * np.ptp(wave)


@pytest.mark.parametrize(
    ("form", "bound", "n_frames"),
    [
        ("auto", 1e-5, 66),  # combining frames rounds more
        *(pytest.param("matmul", 2e-6, n, marks=pytest.mark.slow) for n in (2, 33, 66, 161)),
        *(pytest.param("auto", 1e-5, n, marks=pytest.mark.slow) for n in (2, 33, 161)),
    ],
)
def test_a_stream_of_images_gives_the_wave_of_one_pass(small, n_frames, form, bound):
    network = small_training.in_form(sspd_jax.load(small), form)
    frames = clip(n_frames)
    whole = small_training.one_pass(network, frames)[: n_frames - 1]
    wave = network.infer_stream(iter(frames))
    assert wave.shape == (n_frames - 1,) and wave.dtype == np.float32
    np.testing.assert_allclose(wave, whole, atol=bound * np.abs(whole).max())


@pytest.mark.parametrize("n_frames", [0, 1])
def test_a_wave_needs_two_images(small, n_frames):
    with pytest.raises(ValueError, match="at least 2 images"):
        sspd_jax.load(small).infer_stream(iter(clip(n_frames)))


@pytest.mark.parametrize(("n_frames", "fps"), [(2, 30), (40, 25.0), (41, 60.0)])
def test_waveform_has_one_value_for_each_two_frames_at_any_rate(small, n_frames, fps):
    wave = sspd_jax.load(small).waveform(clip(n_frames), fps)
    assert wave.shape == (n_frames - 1,) and wave.dtype == np.float32
    assert np.isfinite(wave).all()


def test_a_rate_near_the_networks_is_read_as_it_is(small):
    network = sspd_jax.load(small)
    frames = clip(40)
    np.testing.assert_array_equal(network.waveform(frames, 29.97), network.waveform(frames, 30))
    assert network.clock_rate(29.97) == 29.97
    assert network.clock_rate(25) == 30


def test_a_faster_video_gives_the_wave_of_the_slower_one(small):
    # A smooth clip at 60 Hz, and every second frame of it, are one movie.
    network = sspd_jax.load(small)
    time = np.arange(241)[:, None, None, None] / 60
    where = np.random.default_rng(0).uniform(0.5, 1, (1, 68, 68, 3))
    frames = np.rint(120 + 60 * where * np.sin(2 * np.pi * 1.2 * time)).astype(np.uint8)
    fast = network.waveform(frames, 60)
    slow = network.waveform(frames[::2], 30)
    between = np.interp((np.arange(120) + 0.5) / 30, (np.arange(240) + 0.5) / 60, fast)
    assert np.corrcoef(between[12:-12], slow[12:-12])[0, 1] > 0.99


@pytest.mark.parametrize(
    "frames",
    [
        clip(1),
        clip(4)[0],
        clip(4).astype(np.float32),
        clip(4)[..., :1],
        [],
    ],
    ids=["one frame", "no time", "floats", "grey", "nothing"],
)
def test_waveform_refuses_what_is_no_clip(small, frames):
    with pytest.raises(ValueError, match="uint8"):
        sspd_jax.load(small).waveform(frames, 30)


@pytest.mark.parametrize("fps", [0, -30, float("nan")])
def test_waveform_refuses_an_impossible_rate(small, fps):
    with pytest.raises(ValueError, match="fps"):
        sspd_jax.load(small).waveform(clip(4), fps)


def test_a_clip_too_short_to_resample_is_refused(small):
    with pytest.raises(ValueError, match="too few"):
        sspd_jax.load(small).waveform(clip(4), 60)


def test_one_compilation_serves_videos_of_any_length_and_dtype(small):
    network = sspd_jax.load(small)
    before = model._compiled_step()._cache_size()
    for n_frames in (5, 40, 201):
        network.infer_stream(clip(n_frames, seed=1))
        network.infer_stream(clip(n_frames, seed=1).astype(np.float32))
    assert model._compiled_step()._cache_size() - before <= 1


# What can be wrong with a checkpoint.


def says(directory, *words):
    with pytest.raises(UserError) as caught:
        sspd_jax.load(directory)
    message = str(caught.value)
    assert message.startswith(str(directory)) and "\n" not in message
    for word in ("python -m sspd_jax convert", *words):
        assert word in message, message


def test_a_missing_checkpoint_is_said(tmp_path):
    says(tmp_path / "nowhere", "no such checkpoint")


def test_a_folder_or_file_that_is_no_checkpoint_is_said(tmp_path):
    says(tmp_path, "not a checkpoint")
    (tmp_path / "file").write_text("hello")
    says(tmp_path / "file", "not a checkpoint")


def test_a_damaged_checkpoint_is_said(tmp_path, small):
    for i, name in enumerate(("network/manifest.ocdbt", "network/_METADATA", "config/metadata")):
        broken = tmp_path / f"broken{i}"
        shutil.copytree(small, broken)
        (broken / name).write_bytes(b"\x00garbage")
        says(broken, "damaged")
    broken = tmp_path / "emptied"
    shutil.copytree(small, broken)
    shutil.rmtree(broken / "network" / "d", ignore_errors=True)
    shutil.rmtree(broken / "network" / "ocdbt.process_0", ignore_errors=True)
    says(broken, "damaged")


def test_a_checkpoint_of_another_network_is_said(tmp_path):
    other = dataclasses.replace(SMALL, features=32)
    save_network(tmp_path / "other", tables(other), *init_variables(SMALL, jax.random.key(0)))
    says(tmp_path / "other", "another network", "16", "32")
    save_network(tmp_path / "kind", {"network": {"layers": 3}}, {"w": np.ones(3)}, {})
    says(tmp_path / "kind", "another kind of network", "layers")


def test_an_existing_directory_is_never_overwritten(tmp_path, small):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        save_network(tmp_path / "mine", tables(), *init_variables(SMALL, jax.random.key(0)))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_network(tmp_path / "file" / "x", tables(), *init_variables(SMALL, jax.random.key(0)))

"""A network written for use elsewhere: it reads the same and holds no more than it must."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
import small_training
from golden import recipe
from shared_files import PUBLISHED_WEIGHTS, needs

import sspd_jax
from sspd_jax import errors
from sspd_jax.checkpoints import convert, export, torch_reader, torch_writer
from sspd_jax.checkpoints import network as checkpoints
from sspd_jax.cli import convert as cli_convert
from sspd_jax.cli import export as cli_export
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.method.network import init_variables
from sspd_jax.runtime import storage
from sspd_jax.training import config as experiments
from sspd_jax.training import presets

GOLDEN = Path(__file__).parents[2] / "golden"
EXAMPLE = Path(__file__).parents[3] / "examples" / "run_stablehlo.py"
CROP = small_training.CROP
SOURCE = {"file": "mine.pth", "sha256": "0" * 64}


def save(directory, network, **more):
    """Write a checkpoint as training does, with more in its config than reading needs."""
    config = {
        "network": experiments.network_table(network),
        "fps": 30.0,
        "crop_size": CROP,
        "seed": 7,
        **more,
    }
    params, batch_stats = init_variables(network, jax.random.key(3))
    rng = np.random.default_rng(0)
    # Statistics that are not those of a fresh network.
    batch_stats = jax.tree.map(lambda x: (x + rng.uniform(0.1, 1, x.shape)).astype(np.float32), batch_stats)
    checkpoints.save_network(directory, config, params, batch_stats)
    return directory


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of a small network in the released form, whose convolutions suit the platform."""
    network = small_training.network(presets.RELEASED, conv="auto")
    directory = tmp_path_factory.mktemp("checkpoints") / "small"
    return save(directory, network, source=SOURCE, face_crop="skin")


@pytest.fixture(scope="module")
def stablehlo(small):
    """The small network as a StableHLO file."""
    path = small.parent / "small.stablehlo"
    export.export(small, path, "stablehlo")
    return path


def clip(n_frames, size=CROP, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n_frames, size, size, 3), dtype=np.uint8)


def n_bytes(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def n_values(*trees):
    return sum(leaf.size for leaf in jax.tree.leaves(trees))


def assert_close(found, wanted, tolerance=1e-5):
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def run_alone(network, crops, folder, *options):
    """Run the example from another folder, where this package and Flax cannot be imported."""
    np.save(folder / "crops.npy", crops)
    script = (
        "import runpy, sys\n"
        "absent = ('sspd_jax', 'flax', 'orbax')\n"
        "sys.modules.update(dict.fromkeys(absent))\n"  # None: importing them fails
        f"sys.argv = ['run_stablehlo.py', *{[str(network), 'crops.npy', *options]!r}]\n"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
        "assert not [name for name in sys.modules if name.startswith(tuple(f'{a}.' for a in absent))]\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "wave.npy"), done.stdout


# Orbax.


def test_an_inference_checkpoint_reads_bit_equal_waves(small, tmp_path):
    export.export(small, tmp_path / "inference", "orbax")
    frames = clip(30)
    wanted = sspd_jax.load(small).waveform(frames, 30)
    np.testing.assert_array_equal(sspd_jax.load(tmp_path / "inference").waveform(frames, 30), wanted)


def test_an_inference_checkpoint_holds_no_more_than_reading_needs(small, tmp_path):
    exported = export.export(small, tmp_path / "inference", "orbax")
    config, params, batch_stats = checkpoints.load_network(tmp_path / "inference")
    whole_config, whole, whole_stats = checkpoints.load_network(small)
    kept = ("network", "fps", "crop_size", "face_crop", "source")
    assert config == {key: whole_config[key] for key in kept}
    assert sspd_jax.load(tmp_path / "inference").face_crop == "skin"
    assert set(whole) - set(params) == {"ts"}
    jax.tree.map(np.testing.assert_array_equal, params, {part: whole[part] for part in params})
    jax.tree.map(np.testing.assert_array_equal, batch_stats, whole_stats)
    assert exported == (n_values(whole) - n_values(whole["ts"]), ())
    assert n_bytes(tmp_path / "inference") < n_bytes(small)


# StableHLO.


@pytest.mark.parametrize("n_differences", [2, 46])
def test_a_stablehlo_file_reads_the_same_wave(small, stablehlo, n_differences):
    read = jax.export.deserialize(bytearray(stablehlo.read_bytes()))
    frames = clip(n_differences + 1)
    assert_close(np.asarray(jax.jit(read.call)(frames)), sspd_jax.load(small).waveform(frames, 30))


def test_a_stablehlo_file_is_for_every_platform_and_takes_even_times_only(stablehlo):
    read = jax.export.deserialize(bytearray(stablehlo.read_bytes()))
    assert read.platforms == ("cpu", "cuda", "tpu")
    assert [str(aval.shape) for aval in read.in_avals] == [f"(2*pairs + 1, {CROP}, {CROP}, 3)"]
    assert "stablehlo.while" in read.mlir_module()  # over blocks of frames: matrix products, for CPU
    with pytest.raises(ValueError, match="pairs"):
        read.call(clip(6))


@pytest.mark.slow
def test_a_stablehlo_file_takes_out_the_light_itself(tmp_path):
    network = small_training.network(presets.RELEASED, input_transform="steady_chrominance")
    directory = save(tmp_path / "steady", network)
    export.export(directory, tmp_path / "steady.stablehlo", "stablehlo")
    frames = clip(33)
    read = jax.export.deserialize(bytearray((tmp_path / "steady.stablehlo").read_bytes()))
    expected = small_training.one_pass(sspd_jax.load(directory), frames)
    np.testing.assert_allclose(read.call(frames), expected, atol=1e-5 * np.ptp(expected))


def test_parameters_are_in_a_stablehlo_file_once(tmp_path):
    # Wide enough for the parameters to outweigh the code.
    network = small_training.network(conv="auto", features=128, predictor_width=64)
    exported = export.export(save(tmp_path / "wide", network), tmp_path / "wide.stablehlo", "stablehlo")
    parameters = 4 * exported.n_parameters
    assert parameters < (tmp_path / "wide.stablehlo").stat().st_size < 1.5 * parameters


@pytest.mark.slow
def test_a_stated_form_of_the_convolutions_is_kept(tmp_path):
    directory = save(tmp_path / "direct", small_training.network(conv="direct"))
    export.export(directory, tmp_path / "direct.stablehlo", "stablehlo")
    read = jax.export.deserialize(bytearray((tmp_path / "direct.stablehlo").read_bytes()))
    assert "stablehlo.while" not in read.mlir_module()
    frames = clip(9)
    assert_close(np.asarray(jax.jit(read.call)(frames)), sspd_jax.load(directory).waveform(frames, 30))


def test_the_description_says_what_the_file_takes_and_gives(small, stablehlo):
    about = json.loads(Path(f"{stablehlo}.json").read_text())
    network = sspd_jax.load(small)
    assert (about["fps"], about["crop_size"], about["face_crop"]) == (30.0, CROP, "skin")
    assert about["halo"] == network.network.receptive_halo
    assert about["input"]["shape"] == ["t + 1", CROP, CROP, 3] and about["input"]["dtype"] == "uint8"
    assert about["input"]["colours"] == "RGB"
    assert about["output"]["shape"] == ["t"] and about["output"]["dtype"] == "float32"
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["written_with_jax"] == jax.__version__
    assert about["source"] == SOURCE


@pytest.mark.slow
def test_the_example_reads_it_without_this_package(small, stablehlo, tmp_path):
    # An odd number of differences, in windows of which the last is moved to end with the clip.
    frames = clip(102)
    wave, said = run_alone(stablehlo, frames, tmp_path, "--window=32")
    assert_close(wave, sspd_jax.load(small).waveform(frames, 30))
    assert said == "wave.npy: 101 samples, 3.4 s at 30 Hz\n"


# PyTorch.


def golden_weights():
    layout = json.loads((GOLDEN / "state_dict_layout.json").read_text())
    return recipe.weights(layout)


def assert_same_state_dict(found, wanted):
    assert list(found) == list(wanted)  # PyTorch's order too
    for name, array in wanted.items():
        if name.endswith("num_batches_tracked"):
            assert (found[name].dtype, found[name].shape, int(found[name])) == (np.int64, (), 0)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def test_pytorch_weights_come_back_bit_equal_both_ways(tmp_path):
    weights = golden_weights()
    torch_writer.write_state_dict(tmp_path / "theirs.pth", weights)
    convert.convert(tmp_path / "theirs.pth", tmp_path / "ours")
    exported = export.export(tmp_path / "ours", tmp_path / "back.pth", "pytorch")
    assert exported == (2_954_143, ())
    assert_same_state_dict(torch_reader.read_state_dict(tmp_path / "back.pth"), weights)
    # And a checkpoint of ours, sent there and back.
    convert.convert(tmp_path / "back.pth", tmp_path / "again")
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoints.load_network(tmp_path / "again")[1:],
        checkpoints.load_network(tmp_path / "ours")[1:],
    )


def test_a_network_of_other_sizes_has_the_same_names(small, tmp_path):
    exported = export.export(small, tmp_path / "small.pth", "pytorch")
    found = torch_reader.read_state_dict(tmp_path / "small.pth")
    # One stage and two scales.
    names = [name for name in golden_weights() if not re.match(r"backbone_step[23]|ts_block3", name)]
    assert list(found) == [name.replace("backbone_step4", "backbone_step2") for name in names]
    assert found["backbone_step1.Conv_Layer1.weight"].shape == (4, 3, 3, 5, 5)
    (note,) = exported.notes
    assert "input_size, stages, features, predictor_width, ts_kernels differ" in note


def test_blocks_that_pytorch_would_read_otherwise_are_left_out(tmp_path):
    directory = save(tmp_path / "paper", small_training.network(presets.PAPER))
    exported = export.export(directory, tmp_path / "paper.pth", "pytorch")
    found = torch_reader.read_state_dict(tmp_path / "paper.pth")
    assert not [name for name in found if name.startswith("ts_block")]
    assert exported.n_parameters == n_values(sspd_jax.load(directory).params)
    assert "without the temporal-similarity blocks" in exported.notes[0]
    for name in ("ts_heads", "ts_attention_scale", "ts_projection", "ts_residual"):
        assert name in exported.notes[0]
    assert "ts_strides" not in exported.notes[0]


def test_a_network_that_is_given_something_else_is_exported_with_a_word(tmp_path):
    network = small_training.network(presets.RELEASED, input_transform="steady_chrominance")
    exported = export.export(save(tmp_path / "steady", network), tmp_path / "steady.pth", "pytorch")
    assert "'steady_chrominance' (network.input_transform" in exported.notes[-1]


def test_strided_blocks_are_left_out(tmp_path):
    network = small_training.network(presets.RELEASED, ts_strides=(2, 1))
    exported = export.export(save(tmp_path / "strided", network), tmp_path / "strided.pth", "pytorch")
    assert "(ts_strides differ)" in exported.notes[0]


def test_a_file_may_go_to_a_bucket(small, tmp_path, bucket):
    export.export(small, "gs://bucket/small.pth", "pytorch")
    export.export(small, tmp_path / "small.pth", "pytorch")
    (content,) = bucket.values()
    assert content.getvalue() == (tmp_path / "small.pth").read_bytes()  # the same whenever it is written
    with pytest.raises(UserError, match=r"gs://bucket/small\.pth: exists already"):
        export.export(small, "gs://bucket/small.pth", "pytorch")


# The command, and what can be wrong.


def test_the_command_says_what_it_wrote(small, tmp_path, capsys):
    output = tmp_path / "new" / "small.pth"
    assert cli_export.main([f"--checkpoint={small}", "--format=pytorch", f"--output={output}"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{output}: ") and " parameters; not of the published" in said
    assert said.count("\n") == 1
    assert [path.name for path in output.parent.iterdir()] == ["small.pth"]


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        cli_export.main(["--help"])
    assert ended.value.code == 0
    assert "sspd_jax export --checkpoint=" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        cli_convert.main(["--help"])
    assert "sspd_jax export" in capsys.readouterr().out


def fails(capsys, folder, checkpoint, format, output, *words):
    """Run the command, which must fail with one sentence and leave the folder as it is."""
    before = sorted(folder.rglob("*"))
    assert cli_export.main([f"--checkpoint={checkpoint}", f"--format={format}", f"--output={output}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    for word in words:
        assert word in said, said
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("format", [*export.FORMATS, *export.PORTABLE])
def test_a_checkpoint_that_is_none_is_said(small, tmp_path, capsys, format):
    output = tmp_path / "output"
    fails(capsys, tmp_path, tmp_path / "nowhere", format, output, "nowhere: no such checkpoint")
    fails(capsys, tmp_path, tmp_path, format, output, "not a checkpoint of a network")
    checkpoints.save_network(tmp_path / "kind", {"network": {"layers": 3}}, {"w": np.ones(3)}, {})
    fails(capsys, tmp_path, tmp_path / "kind", format, output, "another kind of network")


@pytest.mark.parametrize("missing", ["fps", "crop_size"])
def test_a_config_that_lacks_what_reading_needs_is_said(tmp_path, capsys, missing):
    save(tmp_path / "bad", small_training.network(), **{missing: None})
    fails(
        capsys, tmp_path, tmp_path / "bad", "stablehlo", tmp_path / "out", f"bad: its config says {missing}"
    )


@pytest.mark.parametrize("format", [*export.FORMATS, *export.PORTABLE])
def test_what_exists_is_never_overwritten(small, tmp_path, capsys, format):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        fails(
            capsys, tmp_path, small, format, tmp_path / name, f"{name}: exists already; delete it or choose"
        )
    assert (tmp_path / "file").read_text() == "precious"


def test_a_description_that_exists_is_never_overwritten(small, tmp_path, capsys):
    (tmp_path / "x.json").write_text("precious")
    fails(capsys, tmp_path, small, "stablehlo", tmp_path / "x", "x.json: exists already")
    assert (tmp_path / "x.json").read_text() == "precious"


@pytest.mark.parametrize("format", [*export.FORMATS, *export.PORTABLE])
def test_a_place_that_cannot_be_written_is_said(small, tmp_path, capsys, format):
    (tmp_path / "file").write_text("")
    fails(capsys, tmp_path, small, format, tmp_path / "file" / "x", "file/x: cannot be written")


def test_a_full_disk_leaves_no_half_of_two_files(small, tmp_path, capsys, monkeypatch):
    write = storage.write_bytes

    def fill(path, data, **remedy):
        if not str(path).endswith(".json"):
            raise errors.StorageError(f"{path}: cannot be written (no space left on device); make room")
        write(path, data, **remedy)

    monkeypatch.setattr(storage, "write_bytes", fill)
    fails(capsys, tmp_path, small, "stablehlo", tmp_path / "x", "no space left")


def test_an_unknown_format_is_misuse(small, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli_export.main([f"--checkpoint={small}", "--format=keras", f"--output={tmp_path / 'x'}"])
    assert ended.value.code == 2
    assert "stablehlo" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="format 'keras' is unknown; it must be one of orbax, stablehlo"):
        export.export(small, tmp_path / "x", "keras")
    assert not list(tmp_path.iterdir())


# The published network.


@pytest.mark.slow
@needs(PUBLISHED_WEIGHTS)
def test_published_weights_in_every_format(tmp_path):
    convert.convert(PUBLISHED_WEIGHTS, tmp_path / "ours")
    frames = clip(52, size=151)
    wanted = sspd_jax.load(tmp_path / "ours").waveform(frames, 30)

    assert export.export(tmp_path / "ours", tmp_path / "inference", "orbax") == (786_079, ())
    np.testing.assert_array_equal(sspd_jax.load(tmp_path / "inference").waveform(frames, 30), wanted)

    assert export.export(tmp_path / "ours", tmp_path / "ubfc.pth", "pytorch") == (786_079, ())
    assert_same_state_dict(
        torch_reader.read_state_dict(tmp_path / "ubfc.pth"), torch_reader.read_state_dict(PUBLISHED_WEIGHTS)
    )

    network = tmp_path / "ubfc.stablehlo"
    export.export(tmp_path / "ours", network, "stablehlo")
    assert 4 * 786_079 < network.stat().st_size < 1.1 * 4 * 786_079
    wave, _ = run_alone(network, frames, tmp_path, "--window=36")
    assert_close(wave, wanted)


@pytest.mark.slow
def test_an_inference_checkpoint_is_a_quarter_of_a_trained_one(tmp_path):
    weights = golden_weights()
    torch_writer.write_state_dict(tmp_path / "trained.pth", weights)
    convert.convert(tmp_path / "trained.pth", tmp_path / "trained")
    export.export(tmp_path / "trained", tmp_path / "inference", "orbax")
    assert n_bytes(tmp_path / "inference") < 0.3 * n_bytes(tmp_path / "trained")

"""A network as ONNX and TensorFlow Lite: the wave of JAX, whole and block by block; what the files say."""

import dataclasses
import functools
import json
import sys

import jax
import numpy as np
import pytest
import small_training
from shared_files import PUBLISHED_WEIGHTS, needs

import sspd_jax
from sspd_jax.checkpoints import (
    convert,
    export,
    host_network,
    onnx_file,
    portable_graph,
    tflite_file,
)
from sspd_jax.checkpoints import network as checkpoints
from sspd_jax.cli import export as cli_export
from sspd_jax.errors import ConfigError
from sspd_jax.inference.model import RppgModel
from sspd_jax.method import architecture, input_transform, views
from sspd_jax.method.network import abstract_variables
from sspd_jax.method.settings import network_table

CROP, INPUT = 28, 25
"""Of 25 pixels both pools drop a row and a column: 19 become 9, and 7 become 3."""
TOLERANCE = 1e-4  # of the wave's largest value


class OnnxFile:
    """An ONNX file in ONNX Runtime."""

    def __init__(self, data):
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
        self._session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs):
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    @property
    def about(self):
        return self._session.get_modelmeta().custom_metadata_map


class TfliteFile:
    """A TensorFlow Lite file in LiteRT."""

    def __init__(self, data):
        interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
        self._data = data
        self._run = interpreter.Interpreter(model_content=data).get_signature_runner()

    def __call__(self, **inputs):
        return self._run(**inputs)

    @property
    def about(self):
        from ai_edge_litert import schema_py_generated as schema

        model = schema.Model.GetRootAs(self._data, 0)
        (found,) = (model.Metadata(i) for i in range(model.MetadataLength()))
        assert found.Name().decode() == tflite_file.METADATA
        facts = json.loads(model.Buffers(found.Buffer()).DataAsNumpy().tobytes())
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


FORMATS = {"onnx": (onnx_file, OnnxFile), "tflite": (tflite_file, TfliteFile)}


@functools.cache
def network(**changes):
    """The same network twice: in JAX, and its arrays on the host. Every normalisation does something."""
    small = {"input_size": INPUT, "stages": ((4, 6),), "features": 5, "predictor_width": 3}
    settings = small_training.network(**{**small, **changes})
    params, batch_stats = abstract_variables(settings)
    params = {part: params[part] for part in ("backbone", "predictor")}
    rng = np.random.default_rng(1)

    def drawn(path, leaf):
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.2, 0.2)
        return np.float32(rng.uniform(low, high, leaf.shape))

    params, batch_stats = jax.tree_util.tree_map_with_path(drawn, (params, batch_stats))
    arrays = host_network.folded(params, batch_stats)
    model = host_network.HostModel(settings.layers, arrays, settings.input_size, 30.0, CROP, "box", "ours")
    return RppgModel(settings, params, batch_stats, 30.0, CROP, "theirs"), model


def pictures(count, size=CROP, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def opened(format, model, form="clip", transform="difference", about=None):
    writer, reader = FORMATS[format]
    return reader(writer.serialize(model, transform, form, about or {}))


def state_size(file):
    return int(file.about["state_size"])


def read_blocks(file, frames, step, lag, remaining):
    """Read frames block by block; what comes after the last one is noise that must not matter."""
    differences = len(frames) - 1
    after = pictures(lag + step, frames.shape[1], seed=9)
    frames = np.concatenate([frames, after])
    state, parts = np.zeros(state_size(file), np.float32), []
    for start in range(0, differences + lag, step):
        found = file(
            frames=frames[start : start + step + 1],
            state=state,
            remaining=np.array([remaining(differences, start)], np.int32),
        )
        state = found["next_state"]
        parts.append(found["wave"])
    return np.concatenate(parts)[lag : lag + differences]


def assert_close(found, wanted):
    assert (found.shape, found.dtype) == (wanted.shape, np.float32)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


STEPS = {step for steps in input_transform.INPUT_TRANSFORMS.values() for step in steps}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("transform", ["difference", "steady_chrominance"])
def test_a_clip_reads_the_wave_of_what_is_made_of_two_frames(format, transform):
    assert transform == "difference" or set(input_transform.INPUT_TRANSFORMS[transform]) == STEPS
    model = network()[1]
    frames = pictures(47)
    seen = np.asarray(views.whole_view(frames[None], INPUT, transform)[0])
    wave = model.stream(2)._through(seen, is_last=True)
    assert_close(opened(format, model, transform=transform)(frames=frames)["wave"], wave)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("transform", input_transform.INPUT_TRANSFORMS)
def test_a_clip_reads_the_wave_of_jax(format, transform):
    theirs, model = network(input_transform=transform)
    frames = pictures(47)
    wanted = small_training.one_pass(theirs, frames)
    assert_close(opened(format, model, transform=transform)(frames=frames)["wave"], wanted)


# In fast tests the reference is NumPy's network, which test_host_network.py holds to JAX's.


@pytest.mark.parametrize("format", FORMATS)
def test_a_clip_may_have_any_even_length(format):
    model = network()[1]
    file = opened(format, model)
    for differences in (2, 4, 90):
        frames = pictures(differences + 1)
        assert_close(file(frames=frames)["wave"], model.infer(frames, 30.0, 0.0).values)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("form", portable_graph.FORMS)
def test_deeper_networks_and_crops_of_their_own_size_are_read(format, form):
    side = 50
    layers = architecture.conv_layers(((3, 4), (5, 4)), 3, 2)
    rng = np.random.default_rng(0)
    arrays = {
        "backbone/input_norm/scale": np.full(3, 0.01, np.float32),
        "backbone/input_norm/bias": np.ones(3),
    }
    for layer, (_, channels) in zip(layers, architecture.input_shapes(layers, side), strict=True):
        path = "/".join(layer.path)
        kernel = rng.normal(0, 0.1, (*layer.kernel, channels, layer.features))
        arrays[f"{path}/{layer.conv}/kernel"] = np.float32(kernel)
        arrays[f"{path}/{layer.norm or layer.conv}/bias"] = np.float32(rng.normal(size=layer.features))
    model = host_network.HostModel(layers, arrays, side, 30.0, side, "box", "deeper")
    frames = pictures(41, side)
    wanted = model.infer(frames, 30.0, 0.0).values
    file = opened(format, model, form)
    if form == "clip":
        assert_close(file(frames=frames)["wave"], wanted)
    else:
        lag = architecture.lag(layers)
        assert_close(read_blocks(file, frames, 10, lag, lambda n, start: n - start), wanted)


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_reads_the_same_from_the_first_sample_to_the_last(format):
    model = network()[1]
    lag = architecture.lag(model.layers)
    file = opened(format, model, "stream")

    def only_at_the_end(differences, start):
        return differences - start if start > differences - 10 else portable_graph.ENDLESS

    # Shorter than the lag, and so long that the count of frames has reached its end.
    for differences, step in ((46, 4), (46, 10), (6, 2), (120, 8)):
        frames = pictures(differences + 1)
        wanted = model.infer(frames, 30.0, 0.0).values
        assert_close(read_blocks(file, frames, step, lag, lambda n, start: n - start), wanted)
        if step == 4:
            assert_close(read_blocks(file, frames, step, lag, only_at_the_end), wanted)


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_without_an_end_goes_on_however_long(format):
    model = network()[1]
    lag = architecture.lag(model.layers)
    file = opened(format, model, "stream")
    frames = pictures(201)
    found = read_blocks(file, frames, 20, lag, lambda *_: portable_graph.ENDLESS)
    wanted = model.infer(frames, 30.0, 0.0).values
    assert_close(found[:-lag], wanted[:-lag])
    assert np.abs(found[-lag:] - wanted[-lag:]).max() > TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("form", portable_graph.FORMS)
def test_the_file_says_what_it_takes_and_gives(format, form, tmp_path):
    theirs, model = network(input_transform="steady_chrominance")
    config = {"network": network_table(theirs.network), "fps": 25.0, "crop_size": CROP, "source": "mine.pth"}
    checkpoints.save_network(tmp_path / "net", config, theirs.params, theirs.batch_stats)
    output = tmp_path / "new" / f"net.{format}"
    exported = export.export(tmp_path / "net", output, format, form=form, licence="CC BY-NC 4.0")
    about = FORMATS[format][1](output.read_bytes()).about
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert int(about["parameters"]) == exported.n_parameters
    assert (float(about["fps"]), int(about["crop_size"]), about["face_crop"]) == (25, CROP, "box")
    assert (about["licence"], about["source"], about["form"]) == ("CC BY-NC 4.0", "mine.pth", form)
    assert int(about["halo"]) == architecture.halo(model.layers)
    assert about["input_transform"] == "steady_chrominance"
    inputs, outputs = json.loads(about["inputs"]), json.loads(about["outputs"])
    assert inputs["frames"]["shape"] == ["t + 1", CROP, CROP, 3] and inputs["frames"]["colours"] == "RGB"
    if form == "clip":
        assert list(inputs) == ["frames"] and list(outputs) == ["wave"] and "windows" in about
    else:
        assert list(inputs) == ["frames", "state", "remaining"] and list(outputs) == ["wave", "next_state"]
        assert inputs["state"]["shape"] == [int(about["state_size"])]
        assert int(about["lag"]) == architecture.lag(model.layers)
    if format == "onnx":
        import onnx

        assert [opset.version for opset in onnx.load(output).opset_import] == [int(about["opset"])] == [17]


@pytest.mark.parametrize("format", FORMATS)
def test_without_a_checkpoint_it_is_the_network_that_ships(format, tmp_path, capsys):
    output = tmp_path / f"pulse.{format}"
    assert cli_export.main([f"--format={format}", f"--output={output}"]) == 0
    assert capsys.readouterr().out == f"{output}: 109,831 parameters\n"
    file = FORMATS[format][1](output.read_bytes())
    shipped = host_network.shipped()
    frames = pictures(61, shipped.crop_size)
    assert_close(file(frames=frames)["wave"], shipped.infer(frames, 30.0, 0.0).values)
    assert (file.about["licence"], file.about["face_crop"]) == ("Apache-2.0", "skin")
    assert output.stat().st_size < 500_000


def test_the_same_network_is_the_same_bytes():
    model = network()[1]
    for writer, _ in FORMATS.values():
        once, again = (writer.serialize(model, "difference", "stream", {"fps": 30.0}) for _ in range(2))
        assert once == again


@pytest.mark.parametrize(
    ("format", "module"), [("onnx", "onnx"), ("tflite", "ai_edge_litert")], ids=["onnx", "tflite"]
)
def test_a_package_that_is_absent_is_named_and_nothing_is_written(
    format, module, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, module, None)
    output = tmp_path / "new" / "pulse"
    assert cli_export.main([f"--format={format}", f"--output={output}"]) == 2
    said = capsys.readouterr().err
    assert "is not installed; run `pip install 'sspd_jax[export]'`" in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"form": "stream"}, "does not go with form 'stream'"),
        ({"licence": "mine"}, "does not go with a licence"),
        ({"checkpoint": None}, "does not go with no checkpoint"),
        ({"format": "onnx", "form": "video"}, "form 'video' is unknown; it must be one of clip, stream"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, arguments, words):
    given = {"checkpoint": tmp_path / "net", "format": "pytorch", **arguments}
    with pytest.raises(ConfigError, match=words):
        export.export(output=tmp_path / "out", **given)
    assert not list(tmp_path.iterdir())


def test_another_precision_is_said(tmp_path):
    theirs, _ = network()
    half = dataclasses.replace(theirs.network, dtype="bfloat16")
    config = {"network": network_table(half), "fps": 25.0, "crop_size": CROP}
    checkpoints.save_network(tmp_path / "net", config, theirs.params, theirs.batch_stats)
    exported = export.export(tmp_path / "net", tmp_path / "net.onnx", "onnx")
    assert exported.notes == ("it computes in float32 where the checkpoint does in bfloat16",)
    assert OnnxFile((tmp_path / "net.onnx").read_bytes()).about["licence"] == "not stated; ask who trained it"


@pytest.mark.slow
@needs(PUBLISHED_WEIGHTS)
@pytest.mark.parametrize("format", FORMATS)
def test_the_published_network_reads_the_same(format, tmp_path):
    convert.convert(PUBLISHED_WEIGHTS, tmp_path / "ubfc")
    theirs = sspd_jax.load(tmp_path / "ubfc")
    frames = pictures(61, 151)
    wanted = theirs.waveform(frames, 30)
    for form in portable_graph.FORMS:
        export.export(tmp_path / "ubfc", tmp_path / form, format, form=form)
    reader = FORMATS[format][1]
    assert_close(reader((tmp_path / "clip").read_bytes())(frames=frames)["wave"], wanted)
    lag = architecture.lag(theirs.network.layers)
    stream = reader((tmp_path / "stream").read_bytes())
    assert_close(read_blocks(stream, frames, 20, lag, lambda n, start: n - start), wanted)

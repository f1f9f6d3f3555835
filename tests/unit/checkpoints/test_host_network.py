"""The network read by NumPy is the one that JAX reads; waves of a recording by parts; the shipped file."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import small_training

from sspd_jax.checkpoints import host_network
from sspd_jax.checkpoints.host_network import HostModel, conv3d
from sspd_jax.heart_rate.wave import LEAST_S, Wave
from sspd_jax.inference.model import RppgModel
from sspd_jax.method import architecture, network
from sspd_jax.video.resample import MAX_GAP_S

pytestmark = pytest.mark.usefixtures("quick_compilation")

CROP, INPUT = 28, 25
"""Of 25 pixels both pools drop a row and a column: 19 become 9, and 7 become 3."""


@pytest.fixture(scope="module")
def both():
    """The same network twice: in JAX, and on the host. Every normalisation does something."""
    settings = small_training.network(input_size=INPUT, stages=((4, 6),), features=5, predictor_width=3)
    params, batch_stats = jax.device_get(network.init_variables(settings, jax.random.key(0)))
    params = {part: params[part] for part in ("backbone", "predictor")}
    rng = np.random.default_rng(1)
    params, batch_stats = jax.tree.map(
        # Ones, of variances, stay above 0.
        lambda a: np.float32(a * rng.uniform(0.5, 1.5, a.shape) + rng.uniform(-0.1, 0.1, a.shape)),
        (params, batch_stats),
    )
    layers = architecture.conv_layers(settings.stages, settings.features, settings.predictor_width)
    arrays = host_network.folded(params, batch_stats)
    ours = HostModel(layers, arrays, INPUT, 30.0, CROP, "box", "ours")
    return RppgModel(settings, params, batch_stats, 30.0, CROP, "theirs"), ours


def pictures(count, size=CROP, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("count", [2, 3, 9, 10, 11, 12, 44, 45])
@pytest.mark.parametrize("block", [2, 10, host_network.BLOCK])
def test_a_wave_is_that_of_the_network_in_jax(both, count, block, monkeypatch):
    monkeypatch.setattr(host_network, "BLOCK", block)
    theirs, ours = both
    images = pictures(count)
    expected = theirs.infer(images, 25.0, 3.0)
    found = ours.infer(iter(images), 25.0, 3.0)
    assert found.values.dtype == np.float32 and (found.fps, found.start_s) == (25, 3.02)
    assert found.start_s == expected.start_s
    assert len(found.values) == count - 1
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5 * np.abs(expected.values).max())


def test_pictures_of_other_sizes_and_floats_are_shrunk_alike(both):
    theirs, ours = both
    for images in (pictures(12, INPUT), pictures(12, 40), pictures(12).astype(np.float32) + np.float32(0.3)):
        expected = theirs.infer(images, 30.0, 0.0).values
        found = ours.infer(images, 30.0, 0.0).values
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pictures_are_no_wave(both, count):
    with pytest.raises(ValueError, match=f"a wave needs at least 2 images, got {count}"):
        both[1].infer(pictures(count), 30.0, 0.0)


def test_what_is_held_is_a_block_and_no_picture_is_taken_before_it_is_needed(both, monkeypatch):
    monkeypatch.setattr(host_network, "BLOCK", 4)
    taken, seen = [], []

    def images():
        for image in pictures(60):
            taken.append(len(taken))
            yield image

    def watched(x, kernel):
        seen.append((len(x), len(taken)))
        return conv3d(x, kernel)

    monkeypatch.setattr(host_network, "conv3d", watched)
    assert len(both[1].infer(images(), 30.0, 0.0).values) == 59
    layers = both[1].layers
    firsts = seen[:: len(layers)]
    # A step, what a kernel of three keeps, and at the end what pads all layers.
    assert max(length for length, _ in seen) <= 4 + 2 + architecture.lag(layers)
    assert [number for _, number in firsts] == [*range(5, 60, 4), 60]


@pytest.mark.parametrize(("step", "count"), [(2, 61), (8, 60), (30, 47)])
def test_a_wave_grows_while_its_pictures_come(both, step, count):
    ours, images = both[1], pictures(count)
    whole = ours.infer(images, 30.0, 0.0).values
    stream, parts = ours.stream(step), []
    for start in range(0, count, 7):
        parts.append(stream.push(images[start : start + 7]))
    grown = np.concatenate(parts)
    assert stream.lag == architecture.lag(ours.layers)
    assert len(grown) == max(0, (count - 1) // step * step - stream.lag)
    np.testing.assert_allclose(np.concatenate([grown, stream.end()]), whole, atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize("step", [0, -2, 7])
def test_a_stream_refuses_a_step_that_is_not_even(both, step):
    with pytest.raises(ValueError, match="even"):
        both[1].stream(step)


@pytest.mark.parametrize("kernel", [(3, 2, 4), (3, 1, 1), (1, 3, 3), (5, 3, 3), (7, 1, 1)])
def test_a_convolution_is_the_sum_over_its_taps(kernel):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 5, 7, 3)).astype(np.float32)
    taps = rng.normal(size=(*kernel, 3, 2)).astype(np.float32)
    shape = [max(0, side - width + 1) for side, width in zip(x.shape, kernel, strict=False)]
    expected = np.zeros((*shape, 2))
    for t, h, w in itertools.product(*map(range, shape)):
        piece = x[t : t + kernel[0], h : h + kernel[1], w : w + kernel[2]]
        expected[t, h, w] = np.einsum("thwc,thwco->o", piece, taps)
    found = conv3d(x, taps)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


class Counted:
    """A network that says which pictures it was given."""

    def clock_rate(self, fps):
        return 10.0 if fps == 10.2 else fps

    def infer(self, images, fps, start_s):
        return Wave(np.array([float(image[0, 0, 0]) for image in images]), fps, start_s + 0.5 / fps)


def test_every_part_that_is_long_enough_has_a_wave():
    def lasting(first_s, frames):
        return [first_s + number / 10 for number in range(frames)]

    least = round(10 * LEAST_S)
    gaps = (MAX_GAP_S - 0.05, MAX_GAP_S + 0.05)
    first = lasting(2.0, least)
    bridged = lasting(first[-1] + gaps[0], 3)  # the same part
    short = lasting(bridged[-1] + gaps[1], least - 1)
    last = lasting(short[-1] + gaps[1], least)
    crops = [(t, np.full((2, 2, 3), n % 250, np.uint8)) for n, t in enumerate(first + bridged + short + last)]
    found = host_network.read(Counted(), crops, 10.2)
    assert [round(wave.start_s, 6) for wave in found] == [2.05, round(last[0] + 0.05, 6)]
    assert len(found[0].values) in (least + 6, least + 7) and len(found[1].values) == least
    assert all(wave.fps == 10 for wave in found)
    np.testing.assert_array_equal(found[0].values[:least], np.arange(least))
    assert found[1].values[0] == len(first + bridged + short)
    assert host_network.read(Counted(), [], 10.0) == []
    assert len(host_network.read(Counted(), crops, 10.0, max_gap_s=2.0)) == 1
    assert len(host_network.read(Counted(), crops, 10.0, least_s=1.0)) == 3


@pytest.mark.parametrize(
    ("fps", "rate"), [(30.0, 30.0), (29.97, 29.97), (30.59, 30.59), (30.7, 30.0), (25.0, 30.0)]
)
def test_a_rate_near_its_own_is_taken_as_it_is(both, fps, rate):
    theirs, ours = both
    assert ours.clock_rate(fps) == theirs.clock_rate(fps) == rate


def test_the_digest_tells_networks_apart(both):
    ours = both[1]
    one = dict(ours.arrays)
    one["predictor/conv4/bias"] = one["predictor/conv4/bias"] + np.float32(1e-6)
    changes = [{"arrays": one}, {"fps": 25.0}, {"crop_size": 30}, {"face_crop": "skin"}, {"input_size": 26}]
    others = [dataclasses.replace(ours, **change).digest for change in changes]
    assert len({ours.digest, *others}) == 1 + len(changes)
    same = dataclasses.replace(ours, name="another", arrays=dict(reversed(ours.arrays.items())))
    assert same.digest == ours.digest and len(ours.digest) == 16


def test_a_file_that_is_written_is_the_one_that_is_loaded(both, tmp_path, monkeypatch):
    facts = {
        "stages": [[4, 6]],
        "features": 5,
        "predictor_width": 3,
        "input_size": INPUT,
        "fps": 30.0,
        "crop_size": CROP,
        "face_crop": "box",
        "name": "ours",
    }
    np.savez_compressed(tmp_path / "ours.npz", **host_network.as_file(both[1].arrays, facts))
    monkeypatch.setattr(host_network, "SHIPPED", tmp_path / "ours.npz")
    loaded = host_network.shipped.__wrapped__()
    assert loaded.digest == both[1].digest and loaded.name == "ours"


def test_the_shipped_network_is_whole():
    shipped = host_network.shipped()
    assert shipped is host_network.shipped()
    assert shipped.face_crop == "skin" and shipped.name == "skin_network" and shipped.fps == 30
    assert architecture.smallest_input(shipped.layers) <= shipped.input_size <= shipped.crop_size <= 96
    shapes = architecture.input_shapes(shipped.layers, shipped.input_size)
    for layer, (_, channels) in zip(shipped.layers, shapes, strict=True):
        path = "/".join(layer.path)
        kernel = shipped.arrays[f"{path}/{layer.conv}/kernel"]
        assert kernel.shape == (*layer.kernel, channels, layer.features)
        assert shipped.arrays[f"{path}/{layer.norm or layer.conv}/bias"].shape == (layer.features,)
    for array in shipped.arrays.values():
        assert array.dtype == np.float32 and np.isfinite(array).all() and array.any()
    images = pictures(20, shipped.crop_size)
    wave = shipped.infer(images, 30.0, 0.0).values
    assert np.isfinite(wave).all() and np.ptp(wave) > 1e-3
    still = shipped.infer(np.repeat(images[:1], 40, axis=0), 30.0, 0.0).values
    assert np.ptp(still[15:-15]) < 1e-4  # nothing changes: no pulse

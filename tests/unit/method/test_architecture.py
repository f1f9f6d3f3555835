"""The list of layers: what follows from it, by hand for the published network."""

import jax
import numpy as np
import pytest

from sspd_jax.method import architecture, network, streaming
from sspd_jax.method.settings import NetworkSettings

PUBLISHED = architecture.conv_layers(((8, 16), (16, 32), (32, 64)), 256, 64)


def test_lag_halo_and_smallest_input_by_hand():
    # Backbone 7 convolutions; predictor 1, then 2 frames of a pair, then 1; the other frame of the pair.
    assert architecture.lag(PUBLISHED) == 7 + 4
    assert architecture.halo(PUBLISHED) == 7 + 5
    # 1 ← conv2 3 ← pool 6 ← final 8; then a stage each: 2·8 + 6, …
    assert architecture.smallest_input(PUBLISHED[6:]) == 8
    assert architecture.smallest_input(PUBLISHED) == 2 * (2 * (2 * 8 + 6) + 6) + 6


def test_input_shapes_by_hand():
    expected = [(128, 3), (124, 8), (61, 16), (57, 16), (27, 32), (23, 32), (10, 64)]
    assert [*architecture.input_shapes(PUBLISHED, 128)] == [*expected, (8, 256), (4, 64), (2, 64), (1, 64)]


def test_modules_are_grouped_in_order():
    names = [(path, [layer.conv for layer in of]) for path, of in architecture.modules(PUBLISHED, "backbone")]
    stages = [(("backbone", f"stage{i}"), ["conv1", "conv2"]) for i in (1, 2, 3)]
    assert names == [*stages, (("backbone", "final"), ["conv"])]
    ((path, of),) = architecture.modules(PUBLISHED, "predictor")
    assert (path, len(of)) == (("predictor",), 4)


@pytest.mark.parametrize("stages", [((2, 3),), ((2, 3), (3, 2))])
def test_every_layer_has_its_parameters_and_state_in_the_network(stages):
    settings = NetworkSettings(input_size=50, stages=stages, features=4, predictor_width=2, ts_heads=1)
    params, _ = network.abstract_variables(settings)
    state = iter(streaming.begin(settings))
    named = set()
    for layer, (side, channels) in zip(
        settings.layers, architecture.input_shapes(settings.layers, 50), strict=True
    ):
        module = params
        for name in layer.path:
            module = module[name]
        assert module[layer.conv]["kernel"].shape == (*layer.kernel, channels, layer.features)
        named |= {(*layer.path, name) for name in (layer.conv, layer.norm) if name}
        if layer.time_padding:
            assert np.shape(next(state)) == (1, 2, side, side, channels)
    assert next(state, None) is None
    found = {
        tuple(key.key for key in path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if path[0].key != "ts"
    }
    assert found == named | {("backbone", "input_norm")}

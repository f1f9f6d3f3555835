"""The mapping between PyTorch's names and axes and our trees: hand values, golden layout, exact inverses."""

import importlib.util
import json
import types
from pathlib import Path

import numpy as np
import pytest
from shared_files import PUBLISHED_WEIGHTS, needs

from sspd_jax.checkpoints.torch_names import check_layout, from_torch, to_torch, torch_layout_of
from sspd_jax.checkpoints.torch_reader import read_state_dict
from sspd_jax.checkpoints.torch_writer import write_state_dict
from sspd_jax.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden"


def load_recipe():
    spec = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAYOUT = {
    name: tuple(shape) for name, shape in json.loads((GOLDEN / "state_dict_layout.json").read_text()).items()
}
INFERENCE = {name: shape for name, shape in LAYOUT.items() if not name.startswith("ts_block")}


@pytest.fixture(scope="module")
def weights():
    return load_recipe().weights(LAYOUT)


def only(state_dict, layout):
    return {name: state_dict[name] for name in layout}


def small_layout(stages, ts_blocks):
    """Name every tensor of a network of another depth, by hand."""
    names = {"BN": 3}
    layout = {}
    channels = 3
    for i in range(1, stages + 1):
        layout[f"backbone_step{i}.Conv_Layer1.weight"] = (2, channels, 3, 5, 5)
        layout[f"backbone_step{i}.Conv_Layer2.weight"] = (4, 2, 3, 3, 3)
        names |= {f"backbone_step{i}.BN1": 2, f"backbone_step{i}.BN2": 4}
        channels = 4
    layout[f"backbone_step{stages + 1}.Conv_Layer1.weight"] = (6, channels, 3, 3, 3)
    names[f"backbone_step{stages + 1}.BN1"] = 6
    for j, inputs in ((1, 6), (2, 5), (3, 5)):
        layout[f"predictor.conv{j}.weight"] = (5, inputs, 3, 1, 1)
        names[f"predictor.bn{j}"] = 5
    layout |= {"predictor.conv4.weight": (1, 5, 1, 1, 1), "predictor.conv4.bias": (1,)}
    for name, channels in names.items():
        fields = ("weight", "bias", "running_mean", "running_var")
        layout |= {f"{name}.{field}": (channels,) for field in fields}
        layout[f"{name}.num_batches_tracked"] = ()
    for i in range(1, ts_blocks + 1):
        layout[f"ts_block{i}.tokenizer.conv.weight"] = (6, 6, 3)
        for linear in ("attn.proj_q", "attn.proj_k", "attn.proj_v", "proj"):
            layout[f"ts_block{i}.{linear}.weight"] = (6, 6)
            layout[f"ts_block{i}.{linear}.bias"] = (6,)
        for vector in ("tokenizer.conv.bias", "tokenizer.norm.weight", "tokenizer.norm.bias"):
            layout[f"ts_block{i}.{vector}"] = (6,)
    return layout


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def assert_same_tree(found, wanted):
    assert isinstance(found, dict) == isinstance(wanted, dict)
    if not isinstance(wanted, dict):
        np.testing.assert_array_equal(found, wanted, strict=True)
        return
    assert set(found) == set(wanted)
    for name in wanted:
        assert_same_tree(found[name], wanted[name])


def shapes_of(tree):
    if isinstance(tree, dict):
        return {name: shapes_of(branch) for name, branch in tree.items()}
    return types.SimpleNamespace(shape=tree.shape)


def test_trees_have_the_documented_names_and_shapes(weights):
    params, batch_stats = from_torch(weights)
    norm = {"scale", "bias"}
    assert set(params) == {"backbone", "predictor", "ts"}
    assert set(batch_stats) == {"backbone", "predictor"}
    assert set(params["backbone"]) == {"input_norm", "stage1", "stage2", "stage3", "final"}
    assert set(batch_stats["backbone"]) == set(params["backbone"])
    for stage in ("stage1", "stage2", "stage3"):
        assert {k: set(v) for k, v in params["backbone"][stage].items()} == {
            "conv1": {"kernel"},
            "norm1": norm,
            "conv2": {"kernel"},
            "norm2": norm,
        }
        assert {k: set(v) for k, v in batch_stats["backbone"][stage].items()} == {
            "norm1": {"mean", "var"},
            "norm2": {"mean", "var"},
        }
    assert {k: set(v) for k, v in params["backbone"]["final"].items()} == {"conv": {"kernel"}, "norm": norm}
    assert {k: set(v) for k, v in params["predictor"].items()} == {
        **{f"conv{j}": {"kernel"} for j in (1, 2, 3)},
        **{f"norm{j}": norm for j in (1, 2, 3)},
        "conv4": {"kernel", "bias"},
    }
    assert set(batch_stats["predictor"]) == {"norm1", "norm2", "norm3"}
    dense = {"kernel", "bias"}
    for block in ("block1", "block2", "block3"):
        assert {k: set(v) for k, v in params["ts"][block].items()} == {
            "embed": dense,
            "norm": norm,
            "query": dense,
            "key": dense,
            "value": dense,
            "proj": dense,
        }
    assert params["backbone"]["stage1"]["conv1"]["kernel"].shape == (3, 5, 5, 3, 8)
    assert params["predictor"]["conv4"]["kernel"].shape == (1, 1, 1, 64, 1)
    assert params["ts"]["block1"]["embed"]["kernel"].shape == (9, 256, 256)
    assert params["ts"]["block1"]["query"]["kernel"].shape == (256, 256)


def test_single_values_land_where_they_should(weights):
    params, batch_stats = from_torch(weights)
    backbone, ts = params["backbone"], params["ts"]
    # Conv3d [out, in, t, h, w] → [t, h, w, in, out]; colour 0 (B) of theirs is colour 2 of ours.
    theirs = weights["backbone_step1.Conv_Layer1.weight"]
    assert backbone["stage1"]["conv1"]["kernel"][2, 3, 4, 2, 7] == theirs[7, 0, 2, 3, 4]
    theirs = weights["backbone_step2.Conv_Layer1.weight"]
    assert backbone["stage2"]["conv1"]["kernel"][2, 3, 4, 5, 7] == theirs[7, 5, 2, 3, 4]
    theirs = weights["backbone_step4.Conv_Layer1.weight"]
    assert backbone["final"]["conv"]["kernel"][0, 1, 2, 3, 4] == theirs[4, 3, 0, 1, 2]
    # Conv1d [out, in, k] → [k, in, out]; Linear [out, in] → [in, out].
    assert ts["block2"]["embed"]["kernel"][6, 1, 2] == weights["ts_block2.tokenizer.conv.weight"][2, 1, 6]
    for ours, theirs in (("query", "attn.proj_q"), ("key", "attn.proj_k"), ("value", "attn.proj_v")):
        assert ts["block3"][ours]["kernel"][1, 2] == weights[f"ts_block3.{theirs}.weight"][2, 1]
    assert ts["block1"]["proj"]["kernel"][1, 2] == weights["ts_block1.proj.weight"][2, 1]
    assert ts["block1"]["proj"]["bias"][1] == weights["ts_block1.proj.bias"][1]
    assert ts["block1"]["norm"]["scale"][1] == weights["ts_block1.tokenizer.norm.weight"][1]
    # The input norm sees colours, the other norms do not.
    for tree, ours, theirs in (
        (params, "scale", "weight"),
        (params, "bias", "bias"),
        (batch_stats, "mean", "running_mean"),
        (batch_stats, "var", "running_var"),
    ):
        found = tree["backbone"]["input_norm"][ours]
        np.testing.assert_array_equal(found, weights[f"BN.{theirs}"][::-1])
        found = tree["backbone"]["stage3"]["norm2"][ours]
        np.testing.assert_array_equal(found, weights[f"backbone_step3.BN2.{theirs}"])
        found = tree["backbone"]["final"]["norm"][ours]
        np.testing.assert_array_equal(found, weights[f"backbone_step4.BN1.{theirs}"])
        found = tree["predictor"]["norm3"][ours]
        np.testing.assert_array_equal(found, weights[f"predictor.bn3.{theirs}"])


def test_rgb_frame_gives_what_the_bgr_frame_gave(weights):
    # The whole point of the reversal: norm, then one window of the first convolution, both ways.
    bgr = np.random.default_rng(0).normal(size=(3, 5, 5, 3))
    kernel = weights["backbone_step1.Conv_Layer1.weight"]

    def normalised(frames, scale, bias, mean, var):
        return (frames - mean) / np.sqrt(var + 1e-5) * scale + bias

    fields = ("weight", "bias", "running_mean", "running_var")
    theirs = np.einsum("thwc,octhw->o", normalised(bgr, *(weights[f"BN.{f}"] for f in fields)), kernel)
    params, batch_stats = from_torch(weights)
    norm = params["backbone"]["input_norm"] | batch_stats["backbone"]["input_norm"]
    rgb = normalised(bgr[..., ::-1], *(norm[f] for f in ("scale", "bias", "mean", "var")))
    ours = np.einsum("thwc,thwco->o", rgb, params["backbone"]["stage1"]["conv1"]["kernel"])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("layout", [LAYOUT, INFERENCE], ids=["training", "inference"])
def test_golden_layout_both_ways(weights, layout):
    wanted = only(weights, layout)
    params, batch_stats = from_torch(wanted)
    assert ("ts" in params) == (layout is LAYOUT)
    back = to_torch(params, batch_stats)
    assert list(back) == list(layout)  # PyTorch's order
    assert_same(back, wanted)
    assert all(array.flags.c_contiguous and array.flags.writeable for array in back.values())
    again = from_torch(back)
    assert_same_tree(again[0], params)
    assert_same_tree(again[1], batch_stats)
    assert list(torch_layout_of(shapes_of(params), shapes_of(batch_stats)).items()) == list(layout.items())


@pytest.mark.parametrize("stages", [0, 1, 2, 5, 11])
@pytest.mark.parametrize("ts_blocks", [0, 1, 4])
def test_networks_of_other_depths(stages, ts_blocks):
    layout = small_layout(stages, ts_blocks)
    wanted = load_recipe().weights(layout)
    params, batch_stats = from_torch(wanted)
    assert len(params["backbone"]) == stages + 2
    assert len(params.get("ts", ())) == ts_blocks
    first = (
        params["backbone"]["stage1"]["conv1"]["kernel"]
        if stages
        else params["backbone"]["final"]["conv"]["kernel"]
    )
    theirs = wanted["backbone_step1.Conv_Layer1.weight"]
    np.testing.assert_array_equal(first[0, 0, 0], theirs[:, ::-1, 0, 0, 0].T)
    assert_same(to_torch(params, batch_stats), wanted)
    assert torch_layout_of(shapes_of(params), shapes_of(batch_stats)) == layout
    check_layout(wanted, layout, "weights.pth")


def test_colours_are_reversed_once_per_direction():
    wanted = load_recipe().weights(small_layout(1, 0))
    wanted["BN.weight"] = np.array([1, 2, 3], np.float32)
    params, batch_stats = from_torch(wanted)
    assert params["backbone"]["input_norm"]["scale"].tolist() == [3, 2, 1]
    assert to_torch(params, batch_stats)["BN.weight"].tolist() == [1, 2, 3]


def test_counters_are_dropped_and_come_back_as_zero(weights):
    counted = weights | {"BN.num_batches_tracked": np.array(90)}
    params, batch_stats = from_torch(counted)
    assert set(batch_stats["backbone"]["input_norm"]) == {"mean", "var"}
    counter = to_torch(params, batch_stats)["BN.num_batches_tracked"]
    assert (counter.dtype, counter.shape, int(counter)) == (np.int64, (), 0)
    # PyTorch before 0.4.1 had no counters.
    uncounted = {name: a for name, a in weights.items() if not name.endswith("num_batches_tracked")}
    check_layout(uncounted, LAYOUT, "weights.pth")
    assert_same_tree(from_torch(uncounted)[0], params)


def test_results_are_copies_in_float32():
    layout = small_layout(1, 1)
    wanted = load_recipe().weights(layout)
    half = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in wanted.items()}
    params, batch_stats = from_torch(half)
    leaf = params["predictor"]["conv4"]["bias"]
    assert leaf.dtype == np.float32
    leaf[:] = 5
    to_torch(params, batch_stats)["predictor.conv4.bias"][:] = 6
    assert leaf == 5
    assert half["predictor.conv4.bias"] == wanted["predictor.conv4.bias"].astype(np.float16)


def test_unknown_and_missing_names_are_programming_errors():
    wanted = load_recipe().weights(small_layout(1, 0))
    with pytest.raises(ValueError, match=r"unknown \['extra.weight'\]"):
        from_torch(wanted | {"extra.weight": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match=r"missing \['BN.weight'\]"):
        from_torch({name: a for name, a in wanted.items() if name != "BN.weight"})
    with pytest.raises(ValueError, match="backbone_step999999999"):
        from_torch(wanted | {"backbone_step999999999.x": np.zeros(1, np.float32)})
    params, batch_stats = from_torch(wanted)
    with pytest.raises(ValueError, match="params/backbone/stage1/conv9/kernel"):
        params["backbone"]["stage1"]["conv9"] = {"kernel": np.zeros(1)}
        to_torch(params, batch_stats)
    with pytest.raises(ValueError, match="batch_stats/predictor/norm1/mean"):
        del params["backbone"]["stage1"]["conv9"], batch_stats["predictor"]["norm1"]["mean"]
        torch_layout_of(params, batch_stats)


def test_check_layout_accepts_what_fits(weights):
    check_layout(weights, LAYOUT, "weights.pth")
    check_layout(only(weights, INFERENCE), INFERENCE, "weights.pth")
    # TS blocks exist only in training.
    check_layout(weights, INFERENCE, "weights.pth")
    check_layout(only(weights, INFERENCE), LAYOUT, "weights.pth")


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        (
            lambda w: w.pop("BN.weight"),
            ["missing BN.weight)"],
        ),
        (
            lambda w: [w.pop(name) for name in list(w) if name.startswith("predictor.bn")],
            ["missing predictor.bn1.weight, predictor.bn1.bias, predictor.bn1.running_mean and 9 more"],
        ),
        (
            lambda w: w.update({"fc\n.weight": np.zeros(3, np.float32)}),
            [r"unexpected fc\n.weight)"],
        ),
        (
            lambda w: w.update({"predictor.conv4.bias": np.zeros((2, 1), np.float32)}),
            ["predictor.conv4.bias has shape (2, 1) instead of (1,)"],
        ),
        (
            lambda w: w.update({"predictor.conv4.bias": np.zeros(1, np.int64)}),
            ["predictor.conv4.bias holds int64 instead of floating-point numbers"],
        ),
        (
            lambda w: w.pop("ts_block2.proj.bias"),
            ["missing ts_block2.proj.bias)"],
        ),
        (
            lambda w: (w.pop("BN.bias"), w.update(other=np.zeros(3, np.float32))),
            ["missing BN.bias; unexpected other"],
        ),
    ],
)
def test_check_layout_says_what_differs(weights, change, phrases):
    changed = dict(weights)
    change(changed)
    with pytest.raises(UserError) as caught:
        check_layout(changed, LAYOUT, Path("some/weights.pth"))
    sentence = str(caught.value)
    assert sentence.startswith("some/weights.pth does not fit this network (")
    assert sentence.endswith("): give the configuration that the weights were trained with")
    assert "\n" not in sentence
    for phrase in phrases:
        assert phrase in sentence


def test_golden_weights_through_a_file(weights, tmp_path):
    write_state_dict(tmp_path / "weights.pth", weights)
    found = read_state_dict(tmp_path / "weights.pth")
    assert_same(found, weights)
    assert_same_tree(from_torch(found)[0], from_torch(weights)[0])


@needs(PUBLISHED_WEIGHTS)
def test_published_file_is_the_inference_network():
    state_dict = read_state_dict(PUBLISHED_WEIGHTS)
    assert {name: array.shape for name, array in state_dict.items()} == INFERENCE
    check_layout(state_dict, LAYOUT, PUBLISHED_WEIGHTS)
    params, batch_stats = from_torch(state_dict)
    assert "ts" not in params
    assert _count(params) == 786_079
    back = to_torch(params, batch_stats)
    assert list(back) == list(state_dict)
    for name, array in state_dict.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], array, strict=True)


def test_golden_layout_has_the_documented_number_of_parameters(weights):
    assert _count(from_torch(weights)[0]) == 2_954_143
    assert _count(from_torch(only(weights, INFERENCE))[0]) == 786_079


def _count(tree):
    return sum(map(_count, tree.values())) if isinstance(tree, dict) else tree.size

"""The network: sizes, statistics, blocks and their variants against explicit formulas; what is refused."""

import math

import jax
import jax.numpy as jnp
import method_oracles as oracle
import numpy as np
import pytest
import small_training as small

from sspd_jax.method import architecture, network
from sspd_jax.method.settings import NetworkSettings
from sspd_jax.training import presets

pytestmark = pytest.mark.usefixtures("quick_compilation")

FORMS = {"paper": presets.PAPER, "released": presets.RELEASED}


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def smallest_input(stages):
    return architecture.smallest_input(architecture.conv_layers(((2, 2),) * stages, 4, 2))


def normal(shape, seed=0, mean=0.0, deviation=1.0):
    return np.random.default_rng(seed).normal(mean, deviation, shape).astype(np.float32)


# --- sizes ------------------------------------------------------------------------------------------


def test_parameter_counts_are_the_published_ones():
    params, _ = network.abstract_variables(NetworkSettings())
    assert size(params) == 2_954_143
    assert size((params["backbone"], params["predictor"])) == 786_079


def test_the_papers_blocks_have_one_bias_less():
    params, _ = network.abstract_variables(NetworkSettings(**presets.PAPER["network"]))
    assert size(params) == 2_954_143 - 3 * 256


def test_spatial_sizes_are_the_published_ones():
    settings = NetworkSettings()
    module = network.Backbone(settings)
    video = jax.ShapeDtypeStruct((1, 4, 128, 128, 3), jnp.float32)
    f2, _ = jax.eval_shape(lambda v: module.init_with_output(jax.random.key(0), v, train=True), video)
    assert f2.shape == (1, 4, 8, 8, 256)
    module = network.Predictor(settings)
    wave, _ = jax.eval_shape(lambda v: module.init_with_output(jax.random.key(0), v, train=True), f2)
    assert wave.shape == (1, 4)
    assert wave.dtype == jnp.float32


def test_scale_lengths_by_hand():
    assert NetworkSettings().scale_lengths(300) == (292, 286, 282)
    strided = NetworkSettings(ts_strides=(2, 2, 1))
    # floor((300 − 9)/2) + 1, floor((146 − 7)/2) + 1, 70 − 5 + 1
    assert strided.scale_lengths(300) == (146, 70, 66)
    assert strided.relative_rates == (1 / 2, 1 / 4, 1 / 4)
    assert NetworkSettings().relative_rates == (1, 1, 1)


def test_too_few_frames_are_refused():
    assert NetworkSettings().scale_lengths(21)[-1] == 3
    with pytest.raises(ValueError, match="20 difference frames are too few"):
        NetworkSettings().scale_lengths(20)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(stages):
    smallest = smallest_input(stages)
    settings = {"stages": ((2, 2),) * stages, "features": 4, "predictor_width": 2, "ts_heads": 1}
    for pixels in (smallest, smallest + 1):
        network.abstract_variables(NetworkSettings(input_size=pixels, **settings))
    with pytest.raises(
        ValueError, match=f"{smallest - 1} does not fit {stages} stages: {smallest} and every larger"
    ):
        NetworkSettings(input_size=smallest - 1, **settings)


def test_the_smallest_size_leaves_the_predictor_one_window():
    settings = small.network(input_size=smallest_input(1))
    f2 = jax.ShapeDtypeStruct((1, 4, 6, 6, 8), jnp.float32)
    module = network.Predictor(settings)
    jax.eval_shape(lambda v: module.init_with_output(jax.random.key(0), v, train=True), f2)
    too_small = jax.ShapeDtypeStruct((1, 4, 5, 5, 8), jnp.float32)
    with pytest.raises(ValueError, match="does not fit"):
        jax.eval_shape(lambda v: module.init_with_output(jax.random.key(0), v, train=True), too_small)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ts_heads": 3}, "ts_heads 3 does not divide features 256"),
        ({"ts_strides": (2, 2)}, "must be as many"),
        ({"ts_kernels": (), "ts_strides": ()}, "at least one"),
        ({"stages": ()}, "at least one"),
        ({"stages": ((8, 16, 32),)}, "pairs of channels"),
        ({"features": 0}, "0 among"),
        ({"predictor_width": 2.5}, "2.5 among"),
        ({"ts_residual": "both"}, "ts_residual is 'both'"),
        ({"ts_projection": "relu"}, "ts_projection is 'relu'"),
        ({"ts_attention_scale": "heads"}, "ts_attention_scale is 'heads'"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"conv": "fft"}, "conv is 'fft'"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**changes)


# --- initialisation ---------------------------------------------------------------------------------


def test_initialisation_is_xavier_normal_with_zero_biases_and_unit_norms():
    params, batch_stats = network.init_variables(NetworkSettings(), jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type, name  # would cost the first step a second compilation
        if path[-1].key == "kernel":
            *window, fan_in, fan_out = leaf.shape
            sigma = math.sqrt(2 / (math.prod(window) * (fan_in + fan_out)))
            assert np.std(leaf) == pytest.approx(sigma, rel=4 / math.sqrt(2 * leaf.size)), name
            assert np.mean(leaf) == pytest.approx(0, abs=4 * sigma / math.sqrt(leaf.size)), name
            if leaf.size > 100_000:
                assert np.max(np.abs(leaf)) > 3.5 * sigma, name  # not truncated
        else:
            np.testing.assert_array_equal(leaf, {"scale": 1, "bias": 0}[path[-1].key])
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch_stats):
        np.testing.assert_array_equal(leaf, {"mean": 0, "var": 1}[path[-1].key])


def test_initialisation_has_the_networks_own_shapes_and_is_repeatable():
    settings = small.network()
    first, again, other = (network.init_variables(settings, jax.random.key(seed)) for seed in (0, 0, 1))
    expected = network.abstract_variables(settings)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), first) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernel = ("backbone", "final", "conv", "kernel")
    assert np.any(_at(first[0], kernel) != _at(other[0], kernel))


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


# --- blocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 2.0), (100.0, 0.01)])
def test_batch_norm_is_pytorchs(mean, deviation):
    # The second case loses its digits if the variance is computed in one pass.
    x = jnp.asarray(normal((2, 5, 3, 4, 2), mean=mean, deviation=deviation))
    params = {"scale": normal(2, 1), "bias": normal(2, 2)}
    stats = {"mean": normal(2, 3), "var": np.exp(normal(2, 4))}
    module = network.BatchNorm()
    out, updated = module.apply(
        {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
    )
    wanted, running_mean, running_var = oracle.batch_norm(x, **params, **stats)
    # At mean 100 a float32 has 7.6e-6 between neighbours: of σ = 0.01, 4e-4.
    np.testing.assert_allclose(out, wanted, atol=1e-5 if mean < 1 else 1e-3)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], running_mean, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], running_var, rtol=1e-5)
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    evaluated = module.apply({"params": params, "batch_stats": stats}, x, train=False)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-5)


def test_batch_variance_keeps_its_digits_at_a_large_mean():
    x = jnp.asarray(normal((1, 10, 10, 10, 1), mean=100.0, deviation=0.01))
    stats = {"mean": np.zeros(1, np.float32), "var": np.zeros(1, np.float32)}
    params = {"scale": np.ones(1, np.float32), "bias": np.zeros(1, np.float32)}
    variables = {"params": params, "batch_stats": stats}
    _, updated = network.BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    deviation = math.sqrt(updated["batch_stats"]["var"][0] / 0.1)
    assert deviation == pytest.approx(np.std(np.asarray(x, np.float64), ddof=1), rel=1e-4)


def test_average_pool_drops_what_does_not_fill_a_window():
    x = jnp.arange(1 * 2 * 5 * 3 * 1, dtype=jnp.float32).reshape(1, 2, 5, 3, 1)
    pooled = network.average_pool(x, (1, 2, 2))
    assert pooled.shape == (1, 2, 2, 1, 1)
    np.testing.assert_array_equal(pooled[0, 0, :, 0, 0], [(0 + 1 + 3 + 4) / 4, (6 + 7 + 9 + 10) / 4])
    both = network.average_pool(x, (2, 2, 2))
    np.testing.assert_array_equal(both[0, 0, :, 0, 0], [(2 + 17) / 2, (8 + 23) / 2])


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_the_explicit_product(heads):
    q, k, v = (normal((2, 9, 8), seed) for seed in range(3))
    expected = np.stack([oracle.attention(q[i], k[i], v[i], heads, 9.0) for i in range(2)])
    np.testing.assert_allclose(network.attend(q, k, v, heads=heads, scale=9.0), expected, atol=1e-5)


def test_nearest_resize_takes_the_floor():
    x = jnp.arange(10, dtype=jnp.float32)[None, :, None]
    for length in (10, 7, 3):
        expected = [math.floor(i * 10 / length) for i in range(length)]
        assert network._nearest_resize(x, length)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_similarity_block_equals_its_formula(form, stride):
    heads = {"paper": 1, "released": 2}[form]
    settings = small.network(FORMS[form], ts_strides=(stride, 1))
    assert settings.ts_heads == heads
    x = jnp.asarray(normal((2, 14, 8), 7))
    module = network.TemporalSimilarity(settings, 0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))["params"]
    assert ("bias" in shapes["proj"]) == (form == "released")
    leaves, treedef = jax.tree.flatten(shapes)
    params = jax.tree.unflatten(treedef, [0.5 * normal(leaf.shape, i) for i, leaf in enumerate(leaves)])
    a, out = module.apply({"params": params}, x)
    for clip in range(2):
        wanted = oracle.ts_block(params, x[clip], kernel=5, stride=stride, heads=heads, form=form)
        np.testing.assert_allclose(a[clip], wanted[0], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(out[clip], wanted[1], rtol=1e-4, atol=2e-5)


def test_each_block_reads_the_output_of_the_last():
    settings = small.network()
    params, _ = network.init_variables(settings, jax.random.key(0))
    f1 = jnp.asarray(normal((1, 24, 8)))
    features = network.SimilarityBlocks(settings).apply({"params": params["ts"]}, f1)
    x = f1
    for i, feature in enumerate(features):
        a, x = network.TemporalSimilarity(settings, i).apply({"params": params["ts"][f"block{i + 1}"]}, x)
        np.testing.assert_allclose(feature, a, rtol=1e-6)
    assert [f.shape[1] for f in features] == list(settings.scale_lengths(24))


# --- the whole network ------------------------------------------------------------------------------


def test_an_odd_number_of_frames_is_refused():
    settings = small.network()
    video = jax.ShapeDtypeStruct((1, 25, 22, 22, 3), jnp.float32)
    trees = network.abstract_variables(settings)
    with pytest.raises(ValueError, match="even number of difference frames, not 25"):
        jax.eval_shape(lambda p, s, v: network.infer_wave(settings, p, s, v), *trees, video)


def test_an_output_depends_on_twelve_differences_on_either_side_and_on_no_more():
    settings = NetworkSettings(
        input_size=smallest_input(3),
        stages=((1, 1), (1, 2), (2, 2)),
        features=2,
        predictor_width=2,
        conv="matmul",
    )
    params, batch_stats = network.init_variables(settings, jax.random.key(0))
    read = jax.jit(lambda video: network.infer_wave(settings, params, batch_stats, video)[0])
    pixels = settings.input_size
    video = 0.1 * normal((1, 30, pixels, pixels, 3))
    wave = np.asarray(read(video))
    reached = set()
    for perturbed in (14, 15):
        other = video.copy()
        other[0, perturbed] += 1.0
        changed = np.flatnonzero(read(other) != wave) - perturbed
        assert np.all(np.abs(changed) <= settings.receptive_halo)
        reached |= set(changed.tolist())
    assert reached == set(range(-12, 13))
    assert settings.receptive_halo == 12


def test_evaluation_needs_no_similarity_blocks():
    settings = small.network()
    params, batch_stats = network.init_variables(settings, jax.random.key(0))
    del params["ts"]
    video = small.differences()
    wave = jax.eval_shape(lambda *args: network.infer_wave(settings, *args), params, batch_stats, video)
    assert (wave.shape, wave.dtype) == ((2, small.FRAMES), jnp.float32)


def test_folded_norms_read_the_same():
    settings = small.network()
    params, stats = network.init_variables(settings, jax.random.key(0))
    rng = np.random.default_rng(1)
    params, stats = jax.tree.map(
        lambda leaf: (leaf * rng.uniform(0.5, 2, leaf.shape)).astype(np.float32), (params, stats)
    )
    video = small.differences()
    whole = {"params": params, "batch_stats": stats}
    plain = network.Network(settings).apply(whole, video, method="wave")
    np.testing.assert_allclose(
        network.infer_wave(settings, params, stats, video), plain, atol=1e-5 * np.abs(plain).max()
    )
    folded, shifts = network.fold_norms(params, stats)
    assert jax.tree.structure((folded, shifts)) == jax.tree.structure((params, stats))
    scales = folded["backbone"]["stage1"]["norm1"]["scale"], folded["predictor"]["norm2"]["scale"]
    assert all(np.all(np.asarray(scale) == 1) for scale in scales)
    np.testing.assert_array_equal(
        folded["backbone"]["input_norm"]["scale"], params["backbone"]["input_norm"]["scale"]
    )


# --- the whole --------------------------------------------------------------------------------------


def test_parts_of_a_batch_that_share_an_axis_are_read_as_one_batch_is():
    settings = small.network(presets.RELEASED)
    variables = network.init_variables(settings, jax.random.key(1))
    video = jnp.asarray(small.differences(2) * np.array([1.0, 3.0], np.float32)[:, None, None, None, None])

    def read(video, axis=None):
        return network.forward(settings, *variables, video, batch_axis=axis)

    whole, stats = jax.jit(read)(video)
    parts, part_stats = jax.jit(jax.vmap(lambda part: read(part, "data"), axis_name="data"))(video[:, None])
    joined = jax.tree.map(lambda x: x.reshape(2, *x.shape[2:]), parts)
    for ours, theirs in zip(jax.tree.leaves(joined), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    for ours, theirs in zip(jax.tree.leaves(part_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(ours, np.stack([theirs] * 2), rtol=1e-3, atol=1e-4)


def test_an_output_knows_at_which_rate_each_of_its_scales_is_sampled():
    settings = small.network(ts_strides=(2, 1))
    video = jax.ShapeDtypeStruct((1, 24, 22, 22, 3), jnp.float32)
    output, _ = jax.eval_shape(
        lambda *arrays: network.forward(settings, *arrays), *network.abstract_variables(settings), video
    )
    assert output.relative_rates == (0.5, 0.5)

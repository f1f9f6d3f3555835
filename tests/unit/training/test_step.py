"""One step: repeatable, compiled once, the same on one device and on eight, in either precision."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_training as small

from sspd_jax.method import param_labels, views
from sspd_jax.method.outputs import similarity_outputs
from sspd_jax.training import compiled as compiled_step
from sspd_jax.training import presets, sharding
from sspd_jax.training import step as train_step
from sspd_jax.training.compiled import STEP_COMPILERS, pmap_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLIPS = 8
FORMS = {"paper": presets.PAPER, "released": presets.RELEASED}


def compiled(step_config, devices=1, way="jit", **options):
    mesh = sharding.data_mesh(jax.devices()[:devices], None if way == "pmap" else CLIPS)
    return STEP_COMPILERS[way](step_config, mesh, **options), mesh


def run(start, step, mesh, batches):
    """What a step on each batch leaves and measures, on the host: [(state, metrics)]."""
    state = sharding.place(start, mesh)
    results = []
    for batch in batches:
        state, metrics = step(state, batch if isinstance(batch, dict) else {"clips": batch})
        results.append(jax.device_get((state, metrics)))
    return results


@pytest.fixture(scope="module")
def traces():
    """One entry for every time that the fixture `step_config` was traced."""
    return []


@pytest.fixture(scope="module")
def step_config(traces, quick_compilation):
    """The paper's form."""
    plain = small.step_config()

    def momentum(step):
        traces.append(step)
        return plain.momentum(step)

    # Adam's first step is the sign of a gradient, whatever its size. A large ε keeps the rounding of
    # gradients near zero out of the parameters.
    optimizer = train_step.make_optimizer(1e-3, plain.momentum, eps=1.0)
    return small.replace(plain, momentum=momentum, optimizer=optimizer)


@pytest.fixture(scope="module")
def start(step_config):
    """A fresh state, on the host."""
    return jax.device_get(small.state(step_config))


@pytest.fixture(scope="module")
def one_device(step_config):
    """The step on one device, and that device."""
    return compiled(step_config)


@pytest.fixture(scope="module")
def batches():
    return [small.clips(CLIPS, seed=seed) for seed in range(2)]


@pytest.fixture(scope="module")
def two_steps(start, one_device, batches):
    return run(start, *one_device, batches)


def assert_finite(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)


# --- what a step does -------------------------------------------------------------------------------


def test_metrics_are_finite_scalars_with_every_weighted_term(step_config, two_steps):
    for s, (_, metrics) in enumerate(two_steps):
        terms = {name: value for name, value in metrics.items() if name.startswith("terms/")}
        assert set(terms) == {f"terms/{name}" for name in step_config.terms}
        assert all(np.shape(value) == () and value.dtype == np.float32 for value in metrics.values())
        assert_finite(metrics)
        assert metrics["loss"] == pytest.approx(sum(terms.values()), rel=1e-5)
        assert metrics["target_momentum"] == pytest.approx(1 - 0.05 * (1 + np.cos(np.pi * s / 4)))


def test_every_part_of_both_networks_moves(start, two_steps):
    after = two_steps[-1][0]
    assert after.step == 2
    for old, new in ((start.params, after.params), (start.target_params, after.target_params)):
        moved = jax.tree.map(lambda a, b: np.any(a != b), old, new)
        assert all(jax.tree.leaves(moved)), moved


def test_target_keeps_the_statistics_of_its_own_view(two_steps, batches):
    # Flips change neither mean nor variance of the whole face.
    mean, var = np.zeros(3), np.ones(3)
    for batch in batches:
        seen = np.asarray(views.whole_view(batch, 22), np.float64).reshape(-1, 3)
        mean, var = 0.9 * mean + 0.1 * seen.mean(axis=0), 0.9 * var + 0.1 * seen.var(axis=0, ddof=1)
    state = two_steps[-1][0]
    own = state.target_batch_stats["backbone"]["input_norm"]
    np.testing.assert_allclose(own["mean"], mean, atol=1e-4)
    np.testing.assert_allclose(own["var"], var, rtol=1e-4)
    assert not np.allclose(state.batch_stats["backbone"]["input_norm"]["var"], var, rtol=0.1)


@pytest.fixture
def views_of(monkeypatch):
    """What a step learns from, without learning: [the online network's view, the target's]."""
    told = []
    monkeypatch.setattr(train_step, "learn", lambda *args, **_: told.append(args) or (args[0], {}))

    def drawn(step_config):
        @jax.jit
        def both(state, clips):
            train_step.train_step(state, {"clips": clips}, step_config=step_config)
            return told.pop()[1:3]

        return lambda state, clips: np.asarray(both(state, clips))

    return drawn


def test_views_depend_on_network_seed_and_step_and_on_no_other_chance(step_config, views_of):
    """Made in the same way, both networks' views still differ, and so do those of other steps and seeds."""
    alike = views.ViewSettings(crop="random", mask_unit="pixel", mask_keep=0.5)
    both = small.replace(step_config, local_view=alike, global_view=alike)
    start, clips = small.state(step_config), small.clips(2, frames=6)
    drawn = views_of(both)
    now = drawn(start, clips)
    np.testing.assert_array_equal(drawn(start, clips), now)
    later = drawn(start.replace(step=np.int32(1)), clips)
    seeded = views_of(small.replace(both, seed=1))(start, clips)
    kept = [np.any(view != 0, axis=-1) for view in (*now, *later, *seeded)]
    for i, one in enumerate(kept):
        for other in kept[:i]:  # half is kept in each: of masks that do not know each other half agree
            assert np.mean(one == other) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("form", FORMS)
def test_a_forms_views_are_those_of_its_description(form, views_of):
    """Over many clips: what share is kept, in what unit, how often flipped; the target's is not masked."""
    step_config = small.step_config(FORMS[form])
    # Every frame is brighter than the one before: most at the top left, least at the bottom right.
    row, column = np.mgrid[: small.CROP, : small.CROP] >= small.CROP // 2
    rise = 8 - 4 * column - 2 * row
    frames = (np.arange(7)[:, None, None] * rise).astype(np.uint8)
    clips = np.broadcast_to(frames[None, ..., None], (64, *frames.shape, 3)).copy()
    online, target = views_of(step_config)(small.state(step_config), clips)
    masked = np.any(online == 0, axis=-1)
    assert masked.mean() == pytest.approx(0.3, abs=0.06)
    whole = masked.all(axis=(2, 3)) | ~masked.any(axis=(2, 3))
    assert whole.all() if form == "paper" else not whole.any()
    assert (target > 0).all()
    for view in (online, target):
        seen = view.max(axis=(1, 4))  # as it was in a frame that was kept
        leftmost, rightmost = seen[:, :, :6].mean(axis=(1, 2)), seen[:, :, -6:].mean(axis=(1, 2))
        top, bottom = seen[:, :6].mean(axis=(1, 2)), seen[:, -6:].mean(axis=(1, 2))
        horizontal, vertical = leftmost < rightmost, top < bottom
        assert horizontal.mean() == pytest.approx(0.5, abs=0.2)
        assert vertical.mean() == pytest.approx(0.5, abs=0.2)
        assert np.mean(horizontal == vertical) == pytest.approx(0.5, abs=0.2)  # drawn apart
    widths = (online.max(axis=(1, 4)) >= 6).sum(axis=(1, 2))  # of the quarter at the top left
    assert len(np.unique(widths)) > 4  # the crop moves
    np.testing.assert_allclose(target.sum(axis=(1, 2, 3, 4)), target[0].sum(), rtol=1e-5)


def test_the_losses_compare_the_online_network_with_a_target_played_as_slowly(step_config, monkeypatch):
    """Each network is given its own parameters, statistics and video; the target's output is slowed."""
    state = small.state(step_config)
    state = state.replace(
        opt_state=optax.tree.set(state.opt_state, target=jax.tree.map(lambda x: x + 1, state.params)),
        target_batch_stats=jax.tree.map(lambda x: x + 2, state.batch_stats),
    )
    videos = jnp.asarray(small.differences(seed=1)), jnp.asarray(small.differences(seed=2))
    given, compared = [], []
    t = np.arange(small.FRAMES, dtype=np.float32)
    moments = jnp.asarray(np.stack([np.eye(small.FRAMES, dtype=np.float32)] * 2))
    ramp = similarity_outputs(jnp.stack([t, t]), (moments,))
    learned = similarity_outputs(jnp.stack([-t, -t]), (moments,))

    def forward(network, params, batch_stats, video, **_):
        given.append((params, batch_stats, np.asarray(video)))
        return (learned, ramp)[len(given) % 2], {"stats of": len(given)}

    def total_loss(outputs, fps, terms):
        compared.append(outputs)
        return jnp.float32(0), {}

    monkeypatch.setattr(train_step, "forward", forward)
    monkeypatch.setattr(train_step.losses, "total_loss", total_loss)
    speed = np.array([1.0, 0.5], np.float32)
    _, (_, wave, stats, target_stats) = train_step.loss_fn(
        state.params, state, *videos, speed, step_config=step_config
    )
    (target, target_own, target_video), (online, online_own, online_video) = given
    for tree, wanted in (
        (target, state.target_params),
        (target_own, state.target_batch_stats),
        (online, state.params),
        (online_own, state.batch_stats),
    ):
        jax.tree.map(np.testing.assert_array_equal, tree, wanted)
    np.testing.assert_array_equal(online_video, videos[0])
    np.testing.assert_array_equal(target_video, videos[1])
    assert stats == {"stats of": 2} and target_stats == {"stats of": 1}
    np.testing.assert_array_equal(wave, ramp.wave)  # of its health: as the target said it
    (both,) = compared
    np.testing.assert_array_equal(both.online.wave, learned.wave)
    middle = (small.FRAMES - 1) / 2
    np.testing.assert_allclose(both.target.wave, np.stack([t, middle + (t - middle) / 2]), atol=1e-5)
    assert np.all(both.target.ssm[0][0] == ramp.ssm[0][0]) and np.any(both.target.ssm[0][1] != ramp.ssm[0][1])
    train_step.loss_fn(state.params, state, *videos, None, step_config=step_config)
    jax.tree.map(np.testing.assert_array_equal, compared[1].target, ramp)


def test_each_view_and_the_speed_are_drawn_by_keys_of_their_own(start, step_config, monkeypatch):
    """And each view is cut by its own settings, at its place in the whole batch, of what is played."""
    drawn, keys = [], []

    def make_view(clips, key, settings, size, first, transform):
        drawn.append((settings, size, first, transform, np.asarray(clips)[0, 0, 0, 0, 0]))
        keys.append(jax.random.key_data(key).tolist())
        return clips

    def draw_speeds(key, n, min_speed, first):
        drawn.append((n, min_speed, first))
        keys.append(jax.random.key_data(key).tolist())
        return "speeds"

    monkeypatch.setattr(train_step.views, "make_view", make_view)
    monkeypatch.setattr(train_step.time_stretch, "draw_speeds", draw_speeds)
    monkeypatch.setattr(train_step.time_stretch, "play", lambda clips, speed: clips + 1)
    speeds = []
    monkeypatch.setattr(train_step, "learn", lambda *args, **_: speeds.append(args[3]) or (args[0], {}))
    steady = dataclasses.replace(step_config.network, input_transform="steady")
    local, whole = views.ViewSettings(crop="random"), views.ViewSettings(crop="whole")
    form = small.replace(step_config, network=steady, local_view=local, global_view=whole, min_speed=0.7)
    clips, state = np.full((2, 25, 26, 26, 3), 7, np.uint8), start
    train_step.train_step(state, {"clips": clips}, step_config=form)
    assert speeds == ["speeds"]
    assert drawn == [(2, 0.7, 0), (local, 22, 0, "steady", 8), (whole, 22, 0, "steady", 7)]
    for other, at in ((form, state.replace(step=np.int32(1))), (small.replace(form, seed=3), state)):
        train_step.train_step(at, {"clips": clips}, step_config=other)
    assert len({tuple(key) for key in keys}) == len(keys) == 9
    plain = small.replace(form, min_speed=1.0)
    keys.clear()
    train_step.train_step(state, {"clips": clips}, step_config=plain)
    train_step.train_step(state, {"clips": clips}, step_config=form)
    assert keys[:2] == keys[3:]  # the views are those of the clip's own speed


def test_parts_of_a_batch_know_their_place_and_step_as_the_whole_does(start, step_config, monkeypatch):
    """Over a mapped axis: clips are numbered on, gradients averaged, waves gathered."""

    def make_view(clips, key, settings, size, first, transform):
        return jnp.asarray(clips, jnp.float32)[:, 1:, :22, :22] * 0 + jnp.asarray(first, jnp.float32)

    def loss_fn(params, state, online, target, speed, *, step_config):
        loss = jnp.mean(online) * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
        wave = jnp.mean(online, axis=(2, 3, 4)) + jnp.arange(online.shape[0], dtype=jnp.float32)[:, None]
        return loss, ({}, wave, state.batch_stats, state.target_batch_stats)

    def health(wave, fps):
        return {"clips": jnp.float32(len(wave)), "sum": jnp.sum(wave)}

    monkeypatch.setattr(train_step.views, "make_view", make_view)
    monkeypatch.setattr(train_step, "loss_fn", loss_fn)
    monkeypatch.setattr(train_step.diagnostics, "wave_health", health)
    mapped = small.replace(step_config, batch_axis="data", momentum=small.step_config().momentum)
    clips = np.zeros((3, 2, 25, 26, 26, 3), np.uint8)

    def step(clips):
        return train_step.train_step(start, {"clips": clips}, step_config=mapped)

    after, metrics = jax.jit(jax.vmap(step, axis_name="data"))(clips)
    t = small.FRAMES
    assert metrics["health/clips"].tolist() == [6, 6, 6]
    assert metrics["health/sum"].tolist() == [t * (0 + 1 + 2 + 3 + 4 + 5)] * 3  # clips 0 to 5
    moved = jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), after.params, start.params)
    gradient = (0 + 2 + 4) / 3  # of the parts that begin with clip 0, 2 and 4
    for leaf in jax.tree.leaves(moved):
        np.testing.assert_allclose(leaf, -1e-3 * gradient / (gradient + 1), rtol=2e-2)  # Adam's first step


def test_a_probe_reads_the_target_and_compares_it_with_the_online_network(step_config, monkeypatch):
    state = small.state(step_config)
    state = state.replace(
        opt_state=optax.tree.set(state.opt_state, target=jax.tree.map(lambda x: x + 1, state.params)),
        target_batch_stats=jax.tree.map(lambda x: x + 2, state.batch_stats),
    )
    told = []
    monkeypatch.setattr(train_step, "infer_wave", lambda network, *trees_and_video: trees_and_video)
    monkeypatch.setattr(train_step.diagnostics, "probe", lambda *args: told.append(args) or {})
    filmed = small.clips(1)
    train_step.probe(state, filmed, step_config=step_config, people=("ann",))
    ((read, clips, size, fps, _, transform, people, online),) = told
    assert clips is filmed and (size, fps, transform, people) == (22, 30.0, "difference", ("ann",))
    for reader, params, batch_stats in (
        (read, state.target_params, state.target_batch_stats),
        (online, state.params, state.batch_stats),
    ):
        own, own_stats, video = reader("video")
        assert video == "video"
        jax.tree.map(np.testing.assert_array_equal, own, params)
        jax.tree.map(np.testing.assert_array_equal, own_stats, batch_stats)


def test_views_are_drawn_anew_at_every_step(start, one_device, batches, two_steps):
    ((_, later),) = run(start.replace(step=np.int32(1)), *one_device, batches[:1])
    assert later["loss"] != two_steps[0][1]["loss"]


def test_same_state_and_batches_give_equal_results(start, one_device, batches, two_steps):
    again = run(start, *one_device, batches)
    jax.tree.map(np.testing.assert_array_equal, again, two_steps)


def test_steps_share_one_trace_and_one_compilation(one_device, two_steps, traces):
    assert len(traces) == 1
    assert one_device[0]._cache_size() == 1


def test_state_is_donated(start, one_device, batches):
    step, mesh = one_device
    state = sharding.place(start, mesh)
    step(state, {"clips": batches[0]})
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.target_params)))


def test_state_shares_no_buffer_between_its_fields(step_config):
    leaves = jax.tree.leaves(small.state(step_config))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


# --- several devices --------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_devices_equal_one(start, step_config, two_steps, batches):
    assert_equal_but_for_rounding(two_steps[:1], run(start, *compiled(step_config, 8), batches[:1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "devices"),
    [("jit", 8), ("jit", 6), ("pmap", 8), ("pmap", 4)],  # six devices: two parts, three copies of each
)
def test_every_way_equals_one_device_over_several_steps(
    start, one_device, step_config, traces, batches, way, devices
):
    more = [*batches, small.clips(CLIPS, seed=2)]
    on_one = run(start, *one_device, more)
    before = len(traces)
    step, mesh = compiled(step_config, devices, way)
    assert_equal_but_for_rounding(on_one, run(start, step, mesh, more))
    assert len(traces) == before + 1
    if devices == 8:
        return
    # Clips that are cut out of frames on the devices, spread over them.
    frames = np.concatenate([batch.reshape(-1, *batch.shape[2:]) for batch in more])
    frames = np.concatenate([frames, np.zeros((-len(frames) % mesh.size, *frames.shape[1:]), np.uint8)])
    held = jax.device_put(frames, sharding.frame_sharding(mesh))
    length = small.FRAMES + 1
    drawn = [
        {"frames": held, "starts": np.arange(s * CLIPS, (s + 1) * CLIPS, dtype=np.int32) * length}
        for s in range(len(more))
    ]
    step, mesh = compiled(step_config, devices, way, clip_frames=small.FRAMES)
    on_device = run(start, step, mesh, drawn)
    assert_equal_but_for_rounding(on_one, on_device)


@pytest.mark.slow
def test_slow_motion_is_the_same_on_eight_devices(step_config, batches):
    # Each clip is played at a speed of its own, wherever it lies.
    # Around the paper's form: the released one divides by sums that are nearly nothing in so short a clip.
    more = small.replace(small.step_config(), optimizer=step_config.optimizer, min_speed=0.8)
    start = jax.device_get(small.state(more))
    one, eight = (run(start, *compiled(more, devices), batches[:1]) for devices in (1, 8))
    assert_equal_but_for_rounding(one, eight)


def test_a_part_of_a_batch_is_played_at_the_speeds_of_its_clips(step_config, monkeypatch):
    """The view of the online network alone is slowed, and the losses are told by how much."""
    slow = small.replace(step_config, min_speed=0.7)
    told = []
    monkeypatch.setattr(train_step, "learn", lambda *args, **_: told.append(args) or (args[0], {}))

    def given(step_config):
        @jax.jit
        def step(state, clips):
            train_step.train_step(state, {"clips": clips}, step_config=step_config)
            return told.pop()[1:]

        return step(small.state(step_config), small.clips(4))

    online, target, speed = given(slow)
    own, target_then, none = given(step_config)
    assert none is None and speed.shape == (4,) and 0.7 <= speed.min() < speed.max() < 1
    np.testing.assert_array_equal(target, target_then)
    assert online.shape == own.shape and np.abs(online - own).max() > 0.1


def test_pmap_computes_no_copies():
    with pytest.raises(ValueError, match="6 devices"):
        pmap_train_step(small.step_config(), sharding.data_mesh(jax.devices()[:6], 8))


@pytest.fixture
def sums(monkeypatch):
    """In the place of a step one that compiles at once: it adds the mean of the batch to the state."""

    def add_mean(state, batch, *, step_config):
        mean = jnp.mean(batch["clips"].astype(jnp.float32))
        if step_config.batch_axis is not None:
            mean = jax.lax.pmean(mean, step_config.batch_axis)
        return {"sum": state["sum"] + mean}, {"loss": mean}

    monkeypatch.setattr(compiled_step, "train_step", add_mean)


@pytest.mark.parametrize("way", STEP_COMPILERS)
@pytest.mark.parametrize("clip_frames", [None, small.FRAMES])
@pytest.mark.usefixtures("sums")
def test_a_step_in_every_way_is_that_of_the_whole_batch_on_the_devices_it_was_given(way, clip_frames):
    mesh = sharding.data_mesh(jax.devices()[2:6], 8)
    step = STEP_COMPILERS[way](small.step_config(), mesh, clip_frames=clip_frames)
    clips, drawn = small.clips(8), [7, 7, 7, 7, 0, 1, 2, 2]
    if clip_frames is None:
        batch = {"clips": sharding.spread_clips(clips[drawn], mesh, 8)}
    else:
        frames = jax.device_put(clips.reshape(-1, *clips.shape[2:]), sharding.frame_sharding(mesh))
        batch = {"frames": frames, "starts": np.array(drawn, np.int32) * (small.FRAMES + 1)}
    mean = clips[drawn].mean()
    first = sharding.place({"sum": jnp.full(2, 3.0)}, mesh)
    second, metrics = step(first, batch)
    assert first["sum"].is_deleted()  # what it was is not needed, and its memory is
    kept, second, metrics = second, *jax.device_get((second, metrics))
    np.testing.assert_allclose(second["sum"], 3 + mean, rtol=1e-5)
    assert metrics["loss"].shape == () and metrics["loss"] == pytest.approx(mean, rel=1e-5)
    assert kept["sum"].shape == (2,) and kept["sum"].is_fully_replicated
    assert kept["sum"].devices() == set(jax.devices()[2:6])
    again, _ = step(kept, batch)
    np.testing.assert_allclose(again["sum"], 3 + 2 * mean, rtol=1e-5)


@pytest.mark.usefixtures("sums")
def test_a_compiled_step_is_given_its_batch_in_parts_and_its_state_whole():
    mesh = sharding.data_mesh(jax.devices()[:4], 4)
    state, clips = {"sum": jnp.zeros(1)}, jax.ShapeDtypeStruct((4, 25, 26, 26, 3), np.uint8)
    frames = jax.ShapeDtypeStruct((100, 26, 26, 3), np.uint8)
    whole = STEP_COMPILERS["jit"](small.step_config(), mesh)
    (of_state, of_batch), _ = whole.lower(state, {"clips": clips}).compile().input_shardings
    assert of_state["sum"].is_fully_replicated
    assert of_batch["clips"].shard_shape(clips.shape) == (1, 25, 26, 26, 3)
    cut = STEP_COMPILERS["jit"](small.step_config(), mesh, clip_frames=24)
    starts = jax.ShapeDtypeStruct((4,), np.int32)
    (_, of_batch), _ = cut.lower(state, {"frames": frames, "starts": starts}).compile().input_shardings
    assert of_batch["frames"].shard_shape(frames.shape) == (25, 26, 26, 3)
    assert of_batch["starts"].is_fully_replicated


def test_steps_and_probes_are_compiled_with_the_options_and_the_form_of_this_processor(monkeypatch):
    options = {"an_option": "that helps"}
    monkeypatch.setattr(compiled_step.compile_options, "options", lambda: options)
    given, told = [], []
    monkeypatch.setattr(compiled_step.jax, "jit", lambda function, **how: given.append((function, how)))
    for name in ("train_step", "probe"):
        note = functools.partial(lambda name, *args, **how: told.append((name, args, how)), name)
        monkeypatch.setattr(compiled_step, name, note)
    mesh = sharding.data_mesh(jax.devices()[:1])
    step_config = small.step_config(conv="auto")
    compiled_step.compile_train_step(step_config, mesh)
    compiled_step.compile_probe(step_config, mesh, ["ann", "bob"])
    for function, how in given:
        assert how["compiler_options"] is options
        function("state", "data")
    (step, _, of_step), (probe, seen, of_probe) = told
    assert (step, probe, seen) == ("train_step", "probe", ("state", "data"))
    assert of_probe["people"] == ["ann", "bob"]
    for form in (of_step, of_probe):
        assert form["step_config"].network == small.network(conv="planes")


def test_parts_of_a_batch_are_in_the_order_of_the_devices():
    clips = small.clips(12)
    for devices, parts in ((8, 4), (5, 1), (3, 3)):
        mesh = sharding.data_mesh(jax.devices()[:devices][::-1], 12)
        assert mesh.shape == {"data": parts, "copy": devices // parts}
        assert sharding.part_of_process(mesh, 12) == slice(0, 12)
        spread = sharding.spread_clips(clips, mesh, 12)
        np.testing.assert_array_equal(spread, clips)
        for shard in spread.addressable_shards:
            first = 12 // parts * (shard.device.id // (devices // parts))
            np.testing.assert_array_equal(shard.data, clips[first : first + 12 // parts])


def assert_equal_but_for_rounding(on_one, on_several):
    for s, (one, several) in enumerate(zip(on_one, on_several, strict=True)):
        slack = 1 if s == 0 else 10  # each step rounds once more, and 1/SNR magnifies it
        for name, value in one[1].items():
            assert several[1][name] == pytest.approx(float(value), rel=slack * 1e-5, abs=1e-6), name
        assert_states_equal_but_for_rounding(one[0], several[0], slack)


def assert_states_equal_but_for_rounding(one, several, slack):
    # An update is 1e-3 of a parameter, and Adam's first one is as large where the gradient is hardly more
    # than its rounding: 2 % of an update. Moments hold gradients of 1/SNR, which is ill-conditioned here.
    for field, relative in (
        ("params", 2e-5),
        ("target_params", 1e-5),
        ("batch_stats", 1e-5),
        ("target_batch_stats", 1e-5),
        ("opt_state", 1e-3),
    ):
        leaves = jax.tree_util.tree_leaves_with_path(getattr(one, field))
        for (path, leaf), other in zip(leaves, jax.tree.leaves(getattr(several, field)), strict=True):
            atol = slack * relative * max(np.max(np.abs(leaf)), 1.0 if field != "opt_state" else 1e-4)
            np.testing.assert_allclose(other, leaf, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))


# --- whatever comes in ------------------------------------------------------------------------------


def frozen(batch):
    """Clips of one frame each, repeated: all differences, features and waves are flat."""
    return np.repeat(batch[:, :1], batch.shape[1], axis=1)


def test_frozen_clips_leave_everything_finite(start, one_device, batches):
    assert_finite(run(start, *one_device, [frozen(batches[0])]))


@pytest.mark.slow
def test_frozen_clips_leave_everything_finite_in_the_released_form(batches):
    step_config = small.step_config(presets.RELEASED)
    assert_finite(run(small.state(step_config), *compiled(step_config), [frozen(batches[0])]))


@pytest.mark.slow
def test_bfloat16_network_keeps_parameters_and_metrics_in_float32():
    step_config = small.step_config(dtype="bfloat16")
    outcome = abstract_step(step_config)
    for path, leaf in jax.tree_util.tree_leaves_with_path(outcome):
        assert leaf.dtype in (jnp.float32, jnp.int32), jax.tree_util.keystr(path)
    assert_finite(first_loss(step_config))


@pytest.mark.slow
def test_bfloat16_network_learns(batches):
    step_config = small.step_config(dtype="bfloat16")
    assert_finite(run(small.state(step_config), *compiled(step_config), batches))


def abstract_step(step_config, transform=jax.eval_shape):
    """Trace a step, without compiling it."""
    step = functools.partial(train_step.train_step, step_config=step_config)
    clips = jax.ShapeDtypeStruct((2, small.FRAMES + 1, small.CROP, small.CROP, 3), jnp.uint8)
    return transform(step, jax.eval_shape(lambda: small.state(step_config)), {"clips": clips})


def first_loss(step_config):
    """The loss of two clips at the start, without a step."""
    state = small.state(step_config)
    loss_fn = jax.jit(functools.partial(train_step.loss_fn, step_config=step_config))
    return loss_fn(state.params, state, small.differences(seed=0), small.differences(seed=1))


@pytest.mark.parametrize("form", FORMS)
def test_no_fft_sees_half_precision(form):
    step_config = small.step_config(FORMS[form], dtype="bfloat16")
    jaxpr = abstract_step(step_config, lambda step, *inputs: jax.make_jaxpr(step)(*inputs)).jaxpr
    dtypes = {
        variable.aval.dtype.name
        for equation in _equations(jaxpr)
        if equation.primitive.name == "fft"
        for variable in (*equation.invars, *equation.outvars)
    }
    assert dtypes == {"float32", "complex64"}


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(_open(v), "eqns")):
            if hasattr(_open(value), "eqns"):
                yield from _equations(_open(value))


def _open(value):
    """The jaxpr in a closed one; anything else as it is."""
    return getattr(value, "jaxpr", value)


@pytest.mark.parametrize(
    ("form", "fps", "network"),
    [
        ("paper", 25.0, {"ts_strides": (2, 2)}),  # 12.5 and 6.25 Hz
        pytest.param("released", 25.0, {}, marks=pytest.mark.slow),
    ],
)
def test_strides_and_other_frame_rates_have_a_finite_loss(form, fps, network):
    loss, (terms, *_) = first_loss(small.step_config(FORMS[form], fps=fps, **network))
    assert_finite((loss, terms))
    assert terms["similarity_deviation"] > 0


# --- frozen parts -----------------------------------------------------------------------------------


def test_frozen_parts_do_not_move_and_carry_no_moments():
    params = {label: {"kernel": jnp.full(2, float(i))} for i, label in enumerate(param_labels.LABELS, 1)}
    momentum = small.step_config().momentum
    optimizer = train_step.make_optimizer(0.1, momentum, frozen=("backbone", "ts"))
    state = optimizer.init(params)
    moments = optax.tree.get_all_with_path(state, "mu")
    assert len(jax.tree.leaves([tree for _, tree in moments])) == 1
    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    stepped, target = optax.apply_updates(params, updates), optax.tree.get(state, "target")
    for label in ("backbone", "ts"):
        np.testing.assert_array_equal(stepped[label]["kernel"], params[label]["kernel"])
        np.testing.assert_allclose(target[label]["kernel"], params[label]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(stepped["predictor"]["kernel"], 3 - 0.1, rtol=1e-6)
    np.testing.assert_allclose(target["predictor"]["kernel"], 3 - 0.1 * 0.1, rtol=1e-6)

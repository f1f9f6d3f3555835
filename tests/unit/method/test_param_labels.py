"""Which loss reaches which parameters: exact zeros, in both forms, for every term."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_training as small

from sspd_jax.method import losses, param_labels
from sspd_jax.training import presets
from sspd_jax.training import step as train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

FORMS = {"paper": presets.PAPER, "released": presets.RELEASED}
SETTINGS = {"similarity_deviation": {"weight": 1.0, "weight_by_length": True, "ddof": 1}}
EVERY_TERM = {name: SETTINGS.get(name, {"weight": 1.0}) for name in losses.TERMS}


# What reaches what is the same in both forms by `stop_gradient`; one of them compiles for nine seconds.
@pytest.fixture(scope="module", params=["paper", pytest.param("released", marks=pytest.mark.slow)])
def gradients(request, quick_compilation):
    """Gradients of every term, {term: {'online': …, 'target': …, …}}, with respect to all that is float."""
    step_config = small.step_config(FORMS[request.param], ts_kernels=(5,), ts_strides=(1,))
    step_config = small.replace(step_config, terms=EVERY_TERM)
    state = small.state(step_config)

    @jax.jit
    @jax.grad
    def weighted(values, weights):
        ema = state.opt_state[-1]._replace(target=values["target"])
        whole = state.replace(
            batch_stats=values["batch_stats"],
            target_batch_stats=values["target_batch_stats"],
            opt_state=(*state.opt_state[:-1], ema),
        )
        _, (terms, *_) = train_step.loss_fn(
            values["online"], whole, values["online_video"], values["target_video"], step_config=step_config
        )
        return sum(weights[name] * value for name, value in terms.items())

    # The networks differ: at the very start some terms between them are at a minimum.
    values = {
        "online": state.params,
        "target": small.state(step_config, seed=1).params,
        "batch_stats": state.batch_stats,
        "target_batch_stats": state.target_batch_stats,
        "online_video": small.differences(seed=0),
        "target_video": small.differences(seed=1),
    }
    return {
        term: weighted(values, {name: np.float32(name == term) for name in EVERY_TERM}) for term in EVERY_TERM
    }


def by_label(tree):
    parts = {label: [] for label in param_labels.LABELS}
    for label, leaf in zip(jax.tree.leaves(param_labels.labels(tree)), jax.tree.leaves(tree), strict=True):
        parts[label].append(np.asarray(leaf))
    return parts


@pytest.mark.parametrize("term", losses.TERMS)
def test_a_term_moves_what_it_may_reach_and_nothing_else(gradients, term):
    reach = param_labels.REACH[term.split("_")[0]]
    for label, leaves in by_label(gradients[term]["online"]).items():
        assert leaves
        if label in reach:
            assert any(np.any(leaf) for leaf in leaves), f"{term} does not move {label}"
        else:
            assert not any(np.any(leaf) for leaf in leaves), f"{term} moves {label}"


@pytest.mark.parametrize("term", losses.TERMS)
def test_no_term_reaches_the_target_or_any_running_statistic(gradients, term):
    for name in ("target", "batch_stats", "target_batch_stats", "target_video"):
        leaves = jax.tree.leaves(gradients[term][name])
        assert leaves
        assert not any(np.any(leaf) for leaf in leaves), f"{term} reaches {name}"


def test_waves_do_not_even_reach_the_video_through_the_backbone(gradients):
    for term in losses.WAVE_TERMS:
        assert not np.any(gradients[term]["online_video"])
    for term in losses.SIMILARITY_TERMS:
        assert np.any(gradients[term]["online_video"])


def test_every_kind_of_term_has_a_reach():
    assert {name.split("_")[0] for name in losses.TERMS} == set(param_labels.REACH)
    assert set().union(*param_labels.REACH.values()) == set(param_labels.LABELS)
    assert set(losses.WAVE_TERMS) | set(losses.SIMILARITY_TERMS) == set(losses.TERMS)
    assert all(name.startswith("wave_") for name in losses.WAVE_TERMS)
    assert all(name.startswith("similarity_") for name in losses.SIMILARITY_TERMS)
    for form in FORMS.values():
        assert set(form["terms"]) <= set(losses.TERMS)


def test_an_unknown_parameter_is_refused_by_name():
    params = {"backbone": {"kernel": jnp.ones(1)}, "head": {"bias": jnp.ones(1)}}
    with pytest.raises(ValueError, match=r"\['head'\]\['bias'\]"):
        param_labels.labels(params)
    with pytest.raises(ValueError, match="no known part"):
        param_labels.labels(jnp.ones(3))
    with pytest.raises(ValueError, match="no known part"):
        param_labels.labels([jnp.ones(3)])

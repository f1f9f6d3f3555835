"""The three ways of writing a 3-D convolution compute the same, forward and backward."""

import inspect

import jax
import jax.numpy as jnp
import method_oracles as oracle
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sspd_jax.method.layers import conv3d as conv

pytestmark = pytest.mark.usefixtures("quick_compilation")


def draw(x_shape, kernel_shape, dtype=np.float32):
    rng = np.random.default_rng(0)
    return (jnp.asarray(rng.normal(0, 1, shape), dtype) for shape in (x_shape, kernel_shape))


def output_and_gradients(x, kernel, time_padding, form):
    """The output, and the pull-back of a fixed cotangent, in one compilation."""

    @jax.jit
    def compute(x, kernel):
        out, pull_back = jax.vjp(
            lambda x, k: conv.conv3d(x, k, time_padding=time_padding, form=form), x, kernel
        )
        cotangent = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype)
        return out, *pull_back(cotangent)

    return compute(x, kernel)


@pytest.mark.parametrize("form", ["direct", "matmul", "planes"])
@pytest.mark.parametrize(
    ("time_padding", "kernel"), [(1, (3, 3, 2, 2, 3)), (0, (1, 2, 3, 2, 5)), (0, (2, 1, 1, 2, 3))]
)
def test_every_form_equals_the_loop(form, time_padding, kernel):
    x, kernel = draw((2, 4, 5, 6, 2), kernel)
    expected = np.stack([oracle.conv3d(clip, kernel, time_padding) for clip in x])
    np.testing.assert_allclose(
        conv.conv3d(x, kernel, time_padding=time_padding, form=form), expected, rtol=1e-5, atol=1e-5
    )


@st.composite
def problems(draw):
    kt, time_padding = draw(st.sampled_from([(3, 1), (1, 0), (3, 0), (1, 1)]))
    kh, kw = draw(st.sampled_from([(3, 3), (5, 5), (1, 2), (2, 1)]))
    c = draw(st.sampled_from([1, 2, 3, 4, 8, 9]))  # from 8 on, 'planes' combines frames
    c_out = draw(st.sampled_from([1, kt * c, kt * c + 1, 13]))  # taps beside the outputs, or the inputs
    n, extra = draw(st.integers(1, 2)), draw(st.tuples(*[st.integers(0, 4)] * 3))
    sizes = (max(kt - 2 * time_padding, 1) + extra[0], kh + extra[1], kw + extra[2])
    return (n, *sizes, c), (kt, kh, kw, c, c_out), time_padding


@pytest.mark.parametrize("form", ["matmul", "planes"])
@settings(max_examples=3, deadline=None, derandomize=True)
@given(problems())
@example(((1, 3, 3, 3, 1), (1, 3, 3, 1, 1), 1))  # padding wider than the kernel
def test_other_forms_equal_direct_with_their_gradients(form, problem):
    x_shape, kernel_shape, time_padding = problem
    x, kernel = draw(x_shape, kernel_shape)
    actual = output_and_gradients(x, kernel, time_padding, form)
    for a, e in zip(actual, output_and_gradients(x, kernel, time_padding, "direct"), strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, atol=1e-5 * max(np.abs(e).max(), 1))


@pytest.mark.parametrize("c_out", [2, 16])
def test_many_blocks_of_frames_equal_one(c_out):
    # 40 × 40 outputs: one frame a block, twelve blocks.
    x, kernel = draw((2, 6, 42, 42, 2), (3, 3, 3, 2, c_out))
    assert conv._frames_per_block(6, 40 * 40) == 1
    for a, e in zip(
        *(output_and_gradients(x, kernel, 1, form) for form in ("matmul", "direct")), strict=True
    ):
        np.testing.assert_allclose(a, e, atol=1e-5 * np.abs(e).max())


@pytest.mark.parametrize("c", [2, 8])
def test_many_blocks_of_planes_equal_one(monkeypatch, c):
    # Fourteen frames in blocks of eight: the second is filled up with frames that do not count.
    x, kernel = draw((2, 14, 10, 10, c), (3, 3, 3, c, 3))
    monkeypatch.setattr(conv, "_PIXELS_PER_BLOCK", 100)
    assert conv._block_length(14, 100) == 8
    for a, e in zip(
        *(output_and_gradients(x, kernel, 1, form) for form in ("planes", "direct")), strict=True
    ):
        np.testing.assert_allclose(a, e, atol=1e-5 * np.abs(e).max())


@pytest.mark.parametrize("c_out", [2, 16])
def test_bfloat16_stays_bfloat16_and_close(c_out):
    x, kernel = draw((1, 5, 6, 6, 2), (3, 3, 3, 2, c_out), jnp.bfloat16)
    wide = output_and_gradients(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, "direct")
    for form in ("matmul", "planes", "direct"):
        for a, e in zip(output_and_gradients(x, kernel, 1, form), wide, strict=True):
            assert a.dtype == jnp.bfloat16
            np.testing.assert_allclose(a.astype(jnp.float32), e, atol=0.03 * np.abs(e).max())


def test_every_form_is_differentiable_under_vmap():
    x, kernel = draw((2, 1, 3, 4, 4, 8), (3, 3, 3, 8, 2))

    def total(kernel, x, form):
        return jnp.sum(jnp.sin(conv.conv3d(x, kernel, form=form)))

    each = {
        form: jax.jit(jax.vmap(lambda x, form=form: jax.grad(total)(kernel, x, form)))(x)
        for form in ("matmul", "planes", "direct")
    }
    for form in ("matmul", "planes"):
        np.testing.assert_allclose(each[form], each["direct"], atol=1e-5 * np.abs(each["direct"]).max())


def test_auto_is_matmul_on_cpu_only(monkeypatch):
    assert conv.resolve_form("direct") == "direct"
    for backend, form in (("cpu", "matmul"), ("gpu", "direct"), ("tpu", "direct")):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert conv.resolve_form("auto") == form


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'fft'"):
        conv.conv3d(*draw((1, 3, 3, 3, 1), (3, 3, 3, 1, 1)), form="fft")


@pytest.mark.parametrize(
    ("x", "kernel", "time_padding"),
    [
        ((1, 3, 3, 3, 2), (3, 3, 3, 1, 1), 1),
        ((1, 2, 3, 3, 1), (3, 3, 3, 1, 1), 0),
        ((1, 3, 2, 3, 1), (3, 3, 3, 1, 1), 1),
        ((1, 3, 3, 2, 1), (3, 3, 3, 1, 1), 1),
    ],
    ids=["channels", "time", "height", "width"],
)
def test_kernel_that_does_not_fit_is_refused(x, kernel, time_padding):
    # Unwrapped, as users have it: the tests' own check of shapes would speak first.
    with pytest.raises(ValueError, match="does not fit"):
        inspect.unwrap(conv.conv3d)(*draw(x, kernel), time_padding=time_padding)

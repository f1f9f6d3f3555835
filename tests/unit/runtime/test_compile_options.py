"""What the compiler is told, and that it listens."""

import jax
import jax.numpy as jnp
import pytest

from sspd_jax.runtime import compile_options


@pytest.fixture
def fresh_options():
    compile_options.options.cache_clear()
    yield
    compile_options.options.cache_clear()


def test_convolutions_stay_with_eigen():
    assert jax.default_backend() == "cpu"

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    pictures, kernel = jnp.zeros((2, 57, 57, 16)), jnp.zeros((3, 3, 16, 32))
    compiled = jax.jit(convolve, compiler_options=compile_options.options()).lower(pictures, kernel).compile()
    assert "ynn" not in compiled.as_text()


def test_option_that_the_compiler_does_not_know_is_left_out(fresh_options, monkeypatch):
    monkeypatch.setattr(compile_options, "_NO_CONVOLUTION", {"xla_cpu_no_such_option": ""})
    assert compile_options.options() == {}
    assert compile_options.conv_form("auto") == "auto"


def test_accelerators_are_told_nothing(fresh_options, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compile_options.options() == {}


def test_a_form_that_was_asked_for_stays():
    assert compile_options.conv_form("direct") == "direct"
    assert compile_options.conv_form("auto") == ("planes" if compile_options.options() else "auto")

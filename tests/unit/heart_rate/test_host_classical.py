"""The NumPy twins of the classical methods: equal to the ones that are differentiated."""

import jax
import numpy as np
import pytest

from sspd_jax.heart_rate import classical, host_classical

pytestmark = pytest.mark.usefixtures("quick_compilation")


def compiled(name, rgb, fps):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(classical.METHODS[name], static_argnums=1)(np.asarray(rgb), fps))


@pytest.mark.parametrize("name", host_classical.METHODS)
@pytest.mark.parametrize(("samples", "fps"), [(131, 30.0), (200, 25.0)])
def test_twins_are_equal(name, samples, fps):
    rng = np.random.default_rng(1)
    rgb = 100 + np.cumsum(rng.normal(0, 0.3, (3, samples, 3)), axis=1)
    rgb[1, :, 2] = 0  # no blue light at all
    found = host_classical.METHODS[name](rgb, fps)
    np.testing.assert_allclose(found, compiled(name, rgb, fps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", host_classical.METHODS)
def test_a_frozen_picture_stands_still(name):
    found = host_classical.METHODS[name](np.full((120, 3), 97.3), 30.0)
    assert np.ptp(found) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["pos", "chrom"])
def test_too_short_a_trace_is_refused_in_the_same_words(name):
    short = np.ones((30, 3))
    with pytest.raises(ValueError, match="samples") as here:
        host_classical.METHODS[name](short, 30.0)
    with pytest.raises(ValueError, match="samples") as there:
        compiled(name, short, 30.0)
    assert str(here.value) == str(there.value)


def test_every_method_has_its_name_here():
    assert set(host_classical.NAMES) == set(classical.METHODS)
    assert set(host_classical.METHODS) < set(host_classical.NAMES)


def test_a_method_without_a_twin_is_compiled_and_bad_values_are_refused_alike():
    rgb = 100 + np.random.default_rng(2).normal(size=(120, 3))
    assert host_classical.read_trace("lgi", rgb, 30.0).shape == (120,)
    rgb[3] = np.nan
    with pytest.raises(ValueError, match="3 values that are not finite"):
        host_classical.read_trace("pos", rgb, 30.0)


@pytest.mark.parametrize("name", ["pos", "chrom"])
def test_what_moves_by_less_than_rounding_stands_still_and_ten_times_more_is_read(name):
    """A deviation is relative and a root of a mean square: the window's length does not enter."""
    turn = 2 * np.pi * 1.3 * np.arange(200) / 30
    for relative, reads in ((2e-10, False), (2e-8, True)):
        rgb = 100 * (1 + relative * np.sin(turn)[:, None] * [0.33, 0.77, 0.53])
        for found in (host_classical.METHODS[name](rgb, 30.0), compiled(name, rgb, 30.0)):
            assert (np.ptp(found) > relative / 10) == reads

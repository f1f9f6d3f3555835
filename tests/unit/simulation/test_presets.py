"""How hard simulated recordings are."""

import dataclasses

import pytest

from sspd_jax.simulation import presets


def test_presets_get_harder_and_are_frozen():
    easy, default, hard = (presets.PRESETS[name] for name in ("easy", "default", "hard"))
    assert easy.burst_px == easy.band_light == easy.band_colour == default.band_colour == 0
    assert default.burst_px > 0
    assert hard.band_colour > 0.002
    with pytest.raises(dataclasses.FrozenInstanceError):
        easy.noise = 0

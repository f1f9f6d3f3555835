"""The names of settings in Python: those of the command are understood, unknown ones are named."""

import numpy as np
import pytest

import sspd_jax
from sspd_jax.errors import ConfigError, UserError

BLACK = np.zeros((30, 48, 64, 3), np.uint8)


@pytest.mark.parametrize(("name", "new"), [("window", "window_s"), ("stride", "stride_s")])
def test_the_commands_names_work_and_say_the_new_one(name, new):
    with (
        pytest.warns(DeprecationWarning, match=f"{name} is called {new} now") as caught,
        pytest.raises(UserError),
    ):
        sspd_jax.read(BLACK, fps=30, **{name: 5})
    assert caught[0].filename == __file__


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match="no setting 'min_confidense'; did you mean 'min_confidence'"):
        sspd_jax.read(BLACK, fps=30, min_confidense=0.5)

"""One training a work directory: a second one is refused, and a dead process keeps nobody out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sspd_jax.errors import UserError
from sspd_jax.training.workdir import alone_in

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from etils import epath
from sspd_jax.training.workdir import alone_in
with alone_in(epath.Path(sys.argv[1])):
    print("there", flush=True)
    time.sleep(60)
"""


def test_a_second_training_is_refused_until_the_first_one_ends_however_it_does(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "there\n"
        with pytest.raises(UserError, match="another process trains in it; wait"), alone_in(tmp_path):
            pass
        first.kill()
        first.wait(10)
        with alone_in(tmp_path):
            pass
    with alone_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []

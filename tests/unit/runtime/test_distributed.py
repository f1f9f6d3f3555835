"""Several processes: what is asked of them fits together, or a sentence says what does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from sspd_jax.errors import ConfigError
from sspd_jax.runtime import distributed

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("mode", "given", "says"),
    [
        ("off", {"coordinator": "a:1"}, r"--coordinator means several processes: add --config.distributed=a"),
        ("off", {"count": 2, "index": 0}, "--num_processes, --process_id means several"),
        ("auto", {"coordinator": "a:1"}, "--num_processes, --process_id is missing: give all of"),
        ("auto", {"coordinator": "a:1", "count": 2, "index": 2}, "--process_id 2 must be 0 to 1"),
        ("auto", {"coordinator": "a:1", "count": 2, "index": -1}, "--process_id -1 must be 0 to 1"),
    ],
)
def test_what_does_not_fit_together_is_said(mode, given, says):
    with pytest.raises(ConfigError, match=says):
        distributed.start(mode, **given)


def test_one_process_does_everything_itself():
    distributed.start("off")
    assert distributed.is_first()
    assert (
        distributed.together("work", lambda: 3) == distributed.together("it", lambda: 3, first_only=True) == 3
    )
    assert distributed.everywhere(True) and not distributed.everywhere(False)
    distributed.require_same("it", 1, "")


@pytest.mark.slow
def test_auto_where_nothing_tells_of_others_is_said(tmp_path):
    command = [
        *(sys.executable, "-m", "sspd_jax.main", "--config=configs/ubfc.py:smoke"),
        *("--config.distributed=auto", f"--workdir={tmp_path / 'run'}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: config distributed is 'auto' and nothing here tells of other processes")
    assert "--coordinator" in line and not (tmp_path / "run").exists()

"""One training a work directory: a second one is refused, and a dead process keeps nobody out."""

import copy
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.training import config as experiments
from sspd_jax.training.workdir import alone_in, claim_workdir, refuse_another

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


SET = ("data.source", "data.data_dir", "data.on_device", "data.skin", "data.workers", "log_every", "parallel",
       "evaluation.region", "checkpoint.keep", "checkpoint.every_steps", "distributed", "compilation_cache",
       "network.conv", "network.rematerialise")  # fmt: skip


def test_a_run_goes_on_with_the_same_numbers_or_not_at_all(tmp_path):
    """Of all keys, another value is refused by name, but for those that change no number."""
    config = experiments.load("ubfc")
    claim_workdir(config, tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    for key in flatten_dict(stored, sep="."):
        other = copy.deepcopy(stored)
        *tables, name = key.split(".")
        functools.reduce(dict.__getitem__, tables, other)[name] = "another"
        path.write_text(json.dumps(other))
        if key in SET:
            assert refuse_another(config, tmp_path), key
        else:
            with pytest.raises(ConfigError, match=f"{re.escape(key)} = 'another', not "):
                refuse_another(config, tmp_path)


@pytest.mark.parametrize("face_crop", ["box", "skin"])
def test_a_run_of_before_there_was_a_choice_read_boxes(tmp_path, face_crop):
    config = experiments.load("ubfc", [f"face_crop={face_crop}"])
    stored = json.loads(config.to_json())
    del stored["face_crop"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    if face_crop == "box":
        assert refuse_another(config, tmp_path)
    else:
        with pytest.raises(ConfigError, match="face_crop = 'box', not 'skin'"):
            refuse_another(config, tmp_path)


def test_a_new_work_directory_is_made_and_a_strange_one_is_refused(tmp_path):
    config = experiments.load("ubfc")
    assert not refuse_another(config, tmp_path / "new") and not (tmp_path / "new").exists()
    claim_workdir(config, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text()) == json.loads(config.to_json())
    (tmp_path / "new" / "config.json").write_text(json.dumps({**json.loads(config.to_json()), "odd": 3}))
    with pytest.raises(ConfigError, match="odd = 3, which this one does not have"):
        claim_workdir(config, tmp_path / "new")
    (tmp_path / "new" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        claim_workdir(config, tmp_path / "new")

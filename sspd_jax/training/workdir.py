"""A run's directory: what lies where, and whom it belongs to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import ml_collections
from etils import epath
from flax.traverse_util import flatten_dict

from sspd_jax.checkpoints import renamed_keys
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.runtime import metrics_log, storage
from sspd_jax.video.crop import BOX

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
CACHE = "compilation_cache"
NETWORK = "network"
MEASURED = "measured"
LEARNED_BEFORE = "learned_before.json"


def claim_workdir(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Make the work directory, or check that it belongs to this experiment.

    Raises:
      ConfigError: It holds another experiment; the message names the first key that differs.
      UserError: It cannot be written.
    """
    path = workdir / CONFIG
    if refuse_another(config, workdir):
        return
    ours = json.loads(config.to_json())
    with storage.storing(workdir, metrics_log.ELSEWHERE, (OSError,)):
        workdir.mkdir(parents=True, exist_ok=True)
    storage.write_text(path, json.dumps(ours, indent=2) + "\n", otherwise=metrics_log.ELSEWHERE)


def refuse_another(config: ml_collections.ConfigDict, workdir: epath.Path) -> bool:
    """Check that a work directory, if it is there, belongs to this experiment; writes nothing.

    Returns:
      Whether it is there.

    Raises:
      ConfigError: It holds another experiment; the message names the first key that differs.
      UserError: It is damaged or cannot be read.
    """
    ours = json.loads(config.to_json())
    path = workdir / CONFIG
    with storage.storing(workdir, metrics_log.ELSEWHERE, (OSError,)):
        found = path.read_bytes() if path.exists() else None
    if found is None:
        return False
    try:
        theirs = flatten_dict(renamed_keys.translate(json.loads(found)), sep=".")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is damaged; delete it, or choose another --workdir") from error
    ours = flatten_dict(ours, sep=".")
    if unknown := sorted(set(theirs) - set(ours)):
        key = unknown[0]
        raise ConfigError(
            f"{workdir}: holds an experiment with {key} = {theirs[key]!r}, which this one does not have; "
            "choose another --workdir, or delete this one"
        )
    theirs = {**NEW, **theirs}
    for key, value in sorted(ours.items()):
        if key not in IGNORED_ON_RESUME and theirs.get(key) != value:
            raise ConfigError(
                f"{workdir}: holds an experiment with {key} = {theirs.get(key)!r}, not {value!r}; "
                "choose another --workdir, or delete this one"
            )
    return True


@contextlib.contextmanager
def alone_in(workdir: epath.Path) -> Iterator[None]:
    """Keep a second training out of a work directory, until this block, or this process, ends.

    Raises:
      UserError: Another process trains there.
    """
    taken = "another process trains in it; wait until it is done, or choose another --workdir"
    with storage.alone_in(workdir, metrics_log.ELSEWHERE, taken):
        yield


def require_shared(workdir: epath.Path) -> None:
    """Check that this process sees the work directory that the first one made.

    Raises:
      UserError: It does not.
    """
    if not (workdir / CONFIG).exists():
        raise UserError(
            f"{workdir}: is not the first process's; choose a --workdir that all processes see: a shared "
            "disk, or gs://"
        )


NEW = {"face_crop": BOX}
"""Keys that runs of earlier versions lack, and what they did."""

IGNORED_ON_RESUME = frozenset(
    {
        "data.source",
        "data.data_dir",
        "data.on_device",
        "data.skin",
        "evaluation.region",
        "data.workers",
        "log_every",
        "checkpoint.keep",
        "checkpoint.every_steps",
        "parallel",
        "distributed",
        "compilation_cache",
        "network.conv",
        "network.rematerialise",
    }
)
"""Keys that may change between a run and its continuation: they change no number, beyond rounding."""

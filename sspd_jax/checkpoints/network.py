"""Networks on disk: an Orbax checkpoint holding a network's settings, parameters and statistics.

Layout of a checkpoint directory: item `config` (JSON: the tables `network`, `fps`, `crop_size` and where
the network came from) and item `network` (the trees `params` and `batch_stats`). Orbax writes aside and
renames, so a directory of that name is always whole; paths may be on any file system that `etils.epath`
knows, such as `gs://`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from sspd_jax.checkpoints import renamed_keys
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.method import network
from sspd_jax.method.settings import NetworkSettings, network_settings
from sspd_jax.runtime import processes, storage

OF_RUN = "network/target"  # in a work directory: the network that a training gives
MAKE_ONE = "`python -m sspd_jax convert WEIGHTS.pth --output=DIR` makes one"


def save_network(directory: epath.PathLike, config: Mapping[str, Any], params: Any, batch_stats: Any) -> None:
    """Write a network to a new checkpoint directory.

    Args:
      directory: The directory to make; must not exist yet.
      config: Plain tables, `network` (see `NetworkSettings`) and `fps` (Hz) among them.
      params: Parameters, a nested dict of float32; those of the TS blocks may be absent.
      batch_stats: Running statistics, a nested dict of float32.

    Raises:
      UserError: The directory exists or cannot be written.
    """
    directory = epath.Path(directory)
    items = ocp.args.Composite(
        config=ocp.args.JsonSave(json.loads(json.dumps(config))),
        network=ocp.args.StandardSave({"params": params, "batch_stats": batch_stats}),
    )
    with storage.storing(directory, errors=(OSError, ValueError)), quiet_stragglers():
        if directory.exists():
            raise UserError(f"{directory}: exists already; delete it or choose another output directory")
        with _checkpointer() as checkpointer:
            checkpointer.save(storage.absolute(directory.expanduser()), items)


def load_network(directory: epath.PathLike) -> tuple[dict[str, Any], Any, Any]:
    """Read a network from a checkpoint directory.

    Args:
      directory: A checkpoint written by `save_network`.

    Returns:
      The configuration's tables (under today's keys), the parameters and the statistics (nested dicts of
      float32).

    Raises:
      UserError: It is missing, is no checkpoint, is damaged, or holds another network than it says.
    """
    processes.require_whole()
    directory = find_network(directory)
    if not directory.exists():
        raise UserError(f"{directory}: no such checkpoint; {MAKE_ONE}")
    if not (directory / "config").exists() and (found := _of_training(directory)):
        raise UserError(f"{directory}: holds states of a training, not a network; give {found}")
    if not _is_network(directory):
        near = _near(directory)
        raise UserError(
            f"{directory}: is not a checkpoint of a network; {f'give {near}' if near else MAKE_ONE}"
        )
    try:
        with quiet_stragglers(), _checkpointer() as checkpointer:
            path = storage.absolute(directory.expanduser())
            config = checkpointer.restore(path, ocp.args.Composite(config=ocp.args.JsonRestore())).config
            config = renamed_keys.translate(config)
            settings = network_settings(config)
            stored = checkpointer.restore(
                path, ocp.args.Composite(network=_as_arrays(checkpointer, path))
            ).network
        params, batch_stats = stored["params"], stored["batch_stats"]
    except ConfigError as error:
        raise UserError(f"{directory}: holds another kind of network ({error}); {MAKE_ONE}") from error
    except Exception as error:  # Orbax and its storage raise a dozen kinds for damaged files
        raise UserError(f"{directory}: is damaged ({_brief(error)}); {MAKE_ONE}") from error
    _check_shapes(directory, settings, params, batch_stats)
    return config, params, batch_stats


def find_network(directory: epath.PathLike) -> epath.Path:
    """Return a network's own directory where a training's work directory, or its `network`, is given."""
    directory = epath.Path(directory)
    if not (directory / "config").exists():
        for inside in (directory / OF_RUN, directory / epath.Path(OF_RUN).name):
            if (inside / "config").exists():
                return inside
    return directory


def _is_network(directory: epath.Path) -> bool:
    """Tell whether a directory has both items of a checkpoint."""
    return (directory / "config").exists() and (directory / "network").exists()


def _near(directory: epath.Path) -> epath.Path | None:
    """Return the network that a directory is a part of, or lies beside; None: there is none."""
    for folder in (directory.parent, directory.parent.parent):
        for one in (folder, folder / OF_RUN):
            if _is_network(one):
                return one
    return None


def _of_training(directory: epath.Path) -> epath.Path | None:
    """Return the network of the training whose states a directory holds, None if it holds none."""
    for folder in (directory, directory.parent):
        network = folder.parent / OF_RUN
        if folder.name == "checkpoints" and (network / "config").exists():
            return network
    return None


def _checkpointer() -> ocp.Checkpointer:
    """Open a checkpointer with which, of several processes, the one that asks reads and writes alone."""
    alone = {}
    if jax.process_count() > 1:
        me = jax.process_index()
        alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"network_of_{me}"
        )
    composite = {"composite_options": ocp.CompositeOptions(**alone)} if alone else {}
    handlers = {
        "config": ocp.JsonCheckpointHandler(**alone),
        "network": ocp.StandardCheckpointHandler(**alone),
    }
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**composite, **handlers), **alone)


@contextlib.contextmanager
def quiet_stragglers() -> Iterator[None]:
    """Keep reads and writes that end after a failed one from printing tracebacks of their own.

    Orbax handles all arrays at once; when one fails it closes the event loop that the others still report to.
    A failure in one of its threads it both logs, traceback and all, and raises: what it raises is said.
    """
    previous_hook = after = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not any(text in str(unraisable.exc_value) for text in _STRAGGLERS):
            previous_hook(unraisable)

    def is_news(record: logging.LogRecord) -> bool:
        if "Requested `tracked_metric`" in record.getMessage():
            return False  # the middle of an epoch has no score
        return record.levelno < logging.ERROR or "orbax" not in record.pathname

    sys.unraisablehook = hook
    log = logging.getLogger("absl")
    log.addFilter(is_news)
    try:
        yield
    except BaseException:
        # The other arrays' futures complain too, but only once they are collected, after this block: from the
        # first failure on these filters stay.
        after = hook
        logging.getLogger("asyncio").addFilter(_is_no_straggler)
        warnings.filterwarnings("ignore", r"coroutine '.*serialize.*' was never awaited", RuntimeWarning)
        time.sleep(0.5)  # for the stragglers
        raise
    finally:
        sys.unraisablehook = after
        log.removeFilter(is_news)


_STRAGGLERS = ("Event loop is closed", "OCDBT", "TensorStore", "reading array index")
"""What the texts of such late failures hold."""


def _is_no_straggler(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return "never retrieved" not in record.getMessage() or not any(text in str(error) for text in _STRAGGLERS)


def _as_arrays(checkpointer: ocp.Checkpointer, path: epath.Path) -> ocp.args.StandardRestore:
    """Ask for every array on this machine's first device, whatever it was saved from."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    stored = checkpointer.metadata(path).item_metadata.network.tree
    return ocp.args.StandardRestore(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), stored)
    )


def _check_shapes(directory: epath.Path, settings: NetworkSettings, params: Any, batch_stats: Any) -> None:
    expected = dict(zip(("params", "batch_stats"), network.abstract_variables(settings), strict=True))
    if "ts" not in params:  # a network for inference alone
        expected["params"].pop("ts")
    shapes = [
        {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
        for leaves in (
            jax.tree_util.tree_leaves_with_path(tree)
            for tree in (expected, {"params": params, "batch_stats": batch_stats})
        )
    ]
    wrong = sorted(
        name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)
    )
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{directory}: holds another network than its config says: {name} has shape "
            f"{shapes[1].get(name, 'none')}, expected {shapes[0].get(name, 'none')}; {MAKE_ONE}"
        )


def _brief(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]

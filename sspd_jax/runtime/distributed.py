"""Several processes as one training: who is here, who writes, and one sentence from all when one fails.

The same command is started on every host. `start` joins them before anything touches a device; after that
`jax.devices()` is everybody's. With one process everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sspd_jax.errors import MISUSED, ConfigError, UserError

MODES = ("off", "auto")

LONGEST_WAIT_S = 24 * 3600
"""For what one process does while the others wait: preparing a dataset, testing."""

_LONGEST_TEXT = 1000  # bytes of a failure that the others are told

Result = TypeVar("Result")


def start(
    mode: str, *, coordinator: str | None = None, count: int | None = None, index: int | None = None
) -> None:
    """Join the processes; must come before anything that touches a device.

    Args:
      mode: 'off' for one process; 'auto' for what the machine says (Cloud TPU, Slurm, Open MPI, Kubernetes
        as `jax.distributed.initialize` knows them), or for what the other arguments say.
      coordinator: The address 'host:port' of process 0, the same in all processes.
      count: Number of processes.
      index: Number of this one, from 0.

    Raises:
      ConfigError: The arguments do not fit together, or are not given and not found on the machine.
      UserError: The processes did not find each other.
    """
    given = {"--coordinator": coordinator, "--num_processes": count, "--process_id": index}
    missing = [name for name, value in given.items() if value is None]
    if mode == "off":
        if len(missing) < len(given):
            named = ", ".join(name for name in given if name not in missing)
            raise ConfigError(f"{named} means several processes: add --config.distributed=auto")
        return
    if 0 < len(missing) < len(given):
        raise ConfigError(f"{', '.join(missing)} is missing: give all of {', '.join(given)}, or none")
    if count is not None and index is not None and not 0 <= index < count:
        raise ConfigError(f"--process_id {index} must be 0 to {count - 1}: there are {count} processes")
    try:
        jax.distributed.initialize(coordinator, count, index)
    except ValueError as error:
        raise ConfigError(
            f"config distributed is 'auto' and nothing here tells of other processes ({_brief(error)}); "
            f"give {', '.join(given)}, or --config.distributed=off"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"the processes did not find each other ({_brief(error)}); start the same command everywhere, "
            f"and see that all reach the coordinator {coordinator or ''}".rstrip()
        ) from error


def _brief(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200]


def is_first() -> bool:
    """Return whether this is the process that writes: logs, reports, pictures, networks."""
    return jax.process_index() == 0


def together(what: str, work: Callable[[], Result], *, first_only: bool = False) -> Result | None:
    """Do something in every process, or in the first alone, and fail in all if it fails in one.

    Without this the others would wait for ever for one that ended.

    Args:
      what: The work's name, the same in all processes and used once in a run.
      work: The function to call.
      first_only: Whether the others wait meanwhile and get None.

    Returns:
      What `work` returned here.

    Raises:
      UserError: `work` failed in some process; the message says in which. A `ConfigError` there is one here.
    """
    if jax.process_count() == 1:
        return work()
    from orbax.checkpoint import multihost  # not needed to check a configuration

    result, failure = None, None
    if is_first() or not first_only:
        try:
            result = work()
        except Exception as error:
            failure = error
    # A barrier of the coordinator, since devices' own collectives give up earlier.
    multihost.get_barrier_sync_fn()(key=f"sspd_jax.{what}", timeout_ms=LONGEST_WAIT_S * 1000)
    failures = _gather(failure)
    if failure is not None:
        raise failure
    for number, (code, text) in enumerate(failures):
        if text:
            raise (ConfigError if code == MISUSED else UserError)(f"process {number}: {text}")
    return result


def _gather(failure: Exception | None) -> list[tuple[int, str]]:
    """Exit code and text of every process's failure, '' where there is none."""
    mine = np.zeros(1 + _LONGEST_TEXT, np.uint8)
    if failure is not None:
        mine[0] = getattr(failure, "exit_code", UserError.exit_code)
        text = (str(failure) or type(failure).__name__).encode()[:_LONGEST_TEXT]
        mine[1 : 1 + len(text)] = np.frombuffer(text, np.uint8)
    rows = multihost_utils.process_allgather(mine).reshape(jax.process_count(), -1)
    return [(int(row[0]), row[1:].tobytes().rstrip(b"\0").decode(errors="replace")) for row in rows]


def everywhere(holds: bool) -> bool:
    """Return whether something holds in all processes."""
    if jax.process_count() == 1:
        return holds
    return bool(np.all(multihost_utils.process_allgather(np.array([holds]))))


def require_same(what: str, value: int, otherwise: str) -> None:
    """Check that all processes have the same number.

    Args:
      what: Name of what is compared, for the message.
      value: An integer from 0 to 2³² − 1, such as a checksum.
      otherwise: The remedy, for the message.

    Raises:
      UserError: They do not; it is raised in all processes.
    """
    if jax.process_count() == 1:
        return
    values = multihost_utils.process_allgather(np.array([value], np.uint32)).ravel()
    for number, other in enumerate(values):
        if other != values[0]:
            raise UserError(f"{what} is not the same in process 0 and process {number}; {otherwise}")

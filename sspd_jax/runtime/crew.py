"""Processes that work for this one, and end with it, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection

from sspd_jax.errors import UserError


@contextmanager
def crew(
    count: int, begin: Callable[..., None] | None = None, *args: object
) -> Iterator[ProcessPoolExecutor]:
    """Keep processes that work for this one.

    They are fresh: a forked one could inherit a lock that a thread of ours holds. An interrupt is for this
    process; where it leaves by an error they end at once, and not with the work that they are at.

    Args:
      count: How many.
      begin: Called as begin(*args) in each before it works.
      args: What it is given.

    Yields:
      The pool to give work to.

    Raises:
      UserError: One of them was killed.
    """
    context = multiprocessing.get_context("spawn")
    stopped, stop = context.Pipe(duplex=False)
    with stopped, stop, ProcessPoolExecutor(count, context, _begin, (stopped, begin, *args)) as pool:
        # All start before the first piece of work: the pool does not notice the death of one that came after
        # the last (CPython, concurrent/futures/process.py: it wakes its watcher, and starts a process then).
        for _ in range(count):
            pool.submit(int)
        try:
            yield pool
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, as a rule for want of memory; run again with fewer --workers: "
                "what is finished stays"
            ) from error
        except BaseException:
            stop.close()
            raise


def _begin(stopped: Connection, begin: Callable[..., None] | None, *args: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(stopped,), daemon=True).start()
    if begin:
        begin(*args)


def _end_with_parent(stopped: Connection) -> None:
    """Wait until nobody holds the pipe's other end: this process' parent did, alone."""
    try:
        stopped.poll(None)
    finally:
        os._exit(1)

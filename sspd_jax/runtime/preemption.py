"""SIGTERM, as sent by machines that will be taken away: a run saves its state and ends with exit code 0."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
    """The run was asked to stop, and has; its text says how it goes on."""


class Watch:
    """Whether the run was asked to stop."""

    def __init__(self):
        """Begin unasked."""
        self.asked = False

    def reached(self, step: int) -> bool:
        """Return whether to stop after this step.

        Several processes get the signal at different times, or one alone does: JAX lets them agree on a step
        that none has passed, without a wait between steps as long as nobody was asked.

        Args:
          step: Number of steps taken; every process asks after each one.
        """
        if jax.process_count() == 1:
            return self.asked
        self.asked = self.asked or multihost_utils.reached_preemption_sync_point(step)
        return self.asked


@contextmanager
def watching() -> Iterator[Watch]:
    """Notice SIGTERM instead of dying of it.

    With several processes JAX notices it itself, from `jax.distributed.initialize` on. In a thread that is
    not the main one Python lets nobody listen; there SIGTERM ends the process as ever.
    """
    watch = Watch()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield watch
        return

    def notice(*_: object) -> None:
        watch.asked = True

    before = signal.signal(signal.SIGTERM, notice)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGTERM, before)

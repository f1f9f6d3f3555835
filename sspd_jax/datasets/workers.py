"""Several recordings at once, each in a process of its own.

Processes are spawned, not forked: JAX, FFmpeg and ArrayRecord hold threads, which a fork would tear. They end
with the process that started them, however it ends, so that a preparation that was killed can be started
again at once.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import cv2

from sspd_jax.datasets import format, preparation
from sspd_jax.datasets.progress import fraction_done
from sspd_jax.errors import ConfigError
from sspd_jax.runtime.crew import crew
from sspd_jax.video import decode
from sspd_jax.video.face_detection import make_detector

MOST_BY_DEFAULT = 8
REPORT_EVERY_S = 0.5


def worker_count(workers: int, jobs: int) -> int:
    """Return how many processes to start: as many as asked, and no more than there are recordings.

    Args:
      workers: Number asked for; 0 means one for each core that this process may use, 8 at most.
      jobs: Number of recordings to prepare.

    Raises:
      ConfigError: `workers` is below 0.
    """
    if workers < 0:
        raise ConfigError(f"workers {workers} is not 0 (one for each core) or more")
    return max(1, min(workers or min(_cores(), MOST_BY_DEFAULT), jobs))


def decoder_threads(count: int) -> int:
    """Return how many threads decode in each of `count` workers: its part of the cores, 4 at most."""
    return max(1, min(preparation.MOST_THREADS, _cores() // count))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def build_in_processes(
    jobs: Sequence[preparation.Job],
    settings: format.Settings,
    face_model: str,
    count: int,
    on_progress: Callable[[float], None],
) -> Iterator[tuple[preparation.Job, preparation.Outcome]]:
    """Prepare recordings, `count` at once.

    Args:
      jobs: Jobs to do.
      settings: Settings of the dataset.
      face_model: Path of YuNet's model file.
      count: Number of processes. They share the cores: each decodes with its part of them.
      on_progress: Called twice a second with what is done of the recordings in work, in recordings.

    Yields:
      Each job and its outcome, as they are finished.

    Raises:
      ConfigError: A recording cannot be sent to another process.
      StorageError: Something cannot be written.
      UserError: A process was killed.
    """
    parts = multiprocessing.get_context("spawn").RawArray("d", len(jobs))
    shared = _Shared(parts, settings, face_model, decoder_threads(count))
    with crew(count, _begin, shared) as pool:
        pending = {pool.submit(_build, place, _packed(job)): (place, job) for place, job in enumerate(jobs)}
        while pending:
            done, _ = futures.wait(pending, REPORT_EVERY_S, futures.FIRST_COMPLETED)
            for future in done:
                place, job = pending.pop(future)
                outcome = future.result()
                parts[place] = 0
                yield job, outcome
            on_progress(sum(parts))


def _packed(job: preparation.Job) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{job.recording_id}: cannot be sent to another process ({error}); let its reader make `frames` "
            "of functools.partial and functions of a module, or prepare with 1 worker"
        ) from error


class _Shared(NamedTuple):
    """What every process is given."""

    parts: Any  # float64 [jobs], what is done of each
    settings: format.Settings
    face_model: str
    threads: int


_shared: _Shared  # in a worker
_detector: Any


def _begin(shared: _Shared) -> None:
    """Set a worker up."""
    global _shared, _detector
    _shared = shared
    cv2.setNumThreads(shared.threads)
    decode.use_threads(shared.threads)
    _detector = make_detector(shared.settings.face_detector, shared.face_model)


def _build(place: int, packed: bytes) -> preparation.Outcome:
    """Prepare a recording in a worker."""
    job = pickle.loads(packed)
    fraction = fraction_done(job.recording)

    def on_progress(time_s: float) -> None:
        _shared.parts[place] = fraction(time_s)

    return preparation.build(job, _shared.settings, _detector, on_progress)

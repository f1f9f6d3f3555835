"""A progress bar over several recordings."""

from __future__ import annotations

import sys
from collections.abc import Callable

import tqdm

from sspd_jax.datasets.recording import Recording
from sspd_jax.errors import UserError
from sspd_jax.runtime import text
from sspd_jax.video import decode


class ProgressBar:
    """A bar on stderr in recordings and fractions of them, with the time left."""

    FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} recordings, {elapsed}, {remaining} left"

    def __init__(self, done: int, total: int, shown: bool):
        """Draw a bar of `total` recordings, of which `done` are finished; nothing unless `shown`."""
        self._bar = tqdm.tqdm(
            desc="preparing",
            total=total,
            initial=done,
            disable=not shown or done == total,
            file=sys.stderr,
            bar_format=self.FORMAT,
            mininterval=0.1 if sys.stderr.isatty() else 10,  # s: a log file needs fewer lines
        )
        self._done = float(done)
        self._fraction = lambda _: 0.0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, recording: Recording) -> None:
        """Show a recording's name, and find out how long it is."""
        self._bar.set_description_str(f"preparing {recording.recording_id}", refresh=False)
        if not self._bar.disable:
            self._fraction = fraction_done(recording)

    def reach(self, time_s: float) -> None:
        """Move to a time in the recording, in seconds."""
        self.advance(self._fraction(time_s))

    def advance(self, recordings: float) -> None:
        """Move to so many recordings, with fractions, beyond those that are finished."""
        self._move_to(self._done + recordings)

    def end(self) -> None:
        """Move to the end of the recording."""
        self._done += 1
        self._move_to(self._done)

    def _move_to(self, n: float) -> None:
        if n > self._bar.n:
            self._bar.update(n - self._bar.n)

    def print(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            print(text.printable(sentence), file=sys.stderr, flush=True)


def fraction_done(recording: Recording) -> Callable[[float], float]:
    """Find out how long a recording is.

    Returns:
      A function from the time reached, in seconds, to the fraction of the recording that is done, 0 to 0.99.
      It is always 0 where the length is not known before the recording is read.
    """
    if recording.ppg is not None and len(recording.ppg.times_s):
        length_s = float(recording.ppg.times_s[-1])
    else:
        try:
            length_s = decode.read_facts(recording.file).duration_s
        except UserError:  # no plain file, or a damaged one: its own frames will show it
            length_s = None
    return lambda time_s: min(0.99, time_s / length_s) if length_s else 0.0

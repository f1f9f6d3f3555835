"""A bar that shows how far several recordings are."""

from __future__ import annotations

import sys

import tqdm

from sspd_jax.datasets import preparation
from sspd_jax.datasets.recording import Recording


class _Bar:
    """A progress bar in recordings and parts of them, with the time left."""

    FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} recordings, {elapsed}, {remaining} left"

    def __init__(self, done: int, total: int, shown: bool):
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
        self._share = lambda _: 0.0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, recording: Recording) -> None:
        """Show a recording's name, and find out how long it is."""
        self._bar.set_description_str(f"preparing {recording.recording_id}", refresh=False)
        if not self._bar.disable:
            self._share = preparation.share_of(recording)

    def at(self, time_s: float) -> None:
        """Move to a time in the recording, s."""
        self.parts(self._share(time_s))

    def parts(self, recordings: float) -> None:
        """Move to so many recordings, in parts, beyond those that are done."""
        self._move_to(self._done + recordings)

    def end(self) -> None:
        """Move to the end of the recording."""
        self._done += 1
        self._move_to(self._done)

    def _move_to(self, n: float) -> None:
        if n > self._bar.n:
            self._bar.update(n - self._bar.n)

    def say(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            print(sentence, file=sys.stderr, flush=True)

"""Check a dataset before hours are spent on it: what is broken, what is doubtful, what is missing.

`sspd_jax prepare --check_only …` prints what is found here. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from os import PathLike

import numpy as np
import tqdm

from sspd_jax.datasets import preparation, splits
from sspd_jax.datasets.progress import ProgressBar
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Broken, Ppg, Recording
from sspd_jax.errors import UserError
from sspd_jax.heart_rate import rate
from sspd_jax.runtime import text
from sspd_jax.video import face_stream
from sspd_jax.video.face_detection import FaceDetector

BROKEN, DOUBTFUL, NOTE = "broken", "doubtful", "note"
FPS = 30.0  # Hz, of the clock on which waves are compared
WINDOW_S, LEAST_WINDOW_S = 10.0, 4.0
FAR_BPM = 10.0  # farther from the wave, a device's number is wrong; oximeters lag by seconds
LEAST_COVERED = 0.9  # of a recording by its wave


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that a person should know.

    Attributes:
      recording_id: Id of the recording that it is about, or '' if it is about the dataset.
      kind: 'broken' (the recording cannot be prepared), 'doubtful' or 'note'.
      sentence: What was found, and what to do.
    """

    recording_id: str
    kind: str
    sentence: str

    def __str__(self) -> str:
        where = f"{self.recording_id}: " if self.recording_id else ""
        return f"{self.kind:<9} {where}{self.sentence}"


def check_recording(
    recording: Recording | Broken,
    *,
    max_gap_s: float = 0.5,
    face_search_s: float = 30.0,
    detector: FaceDetector | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> list[Finding]:
    """Read all of a recording and check it.

    Args:
      recording: Recording that a reader lists.
      max_gap_s: Longest gap between two frames that preparing interpolates, s.
      face_search_s: How far into it the face is searched, s.
      detector: Face detector.
      on_progress: Called with the time that was reached, s.

    Returns:
      What was found; a recording with a 'broken' finding cannot be prepared.

    Example:
      >>> check_recording(Broken("subject1", "subject1/vid.avi: missing; copy it again"))[0].kind
      'broken'
    """
    if isinstance(recording, Broken):
        return [Finding(recording.recording_id, BROKEN, recording.why)]
    found = [(NOTE, note) for note in recording.meta.get("notes", ())]
    try:
        times_s = _frame_times(recording, max_gap_s, face_search_s, detector, on_progress)
    except Exception as error:  # as in preparing: one that is damaged does not end the check of the others
        found.append((BROKEN, preparation.failure(recording, error)))
    else:
        found += _about_times(times_s, max_gap_s)
        found += _about_ppg(recording, times_s, max_gap_s)
    return [Finding(recording.recording_id, kind, sentence) for kind, sentence in found]


def _frame_times(recording, max_gap_s, face_search_s, detector, on_progress) -> np.ndarray:
    """Read every frame; returns the times of those from the first face on, float64 [t], s."""
    clip = face_stream.cut_face(
        recording.frames(),
        recording.file,
        size=8,  # nobody looks at the crops
        face_search_s=face_search_s,
        max_gap_s=max_gap_s,
        detector=detector,
    )
    times_s = []
    with closing(clip):
        for time_s, _ in clip:
            times_s.append(time_s)
            if on_progress is not None:
                on_progress(time_s)
    times_s = np.array(times_s)
    back = np.flatnonzero(np.diff(times_s) <= 0)
    if len(back):
        raise ValueError(f"time must increase, got {times_s[back[0] + 1]} s after {times_s[back[0]]} s")
    if max(end - start for start, end in stretches(times_s, max_gap_s)) < preparation.MIN_SEGMENT_S - 1 / FPS:
        raise UserError(preparation.too_short(recording))
    return times_s


def stretches(times_s: np.ndarray, max_gap_s: float) -> list[tuple[float, float]]:
    """Return first and last time of every stretch without a gap, s."""
    breaks = np.flatnonzero(np.diff(times_s) > max_gap_s) + 1
    return [(float(part[0]), float(part[-1])) for part in np.split(times_s, breaks)]


def _about_times(times_s, max_gap_s) -> Iterator[tuple[str, str]]:
    if times_s[0] > 0:
        yield NOTE, f"no face before {times_s[0]:.1f} s"
    parts = stretches(times_s, max_gap_s)
    for (_, end_s), (start_s, _) in itertools.pairwise(parts):
        yield NOTE, f"a gap in time, {end_s:.1f}–{start_s:.1f} s: it splits the recording"
    steps = np.diff(times_s)
    steps = steps[steps <= max_gap_s]
    lost = int(np.rint(steps / np.median(steps) - 1).clip(0).sum())
    if lost > 0.01 * len(times_s):
        share = lost / (lost + len(times_s))
        yield NOTE, f"{share:.0%} of the frames are missing; they are interpolated by their times"


def _about_ppg(recording, times_s, max_gap_s) -> Iterator[tuple[str, str]]:
    ppg = recording.ppg
    if ppg is None:
        return
    truth = heart_rates(ppg, max_gap_s)
    if not len(truth):
        yield (
            DOUBTFUL,
            f"{recording.file}: its contact pulse wave is flat or shorter than {LEAST_WINDOW_S:g} s; "
            "do not test on it",
        )
        return
    covered = min(times_s[-1], ppg.times_s[-1]) - max(times_s[0], ppg.times_s[0])
    if covered < LEAST_COVERED * (times_s[-1] - times_s[0]):
        yield (
            DOUBTFUL,
            f"{recording.file}: its contact pulse wave covers {max(covered, 0):.1f} s of "
            f"{times_s[-1] - times_s[0]:.1f} s; only those can be tested on",
        )
    pairs = []
    for start_s, end_s, bpm in truth:
        inside = [rate_bpm for time_s, rate_bpm in device_rates(recording) if start_s <= time_s < end_s]
        if inside:
            pairs.append((np.mean(inside), bpm))
    if pairs:
        theirs, ours = np.median(np.array(pairs), axis=0)
        if abs(theirs - ours) > FAR_BPM:
            yield (
                DOUBTFUL,
                f"{recording.file}: the device says {theirs:.1f} bpm where its own wave shows {ours:.1f}; "
                "the wave is what counts: look at it before testing on it",
            )
            return
    for note in recording.meta.get("heart_rate_notes", ()):
        yield NOTE, note


def heart_rates(ppg: Ppg, max_gap_s: float = 0.5) -> list[tuple[float, float, float]]:
    """Estimate the heart rate from a contact pulse wave, window by window, as testing does for the truth.

    Args:
      ppg: Wave on the video's clock.
      max_gap_s: Longest time between two samples that is interpolated, s.

    Returns:
      Start in s, end in s and heart rate in bpm of every window of 10 s (or of the whole wave, if it is
      shorter but 4 s long); windows without a rate are left out.
    """
    start_s, length_s = float(ppg.times_s[0]), float(ppg.times_s[-1] - ppg.times_s[0])
    window_s = min(WINDOW_S, length_s)
    if window_s < LEAST_WINDOW_S - 1:
        return []
    found = []
    wave = preparation.PpgOnClock(ppg, FPS, max_gap_s)
    for number in range(int(length_s / window_s + 1e-6)):
        first_s = start_s + number * window_s
        values = wave.at(first_s + np.arange(round(window_s * FPS)) / FPS).astype(np.float64)
        if np.isfinite(values).all() and np.ptp(values) > 0:
            bpm = rate.spectral_peak_rate(values, FPS)
            if np.isfinite(bpm):
                found.append((first_s, first_s + window_s, bpm))
    return found


def device_rates(recording: Recording) -> list[tuple[float, float]]:
    """Return the device's own numbers, (time in s, heart rate in bpm); they lie evenly over its wave."""
    rates = recording.meta.get("device_heart_rate") or []
    times_s = np.linspace(max(0.0, recording.ppg.times_s[0]), recording.ppg.times_s[-1], len(rates))
    return [(float(t), r) for t, r in zip(times_s, rates, strict=True) if r]


def check_dataset(name: str, recordings: Sequence[Recording | Broken]) -> list[Finding]:
    """Check what is missing of a dataset, and what in it is known to be wrong.

    Args:
      name: Name of the dataset.
      recordings: Recordings that were found.

    Returns:
      Notes about the dataset as a whole.
    """
    found = []
    ids = {r.recording_id for r in recordings}
    people = {r.person_id for r in recordings if isinstance(r, Recording)}
    known = splits.known_people(name)
    # Of a broken recording only the id is known; most begin with the person.
    absent = [p for p in known if p not in people and not any(re.match(rf"{p}\b|{p}_", i) for i in ids)]
    total = splits.known_recordings(name)
    if absent:
        some = ", ".join(absent[:6]) + (", …" if len(absent) > 6 else "")
        found.append(
            f"{len(absent)} of {len(known)} people are not there ({some}); copy them if they should be"
        )
    elif total is not None and len(recordings) < total:
        found.append(f"{len(recordings)} of {total} recordings are there; copy the others if they should be")
    for erratum in splits.errata(name):
        concerned = erratum.recordings
        if concerned == ("*",) or set(concerned) & (ids | people):
            where = "" if concerned == ("*",) else f"{', '.join(concerned)}: "
            found.append(f"known: {where}{erratum.what}; {erratum.done}")
    return [Finding("", NOTE, sentence) for sentence in found]


def print_findings(name: str, source: str | PathLike, detector: FaceDetector, *, progress: bool) -> int:
    """Check every recording of a dataset, and print what is found.

    Args:
      name: Key of the reader in `sspd_jax.datasets.readers.registry.READERS`.
      source: Folder of the recordings.
      detector: Face detector.
      progress: Whether to draw a progress bar on stderr.

    Returns:
      The number of broken recordings.
    """
    recordings = registry.read(name, source)
    counts: Counter[str] = Counter()
    broken: set[str] = set()

    def report(findings: list[Finding]) -> None:
        counts.update(finding.kind for finding in findings)
        broken.update(finding.recording_id for finding in findings if finding.kind == BROKEN)
        with tqdm.tqdm.external_write_mode(file=sys.stdout):
            for finding in findings:
                print(text.printable(str(finding)), flush=True)

    with ProgressBar(0, len(recordings), progress) as bar:
        report(check_dataset(registry.EXPERIMENTS.get(name, name), recordings))
        for recording in recordings:
            if isinstance(recording, Recording):
                bar.begin(recording)
            report(check_recording(recording, detector=detector, on_progress=bar.reach))
            bar.end()
    people = len({r.person_id for r in recordings if isinstance(r, Recording)})
    print(
        f"{source}: {len(recordings)} recordings, {people} people: {len(broken)} broken, "
        f"{counts[DOUBTFUL]} doubtful, {counts[NOTE]} notes"
    )
    return len(broken)

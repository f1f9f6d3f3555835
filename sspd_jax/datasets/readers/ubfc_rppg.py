"""Read UBFC-rPPG, DATASET_2: 42 people, one webcam video each, a finger's pulse wave on the same clock.

The dataset cannot be downloaded freely: the University of Burgundy gives it away after a request on its page.
Layout: `subjectN/vid.avi` and `subjectN/ground_truth.txt`, three lines of numbers separated by spaces, one
number per frame in each: PPG, heart rate in bpm as the oximeter computed it, time in s. The heart rate line
is unreliable (60 bpm where the wave shows 134; 1 or 127 for half a minute): where it fails, the rate is read
from the wave, and the recording says so. Copies in other containers (`vid.mp4`, `vid.mkv`, …) are read too.

Frames get the times of the third line: the camera did not run at exactly the rate its files state. They are
written in milliseconds, and two frames in a row can have the same; the second is then
set between its neighbours.

What is checked when:
- `recordings` reads every text and looks into every video file (its header and one frame); only where a
  header disagrees with the text, or the file is shorter than it says, are the file's pictures counted,
  without decoding them. A fault that would cost hours later is found in a second.
- reading the frames to their end finds pictures that are there and cannot be decoded.

References:
  Bobbia, Macwan, Benezeth, Mansouri & Dubois, Pattern Recognit. Lett. 124 (2019), 82–90.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from sspd_jax.datasets.readers import files
from sspd_jax.datasets.recording import Broken, Ppg, Recording
from sspd_jax.errors import UserError
from sspd_jax.heart_rate import rate as heart_rate

PAGE = "https://sites.google.com/view/ybenezeth/ubfcrppg"
FOLDER = "DATASET_2"
SUBJECT = re.compile(r"subject(\d+)")
VIDEO, TRUTH = "vid", "ground_truth.txt"
LINES = ("PPG", "heart rate", "time")
SIMULATION = "simulation.json"  # what the simulator leaves beside its recordings
LEAST_FRAMES = 30
MOST_SHORT = 0.5  # share of the frames that the text must have, and
SAME_RATE = 0.02  # by how much its rate may differ from the video's: else frames were lost on the way
MOST_REPEATS = 0.01  # share of the times that may repeat the one before
FPS = 30.0  # Hz, of the clock on which the pulse wave's rate is read
WINDOW_S, STRIDE_S, LEAST_WINDOW_S = 10.0, 1.0, 4.0  # of its windows
FAR_BPM = 20.0  # an oximeter lags by seconds; one that is farther off does not measure, and
FAILS = 0.2  # share of a recording in which it may do so
GET_IT = (
    f"request UBFC-rPPG at {PAGE} and give the folder that holds its {FOLDER}, or make simulated recordings: "
    "python -m sspd_jax simulate {}"
)
COPY_IT = "copy the subject again from the dataset, or remove its folder"


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the recordings of UBFC-rPPG's DATASET_2, or of the simulator.

    Where a video and its text differ by up to a second at the end, both are cut to the shorter and
    `meta['notes']` says so. `meta['device_heart_rate']` is the heart rate line, bpm, per frame (None where it
    is no number); `meta['heart_rate']` the same, or what the pulse wave shows where the line fails, which
    `meta['heart_rate_notes']` tells; `meta['simulation']` the simulator's settings, where it made the
    recordings.

    Args:
      source: Folder that holds DATASET_2, or the subjects' folders themselves.

    Returns:
      One recording per subject, by their numbers; `Broken` is a subject without its two files or with files
      that do not fit their format or each other. Frames raise UserError at their end if the video broke off
      before.

    Raises:
      UserError: The folder is missing or holds no subject.
    """
    source = files.find_folder(source, GET_IT.format(source))
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    subjects = {}
    for path in folder.iterdir():
        if (match := SUBJECT.fullmatch(path.name)) and path.is_dir():
            subjects[int(match[1])] = path
    if not subjects:
        inner = source / "DATASET_1"
        if any(
            path.name.endswith("-gt")
            for place in (folder, inner)
            if place.is_dir()
            for path in place.iterdir()
        ):
            raise UserError(
                f"{source}: holds folders 1-gt, 5-gt, …, which are UBFC-rPPG's DATASET_1; read it as "
                "ubfc_rppg_1 (--config=ubfc1)"
            )
        raise UserError(f"{folder}: holds no folder subject1, subject2, …; {GET_IT.format('OUT')}")
    simulation = _simulation(folder)
    items = [(path.name, path) for _, path in sorted(subjects.items())]
    return files.list_each(items, functools.partial(_recording, simulation=simulation))


def _recording(recording_id: str, folder: Path, simulation: dict[str, Any] | None) -> Recording:
    video = files.find_video(folder, VIDEO)
    ppg, rate, times_s = _read_truth(folder / TRUTH)
    facts = files.look_into(video, COPY_IT)
    pictures = files.picture_count(video, len(times_s))
    short = pictures is not None and _ends_early(times_s, pictures, facts.fps)
    if pictures is not None and abs(pictures - len(times_s)) > files.LOOSE_END and not short:
        raise files.does_not_fit(video, pictures, TRUTH, len(times_s), COPY_IT)
    meta: dict[str, Any] = {"dataset": "UBFC-rPPG DATASET_2" if simulation is None else "simulated"}
    meta["notes"] = []
    used = min(len(times_s), pictures or len(times_s))
    if pictures is not None and pictures != len(times_s):
        meta["notes"].append(
            f"{video.name} has {pictures} frames, {TRUTH} {len(times_s)} values: the first {used} of both "
            "count"
        )
    ppg, rate, times_s = ppg[:used], rate[:used], times_s[:used] - times_s[0]
    if repeats := int((np.diff(times_s) == 0).sum()):
        meta["notes"].append(f"{repeats} of {used} times repeat the one before: set between their neighbours")
        times_s = spread_repeats(times_s)
    meta["device_heart_rate"] = _numbers(rate)
    shown = _rate_of_wave(ppg, rate, times_s)
    if lost := int(np.isnan(ppg).sum()):
        meta["notes"].append(f"{lost} of {len(ppg)} values of the PPG line are missing in {TRUTH}")
    meta["heart_rate"], meta["heart_rate_notes"] = _numbers(rate if shown is None else shown), []
    if shown is not None:
        finite = rate[np.isfinite(rate)]
        values = f"values from {finite.min():g} to {finite.max():g} bpm" if len(finite) else "not one number"
        meta["heart_rate_notes"].append(
            f"the heart rate line of {TRUTH} fails ({values}, where the pulse wave shows "
            f"{shown.min():.0f} to {shown.max():.0f}): heart_rate is the pulse wave's"
        )
    if simulation is not None:
        meta["simulation"] = simulation
    return Recording(
        recording_id=recording_id,
        person_id=folder.name,
        frames=functools.partial(
            files.numbered_frames, video, times_s, facts.fps, TRUTH, COPY_IT, text_ends_early=short
        ),
        ppg=Ppg(times_s, ppg),
        file=video,
        meta=meta,
    )


def _ends_early(times_s: np.ndarray, pictures: int, fps: float | None) -> bool:
    """Tell whether a text has the video's first frames only: fewer lines, at the rate of the video."""
    if not fps or not MOST_SHORT <= len(times_s) / pictures < 1:
        return False
    measured = (len(times_s) - 1) / (times_s[-1] - times_s[0]) if times_s[-1] > times_s[0] else 0.0
    return abs(measured / fps - 1) <= SAME_RATE


def _read_truth(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read and check the three lines: PPG, heart rate in bpm, time in s; each float64 [frames]."""
    text = files.read_text(path, COPY_IT)
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if len(rows) != len(LINES):
        raise UserError(
            f"{path}: has {len(rows)} line{'s' * (len(rows) != 1)} of numbers where 3 are due "
            f"({', '.join(LINES)}); {COPY_IT}"
        )
    try:
        ppg, rate, times_s = values = [np.array([float(word) for word in row]) for row in rows]
    except ValueError as error:
        raise UserError(f"{path}: holds something that is no number ({error}); {COPY_IT}") from error
    lengths = [len(line) for line in values]
    if len(set(lengths)) != 1:
        raise UserError(
            f"{path}: its lines ({', '.join(LINES)}) have {', '.join(map(str, lengths))} values, not equally "
            f"many; {COPY_IT}"
        )
    # The heart rate line may have gaps: it is kept for the record only.
    lost = np.isnan(ppg)
    with_holes = lost.sum() <= files.MOST_LOST * len(ppg)
    for name, line in (("PPG", ppg), ("time", times_s)):
        bad = np.flatnonzero(~np.isfinite(line) & ~(lost & with_holes & (name == "PPG")))
        if len(bad):
            raise UserError(
                f"{path}: value {bad[0] + 1} of the {name} line is {line[bad[0]]:g}, and {len(bad)} in all "
                f"are not finite; {COPY_IT}"
            )
    if len(times_s) < LEAST_FRAMES:
        raise UserError(f"{path}: has values for {len(times_s)} frames only, too few for a pulse; {COPY_IT}")
    steps = np.diff(times_s)
    back = np.flatnonzero(steps < 0)
    if not len(back) and (steps == 0).sum() > MOST_REPEATS * len(steps):
        back = np.flatnonzero(steps == 0)
    if len(back):
        raise UserError(
            f"{path}: its times do not increase (value {back[0] + 2}: {times_s[back[0] + 1]:g} s after "
            f"{times_s[back[0]]:g} s); {COPY_IT}"
        )
    return ppg, rate, times_s


def spread_repeats(times_s: np.ndarray) -> np.ndarray:
    """Set frames whose time repeats the one before evenly between their neighbours.

    Args:
      times_s: Times of the frames, float64 [frames], s, not decreasing.

    Returns:
      float64 [frames], s, increasing; frames whose time is their own keep it.
    """
    own = np.concatenate([[True], np.diff(times_s) > 0])
    number = np.arange(len(times_s))
    spread = np.interp(number, number[own], times_s[own])
    # What repeats the last time has no neighbour after it: it goes on at the usual step.
    last = number[own][-1]
    spread[last:] += (number[last:] - last) * np.median(np.diff(times_s[own]))
    return spread


def _numbers(rate: np.ndarray) -> list[float | None]:
    """Return rates as JSON's numbers, None where there is none."""
    return [float(bpm) if np.isfinite(bpm) else None for bpm in rate]


def _rate_of_wave(ppg: np.ndarray, rate: np.ndarray, times_s: np.ndarray) -> np.ndarray | None:
    """Read the heart rate from the pulse wave where the oximeter's own fails.

    Args:
      ppg: The pulse wave, float64 [frames], any unit.
      rate: The oximeter's heart rate, float64 [frames], bpm; NaN where there is none.
      times_s: Times of the frames, float64 [frames], s, increasing from 0.

    Returns:
      float64 [frames], bpm: the wave's spectral peak in the 10 s around each frame. None where the oximeter's
      own rate is good enough, or the wave shows none either.
    """
    window_s = min(WINDOW_S, float(times_s[-1]))
    if window_s < LEAST_WINDOW_S:
        return None
    ticks_s = np.arange(round(window_s * FPS)) / FPS
    starts_s = np.arange(0.0, times_s[-1] - window_s + 1e-6, STRIDE_S)
    known = np.isfinite(ppg)
    waves = (np.interp(start_s + ticks_s, times_s[known], ppg[known]) for start_s in starts_s)
    shown = np.array([heart_rate.spectral_peak_rate(wave, FPS) for wave in waves])
    middle_s, there = starts_s + window_s / 2, np.isfinite(shown)
    if not there.any():
        return None
    by_frame = np.interp(times_s, middle_s[there], shown[there])
    said = np.isfinite(rate)
    if said.any() and np.mean(np.abs(rate - by_frame)[said] > FAR_BPM) < FAILS:
        return None
    return np.round(by_frame, 2)


def _simulation(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / SIMULATION).read_text())
    except (OSError, ValueError, RecursionError):
        return None

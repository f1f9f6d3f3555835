"""Read VIPL-HR: 107 people, nine situations, up to four cameras each, at 16 to 30 frames/s.

Layout: `data/pX/vY/sourceZ/` (or `vY-2`) with `video.avi`, `wave.csv` (column Wave), `gt_HR.csv` (column HR,
1 Hz), `gt_SpO2.csv` and `time.txt` (ms, one line per frame); `fold/*.mat`, the people of each fold.

- The frames have the times of time.txt. Source 2 has none and runs at 30 frames/s.
- The wave has no clock of its own: it begins and ends with the video, so its rate is its length over the
  video's duration.
- Source 4 is an infrared camera. It is left out; `infrared_recordings` lists it alone.

References:
  Niu, Han, Shan & Chen, ACCV 2018; Niu, Shan, Han & Chen, IEEE Trans. Image Process. 29 (2020), 2409–2423.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from sspd_jax.datasets.readers import files, matlab
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError

COLOUR, INFRARED = ("source1", "source2", "source3"), ("source4",)
UNTIMED, UNTIMED_FPS = "source2", 30.0
PERSON, SITUATION = re.compile(r"p(\d+)"), re.compile(r"v(\d+)(-\d+)?")
MOST_PEOPLE = 100_000
PPG_HZ = (15.0, 500.0)  # no oximeter is outside: video or wave is cut off
GET_IT = "request VIPL-HR at https://vipl.ict.ac.cn and give the folder that holds data and fold"


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the colour recordings of VIPL-HR.

    Args:
      source: Folder that holds data and fold, or the people's folders p1, p2, …

    Returns:
      Up to three per person and situation. `meta['fold']` is the person's, `meta['device_heart_rate']` that
      of gt_HR.csv, bpm, each second.

    Raises:
      UserError: The folder is missing or holds nobody, or the folds cannot be read.
    """
    return _list(source, COLOUR)


def infrared_recordings(source: str | Path) -> list[Recording | Broken]:
    """List the infrared recordings (source 4), as `recordings` does the others; their pictures are grey."""
    return _list(source, INFRARED)


def _list(source: str | Path, sources: tuple[str, ...]) -> list[Recording | Broken]:
    source = files.find_folder(source, GET_IT)
    data = source / "data" if (source / "data").is_dir() else source
    found = []
    for person in data.iterdir():
        if not (one := PERSON.fullmatch(person.name)) or not person.is_dir():
            continue
        for situation in person.iterdir():
            if not (other := SITUATION.fullmatch(situation.name)):
                continue
            for name in sources:
                folder = situation / name
                if folder.is_dir():
                    order = (int(one[1]), int(other[1]), other[2] or "", name)
                    found.append((order, f"{person.name}-{situation.name}-{name}", folder))
    if not found:
        raise UserError(f"{data}: holds no folder p1/v1/{sources[0]}; {GET_IT}")
    folds = read_folds(source)
    items = [(recording_id, folder) for _, recording_id, folder in sorted(found)]
    return files.list_each(items, functools.partial(_recording, folds=folds))


def read_folds(source: Path) -> dict[str, int]:
    """Read the dataset's own folds: person ('p1') → number of the fold, from 1; empty where there are none.

    Each file in `fold` holds one row of people's numbers; the folds are counted in the order of their names.

    Raises:
      UserError: A file holds no fold, or a person is in two folds.
    """
    folds: dict[str, int] = {}
    for number, path in enumerate(sorted((source / "fold").glob("*.mat")), 1):
        file = matlab.MatFile(path)
        names = [name for name in file.shapes if not name.startswith(("_", "#"))]
        if len(names) != 1:
            raise UserError(f"{path}: holds {len(names)} variables where one is due; {files.COPY_IT}")
        for person in file.wave(names[0]):
            if not 0 < person < MOST_PEOPLE or person != int(person):
                raise UserError(f"{path}: {person:g} is no person's number; {files.COPY_IT}")
            if folds.setdefault(f"p{int(person)}", number) != number:
                raise UserError(f"{path}: person {int(person)} is in another fold too; {files.COPY_IT}")
    return folds


def _recording(recording_id: str, folder: Path, folds: dict[str, int]) -> Recording:
    video, wave = folder / "video.avi", folder / "wave.csv"
    values = files.read_table(wave, ("Wave",))["Wave"]
    facts = files.look_into(video)
    meta: dict[str, Any] = {"dataset": "VIPL-HR", "notes": []}
    times_s = _frame_times(folder, video, meta["notes"])
    period_s = float(np.median(np.diff(times_s)))
    duration_s = float(times_s[-1]) + period_s
    ppg_hz = len(values) / duration_s
    ppg = files.check_ppg(wave, np.arange(len(values)) / ppg_hz, values, where="Wave", notes=meta["notes"])
    if not PPG_HZ[0] <= ppg_hz <= PPG_HZ[1]:
        raise UserError(
            f"{wave}: its {len(values)} values beside {duration_s:.1f} s of video would be {ppg_hz:.1f} Hz: "
            f"one of the two is cut off; {files.COPY_IT}"
        )
    meta |= {"situation": folder.parent.name, "source": folder.name, "ppg_hz": round(ppg_hz, 3)}
    if folder.parent.parent.name in folds:
        meta["fold"] = folds[folder.parent.parent.name]
    if (folder / "gt_HR.csv").exists():
        rates = files.read_table(folder / "gt_HR.csv", ("HR",))["HR"]
        meta["device_heart_rate"] = [float(bpm) if np.isfinite(bpm) else None for bpm in rates]
    return Recording(
        recording_id=recording_id,
        person_id=folder.parent.parent.name,
        frames=functools.partial(files.numbered_frames, video, times_s, facts.fps, "time.txt"),
        ppg=ppg,
        file=video,
        meta=meta,
    )


def _frame_times(folder: Path, video: Path, notes: list[str]) -> np.ndarray:
    """Return the frames' times, float64 [frames], s from the first on."""
    text = folder / "time.txt"
    if not text.exists():
        if folder.name != UNTIMED:
            raise UserError(f"{text}: missing; {files.COPY_IT}")
        files.require_whole(video)
        count = files.picture_count(video)
        if not count or count < files.LEAST_VALUES:
            raise UserError(f"{video}: has {count or 0} frames, too few for a pulse; {files.COPY_IT}")
        return np.arange(count) / UNTIMED_FPS
    (time_ms,) = files.read_columns(text, 1)
    times_s = files.check_ppg(text, time_ms / 1000, time_ms, where="its line").times_s
    pictures = files.picture_count(video, len(times_s))
    if pictures is not None and abs(pictures - len(times_s)) > files.LOOSE_END:
        raise files.does_not_fit(video, pictures, text.name, len(times_s), files.COPY_IT)
    used = min(len(times_s), pictures or len(times_s))
    if pictures is not None and pictures != len(times_s):
        notes.append(
            f"{video.name} has {pictures} frames, {text.name} {len(times_s)} values: the first {used} count"
        )
    return times_s[:used] - times_s[0]

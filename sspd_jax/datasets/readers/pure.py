"""Read PURE: 10 people, six tasks each (06-02 does not exist), pictures and a finger's pulse wave.

Two layouts are about: `SS-TT/SS-TT/*.png` with `SS-TT/SS-TT.json` (A), and `SS-TT/*.png` with `SS-TT.json`
beside the folder (B). The JSON file has `/FullPackage`: [{Timestamp, Value: {waveform, pulseRate, …}}] at
60 Hz, and `/Image`: [{Timestamp}] at 30 Hz, timestamps in ns of one clock; a picture's name ends in its
timestamp. Pictures are missing here and there: frames and wave are brought together by their timestamps.
The first two values of the wave can be corrupt; they are left out.

References:
  Stricker, Müller & Gross, IEEE Ro-Man 2014, 1056–1062.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sspd_jax.datasets.readers import files
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError

RECORDING = re.compile(r"(\d\d)-(\d\d)")
STAMP = re.compile(r"(\d{13,})$")  # ns, at the end of a picture's name
NEVER_MADE = ("06-02",)  # a folder without a file in the release, or none
CORRUPT = 2  # values at the wave's start
BAD_SHARE = 0.05  # of the pictures may be missing or damaged
TASKS = {
    "01": "steady",
    "02": "talking",
    "03": "slow translation",
    "04": "fast translation",
    "05": "small rotation",
    "06": "medium rotation",
}
GET_IT = (
    "request PURE from the TU Ilmenau, Neuroinformatics and Cognitive Robotics Lab, and give the folder that "
    "holds 01-01, 01-02, …"
)


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the recordings of PURE, in either layout.

    Args:
      source: Folder that holds 01-01, 01-02, …

    Returns:
      One per folder or JSON file, in order. `meta['device_heart_rate']` is the oximeter's, bpm, each second.

    Raises:
      UserError: The folder is missing or holds no recording.
    """
    source = files.find_folder(source, GET_IT)
    found = {p.name for p in source.iterdir() if RECORDING.fullmatch(p.name) and p.is_dir()}
    found |= {p.stem for p in source.glob("*.json") if RECORDING.fullmatch(p.stem)}
    found -= {name for name in NEVER_MADE if name in found and not _holds_files(source / name)}
    if not found:
        raise UserError(f"{source}: holds no folder 01-01, 01-02, …; {GET_IT}")
    return files.list_each(((name, source) for name in sorted(found)), _recording)


def _holds_files(folder: Path) -> bool:
    if folder.with_suffix(".json").exists():
        return True
    hidden = (".", "Thumbs.db")  # of a file browser
    return any(p.is_file() and not p.name.startswith(hidden) for p in folder.rglob("*"))


def _recording(recording_id: str, source: Path) -> Recording:
    inner = source / recording_id / recording_id
    folder = inner if inner.is_dir() else source / recording_id
    beside = [source / recording_id / f"{recording_id}.json", source / f"{recording_id}.json"]
    truth = next((path for path in beside if path.exists()), beside[0])
    stamps_ns, package_ns, package = _read_truth(truth)
    pictures = _pictures(folder, truth, stamps_ns)
    start_ns = pictures[0][0]  # timestamps do not fit float64: first subtract, then divide
    times_s = [(stamp - start_ns) / 1e9 for stamp in package_ns]
    waves = np.array([[p["waveform"], p.get("pulseRate", np.nan)] for p in package], np.float64).T
    notes: list[str] = []
    ppg = files.check_ppg(truth, times_s[CORRUPT:], waves[0][CORRUPT:], where="waveform", notes=notes)
    end_s = (pictures[-1][0] - start_ns) / 1e9
    files.check_clocked(truth, ppg.times_s, folder, end_s, notes)
    person, task = recording_id.split("-")
    meta: dict[str, Any] = {
        "dataset": "PURE",
        "task": TASKS.get(task, task),
        "device_heart_rate": files.by_second(times_s, waves[1]),
        "pictures": len(pictures),
        "bytes": sum(path.stat().st_size for _, path in pictures),
    }
    missing = len(stamps_ns) - len(pictures)
    if missing > 0:
        notes.append(f"{missing} of {len(stamps_ns)} pictures are not in {folder.name}")
    if notes:
        meta["notes"] = notes
    return Recording(
        recording_id=recording_id,
        person_id=person,
        frames=functools.partial(_frames, pictures),
        ppg=ppg,
        file=folder,
        meta=meta,
    )


def _read_truth(path: Path) -> tuple[list[int], list[int], list[dict[str, float]]]:
    """Read the pictures' timestamps and the packages', ns, and what the packages hold."""
    text = files.read_text(path)
    try:
        table = json.loads(text)
        images = [int(entry["Timestamp"]) for entry in table["/Image"]]
        stamps = [int(entry["Timestamp"]) for entry in table["/FullPackage"]]
        values = [dict(entry["Value"]) for entry in table["/FullPackage"]]
        for value in values:
            float(value["waveform"])
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); {files.COPY_IT}") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: lacks /Image[].Timestamp or /FullPackage[].{{Timestamp, Value.waveform}}; "
            f"{files.COPY_IT}"
        ) from error
    return images, stamps, values


def _pictures(folder: Path, truth: Path, stamps_ns: list[int]) -> list[tuple[int, Path]]:
    """Bring the pictures and their timestamps (ns) together: by their names, else by their order."""
    if not folder.is_dir():
        raise UserError(f"{folder}: missing; {files.COPY_IT}")
    paths = sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{folder}: holds no .png picture; {files.COPY_IT}")
    if abs(len(paths) - len(stamps_ns)) > BAD_SHARE * len(stamps_ns):
        raise UserError(
            f"{folder}: has {len(paths)} pictures where {truth.name} has {len(stamps_ns)} timestamps; "
            f"{files.COPY_IT}"
        )
    named = [STAMP.search(path.stem) for path in paths]
    if all(named):
        pictures = sorted((int(match[1]), path) for match, path in zip(named, paths, strict=True))
    elif len(paths) == len(stamps_ns):
        pictures = list(zip(stamps_ns, paths, strict=True))
    else:
        raise UserError(
            f"{folder}: has {len(paths)} pictures, {truth.name} {len(stamps_ns)} timestamps, and the names "
            f"do not say which are missing; {files.COPY_IT}"
        )
    stamps = np.array([stamp for stamp, _ in pictures])
    if len(stamps) < files.LEAST_VALUES:
        raise UserError(f"{folder}: has {len(stamps)} pictures, too few for a pulse; {files.COPY_IT}")
    if not (np.diff(stamps) > 0).all():
        raise UserError(f"{truth}: the timestamps of its pictures do not increase; {files.COPY_IT}")
    return pictures


def _frames(pictures: list[tuple[int, Path]]) -> Iterator[tuple[float, np.ndarray]]:
    """Read the pictures; a damaged one is left out."""
    shape, damaged = None, 0
    for stamp_ns, path in pictures:
        rgb = read_picture(path)
        if rgb is None or (shape is not None and rgb.shape != shape):
            damaged += 1
            continue
        shape = rgb.shape
        yield (stamp_ns - pictures[0][0]) / 1e9, rgb
    if damaged > BAD_SHARE * len(pictures):
        raise UserError(
            f"{pictures[0][1].parent}: {damaged} of {len(pictures)} pictures are damaged; {files.COPY_IT}"
        )


def read_picture(path: Path) -> np.ndarray | None:
    """Read a picture, uint8 [h, w, 3] RGB; None where it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    # What is cut off would be read as a picture with a black rest.
    if not data.endswith(b"IEND\xaeB`\x82"):
        return None
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

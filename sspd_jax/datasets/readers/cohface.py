"""Read COHFACE: 40 people, four minutes each (two by studio light, two by daylight), heavily compressed.

Layout: `S/{0..3}/data.avi` (20 frames/s) and `S/{0..3}/data.hdf5` with `pulse`, `respiration`, `time` (256
Hz) and the attribute `sample-rate-hz`; `protocols/{all,clean,natural}/{train,dev,test}.txt`, lines like
`17/0/data`. The protocols are read from there and kept in `meta['protocols']`: {'all': 'train', …}.

The pulse's second maximum makes naive peak detection count double in five clips; the heart rate is read from
the spectrum of the wave.

References:
  Heusch, Anjos & Marcel, "A reproducible study on remote heart rate measurement", arXiv:1709.00962 (2017).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sspd_jax.datasets import splits
from sspd_jax.datasets.readers import files
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError

VIDEO, TRUTH = "data.avi", "data.hdf5"
PARTS = ("train", "dev", "test")
SAME_RATE = 0.05  # share by which `time` and `sample-rate-hz` may differ
GET_IT = (
    "request COHFACE at https://www.idiap.ch/dataset/cohface and give the folder that holds 1, 2, … and "
    "protocols"
)


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the recordings of COHFACE.

    Args:
      source: Folder that holds the people's folders 1, 2, … and the folder protocols.

    Returns:
      Up to four per person.

    Raises:
      UserError: The folder is missing or has nobody in it, or a protocol cannot be read.
    """
    source = files.find_folder(source, GET_IT)
    clips = [
        (f"{person.name}-{clip.name}", clip)
        for person in sorted(source.iterdir(), key=lambda p: (len(p.name), p.name))
        if person.name.isdecimal() and person.is_dir()
        for clip in sorted(person.iterdir())
        if clip.name.isdecimal() and clip.is_dir()
    ]
    if not clips:
        raise UserError(f"{source}: holds no folder 1/0, 1/1, …; {GET_IT}")
    protocols = read_protocols(source)
    return files.list_each(clips, functools.partial(_recording, protocols=protocols))


def read_protocols(source: Path) -> dict[str, dict[str, str]]:
    """Read the dataset's own protocols.

    Returns:
      Recording ('17-0') → protocol → 'train', 'dev' or 'test'; empty where the folder is missing.

    Raises:
      UserError: A line cannot be read, or a person is in two parts of a protocol.
    """
    parts: dict[str, dict[str, str]] = {}
    for protocol in splits.PROTOCOLS:
        people: dict[str, str] = {}
        for part in PARTS:
            path = source / "protocols" / protocol / f"{part}.txt"
            if not path.exists():
                continue
            for number, line in enumerate(filter(None, files.read_text(path).split()), 1):
                words = line.split("/")
                if len(words) != 3 or not (words[0] + words[1]).isdecimal():
                    raise UserError(f"{path}: line {number} is {line!r}, not like 17/0/data; {files.COPY_IT}")
                if people.setdefault(words[0], part) != part:
                    raise UserError(
                        f"{path}: person {words[0]} is in {part} and in {people[words[0]]}; {files.COPY_IT}"
                    )
                parts.setdefault(f"{words[0]}-{words[1]}", {})[protocol] = part
    return parts


def _recording(recording_id: str, folder: Path, protocols: dict[str, dict[str, str]]) -> Recording:
    video, truth = folder / VIDEO, folder / TRUTH
    values, times_s, meta = _read_truth(truth)
    notes: list[str] = []
    ppg = files.check_ppg(truth, times_s, values, where="pulse", notes=notes)
    facts = files.look_into(video)
    files.require_whole(video)
    files.check_clocked(truth, ppg.times_s, video, facts.duration_s, notes)
    if notes:
        meta["notes"] = notes
    if recording_id in protocols:
        meta["protocols"] = protocols[recording_id]
    return Recording(
        recording_id=recording_id,
        person_id=folder.parent.name,
        frames=functools.partial(files.timed_frames, video, facts.duration_s),
        ppg=ppg,
        file=video,
        meta=meta,
    )


def _read_truth(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read pulse, its times from 0 on (s) and what else is kept."""
    if not path.exists():
        raise UserError(f"{path}: missing; {files.COPY_IT}")
    meta: dict[str, Any] = {"dataset": "COHFACE"}
    try:
        with h5py.File(path, "r") as file:
            values = np.asarray(file["pulse"], np.float64)
            times_s = np.asarray(file["time"], np.float64)
            rate_hz = float(np.ravel(file.attrs["sample-rate-hz"])[0])
            if "illumination" in file.attrs:
                meta["illumination"] = files.tell_json(file.attrs["illumination"])
    except KeyError as error:
        raise UserError(f"{path}: lacks pulse, time or sample-rate-hz; {files.COPY_IT}") from error
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as HDF5; {files.COPY_IT}") from error
    if len(times_s) < 2 or not rate_hz > 0:
        raise UserError(f"{path}: has {len(times_s)} values at {rate_hz:g} Hz; {files.COPY_IT}")
    measured_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0]) if times_s[-1] > times_s[0] else np.nan
    if np.isfinite(measured_hz) and abs(measured_hz / rate_hz - 1) > SAME_RATE:
        raise UserError(
            f"{path}: its times run at {measured_hz:.1f} Hz where sample-rate-hz says {rate_hz:g}; "
            f"{files.COPY_IT}"
        )
    return values, times_s - times_s[0], meta

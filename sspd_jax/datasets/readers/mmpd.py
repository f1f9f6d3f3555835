"""Read MMPD, the full (320×240) or the mini version (80×60): 33 people, 20 phone videos each.

Layout: `subjectN/pN_0.mat` … `pN_19.mat`, MATLAB files of version 5 or 7.3 with `video` [t, h, w, 3] in
0 … 1, `GT_ppg` and the labels light, motion, exercise, skin_color, gender, glasser, hair_cover and makeup;
video and wave at 30 Hz. The motion label 'Watching Videos' of older releases means walking, and is read so.

A version 5 file's video is held in memory whole (see `sspd_jax.datasets.readers.matlab`).

References:
  Tang, Chen, Wang, Wang, Wang, Shi & Liu, "MMPD: Multi-Domain Mobile Video Physiology Dataset", EMBC 2023.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sspd_jax.datasets.readers import files, matlab
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError

HZ = 30.0  # of video and wave
VIDEO, TRUTH = "video", "GT_ppg"
LABELS = ("light", "motion", "exercise", "skin_color", "gender", "glasser", "hair_cover", "makeup")
MOTION_ERRATUM = {"Watching Videos": "Walking"}
PERSON, CLIP = re.compile(r"subject(\d+)"), re.compile(r"p(\d+)_(\d+)\.mat")
GET_IT = (
    "request MMPD at https://github.com/McJackTang/MMPD_rPPG_dataset and give the folder that holds "
    "subject1, subject2, …"
)


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the recordings of MMPD.

    Args:
      source: Folder that holds subject1, subject2, …

    Returns:
      Up to 20 per person; the labels are in `meta`.

    Raises:
      UserError: The folder is missing or holds no recording.
    """
    source = files.find_folder(source, GET_IT)
    clips = sorted(
        (int(person[1]), int(clip[2]), path)
        for folder in source.iterdir()
        if (person := PERSON.fullmatch(folder.name)) and folder.is_dir()
        for path in folder.iterdir()
        if (clip := CLIP.fullmatch(path.name))
    )
    if not clips:
        raise UserError(f"{source}: holds no subject1/p1_0.mat; {GET_IT}")
    return files.list_each(((path.stem, path) for _, _, path in clips), _recording)


def _recording(recording_id: str, path: Path) -> Recording:
    file = matlab.MatFile(path)
    notes: list[str] = []
    frames, ppg = file.clip(VIDEO, TRUTH, HZ, notes)
    meta: dict[str, Any] = {"dataset": "MMPD"}
    for label in LABELS:
        if label in file.shapes:
            meta[label] = _label(file.value(label))
    if meta.get("motion") in MOTION_ERRATUM:
        notes.append(f"the label motion was {meta['motion']!r}, which stands for walking")
        meta["motion"] = MOTION_ERRATUM[meta["motion"]]
    if notes:
        meta["notes"] = notes
    return Recording(
        recording_id=recording_id,
        person_id=path.parent.name,
        frames=frames,
        ppg=ppg,
        file=path,
        meta=meta,
    )


def _label(value: Any) -> Any:
    value = files.tell_json(value)
    return {"True": True, "False": False}.get(value, value) if isinstance(value, str) else value

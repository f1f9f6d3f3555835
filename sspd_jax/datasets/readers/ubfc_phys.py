"""Read UBFC-Phys: 56 people, three tasks each (rest, speech, arithmetic), a wristband's pulse wave.

Layout: `sN/vid_sN_Tk.avi` (35 frames/s) and `sN/bvp_sN_Tk.csv`, one column at 64 Hz that begins with the
video. A person's three recordings belong on the same side of a split.

References:
  Meziati Sabour, Benezeth, De Oliveira, Chappé & Yang, IEEE Trans. Affect. Comput. 14 (2023), 622–636.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from sspd_jax.datasets.readers import files
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError

PPG_HZ = 64.0
GET_IT = (
    "request UBFC-Phys at https://sites.google.com/view/ybenezeth/ubfc-phys and give the folder that holds "
    "s1, s2, …"
)
PERSON = re.compile(r"s(\d+)")
TASKS = {"T1": "rest", "T2": "speech", "T3": "arithmetic"}


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the recordings of UBFC-Phys.

    Args:
      source: Folder that holds s1, s2, …

    Returns:
      Up to three per person; those of which neither video nor wave is there are not listed.

    Raises:
      UserError: The folder is missing or holds nobody.
    """
    source = files.find_folder(source, GET_IT)
    people = {int(m[1]): p for p in source.iterdir() if (m := PERSON.fullmatch(p.name)) and p.is_dir()}
    if not people:
        raise UserError(f"{source}: holds no folder s1, s2, …; {GET_IT}")
    found = []
    for _, folder in sorted(people.items()):
        for task in TASKS:
            name = f"{folder.name}_{task}"
            if next(folder.glob(f"vid_{name}.*"), None) or (folder / f"bvp_{name}.csv").exists():
                found.append((name, folder))
    if not found:
        raise UserError(f"{source}: its folders hold no vid_sN_Tk.avi; {GET_IT}")
    return files.list_each(found, _recording)


def _recording(recording_id: str, folder: Path) -> Recording:
    video, wave = files.find_video(folder, f"vid_{recording_id}"), folder / f"bvp_{recording_id}.csv"
    (values,) = files.read_columns(wave, 1)
    notes: list[str] = []
    ppg = files.check_ppg(wave, files.evenly(values, PPG_HZ), values, notes=notes)
    facts = files.look_into(video)
    files.require_whole(video)
    files.check_span(wave, len(values) / PPG_HZ, video, facts.duration_s)
    return Recording(
        recording_id=recording_id,
        person_id=folder.name,
        frames=functools.partial(files.timed_frames, video, facts.duration_s),
        ppg=ppg,
        file=video,
        meta={"dataset": "UBFC-Phys", "task": TASKS[recording_id[-2:]]} | ({"notes": notes} if notes else {}),
    )

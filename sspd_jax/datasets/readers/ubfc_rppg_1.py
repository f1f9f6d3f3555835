"""Read UBFC-rPPG, DATASET_1: eight people, one webcam video each, a finger's pulse wave at about 62 Hz.

Layout: `N-gt/<some name>.avi` and `N-gt/gtdump.xmp`, rows of numbers separated by commas: time in ms, heart
rate in bpm, SpO₂ in percent, PPG. The times count from the video's first frame (where they cannot, video and
wave begin together); the frames have the times of their file.

References:
  Bobbia, Macwan, Benezeth, Mansouri & Dubois, Pattern Recognit. Lett. 124 (2019), 82–90.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from sspd_jax.datasets.readers import files
from sspd_jax.datasets.readers.ubfc_rppg import PAGE
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError
from sspd_jax.video.files import SUFFIXES

FOLDER = "DATASET_1"
PERSON = re.compile(r"(\d+)-gt")
TRUTH = "gtdump.xmp"
GET_IT = f"request UBFC-rPPG at {PAGE} and give the folder that holds its {FOLDER}"


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the recordings of UBFC-rPPG's DATASET_1.

    Args:
      source: Folder that holds DATASET_1, or the folders N-gt themselves.

    Returns:
      One per person, by their numbers. `meta['device_heart_rate']` is the oximeter's, bpm, each second.

    Raises:
      UserError: The folder is missing or holds nobody.
    """
    source = files.find_folder(source, GET_IT)
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    people = {int(m[1]): p for p in folder.iterdir() if (m := PERSON.fullmatch(p.name)) and p.is_dir()}
    if not people:
        inner = source / "DATASET_2"
        if any(
            path.name.startswith("subject") for p in (folder, inner) if p.is_dir() for path in p.iterdir()
        ):
            raise UserError(
                f"{source}: holds folders subject1, subject2, …, which are UBFC-rPPG's DATASET_2; read it as "
                "ubfc_rppg (--config=ubfc)"
            )
        raise UserError(f"{folder}: holds no folder 5-gt, 6-gt, …; {GET_IT}")
    return files.list_each(((p.name, p) for _, p in sorted(people.items())), _recording)


def _recording(recording_id: str, folder: Path) -> Recording:
    videos = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )
    original = [p for p in videos if p.suffix.lower() == ".avi"]
    videos = original or videos  # copies may lie beside it
    if len(videos) != 1:
        kind = ".avi files" if original or not videos else "videos"
        raise UserError(f"{folder}: holds {len(videos)} {kind} where one is due; {files.COPY_IT}")
    (video,) = videos
    truth = folder / TRUTH
    time_ms, rate, _, values = files.read_columns(truth, 4)
    facts = files.look_into(video)
    times_s = time_ms / 1000
    if len(times_s) and not 0 <= times_s[0] < (facts.duration_s or 0.0):  # some other clock
        times_s = times_s - times_s[0]
    notes: list[str] = []
    ppg = files.check_ppg(truth, times_s, values, where="the PPG column", notes=notes)
    files.require_whole(video)
    files.check_clocked(truth, ppg.times_s, video, facts.duration_s, notes)
    meta = {"dataset": "UBFC-rPPG DATASET_1", "device_heart_rate": files.by_second(times_s, rate)}
    return Recording(
        recording_id=recording_id,
        person_id=recording_id,
        frames=functools.partial(files.timed_frames, video, facts.duration_s),
        ppg=ppg,
        file=video,
        meta=meta | ({"notes": notes} if notes else {}),
    )

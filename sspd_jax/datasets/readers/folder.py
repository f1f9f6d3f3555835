"""Read a folder of videos: any tree of files that FFmpeg decodes, with or without a pulse wave beside them.

A video `a.mp4` may have `a.csv` beside it, with the columns time_s (s since the first frame) and ppg; what
has none is unlabelled, which is all that training needs.

Who is seen: where the folder has folders, each of those is a person (`anna/monday/1.mp4` shows anna); a video
that lies in the folder itself is a person of its own, named after the file. Two people in one folder would be
split as one.

Hidden files and folders are passed over. A folder that is reached twice through links is read once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections import Counter
from pathlib import Path

from sspd_jax.datasets.readers import files
from sspd_jax.datasets.recording import LONGEST_ID, Broken, Ppg, Recording
from sspd_jax.errors import UserError
from sspd_jax.video import decode
from sspd_jax.video.files import find_videos

GET_IT = "give a folder with videos in it or in its folders (.mp4, .mov, .avi, .mkv, .webm, …)"
MEND_IT = "record or copy it again, or move it out of the folder"


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the videos of a folder and the folders in it.

    Args:
      source: Folder of the videos.

    Returns:
      One recording per video, in the order of their paths. The id is made of the path, 'anna-monday-1'.

    Raises:
      UserError: The folder is missing or holds no video.
    """
    source = files.find_folder(source, GET_IT)
    videos, unreadable = find_videos(source)
    if not videos and not unreadable:
        raise UserError(f"{source}: holds no video; {GET_IT}")
    ids = name_recordings([str(path.relative_to(source)) for path in videos + [p for p, _ in unreadable]])
    listed = files.list_each(zip(ids, videos, strict=False), functools.partial(_recording, source=source))
    for recording_id, (path, reason) in zip(ids[len(videos) :], unreadable, strict=True):
        listed.append(
            Broken(recording_id, f"{path}: cannot be looked into ({reason}); make it readable, or move it")
        )
    return listed


def name_recordings(paths: list[str]) -> list[str]:
    """Make ids that are file names of relative paths: letters and digits of any script, '_', '-' and '.'.

    Where two paths would have one name, a hash of the path is added to both; a name that is too long is cut
    and has one, too.
    """
    plain = [re.sub(r"[^\w.-]+", "_", re.sub(r"[/\\]", "-", str(Path(p).with_suffix("")))) for p in paths]
    plain = [name if re.match(r"\w", name) else f"_{name}" for name in plain]
    often = Counter(plain)

    def name_one(name: str, path: str) -> str:
        letters = name.encode()
        if often[name] == 1 and len(letters) <= LONGEST_ID:
            return name
        digest = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:8]
        return f"{letters[: LONGEST_ID - 9].decode(errors='ignore')}-{digest}"

    return [name_one(name, path) for name, path in zip(plain, paths, strict=True)]


def _recording(recording_id: str, video: Path, source: Path) -> Recording:
    facts = files.look_into(video, MEND_IT)
    files.require_whole(video, MEND_IT)
    inside = video.relative_to(source)
    notes: list[str] = [facts.clock_note] if facts.clock == decode.ASSUMED else []
    ppg = _read_ppg(video.with_suffix(".csv"), video, facts.duration_s, notes)
    return Recording(
        recording_id=recording_id,
        person_id=inside.parts[0] if len(inside.parts) > 1 else inside.stem,
        frames=functools.partial(files.timed_frames, video, facts.duration_s, MEND_IT),
        ppg=ppg,
        file=video,
        meta={"dataset": "folder", "path": str(inside)} | ({"notes": notes} if notes else {}),
    )


def _read_ppg(path: Path, video: Path, video_s: float | None, notes: list[str]) -> Ppg | None:
    if not os.path.lexists(path):
        return None
    remedy = "give it the columns time_s (s since the first frame) and ppg, or remove it"
    table = files.read_table(path, ("time_s", "ppg"), remedy)
    ppg = files.check_ppg(path, table["time_s"], table["ppg"], remedy, "ppg", notes)
    files.check_clocked(path, ppg.times_s, video, video_s, notes, remedy)
    return ppg

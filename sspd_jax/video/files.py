"""Video files in a folder."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = {
    *(
        ".mp4",
        ".m4v",
        ".mov",
        ".qt",
        ".avi",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".m2v",
        ".ts",
        ".mts",
        ".m2ts",
    ),
    *(".3gp", ".3g2", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".mjpeg", ".mjpg", ".y4m", ".ivf", ".dv"),
    *(".h264", ".264", ".h265", ".265", ".hevc", ".obu", ".m1v", ".mpv"),
}


def find_videos(source: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Walk a tree, through links too.

    Returns:
      The videos, by their suffixes, in the order of their paths; and the folders that cannot be looked into,
      with the reason.
    """
    videos: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    seen: set[tuple[int, int]] = set()

    def refused(error: OSError) -> None:
        unreadable.append((Path(error.filename), (error.strerror or str(error)).lower()))

    for folder, inner, names in os.walk(source, followlinks=True, onerror=refused):
        status = os.stat(folder)  # noqa: PTH116 (os.walk gives texts)
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()  # a link led back here
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        videos += [
            Path(folder) / name
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    return sorted(videos), sorted(unreadable)

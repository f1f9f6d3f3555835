"""Make `sspd_jax/simulation/people/tracks.npz`: how real heads move, as numbers, from videos of talkers.

    python data/make_tracks.py CLIP...

Of each clip the face's landmarks are followed through every frame. Kept are ten rows of numbers, 25 a second:
how the head is turned and placed, and how far mouth, eyes and brows are open. No picture is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from sspd_jax.simulation.people.head_motion import TRACK_HZ, TRACK_ROWS, TRACKS
from sspd_jax.video import decode, face_track
from sspd_jax.video.face_mesh import load_networks

LIPS, CORNERS = (13, 14), (61, 291)  # landmarks: inner lips, corners of the mouth
EYES = ((159, 145), (386, 374))  # upper and lower lid
MOVED = TRACK_ROWS.index("lips")  # rows before say how the head is turned and placed
BROWS = ((105, 159), (334, 386))  # brow and upper lid


def main() -> int:
    """Run the command."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("clips", nargs="+", type=Path)
    args = parser.parse_args()
    networks, why = load_networks()
    if networks is None:
        sys.exit(why)
    tracks = {}
    for clip in args.clips:
        rows, times_s = [], []
        region = None
        for time_s, rgb in decode.frames(clip):
            if region is None:
                found = networks.detect(rgb)
                region = max(found, key=lambda face: face.region.side).region if found else None
            mesh = networks.landmarks(rgb, region) if region is not None else None
            region = mesh.region if mesh is not None and mesh.presence > 0.5 else None
            if region is not None:
                rows.append(_measure(mesh.points))
                times_s.append(time_s)
        rows, times_s = np.array(rows), np.array(times_s)
        grid_s = np.arange(times_s[0], times_s[-1], 1 / TRACK_HZ)
        even = np.stack([np.interp(grid_s, times_s, row) for row in rows.T])
        even[:MOVED] -= even[:MOVED].mean(1, keepdims=True)  # a person's own rest
        tracks[clip.stem] = np.rint(even * 1000).astype(np.int16)
        print(f"{clip.name}: {len(grid_s) / TRACK_HZ:.1f} s, turned by {even[:3].std(1).round(3)} rad")
    np.savez_compressed(TRACKS, **tracks)
    print(f"{TRACKS}: {TRACKS.stat().st_size / 1e3:.0f} kB")
    return 0


def _measure(points: np.ndarray) -> np.ndarray:
    """Return the rows of one frame: angles in rad, places and openings in spreads of the landmarks."""
    unit = face_track.spread(points)
    turned = np.radians(face_track.head_pose(points))
    x, y = points[:, :2].mean(0) / unit

    def apart(pairs):
        return np.mean([np.linalg.norm(points[a] - points[b]) for a, b in pairs]) / unit

    return np.array([*turned, x, y, np.log(unit), apart([LIPS]), apart([CORNERS]), apart(EYES), apart(BROWS)])


if __name__ == "__main__":
    sys.exit(main())

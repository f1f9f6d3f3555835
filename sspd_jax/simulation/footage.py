"""Real footage that something is done to: where its face and skin are, and how it is played.

A clip is decoded once to find and follow its largest face, and once more for every time that it is played.
Memory does not grow with it but for what is known of the face: 50 kB a second.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.errors import UserError
from sspd_jax.video import decode, face_track, skin_traces
from sspd_jax.video.face_mesh import FaceNetworks, FaceRegion

LEAST_FPS = 8.0  # a pulse of 180 bpm needs more than twice its 3 Hz
HOLD_BYTES = 192 * 2**20  # of pictures that are held to play a clip backwards
LEAST_SKIN = 0.02  # of an aligned crop; an ordinary face shows 0.1 to 0.3
LEAST_GREEN = 12.0  # grey levels: in darker skin a pulse is less than rounding
SKIN_FROM, SKIN_TO = 0.05, 0.25  # likeness at which a pixel begins to be skin and is skin altogether
EDGE_PX = 1.2  # softness of the skin's edge in its map, where the colour makes it sharp


@dataclasses.dataclass(frozen=True, eq=False)
class Footage:
    """A clip and what is known of the face in it.

    Attributes:
      clip: Path of the video.
      size: Width and height of the pictures as they are written, even, pixels.
      times_s: Times of the frames, s, float64 [n], from 0.
      traces: What was seen of the face, frame by frame.
      map_times_s: Times of the maps, s, float64 [m], increasing.
      maps: Where the skin is in the aligned crop, uint8 [m, s, s], 255 for skin.
    """

    clip: Path
    size: tuple[int, int]
    times_s: np.ndarray
    traces: skin_traces.SkinTraces
    map_times_s: np.ndarray
    maps: np.ndarray

    @property
    def fps(self) -> float:
        """1 ÷ the median time between frames, Hz."""
        return float(1 / np.median(np.diff(self.times_s)))

    def region(self, frame: int) -> FaceRegion | None:
        """Return what of a frame the aligned crop shows; None where no face is found."""
        x, y, spread, angle = map(float, self.traces.geometry[frame])
        return FaceRegion(x, y, spread * face_track.CROP_SIDE, angle) if np.isfinite(spread) else None

    def skin(self, frame: int) -> np.ndarray:
        """Return where the skin is in a frame's aligned crop, float32 [s, s], 0 to 1."""
        at = float(np.interp(self.times_s[frame], self.map_times_s, np.arange(len(self.maps))))
        low = int(at)
        high = min(low + 1, len(self.maps) - 1)
        share = np.float32(at - low)
        return (self.maps[low] * (1 - share) + self.maps[high] * share) / np.float32(255)

    def mean_skin(self) -> np.ndarray:
        """Return the mean of the maps, float32 [s, s], 0 to 1."""
        return (self.maps.mean(0) / 255).astype(np.float32)


def study(clip: str | Path, seconds: float, networks: FaceNetworks | None) -> Footage:
    """Find and follow the largest face of a clip and its skin.

    Args:
      clip: Path of a video.
      seconds: How much of its beginning is looked at, s.
      networks: The face networks, or None for the Haar cascade.

    Returns:
      What is known of it.

    Raises:
      UserError: The clip cannot be read, is shorter than half a second or too slow, or shows no face or no
        skin.
    """
    clip = Path(clip)
    shapes: list[tuple[int, ...]] = []

    def frames():
        for time_s, picture in decode.frames(clip):
            if time_s >= seconds:
                return
            shapes[:] = [picture.shape]
            yield time_s, picture

    recorder = skin_traces.SkinRecorder(networks)
    maps, map_times_s = [], []

    def draw(at_s: float) -> None:
        due = not map_times_s or at_s - map_times_s[-1] >= skin_traces.MAP_EVERY_S - 0.002
        skin = recorder.skin_at(at_s) if due else None
        if skin is not None:
            maps.append(np.rint(255 * firm(skin)).astype(np.uint8))
            map_times_s.append(at_s)

    for time_s, picture in frames():
        for at_s in recorder.see(time_s, picture):
            draw(at_s)
    traces = recorder.finish()
    placed = np.isfinite(traces.geometry[:, 0])
    for at_s in traces.time_s[placed & (traces.time_s > max(map_times_s, default=-1))]:
        draw(float(at_s))
    times_s = traces.time_s
    height, width = shapes[0][:2]
    if len(times_s) < 3 or times_s[-1] < 0.5:
        raise UserError(
            f"{clip}: holds {len(times_s)} frame{'s' * (len(times_s) != 1)} in {times_s[-1]:.2g} s, too few "
            "to put a pulse in; give a clip of a second or more"
        )
    if (fps := 1 / np.median(np.diff(times_s))) < LEAST_FPS:
        raise UserError(
            f"{clip}: has {fps:.2g} frames/s, too few for a pulse; give a clip of 15 frames/s or more"
        )
    if not maps:
        raise UserError(f"{clip}: no face is found in it; give a clip in which a face looks to the camera")
    green = traces.skin[traces.found, 1]
    if np.mean(maps) / 255 < LEAST_SKIN or not len(green) or green.mean() < LEAST_GREEN:
        raise UserError(
            f"{clip}: a face is found in it, but no skin that is neither black nor white; give a clip whose "
            "face is bare and well lit"
        )
    size = (width // 2 * 2, height // 2 * 2)
    return Footage(clip, size, times_s, traces, np.array(map_times_s), np.stack(maps))


def firm(likeness: np.ndarray) -> np.ndarray:
    """Turn how much each pixel is like skin into how much of it is skin.

    A pixel that is skin for the most part beats as all skin does; only the edge is soft.

    Args:
      likeness: float32 [s, s], 0 to 1.

    Returns:
      float32 [s, s], 0 to 1.
    """
    skin = np.clip((likeness - SKIN_FROM) / (SKIN_TO - SKIN_FROM), 0, 1).astype(np.float32)
    skin = cv2.morphologyEx(skin, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))  # moles, single hairs
    return cv2.GaussianBlur(skin, (0, 0), EDGE_PX)


def to_and_fro(frames: int, length: int) -> np.ndarray:
    """Return which frame of a clip is shown when: forwards and backwards in turn, none twice in a row.

    Args:
      frames: Number of frames of the clip, 2 or more.
      length: Number of frames to show.

    Returns:
      int64 [length].

    Example:
      >>> to_and_fro(4, 9).tolist()
      [0, 1, 2, 3, 2, 1, 0, 1, 2]
    """
    return np.resize(np.concatenate([np.arange(frames), np.arange(frames - 2, 0, -1)]), length)


def schedule(times_s: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Plan how a clip is played for so long: to and fro, each step as long as it was in the clip.

    Args:
      times_s: Times of the clip's frames, s, float64 [n].
      seconds: Length to fill, s.

    Returns:
      The frame that is shown, int64 [t], and its time, s, float64 [t].
    """
    steps = np.diff(times_s)
    once_s = steps.sum()
    turns = int(np.ceil(seconds / once_s)) + 1
    order = to_and_fro(len(times_s), turns * (len(times_s) - 1) + 1)
    shown_s = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(times_s[order])))])
    kept = shown_s < seconds - 1e-6
    return order[kept], shown_s[kept]


def play(footage: Footage, order: np.ndarray, *, hold_bytes: int = HOLD_BYTES) -> Iterator[np.ndarray]:
    """Decode a clip's frames in any order; memory does not grow with the clip.

    Backwards it is decoded from its beginning for every stretch of frames that can be held.

    Args:
      footage: The clip.
      order: Which frames to show, int [t].
      hold_bytes: How much memory held pictures may take, bytes.

    Yields:
      One picture after the other, uint8 [h, w, 3] RGB, with even sides.

    Raises:
      UserError: The clip can no longer be read.
    """
    width, height = footage.size
    chunk = max(1, hold_bytes // (3 * width * height))
    order = np.asarray(order)
    at = 0
    while at < len(order):
        # As far as it goes forwards, or as many steps backwards as can be held.
        end = at + 1
        while end < len(order) and order[end] > order[end - 1]:
            end += 1
        if end == at + 1:
            while end < len(order) and order[end] < order[end - 1] and end - at < chunk:
                end += 1
        wanted = order[at:end]
        low, high = int(wanted.min()), int(wanted.max())
        decoded = itertools.islice(decode.frames(footage.clip), low, high + 1)
        pictures = (np.ascontiguousarray(picture[:height, :width]) for _, picture in decoded)
        if wanted[-1] >= wanted[0]:
            asked = set(wanted.tolist())
            shown = (picture for number, picture in enumerate(pictures, low) if number in asked)
        else:
            held = dict(enumerate(pictures, low))
            shown = (held.pop(int(number)) for number in wanted)
        count = 0
        for picture in shown:
            yield picture
            count += 1
        if count < len(wanted):
            raise UserError(f"{footage.clip}: ends before it did; leave the clip as it is and try again")
        at = end


def onto_picture(
    maps: np.ndarray, region: FaceRegion, size: tuple[int, int]
) -> tuple[np.ndarray, slice, slice] | None:
    """Lay maps of an aligned crop onto the picture that it was cut from.

    Args:
      maps: float32 [s, s, c], 0 where nothing is to be laid.
      region: What of the picture the crop shows.
      size: Width and height of the picture, pixels.

    Returns:
      float32 [rows, columns, c], and the rows and columns of the picture that it covers: the smallest box
      around what is not 0. None where nothing of it lies in the picture.
    """
    drawn = (
        np.flatnonzero(np.abs(maps).max(axis=(1, 2)) > 0),
        np.flatnonzero(np.abs(maps).max(axis=(0, 2)) > 0),
    )
    if not len(drawn[0]):
        return None
    matrix = region.to_picture(len(maps))
    (top, bottom), (left, right) = ((d[0] - 1, d[-1] + 1) for d in drawn)
    corners = np.array([[x, y, 1] for x in (left, right) for y in (top, bottom)]) @ matrix.T
    first = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    last = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, size)
    if (last <= first).any():
        return None
    matrix[:, 2] -= first
    columns, rows = (last - first).tolist()
    laid = cv2.warpAffine(np.ascontiguousarray(maps), matrix, (columns, rows), flags=cv2.INTER_LINEAR)
    laid = laid.reshape(rows, columns, -1)
    return laid, slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))

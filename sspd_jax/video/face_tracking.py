"""Follow one face through a video: where to cut, and when it is out of view."""

from __future__ import annotations

import dataclasses

import numpy as np

from sspd_jax.video.face_detection import FaceBox, FaceDetector, overlap

DETECT_EVERY_S = 1.0
SEARCH_EVERY_S = 0.2  # while there is none: a face stays longer, and a detection costs more than a frame
LOST_AFTER_S = 3.0  # a detector misses a face that turns or blinks for a moment
SAME_FACE = 0.2  # least overlap of a face with where it was
STAYS_WITHIN = 0.15  # of its width: a detector's box jumps by some percent while the face holds still
GLIDE_S = 1.0


@dataclasses.dataclass
class FaceFollower:
    """Says for every frame where the face is; it is detected once a second, or as often as is asked for.

    The box stays where it is, to the pixel, while the face moves by less than a seventh of its width: a box
    that trembles would draw a pulse of its own. Beyond that, twice in a row, it glides to the new place
    within a second. A face not found for 3 s is lost; from then on any face will do.

    Attributes:
      detector: What finds faces.
      near: Where the face was before; by default the detector's first choice is followed.
      detect_every_s: Time from one detection to the next while there is a face, in s.
      in_view: How many faces the last detection that found any found.
      detections: (time in s, whether the face was found), every detection so far.
    """

    detector: FaceDetector
    near: FaceBox | None = None
    detect_every_s: float = DETECT_EVERY_S
    in_view: int = 0
    detections: list[tuple[float, bool]] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self._box: FaceBox | None = None
        self._goal: FaceBox | None = None  # what the box glides to
        self._start: FaceBox | None = None
        self._start_s = self._seen_s = -np.inf
        self._away = 0  # detections in a row that found the face elsewhere

    def see(self, time_s: float, rgb: np.ndarray) -> FaceBox | None:
        """Take the next frame.

        Args:
          time_s: Its time in s, increasing.
          rgb: The frame, uint8 [h, w, 3].

        Returns:
          The box as the detector would mark it, or None while the face is out of view.
        """
        every_s = SEARCH_EVERY_S if self._box is None else self.detect_every_s
        if self._is_due(time_s, every_s):
            faces = self.detector.detect_all(rgb)
            self.in_view = len(faces) or self.in_view
            found = self._choose(faces)
            self.detections.append((time_s, found is not None))
            self._update(time_s, found)
        return self._box_at(time_s)

    def _is_due(self, time_s: float, every_s: float) -> bool:
        """Say whether a multiple of `every_s` lies between the last detection and this frame."""
        if not self.detections:
            return True
        # Timestamps are rounded, to 1 ms at worst.
        return int((time_s + 0.001) / every_s) != int((self.detections[-1][0] + 0.001) / every_s)

    def _choose(self, faces: list[FaceBox]) -> FaceBox | None:
        where = self._box or self.near
        if where is not None:
            faces = [face for face in faces if overlap(face, where) >= SAME_FACE]
            faces.sort(key=lambda face: -overlap(face, where))
        return faces[0] if faces else None

    def _update(self, time_s: float, found: FaceBox | None) -> None:
        if found is None:
            if self._box is not None and time_s - self._seen_s > LOST_AFTER_S:
                self._box = self._goal = None
            return
        self._seen_s = time_s
        self.near = None
        if self._box is None:
            self._box, self._goal, self._away = found, None, 0
            return
        self._away = self._away + 1 if _far(found, self._goal or self._box) else 0
        if self._away >= 2:
            self._start, self._start_s = self._box_at(time_s), time_s
            self._goal, self._away = found, 0

    def _box_at(self, time_s: float) -> FaceBox | None:
        if self._goal is not None:
            share = (time_s - self._start_s) / GLIDE_S
            if share >= 1:
                self._box, self._goal = self._goal, None
            else:
                pairs = zip(dataclasses.astuple(self._start), dataclasses.astuple(self._goal), strict=True)
                self._box = FaceBox(*(round(a + share * (b - a)) for a, b in pairs))
        return self._box


def _far(one: FaceBox, other: FaceBox) -> bool:
    off = np.abs(np.subtract(dataclasses.astuple(one), dataclasses.astuple(other))).max()
    return off > STAYS_WITHIN * max(one.width, other.width)


def share_in_view(detections: list[tuple[float, bool]], start_s: float, end_s: float) -> float:
    """Return the share of the detections in a span of time that found the face; 1 where there was none."""
    within = [found for time_s, found in detections if start_s - DETECT_EVERY_S / 2 <= time_s <= end_s]
    return float(np.mean(within)) if within else 1.0

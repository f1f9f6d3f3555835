"""Read heart rates from face videos, each with its confidence, or say that there is no reading.

    python -m sspd_jax predict face.mp4 --checkpoint=DIR
    python -m sspd_jax predict face.mp4 --method=pos --json=face.json --plot=face.png
    python -m sspd_jax predict recordings/ --checkpoint=DIR --csv=rates.csv

Each window of 10 s gets a rate and the chance that it is within 3 bpm of the truth; below --min_confidence
there is no reading. The rate of the whole video is the median of its windows'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sspd_jax.errors import UserError
from sspd_jax.inference import windows
from sspd_jax.inference.prediction import Prediction
from sspd_jax.inference.windows import Settings
from sspd_jax.video import decode, face_stream
from sspd_jax.video.face_detection import FaceBox, FaceDetector, overlap
from sspd_jax.video.face_tracking import SAME_FACE, SEARCH_EVERY_S

if TYPE_CHECKING:  # JAX takes seconds to import: what is wrong with the arguments is said before
    from sspd_jax.inference.model import RppgModel

FACES_WITHIN_S = 3.0  # of the first face, the others are searched
RATE_OFF = 0.2  # a header that is that far from the timestamps is wrong, or an average of an uneven rate
MOST_FPS = 60.0  # a pulse needs no more: denser frames are averaged


def predict(
    path: str | Path,
    *,
    reader: RppgModel | None = None,
    method: str = "sspd",
    settings: Settings | None = None,
    near: FaceBox | None = None,
) -> Prediction:
    """Read the heart rate of a face in a video file.

    Args:
      path: a file that FFmpeg can decode.
      reader: the network, for the method 'sspd'.
      method: 'sspd' or a classical one, see `reading.METHODS`.
      settings: windows, read-out and least confidence.
      near: which face, by where it is in the first frame with faces; by default the largest, central one.

    Returns:
      The prediction.

    Raises:
      UserError: the video cannot be read, shows no face, or is too short.
      ConfigError: an unknown method, or 'sspd' without a network.
    """
    windows.wave_reader(method, reader, 30.0)  # what is wrong with the arguments comes first
    stated = _rate(path)
    damage = decode.Damage()
    frames = decode.frames(path, damage)
    read = _predict(frames, Path(path), stated, reader, method, settings or Settings(), near)
    return dataclasses.replace(read, notes=(*read.notes, str(damage))) if str(damage) else read


def _rate(path: str | Path) -> float:
    """Say at what rate to read a file, Hz: as stated, where its timestamps do not say otherwise."""
    stated, measured = decode.read_facts(path).fps, decode.measured_rate(path)
    if stated is None or (measured is not None and abs(stated / measured - 1) > RATE_OFF):
        stated = measured or decode.ASSUMED_FPS
    return min(stated, MOST_FPS)


def predict_frames(
    frames: np.ndarray | Iterable[tuple[float, np.ndarray]],
    fps: float,
    *,
    reader: RppgModel | None = None,
    method: str = "sspd",
    settings: Settings | None = None,
    name: str = "frames",
) -> Prediction:
    """Read the heart rate of a face in pictures that are at hand.

    Args:
      frames: uint8 [t, h, w, 3] RGB, whole pictures with a face in them; or any iterable of (time in s, uint8
        [h, w, 3] RGB), times increasing.
      fps: their rate, Hz; of an iterable, about.
      reader: see `predict`.
      method: see `predict`.
      settings: see `predict`.
      name: for messages.

    Returns:
      The prediction.

    Raises:
      ValueError: an array of another shape or dtype.
      UserError: see `predict`.
      ConfigError: see `predict`.
    """
    if isinstance(frames, np.ndarray):
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 [t, h, w, 3], got {frames.dtype} {list(frames.shape)}")
        frames = ((number / fps, picture) for number, picture in enumerate(frames))
    return _predict(frames, Path(name), fps, reader, method, settings or Settings(), None)


def _predict(
    frames: Iterable[tuple[float, np.ndarray]],
    file: Path,
    stated_fps: float,
    reader: RppgModel | None,
    method: str,
    settings: Settings,
    near: FaceBox | None,
) -> Prediction:
    fps = reader.clock_rate(stated_fps) if method == "sspd" and reader else stated_fps
    read = windows.wave_reader(method, reader, fps)
    size = reader.crop_size if method == "sspd" else face_stream.SIZE
    clip = face_stream.cut_face(frames, file, size=size, follow=True, near=near, watch_background=True)
    stretches, notes = windows.read_clip(clip, fps, read, settings)
    bpm, sure = windows.summary(stretches)
    return Prediction(
        file=str(file),
        method=method,
        read_out=settings.read_out,
        heart_rate_bpm=bpm,
        confidence=sure,
        stretches=tuple(stretches),
        variability=windows.variability(stretches),
        face_box=dataclasses.astuple(clip.box),
        checkpoint=reader.name if method == "sspd" else None,
        notes=tuple(notes),
    )


def find_faces(path: str | Path, *, search_s: float = 30.0) -> list[FaceBox]:
    """Find everybody in a video's beginning.

    Args:
      path: a file that FFmpeg can decode.
      search_s: how far into the video the first face is searched, s.

    Returns:
      A box for each face seen at least twice within 3 s of the first, left to right.

    Raises:
      UserError: the video cannot be read or shows no face.
    """
    detector = FaceDetector()
    seen: list[list[FaceBox]] = []
    first_s, last_look = None, -1
    for time_s, rgb in decode.frames(path):
        if time_s > (search_s if first_s is None else first_s + FACES_WITHIN_S):
            break
        look = int((time_s + 0.001) / SEARCH_EVERY_S)
        if look == last_look:
            continue
        last_look = look
        for face in detector.detect_all(rgb):
            first_s = time_s if first_s is None else first_s
            for same in seen:
                if overlap(face, same[0]) >= SAME_FACE:
                    same.append(face)
                    break
            else:
                seen.append([face])
    faces = [same[0] for same in seen if len(same) > 1] or [same[0] for same in seen]
    if not faces:
        raise UserError(
            f"{path}: no face found in the first {search_s:g} s; film faces from the front, well lit"
        )
    return sorted(faces, key=lambda face: face.left)

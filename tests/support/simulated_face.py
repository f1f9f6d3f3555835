"""What several tests need of videos: where the real one is, writers of odd files, colour traces."""

from pathlib import Path

import av
import numpy as np

from sspd_jax.video.decode import frames
from sspd_jax.video.face_stream import FaceClip, cut_face


def write_sound(path: Path) -> None:
    """Write a file that holds sound only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def open_face_clip(path: Path, **settings) -> FaceClip:
    """Find the face in a file and stream its crops."""
    return cut_face(frames(path), path, **settings)


def colour_trace(path: Path, fps: float, **settings) -> np.ndarray:
    """Return the mean colour of the face crops on a uniform clock, [t, 3]; the video must have no gap."""
    trace = []
    for segment, _, image in open_face_clip(path, **settings).on_clock(fps):
        assert segment == 0
        trace.append(image.mean((0, 1)))
    return np.array(trace)

import numpy as np

from sspd_jax.video import face_track
from sspd_jax.video.face_mesh import FaceFound, Mesh, region_of


class Scripted:
    """Networks that know where the faces are; a region sees the nearest one within it."""

    def __init__(self):
        self.faces = []  # [468, 3] each

    def detect(self, rgb, *, thorough=False):
        return [FaceFound(face_track.box_of(p), region_of(p), 0.9) for p in self.faces]

    def landmarks(self, rgb, region):
        middle = np.array([region.x, region.y])
        near = [p for p in self.faces if np.abs(p[:, :2].mean(0) - middle).max() < region.side / 3]
        if not near:
            return None
        return Mesh(min(near, key=lambda p: np.abs(p[:, :2].mean(0) - middle).max()), 1.0)

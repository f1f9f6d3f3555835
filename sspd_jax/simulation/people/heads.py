"""Heads that differ in shape and move: a mesh, its principal components, and movements of the face.

`heads.npz` is made by `data/make_heads.py` from shapes of MakeHuman that are in the public domain (CC0 1.0).
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("heads.npz")
ATLAS = (720, 1080)  # width and height of the pictures that are laid onto a head, pixels
ISLAND = 560  # its first columns show the skin of head and neck, the others all else


@dataclasses.dataclass(frozen=True, eq=False)
class HeadModel:
    """A mesh whose vertices are linear in what makes a head differ and move.

    Attributes:
      groups: Names of the groups of adults, such as 'asian-female-young'.
      means: Their mean shapes, float32 [g, v, 3], dm: x to the picture's right, y up, z to the camera.
      components: Principal components of a head's features, float32 [k, v, 3], dm per standard deviation.
      moves: Name of a movement → displacement when it is complete, float32 [v, 3], dm.
      triangles: Corners of each triangle, int32 [t, 3].
      part: Name of what each triangle belongs to, str [t].
      vertex_of_corner: int32 [c]; corners differ where vertices lie on a seam of the atlas.
      atlas: Where each corner lies on the atlas, float32 [c, 2], pixels.
      regions: Name → painted region of the island, uint8 [h, w], half as large as the island.
    """

    groups: tuple[str, ...]
    means: np.ndarray
    components: np.ndarray
    moves: dict[str, np.ndarray]
    triangles: np.ndarray
    part: np.ndarray
    vertex_of_corner: np.ndarray
    atlas: np.ndarray
    regions: dict[str, np.ndarray]

    def shape(self, groups: np.ndarray, components: np.ndarray) -> np.ndarray:
        """Return a head at rest.

        Args:
          groups: Share of each group, float [g], sum 1.
          components: How far it goes along each component, standard deviations, float [k].

        Returns:
          Vertices, float32 [v, 3], dm.
        """
        rest = np.tensordot(np.asarray(groups, np.float32), self.means, 1)
        return rest + np.tensordot(np.asarray(components, np.float32), self.components, 1)

    def of_part(self, name: str) -> np.ndarray:
        """Return which triangles belong to a part, bool [t]."""
        return self.part == name

    def vertices_of_part(self, name: str) -> np.ndarray:
        """Return the numbers of a part's vertices, int [n]."""
        return np.unique(self.vertex_of_corner[self.triangles[self.of_part(name)]])


@functools.cache
def load_heads() -> HeadModel:
    """Read the model that travels with the package."""
    with np.load(FILE) as file:
        moves = file["moves"].astype(np.float32) / 1000
        return HeadModel(
            groups=tuple(file["groups"].tolist()),
            means=file["means"].astype(np.float32) / 2000,
            components=file["components"].astype(np.float32) * file["component_dm"][:, None, None],
            moves=dict(zip(file["move_names"].tolist(), moves, strict=True)),
            triangles=file["triangles"].astype(np.int32),
            part=file["parts"][file["part"]],
            vertex_of_corner=file["vertex_of_corner"].astype(np.int32),
            atlas=file["atlas"].astype(np.float32) / 16,
            regions=dict(zip(file["region_names"].tolist(), file["regions"], strict=True)),
        )


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return how a head turns, float32 [3, 3], for column vectors.

    Args:
      yaw: To the picture's right, rad.
      pitch: Downwards, rad.
      roll: Clockwise in the picture, rad.
    """
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the unit normal of the surface at each vertex, float32 [v, 3].

    Args:
      vertices: float32 [v, 3].
      faces: Vertices of each triangle, counter-clockwise seen from outside, int [t, 3].
    """
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    across = np.cross(b - a, c - a)
    total = np.empty_like(vertices)
    corners = faces.T.ravel()
    for axis in range(3):
        total[:, axis] = np.bincount(corners, np.tile(across[:, axis], 3), len(vertices))
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)

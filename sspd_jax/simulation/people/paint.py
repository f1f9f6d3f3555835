"""What is painted onto a head: skin and what beats in it, hair, brows, lips, eyes, clothes, glasses."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from sspd_jax.simulation.people import heads, raster, skin_optics
from sspd_jax.simulation.people.looks import Looks
from sspd_jax.simulation.random_signals import smooth_field

# A head's own unit of length is half the distance of its eyes; of MakeHuman's mean head it is 0.288 dm.
EYE_DM = 0.288
FRAME_AT = (700, 160)  # texels of glasses' frames and glass
GLASS_AT = (600, 200)


@dataclasses.dataclass(frozen=True, eq=False)
class Figure:
    """A person's mesh and what is painted on it.

    Attributes:
      rest: Vertices of the mesh at rest, float32 [v, 3], dm.
      corners: Vertex of each corner, int32 [c].
      atlas: Where each corner lies on the paintings, float32 [c, 2], pixels.
      triangles: Corners of each triangle, int32 [t, 3].
      turns: How much each vertex goes with the head, float32 [v]; 0 for the shoulders.
      colour: Linear red, green and blue under white light, float32 [h, w, 3].
      beats: Change of each with one unit of PPG, relative, float32 [h, w, 3]; 0 where no skin is bare.
      late_s: By how much the pulse comes later than on average, s, float32 [h, w].
      shine: How much shines of a lamp, float32 [h, w].
    """

    rest: np.ndarray
    corners: np.ndarray
    atlas: np.ndarray
    triangles: np.ndarray
    turns: np.ndarray
    colour: np.ndarray
    beats: np.ndarray
    late_s: np.ndarray
    shine: np.ndarray


def draw_figure(looks: Looks) -> Figure:
    """Make a person's mesh and paint it."""
    model = heads.load_heads()
    rest = model.shape(looks.groups, looks.components)
    rng = np.random.default_rng([looks.seed, 0])
    place = _places(model, rest)
    marks = _Marks.of(model, rest)
    colour, beats, late_s, shine, scalp = _skin(rng, looks, model, place, marks)
    _beside(rng, looks, colour, shine, beats)
    rest = _with_hair(rng, looks, model, rest, scalp, place)
    if looks.hair == "long":
        triangles = _cut_long_hair(rng, model, rest, marks)
    else:
        triangles = model.triangles[~model.of_part("hair")]
    turns = np.clip((rest[:, 1] - marks.chin_y + 0.9) / 0.8, 0, 1)
    corners, atlas = model.vertex_of_corner, model.atlas
    if looks.glasses != "none":
        points, faces, where = _glasses(looks, marks)
        triangles = np.concatenate([triangles, faces + len(corners)])
        corners = np.concatenate([corners, np.arange(len(points)) + len(rest)]).astype(np.int32)
        atlas = np.concatenate([atlas, where])
        rest = np.concatenate([rest, points])
        turns = np.concatenate([turns, np.ones(len(points))])
    return Figure(
        rest.astype(np.float32), corners, atlas.astype(np.float32), triangles, turns.astype(np.float32),
        colour, beats, late_s, shine,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Marks:
    """Where things are on a head at rest, dm."""

    eye: np.ndarray  # the one at the picture's right
    lips: np.ndarray
    ear: np.ndarray  # the one at the picture's right
    chin_y: float
    top_y: float

    @classmethod
    def of(cls, model: heads.HeadModel, rest: np.ndarray):
        def middle(vertices):
            chosen = rest[vertices]
            return chosen[chosen[:, 0] > 0].mean(0)

        def region(name):
            skin = np.unique(model.triangles[model.of_part("skin")])
            column, row = (model.atlas[skin] / 2).astype(int).T
            mask = model.regions[name]
            inside = mask[row.clip(0, mask.shape[0] - 1), column.clip(0, mask.shape[1] - 1)] > 128
            return model.vertex_of_corner[skin[inside]]

        lips = rest[region("lips")].mean(0)
        skin = rest[model.vertices_of_part("skin")]
        front = skin[(np.abs(skin[:, 0]) < 0.1) & (skin[:, 2] > lips[2] - 0.35) & (skin[:, 1] < lips[1])]
        return cls(
            eye=middle(model.vertices_of_part("eye")),
            lips=np.array([0, lips[1], lips[2]]),
            ear=middle(region("ears")),
            chin_y=float(front[:, 1].min()),
            top_y=float(skin[:, 1].max()),
        )


def _places(model: heads.HeadModel, rest: np.ndarray) -> np.ndarray:
    """Return what point of the head each texel shows, float32 [h, w, 3], dm; far away where there is none."""
    width, height = heads.ATLAS
    triangles = model.triangles[model.of_part("skin")]
    points = np.column_stack([model.atlas, np.zeros(len(model.atlas), np.float32)])
    seen = raster.rasterise(points, triangles, heads.ATLAS)
    place = np.full((width * height, 3), -99, np.float32)
    place[seen.pixels] = seen.of(rest[model.vertex_of_corner], triangles)
    return place.reshape(height, width, 3)


def _soft(value: np.ndarray, width: float) -> np.ndarray:
    """Return 0 far below 0 and 1 far above, float32."""
    return (0.5 + 0.5 * np.clip(value / width, -1, 1)).astype(np.float32)


def _skin(rng, looks: Looks, model: heads.HeadModel, place: np.ndarray, marks: _Marks):
    """Paint the island: skin, and what grows on it."""
    height, width = place.shape[:2]
    shape = (height, width)
    x, y, z = (place[..., axis] for axis in range(3))
    aside = np.abs(x)
    unit = marks.eye[0] / EYE_DM

    def blob(at_x, at_y, wide, high):
        return np.exp(-0.5 * (((aside - at_x) / wide) ** 2 + ((y - at_y) / high) ** 2)) * (z > 0)

    def field(size):
        return smooth_field(rng, shape, size)

    # Melanin and blood vary over a face; cheeks, nose and lips hold more blood, a tan more melanin.
    melanin = looks.melanin * np.exp(0.06 * field(60) + 0.05 * field(4) + 0.03 * field(1.5))
    for _ in range(int(rng.integers(3, 18))):
        at = rng.uniform((0, -0.5), (0.7, 1.3)) * unit
        side = rng.choice((-1, 1))
        melanin += rng.uniform(0.02, 0.2) * np.exp(
            -0.5 * ((x - side * at[0]) ** 2 + (y - at[1]) ** 2) / rng.uniform(0.006, 0.014) ** 2
        ) * (z > 0)  # fmt: skip
    if looks.melanin < 0.05 and rng.random() < 0.3:
        melanin += 0.03 * _soft(field(3) - 1.5, 0.4) * blob(0.3, 0.5, 0.3, 0.3)
    melanin += looks.melanin * 0.5 * blob(marks.eye[0], marks.eye[1] - 0.02, 0.14, 0.09)
    cheeks = blob(0.42 * unit, marks.eye[1] - 0.42 * unit, 0.16, 0.16)
    nose = blob(0, marks.eye[1] - 0.38 * unit, 0.1, 0.12)
    blood = looks.blood * np.exp(0.12 * field(40) + 0.1 * field(5)) * (1 + 0.7 * cheeks + 0.5 * nose)
    lips = _region(model, "lips", shape)
    blood *= 1 + 1.2 * lips
    colour, pulse = _optics(melanin, blood)
    # The pulse is strongest on forehead and cheeks, weak on the nose's back and around the eyes (Kamshilin et
    # al., Sci. Rep. 5 (2015), 10494), and some 10 ms later here than there.
    forehead = blob(0, marks.eye[1] + 0.45 * unit, 0.4, 0.2)
    strength = np.exp(0.22 * field(50)) * (0.75 + 0.5 * cheeks + 0.35 * forehead - 0.3 * nose)
    beats = (looks.beats * strength)[..., None] * pulse
    late_s = (0.010 * field(70)).astype(np.float32)
    shine = (
        looks.shine * (0.6 + 0.6 * forehead + 0.8 * nose + 0.2 * cheeks) * np.exp(0.15 * field(9))
    ).astype(np.float32)

    # What covers skin: its colour and where, 0 to 1.
    strands = 1 + 0.35 * field(1.2) + 0.25 * field(3)
    hair = (looks.hair_colour * strands[..., None].clip(0.2, 2)).astype(np.float32)
    back_to_front = [
        -1.2,
        -0.5,
        -0.1,
        0.08,
        0.16,
        0.35,
        0.6,
        0.9,
    ]  # of z, from the nape over the ear to the forehead
    from_eyes = np.array([-1.21, -1.11, -0.56, -0.41, -0.14, 0.09, 0.52, 0.66])
    line = marks.eye[1] + np.interp(z, back_to_front, from_eyes)
    receded = 0.35 * looks.age * (looks.beard > 0) * rng.random()
    scalp = _soft(y - line - receded + 0.03 * field(4), 0.07) * (place[..., 1] > -50)
    scalp *= 1 - _region(model, "ears", shape)
    thickness = {"none": 0.0, "shaved": 0.55, "short": 0.97, "full": 1.0, "long": 1.0}[looks.hair]
    cover = [(hair, scalp * thickness * (1 - 0.12 * np.abs(field(1)) * (looks.hair == "short")))]
    # Brows: an arch above the eye, thicker towards the nose.
    along = (aside - marks.eye[0] - 0.015 * unit) / (0.19 * unit)
    arch = marks.eye[1] + unit * (0.20 + 0.045 * (1 - along**2) + 0.02 * along)
    thick = unit * (0.018 + 0.028 * looks.brows) * np.clip(1.1 - 0.45 * along, 0.3, 1.3)
    brow = np.exp(-(((y - arch) / thick) ** 4)) * _soft(1 - np.abs(along), 0.12) * (z > 0.3)
    cover.append((hair * 0.8, brow * np.clip(0.45 + 0.45 * looks.brows + 0.25 * field(1.5), 0, 0.97)))
    if looks.beard:
        # Jaw, chin and upper lip, up to a line from the ear to beside the mouth.
        upper = np.interp(aside / unit, [0, 0.3, 0.5, 0.62, 0.8],
                          marks.lips[1] + unit * np.array([0.17, 0.14, 0.06, 0.2, 0.5]))  # fmt: skip
        lower = marks.chin_y - 0.45
        jaw = (
            _soft(upper - y + 0.02 * field(3), 0.05)
            * _soft(y - lower, 0.15)
            * _soft(z - marks.ear[2] - 0.12, 0.1)
        )
        jaw *= 1 - lips
        density = np.clip(0.35 + 0.65 * looks.beard + 0.3 * field(1.5), 0, 0.98) * looks.beard**0.5
        cover.append((hair, jaw * density))
    if looks.make_up:
        even = colour[colour[..., 1] > 0.002].reshape(-1, 3).mean(0) * np.array([1.08, 1.0, 0.97])
        cover.append((np.broadcast_to(even, colour.shape), np.full(shape, 0.45 * looks.make_up) * (z > 0)))
        cover.append((np.broadcast_to(looks.lips_colour, colour.shape), lips * 0.8 * looks.make_up))
        lids = _region(model, "eyelids", shape)
        cover.append((np.broadcast_to(rng.uniform(0.02, 0.25, 3), colour.shape), lids * 0.6 * looks.make_up))
    for what, where in cover:
        where = np.clip(where, 0, 1).astype(np.float32)
        below = colour
        colour = colour * (1 - where[..., None]) + what * where[..., None]
        beats = beats * ((1 - where)[..., None] * below / np.maximum(colour, 1e-4))  # what shines through
    covered = np.clip(cover[0][1], 0, 1)
    shine *= 1 - 0.6 * covered
    if looks.age > 0.4:  # lines across the forehead, and beside the mouth
        waves = np.clip(np.sin((y - marks.eye[1]) * 55 / unit + field(25)), 0.6, 1) - 0.6
        lines = waves * blob(0, marks.eye[1] + 0.45, 0.3, 0.12) * (looks.age - 0.3)
        colour = colour * (1 - 0.5 * lines[..., None])
    # At the island's shore pixels mix with what lies beside it: there, go on with what is on it.
    on_island = y > -50
    painted = [np.asarray(what, np.float32) for what in (colour, beats, late_s, shine)]
    for what in painted:
        what[~on_island] = _spread(what, on_island, 3)[~on_island]
    return *painted, scalp * min(1.0, 1.5 * thickness)


def _spread(values: np.ndarray, known: np.ndarray, width: float) -> np.ndarray:
    """Return values that are smooth over `width` pixels, of those that are known alone, float32."""
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), width)
    while weight.ndim < values.ndim:
        weight, known = weight[..., None], known[..., None]
    smooth = cv2.GaussianBlur(np.where(known, values, 0).astype(np.float32), (0, 0), width)
    return smooth / np.maximum(weight, 1e-3)


def _optics(melanin: np.ndarray, blood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return colour and relative pulse of every texel, from a table over both pigments."""
    melanins, bloods, *tables = _optics_table()

    def at(values, table):
        return (
            (np.log(values) - np.log(table[0])) / (np.log(table[-1]) - np.log(table[0])) * (len(table) - 1)
        ).astype(np.float32)

    column, row = at(blood, bloods), at(melanin, melanins)
    colour, pulse = (
        cv2.remap(table, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for table in tables
    )
    return colour, pulse


@functools.cache
def _optics_table() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return volumes of melanin [m] and blood [b], and colours and pulses of both, float32 [m, b, 3]."""
    melanins = np.exp(np.linspace(np.log(0.008), np.log(0.5), 40))
    bloods = np.exp(np.linspace(np.log(0.001), np.log(0.2), 30))
    skins = [[skin_optics.skin(m, b) for b in bloods] for m in melanins]
    colours = np.array([[skin.colour for skin in line] for line in skins], np.float32)
    pulses = np.array([[skin.pulse for skin in line] for line in skins], np.float32)
    return melanins, bloods, colours, pulses


def _region(model: heads.HeadModel, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Return a painted region on the whole atlas, float32 [h, w], 0 to 1."""
    whole = np.zeros(shape, np.float32)
    island = cv2.resize(model.regions[name], (heads.ISLAND, shape[0]), interpolation=cv2.INTER_LINEAR)
    whole[:, : heads.ISLAND] = island.astype(np.float32) / 255
    return whole


def _beside(rng, looks: Looks, colour, shine, beats) -> None:
    """Paint what is beside the island: eyes, teeth, mouth, clothes and neck, long hair, frames."""
    beats[:, heads.ISLAND :] = 0
    shine[:, heads.ISLAND :] = 0
    colour[:, heads.ISLAND :] = 0.02
    # The eye, seen from the front: white, iris, pupil; 44 texels are 0.16 dm.
    down, across = np.mgrid[0:128, 0:128].astype(np.float32) - 64
    out = np.hypot(across, down)
    eye = np.full((128, 128, 3), 0.5, np.float32) * np.array([1, 0.92, 0.88], np.float32)
    iris = np.clip((17.0 - out) / 1.5, 0, 1)[..., None]
    streaks = 1 + 0.3 * np.sin(np.arctan2(down, across) * 40 + 3 * np.sin(out))[..., None]
    eye = eye * (1 - iris) + iris * looks.iris * streaks * np.where(out > 14, 0.5, 1)[..., None]
    pupil = np.clip((6.5 - out) / 1.5, 0, 1)[..., None]
    colour[0:128, 576:704] = eye * (1 - pupil) + 0.004 * pupil
    shine[0:128, 576:704] = 5.0
    colour[140:180, 580:620] = (0.10, 0.02, 0.02)  # inside of the mouth
    colour[140:180, 622:660] = (0.45, 0.42, 0.34)  # teeth
    colour[140:180, 662:692] = 0.01  # lashes
    colour[140:180, 694:] = looks.frame_colour
    shine[140:180, 694:] = 2.0
    colour[184:215, 580:620] = 0.01  # dark glass
    shine[184:215, 580:620] = 6.0
    # Neck and clothes: rows 300 − 50·(y − 5.5 of the model's own frame); the neckline is drawn.
    neck = skin_optics.skin(looks.melanin * 0.95, looks.blood * 0.85)
    rows = np.arange(216, 600)
    top = int(rng.integers(262, 285))
    depth = rng.uniform(0, 30)  # of the neckline in front
    columns = np.arange(heads.ISLAND, heads.ATLAS[0])
    line = top + depth * np.exp(-(((columns - 640) / 22) ** 2))
    cloth = looks.clothes[0] * (1 + 0.06 * smooth_field(rng, (len(rows), len(columns)), 2)[..., None])
    if rng.random() < 0.4:
        stripes = (rows[:, None] // int(rng.integers(6, 20))) % 2 == 0
        cloth = np.where(stripes[..., None], cloth, looks.clothes[1])
    colour[216:600, heads.ISLAND :] = cloth.clip(0.005, 0.85)
    skin = (rows[:, None] < line)[..., None]
    colour[216:600, heads.ISLAND :] = np.where(skin, neck.colour, colour[216:600, heads.ISLAND :])
    beats[216:600, heads.ISLAND :] = np.where(skin, 0.6 * looks.beats * neck.pulse, 0)
    strands = (
        1
        + 0.4
        * cv2.GaussianBlur(rng.standard_normal((480, 160)).astype(np.float32), (0, 0), 0.8, sigmaY=18)
        * 6
    )
    colour[600:, heads.ISLAND :] = looks.hair_colour * strands[..., None].clip(0.3, 2.2)
    shine[600:, heads.ISLAND :] = 0.5


def _with_hair(rng, looks: Looks, model: heads.HeadModel, rest: np.ndarray, scalp, place) -> np.ndarray:
    """Lift the scalp by the hair's thickness."""
    thick = {"none": 0.0, "shaved": 0.01, "short": 0.07, "full": 0.2, "long": 0.12}[looks.hair]
    if not thick:
        return rest
    skin = np.unique(model.triangles[model.of_part("skin")])
    column, row = model.atlas[skin].astype(int).T
    lifted = np.zeros(len(rest), np.float32)
    vertices = model.vertex_of_corner[skin]
    smooth = _spread(scalp, place[..., 1] > -50, 8)
    np.maximum.at(lifted, vertices, smooth[row.clip(0, scalp.shape[0] - 1), column.clip(0, heads.ISLAND - 1)])
    up = heads.normals(rest, model.vertex_of_corner[model.triangles])
    wave = 1 + 0.25 * np.sin(rest @ rng.uniform(3, 9, (3, 2)) + rng.uniform(0, 6, 2)).sum(1, keepdims=True)
    return rest + (thick * rng.uniform(0.7, 1.3) * lifted[:, None] ** 1.5 * wave * up).astype(np.float32)


def _cut_long_hair(rng, model: heads.HeadModel, rest, marks: _Marks) -> np.ndarray:
    """Keep the long hair down to where it is cut, and none of it before the face."""
    middle = rest[model.vertex_of_corner[model.triangles]].mean(1)
    ends = marks.chin_y - rng.uniform(-0.1, 1.3)
    hair = model.of_part("hair")
    away = hair & ((middle[:, 1] < ends) | (middle[:, 2] > marks.ear[2] + 0.1))
    inner = model.triangles[hair & ~away][:, ::-1]  # what hangs behind the neck shows its inside
    return np.concatenate([model.triangles[~away], inner])


def _glasses(looks: Looks, marks: _Marks):
    """Return vertices [n, 3], triangles and atlas places of glasses."""
    unit = marks.eye[0] / EYE_DM
    thick = {"thin": 0.018, "thick": 0.045, "dark": 0.04}[looks.glasses] * unit
    wide, high = 0.235 * unit, (0.16 if looks.seed % 2 else 0.19) * unit
    depth = marks.eye[2] + 0.30
    angle = np.linspace(0, 2 * np.pi, 33)
    power = 0.65  # between an ellipse and a rectangle
    ring = np.stack([np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power,
                     np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power], axis=1)  # fmt: skip
    points: list[np.ndarray] = []
    faces: list[tuple[int, int, int]] = []
    where: list[tuple[int, int]] = []

    def strip(first, second, at):
        """Join two rows of points by triangles that are seen from both sides."""
        start = len(points)
        points.extend([*first, *second])
        where.extend([at] * (2 * len(first)))
        n = len(first)
        for i in range(start, start + n - 1):
            for a, b, c in ((i, i + 1, i + n), (i + 1, i + n + 1, i + n)):
                faces.extend([(a, b, c), (a, c, b)])

    for side in (-1, 1):
        centre = np.array([side * marks.eye[0] * 1.02, marks.eye[1] - 0.03 * unit, depth])
        back = np.zeros((len(angle), 3))
        back[:, :2] = ring

        def rim(scale, middle=centre, ring3=back):
            size = np.array([wide + scale, high + scale, 0])
            bent = ring3 * size + middle
            bent[:, 2] -= 0.25 * (np.abs(bent[:, 0]) - marks.eye[0]).clip(0)  # wraps around the face
            return bent

        strip(rim(thick), rim(0.0), FRAME_AT)
        if looks.glasses == "dark":
            strip(rim(0.0), rim(-wide)[:] * [0, 0, 0] + centre, GLASS_AT)
        hinge = np.array(
            [side * (marks.eye[0] * 1.02 + wide + thick), marks.eye[1] + 0.03 * unit, depth - 0.1]
        )
        ear = np.array([side * (marks.ear[0] - 0.02), marks.ear[1] + 0.15 * unit, marks.ear[2]])
        height = np.array([0, max(thick, 0.03), 0])
        along = np.linspace(0, 1, 8)[:, None]
        temple = hinge * (1 - along) + ear * along
        strip(temple + height / 2, temple - height / 2, FRAME_AT)
    inner = marks.eye[0] * 1.02 - wide
    bridge = np.linspace(-inner, inner, 6)
    arch = np.stack([bridge, np.full(6, marks.eye[1] + 0.02), np.full(6, depth + 0.02)], axis=1)
    half = np.array([0, thick / 2, 0])
    strip(arch + half, arch - half, FRAME_AT)
    return np.array(points, np.float32), np.array(faces, np.int32), np.array(where, np.float32)

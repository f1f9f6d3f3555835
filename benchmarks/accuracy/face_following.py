"""Is a face found and held: by the face networks, and by the Haar cascade beside them.

    python benchmarks/accuracy/face_following.py            # minutes

Real heads of `../shared/real`, which lie beside the repository and belong to others. Each is followed by the
package's own tracker (`face_track.MeshTracker`), once with the networks and once with the cascade, ten looks
a second. As they were filmed; and changed as people are in front of cameras: darker, smaller, tilted, turned,
masked, with sunglasses, two that cross. Where the face then is follows from the landmarks of the unchanged
picture, moved as the picture was.

A turned head is rendered from its own landmarks in three dimensions, before a blurred picture of the rest: a
face without a head around it, which is harder than a real one.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import Delaunay

from sspd_jax.video import decode
from sspd_jax.video.face_mesh import FaceNetworks, load_networks, overlap
from sspd_jax.video.face_track import LOOK_EVERY_S, TEMPLATE, MeshTracker, box_of, spread

SHARED = Path(__file__).parents[3] / "shared" / "real"
REPORT = Path(__file__).with_suffix(".md")
SECONDS = 3.0
RIGHT = 0.4  # overlap of the boxes, from which a face is where it should be
LOWER_FACE = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
LOWER_FACE += (323, 454, 280, 4, 50)  # from ear to ear below, and back over cheeks and nose
EYES = ((226, 247, 223, 193, 245, 231, 117), (446, 467, 443, 417, 465, 451, 346))
NOBODY = 20  # pictures

Picture, Points = np.ndarray, np.ndarray
Shown = tuple[float, Picture, list[Points]]  # time in s, what is seen, where the faces are


def looks(path: Path, seconds: float) -> Iterator[tuple[float, Picture]]:
    """Yield ten frames a second of a video."""
    next_s = 0.0
    for time_s, rgb in decode.frames(path):
        if time_s > seconds:
            return
        if time_s >= next_s - 0.002:
            next_s = time_s + LOOK_EVERY_S
            yield time_s, rgb


def head(path: Path, networks: FaceNetworks) -> list[tuple[float, Picture, Points]]:
    """Return a clip's frames, at most 480 rows high, each with the landmarks of its face."""
    tracker, frames = MeshTracker(networks), []
    for time_s, rgb in looks(path, SECONDS):
        if (scale := 480 / rgb.shape[0]) < 1:
            rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tracker.see(time_s, rgb)
        if tracker.faces and tracker.faces[0].looks[-1].points is not None:
            frames.append((time_s, rgb, tracker.faces[0].looks[-1].points.astype(np.float64)))
    return frames


def as_filmed(rgb: Picture, points: Points) -> tuple[Picture, Points]:
    """Change nothing."""
    return rgb, points


def dark(rgb: Picture, points: Points) -> tuple[Picture, Points]:
    """Darken to a mean of 25 of 255, with a sensor's noise."""
    rng = np.random.default_rng(int(rgb[0, 0].sum()))
    seen = rgb * (25 / rgb.mean()) + 3 * rng.standard_normal(rgb.shape)
    return seen.round().clip(0, 255).astype(np.uint8), points


def small(rgb: Picture, points: Points) -> tuple[Picture, Points]:
    """Shrink until the face is 64 pixels wide; the picture keeps its size."""
    left, _, right, _ = box_of(points)
    return moved(rgb, points, scale=64 / (right - left))


def moved(
    rgb: Picture, points: Points, *, degrees: float = 0.0, scale: float = 1.0
) -> tuple[Picture, Points]:
    """Turn in the plane about the face, and scale."""
    matrix = cv2.getRotationMatrix2D(tuple(map(float, points[:, :2].mean(0))), -degrees, scale)
    seen = cv2.warpAffine(
        rgb, matrix, rgb.shape[1::-1], flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    where = points.copy()
    where[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return seen, where


def masked(rgb: Picture, points: Points) -> tuple[Picture, Points]:
    """Cover the face from the nose down with cloth."""
    return covered(rgb, points, [LOWER_FACE], (170, 195, 215)), points


def sunglasses(rgb: Picture, points: Points) -> tuple[Picture, Points]:
    """Cover the eyes with dark glasses."""
    return covered(rgb, points, EYES, (25, 25, 28)), points


def covered(rgb: Picture, points: Points, parts, colour) -> Picture:
    """Fill polygons of landmarks with a colour and some noise."""
    cover = np.zeros(rgb.shape[:2], np.uint8)
    for part in parts:
        cv2.fillPoly(cover, [points[list(part), :2].round().astype(np.int32)], 255)
    soft = cv2.GaussianBlur(cover, (0, 0), 1)[..., None] / 255
    cloth = np.asarray(colour) + 2 * np.random.default_rng(0).standard_normal(rgb.shape)
    return (rgb * (1 - soft) + cloth * soft).round().clip(0, 255).astype(np.uint8)


TRIANGLES = Delaunay(TEMPLATE[:, :2]).simplices


def turned(rgb: Picture, points: Points, *, degrees: float) -> tuple[Picture, Points]:
    """Render the face as if its head were turned to the side."""
    size = spread(points)
    axis = points.mean(0) + np.array([0, 0, 1.2 * size])  # the neck lies behind the face
    angle = np.radians(degrees)
    across, behind = points[:, 0] - axis[0], points[:, 2] - axis[2]
    where = points.copy()
    where[:, 0] = axis[0] + np.cos(angle) * across - np.sin(angle) * behind
    where[:, 2] = axis[2] + np.sin(angle) * across + np.cos(angle) * behind
    seen = cv2.GaussianBlur(rgb, (0, 0), size / 3)
    flat = points[:, :2].astype(np.float32)
    target = where[:, :2].astype(np.float32)
    for corners in TRIANGLES[np.argsort(-where[TRIANGLES, 2].mean(1))]:  # the farthest first
        old, new = flat[corners], target[corners]
        if _area(old) * _area(new) <= 0:
            continue  # seen from behind
        left, top, width, height = cv2.boundingRect(np.floor(new))
        left, top, width, height = left - 1, top - 1, width + 3, height + 3
        if left < 0 or top < 0 or left + width > rgb.shape[1] or top + height > rgb.shape[0]:
            continue
        corner = np.float32([left, top])
        part = cv2.warpAffine(
            rgb, cv2.getAffineTransform(old, new - corner), (width, height), borderMode=cv2.BORDER_REPLICATE
        )
        inside = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(inside, (new - corner).round().astype(np.int32), 1)
        region = seen[top : top + height, left : left + width]
        region[inside > 0] = part[inside > 0]
    return seen, where


def _area(corners: np.ndarray) -> float:
    (ax, ay), (bx, by), (cx, cy) = corners
    return float((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))


CHANGES: dict[str, Callable[[Picture, Points], tuple[Picture, Points]]] = {
    "as filmed": as_filmed,
    "mean brightness 25 of 255": dark,
    "face 64 pixels wide": small,
    **{f"tilted by {d}°": lambda rgb, at, d=d: moved(rgb, at, degrees=d) for d in (15, 30, 45)},
    **{f"turned by {d}°": lambda rgb, at, d=d: turned(rgb, at, degrees=d) for d in (30, 45, 60)},
    "mask": masked,
    "sunglasses": sunglasses,
}


def crossing(one: list, other: list) -> Iterator[Shown]:
    """Let two heads walk past each other, the first before the second."""
    height, width, steps = 360, 640, 40
    for step in range(steps):
        canvas = np.full((height, width, 3), 128, np.uint8)
        where = []
        for frames, way in ((other, -1), (one, 1)):  # the one behind is drawn first
            _, rgb, points = frames[_to_and_fro(step, len(frames))]
            scale = 45 / spread(points)
            x = width / 2 + way * (step / (steps - 1) - 0.5) * 0.55 * width
            middle = points[:, :2].mean(0)
            matrix = np.array([[scale, 0, x - scale * middle[0]], [0, scale, height / 2 - scale * middle[1]]])
            person = np.zeros(rgb.shape[:2], np.uint8)
            cv2.ellipse(
                person, tuple(map(int, middle)), (int(105 / scale), int(150 / scale)), 0, 0, 360, 255, -1
            )
            drawn = cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_AREA)
            inside = cv2.warpAffine(person, matrix, (width, height)) > 127
            canvas[inside] = drawn[inside]
            at = points.copy()
            at[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
            where.append(at)
        yield step * LOOK_EVERY_S, canvas, where[::-1]


def _to_and_fro(step: int, length: int) -> int:
    back = step % (2 * length - 2)
    return min(back, 2 * length - 2 - back)


def nobody(heads: dict[str, list]) -> Iterator[Picture]:
    """Yield pictures without a face: what stands beside the heads, and patterns."""
    rng = np.random.default_rng(0)
    for frames in heads.values():
        _, rgb, points = frames[0]
        left, _, right, _ = box_of(points)
        wide = right - left
        for side in (rgb[:, : max(0, int(left - 0.5 * wide))], rgb[:, int(right + 0.5 * wide) :]):
            if side.shape[1] >= 60:
                yield cv2.resize(side, (640, 480))
    while True:
        coarse = rng.uniform(0, 255, (int(rng.integers(3, 40)), int(rng.integers(3, 40)), 3))
        yield cv2.resize(coarse.astype(np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


def follow(networks: FaceNetworks | None, shown: Iterator[Shown], most: int = 1) -> tuple[int, int, int]:
    """Count the looks at a face, those that found it, and those that found it where it is.

    Of two faces a track is right where it is the one that it began on.
    """
    tracker = MeshTracker(networks, most_faces=most)
    asked = found = right = 0
    belongs: dict[int, int] = {}
    for time_s, rgb, where in shown:
        if not tracker.see(time_s, rgb):
            continue
        boxes = {
            face.number: box_of(face.looks[-1].points)
            for face in tracker.faces
            if face.looks[-1].points is not None
        }
        for number, box in boxes.items():
            if number not in belongs and where:
                belongs[number] = int(np.argmax([overlap(box, box_of(points)) for points in where]))
        for person, points in enumerate(where):
            asked += 1
            mine = [box for number, box in boxes.items() if belongs.get(number) == person]
            found += bool(mine)
            right += any(overlap(box, box_of(points)) >= RIGHT for box in mine)
    return asked, found, right


def main() -> int:
    """Measure, and write the page."""
    networks, why = load_networks()
    if networks is None or not SHARED.is_dir():
        raise SystemExit(why or f"{SHARED}: is not there")
    readers = {"networks": networks, "cascade": None}
    paths = [*sorted((SHARED / "clips").glob("[ts]*.mp4")), *sorted((SHARED / "webcam").glob("*.mp4"))]
    heads = {path.stem: frames for path in paths if len(frames := head(path, networks)) >= 10}
    result: dict[str, dict] = {"heads": sorted(heads), "changed": {}, "whole": {}, "nobody": {}}
    for name, change in CHANGES.items():
        cells = result["changed"][name] = {}
        for reader, model in readers.items():
            counts = np.zeros(3, int)
            for frames in heads.values():
                seen = ((t, *change(rgb, points)) for t, rgb, points in frames)
                counts += follow(model, ((t, rgb, [points]) for t, rgb, points in seen))
            cells[reader] = counts.tolist()
        print(name, cells, flush=True)
    pairs = list(itertools.pairwise(list(heads.values())))[::2]
    result["changed"]["two that cross"] = {
        reader: np.sum([follow(model, crossing(*pair), 2) for pair in pairs], 0).tolist()
        for reader, model in readers.items()
    }
    empty = list(itertools.islice(nobody(heads), NOBODY))
    for reader, model in readers.items():
        trackers = [MeshTracker(model) for _ in empty]
        for tracker, rgb in zip(trackers, empty, strict=True):
            tracker.see(0.0, rgb)
        result["nobody"][reader] = [len(empty), sum(bool(tracker.faces) for tracker in trackers)]
    people = sorted((SHARED / "ubfc_crf23").glob("*/vid.*"))
    for path in [*paths, *people]:
        cells = result["whole"][path.parent.name if path.stem == "vid" else path.stem] = {}
        for reader, model in readers.items():
            tracker, asked, held = MeshTracker(model), 0, 0
            for time_s, rgb in looks(path, 60.0):
                if tracker.see(time_s, rgb):
                    asked += 1
                    held += bool(tracker.faces) and tracker.faces[0].looks[-1].points is not None
            cells[reader] = [asked, held]
        print(path, cells, flush=True)
    REPORT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    REPORT.write_text(page(result))
    print(REPORT.read_text())
    return 0


def page(result: dict) -> str:
    """Write the page of a result."""

    def share(part: int, whole: int) -> str:
        return f"{part / whole:.0%}" if part in (0, whole) else f"{100 * part / whole:.1f}%"

    lines = [
        "# Faces, found and held",
        "",
        f"`python benchmarks/accuracy/face_following.py`: {len(result['heads'])} real heads, three seconds "
        "of each, ten looks a second, by the package's own tracker: once with the face networks, once with "
        f"OpenCV's Haar cascade. Right: its box overlaps the face's by {RIGHT:.0%} or more. Nothing was "
        "chosen on these pictures.",
        "",
        "| what is seen | looks | networks: found | right | cascade: found | right |",
        "|---|---|---|---|---|---|",
    ]
    for name, cells in result["changed"].items():
        (asked, *networks), (_, *cascade) = cells["networks"], cells["cascade"]
        row = [name, str(asked), *(share(count, asked) for count in (*networks, *cascade))]
        lines.append("| " + " | ".join(row) + " |")
    lines += [
        "",
        "Tilted heads are turned in the picture's plane. Turned heads are rendered from their own landmarks "
        "before a blurred picture of the rest: a face without a head, harder than a real one. Of two that "
        "cross, a track is right while it is on the person that it began on; one of them is hidden awhile.",
        "",
        "Pictures without a face, in which one was found: "
        + ", ".join(f"{found} of {asked} by the {name}" for name, (asked, found) in result["nobody"].items())
        + ".",
        "",
        "## Whole clips, as they were filmed",
        "",
        "| clip | looks | held by the networks | by the cascade |",
        "|---|---|---|---|",
    ]
    for name, cells in result["whole"].items():
        asked = cells["networks"][0]
        held = [share(cells[reader][1], asked) for reader in ("networks", "cascade")]
        lines.append(f"| {name} | {asked} | " + " | ".join(held) + " |")
    totals = {
        reader: np.sum([cells[reader] for cells in result["whole"].values()], 0)
        for reader in ("networks", "cascade")
    }
    lines.append(
        f"| all | {totals['networks'][0]} | "
        + " | ".join(share(held, asked) for asked, held in totals.values())
        + " |"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

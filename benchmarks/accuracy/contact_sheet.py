"""Draw the first 60 simulated people, and how each preset films one of them.

    python benchmarks/accuracy/contact_sheet.py

writes docs/people.jpg and docs/presets.jpg. A person looks at them and believes them, or does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np

from sspd_jax.simulation import known_pulse
from sspd_jax.simulation.people import film, looks, paint
from sspd_jax.simulation.people.presets import PRESETS
from sspd_jax.simulation.people.recordings import TRACKS

DOCS = Path(__file__).parents[2] / "docs"
PEOPLE, ACROSS = 60, 12
MOMENTS_S = (0.0, 1.2, 2.4, 3.6, 4.8, 6.0)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    faces = [_face(number) for number in range(1, PEOPLE + 1)]
    rows = [np.hstack(faces[i : i + ACROSS]) for i in range(0, PEOPLE, ACROSS)]
    _write(DOCS / "people.jpg", np.vstack(rows))
    numbers = looks.people_of("all", len(PRESETS))
    strips = [_strip(name, number) for name, number in zip(PRESETS, numbers, strict=True)]
    _write(DOCS / "presets.jpg", np.vstack(strips))
    return 0


def _face(number: int) -> np.ndarray:
    """Film a person as a webcam does, before a plain wall; uint8 [h, w, 3]."""
    scene = dataclasses.replace(PRESETS["studio"].scene, size=(240, 240), face=(0.5, 0.5), busy=0)
    figure = paint.draw_figure(looks.draw_looks(number))
    tracks = TRACKS[looks.split_of(number)]
    *_, picture = film.film(
        figure, scene, known_pulse.draw_wave(1, 72, 1.0), tracks, np.arange(4) / 4, [number]
    )
    return cv2.resize(picture[:, 40:200], (120, 180), interpolation=cv2.INTER_AREA)


def _strip(name: str, number: int) -> np.ndarray:
    """Film a person as a preset does; a few moments side by side under its name."""
    preset = PRESETS[name]
    scene = preset.scene
    if scene.size[0] < scene.size[1]:
        scene = dataclasses.replace(scene, size=(360, 640))
    figure = paint.draw_figure(looks.draw_looks(number))
    times_s = np.arange(0, MOMENTS_S[-1] + 0.2, 0.2)
    wave = known_pulse.draw_wave(1, 72, float(times_s[-1]))
    pictures = list(film.film(figure, scene, wave, TRACKS[looks.split_of(number)], times_s, [number]))
    shown = []
    for moment_s in MOMENTS_S:
        picture = pictures[round(moment_s / 0.2)]
        height, width = picture.shape[:2]
        side = min(height, width)
        top, left = round((height - side) * 0.4), (width - side) // 2
        square = np.ascontiguousarray(picture[top : top + side, left : left + side])
        shown.append(cv2.resize(square, (200, 200), interpolation=cv2.INTER_AREA))
    strip = np.hstack(shown)
    cv2.putText(strip, name, (8, 190), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2, cv2.LINE_AA)
    return strip


def _write(path: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())

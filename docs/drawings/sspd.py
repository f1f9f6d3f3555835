"""Draw how SSPD learns: `python docs/drawings/sspd.py` writes docs/sspd.svg.

What can be computed is not drawn by hand. The pictures are the portrait of the sample video, its crops,
flips, differences and masks. The package's own functions make the matrices and waves, from made-up features.
The same call writes the same file.

    python docs/drawings/sspd.py            docs/sspd.svg
    python docs/drawings/sspd.py OUT.png    somewhere else, in another format
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path as FilePath

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path

from sspd_jax.method.self_similarity import similarity_matrix, similarity_wave

DOCS = FilePath(__file__).parents[1]
PORTRAIT = DOCS.parent / "sspd_jax" / "simulation" / "portrait.png"

WIDTH, HEIGHT, INCH = 190.0, 107.0, 0.0625
"""Of the drawing in its own units, and of a unit in inches."""
MIDDLE = 57.0
"""Height about which the target network mirrors the online one."""
SIMILARITY, WAVE = 20.5, 38.0
"""Distance from there of a network's two answers."""

INK, QUIET, PAPER = "#1f2933", "#5f6b78", "#ffffff"
ONLINE, TARGET = "#1f6fb4", "#bf5b17"
WAVE_LOSS, SIMILARITY_LOSS = "#7a3fa0", "#b3263a"
KEPT = "#2f8f4e"

Point = tuple[float, float]


def main(argv: list[str]) -> None:
    """Write the drawing.

    Args:
      argv: the file, by default docs/sspd.svg.
    """
    output = FilePath(argv[0]) if argv else DOCS / "sspd.svg"
    plt.rcParams.update({"svg.hashsalt": "sspd", "svg.fonttype": "path", "font.family": "DejaVu Sans"})
    figure = plt.figure(figsize=(WIDTH * INCH, HEIGHT * INCH), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _clip(axes)
    _network(axes, online=True)
    _network(axes, online=False)
    _average(axes)
    _losses(axes)
    _gradients(axes)
    _legend(axes)
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None, dpi=150)


# What is shown.


def _pulse(samples: int, phase: float, noise: float, seed: int) -> np.ndarray:
    """Make a pulse wave of 10 s whose rate drifts a little."""
    t = np.linspace(0, 10, samples)
    beat = 2 * np.pi * (1.1 * t + 0.15 * np.sin(2 * np.pi * t / 9)) + phase
    wave = np.sin(beat) + 0.35 * np.sin(2 * beat + 0.9)
    return wave + noise * np.random.default_rng(seed).standard_normal(samples)


def _similarity(phase: float, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the similarity matrix and wave of features that follow a pulse."""
    wave = _pulse(150, phase, noise, seed)
    features = np.stack([np.roll(wave, -lag) for lag in range(8)], axis=-1)[None, :110]
    ssm = similarity_matrix(features.astype(np.float32))
    return np.asarray(ssm[0]), np.asarray(similarity_wave(ssm)[0])


def _frames() -> list[np.ndarray]:
    """Return frames of a clip, float [h, w, 3] in 0–1: the portrait, moved from one to the next."""
    face = plt.imread(PORTRAIT)[..., :3]
    return [face[24 + k : 184 + k, 40 + 2 * k : 200 + 2 * k] for k in range(4)]


def _view(*, online: bool) -> list[np.ndarray]:
    """Return differences of flipped frames; for the online network also cropped, and one of them masked."""
    face = plt.imread(PORTRAIT)[24:184, 40:200, :3]
    face = face[10:140, 12:142][:, ::-1] if online else face[::-1, ::-1]
    masked = (1,) if online else ()
    shown = []
    for k, move in enumerate(((0, 1), (1, 0), (1, 1), (0, 1))):
        change = face - np.roll(face, move, axis=(0, 1))
        shown.append(np.clip(0.5 + 2.2 * change * (k not in masked), 0, 1)[2:, 2:])
    return shown


def _halved(picture: np.ndarray) -> np.ndarray:
    """Average pixels two by two: the drawing is small, and so its file is."""
    height, width, channels = picture.shape
    return picture.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


# Parts of the drawing.


def _clip(axes: Axes) -> None:
    _stack(axes, _frames(), 2.5, MIDDLE - 9, 14.0, 1.5, INK)
    _text(axes, 11.8, MIDDLE - 11.8, "one clip", size=10.5, weight="bold")
    _text(axes, 11.8, MIDDLE - 15.0, "no label", size=9, color=QUIET)


def _network(axes: Axes, *, online: bool) -> None:
    """Draw one network from its view to its two answers."""
    colour, letter, up = (ONLINE, "o", 1) if online else (TARGET, "t", -1)
    wave_y, similar_y = MIDDLE + up * WAVE, MIDDLE + up * SIMILARITY
    centre = (wave_y + similar_y) / 2

    top, bottom = MIDDLE + up * 49.2, MIDDLE + up * 8.5
    _panel(axes, 24, min(top, bottom), 112, abs(top - bottom), colour)
    name = (
        "Online network: trained" if online else "Target network: moving average (EMA) of the online network"
    )
    _text(axes, 26.5, top - up * 3.2, name, size=11, weight="bold", color=colour, ha="left")

    _stack(axes, _view(online=online), 27.0, centre - 6.2, 11.0, 1.3, colour)
    _text(axes, 34.5, centre + 11.0, "local view" if online else "global view", size=9.5, weight="bold")
    steps = "crop, flip, difference,\nmask" if online else "flip, difference"
    _text(axes, 34.5, centre - 7.6, steps, size=8.5, color=QUIET, va="top")
    _path(axes, [(11.8, MIDDLE + (10.6 if online else -17.2)), (11.8, centre), (26.4, centre)], INK)

    _arrow(axes, (43.0, centre), (46.6, centre), INK)
    _box(axes, 47, centre - 6, 17, 12, "backbone", colour, kept=not online)
    _path(axes, [(64.4, centre + up * 2.6), (70.5, centre + up * 2.6), (70.5, wave_y), (77.6, wave_y)], INK)
    _path(
        axes,
        [(64.4, centre - up * 2.6), (70.5, centre - up * 2.6), (70.5, similar_y), (77.6, similar_y)],
        INK,
    )
    _text(axes, 67.3, centre + up * 5.0, "F2", size=9, color=QUIET)
    _text(axes, 67.3, centre - up * 5.0, "F1", size=9, color=QUIET)

    _box(axes, 78, wave_y - 4.2, 18, 8.4, "predictor", colour, kept=not online)
    _arrow(axes, (96.4, wave_y), (100.6, wave_y), INK)
    phase = 0.0 if online else 0.3
    _curve(axes, 101.5, wave_y - 3.4, 32, 6.8, _pulse(240, phase, 0.03, 1 + online), colour)
    label = (101.5, wave_y - up * 5.6)
    _text(axes, *label, f"wave $y_{letter}$", size=9.5, ha="left")

    _box(axes, 78, similar_y - 4.9, 18, 9.8, "similarity\nblocks ×3", colour, dashed=True)
    _arrow(axes, (96.4, similar_y), (100.6, similar_y), INK)
    ssm, ssw = _similarity(phase, 0.05 if online else 0.1, 3 + online)
    x, y, size = 101.5, similar_y - 5.5, 11.0
    axes.imshow(
        ssm, extent=(x, x + size, y, y + size), cmap="magma", vmin=-1, vmax=1, zorder=3, aspect="auto"
    )
    axes.add_patch(Rectangle((x, y), size, size, fill=False, ec=INK, lw=0.8, zorder=4))
    for lag in (2.2, 4.4, 6.6):
        axes.plot((x + lag, x + size), (y + size, y + lag), color="w", lw=1, ls=(0, (3, 2)), zorder=5)
    _arrow(axes, (113.0, similar_y), (117.0, similar_y), INK)
    _curve(axes, 117.9, similar_y - 3.4, 15.6, 6.8, ssw, colour)
    _text(axes, x + size / 2, similar_y + up * 7.3, f"SSM$_{letter}$", size=9.5)
    _text(axes, 125.6, similar_y + up * 7.3, f"SSW$_{letter}$", size=9.5)
    _text(axes, 125.6, similar_y + up * 5.0, "mean of each diagonal", size=7, color=QUIET)


def _average(axes: Axes) -> None:
    _arrow(axes, (55.5, MIDDLE + 22.6), (55.5, MIDDLE - 22.6), TARGET, width=2.6)
    _text(axes, 57.2, MIDDLE + 2.1, "after each step", size=8.5, color=QUIET, ha="left")
    _text(
        axes, 57.2, MIDDLE - 1.9, r"$\theta_t \leftarrow m\,\theta_t + (1 - m)\,\theta_o$", size=10, ha="left"
    )


def _losses(axes: Axes) -> None:
    for up in (1, -1):
        _path(
            axes,
            [(134.2, MIDDLE + up * SIMILARITY), (149, MIDDLE + up * SIMILARITY), (149, MIDDLE + up * 10.4)],
            INK,
        )
        _path(axes, [(134.2, MIDDLE + up * WAVE), (177, MIDDLE + up * WAVE), (177, MIDDLE + up * 10.4)], INK)
    similar = ["same SSM", "same SSW", "even diagonals", "rate of a heart"]
    _loss(axes, 138.5, 22, "L_TSPD", similar, SIMILARITY_LOSS)
    _loss(axes, 165.5, 22, "L_RPD", ["same wave", "same spectrum"], WAVE_LOSS)


def _loss(axes: Axes, x: float, width: float, name: str, asks: Sequence[str], colour: str) -> None:
    shape = "round,pad=0,rounding_size=1.2"
    style = {"fc": PAPER, "ec": colour, "lw": 1.8, "zorder": 4}
    axes.add_patch(FancyBboxPatch((x, MIDDLE - 10), width, 20, boxstyle=shape, **style))
    base, below = name.split("_")
    _text(axes, x + width / 2, MIDDLE + 6.8, rf"${base}_\mathrm{{{below}}}$", size=12, color=colour)
    for k, line in enumerate(asks):
        _text(axes, x + width / 2, MIDDLE + 2.6 - 3.4 * k, line, size=8.8)


def _gradients(axes: Axes) -> None:
    """Show what each loss moves: the wave's the predictor alone, the similarities' backbone and blocks."""
    below, blocks = MIDDLE + 12.0, MIDDLE + SIMILARITY - 5.3
    _path(axes, [(142, MIDDLE + 10.4), (142, below), (87, below), (87, blocks)], SIMILARITY_LOSS, True)
    _path(axes, [(87, below), (61, below), (61, MIDDLE + 22.9)], SIMILARITY_LOSS, True)
    above = MIDDLE + 45.4
    _path(axes, [(183, MIDDLE + 10.4), (183, above), (87, above), (87, MIDDLE + WAVE + 4.6)], WAVE_LOSS, True)
    # Nothing of the wave's losses passes the predictor.
    y = MIDDLE + WAVE
    for x in (73.2, 74.4):
        axes.plot((x, x), (y - 2.1, y + 2.1), color=WAVE_LOSS, lw=2.2, zorder=7, solid_capstyle="round")
    _text(axes, 76.6, y + 4.0, "stop-gradient", size=8.5, color=WAVE_LOSS, ha="right")


def _legend(axes: Axes) -> None:
    y = 3.6
    _path(axes, [(26, y), (32.5, y)], INK, True)
    _text(axes, 33.8, y, "gradient; none reaches the target", size=9, ha="left")
    _box(axes, 79, y - 1.6, 6.5, 3.2, "", INK, dashed=True)
    _text(axes, 86.8, y, "in training only", size=9, ha="left")
    _box(axes, 113, y - 1.6, 6.5, 3.2, "", INK, kept=True)
    _text(axes, 120.8, y, "kept to infer waves from new videos", size=9, ha="left")


# Strokes.


def _text(axes: Axes, x: float, y: float, text: str, *, size: float, **style) -> None:
    style = {"color": INK, "ha": "center", "va": "center", "zorder": 6, "linespacing": 1.05, **style}
    axes.text(x, y, text, fontsize=size, **style)


def _arrow(axes: Axes, start: Point, end: Point, colour: str, *, width: float = 1.3) -> None:
    _path(axes, [start, end], colour, width=width)


def _path(
    axes: Axes, points: Sequence[Point], colour: str, dashed: bool = False, *, width: float = 1.3
) -> None:
    """Draw an arrow along straight lines."""
    line = [*points[:-1], _short_of(points[-2], points[-1], 1.0)]
    style = {"color": colour, "lw": width, "zorder": 5, "solid_joinstyle": "round", "dash_joinstyle": "round"}
    axes.plot(*zip(*line, strict=True), ls=(0, (3.2, 1.8)) if dashed else "-", **style)
    head = f"-|>,head_length={4 + width},head_width={1.6 + width}"
    tip = Path([_short_of(points[-2], points[-1], 1.4), points[-1]])
    axes.add_patch(
        FancyArrowPatch(path=tip, arrowstyle=head, color=colour, lw=0.6, zorder=5, shrinkA=0, shrinkB=0)
    )


def _short_of(start: Point, end: Point, by: float) -> Point:
    away = np.subtract(start, end)
    return tuple(np.add(end, away / np.hypot(*away) * by))


def _panel(axes: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    shape = "round,pad=0,rounding_size=2"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=colour, ec="none", alpha=0.08, zorder=0)
    )


def _box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    name: str,
    colour: str,
    *,
    kept=False,
    dashed=False,
) -> None:
    shape = "round,pad=0,rounding_size=1.2"
    style = {"fc": PAPER, "ec": KEPT if kept else colour, "lw": 3 if kept else 1.5, "zorder": 4}
    style["ls"] = (0, (3.5, 2)) if dashed else "-"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, **style))
    _text(axes, x + width / 2, y + height / 2, name, size=10.5, weight="bold")


def _stack(
    axes: Axes, pictures: Sequence[np.ndarray], x: float, y: float, size: float, step: float, colour: str
) -> None:
    for k, picture in reversed(list(enumerate(pictures))):
        left, low, depth = x + step * k, y + step * k, 3 - 0.1 * k
        extent = (left, left + size, low, low + size)
        axes.imshow(_halved(picture), extent=extent, zorder=depth, aspect="auto", interpolation="none")
        axes.add_patch(Rectangle((left, low), size, size, fill=False, ec=colour, lw=0.9, zorder=depth + 0.05))


def _curve(
    axes: Axes, x: float, y: float, width: float, height: float, values: np.ndarray, colour: str
) -> None:
    across = np.linspace(x, x + width, len(values))
    axes.plot(across, y + height * (values - values.min()) / np.ptp(values), color=colour, lw=1.5, zorder=5)


if __name__ == "__main__":
    main(sys.argv[1:])

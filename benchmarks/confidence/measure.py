"""Measure what the shipped confidence is worth on simulated people whom nothing was fitted to.

    python benchmarks/confidence/measure.py     # a minute, from the rows in confidence.csv
    python benchmarks/confidence/measure.py --film --checkpoint=workdir/demo/run/network/target    # hours

`clips.py` says what is filmed, `fit.py` fits the weights. The tables go to confidence.md beside this file,
the reliability diagram to confidence.png.
"""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path

import clips
import numpy as np
from clips import (
    CONTACT_PEOPLE,
    FITTED,
    HELD_OUT,
    KINDS,
    PEOPLE,
    SECONDS,
    Row,
    contact_waves,
    without_background,
)
from fit import fit
from matplotlib.figure import Figure

from sspd_jax.cli import common
from sspd_jax.heart_rate import confidence
from sspd_jax.runtime import storage

REPORT = Path(__file__).with_name("confidence.md")
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)


def weighed_by_others(rows: list[Row]) -> np.ndarray:
    """Weigh everybody by weights that were fitted to all the others: a confidence for each row."""
    names = list(confidence.features(rows[0].evidence))
    sure = np.zeros(len(rows))
    people = np.array([(row.seed, row.person) for row in rows])
    for person in np.unique(people, axis=0):
        mine = (people == person).all(axis=1)
        weights = confidence.as_weights(
            fit([row for row, out in zip(rows, mine, strict=True) if not out], names)
        )
        for number in np.flatnonzero(mine):
            sure[number], _ = confidence.weighed(rows[number].evidence, weights)
    return sure


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z = 1.96
    middle, spread = right + z * z / 2, z * np.sqrt(right * (n - right) / n + z * z / 4)
    return (middle - spread) / (n + z * z), (middle + spread) / (n + z * z)


def report(rows: list[Row]) -> tuple[str, bytes]:
    """Write the tables, and draw the reliability diagram, a PNG."""
    fitted = [row for row in rows if row.seed in FITTED]
    held = [row for row in rows if row.seed == HELD_OUT]
    sure = np.array([confidence.confidence(row.evidence)[0] for row in held])
    right = np.array([row.right for row in held])
    methods = list(dict.fromkeys(row.method for row in held))
    method = np.array([row.method for row in held])
    table, points = _reliability(sure, right)
    lines = [
        "# What a confidence is worth",
        "",
        "`python benchmarks/confidence/measure.py`. Weights fitted (`fit.py`) on simulated people of seeds "
        f"400 ({_counts(400)}) and 500 ({_counts(500)}), "
        f"measured on others, of seed {HELD_OUT} ({_counts(HELD_OUT)}); {SECONDS:g} s each, windows of "
        f"10 s every 5 s. Right: within {confidence.WITHIN_BPM:g} bpm of the truth; what has no pulse is "
        "never read right. `sspd` is the network of `make demo`.",
        "",
        f"The threshold of {confidence.THRESHOLD:g} was chosen on the people of the fit, everybody weighed "
        "by weights that were fitted to the others:",
        "",
        *_clips(fitted, weighed_by_others(fitted), methods),
        "",
        "## Reliability, held-out people, all kinds and methods",
        "",
        *table,
    ]
    lines += ["", f"## Readings and refusals, held-out people, threshold {confidence.THRESHOLD:g}", ""]
    lines += ["Share of windows with a reading (and, of these, right); of what has no pulse, false readings."]
    lines += ["", f"| filmed | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for name, kind in KINDS.items():
        cells = []
        for m in methods:
            mine = np.array([row.kind == name for row in held]) & (method == m)
            read = mine & (sure >= confidence.THRESHOLD)
            if kind.alive:
                share = right[read].mean() if read.any() else float("nan")
                cells.append(f"{read.sum() / max(mine.sum(), 1):.0%} ({share:.0%} right)")
            else:
                cells.append(f"{read.sum()} of {mine.sum()}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Clips, held-out people", "", *_clips(held, sure, methods)]
    alone = [without_background(row.evidence) for row in held]
    sure = np.array([confidence.confidence(evidence)[0] for evidence in alone])
    lines += [
        "",
        "## A face that fills the picture",
        "",
        "Weights of their own, without what lies behind the person: the same windows. A light that changes "
        "in the colour of blood cannot be told from a pulse here.",
        "",
        *_reliability(sure, right)[0],
        "",
        *_clips(held, sure, methods),
    ]
    contact = contact_waves(HELD_OUT)
    lines += [
        "",
        "## A wave without a picture",
        "",
        f"Weights and threshold ({confidence.WAVE_THRESHOLD:g}) of their own: the pulse waves of "
        f"{CONTACT_PEOPLE} people of each of those seeds in white, pink and brown noise of 0.1 to 10 times "
        f"their size, one in five without a pulse; windows of 10 s; measured on people of seed {HELD_OUT}.",
        "",
        *_reliability(
            np.array([confidence.confidence(row.evidence)[0] for row in contact]),
            np.array([row.right for row in contact]),
        )[0],
    ]
    return "\n".join(lines) + "\n", _draw(points)


def _reliability(sure: np.ndarray, right: np.ndarray) -> tuple[list[str], list[tuple]]:
    """Compare confidences with what became of them: lines of a table, and the points of a diagram."""
    lines = ["| confidence | windows | mean confidence | right | 95 % interval |", "|---|---|---|---|---|"]
    points = []
    for low, high in itertools.pairwise(BINS):
        inside = (sure >= low) & ((sure < high) | (high == 1))
        n = int(inside.sum())
        if n:
            low_right, high_right = wilson(int(right[inside].sum()), n)
            points.append((sure[inside].mean(), right[inside].mean(), low_right, high_right))
            lines.append(
                f"| {low:g}–{high:g} | {n} | {sure[inside].mean():.1%} | {right[inside].mean():.1%} | "
                f"{low_right:.1%}–{high_right:.1%} |"
            )
    return lines, points


def _counts(seed: int) -> str:
    return "of every kind {} clips that should be read, {} others with a pulse, {} without".format(
        *PEOPLE[seed]
    )


def _clips(rows: list[Row], sure: np.ndarray, methods: list[str]) -> list[str]:
    """Count clips without a pulse that got a reading, and good ones that got none."""
    lines = [
        "| method | pulse-free clips with a reading | good clips refused | of these, would have been right | "
        "good clips read | of these, right |",
        "|---|---|---|---|---|---|",
    ]

    def right(windows: list[Row]) -> bool:
        apart = np.median([row.bpm for row in windows]) - np.median([row.true_bpm for row in windows])
        return abs(apart) <= confidence.WITHIN_BPM

    for m in methods:
        clips: dict[tuple, list[tuple[float, Row]]] = {}
        for chance, row in zip(sure, rows, strict=True):
            if row.method == m:
                clips.setdefault((row.kind, row.seed, row.person), []).append((chance, row))
        false, free, refused, read = 0, 0, [], []
        for (kind, *_), windows in clips.items():
            trusted = [row for chance, row in windows if chance >= confidence.THRESHOLD]
            if not KINDS[kind].alive:
                free, false = free + 1, false + bool(trusted)
            elif KINDS[kind].good and trusted:
                read.append(right(trusted))
            elif KINDS[kind].good:
                refused.append(right([row for _, row in windows]))
        lines.append(
            f"| {m} | {false} of {free} | {len(refused)} of {len(refused) + len(read)} | {sum(refused)} | "
            f"{len(read)} | {sum(read)} |"
        )
    return lines


def _draw(points: list[tuple]) -> bytes:
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    x, y, low, high = (np.array(values) for values in zip(*points, strict=True))
    axis.errorbar(
        x, y, yerr=np.maximum([y - low, high - y], 0), fmt="o-", color="#0072B2", markersize=4, capsize=2
    )
    axis.set(xlabel="confidence", ylabel="share of windows right", title="held-out simulated people")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Measure, and write the report."""
    parser = clips.parser("benchmarks/confidence/measure.py", __doc__)
    parser.add_argument("--output", type=Path, default=REPORT, help="file of the tables")
    args = parser.parse_args(argv)

    def work():
        text, picture = report(clips.rows_of(args, (HELD_OUT,)))
        storage.write_text(args.output, text)
        storage.write_bytes(args.output.with_suffix(".png"), picture)
        print(text)

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

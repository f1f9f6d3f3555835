"""Fit the confidence of skin and measure it on people whom it was not fitted to.

    python benchmarks/confidence/fit_skin.py      # a minute, from the rows of skin_clips.py

A logistic regression with a ridge; evidence speaks only the way it can (`confidence.SKIN_AGAINST`).
Each window counts once, however many methods read it; real people count `REAL` times. Whoever is judged in
the tables was left out of the fit that judges them, with all their clips; the shipped weights, fitted to
everybody, were judged by nobody. The tables go to skin_confidence.md, the weights to
sspd_jax/heart_rate/confidence.json.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skin_clips
from measure import BINS, wilson
from scipy import optimize
from skin_clips import Row

from sspd_jax.cli import common
from sspd_jax.heart_rate import confidence
from sspd_jax.runtime import storage

REPORT = Path(__file__).with_name("skin_confidence.md")
RIDGE = 0.0175  # of 0.01 to 0.05: chosen on these people, and so that `real/face.mp4` is still given
REAL = 3.0
METHODS = ("auto", "pos", "chrom", "green", "omit")


def features(rows: list[Row]) -> np.ndarray:
    """Lay out the numbers that are weighed, float64 [rows, features]."""
    return np.array([list(confidence.skin_features(row.evidence).values()) for row in rows])


def counts(rows: list[Row]) -> np.ndarray:
    """Return how much each row counts, float64 [rows]."""
    window = [(row.sort, row.kind, row.person, row.number, row.start_s) for row in rows]
    number = collections.Counter(window)
    return np.array([(REAL if w[0] == "real" else 1.0) / number[w] for w in window])


def fit(x: np.ndarray, right: np.ndarray, weight: np.ndarray, names: list[str]) -> dict:
    """Fit the weights.

    Args:
      x: float64 [rows, features], NaN where something cannot be told.
      right: bool [rows].
      weight: float64 [rows], how much each counts.
      names: of the features.

    Returns:
      A table of `confidence.json`.
    """
    weight = weight / weight.sum()
    centre, spread = np.nanmean(x, axis=0), np.nanstd(x, axis=0) + 1e-9
    z = np.where(np.isfinite(x), (x - centre) / spread, 0)
    design = np.column_stack([z, np.ones(len(z))])

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        odds, ridge = design @ w, RIDGE * np.append(w[:-1], 0)
        slope = design.T @ (weight * (1 / (1 + np.exp(-odds)) - right)) + ridge
        return weight @ (np.logaddexp(0, odds) - right * odds) + ridge @ w / 2, slope

    bounds = [(None, 0) if name in confidence.SKIN_AGAINST else (0, None) for name in names]
    found = optimize.minimize(
        loss, np.zeros(len(names) + 1), jac=True, bounds=[*bounds, (None, None)], method="L-BFGS-B"
    )
    return {
        "names": names,
        "centre": [round(float(v), 4) for v in centre],
        "weight": [round(float(v), 4) for v in found.x[:-1] / spread],
        "bias": round(float(found.x[-1]), 4),
    }


def weighed_by_others(rows: list[Row], judged: list[Row] | None = None) -> np.ndarray:
    """Weigh everybody by weights that were fitted to all others.

    Args:
      rows: that the weights are fitted to.
      judged: the same rows as far as they are known when they are weighed; by default all of it.

    Returns:
      float64 [rows], a confidence for each.
    """
    names = list(confidence.skin_features(rows[0].evidence))
    x, weight = features(rows), counts(rows)
    known = x if judged is None else features(judged)
    right = np.array([row.right for row in rows])
    people = np.array([row.person for row in rows])
    sure = np.zeros(len(rows))
    for person in np.unique(people):
        mine = people == person
        table = confidence.as_weights(fit(x[~mine], right[~mine], weight[~mine], names))
        pull = np.where(np.isfinite(known[mine]), known[mine] - table.centre, 0) @ table.weight
        sure[mine] = 1 / (1 + np.exp(-(table.bias + pull)))
    return sure


def without_landmarks(rows: list[Row]) -> list[Row]:
    """Take from rows what is not known in a box that a person gives: eyes, brows, and what lies behind."""
    unknown = ("eyes", "eyes_in_step", "behind", "behind_share", "behind_colour")
    blank = dict.fromkeys(unknown, float("nan"))
    return [dataclasses.replace(row, evidence=dataclasses.replace(row.evidence, **blank)) for row in rows]


def interval_factor(rows: list[Row], wanted: np.ndarray) -> float:
    """Fit how wide an interval has to be, in units of `confidence.elsewhere`, to hold the truth.

    Args:
      rows: with their truth.
      wanted: bool [rows], those to fit to.

    Returns:
      The quantile of their errors, raised for their number, as conformal prediction has it.
    """
    wide = np.sort(
        [abs(r.bpm - r.true_bpm) / confidence.elsewhere(r.evidence) for r in _chosen(rows, wanted)]
    )
    rank = math.ceil((len(wide) + 1) * confidence.INTERVAL_COVERAGE) - 1
    return float(wide[min(rank, len(wide) - 1)])


def _chosen(rows: list[Row], wanted: np.ndarray) -> list[Row]:
    return [row for row, one in zip(rows, wanted, strict=True) if one]


def intervals(rows: list[Row], wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay an interval around each reading, as wide as those of all other people say.

    Returns:
      Half widths, bpm, and whether they hold the truth, of the wanted rows in order.
    """
    people = np.array([row.person for row in rows])
    half, held = [], []
    for person, row in zip(people[wanted], _chosen(rows, wanted), strict=True):
        half.append(interval_factor(rows, wanted & (people != person)) * confidence.elsewhere(row.evidence))
        held.append(abs(row.bpm - row.true_bpm) <= half[-1])
    return np.array(half), np.array(held)


def report(rows: list[Row], sure: np.ndarray) -> str:
    """Write the tables."""
    right = np.array([row.right for row in rows])

    def where(test: Callable[[Row], bool]) -> np.ndarray:
        return np.array([test(row) for row in rows])

    auto = where(lambda row: row.method == "auto")
    alive = where(lambda row: np.isfinite(row.true_bpm))
    real, moving = where(lambda row: row.kind == "ubfc"), where(lambda row: row.sort == "moving")
    least = confidence.SKIN_THRESHOLD
    lines = [
        "# What a confidence of skin is worth",
        "",
        "`python benchmarks/confidence/fit_skin.py`, from the rows of `skin_clips.py`. Windows of 10 s; "
        "right: within 3 bpm of the truth. Whoever is judged was left out, with all their clips, of the "
        "fit that judges them. The settings of the map, of the spectra and of this fit were chosen on these "
        "people, and so was the threshold: nobody here was kept for one last look. Clips whose traces were "
        "not at hand when reading last changed keep the rows that were found before.",
        "",
        f"{len({(r.sort, r.kind, r.person, r.number) for r in rows})} clips of "
        f"{len({r.person for r in rows})} people, real and simulated; given: {least:.0%} sure or more.",
        "",
        "| read by | real people: given | of these right (within 5 bpm) | right of all | moving "
        "clips with a pulse: given | of these right | right ones given | pulse-free given |",
        "|---|---|---|---|---|---|---|---|",
    ]
    near = np.array([abs(row.bpm - row.true_bpm) <= 5 for row in rows])
    for method in METHODS:
        mine = where(lambda row, m=method: row.method == m)
        given = mine & (sure >= least)
        lines.append(
            f"| {method} | {_share(given[mine & real])} | {_share(right[given & real])} "
            f"({_percent(near[given & real])}) | {_percent(right[mine & real])} "
            f"| {_share(given[mine & moving])} | {_share(right[given & moving])} "
            f"| {_percent(given[mine & moving & right])} | {_share(given[mine & ~alive])} |"
        )
    lines += ["", "## How sure, how right (auto)", ""]
    lines += ["| confidence | windows | mean confidence | right | 95 % interval |", "|---|---|---|---|---|"]
    error = 0.0
    for low, high in itertools.pairwise(BINS):
        inside = auto & (sure >= low) & ((sure < high) | (high == 1))
        if n := int(inside.sum()):
            bounds = wilson(int(right[inside].sum()), n)
            lines.append(
                f"| {low:g}–{high:g} | {n} | {sure[inside].mean():.1%} | {right[inside].mean():.1%} | "
                f"{bounds[0]:.1%}–{bounds[1]:.1%} |"
            )
            error += n / auto.sum() * abs(sure[inside].mean() - right[inside].mean())
    lines += ["", f"Expected calibration error over these bins: {error:.1%}."]
    lines += ["", "## Risk and coverage: real people (auto)", "", "| given | right |", "|---|---|"]
    order = np.argsort(-sure[auto & real])
    hits = right[auto & real][order]
    for share in (0.25, 0.5, 0.6, 0.75, 1.0):
        lines.append(f"| the surest {share:.0%} | {hits[: max(1, round(share * len(hits)))].mean():.1%} |")
    risk = 1 - np.cumsum(hits) / np.arange(1, len(hits) + 1)
    lines += ["", f"Area under the risk–coverage curve: {risk.mean():.3f}."]
    lines += [
        "",
        "## Intervals (auto)",
        "",
        f"`interval_bpm` is meant to hold the true rate in {confidence.INTERVAL_COVERAGE:.0%} of the "
        "windows of real people that are given a number. Whoever is judged was left out of that fit, too.",
        "",
        "| of windows that are given | windows | hold the truth | half width: median | widest |",
        "|---|---|---|---|---|",
    ]
    given = auto & alive & (sure >= least)
    for name, wanted in (("real people", given & real), ("all with a pulse", given)):
        half, held = intervals(rows, wanted)
        thirds = np.array_split(held[np.argsort(half)], 3)
        text = ", ".join(_percent(third) for third in thirds)
        lines.append(
            f"| {name} | {len(held)} | {_percent(held)} (narrowest to widest third: {text}) "
            f"| {np.median(half):.1f} bpm | {half.max():.1f} bpm |"
        )
    blind = weighed_by_others(rows, without_landmarks(rows))
    lines += [
        "",
        "## Without eyes and background (auto)",
        "",
        "What `--box` leaves: the same windows and weights, and nothing known of eyes, brows and what lies "
        "behind. The patches are those of a face here, in a box they are its cells.",
        "",
        f"Real people: {_share((blind >= least)[auto & real])} given, "
        f"{_share(right[auto & real & (blind >= least)])} right; "
        f"pulse-free: {_share((blind >= least)[auto & ~alive])} given.",
        "",
        "## Real people, one by one (auto)",
        "",
        "| person | windows | right | given | of these right |",
    ]
    lines += ["|---|---|---|---|---|"]
    for person in sorted({row.person for row in rows if row.kind == "ubfc"}):
        mine = auto & real & where(lambda row, p=person: row.person == p)
        given = mine & (sure >= least)
        lines.append(
            f"| {person} | {mine.sum()} | {right[mine].sum()} | {given.sum()} | {right[given].sum()} |"
        )
    lines += [
        "",
        "## Kind by kind (auto)",
        "",
        "| kind | windows | given | of these right |",
        "|---|---|---|---|",
    ]
    for sort, kind in sorted({(row.sort, row.kind) for row in rows}):
        mine = auto & where(lambda row, k=(sort, kind): (row.sort, row.kind) == k)
        given = mine & (sure >= least)
        hit = str(right[given].sum()) if alive[mine].any() else "no pulse"
        lines.append(f"| {sort}, {kind} | {mine.sum()} | {given.sum()} | {hit} |")
    return "\n".join(lines) + "\n"


def _share(found: np.ndarray) -> str:
    return f"{int(found.sum())} of {len(found)}"


def _percent(found: np.ndarray) -> str:
    return f"{found.mean():.0%}" if len(found) else "–"


def main() -> int:
    """Fit the weights, and write the report."""

    def work() -> None:
        rows = skin_clips.read_rows()
        names = list(confidence.skin_features(rows[0].evidence))
        sure = weighed_by_others(rows)
        text = report(rows, sure)
        given = [r.method == "auto" and r.sort == "real" for r in rows] & (sure >= confidence.SKIN_THRESHOLD)
        right = np.array([row.right for row in rows])
        table = json.loads(confidence.WEIGHTS.read_text())
        table["skin"] = fit(features(rows), right, counts(rows), names)
        table["interval"] = {"bpm": round(interval_factor(rows, given), 4)}
        storage.write_text(confidence.WEIGHTS, json.dumps(table, indent=1) + "\n")
        storage.write_text(REPORT, text)
        print(text)

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

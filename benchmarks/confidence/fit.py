"""Fit the weights of the confidence on simulated people.

    python benchmarks/confidence/fit.py         # seconds, from the rows in confidence.csv
    python benchmarks/confidence/fit.py --film --checkpoint=workdir/demo/run/network/target    # hours

They go to sspd_jax/heart_rate/confidence.json. Rows have five digits, so that a weight can differ from the
shipped one, which was fitted without rounding, by 1 in its last digit.

`clips.py` says what is filmed. What the weights are worth on other people, `measure.py` measures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import clips
import numpy as np
from clips import FITTED, Row, contact_waves, without_background
from scipy import optimize

from sspd_jax.cli import common
from sspd_jax.heart_rate import confidence
from sspd_jax.runtime import storage

RIDGE = 0.003  # per window
AGAINST = (
    "colour apart",
    "colour faint",
    "colour strong",
    "behind beats",
    "behind colour",
    "behind lit",
    "behind agrees",
)


def fit(rows: list[Row], names: list[str]) -> dict:
    """Fit a logistic regression with a small ridge, in which evidence speaks only the way it can.

    Rhythm, agreement and the colour of blood never count against a rate, what beats behind the person and
    colours that are too faint or too strong never for one (`AGAINST`): without these bounds, features that go
    together get large weights of opposite signs, and a window that is unlike all others is trusted.

    Args:
      rows: windows.
      names: of the features.

    Returns:
      A table of `confidence.json`.
    """
    x = np.array([[confidence.features(row.evidence)[name] for name in names] for row in rows])
    y = np.array([row.right for row in rows], np.float64)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    design = np.column_stack([(x - centre) / spread, np.ones(len(x))])

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        odds, ridge = design @ weight, RIDGE * np.append(weight[:-1], 0)
        slope = design.T @ (1 / (1 + np.exp(-odds)) - y) / len(y) + ridge
        return (np.logaddexp(0, odds) - y * odds).mean() + ridge @ weight / 2, slope

    bounds = [(None, 0) if name in AGAINST else (0, None) for name in names] + [(None, None)]
    weight = optimize.minimize(loss, np.zeros(len(bounds)), jac=True, bounds=bounds, method="L-BFGS-B").x
    return {
        "names": names,
        "centre": [round(float(v), 4) for v in centre],
        "weight": [round(float(v), 4) for v in weight[:-1] / spread],
        "bias": round(float(weight[-1]), 4),
    }


def fit_all(rows: list[Row]) -> dict[str, dict]:
    """Fit all sets of weights on the people they are for."""
    fitted = [row for row in rows if row.seed in FITTED]
    return {
        "video": fit(fitted, list(confidence.features(fitted[0].evidence))),
        "face": fit(fitted, list(confidence.features(without_background(fitted[0].evidence)))),
        "wave": fit([row for seed in FITTED for row in contact_waves(seed)], ["wave share"]),
    }


def main(argv: list[str] | None = None) -> int:
    """Fit the weights."""
    parser = clips.parser("benchmarks/confidence/fit.py", __doc__)
    parser.add_argument("--output", type=Path, default=confidence.WEIGHTS, help="file of the weights")
    args = parser.parse_args(argv)

    def work():
        storage.write_text(args.output, json.dumps(fit_all(clips.rows_of(args, FITTED)), indent=1) + "\n")
        print(args.output)

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())

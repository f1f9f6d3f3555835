"""Scores of a table of windows: by method, person, stratum, in pairs.

Every form says by which protocol the numbers were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sspd_jax.evaluation.metrics import (
    NO_SCORE,
    Score,
    is_suspicious,
    paired_difference,
    rate_range,
    score_mean,
    score_rates,
)
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.evaluation.table import META, Row, frame
from sspd_jax.inference.windows import Settings

NAMES = {
    "online": "SSPD, online network",
    "target": "SSPD, target network",
    "network": "SSPD, this checkpoint",
    "untrained": "untrained network",
    "auto": "auto, all fused",
    "green": "GREEN",
    "ica": "ICA",
    "chrom": "CHROM",
    "pos": "POS",
    "pbv": "PBV",
    "lgi": "LGI",
    "omit": "OMIT",
}
"""What methods are called in tables and pictures."""

MEANS = {
    "SNR": "snr_db",
    "MACC": "macc",
    "wave_r": "wave_r",
    "IBI": "ibi_error_ms",
    "beats_found": "beats_found",
}
HEADS = {
    "MAE": "MAE, bpm",
    "RMSE": "RMSE, bpm",
    "MAPE": "MAPE, %",
    "ME": "ME, bpm",
    "r": "r",
    "SNR": "SNR, dB",
    "MACC": "MACC",
    "wave_r": "wave r",
    "IBI": "IBI error, ms",
    "beats_found": "beats found",
}
LEVELS = {
    "window": "by window: every window counts once",
    "video": "by video: every unbroken video counts once, read as a whole",
    "person": "by person: everybody counts once, by the mean over their windows",
}
MOST_STRATA = 12  # values of a fact; one with more does not sort anything
INTERVAL = "in brackets the 95 % bootstrap interval over people"
RATE_RANGE = "heart rate"
WINDOW = ("recording", "span", "start_s")  # what tells windows apart
STUDY = ("part", "test", "fold", "seed")  # and in a study

Cell = list[float | None]  # value, standard error, low, high


def summarise(rows: Sequence[Row], protocol: Protocol, primary: str) -> dict[str, Any]:
    """Score every method.

    Args:
      rows: Rows of one protocol.
      protocol: The protocol of the rows.
      primary: The method that was fixed before testing; the others are compared with it.

    Returns:
      JSON's types: 'protocol' (in words), 'settings', 'source', 'compare_with', 'reader' (the primary
      method), 'people'; 'scores': level → method → metric → [value, standard error, low, high]; 'by_person':
      person → method → metric → value; 'paired': method → primary − method; 'strata': fact → value → method →
      metric; 'coverage' of the primary method's confidence, or None; 'warnings': sentences. A missing number
      is None.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    span = main_span(rows)
    found: dict[str, Any] = {level: {} for level in LEVELS}
    by_person: dict[str, dict[str, Any]] = {person: {} for person in sorted({row.person for row in rows})}
    for name in methods:
        for level in ("window", "video"):
            if chosen := [row for row in rows if row.method == name and row.span == level]:
                found[level][name] = plain(score(chosen))
        mine = [row for row in rows if row.method == name and row.span == span]
        own = {person: score([r for r in mine if r.person == person], alone=True) for person in by_person}
        for person, table in own.items():
            by_person[person][name] = {metric: _number(s.value) for metric, s in table.items()}
        found["person"][name] = plain(_over_people(own))
    shown = [row for row in rows if row.span == span]
    result = {
        "protocol": str(protocol),
        "settings": protocol.facts,
        "source": protocol.source,
        "compare_with": protocol.compare_with,
        "reader": primary,
        "people": list(by_person),
        "scores": {level: table for level, table in found.items() if table},
        "by_person": by_person,
        "paired": {name: plain(compare_methods(shown, primary, name)) for name in methods if name != primary},
        "strata": _strata(shown, methods),
        "coverage": _coverage([row for row in shown if row.method == primary], protocol.region),
    }
    result["warnings"] = _warnings(result, shown)
    return result


def main_span(rows: Sequence[Row]) -> str:
    """Return 'window', or 'video' where the protocol reads whole videos only."""
    return "window" if any(row.span == "window" for row in rows) else "video"


def score(rows: Sequence[Row], *, alone: bool = False) -> dict[str, Score]:
    """Score rows of one method: errors of the rate, and the means of what is known of the waves.

    Args:
      rows: Rows of one method and one span.
      alone: Whether all are of one person: there are no intervals then.
    """
    people = None if alone else [row.person for row in rows]
    table = score_rates(
        np.array([row.predicted_bpm for row in rows]), np.array([row.true_bpm for row in rows]), people
    )
    means = {
        name: score_mean(np.array([getattr(row, column) for row in rows]), people)
        for name, column in MEANS.items()
    }
    counts = {name: table.pop(name) for name in ("rows", "missing")}
    return {**table, **means, **counts}


def _over_people(own: Mapping[str, Mapping[str, Score]]) -> dict[str, Score]:
    """Average people's scores; r within a person says little and is left out."""
    people = list(own)
    table = {}
    for metric in HEADS:
        if metric != "r":
            table[metric] = score_mean(np.array([own[p][metric].value for p in people]), people)
    lost = sum(np.isnan(own[p]["MAE"].value) for p in people)
    return {**table, "rows": Score(float(len(people) - lost), 0.0), "missing": Score(float(lost), 0.0)}


def compare_methods(rows: Sequence[Row], first: str, second: str) -> dict[str, Score]:
    """Compare two methods on the windows that both have.

    Args:
      rows: Rows of one span and one protocol.
      first: Name of a method.
      second: Name of another.

    Returns:
      'difference': mean of |error| of the first − |error| of the second, bpm; see `paired_difference`.

    Example:
      Of a window at 60 bpm the first says 63 bpm and the second 58:

      >>> bpm = {"pos": 63.0, "chrom": 58.0}
      >>> rows = [Row("a", "anna", name, "window", 0.0, 10.0, 60.0, bpm[name], 0.0) for name in bpm]
      >>> compare_methods(rows, "pos", "chrom")["difference"].value
      1.0
    """
    table = frame(rows)
    keys = [key for key in (*WINDOW, *STUDY) if key in table]
    table["error"] = [abs(row.error_bpm) for row in rows]
    one, other = (
        table.loc[table["method"] == name, [*keys, "person", "error"]].drop_duplicates(keys, keep="last")
        for name in (first, second)
    )
    pairs = one.merge(other, on=keys, suffixes=("", "_other"))
    return paired_difference(
        pairs["error"].to_numpy(), pairs["error_other"].to_numpy(), list(pairs["person"])
    )


def _strata(rows: Sequence[Row], methods: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Score the windows sorted by true rate, and by every fact of the dataset that sorts them."""
    table = frame(rows)
    ranges = pd.Series([rate_range(row.true_bpm) for row in rows])
    by_rate = list(dict.fromkeys(ranges[table["true_bpm"].argsort(kind="stable")]))
    sorts = {RATE_RANGE: (ranges, by_rate)}
    for key in (key for key in table if key.startswith(META)):
        if 2 <= len({row.facts.get(key) for row in rows}) <= MOST_STRATA:
            values = pd.Series([str(row.facts.get(key, "not told")) for row in rows])
            sorts[key.removeprefix(META)] = (values, sorted(set(values)))
    strata: dict[str, dict[str, dict[str, Any]]] = {}
    for fact, (values, order) in sorts.items():
        groups = table.groupby([values, table["method"]]).groups
        strata[fact] = {
            value: {
                name: plain(score([rows[i] for i in groups[value, name]]))
                for name in methods
                if (value, name) in groups
            }
            for value in order
        }
    return strata


def _coverage(rows: Sequence[Row], region: str) -> dict[str, Any] | None:
    """Say how many windows have a reading at the region's usual confidence, and how wrong those are."""
    known = [row for row in rows if np.isfinite(row.confidence)]
    if not known:
        return None
    least = Settings(region=region).least_confidence
    trusted = [row for row in known if row.confidence >= least and not row.why]
    table = score(trusted) if trusted else {}
    return {
        "threshold": least,
        "windows": len(known),
        "coverage": len(trusted) / len(known),
        **{name: _cell(table.get(name, NO_SCORE)) for name in ("MAE", "RMSE", "r")},
    }


def _warnings(result: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    sentences = []
    for level, table in result["scores"].items():
        if level == "person":
            continue
        for name, metrics in table.items():
            cells = {metric: Score(*(np.nan if v is None else v for v in c)) for metric, c in metrics.items()}
            if is_suspicious(cells):
                sentences.append(
                    f"{NAMES.get(name, name)} agrees with the truth to a millionth of a beat (by {level}): "
                    "suspicious; is the truth scored against itself, or are the bins so wide that everything "
                    "falls into the same one?"
                )
    if len(result["people"]) == 1:
        sentences.append("1 person was tested: what others would give is not known, so there is no interval")
    elif len(result["people"]) < 10:
        sentences.append(
            f"{len(result['people'])} people: with fewer than ten, bootstrap intervals tend to be too narrow"
        )
    lost = sum(not np.isfinite(row.predicted_bpm) for row in rows)
    if lost:
        sentences.append(f"{lost} of {len(rows)} readings gave no rate; the scores leave them out")
    return sentences


def plain(table: Mapping[str, Score]) -> dict[str, Cell]:
    """Return scores as JSON's types: [value, standard error, low, high], None for a missing number."""
    return {metric: _cell(s) for metric, s in table.items()}


def _cell(s: Score) -> Cell:
    return [_number(v) for v in s]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

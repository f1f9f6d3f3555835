"""Scores of a table of windows: by method, person, stratum, in pairs; as text, CSV, LaTeX and HTML.

Every form says by which protocol the numbers were made.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sspd_jax.heart_rate import confidence, scores
from sspd_jax.heart_rate.protocol import Protocol
from sspd_jax.heart_rate.scores import Score
from sspd_jax.window_table import META, Row

NAMES = {
    "online": "SSPD, online network",
    "target": "SSPD, target network",
    "network": "SSPD, this checkpoint",
    "untrained": "untrained network",
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

Cell = list[float | None]  # value, standard error, low, high


def summarise(rows: Sequence[Row], protocol: Protocol, reader: str) -> dict[str, Any]:
    """Score every method.

    Args:
      rows: of one protocol.
      protocol: theirs.
      reader: the method that was fixed before testing; the others are compared with it.

    Returns:
      JSON's types: 'protocol' (in words), 'settings', 'source', 'compare_with', 'reader', 'people'; 'scores':
      level → method → metric → [value, standard error, low, high]; 'by_person': person → method → metric →
      value; 'paired': method → reader − method; 'strata': fact → value → method → metric; 'coverage' of the
      reader's confidence, or None; 'warnings': sentences. A missing number is None.
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
        "reader": reader,
        "people": list(by_person),
        "scores": {level: table for level, table in found.items() if table},
        "by_person": by_person,
        "paired": {name: plain(compare_methods(shown, reader, name)) for name in methods if name != reader},
        "strata": _strata(shown, methods),
        "coverage": _coverage([row for row in shown if row.method == reader]),
    }
    result["warnings"] = _warnings(result, shown)
    return result


def main_span(rows: Sequence[Row]) -> str:
    """Return 'window', or 'video' where the protocol reads whole videos only."""
    return "window" if any(row.span == "window" for row in rows) else "video"


def score(rows: Sequence[Row], *, alone: bool = False) -> dict[str, Score]:
    """Score rows of one method: errors of the rate, and the means of what is known of the waves.

    Args:
      rows: of one method and one span.
      alone: of one person: no intervals.
    """
    people = None if alone else [row.person for row in rows]
    table = scores.score_rates(
        np.array([row.predicted_bpm for row in rows]), np.array([row.true_bpm for row in rows]), people
    )
    means = {
        name: scores.score_mean(np.array([getattr(row, column) for row in rows]), people)
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
            table[metric] = scores.score_mean(np.array([own[p][metric].value for p in people]), people)
    lost = sum(np.isnan(own[p]["MAE"].value) for p in people)
    return {**table, "rows": Score(float(len(people) - lost), 0.0), "missing": Score(float(lost), 0.0)}


def compare_methods(rows: Sequence[Row], first: str, second: str) -> dict[str, Score]:
    """Compare two methods on the same windows: |error| of the first − |error| of the second, bpm."""

    def key(r: Row) -> tuple[Any, ...]:
        return (
            r.recording,
            r.span,
            r.start_s,
            *(r.facts.get(fact) for fact in ("part", "test", "fold", "seed")),
        )

    tables = [{key(r): r for r in rows if r.method == name} for name in (first, second)]
    keys = [key for key in tables[0] if key in tables[1]]
    errors = [np.array([abs(table[key].error_bpm) for key in keys]) for table in tables]
    return scores.paired_difference(*errors, [tables[0][key].person for key in keys])


def _strata(rows: Sequence[Row], methods: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Score the windows sorted by true rate, and by every fact of the dataset that sorts them."""
    sorts = {RATE_RANGE: lambda row: scores.rate_range(row.true_bpm)}
    for key in dict.fromkeys(key for row in rows for key in row.facts if key.startswith(META)):
        if 2 <= len({row.facts.get(key) for row in rows}) <= MOST_STRATA:
            sorts[key.removeprefix(META)] = lambda row, key=key: str(row.facts.get(key, "not told"))
    strata: dict[str, dict[str, dict[str, Any]]] = {}
    for fact, of in sorts.items():
        groups: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.true_bpm) if fact == RATE_RANGE else rows:
            groups.setdefault(of(row), []).append(row)
        values = groups if fact == RATE_RANGE else sorted(groups)
        strata[fact] = {
            value: {
                name: plain(score(mine))
                for name in methods
                if (mine := [row for row in groups[value] if row.method == name])
            }
            for value in values
        }
    return strata


def _coverage(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Say how many windows have a reading at the usual confidence, and how wrong those are."""
    known = [row for row in rows if np.isfinite(row.confidence)]
    if not known:
        return None
    trusted = [row for row in known if row.confidence >= confidence.THRESHOLD]
    table = score(trusted) if trusted else {}
    return {
        "threshold": confidence.THRESHOLD,
        "windows": len(known),
        "coverage": len(trusted) / len(known),
        **{name: _cell(table.get(name, scores.NO_SCORE)) for name in ("MAE", "RMSE", "r")},
    }


def _warnings(result: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    told = []
    for level, table in result["scores"].items():
        if level == "person":
            continue
        for name, metrics in table.items():
            cells = {metric: Score(*(np.nan if v is None else v for v in c)) for metric, c in metrics.items()}
            if scores.is_suspicious(cells):
                told.append(
                    f"{NAMES.get(name, name)} agrees with the truth to a millionth of a beat (by {level}): "
                    "suspicious; is the truth scored against itself, or are the bins so wide that everything "
                    "falls into the same one?"
                )
    if len(result["people"]) < 10:
        told.append(
            f"{len(result['people'])} people: with fewer than ten, bootstrap intervals tend to be too narrow"
        )
    lost = sum(not np.isfinite(row.predicted_bpm) for row in rows)
    if lost:
        told.append(f"{lost} of {len(rows)} readings gave no rate; the scores leave them out")
    return told


def plain(table: Mapping[str, Score]) -> dict[str, Cell]:
    """Return scores as JSON's types: [value, standard error, low, high], None for a missing number."""
    return {metric: _cell(s) for metric, s in table.items()}


def _cell(s: Score) -> Cell:
    return [_number(v) for v in s]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# As text.


def cell(value: Cell | None, *, interval: bool = False) -> str:
    """Write a score and its standard error, and on wish its interval."""
    if value is None or value[0] is None:
        return "–"
    text = f"{value[0]:.2f}" if value[1] is None else f"{value[0]:.2f} ± {value[1]:.2f}"
    if interval and value[2] is not None:
        text += f" [{value[2]:.2f}, {value[3]:.2f}]"
    return text


def count(metrics: Mapping[str, Cell]) -> str:
    """Write how many rows were scored, and how many had no rate."""
    text = f"{metrics['rows'][0]:.0f}"
    return f"{text} (+{metrics['missing'][0]:.0f} without a rate)" if metrics["missing"][0] else text


def as_text(result: Mapping[str, Any]) -> str:
    """Write the scores as a table in plain text, the protocol below it."""
    level = next(iter(result["scores"]))
    metrics = ("MAE", "RMSE", "MAPE", "r", "SNR", "MACC")
    lines = ["method".ljust(16) + "".join(HEADS[m].rjust(16) for m in metrics)]
    for name, table in result["scores"][level].items():
        label = f"{name} *" if name == result["reader"] else name
        lines.append(label.ljust(16) + "".join(cell(table.get(m)).rjust(16) for m in metrics))
    for name, table in result["paired"].items():
        told = cell(table["difference"], interval=True)
        lines.append(f"|error| of {result['reader']} − {name}: {told} bpm in {count(table)} {level}s")
    lines += [f"* the reader, fixed before testing. {result['protocol']}"]
    lines += [f"± standard error over {level}s; {INTERVAL}"]
    return "\n".join([*lines, *(f"note: {warning}" for warning in result["warnings"])])


def as_csv(result: Mapping[str, Any]) -> str:
    """Write the scores as a tidy table: a row for each level, stratum, method and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    settings = result["settings"]
    head = ("level", "stratum", "value_of_stratum", "method", "metric", "value", "standard_error")
    writer.writerow([*head, "low", "high", "rows", "missing", *settings])
    for level, stratum, value, method, table in _tables(result):
        for metric, numbers in table.items():
            if metric not in ("rows", "missing"):
                n = [table["rows"][0], table["missing"][0]]
                cells = ["" if v is None else v for v in (*numbers, *n)]
                writer.writerow([level, stratum, value, method, metric, *cells, *settings.values()])
    return text.getvalue()


def _tables(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, Mapping[str, Cell]]]:
    for level, methods in result["scores"].items():
        for name, table in methods.items():
            yield level, "", "", name, table
    level = next(iter(result["scores"]))
    for fact, values in result["strata"].items():
        for value, methods in values.items():
            for name, table in methods.items():
                yield level, fact, value, name, table
    for name, table in result["paired"].items():
        yield level, "", "", f"{result['reader']} − {name}", table


def as_latex(result: Mapping[str, Any], *, caption: str = "") -> str:
    r"""Write the scores as a LaTeX table for `\input`; it needs the package booktabs."""
    level = next(iter(result["scores"]))
    metrics = ("MAE", "RMSE", "MAPE", "r", "SNR", "MACC")
    body = []
    for name, table in result["scores"][level].items():
        cells = [_latex_cell(table.get(m)) for m in metrics]
        label = latex(NAMES.get(name, name)) + ("$^*$" if name == result["reader"] else "")
        body.append(" & ".join([label, *cells, f"{table['rows'][0]:.0f}"]) + r" \\")
    words = (
        f"{caption + ' ' if caption else ''}{result['protocol']}. Value $\\pm$ standard error over {level}s; "
        f"{INTERVAL}. $^*$: the reader, fixed before testing."
    )
    return latex_table(["Method", *(HEADS[m] for m in metrics), "n"], body, words)


def latex_table(heads: Sequence[str], lines: Sequence[str], caption: str) -> str:
    """Write a LaTeX table: the first column to the left, the others to the right."""
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(latex, heads)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_cell(value: Cell | None) -> str:
    if value is None or value[0] is None:
        return "--"
    text = f"${value[0]:.2f} \\pm {value[1]:.2f}$" if value[1] is not None else f"${value[0]:.2f}$"
    return text if value[2] is None else f"{text} $[{value[2]:.2f}, {value[3]:.2f}]$"


def latex(text: str) -> str:
    """Escape what LaTeX would take for commands, except for mathematics in dollar signs."""
    parts = text.split("$")
    for old, new in (("%", r"\%"), ("&", r"\&"), ("_", r"\_"), ("#", r"\#")):
        parts[::2] = [part.replace(old, new) for part in parts[::2]]
    for old, new in (("–", "--"), ("−", "$-$"), ("÷", r"$\div$"), ("±", r"$\pm$"), ("λ", r"$\lambda$")):
        parts[::2] = [part.replace(old, new) for part in parts[::2]]
    return "$".join(parts)


def as_html(result: Mapping[str, Any], level: str, *, methods: Mapping[str, Any] | None = None) -> str:
    """Write a level's scores (or those of other methods' tables) as an HTML table, the protocol below it."""
    table = result["scores"][level] if methods is None else methods
    metrics = [m for m in HEADS if any(t.get(m) and t[m][0] is not None for t in table.values())]
    head = "".join(f"<th>{HEADS[m]}</th>" for m in metrics)
    lines = []
    for name, numbers in table.items():
        cells = "".join(f"<td>{html_cell(numbers.get(m))}</td>" for m in metrics)
        mark = " class='reader'" if name == result["reader"] else ""
        label = html.escape(NAMES.get(name, name))
        lines.append(f"<tr{mark}><td>{label}</td>{cells}<td>{count(numbers)}</td></tr>")
    return (
        f"<div class='wide'><table><tr><th>method</th>{head}<th>n</th></tr>{''.join(lines)}</table></div>"
        f"{below(result)}"
    )


def below(result: Mapping[str, Any]) -> str:
    """Write the line that stands below every table: the protocol, window, stride, band and detrending."""
    return f"<p class='protocol'>{html.escape(result['protocol'])}.</p>"


def html_cell(value: Cell | None) -> str:
    """Write a score, its standard error and its interval for HTML, below each other: a page is not wide."""
    if value is None or value[0] is None:
        return "–"
    error = "" if value[1] is None else f"<br><small>± {value[1]:.2f}</small>"
    interval = "" if value[2] is None else f"<br><small>[{value[2]:.2f}, {value[3]:.2f}]</small>"
    return f"{value[0]:.2f}{error}{interval}"

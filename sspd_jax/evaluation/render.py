"""Scores as text, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sspd_jax.evaluation.summary import HEADS, INTERVAL, NAMES, Cell


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

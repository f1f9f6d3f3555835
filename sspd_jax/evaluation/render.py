"""Scores as text, CSV and LaTeX; pages are in `pages`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from sspd_jax.evaluation.summary import HEADS, INTERVAL, NAMES, Cell
from sspd_jax.runtime.text import printable, spreadsheet_safe

DOLLAR = "\ue000"  # of a name, until it is escaped
LATEX_SIGNS = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        DOLLAR: r"\$",
    }
)
METRICS = ("MAE", "RMSE", "MAPE", "r", "SNR", "MACC")  # of the short tables


def fixed(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """Write a number with so many digits; what rounds to zero has no sign.

    Example:
      >>> fixed(-0.001), fixed(-0.26, 1, sign=True), fixed(-0.004, sign=True)
      ('0.00', '-0.3', '0.00')
    """
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}"


def cell(value: Cell | None, *, interval: bool = False) -> str:
    """Write a score and its standard error, and on wish its interval.

    Example:
      >>> cell([2.0, 0.5, 1.2, 3.1]), cell([2.0, 0.5, 1.2, 3.1], interval=True), cell(None)
      ('2.00 ± 0.50', '2.00 ± 0.50 [1.20, 3.10]', '–')
      >>> cell([2.0, None, None, None])  # of one row alone
      '2.00 ± –'
    """
    if value is None or value[0] is None:
        return "–"
    text = f"{fixed(value[0])} ± {'–' if value[1] is None else fixed(value[1])}"
    if interval and value[2] is not None:
        text += f" [{fixed(value[2])}, {fixed(value[3])}]"
    return text


def count(metrics: Mapping[str, Cell]) -> str:
    """Write how many rows were scored, and how many had no rate."""
    text = f"{metrics['rows'][0]:.0f}"
    return f"{text} (+{metrics['missing'][0]:.0f} without a rate)" if metrics["missing"][0] else text


def as_text(result: Mapping[str, Any]) -> str:
    r"""Write the scores as a table in plain text, the protocol below it.

    Example:
      >>> from sspd_jax.evaluation import protocol, summary, table
      >>> rows = [table.Row("a", "anna", "pos", "window", t, 10.0, 60.0, 60.0 + t, 3.0) for t in (0.0, 10.0)]
      >>> print("\n".join(as_text(summary.summarise(rows, protocol.default(), "pos")).splitlines()[:2]))
      method       MAE, bpm      RMSE, bpm        MAPE, %    r      SNR, dB     MACC
      pos *     5.00 ± 3.54    7.07 ± 5.95    8.33 ± 5.89    –  3.00 ± 0.00        –
    """
    level = next(iter(result["scores"]))
    lines = ["method".ljust(16) + "".join(HEADS[m].rjust(16) for m in METRICS)]
    for name, table in result["scores"][level].items():
        label = f"{name} *" if name == result["reader"] else name
        lines.append(label.ljust(16) + "".join(cell(table.get(m)).rjust(16) for m in METRICS))
    for name, table in result["paired"].items():
        difference = cell(table["difference"], interval=True)
        lines.append(f"|error| of {result['reader']} − {name}: {difference} bpm in {count(table)} {level}s")
    lines += [f"* the primary method, fixed before testing. {result['protocol']}"]
    lines += [f"± standard error over {level}s; {INTERVAL}"]
    lines += [f"note: {warning}" for warning in result["warnings"]]
    return "\n".join([*lines, *left_out(result)])


def left_out(result: Mapping[str, Any]) -> list[str]:
    """Say what of the data is in no table, a line for each recording; earlier versions did not note it."""
    by_recording: dict[str, dict[str, list[str]]] = {}
    for one in result.get("left_out", ()):
        spans = by_recording.setdefault(one["recording"], {}).setdefault(one["why"], [])
        if one["start_s"] is not None:
            spans.append(f"{one['start_s']:.2f}–{one['end_s']:.2f} s")
    return [
        f"left out: {printable(recording)}: "
        + "; ".join(f"{why} at {', '.join(spans)}" if spans else why for why, spans in reasons.items())
        for recording, reasons in by_recording.items()
    ]


def as_csv(result: Mapping[str, Any]) -> str:
    """Write the scores as a tidy table: a row for each level, stratum, method and metric."""
    return tidy_csv(
        {
            "level": level,
            "stratum": stratum,
            "value_of_stratum": value,
            "method": method,
            "metric": metric,
            **as_cells(numbers, table),
            **result["settings"],
        }
        for level, stratum, value, method, table in _tables(result)
        for metric, numbers in table.items()
        if metric not in ("rows", "missing")
    )


def as_cells(numbers: Cell, counts: Mapping[str, Cell]) -> dict[str, float | None]:
    """Name the parts of a score, and how many rows it is of."""
    names = ("value", "standard_error", "low", "high")
    return {
        **dict(zip(names, numbers, strict=True)),
        "rows": counts["rows"][0],
        "missing": counts["missing"][0],
    }


def tidy_csv(lines: Iterable[Mapping[str, Any]]) -> str:
    """Write lines that have the same names as CSV; what is missing is an empty cell."""
    table = pd.DataFrame(list(lines), dtype=object).map(spreadsheet_safe)
    return table.to_csv(index=False, lineterminator="\n")


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
    lines = []
    for name, table in result["scores"][level].items():
        label = latex_name(NAMES.get(name, name)) + ("$^*$" if name == result["reader"] else "")
        lines.append([label, *(_latex_cell(table.get(m)) for m in METRICS), f"{table['rows'][0]:.0f}"])
    words = (
        f"{caption + ' ' if caption else ''}{result['protocol']}. Value $\\pm$ standard error over {level}s; "
        f"{INTERVAL}. $^*$: the primary method, fixed before testing."
    )
    return latex_table(["Method", *(HEADS[m] for m in METRICS), "n"], lines, words)


def latex_table(heads: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    """Write a LaTeX table: the first column to the left, the others to the right.

    Args:
      heads: Heads of the columns.
      lines: Cells of every line, text; mathematics stands in dollar signs.
      caption: Caption of the table.
    """
    table = pd.DataFrame([list(map(latex, line)) for line in lines], columns=list(map(latex, heads)))
    return table.style.hide(axis="index").to_latex(
        hrules=True, caption=latex(caption), column_format="l" + "r" * (len(heads) - 1)
    )


def _latex_cell(value: Cell | None) -> str:
    if value is None or value[0] is None:
        return "--"
    error = "–" if value[1] is None else fixed(value[1])
    text = f"${fixed(value[0])} \\pm$ {error}" if value[1] is None else f"${fixed(value[0])} \\pm {error}$"
    return text if value[2] is None else f"{text} $[{fixed(value[2])}, {fixed(value[3])}]$"


def latex_name(text: str) -> str:
    """Mark the dollar signs of a name that somebody chose: they begin no mathematics, see `latex`."""
    return printable(text).replace("$", DOLLAR)


def latex(text: str) -> str:
    r"""Escape what LaTeX would take for commands, except for mathematics in dollar signs.

    Example:
      >>> print(latex(latex_name(r"a$b_{\input{x}}^~") + r" $\pm$ 50 %"))
      a\$b\_\{\textbackslash{}input\{x\}\}\textasciicircum{}\textasciitilde{} $\pm$ 50 \%
    """
    parts = text.split("$")
    parts[::2] = [part.translate(LATEX_SIGNS) for part in parts[::2]]
    for old, new in (("%", r"\%"), ("&", r"\&"), ("_", r"\_"), ("#", r"\#")):
        parts[::2] = [part.replace(old, new) for part in parts[::2]]
    for old, new in (("–", "--"), ("−", "$-$"), ("÷", r"$\div$"), ("±", r"$\pm$"), ("λ", r"$\lambda$")):
        parts[::2] = [part.replace(old, new) for part in parts[::2]]
    return "$".join(parts)

"""Put several evaluations side by side, with differences on the windows they share.

python -m sspd_jax compare workdir/a workdir/b workdir/c [--methods=target,pos] [--output=DIR]
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import render, summary
from sspd_jax.evaluation.metrics import Score, paired_difference
from sspd_jax.evaluation.summary import plain
from sspd_jax.evaluation.table import Row, read
from sspd_jax.runtime import storage

TABLE = "windows.csv"
SCORES = "scores.json"
SAME_BPM = 0.01  # true rates of one window in two evaluations differ by rounding alone
METRICS = ("MAE", "RMSE", "MAPE", "ME", "r", "SNR", "MACC")


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One method of one evaluation.

    Attributes:
      name: Name in the comparison.
      rows: The method's windows.
    """

    name: str
    rows: Sequence[Row]


def read_columns(
    folders: Sequence[epath.PathLike], methods: Sequence[str] = ()
) -> tuple[list[Column], str, dict[str, str]]:
    """Read evaluations that were made by one protocol.

    Args:
      folders: Work directories, or folders of reports.
      methods: Methods of each to compare; () for its primary one.

    Returns:
      The columns, the protocol in words, and its settings.

    Raises:
      UserError: An evaluation is missing or damaged, lacks a method, or was made by another protocol.
    """
    columns: list[Column] = []
    first: tuple[epath.Path, str, dict[str, str]] | None = None
    for folder, label in zip(folders, _labels(folders), strict=True):
        path = _report(folder)
        rows, settings = read(path / TABLE)
        try:
            scores = json.loads((path / SCORES).read_text())
            primary, words = scores["reader"], scores["protocol"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path / SCORES}: is missing or damaged; evaluate again") from error
        if first is None:
            first = (path, words, settings)
        elif settings != first[2]:
            key = next(key for key in settings if settings[key] != first[2][key])
            raise UserError(
                f"{path}: was scored with {key} {settings[key]}, {first[0]} with {first[2][key]}; such "
                "numbers cannot be compared: evaluate both with the same --protocol, --window, --stride and "
                "--region"
            )
        span = summary.main_span(rows)
        known = dict.fromkeys(row.method for row in rows)
        for method in methods or (primary,):
            if method not in known:
                raise UserError(f"{path}: has no method {method!r}; it has {', '.join(known)}")
            mine = [row for row in rows if row.method == method and row.span == span]
            columns.append(Column(f"{label}: {method}" if methods else label, mine))
    return columns, first[1], first[2]


def _labels(folders: Sequence[epath.PathLike]) -> list[str]:
    """Name folders by as much of the end of their paths as tells them apart."""
    parts = [[part for part in epath.Path(f).parts if part != "report"] or ["."] for f in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"{folders[0]}: is named twice; name different work directories")


def _report(folder: epath.PathLike) -> epath.Path:
    folder = epath.Path(folder)
    for path in (folder / "report", folder):
        if (path / TABLE).exists():
            return path
    raise UserError(
        f"{folder}: holds no evaluation ({TABLE}); make one with `python -m sspd_jax evaluate "
        f"--workdir={folder}`"
    )


def compare(columns: Sequence[Column], words: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Score every column, and the difference of each to the first on the windows both have.

    Args:
      columns: Two or more columns of one protocol.
      words: Their protocol in words.
      settings: Settings of the protocol.

    Returns:
      JSON's types: 'protocol', 'settings', 'scores': column → metric → [value, standard error, low, high];
      'paired': column → 'difference' (|error| of the column − |error| of the first, bpm), 'rows', 'missing';
      'warnings'.
    """
    result: dict[str, Any] = {"protocol": words, "settings": dict(settings), "first": columns[0].name}
    tables = {c.name: summary.score(c.rows) for c in columns}
    result["scores"] = {name: plain(table) for name, table in tables.items()}
    result["paired"], result["warnings"] = {}, []
    first = {_key(row): row for row in columns[0].rows}
    for column in columns[1:]:
        pairs = [(row, first[_key(row)]) for row in column.rows if _key(row) in first]
        same = [(a, b) for a, b in pairs if abs(a.true_bpm - b.true_bpm) <= SAME_BPM]
        if len(same) < len(pairs):
            result["warnings"].append(
                f"{column.name}: {len(pairs) - len(same)} windows have the names but not the true rates "
                f"of those of {columns[0].name}: other recordings, left out of the difference"
            )
        alone = len(column.rows) + len(columns[0].rows) - 2 * len(same)
        if alone:
            result["warnings"].append(
                f"{column.name}: {alone} windows are in one of the two only; the difference is of {len(same)}"
            )
        errors = [np.array([abs(pair[i].error_bpm) for pair in same]) for i in (0, 1)]
        table = paired_difference(*errors, [pair[0].person for pair in same])
        result["paired"][column.name] = plain(table)
    return result


def _key(row: Row) -> tuple[str, float, float]:
    return row.recording, round(row.start_s, 2), round(row.duration_s, 2)


def as_text(result: Mapping[str, Any]) -> str:
    """Write a comparison as plain text."""
    width = max(map(len, result["scores"])) + 2
    head = "".join(summary.HEADS[m].rjust(16) for m in METRICS) + "   difference of |error| to the first, bpm"
    lines = ["".ljust(width) + head]
    for name, table in result["scores"].items():
        cells = "".join(render.cell(table.get(m)).rjust(16) for m in METRICS)
        paired = result["paired"].get(name)
        difference = "–" if paired is None else _difference(paired)
        lines.append(f"{name.ljust(width)}{cells}   {difference}")
    lines.append(f"{result['protocol']}; ± standard error; {summary.INTERVAL}")
    return "\n".join([*lines, *(f"note: {warning}" for warning in result["warnings"])])


def _difference(paired: Mapping[str, Any]) -> str:
    return f"{render.cell(paired['difference'], interval=True)} (n = {render.count(paired)})"


def as_csv(result: Mapping[str, Any]) -> str:
    """Write a comparison as a tidy table: a row for each column and metric."""
    lines = []
    for name, table in result["scores"].items():
        scored = [(metric, numbers, table) for metric, numbers in table.items()]
        if name in result["paired"]:
            paired = result["paired"][name]
            scored.append(("difference", paired["difference"], paired))
        lines += [
            {"run": name, "metric": metric, **render.as_cells(numbers, counts), **result["settings"]}
            for metric, numbers, counts in scored
            if metric not in ("rows", "missing")
        ]
    return render.tidy_csv(lines)


def as_latex(result: Mapping[str, Any]) -> str:
    r"""Write a comparison as a LaTeX table for `\input`; it needs the package booktabs."""
    metrics = ("MAE", "RMSE", "r", "SNR")
    lines = []
    for name, table in result["scores"].items():
        paired = result["paired"].get(name)
        cells = [render.cell(table.get(m)) for m in metrics]
        cells.append("–" if paired is None else render.cell(paired["difference"], interval=True))
        lines.append([render.latex_name(name), *cells])
    heads = [*(summary.HEADS[m] for m in metrics), "difference, bpm"]
    words = f"{result['protocol']}. Value ± standard error; {summary.INTERVAL}."
    return render.latex_table(["Run", *heads], lines, words)


def as_html(result: Mapping[str, Any]) -> str:
    """Write a comparison as a page of its own."""
    from sspd_jax.evaluation import figures, pages

    paired = {
        f"{name} − {result['first']}": Score(*(np.nan if v is None else v for v in table["difference"]))
        for name, table in result["paired"].items()
    }
    drawn = figures.draw_differences(paired, "on the same windows")
    pictures = {"differences": pages.picture(drawn, "differences of absolute errors")}
    return pages.render_page(
        "compare.html", "Runs side by side", result=result, metrics=METRICS, pictures=pictures
    )


def write(result: Mapping[str, Any], folder: epath.Path) -> None:
    """Write compare.html, compare.csv, compare.tex and compare.json."""
    texts = {
        "compare.html": as_html(result),
        "compare.csv": as_csv(result),
        "compare.tex": as_latex(result),
        "compare.json": json.dumps(result, indent=2) + "\n",
    }
    storage.write_texts(folder, texts)

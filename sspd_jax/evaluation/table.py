"""One tidy table: a row for each window and method, with the truth, the numbers and the protocol.

`pandas.read_csv` reads it as it is; so does `read`.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from etils import epath

from sspd_jax.errors import UserError
from sspd_jax.evaluation.protocol import Protocol, default
from sspd_jax.heart_rate.estimators import EARLIER_NAMES
from sspd_jax.runtime.text import from_spreadsheet, spreadsheet_safe

META = "meta."  # before the names of what the dataset tells


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method said of one window (or of a whole video), beside the truth.

    Attributes:
      recording: Id of the segment.
      person: Id of the person who is seen.
      method: 'online', 'target', 'untrained', 'network', 'auto', or a classical method's name.
      span: 'window' or 'video'.
      start_s: Start of the window in the segment, s.
      duration_s: Length of the window, s.
      true_bpm: Rate of the contact pulse wave in the same window, by the same estimator, bpm.
      predicted_bpm: Rate that the method gave, bpm; NaN where it gave none.
      snr_db: SNR of the method's wave at the true rate, dB.
      macc: Largest circular cross-correlation with the contact wave, 0 to 1.
      wave_r: Largest |Pearson| over lags of half a second, 0 to 1.
      ibi_error_ms: Mean error of the intervals between beats, ms; NaN where they cannot be compared.
      beats_found: Share of the contact wave's intervals that were found, 0 to 1.
      confidence: Chance that the rate is within 3 bpm, 0 to 1; NaN where it was not asked for.
      why: Why `predict` gives no rate there; '' where it gives one, or nobody asked.
      facts: What else is known: the dataset's meta, and a study's part, fold and seed.
    """

    recording: str
    person: str
    method: str
    span: str
    start_s: float
    duration_s: float
    true_bpm: float
    predicted_bpm: float
    snr_db: float
    macc: float = float("nan")
    wave_r: float = float("nan")
    ibi_error_ms: float = float("nan")
    beats_found: float = float("nan")
    confidence: float = float("nan")
    why: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def error_bpm(self) -> float:
        """Predicted − true."""
        return self.predicted_bpm - self.true_bpm


_COLUMNS = tuple(field.name for field in dataclasses.fields(Row) if field.name != "facts")
_TEXTS = frozenset({"recording", "person", "method", "span", "why"})
_EARLIER = {"why": "", "region": "crop"}  # what tables of an earlier version meant by columns they lack
_DIGITS = {"start_s": 3, "duration_s": 3, "ibi_error_ms": 2}


def flatten_metadata(meta: Mapping[str, Any], prefix: str = META) -> dict[str, str | float | bool]:
    """Keep what a dataset tells of a recording in a word or a number, with dots for what is nested.

    Lists, such as a device's heart rate over time, and notes are left out.

    Example:
      >>> flatten_metadata({"light": "dim", "device": {"hz": 60}, "notes": "moved"})
      {'meta.light': 'dim', 'meta.device.hz': 60}
    """
    flat: dict[str, str | float | bool] = {}
    for key, value in meta.items():
        if isinstance(value, Mapping):
            flat |= flatten_metadata(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float) and key != "notes":
            flat[f"{prefix}{key}"] = value
    return flat


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a data frame: the fields of a row, then every fact, missing where a row has none."""
    facts = list(dict.fromkeys(key for row in rows for key in row.facts))
    cells = [
        [*(getattr(row, name) for name in _COLUMNS), *(row.facts.get(key, "") for key in facts)]
        for row in rows
    ]
    return pd.DataFrame(cells, columns=[*_COLUMNS, *facts])


def write(rows: Sequence[Row], protocol: Protocol) -> str:
    """Write rows as CSV, the protocol's settings in every row.

    Args:
      rows: Rows of one protocol.
      protocol: The protocol of the rows.

    Returns:
      The text; a missing number is an empty cell, which pandas reads as NaN.
    """
    table = frame(rows).astype(object)
    for name in _COLUMNS:
        if name not in _TEXTS:
            digits = _DIGITS.get(name, 6)
            table[name] = [round(v, digits) if v == v else None for v in table[name]]
    settings = pd.DataFrame([dict(protocol.facts)] * len(table), dtype=object)
    split = len(_COLUMNS)
    table = pd.concat([table.iloc[:, :split], settings, table.iloc[:, split:]], axis=1)
    table = table.map(spreadsheet_safe)
    return table.to_csv(index=False, lineterminator="\n")


def read(path: epath.PathLike) -> tuple[list[Row], dict[str, str]]:
    """Read a table back.

    Args:
      path: Path of the file.

    Returns:
      The rows, what is not a column of theirs as text in `facts`; and the protocol's settings, as text.

    Raises:
      UserError: It is missing or damaged, or mixes protocols.
    """
    path = epath.Path(path)
    try:
        table = pd.read_csv(io.StringIO(path.read_text()), dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path}: holds no window; evaluate again") from error
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: cannot be read; make it with `sspd_jax evaluate`") from error
    try:
        for name, value in _EARLIER.items():
            if name not in table:
                table[name] = value
        table["read_out"] = table["read_out"].replace(EARLIER_NAMES)
        settings = table[list(default().facts)].drop_duplicates()
        rows = [_row(line) for line in table.map(from_spreadsheet).to_dict("records")]
    except (KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is damaged or of an earlier version ({reason}); evaluate again") from error
    if not rows:
        raise UserError(f"{path}: holds no window; evaluate again")
    if len(settings) > 1:
        raise UserError(f"{path}: mixes several protocols; evaluate by one at a time")
    return rows, settings.iloc[0].to_dict()


def _row(line: Mapping[str, str]) -> Row:
    values = {
        name: line[name] if name in _TEXTS else float(line[name]) if line[name] else float("nan")
        for name in _COLUMNS
    }
    known = {*_COLUMNS, *default().facts}
    facts = {key: value for key, value in line.items() if key not in known}
    return Row(**values, facts=facts)


def with_facts(rows: Iterable[Row], **facts: Any) -> list[Row]:
    """Return the rows with facts in front of those they have."""
    return [dataclasses.replace(row, facts={**facts, **row.facts}) for row in rows]

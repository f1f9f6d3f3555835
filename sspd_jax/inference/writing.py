"""What is written of predictions: JSON, CSV, a picture, a page that explains."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

from sspd_jax.inference import windows
from sspd_jax.inference.prediction import Failure, Prediction
from sspd_jax.inference.windows import Window
from sspd_jax.runtime import storage
from sspd_jax.runtime.text import drawable, printable, spreadsheet_safe

RANGES = ("lowest_bpm", "highest_bpm", "smoothed_lowest_bpm", "smoothed_highest_bpm")


def write_json(path: str | Path, results: Sequence[Prediction | Failure], *, as_list: bool = False) -> None:
    """Write results as JSON: one object for one, a list of objects for several.

    Args:
      path: The file to make; it is written aside, then renamed.
      results: What to write.
      as_list: Whether more will follow, so that one is a list too.

    Raises:
      StorageError: It cannot be written.
    """
    rows = [result.to_json() for result in results]
    only_one = len(rows) == 1 and not as_list
    storage.write_text(path, json.dumps(rows[0] if only_one else rows, allow_nan=False) + "\n")


def write_csv(path: str | Path, results: Sequence[Prediction | Failure]) -> None:
    """Write results as CSV: a row for each window, the rate empty where there is no reading.

    What could not be read has one row, with its sentence under `error`.

    Args:
      path: The file to make; it is written aside, then renamed.
      results: What to write.

    Raises:
      StorageError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    left_out = ("estimates_bpm", "interval_bpm", "smoothed_interval_bpm")  # no single cells
    columns = [field.name for field in dataclasses.fields(Window) if field.name not in left_out]
    writer.writerow(["file", "face", "method", *columns, *RANGES, "error"])
    numbers: dict[str, int] = {}
    for result in results:
        face = numbers[result.file] = numbers.get(result.file, 0) + 1
        first = [spreadsheet_safe(result.file), face]
        if isinstance(result, Failure):
            writer.writerow(
                [*first, "", *[""] * (len(columns) + len(RANGES)), spreadsheet_safe(printable(result.error))]
            )
            continue
        for window in result.windows:
            values = windows.as_json(window)
            row = ["" if values[name] is None else spreadsheet_safe(values[name]) for name in columns]
            for name in ("interval_bpm", "smoothed_interval_bpm"):
                row += values[name] or ["", ""]
            writer.writerow([*first, result.method, *row, ""])
    storage.write_text(path, text.getvalue())


def write_plot(path: str | Path, predictions: Sequence[Prediction]) -> None:
    r"""Draw predictions: rates over time with their confidence, and the wave with its beats.

    Args:
      path: The picture to make; its suffix chooses the format.
      predictions: What to draw, one below the other.

    Raises:
      ConfigError: A format that cannot be drawn.
      StorageError: It cannot be written.

    Example:
      >>> import numpy as np, sspd_jax, tempfile
      >>> from sspd_jax.simulation import sample_video
      >>> frames = np.stack([*sample_video.face_frames(np.arange(90) / 15, bpm=84, seed=0)])
      >>> prediction = sspd_jax.read(frames, fps=15, method="pos", region="crop")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_plot(Path(folder, "pulse.png"), [prediction])
      ...     Path(folder, "pulse.png").read_bytes()[:4]
      b'\x89PNG'
    """
    from sspd_jax.inference import plot  # matplotlib takes a second to import

    plot.write(path, [dataclasses.replace(p, file=drawable(p.file)) for p in predictions])


def write_explanation(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write a page that shows why there are readings, or none; see `explain.page`.

    Args:
      path: The HTML file to make.
      predictions: What to explain, of the region `skin` and made with `keep=True`.

    Raises:
      ConfigError: They were not.
      StorageError: It cannot be written.
    """
    from sspd_jax.inference import explain  # matplotlib takes a second to import

    explain.write(path, predictions)

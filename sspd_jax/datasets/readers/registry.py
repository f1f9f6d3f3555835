"""The readers by name: which module understands a dataset as its owner gives it away.

A reader is a function `recordings(source) -> list[Recording | Broken]`, see `sspd_jax.datasets.recording`.
To add one, write a small module with that function and add a line here; `docs/datasets.md` shows how.
"""

from __future__ import annotations

import importlib
import os

from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import ConfigError

READERS = {
    "ubfc_rppg": "sspd_jax.datasets.readers.ubfc_rppg",
    "ubfc_rppg_1": "sspd_jax.datasets.readers.ubfc_rppg_1",
    "pure": "sspd_jax.datasets.readers.pure",
    "cohface": "sspd_jax.datasets.readers.cohface",
    "mmpd": "sspd_jax.datasets.readers.mmpd",
    "ubfc_phys": "sspd_jax.datasets.readers.ubfc_phys",
    "vipl_hr": "sspd_jax.datasets.readers.vipl_hr",
    "vipl_hr_infrared": "sspd_jax.datasets.readers.vipl_hr:infrared_recordings",
    "scamps": "sspd_jax.datasets.readers.scamps",
    "folder": "sspd_jax.datasets.readers.folder",
}
"""Dataset → module with `recordings`, or module:function."""


EXPERIMENTS = {"ubfc": "ubfc_rppg", "ubfc1": "ubfc_rppg_1"}
"""Readers by the names that their experiments in `configs/` have; the same name works for both."""


def read(name: str, source: str | os.PathLike) -> list[Recording | Broken]:
    """List the recordings of a dataset.

    Args:
      name: Key of the reader in `READERS`.
      source: Folder of the dataset, as its owner gives it away.

    Returns:
      Its recordings, always in the same order.

    Raises:
      ConfigError: There is no such reader.
      UserError: The folder is missing or holds nothing of the dataset.

    Example:
      A folder of a recording whose files are not there:

      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     (pathlib.Path(folder) / "subject1").mkdir()
      ...     [(recording.recording_id, type(recording).__name__) for recording in read("ubfc_rppg", folder)]
      [('subject1', 'Broken')]
    """
    name = EXPERIMENTS.get(name, name)
    if name not in READERS:
        raise ConfigError(f"dataset {name!r} is none of {', '.join(sorted(READERS))}")
    module, _, function = READERS[name].partition(":")
    return getattr(importlib.import_module(module), function or "recordings")(source)

"""Keys of configurations that an older version wrote under another name, or that nothing reads any more."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {
    "network.change": "network.input_transform",
    "playback.slowest": "time_stretch.min_speed",
    "evaluation.read_out": "evaluation.hr_estimator",
}
"""What a key of version 0.1 is called now."""

EARLIER_TABLES = {old.split(".")[0] for old in RENAMED} - {new.split(".")[0] for new in RENAMED.values()}
"""Tables of version 0.1 of which nothing is left: all their keys have moved."""

REMOVED: Mapping[str, str] = {
    "disturb": "disturbed views helped nothing, see benchmarks/robustness/rejected.md",
}
"""Tables of switches that are gone, and why; a configuration in which all are off means the same without."""


def translate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a saved configuration to those of this version.

    Args:
      config: Plain nested tables, such as a work directory's `config.json` or a checkpoint's `config`.

    Returns:
      A copy with today's keys. A removed table in which something is switched on is kept: whoever compares
      configurations finds that it differs.

    Example:
      >>> translate({"network": {"change": "steady"}, "disturb": {"light": 0.0}})
      {'network': {'input_transform': 'steady'}}
    """
    config = copy.deepcopy(dict(config))
    for old, new in RENAMED.items():
        (old_table, old_name), (table, name) = old.split("."), new.split(".")
        if isinstance(config.get(old_table), dict) and old_name in config[old_table]:
            value = config[old_table].pop(old_name)
            if not config[old_table]:
                del config[old_table]
            config.setdefault(table, {})[name] = value
    for table in REMOVED:
        if isinstance(config.get(table), dict) and not any(config[table].values()):
            del config[table]
    return config

"""Which loss reaches which parameters.

Every parameter belongs to the backbone, the temporal-similarity blocks or the predictor. L_RPD may move
the predictor only, L_TSPD the other two, and nothing moves the target. The network guarantees that by
where it stops gradients; these labels are how the optimiser and the tests speak of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

LABELS = ("backbone", "ts", "predictor")

REACH: Mapping[str, frozenset[str]] = {
    "wave": frozenset({"predictor"}),
    "similarity": frozenset({"backbone", "ts"}),
}
"""What each kind of loss term (the first word of its name) is allowed to move."""


def labels(params: Any) -> Any:
    """Name the part of the network each parameter belongs to.

    Args:
      params: Parameters of a network, a nested dict.

    Returns:
      The same nesting with 'backbone', 'ts' or 'predictor' in place of every array.

    Raises:
      ValueError: A parameter belongs to none of them.
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        part = str(getattr(path[0], "key", path[0])) if path else ""
        if part not in LABELS:
            raise ValueError(
                f"parameter {jax.tree_util.keystr(path)!r} belongs to no known part of the network: {LABELS}"
            )
        return part

    return jax.tree_util.tree_map_with_path(label, params)

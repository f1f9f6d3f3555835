"""SSPD in JAX: heart rate from face video, learned without labels.

`sspd_jax.method` holds the method as pure functions; `load` reads a checkpoint; the commands are
`python -m sspd_jax.convert` and `python -m sspd_jax.predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sspd_jax.reader import Reader

__version__ = "0.1.0"
__all__ = ["load"]


def load(checkpoint: str) -> Reader:
    """Load a network that reads pulse waves, see `sspd_jax.reader.load`.

    Args:
      checkpoint: a directory that `python -m sspd_jax.convert` or a training wrote.
    """
    from sspd_jax.reader import load  # JAX takes seconds to import: not before it is needed

    return load(checkpoint)

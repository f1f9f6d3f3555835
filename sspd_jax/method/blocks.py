"""Loops over blocks of frames, whose results take memory when they are computed and not before.

`jax.lax.map` and `scan` write into zeros. Zeros depend on nothing, so XLA on CPU makes those of every loop
at the start of a program, and a training step holds all that its loops will ever return at once, about
2 GiB. Here a loop writes into what is made from its own input, which is not there before.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Count = Any
"""An int, or a dimension of `jax.export` whose value is known when the exported code runs."""

Block = tuple[Array, Array]
"""Where a block is, two int32 scalars: its clip and the first of its frames."""


def map_blocks(compute: Callable[[Block], Array], n: int, t: Count, frames: int, source: Array) -> Array:
    """Compute n clips of t frames, a block of them at a time.

    Args:
      compute: takes a block's place and gives its frames, [frames, …].
      n: clips.
      t: frames of a clip, a multiple of `frames`.
      frames: of a block.
      source: what `compute` works on, not empty.

    Returns:
      [n, t, …].
    """
    place = jax.ShapeDtypeStruct((), jnp.int32)
    block = jax.eval_shape(compute, (place, place))
    first = source[(0,) * source.ndim].astype(block.dtype)

    def write(place: Block, out: Array) -> Array:
        block = compute(place)
        return lax.dynamic_update_slice(out, block[None], (*place, *[0] * (block.ndim - 1)))

    return reduce_blocks(write, jnp.broadcast_to(first, (n, t, *block.shape[1:])), n, t, frames)


def reduce_blocks(compute: Callable[[Block, Any], Any], total: Any, n: int, t: Count, frames: int) -> Any:
    """Add every block to a total.

    Args:
      compute: takes a block's place and the total, and gives the next total.
      total: its first value, a pytree.
      n: see `map_blocks`.
      t: see `map_blocks`.
      frames: see `map_blocks`.

    Returns:
      The last total.
    """
    per_clip = t // frames

    def step(i: Array, total: Any) -> Any:
        i = jnp.asarray(i, jnp.int32)
        return compute((i // per_clip, i % per_clip * frames), total)

    return lax.fori_loop(0, n * per_clip, step, total)

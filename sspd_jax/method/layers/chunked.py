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
      compute: Function that takes a block's place and gives its frames, [frames, …].
      n: Number of clips.
      t: Number of frames of a clip, a multiple of `frames`.
      frames: Number of frames of a block.
      source: What `compute` works on, not empty.

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


def replace_blocks(compute: Callable[[Array, Block], Array], x: Array, frames: int) -> Array:
    """Compute clips anew from themselves, a block of frames at a time, each in the place of the old.

    Where nothing else needs `x` any more this takes no memory.

    Args:
      compute: Function that takes a block of `x`, [frames, …], and its place, and gives as much.
      x: [n, t, …].
      frames: Number of frames of a block; it divides t.

    Returns:
      [n, t, …].
    """

    def write(place: Block, out: Array) -> Array:
        start = (*place, *[0] * (x.ndim - 2))
        block = lax.dynamic_slice(out, start, (1, frames, *x.shape[2:]))[0]
        return lax.dynamic_update_slice(out, compute(block, place)[None], start)

    return reduce_blocks(write, x, *x.shape[:2], frames)


def reduce_blocks(compute: Callable[[Block, Any], Any], total: Any, n: int, t: Count, frames: int) -> Any:
    """Add every block to a total.

    Args:
      compute: Function that takes a block's place and the total, and gives the next total.
      total: First value of the total, a pytree.
      n: See `map_blocks`.
      t: See `map_blocks`.
      frames: See `map_blocks`.

    Returns:
      The last total.
    """
    per_clip = t // frames

    def step(i: Array, total: Any) -> Any:
        i = jnp.asarray(i, jnp.int32)
        return compute((i // per_clip, i % per_clip * frames), total)

    return lax.fori_loop(0, n * per_clip, step, total)


def after(x: Array, earlier: Array) -> Array:
    """Return `x`, but not before `earlier` is known.

    `jax.lax.optimization_barrier` says the same, and XLA on CPU takes it out before it decides on the order.

    Args:
      x: [n, …], real.
      earlier: [n, …], real, of as many axes as `x` or fewer.
    """
    one = jnp.expand_dims(earlier[(slice(None), *[0] * (earlier.ndim - 1))], tuple(range(1, x.ndim)))
    return jnp.where(one > jnp.inf, one.astype(x.dtype), x)  # nothing is; the compiler does not know

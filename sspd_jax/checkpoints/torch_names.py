"""Translate between PyTorch's names and axis order and our trees of parameters, both ways.

`_table` is the one place that pairs names, of the layers that `sspd_jax.method.architecture` lists. Three
things differ: the names; the axes (PyTorch has Conv3d [out, in, t, h, w], Conv1d [out, in, k] and Linear
[out, in], Flax has the spatial axes first and [in, out] last); and the colours (the published network expects
BGR frames, ours RGB, so everything that touches the input channels is reversed).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sspd_jax.checkpoints.torch_reader import printable
from sspd_jax.errors import UserError
from sspd_jax.method import architecture

Tree = dict[str, Any]

_COUNTER = "num_batches_tracked"
_NORM_PARAMS = (("weight", "scale"), ("bias", "bias"))
_NORM_STATISTICS = (("running_mean", "mean"), ("running_var", "var"))
_DENSE = (("weight", "kernel"), ("bias", "bias"))
_SHOWN_NAMES = 3


class _Entry(NamedTuple):
    """One PyTorch tensor and where it lives in our trees."""

    torch_name: str
    collection: str | None  # 'params', 'batch_stats', or None for a counter we do not keep
    path: tuple[str, ...] = ()
    colour_axis: int | None = None  # PyTorch's axis of the input colours


def _table(stages: int, ts_blocks: int) -> list[_Entry]:
    """List every tensor of a network, in PyTorch's order."""
    entries: list[_Entry] = []

    def add(torch_name: str, *path: str, fields: Iterable = _DENSE[:1], colour_axis: int | None = None):
        for theirs, ours in fields:
            entries.append(_Entry(f"{torch_name}.{theirs}", "params", (*path, ours), colour_axis))

    def add_batch_norm(torch_name: str, *path: str, colour_axis: int | None = None):
        add(torch_name, *path, fields=_NORM_PARAMS, colour_axis=colour_axis)
        for theirs, ours in _NORM_STATISTICS:
            entries.append(_Entry(f"{torch_name}.{theirs}", "batch_stats", (*path, ours), colour_axis))
        entries.append(_Entry(f"{torch_name}.{_COUNTER}", None))

    add_batch_norm("BN", "backbone", "input_norm", colour_axis=0)
    layers = architecture.conv_layers(((1, 1),) * stages, 1, 1)  # the names do not depend on the widths
    for step, (path, of_step) in enumerate(architecture.modules(layers, "backbone"), 1):
        for i, layer in enumerate(of_step, 1):
            colour_axis = 1 if layer is layers[0] else None
            add(f"backbone_step{step}.Conv_Layer{i}", *path, layer.conv, colour_axis=colour_axis)
        for i, layer in enumerate(of_step, 1):
            add_batch_norm(f"backbone_step{step}.BN{i}", *path, layer.norm)
    ((path, predictor),) = architecture.modules(layers, "predictor")
    for i, layer in enumerate(predictor, 1):
        add(f"predictor.conv{i}", *path, layer.conv, fields=_DENSE[:1] if layer.norm else _DENSE)
        if layer.norm:
            add_batch_norm(f"predictor.bn{i}", *path, layer.norm)
    for i in range(1, ts_blocks + 1):
        theirs, ours = f"ts_block{i}", ("ts", f"block{i}")
        add(f"{theirs}.tokenizer.conv", *ours, "embed", fields=_DENSE)
        add(f"{theirs}.tokenizer.norm", *ours, "norm", fields=_NORM_PARAMS)
        add(f"{theirs}.attn.proj_q", *ours, "query", fields=_DENSE)
        add(f"{theirs}.attn.proj_k", *ours, "key", fields=_DENSE)
        add(f"{theirs}.attn.proj_v", *ours, "value", fields=_DENSE)
        add(f"{theirs}.proj", *ours, "proj", fields=_DENSE)
    return entries


def from_torch(state_dict: Mapping[str, np.ndarray]) -> tuple[Tree, Tree]:
    """Convert a PyTorch state dict to our parameters and batch statistics.

    The number of stages and of temporal-similarity (TS) blocks is taken from the names; `ts` is absent from
    the parameters where the state dict has no TS block, as in the published file. Call `check_layout`
    first for a message that names the file.

    Args:
      state_dict: {PyTorch's name: floating-point array}, of a network that takes BGR frames.

    Returns:
      (params, batch_stats): nested dicts of contiguous float32 arrays with Flax's axes, of a network that
      takes RGB frames.

    Raises:
      ValueError: A name is missing or unknown.
    """
    table = _table(*_counts_from_names(state_dict))
    missing = [e.torch_name for e in table if e.collection and e.torch_name not in state_dict]
    unknown = sorted(set(state_dict) - {e.torch_name for e in table})
    if missing or unknown:
        raise ValueError(f"no state dict of this network: missing {missing}, unknown {unknown}")
    leaves = {}
    for entry in table:
        if entry.collection:
            array = _reverse_colours(np.asarray(state_dict[entry.torch_name]), entry)
            array = array.transpose(_axes_from_torch(array.ndim))
            # A copy: the file's arrays are read-only and may share memory.
            leaves[entry.collection, *entry.path] = np.array(array, np.float32, order="C")
    trees = unflatten_dict(leaves)
    return trees["params"], trees["batch_stats"]


def to_torch(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert our parameters and batch statistics to a PyTorch state dict.

    The exact inverse of `from_torch`, except that PyTorch's counters `num_batches_tracked`, which we do not
    keep, are 0.

    Args:
      params: Nested mapping of float arrays, of a network that takes RGB frames.
      batch_stats: The same of its running statistics.

    Returns:
      {PyTorch's name: contiguous float32 array (int64 for the counters)} in PyTorch's order, of a network
      that takes BGR frames.

    Raises:
      ValueError: A leaf is missing or unknown.
    """
    state_dict = {}
    for entry, leaf in _leaves(params, batch_stats):
        if entry.collection is None:
            state_dict[entry.torch_name] = np.zeros((), np.int64)
            continue
        array = np.asarray(leaf)
        array = array.transpose(_axes_to_torch(array.ndim))
        state_dict[entry.torch_name] = np.array(_reverse_colours(array, entry), np.float32, order="C")
    return state_dict


def torch_layout_of(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that `to_torch` would give.

    Args:
      params: Nested mapping of anything with `.shape`, such as `jax.ShapeDtypeStruct`.
      batch_stats: The same of its running statistics.

    Returns:
      {PyTorch's name: shape} in PyTorch's order.

    Raises:
      ValueError: A leaf is missing or unknown.
    """
    layout = {}
    for entry, leaf in _leaves(params, batch_stats):
        shape = () if entry.collection is None else tuple(leaf.shape)
        layout[entry.torch_name] = tuple(shape[axis] for axis in _axes_to_torch(len(shape)))
    return layout


def check_layout(
    state_dict: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], path: str | Path
) -> None:
    """Check that a state dict has the names and shapes of our network.

    TS blocks exist only for training: they are compared where both sides have some, and may be absent
    from either side altogether. The counters `num_batches_tracked` are ignored.

    Args:
      state_dict: Name → array, as `read_state_dict` returns it.
      expected: Name → shape, as `torch_layout_of` returns it.
      path: Path of the file, for the message.

    Raises:
      UserError: A tensor is missing, unexpected, of another shape, or does not hold floating-point numbers.
    """
    if not (_has_ts_blocks(state_dict) and _has_ts_blocks(expected)):
        state_dict = {name: array for name, array in state_dict.items() if not _is_ts(name)}
        expected = {name: shape for name, shape in expected.items() if not _is_ts(name)}
    found = {name: array for name, array in state_dict.items() if not name.endswith(f".{_COUNTER}")}
    wanted = {name: tuple(shape) for name, shape in expected.items() if not name.endswith(f".{_COUNTER}")}
    common = [name for name in wanted if name in found]
    reshaped = [
        f"{name} has shape {found[name].shape} instead of {wanted[name]}"
        for name in common
        if found[name].shape != wanted[name]
    ]
    retyped = [
        f"{name} holds {found[name].dtype} instead of floating-point numbers"
        for name in common
        if not np.issubdtype(found[name].dtype, np.floating)
    ]
    problems = [
        *_first_few("missing ", [printable(name) for name in wanted if name not in found]),
        *_first_few("unexpected ", [printable(name) for name in found if name not in wanted]),
        *_first_few("", reshaped),
        *_first_few("", retyped),
    ]
    if problems:
        raise UserError(
            f"{path} does not fit this network ({'; '.join(problems)}): "
            "give the configuration that the weights were trained with"
        )


def _first_few(label: str, items: list[str]) -> list[str]:
    """Return one phrase with the first few items, or none where there are no items."""
    if not items:
        return []
    more = f" and {len(items) - _SHOWN_NAMES} more" if len(items) > _SHOWN_NAMES else ""
    return [label + ", ".join(items[:_SHOWN_NAMES]) + more]


def _is_ts(name: str) -> bool:
    return re.match(r"ts_block\d+\.", name) is not None


def _has_ts_blocks(names: Iterable[str]) -> bool:
    return any(map(_is_ts, names))


def _counts_from_names(names: Iterable[str]) -> tuple[int, int]:
    """Count the stages and TS blocks: distinct numbers, so that a huge one is merely unknown."""
    found = [re.match(r"(backbone_step|ts_block)\d+(?=\.)", name) for name in names]
    blocks = {match[0]: match[1] for match in found if match}
    steps = list(blocks.values()).count("backbone_step")
    return max(steps - 1, 0), list(blocks.values()).count("ts_block")  # the last step is `final`


def _leaves(params: Mapping, batch_stats: Mapping) -> list[tuple[_Entry, Any]]:
    """Pair every entry of the table with its leaf (None for a counter)."""
    stages = sum(re.fullmatch(r"stage\d+", name) is not None for name in params.get("backbone", ()))
    table = _table(stages, len(params.get("ts", ())))
    leaves = flatten_dict({"params": params, "batch_stats": batch_stats})
    wanted = {(e.collection, *e.path) for e in table if e.collection}
    if wanted != set(leaves):
        missing = sorted("/".join(path) for path in wanted - set(leaves))
        unknown = sorted("/".join(path) for path in set(leaves) - wanted)
        raise ValueError(f"no parameters of this network: missing {missing}, unknown {unknown}")
    return [(e, leaves.get((e.collection, *e.path))) for e in table]


def _axes_from_torch(ndim: int) -> tuple[int, ...]:
    """Return the axes that turn [out, in, *window] into [*window, in, out]; a vector stays as it is."""
    return tuple(range(ndim)) if ndim < 2 else (*range(2, ndim), 1, 0)


def _axes_to_torch(ndim: int) -> tuple[int, ...]:
    """Return the axes that turn [*window, in, out] into [out, in, *window]."""
    return tuple(range(ndim)) if ndim < 2 else (ndim - 1, ndim - 2, *range(ndim - 2))


def _reverse_colours(array: np.ndarray, entry: _Entry) -> np.ndarray:
    """Turn BGR into RGB, or back, along the entry's colour axis (of PyTorch's order)."""
    return array if entry.colour_axis is None else np.flip(array, entry.colour_axis)

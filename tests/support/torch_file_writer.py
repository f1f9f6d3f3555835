"""Write what PyTorch weights files can hold beyond a state dict, and what no honest program would write.

`sspd_jax.checkpoints.torch_writer` writes state dicts; `save` here writes nested values, views and parameters
as `torch.save` does, and with that module's opcodes a test can write anything.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sspd_jax.checkpoints import torch_writer as opcodes
from sspd_jax.checkpoints.torch_writer import (
    STORAGE_NAMES,
    archive,
    call,
    contiguous,
    integer,
    storage,
    string,
    tensor,
    tuple_,
)


class View(NamedTuple):
    """A tensor that is a strided view of a flat array; views of one array object share its storage."""

    elements: np.ndarray
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Parameter(NamedTuple):
    """A tensor saved as a torch.nn.Parameter."""

    data: np.ndarray


class Raw(NamedTuple):
    """Opcodes that push one value, written as they are."""

    opcodes: bytes


def save(path: Path, contents: Any, *, byte_order: str = "little", **archived: Any) -> None:
    """Write nested dicts, lists, tuples, scalars and arrays as torch.save does.

    Args:
      path: the file to write.
      contents: what to save; a dict is written as an OrderedDict with `_metadata`, as a state dict is.
      byte_order: 'little' or 'big', of the storages.
      **archived: further arguments of `write_archive`.
    """
    description, storages = describe(contents, byte_order)
    write_archive(path, description, storages, byte_order=byte_order.encode(), **archived)


def describe(contents: Any, byte_order: str = "little") -> tuple[bytes, dict[str, bytes]]:
    """Return the pickle of `contents` and the bytes of its storages."""
    writer = _Writer(byte_order)
    return opcodes.pickled(writer.value(contents)), writer.storages


def write_archive(
    path: Path, description: bytes, storages: Mapping[str, bytes] | None = None, **archived: Any
) -> None:
    """Write the zip around a pickle and its storages; the rest is for `archive`."""
    path.write_bytes(archive(description, storages or {}, **archived))


class _Writer:
    def __init__(self, byte_order: str):
        self.storages: dict[str, bytes] = {}
        self._order = {"little": "<", "big": ">"}[byte_order]
        self._keys: dict[int, str] = {}
        self._kept: list[np.ndarray] = []  # so that no id() is used twice

    def value(self, value: Any) -> bytes:
        if isinstance(value, Raw):
            return value.opcodes
        if isinstance(value, Parameter):
            hooks = call("collections", "OrderedDict")
            return call("torch._utils", "_rebuild_parameter", self.value(value.data), b"\x88", hooks)
        if isinstance(value, View):
            stored = storage(*self._store(value.elements))
            return tensor(stored, value.offset, value.size, value.stride)
        if isinstance(value, np.ndarray):
            return contiguous(storage(*self._store(value.reshape(-1))), value.shape)
        if isinstance(value, Mapping):
            items = b"".join(self.value(key) + self.value(item) for key, item in value.items())
            metadata = b"}" + string("_metadata") + call("collections", "OrderedDict") + b"s"
            return call("collections", "OrderedDict") + b"(" + items + b"u" + metadata + b"b"
        if isinstance(value, list):
            return b"](" + b"".join(map(self.value, value)) + b"e"
        if isinstance(value, tuple):
            return tuple_(*map(self.value, value))
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            return integer(value)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        return string(value)

    def _store(self, flat: np.ndarray) -> tuple[str, str, int]:
        if id(flat) not in self._keys:
            key = self._keys[id(flat)] = str(len(self.storages))
            self._kept.append(flat)
            self.storages[key] = opcodes.raw(flat, self._order)
        return STORAGE_NAMES[flat.dtype.name], self._keys[id(flat)], flat.size

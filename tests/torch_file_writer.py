"""Write PyTorch's weights format from NumPy arrays, without PyTorch, for tests.

`save` writes what `torch.save` of PyTorch 2 writes (zip of `data.pkl`, `byteorder`, `data/<key>`,
`version`); `write_archive` and the opcode helpers below it also write what no honest program would.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGE_NAMES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


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


def save(path: Path, contents: Any, *, byte_order: str = "little", **archive: Any) -> None:
    """Write nested dicts, lists, tuples, scalars and arrays as torch.save does.

    Args:
      path: the file to write.
      contents: what to save; a dict is written as an OrderedDict with `_metadata`, as a state dict is.
      byte_order: 'little' or 'big', of the storages.
      **archive: further arguments of `write_archive`.
    """
    description, storages = describe(contents, byte_order)
    write_archive(path, description, storages, byte_order=byte_order.encode(), **archive)


def describe(contents: Any, byte_order: str = "little") -> tuple[bytes, dict[str, bytes]]:
    """Return the pickle of `contents` and the bytes of its storages."""
    writer = _Writer(byte_order)
    return b"\x80\x02" + writer.value(contents) + b".", writer.storages


def write_archive(
    path: Path,
    description: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    name: str = "weights",
    byte_order: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write the zip around a pickle and its storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{name}/data.pkl", description)
        if byte_order is not None:
            archive.writestr(f"{name}/byteorder", byte_order)
        for key, elements in (storages or {}).items():
            archive.writestr(f"{name}/data/{key}", elements)
        archive.writestr(f"{name}/version", b"3\n")


def global_(module: str, name: str) -> bytes:
    """Return the opcode that asks for `module.name`."""
    return f"c{module}\n{name}\n".encode()


def string(text: str) -> bytes:
    """Return the opcode that pushes a string."""
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """Return the opcode that pushes an integer."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_(*values: bytes) -> bytes:
    """Return the opcodes that push a tuple of pushed values."""
    return b"(" + b"".join(values) + b"t"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Return the opcodes that call `module.name`."""
    return global_(module, name) + tuple_(*arguments) + b"R"


def storage(kind: str, key: str, length: int) -> bytes:
    """Return the opcodes that push the storage `key`."""
    return (
        tuple_(string("storage"), global_("torch", kind), string(key), string("cpu"), integer(length)) + b"Q"
    )


def tensor(stored: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return the opcodes that push a tensor of a pushed storage."""
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        stored,
        integer(offset),
        tuple_(*map(integer, size)),
        tuple_(*map(integer, stride)),
        b"\x89",
        call("collections", "OrderedDict"),
    )


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
            flat = np.ascontiguousarray(value).reshape(-1)
            strides = np.empty(value.shape, np.int8).strides
            return tensor(storage(*self._store(flat)), 0, value.shape, strides)
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
            raw = flat.view(np.uint16) if flat.dtype.name == "bfloat16" else flat
            self.storages[key] = raw.astype(raw.dtype.newbyteorder(self._order)).tobytes()
        return STORAGE_NAMES[flat.dtype.name], self._keys[id(flat)], flat.size

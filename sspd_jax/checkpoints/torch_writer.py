"""Write weights as PyTorch's `torch.save` does, without PyTorch.

A `.pth` file is a zip of a pickle that describes the tensors and of each tensor's raw elements, see
`torch_reader`, which reads them. The pickle is written instruction by instruction: an OrderedDict of names
and tensors, nothing else, which `torch.load(…, weights_only=True)` takes.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np
from etils import epath

from sspd_jax.runtime import storage as files

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
"""PyTorch's storage class for each dtype."""

_ALIGNMENT = 64
"""Elements start at multiples of this many bytes, as PyTorch's own do, so that it may map the file."""

_EXTRA_HEADER = struct.Struct("<HH")  # identifier and length of what pads an entry
_LOCAL_HEADER_BYTES = 30  # of a zip's entry, before its name
_A_DATE = (1980, 1, 1, 0, 0, 0)  # the same weights make the same file whenever they are written


def write_state_dict(
    path: epath.PathLike, state_dict: Mapping[str, np.ndarray], *, otherwise: str = "choose another place"
) -> None:
    """Write named tensors as `torch.save(model.state_dict(), path)` does.

    The file appears under its name when it is complete, in place of one that was there.

    Args:
      path: The `.pth` file, local or remote.
      state_dict: Arrays by name, of a dtype in `STORAGE_NAMES`; the file keeps the order. Every tensor has a
        storage of its own.
      otherwise: The remedy where it cannot be written.

    Raises:
      StorageError: It cannot be written.
      KeyError: PyTorch has no such dtype.
    """
    files.write_bytes(path, archive(*describe(state_dict)), otherwise=otherwise)


def describe(state_dict: Mapping[str, np.ndarray]) -> tuple[bytes, dict[str, bytes]]:
    """Return the pickle that describes named tensors, and the bytes of their storages by key."""
    items, storages = [], {}
    for i, (name, array) in enumerate(state_dict.items()):
        storages[str(i)] = raw(array)
        stored = storage(STORAGE_NAMES[array.dtype.name], str(i), array.size)
        items += [string(name), contiguous(stored, array.shape)]
    return pickled(call("collections", "OrderedDict") + b"(" + b"".join(items) + b"u"), storages


def archive(
    description: bytes,
    storages: Mapping[str, bytes],
    *,
    name: str = "weights",
    byte_order: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """Return the zip around a pickle and its storages.

    Args:
      description: The pickle.
      storages: Bytes of the storages by key.
      name: Name of the folder that the entries lie in.
      byte_order: Byte order of the storages; None leaves it unsaid, as old files do.
      compression: Method of `zipfile`; PyTorch stores.
    """
    entries = {"data.pkl": description}
    if byte_order is not None:
        entries["byteorder"] = byte_order
    entries |= {f"data/{key}": elements for key, elements in storages.items()}
    entries["version"] = b"3\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for entry, content in entries.items():
            info = zipfile.ZipInfo(f"{name}/{entry}", _A_DATE)
            info.compress_type = compression
            start = file.tell() + _LOCAL_HEADER_BYTES + len(info.filename.encode()) + _EXTRA_HEADER.size
            padding = -start % _ALIGNMENT
            info.extra = _EXTRA_HEADER.pack(0x4246, padding) + b"Z" * padding
            zipped.writestr(info, content)
    return file.getvalue()


def raw(array: np.ndarray, order: str = "<") -> bytes:
    """Return an array's elements as a file holds them: little-endian ('<') or big-endian ('>')."""
    if array.dtype.name == "bfloat16":  # its bits: NumPy knows no byte order of it
        array = array.view(np.uint16)
    return array.astype(array.dtype.newbyteorder(order)).tobytes()


# The pickle's instructions (protocol 2), each as bytes.


def pickled(value: bytes) -> bytes:
    """Return a whole pickle of a pushed value."""
    return b"\x80\x02" + value + b"."


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
    """Return the opcodes that push the storage `key`, of a class in `STORAGE_NAMES`."""
    return (
        tuple_(string("storage"), global_("torch", kind), string(key), string("cpu"), integer(length)) + b"Q"
    )


def contiguous(stored: bytes, size: tuple[int, ...]) -> bytes:
    """Return the opcodes that push a tensor that is all of a pushed storage."""
    return tensor(stored, 0, size, np.empty(size, np.int8).strides)  # one byte each: strides in elements


def tensor(stored: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return the opcodes that push a tensor of a pushed storage; offset and stride in elements."""
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

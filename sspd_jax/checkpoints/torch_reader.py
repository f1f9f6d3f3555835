"""Read weights saved by PyTorch, without PyTorch and without running anything the file says.

A `.pth` file is a zip of `<name>/data.pkl` (a pickle that describes the tensors), `<name>/data/<key>` (the
raw elements of each storage) and, in newer files, `<name>/byteorder`.

A pickle is a program, and Python's own `pickle.Unpickler` is no safe place to run a stranger's: even with
every global refused, a few bytes make it reserve gigabytes (a memo index of 2³¹) or hash a tuple nested so
that it never ends. `_Machine` therefore interprets the few instructions that `torch.save` writes, one by
one, over values that can do nothing, and refuses every other. What it builds never holds more memory than a
small multiple of the file's size.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from sspd_jax.errors import UserError

MAX_FILE_BYTES = 2 * 1024**3
"""A larger file is refused; the weights of this project's networks are 3 to 12 MB."""

MAX_PICKLE_BYTES = 1024**2
"""A larger description is refused: it would be that of some 7,000 tensors."""

_MAX_DIMENSIONS = 32
_MAX_KEY = 2**31

# What a damaged zip makes `zipfile` raise: it checks little before it seeks, reads and unpacks.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    zlib.error,
    struct.error,
    OverflowError,
)
# What damaged bytes make `pickletools.genops` raise (the warning where warnings are errors).
_PICKLE_ERRORS = (ValueError, OverflowError, IndexError, struct.error, DeprecationWarning)

# How the first bytes of the format used before PyTorch 1.6 begin: a pickled magic number.
_LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_ZIP_START = b"PK\x03\x04"

_WRAPPERS = ("state_dict", "model", "net")
_PARALLEL_PREFIX = "module."


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the named tensors of a PyTorch weights file.

    The file may hold a state dict, or a dict with one under `state_dict`, `model` or `net`; a `module.`
    that starts every name (left there by DataParallel) is taken off.

    Args:
      path: Path of a file written by `torch.save` of PyTorch 1.6 or newer.

    Returns:
      {name: array} in the file's order, in native byte order and with PyTorch's shapes. bfloat16 becomes
      float32, which holds it exactly; every other dtype is kept. The arrays are read-only, may be strided,
      and share memory where the file's tensors share a storage.

    Raises:
      UserError: The file is missing, damaged, too large, of another format, or asks for anything but
        tensors.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path} is a directory: name the .pth file itself")
        if not path.exists():
            raise UserError(f"{path} does not exist: name an existing .pth file")
        if not path.is_file():
            raise UserError(f"{path} is no regular file: copy the weights into a .pth file")
        with path.open("rb") as file:
            return _state_dict_of(_read_contents(path, file), path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): mend its permissions or copy it again") from error


def _read_contents(path: Path, file: BinaryIO) -> Any:
    """Return what the file's pickle describes, with its tensors as arrays."""
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(len(_LEGACY_START))
    if size == 0:
        raise UserError(f"{path} is empty: copy or download it again")
    if size > MAX_FILE_BYTES:
        raise UserError(
            f"{path} has {size:,} bytes where weights have {MAX_FILE_BYTES:,} at most: "
            "save model.state_dict() alone"
        )
    if start == _LEGACY_START:
        raise UserError(
            f"{path} is in the format used before PyTorch 1.6: "
            "load it and save it again with torch.save in PyTorch 1.6 or newer"
        )
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        if start.startswith(_ZIP_START):
            _fail_damaged(path, error)
        raise UserError(
            f"{path} is no PyTorch weights file: give one written by torch.save in PyTorch 1.6 or newer"
        ) from error
    with archive:
        return _Machine(_Storages(archive, size, path), path).run()


def _fail_damaged(path: Path, error: Exception | None = None) -> NoReturn:
    raise UserError(f"{path} is damaged or cut short: copy or download it again") from error


def _fail_malformed(path: Path, what: str, error: Exception | None = None) -> NoReturn:
    raise UserError(
        f"{path} is malformed ({what}): save it again with torch.save(model.state_dict(), …)"
    ) from error


def printable(text: str) -> str:
    """Make a name that a stranger chose fit for a message of one line.

    Args:
      text: Any string.

    Returns:
      Its first 80 characters, those that are not printable ASCII escaped, with an ellipsis where cut.
    """
    return text[:80].encode("unicode_escape").decode("ascii") + ("…" if len(text) > 80 else "")


class _StorageType:
    """Inert stand-in for a PyTorch storage class: says how to read a storage's elements."""

    def __init__(self, stored: str, convert: Callable[[np.ndarray], np.ndarray] | None = None):
        self.stored = np.dtype(stored)
        self.convert = convert


class _Storage:
    """The elements of one storage, as a flat array."""

    def __init__(self, elements: np.ndarray):
        self.elements = elements


def _widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return float32 from bfloat16 bits: bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _is_nonzero(elements: np.ndarray) -> np.ndarray:
    """Return bools of 0 and 1 only; a byte of another value is no valid NumPy bool."""
    return elements != 0


_STORAGE_TYPES = {
    "FloatStorage": _StorageType("f4"),
    "DoubleStorage": _StorageType("f8"),
    "HalfStorage": _StorageType("f2"),
    "BFloat16Storage": _StorageType("u2", _widen_bfloat16),
    "LongStorage": _StorageType("i8"),
    "IntStorage": _StorageType("i4"),
    "ShortStorage": _StorageType("i2"),
    "CharStorage": _StorageType("i1"),
    "ByteStorage": _StorageType("u1"),
    "BoolStorage": _StorageType("u1", _is_nonzero),
}


class _Storages:
    """The storages of an archive, each read and checked once."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int, path: Path):
        self._archive = archive
        self._path = path
        self._read: dict[str, tuple[_StorageType, _Storage]] = {}
        entries = archive.infolist()
        # torch.save never compresses. Without compression, and with no more bytes declared than the file
        # has, no entry can blow up and no two can share their bytes.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            _fail_malformed(path, "its entries are compressed, which torch.save never does")
        declared = sum(max(entry.file_size, entry.compress_size) for entry in entries)
        if declared > file_size:
            _fail_malformed(path, f"it declares {declared:,} bytes and has {file_size:,}")
        roots = [e.filename.removesuffix("/data.pkl") for e in entries if e.filename.endswith("/data.pkl")]
        roots = [root for root in roots if root and "/" not in root]
        if len(roots) != 1:
            raise UserError(
                f"{path} is a zip without PyTorch weights in it: give a file written by torch.save"
            )
        self._root = roots[0]
        self._names = {entry.filename for entry in entries}
        self._byte_order = self._find_byte_order()

    def _entry(self, name: str) -> bytes:
        try:
            return self._archive.read(f"{self._root}/{name}")  # checks the length and the CRC
        except _ZIP_ERRORS as error:
            _fail_damaged(self._path, error)

    def _find_byte_order(self) -> str:
        if f"{self._root}/byteorder" not in self._names:
            return "<"  # files older than the entry come from little-endian machines
        order = self._entry("byteorder")
        if order not in (b"little", b"big"):
            _fail_malformed(self._path, f"its byte order is {printable(repr(order[:20]))}")
        return "<" if order == b"little" else ">"

    def pickle(self) -> bytes:
        """Return the pickle that describes the tensors."""
        size = self._archive.getinfo(f"{self._root}/data.pkl").file_size
        if size > MAX_PICKLE_BYTES:
            raise UserError(
                f"{self._path} describes its contents in {size:,} bytes where weights need "
                f"{MAX_PICKLE_BYTES:,} at most: save model.state_dict() alone"
            )
        return self._entry("data.pkl")

    def load(self, reference: Any) -> _Storage:
        """Return the storage that a persistent id ('storage', type, key, device, length) names."""
        match reference:
            # str("storage"), not "storage": the type is checked before anything is compared.
            case (str("storage"), _StorageType() as kind, str(key), str(), int(length)):
                pass
            case _:
                _fail_malformed(self._path, "it refers to something that is no storage")
        if key not in self._read:
            if f"{self._root}/data/{key}" not in self._names:
                _fail_malformed(self._path, f"its storage {printable(key)} is missing")
            raw = self._entry(f"data/{key}")
            if len(raw) % kind.stored.itemsize:
                self._fail_length(key, len(raw), length * kind.stored.itemsize)
            elements = np.frombuffer(raw, kind.stored.newbyteorder(self._byte_order))
            elements = elements.astype(kind.stored, copy=False)
            elements = kind.convert(elements) if kind.convert else elements
            elements.flags.writeable = False
            self._read[key] = kind, _Storage(elements)
        first_kind, storage = self._read[key]
        if first_kind is not kind:
            _fail_malformed(self._path, f"its storage {printable(key)} has two types")
        if storage.elements.size != length:
            itemsize = kind.stored.itemsize
            self._fail_length(key, storage.elements.size * itemsize, length * itemsize)
        return storage

    def _fail_length(self, key: str, found: int, wanted: int) -> NoReturn:
        _fail_malformed(self._path, f"its storage {printable(key)} has {found:,} bytes instead of {wanted:,}")


class _Malformed(Exception):
    """What a stand-in finds wrong with its arguments."""


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
) -> np.ndarray:
    """Return a tensor's elements: a view of its storage that stays inside it."""
    del grad, hooks, metadata
    if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise _Malformed("a tensor's description is of the wrong types")
    if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
        raise _Malformed("a tensor's size and stride do not match")
    # `type(…) is int`: a bool is no size.
    if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
        raise _Malformed("a tensor's size, stride or offset is no natural number")
    elements = storage.elements
    if 0 in size:
        if math.prod(max(number, 1) for number in size) > MAX_FILE_BYTES:
            raise _Malformed("an empty tensor has an absurd size")
        return np.empty(size, elements.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= elements.size:
        raise _Malformed("a tensor reaches beyond its storage")
    # A stride of 0 lets 4 bytes claim to be a terabyte once somebody copies the view.
    if math.prod(size) > elements.size:
        raise _Malformed("a tensor has more elements than its storage; .clone() it before saving")
    # The stride along an axis of length 1 is free, and may be beyond what NumPy can hold.
    steps = [step * elements.itemsize if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
    return np.lib.stride_tricks.as_strided(elements[offset:], size, steps, writeable=False)


def _rebuild_parameter(tensor: Any, grad: Any, hooks: Any) -> np.ndarray:
    """Return the tensor of a Parameter."""
    del grad, hooks
    if not isinstance(tensor, np.ndarray):
        raise _Malformed("a parameter holds no tensor")
    return tensor


def _ordered_dict() -> dict:
    """Return an empty dict: Python's keep their order."""
    return {}


_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
_ARGUMENT_COUNTS = {_ordered_dict: (0,), _rebuild_tensor: (6, 7), _rebuild_parameter: (3,)}
_GLOBALS: dict[tuple[str, str], Any] = _CALLABLES | {
    ("torch", name): kind for name, kind in _STORAGE_TYPES.items()
}


class _Machine:
    """A pickle machine that knows only what `torch.save` writes for weights.

    Its values are None, bool, int, float, str, tuple, list, dict, arrays and the stand-ins above; it calls
    nothing but `_CALLABLES`, whose arguments they check themselves.
    """

    def __init__(self, storages: _Storages, path: Path):
        self._storages = storages
        self._path = path
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each open MARK
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return what the pickle builds."""
        instructions = pickletools.genops(self._storages.pickle())
        while True:
            try:
                opcode, argument, _ = next(instructions)  # an error where STOP is missing
            except _PICKLE_ERRORS as error:
                self._fail("its description cannot be read", error)
            if opcode.name == "STOP":
                return self._pop()
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self._stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4" | "BINFLOAT":
                self._stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "UNICODE" | "BINSTRING" | "SHORT_BINSTRING" | "STRING":
                self._stack.append(argument)
            case "EMPTY_DICT":
                self._stack.append({})
            case "EMPTY_LIST":
                self._stack.append([])
            case "EMPTY_TUPLE":
                self._stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [self._pop() for _ in range(int(name[-1]))]
                self._stack.append(tuple(reversed(values)))
            case "MARK":
                self._below.append(self._stack)
                self._stack = []
            case "TUPLE":
                values = tuple(self._pop_to_mark())  # before `self._stack` is looked up: it changes it
                self._stack.append(values)
            case "APPEND" | "APPENDS":
                values = [self._pop()] if name == "APPEND" else self._pop_to_mark()
                self._top(list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = [self._pop(), self._pop()][::-1] if name == "SETITEM" else self._pop_to_mark()
                self._set_items(values)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    self._fail("it recalls what it never stored")
                self._stack.append(self._memo[argument])
            case "GLOBAL":
                self._push_global(*argument.partition(" ")[::2])
            case "STACK_GLOBAL":
                wanted, module = self._pop(), self._pop()
                if not (isinstance(wanted, str) and isinstance(module, str)):
                    self._fail("it asks for something without a name")
                self._push_global(module, wanted)
            case "INST":
                self._push_global(*argument.partition(" ")[::2])
                self._fail("it uses the instruction INST")
            case "BINPERSID":
                self._stack.append(self._storages.load(self._pop()))
            case "REDUCE":
                arguments, function = self._pop(), self._pop()
                self._stack.append(self._call(function, arguments))
            case "BUILD":
                # Attributes of the state dict (its `_metadata`): nothing here needs them.
                self._pop()
                self._top(dict)
            case _:
                self._fail(f"it uses the instruction {name}")

    def _fail(self, what: str, error: Exception | None = None) -> NoReturn:
        _fail_malformed(self._path, what, error)

    def _pop(self) -> Any:
        if not self._stack:
            self._fail("its description takes what is not there")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._below:
            self._fail("its description takes what is not there")
        values, self._stack = self._stack, self._below.pop()
        return values

    def _top(self, kind: type = object) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            self._fail("its description takes what is not there")
        return self._stack[-1]

    def _set_items(self, values: list[Any]) -> None:
        target = self._top(dict)
        if len(values) % 2:
            self._fail("a name in it has no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Only these: to hash a nested tuple, or long integers made to collide, can take for ever.
            if type(key) is not str and not (type(key) is int and abs(key) < _MAX_KEY):
                self._fail("a key in it is neither a string nor a small integer")
            target[key] = value

    def _push_global(self, module: str, name: str) -> None:
        found = _GLOBALS.get((module, name))
        if found is None:
            asked = printable(f"{module}.{name}")
            raise UserError(
                f"{self._path} asks to run {asked}, and a file of weights never needs that: "
                "do not trust it, or, if it is your own, save model.state_dict() alone"
            )
        self._stack.append(found)

    def _call(self, function: Any, arguments: Any) -> Any:
        # By identity: `in` would compare, and could hash, whatever the file put there.
        if not any(function is known for known in _CALLABLES.values()):
            self._fail("it calls something that is no function")
        if not isinstance(arguments, tuple) or len(arguments) not in _ARGUMENT_COUNTS[function]:
            self._fail("it calls a function with the wrong arguments")
        try:
            return function(*arguments)
        except _Malformed as problem:
            self._fail(str(problem))


def _state_dict_of(contents: Any, path: Path) -> dict[str, np.ndarray]:
    """Find the state dict in what the file holds, and check that it is one."""
    if isinstance(contents, dict):
        wrapped = [contents[key] for key in _WRAPPERS if isinstance(contents.get(key), dict)]
        contents = wrapped[0] if wrapped else contents
    if not isinstance(contents, dict):
        raise UserError(
            f"{path} holds a value of type {_kind(contents)}, not named weights: save model.state_dict()"
        )
    if not contents:
        raise UserError(f"{path} holds no weights: save model.state_dict() of a built model")
    for name, value in contents.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise UserError(
                f"{path} holds {_kind(value)} under '{printable(str(name))}' where a tensor belongs: "
                "save model.state_dict() alone"
            )
    if all(name.startswith(_PARALLEL_PREFIX) for name in contents):
        contents = {name.removeprefix(_PARALLEL_PREFIX): value for name, value in contents.items()}
    return contents


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, np.ndarray) else type(value).__name__.strip("_")

"""Write a network as a TensorFlow Lite (LiteRT) file; `portable_graph` says what is in it.

No TensorFlow is needed: the file is written operator by operator, by the format's schema, which the package
ai-edge-litert brings along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

from sspd_jax.checkpoints import portable_graph
from sspd_jax.checkpoints.host_network import HostModel
from sspd_jax.errors import ConfigError

METADATA = "sspd_jax"
"""Name of the metadata, JSON, in the file."""

SIGNATURE = "serving_default"
"""Name under which the file's inputs and outputs have names."""

_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_VERSIONS = {"FULLY_CONNECTED": 5}  # of operators, where not 1: this one keeps all axes and has no bias

MISSING = "the package ai-edge-litert is not installed; run `pip install 'sspd_jax[export]'`"


def serialize(model: HostModel, transform: str, form: str, about: Mapping[str, Any]) -> bytes:
    """Return a network as the bytes of a .tflite file.

    Args:
      model: See `portable_graph.build`.
      transform: See there.
      form: See there.
      about: What the metadata says beside what the graph takes and gives; JSON's types.

    Raises:
      ConfigError: The package ai-edge-litert, which has the format's schema, is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise ConfigError(MISSING) from error
    graph = _TfliteGraph(schema)
    described = portable_graph.build(graph, model, transform, form)
    facts = {**about, "inputs": described.inputs, "outputs": described.outputs}
    if described.state_size:
        facts["state_size"] = described.state_size
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(graph.finish(json.dumps(facts)).Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


class _TfliteGraph:
    """See `portable_graph.Graph`. A value is a tensor's number; pictures are [t, h, w, c].

    Of values whose length in time varies the file states one length, for one example; a program that gives
    another says so to its interpreter, which works out all others.
    """

    channels = 3

    def __init__(self, schema: Any):
        self._schema = schema
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        self._buffers = [schema.BufferT()]  # the first one is empty, for values that are computed
        self._constants: dict[tuple, int] = {}
        self._inputs: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        self._types = {
            np.dtype(np.uint8): schema.TensorType.UINT8,
            np.dtype(np.int32): schema.TensorType.INT32,
            np.dtype(np.float32): schema.TensorType.FLOAT32,
        }

    def _tensor(self, name: str, shape: Sequence[int], dtype: type, buffer: int = 0) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape = name, np.array(shape, np.int32)
        tensor.type, tensor.buffer = self._types[np.dtype(dtype)], buffer
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _shape(self, value: int) -> tuple[int, ...]:
        return tuple(int(size) for size in self._tensors[value].shape)

    def _node(self, kind: str, inputs: Sequence[int], shape: Sequence[int], options: Any = None) -> int:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(kind, len(self._codes))
        result = self._tensor(f"{kind.lower()}{len(self._operators)}", shape, np.float32)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([result], np.int32)
        if options is not None:
            operator.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, name)
        self._operators.append(operator)
        return result

    def _options(self, name: str, **fields: Any) -> Any:
        options = getattr(self._schema, f"{name}OptionsT")()
        for field, value in fields.items():
            if not hasattr(options, field):
                raise AttributeError(f"{name} has no option {field}")
            setattr(options, field, value)
        return options

    def _ints(self, *numbers: int) -> int:
        return self.constant(np.array(numbers, np.int32))

    def input(self, name: str, shape: Sequence[int | str], dtype: type, example: int = 1) -> int:
        sizes = [example if isinstance(size, str) else size for size in shape]
        value = self._inputs[name] = self._tensor(name, sizes, dtype)
        if sizes != list(shape):
            self._tensors[value].shapeSignature = np.array(
                [-1 if isinstance(size, str) else size for size in shape], np.int32
            )
        return value

    def output(self, name: str, value: int) -> None:
        self._tensors[value].name = name
        if name == "wave":
            self._tensors[value].shapeSignature = np.array([-1], np.int32)
        self._outputs[name] = value

    def constant(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())  # the same numbers are kept once
        if key not in self._constants:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(array.tobytes(), np.uint8)
            self._buffers.append(buffer)
            name = f"constant{len(self._constants)}"
            self._constants[key] = self._tensor(name, array.shape, array.dtype, len(self._buffers) - 1)
        return self._constants[key]

    def as_float(self, x: int) -> int:
        options = self._options("Cast", inDataType=self._tensors[x].type, outDataType=0)
        return self._node("CAST", [x], self._shape(x), options)

    def transpose(self, x: int, axes: Sequence[int]) -> int:
        shape = [self._shape(x)[axis] for axis in axes]
        return self._node("TRANSPOSE", [x, self._ints(*axes)], shape, self._options("Transpose"))

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        known = np.prod([size for size in shape if size > 0], initial=1)
        sizes = [size if size > 0 else int(np.prod(self._shape(x)) // known) for size in shape]
        options = self._options("Reshape", newShape=np.array(shape, np.int32))
        return self._node("RESHAPE", [x, self._ints(*shape)], sizes, options)

    def cut(self, x: int, start: int, stop: int | None) -> int:
        length, *rest = self._shape(x)
        others = [0] * len(rest)
        masked = sum(1 << axis for axis in range(1, 1 + len(rest)))  # taken whole
        options = self._options("StridedSlice", beginMask=masked, endMask=masked + (stop is None))
        inputs = [
            x,
            self._ints(start, *others),
            self._ints(stop or 0, *others),
            self._ints(*[1] * (1 + len(rest))),
        ]
        return self._node("STRIDED_SLICE", inputs, [len(range(length)[start:stop]), *rest], options)

    def pad(self, x: int, count: int) -> int:
        length, *rest = self._shape(x)
        amounts = self.constant(np.array([[count, count], [0, 0], [0, 0], [0, 0]], np.int32))
        return self._node("PAD", [x, amounts], [length + 2 * count, *rest], self._options("Pad"))

    def join(self, values: Sequence[int], axis: int) -> int:
        shape = list(self._shape(values[0]))
        shape[axis] = sum(self._shape(value)[axis] for value in values)
        return self._node("CONCATENATION", values, shape, self._options("Concatenation", axis=axis))

    def linear(self, x: int, matrix: np.ndarray) -> int:
        weights = self.constant(np.float32(matrix).T)
        options = self._options("FullyConnected", keepNumDims=True)
        return self._node(
            "FULLY_CONNECTED", [x, weights, -1], [*self._shape(x)[:-1], matrix.shape[1]], options
        )

    def _elementwise(self, kind: str, name: str, a: int, b: int) -> int:
        shape = np.broadcast_shapes(self._shape(a), self._shape(b))
        return self._node(kind, [a, b], shape, self._options(name))

    def add(self, a: int, b: int) -> int:
        return self._elementwise("ADD", "Add", a, b)

    def subtract(self, a: int, b: int) -> int:
        return self._elementwise("SUB", "Sub", a, b)

    def multiply(self, a: int, b: int) -> int:
        return self._elementwise("MUL", "Mul", a, b)

    def divide(self, a: int, b: int) -> int:
        return self._elementwise("DIV", "Div", a, b)

    def clip(self, x: int, low: float, high: float) -> int:
        for kind, bound in (("MAXIMUM", low), ("MINIMUM", high)):
            x = self._elementwise(kind, "MaximumMinimum", x, self.constant(np.full(1, bound, np.float32)))
        return x

    def tanh(self, x: int) -> int:
        return self._node("TANH", [x], self._shape(x))

    def convolve(self, x: int, kernel: np.ndarray, bias: np.ndarray) -> int:
        t, h, w, _ = self._shape(x)
        kh, kw, _, after = kernel.shape
        weights = self.constant(np.float32(kernel).transpose(3, 0, 1, 2))
        valid = self._schema.Padding.VALID
        options = self._options("Conv2D", padding=valid, strideH=1, strideW=1)
        shape = [t, h - kh + 1, w - kw + 1, after]
        return self._node("CONV_2D", [x, weights, self.constant(bias)], shape, options)

    def average_pool(self, x: int, height: int, width: int) -> int:
        t, h, w, c = self._shape(x)
        windows = {"strideH": height, "strideW": width, "filterHeight": height, "filterWidth": width}
        options = self._options("Pool2D", padding=self._schema.Padding.VALID, **windows)
        return self._node("AVERAGE_POOL_2D", [x], [t, h // height, w // width, c], options)

    def mean(self, x: int, axes: Sequence[int], *, keep: bool = False) -> int:
        sizes = [1 if axis in axes else size for axis, size in enumerate(self._shape(x))]
        if not keep:
            sizes = [size for axis, size in enumerate(sizes) if axis not in axes]
        return self._node("MEAN", [x, self._ints(*axes)], sizes, self._options("Reducer", keepDims=keep))

    def count(self, x: int) -> int:
        # No RANGE: its length would be known only while the graph runs, and every length after it.
        one = self.reshape(self.mean(x, (1, 2, 3)), (-1,))
        zeros = self.clip(one, 0, 0)
        ones = self.add(zeros, self.constant(np.ones(1, np.float32)))
        options = self._options("Cumsum", exclusive=True)
        return self._node("CUMSUM", [ones, self._ints(0)], self._shape(ones), options)

    def finish(self, facts: str) -> Any:
        """Put the model together, with JSON as its metadata."""
        schema = self._schema
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs = np.array(list(self._inputs.values()), np.int32)
        graph.outputs = np.array(list(self._outputs.values()), np.int32)
        text = schema.BufferT()
        text.data = np.frombuffer(facts.encode(), np.uint8)
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = METADATA, len(self._buffers)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs = [self._named(name, value) for name, value in self._inputs.items()]
        signature.outputs = [self._named(name, value) for name, value in self._outputs.items()]
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, "sspd_jax"
        model.subgraphs, model.buffers = [graph], [*self._buffers, text]
        model.metadata, model.signatureDefs = [metadata], [signature]
        model.operatorCodes = [self._code(kind) for kind in self._codes]
        return model

    def _named(self, name: str, value: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = name, value
        return entry

    def _code(self, kind: str) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = getattr(self._schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # 127: see the other field
        code.version = _VERSIONS.get(kind, 1)
        return code

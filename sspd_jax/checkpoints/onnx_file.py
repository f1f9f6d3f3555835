"""Write a network as an ONNX file; `portable_graph` says what is in it.

Operators are those of opset 17, which ONNX Runtime reads on servers, phones and in browsers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sspd_jax.checkpoints import portable_graph
from sspd_jax.checkpoints.host_network import HostModel
from sspd_jax.errors import ConfigError

OPSET = 17
IR_VERSION = 8
"""Of the file format, the one that came with the opset: older programs read it."""

MISSING = "the package onnx is not installed; run `pip install 'sspd_jax[export]'`"


def serialize(model: HostModel, transform: str, form: str, about: Mapping[str, Any]) -> bytes:
    """Return a network as the bytes of an ONNX file.

    Args:
      model: See `portable_graph.build`.
      transform: See there.
      form: See there.
      about: What the metadata says beside what the graph takes and gives; JSON's types.

    Raises:
      ConfigError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(MISSING) from error
    graph = _OnnxGraph(onnx)
    described = portable_graph.build(graph, model, transform, form)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes, "sspd", graph.inputs, graph.outputs, initializer=list(graph.constants.values())
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sspd_jax",
    )
    facts = {**about, "opset": OPSET, "inputs": described.inputs, "outputs": described.outputs}
    if described.state_size:
        facts["state_size"] = described.state_size
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    onnx.helper.set_model_props(made, text)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


class _OnnxGraph:
    """See `portable_graph.Graph`. A value is its name; pictures are [t, c, h, w]."""

    channels = 1

    def __init__(self, onnx: Any):
        self._onnx, self._number = onnx, 0
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[tuple, Any] = {}

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self._number += 1
        name = f"{kind.lower()}{self._number}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def input(self, name: str, shape: Sequence[int | str], dtype: type, example: int = 1) -> str:
        del example
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str) -> None:
        self.nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))
        shape = ["samples"] if name == "wave" else [_size_of(self.inputs, "state")]
        self.outputs.append(
            self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, shape)
        )

    def constant(self, array: np.ndarray) -> str:
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())  # the same numbers are kept once
        if key not in self.constants:
            self.constants[key] = self._onnx.numpy_helper.from_array(array, f"constant{len(self.constants)}")
        return self.constants[key].name

    def as_float(self, x: str) -> str:
        return self._node("Cast", x, to=self._onnx.TensorProto.FLOAT)

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        return self._node("Transpose", x, perm=list(axes))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        return self._node("Reshape", x, self._ints(*shape))

    def cut(self, x: str, start: int, stop: int | None) -> str:
        end = np.iinfo(np.int64).max if stop is None else stop
        return self._node("Slice", x, self._ints(start), self._ints(end), self._ints(0))

    def pad(self, x: str, count: int) -> str:
        return self._node("Pad", x, self._ints(count, 0, 0, 0, count, 0, 0, 0))

    def join(self, values: Sequence[str], axis: int) -> str:
        return self._node("Concat", *values, axis=axis)

    def linear(self, x: str, matrix: np.ndarray) -> str:
        return self._node("MatMul", x, self.constant(np.float32(matrix)))

    def add(self, a: str, b: str) -> str:
        return self._node("Add", a, b)

    def subtract(self, a: str, b: str) -> str:
        return self._node("Sub", a, b)

    def multiply(self, a: str, b: str) -> str:
        return self._node("Mul", a, b)

    def divide(self, a: str, b: str) -> str:
        return self._node("Div", a, b)

    def clip(self, x: str, low: float, high: float) -> str:
        return self._node("Clip", x, *(self.constant(np.array(bound, np.float32)) for bound in (low, high)))

    def tanh(self, x: str) -> str:
        return self._node("Tanh", x)

    def convolve(self, x: str, kernel: np.ndarray, bias: np.ndarray) -> str:
        weights = self.constant(np.float32(kernel).transpose(3, 2, 0, 1))
        return self._node("Conv", x, weights, self.constant(bias), kernel_shape=list(kernel.shape[:2]))

    def average_pool(self, x: str, height: int, width: int) -> str:
        return self._node("AveragePool", x, kernel_shape=[height, width], strides=[height, width])

    def mean(self, x: str, axes: Sequence[int], *, keep: bool = False) -> str:
        return self._node("ReduceMean", x, axes=list(axes), keepdims=int(keep))

    def count(self, x: str) -> str:
        length = self._node("Squeeze", self._node("Shape", x, start=0, end=1), self._ints(0))
        zero, one = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        return self.as_float(self._node("Range", zero, length, one))


def _size_of(inputs: Sequence[Any], name: str) -> int:
    (found,) = (value for value in inputs if value.name == name)
    return found.type.tensor_type.shape.dim[0].dim_value

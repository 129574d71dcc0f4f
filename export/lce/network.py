"""`Network` holds a TFLite network in memory, and `to_flatbuffer` writes it in the format of a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["CUSTOM", "Network", "Operator", "Tensor", "to_flatbuffer"]

# The operations that LCE adds to TFLite.
CUSTOM = ("LceQuantize", "LceBconv2d")

# Operation -> the schema's class for its options; an operation that is not listed has none.
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "CONCATENATION": "ConcatenationOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "TRANSPOSE": "TransposeOptions",
    "RESHAPE": "ReshapeOptions",
    "REVERSE_V2": "ReverseV2Options",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "MIRROR_PAD": "MirrorPadOptions",
    "SOFTMAX": "SoftmaxOptions",
    "LOG_SOFTMAX": "LogSoftmaxOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "NEG": "NegOptions",
    "ABS": "AbsOptions",
    "EXP": "ExpOptions",
    "POW": "PowOptions",
}

_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
# Every buffer must begin at a multiple of so many bytes, because TFLite reads weights with vector instructions.
_ALIGNMENT = 16


@dataclass(eq=False)
class Tensor:
    """A tensor of a TFLite network.

    shape: with 1 for the batch; dtype: ``float32`` or ``int32``; data: the numbers of a constant, else None;
    batch_axis: the axis that a user of the file may resize, or None.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str = ""
    data: np.ndarray | None = None
    batch_axis: int | None = None


@dataclass(eq=False)
class Operator:
    """An operation of a TFLite network.

    code: its name in the schema's BuiltinOperator, or one of `CUSTOM`; inputs: None for one that is left out; options:
    by their names in the schema; custom: the options of an LCE operation, encoded as a flexbuffer.
    """

    code: str
    inputs: list[Tensor | None]
    output: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    custom: bytes = b""


class Network:
    """A TFLite network in memory, to which `emit` adds operations in the order of execution.

    Each operation has one output. Constants with equal numbers are stored once.
    """

    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._constants: dict[Any, Tensor] = {}

    def constant(self, array: np.ndarray) -> Tensor:
        """Returns a constant tensor with the numbers of `array`, as float32 if they are floats, else as int32."""
        kept = np.asarray(array, np.float32 if np.issubdtype(array.dtype, np.floating) else np.int32, order="C")
        key = (kept.dtype.name, kept.shape, kept.tobytes())
        if key not in self._constants:
            self._constants[key] = Tensor(kept.shape, kept.dtype.name, data=kept)
        return self._constants[key]

    def integers(self, numbers: Sequence[int]) -> Tensor:
        """Returns a constant int32 vector that holds `numbers`."""
        return self.constant(np.array(numbers, np.int32))

    def emit(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        options: Mapping[str, Any] | None = None,
        *,
        dtype: str = "float32",
        custom: bytes = b"",
    ) -> Tensor:
        """Adds an operation to the end of the network; returns its output.

        shape, dtype: of the output; see `Operator`.
        """
        output = Tensor(tuple(int(size) for size in shape), dtype)
        self.operators.append(Operator(code, list(inputs), output, dict(options or {}), custom))
        return output

    def producer(self, tensor: Tensor) -> Operator | None:
        """Returns the operation that computes a tensor; None for an input of the network or a constant."""
        return next((op for op in reversed(self.operators) if op.output is tensor), None)

    def model(self, schema: ModuleType, metadata: bytes, *, watch: Sequence[Tensor] = ()) -> Any:
        """Returns the network as an object of the schema's class ModelT, which `to_flatbuffer` writes.

        schema: the module from `load_schema`; metadata: the bytes of the file's metadata entry ``bnn_itrd``; watch:
        tensors that the file returns after the logits.
        """
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, "bnn_itrd"
        # The format wants an empty buffer with the number 0, to which all computed tensors refer.
        model.buffers = [schema.BufferT()]
        graph = schema.SubGraphT()
        graph.name = "network"
        graph.tensors, graph.operators, model.operatorCodes = [], [], []
        index: dict[Tensor, int] = {}

        def number(tensor: Tensor | None) -> int:
            """Returns the tensor's number in the file, after adding it if it is new; -1 stands for None."""
            if tensor is None:
                return -1
            if tensor not in index:
                index[tensor] = len(graph.tensors)
                graph.tensors.append(_tensor(schema, model, tensor))
            return index[tensor]

        graph.inputs = [number(tensor) for tensor in self.inputs]
        codes: dict[str, int] = {}
        for operator in self.operators:
            if operator.code not in codes:
                codes[operator.code] = len(codes)
                model.operatorCodes.append(_code(schema, operator.code))
            entry = _operator(schema, operator)
            entry.opcodeIndex = codes[operator.code]
            entry.inputs = [number(tensor) for tensor in operator.inputs]
            entry.outputs = [number(operator.output)]
            graph.operators.append(entry)
        graph.outputs = [number(tensor) for tensor in [*self.outputs, *watch]]
        model.subgraphs = [graph]
        entry = schema.MetadataT()
        entry.name, entry.buffer = "bnn_itrd", len(model.buffers)
        model.metadata = [entry]
        model.buffers.append(_buffer(schema, np.frombuffer(metadata, np.uint8)))
        return model


def _buffer(schema: ModuleType, data: np.ndarray) -> Any:
    """Returns a buffer with these bytes, as an object of the .tflite schema."""
    buffer = schema.BufferT()
    buffer.data = data
    return buffer


def _tensor(schema: ModuleType, model: Any, tensor: Tensor) -> Any:
    """Returns a tensor as an object of the .tflite schema; a constant's numbers are added to the model's buffers."""
    entry = schema.TensorT()
    entry.name = tensor.name
    entry.shape = list(tensor.shape)
    entry.type = getattr(schema.TensorType, tensor.dtype.upper())
    if tensor.batch_axis is not None:
        entry.shapeSignature = [-1 if axis == tensor.batch_axis else size for axis, size in enumerate(tensor.shape)]
    if tensor.data is not None:
        entry.buffer = len(model.buffers)
        little = tensor.data.astype(tensor.data.dtype.newbyteorder("<"))
        model.buffers.append(_buffer(schema, little.reshape(-1).view(np.uint8)))
    return entry


def _code(schema: ModuleType, code: str) -> Any:
    """Returns the entry that names an operation in the file, as an object of the .tflite schema."""
    entry = schema.OperatorCodeT()
    entry.version = 1
    if code in CUSTOM:
        entry.builtinCode, entry.customCode = schema.BuiltinOperator.CUSTOM, code
    else:
        entry.builtinCode = getattr(schema.BuiltinOperator, code)
    # Old programs read this field of one byte, which is 127 for all newer operations.
    entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)
    return entry


def _operator(schema: ModuleType, operator: Operator) -> Any:
    """Returns an operation with its options, but without inputs and outputs, as an object of the .tflite schema."""
    entry = schema.OperatorT()
    if operator.code in CUSTOM:
        entry.customOptions = np.frombuffer(operator.custom, np.uint8)
        entry.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    elif operator.code in _OPTIONS:
        name = _OPTIONS[operator.code]
        entry.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        entry.builtinOptions = getattr(schema, f"{name}T")()
        for key, value in operator.options.items():
            if not hasattr(entry.builtinOptions, key):
                raise KeyError(f"{operator.code} has no option {key}")
            setattr(entry.builtinOptions, key, value)
    return entry


def _aligned(builder: Any, data: np.ndarray) -> int:
    """Writes bytes as a flatbuffer vector that begins at a multiple of 16 in the file; returns its offset.

    The writer of the schema itself would align it to 4 only.
    """
    builder.StartVector(1, len(data), _ALIGNMENT)
    builder.head = builder.Head() - len(data)
    builder.Bytes[builder.Head() : builder.Head() + len(data)] = data.tobytes()
    return int(builder.EndVector())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    """Writes a flatbuffer vector of offsets to objects that are already written; returns its own offset."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def to_flatbuffer(schema: ModuleType, model: Any) -> bytes:
    """Returns the bytes of a .tflite file, made of an object of the schema's class ModelT.

    All buffers with weights begin at multiples of 16 bytes.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    buffers = []
    for buffer in model.buffers:
        data = None if buffer.data is None or not len(buffer.data) else _aligned(builder, np.asarray(buffer.data))
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        buffers.append(schema.BufferEnd(builder))
    parts = {
        "Buffers": _vector(builder, buffers),
        "Metadata": _vector(builder, [entry.Pack(builder) for entry in model.metadata or []]),
        "OperatorCodes": _vector(builder, [entry.Pack(builder) for entry in model.operatorCodes]),
        "Subgraphs": _vector(builder, [entry.Pack(builder) for entry in model.subgraphs]),
        "Description": builder.CreateString(model.description or ""),
    }
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, model.version)
    for name, offset in parts.items():
        getattr(schema, f"ModelAdd{name}")(builder, offset)
    builder.Finish(schema.ModelEnd(builder), _IDENTIFIER)
    return bytes(builder.Output())

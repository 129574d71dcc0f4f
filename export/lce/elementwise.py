"""Functions that translate elementwise operations of the graph to TFLite's: arithmetic, activations, BatchNorm.

Each adds operations to the TFLite network and enters the result in `values`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import attribute, constant, only_consumer, optional_input
from bnn_itrd.export.lce.network import Tensor
from bnn_itrd.export.lce.tensor_layout import PLAIN, Form, Image, Values, refuse, source

__all__ = ["add_activation", "add_batchnorm", "add_binary", "add_clip", "add_prelu", "add_same", "add_softmax"]

_BINARY = {
    "Add": "ADD",
    "Sum": "ADD",
    "Sub": "SUB",
    "Mul": "MUL",
    "Div": "DIV",
    "Max": "MAXIMUM",
    "Min": "MINIMUM",
    "Pow": "POW",
}
_UNARY = {
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "Elu": "ELU",
    "HardSwish": "HARD_SWISH",
    "Neg": "NEG",
    "Abs": "ABS",
    "Exp": "EXP",
    "Log": "LOG",
    "Sqrt": "SQRT",
    "Relu": "RELU",
    "Round": "ROUND",
}
# Activation that TFLite can fuse into the operation before it -> its number in the schema's ActivationFunctionType.
_FUSED = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
# The operations into which TFLite can fuse an activation.
_FUSES = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV")


def _common_form(values: Values, node: ir.Node) -> Form:
    """Returns the order of elements (see `tensor_layout`) in which all inputs of an elementwise operation are fetched.

    It is that of the first input that is an image, or ONNX's order if not all computed inputs have 4 axes.
    """
    computed = [x for x in node.inputs if x is not None and values.known(x)]
    ranks = {len(values.sizes(x, node)) for x in computed}
    if ranks != {4}:
        return PLAIN
    # A constant with more than 4 axes would not broadcast to an image.
    arrays = [constant(x) for x in node.inputs if x is not None and not values.known(x)]
    if any(array is not None and array.ndim > 4 for array in arrays):
        return PLAIN
    forms = [form for form in (values.home(x) for x in computed) if isinstance(form, Image)]
    return forms[0] if forms else PLAIN


def _shape(*tensors: Tensor) -> tuple[int, ...]:
    """Returns the shape to which the tensors broadcast together."""
    return np.broadcast_shapes(*(tensor.shape for tensor in tensors))


def add_binary(values: Values, node: ir.Node) -> None:
    """Translates an Add, Sub, Mul, Div, Max, Min, Sum or Pow node of two or more inputs, with broadcasting."""
    form = _common_form(values, node)
    first, *rest = [values.fetch(x, node, form) for x in node.inputs]
    for tensor in rest:
        first = values.network.emit(_BINARY[node.op_type], [first, tensor], _shape(first, tensor))
    values.put(node.outputs[0], first, form)


def _unary(values: Values, node: ir.Node, code: str, options: Mapping[str, float] | None = None) -> None:
    """Translates a node that has one computed input to TFLite's operation `code`, which gets the options.

    RELU, RELU6 and RELU_N1_TO_1 are not added as operations if the operation before can apply them to its own result.
    """
    x = source(node)
    form = values.home(x)
    tensor = values.fetch(x, node, form)
    producer = values.network.producer(tensor)
    if (
        code in _FUSED
        and producer is not None
        and producer.code in _FUSES
        and not producer.options.get("fusedActivationFunction")
        and only_consumer(x) is node
        and not values.is_shared(tensor)
    ):
        producer.options["fusedActivationFunction"] = _FUSED[code]
        values.put(node.outputs[0], tensor, form)
        return
    values.put(node.outputs[0], values.network.emit(code, [tensor], tensor.shape, options), form)


def _hard_sigmoid(values: Values, node: ir.Node) -> None:
    """Translates a HardSigmoid node, ``clip(alpha * x + beta, 0, 1)``, to four TFLite operations."""
    x = source(node)
    form = values.home(x)
    tensor = values.fetch(x, node, form)
    steps = (
        ("MUL", attribute(node, "alpha", 0.2)),
        ("ADD", attribute(node, "beta", 0.5)),
        ("MAXIMUM", 0.0),
        ("MINIMUM", 1.0),
    )
    for code, number in steps:
        tensor = values.network.emit(
            code, [tensor, values.network.constant(np.array(number, np.float32))], tensor.shape
        )
    values.put(node.outputs[0], tensor, form)


def add_activation(values: Values, node: ir.Node) -> None:
    """Translates a Relu or another function of one input; TFLite's own Relu is fused into the operation before it."""
    if node.op_type == "Elu" and attribute(node, "alpha", 1.0) != 1:
        raise refuse(node, "it is an ELU with another alpha than 1", "use alpha=1")
    if node.op_type == "LeakyRelu":
        _unary(values, node, "LEAKY_RELU", {"alpha": float(attribute(node, "alpha", 0.01))})
    elif node.op_type == "HardSigmoid":
        _hard_sigmoid(values, node)
    else:
        _unary(values, node, _UNARY[node.op_type])


def add_clip(values: Values, node: ir.Node) -> None:
    """Translates a Clip node to RELU_N1_TO_1 (hardtanh), RELU6 or RELU if its limits are theirs.

    Other limits become MAXIMUM and MINIMUM. Raises ExportError if the limits are not constants.
    """
    x = source(node)
    given = [optional_input(node, i) for i in (1, 2)]
    limits = [constant(value) for value in given]
    if any(value is not None and limit is None for value, limit in zip(given, limits, strict=True)):
        raise refuse(node, "its limits are computed from the images", "use constant limits")
    low, high = (None if limit is None else float(limit) for limit in limits)
    known = {(-1.0, 1.0): "RELU_N1_TO_1", (0.0, 6.0): "RELU6", (0.0, None): "RELU"}.get((low, high))  # type: ignore[arg-type]
    if known is not None:
        _unary(values, node, known)
        return
    form = values.home(x)
    tensor = values.fetch(x, node, form)
    for code, limit in (("MAXIMUM", low), ("MINIMUM", high)):
        if limit is not None:
            number = values.network.constant(np.array(limit, np.float32))
            tensor = values.network.emit(code, [tensor, number], tensor.shape)
    values.put(node.outputs[0], tensor, form)


def add_prelu(values: Values, node: ir.Node) -> None:
    """Translates a PRelu node. Raises ExportError if its slopes are not constants."""
    slope = constant(node.inputs[1])
    if slope is None:
        raise refuse(node, "its slopes are computed from the images", "use constant slopes")
    form = _common_form(values, node)
    tensor = values.fetch(node.inputs[0], node, form)
    slope = values.array(slope, form)
    # TFLite's slopes have no batch axis.
    slope = slope.reshape(slope.shape[1:] if slope.ndim == len(tensor.shape) else slope.shape)
    y = values.network.emit("PRELU", [tensor, values.network.constant(slope)], tensor.shape)
    values.put(node.outputs[0], y, form)


def add_softmax(values: Values, node: ir.Node) -> None:
    """Translates a Softmax or LogSoftmax node over the last axis or over an image's channels.

    Raises ExportError on another axis.
    """
    x = source(node)
    rank = len(values.sizes(x, node))
    axis = attribute(node, "axis", -1) % rank
    form: Form = values.image_form(x) if rank == 4 and axis == 1 else PLAIN
    if form is PLAIN and axis != rank - 1:
        raise refuse(node, f"it is a softmax over axis {axis} of {rank}", "make that axis the last one first")
    tensor = values.fetch(x, node, form)
    if node.op_type == "LogSoftmax":
        y = values.network.emit("LOG_SOFTMAX", [tensor], tensor.shape)
    else:
        y = values.network.emit("SOFTMAX", [tensor], tensor.shape, {"beta": 1.0})
    values.put(node.outputs[0], y, form)


def add_batchnorm(values: Values, node: ir.Node) -> None:
    """Translates a BatchNormalization that is not part of the layer before it, as behind a MaxPool, to MUL and ADD.

    Raises ExportError if its statistics are not constants.
    """
    network = values.network
    x = node.inputs[0]
    numbers = [constant(value) for value in node.inputs[1:]]
    if x is None or any(n is None for n in numbers) or attribute(node, "training_mode", 0):
        raise refuse(node, "its statistics are computed from the images", "let it track running statistics")
    gamma, beta, mean, variance = (np.asarray(n, np.float64) for n in numbers)
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    shift = beta - mean * factor
    rank = len(values.sizes(x, node))
    form: Form = values.image_form(x) if rank == 4 else PLAIN
    tensor = values.fetch(x, node, form)
    # The channels are the last axis of an image and of (n, c), but the second of (n, c, l).
    size = (-1,) if rank in (2, 4) else (-1, *([1] * (rank - 2)))
    for code, array in (("MUL", factor), ("ADD", shift)):
        tensor = network.emit(code, [tensor, network.constant(array.reshape(size))], tensor.shape)
    values.put(node.outputs[0], tensor, form)


def add_same(values: Values, node: ir.Node) -> None:
    """Translates an Identity or Dropout node, which does not change its input, to no operation."""
    x = source(node)
    form = values.home(x)
    values.put(node.outputs[0], values.fetch(x, node, form), form)

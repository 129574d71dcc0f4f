"""`translate` turns the canonical graph, after LCE's passes, into a TFLite network, node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx_ir as ir

from bnn_itrd.export import passes
from bnn_itrd.export.graph import attribute, constant
from bnn_itrd.export.lce import convolutions, elementwise, pooling, shapes
from bnn_itrd.export.lce.binary import BinaryLayers
from bnn_itrd.export.lce.convolutions import window_axes
from bnn_itrd.export.lce.network import Network, Tensor
from bnn_itrd.export.lce.tensor_layout import PLAIN, Form, Image, Values, Watched, refuse
from bnn_itrd.export.passes.integers import quantized_values
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.tracing.batch_check import is_size, refuse_mixing

__all__ = ["Translated", "translate"]

_Translation = Callable[[Values, ir.Node], None]

_TRANSLATIONS: dict[str, _Translation] = {
    "Conv": convolutions.add_conv,
    "Gemm": convolutions.add_gemm,
    "MatMul": convolutions.add_matmul,
    "MaxPool": pooling.add_max_pool,
    "AveragePool": pooling.add_average_pool,
    "GlobalAveragePool": pooling.add_global_pool,
    "GlobalMaxPool": pooling.add_global_pool,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), pooling.add_reduction),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Pow"), elementwise.add_binary),
    **dict.fromkeys(
        ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"), elementwise.add_activation
    ),
    **dict.fromkeys(("Neg", "Abs", "Exp", "Log", "Sqrt", "Round"), elementwise.add_activation),
    "Clip": elementwise.add_clip,
    "PRelu": elementwise.add_prelu,
    **dict.fromkeys(("Softmax", "LogSoftmax"), elementwise.add_softmax),
    "BatchNormalization": elementwise.add_batchnorm,
    **dict.fromkeys(("Identity", "Dropout"), elementwise.add_same),
    "Concat": shapes.add_concat,
    "Pad": shapes.add_pad,
    "Slice": shapes.add_slice,
    "Split": shapes.add_split,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), shapes.add_reshape),
    "Transpose": shapes.add_transpose,
}


class Translated(NamedTuple):
    """A translated network. expected: number of LceBconv2d it must have; layers: number of binary layers.

    watched: the values to compare with PyTorch's, in the order of execution.
    """

    network: Network
    expected: int
    layers: int
    watched: list[Watched]


def _preferred(values: Values, model: ir.Model) -> Image:
    """Returns the image form that suits LCE's zero padding in most binary layers, for each of h and w."""
    votes = [0, 0]
    for node in model.graph:
        if node.op_type != "BinaryConv2d" or attribute(node, "padding_value", 0):
            continue
        signs = constant(node.inputs[1])
        if signs is None:
            continue
        for i, axis in enumerate(window_axes(values, node, signs.shape[2:], Image())):
            if axis.before > 0 or axis.after > 0:
                votes[i] += int(axis.reversed().is_same()) - int(axis.is_same())
    return Image(votes[0] > 0, votes[1] > 0)


def _add_input(values: Values, value: ir.Value, first: ir.Node) -> None:
    sizes = values.sizes(value, first)
    form: Form = PLAIN
    if len(sizes) == 4:
        n, c, h, w = sizes
        tensor, form = Tensor((n, h, w, c), name="images", batch_axis=0), Image()
    else:
        tensor = Tensor(tuple(sizes), name="images", batch_axis=0)
    values.network.inputs.append(tensor)
    values.put(value, tensor, form)
    if isinstance(form, Image) and any(values.preferred):
        # All following values are computed from the reversed images.
        flipped = values.reverse(tensor, form, values.preferred)
        values.forget(value)
        values.put(value, flipped, values.preferred)
        values.put(value, tensor, form)


def _reader_of_size(node: ir.Node) -> ir.Node:
    """Returns the operation (a Resize, for example) that reads the size a node computes; messages name this one."""
    while node.op_type in ("Shape", "Slice", "Gather", "Cast", "Unsqueeze", "Concat"):
        readers = [reader for output in node.outputs for reader, _ in output.uses()]
        if not readers or (node.op_type != "Shape" and not any(map(is_size, node.inputs))):
            break
        node = readers[0]
    return node


def _add_node(values: Values, binary: BinaryLayers, node: ir.Node) -> None:
    own = {"Sign": binary.add_sign, "BinaryConv2d": binary.add_conv, "BinaryLinear": binary.add_linear}
    if node.domain == DOMAIN and node.op_type in own:
        own[node.op_type](node)
        return
    add = _TRANSLATIONS.get(node.op_type) if not node.domain else None
    if add is None:
        node = _reader_of_size(node)
        raise refuse(
            node,
            f"{node.op_type} has no form in an LCE file",
            "replace it by an operation docs/guides/lce.md lists, or compute it outside the network",
        )
    add(values, node)


def translate(model: ir.Model) -> Translated:
    """Applies LCE's passes to the canonical graph, in place, and translates it to a TFLite network.

    Its input are float32 images, its output the logits. Raises ExportError, with the layer and what to do, on an
    operation that LCE cannot represent.
    """
    refuse_mixing(model)
    passes.apply(model, passes.LCE)
    quantizers = {name: path for path, name, _ in quantized_values(model)}
    nodes = list(model.graph)
    if not nodes:
        raise ExportError("the network computes nothing: there is no operation in its graph")
    network = Network()
    values = Values(network)
    values.preferred = _preferred(values, model)
    _add_input(values, model.graph.inputs[0], nodes[0])
    binary = BinaryLayers(values)
    for node in nodes:
        _add_node(values, binary, node)
        y = node.outputs[0]
        if y.name in quantizers:
            form = values.home(y)
            values.watched.append(Watched(quantizers[y.name], values.fetch(y, node, form), form, False))
    logits = values.fetch(model.graph.outputs[0], nodes[-1])
    if logits is network.inputs[0] or logits.data is not None:
        raise ExportError("the network's logits do not depend on its images: there is nothing to export")
    logits.name, logits.batch_axis = "logits", 0
    network.outputs.append(logits)
    layers = sum(node.op_type in ("BinaryConv2d", "BinaryLinear") and node.domain == DOMAIN for node in nodes)
    return Translated(network, binary.expected, layers, values.watched)

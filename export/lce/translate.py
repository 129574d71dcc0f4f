"""`translate` turns the canonical graph into a TFLite network with LCE's operations, node by node."""

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

# Operation of the graph -> the function that translates a node of it.
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
    """The result of `translate`, with what is needed to check the file.

    network: the TFLite network; expected: number of its LceBconv2d operations; layers: number of binary layers;
    watched: the tensors to compare with the PyTorch network's, in the order of execution.
    """

    network: Network
    expected: int
    layers: int
    watched: list[Watched]


def _preferred(values: Values, model: ir.Model) -> Image:
    """Returns whether images are best stored with their rows, and their columns, in reversed order.

    That is so if LCE's own padding with zeros then fits more binary layers than it would otherwise.
    """
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
    """Adds the input images to the TFLite network, and an operation that reverses them if `preferred` says so.

    values: the table of tensors; value: the graph's input; first: a node that error messages name.
    """
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
        # The reversed images are entered first, so that all following tensors are computed from them.
        flipped = values.reverse(tensor, form, values.preferred)
        values.forget(value)
        values.put(value, flipped, values.preferred)
        values.put(value, tensor, form)


def _reader_of_size(node: ir.Node) -> ir.Node:
    """Returns the node, such as a Resize, that finally reads the sizes which `node` computes, for an error message.

    Returns `node` itself if it does not compute sizes.
    """
    while node.op_type in ("Shape", "Slice", "Gather", "Cast", "Unsqueeze", "Concat"):
        readers = [reader for output in node.outputs for reader, _ in output.uses()]
        if not readers or (node.op_type != "Shape" and not any(map(is_size, node.inputs))):
            break
        node = readers[0]
    return node


def _add_node(values: Values, binary: BinaryLayers, node: ir.Node) -> None:
    """Translates one node of the graph. Raises ExportError if LCE has no such operation."""
    own = {"Sign": binary.add_sign, "BinaryConv2d": binary.add_conv, "BinaryLinear": binary.add_linear}
    if node.domain == DOMAIN and node.op_type in own:
        own[node.op_type](node)
        return
    add = _TRANSLATIONS.get(node.op_type) if not node.domain else None
    if add is None:
        node = _reader_of_size(node)
        raise refuse(
            node,
            f"an LCE file cannot hold the operation {node.op_type}",
            "replace it by an operation that docs/guides/lce.md lists, or compute it outside the network",
        )
    add(values, node)


def translate(model: ir.Model) -> Translated:
    """Translates the canonical graph to a TFLite network, after applying the passes in `passes.LCE` to it in place.

    The network's input is float32 images, and its output the logits. Raises ExportError, with the layer and what to do,
    on an operation that an LCE file cannot hold, and on one that combines the images of a batch.
    """
    refuse_mixing(model)
    passes.apply(model, passes.LCE)
    quantizers = {name: path for path, name, _ in quantized_values(model)}
    nodes = list(model.graph)
    if not nodes:
        raise ExportError("the network computes nothing, because its forward has no operation: nothing can be exported")
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
        raise ExportError("the network's logits do not depend on its images: nothing can be exported")
    logits.name, logits.batch_axis = "logits", 0
    network.outputs.append(logits)
    layers = sum(node.op_type in ("BinaryConv2d", "BinaryLinear") and node.domain == DOMAIN for node in nodes)
    return Translated(network, binary.expected, layers, values.watched)

"""Functions that translate full-precision convolutions and linear layers of the graph to TFLite's operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from einops import rearrange

from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.lce.network import Network, Tensor
from bnn_itrd.export.lce.tensor_layout import PLAIN, Flat, Image, Values, refuse, reverse_array, source
from bnn_itrd.export.lce.windows import WindowAxis, named_padding

__all__ = ["PADDING", "add_conv", "add_gemm", "add_matmul", "border", "choose_padding", "window_axes"]

# The numbers that stand for TFLite's paddings in a .tflite file.
PADDING = {"SAME": 0, "VALID": 1}

_TWO_D = "LCE's files hold 2-d images: use 2-d layers, or keep this part out of the network"


def window_axes(values: Values, node: ir.Node, kernel: Sequence[int], form: Image) -> list[WindowAxis]:
    """Returns the size, stride and number of a convolution's or pooling's windows, along height and along width.

    kernel: (kh, kw); form: whether the image is stored reversed, which reverses the windows too. Raises ExportError if
    the images are not 2-d or the padding is automatic.
    """
    x, y = source(node), node.outputs[0]
    sizes, out = values.sizes(x, node), values.sizes(y, node)
    if len(sizes) != 4:
        raise refuse(node, f"it is a {node.op_type} of {len(sizes) - 2} dimensions", _TWO_D)
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise refuse(node, "it has automatic padding (auto_pad)", "give the padding as numbers")
    pads = attribute(node, "pads", (0, 0, 0, 0))
    strides, dilations = attribute(node, "strides", (1, 1)), attribute(node, "dilations", (1, 1))
    axes = []
    for i in range(2):
        reach = (kernel[i] - 1) * dilations[i] + 1
        axis = WindowAxis(sizes[2 + i], reach, strides[i], pads[i], out[2 + i])
        axes.append(axis.reversed() if form[i] else axis)
    return axes


def _pad(network: Network, tensor: Tensor, axes: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Returns an image (n, h, w, c) padded with `value`; axes: (before, after) for its rows and for its columns."""
    if not any(sum(axis) for axis in axes):
        return tensor
    amounts = np.array([(0, 0), *axes, (0, 0)], np.int32)
    shape = [size + before + after for size, (before, after) in zip(tensor.shape, amounts.tolist(), strict=True)]
    inputs = [tensor, network.constant(amounts)]
    if value == 0:
        return network.emit("PAD", inputs, shape)
    # PADV2 takes its scalar as a tensor.
    return network.emit("PADV2", [*inputs, network.constant(np.array(value, np.float32))], shape)


def _crop(network: Network, tensor: Tensor, starts: Sequence[int]) -> Tensor:
    """Returns an image (n, h, w, c) without its first rows and columns; starts: how many of each to remove."""
    if not any(starts):
        return tensor
    begin = network.integers([0, *starts, 0])
    shape = [tensor.shape[0], *(size - start for size, start in zip(tensor.shape[1:3], starts, strict=True))]
    shape.append(tensor.shape[3])
    end, ones = network.integers([0] * 4), network.integers([1] * 4)
    return network.emit("STRIDED_SLICE", [tensor, begin, end, ones], shape, {"endMask": 0b1111})


def border(network: Network, tensor: Tensor, axes: Sequence[WindowAxis], value: float = 0.0) -> Tensor:
    """Returns an image that is padded and cropped as a convolution or pooling needs, which then needs no padding.

    tensor: the image, (n, h, w, c); axes: the operation's windows along height and width; value: the number to pad
    with.
    """
    tensor = _crop(network, tensor, [max(-axis.before, 0) for axis in axes])
    return _pad(network, tensor, [(max(axis.before, 0), max(axis.after, 0)) for axis in axes], value)


def choose_padding(
    network: Network, tensor: Tensor, axes: Sequence[WindowAxis], value: float = 0.0
) -> tuple[Tensor, str]:
    """Returns (image, TFLite's padding) for a convolution or pooling.

    TFLite pads only as ``SAME`` (output size = input size / stride) or ``VALID`` (no padding). The image is `tensor`
    itself if one of them gives the windows `axes`, else `tensor` padded with `value`, for ``VALID``.
    """
    name = named_padding(axes)
    return (border(network, tensor, axes, value), "VALID") if name is None else (tensor, name)


def add_conv(values: Values, node: ir.Node) -> None:
    """Translates a Conv node to CONV_2D, or to DEPTHWISE_CONV_2D if it has one input channel per group.

    Raises ExportError if its weights are not constants or it is not 2-d.
    """
    network = values.network
    x, y = source(node), node.outputs[0]
    weight, bias = constant(node.inputs[1]), constant(optional_input(node, 2))
    if weight is None:
        raise refuse(node, "its weights are computed from the images", "use constant weights")
    if weight.ndim != 4:
        raise refuse(node, f"it is a {node.op_type} of {weight.ndim - 2} dimensions", _TWO_D)
    form = values.image_form(x)
    axes = window_axes(values, node, weight.shape[2:], form)
    tensor, padding = choose_padding(network, values.fetch(x, node, form), axes)
    groups, channels = attribute(node, "group", 1), values.sizes(x, node)[1]
    kernel = reverse_array(rearrange(weight, "o i h w -> o h w i"), form)
    strides, dilations = attribute(node, "strides", (1, 1)), attribute(node, "dilations", (1, 1))
    options = {
        "padding": PADDING[padding],
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
    }
    code = "CONV_2D"
    if groups > 1 and groups == channels:
        code = "DEPTHWISE_CONV_2D"
        kernel = rearrange(kernel, "o h w 1 -> 1 h w o")
        options["depthMultiplier"] = weight.shape[0] // channels
    shift = np.zeros(weight.shape[0]) if bias is None else bias
    shape = [tensor.shape[0], axes[0].out, axes[1].out, weight.shape[0]]
    inputs = [tensor, network.constant(kernel), network.constant(shift)]
    values.put(y, network.emit(code, inputs, shape, options), form)


def _read_rows(values: Values, node: ir.Node, weight: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Returns a linear layer's input, and its weights (o, i) in the order in which that input's features are stored."""
    x = source(node)
    form = values.home(x)
    if isinstance(form, Flat):
        return values.fetch(x, node, form), weight[:, form.order()]
    return values.fetch(x, node, PLAIN), weight


def _fully_connected(values: Values, node: ir.Node, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Adds a FULLY_CONNECTED that computes a node, with weights (o, i) and bias (o,), (1,) or None."""
    network = values.network
    tensor, weight = _read_rows(values, node, weight)
    shift = np.zeros(len(weight)) if bias is None else np.broadcast_to(bias.reshape(-1), len(weight))
    shape = [*tensor.shape[:-1], len(weight)]
    inputs = [tensor, network.constant(weight), network.constant(shift)]
    y = network.emit("FULLY_CONNECTED", inputs, shape, {"keepNumDims": len(shape) > 2})
    values.put(node.outputs[0], y)


def add_gemm(values: Values, node: ir.Node) -> None:
    """Translates a Gemm node to FULLY_CONNECTED. Raises ExportError if its weights or bias are not constants."""
    weight, given = constant(node.inputs[1]), optional_input(node, 2)
    bias = constant(given)
    if weight is None or (given is not None and (bias is None or bias.size not in (1, bias.shape[-1]))):
        raise refuse(node, "its weights are computed from the images", "use constant weights")
    if attribute(node, "transA", 0):
        raise refuse(node, "it transposes its input (transA)", "transpose it outside the linear layer")
    weight = weight if attribute(node, "transB", 0) else weight.T
    weight = weight.astype(np.float64) * attribute(node, "alpha", 1.0)
    if bias is not None:
        bias = bias.astype(np.float64) * attribute(node, "beta", 1.0)
    _fully_connected(values, node, weight, bias)


def add_matmul(values: Values, node: ir.Node) -> None:
    """Translates a MatMul node to FULLY_CONNECTED if its right side is a constant matrix, else to BATCH_MATMUL.

    Raises ExportError on a product with a vector.
    """
    left, right = node.inputs[0], node.inputs[1]
    weight = constant(right)
    if weight is not None and weight.ndim == 2 and values.known(left):
        _fully_connected(values, node, weight.T, None)
        return
    shape = values.sizes(node.outputs[0], node)
    inputs = [values.fetch(left, node), values.fetch(right, node)]
    if min(len(tensor.shape) for tensor in inputs) < 2:
        raise refuse(node, "it is a product with a vector", "use a linear layer")
    values.put(node.outputs[0], values.network.emit("BATCH_MATMUL", inputs, shape))

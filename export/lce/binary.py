"""Translation of binary layers to LCE's operations LceQuantize, which packs signs, and LceBconv2d.

LceBconv2d computes ``multiplier * sum + bias`` in floats and rounds each step, so a result that is exactly 0 in the
network may become slightly negative, with the wrong sign. Therefore a result that only signs read is written as an
integer comparison, ``+-sum - (threshold - 1/2)``, which is never 0. A result that can be 0 and that other operations
read too is written as the exact sum, with separate operations for scale and bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from einops import rearrange, reduce

from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.lce.convolutions import PADDING, border, window_axes
from bnn_itrd.export.lce.exact_zeros import may_be_zero, only_signs_read, zero_decides
from bnn_itrd.export.lce.network import Tensor
from bnn_itrd.export.lce.tensor_layout import PLAIN, Flat, Image, Values, Watched, refuse, reverse_array, source
from bnn_itrd.export.lce.windows import WindowAxis, named_padding
from bnn_itrd.export.passes.thresholds import fold_into_threshold

__all__ = ["LANES", "BinaryLayers", "carries_zero_padding", "pack_filter"]

# Number of channels that LCE packs into one 32-bit integer.
LANES = 32
# The most groups of a convolution that is translated, because LCE needs one operation per group and would be slow.
_MOST_GROUPS = 32


def pack_filter(signs: np.ndarray) -> np.ndarray:
    """Returns binary weights (o, h, w, i) packed to one bit each, as int32 (o, h, w, ceil(i / 32)).

    Input channel c is bit c % 32, counted from the lowest, of integer c // 32; a bit of 1 stands for -1.
    """
    bits = np.packbits(signs < 0, axis=-1, bitorder="little")
    missing = -bits.shape[-1] % 4
    return np.ascontiguousarray(np.pad(bits, [(0, 0)] * 3 + [(0, missing)])).view("<i4")


def carries_zero_padding(axes: Sequence[WindowAxis]) -> bool:
    """Returns whether LCE's own padding with zeros is right for a convolution with these windows.

    Windows larger than the image get wrong results, because LCE corrects a sum for kernel positions outside only one
    side of the image (seen with LCE 0.16 for a 3x3 kernel on 2x2 pixels). axes: along height and along width.
    """
    return named_padding(axes) == "SAME" and all(axis.reach <= axis.size for axis in axes)


def _taps_outside(axis: WindowAxis, kernel: int) -> np.ndarray:
    """Returns which kernel positions of each window lie outside the image, as bool (windows, kernel positions)."""
    dilation = (axis.reach - 1) // (kernel - 1) if kernel > 1 else 1
    places = np.arange(axis.out)[:, None] * axis.stride - axis.before + np.arange(kernel)[None] * dilation
    return (places < 0) | (places >= axis.size)


class _Part(NamedTuple):
    """The constants of one LceBconv2d: signs, the weights (o, h, w, i), and multiplier and bias, float64 (o,)."""

    signs: np.ndarray
    multiplier: np.ndarray
    bias: np.ndarray


class BinaryLayers:
    """A translator of the canonical graph's binary layers to LCE's operations, which it adds to the TFLite network.

    expected: number of LceBconv2d operations that it has added so far.
    """

    def __init__(self, values: Values) -> None:
        self.values = values
        self.expected = 0
        self._sources: dict[ir.Value, ir.Value] = {}
        self._packed: dict[tuple[Tensor, int, int], Tensor] = {}

    def add_sign(self, node: ir.Node) -> None:
        """Remembers which tensor a Sign node reads; the layer that reads the signs adds the operation for them."""
        x = source(node)
        self._sources[node.outputs[0]] = x

    def _presign(self, node: ir.Node) -> ir.Value:
        """Returns the float tensor whose signs are a layer's input. Raises ExportError if that is not a sign."""
        a = node.inputs[0]
        if a is None or a not in self._sources:
            raise refuse(node, "its input is not a sign", "use bnn_itrd's binary layers")
        return self._sources[a]

    def _constants(self, node: ir.Node) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """Returns a binary layer's (signs, scale, offset or None, bias), of which the last three are (o,), float64."""
        signs, scale, offset, bias = (constant(optional_input(node, i)) for i in range(1, 5))
        if signs is None or scale is None:
            raise refuse(node, "its weights or its scale are computed from the images", "use constant ones")

        def per_channel(numbers: np.ndarray | None) -> np.ndarray:
            given = np.zeros(1) if numbers is None else numbers.astype(np.float64)
            return np.broadcast_to(given.reshape(-1), (len(signs),))

        return signs, per_channel(scale), None if offset is None else per_channel(offset), per_channel(bias)

    def _quantize(self, tensor: Tensor, first: int, channels: int) -> Tensor:
        """Returns the packed signs of some channels of a float tensor, as int32 (n, h, w, ceil(channels / 32)).

        first, channels: number of the first channel, and how many. They are computed once for all layers.
        """
        network = self.values.network
        key = (tensor, first, channels)
        if key not in self._packed:
            source = tensor
            if channels != tensor.shape[3]:
                begin, end = network.integers([0, 0, 0, first]), network.integers([0, 0, 0, first + channels])
                shape = [*tensor.shape[:3], channels]
                inputs = [tensor, begin, end, network.integers([1] * 4)]
                source = network.emit("STRIDED_SLICE", inputs, shape, {"beginMask": 0b0111, "endMask": 0b0111})
            shape = [*tensor.shape[:3], -(-channels // LANES)]
            self._packed[key] = network.emit("LceQuantize", [source], shape, dtype="int32")
        return self._packed[key]

    def _bconv(
        self, packed: Tensor, part: _Part, axes: Sequence[WindowAxis], padding: str, dilations: Sequence[int]
    ) -> Tensor:
        """Adds one LceBconv2d, LCE's binary convolution, on packed signs; returns its output (n, h', w', o)."""
        from flatbuffers import flexbuffers

        network = self.values.network
        options = {
            "channels_in": part.signs.shape[3],
            "dilation_height_factor": int(dilations[0]),
            "dilation_width_factor": int(dilations[1]),
            "fused_activation_function": 0,
            "pad_values": 0,
            "padding": PADDING[padding],
            "stride_height": int(axes[0].stride),
            "stride_width": int(axes[1].stride),
        }
        inputs = [
            packed,
            network.constant(pack_filter(part.signs)),
            network.constant(part.multiplier),
            network.constant(part.bias),
            None,
        ]
        shape = [packed.shape[0], axes[0].out, axes[1].out, len(part.signs)]
        self.expected += 1
        return network.emit("LceBconv2d", inputs, shape, custom=bytes(flexbuffers.Dumps(options)))

    def _corrected(self, tensor: Tensor, part: _Part, axes: Sequence[WindowAxis]) -> np.ndarray:
        """Returns the bias of each output, (1, h', w', o), with which padding with +1 counts as padding with 0."""
        taps = reduce(part.signs.astype(np.int64), "o h w i -> o h w", "sum")
        rows, columns = (_taps_outside(axis, taps.shape[1 + i]) for i, axis in enumerate(axes))
        outside = rows[:, None, :, None] | columns[None, :, None, :]
        sums = np.einsum("yxhw,ohw->yxo", outside.astype(np.int64), taps)
        return (part.bias - part.multiplier * sums)[None]

    def _convolve(
        self,
        node: ir.Node,
        tensor: Tensor,
        axes: Sequence[WindowAxis],
        signs: np.ndarray,
        multiplier: np.ndarray,
        bias: np.ndarray,
    ) -> Tensor:
        """Adds the binary convolution ``multiplier * sum + bias`` of a float tensor's signs, one LceBconv2d per group.

        signs: the weights, (o, h, w, i); multiplier, bias: (o,). Returns the output (n, h', w', o).
        """
        network = self.values.network
        groups = attribute(node, "group", 1)
        dilations = attribute(node, "dilations", (1, 1))
        value = attribute(node, "padding_value", 0)
        padded = any(axis.before > 0 or axis.after > 0 for axis in axes)
        by_lce = padded and value == 0 and carries_zero_padding(axes)
        by_constant = padded and value == 0 and not by_lce
        padding = "SAME" if by_lce else "VALID"
        source = tensor if by_lce else border(network, tensor, axes, -1.0 if value < 0 else 1.0)
        outputs, size, count = [], signs.shape[3], len(signs) // groups
        for group in range(groups):
            of = slice(group * count, (group + 1) * count)
            part = _Part(signs[of], multiplier[of], bias[of])
            packed = self._quantize(source, group * size, size)
            if by_constant:
                y = self._bconv(packed, part._replace(bias=np.zeros(count)), axes, padding, dilations)
                outputs.append(network.emit("ADD", [y, network.constant(self._corrected(tensor, part, axes))], y.shape))
            else:
                outputs.append(self._bconv(packed, part, axes, padding, dilations))
        if groups == 1:
            return outputs[0]
        return network.emit("CONCATENATION", outputs, [*outputs[0].shape[:3], len(signs)], {"axis": 3})

    def _layer(
        self,
        node: ir.Node,
        tensor: Tensor,
        axes: Sequence[WindowAxis],
        signs: np.ndarray,
        numbers: tuple[np.ndarray, np.ndarray | None, np.ndarray],
    ) -> Tensor:
        """Adds the operations of a binary layer on the image `tensor` (n, h, w, c); returns the output (n, h', w', o).

        signs: the weights, (o, h, w, i); numbers: (scale, offset or None, bias), each (o,).
        """
        scale, offset, bias = numbers
        result, largest = node.outputs[0], signs[0].size
        if offset is None and only_signs_read(result):
            threshold, flip = fold_into_threshold(scale.astype(np.float32), bias.astype(np.float32), largest)
            # These are multiples of 1/2 far below 2^24, so LCE computes with them without rounding.
            level = threshold.clip(-largest - 1, largest + 1) - 0.5
            y = self._convolve(node, tensor, axes, signs, np.where(flip, -1.0, 1.0), -level)
        elif may_be_zero(scale, bias, largest) and zero_decides(result):
            y = self._exact(node, tensor, axes, signs, numbers)
        else:
            y = self._convolve(node, tensor, axes, signs, scale, bias)
            if offset is not None:
                ones = np.ones_like(signs)
                window = self._convolve(node, tensor, axes, ones, offset, np.zeros(len(signs)))
                y = self.values.network.emit("ADD", [y, window], y.shape)
        y.name = attribute(node, "path", "")
        return y

    def _exact(
        self,
        node: ir.Node,
        tensor: Tensor,
        axes: Sequence[WindowAxis],
        signs: np.ndarray,
        numbers: tuple[np.ndarray, np.ndarray | None, np.ndarray],
    ) -> Tensor:
        """Adds a binary layer as exact sums, then MUL and ADD for scale, offset and bias, so that no 0 is rounded."""
        network = self.values.network
        scale, offset, bias = numbers
        ones, zeros = np.ones(len(signs)), np.zeros(len(signs))
        # A negative scale is made positive by negating the weights. With it a sum of 0 would become -0, which
        # LceQuantize takes for -1 on ARM.
        flip = np.where(scale < 0, -1, 1).astype(signs.dtype)
        y = self._convolve(node, tensor, axes, signs * flip[:, None, None, None], ones, zeros)
        y = network.emit("MUL", [y, network.constant(np.abs(scale))], y.shape)
        if offset is not None:
            window = self._convolve(node, tensor, axes, np.ones_like(signs), ones, zeros)
            window = network.emit("MUL", [window, network.constant(offset)], y.shape)
            y = network.emit("ADD", [y, window], y.shape)
        return network.emit("ADD", [y, network.constant(bias)], y.shape) if bias.any() else y

    def add_conv(self, node: ir.Node) -> None:
        """Adds the operations that compute a BinaryConv2d node exactly, for any padding, size, stride and dilation."""
        values = self.values
        x = self._presign(node)
        signs, scale, offset, bias = self._constants(node)
        if attribute(node, "group", 1) > _MOST_GROUPS:
            raise refuse(
                node,
                f"it has {attribute(node, 'group', 1)} groups, and LCE needs one operation for each",
                f"use at most {_MOST_GROUPS} groups, or an ordinary depthwise convolution",
            )
        form = values.image_form(x)
        axes = window_axes(values, node, signs.shape[2:], form)
        if not carries_zero_padding(axes) and attribute(node, "padding_value", 0) == 0:
            better = self._reversed_form(axes, form)
            if better is not None:
                form = better
                axes = window_axes(values, node, signs.shape[2:], form)
        tensor = values.fetch(x, node, form)
        values.watched.append(Watched(attribute(node, "path", ""), tensor, form, True))
        kernel = reverse_array(rearrange(signs, "o i h w -> o h w i"), form)
        values.put(node.outputs[0], self._layer(node, tensor, axes, kernel, (scale, offset, bias)), form)

    def _reversed_form(self, axes: Sequence[WindowAxis], form: Image) -> Image | None:
        """Returns how to store the image reversed so that LCE's padding is right; None if no order makes it right."""
        if not any(axis.before > 0 or axis.after > 0 for axis in axes):
            return None
        flipped = [axis if axis.is_same() else axis.reversed() for axis in axes]
        if not carries_zero_padding(flipped):
            return None
        return Image(*(have if axis.is_same() else not have for have, axis in zip(form, axes, strict=True)))

    def add_linear(self, node: ir.Node) -> None:
        """Adds the operations that compute a BinaryLinear node, as a 1x1 convolution of an image of one row.

        All axes between batch and channels become the pixels of that row.
        """
        values = self.values
        x = self._presign(node)
        signs, scale, offset, bias = self._constants(node)
        form = values.home(x)
        tensor = values.fetch(x, node, form if isinstance(form, Flat) else PLAIN)
        if isinstance(form, Flat):
            signs = signs[:, form.order()]
        *outer, channels = tensor.shape
        values.watched.append(Watched(attribute(node, "path", ""), values.fetch(x, node, PLAIN), PLAIN, True))
        pixels = int(np.prod(outer[1:]))
        image = values.reshape(tensor, [-1, 1, pixels, channels], [outer[0], 1, pixels, channels])
        axes = [WindowAxis(size, 1, 1, 0, size) for size in image.shape[1:3]]
        y = self._layer(node, image, axes, signs[:, None, None], (scale, offset, bias))
        out = node.outputs[0]
        values.put(out, values.reshape(y, values.target(out, node), values.sizes(out, node)))

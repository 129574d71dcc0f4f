"""Modules that stand for a network's binary layers while it is traced, so that each becomes one node of the graph.

They are called symbolic because their forward adds a node without computing its result. `replace_binary_layers` puts
them into the copy of the network that is exported.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.tracing.network_copy import ModuleStack, logits_of
from bnn_itrd.quant import (
    BinaryConv2d,
    BinaryLinear,
    IntegerConv2d,
    IntegerLinear,
    IntegerQuantizer,
    WeightQuantizer,
)
from bnn_itrd.quant import sign as quant_sign

__all__ = ["replace_binary_layers", "run_and_check"]


def _symbolic(op: str, inputs: tuple[Tensor | None, ...], attributes: dict[str, Any], shape: Any) -> Tensor:
    """Adds the node ``bnn_itrd::op`` to the graph that is being traced; returns its output, which holds zeros.

    shape: of the output. None in `inputs` stands for an optional input that is left out.
    """
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{op}", inputs, attributes, dtype=torch.float32, shape=shape, version=1)


class _SymbolicLayer(nn.Module):
    """The exported form of a binary layer, with the constants that the file will hold; base of the two classes below.

    `forward` adds the layer's node to the traced graph, and `evaluate` computes what that node stands for. signs: the
    binary weights, int8; scale, offset, bias: float32, (out_channels,). Raises ExportError if the layer's binarisers
    cannot be exported.
    """

    signs: Tensor
    scale: Tensor
    offset: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: BinaryConv2d | BinaryLinear, path: str) -> None:
        super().__init__()
        self.path = path
        for part in (layer.weight_binarizer, layer.activation_binarizer):
            if part.not_deployable:
                raise ExportError(f"{path or 'the network'}: {part.not_deployable}")
        binary, bias = layer.folded()
        if not bool((binary.signs.abs() == 1).all()):
            raise ExportError(
                f"{path or 'the network'}: {type(layer.weight_binarizer).__name__} gives weights other than "
                "-1 and +1, which a file with 1 bit per weight cannot hold: let it return weights of -1 and +1, and "
                "put their size into the scale"
            )
        self.binarizer = layer.activation_binarizer
        self.register_buffer("signs", binary.signs.detach().to(torch.int8))
        self.register_buffer("scale", binary.scale.detach().float())
        self.register_buffer("offset", None if binary.offset is None else binary.offset.detach().float())
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def activations(self, x: Tensor) -> Tensor:
        """Returns the layer's binary inputs, +1 and -1, as the exported Sign node computes them from x."""
        return quant_sign(self.binarizer.presign(x))

    def _sign_node(self, x: Tensor) -> Tensor:
        x = self.binarizer.presign(x)
        return _symbolic("Sign", (x,), {"path": self.path}, x.shape)

    def _node(self, op: str, x: Tensor, attributes: dict[str, Any], shape: Any) -> Tensor:
        inputs = (self._sign_node(x), self.signs, self.scale, self.offset, self.bias)
        return _symbolic(op, inputs, {"path": self.path} | attributes, shape)


class _SymbolicConv2d(_SymbolicLayer):
    """The exported form of a BinaryConv2d; x: (n, c, h, w)."""

    def __init__(self, layer: BinaryConv2d, path: str) -> None:
        super().__init__(layer, path)
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.groups, self.padding_value = layer.groups, layer.padding_value

    def evaluate(self, x: Tensor) -> Tensor:
        vertical, horizontal = self.padding
        a = F.pad(self.activations(x), (horizontal, horizontal, vertical, vertical), value=float(self.padding_value))

        def convolve(weight: Tensor, factor: Tensor) -> Tensor:
            y = F.conv2d(a, weight, None, self.stride, 0, self.dilation, self.groups)
            return y * factor.reshape(-1, 1, 1)

        weight = self.signs.float()
        y = convolve(weight, self.scale)
        if self.offset is not None:
            y = y + convolve(torch.ones_like(weight), self.offset)
        return y if self.bias is None else y + self.bias.reshape(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = [
            (x.shape[2 + i] + 2 * self.padding[i] - self.dilation[i] * (self.signs.shape[2 + i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        ]
        attributes = {
            "strides": list(self.stride),
            "pads": list(self.padding) * 2,
            "dilations": list(self.dilation),
            "group": self.groups,
            "padding_value": self.padding_value,
        }
        return self._node("BinaryConv2d", x, attributes, [x.shape[0], self.signs.shape[0], *size])


class _SymbolicLinear(_SymbolicLayer):
    """The exported form of a BinaryLinear; x: (..., in_features)."""

    def evaluate(self, x: Tensor) -> Tensor:
        a = self.activations(x)
        y = F.linear(a, self.signs.float()) * self.scale
        if self.offset is not None:
            y = y + a.sum(-1, keepdim=True) * self.offset
        return y if self.bias is None else y + self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._node("BinaryLinear", x, {}, [*x.shape[:-1], self.signs.shape[0]])


class _SymbolicQuantizer(nn.Module):
    """The exported form of a quantiser: its forward adds one node, Quant, to the traced graph.

    A Quant node rounds its input to integers of a given number of bits, times `scale`, a float32 scalar. path: the
    quantiser's path in the network.
    """

    scale: Tensor

    def __init__(self, quantizer: IntegerQuantizer | WeightQuantizer, scale: Tensor, path: str) -> None:
        super().__init__()
        self.path, self.bits, self.narrow = path, quantizer.bits, quantizer.narrow
        self.register_buffer("scale", scale.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        attributes = {"bits": self.bits, "narrow": int(self.narrow), "path": self.path}
        return _symbolic("Quant", (x, self.scale), attributes, x.shape)


class _SymbolicIntegerLinear(nn.Module):
    """The exported form of an IntegerLinear, with the layer's normalisation folded into weight and bias.

    The weight is kept as floats, which a Quant node of the graph rounds to integers.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: IntegerLinear, path: str) -> None:
        super().__init__()
        weight, bias = layer.folded()
        self.register_buffer("weight", weight.detach().float())
        self.register_buffer("bias", bias.detach().float())
        inside = f"{path}." if path else ""
        inputs, weights = layer.input_quantizer, layer.weight_quantizer
        self.input_quantizer = _SymbolicQuantizer(inputs, inputs.scale(), f"{inside}input_quantizer")
        self.weight_quantizer = _SymbolicQuantizer(weights, weights.scale(weight), f"{inside}weight_quantizer")

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias)


def _symbolic_layer(layer: BinaryConv2d | BinaryLinear, path: str) -> _SymbolicConv2d | _SymbolicLinear:
    return _SymbolicConv2d(layer, path) if isinstance(layer, BinaryConv2d) else _SymbolicLinear(layer, path)


def _check_layer(layer: BinaryConv2d | BinaryLinear, path: str, x: Tensor, y: Tensor) -> None:
    """Raises ExportError if a layer that returned y for the input x does not compute what its exported node computes.

    It finds a user's own subclasses of the binary layers that compute something more, which would be lost.
    """
    symbolic = _symbolic_layer(layer, path)
    where = path or "the network"
    probe = torch.cat([x, torch.zeros_like(x[:1])])
    if not torch.equal(layer.activation_binarizer(probe), symbolic.activations(probe)):
        raise ExportError(
            f"{where}: {type(layer.activation_binarizer).__name__} does not return sign(presign(x)) in "
            "evaluation mode, with +1 for 0, so it cannot be exported: override its method presign"
        )
    expected = symbolic.evaluate(x)
    if y.shape != expected.shape or not torch.allclose(
        y, expected, rtol=1e-4, atol=1e-5 * (1 + float(expected.abs().max()))
    ):
        raise ExportError(
            f"{where}: {type(layer).__name__} computes something other than the binary layer with scale, offset and "
            "bias that the file would hold: move what it adds into a module around it"
        )


@torch.no_grad()
def run_and_check(model: nn.Module, example: Tensor) -> None:
    """Runs the copied network once and checks that each binary layer returns what its exported form computes.

    example: images, (n, *input_shape). Raises ExportError, with the module's path, if the network does not run, does
    not return one tensor, or has a layer that computes something other than its exported form.
    """
    stack = ModuleStack(model)
    checks = []
    for path, module in model.named_modules():
        if isinstance(module, (BinaryConv2d, BinaryLinear)):

            def hook(layer: Any, args: Any, kwargs: Any, output: Tensor, path: str = path) -> None:
                x = args[0] if args else kwargs["x"]
                _check_layer(layer, path, x, output)

            checks.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        output = model(example)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"{stack.where(model)} does not run on an input of shape {tuple(example.shape)}: {error}"
        ) from error
    finally:
        stack.remove()
        for handle in checks:
            handle.remove()
    logits_of(output)


def replace_binary_layers(model: nn.Module) -> nn.Module:
    """Replaces the binary layers and integer quantisers of a network by symbolic ones, in place; returns the network.

    It is called on the copy that is traced. A layer that is used in two places is replaced by one symbolic layer,
    which is used in both. If `model` itself is a binary layer, the symbolic layer is returned.
    """
    symbolic: dict[int, nn.Module] = {}
    for path, module in list(model.named_modules()):
        if isinstance(module, (BinaryConv2d, BinaryLinear)):
            symbolic[id(module)] = _symbolic_layer(module, path)
        elif isinstance(module, IntegerLinear):
            symbolic[id(module)] = _SymbolicIntegerLinear(module, path)
        elif isinstance(module, IntegerQuantizer):
            symbolic[id(module)] = _SymbolicQuantizer(module, module.scale(), path)
        elif isinstance(module, IntegerConv2d):
            inside = f"{path}." if path else ""
            weights = module.weight_quantizer
            scale = weights.scale(module.weight)
            symbolic[id(weights)] = _SymbolicQuantizer(weights, scale, f"{inside}weight_quantizer")
    if id(model) in symbolic:
        return symbolic[id(model)].eval()
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if id(child) in symbolic:
                setattr(module, name, symbolic[id(child)])
    return model.eval()

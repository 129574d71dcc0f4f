"""Export twins: the binary layers of a copied network, replaced by modules that trace to one node each."""

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
    """One node ``bnn_itrd::op`` while exporting; outside it would be zeros."""
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{op}", inputs, attributes, dtype=torch.float32, shape=shape, version=1)


class _Twin(nn.Module):
    """A binary layer's constants as deployed; `forward` is for the exporter, `evaluate` gives the numbers."""

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
                "-1 and +1, which no 1-bit file can hold: put their size into the scale"
            )
        self.binarizer = layer.activation_binarizer
        self.register_buffer("signs", binary.signs.detach().to(torch.int8))
        self.register_buffer("scale", binary.scale.detach().float())
        self.register_buffer("offset", None if binary.offset is None else binary.offset.detach().float())
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def activations(self, x: Tensor) -> Tensor:
        """The numbers of the sign node."""
        return quant_sign(self.binarizer.presign(x))

    def _sign_node(self, x: Tensor) -> Tensor:
        x = self.binarizer.presign(x)
        return _symbolic("Sign", (x,), {"path": self.path}, x.shape)

    def _node(self, op: str, x: Tensor, attributes: dict[str, Any], shape: Any) -> Tensor:
        inputs = (self._sign_node(x), self.signs, self.scale, self.offset, self.bias)
        return _symbolic(op, inputs, {"path": self.path} | attributes, shape)


class _Conv2dTwin(_Twin):
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


class _LinearTwin(_Twin):
    def evaluate(self, x: Tensor) -> Tensor:
        a = self.activations(x)
        y = F.linear(a, self.signs.float()) * self.scale
        if self.offset is not None:
            y = y + a.sum(-1, keepdim=True) * self.offset
        return y if self.bias is None else y + self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._node("BinaryLinear", x, {}, [*x.shape[:-1], self.signs.shape[0]])


class _QuantizerTwin(nn.Module):
    """A quantiser of integers with its scale () as deployed."""

    scale: Tensor

    def __init__(self, quantizer: IntegerQuantizer | WeightQuantizer, scale: Tensor, path: str) -> None:
        super().__init__()
        self.path, self.bits, self.narrow = path, quantizer.bits, quantizer.narrow
        self.register_buffer("scale", scale.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        attributes = {"bits": self.bits, "narrow": int(self.narrow), "path": self.path}
        return _symbolic("Quant", (x, self.scale), attributes, x.shape)


class _IntegerLinearTwin(nn.Module):
    """The layer with its norm folded, the weight still in front of its quantiser."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: IntegerLinear, path: str) -> None:
        super().__init__()
        weight, bias = layer.folded()
        self.register_buffer("weight", weight.detach().float())
        self.register_buffer("bias", bias.detach().float())
        inside = f"{path}." if path else ""
        reads, weighs = layer.input_quantizer, layer.weight_quantizer
        self.input_quantizer = _QuantizerTwin(reads, reads.scale(), f"{inside}input_quantizer")
        self.weight_quantizer = _QuantizerTwin(weighs, weighs.scale(weight), f"{inside}weight_quantizer")

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias)


def _twin(layer: BinaryConv2d | BinaryLinear, path: str) -> _Conv2dTwin | _LinearTwin:
    return _Conv2dTwin(layer, path) if isinstance(layer, BinaryConv2d) else _LinearTwin(layer, path)


def _check_layer(layer: BinaryConv2d | BinaryLinear, path: str, x: Tensor, y: Tensor) -> None:
    """Raises ExportError unless the layer computes what its node will: the contract of a binary layer."""
    twin = _twin(layer, path)
    where = path or "the network"
    probe = torch.cat([x, torch.zeros_like(x[:1])])
    if not torch.equal(layer.activation_binarizer(probe), twin.activations(probe)):
        raise ExportError(
            f"{where}: {type(layer.activation_binarizer).__name__} does not give sign(presign(x)) in "
            "evaluation, with +1 at 0, so no file can hold it: override its presign"
        )
    expected = twin.evaluate(x)
    if y.shape != expected.shape or not torch.allclose(
        y, expected, rtol=1e-4, atol=1e-5 * (1 + float(expected.abs().max()))
    ):
        raise ExportError(
            f"{where}: {type(layer).__name__} computes something other than its signs, scale, offset and "
            "bias: move what it adds into a module around it"
        )


@torch.no_grad()
def run_and_check(model: nn.Module, example: Tensor) -> None:
    """Runs the copied network once, (n, *input_shape), and checks each binary layer against its node.

    Raises ExportError, naming the module, where the network does not run or a layer breaks the contract.
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
    """The (copied) network with twins for binary layers and integer quantisers; one used in two places stays one."""
    twins: dict[int, nn.Module] = {}
    for path, module in list(model.named_modules()):
        if isinstance(module, (BinaryConv2d, BinaryLinear)):
            twins[id(module)] = _twin(module, path)
        elif isinstance(module, IntegerLinear):
            twins[id(module)] = _IntegerLinearTwin(module, path)
        elif isinstance(module, IntegerQuantizer):
            twins[id(module)] = _QuantizerTwin(module, module.scale(), path)
        elif isinstance(module, IntegerConv2d):
            inside = f"{path}." if path else ""
            weighs = module.weight_quantizer
            twins[id(weighs)] = _QuantizerTwin(weighs, weighs.scale(module.weight), f"{inside}weight_quantizer")
    if id(model) in twins:
        return twins[id(model)].eval()
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if id(child) in twins:
                setattr(module, name, twins[id(child)])
    return model.eval()

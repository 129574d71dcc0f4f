"""Small networks for the tests of `binarize`, and functions that look at its results."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear, Report, binarize


def images(n: int = 2, size: int = 64) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def binary_layers(model: nn.Module) -> dict[str, BinaryConv2d | BinaryLinear]:
    return {path: m for path, m in model.named_modules() if isinstance(m, (BinaryConv2d, BinaryLinear))}


def binary_inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Returns the input of each binary layer in a forward pass in training mode, layer's path -> tensor."""
    seen: dict[str, Tensor] = {}
    for path, layer in binary_layers(model).items():
        layer.register_forward_pre_hook(lambda _, args, path=path: seen.update({path: args[0].detach()}))
    model.train()(x)
    return seen


def reasons(report: Report, action: str) -> dict[str, str]:
    return {change.path: change.reason for change in report.changes if change.action == action}


def calls(model: nn.Module, function: Callable) -> int:
    assert isinstance(model, fx.GraphModule)
    return sum(node.target is function for node in model.graph.nodes)


def conv(i: int, o: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    options.setdefault("padding", kernel // 2)
    return nn.Conv2d(i, o, kernel, **options)  # type: ignore[arg-type]


def block(i: int, o: int) -> list[nn.Module]:
    return [conv(i, o), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]


def small(*middle: nn.Module, width: int = 8) -> nn.Sequential:
    """Returns a network of a stem (modules 0 to 2), the given modules, and a head: pooling, flatten, linear."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(*block(3, width), *middle, *head)


def quietly(model: nn.Module, **options: object) -> tuple[nn.Module, Report]:
    """Returns `binarize` of a network, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return binarize(model, **options)

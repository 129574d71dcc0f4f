"""An evaluation is kept for a network's modules and options, and for none that runs a user's own code."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.quant import BinaryLinear, Scheme
from bnn_itrd.quant.methods.reactnet import RSignActivation
from bnn_itrd.training.evaluation import evaluated, has_own_code


class _Own(nn.Linear):
    """A layer of a user's class, with torch's forward pass."""


@fx.wrap
def _negated(x: Tensor) -> Tensor:
    return -x


class _Repeated(nn.Module):
    """A network of a user's class; its graph of torch.fx calls torch's functions alone, or with `own` a user's."""

    def __init__(self, times: int, own: bool = False) -> None:
        super().__init__()
        self.linear, self.times, self.own = nn.Linear(4, 4), times, own

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = _negated(x) if self.own else torch.neg(self.linear(x))
        return x


def _with_hook() -> nn.Module:
    network = nn.Linear(4, 4)
    network.register_forward_hook(lambda module, given, found: -found)
    return network


def _transformer(activation: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, activation=activation)


OWN = {
    "class": _Own(4, 4),
    "class inside": nn.Sequential(_Own(4, 4)),
    "class behind a parametrization": parametrizations.weight_norm(_Own(4, 4)),
    "hook": _with_hook(),
    "function": _transformer(lambda x: x),
    "function with another's name": _transformer(functools.wraps(functional.relu)(lambda x: -x)),
    "partial function": _transformer(functools.partial(lambda x, by: by * x, by=2)),
    "function in a graph": fx.symbolic_trace(_Repeated(1, own=True)),
    "TorchScript": torch.jit.trace(_Own(4, 4), torch.zeros(1, 4)),
    "binariser": BinaryLinear(4, 4, scheme=Scheme(activation=lambda: RSignActivation(4))),
}
KNOWN = {
    "torch": nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
    "partial of torch": _transformer(functools.partial(functional.leaky_relu, negative_slope=0.2)),
    "parametrization": parametrizations.weight_norm(nn.Linear(4, 4)),
    "bnn_itrd": BinaryLinear(4, 4, scheme=Scheme(nonlinearity=nn.PReLU)),
    "torchvision": torchvision.models.squeezenet1_1(num_classes=2),
    "graph": fx.symbolic_trace(_Repeated(2)),
}


@pytest.mark.parametrize("name", [*OWN, *KNOWN])
def test_own_code_is_recognised(name: str) -> None:
    assert has_own_code((OWN | KNOWN)[name]) == (name in OWN)


# A network's function, and two values of an option that leaves the state dict as it is.
OPTIONS: dict[str, tuple[Callable[[Any], nn.Module], Any, Any]] = {
    "shown by repr": (lambda slope: nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(slope)), 0.1, 0.2),
    "not shown": (lambda heads: nn.MultiheadAttention(4, heads), 1, 2),
    "a function": (_transformer, functional.relu, functional.gelu),
    "of a scheme": (lambda omega: BinaryLinear(4, 4, scheme=Scheme("biper", omega=omega)), 20.0, 30.0),
    "of a graph": (lambda times: fx.symbolic_trace(_Repeated(times)), 1, 2),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_networks_options_count(name: str) -> None:
    make, option, other = OPTIONS[name]
    half = torch.full((3,), 0.5)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    split = TensorSplit(images, torch.tensor([1, 1]), half, half, crop_padding=0, flip=False)
    networks = [make(option), make(option), make(other)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    first, again, changed = (evaluated(network, split) for network in networks)
    assert first == again == evaluated(copy.deepcopy(networks[0]).train(), split)
    assert first is not None and changed is not None and first != changed

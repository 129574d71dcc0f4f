"""``train.weight_decay_of weights``: which parameters decay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bnn_itrd.config.train import TrainConfig
from bnn_itrd.errors import UserError
from bnn_itrd.models import resnet8
from bnn_itrd.quant import Scheme
from bnn_itrd.training.optimizer import make_optimizer


def decaying(network: nn.Module) -> set[str]:
    names = {id(p): name for name, p in network.named_parameters()}
    made = make_optimizer(TrainConfig(weight_decay=0.1, weight_decay_of="weights"), network)
    assert sorted(n for g in made.param_groups for n in (names[id(p)] for p in g["params"])) == sorted(
        name for name, p in network.named_parameters() if p.requires_grad
    )
    return {names[id(p)] for group in made.param_groups if group["weight_decay"] for p in group["params"]}


def test_of_a_binary_student_its_matrices_alone() -> None:
    student = resnet8(3, binary=Scheme(activation="rsign", nonlinearity="rprelu"))
    expected = {"conv1.weight", "linear.weight"}
    expected |= {f"layer{i}.0.conv{j}.weight" for i in (1, 2, 3) for j in (1, 2)}
    assert decaying(student) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.MultiheadAttention(4, 2), {"in_proj_weight", "out_proj.weight"}),
        (
            lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
            {"parametrizations.weight.original0", "parametrizations.weight.original1"},
        ),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 2, 1)), {"parametrizations.weight.original"}),
    ],
)
def test_weights_that_torch_keeps_elsewhere(make: Callable[[], nn.Module], expected: set[str]) -> None:
    assert decaying(make()) == expected


def test_a_shared_weight_stands_in_one_group_once() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    assert decaying(network) == {"0.weight"}


def test_a_frozen_weight_does_not_decay() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network[0].requires_grad_(False)
    assert decaying(network) == set()


def test_a_network_of_other_layers() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(2, 2))

    with pytest.raises(UserError, match="the network has no convolution or linear layer of torch or bnn_itrd"):
        decaying(Own())
    make_optimizer(TrainConfig(weight_decay=0.0, weight_decay_of="weights"), Own())

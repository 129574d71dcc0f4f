"""`set_progress`: the progress of a training is state of the network, saved and moved with it."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.numbers import rand
from torch import nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear, set_progress


def test_set_progress_is_saved_and_moved_with_the_network() -> None:
    net = nn.Sequential(BinaryConv2d(3, 4, 3), nn.Flatten(), BinaryLinear(4, 2, scheme="xnor"))
    set_progress(net, 0.25)
    state = net.state_dict()
    progress = [name for name in state if name.endswith("progress")]
    assert len(progress) == 4 and all(state[name].item() == 0.25 for name in progress)
    fresh = nn.Sequential(BinaryConv2d(3, 4, 3), nn.Flatten(), BinaryLinear(4, 2, scheme="xnor"))
    fresh.load_state_dict(state)
    x = rand(2, 3, 3, 3)
    assert torch.equal(fresh(x), net(x))
    assert fresh.double().state_dict()[progress[0]].dtype == torch.float64


def test_set_progress_of_an_ordinary_network_does_nothing() -> None:
    set_progress(nn.Linear(2, 2), 0.5)


@pytest.mark.parametrize("p", [-0.01, 1.01, math.nan, math.inf])
def test_set_progress_refuses(p: float) -> None:
    with pytest.raises(ValueError, match=r"progress must be in \[0, 1\], got"):
        set_progress(BinaryLinear(2, 2), p)

"""`penalty`: what a network's binarisers add to the loss, of modules of a user's own too, copied and compiled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from helpers.binarisers import normal
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, Scheme, penalty


class Own(nn.Module):
    """A user's module with a penalty, and one with a child of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))

    def penalty(self) -> Tensor:
        return self.w.square().sum()


def test_penalty_of_other_modules() -> None:
    odd = nn.Module()
    odd.penalty = nn.Linear(2, 2)
    assert penalty(nn.Sequential(odd, nn.Linear(2, 2))) is None
    found = penalty(nn.Sequential(odd, Own(), Own()))
    assert found is not None and float(found.detach()) == 10


def test_networks_with_a_penalty_are_copied_and_pickled() -> None:
    net = nn.Sequential(BinaryConv2d(3, 4, 3, scheme=Scheme("biper", rad=2.0)))
    net(normal(2, 3, 5, 5, dtype=torch.float32))
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert penalty(other) is None and penalty(net) is not None
        assert not any("penalty" in name for name in other.state_dict())


@pytest.mark.compiles
def test_penalties_compile_to_one_graph() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = nn.Sequential(BinaryConv2d(3, 4, 3, scheme=Scheme("biper", rad=2.0)))

    def step(x: Tensor) -> Tensor:
        added = penalty(net) if (y := net(x).square().mean()) is not None else None
        assert added is not None
        return y + added

    x, results = normal(2, 3, 5, 5, dtype=torch.float32), []
    for f in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        for _ in range(2):
            net.zero_grad()
            loss = f(x)
            loss.backward()
        results.append((loss.detach(), net[0].weight.grad.clone()))
    torch.testing.assert_close(results[0], results[1])
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    net.zero_grad()
    (compiled(x).square().mean() + penalty(net)).backward()  # type: ignore[operator]
    torch.testing.assert_close(net[0].weight.grad, results[0][1])

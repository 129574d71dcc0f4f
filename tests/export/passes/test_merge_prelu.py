"""`merge_prelu` finds a PReLU that is written as several operations, and nothing else; `split_prelu` is the reverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.channels_last import SHAPE, Between, run
from torch import Tensor

from bnn_itrd.export import canonical
from bnn_itrd.export.passes.prelu import merge_prelu, split_prelu


@pytest.mark.parametrize(
    ("bent", "merged"),
    [
        (lambda x: F.relu(x) + 0.3 * x.clamp(max=0), 1),
        (lambda x: torch.minimum(x, torch.zeros(())) * -0.3 + x.clamp(min=0), 1),
        (lambda x: F.relu(x) + 0.3 * x.clamp(max=0.1), 0),
        (lambda x: F.relu(x) + 0.3 * x.clamp(-1, 0), 0),
        (lambda x: F.relu(x) + 0.3 * (x + 1).clamp(max=0), 0),
        (lambda x: F.relu(x) + x.clamp(max=0), 0),
        (lambda x: F.relu(x) + x.abs() * x.clamp(max=0), 0),
        # One channel, and a slope that makes six of it.
        (lambda x: (lambda y: F.relu(y) + torch.arange(6.0).reshape(6, 1, 1) * y.clamp(max=0))(x[:, :1]), 0),
        # A zero of more axes than x.
        (lambda x: (torch.maximum(x, torch.zeros((1,) * 5)) + 0.3 * torch.minimum(x, torch.zeros(())))[0], 0),
    ],
)
def test_a_prelu_in_parts_is_merged(bent: Callable[[Tensor], Tensor], merged: int) -> None:
    torch.manual_seed(4)
    model, x = Between(bent).eval(), torch.randn(3, *SHAPE)
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    assert merge_prelu(graph) == merged
    np.testing.assert_array_equal(run(graph, x), before)
    assert Counter(node.op_type for node in graph.graph)["PRelu"] == merged
    assert split_prelu(graph) == merged
    np.testing.assert_array_equal(run(graph, x), before)
    assert not Counter(node.op_type for node in graph.graph)["PRelu"]

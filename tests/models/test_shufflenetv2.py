"""ShuffleNetV2's unit equals its formula."""

from __future__ import annotations

import pytest
import torch
from helpers.formulas import activated, convolved, example, lively, norm, shuffled
from torch import Tensor, nn

from bnn_itrd.models import SplitUnit, shufflenet_v2


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize("index", [0, 1])
def test_split_unit_equals_its_formula(binary: str | None, index: int) -> None:
    torch.manual_seed(0)
    block = lively(shufflenet_v2(binary=binary, width=0.5)).layer2[index]
    assert isinstance(block, SplitUnit)
    x = example(2, (48, 96)[index], 4, 4)

    def pointwise(x: Tensor, parts: nn.Module, at: int) -> Tensor:
        return activated(norm(convolved(x, parts[at]), parts[at + 1]), binary)

    def depthwise(x: Tensor, parts: nn.Module, at: int) -> Tensor:
        return norm(convolved(x, parts[at]), parts[at + 1])  # no activation behind it

    if index:
        passing, x = x[:, :48], x[:, 48:]
    else:
        assert block.left is not None
        passing = pointwise(depthwise(x, block.left, 0), block.left, 2)
    y = pointwise(x, block.right, 0)
    y = pointwise(depthwise(y, block.right, 3), block.right, 5)
    expected = shuffled(torch.cat([passing, y], 1), 2)
    torch.testing.assert_close(block(example(2, (48, 96)[index], 4, 4)), expected)

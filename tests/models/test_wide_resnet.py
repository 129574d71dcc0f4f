"""The pre-activation block of wide residual networks equals its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.formulas import activated, convolved, example, lively, norm

from bnn_itrd.models import PreActivationBlock, wrn_16_2


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize("per_conv", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_pre_activation_block_equals_its_formula(binary: str | None, per_conv: bool, first: bool) -> None:
    torch.manual_seed(0)
    block = lively(wrn_16_2(binary=binary, per_conv=per_conv)).layer2[0 if first else 1]
    assert isinstance(block, PreActivationBlock)
    x = example(2, 32 if first else 64, 6, 6)
    a = activated(norm(x, block.bn1), binary)
    if not first:
        kept = x
    elif binary is None:
        kept = F.conv2d(a, block.shortcut.weight, stride=2)
    else:
        kept = F.pad(F.avg_pool2d(a, 2), (0, 0, 0, 0, 16, 16))
    y = convolved(a, block.conv1)
    if per_conv:
        y = kept = y + kept
    expected = convolved(activated(norm(y, block.bn2), binary), block.conv2) + kept
    torch.testing.assert_close(block(x), expected)

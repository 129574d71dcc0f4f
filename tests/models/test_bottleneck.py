"""The bottleneck block of ResNet-50 equals its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.formulas import activated, convolved, example, lively, norm

from bnn_itrd.models import Bottleneck, resnet50


@pytest.mark.parametrize("binary", [None, "recu"])
def test_bottleneck_equals_its_formula(binary: str | None) -> None:
    torch.manual_seed(0)
    block = lively(resnet50(binary=binary, width=0.125)).layer2[0]
    assert isinstance(block, Bottleneck)
    x = example(2, 32, 6, 6)
    y = activated(norm(convolved(x, block.conv1), block.bn1), binary)
    y = activated(norm(convolved(y, block.conv2), block.bn2), binary)
    y = norm(convolved(y, block.conv3), block.bn3)
    if binary is None:
        kept = norm(F.conv2d(x, block.shortcut[0].weight, stride=2), block.shortcut[1])
    else:
        kept = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 16, 16))
    assert block.conv2.stride == (2, 2) and y.shape == (2, 64, 3, 3)
    torch.testing.assert_close(block(x), activated(y + kept, binary))

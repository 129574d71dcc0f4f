"""The inverted residual of MobileNetV2 equals its formula."""

from __future__ import annotations

import pytest
import torch
from helpers.formulas import activated, convolved, example, lively, norm

from bnn_itrd.models import MODELS, InvertedResidual


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize("index", [0, 1])
def test_inverted_residual_equals_its_formula(binary: str | None, index: int) -> None:
    torch.manual_seed(0)
    block = lively(MODELS["mobilenet_v2_half"](binary=binary)).layer2[0][index]
    assert isinstance(block, InvertedResidual)
    x = example(2, (12, 16)[index], 6, 6)
    y = activated(norm(convolved(x, block.conv1), block.bn1), binary)
    y = activated(norm(convolved(y, block.conv2), block.bn2), binary)
    y = norm(convolved(y, block.conv3), block.bn3)
    assert block.conv1.out_channels == block.conv2.groups == 6 * x.shape[1]
    torch.testing.assert_close(block(x), x + y if index else y)

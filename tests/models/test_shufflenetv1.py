"""ShuffleNetV1's unit equals its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.formulas import activated, convolved, example, lively, norm, shuffled

from bnn_itrd.models import MODELS, ShuffleUnit


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize(("stage", "index"), [("layer1", 0), ("layer2", 0), ("layer2", 1)])
def test_shuffle_unit_equals_its_formula(binary: str | None, stage: str, index: int) -> None:
    torch.manual_seed(0)
    block = lively(MODELS["shufflenet_v1"](binary=binary)).get_submodule(stage)[index]
    assert isinstance(block, ShuffleUnit)
    x = example(2, {("layer1", 0): 24, ("layer2", 0): 240, ("layer2", 1): 480}[stage, index], 4, 4)
    groups = 1 if stage == "layer1" else 3
    y = shuffled(activated(norm(convolved(x, block.conv1), block.bn1), binary), groups)
    y = activated(norm(convolved(y, block.conv2), block.bn2), binary)
    y = norm(convolved(y, block.conv3), block.bn3)
    y = y + x if index else torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1)
    assert (block.conv1.groups, block.conv3.groups) == (groups, 3)
    torch.testing.assert_close(block(x), activated(y, binary))

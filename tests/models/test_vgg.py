"""VGG equals its formula, and pools once more for larger images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.formulas import activated, convolved, example, lively, norm

from bnn_itrd.models import observe, vgg8


@pytest.mark.parametrize("binary", [None, "recu"])
def test_vgg_equals_its_formula(binary: str | None) -> None:
    torch.manual_seed(0)
    model = lively(vgg8(5, binary=binary, width=0.125, input_shape=(3, 16, 16)))
    x = images = example(2, 3, 16, 16)
    for i in range(1, 6):
        conv, bn, _ = getattr(model, f"block{i}")
        assert (conv.bias is not None) == (binary is None)  # published with biases, which a BatchNorm makes idle
        x = activated(norm(convolved(x, conv), bn), binary)
        if i <= 3:
            x = F.max_pool2d(x, 2)
            if binary is not None:  # centred again, or nearly every sign would be +1
                x = activated(norm(x, getattr(model, f"pool{i}")[1]), binary)
    torch.testing.assert_close(model(images), model.linear(x.mean((2, 3))))


def test_vgg_pools_once_more_from_64_pixels_on() -> None:
    with torch.device("meta"):
        out = observe(vgg8(input_shape=(3, 64, 64)).eval())(torch.empty(1, 3, 64, 64))
    assert [s.shape[2] for s in out.stages] == [32, 16, 8, 4]

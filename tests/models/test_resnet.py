"""Residual networks: the published binary forms, the block's formula, shortcuts of option A and of pooling."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnn_itrd.models import BasicBlock, PadShortcut, resnet18, resnet20
from bnn_itrd.quant import BinaryConv2d


def test_binary_resnet18_is_the_published_form() -> None:
    model = resnet18(binary="recu")
    assert isinstance(model.act1, nn.Identity)  # no activation after the stem
    assert isinstance(model.norm, nn.BatchNorm1d)
    assert sum(isinstance(m, BinaryConv2d) for m in model.modules()) == 16
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock)]
    assert all(not b.per_conv and isinstance(b.act1, nn.Hardtanh) for b in blocks)
    down = [b.shortcut for b in blocks if not isinstance(b.shortcut, nn.Identity)]
    assert len(down) == 3 and all(isinstance(s, PadShortcut) and s.pool is not None for s in down)
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())


def test_binary_resnet20_has_a_shortcut_per_convolution_and_a_stem_activation() -> None:
    model = resnet20(binary="recu")
    assert isinstance(model.act1, nn.Hardtanh)
    assert all(m.per_conv for m in model.modules() if isinstance(m, BasicBlock))
    assert not any(m.per_conv for m in resnet20(binary="recu", per_conv=False).modules() if isinstance(m, BasicBlock))


@pytest.mark.parametrize("per_conv", [False, True])
def test_block_equals_its_formula(per_conv: bool) -> None:
    torch.manual_seed(0)
    model = resnet18(binary="recu", per_conv=per_conv).eval()
    block = model.layer2[0]
    x = torch.randn(2, 64, 8, 8)
    shortcut = torch.cat([torch.zeros(2, 32, 4, 4), torch.nn.functional.avg_pool2d(x, 2), torch.zeros(2, 32, 4, 4)], 1)
    first = block.bn1(block.conv1(x))
    if per_conv:
        middle = (first + shortcut).clamp(-1, 1)
        expected = (block.bn2(block.conv2(middle)) + middle).clamp(-1, 1)
    else:
        expected = (block.bn2(block.conv2(first.clamp(-1, 1))) + shortcut).clamp(-1, 1)
    torch.testing.assert_close(block(x), expected)


def test_option_a_shortcut_takes_every_second_pixel() -> None:
    x = torch.randn(1, 4, 5, 5)
    y = PadShortcut(4, 8, 2, pool=False)(x)
    assert y.shape == (1, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2]) and not y[:, :2].any() and not y[:, 6:].any()


@pytest.mark.compiles
def test_pooling_shortcut_is_the_same_compiled() -> None:
    torch.manual_seed(0)
    module, x = PadShortcut(3, 8, 2, pool=True), torch.randn(2, 3, 6, 4, requires_grad=True)
    y = module(x)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    z = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    (again,) = torch.autograd.grad(z.square().sum(), x)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(again, grad)

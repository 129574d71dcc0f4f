"""Small networks that FINN can map to an FPGA, with values as after a training."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.export.fpga import QonnxAgreement
from bnn_itrd.models import ResNet, vgg_small
from bnn_itrd.models.blocks import Style
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, BinaryWeight, IntegerQuantizer, Scheme, WeightBinarizer, sign

READY: dict[str, Any] = {"binary": "recu", "padding_value": -1, "residual_bits": 4, "first_last_bits": 8}
SHAPE = (3, 8, 8)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trained(model: Any, seed: int = 0) -> Any:
    """Gives a network random statistics and scales, some of them negative; returns it in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.3, generator=generator)
            if isinstance(module, BinaryConv2d) and hasattr(module.weight_binarizer, "alpha"):
                module.weight_binarizer.alpha.normal_(generator=generator)
            if isinstance(module, IntegerQuantizer):
                module.log_gain.fill_(0.1)
    return model.eval()


def small(*, classes: int = 5, **options: Any) -> ResNet:
    """Returns a ResNet with two stages of one block, quick to trace, with every kind of node that a larger one has."""
    torch.manual_seed(0)
    style = Style(
        scheme=Scheme("recu", "recu"),
        shortcut=options.pop("shortcut", "binary"),
        per_conv=options.pop("per_conv", False),
        float_downsample=False,
        **{"padding_value": -1, "residual_bits": 4, "first_last_bits": 8} | options,
    )
    return ResNet(
        (4, 8), (1, 1), num_classes=classes, input_shape=SHAPE, style=style, stem_activation=False, norm_head=True
    )


def small_vgg(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return vgg_small(4, binary="recu", padding_value=-1, input_shape=SHAPE, **options)


def assert_agrees(result: QonnxAgreement, *, median: float = 1e-4) -> None:
    """Asserts that 99 % of the images (all but one, if there are few) get the same class."""
    found = result.agreement
    assert len(found.disagreements) <= max(1, 0.01 * found.images) and found.median_difference <= median


class Offset(WeightBinarizer):
    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), torch.linspace(-1, 1, len(weight)), torch.linspace(0.1, 0.3, len(weight)))


class Mixed(nn.Module):
    """A network with offsets, biases, groups, padding with +1, a binary linear layer, and a mean over two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.a = BinaryConv2d(8, 8, 3, padding=1, groups=2, bias=True, padding_value=1)
        self.b = BinaryConv2d(8, 12, 3, padding=(0, 1), scheme="xnor")
        self.b.weight_binarizer = Offset(12)
        self.c = BinaryLinear(12, 6, bias=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardtanh(self.b(self.a(self.stem(x))))
        return self.head(self.c(y.mean((2, 3)) - 0.1))

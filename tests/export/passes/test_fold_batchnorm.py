"""`fold_batchnorm` and `fold_batchnorm_into_next` fold BatchNorm into the layer before or after it."""

from __future__ import annotations

import pytest
from helpers.exported import with_parts
from helpers.passes import Fork, PassCase, check_pass
from torch import nn

from bnn_itrd.export.passes.batchnorm import fold_batchnorm, fold_batchnorm_into_next
from bnn_itrd.quant import BinaryConv2d, BinaryLinear

PASS_CASES: dict[str, PassCase] = {
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "linear": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.BatchNorm1d(5)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "binary": (
        lambda: nn.Sequential(with_parts(BinaryConv2d(3, 6, 3, bias=True, padding=1), offset=True), nn.BatchNorm2d(6)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "binary_linear": (
        lambda: nn.Sequential(nn.Flatten(), BinaryLinear(108, 5, bias=True), nn.BatchNorm1d(5)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "not_across_maxpool": (
        lambda: nn.Sequential(BinaryConv2d(3, 6, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(6)),
        fold_batchnorm,
        0,
        "",
    ),
    "not_where_others_read": (lambda: Fork(), fold_batchnorm, 0, ""),
    "into_next": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108), nn.Linear(108, 5)),
        fold_batchnorm_into_next,
        1,
        "BatchNormalization",
    ),
    "into_next_only_adjacent": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108), nn.ReLU(), nn.Linear(108, 5)),
        fold_batchnorm_into_next,
        0,
        "",
    ),
}


@pytest.mark.parametrize("name", PASS_CASES)
def test_pass(name: str) -> None:
    check_pass(PASS_CASES[name])

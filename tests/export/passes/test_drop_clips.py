"""`drop_clips` removes a Hardtanh that only a sign reads, because it does not change the sign."""

from __future__ import annotations

import pytest
from helpers.passes import Fork, PassCase, check_pass
from torch import nn

from bnn_itrd.export.passes.clips import drop_clips
from bnn_itrd.quant import BinaryConv2d

PASS_CASES: dict[str, PassCase] = {
    "clip": (lambda: nn.Sequential(nn.Hardtanh(), BinaryConv2d(3, 4, 3)), drop_clips, 1, "Clip"),
    "clip_others_read": (lambda: Fork(clip=True), drop_clips, 0, ""),
    "clip_of_one_sign": (lambda: nn.Sequential(nn.ReLU6(), BinaryConv2d(3, 4, 3)), drop_clips, 0, ""),
}


@pytest.mark.parametrize("name", PASS_CASES)
def test_pass(name: str) -> None:
    check_pass(PASS_CASES[name])

"""Networks that cannot be exported are refused; the message names the module that is the cause and what to do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical, to_onnx
from bnn_itrd.quant import BinaryConv2d


class Svd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x, full_matrices=False)[1].flatten(1)


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such thing")


class AnyNumber(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        return xs[0].flatten(1)


def test_a_forward_that_takes_any_number_of_tensors() -> None:
    with pytest.raises(ExportError, match=r"^AnyNumber has the signature forward\(\*xs.*forward\(self, x\)"):
        canonical(AnyNumber(), input_shape=(3, 8, 8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["2.weight", "2.weight_binarizer.alpha", "1.running_var", "4.bias"])
def test_weights_that_are_not_finite(name: str, value: float, tiny: nn.Module) -> None:
    """A NaN in a latent weight would be exported as -1 without an error."""
    model = copy.deepcopy(tiny)
    model.state_dict()[name].view(-1)[1] = value
    with pytest.raises(ExportError, match=rf"^{name} holds values that are not finite"):
        canonical(model)


def test_a_mask_of_minus_infinity_is_no_broken_weight() -> None:
    model: Any = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    assert canonical(model, input_shape=(3, 2, 2)).graph.outputs


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Svd, r"body\.0\.1 \(Svd\) uses aten\._linalg_svd, which ONNX does not have: replace it"),
        (Decides, r"body\.0\.1 \(Decides\) branches on the values.*torch\.where"),
        (FixedBatch, r"fixes the batch size: reshape with -1"),
        (Breaks, r"body\.0\.1 \(Breaks\) does not run on an input of shape \(2, 3, 8, 8\): no such thing"),
    ],
)
def test_networks_that_cannot_be_exported(part: type[nn.Module], message: str, tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Sequential(BinaryConv2d(3, 4, 3), part())))
    file = tmp_path / "model.onnx"
    file.write_bytes(b"what was here before")
    with pytest.raises(ExportError, match=message):
        to_onnx(model, file, input_shape=(3, 8, 8))
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]

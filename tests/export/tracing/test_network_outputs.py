"""The logits are found in whatever a network returns; a network with outputs that would be lost is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.exported import assert_same_function, images, randomised
from torch import Tensor, nn

from bnn_itrd.export import ExportError, predict_model, session, to_onnx
from bnn_itrd.quant import BinaryLinear


class Auxiliary(nn.Module):
    """A network with a second head that only training uses, and a layer whose result is not used."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardtanh(), nn.Flatten())
        self.hidden, self.unused = BinaryLinear(128, 16), BinaryLinear(128, 4, bias=True)
        self.head, self.auxiliary = BinaryLinear(16, 4, bias=True), BinaryLinear(128, 4, bias=True)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        self.unused(x)
        auxiliary = self.auxiliary(x)
        if self.shared:
            auxiliary = auxiliary + self.head(self.hidden(-x))
        logits: Tensor = self.head(self.hidden(x))
        return (logits, auxiliary) if self.training else logits


@pytest.mark.compiles
def test_layers_the_logits_do_not_need(folder: Path) -> None:
    torch.manual_seed(13)
    model = randomised(Auxiliary())
    file = to_onnx(model, folder / "auxiliary.onnx", input_shape=(3, 8, 8))
    assert len(session(file).get_outputs()) == 1
    assert_same_function(model, file, (3, 8, 8))


def test_a_layer_the_logits_need_of_one_call_only(tmp_path: Path) -> None:
    torch.manual_seed(13)
    with pytest.raises(ExportError, match=r"^hidden: the network calls this layer more often than .* \(1 of"):
        to_onnx(randomised(Auxiliary(shared=True)), tmp_path / "model.onnx", input_shape=(3, 8, 8))
    assert not list(tmp_path.iterdir())


class Returning(nn.Module):
    """A network with two heads, which returns what a given function makes of their logits."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.one, self.two, self.make = nn.Linear(12, 3), nn.Linear(12, 5), make

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)
        return self.make(self.one(x), self.two(x))


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda a, b: (a, b),
            r"returns 2 tensors \(output\[0\] \(2, 3\), output\[1\] \(2, 5\)\).*self.network\(x\)\[0\]",
        ),
        (
            lambda a, b: {"out": a, "aux": [b, a]},
            r"returns 3 tensors .*output\['aux'\]\[1\].*self.network\(x\)\['out'\]",
        ),
        (lambda a, b: {"loss": None, "losses": ()}, "returns dict, with no tensor to take for logits"),
    ],
)
def test_outputs_a_file_would_drop_are_refused(
    make: Callable[[Tensor, Tensor], Any], message: str, tmp_path: Path
) -> None:
    model, shape = Returning(make).eval(), (3, 2, 2)
    with pytest.raises(ExportError, match=message):
        to_onnx(model, tmp_path / "model.onnx", input_shape=shape)
    with pytest.raises(ExportError, match=message):
        predict_model(model, images(2, shape))
    assert not list(tmp_path.iterdir())


@pytest.mark.compiles
@pytest.mark.parametrize("make", [lambda a, b: (a,), lambda a, b: {"features": None, "heads": [b]}])
def test_one_tensor_is_found_wherever_it_is(make: Callable[[Tensor, Tensor], Any], tmp_path: Path) -> None:
    model, shape = Returning(make).eval(), (3, 2, 2)
    assert_same_function(model, to_onnx(model, tmp_path / "model.onnx", input_shape=shape), shape)

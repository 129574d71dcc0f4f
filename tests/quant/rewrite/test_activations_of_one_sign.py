"""A binary layer behind an activation of one sign: replaced, or warned about."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.rewritten import binary_inputs, block, conv, images, quietly, reasons, small
from torch import Tensor, nn

from bnn_itrd.quant import binarize

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles


@pytest.mark.parametrize(
    "activation",
    [
        nn.Sigmoid(),
        nn.Softplus(),
        nn.Sequential(nn.Sigmoid(), nn.MaxPool2d(2), nn.Dropout(0.1)),
        nn.Softmax2d(),
        nn.Threshold(0, 0),
        nn.Hardtanh(0, 1),
        nn.Hardtanh(0.5, 1),
    ],
    ids=lambda m: type(m).__name__,
)
def test_other_activations_of_one_sign_are_warned_about(activation: nn.Module) -> None:
    binary, report = binarize(small(conv(8, 8), nn.BatchNorm2d(8), activation, conv(8, 8)))
    where = "5.0" if isinstance(activation, nn.Sequential) else "5"
    assert report.warnings == [f"6 reads {where}, whose values all have the same sign"]
    assert f"warning: {report.warnings[0]}" in str(report)
    assert type(binary.get_submodule(where)) is type(activation[0] if where == "5.0" else activation)  # type: ignore[index]


class Applied(nn.Module):
    """stem, BatchNorm, a function, a binary layer, head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.bn, self.body, self.fc = conv(3, 8), nn.BatchNorm2d(8), conv(8, 8), nn.Linear(8, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.function(self.bn(self.stem(x)))).mean((2, 3)))


FUNCTIONS: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda x: x.clamp(min=0), "clamp"),
    (lambda x: x.clamp(0, 1), "clamp"),
    (lambda x: torch.clamp(x, 0.5), "clamp"),
    (lambda x: x.clamp_(min=0), "clamp_"),
    (lambda x: x.clip(0), "clip"),
    (lambda x: x.clamp_min(0), "clamp_min"),
    (lambda x: torch.clamp_min(x, min=1), "clamp_min"),
    (lambda x: F.hardtanh(x, 0, 6), "hardtanh"),
    (lambda x: F.hardtanh(x, min_val=0.0), "hardtanh"),
    (lambda x: F.threshold(x, 0, 0), "_threshold"),
    (lambda x: x**2, "pow_1"),
    (lambda x: x.pow(4), "pow_1"),
    (lambda x: torch.pow(x, exponent=2), "pow_1"),
    (lambda x: x.clamp(-1, 1), ""),
    (lambda x: x.clamp(max=0.5), ""),
    (lambda x: x.clamp(None, 0.5), ""),
    (lambda x: F.hardtanh(x), ""),
    (lambda x: F.threshold(x, 0, -1), ""),
    (lambda x: F.threshold(x, -1, 0), ""),
    (lambda x: x**3, ""),
    (lambda x: x.pow(1), ""),
]


@pytest.mark.parametrize(("function", "name"), FUNCTIONS)
def test_functions_of_one_sign_are_warned_about(function: Callable[[Tensor], Tensor], name: str) -> None:
    binary, report = binarize(Applied(function))
    seen = binary_inputs(binary, images(4, 12))["body"]
    assert (seen.min() >= 0) == bool(name)
    assert report.warnings == ([f"body reads {name}(), whose values all have the same sign"] if name else [])


def test_activations_of_both_signs_and_those_behind_a_norm_are_fine() -> None:
    binary, report = binarize(
        small(conv(8, 8), nn.ELU(), conv(8, 8), nn.Hardtanh(), conv(8, 8), nn.Sigmoid(), nn.BatchNorm2d(8), conv(8, 8))
    )
    assert not report.warnings
    assert isinstance(binary.get_submodule("4"), nn.ELU)


def test_relu_in_front_of_a_relu() -> None:
    _, report = binarize(small(nn.ReLU(), nn.MaxPool2d(2), nn.ReLU6(), conv(8, 8)))
    assert set(reasons(report, "replaced")) == {"2", "3", "5"}


def test_in_place_relu_whose_result_is_dropped() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn, self.body, self.fc = (
                conv(3, 8),
                nn.BatchNorm2d(8),
                conv(8, 8),
                nn.Linear(8, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.stem(x))
            F.relu(x, inplace=True)
            return self.fc((self.body(x) + x).mean((2, 3)))

    model = Dropped().eval()
    binary, report = binarize(model)
    assert reasons(report, "replaced") == {"relu()": "hardtanh: feeds body"}
    x = binary_inputs(binary, images(2, 8))["body"]
    assert x.min() < 0 and x.min() >= -1 and x.max() <= 1
    same, _ = quietly(model, keep=["body"])
    assert torch.equal(same(images(2, 8)), model(images(2, 8)))


def test_a_relu_that_feeds_only_kept_layers_stays() -> None:
    binary, report = binarize(small(*block(8, 8), *block(8, 8)), keep=["6"])
    assert set(reasons(report, "replaced")) == {"2"}
    assert {"5", "8"} < set(reasons(report, "kept"))
    assert isinstance(binary.get_submodule("5"), nn.ReLU)

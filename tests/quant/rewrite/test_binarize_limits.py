"""`binarize` where there is nothing to do or nothing possible; what it returns, refuses and reports."""

from __future__ import annotations

import pytest
import torch
from helpers.rewritten import binary_layers, block, conv, images, quietly, reasons, small
from torch import Tensor, nn

from bnn_itrd.quant import Scheme, binarize

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x) if x.mean() > 0 else x


def test_untraceable_network() -> None:
    model = Branching().eval()
    with pytest.warns(
        UserWarning, match="nothing was binarised, because torch.fx cannot trace Branching: .*BinaryConv2d"
    ):
        same, report = binarize(model)
    assert not report.traced and report.reason and not report.changes
    assert "nothing changed, because torch.fx cannot trace the network" in str(report) and "torch.fx" in str(report)
    assert type(same) is Branching and same is not model and not same.training
    assert torch.equal(same(images(1, 8)), model(images(1, 8)))


@pytest.mark.parametrize("model", [nn.Sequential(conv(3, 4), nn.ReLU()), nn.Linear(3, 2), nn.Identity()], ids=str)
def test_nothing_to_do(model: nn.Module) -> None:
    with pytest.warns(UserWarning, match="nothing in .* was binarised"):
        same, report = binarize(model)
    assert report.traced and not reasons(report, "binarised") and report.binary_weights == 0
    x = torch.randn(2, 3) if isinstance(model, nn.Linear) else images(2, 8)
    assert torch.equal(same(x), model(x))


def test_twice_is_as_good_as_once() -> None:
    once, _ = binarize(small(*block(8, 8), *block(8, 8)).eval())
    twice, report = quietly(once)
    assert {p: c for p, c in reasons(report, "kept").items() if p in ("3", "6")} == {
        "3": "already binary",
        "6": "already binary",
    }
    assert torch.equal(twice(images(2, 8)), once(images(2, 8)))


def test_a_frozen_network_becomes_a_trainable_copy() -> None:
    """A teacher is frozen, often: a student made of it must learn all the same, and the teacher stays as it is."""
    model = small(*block(8, 8)).requires_grad_(False)
    binary, report = binarize(model)
    assert all(p.requires_grad for p in binary.parameters()) and not any(p.requires_grad for p in model.parameters())
    said = "frozen in the network (requires_grad False), trainable in this copy: "
    assert report.warnings == [f"{said}10 parameters, 0.weight, 0.bias, 1.weight, ..."]
    model.requires_grad_(True)[3].weight.requires_grad_(False)
    binary, report = binarize(model)
    assert binary_layers(binary)["3"].weight.requires_grad
    assert report.warnings == [f"{said}1 parameters, 3.weight"]


def test_dtype_and_device_are_those_of_the_network() -> None:
    model = small(*block(8, 8)).double()
    layer = binary_layers(binarize(model).model)["3"]
    assert layer.weight.dtype == torch.float64
    assert {t.dtype for t in layer.state_dict().values()} == {torch.float64}


def test_the_scheme_reaches_the_layers() -> None:
    scheme = Scheme("xnor", "polynomial")
    binary, report = binarize(small(*block(8, 8)), scheme, padding_value=-1)
    layer = binary_layers(binary)["3"]
    assert layer.scheme is scheme and layer.padding_value == -1
    assert reasons(report, "binarised")["3"] == "xnor weights, polynomial activations"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "reku"}, "unknown scheme 'reku'.*did you mean 'recu'"),
        ({"padding_value": 2}, "padding_value must be -1, 0 or 1, got 2"),
        ({"keep": "9x"}, "keep must name submodules of Sequential, got '9x'"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binarize(small(), **options)


def test_report_is_an_aligned_table() -> None:
    _, report = binarize(small(*block(8, 8)))
    lines = str(report).splitlines()
    assert lines == [
        "path  kind    action     reason",
        "0     Conv2d  kept       the first layer",
        "2     ReLU    replaced   hardtanh: feeds 3",
        "3     Conv2d  binarised  recu weights, recu activations",
        "5     ReLU    kept       feeds no binary layer",
        "8     Linear  kept       the last layer",
        "1 binarised, 1 replaced, 3 kept; binary weights: 576 of 832 (69.2%)",
        "verdict: fit: every binary layer reads values of both signs and has a norm behind it",
    ]

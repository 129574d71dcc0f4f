"""Which layers their place in the network keeps in full precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from bnn_itrd.quant import binarize


def conv(i: int, o: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, kernel, padding=kernel // 2, **options)


def actions(model: nn.Module, **options: Any) -> dict[str, str]:
    """What becomes of each layer, in the order of execution."""
    report = binarize(model, **options).report
    layers = ("Conv2d", "Linear", "linear", "conv2d", "einsum", "MultiheadAttention")
    return {c.path: f"{c.action}: {c.reason}" for c in report.changes if c.kind in layers}


def kept(model: nn.Module, **options: Any) -> dict[str, str]:
    found = actions(model, **options).items()
    return {path: why.removeprefix("kept: ") for path, why in found if why.startswith("kept")}


# ---- outputs


def test_every_output_of_deeplab_is_kept() -> None:
    """torchvision gives the auxiliary classifier's output beside the main one's, both enlarged."""
    with torch.device("meta"):
        model = torchvision.models.segmentation.deeplabv3_resnet50(
            weights=None, weights_backbone=None, aux_loss=True, num_classes=5
        )
    found = kept(model)
    assert found["classifier.4"] == found["aux_classifier.4"] == "gives an output"
    assert [path for path, why in found.items() if why == "gives an output"] == ["classifier.4", "aux_classifier.4"]
    assert "classifier.4" not in kept(model, keep_last=False)


class Outputs(nn.Module):
    """A stem, two layers in a row, two heads; `form` says what is given back."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem, self.a, self.b = conv(3, 4), conv(4, 4), conv(4, 4)
        self.left, self.right = conv(4, 2), conv(4, 2)
        self.norm, self.fc, self.gate = nn.BatchNorm2d(2), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        stem = self.stem(x)
        a = self.a(stem)
        b = self.b(a)
        left, right = self.left(b), self.right(b)
        return {
            "pair": lambda: (left, right),
            "dictionary": lambda: {"out": F.interpolate(left, x.shape[-2:]), "aux": [torch.sigmoid(right)]},
            "pyramid": lambda: [a, b, left],
            "sum": lambda: self.norm(left) + right,
            "choice": lambda: torch.where(right > 0, left, right),
            "halves": lambda: left.chunk(2, 1)[0],
            "sized": lambda: F.interpolate(left, right.shape[-2:]),
            "residual": lambda: stem + a + b,
            "features": lambda: (self.fc(b.mean((2, 3))), b.mean((2, 3))),
            "linear in front": lambda: left * self.gate(b.mean((2, 3))).mean(),
            "function": lambda: F.linear(b.mean((2, 3)), self.fc.weight),
            "product": lambda: torch.einsum("nc,kc->nk", b.mean((2, 3)), self.fc.weight),
        }[self.form]()


@pytest.mark.parametrize(
    ("form", "outputs"),
    [
        ("pair", {"left", "right"}),
        ("dictionary", {"left", "right"}),
        ("pyramid", {"a", "b", "left"}),
        ("sum", {"left", "right"}),
        ("choice", {"left", "right"}),
        ("halves", {"left"}),
        ("sized", {"left"}),
        ("residual", {"b"}),
        ("features", {"fc", "b"}),
        ("linear in front", {"left", "gate"}),
        ("function", set()),
        ("product", set()),
    ],
)
def test_every_layer_whose_value_reaches_an_output_with_no_layer_behind_it_is_kept(
    form: str, outputs: set[str]
) -> None:
    found = actions(Outputs(form))
    said = "kept: the last layer" if len(outputs) == 1 else "kept: gives an output"
    assert {path for path, why in found.items() if why == said} == outputs
    assert found["stem"] == "kept: the first layer"
    if form in ("function", "product"):
        assert found["b"].startswith("binarised"), "the product with a weight is the output, and it is no module"


def test_a_layer_behind_which_attention_comes_is_no_output() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.body = nn.Linear(8, 8), nn.Linear(8, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(self.first(x))
            return self.attention(x, x, x)[0]

    assert actions(Attending())["body"].startswith("binarised")


# ---- inputs


def test_every_layer_that_reads_the_input_is_kept() -> None:
    class Both(nn.Module):
        """An image and a row of numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.row, self.fc = conv(3, 4), conv(4, 4), nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, image: Tensor, row: Tensor) -> Tensor:
            return self.fc(self.body(self.stem(image)).mean((2, 3)) + self.row(row))

    assert kept(Both()) == {"stem": "the first layer", "row": "reads the network's input", "fc": "the last layer"}

"""torchvision's and timm's networks are observed as teachers."""

from __future__ import annotations

import pytest
import torch
import torchvision

from bnn_itrd.models import observe


@pytest.mark.parametrize(
    ("name", "head", "maps"),
    [
        ("resnet18", "fc", [(64, 16), (128, 8), (256, 4), (512, 2)]),
        ("resnet34", "fc", [(64, 16), (128, 8), (256, 4), (512, 2)]),
        ("vgg11_bn", "classifier.6", [(64, 64), (128, 32), (256, 16), (512, 8), (512, 4)]),
        ("mobilenet_v2", "classifier.1", [(16, 32), (24, 16), (32, 8), (96, 4), (1280, 2)]),
    ],
)
def test_torchvision_networks_are_observed(name: str, head: str, maps: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        model = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
        out = observe(model)(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(model.get_submodule(head)(out.representation), out.logits)
    assert [tuple(stage.shape) for stage in out.stages] == [(1, c, side, side) for c, side in maps]


def test_a_map_in_the_middle_is_what_the_network_computed() -> None:
    model = torchvision.models.mobilenet_v2(weights=None, num_classes=3, width_mult=0.25).eval()
    x = torch.randn(1, 3, 64, 64)
    out = observe(model)(x)
    torch.testing.assert_close(out.stages[2], model.features[:7](x))
    torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.representation)


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "resnext50_32x4d"])
def test_timm_residual_networks_are_observed(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=4).eval()
    with torch.no_grad():
        out = observe(model)(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(model.fc(out.representation), out.logits)
    assert [s.shape[2] for s in out.stages] == [16, 8, 4, 2]
    torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.representation)

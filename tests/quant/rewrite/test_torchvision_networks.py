"""torchvision's networks made binary: which layers, which stay and why, and that the result computes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers.rewritten import binary_inputs, binary_layers, calls, images, quietly, reasons
from torch import nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear, binarize

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles


def test_resnet18() -> None:
    model = torchvision.models.resnet18(weights=None)
    before = copy.deepcopy(model.state_dict())
    binary, report = binarize(model)
    layers = binary_layers(binary)
    assert set(layers) == {f"layer{s}.{b}.conv{c}" for s in (1, 2, 3, 4) for b in (0, 1) for c in (1, 2)}
    assert reasons(report, "kept") == {
        "conv1": "the first layer",
        "fc": "the last layer",
        **{f"layer{s}.0.downsample.0": "1x1 down-sampling or projection" for s in (2, 3, 4)},
        "layer4.1.relu": "feeds no binary layer",
    }
    # One ReLU module per block, called twice; the very last call feeds the classifier and stays.
    assert calls(binary, F.hardtanh) == 16
    assert len([c for c in report.changes if c.action == "replaced"]) == 16
    assert not any(isinstance(m, nn.ReLU) for path, m in binary.named_modules() if path != "layer4.1.relu")
    assert binary(images()).shape == (2, 1000)

    assert type(model) is torchvision.models.ResNet and not binary_layers(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for path, layer in layers.items():
        original = model.get_submodule(path)
        assert isinstance(original, nn.Conv2d) and isinstance(layer, BinaryConv2d)
        assert torch.equal(layer.weight, original.weight) and layer.weight is not original.weight
        assert (layer.stride, layer.padding) == (original.stride, original.padding)
    assert report.weights == sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert report.binary_weights == sum(layer.weight.numel() for layer in layers.values())


def test_resnet50_keeps_its_projections() -> None:
    """The first projection has no stride: it is known by the addition its output meets."""
    binary, report = binarize(torchvision.models.resnet50(weights=None))
    projections = {path for path in reasons(report, "kept") if "downsample" in path}
    assert projections == {f"layer{s}.0.downsample.0" for s in (1, 2, 3, 4)}
    assert len(binary_layers(binary)) == 48
    _, report = binarize(torchvision.models.resnet50(weights=None), keep_downsample=False)
    assert len(reasons(report, "binarised")) == 52


def test_vgg11() -> None:
    with torch.device("meta"):
        model = torchvision.models.vgg11(weights=None)
    binary, report = binarize(model)
    kept = reasons(report, "kept")
    assert set(kept) == {"features.0", "classifier.6", "classifier.4"}
    layers = binary_layers(binary)
    assert isinstance(layers["classifier.0"], BinaryLinear) and layers["classifier.0"].bias is not None
    assert reasons(report, "replaced")["features.19"] == "hardtanh: feeds classifier.0", "through two pools"
    assert binary(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


def test_mobilenet_v2() -> None:
    model = torchvision.models.mobilenet_v2(weights=None)
    binary, report = binarize(model, "xnor", padding_value=1)
    kept = reasons(report, "kept")
    assert [path for path, why in kept.items() if why == "depthwise"] == [
        "features.1.conv.0.0",
        *(f"features.{i}.conv.1.0" for i in range(2, 18)),
    ]
    assert set(binary_layers(binary)) == {
        "features.1.conv.1",
        *(f"features.{i}.conv.{j}" for i in range(2, 18) for j in ("0.0", "2")),
        "features.18.0",
    }
    assert {path for path, why in kept.items() if why in ("the first layer", "the last layer")} == {
        "features.0.0",
        "classifier.1",
    }
    assert binary(images()).shape == (2, 1000)
    binary, report = binarize(model, "xnor", padding_value=1, keep_depthwise=False)
    assert set(reasons(report, "kept")) == {"features.0.0", "features.18.2", "classifier.1"}
    assert [m for m in binary.modules() if isinstance(m, nn.ReLU6)] == [binary.get_submodule("features.18.2")]
    depthwise = binary_layers(binary)["features.2.conv.1.0"]
    assert isinstance(depthwise, BinaryConv2d) and depthwise.groups == depthwise.in_channels == 96
    assert depthwise.padding_value == 1
    assert binary(images()).shape == (2, 1000)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_no_binary_layer_is_starved(name: str) -> None:
    """Property: after the rewriting, no binary layer reads a map that is nowhere negative."""
    model = torchvision.models.get_model(name, weights=None, num_classes=7)
    binary, report = binarize(model)
    seen = binary_inputs(binary, images(4))
    assert set(seen) == set(reasons(report, "binarised")) != set()
    assert [path for path, x in seen.items() if x.min() >= 0 or x.max() < 0] == []
    assert not report.warnings


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "efficientnet_b0", "swin_t"])
def test_a_network_of_which_everything_is_kept_computes_the_same(name: str) -> None:
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=7, **options).eval()
    same, _ = quietly(model, keep=[path for path, _ in model.named_children()])
    assert torch.equal(same(images()), model(images()))
    assert set(same.state_dict()) == set(model.state_dict())


def test_attention_is_kept_whole() -> None:
    model = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3)
    binary, report = binarize(model)
    attention = "encoder.layers.encoder_layer_0.self_attention"
    assert reasons(report, "kept")[f"{attention}.out_proj"].startswith(f"inside {attention} (MultiheadAttention)")
    assert isinstance(binary.get_submodule(attention), nn.MultiheadAttention)
    assert "encoder.layers.encoder_layer_0.mlp.0" in binary_layers(binary)
    assert binary(images(2, 32)).shape == (2, 3)


def test_other_modes_that_differ_are_not_followed() -> None:
    """GoogLeNet returns its auxiliary heads in training only."""
    model = torchvision.models.googlenet(weights=None, init_weights=False)
    with pytest.warns(UserWarning, match="other steps in training than in evaluation"):
        _, report = binarize(model)
    assert not report.traced

"""`summary`: parameters, bits, float and binary MACs, counted by hand, of any layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from helpers.networks import parameters
from torch import Tensor, nn

from bnn_itrd.models import resnet18, resnet20, summary
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, BinaryWeight, WeightBinarizer, sign


def test_summary_counts_by_hand() -> None:
    result = summary(resnet20(binary="recu"))
    assert result.parameters == 270_522
    # 18 binary convolutions; a down-sampling one has half the inputs of its stage's others
    stage = 16 * 16 * 9 * 32 * 32
    assert result.binary_macs == 6 * stage + 2 * (stage // 2 + 5 * stage)
    assert result.float_macs == 3 * 16 * 9 * 32 * 32 + 640
    assert result.kept_float == ("conv1", "linear")
    by_path = {layer.path: layer for layer in result.layers}
    conv = by_path["layer1.0.conv1"]
    assert (conv.weight_bits, conv.activation_bits, conv.bytes) == (1, 1, 16 * 16 * 9 // 8 + 4 * 16)
    assert by_path["bn1"].bytes == 8 * 16
    assert sum(layer.parameters for layer in result.layers) == result.parameters
    text = str(result)
    assert "270,522" in text and f"{result.compression:.1f}x smaller" in text


def test_summary_of_the_headline_network() -> None:
    assert summary(resnet18(binary="recu")).compression > 30
    teacher = summary(resnet18())
    assert teacher.binary_macs == 0 and teacher.float_macs == 555_422_720


def tiny_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(16, 8, 2, 2, 12, 24, num_classes=3)


def weight_normed() -> nn.Module:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(256, 5))
    return nn.Sequential(conv, nn.Flatten(), linear)


class Scaled(nn.Module):
    """A parameter of its own, tied weights, a layer nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(192))
        self.up, self.down = nn.Linear(192, 192), nn.Linear(192, 192, bias=False)
        self.down.weight = self.up.weight
        self.unused = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x.flatten(1) * self.scale))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[:, 0])[0][:, -1])


# 4 patches of 8x8 and the class token; per block: 4 projections, 2 products over 5 keys, 2 layers of the MLP
VIT_MACS = 4 * 3 * 64 * 12 + 2 * (4 * 5 * 12 * 12 + 2 * 5 * 5 * 12 + 2 * 5 * 12 * 24) + 12 * 3


@pytest.mark.parametrize(
    ("build", "shape", "macs"),
    [
        (tiny_vit, (3, 16, 16), VIT_MACS),
        (weight_normed, (3, 8, 8), 4 * 3 * 9 * 64 + 256 * 5),
        (Scaled, (3, 8, 8), 2 * 192 * 192),
        (Recurrent, (1, 8, 8), 12),
    ],
)
def test_summary_misses_no_parameter(build: Callable[[], nn.Module], shape: tuple[int, ...], macs: int) -> None:
    model = build()
    result = summary(model, shape)
    assert result.parameters == parameters(model) == sum(layer.parameters for layer in result.layers)
    assert result.float_macs == macs and result.binary_macs == 0
    assert result.compression == pytest.approx(1, abs=0.01)
    paths = [layer.path for layer in result.layers]
    assert len(set(paths)) == len(paths) and not any("parametrizations" in p or "out_proj" in p for p in paths)


def test_summary_of_a_computed_weight_is_its_result() -> None:
    """weight_norm keeps a length per output beside the direction; the file holds their product."""
    conv, linear = summary(weight_normed(), (3, 8, 8)).layers
    assert (conv.parameters, conv.bytes) == (4 * 27 + 4 + 4, 4 * (4 * 27 + 4))
    assert (linear.parameters, linear.bytes) == (5 * 256 + 5 + 5, 4 * (5 * 256 + 5))


def test_summary_of_attention_with_other_keys() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_zero_attn=True)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = x.new_zeros(3, 2, 8), x.new_zeros(5, 2, 4), x.new_zeros(5, 2, 6)
            return self.attention(value=value, key=key, query=query, need_weights=False)[0]

    # 3 queries and 5 keys, two of each; a zero key is added.
    assert summary(Cross(), (1,)).float_macs == 2 * (3 * 8 * 8 * 2 + 5 * 4 * 8 + 5 * 6 * 8 + 2 * 3 * 6 * 8)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        # every input pixel meets the whole kernel; 6x6 -> 13x13 and 12x12
        (nn.ConvTranspose2d(4, 6, 3, stride=2), 36 * 4 * 6 * 9),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2), 36 * 4 * 3 * 16),
        (nn.Conv2d(4, 6, 3, groups=2), 16 * 6 * 2 * 9),
    ],
)
def test_summary_of_convolutions(layer: nn.Module, macs: int) -> None:
    assert summary(layer, (4, 6, 6)).float_macs == macs


def test_summary_of_a_normalisation_without_parameters() -> None:
    (layer,) = summary(nn.BatchNorm2d(6, affine=False), (6, 4, 4)).layers
    assert (layer.parameters, layer.bytes, layer.output_shape) == (0, 48, (6, 4, 4))


def test_summary_of_a_network_without_parameters() -> None:
    result = summary(nn.ReLU(), (3, 4, 4))
    assert result.layers == () and result.compression == 1
    assert "nothing" in str(result)


class Shifted(WeightBinarizer):
    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), torch.ones(len(weight)), torch.ones(len(weight)))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_summary_of_an_offset(groups: int) -> None:
    """A group's channels share the sum of their window; all groups' windows are 4 channels of 3x3."""
    conv = BinaryConv2d(4, 8, 3, groups=groups)
    conv.weight_binarizer = Shifted(8)
    (layer,) = summary(conv, (4, 6, 6)).layers
    assert layer.float_macs == 16 * 4 * 9 and layer.binary_macs == 16 * 8 * 4 * 9 // groups
    assert layer.bytes == 8 * 4 * 9 // groups // 8 + 4 * 16


def test_summary_of_a_binary_layer_alone() -> None:
    (layer,) = summary(BinaryLinear(16, 3, bias=True), (16,)).layers
    assert (layer.kind, layer.parameters, layer.bytes) == ("BinaryLinear", 16 * 3 + 3 + 3, 6 + 4 * 6)


def test_summary_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="give input_shape"):
        summary(nn.Linear(3, 2))
    assert summary(nn.Linear(3, 2), (3,)).float_macs == 6

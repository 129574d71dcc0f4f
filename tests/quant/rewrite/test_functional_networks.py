"""A user's own network made binary: functions, modes, attributes, hooks and state are carried over."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers.rewritten import binary_inputs, binary_layers, block, conv, images, quietly, reasons, small
from torch import Tensor, nn

from bnn_itrd.quant import binarize, set_progress

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles


class Functional(nn.Module):
    """Functional ReLUs of every spelling, functional dropout and pooling, one ReLU module at three places."""

    version = "a"

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 12, 12)
        self.conv1, self.conv2, self.conv3 = conv(3, 4), conv(4, 8), conv(8, 8)
        self.conv4, self.conv5 = conv(16, 8, 1), conv(8, 8)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(4), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.bn4, self.bn5 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.hidden, self.fc = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = torch.relu(self.bn2(self.conv2(x)))
        y = self.bn3(self.conv3(x)).relu_()
        x = self.bn4(self.conv4(torch.cat([x, y], 1)))
        first, second = self.relu(x).chunk(2, 1)
        x = self.relu(self.bn5(self.conv5(torch.cat([second, first], 1)) + x))
        if mask is not None:
            x = x * mask
        x = F.dropout(F.adaptive_avg_pool2d(x, 1), 0.5, training=self.training).flatten(1)
        return self.fc(self.relu(self.hidden(x))) * scale


def test_functional_network() -> None:
    model = Functional()
    binary, report = binarize(model)
    assert set(reasons(report, "binarised")) == {"conv2", "conv3", "conv4", "conv5", "hidden"}
    rows = {(c.path, c.kind, c.action, c.reason) for c in report.changes if "elu" in c.kind.lower()}
    assert rows == {
        ("relu()", "relu", "replaced", "hardtanh: feeds conv2"),
        ("relu_1()", "relu", "replaced", "hardtanh: feeds conv3"),
        ("relu_()", "relu_", "replaced", "hardtanh: feeds conv4"),
        ("relu", "ReLU", "replaced", "hardtanh: feeds conv5"),
        ("relu", "ReLU", "replaced", "hardtanh: feeds hidden"),
        ("relu", "ReLU", "kept", "feeds no binary layer"),
    }
    seen = binary_inputs(binary, images(4, 12))
    assert all(x.min() < 0 < x.max() for x in seen.values()) and len(seen) == 5
    assert binary(images(2, 12)).shape == (2, 5)


def test_functional_dropout_follows_the_mode() -> None:
    binary, _ = quietly(Functional(), keep=["conv2", "conv3", "conv4", "conv5", "hidden"])
    binary.eval()
    assert torch.equal(binary(images(2, 12)), binary(images(2, 12)))
    # Only dropout is random: BatchNorm stays in evaluation.
    for m in binary.modules():
        m.training = not isinstance(m, nn.BatchNorm2d)
    assert not torch.equal(binary(images(2, 12)), binary(images(2, 12)))


def test_attributes_and_modes_are_carried_over_and_survive_copies() -> None:
    model = Functional().eval()
    model.bn1.train()
    binary, _ = binarize(model)
    buffer = io.BytesIO()
    torch.save(binary, buffer)
    buffer.seek(0)
    want = binary.eval()(images(2, 12))
    for other in (binary, copy.deepcopy(binary), torch.load(buffer, weights_only=False)):
        assert other.input_shape == (3, 12, 12) and other.version == "a"
        assert torch.equal(other.eval()(images(2, 12)), want)
    fresh, _ = binarize(model)
    assert type(fresh).__name__ == "Functional"
    assert [path for path, m in fresh.named_modules() if m.training] == ["bn1"]


def test_a_list_of_modules_keeps_its_mode() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([conv(3, 8), conv(8, 8), conv(8, 8)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.convs:
                x = layer(x)
            return x

    binary, _ = binarize(Listed().eval())
    assert set(binary_layers(binary)) == {"convs.1"}
    assert not any(m.training for m in binary.modules())


def test_arguments_with_a_default_are_fixed_at_it() -> None:
    binary, _ = binarize(Functional().eval())
    assert binary(images(2, 12)).shape == (2, 5)
    with pytest.raises(TypeError, match="scale"):
        binary(images(2, 12), scale=1.0)


def test_state_dict_round_trip() -> None:
    model = Functional()
    binary, _ = binarize(model)
    state = binary.state_dict()
    own = {key for key in state if "_binarizer" in key}
    assert set(state) - own == set(model.state_dict())
    assert own and all(".weight_binarizer." in key or ".activation_binarizer." in key for key in own)
    other, _ = binarize(Functional())
    other.load_state_dict(state)
    assert torch.equal(other.eval()(images(2, 12)), binary.eval()(images(2, 12)))


def test_hooks_on_blocks_see_their_outputs() -> None:
    """The graph has no blocks any more, but feature extractors look for them by name."""
    binary, _ = binarize(torchvision.models.resnet18(weights=None))
    shapes = {}
    for name in ("layer1", "layer4.1", "layer2.0.downsample"):
        binary.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    binary(images())
    assert shapes == {
        "layer1": (2, 64, 16, 16),
        "layer4.1": (2, 512, 2, 2),
        "layer2.0.downsample": (2, 128, 8, 8),
    }


@pytest.mark.parametrize("make", [lambda: small(*block(8, 8), nn.MaxPool2d(2), *block(8, 8)), Functional])
def test_compiles_to_one_graph_and_trains(make: Callable[[], nn.Module]) -> None:
    torch._dynamo.reset()
    binary, _ = binarize(make())
    set_progress(binary, 0.5)
    compiled = torch.compile(binary, fullgraph=True, backend="aot_eager")
    x = images(4, 8)
    compiled(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in binary.parameters())
    binary.eval()
    torch.testing.assert_close(compiled(x), binary(x))

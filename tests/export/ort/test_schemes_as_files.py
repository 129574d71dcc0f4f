"""Networks of every scheme become ONNX files that agree with them, or are refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.binarisers import REAL, network, normal
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical, predict_file, session, to_onnx, traced_once, validate
from bnn_itrd.models import summary
from bnn_itrd.quant import SCHEMES, BinaryConv2d, Scheme

DEPLOYABLE = [name for name in SCHEMES if name not in REAL]
IMAGE = (3, 10, 8)


class Branches(nn.Module):
    """A network with a small part for every scheme that can be exported, on one first layer; each has four outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.branches = nn.ModuleList()
        for name in DEPLOYABLE:
            whole = network(name, padding_value=-1 if name == "reste" else 0)
            pool = nn.AdaptiveAvgPool2d(1)
            self.branches.append(nn.Sequential(*whole[2:5], pool, nn.Flatten(), nn.Linear(12, 4)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat([branch(x) for branch in self.branches], 1)


@pytest.fixture(scope="module")
def branches() -> Iterator[nn.Module]:
    """No test changes it, so that one trace serves all its files."""
    with traced_once():
        yield Branches().eval()


@pytest.mark.parametrize("functions", [True, False], ids=["fast", "standard"])
def test_exported_networks_agree(functions: bool, branches: nn.Module, tmp_path: Path) -> None:
    model, x = branches, normal(24, *IMAGE, dtype=torch.float32, seed=6)
    file = to_onnx(model, tmp_path / "model.onnx", input_shape=IMAGE, functions=functions)
    with torch.no_grad():
        want = model(x).numpy().reshape(24, -1, 4)
    got = predict_file(session(file), x).reshape(24, -1, 4)
    for i, name in enumerate(DEPLOYABLE):
        # A sum within rounding of a threshold may fall on either side.
        far = np.abs(got[:, i] - want[:, i]).max(1) > 1e-4 * np.abs(want[:, i]).max()
        assert far.mean() <= 0.05 and want[:, i].std() > 1e-3, name


def test_exported_adabin_with_groups_and_linear_layers(tmp_path: Path) -> None:
    model, x = network("adabin").eval(), normal(24, *IMAGE, dtype=torch.float32, seed=6)
    file = to_onnx(model, tmp_path / "model.onnx", input_shape=IMAGE, functions=False)
    result = validate(model, file, x)
    assert result.argmax_agreement >= 0.95 and result.median_difference < 1e-5


def test_a_network_trained_with_rad_exports(tmp_path: Path) -> None:
    model, x = network(Scheme("xnor", "rsign", rad=2.0)).eval(), normal(24, *IMAGE, dtype=torch.float32, seed=6)
    result = validate(model, to_onnx(model, tmp_path / "model.onnx", input_shape=IMAGE), x)
    assert result.argmax_agreement >= 0.95 and result.median_difference < 1e-5


@pytest.mark.parametrize("name", DEPLOYABLE)
def test_training_and_evaluation_compute_the_same(name: str) -> None:
    model = network(name)
    layer, x = model[6], normal(3, 12, 5, 5, dtype=torch.float32, seed=8)
    assert isinstance(layer, BinaryConv2d)
    assert torch.equal(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme("real"), "3: RealWeight is for the first stage.*nearest deployable form is a binary weight"),
        (Scheme("biper_sine"), "3: BiPerSineWeight is for the first stage.*nearest deployable form is weight='biper'"),
        (Scheme("rbnn", "rbnn", centre=True), "3: RBNNActivation subtracts the mean.*trained with centre=False"),
        (Scheme("siman", "siman", centre=True), "3: SiMaNActivation subtracts the mean.*trained with centre=False"),
    ],
)
def test_what_cannot_be_deployed_says_why(scheme: Scheme, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        canonical(network(scheme).eval(), input_shape=IMAGE)


def test_summary_counts_real_weights_as_such() -> None:
    sizes = {}
    for name in ("xnor", "real"):
        layers = {layer.path: layer for layer in summary(network(name), IMAGE).layers}
        sizes[name] = (layers["3"].bytes, layers["3"].weight_bits, layers["3"].binary_macs)
    assert sizes["xnor"] == (8 * 12 * 9 // 8 + 4 * 12, 1, 8 * 12 * 9 * 80)
    assert sizes["real"] == (8 * 12 * 9 * 4 + 4 * 12, 32, 0)

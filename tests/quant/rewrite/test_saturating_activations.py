"""Activations that round to -0.0 left of 0: `binarize` replaces them, and an export that stumbles over one names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.export import ExportError, session, to_onnx
from bnn_itrd.quant import BinaryLinear, Report, Scheme, binarize

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles

ACTIVATIONS = [nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish]
# Written out, as timm, torchvision's older networks and transformers do.
WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x * torch.sigmoid(x),
    "silu in place": lambda x: x.mul_(x.sigmoid()),
    "hardswish": lambda x: x * F.relu6(x + 3) / 6,
    "hardswish turned": lambda x: (F.relu6(x + 3) / 6) * x,
    "hardswish by its gate": lambda x: F.hardsigmoid(x) * x,
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "scaled": lambda x: x * torch.sigmoid(1.702 * x),
}


class Applied(nn.Module):
    """Pre-activations about 40, a function of them, a layer that becomes binary."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.body, self.norm, self.last = (
            nn.Linear(8, 32), nn.Linear(32, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)
        )  # fmt: skip
        with torch.no_grad():
            self.first.weight *= 60
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.body(self.function(self.first(x)))))


def replaced(report: Report) -> dict[str, str]:
    return {c.path: c.reason for c in report.changes if c.action == "replaced"}


def signs_read(model: nn.Module, x: Tensor) -> Tensor:
    read: list[Tensor] = []
    model.get_submodule("body").register_forward_pre_hook(lambda _, args: read.append(args[0]))
    model(x)
    return read[0] >= 0


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_in_front_of_a_binary_layer_it_is_replaced(kind: type[nn.Module]) -> None:
    binary, report = binarize(Applied(kind()))
    assert replaced(report) == {"function": "hardtanh: feeds body"}
    assert not any(isinstance(m, kind) for m in binary.modules())
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(signs_read(binary.eval(), x), binary.get_submodule("first")(x) >= 0)


def test_training_and_the_file_agree(tmp_path: Path) -> None:
    """What is left of 0 is -1, however far."""
    binary, _ = binarize(Applied(nn.SiLU()))
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    opened = session(to_onnx(binary.eval(), tmp_path / "a.onnx", input_shape=(8,)))
    (logits,) = opened.run(None, {opened.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(logits, binary(x).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("function", [F.silu, F.gelu, F.mish, F.hardswish])
def test_as_a_function_it_is_replaced_too(function: Callable[[Tensor], Tensor]) -> None:
    _, report = binarize(Applied(lambda x: function(x).unsqueeze(1).squeeze(1) * 2))
    assert list(replaced(report)) == [f"{function.__name__}()"]


def test_in_place_the_later_reader_still_sees_the_activation() -> None:
    class Read(Applied):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y = F.silu(x, inplace=True)
            return self.last(self.norm(self.body(y) + x[:, :16]))

    binary, report = binarize(Read(F.silu))
    assert replaced(report) == {"silu()": "hardtanh: feeds body"}
    x = torch.randn(4, 8)
    first, norm, last, body = (binary.get_submodule(n) for n in ("first", "norm", "last", "body"))
    clipped = F.hardtanh(first(x))
    binary.eval()
    torch.testing.assert_close(binary(x), last(norm(body(clipped) + clipped[:, :16])))


@pytest.mark.parametrize("name", WRITTEN)
def test_written_out_it_is_replaced_with_its_gate(name: str) -> None:
    binary, report = binarize(Applied(WRITTEN[name]))
    (path,) = replaced(report)
    assert path.startswith("mul")
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(signs_read(binary.eval(), x), binary.get_submodule("first")(x) >= 0)
    assert not any("sigmoid" in node.name or "relu6" in node.name for node in binary.graph.nodes)  # type: ignore[union-attr]
    assert not [c for c in report.changes if c.kind == "relu6"]


@pytest.mark.parametrize(
    "function", [lambda x: x * x, lambda x: x * torch.tanh(x), lambda x: x * (x + 1), lambda x: x * 3]
)
def test_another_product_is_no_activation(function: Callable[[Tensor], Tensor]) -> None:
    assert replaced(binarize(Applied(function)).report) == {}


def test_one_that_feeds_no_binary_layer_or_is_kept_stays() -> None:
    with pytest.warns(UserWarning, match="nothing in Applied was binarised"):
        report = binarize(Applied(nn.SiLU()), keep=["body"]).report
    assert [(c.path, c.reason) for c in report.changes if c.kind == "SiLU"] == [("function", "feeds no binary layer")]
    binary, report = binarize(Applied(nn.SiLU()), keep=["function"])
    assert isinstance(binary.get_submodule("function"), nn.SiLU)
    assert report.warnings == ["body reads function, which is -0.0 for large negative inputs: there its sign is +1"]


class Excited(nn.Module):
    """EfficientNet's order: a SiLU, scaled by a gate, read by a binary convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.fc1, self.fc2 = nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.body, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        gate = torch.sigmoid(self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))))
        return self.last(self.body(x * gate).mean((2, 3)))


def test_behind_a_gate_it_is_replaced_and_inside_it_stays() -> None:
    report = binarize(Excited()).report
    assert replaced(report) == {"act": "hardtanh: feeds body"}
    assert [c.reason for c in report.changes if c.kind == "silu"] == ["feeds no binary layer"]


def test_an_export_that_finds_differing_signs_names_the_operation(tmp_path: Path) -> None:
    """onnxruntime's sigmoid underflows for smaller numbers than torch's."""
    model = Applied(nn.Sequential(nn.SiLU(), nn.Flatten()))
    model.body = BinaryLinear(32, 16)  # type: ignore[assignment]
    said = r"^body: \d+ of the 96 signs of its input .* signs of the result of SiLU\. .* replace it by nn.Hardtanh"
    with pytest.raises(ExportError, match=said):
        to_onnx(model.eval(), tmp_path / "a.onnx", input_shape=(8,))
    assert not (tmp_path / "a.onnx").exists()


# ---- a nonlinearity that is made for no number of channels


class Unseen(nn.Module):
    """A ReLU behind a linear layer and a sum: nothing tells its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body, self.norm, self.last = (
            nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.body(F.relu(self.first(x)))))


@pytest.mark.parametrize("nonlinearity", [nn.Softsign, nn.PReLU])
def test_a_nonlinearity_that_needs_no_channels_is_put_where_they_are_unknown(nonlinearity: type[nn.Module]) -> None:
    binary, report = binarize(Unseen(), Scheme(nonlinearity=nonlinearity))
    assert [type(m) for m in binary.modules() if isinstance(m, (nn.Softsign, nn.PReLU))] == [nonlinearity]
    assert not report.warnings
    assert binary(torch.randn(4, 8)).shape == (4, 2)


def test_one_that_needs_them_becomes_hardtanh_with_a_warning() -> None:
    _, report = binarize(Unseen(), "reactnet")
    assert replaced(report) == {"relu()": "hardtanh: feeds body"}
    assert report.warnings == ["relu() became hardtanh: rprelu needs a number of channels, unknown here"]

"""A comparison evaluates each network once: what its training ended with is taken, and lines say what goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import write_npz
from torch import nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.normalisation import remember_images
from bnn_itrd.models import MODELS
from bnn_itrd.quant import ActivationBinarizer, Scheme, sign
from bnn_itrd.runs import comparison
from bnn_itrd.runs.comparison import evaluate_member
from bnn_itrd.runs.member import Member
from bnn_itrd.training.checkpoint import save_checkpoint
from bnn_itrd.training.evaluation import evaluate, score, to_keep
from bnn_itrd.training.fit import Fitted

CPU = torch.device("cpu")


@pytest.mark.parametrize("held_out", [False, True])
def test_the_evaluation_of_a_training_is_taken(held_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_npz(tmp_path / "x.npz", n=40)
    data = load_data(DataConfig(name="cifar10", root=str(root), val_fraction=0.2 if held_out else 0.0))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    remember_images(network, mean=data.mean, std=data.std, classes=data.classes)
    right = evaluate(network, data.test, device=CPU)
    shifted = score(right.logits + 1.0, right.labels)  # what only the training can have ended with
    evaluated = []

    def counted(*given: object, **options: object) -> object:
        evaluated.append(given)
        return right

    monkeypatch.setattr(comparison, "evaluate", counted)
    row = {"epoch": 1, "top1": 0.0}
    member = Member("teacher", network, "teacher", "own", fitted=Fitted(network, [row], shifted))
    lines: list[str] = []
    found = evaluate_member(member, data, tmp_path / "teacher.onnx", tell=lines.append)
    assert found.test is (right if held_out else shifted)
    assert found.agreement.max_difference == pytest.approx(0.0 if held_out else 1.0, abs=1e-5)
    assert len(evaluated) == held_out
    torch_line = ["teacher: PyTorch on 20 test images"] if held_out else []
    assert lines == [*torch_line, "teacher: teacher.onnx on 20 test images"]


def test_the_evaluation_in_a_given_teachers_checkpoint_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that was trained before is evaluated again only if its weights are not those of the kept evaluation."""
    data = load_data(DataConfig(name="cifar10", root=str(write_npz(tmp_path / "x.npz", n=40))))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    right = evaluate(network, data.test, device=CPU)
    shifted = score(right.logits + 1.0, right.labels)  # what only the checkpoint can have kept
    save_checkpoint(tmp_path / "last.pt", {"final": to_keep(shifted, network, data.test)})
    monkeypatch.setattr(comparison, "evaluate", lambda *given, **options: right)
    member = Member("teacher", network, "teacher", "resnet8", checkpoint=tmp_path / "last.pt")
    assert torch.equal(evaluate_member(member, data, tmp_path / "teacher.onnx").test.logits, shifted.logits)
    with torch.no_grad():
        network[1].bias.add_(1.0)
    assert evaluate_member(member, data, tmp_path / "teacher.onnx").test is right


def test_the_evaluation_in_a_checkpoint_is_not_taken_for_own_code_which_may_have_changed(tmp_path: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(write_npz(tmp_path / "x.npz", n=40))))
    torch.manual_seed(0)
    forms = (nn.Sequential(nn.Flatten(), nn.Linear(192, 9), act, nn.Linear(9, 3)) for act in (nn.ReLU(), nn.Tanh()))
    before, now = (network.eval() for network in forms)
    now.load_state_dict(before.state_dict())
    kept = to_keep(evaluate(before, data.test, device=CPU), before, data.test)
    save_checkpoint(tmp_path / "last.pt", {"final": kept})
    member = Member("teacher", now, "teacher", "nets:make", checkpoint=tmp_path / "last.pt")
    found = evaluate_member(member, data, tmp_path / "teacher.onnx")
    assert torch.equal(found.test.logits, evaluate(now, data.test, device=CPU).logits)
    assert found.agreement.max_difference < 1e-4


class _FlatSigns(ActivationBinarizer):
    """An activation that reads its input by `view`, which needs the ordinary memory format."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sign(x.view(len(x), -1)).view(x.shape)


def test_own_activations_get_images_in_the_ordinary_memory_format(tmp_path: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(write_npz(tmp_path / "x.npz", n=40))))
    options = {"in_channels": 3, "input_shape": data.input_shape}
    network = MODELS["resnet8"](3, binary=Scheme(activation=_FlatSigns), **options).eval()
    expected = evaluate(network, data.test, device=CPU)
    found = comparison._evaluation(Member("plain", network, "plain", "resnet8"), data, CPU, lambda line: None)
    assert torch.equal(found.logits, expected.logits)

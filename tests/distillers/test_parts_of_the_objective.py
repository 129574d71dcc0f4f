"""Schedules and penalties as parts of the objective, and what networks do when an epoch begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.distilled_runs import CPU, SHAPE, STILL, TEACHER, Flat, Net, dc, distilled, made, settings
from torch import nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.networks import build
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.trainer import Trainer


@pytest.mark.compiles
@pytest.mark.parametrize("compiled", [False, True])
def test_a_schedule_reaches_the_loss(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    # traced as ever, but without a minute of C++ compilation
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: real(module, backend="eager"))
    # without augmentation and without steps the bare loss of the whole batch is the same in every epoch
    still = load_data(DataConfig(name="cifar10", root=str(npz), crop_padding=0, flip=False))
    distill = DistillConfig(
        kd=dc.KDConfig(weight=2.0, warmup_epochs=2, final=0.2),
        at=dc.ATConfig(weight=3.0),
        ft=dc.FTConfig(preparation_epochs=2),
    )
    fitted = distilled(
        still, tmp_path, distill, student=made(1), teacher=made(2, Net, TEACHER),
        epochs=6, batch_size=96, lr=STILL, compile=compiled,
    )  # fmt: skip
    terms = [row["loss_kd"] for row in fitted.history]
    factors = [0.0, 0.5, 1.0, 0.8, 0.6, 0.4]  # from 1 at epoch 2 towards 0.2 at epoch 6
    assert terms == pytest.approx([terms[2] * factor for factor in factors], rel=1e-4)
    for name in ("loss_at", "loss_ft"):
        values = [row[name] for row in fitted.history]
        assert values[0] > 0 and values == pytest.approx([values[0]] * 6, rel=1e-4)
    assert [row["loss_ft"] > 0 for row in read_metrics(tmp_path / "preparation.csv")] == [True, True]


@pytest.mark.parametrize(
    ("config", "epoch", "epochs", "factor"),
    [
        (dc.KDConfig(), 3.7, 10, 1.0),
        (dc.KDConfig(warmup_epochs=4), 0.0, 10, 0.0),
        (dc.KDConfig(warmup_epochs=4), 1.0, 10, 0.25),
        (dc.KDConfig(warmup_epochs=4), 4.0, 10, 1.0),
        (dc.KDConfig(final=0.0), 5.0, 10, 0.5),
        (dc.KDConfig(warmup_epochs=2, final=3.0), 6.0, 10, 2.0),
        (dc.KDConfig(warmup_epochs=20), 4.0, 5, 0.2),
    ],
)
def test_factors(config: Any, epoch: float, epochs: int, factor: float) -> None:
    assert config.factor(epoch, epochs) == pytest.approx(factor)


def _objective(data: ImageData, scheme: SchemeConfig, distill: DistillConfig) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    network = NetworkConfig("resnet8", width=0.25)
    student = build(network, scheme, num_classes=3, input_shape=SHAPE)
    trainer = Trainer(student, None, input_shape=SHAPE, train=settings(), distill=distill, fabric=make_fabric(CPU))
    trainer.objective.train()
    batch = next(data.train.train_batches(32, seed=0, epoch=0, device=torch.device("cpu")))
    loss, parts, _ = trainer.objective(*batch)
    loss.backward()
    return dict(zip(trainer.objective.names, parts.tolist(), strict=True)), student


def test_a_penalty_of_the_weights_is_a_part_of_the_loss(data: ImageData) -> None:
    # the cross-entropy off: all gradients are the penalty's
    parts, student = _objective(
        data, SchemeConfig(weight="biper", tau_min=0.3, tau_max=0.99, omega=5.0), DistillConfig(ce=0.0)
    )
    layers = [m for m in student.modules() if isinstance(m, BinaryConv2d)]
    waves = [(0.5 - 0.5 * torch.cos(10 * layer.weight.detach().double())).mean() for layer in layers]
    assert parts["penalty"] == pytest.approx(0.3 * float(sum(waves)), rel=1e-4)
    for layer in layers:
        # d/dw of tau mean(0.5 - 0.5 cos(2 omega w))
        wanted = 0.3 * 5.0 * torch.sin(10 * layer.weight.detach()) / layer.weight.numel()
        torch.testing.assert_close(layer.weight.grad, wanted, rtol=1e-3, atol=1e-7)


def test_a_penalty_of_the_activations_is_a_part_of_the_loss(data: ImageData) -> None:
    parts, student = _objective(data, SchemeConfig(rad=2.0), DistillConfig(ce=0.0))
    assert parts["penalty"] > 0 and parts["ce"] == 0
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())
    twice, _ = _objective(data, SchemeConfig(rad=4.0), DistillConfig(ce=0.0))
    assert twice["penalty"] == pytest.approx(2 * parts["penalty"], rel=1e-4)
    assert "penalty" not in _objective(data, SchemeConfig(), DistillConfig())[0]


class Counting(Net):
    """Counts in a buffer how often an epoch began."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("began", torch.zeros(()))

    def start_epoch(self) -> None:
        self.began += 1


@pytest.mark.parametrize(
    ("distill", "began"),
    [
        (DistillConfig(), 2),
        (DistillConfig(ab=dc.ABConfig(weight=1e-3, preparation_epochs=3)), 5),
        (DistillConfig(ft=dc.FTConfig(preparation_epochs=3)), 2),  # the student takes no part in this phase
    ],
)
def test_every_epoch_of_the_student_begins(data: ImageData, tmp_path: Path, distill: DistillConfig, began: int) -> None:
    fitted = distilled(data, tmp_path, distill, student=made(1, Counting), teacher=made(2, Net, TEACHER))
    assert fitted.model.began == began


def test_rotations_are_renewed(data: ImageData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NetworkConfig("resnet8", width=0.25)
    scheme = SchemeConfig(weight="rbnn", activation="rbnn")
    student = build(network, scheme, num_classes=3, input_shape=SHAPE)
    before = {k: v.clone() for k, v in student.state_dict().items() if "rot" in k or ".r1" in k or ".r2" in k}
    assert before
    fitted = distilled(data, tmp_path, DistillConfig(), student=student, teacher=Flat(), epochs=1)
    after = fitted.model.state_dict()
    assert any(not torch.equal(value, after[key]) for key, value in before.items())

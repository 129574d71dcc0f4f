"""Training learns and records, resumes exactly after kill -9, and gives the student back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_training import CPU, QUIET, TinyNet, train_tiny

import bnn_itrd
from bnn_itrd.config import DistillConfig, ITRDConfig, KDConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.errors import UserError
from bnn_itrd.models import resnet20
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import fit
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.optimizer import learning_rate


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(s, steps=100, warmup=10, peak=1.0) for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5, abs=0.01) and 0 < rates[99] < 0.001


def test_training_learns_and_records(tiny_npz: Path, tmp_path: Path) -> None:
    fitted = train_tiny(tiny_npz, tmp_path, epochs=8, lr=0.2, distill=DistillConfig())
    assert fitted.final.top1 > 90
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [r["epoch"] for r in rows] == list(range(1, 9))
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["top1"] == pytest.approx(fitted.final.top1, abs=1e-3)
    assert fitted.best["top1"] == pytest.approx(max(r["top1"] for r in rows), abs=1e-3)


def test_loss_parts_are_the_weighted_losses_of_the_first_step(tiny_npz: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, student = TinyNet(6).eval(), TinyNet()
    distill = DistillConfig(ce=0.3, kd=KDConfig(weight=0.7, tau=2.0))
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    images, labels, _ = next(data.train.train_batches(96, seed=0, epoch=0, device=torch.device("cpu")))
    with torch.no_grad():
        s, t = student(images), teacher(images)
        ce = 0.3 * F.cross_entropy(s, labels)
        p, log_q = (t / 2).softmax(1), (s / 2).log_softmax(1)
        kd = 0.7 * 4 * (p * (p.log() - log_q)).sum(1).mean()
    config = TrainConfig(epochs=1, batch_size=96, warmup_epochs=0)
    fitted = bnn_itrd.distill(
        student, teacher, data, train=config, distill=distill, out=tmp_path, fabric=CPU, log=QUIET
    )
    row = fitted.history[0]
    assert row["loss_ce"] == pytest.approx(float(ce), rel=1e-5)
    assert row["loss_kd"] == pytest.approx(float(kd), rel=1e-5)
    assert row["loss"] == pytest.approx(float(ce + kd), rel=1e-5)


def test_held_out_images_choose_the_best(tiny_npz: Path, tmp_path: Path) -> None:
    fitted = train_tiny(tiny_npz, tmp_path, val_fraction=0.25)
    assert {row["split"] for row in fitted.history} == {"val"}
    assert len(fitted.final.labels) == 24


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_networks_are_the_users_again(tiny_npz: Path, tmp_path: Path, ema: float | None) -> None:
    torch.manual_seed(0)
    teacher, student = TinyNet(6), TinyNet()
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    config = TrainConfig(epochs=1, batch_size=32, warmup_epochs=0, ema=ema)
    before = [p.clone() for p in teacher.parameters()]
    fitted = bnn_itrd.distill(student, teacher, data, train=config, out=tmp_path, fabric=CPU, log=QUIET)
    assert (fitted.model is student) == (ema is None) and not fitted.model.training
    for network in (teacher, student, fitted.model):
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())
    assert all(torch.equal(p, q) and q.requires_grad for p, q in zip(before, teacher.parameters(), strict=True))


def test_distillers_weights_are_trained_and_checkpointed(tiny_npz: Path, tmp_path: Path) -> None:
    train_tiny(tiny_npz, tmp_path / "one", epochs=1)
    train_tiny(tiny_npz, tmp_path / "two", epochs=2)
    keys = [k for k in load_checkpoint(tmp_path / "one" / "last.pt")["objective"] if "embed" in k]
    assert len(keys) == 2
    one, two = (load_checkpoint(tmp_path / n / "last.pt")["objective"][keys[0]] for n in ("one", "two"))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("options", [{"ema": 0.9}, {"optimizer": "adamw", "lr": 0.01, "clip_norm": 0.5}])
def test_stopping_and_continuing_changes_nothing(tiny_npz: Path, tmp_path: Path, options: dict) -> None:
    train_tiny(tiny_npz, tmp_path / "whole", epochs=4, **options)

    class Stop(Exception):
        pass

    def stop(epoch: int) -> None:
        if epoch == 2:
            raise Stop

    torch.manual_seed(0)
    teacher, student = TinyNet(6).eval(), TinyNet()
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    config = TrainConfig(**{"epochs": 4, "batch_size": 32, "lr": 0.05, "warmup_epochs": 0.0, **options})
    distill = DistillConfig(kd=KDConfig(), itrd=ITRDConfig())
    arguments: dict[str, Any] = {
        "train": config,
        "distill": distill,
        "fabric": make_fabric(CPU),
        "log": QUIET,
        "out": tmp_path / "parts",
        "identity": {},
    }
    torch.manual_seed(0)
    with pytest.raises(Stop):
        fit(student, teacher, data, after_epoch=stop, **arguments)
    torch.manual_seed(5)  # what a new process starts from must not matter
    fit(TinyNet(), teacher, data, **arguments)
    whole, parts = (load_checkpoint(tmp_path / n / "last.pt") for n in ("whole", "parts"))
    for key, tensor in whole["objective"].items():
        assert torch.equal(tensor, parts["objective"][key]), key
    for key, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][key]), key


def test_accuracy_is_evaluated_in_float32(tiny_npz: Path, tmp_path: Path) -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    class Watch(TinyNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            seen.append((y.dtype, self.training))
            return y

    train_tiny(tiny_npz, tmp_path, student=Watch(), precision="bf16-mixed", distill=DistillConfig())
    assert {dtype for dtype, training in seen if training} == {torch.bfloat16}
    assert {dtype for dtype, training in seen if not training} == {torch.float32}


@pytest.mark.compiles
def test_compiled_step_trains_alike(tiny_npz: Path, tmp_path: Path) -> None:
    plain = train_tiny(tiny_npz, tmp_path / "plain", epochs=1)
    compiled = train_tiny(tiny_npz, tmp_path / "compiled", epochs=1, compile=True, channels_last=True)
    assert compiled.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=1e-3)


def test_load_gives_the_student_back(tiny_npz: Path, tmp_path: Path) -> None:
    fitted = train_tiny(tiny_npz, tmp_path)
    with pytest.raises(UserError, match="names the code .*pass the network as model="):
        bnn_itrd.load(tmp_path)
    again = bnn_itrd.load(tmp_path, model=TinyNet())
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(again(x), fitted.model(x)) and not again.training
    with pytest.raises(UserError, match="has another architecture than ResNet"):
        bnn_itrd.load(tmp_path, model=resnet20(3))

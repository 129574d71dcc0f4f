"""Runs in which only some images have labels: the labels teach those, the teacher all."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
import torch
from helpers.distilled_runs import (
    CPU,
    QUIET,
    SHAPE,
    STILL,
    TEACHER,
    Net,
    Stop,
    assert_same,
    dc,
    distilled,
    made,
    partly_labelled,
    settings,
    stop_after,
)
from torch import Tensor

import bnn_itrd.losses as losses
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import RunConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.distillers import METHODS
from bnn_itrd.errors import UserError
from bnn_itrd.runs.run import run_recipe
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.trainer import Trainer


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> float:
    """Of the labelled rows, in float64: the definition, row by row."""
    terms = []
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        if label == UNLABELLED:
            continue
        log_p = row - row.exp().sum().log()
        wanted = torch.full_like(log_p, smoothing / len(log_p))
        wanted[label] += 1 - smoothing
        terms.append(float(-(wanted * log_p).sum()))
    return sum(terms) / len(terms)


def test_labels_teach_the_labelled_and_the_teacher_all(npz: Path, tmp_path: Path) -> None:
    data = partly_labelled(npz)
    student, teacher = made(1), made(2, Net, TEACHER).eval()
    images, labels, _ = next(data.train.train_batches(96, seed=0, epoch=0, device=torch.device("cpu")))
    assert (labels == UNLABELLED).sum() == 84
    with torch.no_grad():
        s, t = student(images), teacher(images)
    kd = 0.9 * float(losses.soft_kl(s, t, tau=4.0))
    right = int((s.argmax(1) == labels).sum())
    fitted = distilled(
        data, tmp_path, DistillConfig(ce=0.3, kd=dc.KDConfig()), student=student, teacher=teacher,
        batch_size=96, lr=STILL, epochs=1, label_smoothing=0.2,
    )  # fmt: skip
    row = fitted.history[0]
    assert row["loss_ce"] == pytest.approx(0.3 * _cross_entropy(s, labels, 0.2), rel=1e-5)
    assert row["loss_kd"] == pytest.approx(kd, rel=1e-5)
    assert row["train_top1"] == pytest.approx(100 * right / 12)


def test_a_batch_without_labels_teaches_nothing_but_the_teachers_terms(npz: Path) -> None:
    data = partly_labelled(npz)
    trainer = Trainer(
        made(1), made(2, Net, TEACHER).eval(), input_shape=SHAPE, train=settings(), distill=DistillConfig(
            itrd=dc.ITRDConfig()), fabric=make_fabric(CPU), labels=data.train.labels,
    )  # fmt: skip
    assert isinstance(data.train, TensorSplit)
    images = data.train.images[:8].float()
    labels = torch.full((8,), UNLABELLED)
    loss, parts, correct = trainer.objective(images, labels, torch.arange(8))
    assert parts[0] == 0 and parts[1] != 0 and correct == 0 and loss == parts[1]
    loss.backward()
    gradients = [p.grad for p in trainer.student.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    # of the classifier the labels alone would know anything
    assert not trainer.student.linear.weight.grad.any() and trainer.student.c.weight.grad.any()
    # one labelled image: its own cross-entropy, whatever the rest
    labels[3] = 2
    _, parts, _ = trainer.objective(images, labels, torch.arange(8))
    with torch.no_grad():
        logits = trainer.student(images)
    assert float(parts[0]) == pytest.approx(_cross_entropy(logits, labels, 0.0), rel=1e-5)


def test_a_run_with_few_labels_continues_exactly(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, changes = partly_labelled(npz, val_fraction=0.25), {"epochs": 3, "batch_size": 8, "ema": 0.5}
    config = DistillConfig(ce=0.5, kd=dc.KDConfig(), ft=dc.FTConfig(preparation_epochs=1))
    states = []
    for stops in ([9], [1, 9]):
        out = tmp_path / str(len(stops))
        for stop in stops:
            with monkeypatch.context() as patch, contextlib.suppress(Stop):
                stop_after(patch, 9, stop)
                distilled(data, out, config, student=made(1), teacher=made(2, Net, TEACHER), **changes)
        states.append(load_checkpoint(out / "last.pt"))
    for key in ("objective", "model", "optimizer", "ema", "history", "preparation"):
        assert_same(states[0][key], states[1][key], key)
    assert len(states[0]["history"]) == 3 and all(math.isfinite(row["loss"]) for row in states[0]["history"])


@pytest.mark.parametrize("name", ["dkd", "crd", "wcord"])
def test_a_distiller_that_reads_labels_is_refused_without_them(npz: Path, tmp_path: Path, name: str) -> None:
    config = RunConfig(
        data=DataConfig(name="cifar10", root=str(npz), per_class=4, unlabelled=True),
        network=NetworkConfig("resnet8", width=0.25),
        students={"mine": DistillConfig(**{name: METHODS[name]()})},
        fabric=CPU,
        log=QUIET,
    )
    message = rf"students\.mine: {name} needs the label of every training image, and 84 of 96 have none"
    with pytest.raises(UserError, match=message):
        run_recipe(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""A finished training's evaluation stands in its checkpoint: the call that exports makes none again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import write_npz

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.models import resnet8
from bnn_itrd.training import evaluation, trainer
from bnn_itrd.training.evaluation import Evaluation, kept_evaluation, score, to_keep
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import fit


def _ends_with(data: ImageData, out: Path) -> Evaluation:
    torch.manual_seed(0)
    return fit(
        resnet8(3, input_shape=data.input_shape),
        None,
        data,
        train=TrainConfig(epochs=1, batch_size=32, warmup_epochs=0),
        distill=DistillConfig(),
        fabric=make_fabric(FabricConfig(accelerator="cpu", threads=1)),
        log=LogConfig(tensorboard=False, progress=False),
        out=out,
        identity={},
    ).final


def test_a_finished_training_is_not_evaluated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(write_npz(tmp_path / "x.npz"))))
    first = _ends_with(data, tmp_path / "run")
    evaluated: list[int] = []

    def counted(*given: object, **options: object) -> Evaluation:
        evaluated.append(1)
        return first

    monkeypatch.setattr(trainer, "evaluate", counted)
    again = _ends_with(data, tmp_path / "run")
    assert torch.equal(again.logits, first.logits) and torch.equal(again.labels, first.labels)
    assert (again.top1, again.top5, again.loss, evaluated) == (first.top1, first.top5, first.loss, [])
    # Other images than those that it was evaluated on.
    data.test.labels = (data.test.labels + 1) % 3
    _ends_with(data, tmp_path / "run")
    assert evaluated == [1]


def test_what_a_checkpoint_keeps_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    made = score(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), torch.tensor([1, 1]))
    kept = to_keep(made)
    again = kept_evaluation(kept)
    assert again is not None and (again.top1, again.top5, again.loss) == (50.0, 100.0, made.loss)
    monkeypatch.setattr(evaluation, "_MOST_KEPT", 3)
    assert to_keep(made) is None
    wrong = [None, 3, {}, {"logits": made.logits}, {"logits": made.logits, "labels": torch.tensor([1])}]
    assert [kept_evaluation(each) for each in wrong] == [None] * 5

"""Trains and evaluates a BERT that answers questions.

Epochs, checkpoints and metrics.csv are those of `bnn_itrd.training`. All random numbers of an epoch depend only on the
seed and the epoch, so that an interrupted run gives the same result when it is continued.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from bnn_itrd.config.train import LogConfig
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.nlp.config import SquadTrainConfig, StudentConfig
from bnn_itrd.nlp.data import SquadData
from bnn_itrd.nlp.evaluation import AnswerEvaluation, evaluate_answers
from bnn_itrd.nlp.features import train_batches
from bnn_itrd.nlp.objective import QAObjective
from bnn_itrd.training.base import BaseTrainer
from bnn_itrd.training.files import TrainingFiles
from bnn_itrd.training.fit import fit_epochs
from bnn_itrd.training.metrics import loss_columns
from bnn_itrd.training.optimizer import learning_rate
from bnn_itrd.training.progress import Progress

__all__ = ["FittedReader", "fit_reader"]


@dataclass(frozen=True)
class FittedReader:
    """A trained BERT in evaluation mode, a row of metrics.csv for each epoch, and its answers after the last."""

    model: nn.Module
    history: list[dict[str, Any]]
    final: AnswerEvaluation


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns the optimiser's parameter groups: matrices with weight decay; biases and normalisations without."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class _ReaderTrainer(BaseTrainer):
    """Trains one BERT on windows of tokens, with AdamW and a learning rate that rises and then falls linearly."""

    objective: QAObjective

    def __init__(self, objective: QAObjective, train: SquadTrainConfig, student: StudentConfig, fabric: Fabric) -> None:
        self.config = train
        self.max_rows = None if student.itrd is None else student.itrd.max_tokens
        optimizer = torch.optim.AdamW(_groups(objective, train.weight_decay), lr=train.lr)
        super().__init__(
            objective, optimizer, fabric, names=objective.names, seed=train.seed, clip_norm=train.clip_norm
        )
        self.final: AnswerEvaluation | None = None

    def evaluate(self, data: SquadData) -> AnswerEvaluation:
        return evaluate_answers(self.objective.student, data, device=self.fabric.device)

    def evaluate_epoch(self, data: SquadData) -> dict[str, Any]:
        final = self.final = self.evaluate(data)
        return {"split": "test", "em": final.em, "f1": final.f1}

    def train_epoch(self, data: SquadData, progress: Progress) -> dict[str, Any]:
        """Trains for one epoch; returns its row of metrics.csv: the learning rate, each loss's mean, and the speed."""
        config = self.config
        self.begin_pass(self.epoch)
        steps = len(data.train_windows) // config.batch_size
        total = config.epochs * steps
        rows = torch.zeros(steps, len(self.names), device=self.fabric.device)
        started, rate = time.perf_counter(), 0.0
        batches = train_batches(
            data.train_windows,
            config.batch_size,
            pad_id=data.pad_id,
            max_rows=self.max_rows,
            seed=config.seed,
            epoch=self.epoch,
        )
        for i, batch in enumerate(batches):
            step = self.epoch * steps + i
            rate = learning_rate(
                step, steps=total, warmup=round(config.warmup * total), peak=config.lr, schedule="linear"
            )
            (parts,) = self.step(batch.to(self.fabric.device), lr=rate)
            rows[i] = parts
            progress.step(i + 1, parts)
        self.non_finite.record(self.epoch * steps, rows)
        losses = loss_columns(self.names, rows.sum(0).tolist(), steps)
        seconds = time.perf_counter() - started
        windows_per_s = steps * config.batch_size / seconds
        return {
            "epoch": self.epoch + 1, "lr": rate, **losses, "seconds": seconds, "windows_per_s": windows_per_s
        }  # fmt: skip


def fit_reader(
    student: nn.Module,
    teacher: nn.Module | None,
    data: SquadData,
    *,
    train: SquadTrainConfig,
    learns: StudentConfig,
    fabric: Fabric,
    log: LogConfig,
    out: Path,
    identity: dict[str, Any],
    title: str,
) -> FittedReader:
    """Trains a BERT, or continues its training from `out`/last.pt; `student` is changed in place.

    It writes the checkpoint last.pt, metrics.csv and TensorBoard files into `out`.

    Args:
        student: the network that is trained, which is a student, or the teacher itself
        teacher: the network it learns from, or None
        data: the questions and their windows
        train: epochs, batch size and optimiser
        learns: the losses and their weights
        fabric: device and precision
        log: progress output and checkpoints
        out: folder of the training
        identity: the settings that must be equal when the training is continued
        title: the network's name in the progress output

    Raises UserError if `out` has a training with other settings, or if the loss is not finite.
    """
    torch.manual_seed(mix_seed(train.seed, 1))  # for the random weights of ITRD's projections
    objective = QAObjective(student, None if teacher is None else teacher.to(fabric.device), learns)
    trainer = _ReaderTrainer(objective, train, learns, fabric)
    steps = len(data.train_windows) // train.batch_size
    with TrainingFiles(out, identity, fabric) as files:
        files.restore(trainer)
        files.open(trainer, tensorboard=log.tensorboard)
        with Progress(
            title, epochs=train.epochs, steps=steps, names=trainer.names, batch_size=train.batch_size,
            enabled=log.progress, live=fabric.device.type == "cpu", unit="windows", seconds_between_lines=0.0,
            scores=lambda row: f"EM {row['em']:.2f}  F1 {row['f1']:.2f}",
        ) as progress:  # fmt: skip
            fit_epochs(trainer, data, files, progress, epochs=train.epochs, steps=steps)
    final = trainer.evaluate(data) if trainer.final is None else trainer.final
    return FittedReader(student.eval(), trainer.history, final)

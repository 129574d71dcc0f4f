"""Trains a network from its first epoch, or from a checkpoint on.

`fit_epochs` is the loop over epochs for all networks: teachers, students, and those of `bnn_itrd.nlp`. `fit` trains a
network on images. It begins with the preparation, if there is one: epochs in which distillation losses train layers of
their own, or stages of the student.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from torch import nn

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import LogConfig, TrainConfig
from bnn_itrd.data.normalisation import remember_images
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import Unfinished
from bnn_itrd.quant import set_progress
from bnn_itrd.training.base import BaseTrainer
from bnn_itrd.training.evaluation import Evaluation
from bnn_itrd.training.fabric import steps_in_epoch
from bnn_itrd.training.files import TrainingFiles
from bnn_itrd.training.optimizer import check_frozen
from bnn_itrd.training.progress import Progress
from bnn_itrd.training.trainer import Trainer
from bnn_itrd.words import counted

__all__ = ["Fitted", "TimeLimit", "fit", "fit_epochs"]


@dataclass(frozen=True)
class Fitted:
    """A trained network and the results of its training.

    Args:
        model: the network in evaluation mode; with ``train.ema`` it is the moving average of its weights
        history: the row of metrics.csv of each epoch
        final: the evaluation after the last epoch
    """

    model: nn.Module
    history: list[dict[str, Any]]
    final: Evaluation

    @property
    def best(self) -> dict[str, Any]:
        """The row of metrics.csv of the epoch with the best top-1 accuracy; if several are equal, of the first."""
        return max((row for row in self.history if row["top1"] is not None), key=lambda row: row["top1"])


def fit(
    student: nn.Module,
    teacher: nn.Module | None,
    data: ImageData,
    *,
    train: TrainConfig,
    distill: DistillConfig,
    fabric: Fabric,
    log: LogConfig,
    out: Path,
    identity: dict[str, Any],
    title: str = "",
    begin: Callable[[], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    deadline: float | None = None,
) -> Fitted:
    """Trains a network on images, or continues its training from `out`/last.pt; `student` is changed in place.

    It writes into `out`: last.pt, best.pt (by top-1 on the held-out images, or else the test images), metrics.csv,
    preparation.csv if there is a preparation, and TensorBoard files (see `TrainingFiles`). All hooks on the networks
    are removed at the end. In a student in training mode, a BatchNorm that is in evaluation mode stays in that mode.

    `teacher` is the network it learns from, or None; `title` names the student in the output. `identity` is the
    configuration that must be the same if the training is continued. `begin` is called on the first process of a new
    training, after all checks and before anything is written, and `after_epoch` with the number of epochs done.
    `deadline` is the time of `time.monotonic` at which to stop; None means ``train.max_seconds`` from now.

    Warns if most of the student is frozen. Raises Unfinished if the next epoch would end too late, and UserError if the
    settings do not fit `out`, the data or the networks, the student has nothing to train, or the loss is not finite.
    """
    limit = TimeLimit.of(deadline, train, title, fabric)
    steps = steps_in_epoch(train, len(data.train), fabric.world_size)
    distill.check_learns()
    check_frozen(student, warn=fabric.is_global_zero)
    trainer = Trainer(
        student, teacher, input_shape=data.input_shape, train=train, distill=distill, fabric=fabric,
        labels=data.train.labels,
    )  # fmt: skip
    try:
        with TrainingFiles(out, identity, fabric, seconds=train.checkpoint_seconds) as files:
            files.restore(trainer)
            _print_finished(trainer, title, shown=log.progress)
            files.open(trainer, tensorboard=log.tensorboard, begin=begin)
            with Progress(
                title, epochs=train.epochs, steps=steps, names=trainer.names, batch_size=train.batch_size,
                preparation=max(trainer.preparation_epochs.values(), default=0),
                enabled=log.progress and fabric.is_global_zero, live=fabric.device.type == "cpu",
            ) as progress:  # fmt: skip
                _prepare(trainer, data, files, progress, steps=steps, limit=limit)
                fit_epochs(
                    trainer, data, files, progress, epochs=train.epochs, steps=steps, after_epoch=after_epoch,
                    limit=limit,
                )  # fmt: skip
        trainer.share_buffers()
        set_progress(trainer.kept, 1.0)
        final = trainer.end(data)
        remember_images(trainer.kept, mean=data.mean, std=data.std, classes=data.classes)
        return Fitted(trainer.kept.eval(), trainer.history, final)
    finally:
        trainer.objective.release()


def _print_finished(trainer: Trainer, title: str, *, shown: bool) -> None:
    """Prints a line if the checkpoint is of a training that was already finished."""
    if shown and trainer.epoch >= (epochs := trainer.config.epochs):
        trainer.fabric.print(f"{title}: its training was already finished, at epoch {trainer.epoch} of {epochs}")


class TimeLimit:
    """Stops a training before an epoch that would end after the deadline, a time of `time.monotonic`.

    The first epoch begins if the deadline has not passed. A later one is expected to take as long as the longest epoch
    so far, with its evaluation. The first epoch, in which code is compiled, is left out once there are two. With
    several processes, the first one decides for all.
    """

    def __init__(self, deadline: float, title: str, fabric: Fabric) -> None:
        self.deadline, self.title, self.fabric = deadline, title, fabric
        self._began: float | None = None
        self._lengths: list[float] = []

    @classmethod
    def of(cls, deadline: float | None, train: TrainConfig, title: str, fabric: Fabric) -> TimeLimit | None:
        """Returns a training's time limit: `deadline`, or ``train.max_seconds`` from now; None if both are None."""
        if deadline is None and train.max_seconds is not None:
            deadline = time.monotonic() + train.max_seconds
        return None if deadline is None else cls(deadline, title, fabric)

    def check(self, epoch: int, epochs: int) -> None:
        """Raises Unfinished if the next epoch would end after the deadline; it is called before each epoch.

        epoch: number of epochs done; epochs: number of all epochs.
        """
        now = time.monotonic()
        if self._began is not None:
            self._lengths.append(now - self._began)
        self._began = now
        expected = max(self._lengths[1:] or self._lengths, default=0.0)
        if self.fabric.broadcast(now + expected >= self.deadline):
            raise Unfinished(self.title, epoch, epochs)


def fit_epochs(
    trainer: BaseTrainer,
    data: Any,
    files: TrainingFiles,
    progress: Progress,
    *,
    epochs: int,
    steps: int,
    after_epoch: Callable[[int], None] | None = None,
    limit: TimeLimit | None = None,
) -> None:
    """Trains a network until `epochs` epochs are done; `trainer` knows how many were done before.

    Each epoch has `steps` steps. After an epoch the network is evaluated, a line of metrics.csv is written, and the
    state is saved. `after_epoch` is called with the number of epochs done.
    Raises UserError if a loss or a weight is not finite, before that state is saved. Raises Unfinished if the next
    epoch would pass the time limit.
    """
    while trainer.epoch < epochs:
        if limit is not None:
            limit.check(trainer.epoch, epochs)
        progress.begin(trainer.epoch)
        row = trainer.train_epoch(data, progress)
        trainer.check_finite(trainer.epoch, steps, files.kept(trainer.epoch))
        trainer.epoch += 1
        trainer.history.append(row | trainer.evaluate_epoch(data))
        files.save(trainer)
        progress.end(trainer.history[-1])
        if after_epoch is not None:
            after_epoch(trainer.epoch)


def _prepare(
    trainer: Trainer,
    data: ImageData,
    files: TrainingFiles,
    progress: Progress,
    *,
    steps: int,
    limit: TimeLimit | None,
) -> None:
    """Trains the remaining epochs of the preparation, before the training proper, and saves the state after each."""
    length = max(trainer.preparation_epochs.values(), default=0)
    while (done := len(trainer.preparation)) < length:
        if limit is not None:
            limit.check(0, trainer.config.epochs)
        progress.begin(done, preparing=True)
        row = trainer.prepare_epoch(data, progress)
        kept = f"That was in the preparation; {files.last} has {done} of its {counted(length, 'epoch')}."
        trainer.check_finite(done, steps, kept)
        trainer.preparation.append(row)
        if done + 1 == length:
            # The training proper starts without momentum.
            trainer.raw_optimizer.state.clear()
        files.save_preparation(trainer)
        progress.end(row)
    trainer.end_preparation()

"""The training of a network, from its first epoch or from a checkpoint.

`fit_epochs` is the loop over epochs of every network: teacher, students, and the networks of `bnn_itrd.nlp`. `fit`
trains a network for images, with the distillers' preparation before the epochs.
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
    """A trained network and its training.

    model: the network in eval mode; with ``train.ema`` the moving average. history: the row of metrics.csv of each
    epoch. final: the last evaluation.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    final: Evaluation

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch with the best top-1; of equal ones, the first."""
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
    """Trains a network, or continues from `out`/last.pt; the student is changed in place.

    identity: the configuration that must be the same for a run to be continued (see `config.differences`).
    last.pt and best.pt (by top-1 on the held-out images, or on the test images without these), metrics.csv,
    preparation.csv if a distiller has a preparation, and TensorBoard files are written into `out`; `TrainingFiles`
    describes when. begin: a function called on the main process if the run is new, after all checks and before
    anything is written. after_epoch: a function called with the number of epochs that are done.
    deadline: the end of the whole command's time, as `time.monotonic` counts; by default ``train.max_seconds`` from
    now. All hooks are removed at the end. A BatchNorm in evaluation mode, in a student in training mode, stays so.
    Gives a UserWarning if most of the student is frozen. Raises Unfinished before an epoch beyond the deadline;
    UserError: another configuration in `out`, a batch larger than the data, a distiller that does not fit the networks,
    a student without a parameter to train, a loss that is not finite.
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
    """Prints a line if the restored training was finished before."""
    if shown and trainer.epoch >= (epochs := trainer.config.epochs):
        trainer.fabric.print(f"{title}: its training was already finished, at epoch {trainer.epoch} of {epochs}")


class TimeLimit:
    """Stops a training before the epoch that would pass a deadline, which is a time of `time.monotonic`.

    An epoch is expected to take as long as this network's longest epoch in this call, with its evaluation; the first
    one, in which code is compiled, is ignored after the second. The first epoch begins if the deadline has not passed.
    Of several processes the first decides for all.
    """

    def __init__(self, deadline: float, title: str, fabric: Fabric) -> None:
        self.deadline, self.title, self.fabric = deadline, title, fabric
        self._began: float | None = None
        self._lengths: list[float] = []

    @classmethod
    def of(cls, deadline: float | None, train: TrainConfig, title: str, fabric: Fabric) -> TimeLimit | None:
        """Returns a training's limit: the command's deadline, or ``train.max_seconds`` from now; None without these."""
        if deadline is None and train.max_seconds is not None:
            deadline = time.monotonic() + train.max_seconds
        return None if deadline is None else cls(deadline, title, fabric)

    def check(self, epoch: int, epochs: int) -> None:
        """Raises Unfinished if the next epoch would end too late; `fit_epochs` calls this before each epoch."""
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
    """Trains the epochs that are missing, each of so many steps.

    After an epoch the network is evaluated, the state is saved, and a line of metrics.csv is written. Raises UserError
    on a loss or a weight that is not finite, before that state is saved, and Unfinished if the time limit is near.
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
    """Trains the epochs of the distillers' preparation that are missing; the state is saved after each."""
    length = max(trainer.preparation_epochs.values(), default=0)
    while (done := len(trainer.preparation)) < length:
        if limit is not None:
            limit.check(0, trainer.config.epochs)
        progress.begin(done, preparing=True)
        row = trainer.prepare_epoch(data, progress)
        kept = f"It was the preparation, of which {files.last} holds {done} of {counted(length, 'epoch')}."
        trainer.check_finite(done, steps, kept)
        trainer.preparation.append(row)
        if done + 1 == length:
            # The training proper starts without momentum.
            trainer.raw_optimizer.state.clear()
        files.save_preparation(trainer)
        progress.end(row)
    trainer.end_preparation()

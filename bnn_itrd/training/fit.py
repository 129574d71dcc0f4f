"""The training loop: one for the teacher, the plain student and every distilled one.

`training.objective` is what a step computes, `training.trainer` owns the state a checkpoint holds and walks an epoch;
`fit` here walks the epochs: preparation, training, evaluation, checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning.fabric import Fabric
from torch import nn

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import LogConfig, TrainConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError
from bnn_itrd.quant import set_progress
from bnn_itrd.training.checkpoint import matching_state, save_checkpoint
from bnn_itrd.training.evaluation import Evaluation, evaluate
from bnn_itrd.training.fabric import steps_in_epoch
from bnn_itrd.training.metrics import write_metrics
from bnn_itrd.training.nonfinite import NonFinite
from bnn_itrd.training.progress import Progress, TensorBoard
from bnn_itrd.training.trainer import Trainer

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True)
class Fitted:
    """A trained network (in eval mode; the moving average where one was asked for) and how it got there."""

    model: nn.Module
    history: list[dict[str, Any]]
    final: Evaluation

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch with the best top-1 (the first of equals)."""
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
) -> Fitted:
    """Trains a network, or continues where `out`/last.pt stands; the student is changed in place. No hook stays on
    the networks, whatever happens.

    `identity` is the configuration that must agree for a run to be continued (see `config.differences`).
    Writes last.pt, best.pt (by top-1 on the held-out images, or on the test images where none are held out),
    metrics.csv, preparation.csv where a distiller has a phase of its own, and TensorBoard files into `out`. `begin` is
    called on the main process where a run is new, once everything is found to fit and before anything is written.
    Raises UserError: another configuration in `out`, a batch larger than the data, a distiller that does not fit the
    networks, a loss that is not finite.
    """
    steps_per_epoch = steps_in_epoch(train, len(data.train), fabric.world_size)
    distill.check_learns()
    trainer = Trainer(
        student,
        teacher,
        input_shape=data.input_shape,
        train=train,
        distill=distill,
        fabric=fabric,
        labels=data.train.labels,
    )
    try:
        return _fit(trainer, data, steps_per_epoch, log, out, identity, title, begin, after_epoch)
    finally:
        trainer.objective.release()


def _fit(
    trainer: Trainer,
    data: ImageData,
    steps_per_epoch: int,
    log: LogConfig,
    out: Path,
    identity: dict[str, Any],
    title: str,
    begin: Callable[[], None] | None,
    after_epoch: Callable[[int], None] | None,
) -> Fitted:
    train, fabric = trainer.config, trainer.fabric
    last = out / "last.pt"
    if last.exists():
        trainer.restore(matching_state(last, identity))
    stands = trainer.epoch, len(trainer.preparation)
    if fabric.broadcast(stands) != stands:
        raise UserError(f"all processes must see the same {last}: put --out on a disk they share")
    split = data.test if data.val is None else data.val
    non_finite = NonFinite(fabric.device)
    main = fabric.is_global_zero
    if main:
        if begin is not None and not last.exists():
            begin()
        for stale in out.glob(".*.tmp"):  # what a killed process was writing
            stale.unlink()
        if trainer.history:
            write_metrics(out / "metrics.csv", trainer.history)
        if trainer.preparation:
            write_metrics(out / "preparation.csv", trainer.preparation)
    board = TensorBoard(out, enabled=log.tensorboard and main, purge_step=trainer.epoch)
    # A compiled copy of the same module: the weights are shared, evaluation stays in float32.
    predictor = torch.compile(trainer.kept) if train.compile else trainer.kept
    final: Evaluation | None = None
    with Progress(
        title, epochs=train.epochs, steps=steps_per_epoch, names=trainer.objective.names,
        preparation=max(trainer.preparation_epochs.values(), default=0), batch_size=train.batch_size,
        enabled=log.progress and main, live=fabric.device.type == "cpu",
    ) as progress:  # fmt: skip
        _prepare(trainer, data, steps_per_epoch, non_finite, progress, out, identity)
        while trainer.epoch < train.epochs:
            progress.begin(trainer.epoch)
            row = trainer.train_epoch(data, steps_per_epoch, non_finite, progress)
            kept = f"{last} holds epoch {trainer.epoch}." if last.exists() else "No checkpoint was written yet."
            non_finite.check(trainer.objective.names, steps_per_epoch, kept)
            if not trainer.finite():  # the last update of an epoch shows in no loss any more
                raise UserError(
                    f"the weights were not finite at the end of epoch {trainer.epoch + 1}: training stopped. {kept} "
                    "Lower train.lr, or set train.clip_norm"
                )
            trainer.epoch += 1
            row |= {
                "split": "test" if data.val is None else "val",
                "top1": None,
                "top5": None,
                "eval_loss": None,
            }
            if trainer.epoch % train.eval_every == 0 or trainer.epoch == train.epochs:
                set_progress(trainer.kept, trainer.epoch / train.epochs)
                final = evaluate(predictor, split, device=fabric.device, channels_last=train.channels_last)
                row |= {"top1": final.top1, "top5": final.top5, "eval_loss": final.loss}
            trainer.history.append(row)
            if main:
                _save(trainer, out, identity)
                board.write(row)
            fabric.barrier()
            progress.end(row)
            if after_epoch is not None:
                after_epoch(trainer.epoch)
    board.close()
    trainer.share_buffers()
    model = trainer.kept
    set_progress(model, 1.0)
    if final is None:
        final = evaluate(predictor, split, device=fabric.device, channels_last=train.channels_last)
    return Fitted(model.eval(), trainer.history, final)


def _prepare(
    trainer: Trainer,
    data: ImageData,
    steps_per_epoch: int,
    non_finite: NonFinite,
    progress: Progress,
    out: Path,
    identity: dict[str, Any],
) -> None:
    """The distillers' phases before the training, those that are not done yet; each epoch ends in a checkpoint."""
    length = max(trainer.preparation_epochs.values(), default=0)
    while (done := len(trainer.preparation)) < length:
        progress.begin(done, preparing=True)
        row = trainer.prepare_epoch(data, steps_per_epoch, non_finite, progress)
        kept = f"It was the preparation, of which {out / 'last.pt'} holds {done} of {length} epochs."
        non_finite.check(trainer.objective.names, steps_per_epoch, kept)
        if not trainer.finite():
            raise UserError(
                f"the weights were not finite at the end of epoch {done + 1}: training stopped. {kept} "
                "Lower train.lr, or set train.clip_norm"
            )
        trainer.preparation.append(row)
        if done + 1 == length:
            # What the training starts from has no momentum.
            trainer.raw_optimizer.state.clear()
        if trainer.fabric.is_global_zero:
            state = {"model": trainer.kept.state_dict(), "identity": identity, **trainer.state()}
            save_checkpoint(out / "last.pt", state)
            write_metrics(out / "preparation.csv", trainer.preparation)
        trainer.fabric.barrier()
        progress.end(row)
    trainer.end_preparation()


def _save(trainer: Trainer, out: Path, identity: dict[str, Any]) -> None:
    """last.pt holds all; best.pt the kept network of the best epoch so far; the CSV is written from the history."""
    row = trainer.history[-1]
    scored = [r["top1"] for r in trainer.history[:-1] if r["top1"] is not None]
    kept = trainer.kept.state_dict()
    if row["top1"] is not None and row["top1"] > max(scored, default=-1.0):
        save_checkpoint(
            out / "best.pt",
            {"model": kept, "epoch": trainer.epoch, "top1": row["top1"], "identity": identity},
        )
    save_checkpoint(out / "last.pt", {"model": kept, "identity": identity, **trainer.state()})
    write_metrics(out / "metrics.csv", trainer.history)

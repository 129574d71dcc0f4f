"""The training loop of question answering, for the teacher and every student: epochs that resume exactly.

It is the loop of `bnn_itrd.training` for batches of text: the same checkpoint, the same rule that everything random in
an epoch is a function of (seed, epoch), the same metrics.csv.
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
from bnn_itrd.errors import UserError
from bnn_itrd.nlp.config import SquadTrainConfig, StudentConfig
from bnn_itrd.nlp.data import SquadData
from bnn_itrd.nlp.distil import QAObjective
from bnn_itrd.nlp.evaluation import Evaluation, evaluate
from bnn_itrd.nlp.features import train_batches
from bnn_itrd.training.checkpoint import matching_state, save_checkpoint
from bnn_itrd.training.metrics import write_metrics
from bnn_itrd.training.progress import TensorBoard

__all__ = ["Fitted", "fit", "learning_rate"]


def learning_rate(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """Linear from peak / warmup to the peak, then linear towards 0: at step in [0, steps)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


@dataclass(frozen=True)
class Fitted:
    """A trained network in eval mode, a row for each epoch, and its answers at the end."""

    model: nn.Module
    history: list[dict[str, Any]]
    final: Evaluation


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, scales and shifts do not."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class _Trainer:
    """The state of one training: what is stepped, and what a checkpoint holds."""

    def __init__(
        self, objective: QAObjective, data: SquadData, train: SquadTrainConfig, student: StudentConfig, fabric: Fabric
    ) -> None:
        self.objective, self.data, self.train, self.fabric = objective, data, train, fabric
        self.max_rows = None if student.itrd is None else student.itrd.max_tokens
        self.steps = len(data.train_windows) // train.batch_size
        self.raw = torch.optim.AdamW(_groups(objective, train.weight_decay), lr=train.lr)
        self.module, self.optimizer = fabric.setup(objective, self.raw)
        # One Fabric serves a run's members one after the other: each begins with a loss scale of its own.
        scaler = getattr(fabric.strategy.precision, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            scaler.load_state_dict(torch.amp.GradScaler(fabric.device.type).state_dict())
        self.history: list[dict[str, Any]] = []
        self.epoch = 0

    def state(self) -> dict[str, Any]:
        return {
            "objective": self.objective.state_dict(),
            "optimizer": self.raw.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        try:
            self.objective.load_state_dict(state["objective"])
            self.raw.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"the checkpoint holds another architecture: {error}") from error
        if state["precision"]:
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.epoch, self.history = state["epoch"], state["history"]

    def train_epoch(self) -> dict[str, Any]:
        """One pass; the mean of each loss part and the speed. Raises UserError where one was not finite."""
        config, fabric = self.train, self.fabric
        torch.manual_seed(mix_seed(config.seed, self.epoch, 2))  # dropout
        self.objective.train()
        total = config.epochs * self.steps
        sums = torch.zeros(len(self.objective.names), device=fabric.device)
        started, rate = time.perf_counter(), 0.0
        batches = train_batches(
            self.data.train_windows,
            config.batch_size,
            pad_id=self.data.pad_id,
            max_rows=self.max_rows,
            seed=config.seed,
            epoch=self.epoch,
        )
        for i, batch in enumerate(batches):
            step = self.epoch * self.steps + i
            rate = learning_rate(step, steps=total, warmup=round(config.warmup * total), peak=config.lr)
            for group in self.raw.param_groups:
                group["lr"] = rate
            loss, parts = self.module(batch.to(fabric.device))
            fabric.backward(loss)
            if config.clip_norm is not None:
                fabric.clip_gradients(self.module, self.optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad()
            sums += parts
        means = (sums / self.steps).tolist()
        finite = torch.stack([torch.isfinite(p).all() for p in self.objective.parameters()]).all()
        odd = [name for name, mean in zip(self.objective.names, means, strict=True) if not abs(mean) < float("inf")]
        if odd or not finite:
            what = f"the loss part {odd[0]!r} was" if odd else "the weights were"
            raise UserError(
                f"{what} not finite in epoch {self.epoch + 1}: training stopped, the last checkpoint stays. "
                "Lower train.lr"
            )
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch + 1,
            "lr": rate,
            "loss": sum(means),
            **{f"loss_{name}": mean for name, mean in zip(self.objective.names, means, strict=True)},
            "seconds": seconds,
            "windows_per_s": self.steps * config.batch_size / seconds,
            "split": "test",
        }


def fit(
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
) -> Fitted:
    """Trains a network, or continues where `out`/last.pt stands; the student is changed in place.

    Writes last.pt, metrics.csv and TensorBoard files into `out`, after every epoch.
    Raises UserError: another configuration in `out`, a loss that is not finite.
    """
    torch.manual_seed(mix_seed(train.seed, 1))  # ITRD's embeddings
    objective = QAObjective(student, None if teacher is None else teacher.to(fabric.device), learns)
    trainer = _Trainer(objective, data, train, learns, fabric)
    last = out / "last.pt"
    if last.exists():
        trainer.restore(matching_state(last, identity))
    for stale in out.glob(".*.tmp"):  # what a killed process was writing
        stale.unlink()
    board = TensorBoard(out, enabled=log.tensorboard, purge_step=trainer.epoch)
    final: Evaluation | None = None
    while trainer.epoch < train.epochs:
        row = trainer.train_epoch()
        final = evaluate(student, data, device=fabric.device)
        row |= {"em": final.em, "f1": final.f1}
        trainer.epoch += 1
        trainer.history.append(row)
        save_checkpoint(last, {"identity": identity, **trainer.state()})
        write_metrics(out / "metrics.csv", trainer.history)
        board.write(row)
        if log.progress:
            losses = " ".join(f"{name} {row[f'loss_{name}']:.3f}" for name in objective.names)
            print(
                f"{title}: epoch {row['epoch']}/{train.epochs}  {losses}  EM {final.em:.2f}  F1 {final.f1:.2f}  "
                f"{row['windows_per_s']:,.0f} windows/s",
                flush=True,
            )
    board.close()
    write_metrics(out / "metrics.csv", trainer.history)
    if final is None:
        final = evaluate(student, data, device=fabric.device)
    return Fitted(student.eval(), trainer.history, final)

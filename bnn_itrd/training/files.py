"""`TrainingFiles`, which reads and writes the files of one training: checkpoints, metrics.csv, TensorBoard's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from lightning.fabric import Fabric

from bnn_itrd.config.train import TrainConfig
from bnn_itrd.errors import UserError
from bnn_itrd.files import remove_half_written
from bnn_itrd.training.base import BaseTrainer
from bnn_itrd.training.checkpoint import matching_state
from bnn_itrd.training.metrics import write_metrics
from bnn_itrd.training.progress import TensorBoard
from bnn_itrd.training.writer import CheckpointWriter

__all__ = ["TrainingFiles"]


class TrainingFiles:
    """Reads and writes the files in a training's folder; with several processes, only the first one writes.

    - last.pt has all that is needed to continue the training
    - best.pt has the network of the epoch with the best top-1 accuracy, if accuracies are measured
    - metrics.csv has a line for each epoch
    - preparation.csv has a line for each epoch in which distillers train before the training proper

    A thread writes checkpoints: after the first epoch, then whenever `seconds` have passed since the last one, and at
    the end of the ``with`` block, also after an error. In between, the newest epoch's state is in memory.
    `identity` is the configuration that must be the same if the training is to be continued.
    """

    def __init__(
        self, out: Path, identity: dict[str, Any], fabric: Fabric, *, seconds: float = TrainConfig.checkpoint_seconds
    ) -> None:
        self.out, self.identity, self.fabric = out, identity, fabric
        self.last = out / "last.pt"
        self.board: TensorBoard | None = None
        self.writer = CheckpointWriter(out, seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def restore(self, trainer: BaseTrainer) -> None:
        """Restores a trainer from last.pt, if that exists; raises UserError if it is of another configuration."""
        if self.last.exists():
            state = matching_state(self.last, self.identity)
            try:
                trainer.restore(state)
            except UserError as error:
                raise UserError(f"{self.last}: {error}") from error
        done = trainer.epoch, len(trainer.preparation)
        if self.fabric.broadcast(done) != done:
            raise UserError(f"the processes see different files {self.last}: put --out on a disk that all can read")

    def open(self, trainer: BaseTrainer, *, tensorboard: bool, begin: Callable[[], None] | None = None) -> None:
        """Prepares the folder, once `restore` was called: rewrites metrics.csv and opens TensorBoard's file.

        `begin` is called first if the training is new. Temporary files of a killed process are removed.
        """
        main = self.fabric.is_global_zero
        if main:
            if begin is not None and not self.last.exists():
                begin()
            remove_half_written(self.out)
            self._write_rows(trainer)
        self.board = TensorBoard(self.out, enabled=tensorboard and main, purge_step=trainer.epoch)

    def _write_rows(self, trainer: BaseTrainer) -> None:
        """Writes metrics.csv and preparation.csv from the rows of the trainer's checkpoint."""
        for name, rows in (("metrics.csv", trainer.history), ("preparation.csv", trainer.preparation)):
            if rows:
                write_metrics(self.out / name, rows)

    def kept(self, epoch: int) -> str:
        """Returns a sentence for an error message: that last.pt has this epoch, or that no checkpoint was written."""
        begun = self.last.exists() or self.writer.began
        return f"{self.last} has epoch {epoch}." if begun else "No checkpoint was written yet."

    def save_preparation(self, trainer: BaseTrainer) -> None:
        """Saves the state after an epoch of the preparation, before the training proper; every process waits for it."""
        if self.fabric.is_global_zero:
            self.writer.keep({"last.pt": {"identity": self.identity, **trainer.state()}})
            write_metrics(self.out / "preparation.csv", trainer.preparation)
        self.fabric.barrier()

    def save(self, trainer: BaseTrainer) -> None:
        """Saves the state after the newest epoch of the trainer's history; every process waits for this."""
        if self.fabric.is_global_zero:
            row, state = trainer.history[-1], trainer.state()
            files = {"last.pt": {"identity": self.identity, **state}}
            scored = [r["top1"] for r in trainer.history[:-1] if r.get("top1") is not None]
            if row.get("top1") is not None and row["top1"] > max(scored, default=-1.0):
                best = {"model": state["model"], "epoch": trainer.epoch, "top1": row["top1"]}
                files = {"best.pt": {**best, "identity": self.identity}, **files}
            self.writer.keep(files)
            write_metrics(self.out / "metrics.csv", trainer.history)
            assert self.board is not None
            self.board.write(row)
        self.fabric.barrier()

    def close(self) -> None:
        """Writes the state that is only in memory, and closes the files; raises UserError if that fails."""
        try:
            self.writer.close()
        finally:
            if self.board is not None:
                self.board.close()

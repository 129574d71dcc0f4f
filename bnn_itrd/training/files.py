"""The files of one training: checkpoints, metrics.csv, and TensorBoard's."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch
from lightning.fabric import Fabric

from bnn_itrd.errors import UserError
from bnn_itrd.training.base import BaseTrainer
from bnn_itrd.training.checkpoint import matching_state, save_checkpoint
from bnn_itrd.training.metrics import write_metrics
from bnn_itrd.training.progress import TensorBoard

__all__ = ["CHECKPOINT_SECONDS", "TrainingFiles", "write_waiting"]

# A checkpoint of a ResNet-18 has 90 MB, and an epoch of CIFAR-10 may take a second and a half.
CHECKPOINT_SECONDS = 30.0

# Those that may hold an epoch which is not on the disk yet.
_OPEN: weakref.WeakSet[TrainingFiles] = weakref.WeakSet()


def write_waiting() -> None:
    """Writes the ends of epochs that are in memory alone, for a process that is about to end in the midst of a step."""
    for files in list(_OPEN):
        files.write_waiting()


class TrainingFiles:
    """Reads and writes what a training keeps in its folder; of several processes the main one alone writes.

    last.pt holds everything that continues the training, best.pt the network of the epoch with the best top-1 (where
    rows have one), metrics.csv a line per epoch, and preparation.csv a line per epoch of the distillers' preparation.
    Checkpoints are written after the first epoch of a call, then when `seconds` have passed since the last one, and at
    the end: leaving it as a context writes what is not on the disk yet, whatever ended the training. Until then the end
    of the last epoch is a copy in memory. A thread writes them beside the training.
    `identity`: the configuration that must agree for a training to be continued.
    """

    def __init__(
        self, out: Path, identity: dict[str, Any], fabric: Fabric, *, seconds: float = CHECKPOINT_SECONDS
    ) -> None:
        self.out, self.identity, self.fabric, self.seconds = out, identity, fabric, seconds
        self.last = out / "last.pt"
        self.board: TensorBoard | None = None
        self._waiting: dict[str, dict[str, Any]] = {}  # file -> what it is to hold
        self._written = -float("inf")
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        # `write_waiting` comes from another thread, while the training stands in a step.
        self._lock = threading.RLock()
        _OPEN.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def restore(self, trainer: BaseTrainer) -> None:
        """Continues where last.pt stands, if there is one. Raises UserError: another configuration or network."""
        if self.last.exists():
            trainer.restore(matching_state(self.last, self.identity))
        stands = trainer.epoch, len(trainer.preparation)
        if self.fabric.broadcast(stands) != stands:
            raise UserError(f"all processes must see the same {self.last}: put --out on a disk they share")

    def open(self, trainer: BaseTrainer, *, tensorboard: bool, begin: Callable[[], None] | None = None) -> None:
        """Calls `begin` where the training is new, and puts right what a process that was killed left behind."""
        main = self.fabric.is_global_zero
        if main:
            if begin is not None and not self.last.exists():
                begin()
            for stale in self.out.glob(".*.tmp"):  # what a killed process was writing
                stale.unlink()
            self._write_rows(trainer)
        self.board = TensorBoard(self.out, enabled=tensorboard and main, purge_step=trainer.epoch)

    def _write_rows(self, trainer: BaseTrainer) -> None:
        for name, rows in (("metrics.csv", trainer.history), ("preparation.csv", trainer.preparation)):
            if rows:
                write_metrics(self.out / name, rows)

    def kept(self, epoch: int) -> str:
        """Returns the sentence of an error message that says what is kept: last.pt after so many epochs, or nothing."""
        begun = self.last.exists() or self._written > 0
        return f"{self.last} holds epoch {epoch}." if begun else "No checkpoint was written yet."

    def save_preparation(self, trainer: BaseTrainer) -> None:
        """Keeps the end of an epoch of preparation; every process waits for it."""
        if self.fabric.is_global_zero:
            self._keep({"last.pt": {"identity": self.identity, **trainer.state()}})
            write_metrics(self.out / "preparation.csv", trainer.preparation)
        self.fabric.barrier()

    def save(self, trainer: BaseTrainer) -> None:
        """Keeps the end of an epoch, the last of the history; every process waits for it."""
        if self.fabric.is_global_zero:
            row, state = trainer.history[-1], trainer.state()
            files = {"last.pt": {"identity": self.identity, **state}}
            scored = [r["top1"] for r in trainer.history[:-1] if r.get("top1") is not None]
            if row.get("top1") is not None and row["top1"] > max(scored, default=-1.0):
                best = {"model": state["model"], "epoch": trainer.epoch, "top1": row["top1"]}
                files = {"best.pt": {**best, "identity": self.identity}, **files}
            self._keep(files)
            write_metrics(self.out / "metrics.csv", trainer.history)
            assert self.board is not None
            self.board.write(row)
        self.fabric.barrier()

    def _keep(self, files: Mapping[str, dict[str, Any]]) -> None:
        """Copies what the files are to hold, on the device, and has them written where it is time."""
        with self._lock:
            # last.pt stays the last: a best.pt that is newer than it does no harm.
            self._waiting.pop("last.pt", None)
            self._waiting |= {name: _copy(state) for name, state in files.items()}
            if time.monotonic() - self._written >= self.seconds:
                self._write()

    def _write(self) -> None:
        """Begins to write what waits; first it waits for what is being written, and raises what that met."""
        self._finish()
        if not self._waiting:
            return
        states = {name: _copy(state, "cpu") for name, state in self._waiting.items()}
        self._waiting, self._written = {}, time.monotonic()

        def write() -> None:
            for name, state in states.items():
                save_checkpoint(self.out / name, state)

        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing = self._writer.submit(write)

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def write_waiting(self) -> None:
        """Writes what waits, and returns when it is on the disk. Raises UserError where it could not be written."""
        with self._lock:
            self._write()
            self._finish()

    def close(self) -> None:
        """Writes what waits, and closes the files. Raises UserError where a checkpoint could not be written."""
        try:
            if self.board is not None:
                self.board.close()
            self.write_waiting()
        finally:
            if self._writer is not None:
                self._writer.shutdown()


def _copy(state: Any, device: str | None = None) -> Any:
    """A copy of nested plain values and tensors, by default each on its device."""
    if isinstance(state, torch.Tensor):
        return state.detach().to(device or state.device, copy=True)
    if isinstance(state, Mapping):
        return {key: _copy(value, device) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_copy(value, device) for value in state)
    return state

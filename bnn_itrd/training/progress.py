"""What is shown while a training runs, and TensorBoard's files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from torch import Tensor

__all__ = ["Progress", "TensorBoard"]


class TensorBoard:
    """Scalars of every epoch; on resume, what was logged after the checkpoint is dropped."""

    def __init__(self, out: Path, *, enabled: bool, purge_step: int) -> None:
        self.writer = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=purge_step + 1)

    def write(self, row: dict[str, Any]) -> None:
        if self.writer is None:
            return
        for key, value in row.items():
            if isinstance(value, (int, float)) and key != "epoch":
                self.writer.add_scalar(key, value, row["epoch"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _top1(row: dict[str, Any]) -> str:
    return "" if row.get("top1") is None else f"{row['split']} top-1 {row['top1']:.2f} %"


class Progress:
    """Shows a bar on a terminal (epoch, loss parts, images/s, time left), and elsewhere a line now and then.

    `live` reads the loss parts inside an epoch; on a GPU that would make it wait, so there they are an epoch old.
    `unit`: what a batch has of; the speed stands in the row as ``{unit}_per_s``. `scores`: a row's evaluation in words.
    """

    _SECONDS_BETWEEN_READS = 0.5

    def __init__(
        self,
        title: str,
        *,
        epochs: int,
        steps: int,
        names: Sequence[str],
        batch_size: int,
        enabled: bool,
        live: bool,
        preparation: int = 0,
        unit: str = "images",
        scores: Callable[[dict[str, Any]], str] = _top1,
        seconds_between_lines: float = 10.0,
    ) -> None:
        self.unit, self.scores, self.seconds_between_lines = unit, scores, seconds_between_lines
        self.preparation, self.preparing = preparation, False
        self.title, self.epochs, self.steps = title, epochs, steps
        self.names, self.batch_size, self.enabled, self.live = names, batch_size, enabled, live
        self.console = Console()
        self.bar: RichProgress | None = None
        if enabled and self.console.is_terminal:
            self.bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
        self.line_time = self.read_time = time.perf_counter()
        self.text = ""

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=(self.preparation + self.epochs) * self.steps, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, epoch: int, *, preparing: bool = False) -> None:
        """Says that an epoch begins, counted from 0: of the training or of the `preparation` epochs before it."""
        self.epoch, self.preparing, self.epoch_start = epoch, preparing, time.perf_counter()

    def _place(self) -> tuple[str, int]:
        """The epoch in words, and how many steps come before it."""
        if self.preparing:
            return f"preparation {self.epoch + 1}/{self.preparation}", self.epoch * self.steps
        return f"epoch {self.epoch + 1}/{self.epochs}", (self.preparation + self.epoch) * self.steps

    def step(self, done: int, parts: Tensor) -> None:
        """Says that so many steps of the epoch are done; parts (k,) of the loss in the order of `names`."""
        if self.bar is None:
            return
        now = time.perf_counter()
        place, before = self._place()
        if self.live and now - self.read_time > self._SECONDS_BETWEEN_READS:
            self.read_time = now
            speed = done * self.batch_size / (now - self.epoch_start)
            losses = " ".join(f"{n} {v:.3f}" for n, v in zip(self.names, parts.tolist(), strict=True))
            self.text = f"{place}  {losses}  {speed:,.0f} {self.unit}/s"
        self.bar.update(self.task, completed=before + done, text=self.text)

    def end(self, row: dict[str, Any]) -> None:
        """Says that the epoch is over, with its row of metrics.csv."""
        if not self.enabled:
            return
        place, before = self._place()
        losses = " ".join(f"{n} {row[f'loss_{n}']:.3f}" for n in self.names if f"loss_{n}" in row)
        shown = [place, losses, self.scores(row), f"{row[f'{self.unit}_per_s']:,.0f} {self.unit}/s"]
        self.text = "  ".join(text for text in shown if text)
        if self.bar is not None:
            self.bar.update(self.task, completed=before + self.steps, text=self.text)
            return
        now = time.perf_counter()
        last = self.preparation if self.preparing else self.epochs
        if self.epoch + 1 == last or now - self.line_time > self.seconds_between_lines:
            self.line_time = now
            print(f"{self.title}: {self.text}", flush=True)

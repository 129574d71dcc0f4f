"""The output of a training: lines at its beginning, a progress bar, and TensorBoard's event files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from torch import Tensor

from bnn_itrd.console import print_record, print_text
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.splits import ImageData
from bnn_itrd.models import Summary
from bnn_itrd.words import counted

__all__ = ["Progress", "TensorBoard", "first_line", "imbalance", "tell_beginning"]

# The classes count as imbalanced if the largest has at least this many times the images of the smallest.
_UNEVEN = 10


def first_line(data: ImageData, network: str, cost: Summary | None) -> str:
    """Returns the first line of a run's output: classes, images, image size, network, multiplications per image.

    network: the network's name; cost: its multiplications for one image, or None if they could not be counted.
    """
    _, height, width = data.input_shape
    parts = [f"{len(data.train):,} training", counted(len(data.test), "test image")]
    if data.val is not None:
        parts.insert(1, f"{len(data.val):,} held-out")
    classes = counted(len(data.classes), "class", "classes")
    text = f"{data.name}: {classes}, {', '.join(parts)} of {height}x{width}; {network}"
    if cost is None:
        return text
    products = cost.binary_macs + cost.integer_macs + cost.float_macs
    binary = f" ({100 * cost.binary_macs / products:.0f} % binary)" if cost.binary_macs else ""
    return f"{text}, {products:,} products per image{binary}"


def imbalance(data: ImageData) -> str | None:
    """Returns a note if the largest class has ten times the training images of the smallest, or more; else None."""
    labels = data.train.labels
    counts = labels[labels != UNLABELLED].bincount(minlength=len(data.classes)).tolist()
    most, fewest = counts.index(max(counts)), counts.index(min(counts))
    if counts[most] < _UNEVEN * counts[fewest] or counts[most] == 0:
        return None
    many, few = (f"{data.classes[c]!r} has {counts[c]:,}" for c in (most, fewest))
    return f"the classes have very different sizes ({many} training images, {few}): look at the accuracy of each class"


def tell_beginning(
    data: ImageData, network: str, cost: Summary | None, remarks: Sequence[str] = (), *, shown: bool
) -> None:
    """Prints the first line of a run if `shown`, and on stderr the notes: remarks on the network, uneven classes."""
    if shown:
        print_text(first_line(data, network, cost))
    for remark in remarks:
        print(f"note: {network}: {remark}", file=sys.stderr)
    if (uneven := imbalance(data)) is not None:
        print(f"note: {uneven}", file=sys.stderr)


def _in_words(seconds: float) -> str:
    """Returns a duration, given in seconds, as text with its one or two largest units.

    >>> _in_words(48), _in_words(700), _in_words(12_300), _in_words(190_000)
    ('48 s', '12 min', '3 h 25 min', '2 d 5 h')
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class TensorBoard:
    """Writes the numbers of each epoch as TensorBoard scalars, if `enabled`, into the folder `out`/tensorboard.

    purge_step: number of epochs done; a training that is continued drops the scalars of later epochs.
    """

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


def _speed(value: float) -> str:
    """Returns a number of images per second as text: without a fraction, or below 10 with two significant digits.

    >>> _speed(1234.5), _speed(0.314)
    ('1,234', '0.31')
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _top1(row: dict[str, Any]) -> str:
    return "" if row.get("top1") is None else f"{row['split']} top-1 {row['top1']:.2f} %"


class Progress:
    """Shows the progress of a training: a bar on a terminal, lines elsewhere. It is used in a ``with`` block.

    The bar has the epoch, the parts of the loss, the speed and the time left. After the first batches one line says how
    long the training will take.

    Args:
        title: name of the network; names: names of the loss's parts
        epochs, steps, batch_size: numbers of epochs, of steps in an epoch, and of images in a step
        enabled: whether anything is shown
        live: whether the loss is shown within an epoch, too; on a GPU, reading it would wait for the device
        preparation: number of epochs before the training proper
        unit: what a batch consists of; a row of metrics.csv has the speed as ``{unit}_per_s``
        scores: function that returns the text for a row's evaluation
        seconds_between_lines: shortest time between two lines, except for the last
    """

    _SECONDS_BETWEEN_READS = 0.5
    _SECONDS_TO_ESTIMATE = 2.0

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
        self.first_step: tuple[int, float] | None = None
        self.estimated = False

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
        """Records that an epoch begins, counted from 0: of the training, or if `preparing` of the epochs before it."""
        self.epoch, self.preparing, self.epoch_start = epoch, preparing, time.perf_counter()

    def _place(self) -> tuple[str, int]:
        """Returns the current epoch as text ("epoch 3/30"), and the number of steps before it."""
        if self.preparing:
            return f"preparation {self.epoch + 1}/{self.preparation}", self.epoch * self.steps
        return f"epoch {self.epoch + 1}/{self.epochs}", (self.preparation + self.epoch) * self.steps

    def step(self, done: int, parts: Tensor) -> None:
        """Shows that `done` steps of the epoch are done; parts: the parts of the loss (k,) in the order of `names`."""
        if self.enabled and not self.estimated:
            self._estimate(done, parts)
        if self.bar is None:
            return
        now = time.perf_counter()
        place, before = self._place()
        if self.live and now - self.read_time > self._SECONDS_BETWEEN_READS:
            self.read_time = now
            speed = done * self.batch_size / (now - self.epoch_start)
            losses = " ".join(f"{n} {v:.3f}" for n, v in zip(self.names, parts.tolist(), strict=True))
            self.text = f"{place}  {losses}  {_speed(speed)} {self.unit}/s"
        self.bar.update(self.task, completed=before + done, text=self.text)

    def _estimate(self, done: int, parts: Tensor) -> None:
        """Prints the remaining time, once, two seconds after the first step, which is left out because it is slower."""
        before = self._place()[1]
        if self.first_step is not None and time.perf_counter() - self.first_step[1] < self._SECONDS_TO_ESTIMATE:
            return
        parts.tolist()  # waits for the device; this happens in two steps only
        now, step = time.perf_counter(), before + done
        if self.first_step is None:
            self.first_step = (step, now)
            return
        first, began = self.first_step
        left = ((self.preparation + self.epochs) * self.steps - step) * (now - began) / (step - first)
        self.estimated = True
        length = f"{counted(self.epochs, 'epoch')} of {counted(self.steps, 'batch', 'batches')}"
        text = f"{self.title}: about {_in_words(left)} to go, at {length}"
        if self.bar is None:
            print_text(text)
        else:
            self.bar.console.print(text, markup=False, highlight=False)

    def end(self, row: dict[str, Any]) -> None:
        """Shows the results of the epoch that is over; `row` is its row of metrics.csv."""
        if not self.enabled:
            return
        place, before = self._place()
        losses = " ".join(f"{n} {row[f'loss_{n}']:.3f}" for n in self.names if f"loss_{n}" in row)
        shown = [place, losses, self.scores(row), f"{_speed(row[f'{self.unit}_per_s'])} {self.unit}/s"]
        self.text = "  ".join(text for text in shown if text)
        if self.bar is not None:
            self.bar.update(self.task, completed=before + self.steps, text=self.text)
            return
        now = time.perf_counter()
        last = self.preparation if self.preparing else self.epochs
        if self.epoch + 1 == last or now - self.line_time > self.seconds_between_lines:
            self.line_time = now
            print_record(f"{self.title}: {self.text}")

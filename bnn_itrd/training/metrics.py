"""Writes and reads metrics.csv, which has a line for each epoch, and computes values for its columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_itrd.files import write_file
from bnn_itrd.quant import BinaryConv2d, BinaryLinear

__all__ = ["loss_columns", "positive_weights", "read_metrics", "write_metrics"]


def loss_columns(
    names: Sequence[str], sums: Sequence[float], steps: int, *, shown: Sequence[str] | None = None
) -> dict[str, float]:
    """Returns an epoch's columns `loss` and `loss_NAME` of metrics.csv: the means of the loss and of its parts.

    names: names of the parts; sums: the sum of each part over the epoch's steps, in the same order; steps: number of
    steps; shown: names of the parts that get a column, by default all.

    >>> loss_columns(["ce", "kd"], [6.0, 3.0], steps=3)
    {'loss': 3.0, 'loss_ce': 2.0, 'loss_kd': 1.0}
    """
    means = {name: total / steps for name, total in zip(names, sums, strict=True)}
    columns = {f"loss_{name}": mean for name, mean in means.items() if shown is None or name in shown}
    return {"loss": sum(sums) / steps, **columns}


def write_metrics(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Writes metrics.csv with a line for each row of `history`, which has one for each epoch.

    The whole file is written anew, so that a killed process leaves no line that is cut short or repeated.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in history for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    write_file(path, lambda file: file.write(text.getvalue().encode()))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.csv: the column `epoch` as int, `split` as text, other numbers as floats.

    An empty cell is None.
    """
    with path.open(newline="") as file:
        rows = []
        for row in csv.DictReader(file):
            typed: dict[str, Any] = {}
            for key, value in row.items():
                typed[key] = None if value == "" else value if key == "split" else float(value)
            typed["epoch"] = int(typed["epoch"])
            rows.append(typed)
        return rows


@torch.no_grad()
def positive_weights(model: nn.Module) -> Tensor | None:
    """Returns for each weight of a network's binary layers whether it is +1, (number of weights,) bool.

    It is None if the network has no binary layer.
    """
    layers = [m for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    signs = [layer.binary_weight().signs.flatten() >= 0 for layer in layers]
    return torch.cat(signs) if signs else None

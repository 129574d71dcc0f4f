"""metrics.csv, which has a line per epoch, and values for its columns."""

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
    """Returns the columns `loss` and `loss_NAME` of an epoch: the means of the loss and of its parts over the steps.

    sums: the sum of each part over the epoch, in the order of `names`. shown: the parts that get a column, by default
    all.

    >>> loss_columns(["ce", "kd"], [6.0, 3.0], steps=3)
    {'loss': 3.0, 'loss_ce': 2.0, 'loss_kd': 1.0}
    """
    means = {name: total / steps for name, total in zip(names, sums, strict=True)}
    columns = {f"loss_{name}": mean for name, mean in means.items() if shown is None or name in shown}
    return {"loss": sum(sums) / steps, **columns}


def write_metrics(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Writes a line per epoch; the whole file is rewritten from the history, so no line is cut short or repeated."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in history for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    write_file(path, lambda file: file.write(text.getvalue().encode()))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.csv: numbers as floats, the epoch as int, empty cells as None."""
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
    """Returns which weights of all binary layers are +1, (weights,) bool; None for a network without binary layers."""
    layers = [m for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    signs = [layer.binary_weight().signs.flatten() >= 0 for layer in layers]
    return torch.cat(signs) if signs else None

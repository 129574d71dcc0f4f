"""metrics.csv: a line per epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_itrd.files import write_file

__all__ = ["read_metrics", "write_metrics"]


def write_metrics(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """One line per epoch, rewritten whole from the history: never a half line, never one too many."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in history for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    write_file(path, lambda file: file.write(text.getvalue().encode()))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv; numbers as floats, the epoch as int, empty cells as None."""
    with path.open(newline="") as file:
        rows = []
        for row in csv.DictReader(file):
            typed: dict[str, Any] = {}
            for key, value in row.items():
                typed[key] = None if value == "" else value if key == "split" else float(value)
            typed["epoch"] = int(typed["epoch"])
            rows.append(typed)
        return rows

"""Functions that run a small sweep (two methods, two seeds), and read a sweep's table in a page of the docs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_itrd.cli import main
from helpers import TINY

SMALL = [
    *TINY,
    "--train.epochs=1",
    "--network.name=resnet8",
    "--network.width=0.5",
    "--data.image_size=8",
    "--data.val_fraction=0.25",
    "--log.tensorboard=false",
]
GRID = ["--methods", "kd", "--grid", "train.seed=0,1"]


def sweep(root: Path, out: Path, *arguments: str, grid: list[str] = GRID) -> int:
    return main(["sweep", "digits", *SMALL, f"--data.root={root}", f"--out={out}", *grid, *arguments])


def table_of_page(page: Path, mark: str) -> list[list[str]]:
    """Returns the rows of the table that follows ``<!-- mark -->`` in a Markdown page, without its header."""
    text = page.read_text().partition(f"<!-- {mark} -->\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def difference_on_page(row: Mapping[str, Any]) -> str:
    """Returns how a docs page shows the difference in a row of `method_statistics`: bold if larger than the spread."""
    difference = "" if row["difference"] is None else f"{row['difference']:+.2f}"
    return f"**{difference}**" if (row["verdict"] or "").startswith("larger") else difference

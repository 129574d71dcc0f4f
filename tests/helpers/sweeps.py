"""The command of a sweep of two methods with two seeds, on small images."""

from __future__ import annotations

from pathlib import Path

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

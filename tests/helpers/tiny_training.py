"""A network of two layers, and a function that trains it in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import bnn_itrd
from bnn_itrd.config import DistillConfig, ITRDConfig, KDConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.datasets import load_data

QUIET = LogConfig(tensorboard=False, progress=False)
CPU = FabricConfig(accelerator="cpu", threads=1)


class TinyNet(nn.Module):
    """A network of two layers without BatchNorm, so that several processes compute exactly what one does."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Hardtanh(), nn.AvgPool2d(8), nn.Flatten())
        self.linear = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(x))


def train_tiny(tiny_npz: Path, out: Path, *, student: nn.Module | None = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    teacher = TinyNet(6).eval()
    student = TinyNet() if student is None else student
    options = {"epochs": 2, "batch_size": 32, "lr": 0.05, "warmup_epochs": 0.0, **changes}
    distill = options.pop("distill", DistillConfig(kd=KDConfig(), itrd=ITRDConfig()))
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz), val_fraction=options.pop("val_fraction", 0.0)))
    return bnn_itrd.distill(
        student, teacher, data, train=TrainConfig(**options), distill=distill, out=out, fabric=CPU, log=QUIET
    )

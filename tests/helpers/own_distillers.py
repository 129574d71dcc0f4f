"""A small network, and a function that trains it with a user's own distillers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bnn_itrd
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import Setting, Sizes

QUIET = LogConfig(tensorboard=False, progress=False)
CPU = FabricConfig(accelerator="cpu", threads=1)
# A learning rate so small that no weight changes, whatever its gradient.
STILL = 1e-30
SETTING = Setting(
    Sizes(3, 5, ((2, 4, 4),)), Sizes(3, 7, ((3, 4, 4),)), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
)


class Net(nn.Module):
    stages = ("conv",)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, width, 3, 2, 1), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).relu().mean((2, 3)))


def net(seed: int, width: int) -> Net:
    torch.manual_seed(seed)
    return Net(width)


def distilled(data: ImageData, out: Path, distillers: Mapping[str, Any], **changes: Any) -> Any:
    options = {"epochs": 2, "batch_size": 24, "lr": STILL, "warmup_epochs": 0.0, **changes}
    return bnn_itrd.distill(
        net(1, 5), net(2, 7), data, train=TrainConfig(**options), distillers=distillers, out=out, fabric=CPU, log=QUIET
    )

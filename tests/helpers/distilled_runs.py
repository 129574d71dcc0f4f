"""Small networks with stages, and functions that distil one into another for two epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bnn_itrd
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import METHODS
from bnn_itrd.training.trainer import Trainer

# The classes of all methods' options by name: dc.KDConfig, dc.ITRDConfig, ...
dc: Any = SimpleNamespace(**{kind.__name__: kind for kind in METHODS.values()})
QUIET = LogConfig(tensorboard=False, progress=False)
CPU = FabricConfig(accelerator="cpu", threads=1)
SHAPE = (3, 16, 16)
STUDENT, TEACHER = (6, 8, 12), (8, 10, 14)
TEACHER_MAPS = tuple(zip(TEACHER, (16, 8, 4), (16, 8, 4), strict=True))
# A learning rate so small that no weight changes, whatever its gradient.
STILL = 1e-30
# The epochs of the preparation are numbered from here on when random numbers are drawn (see the trainer).
PREPARATION = 1 << 20


class Net(nn.Module):
    """A network with three stages and no BatchNorm, so that several processes compute exactly what one does."""

    stages = ("a", "b", "c")

    def __init__(
        self, widths: tuple[int, ...] = STUDENT, *, classes: int = 3, stride: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.Hardtanh())
        self.b = nn.Sequential(nn.Conv2d(widths[0], widths[1], 3, stride, 1), nn.Hardtanh())
        self.c = nn.Conv2d(widths[1], widths[2], 3, 2, 1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(widths[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(x)))
        return self.linear(self.dropout(x.mean((2, 3))))


class Flat(nn.Module):
    """A network without stages."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.linear = nn.AdaptiveAvgPool2d(4), nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(x).flatten(1))


def made(seed: int, network: Callable[..., nn.Module] = Net, *args: Any, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return network(*args, **options)


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "batch_size": 32, "lr": 0.02, "warmup_epochs": 0.0, **changes})


def distilled(
    data: ImageData, out: Path, distill: DistillConfig, *, student: nn.Module, teacher: nn.Module, **changes: Any
) -> Any:
    return bnn_itrd.distill(
        student, teacher, data, train=settings(**changes), distill=distill, out=out, fabric=CPU, log=QUIET
    )


class Stop(Exception):
    """An exception that tests raise to break off a training."""


def stop_after(monkeypatch: pytest.MonkeyPatch, preparation: int, training: int) -> None:
    """Makes trainings raise `Stop` after so many epochs of preparation, or so many of training."""
    for name, most in (("prepare_epoch", preparation), ("train_epoch", training)):
        real = getattr(Trainer, name)

        def counted(self: Trainer, *args: Any, real: Any = real, most: int = most, name: str = name) -> Any:
            if (len(self.preparation) if name == "prepare_epoch" else self.epoch) >= most:
                raise Stop
            return real(self, *args)

        monkeypatch.setattr(Trainer, name, counted)


def assert_same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("seconds", "images_per_s"):
                assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def partly_labelled(npz: Path, **more: Any) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(npz), per_class=4, unlabelled=True, **more))

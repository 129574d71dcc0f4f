"""A network as a user might write it, and a count of parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class Mixed(nn.Module):
    """A network as a user might write it, with two branches, concatenation, pooling, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.left = nn.Sequential(nn.Hardtanh(), BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1))
        self.again = BinaryConv2d(16, 16, 1, groups=2, scheme="xnor")
        self.hidden = BinaryLinear(16, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([self.left(x), self.right(x)], dim=1)
        x = self.again(F.max_pool2d(x, 2))
        x = self.again(x=F.hardtanh(x)) + x
        logits: Tensor = self.head(self.norm(self.hidden(x.mean((2, 3)))))
        return logits

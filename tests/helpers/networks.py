"""What the tests of networks count."""

from __future__ import annotations

from torch import nn


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

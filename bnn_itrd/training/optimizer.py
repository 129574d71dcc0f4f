"""The optimiser, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bnn_itrd.config.train import TrainConfig

__all__ = ["MovingAverage", "learning_rate", "make_optimizer"]


def learning_rate(
    step: int,
    *,
    steps: int,
    warmup: int,
    peak: float,
    schedule: Literal["cosine", "linear", "step"] = "cosine",
    drops: Sequence[int] = (),
    decay: float = 0.1,
) -> float:
    """Returns the learning rate at a step in [0, steps).

    It rises linearly from peak / warmup to the peak in `warmup` steps. Then it falls towards 0 at `steps`, as a cosine
    or linearly; the schedule ``step`` multiplies it with `decay` at each step of `drops` instead.

    >>> [learning_rate(s, steps=6, warmup=2, peak=1.0, schedule="linear") for s in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "step":
        return peak * decay ** sum(step >= drop for drop in drops)
    if schedule == "linear":
        return peak * (steps - step) / (steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(config: TrainConfig, parameters: Any) -> torch.optim.Optimizer:
    """Returns the optimiser that a training's configuration names, over the parameters."""
    # Lightning cannot unscale gradients for clipping where a fused optimiser would unscale them itself.
    fused = not (config.precision == "16-mixed" and config.clip_norm is not None)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=fused,
    )


class MovingAverage(AveragedModel):
    """A moving average of parameters and buffers, after torch's, which at every step copies its number of updates to
    the device and waits for that copy. Whole numbers are the network's own."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        kept = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(kept, [*model.parameters(), *model.buffers()], strict=True))
        # The count is on the CPU, whatever the device: reading it waits for nothing.
        first = int(self.n_averaged) == 0
        moving = [pair for pair in pairs if pair[0].is_floating_point() and not first]
        if moving:
            torch._foreach_lerp_([average for average, _ in moving], [new for _, new in moving], 1 - self.decay)
        for average, new in pairs:
            if first or not average.is_floating_point():
                average.copy_(new)
        self.n_averaged += 1

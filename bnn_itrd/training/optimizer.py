"""Makes the optimiser, its learning rates and the moving average of the weights, and checks for frozen parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized
from torch.optim.swa_utils import AveragedModel

from bnn_itrd.config.train import TrainConfig
from bnn_itrd.errors import UserError
from bnn_itrd.quant import BinaryConv2d, BinaryLinear

__all__ = ["MovingAverage", "check_frozen", "fixed_norms", "learning_rate", "make_optimizer"]

# The number of names that a message lists.
_SHOWN = 3


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
    """Returns the learning rate at a step, counted from 0, of a training with `steps` steps.

    In the first `warmup` steps it rises linearly from peak / warmup to the peak. Then it falls towards 0, along a
    cosine or linearly. With the schedule ``step`` it is instead multiplied by `decay` at each step in `drops`.

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


def make_optimizer(config: TrainConfig, module: nn.Module) -> torch.optim.Optimizer:
    """Returns the optimiser that a configuration asks for, for those parameters of the module that require gradients.

    Raises UserError if ``weight_decay_of`` is weights, but the module has no convolution or linear layer.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> made = make_optimizer(TrainConfig(weight_decay=0.1, weight_decay_of="weights"), net)
    >>> [(len(group["params"]), group["weight_decay"]) for group in made.param_groups]
    [(1, 0.1), (3, 0.0)]
    """
    # Lightning cannot clip gradients if a fused optimiser divides them by the loss scale itself.
    fused = not (config.precision == "16-mixed" and config.clip_norm is not None)
    groups = _parameter_groups(config, module)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def _parameter_groups(config: TrainConfig, module: nn.Module) -> list[dict[str, Any]]:
    """Returns the optimiser's parameter groups: one, or two if only the weights of layers have weight decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if config.weight_decay_of == "all":
        return [{"params": trained}]
    weights = _weights(module)
    if config.weight_decay and not weights:
        raise UserError(
            "train.weight_decay_of is weights, but the network has no convolution or linear layer of torch or "
            "bnn_itrd, so nothing would decay: use all, or train.weight_decay 0"
        )
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) in weights]},
        {"params": [p for p in trained if id(p) not in weights], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _weights(module: nn.Module) -> set[int]:
    """Returns the `id()` of each weight of a convolution or linear layer, also of those in attention layers.

    If a weight is computed, by weight_norm or spectral_norm, it returns those of the parameters it is computed from.
    """
    kinds = (_ConvNd, nn.Linear, nn.MultiheadAttention, BinaryConv2d, BinaryLinear)
    found = set()
    for layer in (m for m in module.modules() if isinstance(m, kinds)):
        found |= {id(p) for name, p in layer.named_parameters(recurse=False) if "weight" in name}
        if is_parametrized(layer, "weight"):
            found |= {id(p) for p in layer.get_submodule("parametrizations.weight").parameters()}
    return found


class MovingAverage(AveragedModel):
    """An exponential moving average of a network's parameters and buffers.

    An update sets each average to decay * average + (1 - decay) * value; integers are copied. In contrast to torch's
    `AveragedModel`, an update does not wait for the device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        kept = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(kept, [*model.parameters(), *model.buffers()], strict=True))
        # The count is on the CPU, so that reading it does not wait for the device.
        first = int(self.n_averaged) == 0
        moving = [pair for pair in pairs if pair[0].is_floating_point() and not first]
        if moving:
            torch._foreach_lerp_([average for average, _ in moving], [new for _, new in moving], 1 - self.decay)
        for average, new in pairs:
            if first or not average.is_floating_point():
                average.copy_(new)
        self.n_averaged += 1


def fixed_norms(network: nn.Module) -> dict[str, nn.Module]:
    """Returns the BatchNorms that the user has put in evaluation mode in a network in training mode, by their paths.

    Their running statistics are meant to stay fixed. The result is empty if the whole network is in evaluation mode,
    which it may be because it was loaded or evaluated before.

    >>> list(fixed_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())))
    ['1']
    >>> list(fixed_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()))
    []
    """
    if not network.training:
        return {}
    return {path: m for path, m in network.named_modules() if isinstance(m, _BatchNorm) and not m.training}


def check_frozen(network: nn.Module, *, warn: bool = True) -> None:
    """Warns if a training would leave most of a network as it is; raises UserError if it would leave all of it.

    It gives a UserWarning if more than half of the parameters have ``requires_grad`` False, and one if BatchNorms are
    in evaluation mode. The error means that all parameters have ``requires_grad`` False. `warn` is False in all
    processes but one, so that each warning appears once.

    >>> check_frozen(nn.Linear(2, 2).requires_grad_(False))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: Linear has nothing to train: all its parameters (6) have requires_grad False. Call ...
    """
    kind, parameters = type(network).__name__, list(network.parameters())
    total = sum(p.numel() for p in parameters)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    if frozen == total:
        raise UserError(
            f"{kind} has nothing to train: all its parameters ({total:,}) have requires_grad False. Call the network's "
            "requires_grad_(True) first"
        )
    if warn and frozen > total / 2:
        warnings.warn(
            f"most of {kind} is frozen: {frozen:,} of its {total:,} parameters have requires_grad False and are not "
            "trained. If that is not intended, call the network's requires_grad_(True) first",
            stacklevel=2,
        )
    norms = list(fixed_norms(network))
    if warn and norms:
        more = f" and {len(norms) - _SHOWN} more" if len(norms) > _SHOWN else ""
        warnings.warn(
            f"in {kind}, {', '.join(norms[:_SHOWN])}{more} are in evaluation mode and stay there: the statistics of "
            "these BatchNorms are not trained. If that is not intended, call the network's train() first",
            stacklevel=2,
        )

"""What of a network its training leaves alone: parameters without a gradient, BatchNorms in evaluation mode."""

from __future__ import annotations

import warnings

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnn_itrd.errors import UserError

__all__ = ["check_frozen", "fixed_norms"]

# How many names a message shows.
_SHOWN = 3


def fixed_norms(network: nn.Module) -> dict[str, nn.Module]:
    """Returns the BatchNorms, by their paths, that are in evaluation mode while the network is in training mode.

    Somebody put them there to fix their statistics. In a network that is in evaluation mode as a whole there are none:
    that is the state in which a network is loaded and evaluated.

    >>> list(fixed_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())))
    ['1']
    >>> list(fixed_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()))
    []
    """
    if not network.training:
        return {}
    return {path: m for path, m in network.named_modules() if isinstance(m, _BatchNorm) and not m.training}


def check_frozen(network: nn.Module, *, warn: bool = True) -> None:
    """Gives a UserWarning where a training leaves most of a network, or the statistics of its BatchNorms, as they are.

    Most: more than half of its parameters have ``requires_grad`` False. warn: False in all processes but one. Raises
    UserError where all of them have it.

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
            "trained. Where that is not meant, call the network's requires_grad_(True) first",
            stacklevel=2,
        )
    norms = list(fixed_norms(network))
    if warn and norms:
        more = f" and {len(norms) - _SHOWN} more" if len(norms) > _SHOWN else ""
        warnings.warn(
            f"in {kind}, {', '.join(norms[:_SHOWN])}{more} stay in evaluation mode, in which they are: the statistics "
            "of these BatchNorms are not trained. Where that is not meant, call the network's train() first",
            stacklevel=2,
        )

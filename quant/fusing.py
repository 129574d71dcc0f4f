"""Whether a network trains with the fused kernels."""

from __future__ import annotations

from torch import nn

from bnn_itrd.quant.methods.recu import ReCUActivation

__all__ = ["set_fused"]


def set_fused(model: nn.Module, on: bool) -> int:
    """Sets whether the model's binarisers train with the fused kernels; returns how many there are that have some.

    On: the model must be on a GPU while it trains, and Triton must be there. Evaluation and what is saved are the same
    either way.

    >>> from bnn_itrd.quant import BinaryConv2d
    >>> set_fused(BinaryConv2d(1, 1, 1), False)
    1
    """
    found = [module for module in model.modules() if isinstance(module, ReCUActivation)]
    for module in found:
        module.fused = on
    return len(found)

"""Switches training between the fused GPU kernels and ordinary operations of torch."""

from __future__ import annotations

import importlib.util

from torch import nn

from bnn_itrd.quant.methods.recu import ReCUActivation, ReCUWeight

__all__ = ["set_fused"]


def set_fused(model: nn.Module, on: bool) -> int:
    """Switches the fused GPU kernels of ReCU on or off; returns how many modules have such a kernel.

    With `on`, the model must be on a GPU while it trains, and inputs in float64 raise. The setting changes neither
    evaluation nor the state dict. Raises ImportError where a kernel is to be switched on but Triton is not installed.

    >>> from bnn_itrd.quant import BinaryConv2d
    >>> set_fused(BinaryConv2d(1, 1, 1), False)  # of its weights and of its activations
    2
    """
    found = [module for module in model.modules() if isinstance(module, (ReCUActivation, ReCUWeight))]
    if on and found and importlib.util.find_spec("triton") is None:
        raise ImportError("the fused kernels need Triton, which is not installed: pip install triton")
    for module in found:
        module.fused = on
    return len(found)

"""A function that stores a trained network with float16 weights, in a checkpoint of about half the size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bnn_itrd.errors import UserError
from bnn_itrd.quant import BinaryConv2d, BinaryLinear
from bnn_itrd.runs.load import load_member
from bnn_itrd.training.checkpoint import save_checkpoint

__all__ = ["save_half_precision"]

_ATTEMPTS = 8


def save_half_precision(source: Path, target: Path) -> None:
    """Reads a checkpoint and writes its network with float16 weights: a teacher's, or a student's latent weights.

    The new checkpoint can be evaluated, and another training can start from it, but its own training cannot be
    continued. The signs of the binary weights do not change: if rounding would change a sign, the next float16 is taken
    that keeps it. So a student stays exactly the same network if its scale does not depend on the weights (ReCU learns
    the scale). A student's full-precision weights stay float32, because rounding them changes signs of later layers'
    inputs, which costs half a point of accuracy. A layer whose signs cannot be kept stays float32 too.
    Raises UserError if `source` is not a network's checkpoint, or a weight is larger than float16's 65,504.
    """
    model, identity, _ = load_member(source)
    layers = {k: m for k, m in model.named_modules() if isinstance(m, BinaryConv2d | BinaryLinear)}
    state = dict(model.state_dict())
    if layers:
        small = {f"{name}.weight": _same_signs(layer) for name, layer in layers.items()}
        state |= {key: value for key, value in small.items() if value is not None}
    else:
        state = {
            key: value.half() if value.is_floating_point() and value.ndim > 1 else value for key, value in state.items()
        }
    for key, value in state.items():
        if value.dtype == torch.float16 and not torch.isfinite(value).all():
            raise UserError(f"{source}: {key} has values beyond float16's largest, {torch.finfo(torch.float16).max:g}")
    save_checkpoint(target, {"model": state, "identity": identity})


@torch.no_grad()
def _same_signs(layer: BinaryConv2d | BinaryLinear) -> Tensor | None:
    """Returns a layer's weight in float16 with unchanged binary signs; None if that is not found in a few attempts."""
    weight, signs = layer.weight.detach().clone(), layer.binary_weight().signs
    half = weight.half()
    try:
        for _ in range(_ATTEMPTS):
            layer.weight.copy_(half)
            wrong = layer.binary_weight().signs != signs
            if not wrong.any():
                return half
            wide = half.float()
            # One step to the next float16. It hardly changes a filter's mean, with which a binariser may compare.
            step = signs * (wide.abs() * 2.0**-10).clamp_min(2.0**-24)
            half = torch.where(wrong, wide + step, wide).half()
    finally:
        layer.weight.copy_(weight)
    return None

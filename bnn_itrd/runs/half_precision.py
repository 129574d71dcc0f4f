"""A trained network in half the bytes, to evaluate or to start another training from; not to continue its training."""

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
    """Writes a checkpoint with the network alone: a student's latent weights, or all weights of a teacher, as float16.

    The signs of the binary weights do not change: a weight that rounding takes across its threshold is set to the next
    float16 on its side. So a student whose scale does not depend on the weights (in ReCU it is learned) stays exactly
    the same network. A student's full-precision weights stay float32, since rounding them changes signs in later
    layers, which costs half a point of accuracy. A layer whose signs cannot be kept stays float32 too.
    Raises UserError if `source` is no network's checkpoint, or a weight is beyond float16's 65,504.
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
    """Returns a layer's weight as float16 with the signs of float32, or None if that fails."""
    weight, signs = layer.weight.detach().clone(), layer.binary_weight().signs
    half = weight.half()
    try:
        for _ in range(_ATTEMPTS):
            layer.weight.copy_(half)
            wrong = layer.binary_weight().signs != signs
            if not wrong.any():
                return half
            wide = half.float()
            # A step of one unit in the last place; thresholds are means of a filter, which this hardly changes.
            step = signs * (wide.abs() * 2.0**-10).clamp_min(2.0**-24)
            half = torch.where(wrong, wide + step, wide).half()
    finally:
        layer.weight.copy_(weight)
    return None

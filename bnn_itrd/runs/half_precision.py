"""A trained network in half the bytes: to start from, or to look at; not to continue its training."""

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
    """The network of a checkpoint alone, latent weights as float16; all kernels of a network without binary layers.

    The signs are those of float32: a weight that rounding takes across its threshold goes to the next float16 on the
    right side. So a student of a scheme whose scale does not depend on the weights (ReCU: it is learned) is exactly
    the same network. The few full-precision weights of a student stay float32, since rounding them changes signs
    further on, and with them half a point of accuracy. A layer whose signs cannot be kept stays float32 too.
    Raises UserError: no checkpoint of a network, a weight beyond float16's 65,504.
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
    """The weight as float16 with the signs of float32; None where that is not reached."""
    weight, signs = layer.weight.detach().clone(), layer.binary_weight().signs
    half = weight.half()
    try:
        for _ in range(_ATTEMPTS):
            layer.weight.copy_(half)
            wrong = layer.binary_weight().signs != signs
            if not wrong.any():
                return half
            wide = half.float()
            # One unit in the last place; thresholds are means of a filter, which move as well, but hardly.
            step = signs * (wide.abs() * 2.0**-10).clamp_min(2.0**-24)
            half = torch.where(wrong, wide + step, wide).half()
    finally:
        layer.weight.copy_(weight)
    return None

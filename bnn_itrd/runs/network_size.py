"""A limit on the number of a network's weights, checked before memory is taken for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bnn_itrd.errors import UserError

__all__ = ["check_weights"]

# Networks up to these sizes are built without the check.
_USUAL_WIDTH, _USUAL_PIXELS = 2.0, 512**2
_MOST_WEIGHTS = 2**30  # 4 GiB of floats


def check_weights(make: Callable[[], nn.Module], *, name: str, width: float, input_shape: tuple[int, int, int]) -> None:
    """Raises UserError if a network has too many weights; only wide ones, or those for very large images, are checked.

    make: builds the network; it is called once on the meta device, and draws no random numbers.
    """
    if width <= _USUAL_WIDTH and input_shape[1] * input_shape[2] <= _USUAL_PIXELS:
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        weights = sum(p.numel() for p in make().parameters())
    if weights > _MOST_WEIGHTS:
        raise UserError(
            f"network.width {width:g} of {name} makes {weights:,} weights for images of {input_shape[1]}x"
            f"{input_shape[2]}, but at most {_MOST_WEIGHTS:,} are allowed: give a smaller width or smaller images"
        )

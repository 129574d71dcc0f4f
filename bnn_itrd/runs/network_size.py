"""A limit on the weights of a network, before any memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bnn_itrd.errors import UserError

__all__ = ["check_weights"]

# Up to here a network is made without a look at how large it is.
_USUAL_WIDTH, _USUAL_PIXELS = 2.0, 512**2
_MOST_WEIGHTS = 2**30  # 4 GiB of floats


def check_weights(make: Callable[[], nn.Module], *, name: str, width: float, input_shape: tuple[int, int, int]) -> None:
    """Raises UserError where a network that is wider than published, or of very large images, has too many weights.

    make: makes the network; it is called once without memory, and no random number is drawn.
    """
    if width <= _USUAL_WIDTH and input_shape[1] * input_shape[2] <= _USUAL_PIXELS:
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        weights = sum(p.numel() for p in make().parameters())
    if weights > _MOST_WEIGHTS:
        raise UserError(
            f"network.width {width:g} of {name} makes {weights:,} weights for images of {input_shape[1]}x"
            f"{input_shape[2]}, and more than {_MOST_WEIGHTS:,} are not made: give a smaller width or smaller images"
        )

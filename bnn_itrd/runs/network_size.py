"""A check that a network does not have too many weights, made before memory is allocated for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bnn_itrd.errors import UserError

__all__ = ["check_weights"]

# A network is checked only if its width or its number of input pixels is larger than these.
_USUAL_WIDTH, _USUAL_PIXELS = 2.0, 512**2
_MOST_WEIGHTS = 2**30  # 4 GiB of floats


def check_weights(make: Callable[[], nn.Module], *, name: str, width: float, input_shape: tuple[int, int, int]) -> None:
    """Raises UserError if a network would have more than 2^30 weights.

    Networks of usual width and image size are not checked. make: a function that builds the network; it is called once
    on the meta device, and torch's random state is kept. name, width: the network's, for the message. input_shape:
    (c, h, w).
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

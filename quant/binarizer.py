"""What every weight and activation binariser is: the contract the layers and the exporters rely on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ActivationBinarizer", "Annealed", "BinaryWeight", "WeightBinarizer"]


class BinaryWeight(NamedTuple):
    """A weight as it is deployed: ``signs * scale (+ offset)``.

    signs: (o, ...) in {-1, +1}, the latent weight's dtype; scale: (o,) per output channel, any sign, may be
    0; offset: (o,) or None. An offset adds ``offset * sum of the window's activations``: it depends on the
    input.
    """

    signs: Tensor
    scale: Tensor
    offset: Tensor | None = None


class Annealed(nn.Module):
    """State that anneals: one buffer ``progress`` in [0, 1], saved, moved and compiled with the module."""

    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("progress", torch.zeros(()))


class WeightBinarizer(Annealed):
    """Turns a latent weight (o, ...) into a `BinaryWeight`. Subclasses implement `forward`.

    The same call serves training, evaluation and export: the values never differ, only gradients are
    annealed. `out_channels` sizes the parameters a scheme may own (a learned scale).

    not_deployable: why the weight has no 1-bit form, and the nearest that has; None where it has one.
    """

    not_deployable: str | None = None

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"out_channels must be >= 1, got {out_channels}")
        self.out_channels = out_channels

    def initialise(self, weight: Tensor) -> None:
        """Called once with the fresh latent weight, for parameters that start from it; does nothing by default."""

    def update(self, weight: Tensor) -> None:
        """Called between epochs by `start_epoch`, for buffers made from the weight; does nothing by default."""

    def forward(self, weight: Tensor) -> BinaryWeight:
        raise NotImplementedError


class ActivationBinarizer(Annealed):
    """Turns activations (n, c, ...) into {-1, +1}: ``sign(presign(x))``. Subclasses implement `forward`.

    A binariser whose signs are those of something other than x itself overrides `presign`, which the
    exporters write in front of the sign: ``forward(x) == sign(presign(x))`` value for value. One whose two
    values are not -1 and +1 overrides `levels`.

    axis: of the channels, 1 in a convolution, -1 in a linear layer. not_deployable: why no file can hold the
    signs, and the nearest form that it can; None where there is nothing in the way.
    """

    not_deployable: str | None = None

    def __init__(self, channels: int, *, axis: int = 1) -> None:
        super().__init__()
        self.channels, self.axis = channels, axis

    def per_channel(self, v: Tensor, x: Tensor) -> Tensor:
        """(c,) shaped to broadcast over the channels of x."""
        shape = [1] * x.dim()
        shape[self.axis] = -1
        return v.reshape(shape)

    def levels(self) -> tuple[Tensor, Tensor] | None:
        """(a, b), each (), where the layer reads ``a * sign + b``; None for the signs themselves.

        The layer folds both into its scale, offset and bias, so what is deployed stays a sum of signs.
        """
        return None

    def presign(self, x: Tensor) -> Tensor:
        """The deployed tensor whose sign is taken; x itself unless a scheme shifts it. Same shape as x."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

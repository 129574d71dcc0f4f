"""The base classes of binarisers: what binary layers and exporters expect of a rule for weights or activations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ActivationBinarizer", "Annealed", "BinaryWeight", "WeightBinarizer"]


class BinaryWeight(NamedTuple):
    """A weight in binary form, as layers compute with it and exporters write it: ``signs * scale``, plus offset if any.

    signs: (o, ...) in {-1, +1}, with the latent weight's dtype; scale: (o,), one for each output channel, which may be
    negative or 0; offset: (o,) or None. An offset adds ``offset * (sum of the activations in the window)`` to the
    output, so its effect depends on the input.
    """

    signs: Tensor
    scale: Tensor
    offset: Tensor | None = None


class Annealed(nn.Module):
    """A module with a buffer ``progress``, the share of the training that is done, in [0, 1].

    Annealed hyperparameters are computed from it; `set_progress` sets it. As a buffer, it is saved, moved and compiled
    with the module.
    """

    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("progress", torch.zeros(()))


class WeightBinarizer(Annealed):
    """Turns a latent weight (o, ...) into a `BinaryWeight`. Subclasses implement `forward`.

    Training, evaluation and export make the same call and get the same values: annealing changes only gradients.
    `out_channels` is the length of learned parameters such as a scale.

    not_deployable: why the weight has no 1-bit form, and the nearest binariser that has one; None where it has one.
    """

    not_deployable: str | None = None

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"out_channels must be >= 1, got {out_channels}")
        self.out_channels = out_channels

    def initialise(self, weight: Tensor) -> None:
        """Sets parameters that depend on the initial latent weight; by default none. The layer calls it once."""

    def update(self, weight: Tensor) -> None:
        """Updates buffers that are computed from the weight; by default none. `start_epoch` calls it."""

    def forward(self, weight: Tensor) -> BinaryWeight:
        raise NotImplementedError


class ActivationBinarizer(Annealed):
    """Turns activations (n, c, ...) into {-1, +1}: ``sign(presign(x))``. Subclasses implement `forward`.

    A binariser that takes the sign of another tensor than x overrides `presign`, whose operations the exporters write
    in front of the sign: ``forward(x) == sign(presign(x))`` for every value. A binariser whose two values are not -1
    and +1 overrides `levels`.

    axis: the axis of the channels, 1 in a convolution, -1 in a linear layer. not_deployable: why the signs cannot be
    computed by an exported file, and the nearest binariser whose signs can; None where they can.
    """

    not_deployable: str | None = None

    def __init__(self, channels: int, *, axis: int = 1) -> None:
        super().__init__()
        self.channels, self.axis = channels, axis

    def per_channel(self, v: Tensor, x: Tensor) -> Tensor:
        """Returns v (c,), reshaped so that it broadcasts over the channels of x."""
        shape = [1] * x.dim()
        shape[self.axis] = -1
        return v.reshape(shape)

    def levels(self) -> tuple[Tensor, Tensor] | None:
        """Returns scalars (a, b) if the layer is to read ``a * sign + b``; None if it reads the sign itself.

        The layer folds a and b into its scale, offset and bias, so the exported layer still computes a sum of signs.
        """
        return None

    def presign(self, x: Tensor) -> Tensor:
        """Returns the tensor, with the shape of x, whose sign is taken; by default x itself."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

"""SiMaN: Sign-to-Magnitude Network Binarization (Lin et al., TPAMI 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnn_itrd.quant.binarizer import BinaryWeight, WeightBinarizer
from bnn_itrd.quant.methods._centred import StandardisedActivation
from bnn_itrd.quant.surrogates import sign

__all__ = ["SiMaNActivation", "SiMaNWeight", "siman_weight"]


def siman_weight(weight: Tensor) -> Tensor:
    """+1 for the larger half of |w_o|, -1 for the rest, (o, ...) -> (o, ...).

    Of n entries the n // 2 largest, at least one; all that equal the smallest of these are +1 too.
    Backward: straight-through to |w|, so ``g * sign(w)``, 0 at w = 0; none through the threshold.
    """
    size = weight.abs()
    flat = size.detach().flatten(1)
    half = max(flat.shape[1] // 2, 1)
    threshold = flat.sort(dim=1, descending=True).values[:, half - 1]
    return sign(size - threshold.reshape(-1, *([1] * (weight.dim() - 1))))


class SiMaNWeight(WeightBinarizer):
    """`siman_weight` and a learned scale_o, from mean|w_o| on.

    Deviation: the published code standardises the weight first and clips it in place in every forward pass; both
    change which entries are the larger half. Here the magnitudes are those of the weight itself, as in the paper.
    Paper and code train these weights without weight decay, which a recipe has for all parameters or none.

    Signs: +1 for the larger half of |w| in a filter, else -1
    Scale: learned
    Gradient: sign(w)
    """

    def __init__(self, out_channels: int) -> None:
        super().__init__(out_channels)
        self.alpha = nn.Parameter(torch.ones(out_channels))

    @torch.no_grad()
    def initialise(self, weight: Tensor) -> None:
        self.alpha.copy_(weight.abs().flatten(1).mean(1))

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(siman_weight(weight), self.alpha)


class SiMaNActivation(StandardisedActivation):
    """`StandardisedActivation` with gradient ``max(2 - 2|a|, 0)``.

    Sign of: x
    Gradient: as `recu`
    """

    surrogate = "polynomial"

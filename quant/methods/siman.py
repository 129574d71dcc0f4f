"""The binarisers of SiMaN, which gives +1 to the half of a filter's weights that is larger in magnitude, else -1.

Lin et al., SiMaN: Sign-to-Magnitude Network Binarization, TPAMI 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnn_itrd.quant.binarizer import BinaryWeight, WeightBinarizer
from bnn_itrd.quant.methods._centred import StandardisedActivation
from bnn_itrd.quant.surrogates import sign

__all__ = ["SiMaNActivation", "SiMaNWeight", "siman_weight"]


def siman_weight(weight: Tensor) -> Tensor:
    """Returns +1 for the larger half of |w_o| in each filter and -1 for the others, (o, ...) -> (o, ...).

    The larger half are the n // 2 largest of n entries, at least one, and all entries equal to the smallest of these.
    Backward: straight-through to |w|, so ``g * sign(w)``, 0 at w = 0; the threshold is a constant.

    >>> siman_weight(torch.tensor([[0.1, -3.0, 2.0, -0.5]])).tolist()
    [[-1.0, 1.0, 1.0, -1.0]]
    """
    size = weight.abs()
    flat = size.detach().flatten(1)
    half = max(flat.shape[1] // 2, 1)
    threshold = flat.sort(dim=1, descending=True).values[:, half - 1]
    return sign(size - threshold.reshape(-1, *([1] * (weight.dim() - 1))))


class SiMaNWeight(WeightBinarizer):
    """Binarises weights by `siman_weight`, with a learned scale per output channel, initially mean|w_o|.

    Deviations: the published code standardises the weight first and clips it in place in every forward pass; both
    change which entries are the larger half. Here the magnitudes are those of the weight itself, as in the paper.
    Paper and code train these weights without weight decay; a recipe can only switch it off for all parameters.

    Signs: +1 for the larger half of |w| in a filter, else -1
    Scale: learned
    Gradient: sign(w)

    >>> SiMaNWeight(1)(torch.tensor([[0.1, -3.0]])).signs.tolist()
    [[-1.0, 1.0]]
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
    """Returns the signs of standardised activations a (see `StandardisedActivation`), with gradient max(2 - 2|a|, 0).

    Sign of: x
    Gradient: max(2 - 2|a|, 0) at a = x / std of the sample

    >>> SiMaNActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    surrogate = "polynomial"

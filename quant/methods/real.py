"""Leaves weights in full precision while activations are binary, for the first of two training stages."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import BinaryWeight, WeightBinarizer

__all__ = ["RealWeight"]


class RealWeight(WeightBinarizer):
    """Returns the latent weight itself, with scale 1, so that only activations are binarised (Martinez et al. 2020).

    It is for the first of two training stages; `load_stage` loads the resulting weights into the second.

    Signs: w itself
    Scale: 1
    Gradient: exact

    >>> import torch
    >>> RealWeight(1)(torch.tensor([[0.5, -2.0]])).signs.tolist()
    [[0.5, -2.0]]
    """

    not_deployable = (
        "RealWeight is for the first stage of two-stage training, with weights in full precision; the "
        "nearest deployable form is a binary weight scheme whose training starts from this network's state (load_stage)"
    )

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(weight, weight.new_ones(weight.shape[0]))

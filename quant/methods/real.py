"""Weights in full precision beside binary activations: the first stage of two-stage training."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import BinaryWeight, WeightBinarizer

__all__ = ["RealWeight"]


class RealWeight(WeightBinarizer):
    """The latent weight itself, scale 1: activations are binarised first, weights second (Martinez et al. 2020).

    Its state loads into the second stage with `load_stage`.

    Signs: w itself
    Scale: 1
    Gradient: exact
    """

    not_deployable = (
        "RealWeight is the first stage of two-stage training, with weights in full precision; the nearest deployable "
        "form is a binary weight scheme trained on from this network's state (load_stage)"
    )

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(weight, weight.new_ones(weight.shape[0]))

"""The fields of a scheme, which `Scheme` and a run's configuration share; this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["LATER", "OF_LAYERS", "PARTS", "LatentInit", "Part", "SchemeOptions"]

# The fields that choose the binarisers and the nonlinearity; the other fields are options of these.
PARTS = ("weight", "activation", "nonlinearity")
# Options that the layer itself uses; they are not passed to binarisers or nonlinearities.
OF_LAYERS = ("latent_init",)
# Options that are newer than the first checkpoints. The repr of a scheme, which identifies a network, has them only
# where they differ from their defaults, so that older checkpoints still match.
LATER = ("scaled_gradient",)

# The name of a published binariser or nonlinearity, or a user's own class or function.
Part = str | Callable[..., Any]

LatentInit = Literal["kaiming_uniform", "kaiming_normal"]


@dataclass(frozen=True)
class SchemeOptions:
    """The binarisers of weights and activations, the nonlinearity between layers, and their options.

    Args:
        weight: binariser of weights: recu, xnor, irnet, rbnn, bireal, siman, adabin, biper or reste; real and
            biper_sine are for the first stage of two-stage training
        activation: binariser of activations: recu, clipped, polynomial, irnet, rbnn, siman, rsign, adabin or reste
        tau_min: for weight recu, tau at the start of training, in (0.5, 1); for biper, the weight of its loss term at
            the start; by default the published value
        tau_max: for weight recu, tau at the end of training; for biper, the weight of its loss term at the end
        t_min: for irnet, rbnn and adabin, the sharpness of the surrogate gradient at the start of training
        t_max: for irnet, rbnn and adabin, the sharpness of the surrogate gradient at the end of training
        omega: for weight biper, the frequency of the sine of the weights
        o_max: for reste, the exponent o of the surrogate gradient at the end of training
        centre: for activation rbnn or siman, whether the mean of each sample is subtracted from the activations; such a
            network cannot be exported
        rad: weight of RAD, a loss term on the distribution of activations; the published weight is 2
        rad_until: share of the training, in [0, 1], after which the loss term RAD is off
        nonlinearity: activation function between the layers: hardtanh, rprelu or maxout
        latent_init: initial distribution of the latent weights: kaiming_uniform, as in torch's layers (standard
            deviation 1 / sqrt(3 fan_in)), or kaiming_normal, as in ReCU's code (sqrt(2 / fan_in), 2.45 times wider, so
            that a step of the same learning rate changes a filter's direction less)
        scaled_gradient: for weight bireal, whether the weights' gradient is multiplied by the mean of |w|, as the
            layer's formula says; it is false in the code of Bi-Real Net and ReActNet, whose learning rates under SGD
            need that
    """

    weight: Part = "recu"
    activation: Part = "recu"
    tau_min: float | None = None
    tau_max: float | None = None
    t_min: float = 1e-2
    t_max: float = 10.0
    omega: float = 20.0
    o_max: float = 3.0
    centre: bool = False
    rad: float = 0.0
    rad_until: float = 0.9
    nonlinearity: Part = "hardtanh"
    latent_init: LatentInit = "kaiming_uniform"
    scaled_gradient: bool = True

"""The fields of a scheme. `Scheme` and a run's configuration share them; this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["LATER", "OF_LAYERS", "PARTS", "LatentInit", "Part", "SchemeOptions"]

# The fields that choose the parts of a scheme; all other fields are options of these parts.
PARTS = ("weight", "activation", "nonlinearity")
# Options of the layers, which are not passed to any part.
OF_LAYERS = ("latent_init",)
# Options that are newer than the first checkpoints. The repr of a scheme, which identifies a network, has them only
# where they differ from their defaults, so that older checkpoints still match.
LATER = ("scaled_gradient",)

# The name of a published part, or a user's own class or function.
Part = str | Callable[..., Any]

LatentInit = Literal["kaiming_uniform", "kaiming_normal"]


@dataclass(frozen=True)
class SchemeOptions:
    """The binarisers of weights and activations, the nonlinearity between layers, and their options.

    Args:
        weight: recu, xnor, irnet, rbnn, bireal, siman, adabin, biper or reste; real and biper_sine are for the first of
            two stages
        activation: recu, clipped, polynomial, irnet, rbnn, siman, rsign, adabin or reste
        tau_min: recu: tau at the start of training, in (0.5, 1); biper: weight of its penalty at the start; by default
            the published value
        tau_max: recu, biper: the same at the end of training
        t_min: irnet, rbnn, adabin: sharpness of the surrogate gradient at the start of training
        t_max: irnet, rbnn, adabin: the same at the end of training
        omega: biper: frequency of the sine of the weights
        o_max: reste: exponent o of the surrogate at the end of training
        centre: rbnn, siman: whether activations subtract the mean of each sample, which cannot be exported
        rad: weight of RAD's penalty on the distribution of activations; the published weight is 2
        rad_until: progress in [0, 1] at which RAD's penalty ends
        nonlinearity: hardtanh, rprelu or maxout, between the layers
        latent_init: initial distribution of the latent weights: kaiming_uniform, as in torch's layers (standard
            deviation 1 / sqrt(3 fan_in)), or kaiming_normal, as in ReCU's code (sqrt(2 / fan_in), 2.45 times wider, so
            that a step of the same learning rate turns a filter less)
        scaled_gradient: bireal: whether the weights' gradient is multiplied by the mean of |w|, as the layer's formula
            says; false as in the code of Bi-Real Net and ReActNet, whose learning rates under SGD belong to that form
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

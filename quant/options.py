"""The fields of a scheme, without torch: `Scheme` has them, and so has the configuration of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["LATER", "OF_LAYERS", "PARTS", "LatentInit", "Part", "SchemeOptions"]

# The fields that say what a network is made of; the others are options of these parts.
PARTS = ("weight", "activation", "nonlinearity")
# Options of the layers, which no part is called with.
OF_LAYERS = ("latent_init",)
# Options that came after the first checkpoints. The text of a scheme, which tells networks apart, has them where they
# are set.
LATER = ("scaled_gradient",)

# A published part by its name, or a user's own class or function.
Part = str | Callable[..., Any]

LatentInit = Literal["kaiming_uniform", "kaiming_normal"]


@dataclass(frozen=True)
class SchemeOptions:
    """Which weights go with which activations, and what is tuned in them.

    Args:
        weight: recu, xnor, irnet, rbnn, bireal, siman, adabin, biper or reste; real and biper_sine are first stages
        activation: recu, clipped, polynomial, irnet, rbnn, siman, rsign, adabin or reste
        tau_min: recu: tau at the start of training, in (0.5, 1); biper: weight of its penalty at the start; by default
            what is published for the weight
        tau_max: recu, biper: the same at the end
        t_min: irnet, rbnn, adabin: sharpness of the surrogate gradient at the start
        t_max: irnet, rbnn, adabin: the same at the end
        omega: biper: frequency
        o_max: reste: the last exponent
        centre: rbnn and siman activations subtract the mean of each sample, which cannot be exported
        rad: weight of RAD's penalty on the distribution of activations; 2 is the published one
        rad_until: progress in [0, 1] at which it ends
        nonlinearity: hardtanh, rprelu or maxout, between the layers
        latent_init: what the latent weights begin as: kaiming_uniform, torch's own (standard deviation
            1 / sqrt(3 fan_in)), or kaiming_normal, that of ReCU's code (sqrt(2 / fan_in), 2.45 times wider: a step of
            the same learning rate turns a filter less)
        scaled_gradient: bireal: the weights' gradient is scaled with the mean of |w|, as the layer's formula has it;
            false: it is not, as in the code of Bi-Real Net and ReActNet, whose learning rates under SGD belong to that
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

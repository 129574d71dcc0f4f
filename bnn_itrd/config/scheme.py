"""How the students are binarised."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bnn_itrd.errors import require

__all__ = ["SchemeConfig"]


def _tau(weight: str) -> tuple[float, float]:
    """First and last tau as published; `quant.Scheme` has the same (a test says so), without whose torch this loads."""
    return {"biper": (0.0468, 0.0468), "biper_sine": (0.037, 0.037)}.get(weight, (0.85, 0.99))


@dataclass(frozen=True)
class SchemeConfig:
    """How the students are binarised: weights and activations apart.

    Args:
        binary: false: students in full precision; nothing else here then has a meaning
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
        nonlinearity: hardtanh or rprelu, between the layers
        first_stage: real or biper_sine: weights of a first stage of training, whose network the second one begins with
        first_stage_epochs: its length; 0: one stage
    """

    weight: str = "recu"
    activation: str = "recu"
    tau_min: float | None = None
    tau_max: float | None = None
    t_min: float = 1e-2
    t_max: float = 10.0
    omega: float = 20.0
    o_max: float = 3.0
    centre: bool = False
    rad: float = 0.0
    rad_until: float = 0.9
    nonlinearity: str = "hardtanh"
    first_stage: str = "real"
    first_stage_epochs: int = 0
    binary: bool = True

    def __post_init__(self) -> None:
        rule = "0 with scheme.binary false"
        require(self.binary or not self.first_stage_epochs, "scheme.first_stage_epochs", rule, self.first_stage_epochs)
        require(self.first_stage_epochs >= 0, "scheme.first_stage_epochs", ">= 0", self.first_stage_epochs)

    def resolved(self) -> SchemeConfig:
        """With the published tau where none is given: numbers, so that a run does not change with the version."""
        first, last = _tau(self.weight)
        tau_min = first if self.tau_min is None else self.tau_min
        return dataclasses.replace(self, tau_min=tau_min, tau_max=last if self.tau_max is None else self.tau_max)

    def of_first_stage(self) -> SchemeConfig:
        """Binary activations as here and the first stage's weights, with their own tau where ours is published."""
        made = dataclasses.replace(self, weight=self.first_stage, first_stage_epochs=0)
        if (self.tau_min, self.tau_max) == _tau(self.weight):
            made = dataclasses.replace(made, tau_min=None, tau_max=None)
        return made.resolved()

"""How the students are binarised."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bnn_itrd.config.addresses import is_address
from bnn_itrd.errors import require
from bnn_itrd.quant.options import SchemeOptions

__all__ = ["SchemeConfig"]


@dataclass(frozen=True)
class SchemeConfig(SchemeOptions):
    """How the students are binarised: weights and activations apart.

    Args:
        binary: false: students in full precision; nothing else here then has a meaning
        from_teacher: begin with the teacher's weights, those of binary layers scaled as `latent_init` has them
        first_stage: real or biper_sine: weights of a first stage of training, whose network the second one begins with
        first_stage_epochs: its length; 0: one stage
    """

    # A configuration names what a scheme may also hold as an object: a name, or the address of a user's own.
    weight: str = "recu"
    activation: str = "recu"
    nonlinearity: str = "hardtanh"
    first_stage: str = "real"
    first_stage_epochs: int = 0
    binary: bool = True
    from_teacher: bool = False

    def __post_init__(self) -> None:
        rule = "0 with scheme.binary false"
        require(self.binary or not self.first_stage_epochs, "scheme.first_stage_epochs", rule, self.first_stage_epochs)
        require(self.binary or not self.from_teacher, "scheme.from_teacher", "false with scheme.binary false", True)
        require(self.first_stage_epochs >= 0, "scheme.first_stage_epochs", ">= 0", self.first_stage_epochs)

    def resolved(self) -> SchemeConfig:
        """With the published tau where none is given: numbers, so that a run does not change with the version.

        A user's own weight has its own, which nothing here knows. Loads torch where a number is missing.
        """
        if is_address(self.weight) or None not in (self.tau_min, self.tau_max):
            return self
        from bnn_itrd.quant.scheme import published_tau

        first, last = published_tau(self.weight)
        tau_min = first if self.tau_min is None else self.tau_min
        return dataclasses.replace(self, tau_min=tau_min, tau_max=last if self.tau_max is None else self.tau_max)

    def of_first_stage(self) -> SchemeConfig:
        """Binary activations as here and the first stage's weights, with their own tau where ours is published."""
        ours = dataclasses.replace(self, tau_min=None, tau_max=None)
        made = ours if self == ours.resolved() else self
        # An option of the binary weights alone, which those of a first stage refuse.
        return dataclasses.replace(made, weight=self.first_stage, first_stage_epochs=0, scaled_gradient=True).resolved()

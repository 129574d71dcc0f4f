"""The settings of how students are binarised."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bnn_itrd.config.addresses import is_address
from bnn_itrd.errors import require
from bnn_itrd.quant.options import SchemeOptions

__all__ = ["SchemeConfig"]


@dataclass(frozen=True)
class SchemeConfig(SchemeOptions):
    """The settings of how students are binarised: the binarisers of weights and activations, and their options.

    >>> SchemeConfig(weight="irnet", activation="irnet").binary
    True

    Raises FieldError on an option that needs `binary`, or is out of its range.

    Args:
        binary: false: students in full precision, to which no other field of scheme applies
        from_teacher: begin with the teacher's weights; those of binary layers are scaled as `latent_init` says
        first_stage: real or biper_sine: binariser of the weights in a first training stage, from whose network the
            second stage starts
        first_stage_epochs: length of the first stage; 0: one stage only
    """

    # Here a binariser is a name or an address; a `Scheme` of quant may also hold a user's own as an object.
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
        """Returns the settings with the published tau in place of None, so that a later version cannot change a run.

        A user's own binariser has a tau of its own, which is not known here. Loads torch if a number is missing.
        """
        if is_address(self.weight) or None not in (self.tau_min, self.tau_max):
            return self
        from bnn_itrd.quant.scheme import published_tau

        first, last = published_tau(self.weight)
        tau_min = first if self.tau_min is None else self.tau_min
        return dataclasses.replace(self, tau_min=tau_min, tau_max=last if self.tau_max is None else self.tau_max)

    def of_first_stage(self) -> SchemeConfig:
        """Returns the settings of the first of two stages: these activations, with the weights of `first_stage`.

        Its weights get their own published tau, unless the tau here was changed from the published one.
        """
        ours = dataclasses.replace(self, tau_min=None, tau_max=None)
        made = ours if self == ours.resolved() else self
        # scaled_gradient=False is an option of binary weights alone, which a first stage's weights refuse.
        return dataclasses.replace(made, weight=self.first_stage, first_stage_epochs=0, scaled_gradient=True).resolved()

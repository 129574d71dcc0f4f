"""The settings that say how students are binarised."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bnn_itrd.config.addresses import is_address
from bnn_itrd.errors import require
from bnn_itrd.quant.options import SchemeOptions

__all__ = ["SchemeConfig"]


@dataclass(frozen=True)
class SchemeConfig(SchemeOptions):
    """The settings that say how students are binarised: the binarisers of weights and activations, and their options.

    >>> SchemeConfig(weight="irnet", activation="irnet").binary
    True

    Raises FieldError if an option needs `binary`, or is out of its range.

    Args:
        binary: false: students in full precision, to which no other field of scheme applies
        from_teacher: start from the teacher's weights; those of binary layers are scaled as `latent_init` says
        first_stage: weights in the first of two training stages: real (floats) or biper_sine; the second stage starts
            from the network of the first
        first_stage_epochs: epochs of the first stage; 0: one stage only
    """

    # Here a binariser is a name or an address, since YAML holds texts. `quant.Scheme` also takes classes and functions.
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
        """Returns the settings with the weight binariser's published tau_min and tau_max in place of None.

        So the numbers are saved with the run, and a later version of the package cannot change them. The tau of a
        user's own binariser is not known here and stays None. Torch is imported only if a number is missing.
        """
        if is_address(self.weight) or None not in (self.tau_min, self.tau_max):
            return self
        from bnn_itrd.quant.scheme import published_tau

        first, last = published_tau(self.weight)
        tau_min = first if self.tau_min is None else self.tau_min
        return dataclasses.replace(self, tau_min=tau_min, tau_max=last if self.tau_max is None else self.tau_max)

    def of_first_stage(self) -> SchemeConfig:
        """Returns the settings of the first of two training stages.

        Activations are as in the second stage; the weights are what `first_stage` names. They get their own published
        tau, unless the user changed the second stage's tau.
        """
        ours = dataclasses.replace(self, tau_min=None, tau_max=None)
        made = ours if self == ours.resolved() else self
        # scaled_gradient=False is an option for binary weights, and the weights of a first stage would refuse it.
        return dataclasses.replace(made, weight=self.first_stage, first_stage_epochs=0, scaled_gradient=True).resolved()

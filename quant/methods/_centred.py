"""The binariser that RBNN and SiMaN share: it standardises the activations of each sample before it takes the sign."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer
from bnn_itrd.quant.methods._standardise import standardise
from bnn_itrd.quant.surrogates import sign

__all__ = ["StandardisedActivation"]

_REASON = (
    "subtracts the mean of each sample from the activations (centre=True): this threshold depends on the input, so "
    "an exported file cannot hold it; the nearest deployable form is the same scheme trained with centre=False"
)


class StandardisedActivation(ActivationBinarizer):
    """Binarises activations to ``sign(a)``, where a is x divided by the standard deviation of its sample.

    ``a = x / sqrt(var + 1e-5)``, so the signs are those of x, and only the gradient depends on var. A subclass names
    the surrogate gradient at a, which then flows on through the variance (and the mean).
    centre: whether the sample's mean is subtracted first, in training and in evaluation, as in the papers' code. Its
    signs cannot be exported, so it is off by default.
    """

    surrogate: str

    def __init__(self, channels: int, *, axis: int = 1, centre: bool = False) -> None:
        super().__init__(channels, axis=axis)
        self.centre = centre
        self.not_deployable = f"{type(self).__name__} {_REASON}" if centre else None

    def parameters_of_surrogate(self) -> tuple[Tensor, ...]:
        return ()

    def presign(self, x: Tensor) -> Tensor:
        return standardise(x).to(x.dtype) if self.centre else x

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return sign(self.presign(x))
        a = standardise(x, centre=self.centre)
        # The cast to half precision makes the smallest values 0, whose sign is +1. Evaluation does the same in presign.
        a = a.to(x.dtype) if self.centre else a
        return sign(a, surrogate=self.surrogate, parameters=self.parameters_of_surrogate()).to(x.dtype)

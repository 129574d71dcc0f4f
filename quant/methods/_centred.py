"""Sign of activations that are standardised per sample, as published with RBNN and SiMaN."""

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
    """Returns ``sign(a)``, ``a = x / sqrt(var + 1e-5)``, with var per sample; subclasses define the gradient.

    centre: ``a = (x - mean) / sqrt(var + 1e-5)`` in training and in evaluation, as in the papers' code. Its signs
    cannot be exported, so it is off by default; without it the signs are those of x.
    Backward: the surrogate of the subclass at a, then through the variance (and the mean).
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
        # The cast to half precision makes the smallest values 0, so it is done in training as in evaluation.
        a = a.to(x.dtype) if self.centre else a
        return sign(a, surrogate=self.surrogate, parameters=self.parameters_of_surrogate()).to(x.dtype)

"""Activations standardised per sample before their sign, as RBNN and SiMaN publish them."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer
from bnn_itrd.quant.methods._standardise import standardise
from bnn_itrd.quant.surrogates import sign

__all__ = ["StandardisedActivation"]

_REASON = (
    "subtracts the mean of each sample from the activations (centre=True), a threshold that depends on the input "
    "and has no place in a file of signs; the nearest deployable form is the same scheme trained with centre=False"
)


class StandardisedActivation(ActivationBinarizer):
    """``sign(a)``, ``a = x / sqrt(var + 1e-5)``, var per sample over all other axes; subclasses name the gradient.

    centre: ``a = (x - mean) / sqrt(var + 1e-5)`` in training and in evaluation, as the papers' code has it. Then
    the signs cannot be deployed, so it is off by default, and dividing alone leaves the signs of x.
    Backward: the subclass' surrogate at a, then through the variance (and the mean).
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
        # In half precision the smallest values become 0, so their signs are taken as in evaluation.
        a = a.to(x.dtype) if self.centre else a
        return sign(a, surrogate=self.surrogate, parameters=self.parameters_of_surrogate()).to(x.dtype)

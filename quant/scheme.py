"""Names of binarisation schemes: which weights with which activations."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bnn_itrd.quant.basic import ClippedActivation, PolynomialActivation, XNORWeight
from bnn_itrd.quant.binarizer import ActivationBinarizer, WeightBinarizer
from bnn_itrd.quant.recu import ReCUActivation, ReCUWeight, check_tau

__all__ = ["ACTIVATIONS", "SCHEMES", "WEIGHTS", "Scheme", "as_scheme"]

WEIGHTS: dict[str, Callable[[int], WeightBinarizer]] = {
    "recu": ReCUWeight,
    "xnor": XNORWeight,
}
ACTIVATIONS: dict[str, Callable[[int], ActivationBinarizer]] = {
    "recu": ReCUActivation,
    "clipped": ClippedActivation,
    "polynomial": PolynomialActivation,
}


def _check(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {kind} {name!r}, expected one of {', '.join(known)}{hint}")


@dataclass(frozen=True)
class Scheme:
    """How weights and how activations are binarised, chosen apart: keys of `WEIGHTS` and `ACTIVATIONS`.

    ReCU's tau is the range tau anneals over; other weights ignore it. Raises ValueError on an unknown name, and with
    ReCU's weights unless 0.5 < tau_min <= tau_max < 1.
    """

    weight: str = "recu"
    activation: str = "recu"
    tau_min: float = 0.85
    tau_max: float = 0.99

    def __post_init__(self) -> None:
        _check("weight binariser", self.weight, WEIGHTS)
        _check("activation binariser", self.activation, ACTIVATIONS)
        if self.weight == "recu":
            check_tau(self.tau_min, self.tau_max)

    def make_weight(self, out_channels: int) -> WeightBinarizer:
        if self.weight == "recu":
            return ReCUWeight(out_channels, tau_min=self.tau_min, tau_max=self.tau_max)
        return WEIGHTS[self.weight](out_channels)

    def make_activation(self, channels: int) -> ActivationBinarizer:
        return ACTIVATIONS[self.activation](channels)


SCHEMES: dict[str, Scheme] = {
    "recu": Scheme("recu", "recu"),
    "xnor": Scheme("xnor", "clipped"),
}


def as_scheme(scheme: str | Scheme) -> Scheme:
    """The `Scheme` of a name, or the scheme itself. Raises ValueError on an unknown name."""
    if isinstance(scheme, Scheme):
        return scheme
    _check("scheme", scheme, SCHEMES)
    return SCHEMES[scheme]

"""Names of binarisation schemes: which weights with which activations, and what users tune in them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from bnn_itrd.quant.binarizer import ActivationBinarizer, WeightBinarizer
from bnn_itrd.quant.methods.adabin import AdaBinActivation, AdaBinWeight
from bnn_itrd.quant.methods.biper import BiPerSineWeight, BiPerWeight, check_biper
from bnn_itrd.quant.methods.bireal import BiRealWeight, PolynomialActivation
from bnn_itrd.quant.methods.irnet import IRNetActivation, IRNetWeight, check_t
from bnn_itrd.quant.methods.rad import RAD, check_rad
from bnn_itrd.quant.methods.rbnn import RBNNActivation, RBNNWeight
from bnn_itrd.quant.methods.reactnet import RPReLU, RSignActivation
from bnn_itrd.quant.methods.real import RealWeight
from bnn_itrd.quant.methods.recu import ReCUActivation, ReCUWeight, check_tau
from bnn_itrd.quant.methods.reste import ReSTEActivation, ReSTEWeight, check_o
from bnn_itrd.quant.methods.siman import SiMaNActivation, SiMaNWeight
from bnn_itrd.quant.methods.xnor import ClippedActivation, XNORWeight

__all__ = ["ACTIVATIONS", "NONLINEARITIES", "SCHEMES", "WEIGHTS", "Scheme", "as_scheme"]

# (the scheme, output channels, weights of each) -> the binariser.
WEIGHTS: dict[str, Callable[[Scheme, int, int], WeightBinarizer]] = {
    "recu": lambda s, o, n: ReCUWeight(o, tau_min=s.tau()[0], tau_max=s.tau()[1]),
    "xnor": lambda s, o, n: XNORWeight(o),
    "bireal": lambda s, o, n: BiRealWeight(o),
    "irnet": lambda s, o, n: IRNetWeight(o, t_min=s.t_min, t_max=s.t_max),
    "rbnn": lambda s, o, n: RBNNWeight(o, n, t_min=s.t_min, t_max=s.t_max),
    "siman": lambda s, o, n: SiMaNWeight(o),
    "adabin": lambda s, o, n: AdaBinWeight(o, t_min=s.t_min, t_max=s.t_max),
    "biper": lambda s, o, n: BiPerWeight(o, omega=s.omega, tau_min=s.tau()[0], tau_max=s.tau()[1]),
    "biper_sine": lambda s, o, n: BiPerSineWeight(o, omega=s.omega, tau_min=s.tau()[0], tau_max=s.tau()[1]),
    "reste": lambda s, o, n: ReSTEWeight(o, o_max=s.o_max),
    "real": lambda s, o, n: RealWeight(o),
}
# (the scheme, channels, their axis) -> the binariser.
ACTIVATIONS: dict[str, Callable[[Scheme, int, int], ActivationBinarizer]] = {
    "recu": lambda s, c, axis: ReCUActivation(c, axis=axis),
    "clipped": lambda s, c, axis: ClippedActivation(c, axis=axis),
    "polynomial": lambda s, c, axis: PolynomialActivation(c, axis=axis),
    "irnet": lambda s, c, axis: IRNetActivation(c, axis=axis, t_min=s.t_min, t_max=s.t_max),
    "rbnn": lambda s, c, axis: RBNNActivation(c, axis=axis, centre=s.centre, t_min=s.t_min, t_max=s.t_max),
    "siman": lambda s, c, axis: SiMaNActivation(c, axis=axis, centre=s.centre),
    "rsign": lambda s, c, axis: RSignActivation(c, axis=axis),
    "adabin": lambda s, c, axis: AdaBinActivation(c, axis=axis),
    "reste": lambda s, c, axis: ReSTEActivation(c, axis=axis, o_max=s.o_max),
}
# What stands in the place of ReLU in a binary network, made for the channels it reads.
NONLINEARITIES: dict[str, Callable[[int], nn.Module]] = {
    "hardtanh": lambda channels: nn.Hardtanh(),
    "rprelu": RPReLU,
}

# First and last tau as published: of ReCU, and of the authors' runs of BiPer's two stages on CIFAR-10.
_TAU = {"recu": (0.85, 0.99), "biper": (0.0468, 0.0468), "biper_sine": (0.037, 0.037)}


def _check(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {kind} {name!r}, expected one of {', '.join(known)}{hint}")


@dataclass(frozen=True)
class Scheme:
    """How weights and how activations are binarised, chosen apart: keys of `WEIGHTS` and `ACTIVATIONS`.

    Options; binarisers that have no use for one ignore it:

    - tau_min, tau_max: the range of ReCU's tau, or of the weight of BiPer's penalty; None: as published, 0.85 to 0.99
      for recu, 0.0468 for biper, 0.037 for biper_sine
    - t_min, t_max: the range of the surrogate's sharpness t (irnet, rbnn, adabin)
    - omega: BiPer's frequency
    - o_max: ReSTE's last o
    - centre: rbnn and siman activations subtract the mean of each sample, which cannot be deployed
    - rad, rad_until: weight of RAD's penalty on all activations (published: 2), and the progress at which it ends
    - nonlinearity: a key of `NONLINEARITIES`, the activation between layers

    Raises ValueError on an unknown name, and on an option that its binariser refuses.
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

    def __post_init__(self) -> None:
        _check("weight binariser", self.weight, WEIGHTS)
        _check("activation binariser", self.activation, ACTIVATIONS)
        _check("nonlinearity", self.nonlinearity, NONLINEARITIES)
        check_rad(self.rad, self.rad_until)
        if self.centre and self.activation not in ("rbnn", "siman"):
            raise ValueError(f"centre=True needs activation rbnn or siman, got {self.activation!r}")
        if self.weight == "recu":
            check_tau(*self.tau())
        if self.weight in ("biper", "biper_sine"):
            check_biper(self.omega, *self.tau())
        if {self.weight, self.activation} & {"irnet", "rbnn", "adabin"}:
            check_t(self.t_min, self.t_max)
        if "reste" in (self.weight, self.activation):
            check_o(self.o_max)

    def tau(self) -> tuple[float, float]:
        """(first, last) tau of the weight, the published ones where none are given; of ReCU for weights without."""
        first, last = _TAU.get(self.weight, _TAU["recu"])
        return first if self.tau_min is None else self.tau_min, last if self.tau_max is None else self.tau_max

    def make_weight(self, out_channels: int, fan_in: int = 1) -> WeightBinarizer:
        """The binariser of a weight (out_channels, ...) with fan_in entries per output channel."""
        return WEIGHTS[self.weight](self, out_channels, fan_in)

    def make_activation(self, channels: int, *, axis: int = 1) -> ActivationBinarizer:
        return ACTIVATIONS[self.activation](self, channels, axis)

    def make_regularizer(self, *, axis: int = 1) -> RAD | None:
        """RAD on what the activations' signs are taken of; None where its weight is 0."""
        return RAD(axis=axis, weight=self.rad, until=self.rad_until) if self.rad > 0 else None

    def make_nonlinearity(self, channels: int) -> nn.Module:
        return NONLINEARITIES[self.nonlinearity](channels)


SCHEMES: dict[str, Scheme] = {
    "recu": Scheme("recu", "recu"),
    "xnor": Scheme("xnor", "clipped"),
    "irnet": Scheme("irnet", "irnet"),
    "rbnn": Scheme("rbnn", "rbnn"),
    "bireal": Scheme("bireal", "polynomial"),
    "reactnet": Scheme("bireal", "rsign", nonlinearity="rprelu"),
    "siman": Scheme("siman", "siman"),
    "adabin": Scheme("adabin", "adabin"),
    "biper": Scheme("biper", "recu"),
    "reste": Scheme("reste", "reste"),
    # First stages of two-stage training (`load_stage`): binary activations, real weights.
    "real": Scheme("real", "recu"),
    "biper_sine": Scheme("biper_sine", "recu"),
}


def as_scheme(scheme: str | Scheme) -> Scheme:
    """The `Scheme` of a name, or the scheme itself. Raises ValueError on an unknown name."""
    if isinstance(scheme, Scheme):
        return scheme
    _check("scheme", scheme, SCHEMES)
    return SCHEMES[scheme]

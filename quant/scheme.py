"""Schemes, which choose the binarisers of weights and of activations together, and set their options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from bnn_itrd.quant.binarizer import ActivationBinarizer, WeightBinarizer
from bnn_itrd.quant.methods.adabin import AdaBinActivation, AdaBinWeight, Maxout
from bnn_itrd.quant.methods.biper import BiPerSineWeight, BiPerWeight
from bnn_itrd.quant.methods.bireal import BiRealWeight, PolynomialActivation
from bnn_itrd.quant.methods.irnet import IRNetActivation, IRNetWeight
from bnn_itrd.quant.methods.rad import RAD
from bnn_itrd.quant.methods.rbnn import RBNNActivation, RBNNWeight
from bnn_itrd.quant.methods.reactnet import RPReLU, RSignActivation
from bnn_itrd.quant.methods.real import RealWeight
from bnn_itrd.quant.methods.recu import ReCUActivation, ReCUWeight
from bnn_itrd.quant.methods.reste import ReSTEActivation, ReSTEWeight
from bnn_itrd.quant.methods.siman import SiMaNActivation, SiMaNWeight
from bnn_itrd.quant.methods.xnor import ClippedActivation, XNORWeight
from bnn_itrd.quant.options import LATER, PARTS, LatentInit, Part, SchemeOptions
from bnn_itrd.quant.parts import PartKind, part_name, part_parameters, unknown_name

__all__ = ["ACTIVATIONS", "NONLINEARITIES", "SCHEMES", "WEIGHTS", "AnyScheme", "Scheme", "as_scheme", "published_tau"]

# A class is called with the arguments that its constructor names: out_channels and fan_in for weights, channels and
# axis for activations, and a scheme's options. The constructor has the published values as defaults, and checks them.
WEIGHTS: dict[str, Callable[..., WeightBinarizer]] = {
    "recu": ReCUWeight,
    "xnor": XNORWeight,
    "bireal": BiRealWeight,
    "irnet": IRNetWeight,
    "rbnn": RBNNWeight,
    "siman": SiMaNWeight,
    "adabin": AdaBinWeight,
    "biper": BiPerWeight,
    "biper_sine": BiPerSineWeight,
    "reste": ReSTEWeight,
    "real": RealWeight,
}
ACTIVATIONS: dict[str, Callable[..., ActivationBinarizer]] = {
    "recu": ReCUActivation,
    "clipped": ClippedActivation,
    "polynomial": PolynomialActivation,
    "irnet": IRNetActivation,
    "rbnn": RBNNActivation,
    "siman": SiMaNActivation,
    "rsign": RSignActivation,
    "adabin": AdaBinActivation,
    "reste": ReSTEActivation,
}
# Activation functions that replace ReLU in a binary network; some are made for a number of channels.
NONLINEARITIES: dict[str, Callable[..., nn.Module]] = {
    "hardtanh": nn.Hardtanh,
    "rprelu": RPReLU,
    "maxout": Maxout,
}

_WEIGHT = PartKind("weight", "weight binariser", WEIGHTS, WeightBinarizer, ("out_channels", "fan_in"))
_ACTIVATION = PartKind("activation", "activation binariser", ACTIVATIONS, ActivationBinarizer, ("channels", "axis"))
_NONLINEARITY: PartKind[nn.Module] = PartKind("nonlinearity", "nonlinearity", NONLINEARITIES, nn.Module, ("channels",))


def published_tau(weight: Part) -> tuple[float, float]:
    """Returns the default values of tau_min and tau_max for a weight binariser, given by its name or class.

    tau is a hyperparameter of ReCU and BiPer. For an unknown name, and for a binariser without tau, the result is
    ReCU's.

    >>> published_tau("biper"), published_tau("xnor")
    ((0.0468, 0.0468), (0.85, 0.99))
    """
    own = part_parameters(WEIGHTS.get(weight, ReCUWeight) if isinstance(weight, str) else weight)
    recu = part_parameters(ReCUWeight)
    first, last = (
        next(p[name].default for p in (own, recu) if name in p and isinstance(p[name].default, (int, float)))
        for name in ("tau_min", "tau_max")
    )
    return first, last


@dataclass(frozen=True, repr=False)
class Scheme(SchemeOptions):
    """A choice of binarisers for weights and for activations, and of the nonlinearity between layers.

    weight, activation, nonlinearity: keys of `WEIGHTS`, `ACTIVATIONS` and `NONLINEARITIES`; or your own subclass of
    `WeightBinarizer`, `ActivationBinarizer` or nn.Module, or a function that returns an instance of one. Your own class
    or function is called with those arguments that its signature names. These are the options, and the sizes:
    out_channels and fan_in for a weight, channels and axis for an activation, channels for a nonlinearity.

    The options are those of `SchemeOptions`. A binariser ignores the options that it does not have, and uses its own
    default where an option has the scheme's default: tau_min and tau_max are 0.85 and 0.99 for recu, both are 0.0468
    for biper and 0.037 for biper_sine.

    Raises ValueError on an unknown name, on an object of another kind, and on an option that its binariser refuses.

    >>> Scheme("xnor", "clipped").make_weight(4)
    XNORWeight()
    """

    def __post_init__(self) -> None:
        for kind in (_WEIGHT, _ACTIVATION, _NONLINEARITY):
            kind.find(getattr(self, kind.field))
        RAD(weight=self.rad, until=self.rad_until)
        if self.latent_init not in get_args(LatentInit):
            raise unknown_name("latent_init", self.latent_init, get_args(LatentInit))
        if self.centre and "centre" not in part_parameters(_ACTIVATION.find(self.activation)):
            able = " or ".join(name for name, made in ACTIVATIONS.items() if "centre" in part_parameters(made))
            raise ValueError(f"centre=True needs activation {able}, got {part_name(self.activation)!r}")
        if not self.scaled_gradient and "scaled_gradient" not in part_parameters(_WEIGHT.find(self.weight)):
            able = " or ".join(name for name, made in WEIGHTS.items() if "scaled_gradient" in part_parameters(made))
            raise ValueError(f"scaled_gradient=False needs weight {able}, got {part_name(self.weight)!r}")
        # The constructors check the options; fork_rng keeps their random numbers out of the caller's order.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            if isinstance(self.weight, str):
                self.make_weight(1)
            if isinstance(self.activation, str):
                self.make_activation(1)

    def __repr__(self) -> str:
        fields = [f for f in dataclasses.fields(self) if f.name not in LATER or getattr(self, f.name) != f.default]
        values = {field.name: getattr(self, field.name) for field in fields}
        values |= {name: part_name(values[name]) for name in PARTS}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    def tau(self) -> tuple[float, float]:
        """Returns (tau_min, tau_max); a value that is None in the scheme is replaced by that of `published_tau`."""
        first, last = published_tau(self.weight)
        return first if self.tau_min is None else self.tau_min, last if self.tau_max is None else self.tau_max

    def make_weight(self, out_channels: int, fan_in: int = 1) -> WeightBinarizer:
        """Returns a new binariser for a weight (out_channels, ...) with fan_in entries in each output channel."""
        return _WEIGHT.make(self.weight, self, out_channels=out_channels, fan_in=fan_in)

    def make_activation(self, channels: int, *, axis: int = 1) -> ActivationBinarizer:
        """Returns a new binariser for activations with this number of channels along the axis."""
        made = _ACTIVATION.make(self.activation, self, channels=channels, axis=axis)
        made.axis = axis  # also where the constructor has no such argument
        return made

    def make_regularizer(self, *, axis: int = 1) -> RAD | None:
        """Returns the module that computes RAD's loss term from a layer's input; None where its weight `rad` is 0."""
        return RAD(axis=axis, weight=self.rad, until=self.rad_until) if self.rad > 0 else None

    @property
    def nonlinearity_needs_channels(self) -> bool:
        """True if the nonlinearity between layers is made for a number of channels, as RPReLU is.

        >>> Scheme(nonlinearity="rprelu").nonlinearity_needs_channels, Scheme().nonlinearity_needs_channels
        (True, False)
        """
        return _NONLINEARITY.needs(self.nonlinearity, "channels")

    def make_nonlinearity(self, channels: int | None) -> nn.Module:
        """Returns a new nonlinearity for this number of channels.

        channels: None is allowed where `nonlinearity_needs_channels` is False.
        """
        sizes = {} if channels is None else {"channels": channels}
        return _NONLINEARITY.make(self.nonlinearity, self, **sizes)


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
    # Schemes for the first of two stages (`load_stage`): binary activations, full-precision weights.
    "real": Scheme("real", "recu"),
    "biper_sine": Scheme("biper_sine", "recu"),
}


AnyScheme = str | Scheme | type[WeightBinarizer] | type[ActivationBinarizer]


def as_scheme(scheme: AnyScheme) -> Scheme:
    """Returns the scheme for a name or for a binariser's class; a `Scheme` is returned as it is.

    For the class of a weight binariser, the activations are binarised as in ReCU, and the other way round. Raises
    ValueError on an unknown name and on any other object.

    >>> as_scheme("xnor").activation
    'clipped'
    """
    if isinstance(scheme, Scheme):
        return scheme
    if isinstance(scheme, str):
        if scheme not in SCHEMES:
            raise unknown_name("scheme", scheme, SCHEMES)
        return SCHEMES[scheme]
    if isinstance(scheme, type) and issubclass(scheme, WeightBinarizer):
        return Scheme(weight=scheme)
    if isinstance(scheme, type) and issubclass(scheme, ActivationBinarizer):
        return Scheme(activation=scheme)
    raise ValueError(
        f"scheme must be one of {', '.join(SCHEMES)}, or a Scheme, or a subclass of WeightBinarizer or "
        f"ActivationBinarizer, got {scheme!r}"
    )

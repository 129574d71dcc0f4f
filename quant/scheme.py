"""Schemes of binarisation: which weights with which activations, and what users tune in them."""

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

# A class is called with what its constructor names: of out_channels and fan_in here, of channels and axis below, and
# of a scheme's options. What it publishes are its constructor's defaults, and what it refuses its constructor refuses.
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
# What stands in the place of ReLU in a binary network, made for the channels it reads.
NONLINEARITIES: dict[str, Callable[..., nn.Module]] = {
    "hardtanh": nn.Hardtanh,
    "rprelu": RPReLU,
    "maxout": Maxout,
}

_WEIGHT = PartKind("weight", "weight binariser", WEIGHTS, WeightBinarizer, ("out_channels", "fan_in"))
_ACTIVATION = PartKind("activation", "activation binariser", ACTIVATIONS, ActivationBinarizer, ("channels", "axis"))
_NONLINEARITY: PartKind[nn.Module] = PartKind("nonlinearity", "nonlinearity", NONLINEARITIES, nn.Module, ("channels",))


def published_tau(weight: Part) -> tuple[float, float]:
    """Returns the first and last tau that a weight's class has by default; ReCU's for a weight without, or of no name.

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
    """How weights and how activations are binarised, chosen apart, and what stands between the layers.

    weight, activation, nonlinearity: keys of `WEIGHTS`, `ACTIVATIONS` and `NONLINEARITIES`; or a class of your own, a
    subclass of `WeightBinarizer`, `ActivationBinarizer` or nn.Module, or any function that makes one. Your own is
    called with those of (out_channels, fan_in), of (channels, axis), or with the channels, that its signature names,
    and with the options that it names.

    The options are those of `SchemeOptions`; what has no use for one ignores it, and one that is left at its default
    leaves a class its own: tau_min and tau_max are 0.85 to 0.99 for recu, 0.0468 for biper, 0.037 for biper_sine.

    Raises ValueError on an unknown name, on an object that makes no such part, and on an option that its binariser
    refuses.

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
        # Their constructors check the options. The random numbers that they draw are nobody's.
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
        """(first, last) tau of the weight, the published ones where none are given; of ReCU for weights without."""
        first, last = published_tau(self.weight)
        return first if self.tau_min is None else self.tau_min, last if self.tau_max is None else self.tau_max

    def make_weight(self, out_channels: int, fan_in: int = 1) -> WeightBinarizer:
        """The binariser of a weight (out_channels, ...) with fan_in entries per output channel."""
        return _WEIGHT.make(self.weight, self, out_channels=out_channels, fan_in=fan_in)

    def make_activation(self, channels: int, *, axis: int = 1) -> ActivationBinarizer:
        """The binariser of activations with that many channels along the axis."""
        made = _ACTIVATION.make(self.activation, self, channels=channels, axis=axis)
        made.axis = axis  # of a class whose constructor does not name it too
        return made

    def make_regularizer(self, *, axis: int = 1) -> RAD | None:
        """RAD on what the activations' signs are taken of; None where its weight is 0."""
        return RAD(axis=axis, weight=self.rad, until=self.rad_until) if self.rad > 0 else None

    @property
    def nonlinearity_needs_channels(self) -> bool:
        """Whether the activation between layers is made for a number of channels.

        >>> Scheme(nonlinearity="rprelu").nonlinearity_needs_channels, Scheme().nonlinearity_needs_channels
        (True, False)
        """
        return _NONLINEARITY.needs(self.nonlinearity, "channels")

    def make_nonlinearity(self, channels: int | None) -> nn.Module:
        """The activation between layers, for that many channels; None where they are not known, nor needed."""
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
    # First stages of two-stage training (`load_stage`): binary activations, real weights.
    "real": Scheme("real", "recu"),
    "biper_sine": Scheme("biper_sine", "recu"),
}


AnyScheme = str | Scheme | type[WeightBinarizer] | type[ActivationBinarizer]


def as_scheme(scheme: AnyScheme) -> Scheme:
    """Returns the scheme of a name, the scheme itself, or the one of a binariser's class.

    A class stands for the weight or for the activation, and the other is ReCU's. Raises ValueError on an unknown name
    and on any other object.

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

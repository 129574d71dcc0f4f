"""What layers and schemes refuse, by name, rule and value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bnn_itrd.quant import SCHEMES, BinaryConv2d, BinaryLinear, ReCUWeight, Scheme, as_scheme, sign


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sign(torch.ones(1), surrogate="cliped"), "surrogate must be one of identity, clipped"),
        (lambda: BinaryConv2d(3, 4, 3, padding_value=2), "padding_value must be -1, 0 or 1, got 2"),
        (lambda: BinaryConv2d(3, 4, 3, groups=2), "groups must divide in_channels and out_channels, got 2"),
        (lambda: BinaryConv2d(4, 3, 3, groups=2), "groups must divide in_channels and out_channels, got 2"),
        (lambda: BinaryConv2d(0, 4, 3), "in_channels must be >= 1, got 0"),
        (lambda: BinaryConv2d(3, 4, (3, 0)), r"kernel_size must be >= 1, got \(3, 0\)"),
        (lambda: BinaryConv2d(3, 4, 3, stride=0), "stride must be >= 1, got 0"),
        (lambda: BinaryConv2d(3, 4, 3, padding=-1), "padding must be whole numbers >= 0, got -1"),
        (lambda: BinaryConv2d(3, 4, 3, padding="same"), "padding must be whole numbers >= 0, got 'same'"),
        (lambda: BinaryLinear(3, 0), "out_features must be >= 1, got 0"),
        (lambda: ReCUWeight(0), "out_channels must be >= 1, got 0"),
        (lambda: ReCUWeight(3, tau_min=1.2), r"tau_min must be in \(0.5, 1\), got 1.2"),
        (lambda: ReCUWeight(3, tau_min=0.5), r"tau_min must be in \(0.5, 1\), got 0.5"),
        (lambda: ReCUWeight(3, tau_min=0.9, tau_max=0.8), r"tau_max must be in \[tau_min, 1\).*got 0.8"),
        (lambda: ReCUWeight(3, tau_max=1.0), r"tau_max must be in \[tau_min, 1\).*got 1.0"),
        (lambda: Scheme(tau_min=2.0), r"tau_min must be in \(0.5, 1\), got 2.0"),
        (lambda: Scheme(tau_min=0.9, tau_max=0.8), r"tau_max must be in \[tau_min, 1\).*got 0.8"),
        (lambda: BinaryConv2d(3, 4, 3, scheme="reku"), "unknown scheme 'reku'.*did you mean 'recu'"),
        (lambda: as_scheme("zzz"), "unknown scheme 'zzz', expected one of recu, xnor, irnet, "),
        (lambda: Scheme(weight="xnorr"), "unknown weight binariser 'xnorr'.*did you mean 'xnor'"),
        (
            lambda: Scheme(activation="polynom"),
            "unknown activation binariser 'polynom'.*mean 'polynomial'",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_schemes() -> None:
    assert as_scheme("recu") is SCHEMES["recu"]
    mixed = Scheme("xnor", "polynomial")
    assert as_scheme(mixed) is mixed
    layer = BinaryConv2d(3, 4, 3, scheme=Scheme(tau_min=0.6, tau_max=0.7))
    assert isinstance(layer.weight_binarizer, ReCUWeight) and layer.weight_binarizer.tau_max == 0.7
    assert Scheme("xnor", tau_min=2.0).tau_min == 2.0, "other weights have no tau"

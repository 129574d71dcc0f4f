"""A scheme of a user's own binarisers and nonlinearities: what they are called with, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.models import resnet8
from bnn_itrd.quant import (
    ACTIVATIONS,
    WEIGHTS,
    ActivationBinarizer,
    BinaryConv2d,
    BinaryLinear,
    BinaryWeight,
    IRNetWeight,
    ReCUActivation,
    ReCUWeight,
    RPReLU,
    Scheme,
    WeightBinarizer,
    as_scheme,
    binarize,
    sign,
)
from bnn_itrd.quant.options import PARTS, SchemeOptions

HERE = __name__


class Half(WeightBinarizer):
    """Without a constructor: the base's."""

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), weight.new_full((self.out_channels,), 0.5))


class Sized(Half):
    def __init__(self, out_channels: int, fan_in: int, t_min: float, *, t_max: float = 5.0, tau_max: float = 0.7):
        super().__init__(out_channels)
        self.seen = (fan_in, t_min, t_max, tau_max)


class Plain(ActivationBinarizer):
    def forward(self, x: Tensor) -> Tensor:
        return sign(x, surrogate="clipped")


class Shifted(Plain):
    """Its constructor names no axis."""

    def __init__(self, channels: int, centre: bool = False) -> None:
        super().__init__(channels)
        self.centre = centre
        self.shift = nn.Parameter(torch.linspace(-1, 1, channels))

    def presign(self, x: Tensor) -> Tensor:
        return x + self.per_channel(self.shift, x)

    def forward(self, x: Tensor) -> Tensor:
        return sign(self.presign(x))


class Act(nn.Module):
    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((num_channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.slope.reshape(-1, 1, 1)


class Tensors(WeightBinarizer):
    def forward(self, weight: Tensor) -> Any:
        return sign(weight)


def make(out_channels: int) -> WeightBinarizer:
    return ReCUWeight(out_channels, tau_min=0.6)


def linear(out_channels: int) -> nn.Module:
    return nn.Linear(1, out_channels)


# ---- what they are called with


def test_a_class_gets_what_its_signature_names() -> None:
    layer = BinaryConv2d(3, 4, 5, scheme=Scheme(weight=Sized))
    assert isinstance(layer.weight_binarizer, Sized)
    # The scheme has a value for t_min and t_max, and none for tau_max, which keeps its own.
    assert layer.weight_binarizer.seen == (75, 0.01, 10.0, 0.7)
    changed = Scheme(weight=Sized, t_min=0.2, t_max=3.0, tau_max=0.9)
    assert changed.make_weight(4, 8).seen == (8, 0.2, 3.0, 0.9)
    assert changed.tau() == (0.85, 0.9), "ReCU's where it has none"


@pytest.mark.parametrize("kind", [Half, make, functools.partial(ReCUWeight, tau_min=0.6), lambda out_channels: Half(3)])
def test_a_class_without_a_constructor_and_functions(kind: Any) -> None:
    layer = BinaryLinear(5, 3, scheme=Scheme(weight=kind))
    assert isinstance(layer.weight_binarizer, (Half, ReCUWeight)) and layer.weight_binarizer.out_channels == 3
    assert getattr(layer.weight_binarizer, "tau_min", 0.6) == 0.6
    assert layer(torch.ones(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("kind", [Plain, Shifted])
def test_activations_know_their_channels_and_axis(kind: type[ActivationBinarizer]) -> None:
    for layer, axis, channels in (
        (BinaryConv2d(4, 2, 1, scheme=Scheme(activation=kind)), 1, 4),
        (BinaryLinear(6, 2, scheme=Scheme(activation=kind)), -1, 6),
    ):
        assert isinstance(layer.activation_binarizer, kind)
        assert (layer.activation_binarizer.channels, layer.activation_binarizer.axis) == (channels, axis)
    signs = layer.activation_binarizer(torch.zeros(2, 3, 6))
    assert signs[0, 0].tolist() == ([1] * 6 if kind is Plain else [-1, -1, -1, 1, 1, 1])


def test_options_reach_an_own_activation() -> None:
    assert Scheme(activation=Shifted, centre=True).make_activation(2).centre is True
    with pytest.raises(ValueError, match=re.escape(f"centre=True needs activation rbnn or siman, got '{HERE}:Plain'")):
        Scheme(activation=Plain, centre=True)


@pytest.mark.parametrize("kind", [Act, nn.PReLU, nn.Hardtanh, lambda channels: nn.PReLU(channels)])
def test_own_nonlinearities_in_a_network(kind: Any) -> None:
    model = resnet8(4, binary=Scheme(nonlinearity=kind), input_shape=(3, 8, 8))
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    if kind is Act:
        assert [len(m.slope) for m in model.modules() if isinstance(m, Act)] == [16, 16, 16, 32, 32, 64, 64]


def test_binarize_takes_own_parts() -> None:
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 3)
    )
    made, report = binarize(plain, Scheme(weight=Half, activation=Shifted, nonlinearity=Act))
    assert made(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    assert f"{HERE}:Half weights, {HERE}:Shifted activations" in str(report)
    assert "Act__2.slope" in made.state_dict() and f"{HERE}:Act: feeds 3" in str(report)
    copied = copy.deepcopy(made)
    copied.load_state_dict(made.state_dict())
    assert torch.equal(copied(torch.ones(1, 3, 8, 8)), made(torch.ones(1, 3, 8, 8)))


def test_a_class_alone_is_a_scheme() -> None:
    assert as_scheme(Half) == Scheme(weight=Half) and as_scheme(Shifted) == Scheme(activation=Shifted)
    layer = BinaryConv2d(3, 4, 3, scheme=Half)
    assert isinstance(layer.weight_binarizer, Half) and isinstance(layer.activation_binarizer, ReCUActivation)


# ---- schemes as values


def test_schemes_are_values() -> None:
    scheme = Scheme(weight=Half, activation="clipped", nonlinearity=RPReLU)
    assert scheme == Scheme(Half, "clipped", nonlinearity=RPReLU) and len({scheme, Scheme(Half), Scheme(Half)}) == 2
    assert repr(scheme).startswith(f"Scheme(weight='{HERE}:Half', activation='clipped', tau_min=None, ")
    ending = "nonlinearity='bnn_itrd.quant.methods.reactnet:RPReLU', latent_init='kaiming_uniform')"
    assert repr(scheme).endswith(ending)
    assert pickle.loads(pickle.dumps(scheme)) == scheme == copy.deepcopy(scheme)
    assert f"scheme={HERE}:Half/recu" in repr(BinaryLinear(2, 3, scheme=Scheme(Half)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheme.weight = "recu"  # type: ignore[misc]


def test_layers_of_own_parts_are_copied_and_pickled() -> None:
    layer = BinaryConv2d(3, 4, 3, scheme=Scheme(Half, Shifted))
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x)) and other.scheme == layer.scheme


def test_making_a_scheme_draws_no_random_number() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for name in WEIGHTS:
        Scheme(name)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.device("meta"):
        assert Scheme("recu", tau_min=0.7).tau() == (0.7, 0.99)


def test_published_parts_have_the_defaults_of_the_options() -> None:
    """An option that a scheme leaves at its default leaves a class its own: the two must be the same."""
    import inspect

    defaults = {f.name: f.default for f in dataclasses.fields(SchemeOptions) if f.name not in PARTS}
    seen = set()
    for kind in (*WEIGHTS.values(), *ACTIVATIONS.values()):
        for name, parameter in inspect.signature(kind).parameters.items():
            if name in defaults:
                seen.add(name)
                assert defaults[name] in (None, parameter.default), (kind, name)
    assert seen == {"tau_min", "tau_max", "t_min", "t_max", "omega", "o_max", "centre", "scaled_gradient"}


# ---- configurations


def test_a_configuration_has_the_same_fields_and_says_so_in_order() -> None:
    saved = dataclasses.asdict(SchemeConfig().resolved())
    assert list(saved.items()) == [
        ("weight", "recu"), ("activation", "recu"), ("tau_min", 0.85), ("tau_max", 0.99), ("t_min", 0.01),
        ("t_max", 10.0), ("omega", 20.0), ("o_max", 3.0), ("centre", False), ("rad", 0.0), ("rad_until", 0.9),
        ("nonlinearity", "hardtanh"), ("latent_init", "kaiming_uniform"), ("scaled_gradient", True),
        ("first_stage", "real"), ("first_stage_epochs", 0), ("binary", True), ("from_teacher", False),
    ]  # fmt: skip
    fields = [field.name for field in dataclasses.fields(Scheme)]
    assert list(saved)[: len(fields)] == fields


def test_an_own_weight_keeps_its_own_tau() -> None:
    config = SchemeConfig(weight="mypkg.binarisers:MyWeight", first_stage="biper_sine", first_stage_epochs=2)
    assert config.resolved() == config
    first = config.of_first_stage()
    assert (first.weight, first.tau_min, first.tau_max) == ("biper_sine", 0.037, 0.037)


# ---- what is refused


EXPECTED = "weight must be one of recu, xnor, .*, or a subclass of WeightBinarizer, or a function that .* of one, got "


@pytest.mark.parametrize(
    ("make_scheme", "message"),
    [
        (lambda: Scheme(weight=nn.Linear), EXPECTED + "the class torch.nn.modules.linear:Linear"),
        (lambda: Scheme(weight=Plain), EXPECTED + f"the class {HERE}:Plain"),
        (lambda: Scheme(weight=Half(3)), EXPECTED + f"an instance of {HERE}:Half"),
        (lambda: Scheme(weight="my.mod:Half"), "unknown weight binariser .*; to use your own, pass the class itself"),
        (lambda: Scheme(weight=3), EXPECTED + "an instance of builtins:int"),  # type: ignore[arg-type]
        (lambda: Scheme(activation=Half), f"activation must be one of recu.*subclass of Act.*the class {HERE}:Half"),
        (lambda: Scheme(nonlinearity=torch.relu(torch.ones(1))), "nonlinearity must be .*, got an instance of torch"),
        (
            lambda: Scheme(weight=linear).make_weight(2),
            f"weight {HERE}:linear returned an object of torch.*:Linear:",
        ),
        (
            lambda: Scheme(weight=lambda rows, columns: Half(rows)).make_weight(2),
            "weight .*<lambda> requires 'rows', which a scheme cannot give. It can give out_channels, .*: rename",
        ),
        (
            lambda: Scheme(nonlinearity=nn.Threshold).make_nonlinearity(2),
            "nonlinearity torch.*:Threshold requires 'threshold', which a scheme cannot give. It can give channels,",
        ),
        (
            lambda: Scheme(weight=lambda out_channels, tau_min: Half(3)).make_weight(2),
            "requires 'tau_min', which has no value: set it in the scheme",
        ),
        (lambda: BinaryConv2d(3, 4, 3, scheme=nn.Linear), "scheme must be one of recu, .*, or a Scheme, or a subclass"),  # type: ignore[arg-type]
        (lambda: Scheme(weight=functools.partial(IRNetWeight, t_min=-1)).make_weight(2), "t_min must be > 0, got -1"),
    ],
)
def test_what_is_no_binariser_is_refused(make_scheme: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scheme()


def test_a_weight_must_return_a_binary_weight() -> None:
    layer = BinaryConv2d(3, 4, 3, scheme=Tensors)
    with pytest.raises(TypeError, match=re.escape("Tensors must return a BinaryWeight(signs, scale), got a Tensor")):
        layer(torch.zeros(1, 3, 4, 4))

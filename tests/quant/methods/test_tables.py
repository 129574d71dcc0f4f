"""Every weight and activation binariser against an independent NumPy version: one table each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.binarisers import (
    DTYPES,
    REAL,
    TAU,
    Array,
    P,
    T,
    channels_last,
    clipped,
    ede,
    hard,
    make_weight,
    mean_size,
    network,
    normal,
    numerical,
    per_filter,
    polynomial,
    reste,
    standard,
    triangle,
)
from torch import nn

from bnn_itrd.quant import ACTIVATIONS, SCHEMES, WEIGHTS, BinaryConv2d, BinaryLinear, Scheme, binarize, set_progress

# ---- the table of weights


class Weight(NamedTuple):
    """signs and scale of w; soft(w, start): what the backward pass differentiates, (signs, scale, offset) at w where
    what is constant has the value of start. scale None: a parameter, alpha."""

    signs: Callable[[Array], Array]
    scale: Callable[[Array], Array] | None
    soft: Callable[[Array, Array], Array]
    soft_scale: bool = False  # whether the gradient flows through the scale
    offset: Callable[[Array], Array] | None = None


def recu_soft(w: Array, start: Array) -> Array:
    scaled = 2 * math.sqrt(2)
    bound = -np.abs(standard(start) * scaled).mean() * math.log(2 - 2 * TAU)
    return np.clip(standard(w) * scaled, -bound, bound)


def larger_half(w: Array) -> Array:
    out = -np.ones_like(w)
    for i in range(len(w)):
        order = sorted(range(w[i].size), key=lambda j: -abs(w[i].flat[j]))
        for j in order[: max(w[i].size // 2, 1)]:
            out[i].flat[j] = 1
    return out


def deviation(w: Array) -> Array:
    return per_filter(lambda v: math.sqrt(float(((v - v.mean()) ** 2).sum()) / v.size), w)


def adabin_u(w: Array) -> Array:
    centred = np.stack([f - f.mean() for f in w])
    return centred / np.sqrt(deviation(w) ** 2).reshape(-1, *[1] * (w.ndim - 1))


WEIGHT_TABLE: dict[str, Weight] = {
    "recu": Weight(lambda w: hard(standard(w)), None, recu_soft),
    "xnor": Weight(hard, mean_size, lambda w, _: clipped(w), soft_scale=True),
    "bireal": Weight(hard, mean_size, lambda w, _: clipped(w)),
    "irnet": Weight(
        lambda w: hard(standard(w)),
        lambda w: 2 ** np.round(np.log2(mean_size(standard(w, eps=0)))),
        lambda w, _: ede(standard(w, eps=0)),
    ),
    "rbnn": Weight(lambda w: hard(standard(w)), None, lambda w, _: triangle(standard(w, eps=0))),
    "siman": Weight(larger_half, None, lambda w, _: np.abs(w)),
    "adabin": Weight(
        lambda w: hard(adabin_u(w)),
        deviation,
        lambda w, _: ede(adabin_u(w)),
        soft_scale=True,
        offset=lambda w: per_filter(lambda v: float(v.sum() / v.size), w),
    ),
    "biper": Weight(lambda w: hard(np.sin(20 * w)), None, lambda w, _: np.sin(20 * w)),
    "biper_sine": Weight(lambda w: np.sin(20 * w), None, lambda w, _: np.sin(20 * w)),
    "reste": Weight(hard, mean_size, lambda w, _: reste(w), soft_scale=True),
    "real": Weight(lambda w: w, lambda w: np.ones(len(w)), lambda w, _: w),
}


def test_the_tables_are_complete() -> None:
    assert set(WEIGHT_TABLE) == set(WEIGHTS)
    assert set(ACTIVATION_TABLE) == set(ACTIVATIONS)


@pytest.mark.parametrize("shape", [(3, 2, 2, 3), (4, 7)])
@pytest.mark.parametrize("name", WEIGHT_TABLE)
def test_weight_values(name: str, shape: tuple[int, ...]) -> None:
    case, w = WEIGHT_TABLE[name], 0.7 * normal(*shape, seed=5)
    binarizer = make_weight(name, shape)
    signs, scale, offset = binarizer(w)
    np.testing.assert_allclose(signs.detach().numpy(), case.signs(w.numpy()), rtol=1e-12)
    if case.scale is None:
        assert scale is binarizer.alpha and scale.requires_grad
    else:
        np.testing.assert_allclose(scale.detach().numpy(), case.scale(w.numpy()), rtol=1e-12)
    assert (offset is None) == (case.offset is None)
    if offset is not None and case.offset is not None:
        np.testing.assert_allclose(offset.detach().numpy(), case.offset(w.numpy()), rtol=1e-12)
    for other in (binarizer.eval()(w), binarizer.train()(w)):
        assert torch.equal(other.signs, signs) and torch.equal(other.scale, scale)


@pytest.mark.parametrize("name", WEIGHT_TABLE)
def test_weight_gradients(name: str) -> None:
    case, shape = WEIGHT_TABLE[name], (3, 2, 2, 3)
    w = (0.7 * normal(*shape, seed=5)).requires_grad_()
    g = [normal(*shape, seed=6), normal(3, seed=7), normal(3, seed=8)]
    binary = make_weight(name, shape)(w)
    loss = (binary.signs * g[0]).sum() + (binary.scale * g[1]).sum()
    loss = loss if binary.offset is None else loss + (binary.offset * g[2]).sum()
    loss.backward()
    start = w.detach().numpy()

    def surrogate(v: Array) -> float:
        total = float((case.soft(v, start) * g[0].numpy()).sum())
        if case.soft_scale and case.scale is not None:
            total += float((case.scale(v) * g[1].numpy()).sum())
        return total if case.offset is None else total + float((case.offset(v) * g[2].numpy()).sum())

    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), numerical(surrogate, start), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WEIGHT_TABLE)
def test_weights_in_every_precision(name: str, dtype: torch.dtype) -> None:
    w = (0.5 * normal(4, 3, 3, 3, seed=9)).to(dtype)
    binarizer = Scheme(name).make_weight(4, 27).to(dtype)
    signs, scale, offset = binarizer(w)
    assert signs.dtype == scale.dtype == dtype and scale.isfinite().all()
    assert offset is None or offset.dtype == dtype
    if name not in REAL:
        assert torch.equal(signs.abs(), torch.ones_like(signs))
        exact = WEIGHT_TABLE[name].signs(w.double().numpy())
        # An entry within rounding of its threshold may fall on either side, in half precision of sin(20 w) more.
        assert (signs.detach().double().numpy() != exact).mean() <= (0.06 if name == "biper" else 0.01)


@pytest.mark.parametrize("name", sorted(set(WEIGHT_TABLE) - REAL))
def test_weights_on_their_threshold_are_plus_one(name: str) -> None:
    for value in (0.0, -0.0, 0.0 if name in ("xnor", "bireal", "reste", "biper") else 0.25):
        w = torch.full((3, 2, 3, 3), value).requires_grad_()
        binary = Scheme(name).make_weight(3, 18)(w)
        assert torch.equal(binary.signs, torch.ones_like(w))
        loss = binary.signs.sum() + binary.scale.sum()
        (loss if binary.offset is None else loss + binary.offset.sum()).backward()
        assert w.grad is not None and w.grad.isfinite().all() and binary.scale.isfinite().all()


@pytest.mark.parametrize("name", ["irnet", "rbnn", "adabin"])
def test_standardised_weights_know_no_size(name: str) -> None:
    # 0.003 is what weight decay leaves of a wide layer.
    w, g, found = normal(4, 3, 3, 3, seed=5), normal(4, 3, 3, 3, seed=6), []
    for size in (1.0, 0.003):
        sized = (size * w).requires_grad_()
        binary = make_weight(name, (4, 3, 3, 3))(sized)
        (gradient,) = torch.autograd.grad((binary.signs * g).sum(), sized)
        found.append((binary.signs.detach(), binary.scale.detach(), size * gradient))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-3, atol=1e-6)
    if name == "irnet":
        assert torch.equal(found[0][1], found[1][1])


def test_clip_points_of_weights() -> None:
    for name, beyond in (("xnor", 1.0), ("bireal", 1.0), ("reste", 1.5)):
        w = torch.tensor(
            [[beyond, -beyond, math.nextafter(beyond, 9), -math.nextafter(beyond, 9)]], dtype=torch.float64
        )
        w.requires_grad_()
        Scheme(name).make_weight(1).double()(w).signs.sum().backward()
        assert w.grad is not None and w.grad[0, :2].abs().min() > 0 and w.grad[0, 2:].abs().max() == 0


@pytest.mark.parametrize("name", SCHEMES)
def test_autocast_changes_no_sign(name: str) -> None:
    layer = network(name)[6]
    assert isinstance(layer, BinaryConv2d)
    x, act = normal(2, 12, 5, 5, dtype=torch.bfloat16), SCHEMES[name].make_nonlinearity(12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        signs, y, activations = layer.binary_weight().signs, layer(x), layer.activation_binarizer(x)
        assert act(x).dtype == torch.bfloat16
    assert torch.equal(signs, layer.binary_weight().signs)
    assert torch.equal(activations.float(), layer.activation_binarizer(x.float()))
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["siman", "rbnn"])
def test_learned_scales_start_from_the_weight(name: str) -> None:
    conv = nn.Conv2d(8, 12, 3)
    with torch.no_grad():
        conv.weight.mul_(7)
    rewritten, _ = binarize(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), conv, nn.Flatten(), nn.Linear(9, 2)), name
    )
    for layer in (BinaryConv2d(8, 12, 3, scheme=name), rewritten.get_submodule("2")):
        want = mean_size(layer.weight.detach().numpy())
        np.testing.assert_allclose(layer.weight_binarizer.alpha.detach().numpy(), want, rtol=1e-6)


# ---- the table of activations


class Activation(NamedTuple):
    """presign: whose sign is taken; soft: what the backward pass differentiates. Both with the parameters given."""

    presign: Callable[[Array, dict[str, Array]], Array]
    soft: Callable[[Array, dict[str, Array]], Array]


ACTIVATION_TABLE: dict[str, Activation] = {
    "recu": Activation(lambda x, _: x, lambda x, _: polynomial(standard(x, centre=False))),
    "clipped": Activation(lambda x, _: x, lambda x, _: clipped(x)),
    "polynomial": Activation(lambda x, _: x, lambda x, _: polynomial(x)),
    "irnet": Activation(lambda x, _: x, lambda x, _: ede(x)),
    "rbnn": Activation(lambda x, _: x, lambda x, _: triangle(standard(x, centre=False), 1, max(T, 1))),
    "siman": Activation(lambda x, _: x, lambda x, _: polynomial(standard(x, centre=False))),
    "rsign": Activation(
        lambda x, p: x + channels_last(p["bias"]), lambda x, p: polynomial(x + channels_last(p["bias"]))
    ),
    "adabin": Activation(
        lambda x, p: (x - p["centre"]) / abs(p["distance"]),
        lambda x, p: polynomial((x - p["centre"]) / abs(p["distance"])),
    ),
    "reste": Activation(lambda x, _: x, lambda x, _: reste(x)),
}
CENTRED = {
    "rbnn": Activation(lambda x, _: standard(x), lambda x, _: triangle(standard(x), 1, max(T, 1))),
    "siman": Activation(lambda x, _: standard(x), lambda x, _: polynomial(standard(x))),
}
ACTIVATION_CASES = [(name, False, case) for name, case in ACTIVATION_TABLE.items()]


ACTIVATION_CASES += [(name, True, case) for name, case in CENTRED.items()]


def make_activation(name: str, *, centre: bool = False, axis: int = 1) -> Any:
    binarizer = Scheme(activation=name, centre=centre).make_activation(3, axis=axis).double()
    set_progress(binarizer, P)
    with torch.no_grad():
        for i, parameter in enumerate(binarizer.parameters()):
            parameter.copy_(0.8 - 0.3 * i + 0.2 * torch.arange(parameter.numel()).reshape(parameter.shape))
    return binarizer


@pytest.mark.parametrize(("name", "centre", "case"), ACTIVATION_CASES, ids=[f"{n}-{c}" for n, c, _ in ACTIVATION_CASES])
def test_activation_values_and_gradients(name: str, centre: bool, case: Activation) -> None:
    binarizer = make_activation(name, centre=centre)
    x = (0.4 + normal(2, 3, 2, 2, seed=3)).requires_grad_()
    g = normal(2, 3, 2, 2, seed=4)
    parameters = {n: p.detach().numpy().copy() for n, p in binarizer.named_parameters()}
    y = binarizer.train()(x)
    want = hard(case.presign(x.detach().numpy(), parameters))
    np.testing.assert_array_equal(y.detach().numpy(), want)
    np.testing.assert_array_equal(binarizer.eval()(x).detach().numpy(), want)
    (y * g).sum().backward()
    start = x.detach().numpy()
    gradient = numerical(lambda v: float((case.soft(v, parameters) * g.numpy()).sum()), start)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=2e-6, atol=2e-8)
    for key, parameter in binarizer.named_parameters():
        gradient = numerical(
            lambda v, key=key: float((case.soft(start, parameters | {key: v}) * g.numpy()).sum()), parameters[key]
        )
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATION_TABLE)
def test_activations_in_every_precision(name: str, dtype: torch.dtype) -> None:
    binarizer = Scheme(activation=name).make_activation(4).to(dtype)
    x = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-4, -1e-4, 1.5, -1.5, 300.0, -300.0], dtype=torch.float64).to(dtype)
    x = x.reshape(1, 1, 10, 1).expand(2, 4, 10, 1).clone()
    for mode in (True, False):
        y = binarizer.train(mode)(x)
        assert y.dtype == dtype and torch.equal(y, torch.where(x >= 0, 1.0, -1.0).to(dtype))


@pytest.mark.parametrize("name", ["recu", "rbnn", "siman"])
def test_small_half_precision_values_keep_their_sign_in_training(name: str) -> None:
    # Over the sample's deviation it is no float16 any more.
    x = torch.tensor([[-6e-8, 3000.0, -3000.0, 6e-8]], dtype=torch.float16)
    assert torch.equal(make_activation(name).train()(x), torch.tensor([[-1, 1, -1, 1]], dtype=torch.float16))


def test_thresholds_of_linear_layers_are_per_feature() -> None:
    layer = BinaryLinear(5, 2, scheme=Scheme("xnor", "rsign"))
    with torch.no_grad():
        layer.activation_binarizer.bias.copy_(torch.linspace(-1, 1, 5))
    x = normal(2, 3, 5, dtype=torch.float32)
    want = torch.where(x + torch.linspace(-1, 1, 5) >= 0, 1.0, -1.0)
    assert torch.equal(layer.activation_binarizer(x), want)
    assert layer(x).shape == (2, 3, 2)

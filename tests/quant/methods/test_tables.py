"""Every weight and activation binariser against an independent NumPy version: one table each."""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical, predict_file, session, to_onnx, validate
from bnn_itrd.models import resnet20, summary, vgg_small
from bnn_itrd.quant import (
    ACTIVATIONS,
    RAD,
    SCHEMES,
    WEIGHTS,
    BinaryConv2d,
    BinaryLinear,
    RBNNWeight,
    RPReLU,
    Scheme,
    binarize,
    ede_parameters,
    load_stage,
    penalty,
    rad_penalty,
    rbnn_rotations,
    reste_o,
    set_progress,
    start_epoch,
)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
P = 0.3  # the progress at which values and gradients are compared
T = 1e-2 * 1000**P
K = max(1 / T, 1)
ORDER = 1 + 2 * (1 - math.cos(math.pi / 2 * P))
TAU = 0.85 + 0.14 * (math.exp(P) - 1) / (math.e - 1)

Array = np.ndarray


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def hard(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def standard(x: Array, *, centre: bool = True, eps: float = 1e-5) -> Array:
    """Sample by sample, entry by entry sums."""
    out = np.empty_like(x)
    for i in range(len(x)):
        entries = [float(v) for v in x[i].flat]
        mean = sum(entries) / len(entries)
        variance = sum((v - mean) ** 2 for v in entries) / (len(entries) - 1)
        out[i] = (x[i] - (mean if centre else 0)) / math.sqrt(variance + eps)
    return out


# Integrals of the surrogates' derivatives: what the backward pass says the sign is.
def ede(x: Array) -> Array:
    return K * np.tanh(T * x)


def triangle(x: Array, k: float = K, t: float = T) -> Array:
    y = np.clip(x, -math.sqrt(2) / t, math.sqrt(2) / t)
    return k * (math.sqrt(2) * t * y - t * t * y * np.abs(y) / 2)


def polynomial(x: Array) -> Array:
    y = np.clip(x, -1, 1)
    return 2 * y - y * np.abs(y)


def clipped(x: Array) -> Array:
    return np.clip(x, -1, 1)


def reste(x: Array) -> Array:
    y = np.minimum(np.abs(x), 1.5)
    return np.sign(x) * np.where(y <= 0.1, 0.1 ** (1 / ORDER) / 0.1 * y, y ** (1 / ORDER))


def per_filter(f: Callable[[Array], float], w: Array) -> Array:
    return np.array([f(w[i].ravel()) for i in range(len(w))])


def mean_size(w: Array) -> Array:
    return per_filter(lambda v: float(np.abs(v).sum() / v.size), w)


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
REAL = {"real", "biper_sine"}


def numerical(f: Callable[[Array], float], x: Array, step: float = 1e-6) -> Array:
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (f(up) - f(down)) / (2 * step)
    return gradient


def make_weight(name: str, shape: tuple[int, ...]) -> Any:
    binarizer = Scheme(name).make_weight(shape[0], math.prod(shape[1:])).double()
    set_progress(binarizer, P)
    return binarizer


def test_the_tables_are_complete() -> None:
    assert set(WEIGHT_TABLE) == set(WEIGHTS)
    assert set(ACTIVATION_TABLE) == set(ACTIVATIONS)


@pytest.mark.parametrize("shape", [(3, 2, 2, 3), (4, 7)])
@pytest.mark.parametrize("name", WEIGHT_TABLE)
def test_weight_values(name: str, shape: tuple[int, ...]) -> None:
    case, w = WEIGHT_TABLE[name], 0.7 * rand(*shape, seed=5)
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
    w = (0.7 * rand(*shape, seed=5)).requires_grad_()
    g = [rand(*shape, seed=6), rand(3, seed=7), rand(3, seed=8)]
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
    w = (0.5 * rand(4, 3, 3, 3, seed=9)).to(dtype)
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
    w, g, found = rand(4, 3, 3, 3, seed=5), rand(4, 3, 3, 3, seed=6), []
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
    x, act = rand(2, 12, 5, 5, dtype=torch.bfloat16), SCHEMES[name].make_nonlinearity(12)
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


def test_siman_ties_and_odd_filters() -> None:
    binarizer = Scheme("siman").make_weight(2)
    assert binarizer(torch.tensor([[3.0, -2.0, 1.0], [1.0, 1.0, 0.5]])).signs.tolist() == [[1, -1, -1], [1, 1, -1]]
    assert binarizer(torch.tensor([[0.5], [-0.5]])).signs.tolist() == [[1], [1]]


# ---- RBNN's rotation


def random_rotation(n: int, seed: int) -> Tensor:
    return torch.linalg.qr(rand(n, n, seed=seed))[0]


def test_rbnn_with_rotations_and_any_theta() -> None:
    shape = (3, 2, 2, 3)
    binarizer = make_weight("rbnn", shape)
    with torch.no_grad():
        binarizer.rotation1.copy_(random_rotation(3, 1))
        binarizer.rotation2.copy_(random_rotation(4, 2))
        binarizer.theta.copy_(torch.tensor([0.4, -1.1, 2.0]))
    w, g = (0.7 * rand(*shape, seed=5)).requires_grad_(), rand(*shape, seed=6).numpy()
    signs = binarizer(w).signs
    r1, r2 = binarizer.rotation1.numpy(), binarizer.rotation2.numpy()

    def mixed(v: Array, theta: Array) -> Array:
        out = np.empty_like(v)
        for o, filter_ in enumerate(standard(v, eps=0)):
            matrix = filter_.reshape(3, 4)
            share = abs(math.sin(theta[o]))
            out[o] = (matrix + share * (r1.T @ matrix @ r2 - matrix)).reshape(shape[1:])
        return out

    start, theta = w.detach().numpy(), binarizer.theta.detach().numpy()
    np.testing.assert_array_equal(signs.detach().numpy(), hard(mixed(start, theta)))
    (signs * torch.from_numpy(g)).sum().backward()
    for parameter, f in (
        (w, lambda v: float((triangle(mixed(v, theta)) * g).sum())),
        (binarizer.theta, lambda v: float((triangle(mixed(start, v)) * g).sum())),
    ):
        want = numerical(f, parameter.detach().numpy())
        np.testing.assert_allclose(parameter.grad.numpy(), want, rtol=2e-6, atol=2e-7)


def test_rbnn_rotations_against_numpy() -> None:
    w = rand(5, 3, 4, seed=3)
    left, right = np.eye(3), np.eye(4)

    def objective() -> float:
        return sum(float(np.abs(left.T @ m @ right).sum()) for m in w.numpy())

    values = [objective()]
    for updates in (1, 2, 3):
        signs = [hard(left.T @ m @ right) for m in w.numpy()]
        u, _, vh = np.linalg.svd(sum(b @ right.T @ m.T for b, m in zip(signs, w.numpy(), strict=True)))
        left = vh.T @ u.T
        u, _, vh = np.linalg.svd(sum(m.T @ left @ b for b, m in zip(signs, w.numpy(), strict=True)))
        right = u @ vh
        values.append(objective())
        got = rbnn_rotations(w, torch.eye(3).double(), torch.eye(4).double(), updates=updates)
        np.testing.assert_allclose(got[0].numpy(), left, atol=1e-9)
        np.testing.assert_allclose(got[1].numpy(), right, atol=1e-9)
    assert values == sorted(values) and values[-1] > 1.02 * values[0]


def test_rbnn_rotates_in_full_precision_under_autocast() -> None:
    """Many entries: some are within bfloat16's rounding of 0."""
    torch.manual_seed(0)
    layer = BinaryConv2d(64, 32, 3, scheme="rbnn")
    with torch.no_grad():
        layer.weight_binarizer.rotation1.copy_(random_rotation(24, 1))
        layer.weight_binarizer.rotation2.copy_(random_rotation(24, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        signs = layer.binary_weight().signs
    assert torch.equal(signs, layer.binary_weight().signs)


def test_start_epoch_renews_rotations_which_are_saved() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(BinaryConv2d(4, 6, 3, scheme="rbnn"), nn.Flatten(), BinaryLinear(6, 2, scheme="xnor"))
    binarizer = net[0].weight_binarizer
    assert isinstance(binarizer, RBNNWeight) and binarizer.sizes == (6, 6)
    torch.testing.assert_close(binarizer.alpha.detach(), net[0].weight.detach().abs().flatten(1).mean(1))
    before = net[0].binary_weight().signs
    start_epoch(net)
    assert not torch.equal(net[0].binary_weight().signs, before)
    for r in (binarizer.rotation1, binarizer.rotation2):
        torch.testing.assert_close(r @ r.T, torch.eye(6), rtol=0, atol=1e-5)
    fresh = nn.Sequential(BinaryConv2d(4, 6, 3, scheme="rbnn"), nn.Flatten(), BinaryLinear(6, 2, scheme="xnor"))
    fresh.load_state_dict(net.state_dict())
    x = rand(2, 4, 3, 3, dtype=torch.float32)
    assert torch.equal(fresh(x), net(x))
    start_epoch(nn.Linear(2, 2))


def test_latent_weights_of_rbnn_get_a_gradient_from_the_start() -> None:
    layer = BinaryConv2d(4, 6, 3, scheme="rbnn")
    layer(rand(2, 4, 3, 3, dtype=torch.float32)).square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().max() > 0


# ---- the table of activations


class Activation(NamedTuple):
    """presign: whose sign is taken; soft: what the backward pass differentiates. Both with the parameters given."""

    presign: Callable[[Array, dict[str, Array]], Array]
    soft: Callable[[Array, dict[str, Array]], Array]


def channels_last(v: Array) -> Array:
    return v.reshape(-1, 1, 1)


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
    x = (0.4 + rand(2, 3, 2, 2, seed=3)).requires_grad_()
    g = rand(2, 3, 2, 2, seed=4)
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
    x = rand(2, 3, 5, dtype=torch.float32)
    want = torch.where(x + torch.linspace(-1, 1, 5) >= 0, 1.0, -1.0)
    assert torch.equal(layer.activation_binarizer(x), want)
    assert layer(x).shape == (2, 3, 2)


# ---- annealing


def test_annealing_end_points() -> None:
    zero, one = torch.tensor(0.0).double(), torch.tensor(1.0).double()
    assert [float(v) for v in ede_parameters(zero)] == pytest.approx([100, 0.01])
    assert [float(v) for v in ede_parameters(one)] == pytest.approx([1, 10])
    assert [float(v) for v in ede_parameters(0.5 * one, t_min=0.1, t_max=0.4)] == pytest.approx([5, 0.2])
    assert [float(reste_o(v)) for v in (zero, one)] == pytest.approx([1, 3])
    assert float(reste_o(0.5 * one, o_max=4)) == pytest.approx(4 - 3 * math.sqrt(0.5))


@pytest.mark.parametrize("name", ["recu", "irnet", "rbnn", "adabin", "reste"])
def test_progress_changes_gradients_and_no_values(name: str) -> None:
    w, g = rand(3, 2, 3, 3, seed=5).requires_grad_(), rand(3, 2, 3, 3, seed=6)
    binarizer, found = make_weight(name, (3, 2, 3, 3)), []
    for p in (0.0, 1.0):
        set_progress(binarizer, p)
        signs = binarizer(w).signs
        found.append((signs.detach(), torch.autograd.grad((signs * g).sum(), w)[0]))
    assert torch.equal(found[0][0], found[1][0]) and not torch.allclose(found[0][1], found[1][1], rtol=1e-2)


@pytest.mark.parametrize("name", SCHEMES)
def test_state_of_every_scheme(name: str) -> None:
    torch.manual_seed(0)
    layer, fresh = (BinaryConv2d(3, 4, 3, scheme=name) for _ in range(2))
    set_progress(layer, 0.7)
    start_epoch(layer)
    fresh.load_state_dict(pickle.loads(pickle.dumps(layer.state_dict())))
    x = rand(2, 3, 5, 5, dtype=torch.float32)
    torch.testing.assert_close(fresh(x), layer(x), rtol=0, atol=0)
    assert all(float(m.progress) == pytest.approx(0.7) for m in (fresh.weight_binarizer, fresh.activation_binarizer))


# ---- AdaBin's levels


def loop_adabin(layer: BinaryConv2d, x: Array) -> Array:
    """Window by window: inputs a sign + b, a border of a padding_value + b, weights alpha sign + beta."""
    signs, scale, offset = layer.binary_weight()
    assert offset is not None
    weight = signs.detach().numpy() * channels_last(scale.detach().numpy())[:, None]
    weight = weight + channels_last(offset.detach().numpy())[:, None]
    a = layer.activation_binarizer.distance.item()
    b = layer.activation_binarizer.centre.item()
    n, c, h, w = x.shape
    p, s, k = layer.padding[0], layer.stride[0], layer.kernel_size[0]
    padded = np.full((n, c, h + 2 * p, w + 2 * p), float(layer.padding_value))
    padded[:, :, p : p + h, p : p + w] = hard((x - b) / a)
    padded = a * padded + b
    group_in, group_out = c // layer.groups, layer.out_channels // layer.groups
    y = np.zeros((n, layer.out_channels, (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1))
    for i, o, u, v in np.ndindex(*y.shape):
        first = o // group_out * group_in
        window = padded[i, first : first + group_in, u * s : u * s + k, v * s : v * s + k]
        y[i, o, u, v] = (weight[o] * window).sum()
    return y if layer.bias is None else y + channels_last(layer.bias.detach().numpy())


@pytest.mark.parametrize("padding_value", [0, 1, -1])
@pytest.mark.parametrize("options", [{}, {"groups": 2, "bias": True}, {"stride": 2}], ids=str)
def test_adabin_against_a_loop(options: dict[str, Any], padding_value: int) -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(4, 6, 3, padding=1, padding_value=padding_value, scheme="adabin", **options).double()
    with torch.no_grad():
        layer.activation_binarizer.distance.fill_(0.6)
        layer.activation_binarizer.centre.fill_(-0.3)
    x = rand(2, 4, 5, 6)
    for mode in (True, False):
        np.testing.assert_allclose(layer.train(mode)(x).detach().numpy(), loop_adabin(layer, x.numpy()), atol=1e-12)


def test_adabin_learns_its_set() -> None:
    """The gradients of a and b: of the levels, with the sign as it is, and of what is inside the sign."""
    layer = BinaryLinear(3, 2, scheme="adabin").double()
    binarizer: Any = layer.activation_binarizer
    with torch.no_grad():
        binarizer.distance.fill_(0.6)
        binarizer.centre.fill_(-0.3)
    x, g = rand(4, 3, seed=1), rand(4, 2, seed=2)
    (layer(x) * g).sum().backward()
    signs, scale, offset = layer.binary_weight()
    assert offset is not None
    incoming = (g @ (signs * scale[:, None] + offset[:, None])).detach().numpy()
    v, s = x.numpy(), hard((x.numpy() + 0.3) / 0.6)
    for parameter, f in (
        (binarizer.distance, lambda a: float(((a * s + 0.6 * polynomial((v + 0.3) / a)) * incoming).sum())),
        (binarizer.centre, lambda b: float(((b + 0.6 * polynomial((v - b) / 0.6)) * incoming).sum())),
    ):
        want = numerical(f, parameter.detach().numpy().copy())
        np.testing.assert_allclose(parameter.grad.numpy(), want, rtol=1e-6)


# ---- penalties


def loop_rad(x: Array) -> float:
    """(n, c, ...), channel by channel."""
    parts = []
    for c in range(x.shape[1]):
        values = x[:, c].ravel()
        mu = values.sum() / values.size
        sigma = math.sqrt(((values - mu) ** 2).sum() / values.size + 1e-10)
        saturation = max(min(2 - mu - sigma, 2 + mu - sigma), 0) ** 2
        parts.append((saturation, max(sigma - 4, 0) ** 2, max(mu**2 - sigma**2, 0)))
    return float(np.array(parts).mean(0).sum())


def test_rad_penalty_and_gradient() -> None:
    spread = torch.tensor([0.5, 6.0, 0.4, 2.0]).reshape(-1, 1, 1)
    x = (rand(3, 4, 2, 2, seed=3) * spread + torch.tensor([0.1, 0.0, -1.5, 3.0]).reshape(-1, 1, 1)).requires_grad_()
    value = rad_penalty(x)
    assert value.item() == pytest.approx(loop_rad(x.detach().numpy()))
    value.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), numerical(loop_rad, x.detach().numpy()), rtol=1e-5, atol=1e-8)
    features = x.detach().flatten(2).transpose(1, 2)
    assert float(rad_penalty(features, axis=-1)) == pytest.approx(value.item())


def test_rad_of_a_network() -> None:
    torch.manual_seed(0)
    scheme = Scheme("xnor", "rsign", rad=2.0, rad_until=0.5)
    net = nn.Sequential(BinaryConv2d(3, 4, 3, scheme=scheme), nn.Flatten(1), BinaryLinear(36, 2, scheme=scheme))
    assert sum(isinstance(m, RAD) for m in net.modules()) == 2
    assert penalty(net) is None, "no forward yet"
    x = (3 + rand(6, 3, 5, 5, dtype=torch.float32)).requires_grad_()
    net(x)
    found = penalty(net)
    with torch.no_grad():
        hidden = net[1](net[0](x)).double().numpy()
    assert found is not None
    # The mean over the layers, as in the published code, whose weight 2 this is.
    want = 2 * (loop_rad(x.detach().double().numpy()) + loop_rad(hidden)) / 2
    net(x)
    assert found.item() == pytest.approx(want, rel=1e-4)
    found.backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    set_progress(net, 0.5)
    net(x)
    off = penalty(net)
    assert off is not None and off.item() == 0
    net.eval()(x)
    assert penalty(net) is None


def test_biper_penalty() -> None:
    layer = BinaryConv2d(3, 4, 3, scheme=Scheme("biper", omega=7.0, tau_min=0.2, tau_max=0.6)).double()
    for p, tau in ((0.0, 0.2), (1.0, 0.6)):
        set_progress(layer, p)
        layer(rand(2, 3, 5, 5))
        w = layer.weight.detach().numpy()
        want = tau * sum(math.sin(7 * float(v)) ** 2 for v in w.flat) / w.size
        found = penalty(layer)
        assert found is not None and float(found.detach()) == pytest.approx(want)
    (gradient,) = torch.autograd.grad(found, layer.weight)
    np.testing.assert_allclose(gradient.numpy(), 0.6 * 7 * np.sin(14 * w) / w.size, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("scheme", "published"),
    [("recu", (0.85, 0.99)), ("biper_sine", (0.037, 0.037)), ("biper", (0.0468, 0.0468))],
)
def test_tau_is_the_published_one_of_each_scheme(scheme: str, published: tuple[float, float]) -> None:
    for made in (scheme, Scheme(scheme)):
        binarizer = BinaryConv2d(3, 4, 3, scheme=made).weight_binarizer
        assert (binarizer.tau_min, binarizer.tau_max) == published
    assert Scheme(scheme, tau_max=0.995).tau() == (published[0], 0.995)
    alone = type(binarizer)(4)
    assert (alone.tau_min, alone.tau_max) == published


class Own(nn.Module):
    """A user's module with a penalty, and one with a child of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))

    def penalty(self) -> Tensor:
        return self.w.square().sum()


def test_penalty_of_other_modules() -> None:
    odd = nn.Module()
    odd.penalty = nn.Linear(2, 2)
    assert penalty(nn.Sequential(odd, nn.Linear(2, 2))) is None
    found = penalty(nn.Sequential(odd, Own(), Own()))
    assert found is not None and float(found.detach()) == 10


def test_networks_with_a_penalty_are_copied_and_pickled() -> None:
    net = nn.Sequential(BinaryConv2d(3, 4, 3, scheme=Scheme("biper", rad=2.0)))
    net(rand(2, 3, 5, 5, dtype=torch.float32))
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert penalty(other) is None and penalty(net) is not None
        assert not any("penalty" in name for name in other.state_dict())


@pytest.mark.compiles
def test_penalties_compile_to_one_graph() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = nn.Sequential(BinaryConv2d(3, 4, 3, scheme=Scheme("biper", rad=2.0)))

    def step(x: Tensor) -> Tensor:
        added = penalty(net) if (y := net(x).square().mean()) is not None else None
        assert added is not None
        return y + added

    x, results = rand(2, 3, 5, 5, dtype=torch.float32), []
    for f in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        for _ in range(2):
            net.zero_grad()
            loss = f(x)
            loss.backward()
        results.append((loss.detach(), net[0].weight.grad.clone()))
    torch.testing.assert_close(results[0], results[1])
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    net.zero_grad()
    (compiled(x).square().mean() + penalty(net)).backward()  # type: ignore[operator]
    torch.testing.assert_close(net[0].weight.grad, results[0][1])


# ---- two stages


def network(scheme: str | Scheme, *, padding_value: int = 0) -> nn.Module:
    """Every kind of layer between full-precision ends, nothing at its starting value."""
    torch.manual_seed(3)
    made = Scheme() if isinstance(scheme, Scheme) else SCHEMES[scheme]
    made = scheme if isinstance(scheme, Scheme) else made
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        made.make_nonlinearity(8),
        BinaryConv2d(8, 12, 3, padding=1, padding_value=padding_value, scheme=made),
        nn.BatchNorm2d(12),
        made.make_nonlinearity(12),
        BinaryConv2d(12, 12, 3, 2, 1, groups=2, padding_value=padding_value, bias=True, scheme=made),
        nn.BatchNorm2d(12),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        BinaryLinear(48, 20, scheme=made),
        nn.BatchNorm1d(20),
        nn.Linear(20, 5),
    )
    start_epoch(net)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() <= 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return net


@pytest.mark.parametrize(("first", "second"), [("biper_sine", "biper"), ("real", "recu"), ("real", "rbnn")])
def test_load_stage(first: str, second: str) -> None:
    source, target = network(first), network(second)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    set_progress(source, 1.0)
    fresh = load_stage(target, source.state_dict())
    state, loaded = source.state_dict(), target.state_dict()
    own = {"real": ["alpha"], "biper_sine": []}[first]
    own = [*own, "theta", "rotation1", "rotation2"] if second == "rbnn" else own
    parts = ("weight_binarizer", "activation_binarizer")
    want = [f"{i}.{part}.progress" for i in (3, 6, 10) for part in parts]
    want += [f"{i}.weight_binarizer.{name}" for i in (3, 6, 10) for name in own]
    assert fresh == sorted(want)
    assert all(torch.equal(loaded[name], state[name]) for name in loaded if name not in fresh)
    assert all(float(loaded[name]) == 0 for name in fresh if name.endswith("progress"))
    if second == "rbnn":
        for i in (3, 6, 10):
            alpha = loaded[f"{i}.weight_binarizer.alpha"]
            torch.testing.assert_close(alpha, state[f"{i}.weight"].abs().flatten(1).mean(1))


def test_load_stage_is_strict_about_the_rest() -> None:
    target = network("recu")
    state = network("real").state_dict()
    before = {name: v.clone() for name, v in target.state_dict().items()}
    for wrong, message in (
        ({n: v for n, v in state.items() if n != "3.weight"}, "it lacks 3.weight"),
        (state | {"13.weight": torch.zeros(1)}, "and the network not, 13.weight"),
        (state | {"3.weight": torch.zeros(1)}, r"3.weight must have shape \(12, 8, 3, 3\), got \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            load_stage(target, wrong)
    assert all(torch.equal(v, before[name]) for name, v in target.state_dict().items())


# ---- deployed


DEPLOYABLE = [name for name in SCHEMES if name not in REAL]
IMAGE = (3, 10, 8)


class Branches(nn.Module):
    """The middle of every deployable scheme's network on the same stem, four outputs each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.branches = nn.ModuleList()
        for name in DEPLOYABLE:
            whole = network(name, padding_value=-1 if name == "reste" else 0)
            pool = nn.AdaptiveAvgPool2d(1)
            self.branches.append(nn.Sequential(*whole[2:5], pool, nn.Flatten(), nn.Linear(12, 4)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat([branch(x) for branch in self.branches], 1)


@pytest.mark.parametrize("functions", [True, False], ids=["fast", "standard"])
def test_exported_networks_agree(functions: bool, tmp_path: Path) -> None:
    model, x = Branches().eval(), rand(24, *IMAGE, dtype=torch.float32, seed=6)
    file = to_onnx(model, tmp_path / "model.onnx", input_shape=IMAGE, functions=functions)
    with torch.no_grad():
        want = model(x).numpy().reshape(24, -1, 4)
    got = predict_file(session(file), x).reshape(24, -1, 4)
    for i, name in enumerate(DEPLOYABLE):
        # A sum within rounding of a threshold may fall on either side.
        far = np.abs(got[:, i] - want[:, i]).max(1) > 1e-4 * np.abs(want[:, i]).max()
        assert far.mean() <= 0.05 and want[:, i].std() > 1e-3, name


def test_exported_adabin_with_groups_and_linear_layers(tmp_path: Path) -> None:
    model, x = network("adabin").eval(), rand(24, *IMAGE, dtype=torch.float32, seed=6)
    file = to_onnx(model, tmp_path / "model.onnx", input_shape=IMAGE, functions=False)
    result = validate(model, file, x)
    assert result.argmax_agreement >= 0.95 and result.median_difference < 1e-5


def test_a_network_trained_with_rad_exports(tmp_path: Path) -> None:
    model, x = network(Scheme("xnor", "rsign", rad=2.0)).eval(), rand(24, *IMAGE, dtype=torch.float32, seed=6)
    result = validate(model, to_onnx(model, tmp_path / "model.onnx", input_shape=IMAGE), x)
    assert result.argmax_agreement >= 0.95 and result.median_difference < 1e-5


@pytest.mark.parametrize("name", DEPLOYABLE)
def test_training_and_evaluation_compute_the_same(name: str) -> None:
    model = network(name)
    layer, x = model[6], rand(3, 12, 5, 5, dtype=torch.float32, seed=8)
    assert isinstance(layer, BinaryConv2d)
    assert torch.equal(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme("real"), "3: RealWeight is the first stage.*nearest deployable form is a binary weight"),
        (Scheme("biper_sine"), "3: BiPerSineWeight is the first stage.*nearest deployable form is weight='biper'"),
        (Scheme("rbnn", "rbnn", centre=True), "3: RBNNActivation subtracts the mean.*trained with centre=False"),
        (Scheme("siman", "siman", centre=True), "3: SiMaNActivation subtracts the mean.*trained with centre=False"),
    ],
)
def test_what_cannot_be_deployed_says_why(scheme: Scheme, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        canonical(network(scheme).eval(), input_shape=IMAGE)


def test_summary_counts_real_weights_as_such() -> None:
    sizes = {}
    for name in ("xnor", "real"):
        layers = {layer.path: layer for layer in summary(network(name), IMAGE).layers}
        sizes[name] = (layers["3"].bytes, layers["3"].weight_bits, layers["3"].binary_macs)
    assert sizes["xnor"] == (8 * 12 * 9 // 8 + 4 * 12, 1, 8 * 12 * 9 * 80)
    assert sizes["real"] == (8 * 12 * 9 * 4 + 4 * 12, 32, 0)


# ---- RPReLU and what builds it


def test_rprelu_against_a_loop() -> None:
    act = RPReLU(3).double()
    with torch.no_grad():
        for parameter, seed in zip(act.parameters(), (1, 2, 3), strict=True):
            parameter.copy_(rand(3, seed=seed))
    x = rand(2, 3, 4, 5, seed=4).requires_grad_()
    y = act(x).detach().numpy()
    for i in np.ndindex(*x.shape):
        shifted = x[i].item() + act.before[i[1]].item()
        want = shifted if shifted >= 0 else float(act.slope[i[1]]) * shifted
        assert y[i] == pytest.approx(want + float(act.after[i[1]]))
    assert torch.autograd.gradcheck(act, (x,))
    assert act(rand(4, 3)).shape == (4, 3)
    with pytest.raises(ValueError, match="channels must be >= 1, got 0"):
        RPReLU(0)


def test_models_and_binarize_take_the_nonlinearity() -> None:
    for model, width in ((resnet20(binary="reactnet", input_shape=(3, 8, 8)), 16), (vgg_small(binary="reactnet"), 128)):
        acts = [m for m in model.modules() if isinstance(m, RPReLU)]
        assert acts[0].channels == width and not any(isinstance(m, nn.Hardtanh) for m in model.modules())
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.Flatten(),
        nn.Linear(6 * 4, 3),
    )  # fmt: skip
    made, report = binarize(plain, "reactnet")
    acts = [m for m in made.modules() if isinstance(m, RPReLU)]
    assert [a.channels for a in acts] == [8] and "rprelu: feeds 4" in str(report)
    assert made(rand(2, 3, 10, 10, dtype=torch.float32)).shape == (2, 3)
    unknown = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Unflatten(1, (8,)), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten())
    made, report = binarize(unknown, "reactnet", keep_last=False)
    assert any("rprelu needs a number of channels it cannot see" in w for w in report.warnings)
    rotated = binarize(plain, "rbnn").model.get_submodule("4")
    torch.testing.assert_close(
        rotated.weight_binarizer.alpha.detach(), plain[4].weight.detach().abs().flatten(1).mean(1)
    )


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": "irnet", "t_min": 0.0}, "t_min must be > 0, got 0.0"),
        ({"activation": "irnet", "t_min": 2.0, "t_max": 1.0}, "t_max must be >= t_min = 2.0, got 1.0"),
        ({"weight": "biper", "omega": 0.0}, "omega must be > 0, got 0.0"),
        ({"weight": "biper", "tau_min": -1.0}, "tau_min must be >= 0, got -1.0"),
        ({"weight": "biper_sine", "tau_max": 0.01}, "tau_max must be >= tau_min = 0.037, got 0.01"),
        ({"activation": "reste", "o_max": 0.5}, "o_max must be >= 1, got 0.5"),
        ({"rad": -1.0}, "rad must be >= 0, got -1.0"),
        ({"rad": math.nan}, "rad must be >= 0, got nan"),
        ({"rad_until": 1.5}, r"rad_until must be in \[0, 1\], got 1.5"),
        ({"centre": True}, "centre=True needs activation rbnn or siman, got 'recu'"),
        (
            {"nonlinearity": "relu"},
            "unknown nonlinearity 'relu', did you mean 'rprelu'. Expected one of hardtanh, rprelu",
        ),
        ({"activation": "rsig"}, "unknown activation binariser 'rsig'.*did you mean 'rsign'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scheme(**options)


def test_options_reach_their_binarisers() -> None:
    layer = BinaryConv2d(2, 2, 1, scheme=Scheme("irnet", "reste", t_min=0.1, t_max=5.0, o_max=4.0))
    assert (layer.weight_binarizer.t_min, layer.weight_binarizer.t_max) == (0.1, 5.0)
    assert layer.activation_binarizer.o_max == 4.0
    assert Scheme("xnor", "clipped", t_min=-1.0, o_max=0.0).t_min == -1.0, "others have no t"

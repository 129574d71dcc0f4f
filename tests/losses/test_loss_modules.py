"""VID, CRD, WCoRD, ReviewKD, SRD, ICKD, FSP, AB, FT and DIST against NumPy in float64, and their state and phases."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn_itrd.losses._memory import ContrastMemory
from bnn_itrd.losses.ab import AB, ab_loss
from bnn_itrd.losses.crd import CRD, crd_loss
from bnn_itrd.losses.dist import DIST, dist_loss
from bnn_itrd.losses.fsp import FSP, fsp_matrix
from bnn_itrd.losses.ft import FT, factor_loss
from bnn_itrd.losses.ickd import ICKD, ickd_loss
from bnn_itrd.losses.lwf import LwF
from bnn_itrd.losses.reviewkd import ReviewKD, hierarchical_context_loss
from bnn_itrd.losses.srd import SRD, srd_loss
from bnn_itrd.losses.vid import VID, VIDLogits, vid_loss
from bnn_itrd.losses.wcord import WCoRD, global_contrast_loss, sinkhorn

Array = np.ndarray[Any, np.dtype[np.float64]]
Args = tuple[Any, ...]

S_SHAPES = [(3, 8, 8), (4, 4, 4), (5, 2, 2)]
T_SHAPES = [(4, 8, 8), (4, 8, 8), (3, 2, 2)]
LABELS = torch.tensor([0, 1, 2, 1, 0, 3, 3, 1, 2, 2, 1, 0, 3, 0, 1, 1, 2, 3, 0, 1])


def _map(n: int, shape: tuple[int, ...], seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(0.3, 1.2, (n, *shape)))


def _maps(n: int, shapes: list[tuple[int, int, int]], seed: int) -> list[Tensor]:
    return [_map(n, shape, seed + i) for i, shape in enumerate(shapes)]


def _bank_args(n: int = 4) -> Args:
    return _map(n, (6,), 1), _map(n, (5,), 2), torch.tensor([3, 17, 0, 9, 5, 11])[:n]


def _pair(n: int, student: tuple[int, ...], teacher: tuple[int, ...]) -> Args:
    return _map(n, student, 1), _map(n, teacher, 2)


# Every module in one configuration at least: how to build it, and its arguments for a batch of n, in float64.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Args]]] = {
    "vid": (lambda: VID((3, 8, 8), (4, 4, 4)), lambda n: _pair(n, (3, 8, 8), (4, 4, 4))),
    "vid_paper": (
        lambda: VID((3, 4, 4), (4, 8, 8), batch_norm=True, reduction="sum"),
        lambda n: _pair(n, (3, 4, 4), (4, 8, 8)),
    ),
    "vid_logits": (lambda: VIDLogits(6, 5), lambda n: _pair(n, (6,), (5,))),
    "lwf": (lambda: LwF(6, 5), lambda n: _pair(n, (6,), (5,))),
    "crd": (lambda: CRD(6, 5, LABELS, embed_dim=8, num_negatives=7), _bank_args),
    "wcord": (
        lambda: WCoRD(6, 5, LABELS, embed_dim=8, num_negatives=7, beta_local=0.5),
        _bank_args,
    ),
    "reviewkd": (
        lambda: ReviewKD(S_SHAPES, T_SHAPES),
        lambda n: (_maps(n, S_SHAPES, 1), _maps(n, T_SHAPES, 11)),
    ),
    "srd": (lambda: SRD(6, 5), lambda n: _pair(n, (6,), (5,))),
    "srd_linear": (lambda: SRD(5, 5, exponent=1.0), lambda n: _pair(n, (5,), (5,))),
    "srd_rows": (lambda: SRD(6, 5, norm="l2", projector="mlp"), lambda n: _pair(n, (6,), (5,))),
    "srd_plain": (lambda: SRD(6, 5, norm="none", form="l2"), lambda n: _pair(n, (6,), (5,))),
    "ickd": (lambda: ICKD((3, 8, 8), (4, 4, 4)), lambda n: _pair(n, (3, 8, 8), (4, 4, 4))),
    "fsp": (
        lambda: FSP([(3, 8, 8), (4, 4, 4), (2, 4, 4)], [(3, 4, 4), (4, 4, 4), (2, 8, 8)]),
        lambda n: (
            _maps(n, [(3, 8, 8), (4, 4, 4), (2, 4, 4)], 1),
            _maps(n, [(3, 4, 4), (4, 4, 4), (2, 8, 8)], 11),
        ),
    ),
    "ab": (
        lambda: AB(S_SHAPES, T_SHAPES, margin=0.5),
        lambda n: (_maps(n, S_SHAPES, 1), _maps(n, T_SHAPES, 11)),
    ),
    "ft": (lambda: FT((3, 4, 4), (4, 8, 8)), lambda n: _pair(n, (3, 4, 4), (4, 8, 8))),
    "ft_paper": (
        lambda: FT((3, 8, 8), (5, 4, 4), rate=0.7, attention=False),
        lambda n: _pair(n, (3, 8, 8), (5, 4, 4)),
    ),
    "dist": (lambda: DIST(beta=2.0, gamma=0.5, tau=3.0), lambda n: _pair(n, (5,), (5,))),
}


def _build(name: str, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return CASES[name][0]()


def _flat(args: Any) -> list[Tensor]:
    return [args] if isinstance(args, Tensor) else [x for arg in args for x in _flat(arg)]


def _apply(args: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The arguments with every floating-point tensor changed."""
    if isinstance(args, Tensor):
        return change(args) if args.is_floating_point() else args
    return type(args)(_apply(arg, change) for arg in args)


def _floats(args: Args) -> list[Tensor]:
    return [x for x in _flat(args) if x.is_floating_point()]


def _seeded(module: nn.Module, args: Args) -> Tensor:
    """module(*args) on a copy of it, with the random numbers of one seed: CRD draws, and all of them have state."""
    torch.manual_seed(7)
    loss: Tensor = module(*args)
    return loss


# Independent versions of the layers, in NumPy.


def _np(x: Any) -> Array:
    return x.detach().double().numpy()


def _conv(x: Array, weight: Array, bias: Array | None = None, *, stride: int = 1, padding: int = 0) -> Array:
    n, _, h, w = x.shape
    c_out, _, k_h, k_w = weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out_h, out_w = (h + 2 * padding - k_h) // stride + 1, (w + 2 * padding - k_w) // stride + 1
    out = np.zeros((n, c_out, out_h, out_w))
    for i, j in itertools.product(range(out_h), range(out_w)):
        window = padded[:, :, i * stride : i * stride + k_h, j * stride : j * stride + k_w]
        for o in range(c_out):
            out[:, o, i, j] = (window * weight[o]).sum(axis=(1, 2, 3)) + (0 if bias is None else bias[o])
    return out


def _conv_transposed(x: Array, weight: Array, bias: Array, *, stride: int = 1, padding: int = 0) -> Array:
    n, c_in, h, w = x.shape
    _, c_out, k_h, k_w = weight.shape
    out = np.zeros((n, c_out, (h - 1) * stride + k_h, (w - 1) * stride + k_w))
    for i, j, c in itertools.product(range(h), range(w), range(c_in)):
        patch = x[:, c, i, j][:, None, None, None] * weight[c][None]
        out[:, :, i * stride : i * stride + k_h, j * stride : j * stride + k_w] += patch
    out = out[:, :, padding : out.shape[2] - padding, padding : out.shape[3] - padding]
    return out + bias[None, :, None, None]


def _norm(x: Array, layer: Any) -> Array:
    """Batch normalisation with the statistics of the batch."""
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        standard = (values - values.mean()) / math.sqrt(((values - values.mean()) ** 2).mean() + layer.eps)
        if layer.weight is not None:
            standard = standard * layer.weight[c].item() + layer.bias[c].item()
        out[:, c] = standard
    return out


def _pool(x: Array, height: int, width: int) -> Array:
    n, c, h, w = x.shape
    out = np.zeros((n, c, height, width))
    for i, j in itertools.product(range(height), range(width)):
        rows = slice(i * h // height, -(-(i + 1) * h // height))
        columns = slice(j * w // width, -(-(j + 1) * w // width))
        out[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return out


def _pool_both(a: Array, b: Array) -> tuple[Array, Array]:
    size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return _pool(a, *size), _pool(b, *size)


def _nearest(x: Array, height: int, width: int) -> Array:
    rows = [i * x.shape[2] // height for i in range(height)]
    columns = [j * x.shape[3] // width for j in range(width)]
    return x[:, :, rows][:, :, :, columns]


def _randomise_norms(module: nn.Module) -> None:
    """Scales and shifts that are not 1 and 0, so that a test sees them."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)


# VID


def _loop_vid(mean: Array, target: Array, variance: Array, reduction: str) -> float:
    total = 0.0
    for index in np.ndindex(*mean.shape):
        sigma = math.sqrt(variance[index[1]])
        total += math.log(sigma) + (target[index] - mean[index]) ** 2 / (2 * sigma**2)
    return total / (mean.size if reduction == "mean" else mean.shape[0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (2, 3, 2, 5)])
def test_vid_loss_equals_loop(shape: tuple[int, ...], reduction: str) -> None:
    mean, target = _map(shape[0], shape[1:], 1), _map(shape[0], shape[1:], 2)
    variance = torch.rand(shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    want = _loop_vid(_np(mean), _np(target), _np(variance), reduction)
    assert vid_loss(mean, target, variance, reduction=reduction).item() == pytest.approx(want, rel=1e-12)
    closed = 0.5 * variance.log().sum().item() * math.prod(shape[2:])
    closed = closed / math.prod(shape[1:]) if reduction == "mean" else closed
    assert vid_loss(mean, mean, variance, reduction=reduction).item() == pytest.approx(closed, abs=1e-12)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("s", "t"), [((3, 4, 4), (2, 4, 4)), ((3, 8, 6), (4, 4, 3)), ((2, 2, 3), (3, 5, 4))])
def test_vid_equals_numpy(s: tuple[int, int, int], t: tuple[int, int, int], batch_norm: bool, reduction: str) -> None:
    torch.manual_seed(0)
    vid = VID(s, t, batch_norm=batch_norm, reduction=reduction, init_variance=1.5).double()
    nn.init.uniform_(vid.raw_variance)
    _randomise_norms(vid)
    student, teacher = _map(3, s, 1), _map(3, t, 2)
    x, y = _pool_both(_np(student), _np(teacher))
    layers = list(vid.regressor)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            x = _conv(x, _np(layer.weight), None if layer.bias is None else _np(layer.bias))
        elif isinstance(layer, nn.BatchNorm2d):
            x = _norm(x, layer)
        else:
            x = np.maximum(x, 0)
    kinds = [type(layer).__name__ for layer in layers]
    convs = ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"] if batch_norm else ["Conv2d", "ReLU"] * 2 + ["Conv2d"]
    assert kinds == convs
    variance = np.log1p(np.exp(_np(vid.raw_variance))) + 1e-5
    assert vid(student, teacher).item() == pytest.approx(_loop_vid(x, y, variance, reduction), rel=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (4, 6, 3), (5, 2, 7)])
def test_vid_logits_equals_numpy(n: int, d: int, k: int, reduction: str) -> None:
    torch.manual_seed(0)
    vid = VIDLogits(d, k, reduction=reduction).double()
    nn.init.uniform_(vid.raw_variance)
    z, logits = _map(n, (d,), 1), _map(n, (k,), 2)
    mean = _np(z) @ _np(vid.regressor.weight).T + _np(vid.regressor.bias)
    variance = np.log1p(np.exp(_np(vid.raw_variance))) + 1e-5
    want = _loop_vid(mean, _np(logits), variance, reduction)
    assert vid(z, logits).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("variance", [1e-3, 0.1, 5.0, 1e3])
def test_vid_starts_at_its_variance(variance: float) -> None:
    for vid in (VID((2, 1, 1), (3, 1, 1), init_variance=variance), VIDLogits(2, 3, init_variance=variance)):
        torch.testing.assert_close(vid.variance, torch.full((3,), variance), rtol=1e-4, atol=0)


# DIST


def _loop_pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    cross = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    square_a, square_b = sum((x - mean_a) ** 2 for x in a), sum((y - mean_b) ** 2 for y in b)
    return cross / math.sqrt(square_a * square_b) if square_a > 1e-30 and square_b > 1e-30 else 0.0


def _loop_dist(s: Array, t: Array, beta: float, gamma: float, tau: float) -> float:
    p_s, p_t = (np.exp(x / tau) / np.exp(x / tau).sum(axis=1, keepdims=True) for x in (s, t))
    rows = [1 - _loop_pearson(list(a), list(b)) for a, b in zip(p_s, p_t, strict=True)]
    columns = [1 - _loop_pearson(list(a), list(b)) for a, b in zip(p_s.T, p_t.T, strict=True)]
    return tau**2 * (beta * sum(rows) / len(rows) + gamma * sum(columns) / len(columns))


@pytest.mark.parametrize(("beta", "gamma", "tau"), [(1.0, 1.0, 1.0), (2.0, 0.0, 4.0), (0.0, 3.0, 0.5)])
@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 2), (7, 5), (16, 10)])
def test_dist_equals_loop(n: int, k: int, beta: float, gamma: float, tau: float) -> None:
    s, t = _map(n, (k,), 1), _map(n, (k,), 2)
    want = _loop_dist(_np(s), _np(t), beta, gamma, tau)
    assert dist_loss(s, t, beta=beta, gamma=gamma, tau=tau).item() == pytest.approx(want, rel=1e-10)
    assert DIST(beta=beta, gamma=gamma, tau=tau)(s, t).item() == pytest.approx(want, rel=1e-10)
    assert dist_loss(t, t).item() == pytest.approx(1.0 if n == 1 else 0.0, abs=1e-12)


def test_dist_of_constant_rows_and_columns() -> None:
    s, t = _map(6, (4,), 1), _map(6, (4,), 2)
    s[2] = 0.7
    want = _loop_dist(_np(s), _np(t), 1, 1, 1)
    for dtype in (torch.float64, torch.float32):
        x = s.to(dtype, copy=True).requires_grad_()
        loss = dist_loss(x, t.to(dtype))
        assert loss.item() == pytest.approx(want, abs=1e-5)
        loss.backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
    # All rows alike: every column is constant.
    x = s[:1].expand(6, 4).float().requires_grad_()
    loss = dist_loss(x, t.float(), beta=0.0)
    assert loss.item() == 1
    loss.backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_dist_counts_rare_classes() -> None:
    """A column of probabilities near 1e-7 still correlates; one near 1e-9 is dead."""
    s, t = _map(6, (4,), 1), _map(6, (4,), 2)
    for shift, live in ((-14.0, True), (-22.0, False)):
        rare = s.clone()
        rare[:, 0] += shift
        p_s, p_t = (np.exp(_np(x)) / np.exp(_np(x)).sum(axis=1, keepdims=True) for x in (rare, t))
        columns = [_loop_pearson(list(a), list(b)) for a, b in zip(p_s.T, p_t.T, strict=True)]
        want = 1 - (columns[0] * live + sum(columns[1:])) / 4
        assert abs(columns[0]) > 0.1
        assert dist_loss(rare, t, beta=0.0).item() == pytest.approx(want, abs=1e-6)


# SRD


@pytest.mark.parametrize("exponent", [1.0, 2.5, 4.0])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(2, 1, 1), (5, 3, 4), (9, 6, 6)])
def test_srd_equals_numpy(n: int, d_s: int, d_t: int, exponent: float) -> None:
    torch.manual_seed(0)
    srd = SRD(d_s, d_t, exponent=exponent).double()
    z_s, z_t = _map(n, (d_s,), 1), _map(n, (d_t,), 2)
    plain = nn.BatchNorm1d(d_t, eps=1e-4, affine=False)
    a, b = _norm(_np(z_s) @ _np(srd.projector.weight).T, plain), _norm(_np(z_t), plain)
    total = sum(abs(x - y) ** exponent for x, y in zip(a.ravel(), b.ravel(), strict=True))
    assert srd(z_s, z_t).item() == pytest.approx(math.log(total), rel=1e-10)
    assert srd_loss(torch.from_numpy(a), torch.from_numpy(b), exponent=exponent).item() == pytest.approx(
        math.log(total), rel=1e-12
    )
    assert set(srd.state_dict()) >= {"projector.weight", "norm_s.running_mean", "norm_t.running_var"}
    assert [name for name, _ in srd.named_parameters()] == ["projector.weight"]


def test_srd_of_equal_inputs_is_finite() -> None:
    z = _map(4, (3,), 0).float().requires_grad_()
    for exponent in (1.0, 4.0):
        for shift, live in ((0.0, False), (5e-5, False), (2e-4, True)):
            loss = srd_loss(z, z.detach() + shift, exponent=exponent)
            want = math.log(12) + exponent * math.log(max(shift, 1e-4))
            assert loss.item() == pytest.approx(want, abs=1e-2)
            (grad,) = torch.autograd.grad(loss, z)
            assert bool(grad.any()) == live
    assert srd_loss(z, z.detach(), exponent=20.0).item() == pytest.approx(-126 * math.log(2))


def test_srd_in_evaluation_uses_running_statistics() -> None:
    srd = SRD(3, 3)
    z_s, z_t = _map(4, (3,), 1).float(), _map(4, (3,), 2).float()
    for _ in range(200):
        srd(z_s, z_t)
    trained = srd(z_s, z_t).item()
    assert srd.eval()(z_s, z_t).item() == pytest.approx(trained, abs=0.8)
    assert srd(z_s[:1], z_t[:1]).isfinite()


# ICKD


def _loop_ickd(s: Array, t: Array) -> float:
    total = 0.0
    for a, b in zip(s, t, strict=True):
        rows = []
        for x in (a, b):
            gram = [[float((x[i] * x[j]).sum()) for j in range(len(x))] for i in range(len(x))]
            norms = [math.sqrt(sum(g * g for g in row)) for row in gram]
            rows.append([[g / norm if norm else 0.0 for g in row] for row, norm in zip(gram, norms, strict=True)])
        total += sum((x - y) ** 2 for p, q in zip(*rows, strict=True) for x, y in zip(p, q, strict=True))
    return total / (s.shape[0] * s.shape[1])


@pytest.mark.parametrize(("n", "c", "size_s", "size_t"), [(1, 1, 2, 2), (3, 4, 5, 5), (2, 6, 4, 3)])
def test_ickd_loss_equals_loop(n: int, c: int, size_s: int, size_t: int) -> None:
    s, t = _map(n, (c, size_s, size_s), 1), _map(n, (c, size_t, size_t), 2)
    want = _loop_ickd(_np(s), _np(t))
    assert ickd_loss(s, t).item() == pytest.approx(want, rel=1e-10, abs=1e-15)
    assert ickd_loss(1e-6 * s, 1e8 * t).item() == pytest.approx(want, rel=1e-10, abs=1e-15)
    assert ickd_loss((1e-6 * s).float(), (1e12 * t).float()).item() == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert ickd_loss(t, 3 * t).item() == pytest.approx(0, abs=1e-20)


def test_ickd_of_dead_channels() -> None:
    s, t = _map(3, (4, 2, 2), 1), _map(3, (4, 2, 2), 2)
    s[:, 1], t[:, 2], s[1] = 0, 0, 0
    assert ickd_loss(s, t).item() == pytest.approx(_loop_ickd(_np(s), _np(t)), rel=1e-12)


def test_ickd_equals_numpy() -> None:
    torch.manual_seed(0)
    ickd: Any = ICKD((3, 4, 4), (4, 2, 2)).double()
    _randomise_norms(ickd)
    s, t = _map(3, (3, 4, 4), 1), _map(3, (4, 2, 2), 2)
    embedded = _norm(_conv(_np(s), _np(ickd.embed[0].weight)), ickd.embed[1])
    assert ickd(s, t).item() == pytest.approx(_loop_ickd(embedded, _np(t)), rel=1e-10)
    assert {k: tuple(v.shape) for k, v in ICKD((4, 1, 1), (4, 2, 2)).named_parameters()} == {
        "embed.0.weight": (4, 4, 1, 1),
        "embed.1.weight": (4,),
        "embed.1.bias": (4,),
    }


# FSP


def _loop_fsp(a: Array, b: Array) -> Array:
    a, b = _pool_both(a, b)
    gram = np.zeros((a.shape[0], a.shape[1], b.shape[1]))
    for n, i, j in np.ndindex(*gram.shape):
        gram[n, i, j] = sum(x * y for x, y in zip(a[n, i].ravel(), b[n, j].ravel(), strict=True)) / a[0, 0].size
    return gram


@pytest.mark.parametrize(("s", "t"), [((2, 4, 4), (3, 4, 4)), ((3, 8, 6), (2, 4, 3)), ((1, 2, 3), (4, 5, 3))])
def test_fsp_matrix_equals_loop(s: tuple[int, int, int], t: tuple[int, int, int]) -> None:
    a, b = _map(3, s, 1), _map(3, t, 2)
    np.testing.assert_allclose(fsp_matrix(a, b).numpy(), _loop_fsp(_np(a), _np(b)), rtol=1e-10, atol=1e-14)


def test_fsp_equals_loop() -> None:
    fsp = _build("fsp")
    student, teacher = CASES["fsp"][1](3)
    want = 0.0
    for k in range(2):
        g_s = _loop_fsp(_np(student[k]), _np(student[k + 1]))
        g_t = _loop_fsp(_np(teacher[k]), _np(teacher[k + 1]))
        want += float(((g_s - g_t) ** 2).mean())
    assert fsp(student, teacher).item() == pytest.approx(want, rel=1e-12)
    equal = FSP([(2, 4, 4), (3, 2, 2)], [(2, 4, 4), (3, 2, 2)])
    maps = _maps(2, [(2, 4, 4), (3, 2, 2)], 5)
    assert equal(maps, maps).item() == 0
    assert not list(equal.parameters())


# AB


def _loop_ab(s: Array, t: Array, margin: float) -> float:
    total = 0.0
    for x, y in zip(s.ravel(), t.ravel(), strict=True):
        if y <= 0 and x > -margin:
            total += (x + margin) ** 2
        elif y > 0 and x <= margin:
            total += (x - margin) ** 2
    return total / s.shape[0]


@pytest.mark.parametrize("margin", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 4)])
def test_ab_loss_equals_loop(shape: tuple[int, int, int], margin: float) -> None:
    s, t = _map(4, shape, 1), _map(4, shape, 2)
    t[0] = 0
    assert ab_loss(s, t, margin=margin).item() == pytest.approx(_loop_ab(_np(s), _np(t), margin), rel=1e-12)
    on_its_side = torch.where(t > 0, margin + s.abs(), -margin - s.abs())
    assert ab_loss(on_its_side, t, margin=margin).item() == 0
    assert ab_loss(0 * s, t, margin=margin).item() == pytest.approx(margin**2 * math.prod(shape))


@pytest.mark.parametrize(
    ("s", "t", "kind"),
    [
        ((3, 4, 4), (3, 4, 4), "Identity"),
        ((2, 4, 4), (3, 4, 4), "Conv2d"),
        ((2, 8, 8), (3, 4, 4), "Conv2d"),
        ((2, 2, 2), (3, 4, 4), "ConvTranspose2d"),
        ((2, 5, 6), (3, 4, 4), "Conv2d"),
    ],
)
def test_ab_equals_numpy(s: tuple[int, int, int], t: tuple[int, int, int], kind: str) -> None:
    torch.manual_seed(0)
    ab = AB([s, (2, 2, 2), (2, 2, 2)], [t, (2, 2, 2), (2, 2, 2)]).double()
    _randomise_norms(ab)
    student, teacher = _maps(3, [s, (2, 2, 2), (2, 2, 2)], 1), _maps(3, [t, (2, 2, 2), (2, 2, 2)], 11)
    x = _np(student[0])
    connector: Any = ab.connectors[0]
    first = connector if kind == "Identity" else connector[0]
    assert type(first).__name__ == kind
    if kind == "Conv2d":
        halves = s[1] == 2 * t[1]
        x = _conv(x, _np(first.weight), _np(first.bias), stride=2 if halves else 1, padding=1 if halves else 0)
    elif kind == "ConvTranspose2d":
        x = _conv_transposed(x, _np(first.weight), _np(first.bias), stride=2, padding=1)
    if kind != "Identity":
        x = _norm(x, connector[1])
    want = _loop_ab(x, _np(teacher[0]), 1.0) / 4
    want += _loop_ab(_np(student[1]), _np(teacher[1]), 1.0) / 2 + _loop_ab(_np(student[2]), _np(teacher[2]), 1.0)
    assert ab(student, teacher).item() == pytest.approx(want, rel=1e-9)


# FT


def _loop_factor(s: Array, t: Array, attention: bool) -> float:
    s, t = _pool_both(s, t)
    total, count = 0.0, 0
    for a, b in zip(s, t, strict=True):
        flat = [(x**2).mean(axis=0).ravel() if attention else x.ravel() for x in (a, b)]
        norms = [math.sqrt(sum(x * x for x in f)) for f in flat]
        unit = [f / norm if norm else f for f, norm in zip(flat, norms, strict=True)]
        total += sum(abs(x - y) for x, y in zip(*unit, strict=True))
        count += len(unit[0])
    return total / count


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(("c", "s", "t"), [(1, 1, 1), (3, 4, 4), (4, 8, 4), (2, 3, 5)])
def test_factor_loss_equals_loop(c: int, s: int, t: int, attention: bool) -> None:
    a, b = _map(3, (c, s, s), 1), _map(3, (c, t, t), 2)
    want = _loop_factor(_np(a), _np(b), attention)
    assert factor_loss(a, b, attention=attention).item() == pytest.approx(want, rel=1e-10, abs=1e-15)
    assert factor_loss(2 * a, a, attention=attention).item() == pytest.approx(0, abs=1e-15)
    a[1] = 0
    want = _loop_factor(_np(a), _np(b), attention)
    assert factor_loss(a, b, attention=attention).item() == pytest.approx(want, rel=1e-10)


def _leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.1 * x)


def _run_blocks(x: Array, layers: Any) -> Array:
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            x = _conv_transposed(x, _np(layer.weight), _np(layer.bias), padding=1)
        elif isinstance(layer, nn.Conv2d):
            x = _conv(x, _np(layer.weight), _np(layer.bias), padding=1)
        elif isinstance(layer, nn.BatchNorm2d):
            x = _norm(x, layer)
        else:
            x = _leaky(x)
    return x


@pytest.mark.parametrize("name", ["ft", "ft_paper"])
def test_ft_equals_numpy(name: str) -> None:
    ft = _build(name).double()
    assert isinstance(ft, FT)
    _randomise_norms(ft)
    student, teacher = CASES[name][1](2)
    encoder, decoder = ft.paraphraser["encoder"], ft.paraphraser["decoder"]
    factor = _run_blocks(_np(teacher), encoder)
    assert factor.shape[1] == (2 if name == "ft" else 3)
    want = float(((_run_blocks(factor, decoder) - _np(teacher)) ** 2).mean())
    assert ft.paraphraser_loss(teacher).item() == pytest.approx(want, rel=1e-10)
    want = _loop_factor(_run_blocks(_np(student), ft.translator), factor, name == "ft")
    assert ft(student, teacher).item() == pytest.approx(want, rel=1e-9)


def test_ft_phases_train_their_own_parameters() -> None:
    ft = _build("ft").float()
    assert isinstance(ft, FT)
    student, teacher = (x.float().requires_grad_() for x in CASES["ft"][1](2))
    ft.paraphraser_loss(teacher.detach()).backward()
    assert all(p.grad is not None and p.grad.any() for p in ft.paraphraser.parameters())
    assert all(p.grad is None for p in ft.translator.parameters())
    ft.zero_grad()
    ft(student, teacher).backward()
    assert all(p.grad is None for p in ft.paraphraser.parameters())
    assert all(p.grad is not None for p in ft.translator.parameters())
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


def test_ft_paraphraser_learns() -> None:
    ft = _build("ft").float()
    assert isinstance(ft, FT)
    teacher = CASES["ft"][1](4)[1].float()
    optimiser = torch.optim.Adam(ft.paraphraser.parameters(), lr=0.01)
    before = ft.paraphraser_loss(teacher).item()
    for _ in range(60):
        optimiser.zero_grad()
        ft.paraphraser_loss(teacher).backward()
        optimiser.step()
    assert ft.paraphraser_loss(teacher).item() < 0.9 * before


# ReviewKD


def _loop_context(s: Array, t: Array) -> float:
    def mse(a: Array, b: Array) -> float:
        return sum((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / a.size

    terms, weights = [mse(s, t)], [1.0]
    for size in (4, 2, 1):
        if size < min(s.shape[2:]):
            terms.append(mse(_pool(s, size, size), _pool(t, size, size)))
            weights.append(weights[-1] / 2)
    return sum(w * x for w, x in zip(weights, terms, strict=True)) / sum(weights)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (5, 7), (8, 8)])
def test_hierarchical_context_equals_loop(size: tuple[int, int]) -> None:
    s, t = _map(2, (3, *size), 1), _map(2, (3, *size), 2)
    assert hierarchical_context_loss(s, t).item() == pytest.approx(_loop_context(_np(s), _np(t)), rel=1e-10)
    assert hierarchical_context_loss(t, t).item() == 0
    # A shift by a constant is the same at every scale.
    assert hierarchical_context_loss(t + 0.5, t).item() == pytest.approx(0.25)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def test_reviewkd_equals_numpy() -> None:
    torch.manual_seed(0)
    s_shapes, t_shapes = [(3, 8, 8), (4, 4, 4), (5, 1, 1)], [(4, 8, 8), (4, 6, 6), (3, 1, 1)]
    review = ReviewKD(s_shapes, t_shapes).double()
    _randomise_norms(review)
    student, teacher = _maps(3, s_shapes, 1), _maps(3, t_shapes, 11)
    want, residual = 0.0, None
    for k in (2, 1, 0):
        fusion: Any = review.fusions[k]
        x = _norm(_conv(_np(student[k]), _np(fusion.reduce[0].weight)), fusion.reduce[1])
        assert x.shape[1] == 5
        if residual is not None:
            y = _nearest(residual, *x.shape[2:])
            both = np.concatenate([x, y], axis=1)
            gates = _sigmoid(_conv(both, _np(fusion.attention.weight), _np(fusion.attention.bias)))
            x = gates[:, :1] * x + gates[:, 1:] * y
        residual = _nearest(x, *teacher[k].shape[2:])
        out = _norm(_conv(residual, _np(fusion.expand[0].weight), padding=1), fusion.expand[1])
        want += _loop_context(out, _np(teacher[k]))
    assert review(student, teacher).item() == pytest.approx(want, rel=1e-9)
    assert [f.attention is None for f in review.fusions] == [False, False, True]
    # Published: uniform within sqrt(3 / fan_in). PyTorch's own start is within sqrt(1 / fan_in).
    for fusion in ReviewKD([(64, 4, 4)], [(64, 4, 4)]).fusions:
        for block in (fusion.reduce, fusion.expand):
            limit = math.sqrt(3 / block[0].weight[0].numel())
            assert 0.95 * limit < block[0].weight.abs().max().item() <= limit
    assert ReviewKD([(600, 1, 1)], [(2, 1, 1)]).fusions[0].reduce[0].out_channels == 512


# CRD


def _crd_reference(v_s: Array, v_t: Array, banks: list[Array], samples: Array, z: list[float], t: float) -> Array:
    """h of eq. 19 for both directions, as (2, n, 1 + K)."""
    n, columns = samples.shape
    h = np.zeros((2, n, columns))
    for d, (v, bank) in enumerate(((v_s, banks[1]), (v_t, banks[0]))):
        for i, k in np.ndindex(n, columns):
            x = math.exp(float(v[i] @ bank[samples[i, k]]) / t) / z[d]
            h[d, i, k] = x / (x + (columns - 1) / len(bank))
    return h


@pytest.mark.parametrize(("n", "negatives", "temperature", "momentum"), [(4, 7, 0.07, 0.5), (1, 1, 1.0, 0.0)])
def test_crd_equals_loop_over_two_steps(n: int, negatives: int, temperature: float, momentum: float) -> None:
    torch.manual_seed(0)
    crd = CRD(6, 5, LABELS, embed_dim=8, num_negatives=negatives, temperature=temperature, momentum=momentum).double()
    z_s, z_t, indices = _bank_args(n)
    z: list[float] = []
    for step in range(2):
        if step:
            z_s, z_t, indices = z_s.flip(0) + 0.2, 2 * z_t - 1, (indices + 3) % len(LABELS)
        banks = [_np(crd.memory.bank_s).copy(), _np(crd.memory.bank_t).copy()]
        torch.manual_seed(step)
        drawn = crd.memory.draw(indices)
        torch.manual_seed(step)
        got = crd(z_s, z_t, indices)
        samples = np.concatenate([indices.numpy()[:, None], drawn.numpy()], axis=1)
        v = []
        for embed, x in ((crd.embed_s, z_s), (crd.embed_t, z_t)):
            rows = _np(x) @ _np(embed.linear.weight).T + _np(embed.linear.bias)
            v.append(np.stack([row / math.sqrt(float(row @ row)) for row in rows]))
        if not step:
            for a, bank in ((v[0], banks[1]), (v[1], banks[0])):
                scores = [math.exp(float(a[i] @ bank[j]) / temperature) for i in range(n) for j in samples[i]]
                z.append(sum(scores) / len(scores) * len(LABELS))
        h = _crd_reference(v[0], v[1], banks, samples, z, temperature)
        want = 0.0
        for d, i in np.ndindex(2, n):
            want -= (math.log(h[d, i, 0]) + sum(math.log(1 - x) for x in h[d, i, 1:])) / n
        assert got.item() == pytest.approx(want, rel=1e-10)
        np.testing.assert_allclose(np.exp(_np(crd.memory.log_z)), z, rtol=1e-10)
        for i, j in enumerate(indices.tolist()):
            for bank, a in zip(banks, v, strict=True):
                row = momentum * bank[j] + (1 - momentum) * a[i]
                bank[j] = row / math.sqrt(float(row @ row))
        np.testing.assert_allclose(_np(crd.memory.bank_s), banks[0], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(_np(crd.memory.bank_t), banks[1], rtol=1e-12, atol=1e-15)


def test_negatives_are_of_other_classes_and_uniform() -> None:
    torch.manual_seed(0)
    memory = ContrastMemory(LABELS, 4, num_negatives=13, temperature=0.07, momentum=0.5)
    labels, indices = LABELS, torch.arange(len(LABELS))
    draws = torch.cat([memory.draw(indices) for _ in range(300)], dim=1)
    assert draws.dtype == torch.int64
    for i, label in enumerate(LABELS.tolist()):
        others = torch.nonzero(labels != label)[:, 0]
        counts = draws[i].bincount(minlength=len(LABELS))
        assert not counts[labels == label].any()
        expected = draws.shape[1] / len(others)
        chi_square = ((counts[others] - expected) ** 2 / expected).sum().item()
        # 12 to 15 degrees of freedom; the 20 values' largest is below this with probability 0.999.
        assert chi_square < 45
    # An unused class number in between, and one class per sample.
    sparse = ContrastMemory(torch.tensor([5, 0, 9]), 2, num_negatives=2, temperature=1.0, momentum=0.0)
    assert {tuple(sorted(set(row))) for row in sparse.draw(torch.arange(3)).tolist()} <= {
        (0,), (1,), (2,), (0, 1), (0, 2), (1, 2),
    }  # fmt: skip
    assert all(i not in row for i, row in enumerate(sparse.draw(torch.arange(3)).tolist()))


def test_negatives_follow_the_global_random_state() -> None:
    memory = ContrastMemory(LABELS, 4, num_negatives=13, temperature=0.07, momentum=0.5)
    indices = torch.tensor([1, 2])
    torch.manual_seed(3)
    first, second = memory.draw(indices), memory.draw(indices)
    torch.manual_seed(3)
    assert torch.equal(memory.draw(indices), first)
    assert torch.equal(memory.draw(indices), second)
    assert not torch.equal(first, second)


def test_bank_writes_the_rows_of_the_batch_alone_and_keeps_them_unit() -> None:
    crd = _build("crd").float()
    assert isinstance(crd, CRD)
    z_s, z_t, indices = (x.float() if x.is_floating_point() else x for x in _bank_args())
    for bank in (crd.memory.bank_s, crd.memory.bank_t):
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(len(LABELS)))
    before = copy.deepcopy(crd.memory.state_dict())
    crd.eval()
    crd(z_s, z_t, indices)
    assert all(torch.equal(before[k], v) for k, v in crd.memory.state_dict().items())
    crd.train()
    for _ in range(30):
        crd(z_s, z_t, indices)
    others = [i for i in range(len(LABELS)) if i not in indices.tolist()]
    for name in ("bank_s", "bank_t"):
        bank = crd.memory.state_dict()[name]
        assert torch.equal(bank[others], before[name][others])
        assert not torch.isclose(bank[indices], before[name][indices]).all(dim=1).any()
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(len(LABELS)))
    torch.testing.assert_close(crd.memory.bank_s[indices], crd.embed_s(z_s), rtol=1e-4, atol=1e-5)
    assert crd.memory.started


def test_scores_against_the_whole_bank_are_not_kept_for_the_backward_pass() -> None:
    torch.manual_seed(0)
    memory = ContrastMemory(LABELS, 4, num_negatives=3, temperature=0.5, momentum=0.5)
    v_s, v_t = (nn.functional.normalize(torch.randn(16, 4)).requires_grad_() for _ in range(2))
    sizes: list[int] = []

    def keep(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        s, t = memory(v_s, v_t, torch.arange(16))
        (s.sum() + t.sum()).backward()
    assert len(LABELS) * 4 <= max(sizes) < 16 * len(LABELS)


def test_bank_rows_that_would_vanish_stay() -> None:
    torch.manual_seed(0)
    memory = ContrastMemory(LABELS, 4, num_negatives=3, temperature=0.5, momentum=0.5)
    indices = torch.tensor([2, 8])
    old_s, old_t = memory.bank_s[indices].clone(), memory.bank_t[indices].clone()
    # The student's rows are opposite to the stored ones, the teacher's are zero.
    memory(-old_s, 0 * old_t, indices)
    torch.testing.assert_close(memory.bank_s[indices], old_s)
    torch.testing.assert_close(memory.bank_t[indices], old_t)


@pytest.mark.parametrize("name", ["crd", "wcord"])
def test_banks_resume_exactly(name: str) -> None:
    module = _build(name).float()
    z_s, z_t, indices = (x.float() if x.is_floating_point() else x for x in _bank_args())

    def steps(m: nn.Module, count: int) -> list[float]:
        optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
        losses = []
        for i in range(count):
            optimiser.zero_grad()
            loss = m(z_s + i, z_t - i, (indices + i) % len(LABELS))
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    steps(module, 3)
    state = copy.deepcopy(module.state_dict())
    assert {"memory.bank_s", "memory.bank_t", "memory.log_z", "memory.started"} <= set(state)
    assert not {"memory.labels", "memory.order", "memory.start", "memory.count"} & set(state)
    torch.manual_seed(11)
    want = steps(module, 3)
    other = _build(name, seed=99).float()
    other.load_state_dict(state)
    torch.manual_seed(11)
    assert steps(other, 3) == want
    for key, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("name", ["crd", "wcord"])
def test_writing_the_bank_leaves_earlier_graphs_intact(name: str) -> None:
    module = _build(name).double()
    args = _apply(_bank_args(), lambda x: x.requires_grad_())
    twin = copy.deepcopy(module)
    (want,) = torch.autograd.grad(_seeded(twin, args), args[0])
    loss = _seeded(module, args)
    module(*_bank_args())
    (got,) = torch.autograd.grad(loss, args[0])
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert got.any()


def test_crd_finds_pairs() -> None:
    """Embeddings of two views of the same samples: the positives' odds rise above the negatives'."""
    torch.manual_seed(0)
    crd = CRD(6, 6, LABELS, embed_dim=4, num_negatives=10, temperature=0.2)
    z_t = torch.randn(len(LABELS), 6)
    z_s = z_t @ torch.randn(6, 6)
    optimiser = torch.optim.Adam(crd.parameters(), lr=0.02)
    indices = torch.arange(len(LABELS))
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = crd(z_s, z_t, indices)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# WCoRD


def _loop_sinkhorn(cost: Array, epsilon: float, iterations: int) -> Array:
    n, m = cost.shape
    kernel = np.exp(-cost / epsilon)
    u, v = np.ones(n), np.ones(m)
    for _ in range(iterations):
        for i in range(n):
            u[i] = (1 / n) / sum(kernel[i, j] * v[j] for j in range(m))
        for j in range(m):
            v[j] = (1 / m) / sum(kernel[i, j] * u[i] for i in range(n))
    return u[:, None] * kernel * v[None, :]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (6, 6)])
def test_sinkhorn_equals_loop(n: int, m: int) -> None:
    cost = _map(n, (m,), 3).abs()
    for iterations in (1, 7):
        want = _loop_sinkhorn(_np(cost), 0.3, iterations)
        np.testing.assert_allclose(sinkhorn(cost, epsilon=0.3, iterations=iterations).numpy(), want, rtol=1e-10)


def test_sinkhorn_marginals_converge() -> None:
    v_s, v_t = (nn.functional.normalize(_map(16, (8,), seed)) for seed in (1, 2))
    cost = 1 - v_s @ v_t.T
    errors = []
    for iterations in (1, 10, 50, 1000):
        plan = sinkhorn(cost, iterations=iterations)
        torch.testing.assert_close(plan.sum(dim=0), torch.full((16,), 1 / 16).double(), rtol=1e-12, atol=0)
        errors.append((plan.sum(dim=1) - 1 / 16).abs().max().item() * 16)
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.02
    assert errors[3] < 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sinkhorn_of_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    cost = (5 * _map(6, (6,), 3).abs()).to(dtype)
    # cost / epsilon reaches 1e5, beyond float16.
    for epsilon in (0.1, 1e-3, 1e-4):
        plan = sinkhorn(cost, epsilon=epsilon)
        assert plan.dtype == torch.float32
        want = sinkhorn(cost.float(), epsilon=epsilon)
        assert want.isfinite().all()
        torch.testing.assert_close(plan, want, rtol=0, atol=0)


def test_sinkhorn_nears_the_optimal_coupling() -> None:
    cost = _map(5, (5,), 4).abs()
    best = min(sum(cost[i, p[i]].item() for i in range(5)) / 5 for p in itertools.permutations(range(5)))
    plan = sinkhorn(cost, epsilon=0.005, iterations=2000)
    assert (plan * cost).sum().item() == pytest.approx(best, abs=1e-3)
    assert (sinkhorn(cost, epsilon=1.0, iterations=2000) * cost).sum().item() > best + 0.01


def test_sinkhorn_plan_is_the_gradient_of_the_regularised_distance() -> None:
    cost, epsilon, step = _map(4, (4,), 5).abs(), 0.2, 1e-5

    def distance(c: Tensor) -> float:
        plan = sinkhorn(c, epsilon=epsilon, iterations=500)
        return float((plan * c).sum() + epsilon * (plan * plan.log()).sum())

    plan = sinkhorn(cost, epsilon=epsilon, iterations=500)
    for i, j in itertools.product(range(4), range(4)):
        change = torch.zeros_like(cost)
        change[i, j] = step
        slope = (distance(cost + change) - distance(cost - change)) / (2 * step)
        assert slope == pytest.approx(plan[i, j].item(), abs=1e-8)


def test_wcord_equals_loop() -> None:
    wcord = _build("wcord").double()
    assert isinstance(wcord, WCoRD)
    args = _bank_args()
    for _ in range(3):
        wcord(*args)
    wcord.eval()  # The power iteration of the spectral norm rests.
    banks = [_np(wcord.memory.bank_s), _np(wcord.memory.bank_t)]
    torch.manual_seed(7)
    drawn = wcord.memory.draw(args[2])
    samples = np.concatenate([args[2].numpy()[:, None], drawn.numpy()], axis=1)
    v = []
    for embed, x in ((wcord.embed_s, args[0]), (wcord.embed_t, args[1])):
        rows = _np(x) @ _np(embed.linear.weight).T + _np(embed.linear.bias)
        v.append(np.stack([row / math.sqrt(float(row @ row)) for row in rows]))
    z = np.exp(_np(wcord.memory.log_z)).tolist()
    h = _crd_reference(v[0], v[1], banks, samples, z, 0.07)
    contrast = sum(h[d, i, 1:].sum() - h[d, i, 0] for d, i in np.ndindex(2, 4)) / 4
    cost = np.array([[1 - sum(a * b for a, b in zip(p, q, strict=True)) for q in v[1]] for p in v[0]])
    local = float((_loop_sinkhorn(cost, 0.1, 50) * cost).sum())
    torch.manual_seed(7)
    parts = wcord.parts(*args)
    assert parts["global"].item() == pytest.approx(0.8 * contrast, rel=1e-9)
    assert parts["local"].item() == pytest.approx(0.5 * local, rel=1e-9)
    assert _seeded(wcord, args).item() == pytest.approx(0.8 * contrast + 0.5 * local, rel=1e-9)


def test_wcord_divides_by_the_spectral_norm() -> None:
    wcord = _build("wcord").float()
    assert isinstance(wcord, WCoRD)
    nn.init.uniform_(wcord.embed_s.linear.parametrizations.weight.original, -3, 3)
    args = _apply(_bank_args(), lambda x: x.float())
    for _ in range(60):
        wcord(*args)
    for embed in (wcord.embed_s, wcord.embed_t):
        assert torch.linalg.matrix_norm(embed.linear.weight, 2).item() == pytest.approx(1, abs=1e-3)


def test_the_spectral_norm_of_wcord_acts_through_the_bias_alone() -> None:
    wcord = _build("wcord").double().eval()
    assert isinstance(wcord, WCoRD)
    z, _, _ = _bank_args()
    linear = wcord.embed_s.linear
    with torch.no_grad():
        weight = 5 * linear.parametrizations.weight.original
        assert not torch.allclose(wcord.embed_s(z), nn.functional.normalize(z @ weight.T + linear.bias), atol=1e-3)
        linear.bias.zero_()
        torch.testing.assert_close(wcord.embed_s(z), nn.functional.normalize(z @ weight.T))
    jacobian = torch.autograd.functional.jacobian(lambda x: wcord.embed_s(x[None])[0], 1e-3 * z[0])
    assert torch.linalg.matrix_norm(jacobian, 2) > 100


def test_wcord_skips_terms_with_beta_zero() -> None:
    args = _apply(_bank_args(), lambda x: x.float())
    kwargs: dict[str, Any] = {"embed_dim": 4, "num_negatives": 3}
    assert list(WCoRD(6, 5, LABELS, beta_local=0, **kwargs).parts(*args)) == ["global"]
    local = WCoRD(6, 5, LABELS, beta_global=0, **kwargs)
    before = local.memory.bank_s.clone()
    assert list(local.parts(*args)) == ["local"]
    assert torch.equal(local.memory.bank_s, before)
    assert WCoRD(6, 5, LABELS, beta_global=0, beta_local=0, **kwargs)(*args).item() == 0


def test_contrast_losses_of_known_odds() -> None:
    log_odds = torch.tensor([[math.log(3), 0.0, -math.log(4)]], dtype=torch.float64)  # h = 3/4, 1/2, 1/5
    assert crd_loss(log_odds).item() == pytest.approx(-math.log(0.75 * 0.5 * 0.8))
    assert global_contrast_loss(log_odds).item() == pytest.approx(0.5 + 0.2 - 0.75)
    sure = torch.tensor([[1e4, -1e4, -1e4]], requires_grad=True)
    for loss in (crd_loss(sure), crd_loss(-sure), global_contrast_loss(sure), global_contrast_loss(-sure)):
        (grad,) = torch.autograd.grad(loss, sure)
        assert loss.isfinite()
        assert grad.isfinite().all()


# What all of them share.


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    module = _build(name).double()
    if name in ("crd", "wcord"):
        module(*CASES[name][1](4))
        module.eval()  # No writing.
    if isinstance(module, WCoRD):
        module.beta_local = 0  # Its plan is a constant by intention: tested above.
    args = CASES[name][1](3)
    student = _flat(args[0])
    parameters = [p for p in module.parameters() if p.requires_grad]
    if isinstance(module, FT):
        parameters = list(module.translator.parameters())

    def loss(*inputs: Tensor) -> Tensor:
        first = list(inputs) if isinstance(args[0], list) else inputs[0]
        return _seeded(module, (first, *args[1:]))

    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in student], fast_mode=True)
    if parameters:
        value = loss(*student)
        weight = max(parameters, key=torch.numel)
        (grad,) = torch.autograd.grad(value, weight)
        direction = torch.randn_like(weight)
        with torch.no_grad():
            weight += 1e-6 * direction
            above = loss(*student).item()
            weight -= 2e-6 * direction
            below = loss(*student).item()
        assert (above - below) / 2e-6 == pytest.approx((grad * direction).sum().item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    module = _build(name)
    half = _apply(CASES[name][1](4), lambda x: x.to(dtype))
    want = _seeded(copy.deepcopy(module).double(), _apply(half, Tensor.double)).item()
    student = [x.requires_grad_() for x in _floats(half[:1])]
    loss = _seeded(module, half)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert loss.item() == pytest.approx(want, rel=1e-4, abs=1e-5)
    loss.backward()
    for x in student:
        assert x.grad is not None
        assert x.grad.dtype == dtype
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    module = _build(name)
    args = _apply(CASES[name][1](4), lambda x: x.to(dtype))
    want = _seeded(copy.deepcopy(module), args)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = _seeded(module, args)
    assert got.dtype == want.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_autocast_leaves_the_paraphraser_in_float32() -> None:
    ft, (_, teacher) = FT((3, 4, 4), (4, 8, 8)), _apply(CASES["ft"][1](2), Tensor.float)
    want = ft.paraphraser_loss(teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ft.paraphraser_loss(teacher), want, rtol=1e-6, atol=1e-7)


def _dead(x: Tensor, kind: str) -> Tensor:
    x = x.clone()
    if kind == "zero":
        return 0 * x
    if kind == "constant channel":
        x[:, 0] = 0.7
        x[:, -1] = 0
        return x
    if kind == "zero sample":
        x[0] = 0
        return x
    return torch.full_like(x, {"constant": -1.3, "tiny": 1e-20, "large": 1e4}[kind])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["zero", "constant channel", "zero sample", "constant", "tiny", "large"])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("name", CASES)
def test_dead_features_give_finite_losses_and_gradients(name: str, side: str, kind: str, dtype: torch.dtype) -> None:
    _check_dead_features(name, side, kind, dtype)


# Not "zero", "tiny" and "large": there true gradients can exceed float16 (batch normalisation of a constant map has a
# slope of 316, and FT's translator three of them).
@pytest.mark.parametrize("kind", ["constant channel", "zero sample", "constant"])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("name", CASES)
def test_dead_features_in_float16(name: str, side: str, kind: str) -> None:
    _check_dead_features(name, side, kind, torch.float16)


def _check_dead_features(name: str, side: str, kind: str, dtype: torch.dtype) -> None:
    module = _build(name)
    student, teacher, *rest = _apply(CASES[name][1](4), lambda x: x.to(dtype))
    if side != "teacher":
        student = _apply(student, lambda x: _dead(x, kind))
    if side != "student":
        teacher = _apply(teacher, lambda x: _dead(x, kind))
    inputs = [x.requires_grad_() for x in _flat(student)]
    loss = _seeded(module, (student, teacher, *rest))
    assert loss.isfinite()
    assert loss.requires_grad
    loss.backward()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_small_batches(name: str, n: int) -> None:
    module = _build(name)
    args = _apply(CASES[name][1](n), lambda x: x.float().requires_grad_())
    if n == 1 and name in ("srd", "srd_linear"):
        with pytest.raises(ValueError, match="z_s must have n >= 2 samples in training"):
            module(*args)
        return
    loss = _seeded(module, args)
    assert loss.isfinite()
    loss.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in _floats(args[:1]))


@pytest.mark.parametrize(
    ("module", "args"),
    [
        (VID((3, 1, 1), (2, 1, 1), batch_norm=True), (torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))),
        (ICKD((3, 1, 1), (2, 1, 1)), (torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))),
        (FT((3, 1, 1), (2, 1, 1)), (torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))),
        (AB([(3, 1, 1)], [(2, 1, 1)]), ([torch.zeros(1, 3, 1, 1)], [torch.zeros(1, 2, 1, 1)])),
        (ReviewKD([(3, 1, 1)], [(2, 1, 1)]), ([torch.zeros(1, 3, 1, 1)], [torch.zeros(1, 2, 1, 1)])),
    ],
)
def test_batch_normalisation_of_one_value_raises(module: nn.Module, args: Args) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        module(*args)


@pytest.mark.compiles
@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("vid_paper", "srd_linear", "srd_plain", "ft_paper")]
)
def test_compiles_without_a_graph_break(name: str) -> None:
    torch.compiler.reset()
    module = _build(name)
    twin = copy.deepcopy(module)
    args = _apply(CASES[name][1](4), lambda x: x.float().requires_grad_())
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    inputs = _floats(args[:1])
    for _ in range(2):  # Twice: the state of the first call is read by the second.
        want, got = _seeded(module, args), _seeded(compiled, args)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        pairs = zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(twin.state_dict().values(), module.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def _z(*shape: int) -> Tensor:
    return torch.zeros(*shape)


def _crd(**kwargs: Any) -> CRD:
    return CRD(6, 5, **{"labels": LABELS, "num_negatives": 4, **kwargs})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vid_loss(_z(2, 3), _z(2, 4), _z(3)), r"mean and target must share .*, got \(2, 3\) and \(2, 4\)"),
        (lambda: vid_loss(_z(2, 3), _z(2, 3), _z(2)), r"variance must be \(3,\), got \(2,\)"),
        (
            lambda: vid_loss(_z(2, 3), _z(2, 3), _z(3), reduction="max"),
            r'reduction must be "mean" or "sum", got \'max\'',
        ),
        (lambda: VID((3, 4), (3, 4, 4)), r"student_shape must be \(c, h, w\) with integers >= 1, got \(3, 4\)"),
        (lambda: VID((3, 4, 4), (0, 4, 4)), r"teacher_shape must be \(c, h, w\) .*, got \(0, 4, 4\)"),
        (lambda: VID((3, 4, 4), (3, 4, 4), init_variance=0), r"init_variance must be > 0 and finite, got 0"),
        (lambda: VID((3, 4, 4), (3, 4, 4), init_variance=1e-6), r"init_variance must be > 1e-05, got 1e-06"),
        (lambda: VID((3, 4, 4), (3, 4, 4), reduction="x"), r"reduction must be"),
        (lambda: VID((3, 4, 4), (2, 4, 4))(_z(2, 4, 4, 4), _z(2, 2, 4, 4)), r"student_map must be \(n, 3, h, w\)"),
        (lambda: VID((3, 4, 4), (2, 4, 4))(_z(2, 3, 4, 4), _z(2, 2, 4)), r"teacher_map must be \(n, 2, h, w\)"),
        (lambda: VID((3, 4, 4), (2, 4, 4))(_z(2, 3, 4, 4), _z(3, 2, 4, 4)), r"must share n, got 2 and 3"),
        (lambda: VIDLogits(0, 4), r"student_dim must be an integer >= 1, got 0"),
        (lambda: VIDLogits(4, 3)(_z(2, 4), _z(2, 4)), r"teacher_logits must be \(n, 3\) with n >= 1, got \(2, 4\)"),
        (lambda: VIDLogits(4, 3)(_z(2, 4), _z(3, 3)), r"must share \(n, k\), got \(2, 3\) and \(3, 3\)"),
        (lambda: dist_loss(_z(2, 3), _z(2, 4)), r"student and teacher must share \(n, k\)"),
        (lambda: DIST(beta=-1.0), r"beta must be >= 0 and finite, got -1.0"),
        (lambda: DIST(gamma=math.nan), r"gamma must be >= 0 and finite, got nan"),
        (lambda: DIST(tau=0.0), r"tau must be > 0 and finite, got 0.0"),
        (lambda: srd_loss(_z(2, 3), _z(2, 4)), r"z_s and z_t must share \(n, d\)"),
        (lambda: SRD(3, 4, exponent=0.5), r"exponent must be >= 1 and finite, got 0.5"),
        (lambda: SRD(3, 4, norm="layer"), r"norm must be one of none, l2, batch, got 'layer'"),  # type: ignore[arg-type]
        (lambda: SRD(3, 4, projector="deep"), r"projector must be one of linear, mlp, got 'deep'"),  # type: ignore[arg-type]
        (lambda: SRD(3, 4, form="l1"), r"form must be one of log_sum, l2, got 'l1'"),  # type: ignore[arg-type]
        (lambda: SRD(3, 0), r"teacher_dim must be an integer >= 1, got 0"),
        (lambda: SRD(3, 4)(_z(2, 4), _z(2, 4)), r"z_s must be \(n, 3\) with n >= 1, got \(2, 4\)"),
        (lambda: SRD(3, 4)(_z(2, 3), _z(3, 4)), r"must share \(n, d\), got \(2, 4\) and \(3, 4\)"),
        (lambda: ickd_loss(_z(2, 3, 4, 4), _z(2, 4, 4, 4)), r"student_map and teacher_map must share c, got 3 and 4"),
        (lambda: ICKD((3, 4, 4), (2, 4, 4))(_z(2, 3, 4, 4), _z(2, 3, 4, 4)), r"teacher_map must be \(n, 2, h, w\)"),
        (lambda: fsp_matrix(_z(2, 3, 4), _z(2, 3, 4, 4)), r"bottom must be \(n, c, h, w\)"),
        (lambda: FSP([(3, 4, 4)], [(3, 4, 4)]), r"same stages, at least 2, got 1 and 1"),
        (
            lambda: FSP([(3, 4, 4), (4, 2, 2)], [(3, 4, 4), (5, 2, 2)]),
            r"student_shapes\[1\] must have the teacher's 5 channels, got 4",
        ),
        (
            lambda: FSP([(3, 4, 4)] * 2, [(3, 4, 4)] * 2)([_z(2, 3, 4, 4)], [_z(2, 3, 4, 4)] * 2),
            r"student_maps must hold 2 stages, got 1",
        ),
        (lambda: ab_loss(_z(2, 3, 4, 4), _z(2, 3, 4, 2)), r"must share \(n, c, h, w\)"),
        (lambda: ab_loss(_z(2, 3, 4, 4), _z(2, 3, 4, 4), margin=0), r"margin must be > 0 and finite, got 0"),
        (
            lambda: AB([(3, 3, 3)], [(3, 4, 4)]),
            r"student_shapes\[0\] must be at least as large as, or half of, the teacher's \(4, 4\), got \(3, 3\)",
        ),
        (lambda: AB([(3, 4, 4)], []), r"must list the same stages, at least 1, got 1 and 0"),
        (
            lambda: AB([(3, 4, 4)], [(3, 4, 4)])([_z(2, 3, 4, 4)], [_z(2, 2, 4, 4)]),
            r"teacher_maps\[0\] must be \(n, 3, h, w\)",
        ),
        (
            lambda: FT((3, 4, 4), (1, 4, 4)),
            r"rate must be in \(0, 1\] and leave a factor channel of the teacher's 1, got 0.5",
        ),
        (lambda: FT((3, 4, 4), (4, 4, 4), rate=1.5), r"rate must be in \(0, 1\]"),
        (lambda: FT((3, 4, 4), (4, 4, 4)).paraphraser_loss(_z(2, 3, 4, 4)), r"teacher_map must be \(n, 4, h, w\)"),
        (lambda: FT((3, 4, 4), (4, 4, 4))(_z(2, 4, 4, 4), _z(2, 4, 4, 4)), r"student_map must be \(n, 3, h, w\)"),
        (
            lambda: factor_loss(_z(2, 3, 4, 4), _z(2, 4, 4, 4), attention=False),
            r"student_factor and teacher_factor must share c, got 3 and 4",
        ),
        (lambda: hierarchical_context_loss(_z(2, 3, 4, 4), _z(2, 3, 2, 2)), r"must share \(n, c, h, w\)"),
        (lambda: ReviewKD([], []), r"must list the same stages, at least 1, got 0 and 0"),
        (lambda: ReviewKD([(3, 4, 0)], [(3, 4, 4)]), r"student_shapes\[0\] must be \(c, h, w\)"),
        (
            lambda: ReviewKD([(3, 4, 4)], [(2, 4, 4)])([_z(2, 3, 4, 4)], [_z(2, 2, 4, 4)] * 2),
            r"teacher_maps must hold 1 stages, got 2",
        ),
        (lambda: crd_loss(_z(2, 1)), r"log_odds must be \(n, 1 \+ K\) with n, K >= 1, got \(2, 1\)"),
        (lambda: global_contrast_loss(_z(3)), r"log_odds must be \(n, 1 \+ K\)"),
        (lambda: CRD(0, 5, LABELS), r"student_dim must be an integer >= 1, got 0"),
        (lambda: CRD(6, 5, LABELS), r"num_negatives must be in \[1, 13\] .*, got 16384"),
        (lambda: _crd(num_negatives=14), r"num_negatives must be in \[1, 13\] .*, got 14"),
        (lambda: _crd(num_negatives=5.5), r"num_negatives must be an integer >= 1, got 5.5"),
        (lambda: _crd(num_negatives=0), r"num_negatives must be an integer >= 1, got 0"),
        (lambda: _crd(labels=LABELS.int()), r"labels must be \(num_samples,\) int64 .*, got \(20,\) torch.int32"),
        (lambda: _crd(labels=LABELS[:, None]), r"labels must be \(num_samples,\) int64"),
        (lambda: _crd(labels=LABELS - 1), r"labels must be \(num_samples,\) int64 >= 0"),
        (lambda: _crd(labels=0 * LABELS), r"labels must have at least 2 classes, got 1"),
        (lambda: _crd(embed_dim=8.0), r"embed_dim must be an integer >= 1, got 8.0"),
        (lambda: _crd(embed_dim=0), r"embed_dim must be an integer >= 1, got 0"),
        (lambda: _crd(temperature=0.0), r"temperature must be > 0 and finite, got 0.0"),
        (lambda: _crd(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: _crd()(_z(2, 5), _z(2, 5), LABELS[:2]), r"z_s must be \(n, 6\) with n >= 1, got \(2, 5\)"),
        (lambda: _crd()(_z(2, 6), _z(3, 5), LABELS[:2]), r"z_s and z_t must share n, got 2 and 3"),
        (lambda: _crd()(_z(2, 6), _z(2, 5), LABELS[:3]), r"indices must be \(2,\) int64, got \(3,\)"),
        (lambda: _crd()(_z(2, 6), _z(2, 5), LABELS[:2].float()), r"indices must be \(2,\) int64, got .* torch.float32"),
        (lambda: WCoRD(6, 5, LABELS), r"num_negatives must be in \[1, 13\]"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, beta_global=-1.0), r"beta_global must be >= 0"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, beta_local=math.inf), r"beta_local must be >= 0"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, epsilon=0.0), r"epsilon must be > 0"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, iterations=0), r"iterations must be an integer >= 1, got 0"),
        (
            lambda: WCoRD(6, 5, LABELS, num_negatives=4, iterations=50.0),  # type: ignore[arg-type]
            r"iterations must be an integer >= 1, got 50.0",
        ),
        (lambda: WCoRD(6, -1, LABELS, num_negatives=4), r"teacher_dim must be an integer >= 1, got -1"),
        (lambda: sinkhorn(_z(2, 2, 2)), r"cost must be 2-D"),
        (lambda: sinkhorn(_z(2, 2), iterations=0), r"iterations must be an integer >= 1, got 0"),
        (lambda: sinkhorn(_z(2, 2), epsilon=-1.0), r"epsilon must be > 0 and finite, got -1.0"),
    ],
)
def test_bad_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("index", [20, -1])
def test_index_beyond_the_bank_raises(index: int) -> None:
    for crd in (_crd(), _crd().eval()):
        with pytest.raises(IndexError):
            crd(_z(2, 6), _z(2, 5), torch.tensor([0, index]))

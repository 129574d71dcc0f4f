"""The classic distillers against NumPy loops, closed forms, invariances and inputs without information."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn_itrd.losses._scale import by_peak, unit
from bnn_itrd.losses.at import AT, at_loss
from bnn_itrd.losses.cc import CC, cc_consecutive_loss, cc_loss
from bnn_itrd.losses.dkd import DKD, dkd_loss
from bnn_itrd.losses.fitnet import FitNet, hint_loss
from bnn_itrd.losses.kd import soft_kl
from bnn_itrd.losses.nst import nst_loss
from bnn_itrd.losses.pkt import pkt_loss
from bnn_itrd.losses.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from bnn_itrd.losses.sp import sp_loss

Array = np.ndarray[Any, np.dtype[np.float64]]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]

MAPS: list[Shapes] = [
    ((1, 1, 1, 1), (1, 1, 1, 1)),
    ((2, 3, 4, 4), (2, 3, 4, 4)),
    ((3, 2, 6, 4), (3, 5, 3, 2)),
    ((4, 3, 2, 3), (4, 2, 5, 4)),
    ((3, 2, 5, 2), (3, 2, 3, 4)),
]
HINTS: list[Shapes] = [(s, (t[0], s[1], *t[2:])) for s, t in MAPS]
VECTORS: list[Shapes] = [((1, 3), (1, 4)), ((2, 1), (2, 3)), ((3, 5), (3, 5)), ((7, 4), (7, 6))]
EQUAL: list[Shapes] = [((1, 3), (1, 3)), ((2, 2), (2, 2)), ((5, 4), (5, 4)), ((8, 10), (8, 10))]


def _labels(logits: Tensor) -> Tensor:
    n, k = logits.shape
    return torch.arange(n) * 3 % k


# Independent versions: float64 loops that follow the papers' formulas.


def _rows(x: Array) -> list[list[float]]:
    rows: list[list[float]] = x.reshape(len(x), -1).tolist()
    return rows


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _normed(row: list[float]) -> list[float]:
    norm = math.sqrt(_dot(row, row))
    return [x / norm if norm else 0.0 for x in row]


def _pooled(x: Array, h: int, w: int) -> Array:
    """Adaptive average pooling: cell i of h averages the rows floor(i H / h) to ceil((i + 1) H / h)."""
    n, c, height, width = x.shape
    out = np.zeros((n, c, h, w))
    for i in range(h):
        for j in range(w):
            top, bottom = i * height // h, -(-(i + 1) * height // h)
            left, right = j * width // w, -(-(j + 1) * width // w)
            out[:, :, i, j] = x[:, :, top:bottom, left:right].mean(axis=(2, 3))
    return out


def _same_size(s: Array, t: Array) -> tuple[Array, Array]:
    h, w = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
    return _pooled(s, h, w), _pooled(t, h, w)


def _loop_at(s: Array, t: Array, p: float = 2.0) -> float:
    s, t = _same_size(s, t)
    n, _, h, w = s.shape
    total = 0.0
    for b in range(n):
        q_s, q_t = (
            _normed([sum(abs(v) ** p for v in x[b, :, i, j]) for i in range(h) for j in range(w)]) for x in (s, t)
        )
        total += sum((x - y) ** 2 for x, y in zip(q_s, q_t, strict=True))
    return total / (n * h * w)


def _loop_sp(s: Array, t: Array) -> float:
    n = len(s)
    grams = []
    for x in (s, t):
        rows = _rows(x)
        grams.append([_normed([_dot(a, b) for b in rows]) for a in rows])
    return sum((grams[0][i][j] - grams[1][i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def _loop_nst(s: Array, t: Array) -> float:
    s, t = _same_size(s, t)
    total = 0.0
    for b in range(len(s)):
        f_s, f_t = [_normed(row) for row in _rows(s[b])], [_normed(row) for row in _rows(t[b])]
        for sign, left, right in ((1, f_t, f_t), (1, f_s, f_s), (-2, f_s, f_t)):
            kernel = [_dot(x, y) ** 2 for x in left for y in right]
            total += sign * sum(kernel) / len(kernel)
    return total / len(s)


def _loop_hint(s: Array, t: Array) -> float:
    s, t = _same_size(s, t)
    return float(sum((x - y) ** 2 for x, y in zip(s.ravel(), t.ravel(), strict=True))) / s.size


def _loop_pkt(s: Array, t: Array) -> float:
    n = len(s)
    probabilities = []
    for x in (s, t):
        rows = [_normed(row) for row in _rows(x)]
        kernel = [[(_dot(a, b) + 1) / 2 for b in rows] for a in rows]
        probabilities.append([[k / sum(row) for k in row] for row in kernel])
    p_s, p_t = probabilities
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += p_t[i][j] * math.log((p_t[i][j] + 1e-7) / (p_s[i][j] + 1e-7))
    return total / n**2


def _huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def _loop_rkd_distance(s: Array, t: Array) -> float:
    n = len(s)
    distances = []
    for x in (s, t):
        d = [[math.dist(a, b) for b in x] for a in x]
        others = [d[i][j] for i in range(n) for j in range(n) if i != j]
        mu = sum(others) / len(others) if others else 1.0
        distances.append([[v / mu for v in row] for row in d])
    return sum(_huber(distances[0][i][j] - distances[1][i][j]) for i in range(n) for j in range(n)) / n**2


def _loop_rkd_angle(s: Array, t: Array) -> float:
    n = len(s)

    def cosine(x: Array, i: int, j: int, k: int) -> float:
        return _dot(_normed(list(x[i] - x[j])), _normed(list(x[k] - x[j])))

    triples = [(i, j, k) for i in range(n) for j in range(n) for k in range(n)]
    return sum(_huber(cosine(s, *ijk) - cosine(t, *ijk)) for ijk in triples) / n**3


def _loop_cc(s: Array, t: Array, gamma: float = 0.4, order: int = 2) -> float:
    n = len(s)
    rows_s, rows_t = ([_normed(row) for row in _rows(x)] for x in (s, t))

    def kernel(a: list[float], b: list[float]) -> float:
        terms = ((2 * gamma) ** p / math.factorial(p) * _dot(a, b) ** p for p in range(order + 1))
        return math.exp(-2 * gamma) * sum(terms)

    pairs = [(i, j) for i in range(n) for j in range(n)]
    return sum((kernel(rows_s[i], rows_s[j]) - kernel(rows_t[i], rows_t[j])) ** 2 for i, j in pairs) / n**2


def _loop_consecutive(s: Array, t: Array) -> float:
    n, d = s.shape
    products = (abs(s[i, f] - t[i, f]) * abs(s[i + 1, f] - t[i + 1, f]) for i in range(n - 1) for f in range(d))
    return float(sum(products)) / max(n - 1, 1)


def _loop_dkd(s: Array, t: Array, alpha: float = 1.0, beta: float = 8.0, tau: float = 4.0) -> float:
    total = 0.0
    for s_row, t_row, y in zip(s.tolist(), t.tolist(), _labels(torch.from_numpy(s)).tolist(), strict=True):
        exp_s, exp_t = [math.exp(x / tau) for x in s_row], [math.exp(x / tau) for x in t_row]
        p_s, p_t = [x / sum(exp_s) for x in exp_s], [x / sum(exp_t) for x in exp_t]
        total += alpha * p_t[y] * math.log(p_t[y] / p_s[y])
        total += alpha * (1 - p_t[y]) * math.log((1 - p_t[y]) / (1 - p_s[y]))
        for j in range(len(s_row)):
            if j != y:
                q_s, q_t = p_s[j] / (1 - p_s[y]), p_t[j] / (1 - p_t[y])
                total += beta * q_t * math.log(q_t / q_s)
    return tau * tau * total / len(s)


@dataclass(frozen=True)
class Case:
    loss: Callable[[Tensor, Tensor], Tensor]
    loop: Callable[[Array, Array], float]
    shapes: list[Shapes]

    @property
    def largest(self) -> Shapes:
        return self.shapes[-2]


CASES = {
    "at": Case(at_loss, _loop_at, MAPS),
    "at_p1": Case(lambda s, t: at_loss(s, t, p=1.0), lambda s, t: _loop_at(s, t, 1.0), MAPS),
    "at_p4": Case(AT(4.0), lambda s, t: _loop_at(s, t, 4.0), MAPS),
    "sp": Case(sp_loss, _loop_sp, MAPS),
    "sp_vectors": Case(sp_loss, _loop_sp, VECTORS),
    "nst": Case(nst_loss, _loop_nst, MAPS),
    "hint": Case(hint_loss, _loop_hint, HINTS),
    "pkt": Case(pkt_loss, _loop_pkt, VECTORS),
    "rkd_distance": Case(rkd_distance_loss, _loop_rkd_distance, VECTORS),
    "rkd_angle": Case(rkd_angle_loss, _loop_rkd_angle, VECTORS),
    "rkd": Case(RKD(), lambda s, t: 25 * _loop_rkd_distance(s, t) + 50 * _loop_rkd_angle(s, t), VECTORS),
    "cc": Case(cc_loss, _loop_cc, VECTORS),
    "cc_order_5": Case(lambda s, t: cc_loss(s, t, gamma=1.3, order=5), lambda s, t: _loop_cc(s, t, 1.3, 5), VECTORS),
    "cc_consecutive": Case(cc_consecutive_loss, _loop_consecutive, EQUAL),
    "dkd": Case(lambda s, t: dkd_loss(s, t, _labels(s)), _loop_dkd, EQUAL),
    "dkd_module": Case(
        lambda s, t: DKD(alpha=0.5, beta=2.0, tau=1.5)(s, t, _labels(s)),
        lambda s, t: _loop_dkd(s, t, 0.5, 2.0, 1.5),
        EQUAL,
    ),
}
LOSSES = [name for name in CASES if name not in ("at_p1", "cc_order_5", "dkd_module")]


def _pair(shapes: Shapes, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    s, t = rng.normal(-0.3, 0.8, shapes[0]), rng.normal(0.5, 2.0, shapes[1])
    return torch.from_numpy(s), torch.from_numpy(t)


def _grads(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("name", CASES)
def test_equals_loop(name: str) -> None:
    case = CASES[name]
    for seed, shapes in enumerate(case.shapes):
        s, t = _pair(shapes, seed)
        want = case.loop(s.numpy(), t.numpy())
        got = case.loss(s, t)
        assert got.shape == ()
        assert got.dtype == torch.float64
        assert got.item() == pytest.approx(want, rel=1e-11, abs=1e-13)
        assert case.loss(s.float(), t.float()).item() == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert want > 1e-4


@pytest.mark.parametrize("name", LOSSES)
def test_zero_where_student_is_teacher(name: str) -> None:
    s, _ = _pair(CASES[name].shapes[2])
    s.requires_grad_()
    loss = CASES[name].loss(s, s.detach())
    assert loss.item() == pytest.approx(0, abs=1e-12)
    # A minimum: no loss here is below 0.
    assert _grads(loss, s)[0].abs().max() < 1e-8


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    for shapes in CASES[name].shapes[1:3]:
        s, t = (x.requires_grad_() for x in _pair(shapes))
        assert torch.autograd.gradcheck(CASES[name].loss, (s, t))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    s, t = (x.to(dtype) for x in _pair(CASES[name].largest))
    want = CASES[name].loss(s.double(), t.double()).item()
    s.requires_grad_()
    loss = CASES[name].loss(s, t)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want, rel=1e-4, abs=1e-6)
    (grad,) = _grads(loss, s)
    assert grad.dtype == dtype
    assert grad.isfinite().all()
    assert grad.any()
    assert CASES[name].loss(s.detach().double(), t.float()).dtype == torch.float64


def _modules() -> dict[str, tuple[nn.Module, Shapes]]:
    torch.manual_seed(0)
    return {
        "fitnet": (FitNet((3, 6, 6), (5, 4, 4)), ((4, 3, 6, 6), (4, 5, 4, 4))),
        "fitnet_bn": (FitNet((3, 4, 4), (5, 4, 4), batch_norm=True), ((4, 3, 4, 4), (4, 5, 4, 4))),
        "cc_consecutive": (CC(3, 5, embed_dim=4), ((6, 3), (6, 5))),
        "cc_kernel": (CC(3, 5, embed_dim=4, form="kernel"), ((6, 3), (6, 5))),
    }


MODULES = ["fitnet", "fitnet_bn", "cc_consecutive", "cc_kernel"]


def _loss_and_pair(name: str) -> tuple[Callable[[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]:
    if name.startswith("module_"):
        module, shapes = _modules()[name.removeprefix("module_")]
        return module, _pair(shapes)
    return CASES[name].loss, _pair(CASES[name].largest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*LOSSES, *(f"module_{name}" for name in MODULES)])
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    loss_fn, pair = _loss_and_pair(name)
    s, t = (x.to(dtype).requires_grad_() for x in pair)
    want = loss_fn(s, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        got = loss_fn(s, t)
    got_grads = _grads(got, s, t)
    assert got.dtype == want.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
    for got_grad, want_grad in zip(got_grads, _grads(want, s, t), strict=True):
        torch.testing.assert_close(got_grad, want_grad)


@pytest.mark.compiles
@pytest.mark.parametrize("name", [*LOSSES, *(f"module_{name}" for name in MODULES)])
def test_compiles_without_a_graph_break(name: str) -> None:
    torch.compiler.reset()
    loss_fn, pair = _loss_and_pair(name)
    s, t = (x.float().requires_grad_() for x in pair)
    want = loss_fn(s, t)
    # Before the second forward pass: it updates the running statistics in place.
    want_grads = _grads(want, s, t)
    got = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")(s, t)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    for got_grad, want_grad in zip(_grads(got, s, t), want_grads, strict=True):
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-4, atol=1e-7)


def _dead(x: Tensor, how: str) -> Tensor:
    x = x.clone()
    if how == "zero sample":
        x[0] = 0
    elif how == "zero feature":
        x[:, 0] = 0
    elif how == "constant feature":
        x[:, 0] = 0.1
    elif how == "equal samples":
        x[:] = x[:1]
    elif how == "constant":
        x[:] = -1000.3
    elif how == "zero":
        x[:] = 0
    elif how == "tiny":
        x *= 1e-20
    elif how == "large":
        x *= 3e3
    elif how == "opposite samples":
        x[:] = x[:1] * torch.tensor([1.0, -1.0]).repeat(len(x))[: len(x)].reshape(-1, *[1] * (x.ndim - 1))
    else:
        raise AssertionError(how)
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "how",
    [
        "zero sample",
        "zero feature",
        "constant feature",
        "equal samples",
        "constant",
        "zero",
        "tiny",
        "large",
        "opposite samples",
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_inputs_without_information_are_finite_and_attached(name: str, how: str, dtype: torch.dtype) -> None:
    for i in range(3):
        shapes = CASES[name].shapes[i]
        live_s, live_t = (x.to(dtype) for x in _pair(shapes))
        for s, t in (
            (_dead(live_s, how), live_t),
            (live_s, _dead(live_t, how)),
            (_dead(live_s, how), _dead(live_t, how)),
        ):
            s, t = s.requires_grad_(), t.requires_grad_()
            loss = CASES[name].loss(s, t)
            assert loss.isfinite()
            for grad in _grads(loss, s, t):
                assert grad.isfinite().all()


def test_values_of_zero_maps() -> None:
    """A zero side has no attention map and no similarity: what remains is the other side's."""
    s, t = _pair(((3, 4, 2, 2), (3, 5, 2, 2)))
    assert at_loss(0 * s, t).item() == pytest.approx(1 / 4)
    assert sp_loss(0 * s, t).item() == pytest.approx(1 / 3)
    assert at_loss(0 * s, 0 * t).item() == sp_loss(0 * s, 0 * t).item() == nst_loss(0 * s, 0 * t).item() == 0
    assert nst_loss(0 * s, t).item() == pytest.approx(_loop_nst(0 * s.numpy(), t.numpy()))
    assert rkd_distance_loss(torch.ones(3, 2), torch.tensor([[0.0], [1], [2]])).item() == pytest.approx(
        (4 * 0.75**2 / 2 + 2 * 1) / 9
    )


# Closed forms.


def test_attention_in_different_places() -> None:
    s, t = torch.zeros(2, 3, 2, 2), torch.zeros(2, 4, 2, 2)
    s[:, :, 0, 0], t[:, 1, 1, 0] = 0.5, -3
    assert at_loss(s, t).item() == pytest.approx(2 / 4)
    t[:, 2, 0, 0] = 3
    assert at_loss(s, t).item() == pytest.approx((2 - 2 / math.sqrt(2)) / 4)


def test_similarities_of_equal_and_of_orthogonal_samples() -> None:
    n = 6
    assert sp_loss(torch.ones(n, 2, 3, 3), torch.eye(n)).item() == pytest.approx((2 - 2 / math.sqrt(n)) / n)


def test_kernels_of_equal_and_of_disjoint_channels() -> None:
    s, t = torch.zeros(2, 2, 2, 2), torch.zeros(2, 2, 2, 2)
    s[:, :, 0, 0] = 2
    t[:, 0, 0, 1] = t[:, 1, 1, 0] = 5
    # Equal channels: k = 1; two orthogonal ones: 1/2 on average; between the sides: 0.
    assert nst_loss(s, t).item() == pytest.approx(1.5)
    t[:, 0, 0, 1], t[:, 0, 0, 0] = 0, -5
    assert nst_loss(s, t).item() == pytest.approx(1 + 0.5 - 2 * 0.5)


def test_neighbours_of_equal_and_of_orthogonal_samples() -> None:
    n = 4
    total = 1 + (n - 1) / 2
    p_self, p_other = 1 / total, 0.5 / total
    want = (p_self * math.log(p_self * n) + (n - 1) * p_other * math.log(p_other * n)) / n
    assert pkt_loss(torch.ones(n, 3), torch.eye(n)).item() == pytest.approx(want, rel=1e-5)


def test_opposite_samples_round_to_no_neighbours() -> None:
    """In float32 the cosine of some of these pairs is below -1 by more than eps makes up for."""
    torch.manual_seed(0)
    for row in torch.randn(100, 2):
        z = torch.stack([row, -row]).requires_grad_()
        # The teacher spreads 1 and 1/2 over the row, the student 1 and 0.
        loss = pkt_loss(z, torch.eye(2))
        want = (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3 / 1e-7)) / 2
        # Above -1 the rounding counts too: up to 1e-7, as much as eps.
        assert loss.item() == pytest.approx(want, abs=0.35)
        assert _grads(loss, z)[0].isfinite().all()


def test_triangle_and_line() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0]])
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    # Distances over their mean: 3/4, 3/4, 3/2 on the line, 1 in the triangle.
    want = 2 * (2 * 0.25**2 / 2 + 0.5**2 / 2) / 9
    assert rkd_distance_loss(line, triangle).item() == pytest.approx(want, rel=1e-5)
    # Cosines: 1 at both ends and -1 in the middle of the line, 1/2 in the triangle; each angle counts twice.
    want = 2 * (2 * 0.5**2 / 2 + (1.5 - 0.5)) / 27
    assert rkd_angle_loss(line, triangle).item() == pytest.approx(want, rel=1e-5)


def test_high_order_kernel_is_gaussian() -> None:
    s, t = _pair(((5, 3), (5, 4)))
    kernels = []
    for z in (s, t):
        x = z / z.norm(dim=1, keepdim=True)
        kernels.append(torch.exp(-0.4 * torch.cdist(x, x).square()))
    want = (kernels[0] - kernels[1]).square().mean().item()
    assert cc_loss(s, t, order=20).item() == pytest.approx(want, rel=1e-9)
    assert cc_loss(s, t).item() == pytest.approx(want, rel=0.3)


def test_dkd_decouples_kd() -> None:
    s, t = _pair(((1, 7), (1, 7)))
    for tau in (1.0, 4.0):
        for y in range(7):
            p = (t / tau).softmax(1)[0, y].item()
            got = dkd_loss(s, t, torch.tensor([y]), alpha=1, beta=1 - p, tau=tau).item()
            assert got == pytest.approx(soft_kl(s, t, tau=tau).item(), rel=1e-10)


def test_dkd_reads_the_labels() -> None:
    s, t = _pair(((6, 5), (6, 5)))
    label = _labels(s)
    assert dkd_loss(s, t, label).item() != pytest.approx(dkd_loss(s, t, (label + 1) % 5).item(), rel=1e-3)
    # Two classes: there is one other class, so the second term is 0.
    s, t = _pair(((4, 2), (4, 2)))
    label = torch.tensor([0, 1, 1, 0])
    assert dkd_loss(s, t, label, beta=8).item() == pytest.approx(dkd_loss(s, t, label, beta=0).item())
    assert dkd_loss(s, t, label, beta=0).item() == pytest.approx(soft_kl(s, t).item())
    assert dkd_loss(s, t, label, alpha=0).item() == pytest.approx(0, abs=1e-12)


def test_dkd_of_large_logits() -> None:
    """The published mask of -1000 would leave the target among the other classes."""
    s = torch.tensor([[5000.0, 1.0, 0.0]], requires_grad=True)
    t = torch.tensor([[5000.0, 0.0, 1.0]])
    loss = dkd_loss(s, t, torch.tensor([0]), beta=1.0, tau=1.0)
    assert loss.item() == pytest.approx((math.e - 1) / (math.e + 1), rel=1e-5)
    assert _grads(loss, s)[0].isfinite().all()


def test_consecutive_form_ignores_every_second_sample() -> None:
    s, t = _pair(((5, 3), (5, 3)))
    t[1::2] = s[1::2]
    assert cc_consecutive_loss(s, t).item() == 0


# Invariances.

PERMUTABLE = [name for name in LOSSES if not name.startswith(("cc_consecutive", "dkd"))]


@pytest.mark.parametrize("name", PERMUTABLE)
def test_order_of_samples_does_not_matter(name: str) -> None:
    s, t = _pair(CASES[name].largest)
    order = torch.roll(torch.arange(len(s)), 1)
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s[order], t[order]).item() == pytest.approx(base, rel=1e-10)
    assert CASES[name].loss(s[order], t).item() != pytest.approx(base, rel=1e-4)


def test_order_of_samples_of_dkd_and_of_the_consecutive_form() -> None:
    s, t = _pair(EQUAL[-1])
    order = torch.tensor([3, 0, 7, 1, 5, 2, 6, 4])
    got = dkd_loss(s[order], t[order], _labels(s)[order])
    assert got.item() == pytest.approx(dkd_loss(s, t, _labels(s)).item(), rel=1e-10)
    base = cc_consecutive_loss(s, t).item()
    assert cc_consecutive_loss(s[order], t[order]).item() != pytest.approx(base, rel=1e-3)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 1e6])
@pytest.mark.parametrize("name", ["at", "at_p4", "sp", "sp_vectors", "nst", "pkt", "rkd", "cc"])
def test_scale_does_not_matter(name: str, factor: float) -> None:
    s, t = _pair(CASES[name].largest)
    base = CASES[name].loss(s, t).item()
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        got_s = CASES[name].loss((factor * s).to(dtype), t.to(dtype)).item()
        got_t = CASES[name].loss(s.to(dtype), (factor * t).to(dtype)).item()
        assert got_s == pytest.approx(base, rel=tolerance)
        assert got_t == pytest.approx(base, rel=tolerance)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_shift_of_all_samples_does_not_matter(name: str) -> None:
    s, t = _pair(CASES[name].largest)
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s + torch.arange(s.shape[1]), t - 5).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize(
    ("name", "axes"), [("at", (0,)), ("at_p4", (0,)), ("nst", (0, 1)), ("pkt", (0,)), ("cc", (0,))]
)
def test_scale_of_a_sample_or_channel_does_not_matter(name: str, axes: tuple[int, ...]) -> None:
    s, t = _pair(CASES[name].largest)
    shape = [size if axis in axes else 1 for axis, size in enumerate(s.shape)]
    factors = 10.0 ** torch.linspace(-3, 3, math.prod(shape)).reshape(shape)
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s * factors, t).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize("name", ["sp", "sp_vectors", "rkd", "hint", "cc_consecutive"])
def test_scale_of_a_sample_matters_elsewhere(name: str) -> None:
    s, t = _pair(CASES[name].largest)
    base = CASES[name].loss(s, t).item()
    s[0] *= 3
    assert CASES[name].loss(s, t).item() != pytest.approx(base, rel=1e-3)


@pytest.mark.parametrize("name", ["at", "nst", "sp"])
def test_order_of_channels_does_not_matter(name: str) -> None:
    s, t = _pair(((3, 4, 3, 3), (3, 4, 3, 3)))
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s.flip(1), t).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize("name", ["at", "nst"])
def test_order_of_positions_matters_to_spatial_losses(name: str) -> None:
    s, t = _pair(((3, 4, 3, 3), (3, 4, 3, 3)))
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s.flip(2), t).item() != pytest.approx(base, rel=1e-3)
    assert CASES[name].loss(s.flip(2), t.flip(2)).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize("name", ["sp_vectors", "pkt", "rkd", "cc"])
def test_rotation_of_the_features_does_not_matter(name: str) -> None:
    s, t = _pair(((6, 4), (6, 4)))
    rotation, _ = torch.linalg.qr(torch.from_numpy(np.random.default_rng(1).normal(size=(4, 4))))
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s @ rotation, t).item() == pytest.approx(base, rel=1e-10)
    # As where the student is a rotated teacher.
    assert CASES[name].loss(t @ rotation, t).item() == pytest.approx(0, abs=1e-10)


def test_near_neighbours_keep_their_directions_in_float32() -> None:
    """Differences through the Gram matrix would lose them: 1e-4 of 1 squared is below its rounding."""
    s = torch.tensor([[1.0, 1.0], [1.0, 1.0001], [1.0001, 1.0], [0.5, -1.0]])
    _, t = _pair(((4, 2), (4, 3)))
    for loss, loop in ((rkd_distance_loss, _loop_rkd_distance), (rkd_angle_loss, _loop_rkd_angle)):
        assert loss(s, t.float()).item() == pytest.approx(loop(s.double().numpy(), t.numpy()), rel=1e-5)


# The modules.


def _conv1x1(x: Array, weight: Array, bias: Array | None) -> Array:
    n, _, h, w = x.shape
    out = np.zeros((n, len(weight), h, w))
    for b in range(n):
        for o in range(len(weight)):
            for i in range(h):
                for j in range(w):
                    out[b, o, i, j] = float(weight[o, :, 0, 0] @ x[b, :, i, j]) + (0.0 if bias is None else bias[o])
    return out


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("shape_s", "shape_t"), [((3, 4, 4), (5, 4, 4)), ((2, 6, 4), (3, 3, 2)), ((3, 2, 3), (3, 4, 5))]
)
def test_fitnet_equals_loop(shape_s: tuple[int, int, int], shape_t: tuple[int, int, int], batch_norm: bool) -> None:
    torch.manual_seed(0)
    fitnet = FitNet(shape_s, shape_t, batch_norm=batch_norm).double()
    s, t = _pair(((4, *shape_s), (4, *shape_t)))
    small_s, small_t = _same_size(s.numpy(), t.numpy())
    conv = fitnet.regressor[0]
    assert isinstance(conv, nn.Conv2d)
    assert (conv.bias is None) == batch_norm
    weight = conv.weight.detach().numpy()
    mean = _conv1x1(small_s, weight, None if conv.bias is None else conv.bias.detach().numpy())
    if batch_norm:
        for c in range(mean.shape[1]):
            channel = mean[:, c]
            mean[:, c] = np.maximum((channel - channel.mean()) / np.sqrt(channel.var() + 1e-5), 0)
    assert fitnet(s, t).item() == pytest.approx(_loop_hint(mean, small_t), rel=1e-10)


@pytest.mark.parametrize("name", MODULES)
def test_modules_gradcheck_and_train_their_parameters(name: str) -> None:
    module, shapes = _modules()[name]
    module = module.double()
    s, t = _pair(shapes)
    assert torch.autograd.gradcheck(module, (s.requires_grad_(), t))
    module(s, t).backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


@pytest.mark.parametrize("form", ["consecutive", "kernel"])
def test_cc_equals_loop(form: str) -> None:
    torch.manual_seed(0)
    cc = CC(3, 5, embed_dim=4, form=form).double()
    s, t = _pair(((6, 3), (6, 5)))
    embedded_s, embedded_t = (
        x.numpy() @ embed.weight.detach().numpy().T + embed.bias.detach().numpy()
        for x, embed in ((s, cc.embed_s), (t, cc.embed_t))
    )
    loop = _loop_cc if form == "kernel" else _loop_consecutive
    assert cc(s, t).item() == pytest.approx(loop(embedded_s, embedded_t), rel=1e-10)
    assert CC(3, 5).embed_s.out_features == CC(3, 5).embed_t.out_features == 128
    assert CC(3, 5).form == "consecutive"


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("how", ["constant feature", "constant", "zero", "equal samples"])
def test_modules_of_inputs_without_information(name: str, n: int, how: str) -> None:
    module, shapes = _modules()[name]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        s, t = (x.to(dtype) for x in _pair(((n, *shapes[0][1:]), (n, *shapes[1][1:]))))
        s, t = _dead(s, how).requires_grad_(), _dead(t, how)
        loss = module(s, t)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        for grad in _grads(loss, s, *module.parameters()):
            assert grad.isfinite().all()


def test_rkd_skips_a_factor_of_zero() -> None:
    s, t = _pair(((5, 3), (5, 4)))
    assert RKD(angle=0)(s, t).item() == pytest.approx(25 * rkd_distance_loss(s, t).item())
    assert RKD(distance=0)(s, t).item() == pytest.approx(50 * rkd_angle_loss(s, t).item())
    assert RKD(distance=0, angle=0)(s, t).item() == 0


def test_module_defaults_are_the_published_ones() -> None:
    assert (DKD().alpha, DKD().beta, DKD().tau) == (1, 8, 4)
    assert AT().p == 2
    s, t = _pair(((3, 2, 4, 4), (3, 5, 4, 4)))
    assert AT()(s, t).item() == at_loss(s, t).item()
    s, t = _pair(((3, 4), (3, 4)))
    assert DKD()(s, t, _labels(s)).item() == dkd_loss(s, t, _labels(s)).item()
    assert repr(DKD()) == "DKD(alpha=1.0, beta=8.0, tau=4.0)"
    assert repr(RKD()) == "RKD(distance=25.0, angle=50.0)"


# The scaling they share.


def test_unit_rows() -> None:
    x = torch.tensor([[3.0, -4.0], [0.0, 0.0], [3e-30, 4e-30], [3e30, 4e30], [0.0, 7.0], [1e-6, 0.0]])
    want = torch.tensor([[0.6, -0.8], [0, 0], [0, 0], [0.6, 0.8], [0, 1], [1, 0]])
    x.requires_grad_()
    torch.testing.assert_close(unit(x), want)
    (grad,) = _grads((unit(x) * torch.tensor([1.0, 2.0])).sum(), x)
    assert grad.isfinite().all()
    assert not grad[1:3].any()
    # d/dx of (x + 2 y) / |(x, y)| at (3, -4): (y^2 - 2 x y, 2 x^2 - x y) / 125.
    torch.testing.assert_close(grad[0], torch.tensor([(16 + 24) / 125, (18 + 12) / 125]))
    torch.testing.assert_close(grad[4], torch.tensor([1 / 7, 0]))


def test_by_peak() -> None:
    x = torch.tensor([[2.0, -8.0], [1e-9, 0.0]])
    torch.testing.assert_close(by_peak(x), torch.tensor([[0.25, -1.0], [0, 0]]))
    torch.testing.assert_close(by_peak(x, (0, 1)), x / 8)


def _z(*shape: int) -> Tensor:
    return torch.zeros(*shape)


MAP_LOSSES = [at_loss, nst_loss]
VECTOR_LOSSES = [pkt_loss, rkd_distance_loss, rkd_angle_loss, RKD(), cc_loss]


@pytest.mark.parametrize("loss", MAP_LOSSES)
def test_bad_maps(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    for s, t, message in (
        (_z(2, 3, 4), _z(2, 3, 4, 4), r"student_map must be \(n, c, h, w\) .*, got \(2, 3, 4\)"),
        (_z(2, 3, 4, 4), _z(2, 3), r"teacher_map must be \(n, c, h, w\) .*, got \(2, 3\)"),
        (_z(2, 3, 4, 4), _z(3, 3, 4, 4), r"student_map and teacher_map must share n, got 2 and 3"),
        (_z(2, 0, 4, 4), _z(2, 3, 4, 4), r"student_map must be .* without an empty axis, got \(2, 0, 4, 4\)"),
        (_z(2, 3, 4, 4).to(torch.cfloat), _z(2, 3, 4, 4), r"student_map must be real, got torch.complex64"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(s, t)


@pytest.mark.parametrize("loss", VECTOR_LOSSES)
def test_bad_representations(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    for s, t, message in (
        (_z(8), _z(8, 3), r"z_s must be 2-D without an empty axis, got shape \(8,\)"),
        (_z(8, 3), _z(8, 3, 1), r"z_t must be 2-D .*, got shape \(8, 3, 1\)"),
        (_z(8, 3), _z(7, 3), r"z_s and z_t must share n, got \(8, 3\) and \(7, 3\)"),
        (_z(0, 3), _z(0, 3), r"z_s must be 2-D without an empty axis, got shape \(0, 3\)"),
        (_z(8, 3), _z(8, 3).to(torch.cfloat), r"z_t must be real, got torch.complex64"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(s, t)


_LABELS = torch.zeros(8, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: at_loss(_z(2, 3, 4, 4), _z(2, 3, 4, 4), p=0.5), r"p must be >= 1 and finite, got 0.5"),
        (lambda: AT(math.inf), r"p must be >= 1 and finite, got inf"),
        (lambda: AT(math.nan), r"p must be >= 1 and finite, got nan"),
        (lambda: sp_loss(_z(8), _z(8, 3)), r"student must be real and \(n, ...\) .* of shape \(8,\)"),
        (lambda: sp_loss(_z(8, 3), _z(8, 0)), r"teacher must be real .* empty axis, .* of shape \(8, 0\)"),
        (lambda: sp_loss(_z(8, 3), _z(7, 3)), r"student and teacher must share n, got 8 and 7"),
        (lambda: sp_loss(_z(8, 3).to(torch.cfloat), _z(8, 3)), r"student must be real .* got torch.complex64"),
        (lambda: hint_loss(_z(2, 3, 4), _z(2, 3, 4, 4)), r"guided must be \(n, c, h, w\) .*, got \(2, 3, 4\)"),
        (lambda: hint_loss(_z(2, 3, 4, 4), _z(2, 5, 4, 4)), r"guided and hint must share c, got 3 and 5"),
        (lambda: hint_loss(_z(2, 3, 4, 4), _z(1, 3, 4, 4)), r"guided and hint must share n, got 2 and 1"),
        (lambda: FitNet((3, 4), (5, 4, 4)), r"student_shape must be \(c, h, w\) with integers >= 1, got \(3, 4\)"),
        (lambda: FitNet((3, 4, 4), (0, 4, 4)), r"teacher_shape must be \(c, h, w\) .*, got \(0, 4, 4\)"),
        (
            lambda: FitNet((3, 4, 4), (5, 4, 4))(_z(2, 4, 4, 4), _z(2, 5, 4, 4)),
            r"student_map must be \(n, 3, h, w\) .*, got \(2, 4, 4, 4\)",
        ),
        (
            lambda: FitNet((3, 4, 4), (5, 4, 4))(_z(2, 3, 4, 4), _z(2, 3, 4, 4)),
            r"teacher_map must be \(n, 5, h, w\) .*, got \(2, 3, 4, 4\)",
        ),
        (lambda: dkd_loss(_z(8, 4), _z(8, 5), _LABELS), r"student and teacher must share \(n, k\), got \(8, 4\)"),
        (lambda: dkd_loss(_z(8, 1), _z(8, 1), _LABELS), r"student must have k >= 2 classes, got shape \(8, 1\)"),
        (lambda: dkd_loss(_z(8), _z(8, 4), _LABELS), r"student must be 2-D .*, got shape \(8,\)"),
        (lambda: dkd_loss(_z(7, 4), _z(7, 4), _LABELS), r"labels must be int64 of shape \(7,\), .* \(8,\)"),
        (lambda: dkd_loss(_z(8, 4), _z(8, 4), _LABELS.float()), r"labels must be int64 .*, got torch.float32"),
        (lambda: dkd_loss(_z(8, 4), _z(8, 4), _LABELS[:, None]), r"labels must be int64 .* of shape \(8, 1\)"),
        (lambda: dkd_loss(_z(8, 4), _z(8, 4), _LABELS, tau=0.0), r"tau must be > 0 and finite, got 0.0"),
        (lambda: DKD(alpha=-1.0), r"alpha must be >= 0 and finite, got -1.0"),
        (lambda: DKD(beta=math.inf), r"beta must be >= 0 and finite, got inf"),
        (lambda: DKD(tau=-4.0), r"tau must be > 0 and finite, got -4.0"),
        (lambda: RKD(distance=-25.0), r"distance must be >= 0 and finite, got -25.0"),
        (lambda: RKD(angle=math.nan), r"angle must be >= 0 and finite, got nan"),
        (lambda: cc_loss(_z(8, 3), _z(8, 3), gamma=0.0), r"gamma must be > 0 and finite, got 0.0"),
        (lambda: cc_loss(_z(8, 3), _z(8, 3), order=0), r"order must be an integer >= 1, got 0"),
        (lambda: cc_consecutive_loss(_z(8, 3), _z(8, 4)), r"z_s and z_t must share \(n, d\), got \(8, 3\)"),
        (lambda: CC(0, 4), r"student_dim must be an integer >= 1, got 0"),
        (lambda: CC(4, 0), r"teacher_dim must be an integer >= 1, got 0"),
        (lambda: CC(4, 4, embed_dim=0), r"embed_dim must be an integer >= 1, got 0"),
        (lambda: CC(4, 4, form="mmd"), r"form must be \"consecutive\" or \"kernel\", got 'mmd'"),
        (lambda: CC(4, 4, gamma=-1.0), r"gamma must be > 0 and finite, got -1.0"),
        (lambda: CC(4, 4, order=0), r"order must be an integer >= 1, got 0"),
        (lambda: CC(4, 6)(_z(8, 5), _z(8, 6)), r"z_s must be \(n, 4\) with n >= 1, got \(8, 5\)"),
        (lambda: CC(4, 6)(_z(8, 4), _z(8, 4)), r"z_t must be \(n, 6\) with n >= 1, got \(8, 4\)"),
        (lambda: CC(4, 6)(_z(8, 4), _z(7, 6)), r"got \(8, 128\) and \(7, 128\)"),
    ],
)
def test_bad_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

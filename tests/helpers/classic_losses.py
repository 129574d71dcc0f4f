"""The classic distillation losses as plain loops from the papers' formulas, and inputs to compare them on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.losses.at import AT, at_loss
from bnn_itrd.losses.cc import CC, cc_consecutive_loss, cc_loss
from bnn_itrd.losses.dkd import DKD, dkd_loss
from bnn_itrd.losses.fitnet import FitNet, hint_loss
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


def labels_of(logits: Tensor) -> Tensor:
    n, k = logits.shape
    return torch.arange(n) * 3 % k


def rows_of(x: Array) -> list[list[float]]:
    rows: list[list[float]] = x.reshape(len(x), -1).tolist()
    return rows


def dot_product(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normed(row: list[float]) -> list[float]:
    norm = math.sqrt(dot_product(row, row))
    return [x / norm if norm else 0.0 for x in row]


def pooled(x: Array, h: int, w: int) -> Array:
    """Computes adaptive average pooling: output row i averages the input rows floor(i H / h) to ceil((i + 1) H / h)."""
    n, c, height, width = x.shape
    out = np.zeros((n, c, h, w))
    for i in range(h):
        for j in range(w):
            top, bottom = i * height // h, -(-(i + 1) * height // h)
            left, right = j * width // w, -(-(j + 1) * width // w)
            out[:, :, i, j] = x[:, :, top:bottom, left:right].mean(axis=(2, 3))
    return out


def same_size(s: Array, t: Array) -> tuple[Array, Array]:
    h, w = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
    return pooled(s, h, w), pooled(t, h, w)


def loop_at(s: Array, t: Array, p: float = 2.0) -> float:
    s, t = same_size(s, t)
    n, _, h, w = s.shape
    total = 0.0
    for b in range(n):
        q_s, q_t = (
            normed([sum(abs(v) ** p for v in x[b, :, i, j]) for i in range(h) for j in range(w)]) for x in (s, t)
        )
        total += sum((x - y) ** 2 for x, y in zip(q_s, q_t, strict=True))
    return total / (n * h * w)


def loop_sp(s: Array, t: Array) -> float:
    n = len(s)
    grams = []
    for x in (s, t):
        rows = rows_of(x)
        grams.append([normed([dot_product(a, b) for b in rows]) for a in rows])
    return sum((grams[0][i][j] - grams[1][i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def loop_nst(s: Array, t: Array) -> float:
    s, t = same_size(s, t)
    total = 0.0
    for b in range(len(s)):
        f_s, f_t = [normed(row) for row in rows_of(s[b])], [normed(row) for row in rows_of(t[b])]
        for sign, left, right in ((1, f_t, f_t), (1, f_s, f_s), (-2, f_s, f_t)):
            kernel = [dot_product(x, y) ** 2 for x in left for y in right]
            total += sign * sum(kernel) / len(kernel)
    return total / len(s)


def loop_hint(s: Array, t: Array) -> float:
    s, t = same_size(s, t)
    return float(sum((x - y) ** 2 for x, y in zip(s.ravel(), t.ravel(), strict=True))) / s.size


def loop_pkt(s: Array, t: Array) -> float:
    n = len(s)
    probabilities = []
    for x in (s, t):
        rows = [normed(row) for row in rows_of(x)]
        kernel = [[(dot_product(a, b) + 1) / 2 for b in rows] for a in rows]
        probabilities.append([[k / sum(row) for k in row] for row in kernel])
    p_s, p_t = probabilities
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += p_t[i][j] * math.log((p_t[i][j] + 1e-7) / (p_s[i][j] + 1e-7))
    return total / n**2


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def loop_rkd_distance(s: Array, t: Array) -> float:
    n = len(s)
    distances = []
    for x in (s, t):
        d = [[math.dist(a, b) for b in x] for a in x]
        others = [d[i][j] for i in range(n) for j in range(n) if i != j]
        mu = sum(others) / len(others) if others else 1.0
        distances.append([[v / mu for v in row] for row in d])
    return sum(huber(distances[0][i][j] - distances[1][i][j]) for i in range(n) for j in range(n)) / n**2


def loop_rkd_angle(s: Array, t: Array) -> float:
    n = len(s)

    def cosine(x: Array, i: int, j: int, k: int) -> float:
        return dot_product(normed(list(x[i] - x[j])), normed(list(x[k] - x[j])))

    triples = [(i, j, k) for i in range(n) for j in range(n) for k in range(n)]
    return sum(huber(cosine(s, *ijk) - cosine(t, *ijk)) for ijk in triples) / n**3


def loop_cc(s: Array, t: Array, gamma: float = 0.4, order: int = 2) -> float:
    n = len(s)
    rows_s, rows_t = ([normed(row) for row in rows_of(x)] for x in (s, t))

    def kernel(a: list[float], b: list[float]) -> float:
        terms = ((2 * gamma) ** p / math.factorial(p) * dot_product(a, b) ** p for p in range(order + 1))
        return math.exp(-2 * gamma) * sum(terms)

    pairs = [(i, j) for i in range(n) for j in range(n)]
    return sum((kernel(rows_s[i], rows_s[j]) - kernel(rows_t[i], rows_t[j])) ** 2 for i, j in pairs) / n**2


def loop_consecutive(s: Array, t: Array) -> float:
    n, d = s.shape
    products = (abs(s[i, f] - t[i, f]) * abs(s[i + 1, f] - t[i + 1, f]) for i in range(n - 1) for f in range(d))
    return float(sum(products)) / max(n - 1, 1)


def loop_dkd(s: Array, t: Array, alpha: float = 1.0, beta: float = 8.0, tau: float = 4.0) -> float:
    total = 0.0
    for s_row, t_row, y in zip(s.tolist(), t.tolist(), labels_of(torch.from_numpy(s)).tolist(), strict=True):
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
    "at": Case(at_loss, loop_at, MAPS),
    "at_p1": Case(lambda s, t: at_loss(s, t, p=1.0), lambda s, t: loop_at(s, t, 1.0), MAPS),
    "at_p4": Case(AT(4.0), lambda s, t: loop_at(s, t, 4.0), MAPS),
    "sp": Case(sp_loss, loop_sp, MAPS),
    "sp_vectors": Case(sp_loss, loop_sp, VECTORS),
    "nst": Case(nst_loss, loop_nst, MAPS),
    "hint": Case(hint_loss, loop_hint, HINTS),
    "pkt": Case(pkt_loss, loop_pkt, VECTORS),
    "rkd_distance": Case(rkd_distance_loss, loop_rkd_distance, VECTORS),
    "rkd_angle": Case(rkd_angle_loss, loop_rkd_angle, VECTORS),
    "rkd": Case(RKD(), lambda s, t: 25 * loop_rkd_distance(s, t) + 50 * loop_rkd_angle(s, t), VECTORS),
    "cc": Case(cc_loss, loop_cc, VECTORS),
    "cc_order_5": Case(lambda s, t: cc_loss(s, t, gamma=1.3, order=5), lambda s, t: loop_cc(s, t, 1.3, 5), VECTORS),
    "cc_consecutive": Case(cc_consecutive_loss, loop_consecutive, EQUAL),
    "dkd": Case(lambda s, t: dkd_loss(s, t, labels_of(s)), loop_dkd, EQUAL),
    "dkd_module": Case(
        lambda s, t: DKD(alpha=0.5, beta=2.0, tau=1.5)(s, t, labels_of(s)),
        lambda s, t: loop_dkd(s, t, 0.5, 2.0, 1.5),
        EQUAL,
    ),
}
LOSSES = [name for name in CASES if name not in ("at_p1", "cc_order_5", "dkd_module")]


def student_and_teacher(shapes: Shapes, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    s, t = rng.normal(-0.3, 0.8, shapes[0]), rng.normal(0.5, 2.0, shapes[1])
    return torch.from_numpy(s), torch.from_numpy(t)


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def modules_and_shapes() -> dict[str, tuple[nn.Module, Shapes]]:
    torch.manual_seed(0)
    return {
        "fitnet": (FitNet((3, 6, 6), (5, 4, 4)), ((4, 3, 6, 6), (4, 5, 4, 4))),
        "fitnet_bn": (FitNet((3, 4, 4), (5, 4, 4), batch_norm=True), ((4, 3, 4, 4), (4, 5, 4, 4))),
        "cc_consecutive": (CC(3, 5, embed_dim=4), ((6, 3), (6, 5))),
        "cc_kernel": (CC(3, 5, embed_dim=4, form="kernel"), ((6, 3), (6, 5))),
    }


MODULES = ["fitnet", "fitnet_bn", "cc_consecutive", "cc_kernel"]


def loss_and_pair(name: str) -> tuple[Callable[[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]:
    if name.startswith("module_"):
        module, shapes = modules_and_shapes()[name.removeprefix("module_")]
        return module, student_and_teacher(shapes)
    return CASES[name].loss, student_and_teacher(CASES[name].largest)


def without_information(x: Tensor, how: str) -> Tensor:
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

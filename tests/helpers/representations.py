"""Random representations, and losses of representations as plain loops from the papers' formulas."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float64]]


def pair(n: int, d_s: int, d_t: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    z_t = rng.normal(1.0, 2.0, (n, d_t or d_s))
    z_s = rng.normal(-0.5, 0.7, (n, d_s))
    if d_t is None:
        z_s += 0.3 * z_t
    return torch.from_numpy(z_s), torch.from_numpy(z_t)


def gram_matrix(n: int, d: int, seed: int = 0) -> Tensor:
    z, _ = pair(n, d, seed=seed)
    return z @ z.T


def loop_correlation(z_s: Array, z_t: Array, alpha: float) -> float:
    n, d = z_s.shape
    total = 0.0
    for i in range(d):
        a, b = z_s[:, i], z_t[:, i]
        mean_a, mean_b = sum(a) / n, sum(b) / n
        std_a = math.sqrt(sum((x - mean_a) ** 2 for x in a) / (n - 1))
        std_b = math.sqrt(sum((x - mean_b) ** 2 for x in b) / (n - 1))
        dead = std_a == 0 or std_b == 0
        pairs = zip(a, b, strict=True)
        v = 0.0 if dead else sum((x - mean_a) / std_a * (y - mean_b) / std_b for x, y in pairs) / n
        total += abs(v - 1) ** (2 * alpha)
    return math.log2(total)


def loop_gram(z: Array) -> list[list[float]]:
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in z.tolist()]
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


def loop_potential(gram: list[list[float]]) -> float:
    trace = sum(gram[i][i] for i in range(len(gram)))
    return sum((x / trace) ** 2 for row in gram for x in row)


def loop_mutual_information(z_s: Array, z_t: Array, log: bool) -> float:
    g_s, g_t = loop_gram(z_s), loop_gram(z_t)
    g_st = [[x * y for x, y in zip(a, b, strict=True)] for a, b in zip(g_s, g_t, strict=True)]
    marginal, joint = loop_potential(g_s), loop_potential(g_st)
    return math.log2(marginal) - math.log2(joint) if log else marginal - joint

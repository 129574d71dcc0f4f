"""The mutual-information loss of ITRD: match the similarities between the samples of a batch."""

import math

import torch
from einops import einsum, reduce
from torch import Tensor

from ._inputs import as_float, check_same_samples

__all__ = ["mutual_information_loss"]


def mutual_information_loss(z_s: Tensor, z_t: Tensor, *, log: bool = False) -> Tensor:
    """||G_s||_F^2 - ||G_st||_F^2 of unit-trace Gram matrices; (n, d_s), (n, d_t) -> ().

        Z = rows of z, L2-normalised    G = Z Z^T    G_st = G_s * G_t elementwise    each / its own trace

    The default compares information potentials and has no unit. `log=True` takes log2 of each norm, which
    gives -I_2(G_s; G_t) + S_2(G_t) in bits (eq. 9): the mutual information less the teacher's constant.
    The paper found the form without the log to train better.

    A zero row has similarity 0 with every row, itself included, and gets a zero gradient; an all-zero z_s
    gives 0. Half-precision inputs are computed in float32, under autocast too; float64 stays float64.
    Gradients flow to both inputs: pass a detached teacher. G is that of the rows passed (under
    DistributedDataParallel, of the local batch).

    Raises ValueError unless both are 2-D with the same n; d_s and d_t may differ.
    Miles, Lopez Rodriguez and Mikolajczyk, Information Theoretic Representation Distillation, BMVC 2022,
    eq. 7-9 and algorithm 1 (alpha = 2).
    """
    check_same_samples(z_s, z_t)
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        gram_s = _gram(z_s)
        marginal = _information_potential(gram_s)
        joint = _information_potential(gram_s * _gram(z_t))
        if log:
            tiny = torch.finfo(z_s.dtype).tiny
            return marginal.clamp_min(tiny).log2() - joint.clamp_min(tiny).log2()
        return marginal - joint


def _gram(z: Tensor) -> Tensor:
    """Cosine similarities of the rows, (n, d) -> (n, n); 0 where a row is zero."""
    square = reduce(z.square(), "b d -> b 1", "sum")
    # Below 1e-16 the gradient of rsqrt nears the overflow of float32.
    z = z * square.masked_fill(square <= 1e-16, math.inf).rsqrt()
    return einsum(z, z, "i d, j d -> i j")


def _information_potential(gram: Tensor) -> Tensor:
    """||G / tr G||_F^2, which is tr(A^2) of eq. 3; (n, n) -> ()."""
    # The trace counts the rows that are not zero: the clamp acts at 0 alone.
    trace = torch.trace(gram).clamp_min(torch.finfo(gram.dtype).eps)
    return gram.square().sum() / trace.square()

"""The mutual-information loss of ITRD, which matches the similarities between the samples of a batch."""

import math

import torch
from einops import einsum, reduce
from torch import Tensor

from ._inputs import as_float, check_count, check_positive, check_same_samples
from .renyi import renyi_entropy, tsallis_entropy

__all__ = ["gram_matrix", "information_potential", "mutual_information_loss"]


def mutual_information_loss(
    z_s: Tensor, z_t: Tensor, *, log: bool = False, order: float = 2.0, degree: int = 1
) -> Tensor:
    """Returns ITRD's mutual-information loss, low where samples are as similar as for the teacher; two (n, d) -> ().

        ||G_s||_F^2 - ||G_st||_F^2    Z = rows of z, L2-normalised    G = (Z Z^T)^degree, elementwise
        G_st = G_s * G_t, elementwise    each G is divided by its trace

    d may differ between student and teacher. The default has no unit. `log=True` takes log2 of each norm, which gives
    the negative mutual information I_2(G_s; G_t) plus the teacher's entropy S_2(G_t), a constant, in bits (eq. 9). The
    paper found the form without the log to train better.

    `order` is Renyi's alpha. For any order the loss is (log2 tr G_st^order - log2 tr G_s^order) / (1 - order) in bits
    (eq. 8), or without the log the difference of `tsallis_entropy`; order 1 is the difference of Shannon's entropies
    (in bits, or without the log in nats). Any order but 2 computes the eigenvalues of both matrices in each step, where
    those up to n eps times the largest count as 0. The paper uses only 2, because it is cheap. `degree` is that of the
    polynomial kernel, 1 in the paper.

    A zero row has similarity 0 with every row, itself included, and gets a zero gradient; if z_s is zero, so is the
    loss. Half-precision inputs are computed in float32, under autocast too; float64 stays float64. Gradients flow to
    both inputs: pass a detached teacher. Only samples of the given batch are compared; under DistributedDataParallel
    that is the batch of one process.

    Raises ValueError unless both are 2-D with the same n (d_s and d_t may differ), order > 0 and degree >= 1.
    Miles, Lopez Rodriguez and Mikolajczyk, Information Theoretic Representation Distillation, BMVC 2022, eq. 7-9 and
    algorithm 1 (alpha = 2).

    >>> z = torch.eye(4)
    >>> mutual_information_loss(z, z.flip(0), log=True, order=3.0).item()
    0.0
    """
    check_positive("order", order)
    check_count("degree", degree)
    check_same_samples(z_s, z_t)
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        gram_s, gram_t = gram_matrix(z_s, degree=degree), gram_matrix(z_t, degree=degree)
        if order != 2:
            entropy = renyi_entropy if log else tsallis_entropy
            return entropy(gram_s * gram_t, alpha=order) - entropy(gram_s, alpha=order)
        # The squared Frobenius norm is the sum of the squared eigenvalues, which need not be computed. The order of the
        # next two lines is that in which gradients are added; it stays, so that a resumed run has the same bits.
        marginal = information_potential(gram_s)
        joint = information_potential(gram_s * gram_t)
        if log:
            tiny = torch.finfo(z_s.dtype).tiny
            return marginal.clamp_min(tiny).log2() - joint.clamp_min(tiny).log2()
        return marginal - joint


def gram_matrix(z: Tensor, *, degree: int = 1) -> Tensor:
    """Returns the cosine similarities between rows, to the power of `degree`; (n, d) -> (n, n); 0 where a row is zero.

    >>> gram_matrix(torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])).diagonal()
    tensor([1., 1., 0.])
    """
    square = reduce(z.square(), "b d -> b 1", "sum")
    # Below 1e-16 the gradient of rsqrt nears the overflow of float32.
    z = z * square.masked_fill(square <= 1e-16, math.inf).rsqrt()
    gram = einsum(z, z, "i d, j d -> i j")
    return gram if degree == 1 else gram.pow(degree)


def information_potential(gram: Tensor) -> Tensor:
    """Returns ||G / tr G||_F^2, from which Renyi's entropy of order 2 follows; (n, n) -> (); 0 for a zero matrix.

    It is tr(A^2) of eq. 3 in Miles et al., BMVC 2022, computed without eigenvalues.

    >>> information_potential(torch.eye(4)).item()
    0.25
    """
    # The trace counts the rows that are not zero: the clamp acts at 0 alone.
    trace = torch.trace(gram).clamp_min(torch.finfo(gram.dtype).eps)
    return gram.square().sum() / trace.square()

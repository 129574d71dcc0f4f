"""Entropies and mutual information of Gram matrices, after Renyi; the losses of ITRD derive from them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._inputs import as_float, check_matrix, check_positive, check_same_shape

__all__ = ["renyi_entropy", "renyi_joint_entropy", "renyi_mutual_information", "tsallis_entropy"]


def renyi_entropy(gram: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Returns Renyi's entropy of order alpha of a Gram matrix, S_alpha(G), (n, n) -> (), in bits.

    It is ``1 / (1 - alpha) * log2 sum_i lambda_i^alpha``, where lambda are the eigenvalues of G / tr G. It lies between
    0 (rank one) and log2 n (a multiple of the identity). Eigenvalues up to n eps times the largest are rounding and
    count as 0. alpha = 1 is the Shannon limit -sum_i lambda_i log2 lambda_i. `gram` must be symmetric positive
    semidefinite, of any scale. Only its lower triangle is read, and a zero matrix gives 0. Half precision is computed
    in float32, under autocast too.

    Raises ValueError unless gram is square and alpha > 0.
    Miles, Lopez Rodriguez and Mikolajczyk, Information Theoretic Representation Distillation, BMVC 2022, eq. 3, after
    Sanchez Giraldo, Rao and Principe, IEEE Trans. Information Theory 2015.

    >>> renyi_entropy(torch.eye(4)).item()
    2.0
    """

    def of_powers(potential: Tensor, positive: Tensor) -> Tensor:
        return torch.where(positive, potential, 1.0).log2() / (1 - alpha)

    return _entropy(gram, alpha, torch.log2, of_powers)


def tsallis_entropy(gram: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Returns Tsallis' entropy of order alpha of a Gram matrix, which is Renyi's without its logarithm; (n, n) -> ().

    It is ``(1 - sum_i lambda_i^alpha) / (alpha - 1)``, where lambda are the eigenvalues of G / tr G. Both entropies
    grow together, and alpha = 1 is Shannon's entropy in nats. It lies between 0 (rank one) and (1 - n^(1 - alpha)) /
    (alpha - 1). `gram` is read as in `renyi_entropy`, which raises the same errors.
    Tsallis, Possible generalization of Boltzmann-Gibbs statistics, Journal of Statistical Physics 1988, eq. 1. With
    alpha = 2 it is 1 - `information_potential`.

    >>> tsallis_entropy(torch.eye(4)).item()
    0.75
    """

    def of_powers(potential: Tensor, positive: Tensor) -> Tensor:
        return (torch.where(positive, 1.0, 0.0) - potential) / (alpha - 1)

    return _entropy(gram, alpha, torch.log, of_powers)


def _entropy(
    gram: Tensor, alpha: float, logarithm: Callable[[Tensor], Tensor], of_powers: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Returns an entropy of the eigenvalues lambda of G / tr G; (n, n) -> (); Shannon's if alpha is 1.

    Otherwise it is the result of `of_powers`, which gets sum_i lambda_i^alpha and whether any eigenvalue is above 0,
    both (). logarithm: the one in Shannon's entropy. Raises ValueError unless the matrix is real, square and has a row,
    and alpha > 0.
    """
    check_positive("alpha", alpha)
    check_matrix("gram", gram)
    if gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram must be square, got {tuple(gram.shape)}")
    with torch.autocast(gram.device.type, enabled=False):
        (gram,) = as_float(gram)
        spectrum, positive = _spectrum(gram)
        # 1 / (1 - alpha) magnifies the rounding of the sum: nearer to 1 than this, Shannon's limit is more exact.
        if abs(alpha - 1) < math.sqrt(torch.finfo(gram.dtype).eps):
            return -(spectrum * logarithm(spectrum)).sum()
        return of_powers((spectrum.pow(alpha) * positive).sum(), positive.any())


def _spectrum(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the eigenvalues of G / tr G, and a mask of the positive ones; (n, n) -> (n,), (n,) bool.

    Those that are 0 up to rounding are given as 1, whose logarithm is 0, and which keeps the gradients of logarithms
    and powers finite. For a matrix that is not finite, which LAPACK would refuse, all are NaN.
    """
    info = torch.finfo(gram.dtype)
    matrix = gram / torch.trace(gram).clamp_min(info.tiny)
    finite = matrix.isfinite().all()
    spectrum = torch.linalg.eigvalsh(
        torch.where(finite, matrix, torch.eye(len(gram), device=gram.device).to(gram.dtype))
    )
    spectrum = torch.where(finite, spectrum, math.nan)
    zero = spectrum <= len(gram) * info.eps * spectrum.detach().amax()
    return torch.where(zero, 1.0, spectrum), ~zero


def renyi_joint_entropy(gram_a: Tensor, gram_b: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Returns the joint entropy of two Gram matrices: `renyi_entropy` of their elementwise product; -> (), in bits.

    Both are (n, n). Raises ValueError unless both are square, of one size, and alpha > 0. Miles et al., BMVC 2022, eq.
    4.

    >>> renyi_joint_entropy(torch.eye(4), torch.ones(4, 4)).item()
    2.0
    """
    check_same_shape("gram_a", gram_a, "gram_b", gram_b, "(n, n)")
    gram_a, gram_b = as_float(gram_a, gram_b)
    return renyi_entropy(gram_a * gram_b, alpha=alpha)


def renyi_mutual_information(gram_a: Tensor, gram_b: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Returns the mutual information of two Gram matrices: S(A) + S(B) - S(A, B), of `renyi_entropy`; -> (), in bits.

    Both are (n, n); S(A, B) is `renyi_joint_entropy`. Raises ValueError unless both are square, of one size, and alpha
    > 0. Miles et al., BMVC 2022, eq. 5.

    >>> renyi_mutual_information(torch.eye(4), torch.eye(4)).item()
    2.0
    """
    joint = renyi_joint_entropy(gram_a, gram_b, alpha=alpha)
    return renyi_entropy(gram_a, alpha=alpha) + renyi_entropy(gram_b, alpha=alpha) - joint

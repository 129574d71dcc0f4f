"""Matrix-based Renyi entropy, from which the losses of ITRD derive."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._inputs import as_float, check_matrix, check_positive, check_same_shape

__all__ = ["renyi_entropy", "renyi_joint_entropy", "renyi_mutual_information", "tsallis_entropy"]


def renyi_entropy(gram: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Returns 1 / (1 - alpha) * log2 sum_i lambda_i^alpha, lambda the spectrum of G / tr G; (n, n) -> (), in bits.

    Between 0 (rank one) and log2 n (a multiple of the identity). Eigenvalues up to n eps times the largest are
    rounding and count as 0; alpha = 1 is the Shannon limit -sum_i lambda_i log2 lambda_i. `gram` is symmetric positive
    semidefinite, of any scale: the lower triangle is read, and a zero matrix gives 0. Half precision is computed in
    float32, under autocast too.

    Raises ValueError unless gram is square and alpha > 0.
    Miles, Lopez Rodriguez and Mikolajczyk, Information Theoretic Representation Distillation, BMVC 2022,
    eq. 3, after Sanchez Giraldo, Rao and Principe, IEEE Trans. Information Theory 2015.

    >>> renyi_entropy(torch.eye(4)).item()
    2.0
    """

    def of_powers(potential: Tensor, positive: Tensor) -> Tensor:
        return torch.where(positive, potential, 1.0).log2() / (1 - alpha)

    return _entropy(gram, alpha, torch.log2, of_powers)


def tsallis_entropy(gram: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Returns (1 - sum_i lambda_i^alpha) / (alpha - 1), lambda the spectrum of G / tr G; (n, n) -> ().

    It is Renyi's entropy without its logarithm: both grow together, and alpha = 1 is Shannon's entropy in nats. Between
    0 (rank one) and (1 - n^(1 - alpha)) / (alpha - 1). `gram` is read as in `renyi_entropy`, which raises the same
    errors.
    Tsallis, Possible generalization of Boltzmann-Gibbs statistics, Journal of Statistical Physics 1988, eq. 1, of the
    spectrum; with alpha = 2 one less the information potential of BMVC 2022 (above), eq. 3.

    >>> tsallis_entropy(torch.eye(4)).item()
    0.75
    """

    def of_powers(potential: Tensor, positive: Tensor) -> Tensor:
        return (torch.where(positive, 1.0, 0.0) - potential) / (alpha - 1)

    return _entropy(gram, alpha, torch.log, of_powers)


def _entropy(
    gram: Tensor, alpha: float, logarithm: Callable[[Tensor], Tensor], of_powers: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Returns an entropy of the spectrum of G / tr G: `of_powers` of sum_i lambda_i^alpha, or Shannon's for alpha = 1.

    of_powers is given the sum, and whether any eigenvalue is more than 0; () twice. Raises ValueError unless the
    matrix is real, square and has a row, and alpha > 0.
    """
    check_positive("alpha", alpha)
    check_matrix("gram", gram)
    if gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram must be square, got {tuple(gram.shape)}")
    with torch.autocast(gram.device.type, enabled=False):
        (gram,) = as_float(gram)
        spectrum, positive = _spectrum(gram)
        # 1 / (1 - alpha) magnifies the rounding of the sum: nearer than this, the limit is the closer value.
        if abs(alpha - 1) < math.sqrt(torch.finfo(gram.dtype).eps):
            return -(spectrum * logarithm(spectrum)).sum()
        return of_powers((spectrum.pow(alpha) * positive).sum(), positive.any())


def _spectrum(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the eigenvalues of G / tr G, 1 for those that are 0 up to rounding, and which are positive; (n,) twice.

    1 adds nothing to the sums above, and keeps the gradient of a logarithm and of a power below 1 finite. For a matrix
    that is not finite, which LAPACK would refuse, all are NaN.
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
    """Returns S_alpha(A * B / tr(A * B)), with the elementwise product; (n, n), (n, n) -> (), in bits.

    Raises ValueError unless both are square, of one size, and alpha > 0. BMVC 2022 (above), eq. 4.

    >>> renyi_joint_entropy(torch.eye(4), torch.ones(4, 4)).item()
    2.0
    """
    check_same_shape("gram_a", gram_a, "gram_b", gram_b, "(n, n)")
    gram_a, gram_b = as_float(gram_a, gram_b)
    return renyi_entropy(gram_a * gram_b, alpha=alpha)


def renyi_mutual_information(gram_a: Tensor, gram_b: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Returns S_alpha(A) + S_alpha(B) - S_alpha(A, B); (n, n), (n, n) -> (), in bits.

    Raises ValueError unless both are square, of one size, and alpha > 0. BMVC 2022 (above), eq. 5.

    >>> renyi_mutual_information(torch.eye(4), torch.eye(4)).item()
    2.0
    """
    joint = renyi_joint_entropy(gram_a, gram_b, alpha=alpha)
    return renyi_entropy(gram_a, alpha=alpha) + renyi_entropy(gram_b, alpha=alpha) - joint

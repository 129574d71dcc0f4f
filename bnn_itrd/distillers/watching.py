"""Statistics of a projection and of a batch for metrics.csv, as in the papers' figures; no loss uses them."""

from __future__ import annotations

import torch
from torch import Tensor

from bnn_itrd.losses.correlation import centre_features
from bnn_itrd.losses.mutual_information import gram_matrix, information_potential
from bnn_itrd.losses.renyi import renyi_entropy

__all__ = ["QUANTILES", "gram_entropies", "of_projection"]

# Quantiles of the singular values, by their names in metrics.csv.
QUANTILES = {
    "singular_max": 1.0,
    "singular_upper": 0.75,
    "singular_median": 0.5,
    "singular_lower": 0.25,
    "singular_min": 0.0,
}

# The largest projection whose statistics are computed. Singular values of a larger one take longer than an epoch:
# minutes for 8192 x 8192, VGG-small's at 32x32.
_MOST_ENTRIES = 2**21


def of_projection(weight: Tensor, before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Returns statistics () of a projection W (d_t, d_s), its input (n, d_s) and its output (n, d_t), as in the poster.

    `singular_max`, `singular_upper`, `singular_median`, `singular_lower` and `singular_min`: the largest singular value
    of W, the quartiles and the smallest. `in_out_correlation`: the mean of |r| over all pairs of an input and an output
    feature, where r is Pearson's correlation over the batch; the poster does not say how it reduces them to one number.
    Pairs with a constant feature count as 0. The singular values are left out where W is not finite, and all statistics
    where W has more than 2^21 entries (1024 x 2048), since they would take longer than an epoch.
    Miles and Mikolajczyk, Understanding the Role of the Projector in Knowledge Distillation, AAAI 2024, its poster.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> found = of_projection(torch.diag(torch.tensor([2.0, 1.0])), x, x * torch.tensor([2.0, 1.0]))
    >>> found["singular_max"].item(), found["singular_min"].item(), round(found["in_out_correlation"].item(), 5)
    (2.0, 1.0, 0.5)
    """
    if weight.numel() > _MOST_ENTRIES:
        return {}
    found: dict[str, Tensor] = {}
    if weight.isfinite().all():
        values = torch.linalg.svdvals(weight.float())
        found |= {name: values.quantile(share) for name, share in QUANTILES.items()}
    correlation = (_standardised(before.float()).T @ _standardised(after.float())) / len(before)
    return found | {"in_out_correlation": correlation.abs().mean()}


def _standardised(z: Tensor) -> Tensor:
    """Returns each feature minus its mean, divided by its standard deviation, (n, d) -> (n, d); 0 where constant."""
    centred, inv_std = centre_features(z)
    return centred * inv_std


def gram_entropies(z_s: Tensor, z_t: Tensor, *, order: float = 2.0, degree: int = 1) -> dict[str, Tensor]:
    """Returns Renyi's entropy, in bits, of the Gram matrices of a batch, (n, d_s) and (n, d_t); () each.

    `gram_entropy` is the student's, `teacher_gram_entropy` the teacher's: 0 where all samples are alike, log2 n where
    they are orthogonal. Miles, Lopez Rodriguez and Mikolajczyk, BMVC 2022, eq. 3.

    >>> found = gram_entropies(torch.ones(4, 2), torch.eye(4))
    >>> abs(round(found["gram_entropy"].item(), 4)), round(found["teacher_gram_entropy"].item(), 4)
    (0.0, 2.0)
    """
    both = {"gram_entropy": z_s, "teacher_gram_entropy": z_t}
    return {name: _entropy(gram_matrix(z.float(), degree=degree), order) for name, z in both.items()}


def _entropy(gram: Tensor, order: float) -> Tensor:
    """Returns the entropy; order 2 needs no eigenvalues, which for a large batch take longer than a step."""
    if order != 2:
        return renyi_entropy(gram, alpha=order)
    potential = information_potential(gram)
    return -potential.masked_fill(potential == 0, 1).log2()

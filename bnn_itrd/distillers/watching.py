"""Statistics of a distiller's projection and of a batch's features, which are columns of metrics.csv.

They are those of the papers' figures. No loss uses them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bnn_itrd.losses.correlation import centre_features
from bnn_itrd.losses.mutual_information import gram_matrix, information_potential
from bnn_itrd.losses.renyi import renyi_entropy

__all__ = ["QUANTILES", "gram_entropies", "of_projection"]

# Column of metrics.csv -> quantile of the projection's singular values.
QUANTILES = {
    "singular_max": 1.0,
    "singular_upper": 0.75,
    "singular_median": 0.5,
    "singular_lower": 0.25,
    "singular_min": 0.0,
}

# The largest number of entries of a projection whose statistics are computed. The singular values of a larger one take
# longer than an epoch: minutes for the 8192 x 8192 projection of VGG-small at 32x32 pixels.
_MOST_ENTRIES = 2**21


def of_projection(weight: Tensor, before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Returns statistics of a linear projection W from the student's features to the teacher's, name -> scalar.

    `weight` is W, (d_t, d_s); `before` is its input, (n, d_s), and `after` its output, (n, d_t).

    - `singular_max`, `singular_upper`, `singular_median`, `singular_lower`, `singular_min`: the largest singular value
      of W, the three quartiles, and the smallest; they are left out if W is not finite
    - `in_out_correlation`: the mean of |r| over all pairs of an input and an output feature, where r is Pearson's
      correlation over the batch, or 0 if a feature is constant

    The result is empty if W has more than 2^21 entries (1024 x 2048), because they would take longer than an epoch.
    The statistics are those of a poster: Miles and Mikolajczyk, Understanding the Role of the Projector in Knowledge
    Distillation, AAAI 2024. It does not say how it reduces the correlations to one number; the mean is this package's.

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
    """Returns each feature minus its mean, divided by its standard deviation, (n, d) -> (n, d); 0 if it is constant."""
    centred, inv_std = centre_features(z)
    return centred * inv_std


def gram_entropies(z_s: Tensor, z_t: Tensor, *, order: float = 2.0, degree: int = 1) -> dict[str, Tensor]:
    """Returns Renyi's entropy, in bits, of the Gram matrices of a batch's features, a scalar for each network.

    z_s, z_t: features of student and teacher, (n, d_s) and (n, d_t); order: the order of the entropy; degree: that of
    the Gram matrices' polynomial kernel. The keys are `gram_entropy` for the student and `teacher_gram_entropy`. An
    entropy is 0 if all samples are alike, and log2 n if they are orthogonal.
    Miles, Lopez Rodriguez and Mikolajczyk, BMVC 2022, eq. 3.

    >>> found = gram_entropies(torch.ones(4, 2), torch.eye(4))
    >>> abs(round(found["gram_entropy"].item(), 4)), round(found["teacher_gram_entropy"].item(), 4)
    (0.0, 2.0)
    """
    both = {"gram_entropy": z_s, "teacher_gram_entropy": z_t}
    return {name: _entropy(gram_matrix(z.float(), degree=degree), order) for name, z in both.items()}


def _entropy(gram: Tensor, order: float) -> Tensor:
    """Returns Renyi's entropy of a Gram matrix (n, n) in bits, ().

    Order 2 is computed without eigenvalues, which for a large batch would take longer than a training step.
    """
    if order != 2:
        return renyi_entropy(gram, alpha=order)
    potential = information_potential(gram)
    return -potential.masked_fill(potential == 0, 1).log2()

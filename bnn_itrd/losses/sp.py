"""Similarity-preserving distillation: matches the similarities between the samples of a batch."""

import torch
from einops import einsum
from torch import Tensor

from ._inputs import as_float
from ._scale import unit

__all__ = ["sp_loss"]


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns ||G_s - G_t||_F^2 / n^2, G = row-normalised Q Q^T; (n, ...), (n, ...) -> ().

    The rows of Q are the samples, flattened: feature maps (n, c, h, w) as in the paper, or representations (n, d).
    Each row of Q Q^T (n, n) is divided by its L2 norm. No sizes besides n need to agree, so nothing is pooled.

    The mean is over the n^2 pairs, with the usual weight 3000. It compares one pair of maps. The paper's sum over pairs
    of layers has one term in its experiments, the last map (as in RepDistiller); add the losses of several. 0 where
    student = teacher. Invariant to one factor, or one rotation of the features, for all samples of a side, and to the
    order of the samples. A zero sample (|x| <= 1e-8) has similarity 0 with all, and a zero gradient. Half-precision
    inputs are computed in float32, under autocast too. Gradients flow to both inputs: pass a detached teacher. Pairs
    are those of the rows passed (under DistributedDataParallel, of the local batch).

    Raises ValueError unless both are real (n, ...) of the same n, without an empty axis.
    Tung and Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019, eq. 4 and the similarity
    matrices before it.

    >>> sp_loss(torch.eye(2), 3 * torch.eye(2)).item()
    0.0
    """
    for name, x in (("student", student), ("teacher", teacher)):
        if x.ndim < 2 or 0 in x.shape or x.is_complex():
            raise ValueError(
                f"{name} must be real and (n, ...) without an empty axis, got {x.dtype} of shape {tuple(x.shape)}"
            )
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"student and teacher must have the same batch size, got {student.shape[0]} and {teacher.shape[0]}"
        )
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = as_float(student, teacher)
        return (_similarities(student) - _similarities(teacher)).square().mean()


def _similarities(x: Tensor) -> Tensor:
    """Returns Q Q^T with rows of norm 1, (n, ...) -> (n, n)."""
    q = x.flatten(1)
    # The norm of row i cancels the scale of q_i on the left: without it, squares of small samples would vanish.
    return unit(einsum(unit(q), q, "i d, j d -> i j"))

"""SP, similarity-preserving distillation: a loss that matches the similarities between the samples of a batch."""

import torch
from einops import einsum
from torch import Tensor

from ._inputs import as_float
from ._scale import unit

__all__ = ["sp_loss"]


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns how much the similarities between the batch's samples differ; (n, ...), (n, ...) -> ().

    It is ``||G_s - G_t||_F^2 / n^2``, where G is Q Q^T (n, n) with each row divided by its L2 norm. The rows of Q are
    the samples, flattened: maps (n, c, h, w), as in the paper, or representations (n, d). No sizes besides n need to
    agree, so nothing is pooled.

    The usual weight is 3000. In the paper's experiments and in RepDistiller, the loss is that of the last map; for
    several maps, add the losses. It is 0 where student = teacher. One factor for all samples of a network, one rotation
    of its features, or another order of the samples does not change it. A zero sample (|x| <= 1e-8) has similarity 0
    with all, and a zero gradient. Half-precision inputs are computed in float32, under autocast too. Gradients flow to
    both inputs: pass a detached teacher. Only samples of the given batch are compared; under DistributedDataParallel
    that is the batch of one process.

    Raises ValueError unless both are real (n, ...) of the same n, without an empty axis.
    Tung and Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019, eq. 4 and the similarity matrices before it.

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

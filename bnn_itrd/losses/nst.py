"""NST, neuron selectivity transfer: a loss that matches the spatial patterns of two maps' channels as distributions."""

import torch
from einops import einsum, rearrange
from torch import Tensor

from ._inputs import as_float
from ._maps import check_map_pair, pool_to_smaller
from ._scale import unit

__all__ = ["nst_loss"]


def nst_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Returns how much the channels of two maps differ as sets of patterns: their squared maximum mean discrepancy.

    (n, c_s, h_s, w_s), (n, c_t, h_t, w_t) -> ().

        mean_ij k(f_t^i, f_t^j) + mean_ij k(f_s^i, f_s^j) - 2 mean_ij k(f_s^i, f_t^j)    k(x, y) = (x . y)^2

    f^i is channel i of a sample, its h w values divided by their L2 norm. k is the polynomial kernel of degree 2 with
    offset 0, as in the paper's experiments. The formula is that of one sample, and the loss is the mean over the n
    samples. The usual weight is 50 (RepDistiller; the paper writes lambda / 2). RepDistiller adds the losses of all
    stages; this is the loss of one.

    Where the maps differ in size, the larger is average-pooled to the smaller (RepDistiller; the paper interpolates).
    The loss is never negative, and 0 where both sets of patterns have the same second moments, as for student =
    teacher. A factor per channel, or another order of channels, does not change it. For a zero channel (|x| <= 1e-8), k
    is 0 and the gradient is zero. Half-precision inputs are computed in float32, under autocast too.
    Gradients flow to both inputs: pass a detached teacher (RepDistiller detaches the teacher's own term alone).

    Raises ValueError unless both are maps of the same n.
    Huang and Wang, Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017, its squared MMD of
    normalised channels with the polynomial kernel.

    >>> x = torch.ones(1, 2, 2, 2)
    >>> nst_loss(x, 3 * x).item()
    0.0
    """
    check_map_pair(student_map, teacher_map)
    with torch.autocast(student_map.device.type, enabled=False):
        student_map, teacher_map = pool_to_smaller(*as_float(student_map, teacher_map))
        f_s, f_t = (unit(rearrange(x, "n c h w -> n c (h w)")) for x in (student_map, teacher_map))
        return _mean_kernel(f_t, f_t) + _mean_kernel(f_s, f_s) - 2 * _mean_kernel(f_s, f_t)


def _mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Returns the mean of (a_i . b_j)^2 over samples and pairs of channels, (n, c, p), (n, d, p) -> ()."""
    return einsum(a, b, "n c p, n d p -> n c d").square().mean()

"""Probabilistic knowledge transfer: matches the probability that a sample picks another as its neighbour."""

import torch
from einops import einsum, reduce
from torch import Tensor

from ._inputs import as_float, check_same_samples
from ._scale import unit

__all__ = ["pkt_loss"]

# As in the published code, it keeps the logarithm finite where two samples point in opposite directions.
_EPS = 1e-7


def pkt_loss(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns mean_ij p_t log((p_t + eps) / (p_s + eps)), eps = 1e-7; (n, d_s), (n, d_t) -> (), in nats.

        p[i, j] = K[i, j] / sum_j K[i, j]    K[i, j] = (cos(z_i, z_j) + 1) / 2

    The KL divergence of the conditional probabilities, teacher first. A mean over the n^2 pairs (the published code
    and RepDistiller; n times as small as the mean over samples), usual weight 3e4. As there, the pairs i = j
    belong to the sums, which the paper leaves out.

    0 where student = teacher. Invariant to a positive factor per sample, and to the order of samples. A zero row
    (|z| <= 1e-8) has cosine 0 with every row, itself included, and a zero gradient. Half-precision inputs are
    computed in float32, under autocast too. Gradients flow to both inputs: pass a detached teacher. Pairs are those
    of the rows passed (under DistributedDataParallel, of the local batch).

    Raises ValueError unless both are 2-D with the same n; d_s and d_t may differ.
    Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018, sec. 3: the
    conditional probabilities, the cosine kernel and the KL divergence.

    >>> pkt_loss(torch.eye(2), 3 * torch.eye(2)).item()
    0.0
    """
    check_same_samples(z_s, z_t)
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        p_s, p_t = _conditional(z_s), _conditional(z_t)
        return (p_t * ((p_t + _EPS).log() - (p_s + _EPS).log())).mean()


def _conditional(z: Tensor) -> Tensor:
    """Returns row-wise neighbour probabilities under the cosine kernel, (n, d) -> (n, n)."""
    z = unit(z)
    # Rounding takes the cosine of opposite rows below -1.
    kernel = ((einsum(z, z, "i d, j d -> i j") + 1) / 2).clamp_min(0)
    return kernel / reduce(kernel, "i j -> i 1", "sum")

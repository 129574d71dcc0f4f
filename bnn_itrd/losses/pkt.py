"""PKT, probabilistic knowledge transfer: a loss that matches how probably a sample picks another as its neighbour."""

import torch
from einops import einsum, reduce
from torch import Tensor

from ._inputs import as_float, check_same_samples
from ._scale import unit

__all__ = ["pkt_loss"]

# As in the published code, it keeps the logarithm finite where two samples point in opposite directions.
_EPS = 1e-7


def pkt_loss(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns how much the samples' neighbour probabilities differ, as a divergence; (n, d_s), (n, d_t) -> (), in nats.

        mean_ij p_t log((p_t + eps) / (p_s + eps)), eps = 1e-7
        p[i, j] = K[i, j] / sum_j K[i, j]    K[i, j] = (cos(z_i, z_j) + 1) / 2

    p[i, j] is the probability that sample i picks sample j as its neighbour; the loss is the KL divergence of these,
    teacher first. It is a mean over the n^2 pairs, as in the published code and RepDistiller, which is 1 / n of the
    mean over samples. The usual weight is 3e4. As there, the pairs i = j are included; the paper leaves them out.

    The loss is 0 where student = teacher. A positive factor per sample, or another order of samples, does not change
    it. A zero row (|z| <= 1e-8) has cosine 0 with every row, itself included, and a zero gradient. Half-precision
    inputs are computed in float32, under autocast too. Gradients flow to both inputs: pass a detached teacher. Only
    samples of the given batch are compared; under DistributedDataParallel that is the batch of one process.

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
    """Returns the probabilities p[i, j] that sample i picks sample j as its neighbour; (n, d) -> (n, n)."""
    z = unit(z)
    # Rounding takes the cosine of opposite rows below -1.
    kernel = ((einsum(z, z, "i d, j d -> i j") + 1) / 2).clamp_min(0)
    return kernel / reduce(kernel, "i j -> i 1", "sum")

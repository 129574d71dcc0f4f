"""RKD, relational knowledge distillation: losses that match distances between samples, and angles of three samples."""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from ._inputs import as_float, check_same_samples, check_weight
from ._scale import DEAD, unit

__all__ = ["RKD", "rkd_angle_loss", "rkd_distance_loss"]


def rkd_distance_loss(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns how much the relative distances between the batch's samples differ; (n, d_s), (n, d_t) -> ().

    It is ``mean_ij huber(d_s[i, j] / mu_s - d_t[i, j] / mu_t)``, where d[i, j] = ||z_i - z_j||, mu is the mean of d
    over the pairs i != j, and huber(x) is x^2 / 2 for |x| < 1 and |x| - 1/2 above. The mean is over all n^2 pairs, with
    the n zeros of i = j (as in the published code; the paper sums). The usual weight is 25.

    The loss is 0 where student = teacher. A factor, shift or rotation of all samples of one network, or another order
    of samples, does not change it. Equal samples have distance 0 with a zero gradient. If the mean distance in one
    network is up to 1e-8, as in a batch of one, its distances count as 0. Half-precision inputs are computed in
    float32, under autocast too. Gradients flow to both inputs: pass a detached teacher. Only samples of the given batch
    are compared; under DistributedDataParallel that is the batch of one process. Memory grows with n^2 (d_s + d_t).

    Raises ValueError unless both are 2-D with the same n; d_s and d_t may differ.
    Park, Kim, Lu and Cho, Relational Knowledge Distillation, CVPR 2019, eq. 4 to 6 and its Huber loss.

    >>> z = torch.tensor([[0.0], [1.0], [3.0]])
    >>> round(rkd_distance_loss(z, 2 * z + 1).item(), 6)
    0.0
    """
    check_same_samples(z_s, z_t)
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        return F.smooth_l1_loss(_distances(z_s), _distances(z_t))


def rkd_angle_loss(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns how much the angles between the batch's samples differ; (n, d_s), (n, d_t) -> ().

        mean_ijk huber(cos_s[i, j, k] - cos_t[i, j, k])    cos[i, j, k] = <e_ij, e_kj>, of the angle at z_j
        e_ij = (z_i - z_j) / ||z_i - z_j||

    The mean is over all n^3 triples, including the zeros of i = j and k = j (as in the published code; the paper sums).
    The usual weight is 50. huber, precision and gradients are as in `rkd_distance_loss`. Where z_i and z_j differ by
    1e-8 or less, e_ij is 0. Memory grows with n^2 (d_s + d_t) + n^3: for n = 1024 the cosines alone are 8.6 GB in
    float32.

    Raises ValueError unless both are 2-D with the same n; d_s and d_t may differ.
    Park, Kim, Lu and Cho, CVPR 2019, eq. 7 and its Huber loss.

    >>> z = torch.tensor([[0.0], [1.0], [3.0]])
    >>> round(rkd_angle_loss(z, 2 * z + 1).item(), 6)
    0.0
    """
    check_same_samples(z_s, z_t)
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        return F.smooth_l1_loss(_cosines(z_s), _cosines(z_t))


class RKD(nn.Module):
    """Computes the weighted sum of `rkd_distance_loss` and `rkd_angle_loss`; (n, d_s), (n, d_t) -> ().

    distance, angle: their weights. The defaults, 25 and 50, are the paper's, and RepDistiller's for a total weight of
    1. A term with weight 0 is not computed.

    Raises ValueError for negative weights; forward raises it as the functions do. Park et al., CVPR 2019, sec. 3.2.

    >>> RKD()(torch.rand(4, 3), torch.rand(4, 5)).shape
    torch.Size([])
    """

    def __init__(self, *, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__()
        check_weight("distance", distance)
        check_weight("angle", angle)
        self.distance, self.angle = distance, angle

    def forward(self, z_s: Tensor, z_t: Tensor) -> Tensor:
        check_same_samples(z_s, z_t)
        total = torch.zeros((), device=z_s.device)
        if self.distance:
            total = total + self.distance * rkd_distance_loss(z_s, z_t)
        if self.angle:
            total = total + self.angle * rkd_angle_loss(z_s, z_t)
        return total

    def extra_repr(self) -> str:
        return f"distance={self.distance}, angle={self.angle}"


def _differences(z: Tensor) -> Tensor:
    """Returns the differences of all rows, z_i - z_j at index [j, i]; (n, d) -> (n, n, d)."""
    # The Gram matrix would be faster, but its rounding is larger than the distances of near neighbours.
    return rearrange(z, "i d -> 1 i d") - rearrange(z, "j d -> j 1 d")


def _distances(z: Tensor) -> Tensor:
    """Returns the distances of all rows, divided by their mean over i != j; (n, d) -> (n, n)."""
    n = z.shape[0]
    distance = torch.linalg.vector_norm(_differences(z), dim=-1)
    mean = distance.sum() / max(n * (n - 1), 1)
    return distance / mean.masked_fill(mean <= DEAD, math.inf)


def _cosines(z: Tensor) -> Tensor:
    """Returns the cosine of the angle at z_j between z_i and z_k, at index [j, i, k]; (n, d) -> (n, n, n)."""
    direction = unit(_differences(z))
    return einsum(direction, direction, "j i d, j k d -> j i k")

"""The correlation loss of ITRD, which matches each feature of the student with the teacher's over the batch."""

import math

import torch
from einops import einsum, reduce
from torch import Tensor

from ._inputs import as_float, check_positive, check_same_shape, check_weight

__all__ = ["centre_features", "correlation_loss"]


def correlation_loss(
    z_s: Tensor,
    z_t: Tensor,
    *,
    alpha: float = 1.01,
    log: bool = True,
    off_diagonal: float = 0.0,
    decorrelation: float = 0.0,
) -> Tensor:
    """Returns ITRD's correlation loss, low where each feature correlates with the teacher's; (n, d), (n, d) -> ().

        log2 sum_i |v_i - 1|^(2 alpha), in bits, v_i the correlation of feature i over the batch
        z~ = (z - mean_b z) / std_b z        v_i = (1/n) sum_b z~_s[b, i] z~_t[b, i]

    The std is unbiased but the sum is divided by n, so v_i <= (n - 1) / n, and the loss never falls below
    ``log2(d) - 2 alpha log2(n)``. With the biased std, perfect correlation would give log2(0). `log=False` gives the
    sum itself, without a unit; the paper found the log to help.

    Two more terms are added to the sum inside the log if their weights are not 0. The paper leaves them out, because
    they hurt the student. `off_diagonal` weights sum_{i != j} |C_st[i, j]|^(2 alpha), where C_st = Z~_s^T Z~_t / n has
    v as its diagonal. (With alpha = 1 it is the redundancy reduction of Barlow Twins, whose weight is 0.0051.)
    `decorrelation` weights the same sum of the student's own C_ss = Z~_s^T Z~_s / n. The paper gives no formula for
    them; that they share the exponent and log of eq. 6 is read from its text. Each takes d^2 floats of memory.

    A feature that is constant over the batch in either network (std up to 8 eps |mean| or 1e-8) has v_i = 0 and a zero
    gradient. So a batch of one gives log2(d), attached to the graph. Half-precision inputs are computed in float32,
    under autocast too; float64 stays float64. Gradients flow to both inputs: pass a detached teacher. Statistics are
    those of the given batch; under DistributedDataParallel that is the batch of one process.

    Raises ValueError unless both are (n, d) with n, d >= 1, alpha > 0, and neither weight is negative.
    Miles, Lopez Rodriguez and Mikolajczyk, Information Theoretic Representation Distillation, BMVC 2022, eq. 6 and
    section 4.1. (Algorithm 1 there prints the un-normalised z in the product: a misprint.) Barlow Twins:
    Zbontar et al., ICML 2021, eq. 1.

    >>> z = torch.tensor([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    >>> round(correlation_loss(z, z, alpha=1.0, log=False).item(), 5)  # 2 * (2/3 - 1)^2
    0.22222
    """
    check_positive("alpha", alpha)
    check_weight("off_diagonal", off_diagonal)
    check_weight("decorrelation", decorrelation)
    check_same_shape("z_s", z_s, "z_t", z_t, "(n, d)")
    n = z_s.shape[0]
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        centred_s, inv_std_s = centre_features(z_s)
        centred_t, inv_std_t = centre_features(z_t)
        covariance = reduce(centred_s * centred_t, "b d -> d", "mean")
        # The variance is divided by n here too, which gives Pearson's r; (n - 1) / n makes it the paper's formula.
        v = covariance * inv_std_s * inv_std_t * ((n - 1) / n)
        total = (v - 1).abs().pow(2 * alpha).sum()
        if off_diagonal or decorrelation:
            standard_s, standard_t = centred_s * inv_std_s, centred_t * inv_std_t
            for weight, other in ((off_diagonal, standard_t), (decorrelation, standard_s)):
                if weight:
                    c = einsum(standard_s, other, "b i, b j -> i j") * ((n - 1) / n**2)
                    total = total + weight * _off_diagonal(c, exponent=2 * alpha)
        return total.log2() if log else total


def _off_diagonal(c: Tensor, *, exponent: float) -> Tensor:
    """Returns sum_{i != j} |c_ij|^exponent, (d, d) -> (); the gradient of an entry 0 is 0 for any exponent."""
    size = c.masked_fill(torch.eye(len(c), dtype=torch.bool, device=c.device), 0).abs()
    zero = size == 0
    return size.masked_fill(zero, 1).pow(exponent).masked_fill(zero, 0).sum()


def centre_features(z: Tensor) -> tuple[Tensor, Tensor]:
    """Returns z minus its mean over the batch (n, d), and 1 / biased std (d,), or 0 where a feature is constant.

    >>> centre_features(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    (tensor([[-1.,  0.],
            [ 1.,  0.]]), tensor([1., 0.]))
    """
    var, mean = torch.var_mean(z, dim=0, correction=0)
    # Rounding of the mean leaves a constant c with a std of about eps * |c|; below 1e-8 the gradient of
    # rsqrt nears the overflow of float32.
    floor = (8 * torch.finfo(z.dtype).eps * mean).square() + 1e-16
    return z - mean, var.masked_fill(var <= floor, math.inf).rsqrt()

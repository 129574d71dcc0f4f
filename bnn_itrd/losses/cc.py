"""CC, correlation congruence: losses that match the relations between the samples of a batch."""

import math

import torch
from einops import einsum
from torch import Tensor, nn

from ._inputs import (
    apply_linear,
    as_float,
    check_count,
    check_positive,
    check_rows,
    check_same_samples,
    check_same_shape,
)
from ._scale import unit

__all__ = ["CC", "cc_consecutive_loss", "cc_loss"]


def cc_loss(z_s: Tensor, z_t: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Returns how much the Gaussian kernels between the batch's samples differ; (n, d_s), (n, d_t) -> ().

        mean_ij (K_s[i, j] - K_t[i, j])^2    x = rows of z, divided by their norm
        K[i, j] = exp(-2 gamma) sum_{p=0}^{order} (2 gamma)^p / p! (x_i . x_j)^p

    K is the Taylor series of exp(-gamma ||x_i - x_j||^2) up to `order`. The mean is over the n^2 pairs, as in the
    paper.

    The loss is 0 where student = teacher. A positive factor per sample, a rotation of one network's features, or
    another order of samples does not change it. A zero row (|z| <= 1e-8) has x = 0 and a zero gradient. Half-precision
    inputs are computed in float32, under autocast too. Gradients flow to both inputs: pass a detached teacher. Only
    samples of the given batch are compared; under DistributedDataParallel that is the batch of one process.

    Raises ValueError unless both are 2-D with the same n (d_s and d_t may differ), gamma > 0, order >= 1.
    Peng, Jin, Liu, Zhou, Wu, Liu, Li and Zhang, Correlation Congruence for Knowledge Distillation, ICCV 2019: L_CC, and
    the generalised kernel with its Taylor series.

    >>> cc_loss(torch.eye(2), 3 * torch.eye(2)).item()
    0.0
    """
    _check_kernel(gamma, order)
    check_same_samples(z_s, z_t)
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        return (_kernel(z_s, gamma, order) - _kernel(z_t, gamma, order)).square().mean()


def cc_consecutive_loss(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns the mean product of consecutive samples' differences; (n, d), (n, d) -> ().

    It is ``mean_i sum_d |z_s - z_t|[i, d] |z_s - z_t|[i+1, d]``, over the n - 1 pairs of neighbours in the batch. This
    is the form of RepDistiller, in code of the paper's authors, instead of the paper's kernel. The usual weight is
    0.02. The loss depends on the order of the samples. It is 0 where student = teacher, and already where every second
    sample agrees. For a batch of one it is 0, attached to the graph. Precision and gradients are as in `cc_loss`.

    Raises ValueError unless both are (n, d).

    >>> cc_consecutive_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]])).item()
    2.0
    """
    check_same_shape("z_s", z_s, "z_t", z_t, "(n, d)")
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        delta = (z_s - z_t).abs()
        return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)


class CC(nn.Module):
    """Compares relations between samples after a projection of both representations; (n, d_s), (n, d_t) -> ().

    `embed_s` and `embed_t` are trainable Linear layers to `embed_dim` features. Train both with the student's optimiser
    and drop them afterwards. (As published, nothing but their initial values keeps them from becoming constant, for
    which the loss is 0.) There are two forms, each with its own usual weight:
    - `form="consecutive"`, RepDistiller's and the default, is `cc_consecutive_loss`, with weight 0.02.
    - `form="kernel"`, the paper's, is `cc_loss` with gamma and order. With their defaults it is below 1, so the weight
      0.02 does not fit it.

    Raises ValueError if a size is < 1, `form` is unknown, gamma <= 0 or order < 1; forward raises it if d_s or d_t
    differs. Peng et al., ICCV 2019; embedding of 128 features.

    >>> CC(4, 8)(torch.rand(3, 4), torch.rand(3, 8)).shape
    torch.Size([])
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        embed_dim: int = 128,
        form: str = "consecutive",
        gamma: float = 0.4,
        order: int = 2,
    ) -> None:
        super().__init__()
        check_count("student_dim", student_dim)
        check_count("teacher_dim", teacher_dim)
        check_count("embed_dim", embed_dim)
        if form not in ("consecutive", "kernel"):
            raise ValueError(f'form must be "consecutive" or "kernel", got {form!r}')
        _check_kernel(gamma, order)
        self.student_dim, self.teacher_dim = student_dim, teacher_dim
        self.form, self.gamma, self.order = form, gamma, order
        self.embed_s = nn.Linear(student_dim, embed_dim)
        self.embed_t = nn.Linear(teacher_dim, embed_dim)

    def forward(self, z_s: Tensor, z_t: Tensor) -> Tensor:
        check_rows("z_s", z_s, self.student_dim)
        check_rows("z_t", z_t, self.teacher_dim)
        with torch.autocast(z_s.device.type, enabled=False):
            z_s = apply_linear(self.embed_s, z_s)
            z_t = apply_linear(self.embed_t, z_t)
            if self.form == "kernel":
                return cc_loss(z_s, z_t, gamma=self.gamma, order=self.order)
            return cc_consecutive_loss(z_s, z_t)

    def extra_repr(self) -> str:
        return f"form={self.form!r}" + (f", gamma={self.gamma}, order={self.order}" if self.form == "kernel" else "")


def _check_kernel(gamma: float, order: int) -> None:
    check_positive("gamma", gamma)
    check_count("order", order)


def _kernel(z: Tensor, gamma: float, order: int) -> Tensor:
    """Returns the kernel matrix K of `cc_loss`, (n, d) -> (n, n)."""
    x = unit(z)
    cosine = einsum(x, x, "i d, j d -> i j")
    # Horner's rule: 1 + a (1 + a / 2 (1 + a / 3 ...)).
    series = torch.ones_like(cosine)
    for p in range(order, 0, -1):
        series = 1 + 2 * gamma / p * cosine * series
    return math.exp(-2 * gamma) * series

"""DIST: a loss on logits, the correlation of student and teacher within each sample and within each class."""

import math

import torch
from einops import reduce
from torch import Tensor, nn

from ._inputs import as_float, check_positive, check_same_shape, check_weight

__all__ = ["DIST", "dist_loss"]


def dist_loss(student: Tensor, teacher: Tensor, *, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0) -> Tensor:
    """Returns how far the class probabilities of two logits are from being correlated; (n, k), (n, k) -> ().

    It is ``tau^2 (beta (1 - mean_n r(rows)) + gamma (1 - mean_k r(columns)))``. r is Pearson's correlation between
    student and teacher, taken on softmax(logits / tau). A row has one sample's probabilities (the paper's
    "inter-class"), and a column one class's probabilities over the batch ("intra-class"). Each mean of 1 - r lies
    between 0 (student = teacher) and 2. The usual weight is 1 with beta = gamma = 1. The paper's recipes use beta =
    gamma = 2, with tau = 4 on CIFAR-100 and tau = 1 on ImageNet.

    A row or column that is constant in either network (norm up to 1e-8 after centring, or constant but for rounding)
    has r = 0 and a zero gradient. So a batch of one has 1 as its intra-class term. (The published code adds 1e-8 to the
    product of the norms instead.) Half-precision inputs are computed in float32, under autocast too. Gradients flow to
    both inputs: pass a detached teacher. A column spans the given batch; under DistributedDataParallel that is the
    batch of one process.

    Raises ValueError unless both are (n, k), beta and gamma >= 0 and tau > 0.
    Huang, You, Wang, Qian and Xu, Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, sec. 4; tau^2 is the
    published code's.

    >>> z = torch.tensor([[1.0, 2.0, 4.0], [4.0, 1.0, 2.0]])
    >>> round(abs(dist_loss(z, z).item()), 5)
    0.0
    """
    check_weight("beta", beta)
    check_weight("gamma", gamma)
    check_positive("tau", tau)
    check_same_shape("student", student, "teacher", teacher, "(n, k)")
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = as_float(student, teacher)
        p_s, p_t = (student / tau).softmax(dim=1), (teacher / tau).softmax(dim=1)
        inter = 1 - _pearson(p_s, p_t).mean()
        intra = 1 - _pearson(p_s.T, p_t.T).mean()
        return tau**2 * (beta * inter + gamma * intra)


class DIST(nn.Module):
    """Computes `dist_loss` with fixed beta, gamma and tau, and raises as it does; (n, k), (n, k) -> ().

    >>> DIST()(torch.rand(4, 3), torch.rand(4, 3)).shape
    torch.Size([])
    """

    def __init__(self, *, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0) -> None:
        super().__init__()
        check_weight("beta", beta)
        check_weight("gamma", gamma)
        check_positive("tau", tau)
        self.beta, self.gamma, self.tau = beta, gamma, tau

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return dist_loss(student_logits, teacher_logits, beta=self.beta, gamma=self.gamma, tau=self.tau)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, gamma={self.gamma}, tau={self.tau}"


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Returns Pearson's correlation of each row of a with the same row of b; (m, d), (m, d) -> (m,)."""
    return (_standardise(a) * _standardise(b)).sum(dim=1)


def _standardise(x: Tensor) -> Tensor:
    """Returns each row less its mean, divided by its norm, or 0 where it is constant; (m, d) -> (m, d)."""
    mean = reduce(x, "m d -> m 1", "mean")
    centred = x - mean
    square = reduce(centred.square(), "m d -> m 1", "sum")
    # Rounding of the mean leaves a constant row with a norm of about eps * |mean| * sqrt(d).
    floor = x.shape[1] * (8 * torch.finfo(x.dtype).eps * mean).square() + 1e-16
    return centred * square.masked_fill(square <= floor, math.inf).rsqrt()

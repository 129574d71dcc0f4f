"""DKD, decoupled knowledge distillation: a loss on logits with separate terms for the true class and the others."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._inputs import as_float, check_positive, check_same_shape, check_weight

__all__ = ["DKD", "dkd_loss"]


def dkd_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float = 1.0, beta: float = 8.0, tau: float = 4.0
) -> Tensor:
    """Returns the distillation loss of two logits, split by true class; (n, k), (n, k), (n,) int64 -> (), in nats.

        tau^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s))
        p = softmax(logits / tau)    b = (p_y, 1 - p_y), y the label    q_j = p_j / (1 - p_y), j != y

    The first term compares the probability of the true class (the paper's TCKD), the second the distribution among the
    k - 1 others (NCKD). Both are summed over classes and averaged over the n samples. Plain KD is TCKD + (1 - p_y of
    the teacher) NCKD, so there the second term vanishes where the teacher is sure. The loss is 0 where student =
    teacher up to a constant per sample.

    The usual weight is 1 (cross-entropy 1), rising linearly over the first 20 epochs. The authors use alpha = 1 and tau
    = 4, with beta = 8 for most pairs of networks on CIFAR-100 (2 or 6 for several); on ImageNet beta = 0.5 and tau = 1.

    The published code removes the true class by subtracting 1000 from its logit. Here it is left out, so that logits of
    any size are exact. Half-precision inputs are computed in float32, under autocast too. Gradients flow to both
    inputs: pass a detached teacher.

    Raises ValueError unless both are (n, k) with k >= 2, labels int64 of shape (n,), alpha and beta >= 0, tau > 0.
    For labels outside 0 to k - 1 PyTorch's gather raises.
    Zhao, Cui, Song, Qiu and Liang, Decoupled Knowledge Distillation, CVPR 2022, eq. 7 (the KD they start from is eq. 4
    to 6).

    >>> z = torch.tensor([[1.0, 2.0, 4.0]])
    >>> round(abs(dkd_loss(z + 1, z, torch.tensor([2])).item()), 5)
    0.0
    """
    _check_hyperparameters(alpha, beta, tau)
    check_same_shape("student", student, "teacher", teacher, "(n, k)")
    n, k = student.shape
    if k < 2:
        raise ValueError(f"student must have k >= 2 classes, got shape {tuple(student.shape)}")
    if labels.shape != (n,) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape ({n},), got {labels.dtype} of shape {tuple(labels.shape)}")
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = as_float(student, teacher)
        (target_s, others_s), (target_t, others_t) = (_split(x / tau, labels) for x in (student, teacher))
        tckd = _kl(_binary(target_s, others_s), _binary(target_t, others_t))
        nckd = _kl(others_s, others_t)
        return tau**2 * (alpha * tckd + beta * nckd)


class DKD(nn.Module):
    """Computes `dkd_loss` with fixed alpha, beta and tau, and raises as it does; (n, k), (n, k), (n,) -> (), in nats.

    >>> DKD()(torch.rand(4, 3), torch.rand(4, 3), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([])
    """

    def __init__(self, *, alpha: float = 1.0, beta: float = 8.0, tau: float = 4.0) -> None:
        super().__init__()
        _check_hyperparameters(alpha, beta, tau)
        self.alpha, self.beta, self.tau = alpha, beta, tau

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        return dkd_loss(student_logits, teacher_logits, labels, alpha=self.alpha, beta=self.beta, tau=self.tau)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, tau={self.tau}"


def _check_hyperparameters(alpha: float, beta: float, tau: float) -> None:
    check_weight("alpha", alpha)
    check_weight("beta", beta)
    check_positive("tau", tau)


def _split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the logit of the true class, and the others in order, per sample; (n, k), (n,) -> (n, 1), (n, k - 1)."""
    label = labels[:, None]
    index = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, label), logits.gather(1, index + (index >= label))


def _binary(target: Tensor, others: Tensor) -> Tensor:
    """Returns logits for "true class" and "any other class", (n, 1), (n, k - 1) -> (n, 2)."""
    return torch.cat([target, others.logsumexp(dim=1, keepdim=True)], dim=1)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    log_p_s, log_p_t = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    return F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True)

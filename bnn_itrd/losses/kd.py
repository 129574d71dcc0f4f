"""KD: the knowledge distillation loss of Hinton et al., on softened class probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._inputs import as_float, check_positive, check_same_shape

__all__ = ["KD", "soft_kl"]


def soft_kl(student: Tensor, teacher: Tensor, *, tau: float = 4.0) -> Tensor:
    """Returns how much the softened class probabilities of two logits differ; (n, c), (n, c) -> (), in nats.

    It is ``tau^2 * KL(softmax(teacher / tau) || softmax(student / tau))``, summed over the c classes and averaged over
    the n samples ("batchmean"). tau^2 keeps the size of the gradient, tau * (p_s - p_t) / n, independent of tau where
    tau is large. Half-precision inputs are computed in float32, under autocast too. Gradients flow to both inputs: pass
    a detached teacher.

    Raises ValueError unless both are (n, c) and tau > 0.
    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, sec. 2.

    >>> z = torch.tensor([[0.0, 0.0]])
    >>> round(soft_kl(z, torch.tensor([[100.0, 0.0]]), tau=1.0).item(), 4)  # ln 2
    0.6931
    """
    check_positive("tau", tau)
    check_same_shape("student", student, "teacher", teacher, "(n, c)")
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = as_float(student, teacher)
        log_p_s = F.log_softmax(student / tau, dim=1)
        log_p_t = F.log_softmax(teacher / tau, dim=1)
        return tau**2 * F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True)


class KD(nn.Module):
    """Computes `soft_kl` at a fixed temperature; (n, c), (n, c) -> (), in nats.

    It has no weight of its own. The usual total, of RepDistiller's CIFAR-100 runs, is 0.1 * cross-entropy + 0.9 * KD at
    tau = 4, where KD includes the factor tau^2, as here.

    Raises ValueError unless tau > 0. Hinton, Vinyals and Dean 2015, sec. 2.

    >>> KD(tau=4.0)(torch.ones(2, 3), torch.zeros(2, 3)).item()
    0.0
    """

    def __init__(self, tau: float = 4.0) -> None:
        super().__init__()
        check_positive("tau", tau)
        self.tau = tau

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return soft_kl(student_logits, teacher_logits, tau=self.tau)

    def extra_repr(self) -> str:
        return f"tau={self.tau}"

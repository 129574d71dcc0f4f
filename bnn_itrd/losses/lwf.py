"""LwF, learning without forgetting: a second classifier of the student predicts the teacher's class probabilities."""

import torch
from torch import Tensor, nn

from ._inputs import apply_linear, check_count, check_positive, check_rows, check_same_shape
from .kd import soft_kl

__all__ = ["LwF"]


class LwF(nn.Module):
    """Compares a second classifier on the student's features with the teacher's logits; (n, d), (n, k) -> (), in nats.

    It is ``KL(softmax(teacher / tau) || softmax(head(z_s) / tau))``. `head` is a Linear(d, k) on the student's
    representation, for the teacher's k classes, which need not be the student's. It is trained with the student's
    optimiser and dropped afterwards. The paper writes the cross-entropy, which differs from this only by a constant,
    the teacher's entropy. As there, and unlike in `soft_kl`, there is no factor tau^2. The usual weight is 1. The loss
    is computed in float32 at least, under autocast too. Gradients flow to both inputs: pass detached teacher logits.

    Raises ValueError for sizes < 1 or tau <= 0; forward raises it for inputs of other widths.
    Li and Hoiem, Learning without Forgetting, TPAMI 2017, eq. 2 and 3, without the old task's images. Ahn et al.,
    Variational Information Distillation for Knowledge Transfer, CVPR 2019, sec. 3.2 of its workshop version, use it
    instead of KD where teacher and student have different classes.

    >>> loss = LwF(4, 10)
    >>> loss(torch.zeros(2, 4), loss.head(torch.zeros(2, 4))).item()
    0.0
    """

    def __init__(self, student_dim: int, teacher_classes: int, *, tau: float = 2.0) -> None:
        super().__init__()
        check_count("student_dim", student_dim)
        check_count("teacher_classes", teacher_classes)
        check_positive("tau", tau)
        self.student_dim, self.teacher_classes, self.tau = student_dim, teacher_classes, tau
        self.head = nn.Linear(student_dim, teacher_classes)

    def forward(self, z_s: Tensor, teacher_logits: Tensor) -> Tensor:
        check_rows("z_s", z_s, self.student_dim)
        check_rows("teacher_logits", teacher_logits, self.teacher_classes)
        with torch.autocast(z_s.device.type, enabled=False):
            answers = apply_linear(self.head, z_s)
            check_same_shape("the head's answers", answers, "teacher_logits", teacher_logits, "(n, k)")
            return soft_kl(answers, teacher_logits, tau=self.tau) / self.tau**2

    def extra_repr(self) -> str:
        return f"tau={self.tau}"

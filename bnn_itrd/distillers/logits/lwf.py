"""LwF (learning without forgetting): a separate head of the student predicts the teacher's class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnn_itrd.distillers.method import Facts, Method
from bnn_itrd.distillers.setting import Setting

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["LwFConfig"]


@dataclass(frozen=True, kw_only=True)
class LwFConfig(Method):
    """Trains an extra head of the student to predict a teacher whose classes may differ (LwF; Li and Hoiem 2017).

    Args:
        tau: temperature by which the logits are divided before the softmax
    """

    facts = Facts(
        matches="softened logits of the teacher (of other classes, too) and of a head of their own on the student's "
        "representation",
        owns="linear head",
        reduction="sum over classes, mean over samples",
        source="Li 2017, as in Ahn 2019",
    )
    positive = ("tau",)

    tau: float = 2.0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.lwf import LwF

        return LwF(setting.student.representation, setting.teacher.logits, tau=self.tau)

    def term(self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        result: Tensor = loss(student.representation, teacher.logits)
        return result

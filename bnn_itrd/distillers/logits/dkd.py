"""DKD (decoupled knowledge distillation): KD with one weight for the label's class and another for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfLogits

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["DKDConfig"]


@dataclass(frozen=True, kw_only=True)
class DKDConfig(OfLogits):
    """Compares softened class probabilities, with a weight for the label's class and one for the others (Zhao 2022).

    Args:
        warmup_epochs: epochs in which the weight rises from 0; 20 of 240 in the paper
        alpha: weight of the part for the label's class
        beta: weight of the part for the other classes; the paper has 8, and 2 or 6 for some pairs of networks
        tau: temperature by which the logits are divided before the softmax
    """

    facts = Facts(
        matches="target and non-target part of softened logits",
        reduction="as `kd`",
        source="Zhao 2022",
    )
    reads_labels = True
    positive = ("tau",)

    warmup_epochs: float = 20.0
    alpha: float = 1.0
    beta: float = 8.0
    tau: float = 4.0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.dkd import DKD

        return DKD(alpha=self.alpha, beta=self.beta, tau=self.tau)

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.logits, teacher.logits, labels)
        return result

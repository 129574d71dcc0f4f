"""DKD: decoupled softened logits."""

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
    """Compares softened logits, the label's class and the other classes apart (Zhao et al. 2022).

    Args:
        warmup_epochs: epochs in which the weight rises from 0; 20 of 240 in the paper
        alpha: weight of the target part
        beta: weight of the non-target part; 8, and 2 or 6 for several pairs
        tau: temperature
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

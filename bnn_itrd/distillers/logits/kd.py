"""KD (knowledge distillation), in which the student learns the teacher's softened class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfLogits

__all__ = ["KDConfig"]


@dataclass(frozen=True, kw_only=True)
class KDConfig(OfLogits):
    """Compares the student's softened class probabilities with the teacher's (KD; Hinton et al. 2015).

    Args:
        weight: weight of the term; 0.9 is usual, together with a weight of 0.1 for the cross-entropy (ce)
        tau: temperature by which the logits are divided before the softmax
    """

    facts = Facts(
        matches="softened logits",
        reduction="with `ce: 0.1`; sum over classes, mean over samples, times tau²",
        source="Hinton 2015",
    )
    positive = ("tau",)

    weight: float = 0.9
    tau: float = 4.0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.kd import KD

        return KD(tau=self.tau)

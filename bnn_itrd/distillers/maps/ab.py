"""AB: boundaries of activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfAllStages

__all__ = ["ABConfig"]


@dataclass(frozen=True, kw_only=True)
class ABConfig(OfAllStages):
    """Trains the student's maps to have the teacher's signs, in a preparation before the training (Heo et al. 2019).

    Args:
        weight: weight of the loss in the preparation
        warmup_epochs: 0: the term ends before the training begins
        final: 1, for the same reason
        margin: distance from its boundary that an activation should have
        preparation_epochs: epochs of the preparation
        preparation_lr: learning rate of the preparation; that of the training by default
    """

    facts = Facts(
        matches="signs of all stages' maps, with a margin",
        owns="connectors where shapes differ",
        reduction="sum over elements, mean over samples, stages halved towards the first",
        source="Heo 2019",
    )
    positive = ("margin",)

    weight: float = 3e-3
    margin: float = 1.0
    preparation_epochs: int = 30
    preparation_lr: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.preparation_epochs >= 1, "preparation_epochs", ">= 1: it learns nowhere else")
        self._require_preparation_lr(self.preparation_lr)
        self._require_no_schedule()

    @property
    def only_prepares(self) -> bool:
        return True

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.ab import AB

        return AB(*self.shapes(setting), margin=self.margin)

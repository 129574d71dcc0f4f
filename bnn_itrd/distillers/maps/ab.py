"""AB (activation boundaries): a distillation method that gives the student's features the signs of the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfAllStages

__all__ = ["ABConfig"]


@dataclass(frozen=True, kw_only=True)
class ABConfig(OfAllStages):
    """Trains the student's stages, before the training proper, to the signs of the teacher's (AB; Heo et al. 2019).

    Args:
        weight: weight of the loss in these first epochs
        warmup_epochs: must be 0, because the loss is used only before the training
        final: must be 1, for the same reason
        margin: distance from 0 that an activation should have, on the side of the teacher's
        preparation_epochs: number of epochs before the training
        preparation_lr: learning rate in these epochs; null means the training's
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
        self._require(self.preparation_epochs >= 1, "preparation_epochs", ">= 1, since ab is used only in them")
        self._require_preparation_lr(self.preparation_lr)
        self._require_no_schedule()

    @property
    def only_prepares(self) -> bool:
        return True

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.ab import AB

        return AB(*self.shapes(setting), margin=self.margin)

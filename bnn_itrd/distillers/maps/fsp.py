"""FSP (flow of solution procedure), a distillation method that compares how features change between stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfAllStages

__all__ = ["FSPConfig"]


@dataclass(frozen=True, kw_only=True)
class FSPConfig(OfAllStages):
    """Compares Gram matrices between the features of neighbouring stages (FSP; Yim et al. 2017).

    Args:
        preparation_epochs: number of epochs before the training in which the student learns from this loss alone, as in
            the paper; if it is above 0, the loss is not used in the training itself, and its weight has no schedule
        preparation_lr: learning rate in these epochs; null means the training's
    """

    facts = Facts(
        matches="Gram matrices of neighbouring stages (equal channels)",
        reduction="mean over entries, sum over pairs of stages",
        source="Yim 2017",
    )
    least = 2

    weight: float = 50.0
    preparation_epochs: int = 0
    preparation_lr: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_preparation_lr(self.preparation_lr)
        rule = "null unless preparation_epochs is above 0"
        self._require(self.preparation_lr is None or self.only_prepares, "preparation_lr", rule)
        if self.only_prepares:
            self._require_no_schedule()

    @property
    def only_prepares(self) -> bool:
        return self.preparation_epochs > 0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.fsp import FSP

        return FSP(*self.shapes(setting))

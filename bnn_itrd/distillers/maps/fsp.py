"""FSP: flow between neighbouring stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfAllStages

__all__ = ["FSPConfig"]


@dataclass(frozen=True, kw_only=True)
class FSPConfig(OfAllStages):
    """Compares Gram matrices between neighbouring stages (Yim et al. 2017).

    Args:
        preparation_epochs: epochs in which the student is trained on this alone first, as in the paper; the term then
            takes no further part, and has no schedule
        preparation_lr: learning rate of the preparation; that of the training by default
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
        rule = "none without preparation_epochs"
        self._require(self.preparation_lr is None or self.only_prepares, "preparation_lr", rule)
        if self.only_prepares:
            self._require_no_schedule()

    @property
    def only_prepares(self) -> bool:
        return self.preparation_epochs > 0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.fsp import FSP

        return FSP(*self.shapes(setting))

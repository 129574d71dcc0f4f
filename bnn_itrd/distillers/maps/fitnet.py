"""FitNet, a distillation method in which one stage of the student learns the features of the teacher's stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfOneStage

__all__ = ["FitNetConfig"]


@dataclass(frozen=True, kw_only=True)
class FitNetConfig(OfOneStage):
    """Compares the outputs of one stage, the student's after a learned 1x1 convolution (FitNet; Romero et al. 2015).

    Args:
        stage: number of the stage, from 0, or from the end with -1; null is the middle one
    """

    facts = Facts(
        matches="map of one stage, the middle one by default",
        owns="1x1 convolution",
        reduction="mean over elements",
        source="Romero 2015",
    )

    weight: float = 100.0
    stage: int | None = None

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.fitnet import FitNet

        return FitNet(*self.shapes(setting))

"""FitNet: regression of the teacher's map of one stage, the hint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfOneStage

__all__ = ["FitNetConfig"]


@dataclass(frozen=True, kw_only=True)
class FitNetConfig(OfOneStage):
    """Compares the maps of one stage, the student's through a learned 1x1 convolution (Romero et al. 2015).

    Args:
        stage: which map, from 0, or from the end with -1; the middle one by default
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

"""ICKD (inter-channel correlation), a distillation method that compares how channels correlate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfOneStage

__all__ = ["ICKDConfig"]


@dataclass(frozen=True, kw_only=True)
class ICKDConfig(OfOneStage):
    """Compares the correlations between the channels of one stage's output (ICKD; Liu et al. 2021).

    Args:
        stage: number of the stage, from 0, or from the end with -1
    """

    facts = Facts(
        matches="correlation between the channels of one stage",
        owns="1x1 convolution and BatchNorm",
        reduction="sum over a row, mean over rows and samples",
        source="Liu 2021",
    )

    weight: float = 2.5
    stage: int = -1

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.ickd import ICKD

        return ICKD(*self.shapes(setting))

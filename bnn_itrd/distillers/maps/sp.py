"""SP (similarity preserving), a distillation method that compares how similar the samples of a batch are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfOneStage

__all__ = ["SPConfig"]


@dataclass(frozen=True, kw_only=True)
class SPConfig(OfOneStage):
    """Compares the similarities between a batch's samples, from one stage's output (SP; Tung and Mori 2019).

    Args:
        stage: number of the stage, from 0, or from the end with -1
    """

    facts = Facts(
        matches="similarities between samples, of one stage's map",
        reduction="mean over the n² pairs",
        source="Tung 2019",
        own_part="{name}",
    )

    weight: float = 3000.0
    stage: int = -1

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.sp import sp_loss

        return sp_loss
